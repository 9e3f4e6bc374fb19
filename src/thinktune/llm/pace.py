"""How many requests may be under way, and when an endpoint is given up. The live loop asks both.

Pure but for the clock, which is handed in, and the jitter of waits.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from thinktune.llm.faults import FaultError, Throttled, Unreachable
from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.llm import Concurrency, Retries

CUT, GROWTH = 0.8, 1.05
LONE_REQUESTS = 2
"""So few that fail alone, where others were answered, are at fault themselves."""

Clock = Callable[[], float]


def backoff_s(retries: Retries, failures: int) -> float:
    """Seconds until the next try after that many failures: doubled with each, up to the longest
    wait, and drawn from its upper half, so that not all come back at once."""
    longest = min(retries.longest_wait_s, retries.first_wait_s * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)


class Pace:
    """Additive growth would take hours from 20 to 100, so it grows by 5% for each clean round: as
    many replies as may be under way, none refused, and all slots in use at some time of it. A
    refusal (HTTP 429) cuts to 80%, once in a while at most; a server fault only pauses growth.
    """

    def __init__(self, settings: Concurrency, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._limit = float(settings.start)
        self._active = 0
        self._clean = 0
        self._full = False
        self._cut_at = -settings.cut_every_s
        self._paused_until = 0.0
        self._closed_until = 0.0
        self._freed = asyncio.Event()

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return int(self._limit)

    @property
    def active(self) -> int:
        """Requests that are."""
        return self._active

    async def enter(self) -> None:
        """Waits for a free slot and takes it."""
        while self._active >= self.limit:
            self._full = True
            self._freed.clear()
            await self._freed.wait()
        self._active += 1
        self._full = self._full or self._active >= self.limit

    def leave(self) -> None:
        """Gives a slot back."""
        self._active -= 1
        self._freed.set()

    def wait_s(self) -> float:
        """Seconds until anything may be sent: all hold back for a while after a refusal that said
        when to come again."""
        return max(0.0, self._closed_until - self._clock())

    def succeeded(self) -> None:
        """A reply came."""
        self._clean += 1
        if self._clean < self.limit:
            return
        if self._full and self._clock() >= self._paused_until:
            self._limit = min(float(self._settings.most), self._limit * GROWTH)
            self._freed.set()
        self._clean, self._full = 0, False

    def failed(self, fault: FaultError) -> None:
        """A request brought no reply."""
        now = self._clock()
        self._clean, self._full = 0, False
        if not isinstance(fault, Throttled):
            self._paused_until = now + self._settings.cut_every_s
            return
        if fault.retry_after_s:
            # The one that was told waits as long as it was told; the others try again after the
            # time of one cut at the latest, because a limit may be per request.
            wait = min(fault.retry_after_s, self._settings.cut_every_s)
            self._closed_until = max(self._closed_until, now + wait)
        if now - self._cut_at >= self._settings.cut_every_s:
            self._limit = max(float(self._settings.least), self._limit * CUT)
            self._cut_at = now


@dataclass
class Tries:
    """What one request has been through."""

    failures: int = 0
    strikes: int = 0
    """Failures since which others were answered: its own, not the endpoint's."""
    seen: int = 0
    """Replies to others at its last failure."""


@dataclass
class Breaker:
    """Tells an endpoint that is down from a request that is bad, and gives up either in time."""

    retries: Retries
    clock: Clock
    place: str
    """The endpoint's address, for the message."""
    replies: int = 0
    _reached: bool = False
    _open: int = 0
    _since: float = 0.0
    _faults: Counter[str] = field(default_factory=Counter)
    _last: FaultError | None = None
    _failing: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """A request is to be answered: where there was none, the time without a reply begins."""
        if not self._open:
            self._since = self.clock()
        self._open += 1

    def end(self) -> None:
        """That request is done with."""
        self._open -= 1

    def succeeded(self) -> None:
        """A reply came: everything before it is forgiven."""
        self.replies += 1
        self._reached = True
        self._since = self.clock()
        self._faults.clear()
        self._failing.clear()

    def failed(self, key: str, tries: Tries, fault: FaultError) -> Literal["again", "drop"]:
        """What becomes of a request that brought no reply.

        Raises ServiceUnavailable, with what was seen, if the endpoint answers nobody any more.
        """
        self._reached = self._reached or not isinstance(fault, Unreachable)
        self._last = fault
        self._faults[fault.what] += 1
        self._failing.add(key)
        tries.failures += 1
        if self.replies > tries.seen and not isinstance(fault, Throttled):
            tries.strikes += 1
        tries.seen = self.replies
        if tries.strikes >= self.retries.attempts:
            return "drop"
        patience = self.retries.give_up_after_s
        if not self._reached:
            patience = min(patience, self.retries.unreached_give_up_s)
        waited_s = self.clock() - self._since
        if waited_s < patience or tries.failures < 2:
            return "again"
        own_fault = not isinstance(fault, Throttled | Unreachable)
        if own_fault and self.replies and len(self._failing) <= LONE_REQUESTS:
            return "drop"
        raise self._given_up(waited_s)

    def _given_up(self, waited_s: float) -> ServiceUnavailable:
        seen = ", ".join(f"{count} × {what}" for what, count in self._faults.most_common(3))
        fault = f"it has answered nothing for {waited_s:.0f} s ({seen})"
        remedy = "all replies so far are kept; run it again when it answers"
        if isinstance(self._last, Throttled):
            if self._last.retry_after_s:
                fault += f", and asks to wait {self._last.retry_after_s:.0f} s more"
            remedy += ", and lower concurrency, or ask for a higher rate limit"
        return ServiceUnavailable(self.place, fault, remedy)
