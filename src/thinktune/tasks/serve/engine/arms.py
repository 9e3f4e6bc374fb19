"""Keeps requests of the base model and of the adapter apart, for an engine that cannot.

Requests of one model run together; those of another one wait until they have ended, in the order
in which they came.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Arms:
    """Who may ask the engine now."""

    def __init__(self, *, apart: bool) -> None:
        self._apart = apart
        self._running = 0
        self._model = ""
        self._queue: deque[tuple[str, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, model: str) -> AsyncIterator[None]:
        """The block runs while requests of that model may."""
        if not self._apart:
            yield
            return
        await self._enter(model)
        try:
            yield
        finally:
            self._running -= 1
            self._admit()

    async def _enter(self, model: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((model, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted in the same moment
                self._running -= 1
            self._admit()
            raise

    def _admit(self) -> None:
        """Lets in those at the front that may run beside the ones that do."""
        while self._queue:
            model, turn = self._queue[0]
            if turn.done():  # given up
                self._queue.popleft()
                continue
            if self._running and model != self._model:
                return
            self._queue.popleft()
            self._model = model
            self._running += 1
            turn.set_result(None)
