"""Puts a run behind a server's name while it serves, and waits until every replica has it.

Replicas fetch and check the adapter, load it beside the others, and then switch the name; requests
that are being answered keep the adapter that they began with.
"""

import time
from collections.abc import Sequence
from contextlib import suppress

from thinktune.launch.cluster.api import Forbidden, Object
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving.artifacts import (
    Servable,
    check_placed,
    check_same_base,
    read_servable,
)
from thinktune.launch.serving.desired import change_desired
from thinktune.launch.serving.live import LiveServer, is_ready, known_server, task_of
from thinktune.launch.status.watch import Say
from thinktune.schema.errors import InputMissing, ServiceUnavailable, SpecInvalid
from thinktune.schema.serve import ServeTask
from thinktune.schema.served import Desired, DesiredRun, ReplicaState
from thinktune.schema.serving import lora_rank_setting
from thinktune.store import Store

POLL_S = 1.0
FOLLOWED_S = 900.0
"""Seconds that replicas get. A kubelet looks at a ConfigMap every one to two minutes by itself."""
REVISION = "thinktune.dev/served-revision"
"""Annotation of pods, which makes their kubelets look at once."""


def promote(
    run: str | None, server: str, kube: Kube, store: Store, say: Say, *, unpromoted: bool = False
) -> Desired:
    """Puts a run behind the server's name; without one, the run that was there before.

    Raises InputMissing for a server or an artifact that is not there, SpecInvalid for a run that
    cannot be served there, ServiceUnavailable where somebody else changes it too or a replica does
    not follow.
    """
    live = known_server(server, kube, store)
    before, task = live.desired, task_of(live.release, kube)
    if before is None or task is None:
        fault = "its ConfigMaps are gone"
        raise InputMissing(f"server {server}", fault, "install it again: thinktune serve RUN")
    wanted = _wanted(run, server, before, store, unpromoted=unpromoted)
    say(f"{wanted.run}: {wanted.judged}")
    _check_fits(wanted, server, before, task, store)
    after = before
    if before.first != wanted.desired:
        after = before.promoted(wanted.desired, task.adapters)
        change_desired(server, live.release, before, after, kube)
        say(f"{server}: {before.first.run} → {wanted.run} (revision {after.revision})")
    else:
        say(f"{server}: is to serve {wanted.run} already")
    _follow(server, after, kube, store, say)
    return after


def _wanted(
    run: str | None, server: str, before: Desired, store: Store, *, unpromoted: bool
) -> Servable:
    if run is not None:
        known = [each for each in (*before.runs, before.former) if each is not None]
        return read_servable(run, store, unpromoted=unpromoted, known=known)
    if before.former is None:
        fault = "no run was promoted to it yet, so there is none to go back to"
        raise SpecInvalid(f"server {server}", fault, "name a run: thinktune promote RUN --to …")
    found = read_servable(before.former.run, store, unpromoted=before.former.unpromoted)
    if found.desired.train_sha256 != before.former.train_sha256:
        fault = f"the adapter of {found.run} is another one than it served before"
        remedy = f"promote it by name if that is right: thinktune promote {found.run} --to {server}"
        raise SpecInvalid(f"server {server}", fault, remedy)
    return found


def _check_fits(
    wanted: Servable, server: str, before: Desired, task: ServeTask, store: Store
) -> None:
    """Raises SpecInvalid where the running engine cannot take the adapter."""
    served = [_served(each, store) for each in before.runs]
    check_same_base([served[0], wanted])
    execution = task.execution
    again = f"serve it anew: thinktune serve {wanted.run} --name {server}"
    place = f"run {wanted.run}"
    if execution is not None or task.engine == "vllm":
        check_placed([wanted])
    if execution is None:
        _check_rank_on_cpus(wanted, served, server, task, again)
        return
    if execution.nodes > 1:
        fault = f"{server} takes {execution.nodes} nodes, which load adapters at their start alone"
        raise SpecInvalid(place, fault, again)
    if wanted.rank > execution.max_lora_rank:
        fault = f"its rank is {wanted.rank}, and {server} has room for {execution.max_lora_rank}"
        raise SpecInvalid(place, fault, again)
    more = sorted(set(wanted.targets) - set(execution.lora_targets))
    if more:
        fault = f"it changes {', '.join(more)}, for which {server} has no room"
        raise SpecInvalid(place, fault, again)


def _check_rank_on_cpus(
    wanted: Servable, served: Sequence[Servable], server: str, task: ServeTask, again: str
) -> None:
    """vLLM has room there for the widest adapter of its start. Where the pod chooses its engine,
    the pod says whether there is room: transformers always has it."""
    widest = max(served, key=lambda each: each.rank)
    room = lora_rank_setting(widest.rank, f"run {widest.run}", "serve one of a lower rank")
    if task.engine == "vllm" and wanted.rank > room:
        fault = f"its rank is {wanted.rank}, and {server} has room for {room}"
        raise SpecInvalid(f"run {wanted.run}", fault, again)


def _served(run: DesiredRun, store: Store) -> Servable:
    return read_servable(run.run, store, unpromoted=True)


def _follow(server: str, after: Desired, kube: Kube, store: Store, say: Say) -> None:
    """Until every replica serves it."""
    deadline = time.monotonic() + FOLLOWED_S
    told: set[str] = set()
    while True:
        live = known_server(server, kube, store)
        if live.desired is not None and live.desired.revision > after.revision:
            fault = f"meanwhile {live.desired.first.run} was promoted (revision"
            fault += f" {live.desired.revision})"
            remedy = "look at it (`thinktune status`), and promote again if that is still right"
            raise ServiceUnavailable(f"server {server}", fault, remedy)
        _wake(live.entrances, after.revision, told, kube)
        behind = _behind(live, after)
        if not behind and live.entrances:
            say(f"{server}: {_replicas(len(live.entrances))} {after.first.run}")
            return
        # What a replica says of an earlier change tells nothing of this one.
        faults = [s.fault for _, s in behind if s and s.fault and s.tried == after.revision]
        if faults and len(faults) == len(behind):
            fault = f"{len(faults)} of {len(live.entrances)} replicas cannot serve it: {faults[0]}"
            remedy = f"they go on with what they had: thinktune promote --undo --to {server}"
            raise ServiceUnavailable(f"server {server}", fault, remedy)
        if time.monotonic() > deadline:
            pods = ", ".join(str(pod["metadata"]["name"]) for pod, _ in behind) or "no pod"
            fault = f"not every replica has followed within {FOLLOWED_S / 60:.0f} minutes ({pods})"
            raise ServiceUnavailable(
                f"server {server}", fault, f"`thinktune why {server}` says why"
            )
        time.sleep(POLL_S)


def _replicas(count: int) -> str:
    return "its one replica serves" if count == 1 else f"all {count} replicas serve"


def _behind(live: LiveServer, after: Desired) -> list[tuple[Object, ReplicaState | None]]:
    """Replicas that do not serve it, with what they say."""
    found = [(pod, live.replicas.get(pod["metadata"]["name"])) for pod in live.entrances]
    return [(pod, state) for pod, state in found if not _serves(pod, state, after)]


def _serves(pod: Object, state: ReplicaState | None, after: Desired) -> bool:
    """Whether clients of the pod get that run. What is said under its name may be of a pod of an
    earlier server, which was further."""
    if state is None or not is_ready(pod):
        return False
    return state.revision == after.revision and state.runs[:1] == (after.first.run,)


def _wake(pods: Sequence[Object], revision: int, told: set[str], kube: Kube) -> None:
    """Makes the kubelets of pods look at the ConfigMap now; without the right to, they do later."""
    for pod in pods:
        name = str(pod["metadata"]["name"])
        if name not in told:
            told.add(name)
            with suppress(Forbidden):
                kube.annotate_pod(name, REVISION, str(revision))
