"""The client against an API server: what it sends, and what it makes of refusals and silence."""

import re
from pathlib import Path
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_objects import CONFIG_MAPS, JOBS, PODS, POLICIES
from kube_server import KubeServer
from launching import NAMESPACE, Meanwhile, use_kubeconfig, wait_for

from thinktune.launch.cluster.api import Conflict, Forbidden, Unauthenticated
from thinktune.launch.cluster.kube import REPLACED, Kube
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid

LABELS = {"app.kubernetes.io/name": "thinktune", "thinktune.dev/run": "r"}


def make_job(cluster: Cluster, name: str = "r-prep", **labels: str) -> dict[str, Any]:
    container = {"name": "task", "image": "i"}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    body = {
        "metadata": {"name": name, "labels": LABELS | labels},
        "spec": {"suspend": True, "template": template},
    }
    made: dict[str, Any] = cluster.objects.create(JOBS, NAMESPACE, body)
    return made


def test_jobs_by_label(cluster: Cluster, kube: Kube) -> None:
    make_job(cluster)
    make_job(cluster, "other", **{"app.kubernetes.io/name": "somebody-else"})
    assert [job["metadata"]["name"] for job in kube.jobs()] == ["r-prep"]
    assert kube.jobs("thinktune.dev/run=s") == []
    assert kube.job("r-prep") is not None
    assert kube.job("none") is None


def test_of_two_who_mark_a_job_one_succeeds(cluster: Cluster, kube: Kube) -> None:
    job = make_job(cluster)
    assert kube.mark_job(job, REPLACED)
    assert not kube.mark_job(job, REPLACED)  # its resourceVersion has gone by


def test_a_job_of_the_same_name_is_not_marked(cluster: Cluster, kube: Kube) -> None:
    job = make_job(cluster)
    kube.delete_job("r-prep")
    assert not kube.mark_job(job, REPLACED)  # there is none
    now = make_job(cluster)
    now["metadata"]["uid"] = job["metadata"]["uid"]
    assert not kube.mark_job(now, REPLACED)


def test_a_mark_that_the_server_does_not_take_is_an_error(
    api: KubeServer, cluster: Cluster, kube: Kube
) -> None:
    """Not one that somebody else was first with."""
    job = make_job(cluster)
    api.fail("PATCH .*/jobs/r-prep", 422, "metadata.annotations: Invalid value")
    with pytest.raises(SpecInvalid, match="Invalid value"):
        kube.mark_job(job, REPLACED)


def test_a_job_of_the_same_name_is_not_deleted(cluster: Cluster, kube: Kube) -> None:
    make_job(cluster)
    with pytest.raises(Conflict, match="UID in precondition") as conflict:
        kube.delete_job("r-prep", uid="another")
    assert conflict.value.exit_code == 69
    assert conflict.value.remedy == "it was changed meanwhile: try again"
    assert kube.job("r-prep") is not None


def test_a_deleted_job_stays_while_its_pods_end(cluster: Cluster, kube: Kube) -> None:
    job = make_job(cluster)
    pod = cluster.pod_of("r-prep", "Running")
    cluster.objects.ending_s = 0.2
    assert kube.delete_job("r-prep", uid=job["metadata"]["uid"])
    there = kube.job("r-prep")
    assert there is not None and there["metadata"]["deletionTimestamp"]
    assert kube.pod(pod) is not None
    wait_for(lambda: kube.job("r-prep") is None)
    assert kube.pod(pod) is None
    assert not kube.delete_job("r-prep")


def test_a_patch_removes_what_is_null(cluster: Cluster, kube: Kube) -> None:
    make_job(cluster)
    kube.patch_job("r-prep", {"metadata": {"annotations": {"a": "1", "b": "2"}}})
    kube.patch_job("r-prep", {"metadata": {"annotations": {"a": None}}, "spec": {"suspend": False}})
    job = cluster.job("r-prep")
    assert job["metadata"]["annotations"] == {"b": "2"}
    assert job["spec"]["suspend"] is False


def test_pods_the_newest_first_and_events_the_newest_last(cluster: Cluster, kube: Kube) -> None:
    job = make_job(cluster)
    first = cluster.pod_of("r-prep")
    earlier = {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}}
    cluster.objects.patch(PODS, NAMESPACE, first, earlier)
    second = cluster.pod_of("r-prep")
    assert [p["metadata"]["name"] for p in kube.pods("job-name=r-prep")] == [second, first]
    cluster.event(job, "Later", "the last")
    assert [e["reason"] for e in kube.events(job)] == ["SuccessfulCreate"] * 2 + ["Later"]
    by_name = {"kind": "Job", "metadata": {"name": "r-prep"}}
    assert kube.events(by_name)[-1]["message"] == "the last"


def test_pods_that_ended_hold_no_gpus(cluster: Cluster, kube: Kube) -> None:
    make_job(cluster)
    ended = cluster.pod_of("r-prep", "Running")
    cluster.end(ended)
    alive = cluster.pod_of("r-prep", "Running")
    assert [pod["metadata"]["name"] for pod in kube.all_pods()] == [alive]


def test_names_of_a_secrets_keys(cluster: Cluster, kube: Kube) -> None:
    cluster.add_secret("store-keys", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
    assert kube.secret_keys("store-keys") == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    assert kube.secret_keys("none") is None


def test_what_our_charts_make_beside_a_job_goes_by_label(cluster: Cluster, kube: Kube) -> None:
    for resource, name in ((CONFIG_MAPS, "r-prep"), (POLICIES, "r-prep")):
        body = {"metadata": {"name": name, "labels": LABELS}}
        cluster.objects.create(resource, NAMESPACE, body)
    cluster.objects.create(CONFIG_MAPS, NAMESPACE, {"metadata": {"name": "another's"}})
    removed = kube.delete_owned("thinktune.dev/run=r")
    assert removed == ["configmaps/r-prep", "networkpolicies/r-prep"]
    assert len(cluster.objects.list(CONFIG_MAPS)) == 1


def test_rights(api: KubeServer, kube: Kube) -> None:
    api.denied = {("create", "jobs"), ("get", "pods/log")}
    assert not kube.may("create", "batch", "jobs")
    assert kube.may("get", "batch", "jobs")
    assert not kube.may("get", "", "pods", "log")


def test_a_right_that_is_missing(api: KubeServer, kube: Kube) -> None:
    api.denied = {("list", "jobs")}
    with pytest.raises(Forbidden, match="cannot list") as refused:
        kube.jobs()
    assert "ask for a role in this namespace" in refused.value.remedy


@pytest.mark.parametrize(
    "rule",
    [
        'pods "p" is forbidden: exceeded quota: few, requested: pods=1, used: pods=1',
        'pods "p" is forbidden: violates PodSecurity "restricted:latest"',
        'admission webhook "policy.example.com" denied the request: no such image',
    ],
)
def test_a_rule_is_no_right(api: KubeServer, kube: Kube, rule: str) -> None:
    """A role would not help."""
    api.fail("POST .*/pods", 403, rule)
    with pytest.raises(Forbidden) as refused:
        kube.create_pod({"metadata": {"name": "p"}})
    assert refused.value.fault == rule
    assert refused.value.remedy == "change what it names, or ask who runs the cluster"


def test_credentials_that_expired(api: KubeServer, kube: Kube) -> None:
    with api.away(401), pytest.raises(Unauthenticated) as refused:
        kube.jobs()
    assert "log in to the cluster again" in refused.value.remedy


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble(api: KubeServer, kube: Kube, status: int) -> None:
    with api.away(status), pytest.raises(ServiceUnavailable, match=f"answered {status}"):
        kube.jobs()


def test_an_answer_that_is_no_status(api: KubeServer, kube: Kube) -> None:
    """Of a proxy on the way."""
    page = "<html>Bad Gateway</html>"
    with api.away(502, body=page), pytest.raises(ServiceUnavailable, match="Bad Gateway"):
        kube.jobs()


def test_one_connection_that_breaks_is_no_fault(api: KubeServer, kube: Kube) -> None:
    api.fail("GET .*/jobs", None)
    assert kube.jobs() == []


def test_no_answer(api: KubeServer, kube: Kube) -> None:
    with api.away(), pytest.raises(ServiceUnavailable, match="does not answer") as refused:
        kube.jobs()
    assert "kubectl cluster-info" in refused.value.remedy
    assert kube.jobs() == []


def test_no_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none").write_text("")
    use_kubeconfig(tmp_path / "none", monkeypatch)
    with pytest.raises(SpecInvalid, match="no cluster to talk to") as refused:
        Kube(NAMESPACE)
    assert "kubectl config use-context" in refused.value.remedy


def test_a_context_by_name(api: KubeServer, cluster: Cluster) -> None:
    assert Kube(NAMESPACE, "tests").from_kubeconfig
    assert Kube(NAMESPACE).context == "tests"
    with pytest.raises(SpecInvalid, match="no cluster to talk to"):
        Kube(NAMESPACE, "another")


def test_a_pods_own_account(
    api: KubeServer, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the conductor's pod has it."""
    from kubernetes.config import incluster_config

    use_kubeconfig(tmp_path / "none", monkeypatch)
    host, port = api.http.server_address[:2]
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(host))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
    for name, text in (("TOKEN", "t"), ("CERT", "c")):
        path = tmp_path / name.lower()
        path.write_text(text)
        monkeypatch.setattr(incluster_config, f"SERVICE_{name}_FILENAME", str(path))
    kube = Kube(NAMESPACE)
    assert (kube.context, kube.from_kubeconfig) == ("in-cluster", False)


def test_a_log_and_its_last_lines(cluster: Cluster, kube: Kube) -> None:
    make_job(cluster)
    pod = cluster.pod_of("r-prep", "Running")
    cluster.say(pod, "one", "two", "three")
    assert list(kube.log(pod)) == ["one", "two", "three"]
    assert list(kube.log(pod, tail=1)) == ["three"]


def test_a_log_that_is_followed_begins_after_the_last_line(cluster: Cluster, kube: Kube) -> None:
    make_job(cluster)
    pod = cluster.pod_of("r-prep", "Running")
    cluster.say(pod, "one", "two")
    cluster.end(pod)
    lines = list(kube.log_from(pod, None))
    assert [text for _, text in lines] == ["one", "two"]
    cluster.server.logs[pod].append(("2999-01-01T00:00:00.5Z", "three"))
    assert [text for _, text in kube.log_from(pod, lines[-1][0])] == ["three"]
    cluster.server.logs[pod].append(("2999-01-01T02:00:00.5+02:00", "of another zone"))
    since = "2999-01-01T02:00:00.4+02:00"
    assert [text for _, text in kube.log_from(pod, since)] == ["of another zone"]


def test_a_log_is_followed_to_the_end_of_its_pod(cluster: Cluster, kube: Kube) -> None:
    make_job(cluster)
    pod = cluster.pod_of("r-prep", "Running")
    following = Meanwhile(lambda: [text for _, text in kube.log_from(pod, None)])
    wait_for(lambda: any(re.search("/log$", asked) for asked in cluster.server.requests))
    cluster.say(pod, "late")
    cluster.end(pod)
    assert following.result() == ["late"]
