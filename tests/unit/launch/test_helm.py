"""What helm says, in its own words, and what the launcher takes it to mean."""

import os
from pathlib import Path

import pytest
from kube_cluster import Cluster
from kube_objects import CONFIG_MAPS, JOBS, SECRETS
from kube_server import KubeServer
from launching import NAMESPACE, request

from thinktune.launch.cluster.charts import HelmFault, HelmRefused, helm, helm_fault, values_text
from thinktune.launch.cluster.install import install, installed_values
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.runs import stage_values
from thinktune.schema.errors import InputMissing, ServiceUnavailable

pytestmark = pytest.mark.usefixtures("helm")
RELEASE = "r-prep"


@pytest.fixture(scope="module")
def values() -> str:
    asked = request()
    return values_text(stage_values(asked.run, "prep", asked.cluster))


def refusal(kube: Kube, values: str) -> HelmRefused:
    refused = install(RELEASE, "task", kube, values)
    assert refused is not None
    return refused


def test_a_release_is_installed_whole(cluster: Cluster, kube: Kube, values: str) -> None:
    assert install(RELEASE, "task", kube, values) is None
    assert cluster.jobs() == [RELEASE]
    assert kube.config_map(RELEASE) is not None
    there = installed_values(RELEASE, kube)
    assert there is not None and there["run"] == "r"


def test_a_name_that_is_taken(kube: Kube, values: str) -> None:
    assert install(RELEASE, "task", kube, values) is None
    assert refusal(kube, values).why is HelmFault.NAME_TAKEN


def test_another_submit_that_is_a_moment_ahead(
    api: KubeServer, cluster: Cluster, kube: Kube, values: str
) -> None:
    """Both helms find the name free, and one of them writes its Secret first."""
    message = f'secrets "sh.helm.release.v1.{RELEASE}.v1" already exists'
    api.fail("POST .*/secrets", 409, message)
    assert refusal(kube, values).why is HelmFault.NAME_TAKEN
    assert cluster.jobs() == []


def test_an_object_that_helm_did_not_make(cluster: Cluster, kube: Kube, values: str) -> None:
    cluster.objects.create(CONFIG_MAPS, NAMESPACE, {"metadata": {"name": RELEASE}})
    assert refusal(kube, values).why is HelmFault.MADE_WITHOUT_HELM


def test_no_such_release(kube: Kube) -> None:
    assert installed_values("none", kube) is None


def test_values_that_the_chart_does_not_take(kube: Kube) -> None:
    with pytest.raises(HelmRefused, match="run") as refused:
        install(RELEASE, "task", kube, "nonsense: 1\n")
    assert refused.value.why is HelmFault.OTHER


def test_a_quota_for_jobs(cluster: Cluster, kube: Kube, values: str) -> None:
    cluster.objects.quota["jobs.batch"] = 0
    with pytest.raises(ServiceUnavailable, match="exceeded quota") as refused:
        install(RELEASE, "task", kube, values)
    assert refused.value.remedy == "change what it names, or ask who runs the cluster"


def test_a_right_that_is_missing(api: KubeServer, kube: Kube, values: str) -> None:
    api.denied = {("create", "secrets")}
    with pytest.raises(ServiceUnavailable, match="cannot create") as refused:
        install(RELEASE, "task", kube, values)
    assert "thinktune doctor" in refused.value.remedy


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_server_that_refuses(api: KubeServer, kube: Kube, values: str, status: int) -> None:
    with api.away(status), pytest.raises(ServiceUnavailable, match="cluster unreachable"):
        install(RELEASE, "task", kube, values)


def test_a_server_that_is_not_there(api: KubeServer, kube: Kube, values: str) -> None:
    config = Path(os.environ["KUBECONFIG"])
    config.write_text(config.read_text().replace(api.url, "http://127.0.0.1:9"))
    with pytest.raises(ServiceUnavailable, match="connection refused"):
        install(RELEASE, "task", kube, values)


def test_a_helm_that_was_killed_leaves_its_name_taken(
    api: KubeServer, cluster: Cluster, kube: Kube, values: str
) -> None:
    """With its Secret written and its Job not made."""
    api.fail("PATCH .*/jobs/.*", 500, times=10)
    with pytest.raises(HelmRefused):
        install(RELEASE, "task", kube, values)
    assert cluster.objects.list(JOBS) == []
    assert len(cluster.objects.list(SECRETS)) == 1
    assert refusal(kube, values).why is HelmFault.NAME_TAKEN


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Error: INSTALLATION FAILED: cannot re-use a name that is still in use",
         HelmFault.NAME_TAKEN),
        ("Error: another operation (install/upgrade/rollback) is in progress",
         HelmFault.NAME_TAKEN),
        ("Error: Kubernetes cluster unreachable: dial tcp: lookup k8s: no such host",
         HelmFault.UNAVAILABLE),
        ("Error: net/http: TLS handshake timeout", HelmFault.UNAVAILABLE),
        ("Error: etcdserver: leader changed", HelmFault.UNAVAILABLE),
        ("Error: chart requires kubeVersion: >=1.99", HelmFault.OTHER),
    ],
)  # fmt: skip
def test_what_helm_3_says_and_what_is_hard_to_provoke(said: str, meant: HelmFault) -> None:
    assert helm_fault(said) is meant


@pytest.mark.parametrize("run", ["forbidden", "etcdserver", "connection-refused"])
def test_a_name_is_not_taken_for_what_helm_says(run: str) -> None:
    release = f"{run}-prep"
    folder = f"/home/{run}/charts/task"
    for said, meant in [
        (f'Error: jobs.batch "{release}" already exists', HelmFault.NAME_TAKEN),
        (f"Error: release {release} failed: secrets '{release}' already exists",
         HelmFault.NAME_TAKEN),
        (f'Error: Unable to continue with install: ConfigMap "{release}" in namespace "{run}"'
         " exists and cannot be imported into the current release", HelmFault.MADE_WITHOUT_HELM),
        (f"Error: uninstall: Release not loaded: {release}: release: not found",
         HelmFault.NO_RELEASE),
        (f"Error: chart {folder} can't be read, and it isn't ours", HelmFault.OTHER),
        (f'Error: jobs.batch "{release}" is forbidden: exceeded quota: few', HelmFault.FORBIDDEN),
    ]:  # fmt: skip
        assert helm_fault(said, (release, folder)) is meant, said


def test_a_release_with_such_a_name(cluster: Cluster, kube: Kube, values: str) -> None:
    release = "forbidden-prep"
    assert installed_values(release, kube) is None
    assert install(release, "task", kube, values) is None
    refused = install(release, "task", kube, values)
    assert refused is not None and refused.why is HelmFault.NAME_TAKEN
    cluster.objects.create(CONFIG_MAPS, NAMESPACE, {"metadata": {"name": "forbidden-train"}})
    refused = install("forbidden-train", "task", kube, values)
    assert refused is not None and refused.why is HelmFault.MADE_WITHOUT_HELM


@pytest.mark.parametrize(
    ("rule", "remedy"),
    [
        ('User "me" cannot create resource "jobs" in API group "batch"', "thinktune doctor"),
        ("exceeded quota: few, requested: pods=1", "ask who runs the cluster"),
        ('violates PodSecurity "restricted:latest": privileged', "ask who runs the cluster"),
    ],
)
def test_what_to_do_about_a_refusal(
    api: KubeServer, kube: Kube, values: str, rule: str, remedy: str
) -> None:
    api.fail("POST .*/secrets", 403, f'secrets "x" is forbidden: {rule}')
    with pytest.raises(ServiceUnavailable, match="is forbidden") as refused:
        install(RELEASE, "task", kube, values)
    assert remedy in refused.value.remedy


def fake_helm(folder: Path, version: str) -> str:
    path = folder / "helm"
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return str(path)


def test_no_helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputMissing, match="not on the PATH") as missing:
        helm("version")
    assert "install helm 3.14 or newer" in missing.value.remedy


@pytest.mark.parametrize("version", ["v3.13.9+g1", "v2.17.0", "nonsense"])
def test_another_helm(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_helm(tmp_path, version)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(InputMissing, match=f"it is {version.replace('+', '.')}") as old:
        helm("version")
    assert old.value.place == path
