"""Generated answers as evaluation judges them."""

from thinktune.tasks.evaluate.samples import Sample


def sample(text: str, reference: str | None = None, opens: bool = False) -> Sample:
    """An answer of the base model; `opens`: the prompt ended in `<think>`."""
    return Sample(
        question_id="q",
        variant="base",
        sample=0,
        text=text,
        prompt_opens_think=opens,
        tokens=9,
        finished=True,
        reference=reference,
    )
