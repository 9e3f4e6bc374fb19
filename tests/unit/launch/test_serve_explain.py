"""Why a server is in its state, from what the cluster shows of it."""

from collections.abc import Callable
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_objects import DEPLOYMENTS, PODS
from kube_server import KubeServer
from launching import NAMESPACE
from serving_world import RELEASE, SERVER, add_replicas, asked, commit_run, make_ready, say_state

from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving import follow as follow_module
from thinktune.launch.serving import promote, serve
from thinktune.launch.serving.explain import explain
from thinktune.launch.serving.follow import follow
from thinktune.launch.serving.live import known_server
from thinktune.launch.status.pod_status import Diagnosis
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.exit_codes import ExitCode
from thinktune.store import Store

pytestmark = pytest.mark.usefixtures("helm", "installed")


@pytest.fixture
def installed(kube: Kube, store: Store, say: Callable[[str], None], cluster: Cluster) -> None:
    """A server of two replicas, without a pod yet."""
    commit_run(store, "one")
    serve.serve(asked("one", replicas=2), kube, store, say)


@pytest.fixture
def why(kube: Kube, store: Store) -> Callable[[], Diagnosis]:
    return lambda: explain(known_server(SERVER, kube, store), kube)


def change(cluster: Cluster, patch: dict[str, Any]) -> None:
    cluster.objects.patch(DEPLOYMENTS, NAMESPACE, RELEASE, patch)


def test_pods_that_are_refused(cluster: Cluster, why: Callable[[], Diagnosis]) -> None:
    said = 'pods "shop-serve-x" is forbidden: exceeded quota: few'
    condition = {"type": "ReplicaFailure", "status": "True", "message": said}
    change(cluster, {"status": {"conditions": [condition]}})
    found = why()
    assert "gets no pod" in found.cause
    assert "exceeded quota" in found.paragraph()
    assert found.code == ExitCode.SERVICE_UNAVAILABLE


def test_a_rollout_that_finds_no_node(cluster: Cluster, why: Callable[[], Diagnosis]) -> None:
    old, new = add_replicas(cluster, 2)
    waiting = {"phase": "Pending", "conditions": None, "containerStatuses": None}
    cluster.objects.patch(PODS, NAMESPACE, new, {"status": waiting})
    cluster.find_no_node(new, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu")
    found = why()
    assert "finds no node" in found.cause
    assert "Insufficient nvidia.com/gpu" in found.paragraph()
    assert "serve.surge: false" in found.remedy
    assert old != new


def test_a_volume_that_is_not_there(cluster: Cluster, why: Callable[[], Diagnosis]) -> None:
    (pod,) = add_replicas(cluster, 1, ready=False)
    waiting = {"phase": "Pending", "containerStatuses": None}
    cluster.objects.patch(PODS, NAMESPACE, pod, {"status": waiting})
    assert "is about to start" in why().cause
    said = 'MountVolume.SetUp failed for volume "key" : secret "clients" not found'
    cluster.event(cluster.objects.get(PODS, NAMESPACE, pod), "FailedMount", said)
    assert 'secret "clients" not found' in why().paragraph()


def test_one_of_two_is_ready(cluster: Cluster, store: Store, why: Callable[[], Diagnosis]) -> None:
    first, _ = add_replicas(cluster, 2, ready=False)
    make_ready(cluster, first)
    say_state(store, first, 1, "one")
    found = why()
    assert found.code == 0
    assert "do not serve one yet" in found.cause


def test_a_server_of_no_replica_and_one_that_is_ended(
    cluster: Cluster, why: Callable[[], Diagnosis]
) -> None:
    add_replicas(cluster, 1)
    change(cluster, {"spec": {"replicas": 0}})
    assert "--replicas 1" in why().remedy
    change(cluster, {"metadata": {"deletionTimestamp": "2026-11-22T10:00:00Z"}})
    assert "is being ended" in why().cause


def test_an_api_that_is_away_is_waited_for(
    cluster: Cluster, kube: Kube, store: Store, api: KubeServer, said: list[str], say: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(follow_module, "POLL_S", 0.01)
    for pod in add_replicas(cluster, 2):
        say_state(store, pod, 1, "one")
    api.fail("GET .*deployments", 503, times=2)
    assert follow(SERVER, 20.0, kube, store, say).ready == 2
    assert any(each.endswith("; tries again") for each in said)


def test_nonsense_in_the_config_map_is_told(
    cluster: Cluster, kube: Kube, store: Store, say: Any
) -> None:
    from kube_objects import CONFIG_MAPS

    patch = {"data": {"served.json": "nonsense"}}
    cluster.objects.patch(CONFIG_MAPS, NAMESPACE, f"{RELEASE}-adapters", patch)
    with pytest.raises(SpecInvalid, match="it does not hold what a server reads"):
        promote.promote("one", SERVER, kube, store, say)
