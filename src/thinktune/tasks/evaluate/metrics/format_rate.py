"""Share of the answers that have their final-answer line."""

from thinktune.schema.report import SHARE, MetricResult
from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric, Setup, share
from thinktune.tasks.evaluate.report.wording import percent, significant


def _describe(setup: Setup) -> Description:
    if setup.marker is None:
        return Description(
            label="Final-answer line present",
            rule="The recipe names no final-answer marker, so its presence was not measured.",
            why_none="the recipe names no final-answer marker",
        )
    return Description(
        label=f"“{setup.marker}” present",
        rule="An answer has its final-answer line if, after the think part, some line starts with "
        f"“{setup.marker}” and goes on. A text without a think part is answer as a whole.",
    )


def _score(answers: Answers) -> float | None:
    return share([judged.has_final_line for judged in answers])


def _sentence(result: MetricResult, setup: Setup) -> str:
    if result.test is None:
        return ""
    doubt = "" if significant(result.test) else ", a difference that chance can explain"
    return (
        f"The tuned model writes its “{setup.marker}” line in {percent(result.values['tuned'])} of "
        f"its answers, the base model in {percent(result.values['base'])}{doubt}."
    )


METRIC = Metric(
    name="format_rate",
    order=10,
    direction="higher",
    unit=SHARE,
    source="the generated text",
    description=_describe,
    score=_score,
    tested=True,
    sentence=_sentence,
)
