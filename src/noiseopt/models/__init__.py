"""Models: images in [0, 1] → logits, with the normalisation as the first layer.

>>> net = build("mlp", seed=0, activation="sigmoid")
>>> net = build("my_package.my_module:make_net", seed=0, width=3)  # your own, by import path
"""

from noiseopt.models.autoencoder import autoencoder
from noiseopt.models.build import MODELS, build, load_external
from noiseopt.models.lenet import lenet
from noiseopt.models.networks import Normalize, cnn, mlp
from noiseopt.models.resnet import resnet18, resnet34
from noiseopt.models.sources import origin, sources_of

__all__ = [
    "MODELS",
    "Normalize",
    "autoencoder",
    "build",
    "cnn",
    "lenet",
    "load_external",
    "mlp",
    "origin",
    "resnet18",
    "resnet34",
    "sources_of",
]
