"""What the store knows of batches, so that a restarted process takes them up again; for `batch`.

    <prefix>/batches/<name>/state.json     below the replies of the same profile
    <prefix>/batches/<name>/keys/list      the custom_ids in it, one per line

A batch is written down before it is created (`intended`), once the provider has named it (`sent`),
and once its replies are stored (`done`). One that is only intended may or may not exist there.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Literal

from thinktune.llm.requests import NOTHING, Tokens
from thinktune.schema.errors import InputMissing
from thinktune.store import Store, new_attempt

State = Literal["intended", "sent", "done"]


@dataclass(frozen=True)
class BatchRecord:
    """One batch of some run."""

    name: str
    """Ours, unique, given before the provider's."""
    url: str
    """Endpoint that it was sent to."""
    created: float
    """Seconds since 1970 at which it was written down."""
    count: int
    """Requests in it."""
    state: State
    id: str | None = None
    """The provider's name for it."""
    cost: Tokens = NOTHING
    """Tokens in and out that it cost, once it is done; for the run that pays for it, where another
    one has fetched it."""
    assumed: Tokens = NOTHING
    """The part of them that nobody has confirmed."""


class BatchRecords:
    """The batches of one profile. Blocking: call it from a thread."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = f"{prefix}/batches"

    def load(self) -> list[BatchRecord]:
        """All that were written down. Raises InputMissing for a broken record."""
        found = []
        for info in self._store.list(self._prefix):
            if not info.key.endswith("/state.json"):
                continue
            try:
                read = json.loads(self._store.get(info.key))
                cost, assumed = Tokens(*read.pop("cost")), Tokens(*read.pop("assumed"))
                found.append(BatchRecord(**read, cost=cost, assumed=assumed))
            except (ValueError, TypeError, KeyError):
                remedy = "delete it; if that batch exists, its requests are paid for again"
                place = self._store.location(info.key)
                raise InputMissing(place, "is no record of a batch", remedy) from None
        return found

    def intend(self, url: str, keys: list[str]) -> BatchRecord:
        """Writes down that a batch will be created."""
        record = BatchRecord(f"batch-{new_attempt()}", url, time.time(), len(keys), "intended")
        self._store.put(f"{self._prefix}/{record.name}/keys/list", "\n".join(keys).encode())
        self._save(record)
        return record

    def sent(self, record: BatchRecord, batch_id: str) -> BatchRecord:
        """Writes down what the provider calls it."""
        return self._save(replace(record, state="sent", id=batch_id))

    def done(self, record: BatchRecord, cost: Tokens, assumed: Tokens) -> None:
        """Writes down that there is nothing more to get from it."""
        self._save(replace(record, state="done", cost=cost, assumed=assumed))
        self._store.delete_prefix(f"{self._prefix}/{record.name}/keys")

    def keys(self, record: BatchRecord) -> list[str]:
        """The requests in it, by key. Raises ObjectMissing once it is done."""
        listed = self._store.get(f"{self._prefix}/{record.name}/keys/list")
        return listed.decode().split()

    def location(self, record: BatchRecord) -> str:
        """Where its record is, for messages."""
        return self._store.location(f"{self._prefix}/{record.name}")

    def _save(self, record: BatchRecord) -> BatchRecord:
        key = f"{self._prefix}/{record.name}/state.json"
        self._store.put(key, json.dumps(asdict(record)).encode())
        return record
