"""Draws tokens for rows that each have a seed of their own. The transformers engine uses it.

A library's own sampling draws all rows of a batch from one generator, so that what a question is
answered depends on the questions beside it. Here a row's draws depend on its seed and its logits
alone.
"""

from collections.abc import Sequence

import numpy as np
import torch


class Drawing:
    """The draws of one batch, a token of each row at a time."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        """`temperature` is above 0."""
        self._generators = [np.random.default_rng(seed) for seed in seeds]
        self._temperature = temperature
        self._top_p = top_p

    def next(self, logits: torch.Tensor) -> torch.Tensor:
        """The drawn token of each row, (rows,), from its logits, (rows, vocabulary)."""
        uniform = [generator.random() for generator in self._generators]
        # Logits that are no numbers leave nothing to draw from; the first token stands for them.
        logits = torch.nan_to_num(logits, nan=-torch.inf)
        probabilities = torch.softmax(logits.float() / self._temperature, dim=-1)
        ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        reached = ordered.cumsum(dim=-1)
        # The likeliest tokens until their sum reaches top_p, at least one.
        kept = (reached - ordered < self._top_p).sum(dim=-1, keepdim=True).clamp(min=1)
        mass = reached.gather(1, kept - 1)
        drawn = torch.tensor(uniform, dtype=reached.dtype, device=reached.device)[:, None] * mass
        position = torch.searchsorted(reached, drawn, right=True).minimum(kept - 1)
        return tokens.gather(1, position)[:, 0]
