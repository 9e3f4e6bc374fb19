"""Sends one request to one endpoint and brings its raw body back. The live loop is its caller.

The providers' own clients do it, without their retries: when to ask again is `live`'s to decide,
which knows the budget, the other requests and whether anybody wants the reply still.
"""

import asyncio
import importlib
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from thinktune.llm.faults import (
    FaultError,
    Hopeless,
    Key,
    Lost,
    Unreachable,
    fault_of_status,
)
from thinktune.llm.replies import NotAReplyError, parse_body, usage_of
from thinktune.schema.llm import LlmSpec

if TYPE_CHECKING:
    import anthropic
    import openai

CONNECT_S = 10.0
"""Longest wait for a connection."""

MOST_BYTES = 32 << 20
"""Largest body of a reply that is read: a million tokens are some 4 MB."""

NO_KEY = "none"
"""What the clients, which insist on a key, send where none is set; it keeps them from taking one
from the environment that is meant for another endpoint."""


class Client:
    """One endpoint. Made and used in one event loop; close it there."""

    def __init__(self, spec: LlmSpec, key: Key) -> None:
        self._spec = spec
        self._key = key
        self._client = open_client(spec, key)

    async def send(self, body: dict[str, Any]) -> bytes:
        """The raw body of a reply with status 2xx.

        Raises a FaultError for anything else; for time-outs as well, whoever took the time.
        """
        try:
            async with asyncio.timeout(self._spec.retries.timeout_s):
                async with self._asked(body) as response:
                    return await _read(response)
        except TimeoutError:
            what = f"no whole reply within {self._spec.retries.timeout_s:g} s"
            raise Lost(what, usage=None) from None
        except Exception as error:  # noqa: BLE001 - two libraries' errors, told apart by what they hold
            raise fault_of(error, self._key) from None

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.close()

    def _asked(self, body: dict[str, Any]) -> AbstractAsyncContextManager[Any]:
        named = ("model", "messages", "max_tokens")
        more = {name: value for name, value in body.items() if name not in named}
        if self._spec.provider == "anthropic":
            kept = {name: body[name] for name in named}
            asked: Any = self._client.messages  # type: ignore[union-attr]
            return asked.with_streaming_response.create(extra_body=more, **kept)  # type: ignore[no-any-return]
        if "max_tokens" in body:
            more["max_tokens"] = body["max_tokens"]
        asked = self._client.chat.completions  # type: ignore[union-attr]
        return asked.with_streaming_response.create(  # type: ignore[no-any-return]
            model=body["model"], messages=body["messages"], extra_body=more
        )


def load_client(spec: LlmSpec) -> None:
    """Imports the provider's library, which takes two to five seconds of CPU."""
    importlib.import_module(spec.provider)


def open_client(spec: LlmSpec, key: Key) -> "openai.AsyncOpenAI | anthropic.AsyncAnthropic":
    """The provider's client for that endpoint, without retries and without following redirects,
    which could carry the key to another host."""
    import httpx2  # loaded with the client it belongs to: a dry run needs neither

    timeout = httpx2.Timeout(spec.retries.timeout_s, connect=CONNECT_S)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=spec.concurrency.most)
    http = httpx2.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)
    secret = key.reveal() or NO_KEY
    if spec.provider == "anthropic":
        import anthropic

        return anthropic.AsyncAnthropic(
            api_key=secret,
            base_url=spec.url,
            max_retries=0,
            timeout=timeout,
            http_client=http,
            open_telemetry=False,
        )
    import openai

    return openai.AsyncOpenAI(
        api_key=secret, base_url=spec.url, max_retries=0, timeout=timeout, http_client=http
    )


def fault_of(error: Exception, key: Key) -> FaultError:
    """What an exception of a client or its transport means. Raises it again if it means nothing
    that an endpoint does."""
    import httpx2

    if isinstance(error, FaultError):
        return error
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response):
        headers: Mapping[str, str] = response.headers
        try:
            body: Any = parse_body(response.content)
            usage = usage_of(body)
        except (NotAReplyError, httpx2.HTTPError, httpx2.StreamError):
            body, usage = getattr(error, "body", None), None
        return fault_of_status(response.status_code, body, headers, key, usage)
    cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
    name = key.redact(f"{type(cause).__name__}: {cause}")
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Unreachable(name)
    if isinstance(cause, httpx2.UnsupportedProtocol | httpx2.ProxyError):
        return Hopeless(name, "check base_url and the proxy variables", passing=True)
    if isinstance(cause, httpx2.HTTPError | httpx2.StreamError):
        return Lost(name, usage=None)
    raise error


async def _read(response: Any) -> bytes:
    pieces, size = [], 0
    async for piece in response.iter_bytes():
        size += len(piece)
        if size > MOST_BYTES:
            raise Lost(f"a reply of more than {MOST_BYTES >> 20} MiB", usage=None)
        pieces.append(piece)
    return b"".join(pieces)
