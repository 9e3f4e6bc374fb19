"""Public benchmarks beside a run's own held-out questions: what a recipe says of one, and what the
tasks get.

Prep makes a benchmark's questions an artifact of their own, so that a recipe which gains one keeps
its data and its adapter.
"""

import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from thinktune.schema.catalog import Count, DatasetEntry, Name
from thinktune.schema.closed import Closed

BenchmarkName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]
"""Name of a benchmark in a recipe, a report, and the store."""
LETTER = "Choose one option, and end your answer with a line “Answer:” and its letter."
LETTER_MARKED = "Choose one option, and end your answer with a line “{marker}” and its letter."


def absent_if_empty(value: Any) -> bool:
    """Leaves a setting that nobody uses out of what digests are taken of."""
    return not value


class BenchmarkSpec(Closed):
    """Questions that are reported apart from the held-out ones: those of a public test set, or the
    held-out ones of some groups. Give exactly one of `dataset` and `groups`."""

    dataset: Name | None = None
    """Dataset of the catalog whose questions all arms are asked, as the run's own are. Nothing of
    `data` but the way of asking applies to its rows: no filter, and no reasoning is required."""
    groups: tuple[str, ...] = ()
    """Values of `data.balance`, such as `hard`: the held-out questions that have them. Nothing is
    asked a second time."""
    questions: Count | None = None
    """Number of questions to ask, drawn by a hash of each. Null asks all of them."""
    verifier: Literal["choice", "number", "math", "text"] = "choice"
    """How an answer is compared with the reference: by default, the letter of an option."""
    instruction: str | None = None
    """What stands behind each question and its options, for all arms. Null asks for the letter of
    one option where there are options, on the recipe's final-answer line if it has one."""

    def asks_for(self, marker: str | None, *, options: bool) -> str:
        """What stands behind a question; empty for nothing."""
        if self.instruction is not None:
            return self.instruction
        if self.verifier != "choice" or not options:
            return ""
        return LETTER if marker is None else LETTER_MARKED.format(marker=marker)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset is None) != bool(self.groups):
            raise ValueError(
                "a benchmark has a dataset or groups; give exactly one of 'dataset' and 'groups'"
            )
        if self.groups and (self.questions is not None or self.instruction is not None):
            raise ValueError(
                "groups are of held-out questions, which are asked once; leave out 'questions' and "
                "'instruction'"
            )
        return self


class BenchmarkSource(Closed):
    """A benchmark of a dataset, as the tasks of a run get it."""

    spec: BenchmarkSpec
    entry: DatasetEntry
    """Its dataset in the catalog."""

    def made_by(self, prep_sha256: str) -> str:
        """Digest of what decides its questions. `prep_sha256` is the result digest of the prep that
        renders them, which has the model, the prompt and the training rows to compare with."""
        entry = self.entry.model_copy(update={"description": ""})
        decides = "\n".join((prep_sha256, self.spec.canonical(), entry.canonical()))
        return hashlib.sha256(decides.encode()).hexdigest()
