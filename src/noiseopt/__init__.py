"""Put learnable noise into any PyTorch model, train it at almost no extra cost, attack it as hard as it deserves.

>>> net = noiseopt.inject(model, example_input=images[:2])
>>> weights, sigmas = noiseopt.split_parameters(net)
>>> noiseopt.evaluate(net, (images, labels), noiseopt.attacks.PGD(eps=8/255, step_size=2/255, steps=10, draws=20))
"""

from importlib.metadata import PackageNotFoundError, version

from noiseopt import attacks, corruptions, data, defences, models
from noiseopt.concepts import Defence, Model, Perturbation, Record, clean
from noiseopt.errors import UserError
from noiseopt.evaluate import evaluate, predict
from noiseopt.noise import (
    SigmaAdam,
    SigmaObjective,
    inject,
    noise,
    remove,
    seed,
    sigmas,
    split_parameters,
    stream,
)
from noiseopt.train import Training, train

try:
    __version__ = version("noiseopt")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"

__all__ = [
    "Defence",
    "Model",
    "Perturbation",
    "Record",
    "SigmaAdam",
    "SigmaObjective",
    "Training",
    "UserError",
    "attacks",
    "clean",
    "corruptions",
    "data",
    "defences",
    "evaluate",
    "inject",
    "models",
    "noise",
    "predict",
    "remove",
    "seed",
    "sigmas",
    "split_parameters",
    "stream",
    "train",
]
