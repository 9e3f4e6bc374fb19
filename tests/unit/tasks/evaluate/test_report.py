import json
import re
from pathlib import Path
from typing import Any

import pytest

from thinktune.schema.recipe import EvaluateSpec
from thinktune.tasks.evaluate.page import write_html
from thinktune.tasks.evaluate.report import build_report
from thinktune.tasks.evaluate.samples import VARIANTS, Question, Sample, Variant
from thinktune.tasks.evaluate.wording import terminal_summary

MARKER = "Final Answer:"
HOSTILE = '<script>alert("x")</script> \x1b[31m {{ 7 * 7 }}'
TRAINING = [
    {"step": 1, "loss": 2.0, "lr": 1e-4, "tokens_per_s": 900.0},
    {"step": 2, "loss": 1.5, "lr": 2e-4, "tokens_per_s": 910.0, "validation_loss": 1.7},
    {"step": 3, "loss": float("nan"), "lr": 2e-4, "tokens_per_s": 905.0},
    {"step": 3, "validation_loss": 1.4},
]
LENGTHS = {"edges": [0, 64, 128], "counts": [10, 4]}


def sample(variant: Variant, question: int, text: str, number: int = 0) -> Sample:
    return Sample(
        question_id=f"q{question}",
        variant=variant,
        sample=number,
        text=text,
        prompt_opens_think=False,
        tokens=len(text.split()),
        finished="</think>" in text,
        reference=str(question),
    )


def report(
    *,
    questions: int = 40,
    marker: str | None = MARKER,
    references: bool = True,
    **spec: Any,
) -> dict[str, Any]:
    samples = []
    for i in range(questions):
        thought = "wait, it is so, I think " * (i + 1)
        base = f"<think>{thought}</think> It is {i if i % 4 else i + 1}. {HOSTILE} so {i}"
        tuned = f"<think>so</think>\nIt is so.\n{MARKER} {i if i % 2 else i + 1}"
        samples += [sample("base", i, base), sample("tuned", i, tuned)]
    asked = [
        Question(
            id=f"q{i}",
            question=f"What is {i}? {HOSTILE}",
            answer=f"It is {i}.",
            reference=str(i) if references else None,
        )
        for i in range(questions)
    ]
    return build_report(
        run="sums-1",
        model="tiny",
        spec=EvaluateSpec(**spec),
        marker=marker,
        questions=asked,
        samples=samples,
        count_tokens=lambda text: len(text.split()),
        versions={"torch": "2.13.0", "thinktune": "0.1.0"},
    )


def test_report_survives_json_and_repeats() -> None:
    made = report()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made == report()
    assert set(made) == {
        *("format", "run", "model", "headline", "questions", "judged_questions"),
        *("samples_per_question", "sampling", "marker", "verifier", "variants", "tests", "flips"),
        *("thinking_lengths", "rules", "side_by_side", "versions"),
    }


def test_figures_of_the_report() -> None:
    made = report()
    base, tuned = made["variants"]["base"], made["variants"]["tuned"]
    assert (base["presence"], tuned["presence"]) == (0.0, 1.0)
    assert (base["accuracy"], tuned["accuracy"]) == (1.0, 0.5)  # the base needs no line
    assert made["verifier"] == {"requested": "auto", "used": "number", "why_none": None}
    accuracy = made["tests"]["accuracy"]
    assert (accuracy["b"], accuracy["c"], accuracy["difference"]) == (20, 0, -0.5)
    assert accuracy["holm_p"] >= accuracy["p_exact"]
    assert made["flips"] == {"correct_to_wrong": 20, "wrong_to_correct": 0}
    assert base["thinking"]["reflections_per_1k"] > tuned["thinking"]["reflections_per_1k"] == 0
    assert [sum(made["thinking_lengths"][v]) for v in VARIANTS] == [40, 40]
    assert "falls from 100.0 % to 50.0 %" in made["headline"]
    assert "100.0 % of its answers" in made["headline"]
    assert len(made["side_by_side"]) == 3


def test_a_difference_that_chance_explains_is_called_so() -> None:
    made = report(questions=3)
    assert "a difference that chance can explain" in made["headline"]
    assert "too few to tell" in made["headline"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"references": False}, "no reference answers"),
        ({"verifier": "none"}, "the recipe asks for no check"),
    ],
)
def test_unmeasured_accuracy_says_why(arguments: dict[str, Any], why: str) -> None:
    # The references of samples come from the questions; without those nothing can be chosen.
    made = report(**arguments)
    assert why in made["headline"]
    assert made["variants"]["base"]["accuracy"] is None
    assert made["tests"]["accuracy"] is made["flips"] is None
    assert made["judged_questions"] == 0


def test_no_marker_no_presence(tmp_path: Path) -> None:
    made = report(marker=None)
    assert made["tests"]["presence"] is None
    assert made["variants"]["tuned"]["presence"] is None
    write_html(made, [], {}, tmp_path / "report.html")
    assert "None" not in (tmp_path / "report.html").read_text()
    assert "None" not in terminal_summary(made)


def test_questions_without_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="0 base of 1 questions"):
        build_report(
            run="r",
            model="m",
            spec=EvaluateSpec(),
            marker=None,
            questions=[Question(id="q0", question="?", answer="", reference=None)],
            samples=[],
            count_tokens=len,
            versions={},
        )


def test_page_is_self_contained_and_escapes_model_text(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(report(), TRAINING, LENGTHS, path)
    page = path.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert "{{ 7 * 7 }}" in page
    assert "http" not in page
    assert not re.search(r"(src|@import|url\()", page.replace("url(#", ""))
    assert page.count("<svg") == 4
    assert page.count("<details>") == 6
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", page)
    write_html(report(), TRAINING, LENGTHS, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == page


def test_page_without_training_leaves_the_figures_out(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(report(side_by_side=0), [], {}, path)
    assert path.read_text().count("<svg") == 2
    assert "Side by side" not in path.read_text()


def test_terminal_summary_is_short_and_plain() -> None:
    summary = terminal_summary(report(side_by_side=9))
    lines = summary.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert all(c.isprintable() for line in lines for c in line)
    assert "Accuracy" in summary
    assert "< 0.001" in summary
    assert summary.count("[right]") + summary.count("[wrong]") == 6
