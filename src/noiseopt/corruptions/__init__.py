"""The four corruptions of the papers, batched, on the images' device: `glass_blur(images, severity=3, generator=g)`.

Severities and semantics are those of CIFAR-10-C and Tiny-ImageNet-C (Hendrycks & Dietterich, *Benchmarking neural
network robustness to common corruptions and perturbations*, ICLR 2019). `RandomNoise` is noise of any strength.
"""

from noiseopt.corruptions.glass import glass_blur
from noiseopt.corruptions.perturbation import CORRUPTIONS, Corruption
from noiseopt.corruptions.pixelwise import contrast, gaussian_noise, impulse_noise
from noiseopt.corruptions.random_noise import RandomNoise, random_noise_at

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "RandomNoise",
    "contrast",
    "gaussian_noise",
    "glass_blur",
    "impulse_noise",
    "random_noise_at",
]
