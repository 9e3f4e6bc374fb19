"""Which adapter a run gives, what it starts from, and its checkpoints beside each other."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from command import COMMAND, Ended, environment, thinktune
from s3_server import BUCKET, S3Server
from workshop import (
    Workshop,
    artifact,
    children,
    losses,
    manifest,
    manifests_or_parts,
    wait_for,
)

from thinktune.schema.manifest import Manifest
from thinktune.store import open_store

WEIGHTS = "adapter_model.safetensors"
CHOOSING = (
    *("--set", "train.max_steps=40", "--set", "train.lr=0.05"),
    *("--set", "train.evaluate_every_steps=1", "--set", "train.checkpoint_every_steps=1"),
    *("--set", "train.keep_checkpoints=all", "--set", "train.select=best"),
    *("--set", "train.early_stopping_patience=8"),
)
"""The validation loss falls for some steps, and then it rises until patience is at its end."""


def killed_and_resumed(shop: Workshop, run: str, *settings: str) -> Ended:
    """A run whose train stage gets SIGKILL after its second checkpoint, and what came then."""
    client, prefix = open_store(shop.store), f"runs/{run}/train/checkpoints"
    command = ["run", "tiny", "--store", shop.store, "--run", run, "--until", "train", *settings]
    process = subprocess.Popen(
        [*COMMAND, *command],
        env=environment(shop.jobs),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: len(manifests_or_parts(client, prefix)) > 1, process)
    for child in children(process):
        os.kill(child, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 137, out
    ended = shop.run("--run", run, "--until", "train", *settings)
    assert ended.code == 0, ended.err
    assert "resumes after step" in ended.out
    return ended


@pytest.fixture(scope="module")
def chosen(shop: Workshop) -> Manifest:
    """A run that takes the best adapter and stops early, with its evaluation."""
    ended = shop.run("--run", "chosen", *CHOOSING)
    assert ended.code == 0, ended.err
    assert "stopped early after step" in ended.out
    assert "has the lowest validation loss of" in ended.out
    return manifest(shop.store, "chosen", "train")


def test_the_manifest_says_which_adapter_it_is(
    shop: Workshop, chosen: Manifest, tmp_path: Path
) -> None:
    folder = artifact(shop.store, "chosen", "train", tmp_path)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    best = min(measured, key=lambda step: measured[step])
    last = max(measured)
    assert 1 < best == last - 8 < 30
    found = chosen.metrics
    assert (found["steps"], found["planned_steps"], found["stopped_early"]) == (last, 40, True)
    assert (found["selected_step"], found["selected_by"]) == (best, "validation_loss")
    assert found["selected_validation_loss"] == measured[best]
    assert found["validation_loss"] == measured[last]


def test_killed_it_gives_the_same_bytes(shop: Workshop, chosen: Manifest, tmp_path: Path) -> None:
    ended = killed_and_resumed(shop, "killed", *CHOOSING)
    assert "stopped early after step" in ended.out
    killed, untouched = (
        artifact(shop.store, run, "train", tmp_path) for run in ("killed", "chosen")
    )
    assert (killed / WEIGHTS).read_bytes() == (untouched / WEIGHTS).read_bytes()
    assert losses(killed) == losses(untouched)
    found = manifest(shop.store, "killed", "train").metrics
    same = ("selected_step", "selected_validation_loss", "validation_loss", "stopped_early")
    assert {name: found[name] for name in same} == {name: chosen.metrics[name] for name in same}


def curve(shop: Workshop, *arguments: str) -> Ended:
    command = ("evaluate", "checkpoints", *arguments, "--store", shop.store)
    return thinktune(*command, jobs=shop.jobs)


def test_the_selected_checkpoint_answers_as_the_tuned_model_does(
    shop: Workshop, chosen: Manifest, tmp_path: Path
) -> None:
    store = open_store(shop.store)

    def objects() -> dict[str, bytes]:
        return {
            i.key: store.get(i.key) for i in store.list("runs/chosen") if "/parts/" not in i.key
        }

    before = objects()
    best, last = chosen.metrics["selected_step"], chosen.metrics["steps"]
    steps = ("--step", str(last), "--step", str(best))
    told = curve(shop, "chosen", *steps, "--output", "json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    of_best, of_last = found["checkpoints"]
    assert (of_best["step"], of_best["selected"]) == (best, True)
    assert (of_last["step"], of_last["selected"]) == (last, False)
    assert of_best["validation_loss"] == chosen.metrics["selected_validation_loss"]
    assert of_last["validation_loss"] == chosen.metrics["validation_loss"]
    report = artifact(shop.store, "chosen", "evaluate", tmp_path) / "report.json"
    judged = json.loads(report.read_text())
    assert found["questions"] == judged["questions"] == 8
    assert {"accuracy", "format_rate", "thinking_truncated"} <= of_best["metrics"].keys()
    assert {name: figure["value"] for name, figure in of_best["metrics"].items()} == {
        name: judged["metrics"][name]["values"]["tuned"] for name in of_best["metrics"]
    }
    assert objects() == before
    parts = manifests_or_parts(store, "runs/chosen/evaluate/parts")
    again = curve(shop, "chosen", *steps)
    assert again.code == 0, again.err
    rows = [line.split() for line in again.out.splitlines()]
    assert [row[0] for row in rows[:3]] == ["STEP", str(best), str(last)]
    assert (rows[1][-1], rows[2][-1] == "selected") == ("selected", False)
    assert manifests_or_parts(store, "runs/chosen/evaluate/parts") == parts


@pytest.fixture(scope="module")
def second(shop: Workshop, chosen: Manifest) -> Manifest:
    ended = shop.run("--run", "second", "--until", "train", *SECOND)
    assert ended.code == 0, ended.err
    assert "starts from the adapter of run chosen" in ended.out
    return manifest(shop.store, "second", "train")


SECOND = (
    *("--set", "train.init_from=chosen", "--set", "train.max_steps=12"),
    *("--set", "train.checkpoint_every_steps=2", "--set", "train.seed=7"),
)


def test_it_goes_on_from_another_runs_adapter(
    shop: Workshop, chosen: Manifest, second: Manifest, tmp_path: Path
) -> None:
    checksum = next(file.sha256 for file in chosen.files if file.name == WEIGHTS)
    assert second.init_from is not None
    assert second.init_from.model_dump() == {"run": "chosen", "sha256": checksum}
    first_loss = second.metrics["first_loss"]
    assert isinstance(first_loss, float)
    untrained = chosen.metrics["first_loss"]
    assert isinstance(untrained, float)
    assert first_loss < untrained - 0.1
    killed_and_resumed(shop, "second-killed", *SECOND)
    killed, untouched = (
        artifact(shop.store, run, "train", tmp_path) for run in ("second-killed", "second")
    )
    assert (killed / WEIGHTS).read_bytes() == (untouched / WEIGHTS).read_bytes()
    assert losses(killed) == losses(untouched)


def test_a_curve_of_a_run_that_is_not_evaluated_yet(
    shop: Workshop,
    second: Manifest,
    server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its checkpoints are asked where they are in a bucket, too."""
    refused = curve(shop, "second")
    assert (refused.code, "run second has not been evaluated" in refused.err) == (66, True)
    other = curve(shop, "second", "--recipe", "tiny")
    assert (other.code, "run second was trained by another recipe" in other.err) == (64, True)
    asked = ("second", "--recipe", "tiny", *SECOND, "--questions", "3")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    here, bucket = open_store(shop.store), open_store(f"s3://{BUCKET}/{tmp_path.name}")
    for prefix in ("cache", "runs/chosen/train", "runs/second"):
        for info in here.list(prefix):
            bucket.put(info.key, here.get(info.key))
    told = thinktune(
        *("evaluate", "checkpoints", *asked, "--store", bucket.url, "--output", "json"),
        jobs=shop.jobs,
        more=server.environment(),
    )
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert [row["step"] for row in found["checkpoints"]] == [10, 12]
    assert [row["selected"] for row in found["checkpoints"]] == [False, True]
    assert found["questions"] == 3
    missing = curve(shop, *asked, "--step", "2")
    assert missing.code == 66
    assert "no checkpoint of step 2 is kept; kept are those of step 10, 12; " in missing.err
    assert "train.keep_checkpoints=all" in missing.err


def test_an_adapter_of_another_form_or_another_one_is_refused(
    shop: Workshop, second: Manifest, tmp_path: Path
) -> None:
    other = shop.run("--run", "third", "--until", "train", *SECOND, "--set", "train.rank=8")
    assert other.code == 64
    assert "the adapter of run chosen has rank 16, this recipe rank 8" in other.err
    # The task of a run that was made with another adapter, as a cluster would still hold it.
    task = json.loads(open_store(shop.store).get("runs/second/train/task.json"))
    task["run"], task["init_from"]["sha256"] = "fourth", "0" * 64
    assert shop.run("--run", "fourth", "--until", "prep", *SECOND).code == 0
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task))
    ended = subprocess.run(
        [COMMAND[0], "-m", "thinktune.tasks.train", "--task", str(path)],
        env=environment(shop.jobs),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 66, ended.stderr
    assert "run chosen has another adapter than when this run was made" in ended.stderr
