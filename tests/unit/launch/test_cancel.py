"""Runs ended and removed: whole, half-way, and again after half of it."""

from collections.abc import Callable

import pytest
from kube_cluster import Cluster
from kube_objects import CONFIG_MAPS, JOBS, NAMESPACES, PODS, SECRETS
from kube_server import KubeServer
from launching import (
    NAMESPACE,
    Meanwhile,
    commit_checkpoint,
    commit_stage,
    make_job,
    request,
    wait_for,
)

from thinktune.launch import cancel as module
from thinktune.launch.cancel import cancel, delete
from thinktune.launch.cluster.charts import HelmRefused
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.preflight import Request
from thinktune.launch.submit import submit
from thinktune.schema.errors import InputMissing, ServiceUnavailable
from thinktune.store import Store

pytestmark = pytest.mark.usefixtures("helm")
Say = Callable[[str], None]


@pytest.fixture(scope="module")
def asked() -> Request:
    return request(stages=("prep", "train"))


@pytest.fixture
def submitted(asked: Request, kube: Kube, store: Store) -> Request:
    submit(asked, kube, store, lambda _: None)
    return asked


@pytest.fixture
def at_work(asked: Request, cluster: Cluster) -> Request:
    """The same Jobs without releases around them: as after `kubectl apply`."""
    for stage in asked.stages:
        make_job(cluster, asked.run, stage)
    return asked


def left(cluster: Cluster) -> list[str]:
    kinds = (JOBS, PODS, CONFIG_MAPS, SECRETS)
    return [each["metadata"]["name"] for kind in kinds for each in cluster.objects.list(kind)]


@pytest.mark.usefixtures("submitted")
def test_all_jobs_of_a_run_end(
    kube: Kube, store: Store, say: Say, cluster: Cluster, said: list[str]
) -> None:
    assert cancel("r", kube, store, say)
    assert left(cluster) == []
    assert said[:2] == ["r-prep: removed", "r-train: removed"]


def test_what_is_kept_is_told(
    at_work: Request, kube: Kube, store: Store, say: Say, said: list[str]
) -> None:
    commit_stage(store, at_work.run, "prep")
    for step in (10, 20):
        commit_checkpoint(store, "r", step)
    cancel("r", kube, store, say)
    assert said[-2:] == [
        "prep: done, kept",
        "train: checkpoint of step 20 kept; the same submit goes on from there",
    ]


@pytest.mark.usefixtures("at_work")
def test_a_pod_at_work_gets_its_grace_period(
    kube: Kube, store: Store, say: Say, cluster: Cluster, said: list[str]
) -> None:
    pod = cluster.pod_of("r-prep", "Running")
    cluster.objects.ending_s = 0.3
    going = Meanwhile(lambda: cancel("r", kube, store, say))
    wait_for(lambda: said)
    assert said == [f"waits for {pod} to commit and end"]
    assert not going.is_over
    assert going.result()
    assert left(cluster) == []


def test_a_pod_whose_node_is_lost(
    asked: Request, kube: Kube, store: Store, say: Say, cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its Job was removed by somebody who did not wait for it."""
    monkeypatch.setattr(module, "MARGIN_S", -29.9)
    make_job(cluster, asked.run, "prep")
    pod = cluster.pod_of("r-prep", "Running")
    cluster.objects.patch(PODS, NAMESPACE, pod, {"metadata": {"ownerReferences": None}})
    cluster.objects.ending_s = None
    with pytest.raises(ServiceUnavailable, match="outlive their grace period") as lost:
        cancel("r", kube, store, say)
    assert pod in lost.value.fault
    assert "kubectl get nodes" in lost.value.remedy


def test_a_run_of_which_only_artifacts_are_left(
    asked: Request, kube: Kube, store: Store, say: Say
) -> None:
    commit_stage(store, asked.run, "prep")
    assert not cancel("r", kube, store, say)


def test_a_run_that_nobody_knows(kube: Kube, store: Store, say: Say) -> None:
    with pytest.raises(InputMissing, match="neither a Job nor an artifact"):
        cancel("r", kube, store, say)
    with pytest.raises(InputMissing):
        delete("r", kube, store, say)


@pytest.mark.usefixtures("at_work")
def test_another_run_whose_name_ends_alike(
    kube: Kube, store: Store, say: Say, cluster: Cluster
) -> None:
    other = request(stages=("prep",), name="r-prep")
    make_job(cluster, other.run, "prep")
    assert cancel("r", kube, store, say)
    assert cluster.jobs() == ["r-prep-prep"]


def test_a_job_that_somebody_installed_under_another_name(
    asked: Request, kube: Kube, store: Store, say: Say, cluster: Cluster
) -> None:
    make_job(cluster, asked.run, "prep")
    job = cluster.job("r-prep")
    cluster.objects.delete(JOBS, NAMESPACE, "r-prep")
    job["metadata"] |= {"name": "mine"}
    job["metadata"]["labels"] |= {"app.kubernetes.io/instance": "mine"}
    cluster.objects.create(JOBS, NAMESPACE, job)
    assert cancel("r", kube, store, say)
    assert cluster.jobs() == []


@pytest.mark.usefixtures("submitted")
def test_canceled_half_way_and_again(
    api: KubeServer, kube: Kube, store: Store, say: Say, cluster: Cluster
) -> None:
    """The API server goes away once the first Job is gone."""
    api.fail("GET .*/jobs/r-train", 500, times=1000)
    with pytest.raises(ServiceUnavailable):
        cancel("r", kube, store, say)
    assert cluster.jobs() == ["r-train"]
    api.faults.clear()
    assert cancel("r", kube, store, say)
    assert left(cluster) == []


@pytest.mark.usefixtures("submitted")
def test_helm_that_fails_half_way_and_again(
    api: KubeServer, kube: Kube, store: Store, say: Say, cluster: Cluster
) -> None:
    """Whose Job is gone and whose release is not."""
    api.fail("DELETE .*/configmaps/r-prep", 500, times=1000)
    with pytest.raises(HelmRefused):
        cancel("r", kube, store, say)
    assert cluster.jobs() == ["r-train"]
    api.faults.clear()
    assert cancel("r", kube, store, say)
    assert left(cluster) == []


@pytest.mark.usefixtures("at_work")
def test_a_store_that_is_away_keeps_no_job_alive(
    kube: Kube, say: Say, cluster: Cluster, said: list[str], store: Store
) -> None:
    class Away:
        """The one thing that this asks of a store."""

        url = "s3://away"

        def __getattr__(self, name: str) -> object:
            raise ServiceUnavailable(self.url, "does not answer", "check the network")

    assert cancel("r", kube, Away(), say)  # type: ignore[arg-type]
    assert left(cluster) == []
    assert said[-1].startswith("what is kept cannot be told: s3://away: does not answer")


def test_a_run_is_removed_and_nothing_that_runs_share(
    submitted: Request, kube: Kube, store: Store, say: Say, cluster: Cluster, said: list[str]
) -> None:
    commit_stage(store, submitted.run, "prep")
    commit_stage(store, request(name="s").run, "prep")
    store.put("cache/models/m/manifest.json", b"x")
    store.put("sources/0/mine.jsonl", b"x")
    delete("r", kube, store, say)
    assert left(cluster) == []
    assert list(store.list("runs/r")) == []
    kept = {info.key.split("/")[0] for info in store.list("")}
    assert kept == {"cache", "runs", "sources"}
    assert list(store.list("runs/s"))
    assert said[-1].endswith("MB removed")


def test_removed_half_way_and_again(
    api: KubeServer, submitted: Request, kube: Kube, store: Store, say: Say, cluster: Cluster
) -> None:
    """What is in the store stays until the last pod has ended."""
    commit_stage(store, submitted.run, "prep")
    api.fail("GET .*/jobs/r-train", 500, times=1000)
    with pytest.raises(ServiceUnavailable):
        delete("r", kube, store, say)
    assert list(store.list("runs/r"))
    api.faults.clear()
    delete("r", kube, store, say)
    assert list(store.list("runs/r")) == []
    assert left(cluster) == []


def test_a_namespace_that_went_first(
    asked: Request, kube: Kube, store: Store, say: Say, cluster: Cluster
) -> None:
    """Its artifacts are still there to be removed."""
    commit_stage(store, asked.run, "prep")
    cluster.objects.delete(NAMESPACES, "", NAMESPACE)
    delete("r", kube, store, say)
    assert list(store.list("runs/r")) == []
