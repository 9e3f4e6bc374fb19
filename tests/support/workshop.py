"""Runs of the tiny model in real processes: jobs, model and store for them; what they leave."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from command import COMMAND, Ended, environment, thinktune
from tiny import seed_store, write_jobs, write_model

from thinktune.launch.runs import make_run
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.manifest import Manifest
from thinktune.store import Store, fetch, open_store, read_manifest

LONG = (
    *("--set", "train.max_steps=60", "--set", "train.checkpoint_every_steps=5"),
    *("--set", "evaluate.batch_size=1", "--set", "evaluate.samples=20"),
    *(
        "--set",
        "train.tracking=[tensorboard]",
    ),
)
"""Enough steps and batches that there is a middle to be killed in."""


@dataclass(frozen=True)
class Workshop:
    """A jobs folder, a model's folder, a store with that model in its cache."""

    jobs: Path
    model: Path
    store: str

    def run(self, *arguments: str, store: str | None = None, **more: str) -> Ended:
        where = store or self.store
        return thinktune(
            "run", "tiny", "--local", "--store", where, *arguments, jobs=self.jobs, more=more
        )


def workshop(folder: Path) -> Workshop:
    store = f"file://{folder}/store"
    seed_store(store, folder / "seed")
    write_model(folder / "model")
    return Workshop(write_jobs(folder / "jobs"), folder / "model", store)


def manifest(store: str, run: str, stage: str) -> Manifest:
    found = read_manifest(open_store(store), f"runs/{run}/{stage}")
    assert found is not None, stage
    return found


def artifact(store: str, run: str, stage: str, folder: Path) -> Path:
    return fetch(
        open_store(store), f"runs/{run}/{stage}", manifest(store, run, stage), folder / run / stage
    )


def losses(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row.get("loss", row.get("validation_loss"))) for row in rows]


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(4000):
        if reached():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("not reached within 200 s")


def start(
    shop: Workshop, store: str, name: str, more: dict[str, str], prefix: str
) -> subprocess.Popen[str]:
    """Starts a run and waits until there is something new under that prefix of its store."""
    client = open_store(store)
    before = {info.key for info in client.list(prefix)}
    process = subprocess.Popen(
        [*COMMAND, "run", "tiny", "--local", "--store", store, "--run", name, *LONG],
        env=environment(shop.jobs, more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: bool(manifests_or_parts(client, prefix) - before), process)
    return process


def manifests_or_parts(client: Store, prefix: str) -> set[str]:
    """What a stage commits while it works: checkpoints' manifests, an evaluation's parts."""
    keys = {info.key for info in client.list(prefix)}
    return {key for key in keys if key.endswith("/manifest.json") or "/parts/" in key}


def children(process: subprocess.Popen[str]) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(word) for word in found.split()]


def environment_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def start_training(shop: Workshop, task: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "thinktune.tasks.train", "--task", str(task)],
        env={**environment(shop.jobs), "OMP_NUM_THREADS": "1", **more},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_task(shop: Workshop, run: str, folder: Path) -> Path:
    catalog = load_catalog(shop.jobs)
    overrides = [text for text in LONG if text != "--set"]
    recipe = load_recipe("tiny", overrides, catalog=catalog, folder=shop.jobs)
    path = folder / "task.json"
    path.write_text(make_run(recipe, catalog, shop.store, run).tasks["train"].model_dump_json())
    return path
