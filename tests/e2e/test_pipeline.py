"""A run through all its stages, as a user sees it: submitted, followed, looked at, fetched."""

import base64
import gzip
import json
import time
from pathlib import Path

import pytest
from conftest import KEYS, PRODUCT, SECRET, STORE, Place, kubectl

from thinktune.store import file_key, file_sha256, read_manifest

RUN = "whole"


@pytest.fixture(scope="module")
def followed(place: Place) -> str:
    """prep → train (two processes, DeepSpeed on gloo) → evaluate (two pods), from the terminal."""
    settings = ("--set", "hardware=two", "--set", "evaluate.shards=2")
    ended = place.thinktune("submit", "tiny", "--run", RUN, *settings)
    assert ended.code == 0, ended.out + ended.err
    return ended.out


def test_the_plan_is_shown_and_the_logs_are_followed(followed: str) -> None:
    assert "plan: 1 × two, 2 ranks, ZeRO 1" in followed
    assert f"2 of 2 {PRODUCT} free" in followed
    assert "training, 4 validation, 8 test" in followed
    assert "DeepSpeed ZeRO 1 over 2 ranks" in followed
    assert "6/6 steps" in followed
    for stage in ("prep", "train", "evaluate"):
        assert f"{stage}: committed" in followed
    assert f"thinktune fetch {RUN}" in followed


def test_two_pods_divided_the_questions(place: Place, followed: str) -> None:
    pods = [
        pod["metadata"]["name"]
        for pod in place.get("pods")
        if pod["metadata"]["labels"].get("job-name") == f"{RUN}-evaluate"
        and pod["status"]["phase"] == "Succeeded"
    ]
    assert len(pods) == 2
    logs = [place.kubectl("logs", pod) for pod in pods]
    assert [log for log in logs if "judges" in log and "done" in log]
    store, prefix = place.store(), f"runs/{RUN}/evaluate"
    manifest = read_manifest(store, prefix)
    assert manifest is not None
    report = json.loads(store.get(file_key(store, prefix, manifest, "report.json")))
    assert {arm["samples"] for arm in report["arms"].values()} == {report["questions"]}


def test_the_same_again_is_done_already(place: Place, followed: str) -> None:
    began = time.monotonic()
    again = place.thinktune("submit", "tiny", "--run", RUN, "--set", "hardware=two")
    assert again.code == 0, again.out + again.err
    assert all(f"{stage}: done already" in again.out for stage in ("prep", "train", "evaluate"))
    assert time.monotonic() - began < 30


def test_another_recipe_of_that_name_is_refused(place: Place, followed: str) -> None:
    other = place.thinktune("submit", "tiny", "--run", RUN, "--set", "train.rank=4")
    assert other.code == 66
    assert "made by another recipe" in other.err


def test_status_tells_all(place: Place, followed: str) -> None:
    ended = place.thinktune("status", RUN, "--output", "json")
    stages = {each["stage"]: each for each in json.loads(ended.out)}
    assert [each["state"] for each in stages.values()] == ["done"] * 3
    assert stages["train"]["loss"] > 0
    assert stages["train"]["tokens_per_s"] > 0
    listed = place.thinktune("status").out
    assert RUN in listed
    assert "Nothing is wrong" in place.thinktune("why", RUN).out


def test_fetch_brings_a_whole_adapter(place: Place, followed: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    ended = place.thinktune("fetch", RUN, "--out", str(folder), "--output", "json")
    assert ended.code == 0, ended.err
    entries = json.loads(ended.out)["manifest"]["files"]
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {e["name"] for e in entries}
    for entry in entries:
        assert file_sha256(folder / entry["name"]) == entry["sha256"]
    damaged = folder / "adapter_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert place.thinktune("fetch", RUN, "--out", str(folder)).code == 0
    (sha256,) = [e["sha256"] for e in entries if e["name"] == damaged.name]
    assert file_sha256(damaged) == sha256


def test_logs_outlive_the_pods(place: Place, followed: str) -> None:
    alive = place.thinktune("logs", RUN, "--stage", "train").out
    assert "6/6 steps" in alive
    place.kubectl("delete", "pods", "-l", f"job-name={RUN}-train", "--wait")
    gone = place.thinktune("logs", RUN, "--stage", "train").out
    assert gone.splitlines()[-3:] == alive.splitlines()[-3:]


def test_the_secret_is_shown_nowhere(place: Place, followed: str) -> None:
    """Logs, events, objects, Helm's releases, and all that the store has; a conductor's too."""
    led = place.thinktune("submit", "tiny", "--run", "canary", "--stage", "prep", "--detach")
    assert led.code == 0, led.out + led.err
    assert place.ended("canary-conductor")["type"] == "Complete"
    kinds = "jobs,configmaps,serviceaccounts,pods,roles,rolebindings,networkpolicies,services"
    pods = [pod["metadata"]["name"] for pod in place.get("pods")]
    assert any(name.startswith("canary-conductor") for name in pods)
    shown = [
        followed,
        place.kubectl("get", "events", "-o", "json"),
        place.kubectl("get", kinds, "-o", "json"),
        *(place.kubectl("logs", name) for name in pods),
    ]
    place.thinktune("cancel", "canary")
    releases = json.loads(place.kubectl("get", "secrets", "-l", "owner=helm", "-o", "json"))
    for release in releases["items"]:
        packed = base64.b64decode(base64.b64decode(release["data"]["release"]))
        shown.append(gzip.decompress(packed).decode())
    assert len(shown) >= 6
    store = place.store()
    keys = [info.key for info in store.list("runs") if info.size < 1 << 22]
    assert any(key.endswith(".log") for key in keys)
    shown += [store.get(key).decode(errors="replace") for key in keys]
    assert "store-keys" in shown[2]  # by name it is
    values = [SECRET, KEYS["AWS_ACCESS_KEY_ID"]]
    values += [base64.b64encode(value.encode()).decode() for value in values]
    assert not [value for value in values for text in shown if value in text]


def test_a_pod_reaches_dns_and_the_store_and_nothing_else(place: Place, followed: str) -> None:
    """From pods with the training's own labels and without: only the latter reach another port of
    the store's pod, and the API server."""
    store = json.loads(kubectl("-n", STORE, "get", "pods", "-l", "app=s3", "-o", "json"))
    address = store["items"][0]["status"]["podIP"]
    started = place.thinktune("submit", "tiny", "--run", "net", "--stage", "prep", "--detach")
    assert started.code == 0, started.err
    expected = {
        "bound": (labels(place, f"{RUN}-train"), "True False False"),
        "fetching": (labels(place, "net-prep"), "True False False"),
        # The conductor asks the API server, and nothing else but the store.
        "leading": (labels(place, "net-conductor"), "True False True"),
        "free": ({"app": "free"}, "True True True"),
    }
    for name, (own, _) in expected.items():
        probe(place, name, address, own)
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    for name, (_, answer) in expected.items():
        place.kubectl("wait", succeeded, f"pod/{name}", "--timeout=90s")
        assert place.kubectl("logs", name).strip() == answer, name
    place.thinktune("cancel", "net")


def labels(place: Place, job: str) -> dict[str, str]:
    """Of its pods, by which its policy knows them."""
    found = place.job(job)["spec"]["template"]["metadata"]["labels"]
    return {k: found[k] for k in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}


def probe(place: Place, name: str, address: str, labels: dict[str, str]) -> None:
    """A pod with those labels, which prints whether it reaches the store by its name, the filer
    beside it, and the API server."""
    code = (
        "import socket, time\n"
        "time.sleep(5)  # a policy takes a moment to hold for a new pod\n"
        "def reached(host, port):\n"
        "    try:\n"
        "        socket.create_connection((host, port), 4).close(); return True\n"
        "    except OSError:\n"
        "        return False\n"
        f"print(reached('s3.{STORE}.svc', 8333), reached('{address}', 8888),"
        " reached('kubernetes.default.svc', 443))\n"
    )
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    image = "localhost/prep:0.1.0"
    container = {"name": name, "image": image, "securityContext": restricted}
    pod = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{**container, "command": ["python", "-c", code]}],
    }
    written = ",".join(f"{k}={v}" for k, v in labels.items())
    options = ["--restart=Never", f"--image={image}", f"--labels={written}"]
    place.kubectl("run", name, *options, f"--overrides={json.dumps({'spec': pod})}")


def test_delete_leaves_nothing(place: Place, followed: str) -> None:
    """Last in this file: Jobs and all that belongs to them, and the run's objects in the store."""
    ended = place.thinktune("delete", RUN, "--yes")
    assert ended.code == 0, ended.err
    left = place.kubectl("get", "all,configmaps,serviceaccounts,networkpolicies", "-o", "name")
    assert f"{RUN}-" not in left
    assert not list(place.store().list(f"runs/{RUN}"))
    for command in ("delete", "status", "logs", "why", "cancel"):
        again = place.thinktune(command, RUN, *(["--yes"] if command == "delete" else []))
        assert again.code == 66, command
        assert f"run {RUN}: neither a Job nor an artifact of that name" in again.err
    fetched = place.thinktune("fetch", RUN)
    assert fetched.code == 66
    assert f"train of run {RUN} has no committed artifact" in fetched.err
