import random

import pytest

from thinktune.tasks.evaluate.samples import Parsed
from thinktune.tasks.evaluate.thinking import count_reflections, loops, measure
from thinktune.tasks.evaluate.verify import split_thinking


def words(text: str) -> int:
    return len(text.split())


def test_measure() -> None:
    parsed = [
        split_thinking("<think>wait, one two</think>4", False),
        split_thinking("one two three four five", True),
        split_thinking("<think>\n</think>4", False),
        split_thinking("4", False),
    ]
    figures = measure(parsed, words)
    assert (figures.truncated, figures.empty, figures.absent) == (0.25, 0.25, 0.25)
    assert figures.lengths == (3, 5, 0)
    assert figures.tokens_median == 3
    assert figures.tokens_p95 == pytest.approx(4.8)
    assert figures.reflections_per_1k == pytest.approx(1000 / 8)
    assert figures.loops == 0


def test_a_model_that_does_not_think_has_no_lengths() -> None:
    figures = measure([Parsed("", "4", True, False)], words)
    assert figures.tokens_median is figures.tokens_p95 is figures.reflections_per_1k is None
    assert figures.lengths == ()
    with pytest.raises(ValueError, match="no samples"):
        measure([], words)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Wait, no. Hmm, hmmm. Alternatively, four.", 4),
        ("Let me double-check that. Let me re-check. Let me check it again.", 3),
        ("Let me check the sum. I am waiting, awaiting.", 0),
        ("But hold on: I should verify this. I need to double check.", 2),
        ("Actually, no. On second thought, let me reconsider.", 3),
    ],
)
def test_reflections(text: str, count: int) -> None:
    assert count_reflections(text) == count


def test_loops() -> None:
    passage = " ".join(f"word{i}" for i in range(20))
    assert not loops(f"{passage} and {passage}")
    assert loops(f"{passage} and {passage} or {passage}")
    assert loops("ha" * 5000)  # one long word: no passage repeats, but the tail shrinks
    assert not loops("no " * 10)
    generator = random.Random(0)
    prose = " ".join(
        "".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(2000)
    )
    assert not loops(prose)
