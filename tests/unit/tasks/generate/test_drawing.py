"""Tokens are drawn as the distribution says, and each row by its own seed."""

import numpy as np
import torch

from thinktune.tasks.generate.drawing import Drawing

LOGITS = torch.log(torch.tensor([0.5, 0.25, 0.15, 0.1]))


def frequencies(temperature: float, top_p: float, draws: int = 20_000) -> list[float]:
    drawing = Drawing(range(draws), temperature, top_p)
    drawn = drawing.next(LOGITS.expand(draws, -1)).numpy()
    return [float(share) for share in np.bincount(drawn, minlength=4) / draws]


def test_frequencies_are_the_probabilities() -> None:
    assert np.allclose(frequencies(1.0, 1.0), [0.5, 0.25, 0.15, 0.1], atol=0.015)
    # The two likeliest reach 0.7; the third is not needed.
    assert np.allclose(frequencies(1.0, 0.7), [2 / 3, 1 / 3, 0, 0], atol=0.015)
    assert frequencies(1.0, 0.01) == [1, 0, 0, 0]
    sharp = np.array([0.5, 0.25, 0.15, 0.1]) ** 2
    assert np.allclose(frequencies(0.5, 1.0), sharp / sharp.sum(), atol=0.015)


def test_logits_that_are_no_numbers_end_nothing() -> None:
    nothing = torch.full((2, 4), torch.nan)
    nothing[1, 2] = 3.0
    assert Drawing([1, 2], 1.0, 0.9).next(nothing).tolist()[1] == 2


def test_a_row_is_drawn_by_its_own_seed() -> None:
    flat = torch.zeros(3, 50)
    first, second = Drawing([1, 2, 3], 1.0, 1.0), Drawing([3, 1], 1.0, 1.0)
    steps = [first.next(flat).tolist() for _ in range(5)]
    others = [second.next(flat[:2]).tolist() for _ in range(5)]
    assert [row[2] for row in steps] == [row[0] for row in others]
    assert [row[0] for row in steps] == [row[1] for row in others]
    assert len({tuple(row[n] for row in steps) for n in range(3)}) == 3
