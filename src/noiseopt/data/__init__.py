"""Data sets: uint8 tensors in memory, by name or from your own folder or archive, and their random splits."""

from noiseopt.data.dataset import Dataset, to_unit
from noiseopt.data.load import load
from noiseopt.data.sources import DATASETS, MIRRORS, Source
from noiseopt.data.splits import Split, split, split_off

__all__ = ["DATASETS", "MIRRORS", "Dataset", "Source", "Split", "load", "split", "split_off", "to_unit"]
