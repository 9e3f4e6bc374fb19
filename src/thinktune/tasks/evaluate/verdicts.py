"""The verdicts on one sample: its parts, its final-answer line, whether it is right.

Called by `report.build`.
"""

from collections.abc import Callable

from thinktune.schema.report import Verifier
from thinktune.tasks.evaluate.samples import Judged, Sample
from thinktune.text.final_answer import final_answer
from thinktune.text.think import split_generated
from thinktune.text.verifiers import check, checkable


def judge(
    sample: Sample, marker: str | None, verifier: Verifier, count_tokens: Callable[[str], int]
) -> Judged:
    """All verdicts on one sample; `count_tokens` counts as the model's tokenizer does."""
    parsed = split_generated(sample.text, prompt_opens_think=sample.prompt_opens_think)
    final = final_answer(parsed.answer, marker) if marker else None
    correct = None
    if sample.reference is not None and checkable(sample.reference, verifier):
        correct = check(final or parsed.answer, sample.reference, verifier)
    return Judged(
        sample=sample,
        parsed=parsed,
        thinking_tokens=count_tokens(parsed.thinking) if parsed.thinking else 0,
        final=final,
        has_final_line=final is not None if marker else None,
        correct=correct,
    )
