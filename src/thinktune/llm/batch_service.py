"""One batch from its creation to its stored replies, whatever happens in between. `batch` decides
what goes into which batch; here is how a batch is created once, and how nothing it brings is lost.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import IO, TypeVar

from thinktune.llm.batch_api import BatchApi, Fate, Result, Status
from thinktune.llm.batch_records import BatchRecord, BatchRecords
from thinktune.llm.cache import RECORDS_AT_ONCE, Record, ReplyCache
from thinktune.llm.faults import (
    Denied,
    FaultError,
    Hopeless,
    ServerFault,
    Throttled,
    Unreachable,
)
from thinktune.llm.pace import backoff_s
from thinktune.llm.requests import NOTHING, Tokens
from thinktune.schema.errors import InputMissing, ServiceUnavailable, SpecInvalid
from thinktune.schema.llm import LlmSpec

T = TypeVar("T")
MostOf = Callable[[str], Tokens]


@dataclass
class Brought:
    """What a batch brought, its replies left out: they are in the cache."""

    unanswered: dict[str, tuple[Fate, str]] = field(default_factory=dict)
    """Key → why there is no reply, for what the results name."""
    seen: set[str] = field(default_factory=set)
    """Keys that the results name."""
    new: int = 0
    """Replies that were not there before."""
    cost: Tokens = NOTHING
    assumed: Tokens = NOTHING
    """The part of the cost that nobody has confirmed."""


class BatchService:
    """All methods belong to one event loop."""

    def __init__(
        self, spec: LlmSpec, api: BatchApi, records: BatchRecords, cache: ReplyCache
    ) -> None:
        self._spec = spec
        self._api = api
        self._records = records
        self._cache = cache
        self._known: set[str] = set()
        self._reached = False
        self.last_fault = ""
        """What the service said last instead of an answer, for people."""

    async def load(self) -> list[BatchRecord]:
        """The batches at this endpoint, those that are done with as well."""
        records = await asyncio.to_thread(self._records.load)
        self._known.update(record.id for record in records if record.id)
        return [record for record in records if record.url == self._spec.url]

    async def create(self, record: BatchRecord, lines: IO[bytes]) -> BatchRecord:
        """Creates a batch that is written down, once, also where the answer to that is lost.

        Raises SpecInvalid if it is refused; after any other error it may exist, and is looked for
        by the next process.
        """

        async def once() -> str:
            try:
                lines.seek(0)
                return await self._api.create(record, lines)
            except FaultError as fault:
                # Where nobody knows whether it was done, it may exist all the same.
                found = None if fault.usage is not None else await self.find(record)
                if found is None:
                    raise
                return found

        try:
            return await self.is_sent(record, await self._patiently(once))
        except (Denied, Hopeless) as fault:
            if isinstance(fault, Hopeless) and (fault.passing or fault.status != 404):
                raise
            remedy = "use mode: live, or an endpoint with a batch service"
            said = f"it creates no batch: {fault.what}"
            raise SpecInvalid(self._spec.url, said, remedy) from None

    async def find(self, record: BatchRecord) -> str | None:
        """The name of a batch whose creation was cut off, looked for until it would have shown up.

        That time runs from now: when it was written down says nothing of when it was sent, perhaps
        in the very moment in which that process was killed.
        """
        until = time.monotonic() + self._spec.batch.lookup_s
        while True:
            found = await self._patiently(lambda: self._api.find(record, self._known))
            if found is not None or time.monotonic() >= until:
                return found
            await asyncio.sleep(min(1.0, self._spec.batch.lookup_s))

    async def is_sent(self, record: BatchRecord, batch_id: str) -> BatchRecord:
        """Writes down the provider's name of a batch."""
        self._known.add(batch_id)
        return await asyncio.to_thread(self._records.sent, record, batch_id)

    async def status(self, record: BatchRecord) -> Status:
        """How a batch is getting on. Raises InputMissing if the endpoint does not know it."""
        return await self._known_there(record, lambda: self._api.status(record.id or ""))

    async def fetch(
        self, record: BatchRecord, status: Status, inside: Collection[str], most: MostOf
    ) -> Brought:
        """Stores every reply of an ended batch. `inside` are its keys; `most` is what each of them
        can have cost at most. Raises InputMissing if the endpoint has its results no more."""
        return await self._known_there(record, lambda: self._fetch(record, status, inside, most))

    async def _fetch(
        self, record: BatchRecord, status: Status, inside: Collection[str], most: MostOf
    ) -> Brought:
        brought = Brought()
        waiting: list[Record] = []
        async for result in self._api.results(record.id or "", status):
            if result.key not in inside:
                continue  # an id that we did not send
            _count(brought, result, most(result.key))
            if result.fate == "reply" and result.key not in self._cache:
                waiting.append(Record(result.key, result.raw, "batch"))
            if len(waiting) >= RECORDS_AT_ONCE:
                brought.new += await self._store(waiting)
        brought.new += await self._store(waiting)
        if status.complete:
            # What should be there and is not may have been billed.
            for key in inside:
                if key not in brought.seen:
                    brought.cost = brought.cost.plus(most(key))
                    brought.assumed = brought.assumed.plus(most(key))
        return brought

    async def _store(self, waiting: list[Record]) -> int:
        new = {record.key: record for record in reversed(waiting)}  # the first of a key stays
        await self._cache.add_all([r for r in new.values() if r.key not in self._cache])
        waiting.clear()
        return len(new)

    async def _known_there(self, record: BatchRecord, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._patiently(call)
        except Hopeless as fault:
            if fault.status != 404:
                raise
        said = f"the endpoint knows no batch '{record.id}', or its results no more (HTTP 404)"
        remedy = (
            "check that the key is of the account that sent it; to send its requests again, and "
            "pay for them again, delete that folder"
        )
        raise InputMissing(self._records.location(record), said, remedy)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Calls until the service answers. Raises Denied and Hopeless at once, ServiceUnavailable
        when the patience of the settings is over."""
        retries, began, tries = self._spec.retries, time.monotonic(), 0
        while True:
            try:
                answer = await call()
            except (Denied, Hopeless):
                raise
            except FaultError as fault:
                tries += 1
                self._reached = self._reached or not isinstance(fault, Unreachable)
                self.last_fault = fault.what
                patience = retries.give_up_after_s
                if not self._reached:
                    patience = min(patience, retries.unreached_give_up_s)
                if time.monotonic() - began >= patience:
                    said = f"it has answered nothing for {patience:.0f} s ({tries} × {fault.what})"
                    remedy = "open batches are kept; run it again when it answers"
                    raise ServiceUnavailable(self._spec.url, said, remedy) from None
                await asyncio.sleep(self._wait_s(fault, tries))
            else:
                self._reached, self.last_fault = True, ""
                return answer

    def _wait_s(self, fault: FaultError, tries: int) -> float:
        retries = self._spec.retries
        if isinstance(fault, Throttled | ServerFault) and fault.retry_after_s is not None:
            return min(fault.retry_after_s, retries.retry_after_cap_s)
        return backoff_s(retries, tries)


def _count(brought: Brought, result: Result, most: Tokens) -> None:
    """Adds one line's cost and fate. A second line for one request counts as billed as well."""
    if result.usage is None:
        brought.assumed = brought.assumed.plus(most)
    brought.cost = brought.cost.plus(most if result.usage is None else result.usage)
    brought.seen.add(result.key)
    if result.fate == "reply":
        brought.unanswered.pop(result.key, None)
    elif result.key not in brought.unanswered:
        brought.unanswered[result.key] = (result.fate, result.detail)
