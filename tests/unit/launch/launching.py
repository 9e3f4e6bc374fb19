"""Runs to submit, what their stages commit, and threads in which the launcher works meanwhile."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from kube_cluster import Cluster as FakeCluster
from kube_objects import JOBS

from thinktune.launch.cluster.kube import WAITS
from thinktune.launch.preflight import Request
from thinktune.launch.runs import Run, make_run
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.cluster import Cluster
from thinktune.schema.keys import checkpoint_prefix, logs_prefix, progress_key, stage_prefix
from thinktune.schema.manifest import Manifest, Progress
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.stages import STAGE_INFO, STAGES, Stage
from thinktune.schema.termination import PodTermination
from thinktune.store import Store, commit, manifest_digest, new_attempt, read_manifest

NAMESPACE = "jobs"
CATALOG = load_catalog()
CLIENTS_KUBECONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
"""The client takes KUBECONFIG once, when it is imported."""
CREATED = "2026-11-22T10:00:00+00:00"


def use_kubeconfig(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the launcher's client and for helm."""
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(CLIENTS_KUBECONFIG, str(path))


def request(
    *changes: str,
    recipe: str = "demo",
    stages: tuple[Stage, ...] = STAGES,
    name: str | None = "r",
    force: bool = False,
    **settings: Any,
) -> Request:
    """A run of that name, asked of a cluster with these settings."""
    described = {"store": "s3://bucket", "namespace": NAMESPACE, **settings}
    cluster = Cluster.parse(described, "cluster.yaml")
    loaded = load_recipe(recipe, changes, catalog=CATALOG)
    run = make_run(loaded, CATALOG, cluster.store, name, until=stages[-1])
    return Request(run, loaded, CATALOG, cluster, stages, force)


Bring = Callable[[Request], Pipeline]
"""A submit to its end: the fixture `bring`."""


def uid(cluster: FakeCluster, job: str) -> str:
    """Which Job of that name it is."""
    return str(cluster.job(job)["metadata"]["uid"])


def make_job(cluster: FakeCluster, run: Run, stage: Stage, *, waits: bool = False) -> None:
    """The Job of a stage, as the chart makes it, for tests that need no release around it."""
    labels = {
        "app.kubernetes.io/name": "thinktune",
        "app.kubernetes.io/instance": f"{run.id}-{stage}",
        "thinktune.dev/run": run.id,
        "thinktune.dev/stage": stage,
    }
    container = {"name": "task", "image": "registry/image:1", "resources": {}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    metadata: dict[str, Any] = {"name": f"{run.id}-{stage}", "labels": labels}
    spec: dict[str, Any] = {"template": template}
    if waits:
        metadata["annotations"] = {WAITS: "true"}
        spec["suspend"] = True
    cluster.objects.create(JOBS, NAMESPACE, {"metadata": metadata, "spec": spec})


def commit_stage(store: Store, run: Run, stage: Stage, **changes: Any) -> Manifest:
    """What a pod of that stage would have made."""
    inputs = STAGE_INFO[stage].inputs
    found = {name: read_manifest(store, stage_prefix(run.id, name)) for name in inputs}
    made = {
        "inputs": {name: manifest_digest(each) for name, each in found.items() if each},
        "task_sha256": run.tasks[stage].result_digest(),
        **changes,
    }
    return commit_files(store, stage_prefix(run.id, stage), kind=stage, run=run.id, **made)


def commit_files(store: Store, prefix: str, **of: Any) -> Manifest:
    """An artifact of one small file."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "file").write_text("x")
        rest = {"inputs": {}, "task_sha256": None, **of}
        return commit(store, prefix, Path(folder), attempt=new_attempt(), created=CREATED, **rest)


def commit_checkpoint(store: Store, run: str, step: int) -> None:
    commit_files(store, checkpoint_prefix(run, step), kind="checkpoint", run=run)


def write_progress(store: Store, run: str, stage: Stage, done: int, of: int) -> None:
    """As a stage at work does."""
    found = Progress(
        stage=stage, phase=stage, done=done, of=of, unit="steps", eta_s=None, attempt="a",
        heartbeat=CREATED,
    )  # fmt: skip
    store.put(progress_key(run, stage), found.model_dump_json().encode())


def write_log(
    store: Store, run: str, stage: Stage, pod: str, *lines: str, code: int = 0, ended: str = CREATED
) -> None:
    """What a pod that is gone left in the store."""
    prefix = logs_prefix(run, stage)
    store.put(f"{prefix}/{pod}.log", "".join(f"{line}\n" for line in lines).encode())
    last = lines[-1] if lines else ""
    ending = PodTermination(pod=pod, began=CREATED, ended=ended, code=code, error_line=last)
    store.put(f"{prefix}/{pod}.json", ending.model_dump_json().encode())


def depends(monkeypatch: pytest.MonkeyPatch, stage: Stage, *inputs: Stage) -> None:
    """Another table of stages, in which this one depends on those."""
    monkeypatch.setitem(STAGE_INFO, stage, STAGE_INFO[stage]._replace(inputs=inputs))


def see_through(cluster: FakeCluster, store: Store, run: Run, stage: Stage) -> None:
    """A stage's pod from its start to its artifact, once the Job may start."""
    name = f"{run.id}-{stage}"
    wait_for(lambda: not cluster.job(name)["spec"].get("suspend"))
    pod = cluster.pod_of(name, "Running")
    cluster.say(pod, f"{stage} at work")
    commit_stage(store, run, stage)
    cluster.end(pod)
    cluster.end_job(name, "Complete")


def wait_for(true: Callable[[], object], seconds: float = 30.0) -> None:
    """Until it is so; raises AssertionError where it is not in time."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.005)


def children(word: str) -> list[int]:
    """Processes that this one has started, with that in their command line."""
    found = []
    for thread in Path("/proc/self/task").iterdir():
        for pid in (thread / "children").read_text().split():
            with suppress(OSError):
                if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


class Meanwhile:
    """Something that runs in a thread; its result, or what it raised, by `result`."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work, self._result, self._error = work, None, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self, seconds: float = 60.0) -> Any:
        self._thread.join(seconds)
        assert self.is_over, "it did not end"
        if self._error is not None:
            raise self._error
        return self._result
