"""K draws: the same whatever shares a pass, prefix once, differentiable, bounded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise import draw_logits, inject, noise
from noiseopt.noise.draws import _fans_out


class Skip(nn.Module):
    """The first noise is inside a branch, so an earlier activation meets a later one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        return self.head(x + torch.relu(self.branch(x)))


class Tokens(nn.Module):
    """Flattens tokens into the batch before the first noise layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        x = torch.relu(self.first(x.reshape(n * 2, 3)))
        return self.head(x.view(n, 2, 4).mean(1))


def _models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    example = torch.rand(2, 1, 2, 3)
    return {
        "all": inject(plain, example_input=example, init=0.5),
        "last only": inject(plain, example_input=example, where=["3"], init=0.5),
        "skip": inject(Skip(), example_input=example, where=["branch", "head"], init=0.5),
        "tokens": inject(Tokens(), example_input=example, init=0.5),
    }


@pytest.mark.parametrize("name", ["all", "last only", "skip", "tokens"])
@pytest.mark.parametrize("memory", [1, 700, 2**30])
def test_a_draw_does_not_depend_on_what_shares_its_pass(name: str, memory: int) -> None:
    model = _models()[name].eval()
    images, ids = torch.rand(4, 1, 2, 3), torch.tensor([7, 3, 100, 4])
    chunks = list(draw_logits(model, images, draws=6, seed=1, samples=ids, first_draw=10, memory=memory))
    if memory == 1:
        assert len(chunks) == 6
    whole = torch.cat(chunks)
    assert whole.shape == (6, 4, 3)
    for k in range(6):
        for i in range(4):
            (one,) = draw_logits(model, images[i : i + 1], draws=1, seed=1, samples=ids[i : i + 1], first_draw=10 + k)
            torch.testing.assert_close(one[0, 0], whole[k, i], rtol=1e-5, atol=1e-5)
    differences = (whole[:, None] - whole[None]).abs().amax(-1) + torch.eye(6)[..., None]
    assert differences.min() > 1e-4  # no two draws of an image are alike


def test_layers_before_the_first_noise_run_once() -> None:
    seen: dict[str, list[int]] = {}
    for name, model in _models().items():
        model.eval()
        images = torch.rand(4, 1, 2, 3)
        list(draw_logits(model, images, draws=5, seed=0))  # learns what the model allows
        layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
        seen[name] = []
        handles = [
            m.register_forward_pre_hook(lambda m, args, name=name: seen[name].append(len(args[0]))) for m in layers
        ]
        list(draw_logits(model, images, draws=5, seed=0))
        for handle in handles:
            handle.remove()
    assert seen == {"all": [4, 20], "last only": [4, 4], "skip": [20, 20, 20], "tokens": [40, 20]}


def test_training_mode_draws_dropout_for_every_copy() -> None:
    model = inject(
        nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 3)),
        example_input=torch.rand(2, 1, 2, 3),
        sigma=1e-9,
    )
    assert not _fans_out(model.train(), torch.ones(1, 1, 2, 3), 0)
    logits = torch.cat(list(draw_logits(model, torch.ones(1, 1, 2, 3), draws=30, seed=0)))
    assert len(logits[:, 0].round(decimals=4).unique(dim=0)) > 5
    assert _fans_out(model.eval(), torch.ones(1, 1, 2, 3), 0)


@pytest.mark.parametrize("name", ["all", "skip"])
def test_gradients_flow_and_are_the_mean_of_single_draws(name: str) -> None:
    model = _models()[name].eval()
    images = torch.rand(3, 1, 2, 3, requires_grad=True)

    def gradient(draws: int, first: int, memory: int = 2**30) -> Tensor:
        total = torch.zeros_like(images)
        for logits in draw_logits(model, images, draws=draws, seed=0, first_draw=first, memory=memory):
            total += torch.autograd.grad(logits.square().sum(), images)[0]
        return total

    together = gradient(8, 5)
    torch.testing.assert_close(gradient(8, 5, memory=500), together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sum(gradient(1, 5 + k) for k in range(8)), together, rtol=1e-4, atol=1e-5)


def test_no_noise_needs_one_pass() -> None:
    model = _models()["all"]
    with noise(model, on=False):
        assert [c.shape for c in draw_logits(model, torch.rand(4, 1, 2, 3), draws=9, seed=0)] == [(1, 4, 3)]


def test_a_model_that_returns_no_logits_is_refused() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.layer(x.flatten(1))}

    model = inject(Wrong(), example_input=torch.rand(2, 1, 2, 3))
    with pytest.raises(UserError, match="returns its logits"):
        list(draw_logits(model, torch.rand(4, 1, 2, 3), draws=2, seed=0))
    with pytest.raises(UserError, match="at least 1"):
        list(draw_logits(model, torch.rand(4, 1, 2, 3), draws=0, seed=0))


def test_a_flag_that_changes_the_model_later_costs_no_draw() -> None:
    class Flagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head, self.skip = nn.Linear(6, 6), nn.Linear(6, 3), False

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return self.head(self.first(x) + (x if self.skip else 0))

    model = inject(Flagged(), example_input=torch.rand(2, 1, 2, 3), where=["first"], init=0.5).eval()
    images = torch.rand(4, 1, 2, 3)
    list(draw_logits(model, images, draws=3, seed=1))
    model.skip = True
    drawn = torch.cat(list(draw_logits(model, images, draws=3, seed=1)))
    fresh = inject(Flagged(), example_input=torch.rand(2, 1, 2, 3), where=["first"], init=0.5).eval()
    fresh.load_state_dict(model.state_dict())
    fresh.skip = True
    torch.testing.assert_close(drawn, torch.cat(list(draw_logits(fresh, images, draws=3, seed=1))))
