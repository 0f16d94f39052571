"""Training: weights and σ together, each with its own optimiser (Algorithm 1 of Xiao et al.).

`train` is the whole loop. It runs on one device or, under `accelerate launch`, in several processes; this
file alone knows the engine. Everything random is a function of the seed, the step and the image: a run that
was killed goes on as if nothing had happened, and several processes draw the noise that one would.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from noiseopt.allocation import keep_freed_memory
from noiseopt.concepts import Perturbation, perturbed
from noiseopt.data import Dataset, Split
from noiseopt.data.augment import augment
from noiseopt.errors import UserError
from noiseopt.history import Epoch, History, RunFolder, Training, sigma_statistics
from noiseopt.noise import SigmaObjective, noise, sigmas, split_parameters, stream, turn
from noiseopt.noise.attaching import undecayed
from noiseopt.noise.modes import evaluating, learning
from noiseopt.optimizers import optimizers_of
from noiseopt.paired import PairedLoss
from noiseopt.plain import parts_of, plain
from noiseopt.refusals import check_finite, check_fits, check_paired, check_split
from noiseopt.streams import MASK32
from noiseopt.tasks import Task, task_of
from noiseopt.threads import threads_that_fit, using_threads

__all__ = ["Epoch", "History", "Training", "train"]

_MEASURED_AT_ONCE = 1000


def train(
    model: nn.Module,
    data: Split,
    training: Training,
    *,
    seed: int = 0,
    objective: SigmaObjective | None = None,
    perturbation: Perturbation | None = None,
    paired: PairedLoss | None = None,
    noise_validation: bool = False,
    test_curve: bool = False,
    run_dir: str | os.PathLike[str] | None = None,
    about: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    precision: Literal["no", "bf16"] = "no",
    tracker: Literal["tensorboard"] | None = None,
    progress: Callable[[int, int, Epoch], None] | None = None,
) -> History:
    """Train `model` in place, its noise as it is switched, and leave it on `device`.

    With a `run_dir` every epoch ends with a checkpoint, and the same call goes on from there after an
    interruption; on the CPU, with as many threads, the weights are then bit for bit those of an uninterrupted
    run. A finished run returns at once. On the CPU the process keeps what memory it frees (`noiseopt.allocation`).

    Args:
        model: images in [0, 1] → logits. It is trained in training mode, all of it, and every part has the mode that
            it had afterwards; batch statistics that shall stay need a `train` method that says so.
        data: `train` is trained on; `validation` only draws curves; `test` is looked at only for
            `test_curve`.
        training: the settings.
        seed: of the order of the images, of the noise and of dropout; in [0, 2⁶³).
        objective: what σ minimises; None: the training loss, as in the paper.
        perturbation: adversarial training: every batch is replaced by what this makes of it.
        paired: with `perturbation`: the batch is kept, and the loss is of both, as `noiseopt.paired.TRADES` and `Mixed`
            are. Each image and its perturbed copy see the same noise, in a pass each.
        noise_validation: is the noise on for the curves?
        test_curve: also measure the accuracy on the test images after every epoch.
        run_dir: folder of `checkpoint.safetensors`, `curves.jsonl` and, where there is noise,
            `sigma.safetensors`.
        about: plain values to keep in the checkpoint, such as how to build the model; like the settings, the model's
            architecture and the public attributes of a perturbation or an objective of your own they may not change
            between a run and its continuation (what those count or keep, they keep as `_name`).
        device: "cpu", "cuda", ...; None: the accelerator, where there is one. `accelerate launch` gives every
            process its own GPU.
        precision: "bf16" runs the model under bfloat16 autocast; weights and σ stay as they are.
        tracker: "tensorboard" writes the curves there too, below `run_dir`.
        progress: called after every epoch as `progress(epoch, epochs, line)`, epochs counted from 1.

    Raises:
        UserError: no such device, images that do not fit the model, a loss that is not finite any more, or a
            checkpoint in `run_dir` that is damaged or of other settings.
    """
    if precision not in ("no", "bf16"):
        raise UserError("precision must be 'no' or 'bf16'", got=precision, fix="precision='no'")
    check_split(data)
    engine, place = _engine(device, tracker, run_dir)
    if place.type == "cpu":
        keep_freed_memory()
    rank, processes = engine.process_index, engine.num_processes
    objective = objective or SigmaObjective()
    check_paired(paired, perturbation, training)
    identity = {f"training.{name}": value for name, value in training.model_dump(exclude_none=True).items()}
    identity |= {f"about.{name}": value for name, value in (about or {}).items()}
    identity |= {"seed": seed, "precision": precision, "objective": plain(objective)}
    identity |= {"perturbation": plain(perturbation), "noise_validation": noise_validation}
    if paired is not None:
        identity |= {"paired": plain(paired)}
    identity |= {"data.train": data.train.hash, "data.validation": data.validation.hash}
    identity |= {"test_curve": data.test.hash if test_curve else None}

    model.to(place)
    for tensor in [*model.parameters(), *model.buffers()]:
        broadcast(tensor.data)
    train_set, validation_set = data.train.to(place), data.validation.to(place)
    test_set = data.test.to(place) if test_curve else None
    task = task_of(training.task)
    check_fits(model, train_set, training)
    identity |= {f"model.{name}": part for name, part in parts_of(model).items()}
    run = RunFolder(run_dir, identity=identity, writes=engine.is_main_process)
    if objective.held_out:
        train_set = _without_held_out(train_set, objective, seed)
    weights, levels = ([p for p in part if p.requires_grad] for part in split_parameters(model))
    optimizers = optimizers_of(weights, levels, training, free=undecayed(model), folds=objective.folds)
    start = {name: s.detach().to("cpu", copy=True) for name, s in sigmas(model).items()}
    curves, before = run.resume(model, optimizers)
    history = _history(model, curves, start if before is None else before)
    if training.epochs:
        run.publish(history)
    else:  # no epoch will end with a checkpoint
        run.keep(model, optimizers, history)

    # Usually one phase: all step together. Where σ is to see the weights' step, two.
    phases = [[o] for o in optimizers.values()] if objective.alternates else [list(optimizers.values())]
    asked = bool(levels) or objective.shared
    steps, epochs = -(-len(train_set) // training.batch_size), training.epochs_on(len(train_set))
    autocast = torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16")
    with evaluating(model), noise(model, on=False):
        threads = threads_that_fit(model, train_set.batch(torch.arange(1))[0], batch_size=training.batch_size)
    for epoch in range(len(curves), epochs):
        started = time.perf_counter()
        objective.begin_epoch(epoch)
        watched = objective.watching(model)
        # Dropout and its like draw from torch's global generators; the caller's are given back after the
        # epoch.
        forked = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
        with using_threads(threads), learning(model), forked, watched:
            torch.manual_seed(_derived(seed, "torch", epoch, rank))
            shuffle = torch.Generator().manual_seed(_derived(seed, "shuffle", epoch))
            order = torch.randperm(len(train_set), generator=shuffle).to(place)
            last = steps if training.steps is None else training.steps - epoch * steps
            batches = order.split(training.batch_size)[:last]
            losses = torch.zeros(len(batches), device=place)
            for i, batch in enumerate(batches):
                step = epoch * steps + i
                if weights:
                    for group in optimizers["weights"].param_groups:
                        group["lr"] = training.lr_at(epoch, step)
                # A process has every k-th image of the batch. One left without any works on a stand-in that
                # counts 0.
                mine = batch[rank::processes]
                share = len(mine) / len(batch)
                images, labels, ids = train_set.batch(mine if share else batch[:1])
                if training.augment:
                    images = augment(images, samples=ids, seed=seed, epoch=epoch)
                starts = (ids + epoch * 0x9E3779B1) & MASK32  # an attack starts elsewhere in every epoch
                attacked = images
                if perturbation is not None:
                    with autocast, evaluating(model), turn(model, step):
                        attacked = perturbed(perturbation, model, images, labels, samples=starts)
                    if paired is None:
                        images = attacked
                for stepping in phases:
                    place_in_stream: dict[str, Any] = {"seed": seed, "samples": ids, "step": step}
                    with autocast, stream(model, **place_in_stream):
                        outputs = model(images).float()
                        if paired is None:
                            loss = task.loss(outputs, images, labels)
                        else:
                            with stream(model, **place_in_stream):  # from its beginning: the same noise again
                                loss = paired(outputs, model(attacked).float(), labels)
                        target = loss
                        if asked:
                            with turn(model, step):
                                target = objective.loss(model, images, labels, loss, samples=starts)
                    for parameter in (*weights, *levels):
                        parameter.grad = None
                    if target is loss or objective.shared:  # σ's gradient is a by-product of the weights' (Theorem 1)
                        target.backward()
                    else:
                        gradients = torch.autograd.grad(target, levels, retain_graph=True, materialize_grads=True)
                        loss.backward()
                        for level, gradient in zip(levels, gradients, strict=True):
                            level.grad = gradient
                    if processes > 1:
                        _sum_gradients(engine, [*weights, *levels], share)
                    objective.after_backward(levels)
                    for optimizer in stepping:
                        optimizer.step()
                    if stepping is phases[0]:
                        losses[i] = loss.detach() * share  # not looked at here: a GPU would wait for it
                if levels:
                    objective.after_step(levels)

            losses = engine.reduce(losses, "sum").cpu()
            for buffer in model.buffers():
                broadcast(buffer)
            with evaluating(model), noise(model, on=noise_validation), autocast:
                key = _derived(seed, "validation")
                validation_loss, validation_accuracy = _measure(
                    engine, model, validation_set, task, seed=key, step=epoch
                )
                test = None if test_set is None else _measure(engine, model, test_set, task, seed=key, step=epoch)
        check_finite(losses, validation_loss, epoch, training)
        sizes = torch.tensor([len(batch) for batch in batches])
        line = Epoch(
            epoch=epoch + 1,
            train_loss=float((losses * sizes).sum() / sizes.sum()),
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            validation_noise=noise_validation,
            test_accuracy=None if test is None else test[1],
            sigma=sigma_statistics(sigmas(model)),
            seconds=time.perf_counter() - started,
        )
        history = _history(model, [*history.epochs, line], history.sigma_before)
        run.keep(model, optimizers, history)
        engine.log(line.scalars(), step=line.epoch)
        if progress is not None and engine.is_main_process:
            progress(line.epoch, epochs, line)
    engine.wait_for_everyone()
    for open_tracker in engine.trackers:
        open_tracker.finish()
    return history


def _engine(
    device: str | torch.device | None, tracker: str | None, run_dir: str | os.PathLike[str] | None
) -> tuple[Accelerator, torch.device]:
    """accelerate's view of this process, and the device to work on."""
    if tracker not in (None, "tensorboard"):
        raise UserError("tracker must be None or 'tensorboard'", got=tracker, fix="tracker='tensorboard'")
    if tracker and importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed", fix="pip install 'noiseopt[tensorboard]'")
    if tracker and run_dir is None:
        raise UserError("TensorBoard's files go into run_dir", got="run_dir=None", fix="pass run_dir too")
    try:
        wanted = None if device is None else torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError("device must be one that this torch has", got=f"{device} ({error})", fix="use cpu") from None
    # accelerate has one state in a process, and keeps it. So it only hears of the CPU where it must, to
    # connect the processes; and precision is torch.autocast's business.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    on_cpu = wanted.type == "cpu" if wanted is not None else not torch.accelerator.is_available()
    engine = Accelerator(cpu=several and on_cpu, log_with=tracker, project_dir=run_dir)
    if tracker:
        engine.init_trackers("tensorboard")
    return engine, engine.device if wanted is None or engine.num_processes > 1 else wanted


def _without_held_out(data: Dataset, objective: SigmaObjective, seed: int) -> Dataset:
    """The images that the weights train on; the objective is given the others."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(_derived(seed, "held out")))
    kept = objective.trained_on(len(data))
    if not 0 < kept < len(data):
        got = f"{objective.held_out:g} of {len(data)} images"
        raise UserError("held_out must leave an image on both sides", got=got, fix="held_out=0.1")
    rest = data.subset(order[kept:])
    objective.hold(rest.batch, len(rest))
    return data.subset(order[:kept])


def _sum_gradients(engine: Accelerator, parameters: Sequence[nn.Parameter], share: float) -> None:
    """Gradients of every process's mean → that of the batch's mean: Σ share × gradient, in one transfer."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = engine.reduce(torch.cat([g.flatten() for g in gradients]) * share, "sum")
    for gradient, summed in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


@torch.no_grad()
def _measure(
    engine: Accelerator, model: nn.Module, data: Dataset, task: Task, *, seed: int, step: int
) -> tuple[float, float]:
    """(mean loss, mean score), the noise as it is switched; for a model in eval mode."""
    totals = torch.zeros(2, device=data.images.device)
    batches = torch.arange(len(data), device=data.images.device).split(_MEASURED_AT_ONCE)
    for index in batches[engine.process_index :: engine.num_processes]:
        images, labels, ids = data.batch(index)
        with stream(model, seed=seed, samples=ids, step=step):
            outputs = model(images).float()
        totals[0] += task.loss(outputs, images, labels) * len(images)
        totals[1] += task.score(outputs, images, labels).sum()
    loss, accuracy = (engine.reduce(totals, "sum") / len(data)).tolist()
    return loss, accuracy


def _history(model: nn.Module, curves: Sequence[Epoch], before: Mapping[str, Tensor]) -> History:
    after = {name: s.detach().to("cpu", copy=True) for name, s in sigmas(model).items()}
    return History(tuple(curves), dict(before), after)


def _derived(seed: int, *purpose: object) -> int:
    """Another seed in [0, 2⁶³) for each purpose, unlike those of neighbouring seeds."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
