"""What a step does to the adapter once its gradients are there: norm, guard, clipping, AdamW.

Called by `lifecycle`. The host never waits for the device here. `zero` does the same over several
ranks.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from thinktune.schema.recipe import TrainSpec
from thinktune.tasks.train.guard import SpikeGuard
from thinktune.tasks.train.optimizer import (
    Moments,
    apply_step,
    make_optimizer,
    read_moments,
    write_moments,
)


class AdapterOptimizer(Protocol):
    """One optimizer step over however many ranks."""

    name: str
    """Says in the log which optimizer it is, where its state is, and why."""

    def clear(self) -> None:
        """Drops the gradients."""

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradients of one batch's `loss`, which is this rank's share of a sum over all
        ranks."""

    def step(self, loss: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Changes the adapter, unless the guard says otherwise. Gives the gradient's norm over all
        ranks and 1 where the step was skipped, scalars on the device."""

    def moments(self) -> Moments:
        """The optimizer's state for a checkpoint; every rank calls it."""

    def load(self, moments: Moments) -> None:
        """Takes over a checkpoint's state; the parameters hold its weights by now."""


class SingleRank:
    """`AdapterOptimizer` where there is no other rank."""

    def __init__(
        self,
        train: TrainSpec,
        parameters: Sequence[torch.nn.Parameter],
        device: torch.device,
        guard: SpikeGuard,
    ) -> None:
        self._parameters = parameters
        self._guard = guard
        self._max_norm = train.max_grad_norm
        self._optimizer, self.name = make_optimizer(train, parameters, device, 1)

    def clear(self) -> None:
        """As `AdapterOptimizer.clear`."""
        self._optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: torch.Tensor) -> None:
        """As `AdapterOptimizer.backward`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, loss: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """As `AdapterOptimizer.step`."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = total_norm(gradients)
        skip = self._guard.judge(loss, norm)
        clip(gradients, norm, self._max_norm)
        self._optimizer.param_groups[0]["lr"] = rate
        apply_step(self._optimizer, skip)
        return norm, skip

    def moments(self) -> Moments:
        """As `AdapterOptimizer.moments`."""
        return Moments(*read_moments(self._optimizer, self._parameters))

    def load(self, moments: Moments) -> None:
        """As `AdapterOptimizer.load`."""
        write_moments(
            self._optimizer, self._parameters, moments.step, moments.first, moments.second
        )


def total_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """The Euclidean norm of all gradients together."""
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def clip(gradients: list[torch.Tensor], norm: torch.Tensor, largest: float) -> None:
    """Clips in place as `torch.nn.utils.clip_grad_norm_` does, without computing the norm again."""
    torch._foreach_mul_(gradients, torch.clamp(largest / (norm + 1e-6), max=1.0))
