"""Releases: whose they are, and how they go."""

import subprocess
from collections.abc import Callable

import pytest
import yaml
from kube_cluster import Cluster
from kube_objects import CONFIG_MAPS, JOBS, RESOURCES, SECRETS
from kube_server import KubeServer
from launching import NAMESPACE, Meanwhile, request, wait_for

from thinktune.launch.cluster import install as module
from thinktune.launch.cluster.charts import HelmFault, HelmRefused, manifests, values_text
from thinktune.launch.cluster.install import (
    Foreign,
    await_gone,
    check_ours,
    clear,
    clear_leftovers,
    install,
    installed_values,
    uninstall,
    wait_until,
)
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.runs import stage_values
from thinktune.schema.errors import ServiceUnavailable

pytestmark = pytest.mark.usefixtures("helm")
RELEASE = "r-prep"
TAKEN = HelmRefused("cannot reuse a name that is still in use", HelmFault.NAME_TAKEN)
OTHERS = HelmRefused("invalid ownership metadata", HelmFault.MADE_WITHOUT_HELM)


@pytest.fixture(scope="module")
def values() -> str:
    asked = request()
    return values_text(stage_values(asked.run, "prep", asked.cluster))


@pytest.fixture
def installed(kube: Kube, values: str) -> None:
    assert install(RELEASE, "task", kube, values) is None


@pytest.fixture
def applied(cluster: Cluster, values: str) -> None:
    """As `kubectl apply` would make what was rendered: without a release."""

    by_kind = {each.kind: each for each in RESOURCES}
    for each in yaml.safe_load_all(manifests(RELEASE, NAMESPACE, values)):
        cluster.objects.create(by_kind[each["kind"]], NAMESPACE, each)


def left(cluster: Cluster) -> list[str]:
    """What remains of a release."""
    kinds = (JOBS, CONFIG_MAPS, SECRETS)
    return [each["metadata"]["name"] for kind in kinds for each in cluster.objects.list(kind)]


@pytest.mark.usefixtures("installed")
def test_whose_a_release_is(kube: Kube) -> None:
    assert check_ours(RELEASE, "r", kube)
    assert not check_ours("r-train", "r", kube)
    with pytest.raises(Foreign, match="taken by run r") as foreign:
        check_ours(RELEASE, "another", kube)
    assert "take another name" in foreign.value.remedy


@pytest.mark.usefixtures("installed")
def test_a_release_whose_job_expired_is_still_its_run_s(cluster: Cluster, kube: Kube) -> None:
    cluster.objects.delete(JOBS, NAMESPACE, RELEASE)
    with pytest.raises(Foreign, match="taken by run r"):
        check_ours(RELEASE, "another", kube)


def test_a_job_without_our_labels_is_somebody_else_s(cluster: Cluster, kube: Kube) -> None:
    cluster.objects.create(JOBS, NAMESPACE, {"metadata": {"name": RELEASE}})
    with pytest.raises(Foreign, match="taken by something else"):
        check_ours(RELEASE, "r", kube)


@pytest.mark.usefixtures("installed")
def test_what_opens_the_store_goes_after_the_pods(cluster: Cluster, kube: Kube) -> None:
    pod = cluster.pod_of(RELEASE, "Running")
    cluster.objects.ending_s = 0.3
    going = Meanwhile(lambda: uninstall(RELEASE, "r", kube))
    wait_for(lambda: "deletionTimestamp" in cluster.job(RELEASE)["metadata"])
    assert kube.config_map(RELEASE) is not None  # the task, and with it account and policy
    assert kube.pod(pod) is not None
    assert going.result() is True
    assert left(cluster) == []


def test_nothing_to_uninstall(kube: Kube) -> None:
    assert not uninstall(RELEASE, "r", kube)


@pytest.mark.usefixtures("applied")
def test_what_kubectl_applied_goes_too(cluster: Cluster, kube: Kube) -> None:
    assert installed_values(RELEASE, kube) is None
    assert uninstall(RELEASE, "r", kube)
    assert left(cluster) == []


@pytest.mark.usefixtures("installed")
def test_another_run_s_release_is_not_uninstalled(cluster: Cluster, kube: Kube) -> None:
    with pytest.raises(Foreign):
        uninstall(RELEASE, "another", kube)
    assert cluster.jobs() == [RELEASE]


@pytest.mark.usefixtures("installed")
def test_nothing_is_cleared_below_a_job(cluster: Cluster, kube: Kube) -> None:
    assert not clear(RELEASE, "r", kube)
    assert kube.config_map(RELEASE) is not None


@pytest.mark.usefixtures("installed")
def test_leftovers_are_another_submit_s_once_its_job_appears(cluster: Cluster, kube: Kube) -> None:
    clear_leftovers(RELEASE, "r", kube, TAKEN)
    assert cluster.jobs() == [RELEASE]


@pytest.mark.usefixtures("installed")
def test_leftovers_of_a_job_that_expired(cluster: Cluster, kube: Kube) -> None:
    cluster.objects.delete(JOBS, NAMESPACE, RELEASE)
    clear_leftovers(RELEASE, "r", kube, TAKEN)
    assert left(cluster) == []


def test_leftovers_that_are_not_ours(cluster: Cluster, kube: Kube) -> None:
    cluster.objects.create(CONFIG_MAPS, NAMESPACE, {"metadata": {"name": RELEASE}})
    with pytest.raises(Foreign, match="invalid ownership metadata"):
        clear_leftovers(RELEASE, "r", kube, OTHERS)
    assert left(cluster) == [RELEASE]


@pytest.mark.usefixtures("installed")
def test_a_node_that_is_lost(cluster: Cluster, kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pods never end, so that their Job stays."""
    monkeypatch.setattr(module, "TERMINATION_S", 0.1)
    cluster.pod_of(RELEASE, "Running")
    cluster.objects.ending_s = None
    with pytest.raises(ServiceUnavailable, match="have not ended within") as lost:
        uninstall(RELEASE, "r", kube)
    assert "are their nodes still there?" in lost.value.remedy


@pytest.mark.usefixtures("installed")
def test_a_job_that_was_made_anew_is_not_awaited(cluster: Cluster, kube: Kube) -> None:
    before = cluster.job(RELEASE)
    before["metadata"]["uid"] = "of the one before"
    await_gone(before, kube)
    assert cluster.jobs() == [RELEASE]


def test_helm_that_is_killed_while_it_uninstalls(
    api: KubeServer, cluster: Cluster, kube: Kube, installed: None
) -> None:
    """The same again removes what it left."""
    api.fail("DELETE .*/configmaps/.*", 500, times=10)
    with pytest.raises(HelmRefused):
        uninstall(RELEASE, "r", kube)
    assert RELEASE in left(cluster)
    api.faults.clear()
    assert uninstall(RELEASE, "r", kube)
    assert left(cluster) == []


@pytest.mark.parametrize(("true", "there"), [(lambda: True, True), (lambda: False, False)])
def test_waiting(true: Callable[[], bool], there: bool) -> None:
    assert wait_until(true, 0.05) is there


def test_the_client_and_helm_work_in_one_context(kube: Kube, installed: None) -> None:
    listed = subprocess.run(
        ["helm", "list", "--namespace", NAMESPACE, "--short"], capture_output=True, text=True
    )
    assert listed.stdout.split() == [RELEASE], listed.stderr
