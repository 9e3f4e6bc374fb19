"""The learning rate of each step: a function of the step, so a resume has nothing to restore.

Called by `lifecycle`.
"""

import math

from thinktune.schema.recipe import TrainSpec


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
