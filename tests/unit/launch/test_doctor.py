"""What a cluster lacks, each with what to do about it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_objects import NAMESPACES, PODS, POLICIES
from kube_server import KubeServer
from launching import NAMESPACE, Meanwhile, request, use_kubeconfig, wait_for

from thinktune.launch import doctor as module
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.doctor import Check, examine
from thinktune.launch.preflight import Request
from thinktune.schema.stages import STAGE_INFO, STAGES

pytestmark = pytest.mark.usefixtures("helm")
PROBE_ERROR = "error: s3://bucket: no bucket of that name; make it, or correct store"


def looked_at(asked: Request | None, cluster_of: Request | None = None) -> dict[str, Check]:
    described = (asked or cluster_of or request()).cluster
    found = list(examine(described, lambda: Kube(NAMESPACE), asked))
    return {check.name: check for check in found}


def without_pod(**settings: Any) -> dict[str, Check]:
    """All that is asked before a pod is started."""
    return looked_at(None, request(**settings))


@pytest.fixture
def pod(cluster: Cluster) -> Iterator[Callable[[Callable[[str], None]], dict[str, Check]]]:
    """Looks at a cluster while a test plays the kubelet for doctor's pod."""

    def look(play: Callable[[str], None], **settings: Any) -> dict[str, Check]:
        going = Meanwhile(lambda: looked_at(request(**settings)))
        wait_for(lambda: cluster.pods() or going.is_over)
        if not going.is_over:
            play(str(cluster.pods()[0]["metadata"]["name"]))
        found: dict[str, Check] = going.result()
        return found

    yield look
    assert cluster.pods() == []  # it is never left behind
    assert cluster.objects.list(POLICIES) == []


Look = Callable[..., dict[str, Check]]


def test_a_cluster_that_lacks_nothing(cluster: Cluster, pod: Look) -> None:
    cluster.add_secret("keys", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    found = pod(lambda name: cluster.end(name, 0), identity={"secret": "keys"})
    assert [check.ok for check in found.values()] == [True] * len(found), found
    assert list(found) == [
        "context", "helm", "namespace", "rights", "secret keys", "nodes",
        *(f"image {stage}" for stage in STAGES), "store",
    ]  # fmt: skip
    assert found["secret keys"].said == "has AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    assert found["helm"].said.startswith("v")


# -- before a pod


def test_no_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kubeconfig(tmp_path / "none", monkeypatch)
    found = without_pod()
    assert list(found) == ["context"]
    assert found["context"].ok is False
    assert "kubectl config use-context" in found["context"].remedy


def test_credentials_that_expired(api: KubeServer, cluster: Cluster) -> None:
    with api.away(401):
        found = without_pod()
    assert list(found) == ["context"]
    assert "log in to the cluster again" in found["context"].remedy


def test_an_api_server_that_is_away(api: KubeServer, cluster: Cluster) -> None:
    with api.away():
        found = without_pod()
    assert list(found) == ["context"]
    assert "does not answer" in found["context"].said


def test_no_helm(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = without_pod()
    assert found["helm"].ok is False
    assert found["helm"].said == "not on the PATH; 3.14 or newer is needed"
    assert "https://helm.sh" in found["helm"].remedy
    assert found["rights"].ok  # the rest is looked at all the same


def test_a_namespace_that_is_not_there(cluster: Cluster) -> None:
    cluster.objects.delete(NAMESPACES, "", NAMESPACE)
    found = without_pod()
    assert list(found) == ["context", "helm", "namespace"]
    assert found["namespace"].remedy == "kubectl create namespace jobs"


def test_a_namespace_that_may_not_be_seen(api: KubeServer, cluster: Cluster) -> None:
    api.denied = {("get", "namespaces")}
    checks = list(examine(request().cluster, lambda: Kube(NAMESPACE), None))
    assert checks[0].name == "namespace" and checks[0].ok is None
    assert checks[-1].name == "rights"


def test_the_level_that_a_namespace_enforces(cluster: Cluster) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.objects.patch(NAMESPACES, "", NAMESPACE, {"metadata": {"labels": labels}})
    assert "Pod Security: restricted" in without_pod()["namespace"].said


def test_rights_that_are_missing(api: KubeServer, cluster: Cluster) -> None:
    api.denied = {("create", "jobs"), ("get", "pods/log")}
    found = without_pod()["rights"]
    assert found.ok is False
    assert found.said == "you may not create jobs, get pods/log"
    assert "`admin`" in found.remedy


def test_rights_that_monitoring_wants_besides(api: KubeServer, cluster: Cluster) -> None:
    api.denied = {("create", "podmonitors")}
    assert without_pod()["rights"].ok
    found = without_pod(monitoring={"enabled": True})["rights"]
    assert found.said == "you may not create podmonitors"


def test_a_secret_that_is_not_there(cluster: Cluster) -> None:
    found = looked_at(request(identity={"secret": "keys"}))
    assert found["secret keys"].ok is False
    assert "create secret generic keys" in found["secret keys"].remedy
    assert "store" not in found  # a pod would not start
    assert cluster.pods() == []


def test_a_secret_that_may_not_be_seen(api: KubeServer, cluster: Cluster) -> None:
    api.denied = {("get", "secrets")}
    found = without_pod(identity={"secret": "keys"})["secret keys"]
    assert found.ok is None
    assert "cannot get" in found.said


def test_a_tracker_without_its_key(cluster: Cluster, pod: Look) -> None:
    asked = request("train.tracking=[wandb]", identity={"secret": "lost"})
    found = looked_at(asked)["tracking"]
    assert found.ok is False
    assert "create secret generic wandb" in found.remedy


def test_nodes_that_could_never_take_it(cluster: Cluster) -> None:
    cluster.add_node("a100", 8, "NVIDIA-A100-SXM4-80GB")
    found = looked_at(request(recipe="llama-70b", identity={"secret": "lost"}))["nodes"]
    assert found.ok is False
    assert found.said.startswith("cluster: 8 of 8 NVIDIA-A100-SXM4-80GB free; it asks for 1 × 4")
    assert "--set hardware=a100-80x8" in found.remedy


def test_nodes_that_may_not_be_seen(api: KubeServer, cluster: Cluster) -> None:
    api.denied = {("list", "nodes")}
    found = looked_at(request(identity={"secret": "lost"}))["nodes"]
    assert found.ok is None
    assert "GPUs unknown" in found.said


def test_nodes_while_the_api_server_is_in_trouble(api: KubeServer, cluster: Cluster) -> None:
    with api.away(500, "GET .*/nodes"):
        found = looked_at(request(identity={"secret": "lost"}))["nodes"]
    assert found.ok is False
    assert "answered 500" in found.said


def test_a_hardware_s_product_called_unknown_is_known(cluster: Cluster) -> None:
    """What is said of nodes decides nothing: only whether they could be seen."""
    cluster.add_node("odd", 8, "unknown-gpu")
    found = looked_at(request(identity={"secret": "lost"}))["nodes"]
    assert "unknown-gpu" in found.said
    assert found.ok is True


# -- what its pod finds


def test_the_pod_is_like_those_of_stages(cluster: Cluster, pod: Look) -> None:
    seen: list[Any] = []

    def play(name: str) -> None:
        seen.append(cluster.objects.get(PODS, NAMESPACE, name))
        seen.append(cluster.objects.list(POLICIES)[0])
        cluster.end(name, 0)

    pod(play, images={"registry": "r.io/t", "tag": "9"}, env={"AWS_REGION": "eu-west-1"})
    made, policy = seen
    images = {each["name"]: each["image"] for each in made["spec"]["containers"]}
    assert images.pop("task") == "r.io/t/prep:9"
    others = {stage: f"r.io/t/{STAGE_INFO[stage].image}:9" for stage in STAGES if stage != "prep"}
    assert images == others
    assert {"name": "AWS_REGION", "value": "eu-west-1"} in made["spec"]["containers"][0]["env"]
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= made["metadata"]["labels"].items()
    assert "task.json" not in str(made["spec"]["volumes"])


def test_a_store_that_refuses(cluster: Cluster, pod: Look) -> None:
    def play(name: str) -> None:
        cluster.run(name)
        cluster.say(name, "warming up", PROBE_ERROR)
        cluster.end(name, 69)

    found = pod(play)["store"]
    assert found.ok is False
    assert found.said == "s3://bucket: no bucket of that name"
    assert found.remedy == "make it, or correct store"


def test_a_probe_that_dies_without_an_error_of_ours(cluster: Cluster, pod: Look) -> None:
    def play(name: str) -> None:
        cluster.run(name)
        cluster.say(name, "Traceback (most recent call last):", "ImportError: boto3; no such")
        cluster.end(name, 1)

    found = pod(play)["store"]
    assert found.ok is False
    assert found.said == "ImportError: boto3; no such"
    assert found.remedy == ""


def test_a_store_that_is_opened_to_accounts_of_releases(cluster: Cluster, pod: Look) -> None:
    """The pod has none of theirs, so that its refusal proves nothing."""

    def play(name: str) -> None:
        cluster.run(name)
        cluster.say(name, PROBE_ERROR)
        cluster.end(name, 69)

    assert pod(play, identity={"annotations": {"example.com/role": "t"}})["store"].ok is None


def test_an_image_that_cannot_be_pulled(
    cluster: Cluster, pod: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POD_S", 60)
    found = pod(lambda name: cluster.hold(name, "ImagePullBackOff", "manifest unknown"))
    for stage in STAGES:
        assert found[f"image {stage}"].ok is False
        assert (
            "cannot be pulled (ImagePullBackOff): manifest unknown" in found[f"image {stage}"].said
        )
        assert "images.registry" in found[f"image {stage}"].remedy
    assert found["store"].ok is None


def test_an_image_that_takes_long(
    cluster: Cluster, pod: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POD_S", 1)
    found = pod(lambda name: cluster.hold(name, "ContainerCreating", ""))
    assert found["image train"].ok is None
    assert "still ContainerCreating" in found["image train"].said


def test_a_pod_that_finds_no_node(
    cluster: Cluster, pod: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POD_S", 1)
    found = pod(lambda name: cluster.find_no_node(name, "0/1 nodes are available"))
    assert found["pod"].said == "0/1 nodes are available"
    assert "store" not in found


@pytest.mark.parametrize("rule", ["violates PodSecurity", "exceeded quota: few"])
def test_a_pod_that_is_refused(api: KubeServer, cluster: Cluster, pod: Look, rule: str) -> None:
    api.fail("POST .*/pods", 403, f'pods "x" is forbidden: {rule}')
    found = pod(lambda _: None)["pod"]
    assert found.ok is False
    assert rule in found.said
    assert found.remedy == "change what it names, or ask who runs the cluster"
