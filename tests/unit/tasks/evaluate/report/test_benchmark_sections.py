"""Benchmarks in a report: figures by hand, Holm's adjustment over all tests, sections."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from answers import judged as verdict
from answers import sample

from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.benchmark import BenchmarkSpec
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.report import Report
from thinktune.tasks.evaluate.gate import check_requirements
from thinktune.tasks.evaluate.metrics.registry import Registry, Setup
from thinktune.tasks.evaluate.report.benchmarks import Benchmark
from thinktune.tasks.evaluate.report.build import ArmInfo, build_report, manifest_metrics
from thinktune.tasks.evaluate.report.markdown import markdown
from thinktune.tasks.evaluate.report.page import write_html
from thinktune.tasks.evaluate.report.wording import terminal_summary
from thinktune.tasks.evaluate.samples import Judged, Question, Sample
from thinktune.tasks.evaluate.statistics import mcnemar_p
from thinktune.tasks.evaluate.verdicts import Rules, judge_all

ARMS = {arm: ArmInfo(arm, "transformers", "no GPU", "16-bit base") for arm in ("base", "tuned")}
QUESTIONS = 40


def of_arm(arm: str, texts: Sequence[str]) -> list[Sample]:
    return [sample(text, "ABCD"[n % 4], arm=arm, question=f"m{n}") for n, text in enumerate(texts)]


def letters(base: Sequence[str], tuned: Sequence[str], **spec: object) -> Benchmark:
    questions = [
        Question(id=f"m{n}", question="?", answer="ABCD"[n % 4], reference="ABCD"[n % 4])
        for n in range(len(base))
    ]
    samples = of_arm("base", base) + of_arm("tuned", tuned)
    rules = Rules(marker="Final Answer:", verifier="choice", count_tokens=len)
    return Benchmark(
        spec=BenchmarkSpec.model_validate({"dataset": "letters", **spec}),
        source="owner/letters@abc",
        verifier="choice",
        questions=questions,
        judged=judge_all(samples, questions, rules),
        training_rows_alike=3,
    )


def right(n: int) -> str:
    return f"<think>so</think>\nFinal Answer: {'ABCD'[n % 4]}"


def report(
    benchmarks: dict[str, Benchmark], **spec: object
) -> tuple[Report, list[Question], list[Judged]]:
    wrong = {"base": [n % 2 for n in range(QUESTIONS)], "tuned": [0] * QUESTIONS}
    own = [
        Question(id=f"q{n}", question="?", answer=str(n), reference=str(n), group="hard")
        for n in range(QUESTIONS)
    ]
    judged = [
        verdict(
            sample(f"It is {n + wrong[arm][n]}.", str(n), arm=arm, question=f"q{n}"),
            verifier="number",
        )
        for n in range(QUESTIONS)
        for arm in ARMS
    ]
    setup = Setup(EvaluateSpec.model_validate(spec), None, "number", own)
    built = build_report(
        run="r",
        model="tiny",
        setup=setup,
        arms=ARMS,
        judged=judged,
        versions={},
        metrics=Registry.discover(),
        benchmarks=benchmarks,
    )
    return built, own, judged


@pytest.fixture(scope="module")
def built() -> tuple[Report, list[Question], list[Judged]]:
    base = [right(n + 1) if n < 20 else right(n) for n in range(QUESTIONS)]
    base[39] = "<think>so</think>\nFinal Answer: the second one"
    tuned = [right(n) if n < 30 else right(n + 1) for n in range(QUESTIONS)]
    tuned[38] = "<think>so</think>\nFinal Answer: A or B"
    return report({"medqa": letters(base, tuned)})


def test_figures_and_the_paired_test(
    built: tuple[Report, list[Question], list[Judged]],
) -> None:
    found = built[0].benchmarks["medqa"]
    assert found.accuracy == {"base": pytest.approx(19 / 40), "tuned": pytest.approx(30 / 40)}
    test = found.tests["base"]
    assert (test.only_other, test.only_tuned) == (9, 20)
    assert test.p == pytest.approx(mcnemar_p(9, 20, exact=True))
    assert found.unreadable == {"base": 1 / 40, "tuned": 1 / 40}
    assert found.cut_off == {"base": 0, "tuned": 0}
    figures = manifest_metrics(built[0])
    assert figures["tuned_medqa_accuracy"] == 0.75
    assert figures["medqa_accuracy_p"] == test.p


def test_holm_is_over_the_tests_of_the_whole_report(
    built: tuple[Report, list[Question], list[Judged]],
) -> None:
    with_it, without = built[0], report({})[0]
    assert without.benchmarks == {}
    assert "benchmarks" not in without.model_dump(mode="json")
    accuracy = with_it.metrics["accuracy"].tests["base"]
    test = with_it.benchmarks["medqa"].tests["base"]
    ordered = sorted(
        [test.p, *(t.p for metric in with_it.metrics.values() for t in metric.tests.values())]
    )
    assert min(test.holm_p, accuracy.holm_p) == pytest.approx(min(1, ordered[0] * len(ordered)))
    alone = without.metrics["accuracy"].tests["base"]
    assert alone.p == accuracy.p
    assert alone.holm_p < accuracy.holm_p


def test_the_gate_can_require_a_benchmark() -> None:
    base = [right(n + n % 2) for n in range(QUESTIONS)]
    tuned = [right(n) for n in range(QUESTIONS)]
    require = {"medqa_us_accuracy": {"at_least": 0.9, "not_worse_by": 0.02}}
    for first, second, promoted in ((base, tuned, True), (tuned, base, False)):
        found = report({"medqa-us": letters(first, second)}, require=require)[0].gate
        assert found.promoted is promoted
        assert [each.met for each in found.requirements] == [promoted] * 2
    metrics = Registry.discover()
    wanted = EvaluateSpec.model_validate({"require": require}).require
    check_requirements(wanted, metrics, ["medqa_us_accuracy"])
    with pytest.raises(SpecInvalid, match="there is no metric 'medqa_us_accuracy'"):
        check_requirements(wanted, metrics)


def test_each_page_has_its_section(
    built: tuple[Report, list[Question], list[Judged]], tmp_path: Path
) -> None:
    found, questions, judged = built
    write_html(found, questions, judged, (), {}, tmp_path / "report.html")
    page = re.sub(r"\s+", " ", (tmp_path / "report.html").read_text())
    section = page[page.index("<h2>medqa</h2>") :][:1500]
    for text in (
        "47.5%",
        "75.0%",
        "+27.5 pp",
        "owner/letters@abc",
        "3 training rows",
        "likelihood",
    ):
        assert text in section or text in page[page.index(section) :][:4000], text
    plain = markdown(found)
    assert "### medqa" in plain
    assert "| Accuracy | 47.5% | 75.0% |" in plain
    assert "medqa: 47.5% of 40 right for base, 75.0% for tuned" in terminal_summary(found)


def test_groups_are_those_of_the_held_out_questions() -> None:
    _, own, judged = report({})
    spec = BenchmarkSpec(groups=("hard",))
    hard = Benchmark(
        spec=spec,
        source="held-out questions of hard",
        verifier="number",
        questions=own[:31],
        judged=[each for each in judged if int(each.sample.question_id[1:]) < 31],
        training_rows_alike=None,
    )
    none = Benchmark(
        spec=spec, source="x", verifier="number", questions=[], judged=[], training_rows_alike=None
    )
    found = report({"hard": hard, "none": none})[0]
    result = found.benchmarks["hard"]
    assert (result.questions, result.accuracy["tuned"]) == (31, 1.0)
    assert result.tests["base"].only_tuned == 15
    assert found.benchmarks["none"].accuracy == {"base": None, "tuned": None}
    assert "none: not measured" in terminal_summary(found)


def test_a_recipe_names_what_there_is() -> None:
    catalog = load_catalog()
    unknown = "evaluate.benchmarks.medqa.dataset=medqa-usml-test"
    with pytest.raises(SpecInvalid, match="did you mean 'medqa-usmle-test'"):
        load_recipe("demo", (unknown,), catalog=catalog)
    with pytest.raises(SpecInvalid, match="no held-out question has group 'tough'"):
        load_recipe("math-qwen-1.5b", ("evaluate.benchmarks.x.groups=[tough]",), catalog=catalog)
    with pytest.raises(SpecInvalid, match="exactly one of 'dataset' and 'groups'"):
        load_recipe("demo", ("evaluate.benchmarks.x.questions=3",), catalog=catalog)
    plain = EvaluateSpec()
    assert "benchmarks" not in plain.canonical()
