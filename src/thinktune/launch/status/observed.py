"""What is known of a run's stages: Jobs and pods in the cluster, artifacts in the store.

`status`, `why`, `follow` and the conductor look at stages through this, and change nothing by it.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.charts import release_name
from thinktune.launch.cluster.kube import RUN_LABEL, STAGE_LABEL, Kube
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import beside_prefix, logs_prefix, progress_key, stage_prefix
from thinktune.schema.manifest import Manifest, Progress
from thinktune.schema.stages import STAGES, Stage
from thinktune.schema.termination import PodTermination
from thinktune.store import ObjectMissing, Store, read_manifest

State = Literal["absent", "waiting", "pending", "running", "stopping", "failed", "stopped", "done"]
SUBMITTED: tuple[State, ...] = ("waiting", "pending", "running")


@dataclass(frozen=True)
class Observed:
    """One stage of a run."""

    run: str
    stage: Stage
    job: Object | None = None
    pods: Sequence[Object] = ()
    """Pods of the Job, the newest first."""
    manifest: Manifest | None = None
    progress: Progress | None = None
    terminations: Sequence[PodTermination] = ()
    """How pods ended, in order of time."""
    logged: Sequence[str] = ()
    """Pods whose log is in the store."""

    @property
    def release(self) -> str:
        """Name of the Job: the launcher's release of the stage, or however it was installed."""
        if self.job is not None:
            return str(self.job["metadata"]["name"])
        return release_name(self.run, self.stage)

    @property
    def own_terminations(self) -> Sequence[PodTermination]:
        """How pods of the Job that is there ended, without those of a Job before it."""
        made = str((self.job or {}).get("metadata", {}).get("creationTimestamp") or "")
        return [e for e in self.terminations if _moment(e.ended) >= _moment(made)] if made else []

    @property
    def nodes(self) -> int:
        """How many pods run at a time."""
        return int((self.job or {}).get("spec", {}).get("completions") or 1)

    @property
    def restarts(self) -> int:
        """Pods of this Job beyond the first of each index."""
        names = {termination.pod for termination in self.own_terminations}
        names |= {str(pod["metadata"]["name"]) for pod in self.pods}
        return max(0, len(names) - self.nodes)

    @property
    def has_started(self) -> bool:
        """Whether a container of this Job has ever run."""
        states = [
            status.get(key) or {}
            for pod in self.pods
            for status in pod["status"].get("containerStatuses") or []
            for key in ("state", "lastState")
        ]
        ran = any("running" in state or "terminated" in state for state in states)
        return ran or bool(self.own_terminations)

    @property
    def state(self) -> State:
        """The stage's state in one word; a committed artifact counts more than any Job."""
        if self.manifest is not None:
            return "done"
        if self.job is None:
            return "stopped" if self.progress or self.terminations else "absent"
        if self.job["metadata"].get("deletionTimestamp"):
            return "stopping"
        if self.condition("Failed") or self.condition("Complete"):
            return "failed"
        if self.job["spec"].get("suspend"):
            return "waiting"
        running = [pod for pod in self.pods if pod["status"].get("phase") == "Running"]
        # Shards know nothing of each other: one that runs does not wait for the others.
        needed = 1 if "backoffLimitPerIndex" in self.job["spec"] else self.nodes
        return "running" if len(running) >= needed else "pending"

    def condition(self, kind: str) -> Object | None:
        """The Job's condition of that kind, where it holds."""
        conditions = (self.job or {}).get("status", {}).get("conditions") or []
        for condition in conditions:
            if condition["type"] == kind and condition["status"] == "True":
                return dict(condition)
        return None

    def heartbeat_age_s(self) -> float | None:
        """Seconds since the stage last wrote its progress."""
        if self.progress is None:
            return None
        written = _moment(self.progress.heartbeat)
        started = self.pods[0]["status"].get("startTime") if self.pods else None
        if started and _moment(started) > written:
            return None  # of a pod before this one
        return max(0.0, (datetime.now(UTC) - written).total_seconds())

    def running_s(self) -> float | None:
        """Seconds since the newest pod started."""
        started = self.pods[0]["status"].get("startTime") if self.pods else None
        return (datetime.now(UTC) - _moment(started)).total_seconds() if started else None


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def observe(
    run: str,
    stage: Stage,
    kube: Kube,
    store: Store,
    before: Observed | None = None,
    beside: Sequence[str] = (),
) -> Observed:
    """The stage as it is now. What `before` saw for good is not fetched again. `beside` names what
    the stage commits beside its artifact, without which it is not done."""
    labels = f"{RUN_LABEL}={run},{STAGE_LABEL}={stage}"
    jobs = kube.jobs(labels)
    job = max(jobs, key=lambda job: str(job["metadata"]["creationTimestamp"]), default=None)
    prefix = logs_prefix(run, stage)
    names = [info.key.removeprefix(f"{prefix}/") for info in store.list(prefix)]
    return Observed(
        run,
        stage,
        job,
        kube.pods(f"{labels},job-name={job['metadata']['name']}") if job else (),
        _manifest(run, stage, store, beside),
        read_progress(store, run, stage),
        _terminations(store, prefix, names, before.terminations if before else ()),
        [name.removesuffix(".log") for name in names if name.endswith(".log")],
    )


def _manifest(run: str, stage: Stage, store: Store, beside: Sequence[str]) -> Manifest | None:
    manifest = read_manifest(store, stage_prefix(run, stage))
    whole = all(read_manifest(store, beside_prefix(run, name)) for name in beside)
    return manifest if whole else None


def observe_all(run: str, kube: Kube, store: Store) -> list[Observed]:
    """All stages. Raises InputMissing where nobody knows the run."""
    found = [observe(run, stage, kube, store) for stage in STAGES]
    if all(each.state == "absent" for each in found):
        where = f"namespace {kube.namespace} and {store.url}"
        fault = "neither a Job nor an artifact of that name"
        raise InputMissing(f"run {run}", f"{fault} in {where}", "`thinktune status` lists runs")
    return found


def known_runs(kube: Kube, store: Store) -> list[str]:
    """Runs with a Job or with anything in the store."""
    runs = {job["metadata"]["labels"][RUN_LABEL] for job in kube.jobs()}
    runs |= {info.key.split("/")[1] for info in store.list("runs")}
    return sorted(runs)


def read_progress(store: Store, run: str, stage: Stage) -> Progress | None:
    """Live state, where there is any that can be read."""
    key = progress_key(run, stage)
    with contextlib.suppress(ObjectMissing, ValueError):
        return Progress.model_validate_json(store.get(key))
    return None


def _terminations(
    store: Store, prefix: str, names: Sequence[str], before: Sequence[PodTermination]
) -> list[PodTermination]:
    known = {f"{termination.pod}.json": termination for termination in before}
    found = []
    for name in names:
        if name in known:
            found.append(known[name])
        elif name.endswith(".json"):
            with contextlib.suppress(ObjectMissing, ValueError, SpecInvalid):
                found.append(PodTermination.model_validate_json(store.get(f"{prefix}/{name}")))
    return sorted(found, key=lambda termination: termination.ended)
