"""Defences: each takes a Model and returns a Model, and so can be stacked (`noiseopt.inject` is one too)."""

from noiseopt.defences.committee import Committee, committee

__all__ = ["Committee", "committee"]
