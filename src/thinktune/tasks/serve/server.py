"""The server: engine and gateway together, from the task to the end.

On SIGTERM it is unready at once, answers what is running, and ends within its grace.
"""

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.serve import READY_LINE, ServeTask
from thinktune.store import open_store
from thinktune.tasks.serve.adapter_check import check_adapter
from thinktune.tasks.serve.engine.arms import Arms
from thinktune.tasks.serve.engine.canary import watch
from thinktune.tasks.serve.engine.choose import (
    Chosen,
    Command,
    choose,
    command,
    keeps_arms_apart,
    look,
)
from thinktune.tasks.serve.engine.client import EngineClient, Generation
from thinktune.tasks.serve.engine.process import Supervisor
from thinktune.tasks.serve.gateway.answering import Answering
from thinktune.tasks.serve.gateway.chat import Chat
from thinktune.tasks.serve.gateway.connections import Listener
from thinktune.tasks.serve.gateway.http import Gateway, State
from thinktune.tasks.serve.gateway.keys import Keys, read_keys
from thinktune.tasks.serve.gateway.prompts import Prompts
from thinktune.tasks.serve.gateway.retrieval import Index, read_folder
from thinktune.tasks.serve.gateway.static import page_files
from thinktune.tasks.serve.inputs import Served, read_served
from thinktune.tasks.serve.log import say
from thinktune.text.tokens import Encoder

LOOK_S = 0.1


def run(task: ServeTask) -> None:
    """Serves until it is asked to stop. Raises ThinktuneError."""
    asyncio.run(_run(task))


async def _run(task: ServeTask) -> None:
    keys = read_keys(task)
    documents = _documents(task)
    stopped, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (hurry if stopped.is_set() else stopped).set())
    # Loading torch takes seconds; what is wrong with the run is known before.
    looking = asyncio.create_task(look())
    with tempfile.TemporaryDirectory(prefix="thinktune-serve-") as folder:
        try:
            store = open_store(task.store)
            served = await asyncio.to_thread(read_served, task, store, Path(folder))
            chosen = choose(task.engine, await looking)
        finally:
            looking.cancel()
        check_adapter(served.adapter, served.template.model, chosen.kind)
        say(f"run {served.run}: {served.judged}")
        say(f"engine {chosen.kind} ({chosen.reason}), base model in {served.base}")
        await Server(task, served, chosen, keys, documents).serve(stopped, hurry)


def _documents(task: ServeTask) -> Index | None:
    if task.documents is None:
        return None
    found = read_folder(Path(task.documents), task.limits.document_bytes)
    index = Index(found)
    say(f"{len(found)} documents, {len(index.passages)} passages")
    return index


class Server:
    """Engine and gateway of one run."""

    def __init__(
        self,
        task: ServeTask,
        served: Served,
        chosen: Chosen,
        keys: Keys,
        documents: Index | None,
        *,
        command_for: Callable[[int], Command] | None = None,
    ) -> None:
        """`command_for`: how the engine is started on a port, where it is not the chosen one's
        usual command."""
        self._task = task
        self._served = served
        usual = partial(command, chosen, served, task)
        self.supervisor = Supervisor(command_for or usual, task.times)
        self.client = EngineClient(self.supervisor, task.times)
        self._arms = Arms(apart=keeps_arms_apart(chosen))
        encoder = Encoder(served.weights / "tokenizer.json")
        chat = Chat(
            served,
            task.limits,
            Prompts(served.template, encoder, served.window),
            Answering(self.client, self._arms, encoder),
            documents,
            forms=chosen.kind == "vllm",
        )
        files = page_files()
        self.state = State(task.limits, keys, chat, self.client, self.supervisor, files)
        self._listener = Listener(Gateway(self.state).handle, task.limits)
        self.port = 0
        """Where it listens, once it does."""

    async def serve(self, stopped: asyncio.Event, hurry: asyncio.Event) -> None:
        """Until it is stopped, or no engine stays up. `hurry` ends running answers as well."""
        task = self._task
        await self.client.open()
        try:
            self.port = await self._listener.open(task.host, task.port)
        except OSError as error:
            fault = f"it cannot be listened on ({error.strerror})"
            place = f"--host {task.host} --port {task.port}"
            raise SpecInvalid(place, fault, "name another port, or 0 for a free one") from None
        canary = Generation(
            model=self._served.run,
            prompt_ids=self._served.stop_ids[:1],
            max_tokens=1,
            stop_ids=self._served.stop_ids,
            temperature=0.0,
            top_p=1.0,
        )
        engine = asyncio.create_task(self.supervisor.run())
        jobs = [
            asyncio.create_task(
                watch(self.supervisor, self.client, self._arms, task.times, canary)
            ),
            asyncio.create_task(self._announce()),
        ]
        asked = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait([engine, asked], return_when=asyncio.FIRST_COMPLETED)
            if not engine.done():
                await self._drain(hurry)
        finally:
            for job in (*jobs, asked):
                job.cancel()
            self._listener.stop_listening()
            await self.supervisor.stop()
            await self._listener.close()
            await self.client.close()
            with contextlib.suppress(asyncio.CancelledError):
                await engine

    async def _announce(self) -> None:
        """Says when the engine is up, each time."""
        host = f"[{self._task.host}]" if ":" in self._task.host else self._task.host
        while True:
            if not await self.supervisor.wait_up(self._task.times.start_s):
                return
            say(f"{READY_LINE} {self._served.run} at http://{host}:{self.port}")
            while self.supervisor.up:
                await asyncio.sleep(LOOK_S)

    async def _drain(self, hurry: asyncio.Event) -> None:
        """Unready at once; what is running ends, within the grace."""
        state = self.state
        state.draining = True
        if state.running:
            say(f"stops once {state.running} requests are answered; a second signal ends them")
        deadline = time.monotonic() + self._task.times.grace_s
        while state.running and not hurry.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
        say("stops")
