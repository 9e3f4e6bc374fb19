"""Share of the answers that are right, over the questions whose reference can be checked."""

from collections.abc import Sequence

from thinktune.schema.report import SHARE, MetricResult
from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric, Setup, share
from thinktune.text.final_answer import ANSWER_RULE
from thinktune.text.verifiers import CHECK_RULES, FEW_WORDS


def group_shares(questions: Sequence[Answers]) -> dict[str, float | None]:
    """The accuracy of each group of questions, such as those of one difficulty."""
    groups: dict[str, list[float]] = {}
    for answers in questions:
        score = _score(answers)
        if answers[0].group is not None and score is not None:
            groups.setdefault(answers[0].group, []).append(score)
    return {name: sum(scores) / len(scores) for name, scores in sorted(groups.items())}


def _describe(setup: Setup) -> Description:
    why_none = _why_none(setup)
    if setup.verifier == "none":
        return Description("Accuracy", f"{CHECK_RULES['none']} Reason: {why_none}.", why_none)
    answer = ANSWER_RULE.replace("the marker", f"“{setup.marker}”") + " " if setup.marker else ""
    chosen = ", chosen from the references" if setup.spec.verifier == "auto" else ""
    rule = f"{answer}{CHECK_RULES[setup.verifier]} Verifier: {setup.verifier}{chosen}."
    return Description("Accuracy", rule, why_none)


def _why_none(setup: Setup) -> str:
    if setup.verifier != "none":
        return "no verdicts"
    if setup.spec.verifier == "none":
        return "the recipe asks for no check of the answers"
    if not any(asked.reference and asked.reference.strip() for asked in setup.questions):
        return "the dataset has no reference answers"
    return (
        f"the reference answers are free text, longer than {FEW_WORDS} words or of mixed kinds, "
        "which cannot be compared without a judge"
    )


def _score(answers: Answers) -> float | None:
    return share([judged.correct for judged in answers])


def _note(result: MetricResult) -> str | None:
    if result.test is None:
        return None
    if result.test.only_other is None:
        return None
    flips = (
        f"{result.test.only_other} questions went from correct to wrong, "
        f"{result.test.only_tuned} from wrong to correct."
    )
    if result.test.mde is None:
        return flips
    return (
        f"{flips} This many questions reliably show a difference in accuracy of "
        f"{100 * result.test.mde:.1f} points or more; a smaller one can be missed."
    )


METRIC = Metric(
    name="accuracy",
    order=20,
    direction="higher",
    unit=SHARE,
    source="the reference answers",
    description=_describe,
    score=_score,
    details=group_shares,
    tested=True,
    note=_note,
)
