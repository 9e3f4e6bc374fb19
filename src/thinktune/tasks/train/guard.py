"""Which steps must not change the adapter: decided on the device, so that no step waits for it.

Made by `lifecycle`, called by the optimizers. A step whose loss or gradient is not finite, or whose
gradient is far larger than those before it, is skipped; the host reads the counts later and ends
the training where there are too many. The guard's state goes into checkpoints: a resumed training
skips the same steps.
"""

import torch

WARMUP_STEPS = 10
"""Steps before a gradient can be called large."""
WINDOW_STEPS = 50
"""About how many steps the running mean of the norm looks back on."""


class SpikeGuard:
    """Running mean of the gradient norm, and what was skipped."""

    def __init__(self, factor: float | None, device: torch.device) -> None:
        self._factor = factor
        self._mean = torch.zeros((), device=device)
        self._seen = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)
        """Steps skipped so far."""

    def judge(self, loss: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """1 where the step must be skipped, else 0: float32, a scalar on the device."""
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        if self._factor is not None:
            bad |= (self._seen >= WARMUP_STEPS) & (norm > self._factor * self._mean)
        weight = 1 / torch.clamp(self._seen + 1, max=WINDOW_STEPS)
        self._mean = torch.where(bad, self._mean, torch.lerp(self._mean, norm.float(), weight))
        skip = bad.float()
        self._seen += 1 - skip
        self.skipped += skip
        return skip

    def usual(self) -> torch.Tensor:
        """The running mean of the norms of the steps that were taken; a skipped one does not move
        it."""
        return self._mean

    def state(self) -> list[float]:
        """The guard's state for a checkpoint; waits for the device."""
        return [float(x) for x in (self._mean, self._seen, self.skipped)]

    def load(self, state: list[float]) -> None:
        """Takes over what `state` gave."""
        tensors = (self._mean, self._seen, self.skipped)
        for tensor, value in zip(tensors, state, strict=True):
            tensor.fill_(value)
