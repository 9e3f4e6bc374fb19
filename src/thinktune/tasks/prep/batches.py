"""Records through their preparation in batches; the tokenizer works while Python reads on."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from thinktune.tasks.prep.preparation import Batch, Outcome, Preparation
from thinktune.tasks.prep.readers.records import Record
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

ROWS = 128
CHARACTERS = 300_000
"""A batch ends with the row that fills one of the two. It bounds memory, and how long a request to
stop waits for an answer."""
AHEAD = 2
"""Batches that wait for the tokenizer."""


def outcomes(
    preparation: Preparation, records: Iterable[Record], stop: Stop, reporter: Reporter
) -> Iterator[Outcome]:
    """What becomes of each record, in their order. Raises Preempted when asked to stop."""
    waiting: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(1, "tokenizer")
    try:
        for some in batched(records):
            stop.check("prep")
            waiting.append(pool.submit(preparation.encode, preparation.read(some)))
            if len(waiting) > AHEAD:
                yield from _finished(preparation, waiting.popleft(), reporter)
        while waiting:
            stop.check("prep")
            yield from _finished(preparation, waiting.popleft(), reporter)
    finally:
        pool.shutdown(cancel_futures=True)


def batched(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records in lists of bounded size."""
    some: list[Record] = []
    size = 0
    for record in records:
        some.append(record)
        size += _characters(record.row)
        if len(some) >= ROWS or size >= CHARACTERS:
            yield some
            some, size = [], 0
    if some:
        yield some


def _finished(
    preparation: Preparation, batch: Future[Batch], reporter: Reporter
) -> Iterator[Outcome]:
    found = preparation.finish(batch.result())
    reporter.advance(len(found))
    yield from found


def _characters(value: object) -> int:
    """About how much text a value holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 8
