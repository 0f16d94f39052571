"""Eq. 7 of Xiao et al.: Adam for σ, with ε inside the root, and σ ← |σ|."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from noiseopt.errors import UserError
from noiseopt.noise.kernels import choose


class SigmaAdam(Optimizer):
    """The σ update of the paper:

        h ← β₁ h + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²,   ĥ = h / (1 - β₁ᴺ),   v̂ = v / (1 - β₂ᴺ)
        σ ← | σ - α ĥ / √(v̂ + ε) |

    It differs from `torch.optim.Adam` in two places: ε is inside the root, and σ is folded back to ≥ 0, so that no σ
    can be negative after the first step (which is why |σ| and its sign matter only before it). No weight decay.

    Args:
        params: the second list of `split_parameters`, or parameter groups.
        lr: α; the paper's 1e-3.
        betas: β₁, β₂, each in [0, 1).
        eps: ε > 0.
        fold: end with σ ← |σ|, as Eq. 7 does?
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        fold: bool = True,
    ) -> None:
        listed: list[Any] = list(params)
        if not listed:
            raise UserError("SigmaAdam needs at least one σ", got="none", fix="inject with sigma='learned'")
        if not lr >= 0:
            raise UserError("lr must be at least 0", got=lr, fix="lr=1e-3")
        if not all(0 <= beta < 1 for beta in betas):
            raise UserError("betas must lie in [0, 1)", got=betas, fix="betas=(0.9, 0.999)")
        if not eps > 0:
            raise UserError("eps must be above 0", got=eps, fix="eps=1e-8")
        super().__init__(listed, {"lr": lr, "betas": betas, "eps": eps, "fold": fold})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every σ that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            settings = {name: group[name] for name in ("lr", "betas", "eps", "fold")}
            for sigma in group["params"]:
                if sigma.grad is None:
                    continue
                state = self.state[sigma]
                half = _moments(sigma) != sigma.dtype
                if not state:
                    like = torch.zeros_like(sigma, dtype=_moments(sigma))
                    state.update(step=0, h=like, v=like.clone())
                state["step"] += 1
                step = choose(sigma.device).sigma_step
                level, grad = (sigma.float(), sigma.grad.float()) if half else (sigma, sigma.grad)
                step(level, grad, state["h"], state["v"], step=state["step"], **settings)
                if half:
                    sigma.copy_(level)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which would give the moments of a σ in half precision its own type."""
        super().load_state_dict(state_dict)
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        sigmas = chain.from_iterable(group["params"] for group in self.param_groups)
        for name, sigma in zip(saved, sigmas, strict=True):
            for moment in ("h", "v"):
                if name in state_dict["state"]:
                    value = state_dict["state"][name][moment]
                    self.state[sigma][moment] = value.to(sigma.device, _moments(sigma), copy=True)


def _moments(sigma: Tensor) -> torch.dtype:
    """The type of h and v: half precision has no room for squares."""
    return torch.float32 if sigma.dtype in (torch.float16, torch.bfloat16) else sigma.dtype
