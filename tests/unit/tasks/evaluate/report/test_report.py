import json
import re
from pathlib import Path
from typing import Any

import pytest

from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.report import VARIANTS, Report, Variant
from thinktune.tasks.evaluate import metrics
from thinktune.tasks.evaluate.metrics import format_rate
from thinktune.tasks.evaluate.metrics.registry import Registry
from thinktune.tasks.evaluate.report.build import build_report, manifest_metrics
from thinktune.tasks.evaluate.report.page import write_html
from thinktune.tasks.evaluate.report.wording import terminal_summary
from thinktune.tasks.evaluate.samples import Question, Sample

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
    found: Registry | None = None,
    **spec: Any,
) -> Report:
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
        engine="transformers",
        spec=EvaluateSpec(**spec),
        marker=marker,
        questions=asked,
        samples=samples,
        count_tokens=lambda text: len(text.split()),
        versions={"torch": "2.13.0", "thinktune": "0.1.0"},
        metrics=found or Registry.discover(),
    )


def test_report_survives_json_and_repeats() -> None:
    made = report()
    plain = made.model_dump(mode="json")
    assert Report.parse(json.loads(json.dumps(plain, allow_nan=False)), "report.json") == made
    assert made == report()
    assert set(plain) == {
        *("format", "run", "model", "engine", "headline", "questions", "samples_per_question"),
        *("sampling", "marker", "verifier", "variants", "metrics", "thinking_lengths", "rules"),
        *("side_by_side", "versions"),
    }
    assert list(plain["metrics"])[:2] == ["format_rate", "accuracy"]
    assert "presence" not in json.dumps(list(plain["metrics"]))


def test_figures_of_the_report() -> None:
    made = report()
    assert made.metrics["format_rate"].values == {"base": 0.0, "tuned": 1.0}
    # The base needs no line.
    assert made.metrics["accuracy"].values == {"base": 1.0, "tuned": 0.5}
    assert made.verifier.model_dump() == {"requested": "auto", "used": "number"}
    assert made.metrics["accuracy"].why_none is None
    accuracy = made.metrics["accuracy"].test
    assert accuracy is not None
    assert (accuracy.only_base, accuracy.only_tuned, accuracy.difference) == (20, 0, -0.5)
    assert accuracy.holm_p >= accuracy.p_exact
    note = made.metrics["accuracy"].note
    assert note is not None
    assert "20 questions went from correct to wrong, 0 from wrong to correct." in note
    reflections = made.metrics["reflections_per_1k"].values
    assert reflections["base"] > reflections["tuned"] == 0  # type: ignore[operator]
    assert [sum(made.thinking_lengths.counts[v]) for v in VARIANTS] == [40, 40]
    assert made.variants["base"].finished == made.variants["tuned"].finished == 1.0
    assert "falls from 100.0% to 50.0%" in made.headline
    assert "100.0% of its answers" in made.headline
    assert len(made.side_by_side) == 3
    assert made.metrics["accuracy"].direction == "higher"
    assert made.metrics["loops"].direction == "lower"


def test_the_manifest_has_the_figures_of_all_metrics() -> None:
    figures = manifest_metrics(report())
    assert figures["questions"] == 40
    assert (figures["base_format_rate"], figures["tuned_format_rate"]) == (0.0, 1.0)
    assert (figures["base_accuracy"], figures["tuned_accuracy"]) == (1.0, 0.5)
    accuracy = report().metrics["accuracy"].test
    assert accuracy is not None
    assert figures["accuracy_mcnemar_p"] == accuracy.p_exact
    assert figures["base_thinking_truncated"] == 0.0
    assert "loops_mcnemar_p" not in figures


def test_a_difference_that_chance_explains_is_called_so() -> None:
    made = report(questions=3)
    assert "a difference that chance can explain" in made.headline
    assert "too few to tell" in made.headline


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
    assert why in made.headline
    accuracy = made.metrics["accuracy"]
    assert accuracy.values == {"base": None, "tuned": None}
    assert accuracy.test is accuracy.note is None
    assert accuracy.questions == 0
    assert accuracy.why_none is not None and why in accuracy.why_none
    assert manifest_metrics(made)["tuned_accuracy"] is None


def test_no_marker_no_format_rate(tmp_path: Path) -> None:
    made = report(marker=None)
    assert made.metrics["format_rate"].test is None
    assert made.metrics["format_rate"].values["tuned"] is None
    write_html(made, [], {}, tmp_path / "report.html")
    assert "None" not in (tmp_path / "report.html").read_text()
    assert "None" not in terminal_summary(made)


NEW_METRIC = """
from thinktune.schema.report import SHARE
from thinktune.tasks.evaluate.metrics.registry import Description, Metric

METRIC = Metric(
    name="short_answers",
    order=15,
    direction="higher",
    unit=SHARE,
    source="the generated text",
    description=Description("Answers in few words", "An answer of at most nine words is short."),
    score=lambda answers: sum(len(a.parsed.answer.split()) <= 9 for a in answers) / len(answers),
    tested=True,
)
"""


def test_a_metric_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = manifest_metrics(report())
    (tmp_path / "short_answers.py").write_text(NEW_METRIC)
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    made = report()

    found = json.loads(made.model_dump_json())["metrics"]["short_answers"]
    assert found["values"] == {"base": 0.0, "tuned": 1.0}
    assert (found["direction"], found["unit"], found["questions"]) == ("higher", "share", 40)
    assert found["test"]["only_tuned"] == 40
    # It is one more test that Holm's adjustment is over.
    alone = report(found=Registry.of_modules([format_rate]))
    assert holm_p(alone, "format_rate") < holm_p(made, "format_rate")

    figures = manifest_metrics(made)
    assert {name: figures[name] for name in before} == before
    assert set(figures) - set(before) == {
        *("base_short_answers", "tuned_short_answers", "short_answers_mcnemar_p"),
    }

    write_html(made, [], {}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert '<th scope="row">Answers in few words</th>' in page
    assert "An answer of at most nine words is short." in page
    assert "Answers in few words rises from 0.0% to 100.0%" in page

    row = next(
        line
        for line in terminal_summary(made).splitlines()
        if line.startswith("Answers in few words  ")
    )
    assert row.split()[-6:] == ["0.0%", "100.0%", "+100.0", "pp", "<", "0.001"]


def holm_p(made: Report, name: str) -> float:
    test = made.metrics[name].test
    assert test is not None
    return test.holm_p


def test_people_read_percent_without_a_space(tmp_path: Path) -> None:
    made = report()
    write_html(made, TRAINING, LENGTHS, tmp_path / "report.html")
    for text in (
        (tmp_path / "report.html").read_text(),
        terminal_summary(made),
        made.model_dump_json(),
    ):
        assert not re.search(r"\d[ \u00a0]%", text)
        assert re.search(r"\d%", text)


def test_questions_without_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="0 base of 1 questions"):
        build_report(
            run="r",
            model="m",
            engine="e",
            spec=EvaluateSpec(),
            marker=None,
            questions=[Question(id="q0", question="?", answer="", reference=None)],
            samples=[],
            count_tokens=len,
            versions={},
            metrics=Registry.discover(),
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
