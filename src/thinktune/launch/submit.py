"""Brings the stages of a run to a cluster: checks first, then Helm releases, each made once.

The same run again adopts what is there, replaces what failed, and says what is done.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinktune.launch import schedule
from thinktune.launch.charts import release_name, values_text
from thinktune.launch.finished import finished
from thinktune.launch.install import CONDUCTOR, ENDING_S, install, uninstall, wait_until
from thinktune.launch.kube import Forbidden, Kube, Object
from thinktune.launch.observed import SUBMITTED, Observed, observe
from thinktune.launch.tasks import Run, compare_hardware, conduct_of, conductor_of, stage_values
from thinktune.spec.cluster import Cluster
from thinktune.spec.compose import Catalog
from thinktune.spec.conduct import Conduct
from thinktune.spec.errors import InputMissing, SpecInvalid, StoreUnavailable
from thinktune.spec.keys import source_key
from thinktune.spec.manifest import Manifest
from thinktune.spec.recipe import Recipe
from thinktune.spec.task import STAGES, PrepTask, Stage
from thinktune.store import Store

TRIES = 3
APPEARS_S = 10.0
"""How long after its release another submit's Job may appear."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked of a cluster."""

    run: Run
    recipe: Recipe
    catalog: Catalog
    cluster: Cluster
    stages: Sequence[Stage]
    force: bool = False
    """Submit although no node there could take it: an autoscaler may bring one."""


def submit(request: Request, kube: Kube, store: Store, say: Say) -> Conduct:
    """Installs what is not there; gives what is to be started in which order.

    Raises SpecInvalid where it cannot be scheduled, InputMissing where a secret or an earlier stage
    is missing, and what the store and the API raise.
    """
    for part in (*request.stages, CONDUCTOR):
        release_name(request.run.id, part)
    _check_deadline(request)
    check_place(request.cluster, kube)
    done = _done_before(request, store)
    wanted = [stage for stage in request.stages if stage not in done]
    if not request.force:
        check_nodes(request, kube, wanted, say)
    if "prep" in wanted:
        _bring_source(request, store, say)
    for number, stage in enumerate(wanted):
        _bring_stage(request, stage, kube, store, say, wait=number > 0)
    return conduct_of(request.run, request.stages, request.cluster)


def detach(conduct: Conduct, cluster: Cluster, kube: Kube, say: Say) -> None:
    """Leaves the rest to a conductor in the cluster."""
    release = release_name(conduct.run, CONDUCTOR)
    values = values_text(conductor_of(conduct, cluster))
    for _ in range(TRIES):
        there = kube.job(release)
        if there is not None:
            data = kube.config_map(release) or {}
            if data.get("conduct.json") == conduct.canonical() and _is_at_work(there):
                say("conductor: there already")
                return
            uninstall(release, kube)
        if install(release, "conductor", kube, values):
            say("conductor: starts the stages in turn")
            return
        if not wait_until(lambda: kube.job(release) is not None, APPEARS_S):
            uninstall(release, kube)
    raise StoreUnavailable(f"release {release}", "it is not to be had", "submit again")


def _is_at_work(job: Object) -> bool:
    return not (job["metadata"].get("deletionTimestamp") or job["status"].get("conditions"))


def left(conduct: Conduct, kube: Kube, store: Store) -> bool:
    """Whether a stage of it is not done."""
    seen = [observe(conduct.run, each.stage, kube, store) for each in conduct.stages]
    return any(each.state != "done" for each in seen)


def _check_deadline(request: Request) -> None:
    hours, most = request.run.plan.hours, request.cluster.deadline_hours
    if "train" in request.stages and hours is not None and hours > most:
        fault = f"training takes about {hours:.0f} h, and deadline_hours ends it after {most}"
        raise SpecInvalid(f"run {request.run.id}", fault, "raise it in the cluster file")


def check_place(cluster: Cluster, kube: Kube) -> None:
    """Raises SpecInvalid for a namespace that is not there, InputMissing for a secret."""
    name = cluster.namespace
    # What is not ours to see, the pod will tell.
    with contextlib.suppress(Forbidden):
        if kube.namespace_object() is None:
            fault = "there is no such namespace"
            remedy = f"kubectl create namespace {name}, or set namespace in the cluster file"
            raise SpecInvalid(f"namespace {name}", fault, remedy)
    for secret in secrets_of(cluster):
        with contextlib.suppress(Forbidden):
            if kube.secret_keys(secret) is None:
                fault = f"no secret {secret}, which the cluster file names"
                raise InputMissing(f"namespace {name}", fault, secret_remedy(cluster, secret))


def secrets_of(cluster: Cluster) -> list[str]:
    """Names of all secrets that pods will want."""
    identity = cluster.identity
    own = (identity.secret, identity.model_hub_secret, *cluster.env_from_secrets)
    return [name for name in own if name]


def secret_remedy(cluster: Cluster, secret: str) -> str:
    """How to make it."""
    keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    if secret == cluster.identity.model_hub_secret:
        keys = ["HF_TOKEN"]
    literals = " ".join(f"--from-literal={key}=…" for key in keys)
    return f"kubectl -n {cluster.namespace} create secret generic {secret} {literals}"


def check_nodes(request: Request, kube: Kube, stages: Sequence[Stage], say: Say) -> None:
    """Says which GPUs are free; raises SpecInvalid, naming what would fit, where a stage can never
    be scheduled."""
    try:
        nodes = schedule.nodes_of(kube.nodes(), kube.all_pods())
    except Forbidden as error:
        say(f"cluster: free GPUs unknown ({error.fault})")
        return
    free = schedule.free_gpus(nodes)
    said = [f"{some} of {every} {product} free" for product, (some, every) in free.items()]
    say(f"cluster: {', '.join(said) or 'no GPUs'}")
    hardware = request.catalog.hardware[request.recipe.hardware]
    for stage in stages:
        values = stage_values(request.run, stage, hardware, request.cluster)
        schedule.check(values, nodes, _would_schedule(request, nodes))


def _would_schedule(request: Request, nodes: Sequence[schedule.Node]) -> str:
    there = schedule.hardware_there(nodes, request.catalog.hardware)
    fit = [row.hardware for row in compare_hardware(request.recipe, request.catalog)]
    both = [name for name in fit if name in there]
    ways = [f"--set hardware={name}" for name in both[:4]]
    ways += ["--force where an autoscaler would bring such nodes"]
    return ("would be scheduled with " if both else "") + ", or ".join(ways)


def _done_before(request: Request, store: Store) -> dict[Stage, Manifest]:
    """Stages that are committed, checked from the first on."""
    done: dict[Stage, Manifest] = {}
    for stage in _up_to_last(request):
        manifest = finished(store, request.run.tasks[stage], stage, done)
        if manifest is not None:
            done[stage] = manifest
        elif stage not in request.stages:
            # Each stage asked for needs all before it.
            fault = f"{stage} of {request.run.id} is not done, which {request.stages[0]} needs"
            raise InputMissing(store.url, fault, f"submit --stage {stage} first, or --stage all")
        else:
            missing = [s for s in _up_to_last(request) if s not in done and s not in request.stages]
            if missing:
                fault = f"{missing[0]} is neither done nor submitted along with it"
                raise InputMissing(store.url, fault, f"add --stage {missing[0]}")
            break
    return done


def _up_to_last(request: Request) -> tuple[Stage, ...]:
    return STAGES[: STAGES.index(request.stages[-1]) + 1]


def _bring_source(request: Request, store: Store, say: Say) -> None:
    """The user's own file, to where prep finds it by its content."""
    task = request.run.tasks["prep"]
    assert isinstance(task, PrepTask)
    if task.data.path is None or task.source_sha256 is None:
        return
    path = Path(task.data.path)
    key = source_key(task.source_sha256, path.name)
    if store.head(key) is None:
        say(f"{path.name}: into the store")
        store.upload(key, path, task.source_sha256)


def _bring_stage(
    request: Request, stage: Stage, kube: Kube, store: Store, say: Say, *, wait: bool
) -> None:
    """Installs first and looks afterwards: of two submits at one moment Helm lets one do it."""
    run, hardware = request.run, request.catalog.hardware[request.recipe.hardware]
    values = values_text(stage_values(run, stage, hardware, request.cluster, wait=wait))
    release = release_name(run.id, stage)
    for _ in range(TRIES):
        seen = observe(run.id, stage, kube, store)
        while seen.state == "stopping":
            say(f"{stage}: waits until the Job before this one has ended")
            name = seen.release
            wait_until(lambda name=name: kube.job(name) is None, ENDING_S)  # type: ignore[misc]
            seen = observe(run.id, stage, kube, store)
        if seen.state in SUBMITTED:
            _same_task(request, stage, seen, kube)
            say(f"{stage}: there already ({seen.state})")
            return
        if seen.job is not None:
            say(f"{stage}: failed before; what it committed is kept")
            _replace(seen, kube)
        elif install(release, "task", kube, values):
            say(f"{stage}: submitted" + (", waits for the stage before it" if wait else ""))
            return
        elif not wait_until(lambda: kube.job(release) is not None, APPEARS_S):
            uninstall(release, kube)  # what an expired Job left behind
    raise StoreUnavailable(f"release {release}", "it is not to be had", "submit again")


def _replace(seen: Observed, kube: Kube) -> None:
    """Removes a Job that failed. Of several submits one does: it is deleted by its uid."""
    assert seen.job is not None
    try:
        kube.delete_job(seen.release, uid=seen.job["metadata"]["uid"])
    except SpecInvalid:
        return  # somebody else did, and has a new one there
    uninstall(seen.release, kube)


def _same_task(request: Request, stage: Stage, seen: Observed, kube: Kube) -> None:
    """Raises SpecInvalid where another recipe has a Job of this name."""
    data = kube.config_map(seen.release) or {}
    task = request.run.tasks[stage]
    if "task.json" not in data:
        return
    there = type(task).parse(json.loads(data["task.json"]), f"ConfigMap {seen.release}")
    if there.result_digest() != task.result_digest():
        fault = f"a Job {seen.release} is there, made from another recipe"
        remedy = f"cancel it (thinktune cancel {seen.run}), or take another --run name"
        raise SpecInvalid(f"run {seen.run}", fault, remedy)
