"""The event loop's thread, and what goes between it and the caller's. `asking` starts one for each
round of asking; `live` and `batch` are what it runs.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import NamedTuple, Protocol

from thinktune.llm.requests import Request


class Signal(Enum):
    """What the caller says to the loop beside requests."""

    FLUSH = "no more for now"
    END = "no more"


class Came(NamedTuple):
    """What the loop says of a request."""

    request: Request
    raw: str | None
    """The reply's body, stored; None where there is a reason."""
    reason: str | None
    detail: str
    cached: bool = False


class State(NamedTuple):
    """How a loop is getting on."""

    under_way: int
    concurrency: int
    waits_for: str


Inbox = asyncio.Queue[Request | Signal]
Deliver = Callable[[Came], None]


class Loop(Protocol):
    """`live.Live` or `batch.Batches`."""

    @property
    def look_ahead(self) -> int | None:
        """Requests that it wants to have at once; None: all of them."""

    def prepare(self) -> None:
        """Loads what takes seconds to load. Called first, and outside of the event loop."""

    async def run(self, inbox: Inbox, stopping: asyncio.Event) -> None:
        """Answers what comes in until `END`, or until it is asked to stop; all that came is stored
        then."""

    @property
    def state(self) -> State:
        """Asked from another thread."""


class Worker:
    """Runs a loop. All methods are for the caller's thread."""

    def __init__(self, make: Callable[[Deliver], Loop]) -> None:
        self._outbox: queue.SimpleQueue[Came | BaseException | None] = queue.SimpleQueue()
        self._loop = make(self._outbox.put)
        self._events: asyncio.AbstractEventLoop | None = None
        self._early: list[Request | Signal] = []
        self._abandoned = False
        self._starting = threading.Lock()
        """Held for what the loop's thread and the caller's must not do at the same time until the
        loop runs."""
        self._flushed = True
        self.outstanding = 0
        """Requests put and not taken back."""
        # A daemon, so that a caller who is interrupted twice can end all the same.
        self._thread = threading.Thread(target=self._run, name="llm", daemon=True)
        self._thread.start()

    @property
    def state(self) -> State:
        """How the loop is getting on."""
        return self._loop.state

    def has_room(self) -> bool:
        """Whether it takes another request already."""
        ahead = self._loop.look_ahead
        return ahead is None or self.outstanding < ahead

    def put(self, request: Request) -> None:
        """Hands a request over."""
        self.outstanding += 1
        self._flushed = False
        self._send(request)

    def take(self, timeout_s: float) -> Came | None:
        """What has come, if anything does within that time. Raises what ended the loop."""
        try:
            came = self._outbox.get(timeout=timeout_s) if timeout_s else self._outbox.get_nowait()
        except queue.Empty:
            if not self._flushed and timeout_s:
                self._flushed = True
                self._send(Signal.FLUSH)
            return None
        if isinstance(came, BaseException):
            raise came
        if came is None:
            raise RuntimeError("the loop ended before its work")
        self.outstanding -= 1
        return came

    def finish(self) -> None:
        """Ends a loop that has delivered everything, and waits for it to store its last state."""
        self._send(Signal.END)
        self._thread.join()
        while (left := self._outbox.get()) is not None:
            if isinstance(left, BaseException):
                raise left

    def end(self) -> None:
        """Stops the loop wherever it is, and waits until what came is stored."""
        with self._starting:
            self._abandoned = True
            if self._events is None:  # it is loading still, which cannot be stopped; it has nothing
                return
        with suppress(RuntimeError):  # it is closed already
            self._events.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _send(self, what: Request | Signal) -> None:
        with self._starting:
            if self._events is None:
                self._early.append(what)
                return
        with suppress(RuntimeError):  # it has ended; `take` says why
            self._events.call_soon_threadsafe(self._inbox.put_nowait, what)

    def _run(self) -> None:
        try:
            self._loop.prepare()
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._outbox.put(error)
        finally:
            self._outbox.put(None)

    async def _main(self) -> None:
        self._inbox: Inbox = asyncio.Queue()
        self._stopping = asyncio.Event()
        with self._starting:
            if self._abandoned:
                return
            self._events = asyncio.get_running_loop()
            for what in self._early:
                self._inbox.put_nowait(what)
        await self._loop.run(self._inbox, self._stopping)
