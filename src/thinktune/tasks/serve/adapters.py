"""The runs that a server is to serve, followed while it serves.

A file says which (`thinktune.schema.served.Desired`), as Kubernetes mounts it from a ConfigMap.
Every replica brings them up by itself, at its start and after each change: the adapter of a new run
is fetched to a new folder, checked, and loaded under a new name through the engine's loopback side;
then the server's name leads to it; then what no name leads to is unloaded, once its last request is
answered. What cannot be served changes nothing. How far it is, each replica says in the store.
"""

import asyncio
import itertools
import json
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from thinktune.schema.errors import InputMissing, SpecInvalid, ThinktuneError
from thinktune.schema.keys import replica_key, replica_prefix, stage_prefix
from thinktune.schema.recipe import EngineName
from thinktune.schema.serve import BASE_MODEL, ServeTask
from thinktune.schema.served import Desired, DesiredRun, ReplicaState
from thinktune.store import Store, manifest_digest, read_manifest
from thinktune.tasks.runtime.progress import utc_now
from thinktune.tasks.serve.adapter_check import check_adapter
from thinktune.tasks.serve.engine.client import AdapterRefused, EngineClient, EngineUnavailable
from thinktune.tasks.serve.inputs import Served, read_served
from thinktune.tasks.serve.log import say
from thinktune.tasks.serve.models import Model, Models, model_of
from thinktune.text.tokens import Encoder

MODEL = "model"
"""Folder of the base model, which all runs of a server have."""
LOOK_S = 1.0
AGAIN_S = 15.0
"""Seconds until what could not be served is tried again."""


@dataclass(frozen=True, eq=False)
class Fetched:
    """A run whose adapter is on this machine."""

    desired: DesiredRun
    served: Served
    engine_name: str
    folder: Path


class Adapters:
    """The adapters of one replica."""

    def __init__(self, task: ServeTask, store: Store, folder: Path) -> None:
        """`folder`: where files of runs go."""
        assert task.server is not None and task.desired_file is not None
        self._server = task.server
        self._file = Path(task.desired_file)
        self._task = task
        self._store = store
        self._folder = folder
        self._engine: EngineName | None = None
        self._numbers = itertools.count(1)
        self._fetched: list[Fetched] = []
        self._leaving: dict[Fetched, asyncio.Task[None]] = {}
        """What is unloaded once its last request is answered."""
        self._now: Desired | None = None
        """What is served, as it was asked for."""
        self._pod = os.environ.get("POD_NAME") or socket.gethostname()
        self._said: tuple[object, ...] = ()

    @property
    def first(self) -> Served:
        """The run behind the server's name."""
        return self._fetched[0].served

    @property
    def loaded(self) -> dict[str, Path]:
        """Folders of the adapters that an engine has from its start, by their names there."""
        return {each.engine_name: each.served.adapter for each in self._fetched}

    def models(self, encoder: Encoder) -> list[Model]:
        """What clients can ask for at first."""
        return [model_of(each.served, each.engine_name, encoder) for each in self._fetched]

    def begin(self) -> None:
        """Fetches what is to be served from the start. Raises ThinktuneError where the first run
        cannot be; without another one, the rest is served. Files of an earlier start are kept where
        they are right, and removed where no run has them."""
        desired = self._read()
        for number, run in enumerate(desired.runs):
            try:
                self._fetched.append(self._fetch(run))
            except ThinktuneError as error:
                if number == 0:
                    raise
                say(f"run {run.run} is not served: {error}")
        kept = {MODEL, *(each.folder.name for each in self._fetched)}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        self._now = desired

    def check(self, engine: EngineName) -> None:
        """Leaves out what this engine would not apply, now and later. Raises SpecInvalid where that
        is the first run."""
        self._engine = engine
        for number, each in enumerate(list(self._fetched)):
            try:
                check_adapter(each.served.adapter, each.served.template.model, engine)
            except ThinktuneError as error:
                if number == 0:
                    raise
                say(f"run {each.desired.run} is not served: {error}")
                self._fetched.remove(each)

    async def follow(
        self, models: Models, client: EngineClient, encoder: Encoder, *, changes: bool
    ) -> None:
        """Until it is cancelled. Without `changes`, what there is from the start stays: the other
        nodes of a server would have to load an adapter in the same moment."""
        await client.wait_up()
        await self._report(None)
        if not changes:
            return
        failed = 0
        while True:
            await asyncio.sleep(LOOK_S if not failed else AGAIN_S)
            fault: str | None = None
            tried: int | None = None
            self._gone()
            try:
                desired = self._read()
                tried = desired.revision
                if desired != self._now or not self._has_all(desired):
                    await self._change(desired, models, client, encoder)
                failed = 0
            except (ThinktuneError, AdapterRefused, EngineUnavailable, OSError) as error:
                fault = str(error) or "the engine does not answer"
                failed += 1
            if fault is not None and failed == 1:
                say(f"goes on with what it serves: {fault}")
            await self._report(fault, tried)

    async def end(self) -> None:
        """Takes back what it has said in the store."""
        for task in self._leaving.values():
            task.cancel()
        with suppress(ThinktuneError):
            prefix = replica_prefix(self._server, self._pod)
            await asyncio.to_thread(self._store.delete_prefix, prefix)

    def _read(self) -> Desired:
        place = str(self._file)
        try:
            plain = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            fault = f"it does not say which runs are served ({error})"
            raise InputMissing(place, fault, "install the server again") from None
        return Desired.parse(plain, place)

    def _has_all(self, desired: Desired) -> bool:
        return {each.run for each in desired.runs} <= {each.desired.run for each in self._fetched}

    def _fetch(self, run: DesiredRun) -> Fetched:
        """Brings a run's files here, to a folder that nothing was in since the start. Raises
        ThinktuneError."""
        if run.run in (BASE_MODEL, self._server):
            fault = f"clients that ask for '{run.run}' mean another model of this server"
            raise SpecInvalid(f"run {run.run}", fault, "run its recipe again under another id")
        train = read_manifest(self._store, stage_prefix(run.run, "train"))
        if train is not None and manifest_digest(train) != run.train_sha256:
            fault = "its adapter is another one than was promoted"
            remedy = f"promote it again: thinktune promote {run.run} --to {self._server}"
            raise InputMissing(f"run {run.run}", fault, remedy)
        # At the start all have the same number, and with it the folder of an earlier start.
        number = next(self._numbers) if self._now is not None else 0
        name = f"{run.run}.{run.train_sha256[:8]}.{number}"
        folder = self._folder / name
        task = self._task.model_copy(update={"run": run.run, "unpromoted": run.unpromoted})
        first = self._fetched[0].served if self._fetched else None
        served = read_served(
            task,
            self._store,
            folder,
            base=self._folder / MODEL,
            weights=first.weights if first is not None else None,
        )
        if self._engine is not None:
            check_adapter(served.adapter, served.template.model, self._engine)
        if first is not None and served.base_sha256 != first.base_sha256:
            fault = f"it is of another base model than {first.run}"
            raise SpecInvalid(f"run {run.run}", fault, "serve it by a server of its own")
        say(f"run {run.run}: {served.judged}")
        return Fetched(run, served, name, folder)

    async def _change(
        self, desired: Desired, models: Models, client: EngineClient, encoder: Encoder
    ) -> None:
        """Raises ThinktuneError, AdapterRefused or EngineUnavailable with nothing changed for
        clients where a run cannot be served."""
        here = {each.desired: each for each in self._fetched}
        for run in desired.runs:  # those that are wanted again before they have gone
            if run in here and here[run] in self._leaving:
                self._leaving.pop(here[run]).cancel()
        wanted: list[Fetched] = []
        for run in desired.runs:
            fetched = here.get(run)
            if fetched is None:
                fetched = await asyncio.to_thread(self._fetch, run)
                await self._load(fetched, client)
            wanted.append(fetched)
        models.offer([model_of(each.served, each.engine_name, encoder) for each in wanted])
        self._now = desired
        say(f"{self._server} leads to {wanted[0].desired.run} (revision {desired.revision})")
        left = [each for each in self._fetched if each not in wanted]
        self._fetched = [*wanted, *left]
        await self._report(None)
        for each in left:
            if each not in self._leaving:
                self._leaving[each] = asyncio.create_task(self._unload(each, models, client))

    async def _load(self, fetched: Fetched, client: EngineClient) -> None:
        # First, so that an engine that starts meanwhile has it.
        self._fetched.append(fetched)
        try:
            await client.load_adapter(fetched.engine_name, fetched.served.adapter)
        except BaseException:
            self._fetched.remove(fetched)
            await asyncio.to_thread(shutil.rmtree, fetched.folder, ignore_errors=True)
            raise

    async def _unload(self, left: Fetched, models: Models, client: EngineClient) -> None:
        """Once its last request is answered, however long its client reads."""
        while models.in_use(left.engine_name):
            await asyncio.sleep(LOOK_S)
        self._fetched.remove(left)
        with suppress(AdapterRefused, EngineUnavailable):  # a new engine does not have it
            await client.unload_adapter(left.engine_name)
        shutil.rmtree(left.folder, ignore_errors=True)

    def _gone(self) -> None:
        """Forgets what is unloaded. Raises what went wrong there."""
        for each, task in list(self._leaving.items()):
            if task.done():
                del self._leaving[each]
                task.result()

    async def _report(self, fault: str | None, tried: int | None = None) -> None:
        """Says in the store how far it is, if that is news. A store that is away hears it later.
        `tried`: the revision that a fault is of."""
        tried = tried if fault is not None else None
        runs = tuple(each.desired.run for each in self._fetched)
        revision = self._now.revision if self._now is not None else 0
        said = (revision, runs, fault, tried)
        if said == self._said:
            return
        state = ReplicaState(
            pod=self._pod,
            revision=revision,
            runs=runs,
            fault=fault,
            tried=tried,
            written=utc_now(),
        )
        key = replica_key(self._server, self._pod)
        with suppress(ThinktuneError):
            await asyncio.to_thread(self._store.put, key, state.canonical().encode())
            self._said = said
