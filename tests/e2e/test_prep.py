"""The prep stage as a chart's Job: it ends, it fails, what it may reach, what it must not show."""

import base64
import gzip
import json
import subprocess
from pathlib import Path

import pytest
from command import thinktune
from conftest import KEYS, SECRET, STORE, Place, kubectl

from thinktune.launch.charts import chart_folder


def install(place: Place, run: str, folder: Path, *settings: str) -> str:
    """`thinktune render`, then `helm install`, as a user without the launcher's `submit` does."""
    changes = [word for setting in settings for word in ("--set", setting)]
    options = ("--run", run, "--cluster", str(place.description), "--out", str(folder))
    ended = thinktune("render", "demo", *options, "--values-only", *changes)
    assert ended.code == 0, ended.err
    name = f"{run}-prep"
    helm(
        place, "install", name, str(chart_folder("task")), "-f", f"{folder}/{run}/prep.values.yaml"
    )
    return name


def helm(place: Place, *arguments: str) -> str:
    command = ["helm", "-n", place.namespace, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prepared(place: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    name = install(place, "first", tmp_path_factory.mktemp("rendered"))
    assert place.ended(name)["type"] == "Complete"
    return name


def test_prep_commits_its_artifact(place: Place, prepared: str) -> None:
    log = place.kubectl("logs", f"job/{prepared}")
    assert "1064 training, 16 validation, 120 test examples" in log


def test_a_data_error_fails_the_job_at_once(place: Place, tmp_path: Path) -> None:
    name = install(place, "wrong", tmp_path, "data.sample_rows=3", "data.split.test_rows=5000")
    condition = place.ended(name)
    assert (condition["type"], condition["reason"]) == ("Failed", "PodFailurePolicy")
    assert "exit code 65" in condition["message"]
    assert place.job(name)["status"]["failed"] == 1  # no second try
    assert "error: " in place.kubectl("logs", f"job/{name}")


def test_a_pod_reaches_dns_and_the_store_and_nothing_else(place: Place, prepared: str) -> None:
    """From pods with the stage's own labels and without: only the latter reaches another port."""
    template = place.job(prepared)["spec"]["template"]["metadata"]["labels"]
    own = {k: template[k] for k in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
    store = json.loads(kubectl("-n", STORE, "get", "pods", "-l", "app=s3", "-o", "json"))
    address = store["items"][0]["status"]["podIP"]
    assert reached(place, "bound", address, own) == "True False"
    assert reached(place, "free", address, {"app": "free"}) == "True True"


def reached(place: Place, name: str, address: str, labels: dict[str, str]) -> str:
    """Whether a pod with those labels reaches the store by its name, and the filer beside it."""
    probe = (
        "import socket, time\n"
        "time.sleep(5)  # a policy takes a moment to hold for a new pod\n"
        "def reached(host, port):\n"
        "    try:\n"
        "        socket.create_connection((host, port), 4).close(); return True\n"
        "    except OSError:\n"
        "        return False\n"
        f"print(reached('s3.{STORE}.svc', 8333), reached('{address}', 8888))\n"
    )
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    image = "localhost/prep:0.1.0"
    container = {"name": name, "image": image, "securityContext": restricted}
    pod = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{**container, "command": ["python", "-c", probe]}],
    }
    written = ",".join(f"{k}={v}" for k, v in labels.items())
    options = ["--restart=Never", f"--image={image}", f"--labels={written}"]
    place.kubectl("run", name, *options, f"--overrides={json.dumps({'spec': pod})}")
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    place.kubectl("wait", succeeded, f"pod/{name}", "--timeout=60s")
    return place.kubectl("logs", name).strip()


def test_the_secret_is_shown_nowhere(place: Place, prepared: str) -> None:
    """Logs, events, the Job, its ConfigMap, Helm's release."""
    shown = [
        place.kubectl("logs", f"job/{prepared}"),
        place.kubectl("get", "events", "-o", "json"),
        place.kubectl("get", "jobs,configmaps,serviceaccounts,pods", "-o", "json"),
    ]
    releases = json.loads(place.kubectl("get", "secrets", "-l", "owner=helm", "-o", "json"))
    for release in releases["items"]:
        packed = base64.b64decode(base64.b64decode(release["data"]["release"]))
        shown.append(gzip.decompress(packed).decode())
    assert len(shown) > 3
    assert "store-keys" in shown[2]  # by name it is
    assert all(SECRET not in text and KEYS["AWS_ACCESS_KEY_ID"] not in text for text in shown)


def test_uninstalling_leaves_nothing(place: Place, prepared: str) -> None:
    helm(place, "uninstall", prepared, "--wait")
    left = place.kubectl("get", "all,configmaps,serviceaccounts,networkpolicies", "-o", "name")
    assert prepared not in left
