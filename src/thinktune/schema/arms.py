"""The arms of an evaluation: which model answers, asked how, and at which precision.

Read by the evaluate stage and by the plan.
"""

from dataclasses import dataclass

from thinktune.schema.recipe import MERGED, EvaluateSpec, Precision
from thinktune.schema.report import ASKED, BASE, TUNED

PRECISION_WORDS: dict[Precision, str] = {
    "nf4": "4-bit NF4 base",
    "16bit": "16-bit base",
    "merged": "16 bits, adapter merged",
    "fp8": "FP8, adapter merged",
}


@dataclass(frozen=True)
class Arm:
    """One way to answer the questions."""

    name: str
    label: str
    precision: Precision
    adapter: bool = False
    instructed: bool = False
    """Whether the recipe's instruction stands behind each question."""

    def precision_words(self) -> str:
        """The weights as they would be served."""
        return PRECISION_WORDS[self.precision] + (", adapter unmerged" if self.adapter else "")


def arms_of(spec: EvaluateSpec, own: Precision) -> list[Arm]:
    """In the order in which people read them; `own` is the precision that the training had. Arms
    of one precision stand together."""
    arms = [Arm(BASE, "the base model", own)]
    if spec.instruction is not None:
        label = "the base model, asked in words"
        arms.append(Arm(ASKED, label, own, instructed=True))
    arms.append(Arm(TUNED, "the tuned model", own, adapter=True))
    for precision in spec.precisions:
        if precision != own:
            apart = precision not in MERGED
            label = f"the tuned model {'on a' if apart else 'in'} {PRECISION_WORDS[precision]}"
            arms.append(Arm(f"{TUNED}-{precision}", label, precision, adapter=apart))
    return arms
