"""A run brought to a cluster for the first time, and what is refused before anything is made."""

from pathlib import Path
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_objects import NAMESPACES
from kube_server import KubeServer
from launching import (
    NAMESPACE,
    Bring,
    commit_stage,
    depends,
    request,
)

from thinktune.launch.cluster.api import Unauthenticated
from thinktune.launch.cluster.kube import QUEUE, QUEUE_LABEL, WAITS
from thinktune.launch.preflight import Request
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.stages import STAGES
from thinktune.store import Store

H100 = "NVIDIA-H100-80GB-HBM3"
PREP, TRAIN = "r-prep", "r-train"


# -- the first time


def test_every_stage_is_made_and_all_but_the_first_wait(
    bring: Bring, cluster: Cluster, said: list[str]
) -> None:
    todo = bring(request(stages=STAGES))
    assert [each.stage for each in todo.stages] == list(STAGES)
    assert cluster.jobs() == sorted(f"r-{stage}" for stage in STAGES)
    waits = {stage: WAITS in (cluster.job(f"r-{stage}")["metadata"].get("annotations") or {})
             for stage in STAGES}  # fmt: skip
    first, *others = STAGES
    assert waits == {first: False} | dict.fromkeys(others, True)
    assert said == [
        "cluster: no GPUs",
        f"{first}: submitted",
        *(f"{stage}: submitted, waits for the stage before it" for stage in others),
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


def test_a_stage_that_does_not_depend_on_the_one_before_it(
    bring: Bring, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    depends(monkeypatch, "evaluate", "prep")
    bring(request(stages=("prep", "evaluate")))
    assert cluster.jobs() == ["r-evaluate", PREP]


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
