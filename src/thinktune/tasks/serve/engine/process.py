"""The engine's process: started, watched, killed where it hangs, and started again.

`Supervisor.run` runs for as long as the server does. What the rest asks it is whether the engine
is ready, and where it listens.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable

import aiohttp

from thinktune.schema.errors import InternalError, ThinktuneError
from thinktune.schema.serve import KEY_VARIABLE, ServeTimes
from thinktune.tasks.serve.engine.choose import Command
from thinktune.tasks.serve.engine.output import Output, out_of_memory
from thinktune.tasks.serve.log import say

LOOK_S = 0.25
PORTS = range(20_000, 32_000)
PR_SET_PDEATHSIG = 1
STEADY_S = 300.0
"""Seconds after which an engine's start counts as a success: its next death is a new one."""
MOST_STARTS = 5
"""Starts in a row, none of them steady, after which the server gives up."""
STOP_S = 10.0
SECRET = ("AWS_", "HF_TOKEN")
"""Beginnings of the names of variables that no engine gets."""
SECRETS = (KEY_VARIABLE, "HUGGING_FACE_HUB_TOKEN")
"""Names of such variables."""


class Supervisor:
    """Keeps one engine running."""

    def __init__(
        self,
        command_for: Callable[[int], Command],
        times: ServeTimes,
        *,
        most_starts: int = MOST_STARTS,
    ) -> None:
        """`command_for`: how the engine is started on that port. `most_starts`: starts in a row
        after which the server gives up."""
        self._most_starts = most_starts
        self._command_for = command_for
        self._times = times
        self._process: Process | None = None
        self._output = Output()
        self._changed = asyncio.Condition()
        self._hung = False
        self._stopping = False
        self.key = secrets.token_urlsafe(24)
        """What the engine asks of its clients; only its environment and this process know it."""
        self.url = ""
        self.up = False
        """Whether the engine has said that it is up, and is still there."""
        self.answers = True
        """Whether the canary got an answer; see `canary`."""
        self.starts = 0
        """How often an engine was started."""
        self.was_up = False
        """Whether some engine was up already, so that a request may wait for the next one."""

    @property
    def ready(self) -> bool:
        """Whether requests can be sent to it."""
        return self.up and self.answers

    @property
    def pid(self) -> int | None:
        """The engine's process, while there is one."""
        return self._process.pid if self._process is not None else None

    async def wait_up(self, limit_s: float) -> bool:
        """Whether the engine is up now, or within that time."""
        try:
            async with asyncio.timeout(limit_s), self._changed:
                await self._changed.wait_for(lambda: self.up or self._stopping)
        except TimeoutError:
            return False
        return self.up

    async def run(self) -> None:
        """Runs engines until `stop`. Raises OutOfGpuMemory where none stays up for that reason,
        InternalError where none does for another."""
        failed = 0
        while not self._stopping:
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping:
                return
            failed = 1 if time.monotonic() - began > STEADY_S else failed + 1
            how = "was killed because it hung" if self._hung else f"ended with code {code}"
            say(f"the engine {how}")
            if not self.was_up:
                raise self._why(f"it ended with code {code} before it was up")
            if failed >= self._most_starts:
                raise self._why(f"it ended {failed} times in a row, the last time with code {code}")
            await asyncio.sleep(min(2.0 ** (failed - 1), 30.0))

    def _why(self, fault: str) -> ThinktuneError:
        known = out_of_memory(self._output.end)
        return known or InternalError("engine", fault, "its own messages are above")

    def kill(self, why: str) -> None:
        """Ends an engine that hangs; `run` starts the next one."""
        say(f"kills the engine: {why}")
        self._hung = True
        self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Ends the engine for good."""
        self._stopping = True
        async with self._changed:
            self._changed.notify_all()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            pass
        self._signal(signal.SIGKILL)  # and whatever it started
        await process.wait()

    async def _run_once(self) -> int:
        port = _free_port()
        command = self._command_for(port)
        self.url = f"http://127.0.0.1:{port}"
        self._hung = False
        self.starts += 1
        self._output = Output()
        writing = await self._output.open()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command.arguments,
                env=engine_environment(command, self.key),
                stdin=DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,  # its whole group is killed where it hangs
                preexec_fn=_die_with_parent,
            )
        finally:
            os.close(writing)
        ended = asyncio.create_task(self._process.wait())
        try:
            if await self._comes_up(ended):
                await self._set_up(True)
            return await ended
        finally:
            await self._set_up(False)
            ended.cancel()
            self._signal(signal.SIGKILL)  # what it started must not outlive it
            await self._output.close()

    async def _comes_up(self, ended: "asyncio.Task[int]") -> bool:
        """Waits until the engine answers, or is no more."""
        deadline = time.monotonic() + self._times.start_s
        async with aiohttp.ClientSession() as session:
            while not ended.done():
                if time.monotonic() > deadline:
                    self.kill(f"it did not start within {self._times.start_s:.0f} s")
                    return False
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    limit = aiohttp.ClientTimeout(total=5)
                    async with session.get(f"{self.url}/health", timeout=limit) as answer:
                        if answer.status == 200:
                            return True
                await asyncio.sleep(LOOK_S)
        return False

    async def _set_up(self, up: bool) -> None:
        async with self._changed:
            self.up, self.answers = up, True
            self.was_up = self.was_up or up
            self._changed.notify_all()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def engine_environment(command: Command, key: str) -> dict[str, str]:
    """What an engine finds in its environment, on every node. `key`: what it asks of its clients.

    Its files are here: it needs no credentials of the store, and no key of the server's clients.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(SECRET) and name not in SECRETS
    }
    own = {"HF_HUB_OFFLINE": "1", "VLLM_API_KEY": key, "THINKTUNE_ENGINE_KEY": key}
    return {**inherited, **command.environment, **own}


def _free_port() -> int:
    """A port of the loopback that nobody has. It is below those that the kernel gives to clients,
    any of which may be given away before the engine listens."""
    while True:
        port = PORTS.start + secrets.randbelow(len(PORTS))
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def _die_with_parent() -> None:
    """In the child: SIGTERM when the server dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
