"""Learnable noise on the neurons of any PyTorch model (Xiao, Zhang, Peng: *Noise Optimization for ANNs*)."""

from noiseopt.noise import compiled as _compiled  # noqa: F401  (defines the operator that compiled models call)
from noiseopt.noise.attaching import continue_from, remove
from noiseopt.noise.draws import count_votes, draw_logits
from noiseopt.noise.injection import inject, sigmas, split_parameters
from noiseopt.noise.layer import GaussianNoise
from noiseopt.noise.objective import OBJECTIVES, SigmaObjective
from noiseopt.noise.optimiser import SigmaAdam
from noiseopt.noise.streaming import has_noise, noise, seed, stream, turn
from noiseopt.noise.zoo import TRAINED_BY, ZOO

__all__ = [
    "OBJECTIVES",
    "TRAINED_BY",
    "ZOO",
    "GaussianNoise",
    "SigmaAdam",
    "SigmaObjective",
    "continue_from",
    "count_votes",
    "draw_logits",
    "has_noise",
    "inject",
    "noise",
    "remove",
    "seed",
    "sigmas",
    "split_parameters",
    "stream",
    "turn",
]
