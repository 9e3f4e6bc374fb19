"""A server on a real socket whose answers arrive by a script, and a clock that the script sets.

It waits until a piece has been read, as the clock's readings show, before it sends the next: pieces
come as they are written, however slow the machine is.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class SetClock:
    """Gives the time that it was set to."""

    now: float = 0.0
    readings: int = 0

    def __call__(self) -> float:
        self.readings += 1
        return self.now

    async def read_again(self) -> None:
        """Until it has been read once more."""
        seen = self.readings
        while self.readings == seen:
            await asyncio.sleep(0)


@dataclass(frozen=True)
class Piece:
    """Some data of an answer, and when it arrives."""

    at: float
    data: bytes


@dataclass(frozen=True)
class Answer:
    """One scripted answer."""

    pieces: Sequence[Piece] = ()
    status: int = 200
    end: str = "whole"
    """`cut` closes the connection behind the pieces, `stall` says nothing more."""


@dataclass
class StreamServer:
    """Answers requests by a script, one after the other."""

    clock: SetClock
    answers: list[Answer]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        answer = self.answers.pop(0)
        if answer.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=answer.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in answer.pieces:
            self.clock.now = piece.at
            reading = asyncio.ensure_future(self.clock.read_again())
            await asyncio.sleep(0)
            await response.write(piece.data)
            await reading
        if answer.end == "stall":
            await asyncio.sleep(3600)
        if answer.end == "cut":
            assert request.transport is not None
            request.transport.close()
        return response


@asynccontextmanager
async def stream_server(clock: SetClock, answers: list[Answer]) -> AsyncIterator[StreamServer]:
    """The server while the block runs."""
    made = StreamServer(clock, answers)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", made.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}/v1/chat/completions"
    try:
        yield made
    finally:
        await runner.cleanup()


def said(text: str, field_name: str = "content") -> bytes:
    """The event of some text."""
    return event({"choices": [{"index": 0, "delta": {field_name: text}}]})


def usage(tokens: int) -> bytes:
    """The event that counts tokens."""
    return event({"choices": [], "usage": {"completion_tokens": tokens}})


def event(plain: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(plain)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
FIRST = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
