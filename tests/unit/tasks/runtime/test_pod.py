"""A pod's first process, in a real process with a real stage."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from command import environment, free_port
from tiny import write_jobs

from thinktune.launch.runs import make_run
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.termination import PodTermination
from thinktune.store import open_store
from thinktune.tasks.runtime.exporter import Exporter


def task_file(folder: Path, store: str, *changes: str) -> Path:
    jobs = write_jobs(folder / "jobs")
    catalog = load_catalog(jobs)
    recipe = load_recipe("tiny", changes, catalog=catalog, folder=jobs)
    path = folder / "task.json"
    path.write_text(make_run(recipe, catalog, store, "r").tasks["prep"].canonical())
    return path


def pod(path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "thinktune.tasks.runtime.pod", "prep", "--task", str(path)]
    more = {"POD_NAME": "pod-1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, env=environment(more=more), stdout=subprocess.PIPE, text=True)


def kept(store: str) -> tuple[str, PodTermination]:
    opened = open_store(store)
    ending = json.loads(opened.get("runs/r/prep/logs/pod-1.json"))
    return opened.get("runs/r/prep/logs/pod-1.log").decode(), PodTermination.parse(ending, "store")


def test_log_and_last_words_are_kept(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    process = pod(task_file(tmp_path, store))  # its model is in no cache and on no hub
    out, _ = process.communicate(timeout=120)
    log, ending = kept(store)
    assert process.returncode == ending.code != 0
    assert log == out
    assert ending.error_line.startswith("error: ")
    assert ending.error_line in out


def test_a_task_that_cannot_be_read_ends_as_the_stage_says(tmp_path: Path) -> None:
    process = pod(tmp_path / "nothing.json")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 64
    assert "no task file" in out


def test_figures_for_prometheus() -> None:
    port = free_port()
    exporter = Exporter.of({"THINKTUNE_METRICS_PORT": port}, "r", "train", lambda: 7.5)
    assert exporter is not None
    exporter.count(3, 10, {"loss": 1.25, "tok/s": 900})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    for line in (
        'thinktune_step{run="r",stage="train"} 3.0',
        'thinktune_steps{run="r",stage="train"} 10.0',
        'thinktune_loss{run="r",stage="train"} 1.25',
        'thinktune_tokens_per_second{run="r",stage="train"} 900.0',
        'thinktune_step_age_seconds{run="r",stage="train"} 7.5',
        'thinktune_gpu_memory_bytes{run="r",stage="train"}',
    ):
        assert line in text
    assert Exporter.of({}, "r", "train", lambda: 0.0) is None
