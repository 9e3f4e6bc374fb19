"""What FP8 products do to the loss: 300 steps with and without, same seed and data.

Called by `gpu`. The model has a real shape and random weights; the documents repeat phrases, so
that there is something to learn. For scale: what another order of the same documents makes in
half precision makes.
"""

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from train import Cell, make_loop

from thinktune.tasks.train.examples import TrainExample
from thinktune.tasks.train.loop import Data

STEPS = 300
DOCUMENTS, PHRASES, WORDS = 64, 40, 24
LAST = 50
"""Steps at the end whose mean loss is compared."""
CELL = Cell("r1-distill-qwen-1.5b", row_tokens=8192, batch_size=8)


def compare() -> dict[str, Any]:
    """Loss at both ends, and the differences."""
    half, small = losses(CELL), losses(replace(CELL, fp8=True))
    other = losses(CELL, shuffle=1)
    return {
        "steps": STEPS,
        "first_loss": round(float(half[0]), 4),
        "last_loss": round(float(half[-LAST:].mean()), 4),
        "last_loss_fp8": round(float(small[-LAST:].mean()), 4),
        "mean_difference_fp8": round(float((small - half).abs().mean()), 5),
        "largest_difference_fp8": round(float((small - half).abs().max()), 5),
        "last_loss_other_order": round(float(other[-LAST:].mean()), 4),
    }


def losses(cell: Cell, shuffle: int = 0) -> np.ndarray:
    """Of each step."""
    torch.manual_seed(0)
    loop, _, metrics = make_loop(cell, Data(phrased(shuffle), []))
    for step in range(STEPS):
        loop.step(step)
    loop.finish()
    found = np.array([float(row["loss"] or 0) for row in metrics.rows()])
    del loop
    gc.collect()
    torch.cuda.empty_cache()
    return found


def phrased(shuffle: int) -> list[TrainExample]:
    """Documents of some 1,000 tokens: phrases of a fixed set in random order."""
    draw = np.random.default_rng(0)
    phrases = draw.integers(0, 50_000, (PHRASES, WORDS)).astype(np.int32)
    ids = [phrases[draw.integers(0, PHRASES, draw.integers(20, 60))] for _ in range(DOCUMENTS)]
    examples = [TrainExample(str(n), d.reshape(-1), WORDS) for n, d in enumerate(ids)]
    order = np.random.default_rng(shuffle).permutation(DOCUMENTS)
    return [examples[n] for n in order] if shuffle else examples
