"""Brings the stages of a run to a cluster: checks first, then Helm releases, each made once.

The same run again adopts what is there, replaces what failed, and says what is done.
"""

import json
from typing import Any

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.charts import release_name, values_text
from thinktune.launch.cluster.install import (
    CONDUCTOR,
    await_gone,
    check_ours,
    clear,
    clear_leftovers,
    delete_job,
    install,
    installed_values,
    is_there,
    not_installed,
    wait_until,
)
from thinktune.launch.cluster.kube import REPLACED, Kube
from thinktune.launch.find_finished import finished
from thinktune.launch.other_hardware import shortage_error
from thinktune.launch.preflight import (
    Request,
    check_deadline,
    check_names,
    check_namespace_and_secrets,
    check_nodes,
)
from thinktune.launch.runs import conductor_of, pipeline_of, stage_values
from thinktune.launch.status.observed import SUBMITTED, Observed, observe
from thinktune.launch.status.watch import Say
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.manifest import Manifest
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.stages import STAGE_INFO, STAGES, Stage, earlier
from thinktune.schema.values import TaskValues, Values
from thinktune.store import Store

TRIES = 5
ABANDONED_S = 60.0
"""After so long, whoever said that they would make a Job anew is taken to have died."""


def submit(request: Request, kube: Kube, store: Store, say: Say) -> Pipeline:
    """Installs what is not there; gives what is to be started in which order.

    Raises SpecInvalid where it cannot be scheduled, InputMissing where a secret or an earlier stage
    is missing, and what the store and the API raise.
    """
    for part in (*request.stages, CONDUCTOR):
        release_name(request.run.id, part)
    check_names(request.cluster, request.catalog)
    check_deadline(request.run, request.cluster, request.stages)
    check_namespace_and_secrets(request, kube)
    done = _done_before(request, store)
    wanted = [stage for stage in request.stages if stage not in done]
    nodes = check_nodes(request, kube, wanted)
    say(nodes.said)
    if nodes.short is not None and not request.force:
        raise shortage_error(request, wanted, nodes)
    if "prep" in wanted:
        _bring_source(request, store, say)
    for number, stage in enumerate(wanted):
        _ensure_stage(request, stage, kube, store, say, wait=number > 0)
    return pipeline_of(request.run, request.stages, request.cluster)


def detach(pipeline: Pipeline, cluster: Cluster, kube: Kube, say: Say) -> None:
    """Leaves the rest to a conductor in the cluster; one that is at work keeps its stages."""
    release, refusal = release_name(pipeline.run, CONDUCTOR), None
    for _ in range(TRIES):
        there = kube.job(release)
        if there is not None:
            check_ours(release, pipeline.run, kube)
            if _is_at_work(there):
                pipeline = pipeline.joined(_pipeline_of(release, kube))
                values = conductor_of(pipeline, cluster)
                if not _changes(values, installed_values(release, kube)):
                    say("conductor: there already")
                    return
            _remove(there, pipeline.run, kube)
            continue
        text = values_text(conductor_of(pipeline, cluster))
        refusal = install(release, "conductor", kube, text)
        if refusal is None:
            say("conductor: starts the stages in turn")
            return
        clear_leftovers(release, pipeline.run, kube, refusal)
    raise not_installed(release, TRIES, refusal)


def _pipeline_of(release: str, kube: Kube) -> Pipeline | None:
    """What a conductor was told."""
    text = (kube.config_map(release) or {}).get("pipeline.json")
    return Pipeline.parse(json.loads(text), f"ConfigMap {release}") if text else None


def _is_at_work(job: Object) -> bool:
    return not (job["metadata"].get("deletionTimestamp") or job["status"].get("conditions"))


def left(pipeline: Pipeline, kube: Kube, store: Store) -> bool:
    """Whether a stage of it is not done."""
    seen = [
        observe(pipeline.run, each.stage, kube, store, beside=each.beside)
        for each in pipeline.stages
    ]
    return any(each.state != "done" for each in seen)


def _done_before(request: Request, store: Store) -> dict[Stage, Manifest]:
    """Stages that are committed, of those asked for and those that they depend on. Raises
    InputMissing where a stage asked for needs one that is neither done nor asked for."""
    done: dict[Stage, Manifest] = {}
    needed = {name for stage in request.stages for name in (*earlier(stage), stage)}
    for stage in (name for name in STAGES if name in needed):
        # Once one is missing, those that depend on it are to be made anew from it.
        manifest = None
        if all(name in done for name in earlier(stage)):
            manifest = finished(store, request.run.tasks[stage], stage, done)
        if manifest is not None:
            done[stage] = manifest
        elif stage not in request.stages:
            fault = f"{stage} of {request.run.id} is neither done nor submitted along with the rest"
            raise InputMissing(store.url, fault, f"add --stage {stage}, or --stage all")
    return done


def _bring_source(request: Request, store: Store, say: Say) -> None:
    """The user's own file, to where prep finds it by its content."""
    own = request.run.own_file
    if own is not None and own.several:
        remedy = f"copy them to a bucket and name it: --set data.path=s3://BUCKET/{own.path.stem}/"
        raise SpecInvalid(str(own.path), "several files are not sent to a cluster", remedy)
    if own is not None and store.head(own.key) is None:
        say(f"{own.path.name}: into the store")
        store.upload(own.key, own.path, own.sha256)


def _ensure_stage(
    request: Request, stage: Stage, kube: Kube, store: Store, say: Say, *, wait: bool
) -> None:
    """Installs first and looks afterwards: of two submits at one moment Helm lets one do it."""
    run = request.run
    values = stage_values(run, stage, request.cluster, wait=wait)
    beside = tuple(run.tasks[stage].commits_beside())
    release, refusal = release_name(run.id, stage), None
    for _ in range(TRIES):
        seen = observe(run.id, stage, kube, store, beside=beside)
        if seen.state == "done":
            return
        if seen.job is not None and seen.state == "stopping":
            say(f"{stage}: waits until the Job before this one has ended")
            await_gone(seen.job, kube)
        elif seen.job is not None:
            if seen.state in SUBMITTED and _adopted(values, seen, kube, say):
                return
            if seen.state == "failed":
                say(f"{stage}: failed before; what it committed is kept")
            _remove(seen.job, run.id, kube)
        else:
            refusal = install(release, "task", kube, values_text(values))
            if refusal is None:
                say(f"{stage}: submitted" + (", waits for the stage before it" if wait else ""))
                return
            clear_leftovers(release, run.id, kube, refusal)
    raise not_installed(release, TRIES, refusal)


def _remove(job: Object, run: str, kube: Kube) -> None:
    """A Job that is to be made anew. Of several submits one does it: who marks it first."""
    metadata = job["metadata"]
    marked = REPLACED in (metadata.get("annotations") or {})
    if marked and wait_until(lambda: not is_there(job, kube), ABANDONED_S):
        return
    if kube.mark_job(job, REPLACED):
        delete_job(job, kube)
        clear(str(metadata["name"]), run, kube)


def _adopted(values: TaskValues, seen: Observed, kube: Kube, say: Say) -> bool:
    """Whether the Job that is there will do: it is at work, or just as this one would be.

    Raises SpecInvalid where another recipe has a Job of this name.
    """
    assert seen.job is not None
    stage = seen.stage
    _same_task(values, seen, kube)
    changed = _changes(values, installed_values(seen.release, kube))
    if not changed:
        say(f"{stage}: there already ({seen.state})")
        return True
    others = ", ".join(changed)
    if seen.has_started:
        say(
            f"{stage}: there already ({seen.state}), with other {others}:"
            f" `thinktune cancel {seen.run}` first to change that"
        )
        return True
    say(f"{stage}: there already, with other {others}, and not started: made anew")
    return False


def _changes(values: Values, there: dict[str, Any] | None) -> list[str]:
    """Names of values that differ from those that a release has, but for whether it waits."""
    if there is None:
        return []
    ours = values.model_dump(mode="json", by_alias=True)
    return [name for name in ours if name != "wait" and ours[name] != there.get(name)]


def _same_task(values: TaskValues, seen: Observed, kube: Kube) -> None:
    data = kube.config_map(seen.release) or {}
    if "task.json" not in data:
        return
    kind = STAGE_INFO[seen.stage].task
    task = kind.parse(json.loads(values.task), "task")
    there = kind.parse(json.loads(data["task.json"]), f"ConfigMap {seen.release}")
    if there.result_digest() != task.result_digest():
        fault = f"a Job {seen.release} is there, made from another recipe"
        remedy = f"cancel it (thinktune cancel {seen.run}), or take another --run name"
        raise SpecInvalid(f"run {seen.run}", fault, remedy)
