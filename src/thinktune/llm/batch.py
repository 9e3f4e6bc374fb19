"""Asks in batches, at half the price: gathers requests, sends them as few batches, waits for these,
and sends again only what they did not bring.

`asking` runs it in an event loop of its own. What it holds to: a batch is written down before it is
created and again once it has a name, so no kill loses one; its replies are in the store before it
is written off; its whole cost is set aside in the budget while it is open.
"""

import asyncio
import tempfile
from collections.abc import Callable
from typing import IO, NamedTuple

from thinktune.llm.batch_api import Status, open_batches
from thinktune.llm.batch_records import BatchRecord, BatchRecords
from thinktune.llm.batch_service import BatchService, Brought
from thinktune.llm.budget import Budget
from thinktune.llm.cache import ReplyCache
from thinktune.llm.client import load_client
from thinktune.llm.faults import Denied, Hopeless, Key, error_of
from thinktune.llm.live import NO_REPLY, REFUSED_REQUEST
from thinktune.llm.requests import NOTHING, Request, Tokens, body_of, key_of, most_tokens
from thinktune.llm.worker import Came, Deliver, Inbox, Signal, State
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid
from thinktune.schema.llm import LlmSpec
from thinktune.store import ObjectMissing

SETTLED_S = 0.15
"""Time in which nothing more comes, after which a flush is taken at its word."""
YIELD_EVERY = 200
"""Lines written between two chances for other work."""
PASSING = "token_limit_exceeded"
"""Why OpenAI fails a batch that another one's end makes room for."""


class _Asked(NamedTuple):
    """One key that has no reply yet."""

    offsets: tuple[int, ...]
    """Where its requests lie in the spool; several rows may ask the same."""
    most: Tokens
    size: int
    """Bytes of its line in a batch."""
    failures: int = 0


class Batches:
    """One run of the loop. All methods but `__init__` belong to its event loop."""

    look_ahead: int | None = None

    def __init__(
        self, spec: LlmSpec, key: Key, cache: ReplyCache, budget: Budget, deliver: Deliver
    ) -> None:
        self._spec = spec
        self._key = key
        self._cache = cache
        self._budget = budget
        self._deliver = deliver
        self._records = BatchRecords(cache.store, cache.prefix)
        self._spool: IO[bytes] = tempfile.TemporaryFile(prefix="llm-requests-")  # noqa: SIM115
        self._asked: dict[str, _Asked] = {}
        self._fresh: dict[str, None] = {}
        """Keys that are in no batch, in order."""
        self._fresh_bytes = 0
        self._in_batch: dict[str, str] = {}
        """Key → name of the open batch that has it."""
        self._open: dict[str, BatchRecord] = {}
        self._done: dict[str, int] = {}
        self._fruitless = 0
        self._service: BatchService | None = None

    @property
    def state(self) -> State:
        """How it is getting on."""
        counts = [(self._done.get(r.name, 0), r.count) for r in list(self._open.values())]
        done, count = sum(d for d, _ in counts), sum(c for _, c in counts)
        note = f"{len(counts)} batches, {done:,} of {count:,} requests done" if counts else ""
        fault = self._service.last_fault if self._service else ""
        return State(count - done, 0, fault or note)

    def prepare(self) -> None:
        """Loads the provider's client."""
        load_client(self._spec)

    async def run(self, inbox: Inbox, stopping: asyncio.Event) -> None:
        """Answers what comes in until `END`, batch by batch at each `FLUSH`.

        Raises BudgetReached, ServiceUnavailable, SpecInvalid, InputMissing.
        """
        self._api = open_batches(self._spec, self._key)
        self._service = self._calls = BatchService(
            self._spec, self._api, self._records, self._cache
        )
        self._budget.begin()
        work = asyncio.create_task(self._work(inbox))
        stopped = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        except (Denied, Hopeless) as fault:
            raise error_of(fault, self._spec.url) from None
        finally:
            for task in (work, stopped):
                task.cancel()
            await asyncio.gather(work, stopped, return_exceptions=True)
            self._spool.close()
            await self._api.close()

    async def _work(self, inbox: Inbox) -> None:
        await self._take_up()
        while (what := await inbox.get()) is not Signal.END:
            if isinstance(what, Request):
                self._take(what)
                requests, size = self._limits()
                if len(self._fresh) >= requests or self._fresh_bytes >= size:
                    await self._submit()
                continue
            # More may follow: requests that replies have given rise to come one by one.
            await asyncio.sleep(SETTLED_S)
            if inbox.empty():
                await self._answer_all()

    async def _take_up(self) -> None:
        """Finds the batches of killed processes again."""
        records = await self._calls.load()
        for record in records:
            if record.state == "done":
                continue
            try:
                keys = await asyncio.to_thread(self._records.keys, record)
            except ObjectMissing:  # another process has finished it just now
                continue
            self._open[record.name] = record
            self._in_batch.update(dict.fromkeys(keys, record.name))
        for record in [r for r in self._open.values() if r.state == "intended"]:
            found = await self._calls.find(record)
            if found is None:
                await self._close(record, NOTHING, NOTHING)
            else:
                self._open[record.name] = await self._calls.is_sent(record, found)
        await self._settle_old({record.name: record for record in records})

    async def _settle_old(self, records: dict[str, BatchRecord]) -> None:
        """Settles batches of this run that another one has fetched, or whose record somebody has
        deleted: these may have been billed."""
        for name in self._budget.open_batches():
            record, lease = records.get(name), self._budget.batch_lease(name) or NOTHING
            if record is None:
                await self._budget.settle_batch(name, lease, lease)
            elif record.state == "done":
                await self._budget.settle_batch(name, record.cost, record.assumed)

    def _take(self, request: Request) -> None:
        body = body_of(self._spec, request)
        key = key_of(body, request.draft)
        known = self._cache.get(key)
        if known is not None:
            self._deliver(Came(request, known, None, "", cached=True))
            return
        offset = self._spool.seek(0, 2)
        self._spool.write(request.to_json().encode() + b"\n")
        asked = self._asked.get(key)
        if asked is not None:
            self._asked[key] = asked._replace(offsets=(*asked.offsets, offset))
            return
        most = most_tokens(body, self._spec.parameters.max_tokens)
        self._asked[key] = _Asked((offset,), most, len(self._api.line(key, body)))
        if key not in self._in_batch:
            self._renew(key)

    def _renew(self, key: str) -> None:
        """Puts a key among those to be sent."""
        self._fresh[key] = None
        self._fresh_bytes += self._asked[key].size

    async def _answer_all(self) -> None:
        """Until every request that was taken has its outcome."""
        while self._asked:
            await self._submit()
            ours = {self._in_batch[key] for key in self._asked if key in self._in_batch}
            if self._fresh and not ours:
                raise self._budget.reached()
            for name in sorted(ours):
                await self._look_at(self._open[name])
            if ours.issubset(self._open):  # none of them has ended
                await asyncio.sleep(self._spec.batch.poll_s)

    def _limits(self) -> tuple[int, float]:
        """Requests and bytes of one batch."""
        settings = self._spec.batch
        requests = min(settings.requests or self._api.requests, self._api.requests)
        return requests, min(settings.megabytes or 1e9, self._api.megabytes) * 1e6

    async def _submit(self) -> None:
        """Sends what is in no batch yet, as far as the budget allows."""
        while self._fresh:
            keys, most = self._next_batch()
            if not keys:
                return
            await self._send(keys, most)

    def _next_batch(self) -> tuple[list[str], Tokens]:
        requests, room = self._limits()
        keys: list[str] = []
        most = NOTHING
        for key in self._fresh:
            asked = self._asked[key]
            room -= asked.size
            more = most.plus(asked.most)
            full = len(keys) >= requests or (keys and room < 0)
            if full or not self._budget.fits(more, batch=True):
                break
            keys.append(key)
            most = more
        return keys, most

    async def _send(self, keys: list[str], most: Tokens) -> None:
        record = await asyncio.to_thread(self._records.intend, self._spec.url, keys)
        self._open[record.name] = record
        await self._budget.open_batch(record.name, most)
        with tempfile.TemporaryFile(prefix="llm-batch-") as lines:
            for number, key in enumerate(keys):
                request = self._spooled(self._asked[key].offsets[0])
                lines.write(self._api.line(key, body_of(self._spec, request)))
                if number % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            try:
                self._open[record.name] = await self._calls.create(record, lines)
            except (Denied, Hopeless, SpecInvalid):  # so it does not exist
                await self._close(record, NOTHING, NOTHING)
                raise
        for key in keys:
            del self._fresh[key]
            self._fresh_bytes -= self._asked[key].size
            self._in_batch[key] = record.name

    async def _look_at(self, record: BatchRecord) -> None:
        """Fetches what a batch has brought once it has ended, however it has."""
        status = await self._calls.status(record)
        self._done[record.name] = status.done
        if not status.ended:
            return
        inside = {key for key, name in self._in_batch.items() if name == record.name}
        brought = await self._calls.fetch(record, status, inside, self._most_of(record))
        await self._close(record, brought.cost, brought.assumed)
        for key in inside:
            if key in self._asked:
                self._settle(key, status, brought)
        self._check_progress(status, brought)

    def _most_of(self, record: BatchRecord) -> Callable[[str], Tokens]:
        """What each request of a batch can have cost: known of those that are asked for now, for
        others their share of what was set aside."""
        lease = self._budget.batch_lease(record.name) or NOTHING
        share = Tokens(lease.input // record.count, lease.output // record.count)
        return lambda key: self._asked[key].most if key in self._asked else share

    async def _close(self, record: BatchRecord, cost: Tokens, assumed: Tokens) -> None:
        """Writes a batch off: there is nothing more to get from it."""
        await self._budget.settle_batch(record.name, cost, assumed)
        await asyncio.to_thread(self._records.done, record, cost, assumed)
        del self._open[record.name]
        self._in_batch = {k: name for k, name in self._in_batch.items() if name != record.name}

    def _settle(self, key: str, status: Status, brought: Brought) -> None:
        """Hands a reply on, or the reason of there being none, or puts the key up again."""
        raw = self._cache.get(key)
        missing = ("failed" if status.complete else "unanswered", "missing in the results")
        fate, detail = brought.unanswered.get(key, missing)
        asked = self._asked[key]
        failures = asked.failures + (fate == "failed")
        gone = failures >= self._spec.retries.attempts
        if raw is None and fate != "refused" and not gone:
            self._asked[key] = asked._replace(failures=failures)
            self._renew(key)
            return
        reason = None if raw is not None else REFUSED_REQUEST if fate == "refused" else NO_REPLY
        for offset in self._asked.pop(key).offsets:
            request = self._spooled(offset)
            self._deliver(Came(request, raw, reason, "" if reason is None else detail))

    def _check_progress(self, status: Status, brought: Brought) -> None:
        """Raises if batches bring nothing any more."""
        self._fruitless = 0 if brought.new or not self._fresh else self._fruitless + 1
        if not self._fruitless:
            return
        if status.fault and PASSING not in status.fault:
            remedy = "change model or parameters to what it takes, or use mode: live"
            raise SpecInvalid(self._spec.url, f"the batch failed: {status.fault}", remedy)
        if self._fruitless >= self._spec.batch.rounds:
            why = {detail for _, detail in brought.unanswered.values()}
            said = status.fault or "; ".join(sorted(why)[:3]) or status.note
            fault = f"{self._fruitless} batches in a row brought no reply (the last: {said})"
            remedy = "run it again later, or use mode: live; what came is kept"
            raise ServiceUnavailable(self._spec.url, fault, remedy)

    def _spooled(self, offset: int) -> Request:
        self._spool.seek(offset)
        return Request.from_json(self._spool.readline().decode())
