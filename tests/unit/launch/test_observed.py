"""A stage as cluster and store show it, in one word."""

from datetime import UTC, datetime

import pytest
from kube_cluster import Cluster
from kube_objects import JOBS
from launching import (
    NAMESPACE,
    commit_stage,
    make_job,
    request,
    write_log,
    write_progress,
)

from thinktune.launch.cluster.kube import Kube
from thinktune.launch.status.observed import Observed, known_runs, observe, observe_all
from thinktune.launch.status.why import look
from thinktune.schema.errors import InputMissing
from thinktune.store import Store

RUN = request().run


def seen(kube: Kube, store: Store) -> Observed:
    return observe("r", "train", kube, store)


def test_from_nothing_to_an_artifact(cluster: Cluster, kube: Kube, store: Store) -> None:
    assert seen(kube, store).state == "absent"
    make_job(cluster, RUN, "train", waits=True)
    assert seen(kube, store).state == "waiting"
    kube.patch_job("r-train", {"spec": {"suspend": False}})
    assert seen(kube, store).state == "pending"
    pod = cluster.pod_of("r-train")
    assert (seen(kube, store).state, seen(kube, store).has_started) == ("pending", False)
    cluster.run(pod)
    assert (seen(kube, store).state, seen(kube, store).has_started) == ("running", True)
    cluster.end_job("r-train", "Complete")
    assert seen(kube, store).state == "failed"  # it left nothing
    commit_stage(store, RUN, "train")
    assert seen(kube, store).state == "done"


def test_a_job_on_its_way_out(cluster: Cluster, kube: Kube, store: Store) -> None:
    make_job(cluster, RUN, "train")
    cluster.pod_of("r-train", "Running")
    cluster.objects.ending_s = None
    kube.delete_job("r-train")
    assert seen(kube, store).state == "stopping"
    assert "is being stopped" in look(seen(kube, store), kube).cause


def test_a_stage_that_was_stopped(kube: Kube, store: Store) -> None:
    write_progress(store, "r", "train", 5, 9)
    write_log(store, "r", "train", "p", "error: GPU: gone; look at it", code=71)
    found = seen(kube, store)
    assert found.state == "stopped"
    said = look(found, kube)
    assert "has no Job any more" in said.cause
    assert said.evidence[0].startswith("It was at 5/9 steps")
    assert "exit code 71" in said.evidence[1]
    assert said.code == 71


def test_several_nodes_run_when_all_pods_do(cluster: Cluster, kube: Kube, store: Store) -> None:
    make_job(cluster, RUN, "train")
    kube.patch_job("r-train", {"spec": {"completions": 2}})
    cluster.pod_of("r-train", "Running", index=0)
    assert seen(kube, store).state == "pending"
    cluster.pod_of("r-train", "Running", index=1)
    assert seen(kube, store).state == "running"
    assert seen(kube, store).restarts == 0


def test_pods_beyond_the_first_are_restarts(cluster: Cluster, kube: Kube, store: Store) -> None:
    make_job(cluster, RUN, "train")
    now = datetime.now(UTC).isoformat()
    write_log(store, "r", "train", "before", "killed", code=137, ended=now)
    cluster.pod_of("r-train", "Running")
    found = seen(kube, store)
    assert found.restarts == 1
    assert any("1 pod ended before this one" in each for each in look(found, kube).evidence)


def test_ends_that_were_seen_are_not_read_again(kube: Kube, store: Store) -> None:
    write_log(store, "r", "train", "p", "x")
    before = seen(kube, store)
    store.put("runs/r/train/logs/p.json", b"changed since")
    assert observe("r", "train", kube, store, before).terminations == before.terminations
    assert observe("r", "train", kube, store).terminations == []  # unreadable now


def test_progress_of_a_pod_before_this_one(cluster: Cluster, kube: Kube, store: Store) -> None:
    make_job(cluster, RUN, "train")
    write_progress(store, "r", "train", 5, 9)
    age = seen(kube, store).heartbeat_age_s()
    assert age is not None and age > 0
    cluster.pod_of("r-train", "Running")
    assert seen(kube, store).heartbeat_age_s() is None
    running = seen(kube, store).running_s()
    assert running is not None and running < 60


def test_a_job_however_it_was_installed(cluster: Cluster, kube: Kube, store: Store) -> None:
    make_job(cluster, RUN, "train")
    job = cluster.job("r-train")
    cluster.objects.delete(JOBS, NAMESPACE, "r-train")
    job["metadata"]["name"] = "mine"
    cluster.objects.create(JOBS, NAMESPACE, job)
    assert seen(kube, store).release == "mine"
    assert observe("r", "prep", kube, store).release == "r-prep"


def test_all_runs_that_there_are(cluster: Cluster, kube: Kube, store: Store) -> None:
    make_job(cluster, RUN, "train")
    commit_stage(store, request(name="s").run, "prep")
    assert known_runs(kube, store) == ["r", "s"]
    first, *others = observe_all("s", kube, store)
    assert (first.stage, first.state) == ("prep", "done")
    assert {each.state for each in others} == {"absent"}
    with pytest.raises(InputMissing, match="`thinktune status` lists runs"):
        observe_all("t", kube, store)


@pytest.mark.parametrize("stage", ["prep", "train"])
def test_what_is_next_where_nothing_is_wrong(kube: Kube, store: Store, stage: str) -> None:
    absent = look(observe("r", stage, kube, store), kube)  # type: ignore[arg-type]
    assert f"--stage {stage}" in absent.remedy
    commit_stage(store, RUN, "prep")
    if stage == "prep":
        done = look(observe("r", "prep", kube, store), kube)
        assert (done.code, "1 file, committed" in done.evidence[0]) == (0, True)
