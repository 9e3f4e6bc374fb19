"""A real training by the train stage itself, on GPUs of one host, from a store on its disk.

    python benchmarks/host.py --folder /dev/shm/host --ranks 4 --fewer 2

Writes random weights of the model's shape as safetensors and an artifact of prep's, then: trains on
all ranks; trains again, kills one of them after the first checkpoint, and resumes on fewer. Prints
load time, time of a checkpoint, rate, peak memory, how long the others lived, and both curves.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from shapes import RandomWeights, configuration, documents

from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import GIB, ModelEntry
from thinktune.schema.keys import cache_prefix, checkpoint_prefix, stage_prefix
from thinktune.schema.recipe import TrainSpec
from thinktune.schema.stages import TrainTask
from thinktune.schema.task import Execution
from thinktune.store import commit, fetch, new_attempt, open_store, read_manifest
from thinktune.tasks.prep.shards import write_shards
from thinktune.text.tokens import Encoded

STEPS, EVERY = 6, 3
FILE_BYTES = 4 * GIB
CREATED = "2026-01-01T00:00:00+00:00"


def main() -> None:
    """All of it; a line of JSON per part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="r1-distill-qwen-32b")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--fewer", type=int, default=2)
    parser.add_argument("--row-tokens", type=int, default=8192)
    parser.add_argument("--recompute-mlps", type=int, default=36)
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--zero-stage", type=int, default=1)
    parser.add_argument("--whole-only", action="store_true", help="kill nothing")
    options = parser.parse_args()
    entry = load_catalog().models[options.model]
    began = time.monotonic()
    store = f"file://{options.folder}/store"
    seed(entry, options.folder, store)
    show("seed", seconds=round(time.monotonic() - began, 1))

    def task(run: str) -> Path:
        seed_prep(entry, options.folder, store, run, options.batch_size)
        made = TrainTask(
            run=run,
            store=store,
            model_name=options.model,
            model=entry,
            train=TrainSpec(
                batch_size=options.batch_size,
                rank=32,
                dropout=0.05,
                max_steps=STEPS,
                epochs=100,
                checkpoint_every_steps=EVERY,
            ),
            execution=Execution(
                micro_batch_tokens=options.row_tokens,
                recompute_mlps=options.recompute_mlps,
                zero_stage=options.zero_stage,
            ),
        )
        path = options.folder / f"{run}.json"
        path.write_text(made.model_dump_json())
        return path

    whole = Training(task("whole"), options.ranks)
    show("whole", **whole.end(), **figures(store, "whole", options.folder))
    if options.whole_only:
        return
    path = task("killed")
    killed = Training(path, options.ranks)
    key = f"{checkpoint_prefix('killed', EVERY)}/manifest.json"
    while open_store(store).head(key) is None and killed.process.poll() is None:
        time.sleep(0.1)
    killed.kill(rank=options.ranks // 2)
    show("killed", **killed.end())
    again = Training(path, options.fewer)
    show("resumed", **again.end(), **figures(store, "killed", options.folder))


def show(part: str, **values: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"part": part, **values}) + "\n")
    sys.stdout.flush()


def seed(entry: ModelEntry, folder: Path, store: str) -> None:
    """The model in the store's cache."""
    config = configuration(entry)
    weights = RandomWeights(config)
    model = folder / "model"
    model.mkdir(parents=True)
    config.architectures = [
        {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[entry.architecture]
    ]
    config.save_pretrained(model)
    files: list[list[str]] = [[]]
    size = 0
    for name, shape in weights.shapes.items():
        if entry.tied_embeddings and name == "lm_head.weight":
            continue
        if size > FILE_BYTES:
            files.append([])
            size = 0
        files[-1].append(name)
        size += 2 * shape.numel()

    def write(number: int) -> dict[str, str]:
        file = f"model-{number:05}.safetensors"
        tensors = {name: weights.read(name).cpu() for name in files[number]}
        save_file(tensors, model / file, metadata={"format": "pt"})
        return dict.fromkeys(tensors, file)

    with ThreadPoolExecutor(8) as pool:
        places = {
            name: file for part in pool.map(write, range(len(files))) for name, file in part.items()
        }
    index = {"metadata": {}, "weight_map": places}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    prefix = cache_prefix("models", entry.repo, entry.revision)
    put(store, prefix, model, "model", None, {})


def seed_prep(entry: ModelEntry, folder: Path, store: str, run: str, batch_size: int) -> None:
    """Documents as prep leaves them."""
    output = folder / f"prep-{run}"
    output.mkdir()
    found = documents(batch_size * STEPS, entry.vocabulary)
    encoded = [Encoded(e.ids.tolist(), e.first_target, 0, e.targets) for e in found]
    write_shards(output, "train", [e.id for e in found], encoded)
    write_shards(output, "validation", [], [])
    put(store, stage_prefix(run, "prep"), output, "prep", run, {"model": entry.revision})


def put(
    store: str, prefix: str, folder: Path, kind: str, run: str | None, revisions: dict[str, str]
) -> None:
    """An artifact without inputs."""
    commit(
        open_store(store),
        prefix,
        folder,
        kind=kind,
        run=run,
        attempt=new_attempt(),
        inputs={},
        task_sha256=None,
        revisions=revisions,
        created=CREATED,
    )


class Training:
    """The train stage's own process, as a pod starts it."""

    def __init__(self, task: Path, ranks: int) -> None:
        environ = {**os.environ, "THINKTUNE_PROCESSES_PER_NODE": str(ranks)}
        self._began = time.monotonic()
        self._killed: float | None = None
        self._lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "thinktune.tasks.train", "--task", str(task)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.append((time.monotonic() - self._began, line.rstrip()))

    def kill(self, rank: int) -> None:
        """One of the ranks."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for child in map(int, children.split()):
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                os.kill(child, signal.SIGKILL)
        self._killed = time.monotonic()

    def end(self) -> dict[str, Any]:
        """Exit code, times, and the log with the seconds since the start."""
        code = self.process.wait()
        ended = time.monotonic()
        self._reader.join()
        found: dict[str, Any] = {"code": code, "seconds": round(ended - self._began, 1)}
        if self._killed is not None:
            found["ended_after_kill_s"] = round(ended - self._killed, 1)
        found["log"] = [f"{at:.1f} {line}"[:200] for at, line in self._lines if line][-25:]
        return found


def figures(store: str, run: str, folder: Path) -> dict[str, Any]:
    """Of a finished training."""
    manifest = read_manifest(open_store(store), stage_prefix(run, "train"))
    if manifest is None:
        return {}
    output = fetch(open_store(store), stage_prefix(run, "train"), manifest, folder / f"out-{run}")
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    return {
        "metrics": manifest.metrics,
        "tokens_per_s": round(statistics.median(row["tokens_per_s"] for row in steps[1:])),
        "by_step": [round(row["tokens_per_s"]) for row in steps],
        "losses": [round(row["loss"], 4) for row in steps],
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
