"""The denoising autoencoder of Uličný et al. (after Gu & Rigazio 2014) in front of a Model."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from noiseopt.errors import UserError


class Denoised(nn.Module):
    """`model(autoencoder(images))`."""

    def __init__(self, model: nn.Module, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """`images`: `Float[N, C, H, W]` in [0, 1]; returns logits `Float[N, classes]`.

        Raises:
            UserError: the autoencoder gave back another shape.
        """
        cleaned = self.autoencoder(images)
        if cleaned.shape != images.shape:
            raise UserError(
                "an autoencoder returns images of the shape that it was given",
                got=f"{tuple(images.shape)} → {tuple(cleaned.shape)}",
                fix="build it for these images: autoencoder(in_channels=..., image_size=...)",
            )
        return self.model(cleaned)


def denoise(model: nn.Module, autoencoder: nn.Module) -> nn.Module:
    """A Model that sees what `autoencoder` makes of the images.

    Args:
        model: any Model; copied, not changed.
        autoencoder: trained, images in [0, 1] → images of the same shape in [0, 1], such as
            `noiseopt.models.autoencoder`; copied, not changed. The copy is in train or eval mode as `model` is; the
            dropout of an autoencoder is for its own training, and eval mode has none.
    """
    net = Denoised(copy.deepcopy(model), copy.deepcopy(autoencoder).train(model.training))
    net.training = model.training
    return net
