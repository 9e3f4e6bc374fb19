"""The column that a language model writes, before rows are read: `data.generate` of a recipe.

Called by `stage`. Replies come as they finish; the rows go on in their own order, so that what prep
makes of them does not depend on how fast anybody answered.
"""

from array import array
from collections.abc import Iterator
from contextlib import closing

from thinktune.llm.generate import generate
from thinktune.schema.keys import stage_prefix
from thinktune.schema.llm import GenerateSpec
from thinktune.schema.stages import PrepTask
from thinktune.tasks.prep.ledger import Ledger
from thinktune.tasks.prep.packed import Packed
from thinktune.tasks.prep.readers.records import Record
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.llm_progress import told_by
from thinktune.text.conversation import Reason
from thinktune.text.verifiers import check, choose_verifier

REMEDIES = {
    "truncated": "raise data.generate.llm.parameters.max_tokens",
    "disagrees": "raise data.generate.drafts, or ask a stronger model",
    "no_reasoning": "ask a model that tells its reasoning",
    "no_reply": "see why in the log; the same command again asks only for what is missing",
}
OTHERWISE = (
    "read the replies that data.generate.checks refused, and change the prompt or the checks"
)


def with_generated(
    records: Iterator[Record], task: PrepTask, context: Context, ledger: Ledger
) -> Iterator[Record]:
    """The records with the new column; those without a usable reply have a reason instead."""
    spec = task.data.generate
    if spec is None:
        return records
    return _written(records, spec, task, context, ledger)


def _written(
    records: Iterator[Record], spec: GenerateSpec, task: PrepTask, context: Context, ledger: Ledger
) -> Iterator[Record]:
    where, numbers = array("q"), array("q")

    def rows() -> Iterator[dict[str, object]]:
        for record in records:
            places.append((record.place, record.broken))
            if record.row is not None:
                numbers.append(len(places) - 1)
                yield record.row

    with closing(Packed()) as shelf, closing(Packed()) as places:
        written = generate(
            rows(),
            spec,
            store=context.store,
            spend_prefix=f"{stage_prefix(task.run, 'prep')}/llm",
            verify=_agrees,
            stop=lambda: context.stop.requested,
            progress=told_by(context.reporter, "language model"),
        )
        drafts = 0
        for one in written:
            position = numbers[one.number]
            where.extend([-1] * (position + 1 - len(where)))
            where[position] = len(shelf)
            drafts += one.drafts
            shelf.append((one.row, one.reason))
        ledger.note("replies of the language model looked at", drafts)
        where.extend([-1] * (len(places) - len(where)))
        for position in range(len(places)):
            place, broken = places.load(position)
            if where[position] < 0:
                yield Record(place, None, broken)
                continue
            row, reason = shelf.load(where[position])
            yield Record(place, row, _reason(reason) if reason is not None else None)


def _reason(word: str) -> Reason:
    return Reason(f"language model: {word}", REMEDIES.get(word, OTHERWISE))


def _agrees(draft: str, reference: str) -> bool:
    """Compares a draft with a reference as the evaluation compares answers."""
    return check(draft, reference, choose_verifier([reference]))
