"""Finished answers in the store, so that a restarted generation asks nothing twice.

The answers of a batch are one small JSON object, written once; when two attempts race, the first to
write wins and the other reads what it wrote. What cannot be read as the answers of its batch is
made again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Literal

from thinktune.schema.closed import Closed
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.prompt import TokenId
from thinktune.store import ObjectMissing, Store
from thinktune.tasks.generate.protocol import Answer, Batch, Engine, Sampling
from thinktune.tasks.runtime.entry import Context


class _StoredAnswer(Closed):
    request_id: str
    ids: tuple[TokenId, ...]
    finished: bool


class _StoredBatch(Closed):
    format: Literal[1]
    answers: tuple[_StoredAnswer, ...]


class AnswerStore:
    """The answers of one generation, kept apart by the digest of all that decides them."""

    def __init__(self, store: Store, prefix: str, identity: str) -> None:
        """`identity`: SHA-256, in hex, of what decides the answers."""
        self._store = store
        self._prefix = f"{prefix}/{identity[:16]}"

    def get(self, batch: Batch) -> list[Answer] | None:
        """The batch's answers in the order of its requests; None unless all are there."""
        key = self._key(batch)
        try:
            stored = _StoredBatch.parse(json.loads(self._store.get(key)), self._store.location(key))
        except (ObjectMissing, ValueError, SpecInvalid):
            return None
        if [answer.request_id for answer in stored.answers] != [r.id for r in batch.requests]:
            return None
        return [Answer(a.request_id, a.ids, a.finished) for a in stored.answers]

    def put(self, batch: Batch, answers: Sequence[Answer]) -> list[Answer]:
        """Keeps the batch's answers, in the order of its requests, and returns those that are
        there afterwards: another attempt's if it was first."""
        plain = {"format": 1, "answers": [asdict(answer) for answer in answers]}
        data = json.dumps(plain).encode()
        if self._store.put_if_absent(self._key(batch), data):
            return list(answers)
        theirs = self.get(batch)
        if theirs is None:  # unreadable, or of other requests
            self._store.put(self._key(batch), data)
        return list(answers) if theirs is None else theirs

    def _key(self, batch: Batch) -> str:
        return f"{self._prefix}/{batch.id}.json"


def generate(
    engine: Engine,
    batches: Sequence[Batch],
    sampling: Sampling,
    kept: AnswerStore,
    context: Context,
    *,
    phase: str,
) -> list[Answer]:
    """The answers to all batches in their order; asks the engine only for what is not kept yet.

    `phase` is what the progress calls it.
    """
    known = {batch.id: answers for batch in batches if (answers := kept.get(batch)) is not None}
    missing = [batch for batch in batches if batch.id not in known]
    done = engine.work([batch for batch in batches if batch.id in known], sampling)
    context.reporter.phase(phase, engine.work(batches, sampling), engine.unit, done=done)
    answered = engine.generate(missing, sampling, context.reporter, context.stop)
    for batch, answers in _whole(answered, missing, engine.name):
        known[batch.id] = kept.put(batch, answers)
    return [answer for batch in batches for answer in known[batch.id]]


def _whole(
    answers: Iterator[Answer], batches: Sequence[Batch], engine: str
) -> Iterator[tuple[Batch, list[Answer]]]:
    """Each batch as soon as it is whole. Raises ValueError where there is not exactly one answer
    to each request; `engine` is its name, for the error."""
    batch_of = {request.id: batch for batch in batches for request in batch.requests}
    arrived: dict[str, dict[str, Answer]] = {batch.id: {} for batch in batches}
    for answer in answers:
        batch = batch_of.get(answer.request_id)
        if batch is None:
            raise ValueError(f"engine {engine}: answers {answer.request_id}, which was not asked")
        of_batch = arrived.get(batch.id)
        if of_batch is None or answer.request_id in of_batch:
            raise ValueError(f"engine {engine}: answers {answer.request_id} a second time")
        of_batch[answer.request_id] = answer
        if len(of_batch) == len(batch.requests):
            del arrived[batch.id]
            yield batch, [of_batch[request.id] for request in batch.requests]
    if arrived:
        left = f"left {len(arrived)} of {len(batches)} batches unanswered"
        raise ValueError(f"engine {engine}: {left}")
