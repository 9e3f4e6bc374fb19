"""Finished answers in the store, so that a restarted generation asks nothing twice.

Answers are kept in parts: small JSON objects, each written once, of the answers that finished at
about the same time. Each answer carries a digest of itself and of all that decides it. What cannot
be read, or is of another generation, is passed over, and its answers are made again.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from thinktune.schema.closed import Closed
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.manifest import Sha256
from thinktune.schema.prompt import TokenId
from thinktune.store import ObjectMissing, Store
from thinktune.tasks.generate.protocol import Answer, Batch, Engine, Request, Sampling
from thinktune.tasks.generate.timings import Timing, Timings
from thinktune.tasks.runtime.entry import Context

PART_ANSWERS = 64
"""Answers after which a part is written, at the end of their batch."""
PART_S = 2.0
"""Seconds after which a part is written however few answers it holds; what a kill can cost, beside
what is being computed."""


class _StoredAnswer(Closed):
    request_id: str
    ids: tuple[TokenId, ...]
    finished: bool
    sha256: Sha256


class _StoredPart(Closed):
    format: Literal[2]
    answers: tuple[_StoredAnswer, ...]


class AnswerStore:
    """The answers of one generation, kept apart by the digest of all that decides them."""

    def __init__(self, store: Store, prefix: str, identity: str) -> None:
        """`identity`: SHA-256, in hex, of what decides the answers beside each request."""
        self._store = store
        self._identity = identity
        self._prefix = f"{prefix}/{identity[:16]}"

    def known(self, requests: Iterable[Request]) -> dict[str, Answer]:
        """The answers that are there to any of these requests, by the request's id. Of two answers
        to one request, which two attempts may have given at one time, that of the part whose name
        comes first."""
        asked = {request.id: request for request in requests}
        found: dict[str, Answer] = {}
        for found_object in self._store.list(self._prefix):
            for stored in self._part(found_object.key):
                request = asked.get(stored.request_id)
                answer = Answer(stored.request_id, stored.ids, stored.finished)
                if request is not None and stored.sha256 == self._digest(request, answer):
                    found.setdefault(request.id, answer)
        return found

    def all_of(self, requests: Sequence[Request]) -> list[Answer] | None:
        """The answers to all requests in their order; None while one is missing."""
        known = self.known(requests)
        return [known[request.id] for request in requests] if len(known) == len(requests) else None

    def put(self, answered: Sequence[tuple[Request, Answer]]) -> None:
        """Writes one part. Whatever lies under its name already is replaced."""
        answers = [
            {
                "request_id": answer.request_id,
                "ids": answer.ids,
                "finished": answer.finished,
                "sha256": self._digest(request, answer),
            }
            for request, answer in answered
        ]
        names = "\n".join(request.id for request, _ in answered)
        name = hashlib.sha256(names.encode()).hexdigest()[:32]
        data = json.dumps({"format": 2, "answers": answers}).encode()
        self._store.put(f"{self._prefix}/{name}.json", data)

    def _part(self, key: str) -> Sequence[_StoredAnswer]:
        try:
            part = _StoredPart.parse(json.loads(self._store.get(key)), self._store.location(key))
        except (ObjectMissing, ValueError, SpecInvalid, RecursionError):
            return ()
        return part.answers

    def _digest(self, request: Request, answer: Answer) -> str:
        decides = (self._identity, request.id, request.prompt_ids, request.seed, request.adapter)
        said = (answer.ids, answer.finished)
        return hashlib.sha256(json.dumps([*decides, *said]).encode()).hexdigest()


@dataclass(frozen=True)
class Shard:
    """Which part of the requests a process answers, of so many processes."""

    index: int = 0
    of: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Shard":
        """The pod's, as the chart says; the whole where it says nothing."""
        return cls(
            int(environment.get("THINKTUNE_SHARD", "0")),
            int(environment.get("THINKTUNE_SHARDS", "1")),
        )


def generate(
    engine: Engine,
    requests: Sequence[Request],
    sampling: Sampling,
    kept: AnswerStore,
    context: Context,
    *,
    phase: str,
    timings: Timings | None = None,
    shard: Shard = Shard(),
) -> list[Answer] | None:
    """The answers to all requests in their order; asks the engine only for what is not kept yet.

    A shard answers requests of its own, whatever GPU it has; None while those of other shards are
    missing. `phase` is what the progress calls it. `timings` is told how long that took.
    """
    known = kept.known(requests)
    batches = engine.batches(requests[shard.index :: shard.of], sampling)
    some = [tuple(request for request in batch if request.id not in known) for batch in batches]
    missing = [batch for batch in some if batch]
    whole, left = engine.work(batches, sampling), engine.work(missing, sampling)
    context.reporter.phase(phase, whole, engine.unit, done=whole - left)
    writing = _Writing(kept, missing, engine.name)
    began, new = time.monotonic(), []
    try:
        for answer in engine.generate(missing, sampling, context.reporter, context.stop):
            writing.add(answer)
            known[answer.request_id] = answer
            new.append(answer)
    finally:
        writing.flush()  # what has come is paid for, whatever ended the engine
    writing.check()
    if timings is not None and new:
        timings.add(phase, Timing.of(engine.name, new, time.monotonic() - began))
    if len(known) < len(requests):
        return kept.all_of(requests)
    return [known[request.id] for request in requests]


class _Writing:
    """Puts the answers of whole batches into parts, some at a time."""

    def __init__(self, kept: AnswerStore, batches: Sequence[Batch], engine: str) -> None:
        """`engine` is its name, for errors."""
        self._kept = kept
        self._engine = engine
        self._asked = {request.id: request for batch in batches for request in batch}
        self._batch_of = {request.id: n for n, batch in enumerate(batches) for request in batch}
        self._open = {n: len(batch) for n, batch in enumerate(batches)}
        self._arrived: dict[int, list[tuple[Request, Answer]]] = {n: [] for n in self._open}
        self._ready: list[tuple[Request, Answer]] = []
        self._written = time.monotonic()

    def add(self, answer: Answer) -> None:
        """Takes one answer. Raises ValueError for one that nobody asked for, or a second one."""
        request = self._asked.get(answer.request_id)
        if request is None:
            raise self._fault(f"answers {answer.request_id}, which was not asked")
        number = self._batch_of.pop(request.id, None)
        if number is None:
            raise self._fault(f"answers {answer.request_id} a second time")
        self._arrived[number].append((request, answer))
        if len(self._arrived[number]) == self._open[number]:
            del self._open[number]
            self._ready += self._arrived.pop(number)
        late = time.monotonic() - self._written > PART_S
        if len(self._ready) >= PART_ANSWERS or (self._ready and late):
            self.flush()

    def flush(self) -> None:
        """Writes the answers of the batches that are whole."""
        ready, self._ready = self._ready, []
        self._written = time.monotonic()
        if ready:
            self._kept.put(ready)

    def check(self) -> None:
        """Raises ValueError where there is not an answer to each request."""
        if self._batch_of:
            left, of = len(self._batch_of), len(self._asked)
            raise self._fault(f"left {left} of {of} requests unanswered")

    def _fault(self, fault: str) -> ValueError:
        return ValueError(f"engine {self._engine}: {fault}")
