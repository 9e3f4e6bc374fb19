"""How often thinking gives up a right answer: the reference is in it and the answer is wrong."""

from thinktune.tasks.evaluate.metrics.registry import Description, share_metric
from thinktune.tasks.evaluate.samples import Judged
from thinktune.text.numbers import NUMBER, plain_numbers


def _passes(judged: Judged) -> bool:
    reference = judged.sample.reference
    if judged.correct is not False or not reference or not judged.parsed.thinking:
        return False
    wanted = NUMBER.fullmatch(plain_numbers(reference).strip())
    if wanted is None:
        return False
    numbers = NUMBER.finditer(plain_numbers(judged.parsed.thinking))
    return any(found[0].strip() == wanted[0].strip() for found in numbers)


METRIC = share_metric(
    _passes,
    name="flips",
    order=95,
    direction="lower",
    description=Description(
        label="Right number given up",
        rule="Share of the answers that are wrong although the reference number stands in their "
        "thinking. It can stand there by chance, so the figure is an upper bound.",
    ),
    applies=lambda setup: setup.verifier in ("number", "math"),
)
