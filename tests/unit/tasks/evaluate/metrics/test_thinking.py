"""Metrics of how a model thinks."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from answers import judged as judged_sample
from answers import sample

from thinktune.tasks.evaluate.metrics.loops import loops
from thinktune.tasks.evaluate.metrics.reflections_per_1k import count_reflections
from thinktune.tasks.evaluate.metrics.registry import Registry
from thinktune.tasks.evaluate.samples import Judged

METRICS = Registry.discover()


def words(text: str) -> int:
    return len(text.split())


def judged(text: str, opens: bool = False) -> Judged:
    return judged_sample(sample(text, opens=opens), count_tokens=words)


def figure(name: str, questions: Sequence[Sequence[Judged]]) -> float | None:
    metric = METRICS[name]
    return metric.figure(questions, metric.scores(questions))


FOUR = [
    [judged("<think>wait, one two</think>4")],
    [judged("one two three four five", True)],
    [judged("<think>\n</think>4")],
    [judged("4")],
]


def test_figures_of_four_answers() -> None:
    shares = ("thinking_truncated", "thinking_empty", "thinking_absent")
    assert [figure(name, FOUR) for name in shares] == [0.25, 0.25, 0.25]
    assert METRICS["thinking_tokens_median"].scores(FOUR) == [3, 5, 0, None]
    assert figure("thinking_tokens_median", FOUR) == 3
    assert figure("thinking_tokens_p95", FOUR) == pytest.approx(4.8)
    assert figure("reflections_per_1k", FOUR) == pytest.approx(1000 / 8)
    assert figure("loops", FOUR) == 0


def test_several_answers_to_one_question() -> None:
    one = [[answers[0] for answers in FOUR]]
    assert METRICS["thinking_truncated"].scores(one) == [0.25]
    assert figure("thinking_tokens_median", one) == 3
    assert figure("reflections_per_1k", one) == pytest.approx(1000 / 8)


def test_a_model_that_does_not_think_has_no_lengths() -> None:
    silent = [[judged("4")]]
    for name in ("thinking_tokens_median", "thinking_tokens_p95", "reflections_per_1k"):
        assert figure(name, silent) is None
        assert METRICS[name].scores(silent) == [None]
    for metric in METRICS:
        with pytest.raises(ValueError, match="no samples"):
            metric.figure([], [])


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


def test_lengths_of_whole_answers() -> None:
    answers = [[replace(judged("x"), sample=replace(sample("x"), tokens=n))] for n in (3, 5, 100)]
    assert figure("answer_tokens_median", answers) == 5
    assert figure("answer_tokens_p95", answers) == pytest.approx(90.5)
