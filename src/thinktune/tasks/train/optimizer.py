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
    plain = torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay)
    return plain, f"AdamW{reason}"


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
