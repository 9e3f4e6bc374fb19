import base64
import gzip
import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.report import Report
from thinktune.tasks.evaluate import metrics
from thinktune.tasks.evaluate.gate import check_requirements
from thinktune.tasks.evaluate.metrics import format_rate
from thinktune.tasks.evaluate.metrics.registry import Registry, Setup
from thinktune.tasks.evaluate.report import browser
from thinktune.tasks.evaluate.report.build import ArmInfo, build_report, manifest_metrics
from thinktune.tasks.evaluate.report.markdown import markdown
from thinktune.tasks.evaluate.report.page import write_html
from thinktune.tasks.evaluate.report.wording import terminal_summary, usual_sentence
from thinktune.tasks.evaluate.samples import Judged, Question, Sample
from thinktune.tasks.evaluate.verdicts import Rules, judge_all, verifier_of

MARKER = "Final Answer:"
HOSTILE = '<script>alert("x")</script> \x1b[31m {{ 7 * 7 }}'
TRAINING = [
    {"step": 1, "loss": 2.0, "lr": 1e-4, "tokens_per_s": 900.0},
    {"step": 2, "loss": 1.5, "lr": 2e-4, "tokens_per_s": 910.0, "validation_loss": 1.7},
    {"step": 3, "loss": float("nan"), "lr": 2e-4, "tokens_per_s": 905.0},
    {"step": 3, "validation_loss": 1.4},
]
LENGTHS = {"edges": [0, 64, 128], "counts": [10, 4]}


ARMS = {
    "base": ArmInfo("the base model", "transformers 5.17", "there is no GPU", "4-bit NF4 base"),
    "tuned": ArmInfo("the tuned model", "transformers 5.17", "there is no GPU", "4-bit NF4 base"),
}


def sample(arm: str, question: int, text: str, number: int = 0) -> Sample:
    return Sample(
        question_id=f"q{question}",
        arm=arm,
        sample=number,
        text=text,
        prompt_opens_think=False,
        tokens=len(text.split()),
        finished="</think>" in text,
        reference=str(question),
    )


@dataclass
class Made:
    report: Report
    questions: list[Question]
    judged: list[Judged]

    def write(self, path: Path, training: Any = (), lengths: Any = None) -> str:
        write_html(self.report, self.questions, self.judged, training, lengths or {}, path)
        return path.read_text()


@cache
def _usual() -> "Made":
    return _make()


def make(**given: Any) -> "Made":
    """What the usual questions come to is made once: it takes a second."""
    return _make(**given) if given else _usual()


def _make(
    *,
    questions: int = 40,
    marker: str | None = MARKER,
    references: bool = True,
    found: Registry | None = None,
    **spec: Any,
) -> Made:
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
            group="odd" if i % 2 else "even",
        )
        for i in range(questions)
    ]
    settings = EvaluateSpec(**spec)
    verifier = verifier_of(settings.verifier, asked)
    rules = Rules(marker=marker, verifier=verifier, count_tokens=lambda text: len(text.split()))
    judged = judge_all(samples, asked, rules)
    built = build_report(
        run="sums-1",
        model="tiny",
        setup=Setup(settings, marker, verifier, asked),
        arms=ARMS,
        judged=judged,
        versions={"torch": "2.13.0", "thinktune": "0.1.0"},
        metrics=found or Registry.discover(),
    )
    return Made(built, asked, judged)


def report(**given: Any) -> Report:
    return make(**given).report


def test_report_survives_json_and_repeats() -> None:
    made = report()
    plain = made.model_dump(mode="json")
    assert Report.parse(json.loads(json.dumps(plain, allow_nan=False)), "report.json") == made
    assert made == report()
    assert set(plain) == {
        *("format", "run", "model", "headline", "questions", "samples_per_question"),
        *("sampling", "marker", "verifier", "arms", "gate", "metrics", "thinking_lengths"),
        *("rules", "side_by_side", "versions"),
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
    assert (accuracy.only_other, accuracy.only_tuned, accuracy.difference) == (20, 0, -0.5)
    assert accuracy.holm_p >= accuracy.p
    note = made.metrics["accuracy"].note
    assert note is not None
    assert "20 questions went from correct to wrong, 0 from wrong to correct." in note
    reflections = made.metrics["reflections_per_1k"].values
    assert reflections["base"] > reflections["tuned"] == 0  # type: ignore[operator]
    assert [sum(made.thinking_lengths.counts[v]) for v in ("base", "tuned")] == [40, 40]
    assert made.arms["base"].finished == made.arms["tuned"].finished == 1.0
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
    assert figures["accuracy_p"] == accuracy.p
    assert figures["base_thinking_truncated"] == 0.0
    assert "loops_p" not in figures


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
    made = make(marker=None)
    assert made.report.metrics["format_rate"].test is None
    assert made.report.metrics["format_rate"].values["tuned"] is None
    assert "None" not in made.write(tmp_path / "report.html").partition('id="data"')[0]
    assert "None" not in terminal_summary(made.report)


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
    whole = _make()
    made = whole.report

    found = json.loads(made.model_dump_json())["metrics"]["short_answers"]
    assert found["values"] == {"base": 0.0, "tuned": 1.0}
    assert (found["direction"], found["unit"], found["questions"]) == ("higher", "share", 40)
    assert found["tests"]["base"]["only_tuned"] == 40
    # It is one more test that Holm's adjustment is over.
    alone = report(found=Registry.of_modules([format_rate]))
    assert holm_p(alone, "format_rate") < holm_p(made, "format_rate")

    figures = manifest_metrics(made)
    assert {name: figures[name] for name in before} == before
    assert set(figures) - set(before) == {
        *("base_short_answers", "tuned_short_answers", "short_answers_p"),
    }

    page = whole.write(tmp_path / "report.html")
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
    made = make()
    for text in (
        made.write(tmp_path / "report.html", TRAINING, LENGTHS),
        terminal_summary(made.report),
        markdown(made.report),
        made.report.model_dump_json(),
    ):
        assert not re.search(r"\d[ \u00a0]%", text)
        assert re.search(r"\d%", text)


def test_several_answers_to_a_question_are_compared_by_their_mean() -> None:
    """A majority can move one way and the mean another; the mean is what is shown."""
    made = make(samples=2)
    tests = made.report.metrics["accuracy"].tests
    assert {test.method for test in tests.values()} == {"paired permutation"}


def test_questions_without_samples_are_refused() -> None:
    asked = [Question(id="q0", question="?", answer="", reference=None)]
    with pytest.raises(ValueError, match="0 base of 1 questions"):
        build_report(
            run="r",
            model="m",
            setup=Setup(EvaluateSpec(), None, "none", asked),
            arms=ARMS,
            judged=[],
            versions={},
            metrics=Registry.discover(),
        )


def test_page_is_self_contained_and_escapes_model_text(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    made = make()
    page = made.write(path, TRAINING, LENGTHS)
    assert page.count("<script") == 2  # the samples, and what shows them
    assert "alert(" not in page  # what rows and models say is packed
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert not re.search(r"(src=|@import|url\()", page.replace("url(#", ""))
    assert page.count("<svg") == 4 + 2  # figures, and a line of each test
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", page)
    assert made.write(tmp_path / "again.html", TRAINING, LENGTHS) == page


def packed(page: str) -> Any:
    data = re.search(r'id="data">([^<]*)<', page)
    assert data is not None
    return json.loads(gzip.decompress(base64.b64decode(data[1])))


def test_the_page_holds_all_samples(tmp_path: Path) -> None:
    samples = packed(make().write(tmp_path / "report.html"))
    assert samples["arms"] == ["base", "tuned"]
    assert len(samples["questions"]) == 40
    first = samples["questions"][0]
    assert (first["id"], first["reference"], first["group"]) == ("q0", "0", "even")
    tuned = first["said"][1][0]
    assert (tuned["extracted"], tuned["correct"], tuned["thinking"]) == ("1", False, "so")


def test_long_texts_are_shortened_until_the_page_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "MOST_BYTES", 1_500)
    page = make().write(tmp_path / "report.html")
    assert "Long texts are shortened here, to" in page
    longest = max(
        len(each["thinking"])
        for question in packed(page)["questions"]
        for arm in question["said"]
        for each in arm
    )
    assert longest < 700


def test_page_without_training_leaves_the_figures_out(tmp_path: Path) -> None:
    assert make().write(tmp_path / "report.html").count("<svg") == 2 + 2


def test_accuracy_by_group(tmp_path: Path) -> None:
    made = make()
    assert made.report.metrics["accuracy"].details == {
        "even": {"base": 1.0, "tuned": 0.0},
        "odd": {"base": 1.0, "tuned": 1.0},
    }
    assert "Accuracy, by part" in made.write(tmp_path / "report.html")


def test_answers_that_were_cut_off_are_in_the_headline() -> None:
    made = make(questions=10)
    samples = [replace(each.sample, finished=each.sample.arm == "tuned") for each in made.judged]
    judged = [replace(e, sample=s) for e, s in zip(made.judged, samples, strict=True)]
    cut = build_report(
        run="r",
        model="m",
        setup=Setup(EvaluateSpec(max_new_tokens=112), MARKER, "number", made.questions),
        arms=ARMS,
        judged=judged,
        versions={},
        metrics=Registry.discover(),
    )
    said = "The limit of 112 tokens cut off 100.0% of the answers of the base model"
    assert said in cut.headline
    assert "cut off" not in made.report.headline


def test_requirements_decide_what_is_promoted() -> None:
    assert report().gate.promoted is None
    assert "promoted" not in manifest_metrics(report())
    assert report(require={"format_rate": {"at_least": 0.95}}).gate.promoted
    wanted = {
        "format_rate": {"at_least": 0.95},
        "accuracy": {"not_worse_by": 0.02},
        "thinking_truncated": {"at_most": 0.01},
    }
    made = report(require=wanted)
    assert [(each.metric, each.met) for each in made.gate.requirements] == [
        ("format_rate", True),
        ("accuracy", False),
        ("thinking_truncated", True),
    ]
    figures = manifest_metrics(made)
    assert figures["promoted"] is False
    assert "accuracy of tuned is not at most 0.02 worse than base" in str(
        figures["not_promoted_because"]
    )
    assert "not promoted: accuracy of tuned" in terminal_summary(made)
    assert "**Not promoted**" in markdown(made)
    unmeasured = report(verifier="none", require={"accuracy": {"at_least": 0.5}})
    assert not unmeasured.gate.promoted


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"acuracy": {"at_least": 0.5}}, "did you mean 'accuracy'"),
        ({"loops": {"not_worse_by": 0.1}}, "loops is not compared with the base model"),
    ],
)
def test_requirements_that_no_report_could_meet(wanted: Any, message: str) -> None:
    spec = EvaluateSpec.model_validate({"require": wanted})
    with pytest.raises(SpecInvalid, match=message):
        check_requirements(spec.require, Registry.discover())


def test_markdown_is_a_table_that_nothing_breaks() -> None:
    text = markdown(report())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "| Accuracy | 100.0% | 50.0% | −50.0 pp |" in text


def test_terminal_summary_is_short_and_plain() -> None:
    summary = terminal_summary(report(side_by_side=9))
    lines = summary.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert all(c.isprintable() for line in lines for c in line)
    assert "Accuracy" in summary
    assert "< 0.001" in summary
    assert summary.count("[right]") + summary.count("[wrong]") == 6


def test_a_headline_is_about_the_questions_that_its_test_is_about() -> None:
    made = report()
    accuracy = made.metrics["accuracy"]
    test = accuracy.test
    assert test is not None
    # As where a judge has no verdict on many answers of one arm.
    moved = test.model_copy(
        update={"other": 0.3, "tuned": 0.5, "difference": 0.2, "outcome": "better", "holm_p": 0.001}
    )
    values = accuracy.values | {"base": 0.65, "tuned": 0.25}
    apart = accuracy.model_copy(update={"tests": {"base": moved}, "values": values})
    assert "rises from 30.0% to 50.0%" in usual_sentence(apart)
