"""One request under load: asks it, and notes when each part of its answer arrives.

The clock is read once for each piece of data that the network gives, so that texts which arrive
together have one time.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp

from thinktune.launch.load.figures import Timing

CONNECT_S = 10.0
LINE_BYTES = 4 << 20
"""Longest line of an answer."""
TEXTS = ("text", "content", "reasoning", "reasoning_content")
"""Fields with text of an answer, in the events of one API or another."""

Clock = Callable[[], float]


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
        """The times of a request for a stream; one that fails says how."""
        timing = Timing(self._clock())
        try:
            async with self._session.post(self._url, json=body, headers=self._headers) as answer:
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
        held, events, numbered = b"", 0, 0
        while data := await answer.content.readany():
            now = self._clock()
            *lines, held = (held + data).split(b"\n")
            for plain in _events(lines):
                if plain is None:
                    timing.ended = now
                    timing.tokens = timing.tokens or numbered or events
                    return
                ids, has_text = _ids_and_text(plain)
                if has_text:
                    timing.texts.append(now)
                    events += 1
                numbered += ids
                timing.tokens = _counted(plain) or timing.tokens
            if len(held) > LINE_BYTES:
                raise _Broken("a line too long")
        raise _Broken("broke off")


def streamed(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a request for a stream that ends with the number of its tokens."""
    return body | {"stream": True, "stream_options": {"include_usage": True}}


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


def _ids_and_text(plain: dict[str, Any]) -> tuple[int, bool]:
    """How many token ids an event has, and whether it has any text."""
    ids, has_text = 0, False
    for choice in plain.get("choices") or ():
        said = choice.get("delta") or choice
        has_text = has_text or any(said.get(name) for name in TEXTS)
        ids += len(choice.get("token_ids") or ())
    return ids, has_text


def _counted(plain: dict[str, Any]) -> int:
    return int((plain.get("usage") or {}).get("completion_tokens") or 0)
