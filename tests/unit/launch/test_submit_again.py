"""A run brought to a cluster again: by two at one moment, while it is there, after a failure."""

import os
import signal

import pytest
from kube_cluster import Cluster
from kube_objects import CONFIG_MAPS, JOBS, SECRETS
from kube_server import KubeServer
from launching import (
    NAMESPACE,
    Bring,
    Meanwhile,
    children,
    commit_stage,
    request,
    uid,
)

from thinktune.launch.cluster.install import Foreign
from thinktune.launch.cluster.kube import REPLACED, WAITS, Kube
from thinktune.launch.preflight import Request
from thinktune.launch.submit import left, submit
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid
from thinktune.store import Store

PREP, TRAIN = "r-prep", "r-train"


# -- the same again


def test_the_same_again_changes_nothing(
    asked: Request, bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    bring(asked)
    before = [uid(cluster, name) for name in cluster.jobs()]
    cluster.pod_of(PREP, "Running")
    said.clear()
    bring(asked)
    assert [uid(cluster, name) for name in cluster.jobs()] == before
    assert said[1:] == [
        "prep: there already (running)",
        "train: there already (waiting)",
        "evaluate: there already (waiting)",
    ]


def test_two_submits_at_one_moment_make_one_run(
    asked: Request, kube: Kube, store: Store, helm: None, cluster: Cluster
) -> None:
    told: list[str] = []
    both = [Meanwhile(lambda: submit(asked, kube, store, told.append)) for _ in range(2)]
    assert both[0].result() == both[1].result()
    assert cluster.jobs() == ["r-evaluate", "r-prep", "r-train"]
    assert len(cluster.objects.list(SECRETS)) == 3  # one release each
    for stage in asked.stages:
        assert sum(line.startswith(f"{stage}: submitted") for line in told) == 1, told


def test_what_is_done_is_not_made_again(
    asked: Request, bring: Bring, cluster: Cluster, kube: Kube, store: Store
) -> None:
    commit_stage(store, asked.run, "prep")
    todo = bring(asked)
    assert cluster.jobs() == ["r-evaluate", "r-train"]
    assert WAITS not in (cluster.job(TRAIN)["metadata"].get("annotations") or {})
    assert left(todo, kube, store)
    for stage in ("train", "evaluate"):
        commit_stage(store, asked.run, stage)
    assert not left(todo, kube, store)


def test_a_job_that_waits_is_not_made_anew_to_start(
    asked: Request, bring: Bring, cluster: Cluster, store: Store, said: list[str]
) -> None:
    """What it waits for is done by now; whoever follows the run starts it."""
    bring(asked)
    before = uid(cluster, TRAIN)
    commit_stage(store, asked.run, "prep")
    said.clear()
    bring(asked)
    assert "train: there already (waiting)" in said
    assert uid(cluster, TRAIN) == before


def test_what_was_made_from_an_artifact_that_is_gone(
    asked: Request, bring: Bring, cluster: Cluster, store: Store
) -> None:
    """The first one is made anew, and nobody asks yet what the next was made from."""
    for stage in ("prep", "train"):
        commit_stage(store, asked.run, stage)
    store.delete_prefix("runs/r/prep")
    bring(asked)
    assert PREP in cluster.jobs()


def test_a_stage_that_commits_while_it_is_submitted(
    asked: Request, kube: Kube, store: Store, helm: None, cluster: Cluster, said: list[str]
) -> None:
    def say(text: str) -> None:
        said.append(text)
        if text == "prep: submitted":
            commit_stage(store, asked.run, "prep")
            commit_stage(store, asked.run, "train")

    submit(asked, kube, store, say)
    assert cluster.jobs() == ["r-evaluate", "r-prep"]


def test_a_job_of_another_recipe_is_left_alone(bring: Bring, cluster: Cluster) -> None:
    bring(request(stages=("prep",)))
    before = uid(cluster, PREP)
    with pytest.raises(SpecInvalid, match="made from another recipe") as found:
        bring(request("data.max_tokens=128", stages=("prep",)))
    assert "thinktune cancel r" in found.value.remedy
    assert uid(cluster, PREP) == before


def test_a_name_that_is_somebody_else_s(first: Request, bring: Bring, cluster: Cluster) -> None:
    """A Job without our labels is not seen as the stage's; its name is taken all the same."""
    cluster.objects.create(JOBS, NAMESPACE, {"metadata": {"name": PREP}})
    with pytest.raises(Foreign, match="taken by something else"):
        bring(first)


def test_a_job_that_kubectl_applied_is_adopted(
    first: Request, bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    bring(first)
    for release in cluster.objects.list(SECRETS):
        cluster.objects.delete(SECRETS, NAMESPACE, release["metadata"]["name"])
    said.clear()
    bring(first)
    assert "prep: there already (pending)" in said


def test_other_values_make_a_job_anew_that_has_not_started(
    first: Request, bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    bring(first)
    before, waiting = uid(cluster, PREP), cluster.pod_of(PREP)
    cluster.hold(waiting, "ImagePullBackOff", "no such image")
    bring(request(images={"tag": "9"}, stages=("prep",)))
    assert "prep: there already, with other image, and not started: made anew" in said
    assert uid(cluster, PREP) != before
    assert cluster.pods() == []


def test_other_values_wait_for_a_job_that_is_at_work(
    first: Request, bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    bring(first)
    before = uid(cluster, PREP)
    cluster.pod_of(PREP, "Running")
    bring(request(images={"tag": "9"}, stages=("prep",)))
    hint = "prep: there already (running), with other image: `thinktune cancel r` first"
    assert any(line.startswith(hint) for line in said)
    assert uid(cluster, PREP) == before


# -- after what went wrong


def fail(cluster: Cluster, name: str, code: int = 70) -> None:
    cluster.end(cluster.pod_of(name, "Running"), code)
    cluster.end_job(name, "Failed", "BackoffLimitExceeded", "too often")


def test_a_job_that_failed_is_made_anew(
    first: Request, bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    bring(first)
    before = uid(cluster, PREP)
    fail(cluster, PREP)
    bring(first)
    assert "prep: failed before; what it committed is kept" in said
    assert uid(cluster, PREP) != before
    assert cluster.pods() == []


def test_two_submits_of_what_failed_make_it_anew_once(
    first: Request, bring: Bring, kube: Kube, store: Store, cluster: Cluster
) -> None:
    bring(first)
    before = uid(cluster, PREP)
    fail(cluster, PREP)
    told: list[str] = []
    both = [Meanwhile(lambda: submit(first, kube, store, told.append)) for _ in range(2)]
    for each in both:
        each.result()
    assert uid(cluster, PREP) != before
    assert sum(line.startswith("prep: submitted") for line in told) == 1, told
    assert len(cluster.objects.list(SECRETS)) == 1


def test_a_submit_that_died_between_mark_and_removal(
    first: Request, bring: Bring, kube: Kube, cluster: Cluster
) -> None:
    bring(first)
    before = uid(cluster, PREP)
    fail(cluster, PREP)
    assert kube.mark_job(cluster.job(PREP), REPLACED)
    bring(first)
    assert uid(cluster, PREP) != before


def test_a_job_that_is_being_deleted_is_awaited(
    first: Request, bring: Bring, kube: Kube, cluster: Cluster, said: list[str]
) -> None:
    bring(first)
    before = uid(cluster, PREP)
    cluster.pod_of(PREP, "Running")
    cluster.objects.ending_s = 0.3
    kube.delete_job(PREP)
    bring(first)
    assert "prep: waits until the Job before this one has ended" in said
    assert uid(cluster, PREP) != before


def test_what_an_expired_job_left_is_cleared(
    first: Request, bring: Bring, cluster: Cluster
) -> None:
    bring(first)
    cluster.objects.delete(JOBS, NAMESPACE, PREP)
    bring(first)
    assert PREP in cluster.jobs()


def test_a_quota_that_is_used_up_and_then_raised(
    asked: Request, bring: Bring, cluster: Cluster
) -> None:
    cluster.objects.quota["jobs.batch"] = 1
    with pytest.raises(ServiceUnavailable, match="exceeded quota: few") as short:
        bring(asked)
    assert short.value.exit_code == 69
    assert cluster.jobs() == [PREP]
    cluster.objects.quota.clear()
    bring(asked)
    assert cluster.jobs() == ["r-evaluate", "r-prep", "r-train"]


def kill_helm() -> None:
    """Whichever is at work."""
    for pid in children("helm"):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("at", ["PATCH .*/configmaps/.*", "PATCH .*/jobs/.*", "PUT .*/secrets/.*"])
def test_helm_killed_half_way(
    api: KubeServer, first: Request, bring: Bring, cluster: Cluster, at: str
) -> None:
    """Between the release's Secret and its objects, or after them: the same submit goes on."""
    api.fail(at, None, act=kill_helm)
    with pytest.raises(ServiceUnavailable, match="killed by SIGKILL"):
        bring(first)
    bring(first)
    assert cluster.jobs() == [PREP]
    assert len(cluster.objects.list(CONFIG_MAPS)) == 1


def test_a_store_that_is_full_of_others(
    api: KubeServer, first: Request, bring: Bring, cluster: Cluster
) -> None:
    """Whose Job never appears and whose release comes back as often as it is cleared."""
    message = 'secrets "sh.helm.release.v1.r-prep.v1" already exists'
    api.fail("POST .*/secrets", 409, message, times=100)
    with pytest.raises(
        ServiceUnavailable, match="could not be installed after 5 attempts"
    ) as found:
        bring(first)
    assert message in found.value.fault
    assert found.value.remedy == "submit again"


def test_the_api_server_goes_away_and_comes_back(
    api: KubeServer, asked: Request, bring: Bring, cluster: Cluster
) -> None:
    api.fail("PATCH .*/jobs/r-train", 500, times=20)
    with pytest.raises(SpecInvalid):
        bring(asked)
    api.faults.clear()
    with api.away(503), pytest.raises(ServiceUnavailable):
        bring(asked)
    bring(asked)
    assert cluster.jobs() == ["r-evaluate", "r-prep", "r-train"]
