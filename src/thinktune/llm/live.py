"""Asks one request after another, many at a time, and keeps each reply before it hands it on.

`asking` runs it in an event loop of its own. What it holds to: nothing is sent without a lease from
the budget; a slot is free again only once the reply is in the store; a failure is either tried
again, or has a reason that is counted, or ends the run with an error that says what was seen.
"""

import asyncio
import random
import time
from typing import Any

from thinktune.llm.budget import Budget
from thinktune.llm.cache import Record, ReplyCache
from thinktune.llm.client import Client, load_client
from thinktune.llm.faults import (
    Denied,
    FaultError,
    Hopeless,
    Key,
    Lost,
    ServerFault,
    Throttled,
    error_of,
)
from thinktune.llm.pace import Breaker, Clock, Pace, Tries, backoff_s
from thinktune.llm.replies import NotAReplyError, parse_body, read_answer, usage_of
from thinktune.llm.requests import Request, Tokens, body_of, key_of, most_tokens
from thinktune.llm.worker import Came, Deliver, Inbox, Signal, State
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.llm import LlmSpec

DENIED_IN_A_ROW = 10
"""Requests refused as such before any was answered: then it is the settings that are refused."""

GRACE_S = 0.8
"""Time that requests under way get to be answered when this process is asked to stop."""
ENDING_S = 60.0
"""The same when an error ends the run: what they bring is paid for."""

NO_REPLY, REFUSED_REQUEST = "no_reply", "refused_request"
"""Reasons for rows without a reply: it kept failing; the endpoint refuses the request itself."""


class Live:
    """One run of the loop. All methods but `__init__` belong to its event loop."""

    def __init__(
        self,
        spec: LlmSpec,
        key: Key,
        cache: ReplyCache,
        budget: Budget,
        deliver: Deliver,
        clock: Clock = time.monotonic,
    ) -> None:
        self._spec = spec
        self._key = key
        self._cache = cache
        self._budget = budget
        self._deliver = deliver
        self._pace = Pace(spec.concurrency, clock)
        self._breaker = Breaker(spec.retries, clock, spec.url)
        self._same: dict[str, list[Request]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: set[asyncio.Task[Any]] = set()
        self._over = False
        self._denied, self._refusal = 0, ""
        self._waits_for = ""
        self.look_ahead = 2 * spec.concurrency.most

    @property
    def state(self) -> State:
        """How it is getting on."""
        return State(len(self._sending), self._pace.limit, self._waits_for)

    def prepare(self) -> None:
        """Loads the provider's client."""
        load_client(self._spec)

    async def run(self, inbox: Inbox, stopping: asyncio.Event) -> None:
        """Answers what comes in until `END`; `stopping` ends it with all replies stored.

        Raises BudgetReached, ServiceUnavailable, SpecInvalid; all replies are stored then too.
        """
        self._client = Client(self._spec, self._key)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failed.add_done_callback(_seen)
        self._cache.begin()
        self._budget.begin()
        writer = asyncio.create_task(self._cache.run(self._budget.store_now))
        feeding = asyncio.create_task(self._feed(inbox))
        stopped = asyncio.create_task(stopping.wait())
        try:
            ends: set[asyncio.Future[Any]] = {self._failed, writer, feeding, stopped}
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            await self._settle_down(feeding, stopped, writer)
            self._cache.finish()
            try:
                await writer
                await self._budget.store_now(last=True)
            finally:
                await self._client.close()

    async def _settle_down(
        self,
        feeding: "asyncio.Task[None]",
        stopped: "asyncio.Task[bool]",
        writer: "asyncio.Task[None]",
    ) -> None:
        """Gives what is under way a moment to arrive, because it is paid for; ends the rest."""
        self._over = True
        feeding.cancel()
        for task in self._tasks - self._sending:
            task.cancel()
        # Where nothing can be stored any more, nothing is worth waiting for.
        if self._sending and not stopped.done() and not writer.done():
            arriving = asyncio.create_task(asyncio.wait(self._sending, timeout=ENDING_S))
            await asyncio.wait({arriving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if self._sending and stopped.done():
            await asyncio.wait(self._sending, timeout=GRACE_S)
        stopped.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(feeding, stopped, *self._tasks, return_exceptions=True)

    async def _feed(self, inbox: Inbox) -> None:
        while (request := await inbox.get()) is not Signal.END:
            if isinstance(request, Signal):
                continue  # nothing is held back here that could be flushed
            body = body_of(self._spec, request)
            key = key_of(body, request.draft)
            known = self._cache.get(key)
            if key in self._same:  # under way already: one reply does for both
                self._same[key].append(request)
            elif known is not None:
                self._deliver(Came(request, known, None, "", cached=True))
            else:
                await self._pace.enter()
                self._same[key] = [request]
                task = asyncio.create_task(self._one(key, body))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._check_refusals()

    async def _one(self, key: str, body: dict[str, Any]) -> None:
        self._breaker.begin()
        try:
            raw, reason, detail = await self._asked(key, body)
        except Exception as error:  # noqa: BLE001 - `run` raises it
            if not self._failed.done():
                self._failed.set_exception(error)
            return
        finally:
            self._breaker.end()
            self._pace.leave()
            requests = self._same.pop(key)
        for request in requests:
            self._deliver(Came(request, raw, reason, detail))

    async def _asked(self, key: str, body: dict[str, Any]) -> tuple[str | None, str | None, str]:
        """The reply, stored; or the reason and the detail of there being none."""
        tries = Tries()
        most = most_tokens(body, self._spec.parameters.max_tokens)
        while True:
            await self._held_back()
            await self._budget.reserve(most)
            try:
                raw = await self._sent(body, most)
            except FaultError as fault:
                again = self._judge(key, tries, fault)
                if again is None or self._over:
                    return None, _reason(fault), fault.what
                self._waits_for = fault.what
                await asyncio.sleep(again)
                continue
            self._waits_for = ""
            await self._cache.add(Record(key, raw, "live"))
            return raw, None, ""

    async def _sent(self, body: dict[str, Any], most: Tokens) -> str:
        """Sends once, and settles what that cost."""
        task = asyncio.current_task()
        usage: Tokens | None = None  # of a request that is cancelled, nobody knows
        try:
            if task is not None:
                self._sending.add(task)
            raw, usage = self._whole(await self._client.send(body))
        except FaultError as fault:
            usage = fault.usage
            raise
        finally:
            self._budget.settle(most, usage)
            if task is not None:
                self._sending.discard(task)
        self._breaker.succeeded()
        self._pace.succeeded()
        return raw

    def _whole(self, raw: bytes) -> tuple[str, Tokens | None]:
        """The body without the key, and its usage. What is no reply at all is not kept."""
        usage = None
        try:
            body = parse_body(raw)
            usage = usage_of(body)
            read_answer(self._spec.provider, body)
        except NotAReplyError as error:
            raise Lost(str(error), usage=usage) from None
        return self._key.redact(raw.decode("utf-8")), usage

    async def _held_back(self) -> None:
        while (wait := self._pace.wait_s()) > 0:
            await asyncio.sleep(wait)

    def _judge(self, key: str, tries: Tries, fault: FaultError) -> float | None:
        """Seconds until the next try; None where there is none."""
        if isinstance(fault, Hopeless):
            raise error_of(fault, self._spec.url)
        if isinstance(fault, Denied):
            self._denied += 1
            self._refusal = fault.what
            if self._denied >= DENIED_IN_A_ROW:
                self._check_refusals()
            return None
        self._pace.failed(fault)
        if self._breaker.failed(key, tries, fault) == "drop":
            return None
        retries = self._spec.retries
        own = backoff_s(retries, tries.failures)
        if isinstance(fault, Throttled | ServerFault) and fault.retry_after_s is not None:
            # A little later than told, and not all at the same moment.
            told = min(fault.retry_after_s, retries.retry_after_cap_s)
            return told + random.uniform(0, min(own, 1.0))
        return own

    def _check_refusals(self) -> None:
        """Raises SpecInvalid if every request was refused: rows are not at fault then."""
        if self._denied and not self._breaker.replies and not len(self._cache):
            fault = f"it refuses every request: {self._refusal}"
            raise SpecInvalid(self._spec.url, fault, "change model or parameters to what it takes")


def _seen(failed: "asyncio.Future[None]") -> None:
    """Marks an error as seen: another may have ended the run before it."""
    if not failed.cancelled():
        failed.exception()


def _reason(fault: FaultError) -> str:
    return REFUSED_REQUEST if isinstance(fault, Denied) else NO_REPLY
