"""What the fused path and FP8 products do to the loss: the same steps plain, fused, and in FP8.

Called by `gpu`. The model has a real shape and random weights; the documents repeat phrases, so
that there is something to learn. Seed, data and order are the same.
"""

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from train import Case, make_training

from thinktune.tasks.train.sft.examples import Data, TrainExample

STEPS, PLAIN_STEPS = 300, 200
DOCUMENTS, PHRASES, WORDS = 64, 40, 24
LAST = 50
"""Steps at the end whose mean loss is compared."""
CASE = Case("r1-distill-qwen-1.5b", row_tokens=8192, batch_size=8)


def compare() -> dict[str, Any]:
    """Loss at both ends, and the differences."""
    fused, fp8 = losses(CASE, STEPS), losses(replace(CASE, fp8=True), STEPS)
    plain = losses(replace(CASE, path="plain"), PLAIN_STEPS)
    return {
        "first_loss": round(float(fused[0]), 4),
        "last_loss": round(float(fused[-LAST:].mean()), 4),
        "fused_against_plain": difference(fused[:PLAIN_STEPS], plain),
        "fp8_against_fused": difference(fp8, fused),
    }


def difference(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Of two curves, relative to the second."""
    apart = np.abs(one - other) / other
    return {
        "steps": len(one),
        "mean": round(float(apart.mean()), 6),
        "largest": round(float(apart.max()), 6),
        "last_mean_losses": round(float(one[-LAST:].mean() / other[-LAST:].mean() - 1), 6),
    }


def losses(case: Case, steps: int) -> np.ndarray:
    """Of each step."""
    torch.manual_seed(0)
    training = make_training(case, Data(phrased(), []))
    for step in range(steps):
        training.lifecycle.step(step)
    training.lifecycle.finish()
    found = np.array([float(row["loss"] or 0) for row in training.metrics.rows()])
    del training
    gc.collect()
    torch.cuda.empty_cache()
    return found


def phrased() -> list[TrainExample]:
    """Documents of some 500 tokens: phrases of a fixed set in random order."""
    draw = np.random.default_rng(0)
    phrases = draw.integers(0, 50_000, (PHRASES, WORDS)).astype(np.int32)
    ids = [phrases[draw.integers(0, PHRASES, draw.integers(10, 30))] for _ in range(DOCUMENTS)]
    return [TrainExample(str(n), d.reshape(-1), WORDS) for n, d in enumerate(ids)]
