"""Drives a server with questions at rising concurrency. Called by `thinktune bench serve`."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from thinktune.launch.load.figures import Timing, level_of
from thinktune.launch.load.timing import Asker, Clock, open_session
from thinktune.schema.load import LoadLevel

LEAST_REQUESTS = 16
PER_CLIENT = 4
"""Requests of each client, where nobody says how many there are."""


@dataclass(frozen=True)
class Load:
    """What a server is asked."""

    url: str
    """Of the requests, with its path."""
    key: str | None = field(repr=False)
    bodies: Sequence[dict[str, Any]]
    """Bodies of requests, asked in turn and again from the first."""
    concurrency: Sequence[int]
    """Numbers of clients, one level each."""
    requests: int | None
    """Requests of each level; None for four of each client, and at least 16."""
    silent_s: float
    """Seconds without a word, after which an answer has stalled."""

    def requests_of(self, level: int) -> int:
        """How many requests a level has: at least one for each client."""
        return max(level, self.requests or max(LEAST_REQUESTS, PER_CLIENT * level))


def drive(
    load: Load, said: Callable[[LoadLevel], None], *, clock: Clock = time.perf_counter
) -> tuple[list[LoadLevel], bool]:
    """All levels, and whether Ctrl-C ended the test before them; then the last one is what was
    measured of it. `said` gets each level once it is measured.

    A level of which no request was answered is the last one.
    """
    return asyncio.run(_levels(load, said, clock))


async def _levels(
    load: Load, said: Callable[[LoadLevel], None], clock: Clock
) -> tuple[list[LoadLevel], bool]:
    found: list[LoadLevel] = []
    bodies = cycle(load.bodies)
    async with open_session(load.silent_s) as session:
        asker = Asker(session, load.url, load.key, clock)
        for clients in load.concurrency:
            timings: list[Timing] = []
            stopped = False
            try:
                await _level(asker, clients, islice(bodies, load.requests_of(clients)), timings)
            except asyncio.CancelledError:
                stopped = True
            if timings:
                found.append(level_of(clients, timings, whole=not stopped))
                said(found[-1])
            if stopped:
                return found, True
            if not found[-1].answered:
                break
    return found, False


async def _level(
    asker: Asker, clients: int, bodies: Iterator[dict[str, Any]], timings: list[Timing]
) -> None:
    """Adds the times of each request that ends to `timings`."""

    async def work() -> None:
        for body in bodies:
            timings.append(await asker.ask(body))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(work())
