"""Servers on the command line: `serve`, `promote`, `status`, `why`, `logs`, `cancel`, `delete`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from kube_cluster import Cluster
from kube_objects import DEPLOYMENTS
from kube_server import KubeServer
from launching import NAMESPACE
from serving_world import (
    RELEASE,
    SERVER,
    add_replicas,
    commit_run,
    desired,
    replicas_follow,
    say_state,
)

from thinktune.cli import cancel, logs, serve_cluster, status
from thinktune.cli.main import cli
from thinktune.cli.serve_cluster import server_name
from thinktune.launch.cluster import install
from thinktune.launch.serving import follow, promote
from thinktune.schema.errors import InputMissing, SpecInvalid, StageFailed
from thinktune.store import Store

pytestmark = pytest.mark.usefixtures("helm")
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line with a cluster file, whose bucket is a folder here."""
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({"store": "s3://bucket", "namespace": NAMESPACE}))
    for module in (serve_cluster, status, logs, cancel):
        monkeypatch.setattr(module, "store_of", lambda described: store)
    for each in (follow, promote, install):
        monkeypatch.setattr(each, "POLL_S", 0.01)

    def invoke(*arguments: str) -> Result:
        whole = [*arguments, "--cluster", str(path)]
        return CliRunner().invoke(cli, whole, standalone_mode=False)

    return invoke


def out(result: Result) -> str:
    """What it printed. Raises what it raised."""
    if result.exception is not None:
        raise result.exception
    return str(result.output)


def test_a_server_from_its_start_to_its_end(
    call: Call, cluster: Cluster, store: Store, api: KubeServer
) -> None:
    for run in ("one", "two"):
        commit_run(store, run)
    told = out(call("serve", "one", "--name", SERVER, "--hardware", "cpu", "--detach"))
    assert f"{SERVER}: installed" in told
    assert f"port-forward service/{RELEASE} 8080:80" in told
    assert f"http://{RELEASE}.{NAMESPACE}.svc/v1, model {SERVER}" in told
    assert "about to start" in out(call("why", SERVER)) or "a moment ago" in out(
        call("why", SERVER)
    )
    pods = add_replicas(cluster, 1)
    cluster.say(pods[0], "serves shop at http://0.0.0.0:8080")
    say_state(store, pods[0], 1, "one")
    told = out(call("serve", "--name", SERVER, "--hardware", "cpu"))
    assert f"{SERVER}: there already, just so" in told
    assert f"{SERVER} is ready: 1 replica, serving one" in told
    listed = out(call("status"))
    assert "SERVER" in listed and "ready" in listed and "1/1" in listed
    (facts,) = json.loads(out(call("status", SERVER, "--output", "json")))
    assert (facts["ready"], facts["runs"], facts["following"]) == (1, ["one"], 1)
    assert "Nothing is wrong" in out(call("why", SERVER))
    assert "serves shop at" in out(call("logs", SERVER))
    follows = replicas_follow(cluster, store, pods)
    api.when(f"PATCH /api/v1/namespaces/{NAMESPACE}/pods/{pods[0]}", follows)
    told = out(call("promote", "two", "--to", SERVER))
    assert "its one replica serves two" in told
    (facts,) = json.loads(out(call("status", SERVER, "--output", "json")))
    assert (facts["runs"], facts["former"]) == (["two", "one"], "one")
    assert f"{SERVER}: removed" in out(call("cancel", SERVER))
    assert not cluster.objects.list(DEPLOYMENTS)
    assert "SERVER" not in out(call("status"))


def test_delete_ends_a_server_without_a_question(
    call: Call, cluster: Cluster, store: Store
) -> None:
    commit_run(store, "one")
    call("serve", "one", "--name", SERVER, "--hardware", "cpu", "--detach")
    assert f"{SERVER}: removed" in out(call("delete", SERVER))
    assert list(store.list("runs/one"))


def test_manifests_for_gitops_need_no_cluster(
    call: Call, store: Store, api: KubeServer, tmp_path: Path
) -> None:
    commit_run(store, "one")
    made = []
    for folder in ("first", "again"):
        arguments = ("serve", "one", "--hardware", "t4x1", "--render", str(tmp_path / folder))
        assert "create secret generic one-server-serve-key" in out(call(*arguments))
        made.append({p.name: p.read_bytes() for p in (tmp_path / folder).iterdir()})
    assert made[0] == made[1]
    assert set(made[0]) == {"one-server.values.yaml", "one-server.yaml"}
    kinds = [each["kind"] for each in yaml.safe_load_all(made[0]["one-server.yaml"])]
    assert {"Deployment", "Service", "NetworkPolicy", "ConfigMap"} <= set(kinds)
    assert not api.requests


def test_a_recipe_stands_for_its_newest_run(call: Call, cluster: Cluster, store: Store) -> None:
    for run, day in (("demo-00000001", 1), ("demo-00000002", 3), ("demo-00000003", 2)):
        commit_run(store, run, created=f"2026-11-0{day}T10:00:00+00:00")
    commit_run(store, "demo-of-mine", created="2026-12-01T10:00:00+00:00")
    told = out(call("serve", "demo", "--hardware", "cpu", "--detach"))
    assert "demo: its newest run is demo-00000002" in told
    (only,) = cluster.objects.list(DEPLOYMENTS)
    assert only["metadata"]["name"] == "demo-serve"


def test_a_recipe_without_a_run(call: Call) -> None:
    with pytest.raises(InputMissing, match="no run of recipe qwen-32b is trained"):
        out(call("serve", "qwen-32b"))


@pytest.mark.parametrize(
    ("run", "name"), [("demo-1a2b3c4d", "demo"), ("mine", "mine-server"), ("a-b", "a-b-server")]
)
def test_a_server_has_a_name_that_no_run_has(run: str, name: str) -> None:
    assert server_name(run) == name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing is named that could be served"),
        (("a/b",), "'a/b' is not a valid name for a run"),
        (("one", "--set", "train.lr=1"), "is no setting of a server"),
        (("one", "--set", "limits.request=9"), "did you mean 'requests'"),
        (("one", "--set", "limits.requests=0"), "limits.requests"),
        (("one", "--hardware", "h100x9"), "hardware 'h100x9' is not in the catalog"),
        (("one", "two", "--local"), "a machine serves one run, and 2 are named"),
    ],
)
def test_a_wrong_call_says_what_would_be_right(
    call: Call, store: Store, arguments: tuple[str, ...], words: str
) -> None:
    commit_run(store, "one")
    with pytest.raises(SpecInvalid, match=words):
        out(call("serve", *arguments))


def test_settings_arrive_in_the_task(call: Call, cluster: Cluster, store: Store, kube: Any) -> None:
    commit_run(store, "one")
    settings = ("--set", "limits.max_tokens=99", "--set", "times.grace_s=30", "--window", "1024")
    out(call("serve", "one", "--name", SERVER, "--hardware", "cpu", "--detach", *settings))
    task = json.loads(kube.config_map(RELEASE)["task.json"])
    assert (task["limits"]["max_tokens"], task["times"]["grace_s"]) == (99, 30.0)
    assert task["window"] == 1024
    pod = cluster.objects.get(DEPLOYMENTS, NAMESPACE, RELEASE)["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 15 + 30 + 30


@pytest.mark.parametrize("arguments", [(), ("one", "--undo")])
def test_a_promotion_is_of_a_run_or_an_undo(call: Call, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SpecInvalid, match="name either a run or --undo"):
        out(call("promote", *arguments, "--to", SERVER))


def test_a_run_of_a_servers_name_is_the_run(call: Call, cluster: Cluster, store: Store) -> None:
    commit_run(store, "one")
    call("serve", "one", "--name", SERVER, "--hardware", "cpu", "--detach")
    commit_run(store, SERVER)  # whoever trained it did not ask the cluster
    assert f"run {SERVER} has no Jobs" in out(call("cancel", SERVER))
    assert cluster.objects.list(DEPLOYMENTS)
    assert desired(cluster).first.run == "one"


def test_what_never_starts_ends_the_command(call: Call, cluster: Cluster, store: Store) -> None:
    commit_run(store, "one")
    call("serve", "one", "--name", SERVER, "--hardware", "cpu", "--detach")
    (pod,) = add_replicas(cluster, 1, ready=False)
    cluster.hold(pod, "ImagePullBackOff", "no such image")
    with pytest.raises(StageFailed, match="cannot be pulled"):
        out(call("serve", "--name", SERVER, "--hardware", "cpu"))


@pytest.mark.parametrize(
    "option",
    [
        ("--documents", "handbook"),
        ("--key-file", "keys"),
        ("--host", "0.0.0.0"),
        ("--port", "8080"),
        ("--open",),
        ("--store", "s3://other"),
    ],
)
def test_what_is_of_this_machine_is_refused_on_a_cluster(
    call: Call, cluster: Cluster, store: Store, option: tuple[str, ...]
) -> None:
    """Even where it says what is so by default: whoever wrote it means something by it."""
    commit_run(store, "one")
    with pytest.raises(SpecInvalid, match="this one goes to a cluster") as refused:
        out(call("serve", "one", "--hardware", "cpu", "--detach", *option))
    assert refused.value.place == option[0]
    assert not cluster.objects.list(DEPLOYMENTS)


@pytest.mark.parametrize(
    "option", [("--replicas", "2"), ("--set", "limits.choices=2"), ("--detach",)]
)
def test_what_is_of_a_cluster_is_refused_on_this_machine(option: tuple[str, ...]) -> None:
    arguments = ["serve", "one", "--local", *option]
    with pytest.raises(SpecInvalid, match="--local serves on this machine") as refused:
        out(CliRunner().invoke(cli, arguments, standalone_mode=False))
    assert refused.value.place == option[0]
