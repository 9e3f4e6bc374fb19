"""A server on the cluster: two replicas under load, while runs are promoted, pods killed and a new
version rolled out. The image is the one for CPUs, and the engine transformers.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serving_client
import yaml
from command import thinktune
from conftest import HARDWARE, NAMESPACE, URL, Place, kubectl, wait_for

SERVER, RELEASE = "shop", "shop-serve"
INSIDE = f"http://{RELEASE}.{NAMESPACE}.svc"
IMAGE = "localhost/evaluate:0.1.0"
CLIENTS = 2


@pytest.fixture(scope="module")
def runs(place: Place) -> tuple[str, str]:
    """Two runs of the tiny model, trained here, into the cluster's store. Its weights are random:
    no evaluation would promote them."""
    small = HARDWARE | {"gpu": "none", "product": None, "num_gpus": 0, "gpu_memory_gib": 0}
    path = place.jobs / "catalog" / "hardware.yaml"
    hardware = yaml.safe_load(path.read_text()) | {"small": small | {"cpus": 1}}
    path.write_text(yaml.safe_dump(hardware))
    for run, lr, until in (("one", "0.01", "evaluate"), ("two", "0.02", "train")):
        settings = ("--set", "hardware=small", "--set", f"train.lr={lr}", "--until", until)
        ended = thinktune(
            *("run", "tiny", "--local", "--store", URL, "--run", run, *settings),
            jobs=place.jobs,
            more=place.environment,
        )
        assert ended.code == 0, ended.out + ended.err
    return "one", "two"


@pytest.fixture(scope="module")
def cluster_file(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node without room for a third pod: an update ends one before it starts the next."""
    folder = tmp_path_factory.mktemp("serving")
    return place.changed("serving", folder, serve={"surge": False})


@pytest.fixture(scope="module")
def served(place: Place, runs: tuple[str, str], cluster_file: Path) -> Iterator[str]:
    """The server with the first run, ready; what the launcher said."""
    ended = serve(place, cluster_file, "one", "--unpromoted", "--replicas", "2")
    assert ended.code == 0, ended.out + ended.err + kubectl("-n", NAMESPACE, "describe", "pods")
    yield ended.out
    place.kubectl("delete", "pod", "-l", "of=serving-tests", "--force", "--grace-period=0")
    done = place.thinktune("cancel", SERVER, "--cluster", str(cluster_file))
    assert done.code == 0, done.out + done.err
    left = place.kubectl(
        "get", "all,cm,secret,netpol,pdb,sa", "-l", f"thinktune.dev/server={SERVER}"
    )
    assert left.strip() == ""


def serve(place: Place, cluster_file: Path, *arguments: str) -> Any:
    named = ("--name", SERVER, "--hardware", "small", "--cluster", str(cluster_file))
    return place.thinktune("serve", *arguments, *named)


def client(name: str, *arguments: str) -> None:
    """A pod that asks the server; its log has the outcome."""
    source = Path(serving_client.__file__).read_text()
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"of": "serving-tests"}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "client",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["python", "-c", source, *arguments],
                    "securityContext": security,
                    "volumeMounts": [{"name": "key", "mountPath": "/etc/key"}],
                }
            ],
            "volumes": [{"name": "key", "secret": {"secretName": f"{RELEASE}-key"}}],
        },
    }
    kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps(pod))


def outcome(place: Place, name: str, seconds: int = 120) -> Any:
    """What a client's pod found, once it has ended."""

    def ended() -> bool:
        (pod,) = place.get("pods", "--field-selector", f"metadata.name={name}")
        return pod["status"]["phase"] in ("Succeeded", "Failed")

    wait_for(ended, seconds, f"the end of {name}")
    return json.loads(place.kubectl("logs", name).splitlines()[-1])


def start_load(place: Place, name: str) -> None:
    client(name, "load", INSIDE, SERVER, str(CLIENTS))
    wait_for(lambda: "at work" in logs(place, name), 60, "the load")


def logs(place: Place, name: str) -> str:
    (pod,) = place.get("pods", "--field-selector", f"metadata.name={name}")
    return place.kubectl("logs", name) if pod["status"]["phase"] != "Pending" else ""


def end_load(place: Place, name: str) -> dict[str, Any]:
    """Ends it; how many requests had which status."""
    stop = "import os, signal; os.kill(1, signal.SIGTERM)"
    place.kubectl("exec", name, "--", "python", "-c", stop)
    found: dict[str, Any] = outcome(place, name)
    return found


def serving_run(place: Place) -> dict[str, Any]:
    """What the launcher knows of the server."""
    told = place.thinktune("status", SERVER, "--output", "json")
    assert told.code == 0, told.err
    (found,) = json.loads(told.out)
    return dict(found)


def ready_pods(place: Place) -> list[str]:
    found = place.get("pods", "-l", f"thinktune.dev/server={SERVER}")
    return [
        pod["metadata"]["name"]
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
        and any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in pod["status"].get("conditions", [])
        )
    ]


def test_a_run_that_the_gate_held_back_is_refused(
    place: Place, runs: tuple[str, str], cluster_file: Path
) -> None:
    refused = serve(place, cluster_file, "one")
    assert refused.code == 64
    assert "its evaluation did not promote it" in refused.err
    assert "--unpromoted" in refused.err
    assert not place.get("deployments")


def test_it_is_ready_and_says_how_to_reach_it(place: Place, served: str) -> None:
    assert f"{SERVER} is ready: 2 replicas, serving one" in served
    assert f"port-forward service/{RELEASE} 8080:80" in served
    assert "not promoted" in served
    key = place.get("secrets", "--field-selector", f"metadata.name={RELEASE}-key")
    assert key[0]["data"]["key"] not in served
    told = serving_run(place)
    assert (told["state"], told["ready"], told["runs"]) == ("ready", 2, ["one"])
    why = place.thinktune("why", SERVER)
    assert why.code == 0, why.out
    assert "Nothing is wrong" in why.out


def test_a_question_is_answered_from_inside_the_cluster(place: Place, served: str) -> None:
    for model in (SERVER, "one", "base"):
        client(f"ask-{model}", "ask", INSIDE, model)
    for model in (SERVER, "one", "base"):
        found = outcome(place, f"ask-{model}")
        assert found["status"] == 200, found
        assert found["answer"]["model"] == model
        assert found["answer"]["usage"]["completion_tokens"] >= 1
        assert found["answer"]["choices"][0]["finish_reason"] in ("stop", "length")


def test_nothing_else_is_let_through(place: Place, served: str) -> None:
    client("paths", "paths", INSIDE)
    found = outcome(place, "paths")
    expected = {each: 401 if each.endswith(("no key", "wrong key")) else 404 for each in found}
    assert found == expected | {"DELETE /v1/models with key": 405}


def test_a_second_run_is_promoted_under_load(place: Place, served: str) -> None:
    start_load(place, "load-promote")
    refused = place.thinktune("promote", "two", "--to", SERVER)
    assert refused.code == 64
    assert "it has not been evaluated" in refused.err
    promoted = place.thinktune("promote", "two", "--to", SERVER, "--unpromoted")
    assert promoted.code == 0, promoted.out + promoted.err
    assert "all 2 replicas serve two" in promoted.out
    assert serving_run(place)["runs"] == ["two", "one"]
    undone = place.thinktune("promote", "--undo", "--to", SERVER)
    assert undone.code == 0, undone.out + undone.err
    assert serving_run(place)["runs"] == ["one", "two"]
    again = place.thinktune("promote", "two", "--to", SERVER, "--unpromoted")
    assert again.code == 0, again.out + again.err
    found = end_load(place, "load-promote")
    assert found["faults"] == []
    assert set(found["statuses"]) == {"200"}
    assert found["statuses"]["200"] > 20


def test_a_killed_pod_comes_back_with_what_was_promoted(place: Place, served: str) -> None:
    before = ready_pods(place)
    place.kubectl("delete", "pod", before[0], "--force", "--grace-period=0")
    client("ask-killed", "ask", INSIDE, SERVER)
    assert outcome(place, "ask-killed")["status"] == 200
    wait_for(lambda: len(set(ready_pods(place)) - {before[0]}) == 2, 180, "another replica")
    wait_for(lambda: serving_run(place)["following"] == 2, 30, "what it serves")
    assert serving_run(place)["runs"] == ["two", "one"]


def test_a_rolling_update_loses_no_request(place: Place, served: str, cluster_file: Path) -> None:
    before = set(ready_pods(place))
    start_load(place, "load-rollout")
    changed = serve(place, cluster_file, "--set", "limits.max_tokens=64")
    assert changed.code == 0, changed.out + changed.err
    assert not before & set(ready_pods(place))
    time.sleep(2)
    found = end_load(place, "load-rollout")
    assert found["faults"] == []
    assert set(found["statuses"]) == {"200"}
    assert serving_run(place)["runs"] == ["two", "one"]
