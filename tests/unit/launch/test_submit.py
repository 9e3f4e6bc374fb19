"""A run brought to a cluster: once, again, by two at one moment, and after whatever went wrong."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_objects import CONFIG_MAPS, JOBS, NAMESPACES, SECRETS
from kube_server import KubeServer
from launching import (
    NAMESPACE,
    Meanwhile,
    children,
    commit_stage,
    request,
)

from thinktune.launch.cluster.api import Unauthenticated
from thinktune.launch.cluster.install import Foreign
from thinktune.launch.cluster.kube import QUEUE, QUEUE_LABEL, REPLACED, WAITS, Kube
from thinktune.launch.preflight import Request
from thinktune.launch.runs import pipeline_of
from thinktune.launch.submit import detach, left, submit
from thinktune.schema.errors import InputMissing, ServiceUnavailable, SpecInvalid
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.stages import STAGES, Stage
from thinktune.store import Store

Say = Callable[[str], None]
H100 = "NVIDIA-H100-80GB-HBM3"
PREP, TRAIN, CONDUCTOR = "r-prep", "r-train", "r-conductor"


@pytest.fixture(scope="module")
def asked() -> Request:
    return request()


@pytest.fixture(scope="module")
def first() -> Request:
    """The same run's first stage alone."""
    return request(stages=("prep",))


@pytest.fixture
def bring(helm: None, kube: Kube, store: Store, say: Say) -> Callable[[Request], Pipeline]:
    """A submit to its end."""
    return lambda wanted: submit(wanted, kube, store, say)


Bring = Callable[[Request], Pipeline]


def uid(cluster: Cluster, name: str) -> str:
    return str(cluster.job(name)["metadata"]["uid"])


# -- the first time


def test_every_stage_is_made_and_all_but_the_first_wait(
    asked: Request, bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    todo = bring(asked)
    assert [each.stage for each in todo.stages] == list(STAGES)
    assert cluster.jobs() == ["r-evaluate", "r-prep", "r-train"]
    waits = {name: WAITS in (cluster.job(name)["metadata"].get("annotations") or {})
             for name in cluster.jobs()}  # fmt: skip
    assert waits == {"r-evaluate": True, "r-prep": False, "r-train": True}
    assert said == [
        "cluster: no GPUs",
        "prep: submitted",
        "train: submitted, waits for the stage before it",
        "evaluate: submitted, waits for the stage before it",
    ]


def test_a_queue_gets_a_job_when_it_may_start(bring: Bring, cluster: Cluster) -> None:
    bring(request(queue="gpus"))
    assert cluster.job(PREP)["metadata"]["labels"][QUEUE_LABEL] == "gpus"
    train = cluster.job(TRAIN)["metadata"]
    assert train["annotations"][QUEUE] == "gpus"
    assert QUEUE_LABEL not in train["labels"]


def test_a_file_of_the_user_s_own_is_brought_once(
    bring: Bring, store: Store, said: list[str], tmp_path: Path
) -> None:
    data = tmp_path / "audit.jsonl"
    data.write_text('{"question": "q", "answer": "a"}\n')
    wanted = request(f"data.path={data}", recipe="qwen-32b", stages=("prep",))
    bring(wanted)
    assert "audit.jsonl: into the store" in said
    assert wanted.run.own_file is not None
    assert store.get(wanted.run.own_file.key) == data.read_bytes()
    said.clear()
    bring(wanted)
    assert "audit.jsonl: into the store" not in said


# -- what is refused before anything is made


def refused(bring: Bring, wanted: Request, cluster: Cluster) -> str:
    with pytest.raises((SpecInvalid, InputMissing)) as found:
        bring(wanted)
    assert cluster.jobs() == []
    return str(found.value)


def test_a_namespace_that_is_not_there(asked: Request, bring: Bring, cluster: Cluster) -> None:
    cluster.objects.delete(NAMESPACES, "", NAMESPACE)
    assert "kubectl create namespace jobs" in refused(bring, asked, cluster)


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({"identity": {"secret": "lost"}}, "generic lost --from-literal=AWS_ACCESS_KEY_ID=…"),
        ({"identity": {"model_hub_secret": "hub"}}, "generic hub --from-literal=HF_TOKEN=…"),
        ({"images": {"registry": "r.io/t", "pull_secrets": ["key"]}}, "docker-registry key"),
        ({"env_from_secrets": ["own"]}, "generic own --from-literal=NAME=…"),
    ],
)
def test_a_secret_that_is_not_there(
    bring: Bring, cluster: Cluster, settings: dict[str, Any], make: str
) -> None:
    words = refused(bring, request(**settings), cluster)
    assert f"kubectl -n jobs create secret {make}" in words


def test_a_tracker_without_its_key(bring: Bring, cluster: Cluster) -> None:
    cluster.add_secret("tracker", "OTHER_KEY")
    wanted = request("train.tracking=[wandb]", env_from_secrets=["tracker"])
    assert "has WANDB_API_KEY" in refused(bring, wanted, cluster)
    cluster.add_secret("wandb", "WANDB_API_KEY")
    bring(request("train.tracking=[wandb]", env_from_secrets=["tracker", "wandb"]))
    assert TRAIN in cluster.jobs()


def test_hardware_that_nobody_knows(bring: Bring, cluster: Cluster) -> None:
    wanted = request(hardware_nodes={"h100x9": {}})
    assert "did you mean 'h100x8'" in refused(bring, wanted, cluster)


def test_a_training_longer_than_its_deadline(bring: Bring, cluster: Cluster) -> None:
    cluster.add_node("gpus", 8, H100)
    wanted = request("train.epochs=9", recipe="llama-70b", deadline_hours=1)
    assert "deadline_hours ends it after 1" in refused(bring, wanted, cluster)


def test_a_stage_whose_predecessor_is_not_done(
    bring: Bring, cluster: Cluster, store: Store, asked: Request
) -> None:
    wanted = request(stages=("train",))
    assert "add --stage prep" in refused(bring, wanted, cluster)
    commit_stage(store, asked.run, "prep")
    bring(wanted)
    assert cluster.jobs() == [TRAIN]


def test_an_artifact_of_another_recipe(
    bring: Bring, cluster: Cluster, store: Store, asked: Request
) -> None:
    commit_stage(store, asked.run, "prep", task_sha256="0" * 64)
    assert "made by another recipe" in refused(bring, asked, cluster)


def test_nodes_that_can_never_take_it_and_hardware_that_they_could(
    bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    cluster.add_node("a100", 8, "NVIDIA-A100-SXM4-80GB")
    words = refused(bring, request(recipe="llama-70b"), cluster)
    assert "the cluster has room for 0" in words
    assert "would be scheduled with --set hardware=a100-80x8" in words
    assert "--force where an autoscaler" in words
    assert said == ["cluster: 8 of 8 NVIDIA-A100-SXM4-80GB free"]


def test_what_is_forced_is_submitted_all_the_same(bring: Bring, cluster: Cluster) -> None:
    bring(request(recipe="llama-70b", stages=("prep",), force=True))
    assert cluster.jobs() == [PREP]


def test_a_name_too_long_for_a_release(bring: Bring, cluster: Cluster) -> None:
    assert "shorter name with --run" in refused(bring, request(name="r" * 48), cluster)


# -- rights


def test_what_may_not_be_seen_is_not_checked(
    api: KubeServer, bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    """A namespace's user sees no nodes, and not each secret; the pod tells what is missing."""
    api.denied = {("get", "namespaces"), ("list", "nodes"), ("get", "secrets")}
    bring(request(identity={"secret": "keys"}, stages=("prep",)))
    assert said[0].startswith("cluster: GPUs unknown (nodes is forbidden")
    assert cluster.jobs() == [PREP]


def test_pods_of_others_that_may_not_be_seen(
    api: KubeServer, bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    cluster.add_node("gpus", 4, H100)
    api.denied = {("list", "pods")}
    bring(request(recipe="llama-70b", stages=("prep",)))
    assert said[0] == f"cluster: 4 {H100}, free or not"


def test_credentials_that_expired(api: KubeServer, bring: Bring, first: Request) -> None:
    with api.away(401), pytest.raises(Unauthenticated, match="log in to the cluster again"):
        bring(first)
    with api.away(401, "GET .*/nodes"), pytest.raises(Unauthenticated):
        bring(first)


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
    for stage in STAGES:
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


# -- the conductor


def todo(asked: Request, *stages: Stage) -> Pipeline:
    """What a submit of these stages leaves to a conductor."""
    return pipeline_of(asked.run, stages, asked.cluster)


def told(cluster: Cluster) -> list[str]:
    """Stages that the conductor in the cluster is to start."""
    data = cluster.objects.get(CONFIG_MAPS, NAMESPACE, CONDUCTOR)["data"]
    return [each["stage"] for each in json.loads(data["pipeline.json"])["stages"]]


Leave = Callable[[Pipeline], None]


@pytest.fixture
def leave(helm: None, asked: Request, kube: Kube, say: Say) -> Leave:
    """The rest of a run to a conductor."""
    return lambda plan: detach(plan, asked.cluster, kube, say)


def test_a_conductor_starts_what_is_left(
    asked: Request, leave: Leave, cluster: Cluster, said: list[str]
) -> None:
    leave(todo(asked, *STAGES))
    assert said == ["conductor: starts the stages in turn"]
    assert told(cluster) == list(STAGES)
    before = uid(cluster, CONDUCTOR)
    leave(todo(asked, *STAGES))
    assert said[-1] == "conductor: there already"
    assert uid(cluster, CONDUCTOR) == before


def test_a_conductor_at_work_keeps_its_stages(
    asked: Request, leave: Leave, cluster: Cluster
) -> None:
    leave(todo(asked, "prep", "train"))
    leave(todo(asked, "evaluate"))
    assert told(cluster) == list(STAGES)


def test_a_conductor_that_has_ended_is_replaced(
    asked: Request, leave: Leave, cluster: Cluster
) -> None:
    leave(todo(asked, *STAGES))
    before = uid(cluster, CONDUCTOR)
    cluster.end_job(CONDUCTOR, "Failed", "PodFailurePolicy", "exit code 66")
    leave(todo(asked, "evaluate"))
    assert uid(cluster, CONDUCTOR) != before
    assert told(cluster) == ["evaluate"]


def test_a_conductor_s_name_that_is_taken(asked: Request, leave: Leave, cluster: Cluster) -> None:
    cluster.objects.create(JOBS, NAMESPACE, {"metadata": {"name": CONDUCTOR}})
    with pytest.raises(Foreign, match="taken by something else"):
        leave(todo(asked, *STAGES))


def test_a_conductor_that_cannot_be_installed(
    api: KubeServer, asked: Request, leave: Leave
) -> None:
    message = f'secrets "sh.helm.release.v1.{CONDUCTOR}.v1" already exists'
    api.fail("POST .*/secrets", 409, message, times=100)
    with pytest.raises(ServiceUnavailable, match="could not be installed after 5 attempts"):
        leave(todo(asked, *STAGES))
