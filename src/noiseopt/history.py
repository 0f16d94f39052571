"""What training is asked for and what it leaves behind: settings, curves, σ before and after, the checkpoint.

The checkpoint is the only truth; `curves.jsonl` and `sigma.safetensors` are copies of what it holds, for
people and for the report, and are written again from it at every start. So they agree with it whenever the
process was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from noiseopt import checkpoint
from noiseopt.errors import UserError

_Inverse = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
_Decay = tuple[Annotated[float, Field(gt=0, le=1)], Annotated[int, Field(ge=1)]]


class Training(BaseModel):
    """How to train; the defaults are those of the MNIST networks in Table 1 of Xiao et al."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(30, ge=0, description="passes over the training images; 0: the network stays as it comes")
    steps: int | None = Field(None, ge=1, description="stop after so many steps, whatever `epochs` says, unless 0")
    batch_size: int = Field(128, ge=1, description="images in a step, over all processes; the last has the rest")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="of the weights; σ always has SigmaAdam (Eq. 7)")
    lr: float = Field(1e-3, gt=0, description="learning rate of the weights")
    weight_decay: float = Field(1e-4, ge=0, description="L2 on the weights, as torch.optim.Adam's; never on σ")
    momentum: float = Field(0.9, ge=0, lt=1, description='of "sgd"')
    nesterov: bool | None = Field(None, description='of "sgd": Nesterov\'s momentum?')
    lr_decay: _Decay | None = Field(None, description="(factor, every how many epochs), of the weights' lr")
    lr_inv: _Inverse | None = Field(None, description="(γ, power): the lr of step t is lr (1 + γ t)^-power, as Caffe's")
    sigma_lr: float = Field(1e-3, gt=0, description="learning rate of σ")
    task: Literal["classify", "reconstruct"] | None = Field(None, description="None: to classify")
    augment: bool | None = Field(None, description="random crops (padding 4) and flips of the training images?")

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            fix = f"the settings are {', '.join(type(self).model_fields)}"
            raise UserError(f"training.{name}: {first['msg']}", got=first["input"], fix=fix) from None

    def epochs_on(self, images: int) -> int:
        """Passes over so many images, the last perhaps not a whole one."""
        if self.steps is None or not self.epochs:
            return self.epochs
        return -(-self.steps // -(-images // self.batch_size))

    def lr_at(self, epoch: int, step: int) -> float:
        """The weights' learning rate in an epoch and at a step, both counted from 0."""
        factor, every = self.lr_decay or (1.0, 1)
        gamma, power = self.lr_inv or (0.0, 0.0)
        return float(self.lr * factor ** (epoch // every) * (1 + gamma * step) ** -power)


class Epoch(BaseModel):
    """One epoch's point on the curves, and one line of `curves.jsonl`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int = Field(ge=1, description="counted from 1")
    train_loss: float = Field(description="mean loss over the epoch's steps, as trained on")
    validation_loss: float = Field(description="mean loss of the validation images, after the epoch")
    validation_accuracy: float = Field(description="of a reconstruction: 1 - mean absolute error")
    validation_noise: bool = Field(description="was the noise on for validation (and for test_accuracy)?")
    test_accuracy: float | None = Field(None, description="only where the test curve was asked for")
    sigma: dict[str, dict[str, float]] = Field(description="layer → mean, min, max, rms of σ")
    seconds: float = Field(description="wall-clock time of the epoch, validation included")

    def scalars(self) -> dict[str, float]:
        """As TensorBoard has it: one number per curve."""
        values = self.model_dump(exclude_none=True, exclude={"epoch", "sigma", "validation_noise"})
        return values | {f"sigma/{name}/{what}": v for name, s in self.sigma.items() for what, v in s.items()}


@dataclass(frozen=True)
class History:
    """The curves of a training, and σ by layer at its start and its end (both empty for a plain model)."""

    epochs: tuple[Epoch, ...]
    sigma_before: dict[str, Tensor]
    sigma_after: dict[str, Tensor]


class RunFolder:
    """The folder of one training; without a path it keeps nothing."""

    def __init__(
        self, path: str | os.PathLike[str] | None, *, identity: Mapping[str, Any], writes: bool = True
    ) -> None:
        """`identity`: what may not change between a run and its continuation, as plain values by name.

        `writes`: False in all processes but one.
        """
        self._path = None if path is None else Path(path)
        try:
            # Through JSON, as the checkpoint's comes: tuples become lists there.
            self._identity = json.loads(json.dumps(dict(identity)))
        except (TypeError, ValueError) as error:
            fix = "use numbers, strings, lists and dicts of them"
            raise UserError("about must hold plain values", got=str(error), fix=fix) from None
        self._writes = writes
        if self._path is not None and writes:
            try:
                self._path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                fix = "choose another run_dir"
                raise UserError(f"the folder {path} cannot be made", got=str(error), fix=fix) from None

    def resume(
        self, model: nn.Module, optimizers: Mapping[str, Optimizer]
    ) -> tuple[list[Epoch], dict[str, Tensor] | None]:
        """Fill model and optimisers from the checkpoint; the epochs done, and σ before them (None at the
        start).

        Raises:
            UserError: the checkpoint is damaged, or of another data set, network, seed or setting.
        """
        if self._path is None:
            return [], None
        path = self._path / "checkpoint.safetensors"
        if not path.exists():
            return [], None
        tensors, metadata = checkpoint.load(path)
        try:
            state = _State.model_validate(metadata)
        except ValidationError:
            fix = "choose another run_dir, or remove the file"
            raise UserError(f"{path} is not a checkpoint of training", fix=fix) from None
        self._compare(path, state.identity)
        checkpoint.restore_model(model, tensors, path=path)
        for name, optimizer in optimizers.items():
            checkpoint.restore_optimizer(optimizer, tensors, name=name, path=path)
        before = {k.removeprefix("before/"): v for k, v in tensors.items() if k.startswith("before/")}
        return state.curves, before

    def keep(self, model: nn.Module, optimizers: Mapping[str, Optimizer], history: History) -> None:
        """A checkpoint after an epoch, and its copies."""
        if self._path is None or not self._writes:
            return
        tensors = checkpoint.model_tensors(model)
        for name, optimizer in optimizers.items():
            tensors |= checkpoint.optimizer_tensors(optimizer, name=name)
        tensors |= {f"before/{name}": s for name, s in history.sigma_before.items()}
        curves = [epoch.model_dump() for epoch in history.epochs]
        path = self._path / "checkpoint.safetensors"
        checkpoint.save(path, tensors, {"identity": self._identity, "curves": curves})
        self.publish(history)

    def publish(self, history: History) -> None:
        """Write `curves.jsonl` and, where there is noise, `sigma.safetensors`."""
        if self._path is None or not self._writes:
            return
        if history.sigma_before:
            tensors = {f"before/{name}": s for name, s in history.sigma_before.items()}
            tensors |= {f"after/{name}": s for name, s in history.sigma_after.items()}
            checkpoint.save(self._path / "sigma.safetensors", tensors, {})
        # Last, so that who finds them whole finds σ of the same epoch.
        lines = "".join(epoch.model_dump_json(exclude_none=True) + "\n" for epoch in history.epochs)
        checkpoint.write_atomically(self._path / "curves.jsonl", lines.encode())

    def _compare(self, path: Path, saved: Mapping[str, Any]) -> None:
        known = any(name.startswith("model.") for name in saved)  # older versions did not say
        for name in [*self._identity, *saved]:
            if name.startswith("model.") and not known:
                continue
            then, now = saved.get(name), self._identity.get(name)
            if then != now and name.startswith("model."):
                raise UserError(
                    f"{path} was made with another network, {name.removeprefix('model.')} = {then or 'nothing'}",
                    got=now or "nothing",
                    fix="pass that network, or choose another run_dir (or remove this one to start again)",
                )
            if then != now:
                raise UserError(
                    f"{path} was made with {name} = {then!r}, and a run goes on only with what it began with",
                    got=f"{name} = {now!r}",
                    fix=f"set {name} back, or choose another run_dir (or remove this one to start again)",
                )


class _State(BaseModel):
    """The metadata of a checkpoint of training."""

    model_config = ConfigDict(extra="forbid")

    identity: dict[str, Any]
    curves: list[Epoch]


def sigma_statistics(sigma: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Layer → mean, min, max and root mean square of |σ|."""
    statistics = {}
    for name, values in sigma.items():
        s = values.detach().abs().float()
        statistics[name] = {
            "mean": float(s.mean()),
            "min": float(s.min()),
            "max": float(s.max()),
            "rms": float(s.square().mean().sqrt()),
        }
    return statistics
