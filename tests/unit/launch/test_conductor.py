"""A run's stages started in turn and seen through, by one conductor or by several after another."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_objects import JOBS
from kube_server import KubeServer
from launching import (
    NAMESPACE,
    Meanwhile,
    commit_stage,
    make_job,
    see_through,
    wait_for,
)

from thinktune.launch import conductor as module
from thinktune.launch.cluster.kube import QUEUE, QUEUE_LABEL, WAITS, Kube
from thinktune.launch.conductor import run_pipeline
from thinktune.launch.preflight import Request
from thinktune.launch.status import watch
from thinktune.schema.errors import InputMissing, ServiceUnavailable, StageFailed
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.stages import STAGES, Stage
from thinktune.store import Store

Say = Callable[[str], None]
TRAIN = "r-train"


def started(plan: Pipeline, kube: Kube, store: Store, say: Say, **how: Any) -> Meanwhile:
    return Meanwhile(lambda: run_pipeline(plan, kube, store, say, **how))


def only(plan: Pipeline, *stages: Stage) -> Pipeline:
    chosen = tuple(each for each in plan.stages if each.stage in stages)
    return plan.model_copy(update={"stages": chosen})


def test_each_stage_starts_when_the_one_before_is_committed(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, asked: Request, said: list[str]
) -> None:
    going = started(plan, kube, store, said.append, logs=True)
    wait_for(lambda: said)  # it has seen prep before prep is done
    assert cluster.job(TRAIN)["spec"]["suspend"]
    for stage in STAGES:
        see_through(cluster, store, asked.run, stage)
    going.result()
    assert WAITS not in cluster.job(TRAIN)["metadata"]["annotations"]
    kept = [line for line in said if line.split(": ")[-1] in ("started", "committed")]
    told = [f"{stage}: {did}" for stage in STAGES for did in ("started", "committed")]
    assert kept == told[1:]  # the first starts by itself
    assert [line for line in said if line.endswith("at work")] == [f"{s} at work" for s in STAGES]


def test_what_is_done_is_said_once(
    plan: Pipeline, kube: Kube, store: Store, asked: Request, said: list[str]
) -> None:
    for stage in STAGES:
        commit_stage(store, asked.run, stage)
    run_pipeline(plan, kube, store, said.append)
    assert said == [f"{stage}: done already" for stage in STAGES]


# -- restarted at each point: every one of these kills it, and the next goes on

Point = Callable[[Cluster, Store, Request], None]


def run_prep(cluster: Cluster, store: Store, asked: Request) -> None:
    cluster.pod_of("r-prep", "Running")


def commit_prep(cluster: Cluster, store: Store, asked: Request) -> None:
    see_through(cluster, store, asked.run, "prep")


def start_train(cluster: Cluster, store: Store, asked: Request) -> None:
    commit_prep(cluster, store, asked)
    wait_for(lambda: not cluster.job(TRAIN)["spec"]["suspend"])


def run_train(cluster: Cluster, store: Store, asked: Request) -> None:
    start_train(cluster, store, asked)
    cluster.pod_of(TRAIN, "Running")


def commit_train(cluster: Cluster, store: Store, asked: Request) -> None:
    commit_prep(cluster, store, asked)
    see_through(cluster, store, asked.run, "train")


class Killed(BaseException):
    """What ends a conductor of these tests: nothing of its own catches it."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Ends the conductor at its next look at the clock; the one after it runs."""
    asked = []
    real = module.time.sleep

    def sleep(seconds: float) -> None:
        if asked and asked.pop():
            raise Killed
        real(seconds)

    clock = type("Clock", (), {"sleep": staticmethod(sleep)})
    monkeypatch.setattr(module, "time", clock)
    yield lambda: asked.append(True)


@pytest.mark.parametrize("until", [run_prep, commit_prep, start_train, run_train, commit_train])
def test_a_conductor_that_dies_is_followed_by_one_that_goes_on(
    plan: Pipeline,
    kube: Kube,
    store: Store,
    cluster: Cluster,
    asked: Request,
    said: list[str],
    kill: Callable[[], None],
    until: Point,
) -> None:
    first = started(plan, kube, store, said.append)
    until(cluster, store, asked)
    kill()
    with pytest.raises(Killed):
        first.result()
    before = [cluster.job(f"r-{stage}")["metadata"]["uid"] for stage in STAGES]
    second = started(plan, kube, store, said.append)
    for stage in STAGES:
        if store.head(f"runs/r/{stage}/manifest.json") is None:
            see_through(cluster, store, asked.run, stage)
    second.result()
    assert [cluster.job(f"r-{stage}")["metadata"]["uid"] for stage in STAGES] == before
    assert said.count("train: started") == 1


# -- stages that fail


def test_a_stage_that_fails_ends_it_with_its_code(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, said: list[str]
) -> None:
    going = started(plan, kube, store, said.append, logs=True)
    pod = cluster.pod_of("r-prep", "Running")
    cluster.say(pod, "error: data.jsonl: row 3 is no JSON; fix it")
    last = "error: data.jsonl: row 3 is no JSON; fix it"
    cluster.end(pod, 65, message=last)
    message = f"Container task for pod jobs/{pod} failed with exit code 65 matching FailJob rule"
    cluster.end_job("r-prep", "Failed", "PodFailurePolicy", message)
    with pytest.raises(StageFailed, match="row 3 is no JSON") as failed:
        going.result()
    assert failed.value.code == 65
    assert last in said  # the log to its end
    assert cluster.job(TRAIN)["spec"]["suspend"]


def test_a_job_whose_artifact_comes_a_moment_later(
    api: KubeServer, plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, asked: Request,
    said: list[str],
) -> None:  # fmt: skip
    """A Job that ended well is looked at twice before it is taken for one that left nothing."""
    cluster.end(cluster.pod_of("r-prep", "Running"))
    cluster.end_job("r-prep", "Complete")
    api.when("GET .*/jobs", lambda: commit_stage(store, asked.run, "prep"), after=1)
    run_pipeline(only(plan, "prep"), kube, store, said.append)
    assert said[-1] == "prep: committed"


def test_a_job_that_is_gone(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, said: list[str]
) -> None:
    going = started(plan, kube, store, said.append)
    cluster.objects.delete(JOBS, NAMESPACE, "r-prep")
    with pytest.raises(StageFailed, match="was not submitted"):
        going.result()


def test_a_job_that_is_made_anew_meanwhile(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, asked: Request, said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "GONE_S", 60.0)
    going = started(only(plan, "prep"), kube, store, said.append)
    cluster.objects.delete(JOBS, NAMESPACE, "r-prep")
    make_job(cluster, asked.run, "prep")
    see_through(cluster, store, asked.run, "prep")
    going.result()


def test_an_image_that_is_not_there(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, said: list[str]
) -> None:
    going = started(plan, kube, store, said.append)
    pod = cluster.pod_of("r-prep")
    cluster.hold(pod, "ImagePullBackOff", "manifest unknown")
    with pytest.raises(StageFailed, match="cannot be pulled") as failed:
        going.result()
    assert failed.value.code == 66


def test_the_patience_of_a_conductor_with_an_image(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, asked: Request, said: list[str]
) -> None:
    going = started(only(plan, "prep"), kube, store, said.append, patience_s=60.0)
    pod = cluster.pod_of("r-prep")
    cluster.hold(pod, "ImagePullBackOff", "too many requests")
    wait_for(lambda: any("cannot be pulled" in line for line in said))
    cluster.run(pod)
    commit_stage(store, asked.run, "prep")
    going.result()


def test_no_patience_with_a_job_that_has_failed(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, said: list[str]
) -> None:
    cluster.end(cluster.pod_of("r-prep", "Running"), 70)
    cluster.end_job("r-prep", "Failed", "BackoffLimitExceeded", "too often")
    going = started(plan, kube, store, said.append, patience_s=600.0)
    with pytest.raises(StageFailed, match="exit code 70"):
        going.result()


def test_a_stage_that_finds_no_node_is_waited_for(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, asked: Request, said: list[str]
) -> None:
    going = started(only(plan, "prep"), kube, store, said.append)
    pod = cluster.pod_of("r-prep")
    cluster.find_no_node(pod, "0/1 nodes are available: 1 Insufficient cpu.")
    wait_for(lambda: any("finds no node" in line for line in said))
    assert sum("finds no node" in line for line in said) == 1  # once, not at every look
    cluster.run(pod)
    commit_stage(store, asked.run, "prep")
    going.result()


@pytest.mark.parametrize(
    ("rule", "waits"), [("exceeded quota: few", True), ("violates PodSecurity", False)]
)
def test_pods_that_are_refused(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, asked: Request, said: list[str],
    rule: str, waits: bool,
) -> None:  # fmt: skip
    """A quota frees up; a rule stays."""
    cluster.refuse_pods("r-prep", rule, times=3)
    going = started(only(plan, "prep"), kube, store, said.append)
    if waits:
        wait_for(lambda: any("gets no pod" in line for line in said))
        see_through(cluster, store, asked.run, "prep")
        going.result()
    else:
        with pytest.raises(StageFailed, match="gets no pod"):
            going.result()


def test_an_artifact_of_another_task(
    plan: Pipeline, kube: Kube, store: Store, asked: Request, said: list[str]
) -> None:
    commit_stage(store, asked.run, "prep", task_sha256="0" * 64)
    with pytest.raises(InputMissing, match="made by another task"):
        run_pipeline(plan, kube, store, said.append)


# -- who else holds a Job


def test_a_stage_with_a_queue_is_handed_to_it(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, asked: Request, said: list[str]
) -> None:
    kube.patch_job(TRAIN, {"metadata": {"annotations": {QUEUE: "gpus"}}})
    commit_stage(store, asked.run, "prep")
    going = started(only(plan, "train"), kube, store, said.append)
    wait_for(lambda: "train: queued" in said)
    job = cluster.job(TRAIN)
    assert job["metadata"]["labels"][QUEUE_LABEL] == "gpus"
    assert job["spec"]["suspend"]  # Kueue's to change
    wait_for(lambda: any("waits in Kueue's queue gpus" in line for line in said))
    kube.patch_job(TRAIN, {"spec": {"suspend": False}})
    see_through(cluster, store, asked.run, "train")
    going.result()


def test_a_stage_that_a_person_holds_is_not_started(
    plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, asked: Request, said: list[str]
) -> None:
    kube.patch_job(TRAIN, {"metadata": {"annotations": {WAITS: None}}})
    commit_stage(store, asked.run, "prep")
    going = started(only(plan, "train"), kube, store, said.append)
    wait_for(lambda: any("is suspended" in line for line in said))
    assert cluster.job(TRAIN)["spec"]["suspend"]
    kube.patch_job(TRAIN, {"spec": {"suspend": False}})
    see_through(cluster, store, asked.run, "train")
    going.result()


# -- an API server that is away


@pytest.mark.parametrize("status", [None, 401, 429, 500])
def test_an_api_server_that_is_away_for_a_while(
    api: KubeServer, plan: Pipeline, kube: Kube, store: Store, cluster: Cluster, asked: Request,
    said: list[str], status: int | None,
) -> None:  # fmt: skip
    """And, with 401, credentials that are renewed."""
    going = started(only(plan, "prep"), kube, store, said.append)
    wait_for(lambda: any("submitted a moment ago" in line for line in said))
    with api.away(status):
        wait_for(lambda: any(line.endswith("tries again") for line in said))
    see_through(cluster, store, asked.run, "prep")
    going.result()


def test_an_api_server_that_stays_away(
    api: KubeServer, plan: Pipeline, kube: Kube, store: Store, said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(watch, "UNREACHABLE_S", 0.1)
    with api.away(500), pytest.raises(ServiceUnavailable, match="answered 500"):
        run_pipeline(plan, kube, store, said.append)
