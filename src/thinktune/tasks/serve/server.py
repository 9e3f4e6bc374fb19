"""The server: engine and gateway together, from the task to the end.

On SIGTERM it is unready at once, answers what is running, and ends within its grace.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thinktune.schema.errors import InternalError, SpecInvalid
from thinktune.schema.serve import BASE_MODEL, READY_LINE, ServeTask
from thinktune.store import open_store
from thinktune.tasks.runtime.nodes import PeerWatch
from thinktune.tasks.serve.adapter_check import check_adapter
from thinktune.tasks.serve.adapters import Adapters
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
from thinktune.tasks.serve.engine.process import MOST_STARTS, Supervisor
from thinktune.tasks.serve.fetching import brought, own_folder, pod_folder
from thinktune.tasks.serve.gateway.answering import Answering
from thinktune.tasks.serve.gateway.chat import Chat
from thinktune.tasks.serve.gateway.connections import Listener
from thinktune.tasks.serve.gateway.http import Gateway, State
from thinktune.tasks.serve.gateway.keys import Keys, read_keys
from thinktune.tasks.serve.gateway.retrieval import Index, read_folder
from thinktune.tasks.serve.gateway.static import page_files
from thinktune.tasks.serve.inputs import Served, read_served
from thinktune.tasks.serve.log import say
from thinktune.tasks.serve.models import Models, model_of
from thinktune.tasks.serve.nodes import as_first_node, node_count, watch_peers
from thinktune.text.tokens import Encoder

LOOK_S, LOST_S = 0.1, 1.0
QUIET_S = 2.0
"""Seconds without a request after which connections that clients keep open are closed at the end:
one that asks again and again hears within that time that it must connect anew."""


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
    with contextlib.ExitStack() as stack:
        adapters = None
        try:
            store = open_store(task.store)
            if task.desired_file is not None:
                adapters = Adapters(task, store, pod_folder())
                await brought(adapters.begin, stopped)
                served = adapters.first
            else:
                own = stack.enter_context(own_folder())
                served = await brought(lambda: read_served(task, store, own), stopped, leaves=own)
            chosen = choose(task.engine, await looking)
        finally:
            looking.cancel()
        if adapters is not None:
            adapters.check(chosen.kind)
        else:
            check_adapter(served.adapter, served.template.model, chosen.kind)
            say(f"run {served.run}: {served.judged}")
        say(f"engine {chosen.kind} ({chosen.reason}), base model in {served.base}")
        server = Server(task, served, chosen, keys, documents, adapters=adapters)
        await server.serve(stopped, hurry)


def _documents(task: ServeTask) -> Index | None:
    if task.documents is None:
        return None
    found = read_folder(Path(task.documents), task.limits.document_bytes)
    index = Index(found)
    say(f"{len(found)} documents, {len(index.passages)} passages")
    return index


async def _until_lost(peers: PeerWatch | None) -> None:
    """Until another node of this server has ended; alone, for ever."""
    while peers is None or not peers.lost:
        await asyncio.sleep(LOST_S)


async def _first(ends: "set[asyncio.Task[Any]]", jobs: "list[asyncio.Task[None]]") -> None:
    """Until one of `ends` is done. A job may be done before; raises what one has raised: a server
    that nobody watches, or that follows no promotion, must not look like one that is well."""
    left = set(jobs)
    while not any(each.done() for each in ends):
        await asyncio.wait(ends | left, return_when=asyncio.FIRST_COMPLETED)
        for job in [each for each in left if each.done()]:
            left.discard(job)
            job.result()


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
        adapters: Adapters | None = None,
    ) -> None:
        """`command_for`: how the engine is started on a port, where it is not the chosen one's
        usual command. `adapters`: those of a server whose runs change."""
        self._task = task
        self._served = served
        self._adapters = adapters

        def usual(port: int) -> Command:
            loaded = adapters.loaded if adapters is not None else {served.run: served.adapter}
            alone = command(chosen, served, task, port, loaded)
            return alone if node_count() == 1 else as_first_node(alone)

        # The nodes of a group start again together, by Kubernetes.
        starts = MOST_STARTS if node_count() == 1 else 1
        self.supervisor = Supervisor(command_for or usual, task.times, most_starts=starts)
        self.client = EngineClient(self.supervisor, task.times)
        self._arms = Arms(apart=keeps_arms_apart(chosen))
        self._encoder = encoder = Encoder(served.weights / "tokenizer.json")
        self._models = Models(task.server)
        self._models.offer(
            adapters.models(encoder)
            if adapters is not None
            else [model_of(served, served.run, encoder)]
        )
        chat = Chat(
            self._models,
            task.limits,
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
        await self.client.open()
        await self._listen()
        engine = asyncio.create_task(self.supervisor.run())
        jobs = self._jobs()
        peers = watch_peers() if node_count() > 1 else None
        asked = asyncio.create_task(stopped.wait())
        lost = asyncio.create_task(_until_lost(peers))
        try:
            await _first({engine, asked, lost}, jobs)
            if lost.done():
                raise InternalError("engine", "it has lost a node", "all nodes start again")
            if not engine.done():
                await self._drain(hurry)
        finally:
            for job in (*jobs, asked, lost):
                job.cancel()
            if peers is not None:
                peers.leave(done=stopped.is_set())
            if self._adapters is not None:
                await self._adapters.end()
            self._listener.stop_listening()
            await self.supervisor.stop()
            await self._listener.close()
            await self.client.close()
            with contextlib.suppress(asyncio.CancelledError):
                await engine

    async def _listen(self) -> None:
        """Raises SpecInvalid where the port is taken."""
        task = self._task
        try:
            self.port = await self._listener.open(task.host, task.port)
        except OSError as error:
            fault = f"it cannot be listened on ({error.strerror})"
            place = f"--host {task.host} --port {task.port}"
            raise SpecInvalid(place, fault, "name another port, or 0 for a free one") from None

    def _jobs(self) -> list[asyncio.Task[None]]:
        """What goes on beside engine and requests."""
        canary = Generation(
            model=BASE_MODEL,  # which every engine has, whatever adapters come and go
            prompt_ids=self._served.stop_ids[:1],
            max_tokens=1,
            stop_ids=self._served.stop_ids,
            temperature=0.0,
            top_p=1.0,
        )
        times = self._task.times
        watching = watch(self.supervisor, self.client, self._arms, times, canary)
        jobs = [watching, self._announce()]
        if self._adapters is not None:
            following = self._adapters.follow(
                self._models, self.client, self._encoder, changes=node_count() == 1
            )
            jobs.append(following)
        return [asyncio.create_task(job) for job in jobs]

    async def _announce(self) -> None:
        """Says when the engine is up, each time."""
        host = f"[{self._task.host}]" if ":" in self._task.host else self._task.host
        while True:
            if not await self.supervisor.wait_up(self._task.times.start_s):
                return
            name = self._task.server or self._served.run
            say(f"{READY_LINE} {name} at http://{host}:{self.port}")
            while self.supervisor.up:
                await asyncio.sleep(LOOK_S)

    async def _drain(self, hurry: asyncio.Event) -> None:
        """Unready at once; what is running ends, within the grace. Clients that keep connections
        are told to close them, by the answer to their next request."""
        state = self.state
        state.draining = self._listener.draining = True
        if state.running:
            say(f"stops once {state.running} requests are answered; a second signal ends them")
        busy = time.monotonic()
        deadline = busy + self._task.times.grace_s
        while self._listener.connected and not hurry.is_set() and time.monotonic() < deadline:
            if state.running:
                busy = time.monotonic()
            elif time.monotonic() - busy >= QUIET_S:
                break
            await asyncio.sleep(LOOK_S)
        say("stops")
