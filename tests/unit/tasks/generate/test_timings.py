"""How long answers took: in the log and beside the artifacts, and in no answer."""

import json
from pathlib import Path

import pytest

from thinktune.store import open_store
from thinktune.tasks.generate.protocol import Answer
from thinktune.tasks.generate.timings import Timing, Timings
from thinktune.tasks.runtime.progress import Reporter


def test_figures_of_an_engine_that_tells_times_and_of_one_that_does_not() -> None:
    told = [Answer(f"q{n}", (1,) * 10, finished=True, seconds=float(n)) for n in range(1, 6)]
    timing = Timing.of("transformers", told, 10.0)
    assert (timing.answers, timing.tokens, timing.answer_s_median) == (5, 50, 3.0)
    assert timing.answer_s_p95 == pytest.approx(4.8)
    assert "50 tokens in 10.0 s (5 tokens/s); an answer 3.00 s, 95% 4.80 s" in timing.line()
    untold = Timing.of("vllm", [Answer("q", (1,) * 10, finished=True)], 2.0)
    assert (untold.answer_s_median, untold.answer_s_p95) == (None, None)
    assert untold.line() == "1 answers, 10 tokens in 2.0 s (5 tokens/s)"


def test_a_time_is_no_part_of_an_answer() -> None:
    assert Answer("q", (1,), finished=True, seconds=3.0) == Answer("q", (1,), finished=True)


def test_all_phases_of_an_attempt_are_in_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(f"file://{tmp_path}")
    timings = Timings(store, "timings/a.json", Reporter(store, "r", "evaluate", "a"))
    for phase in ("generate base", "generate tuned"):
        timings.add(phase, Timing.of("vllm", [Answer("q", (1, 2), finished=True)], 1.0))
    found = json.loads(store.get("timings/a.json"))
    assert list(found) == ["generate base", "generate tuned"]
    assert Timing.parse(found["generate base"], "x").tokens == 2
    assert "evaluate: generate tuned: 1 answers, 2 tokens" in capsys.readouterr().out
