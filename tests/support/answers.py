"""Generated answers as evaluation judges them."""

from collections.abc import Callable

from thinktune.schema.report import Verifier
from thinktune.tasks.evaluate.samples import Judged, JudgeVerdict, Question, Sample
from thinktune.tasks.evaluate.verdicts import Rules, judge_all
from thinktune.text.labels import LabelList


def sample(
    text: str,
    reference: str | None = None,
    opens: bool = False,
    *,
    arm: str = "base",
    question: str = "q",
    number: int = 0,
) -> Sample:
    """An answer; `opens`: the prompt ended in `<think>`."""
    return Sample(
        question_id=question,
        arm=arm,
        sample=number,
        text=text,
        prompt_opens_think=opens,
        tokens=9,
        finished=True,
        reference=reference,
    )


def judged(
    of: Sample,
    marker: str | None = None,
    verifier: Verifier = "none",
    count_tokens: Callable[[str], int] = len,
    *,
    answer: str = "",
    labels: LabelList | None = None,
    judge: JudgeVerdict | None = None,
    group: str | None = None,
) -> Judged:
    """The verdicts on one sample; `answer` is what the dataset answers."""
    question = Question(
        id=of.question_id, question="?", answer=answer, reference=of.reference, group=group
    )
    rules = Rules(
        marker=marker,
        verifier=verifier,
        count_tokens=count_tokens,
        labels=labels,
        judge={} if judge is None else {of.key: judge},
    )
    return judge_all([of], [question], rules)[0]
