"""One request under load: asks it, and notes when each part of its answer arrives.

The clock is read once for each piece of data that the network gives, so that texts which arrive
together have one time.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

CONNECT_S = 10.0
LINE_BYTES = 4 << 20
"""Longest line of an answer."""
TEXTS = ("text", "content", "reasoning", "reasoning_content")
"""Fields with text of an answer, in the events of one API or another."""

Clock = Callable[[], float]


@dataclass(slots=True)
class Timing:
    """One request and the times of its answer, in seconds of the clock."""

    began: float
    texts: list[float] = field(default_factory=list)
    """When each text came."""
    ended: float = 0.0
    tokens: int = 0
    failure: str | None = None
    """What kind of failure it was; None for a whole answer."""


class _Broken(Exception):
    """The answer failed; the text says what kind of failure it is."""


class Asker:
    """One client of the server, or many: requests do not wait for each other."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, key: str | None, clock: Clock
    ) -> None:
        """`url` is that of the requests, with its path."""
        self._session = session
        self._url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._clock = clock

    async def ask(self, body: dict[str, Any]) -> Timing:
        """The request's times; one that fails says how."""
        streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
        timing = Timing(self._clock())
        try:
            async with self._session.post(
                self._url, json=streamed, headers=self._headers
            ) as answer:
                if answer.status != 200:
                    raise _Broken(f"status {answer.status}")
                await self._read(answer, timing)
        except _Broken as error:
            timing.failure = str(error)
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            timing.failure = "no connection" if connecting else "stalled"
        except aiohttp.ClientConnectorError:
            timing.failure = "no connection"
        except (aiohttp.ClientError, OSError):
            timing.failure = "broke off"
        if timing.failure is not None:
            timing.ended = self._clock()
        return timing

    async def _read(self, answer: aiohttp.ClientResponse, timing: Timing) -> None:
        held, events = b"", 0
        while data := await answer.content.readany():
            now = self._clock()
            *lines, held = (held + data).split(b"\n")
            for plain in _events(lines):
                if plain is None:
                    timing.ended = now
                    timing.tokens = timing.tokens or events
                    return
                if any(_texts(plain)):
                    timing.texts.append(now)
                    events += 1
                timing.tokens = _counted(plain) or timing.tokens
            if len(held) > LINE_BYTES:
                raise _Broken("a line too long")
        raise _Broken("broke off")


def open_session(silent_s: float) -> aiohttp.ClientSession:
    """Connections for any number of requests. A server that says nothing for `silent_s` seconds has
    stalled."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silent_s)
    return aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))


def _events(lines: list[bytes]) -> Iterator[dict[str, Any] | None]:
    """The events in these lines, and None for the one that ends the answer. Raises _Broken."""
    for line in lines:
        data = line.strip()
        if not data.startswith(b"data:"):
            continue
        data = data.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            yield None
            continue
        try:
            plain = json.loads(data)
        except ValueError:
            raise _Broken("no JSON") from None
        if not isinstance(plain, dict):
            raise _Broken("no JSON")
        if "error" in plain:
            raise _Broken("an error in the answer")
        yield plain


def _texts(plain: dict[str, Any]) -> Iterator[bool]:
    for choice in plain.get("choices") or ():
        said = choice.get("delta") or choice
        yield any(said.get(name) for name in TEXTS)


def _counted(plain: dict[str, Any]) -> int:
    return int((plain.get("usage") or {}).get("completion_tokens") or 0)
