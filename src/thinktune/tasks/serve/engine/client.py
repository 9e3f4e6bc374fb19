"""Asks the engine for a completion of token ids, and passes on what it writes as it writes it.

A request that the engine did not begin to answer, because it died, restarts or drains, is asked
again; one that it began is not, because its client has read the beginning.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from thinktune.schema.serve import ServeTimes
from thinktune.tasks.serve.engine.process import Supervisor

AGAIN_S = 0.25
CONNECT_S = 10.0
ADAPTER_S = 300.0
"""Seconds that an engine gets to load an adapter."""
LINE_BYTES = 4 << 20
"""Longest line of the engine's answers."""


class EngineRefused(Exception):
    """The engine says that the request is wrong; the message is for the client."""


class EngineUnavailable(Exception):
    """No engine answers, and nothing was written yet: the client may ask again."""


class AdapterRefused(Exception):
    """The engine cannot load that adapter, or has none of that name."""


class EngineLost(Exception):
    """The engine broke off in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One completion: what the engine is asked."""

    model: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    stop_ids: tuple[int, ...]
    temperature: float
    top_p: float
    seed: int | None = None
    more: dict[str, Any] = field(default_factory=dict)
    """Fields that only some engines know: penalties, response_format."""

    def body(self) -> dict[str, Any]:
        """The request's JSON."""
        return {
            "model": self.model,
            "prompt": self.prompt_ids,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p if self.temperature > 0 else 1.0,
            "seed": self.seed,
            "stop_token_ids": self.stop_ids,
            # Think marks may be special tokens, and are to be seen.
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "return_token_ids": True,
            "stream": True,
            **self.more,
        }


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some more of a completion."""

    text: str
    tokens: int
    finish_reason: str | None
    """`stop` or `length` with the last one."""


class EngineClient:
    """One connection pool to the engine."""

    def __init__(self, supervisor: Supervisor, times: ServeTimes) -> None:
        self._supervisor = supervisor
        self._times = times
        self._session: aiohttp.ClientSession | None = None
        self.waiting = 0
        """Requests that wait for a token now."""
        self.moved = time.monotonic()
        """When the engine last wrote anything, or was last asked while nothing was waiting."""

    @property
    def idle_s(self) -> float:
        """Seconds for which some request has waited and none has got anything."""
        return time.monotonic() - self.moved if self.waiting else 0.0

    async def open(self) -> None:
        """Must be called in the event loop that asks."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()

    async def metrics(self) -> str:
        """The engine's own metrics; nothing where it has none or does not answer."""
        if self._session is None or not self._supervisor.up:
            return ""
        try:
            limit = aiohttp.ClientTimeout(total=5)
            async with self._session.get(f"{self._supervisor.url}/metrics", timeout=limit) as got:
                return await got.text() if got.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

    async def wait_up(self) -> None:
        """Until the engine is up for the first time."""
        while not await self._supervisor.wait_up(self._times.start_s):
            await asyncio.sleep(AGAIN_S)

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Loads an adapter beside the others. Raises AdapterRefused or EngineUnavailable."""
        asked = {"lora_name": name, "lora_path": str(folder)}
        await self._manage("load_lora_adapter", asked)

    async def unload_adapter(self, name: str) -> None:
        """Gives the place of an adapter free. Raises AdapterRefused or EngineUnavailable."""
        await self._manage("unload_lora_adapter", {"lora_name": name})

    async def _manage(self, action: str, asked: dict[str, str]) -> None:
        """Only ever asked over the loopback: no path of the gateway leads there."""
        if self._session is None or not await self._supervisor.wait_up(self._times.retry_s):
            raise EngineUnavailable
        headers = {"Authorization": f"Bearer {self._supervisor.key}"}
        limit = aiohttp.ClientTimeout(total=ADAPTER_S)
        url = f"{self._supervisor.url}/v1/{action}"
        try:
            async with self._session.post(
                url, json=asked, headers=headers, timeout=limit
            ) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineUnavailable from error
        # One that was started meanwhile has it from its start.
        if answer.status != 200 and "already" not in text:
            raise AdapterRefused(f"the engine answers {answer.status}: {text[:300]}")

    async def stream(
        self, asked: Generation, *, wait: bool = True, merged: bool = True
    ) -> AsyncGenerator[Chunk, None]:
        """What the engine writes. Raises EngineRefused, EngineUnavailable or EngineLost. With
        `wait`, a request that got nothing yet is asked again for a while; with `merged`, what comes
        at one time is one chunk."""
        deadline = time.monotonic() + (self._times.retry_s if wait else 0.0)
        while True:
            began = False
            try:
                async with aclosing(self._once(asked, deadline, merged)) as chunks:
                    async for chunk in chunks:
                        began = True
                        yield chunk
                return
            except (aiohttp.ClientError, ConnectionError, TimeoutError, _Failed) as error:
                if began:
                    raise EngineLost from error
                if time.monotonic() >= deadline:
                    raise EngineUnavailable from error
            await asyncio.sleep(AGAIN_S)

    async def _once(
        self, asked: Generation, deadline: float, merged: bool
    ) -> AsyncGenerator[Chunk, None]:
        if not await self._supervisor.wait_up(max(0.0, deadline - time.monotonic())):
            raise EngineUnavailable
        assert self._session is not None
        headers = {"Authorization": f"Bearer {self._supervisor.key}"}
        url = f"{self._supervisor.url}/v1/completions"
        with self._waits():
            answer = await self._session.post(url, json=asked.body(), headers=headers)
        async with answer:
            if answer.status != 200:
                raise await _refusal(answer)
            held, ended = b"", False
            while True:
                # Not while the client takes its time to read what it got.
                with self._waits():
                    data = await answer.content.readany()
                if not data:
                    break
                self.moved = time.monotonic()
                *lines, held = (held + data).split(b"\n")
                for some in (lines,) if merged else ([line] for line in lines):
                    chunk = _chunk(some)
                    if chunk is not None:
                        ended = ended or chunk.finish_reason is not None
                        yield chunk
                if len(held) > LINE_BYTES:
                    raise _Failed("a line of its answer is too long")
            if not ended:
                raise _Failed("it ended in the middle")

    @contextmanager
    def _waits(self) -> Iterator[None]:
        if not self.waiting:
            self.moved = time.monotonic()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1


class _Failed(Exception):
    """The engine failed, through no fault of the request."""


async def _refusal(answer: aiohttp.ClientResponse) -> Exception:
    text = await answer.text()
    if answer.status not in (400, 422):
        return _Failed(f"{answer.status} {text[:200]}")
    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        message = "the engine refuses the request"
    return EngineRefused(message)


def _chunk(lines: list[bytes]) -> Chunk | None:
    """Lines of the engine as one chunk; None where they say nothing. Raises _Failed where they say
    that it failed."""
    text, tokens, reason = [], 0, None
    for line in lines:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        plain = json.loads(line[6:])
        if "error" in plain:
            raise _Failed(str(plain["error"])[:200])
        for choice in plain.get("choices", ()):
            text.append(choice.get("text") or "")
            tokens += len(choice.get("token_ids") or ())
            reason = choice.get("finish_reason") or reason
    return Chunk("".join(text), tokens, reason) if text else None
