"""A server as it is to be installed: its runs, its size and its chart values, and nothing made yet.

Called by `serve`, and by the command line to render manifests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import thinktune
from thinktune.launch.serving.artifacts import Servable, check_same_base, read_servable
from thinktune.launch.serving.sizing import ServeWishes, size_server
from thinktune.launch.serving.values import (
    ServerFacts,
    serve_values,
    server_release,
    server_task,
    usual_times,
)
from thinktune.schema.catalog import HardwareEntry
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.serve import BASE_MODEL, ServeTask, ServeTimes
from thinktune.schema.serve_values import ServeValues, Workload
from thinktune.schema.served import Desired, DesiredRun
from thinktune.store import Store


@dataclass(frozen=True)
class ServerRequest:
    """What is asked of a cluster."""

    name: str
    runs: Sequence[str]
    """Empty keeps what the server serves."""
    task: ServeTask
    """Limits and times; the rest of it is decided here."""
    hardware: str | None
    wishes: ServeWishes
    replicas: int | None
    """None keeps the number that there is, and begins with one."""
    unpromoted: bool
    cluster: Cluster
    catalog: Mapping[str, HardwareEntry]
    force: bool = False
    """Install although no node there could take it: an autoscaler may bring one."""


@dataclass(frozen=True)
class PlannedServer:
    """A server as it is to be installed."""

    facts: ServerFacts
    values: ServeValues
    runs: Sequence[Servable]


@dataclass(frozen=True)
class Before:
    """What is there of a server before a command."""

    desired: Desired | None = None
    task: ServeTask | None = None
    values: Mapping[str, Any] | None = None


def plan_server(
    request: ServerRequest, store: Store, before: Before, workload: Workload | None = None
) -> PlannedServer:
    """Raises SpecInvalid where runs do not go together or nothing fits, InputMissing where an
    artifact is missing. `workload`: for several nodes, what the cluster can run."""
    _check_name(request.name, request.runs)
    runs = _servable(request, store, before)
    check_same_base(runs)
    wishes = kept_wishes(request.wishes, before)
    slots = max(wishes.slots, len(runs))
    task = _limits_kept(request.task, before)
    size = size_server(
        runs,
        kept_hardware(request, before),
        replace(wishes, slots=slots),
        request.catalog,
        task.engine,
    )
    kind: Workload = "deployment" if size.nodes == 1 else workload or "leaderworkerset"
    replicas = request.replicas or int((before.values or {}).get("replicas", 1))
    if kind == "statefulset" and replicas > 1:
        fault = "several servers over several nodes each need LeaderWorkerSet, which is not there"
        remedy = "install it (https://lws.sigs.k8s.io), or leave --replicas out"
        raise SpecInvalid(f"server {request.name}", fault, remedy)
    facts = ServerFacts(
        name=request.name,
        desired=_desired(runs, before.desired),
        task=server_task(request.name, task, size, slots),
        size=size,
        replicas=replicas,
        workload=kind,
    )
    node = request.catalog[size.hardware]
    values = serve_values(facts, node, request.cluster, thinktune.__version__)
    return PlannedServer(facts, values, runs)


def kept_wishes(wishes: ServeWishes, before: Before) -> ServeWishes:
    """What nobody asks for now stays as it was asked for before."""
    if before.task is None:
        return wishes
    execution = before.task.execution
    return ServeWishes(
        precision=wishes.precision or (execution.precision if execution else None),
        window=wishes.window or before.task.window,
        nodes=wishes.nodes or (execution.nodes if execution else None),
        slots=max(wishes.slots, before.task.adapters),
    )


def kept_hardware(request: ServerRequest, before: Before) -> str | None:
    known = (before.values or {}).get("hardware")
    return request.hardware or (known if known in request.catalog else None)


def _limits_kept(task: ServeTask, before: Before) -> ServeTask:
    """The task with the limits and times of before, but for those that are set now."""
    if before.task is None:
        return task
    limits, times = task.limits, task.times
    changed = {name: getattr(limits, name) for name in limits.model_fields_set}
    slower = {name: getattr(times, name) for name in times.model_fields_set}
    usual = usual_times(before.task.execution)
    # Those that nobody has set are of the engine, which may be another one now.
    kept = {name: value for name, value in before.task.times if value != getattr(usual, name)}
    return task.model_copy(
        update={
            "limits": before.task.limits.model_copy(update=changed),
            "times": ServeTimes.model_validate(kept | slower),
            "engine": task.engine if task.engine != "auto" else before.task.engine,
        }
    )


def _check_name(name: str, runs: Sequence[str]) -> None:
    server_release(name)
    if BASE_MODEL in runs:
        fault = f"a run called '{BASE_MODEL}' cannot be told from its base model"
        raise SpecInvalid(f"run {BASE_MODEL}", fault, "give the run another name")
    if name in (*runs, BASE_MODEL) or not name[:1].isalpha():
        fault = f"'{name}' cannot be a server's name"
        remedy = "choose one with --name that begins with a letter and is not a run's, nor 'base'"
        raise SpecInvalid("--name", fault, remedy)


def _servable(request: ServerRequest, store: Store, before: Before) -> list[Servable]:
    if request.runs:
        return [
            read_servable(run, store, unpromoted=request.unpromoted)
            for run in dict.fromkeys(request.runs)
        ]
    if before.desired is None:
        fault = f"there is no server '{request.name}' yet, and no run is named"
        raise SpecInvalid("thinktune serve", fault, "name a run: thinktune serve RUN")
    return [_kept(each, request, store) for each in before.desired.runs]


def _kept(kept: DesiredRun, request: ServerRequest, store: Store) -> Servable:
    """A run that goes on being served. Raises SpecInvalid where no new pod could serve it."""
    run = read_servable(kept.run, store, unpromoted=request.unpromoted, known=[kept])
    if run.desired.train_sha256 != kept.train_sha256:
        fault = f"it was trained again, and server {request.name} serves its former adapter"
        remedy = f"serve the new one by its name: thinktune serve {kept.run} --name {request.name}"
        raise SpecInvalid(f"run {kept.run}", fault, remedy)
    return run


def _desired(runs: Sequence[Servable], before: Desired | None) -> Desired:
    asked = tuple(run.desired for run in runs)
    if before is None:
        return Desired(revision=1, runs=asked)
    if asked == before.runs:
        return before
    former = before.first if before.first.run != asked[0].run else before.former
    return Desired(revision=before.revision + 1, runs=asked, former=former)
