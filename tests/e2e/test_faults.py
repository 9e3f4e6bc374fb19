"""Trainings that are killed, evicted, cut off from the store or given bad data, on a cluster."""

import json
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import STORE, Place, kubectl, wait_for

from thinktune.schema.keys import checkpoint_prefix, stage_prefix
from thinktune.store import fetch, read_manifest
from thinktune.store.s3 import READ_TIMEOUT_S

LONG = ("--set", "train.max_steps=160", "--set", "train.checkpoint_every_steps=20")
LONG += ("--set", "train.epochs=20")


TRAINING = ("--stage", "prep", "--stage", "train")


def start(place: Place, run: str, *options: str) -> None:
    """prep, then train, left to the cluster."""
    options = (*(options or TRAINING), *LONG)
    ended = place.thinktune("submit", "tiny", "--run", run, "--detach", *options)
    assert ended.code == 0, ended.out + ended.err


def losses(place: Place, run: str, folder: Path) -> list[float]:
    """Of a finished training."""
    store, prefix = place.store(), stage_prefix(run, "train")
    manifest = read_manifest(store, prefix)
    assert manifest is not None
    rows = (fetch(store, prefix, manifest, folder / run) / "metrics.jsonl").read_text()
    found = [row["loss"] for row in map(json.loads, rows.splitlines()) if "loss" in row]
    return [float(loss) for loss in found]


@pytest.fixture(scope="module")
def undisturbed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    start(place, "calm")
    place.wait_for_key("runs/calm/train/manifest.json")
    place.thinktune("cancel", "calm")
    return losses(place, "calm", tmp_path_factory.mktemp("calm"))


def test_a_deleted_a_killed_and_an_evicted_pod_are_followed_by_one_that_goes_on(
    place: Place, undisturbed: list[float], tmp_path: Path
) -> None:
    """All three befall one training, after different checkpoints."""
    start(place, "rough")
    job = "rough-train"
    for number, (step, blow) in enumerate(((20, delete), (60, kill), (100, evict))):
        place.wait_for_key(f"{checkpoint_prefix('rough', step)}/manifest.json")
        time.sleep(random.random())
        before = names(place, job)
        blow(place, running(place, job))
        wait_for(lambda b=before: names(place, job) - b, 180, f"pod {number + 2}")
    place.wait_for_key("runs/rough/train/manifest.json")
    log = place.thinktune("logs", "rough", "--stage", "train").out
    assert log.count("resumes after step") >= 2
    status = json.loads(place.thinktune("status", "rough", "--output", "json").out)
    assert status[1]["restarts"] == 3
    assert losses(place, "rough", tmp_path) == undisturbed
    assert place.job(job)["status"].get("failed", 0) <= 1  # SIGKILL alone counts
    place.thinktune("cancel", "rough")


def names(place: Place, job: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in place.pods(job)}


def running(place: Place, job: str) -> str:
    found: list[str] = []

    def alive() -> bool:
        pods = [p for p in place.pods(job) if p["status"]["phase"] == "Running"]
        found.extend(str(pod["metadata"]["name"]) for pod in pods)
        return bool(found)

    wait_for(alive, 60, "a pod that runs")
    return found[-1]


def delete(place: Place, pod: str) -> None:
    place.kubectl("delete", "pod", pod, "--wait=false")


def kill(place: Place, pod: str) -> None:
    """The training itself, not the pod's first process."""
    code = (
        "import os, pathlib\n"
        "for p in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
        "    if b'thinktune.tasks.train' in p.read_bytes() and p.parent.name != '1':\n"
        "        os.kill(int(p.parent.name), 9)\n"
    )
    # The pod may be gone before the answer is here.
    command = ["kubectl", "-n", place.namespace, "exec", pod, "--", "python", "-c", code]
    subprocess.run(command, capture_output=True)


def evict(place: Place, pod: str) -> None:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": place.namespace},
    }
    path = f"/api/v1/namespaces/{place.namespace}/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def test_two_pods_find_each_other_and_train_as_one(
    place: Place, undisturbed: list[float], tmp_path: Path
) -> None:
    start(place, "7b-pair", *TRAINING, "--set", "nodes=2")
    place.wait_for_key("runs/7b-pair/train/manifest.json", 240)
    job: dict[str, Any] = place.job("7b-pair-train")
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", 2)
    log = place.thinktune("logs", "7b-pair", "--stage", "train").out
    assert "DeepSpeed ZeRO 1 over 2 ranks" in log
    found = losses(place, "7b-pair", tmp_path)
    # Sums in another order: apart by rounding, which a step of lr 0.01 makes more of every time.
    assert found[:40] == pytest.approx(undisturbed[:40], rel=1e-3)
    assert found == pytest.approx(undisturbed, rel=3e-2)
    place.thinktune("cancel", "7b-pair")


def test_a_store_outage_is_waited_out(
    place: Place, undisturbed: list[float], tmp_path: Path
) -> None:
    """The server answers nothing in mid-training, for longer than a request waits: it is asked
    again."""
    start(place, "outage")
    place.wait_for_key(f"{checkpoint_prefix('outage', 20)}/manifest.json")
    pause("STOP")
    time.sleep(READ_TIMEOUT_S + 10)
    pause("CONT")
    assert place.store().head("runs/outage/train/manifest.json") is None  # it was felt
    place.wait_for_key("runs/outage/train/manifest.json")
    assert len(place.pods("outage-train")) == 1  # the pod itself saw it through
    assert losses(place, "outage", tmp_path) == undisturbed
    place.thinktune("cancel", "outage")


def test_a_store_that_is_away_when_a_pod_starts_is_tried_again(place: Place) -> None:
    """By the Job: the first pod gives up with 69, one after it finds the store."""
    serve("nobody")
    try:
        following = place.start("submit", "tiny", "--run", "away", "--stage", "prep")
        wait_for(lambda: 69 in codes(place, "away-prep"), 90, "a pod that gave up")
    finally:
        serve("s3")
    out, _ = following.communicate(timeout=180)
    assert following.returncode == 0, out
    assert place.ended("away-prep", 10)["type"] == "Complete"
    place.thinktune("cancel", "away")


def serve(app: str) -> None:
    """Whose pods are behind the store's address: with none, connections are refused."""
    patch = json.dumps({"spec": {"selector": {"app": app}}})
    kubectl("-n", STORE, "patch", "service", "s3", "-p", patch)


def codes(place: Place, job: str) -> list[int]:
    """With which the Job's pods have ended."""
    states = [s["state"] for p in place.pods(job) for s in p["status"].get("containerStatuses", ())]
    return [state["terminated"]["exitCode"] for state in states if "terminated" in state]


def pause(number: str) -> None:
    """STOP or CONT to the S3 server's processes."""
    code = (
        "import os, pathlib, signal\n"
        "for p in pathlib.Path('/proc').glob('[0-9]*/comm'):\n"
        "    if p.read_text().strip() == 'weed':\n"
        f"        os.kill(int(p.parent.name), signal.SIG{number}); print('weed')\n"
    )
    assert "weed" in kubectl("-n", STORE, "exec", "deployment/s3", "--", "python3", "-c", code)


def test_a_data_error_fails_the_job_at_once_and_why_names_it(place: Place) -> None:
    changes = ("--set", "data.sample_rows=3", "--set", "data.split.test_rows=5000")
    ended = place.thinktune("submit", "tiny", "--run", "wrong", *changes)
    assert ended.code == 65, ended.out + ended.err
    condition = place.ended("wrong-prep", 5)
    assert (condition["type"], condition["reason"]) == ("Failed", "PodFailurePolicy")
    assert place.job("wrong-prep")["status"]["failed"] == 1  # no second try
    why = place.thinktune("why", "wrong")
    assert why.code == 65
    assert "prep failed with exit code 65 (data invalid)" in why.out
    assert "5004 are to be held out" in why.out
    place.thinktune("cancel", "wrong")
    after = place.thinktune("why", "wrong")  # from the store alone
    assert "has no Job any more" in after.out
    assert "5004 are to be held out" in after.out


def test_the_conductor_is_killed_half_way(place: Place) -> None:
    """While it waits for the training; and evaluation holds nothing meanwhile."""
    start(place, "led", "--stage", "all")
    conductor = "led-conductor"
    place.wait_for_key(f"{checkpoint_prefix('led', 20)}/manifest.json")
    following = place.start("logs", "-f", "led", "--stage", "train")
    assert following.stdout is not None
    assert following.stdout.readline()
    following.send_signal(signal.SIGINT)  # Ctrl-C
    following.communicate(timeout=30)
    assert following.returncode == 130
    (first,) = names(place, conductor)
    assert place.job("led-evaluate")["spec"]["suspend"] is True
    assert not place.pods("led-evaluate")
    place.kubectl("delete", "pod", first)
    place.wait_for_key("runs/led/evaluate/manifest.json", 240)
    assert place.ended(conductor, 60)["type"] == "Complete"
    assert first not in names(place, conductor)
    place.thinktune("cancel", "led")


def test_two_submits_at_the_same_moment(place: Place) -> None:
    """One Job, one manifest; both see it through."""
    options = ("submit", "tiny", "--run", "twice", "--stage", "prep")
    both = [place.start(*options) for _ in range(2)]
    outputs = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum("prep: submitted\n" in text for text in outputs) == 1, outputs
    jobs = [j["metadata"]["name"] for j in place.get("jobs") if "twice" in j["metadata"]["name"]]
    assert jobs == ["twice-prep"]
    keys = [info.key for info in place.store().list("runs/twice/prep")]
    attempts = {key.split("/")[4] for key in keys if "/attempts/" in key}
    assert len(attempts) == 1
    place.thinktune("cancel", "twice")


def test_two_submits_of_a_run_that_failed(place: Place) -> None:
    """One of them makes its Job anew, and neither takes away what the other made."""
    options = ("submit", "tiny", "--run", "again", "--stage", "prep")
    wrong = ("--set", "data.split.test_rows=5000")
    assert place.thinktune(*options, *wrong).code == 65
    failed = place.job("again-prep")["metadata"]["uid"]
    both = [place.start(*options) for _ in range(2)]
    outputs = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum("prep: submitted\n" in text for text in outputs) == 1, outputs
    assert place.job("again-prep")["metadata"]["uid"] != failed
    assert len(place.pods("again-prep")) == 1
    assert place.ended("again-prep", 10)["type"] == "Complete"
    place.thinktune("cancel", "again")


def test_a_conductor_keeps_the_stages_that_it_was_given(place: Place) -> None:
    """Those that a later submit does not name."""
    start(place, "kept", "--stage", "all")
    start(place, "kept")  # prep and train
    data = json.loads(place.kubectl("get", "configmap", "kept-conductor", "-o", "json"))["data"]
    stages = [each["stage"] for each in json.loads(data["pipeline.json"])["stages"]]
    assert stages == ["prep", "train", "evaluate"]
    assert "is suspended" not in place.thinktune("why", "kept").out
    place.thinktune("cancel", "kept")


def test_ctrl_c_while_logs_are_followed(place: Place) -> None:
    following = place.start("submit", "tiny", "--run", "left", *TRAINING, *LONG)
    assert following.stdout is not None
    said = next(line for line in following.stdout if "/160 steps" in line)
    following.send_signal(signal.SIGINT)
    out, _ = following.communicate(timeout=30)
    assert following.returncode == 130, said + out
    assert "stopped following left: its current stage continues in the cluster" in out
    assert running(place, "left-train")
    place.thinktune("cancel", "left")


def test_cancel_leaves_nothing_running_and_all_committed(place: Place, tmp_path: Path) -> None:
    start(place, "halted")
    place.wait_for_key(f"{checkpoint_prefix('halted', 20)}/manifest.json")
    lines: list[str] = []
    following = place.start("logs", "-f", "halted", "--stage", "train")
    assert following.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(following.stdout or ()))
    reader.start()
    ended = place.thinktune("cancel", "halted")
    assert ended.code == 0, ended.err
    assert "checkpoint of step" in ended.out
    assert "halted" not in place.kubectl("get", "all,configmaps,serviceaccounts", "-o", "name")
    reader.join(timeout=30)
    assert following.wait(timeout=30) == 0
    terminations = [i.key for i in place.store().list("runs/halted/train/logs") if "json" in i.key]
    (ending,) = [json.loads(place.store().get(key)) for key in terminations]
    assert ending["code"] == 143
    why = place.thinktune("why", "halted")
    assert why.code == 143
    again = place.thinktune("cancel", "halted")
    assert "has no Jobs" in again.out


def test_helm_uninstall_lets_the_training_commit(place: Place) -> None:
    start(place, "removed")
    place.wait_for_key(f"{checkpoint_prefix('removed', 20)}/manifest.json")
    kept = {info.key for info in place.store().list("runs/removed/train/checkpoints")}
    done = place.helm("uninstall", "removed-train", "--wait")
    assert "uninstalled" in done
    wait_for(lambda: not names(place, "removed-train"), 60, "the pod's end")
    after = {info.key for info in place.store().list("runs/removed/train/checkpoints")}
    manifests = {key for key in after if key.endswith("manifest.json")}
    assert manifests - kept  # what was at work is committed
    place.thinktune("cancel", "removed")
