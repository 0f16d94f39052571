"""What an audit or a certificate is about: a model and images, checked before the first attack, and their hashes."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from noiseopt.attacks.settings import check_batch
from noiseopt.data import Dataset, to_unit
from noiseopt.errors import UserError
from noiseopt.models import sources_of
from noiseopt.noise.attaching import to_output
from noiseopt.plain import attributes_of, is_versioned, plain, printed, tensor_digest


@torch.no_grad()
def given(model: nn.Module, data: Dataset | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(images `Float[N, C, H, W]` in [0, 1], labels `Int64[N]`, identities `Int64[N]`), on the model's device.

    Raises UserError where there is no image, images or labels are not of this kind, or the model does not take the
    images or does not know the labels.
    """
    if not isinstance(model, nn.Module):
        raise UserError("the model must be an nn.Module", got=type(model).__name__, fix="pass the model itself")
    if isinstance(data, Dataset):
        images, labels, ids = to_unit(data.images), data.labels, data.ids
    else:
        if not isinstance(data, tuple | list) or len(data) != 2:
            got, fix = type(data).__name__, "pass (images, labels)"
            raise UserError("data must be a Dataset, or images with their labels", got=got, fix=fix)
        images, labels = data
        for name, value in (("images", images), ("labels", labels)):
            if not isinstance(value, Tensor):
                raise UserError(f"{name} must be a tensor", got=type(value).__name__, fix="pass torch tensors")
        images = to_unit(images) if images.dtype == torch.uint8 else images
        ids = torch.arange(len(images), device=images.device)
    device = next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    images, labels, ids = images.to(device), labels.to(device), ids.to(device)
    if len(images) == 0:
        raise UserError("there must be at least one image", got="none", fix="check the data set or its split")
    check_batch(images, labels, ids)
    logits = logits_of(model, images[:1])
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        got, fix = f"labels from {low} to {high}, {logits.shape[1]} logits", "use the model's own data set"
        raise UserError("labels must be classes of the model", got=got, fix=fix)
    return images, labels, ids


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """What the model says of a few images; a UserError where it does not take them, or says something else."""
    try:
        logits = model(images)
    except UserError:
        raise
    except Exception as error:  # whatever a model of the user's raises
        rule = f"the model must take images of {images.dtype} {list(images.shape[1:])}"
        half = any(t.dtype in (torch.float16, torch.bfloat16) for t in model.parameters())
        fix = "wrap it in a module that casts inside" if half else "use the data that it was trained on"
        raise UserError(rule, got=str(error), fix=fix) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError("a model returns logits [N, classes]", got=got, fix="wrap it in a module that does")
    return logits


def hash_of_model(model: nn.Module) -> str:
    """SHA-256 of a model's modules, as they print, of its tensors, and of what else decides what it computes: plain
    attributes, where noise and other hooks take hold, and the files of modules that are neither torch's nor noiseopt's.

    Another model has another hash, unless they differ in an object that is none of these; the same model may have
    another hash later, if it keeps count of its calls, say.
    """
    tensors = model.state_dict() | dict(model.named_buffers())
    named = (f"{name} {tensor_digest(tensor)}" for name, tensor in sorted(tensors.items()))
    lines = [printed(model), *_attributes(model), *_hooks(model), *_sources(model), *named]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _attributes(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        if not type(module).__module__.startswith("noiseopt."):  # whose noise counts its draws, and prints what it is
            for key, value in sorted(attributes_of(module).items()):
                yield f"{name}.{key} = {json.dumps(plain(value), sort_keys=True)}"


def _hooks(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        for kind, hooks in (("before", module._forward_pre_hooks), ("after", module._forward_hooks)):
            for hook in hooks.values():
                if hook is not to_output:  # which the noise layer, as it prints, says already
                    yield f"{kind} {name}: {getattr(hook, '__qualname__', type(hook).__qualname__)}"


def _sources(model: nn.Module) -> Iterator[str]:
    """As far as they can be had: what is typed into an interpreter has none."""
    classes = {type(module) for module in model.modules()}
    own = [kind for kind in classes if not is_versioned(kind)]
    for kind in sorted(own, key=lambda kind: (kind.__module__, kind.__qualname__)):
        with suppress(OSError, TypeError):  # of a notebook's cells, which are no file
            yield inspect.getsource(kind)
    files = {file for kind in own for file in sources_of(kind.__module__)}
    yield from (f"{name} {hashlib.sha256(text).hexdigest()}" for name, text in sorted(files))


def hash_of_images(images: Tensor, labels: Tensor) -> str:
    """SHA-256 of both, their types and shapes."""
    return hashlib.sha256(f"{tensor_digest(images)} {tensor_digest(labels)}".encode()).hexdigest()
