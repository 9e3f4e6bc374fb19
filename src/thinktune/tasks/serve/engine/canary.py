"""Finds an engine that hangs: a token asked for now and then, and no token for too long.

vLLM's own /health says 200 while its engine stands still. Runs beside the gateway for as long as
it does.
"""

import asyncio
import contextlib
import time

from thinktune.schema.serve import ServeTimes
from thinktune.tasks.serve.engine.arms import Arms
from thinktune.tasks.serve.engine.client import (
    EngineClient,
    EngineLost,
    EngineRefused,
    EngineUnavailable,
    Generation,
)
from thinktune.tasks.serve.engine.process import Supervisor

LOOK_S = 0.25


async def watch(
    supervisor: Supervisor, client: EngineClient, arms: Arms, times: ServeTimes, asked: Generation
) -> None:
    """Sets `supervisor.answers`, and kills an engine that hangs. `asked`: the request for one
    token."""
    last = time.monotonic()
    asking: set[asyncio.Task[None]] = set()
    while True:
        await asyncio.sleep(LOOK_S)
        if not supervisor.up:
            last = time.monotonic()
            continue
        idle = client.idle_s
        supervisor.answers = idle < times.unready_s
        if idle >= times.hung_s:
            supervisor.kill(f"no token for {idle:.0f} s")
            supervisor.up = False
        elif not client.waiting and time.monotonic() - last >= times.canary_s:
            last = time.monotonic()
            task = asyncio.create_task(_ask(client, arms, asked))
            asking.add(task)
            task.add_done_callback(asking.discard)


async def _ask(client: EngineClient, arms: Arms, asked: Generation) -> None:
    with contextlib.suppress(EngineUnavailable, EngineLost, EngineRefused):
        async with arms.hold(asked.model):
            async for _ in client.stream(asked, wait=False):
                pass
