"""The optimizer and the learning rate of each step.

Called by `loop`. The schedule is a function of the step, so a resume has nothing to restore.
"""

import math
from collections.abc import Sequence

import torch

from thinktune.spec.recipe import TrainSpec


def make_optimizer(
    train: TrainSpec, parameters: Sequence[torch.nn.Parameter], device: torch.device
) -> tuple[torch.optim.Optimizer, str]:
    """The optimizer, and a sentence for the log that says which it is and why."""
    if train.optimizer == "adamw_8bit" and device.type == "cuda":
        from bitsandbytes.optim import AdamW8bit

        optimizer = AdamW8bit(parameters, lr=train.lr, weight_decay=train.weight_decay)
        return optimizer, "AdamW with 8-bit states"
    reason = ""
    if train.optimizer == "adamw_8bit":
        reason = " (the 8-bit form needs a GPU; the same method in 32 bits)"
    plain = torch.optim.AdamW(
        parameters, lr=train.lr, weight_decay=train.weight_decay, fused=device.type == "cuda"
    )
    return plain, f"AdamW{reason}"


def update(optimizer: torch.optim.Optimizer, skip: torch.Tensor) -> None:
    """One step, or none where `skip` is 1. The fused form decides on the device; the others make
    the host wait for it."""
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = skip  # type: ignore[attr-defined]  # as torch.amp.GradScaler sets it
        optimizer.step()
    elif not bool(skip):
        optimizer.step()


def learning_rate(train: TrainSpec, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of `steps`: a linear rise, then the schedule to 0."""
    warmup = math.ceil(train.warmup * steps)
    if step < warmup:
        return train.lr * (step + 1) / warmup
    if train.schedule == "constant":
        return train.lr
    share = (step - warmup) / max(1, steps - warmup)
    if train.schedule == "linear":
        return train.lr * (1 - share)
    return train.lr * 0.5 * (1 + math.cos(math.pi * share))
