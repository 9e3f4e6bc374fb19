"""What a step does to the adapter once its gradients are there: norm, guard, clipping, AdamW.

Called by `loop`. Nothing here waits for the device. `zero` does the same over several ranks.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from thinktune.schema.recipe import TrainSpec
from thinktune.tasks.train.guard import SpikeGuard
from thinktune.tasks.train.optimizer import (
    Moments,
    make_optimizer,
    read_moments,
    update,
    write_moments,
)


class Update(Protocol):
    """One optimizer step over however many ranks."""

    name: str
    """For the log: which optimizer, where its state is, and why."""

    def clear(self) -> None:
        """Drops the gradients."""

    def backward(self, loss: torch.Tensor) -> None:
        """Adds a row's gradients: of `loss`, which is this rank's share of a sum over ranks."""

    def step(self, loss: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Changes the adapter, unless the guard says otherwise. Gives the gradient's norm over all
        ranks and 1 where the step was skipped, scalars on the device."""

    def moments(self) -> Moments:
        """For a checkpoint; every rank calls it."""

    def load(self, moments: Moments) -> None:
        """Takes over a checkpoint's; the parameters hold its weights by now."""


class OneRank:
    """`Update` where there is no other rank."""

    def __init__(
        self,
        train: TrainSpec,
        parameters: Sequence[torch.nn.Parameter],
        device: torch.device,
        guard: SpikeGuard,
    ) -> None:
        self._parameters, self._guard = parameters, guard
        self._max_norm = train.max_grad_norm
        self._optimizer, self.name = make_optimizer(train, parameters, device, 1)

    def clear(self) -> None:
        """As `Update.clear`."""
        self._optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: torch.Tensor) -> None:
        """As `Update.backward`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, loss: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Update.step`."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = total_norm(gradients)
        skip = self._guard.judge(loss, norm)
        clip(gradients, norm, self._max_norm)
        self._optimizer.param_groups[0]["lr"] = rate
        update(self._optimizer, skip)
        return norm, skip

    def moments(self) -> Moments:
        """As `Update.moments`."""
        return Moments(*read_moments(self._optimizer, self._parameters))

    def load(self, moments: Moments) -> None:
        """As `Update.load`."""
        write_moments(
            self._optimizer, self._parameters, moments.step, moments.first, moments.second
        )


def total_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Euclidean, over all of them together."""
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def clip(gradients: list[torch.Tensor], norm: torch.Tensor, largest: float) -> None:
    """As `torch.nn.utils.clip_grad_norm_`."""
    torch._foreach_mul_(gradients, torch.clamp(largest / (norm + 1e-6), max=1.0))
