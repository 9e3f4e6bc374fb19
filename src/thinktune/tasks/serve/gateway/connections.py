"""Connections to the server: what its HTTP parser takes, and for how long one may say nothing.

aiohttp's own server waits for the head of a first request for as long as the client likes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from thinktune.schema.serve import ServeLimits

LINE_BYTES = 8190
MOST_HEADERS = 64
KEEPALIVE_S = 75.0
LINGER_S = 5.0

SILENT = logging.Logger("thinktune.gateway")
"""Takes what aiohttp says of a request that it cannot read: it repeats headers, and with them keys.
What goes wrong in a handler is said by `http`."""
SILENT.addHandler(logging.NullHandler())

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Request(web.BaseRequest):
    """A request whose answer ends its connection while the server drains: the client's next request
    then goes to a server that stays."""

    @property
    def keep_alive(self) -> bool:
        """Whether the client's next request may come on this connection."""
        connection: Any = self.protocol
        return super().keep_alive and not connection.draining


class Connection(RequestHandler):
    """One connection."""

    def __init__(self, listener: "Listener", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            listener.server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            logger=SILENT,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
            max_headers=MOST_HEADERS,
            auto_decompress=False,
        )
        self._listener = listener
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to wait for the head of the first request."""
        super().connection_made(transport)
        if len(self._listener.server.connections) > self._listener.limits.connections:
            self.force_close()
            return
        wait_s = self._listener.limits.body_s
        self._deadline = asyncio.get_running_loop().call_later(wait_s, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stops waiting."""
        self.heard()
        super().connection_lost(exc)

    @property
    def draining(self) -> bool:
        """Whether the server drains."""
        return self._listener.draining

    def heard(self) -> None:
        """The head of a request has come."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Listener:
    """The listening socket, and its connections."""

    def __init__(self, handle: Handle, limits: ServeLimits) -> None:
        async def heard(request: web.BaseRequest) -> web.StreamResponse:
            connection: Any = request.protocol
            connection.heard()
            return await handle(request)

        def made(
            message: RawRequestMessage,
            payload: StreamReader,
            protocol: RequestHandler,
            writer: AbstractStreamWriter,
            task: "asyncio.Task[None]",
        ) -> web.BaseRequest:
            loop = asyncio.get_running_loop()
            return Request(message, payload, protocol, writer, task, loop)

        self.limits = limits
        self.draining = False
        """Whether each answer is the last one of its connection."""
        self.server = web.Server(heard, request_factory=made, handler_cancellation=True)
        self._socket: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listens; gives the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._socket = await loop.create_server(
            lambda: Connection(self, loop), host, port, reuse_address=True, backlog=512
        )
        found: int = self._socket.sockets[0].getsockname()[1]
        return found

    @property
    def connected(self) -> bool:
        """Whether any client is connected."""
        return bool(self.server.connections)

    def stop_listening(self) -> None:
        """Takes no new connection; those that are open stay."""
        if self._socket is not None:
            self._socket.close()

    async def close(self) -> None:
        """Closes all connections."""
        self.stop_listening()
        await self.server.shutdown(1.0)
