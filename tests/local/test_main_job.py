"""The main job end to end in real processes: run, repeat, kill, interrupt, resume, take home."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from command import COMMAND, Ended, environment, thinktune
from peft import PeftModel
from s3_server import BUCKET, S3Server
from tiny import seed_store, write_jobs, write_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from thinktune.launch.tasks import make_run
from thinktune.spec.compose import load_catalog, load_recipe
from thinktune.spec.manifest import Manifest
from thinktune.store import Store, fetch, manifest_digest, open_store, read_manifest

LONG = (
    *("--set", "train.max_steps=60", "--set", "train.checkpoint_every_steps=5"),
    *("--set", "evaluate.batch_size=1", "--set", "train.tracking=[tensorboard]"),
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


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return workshop(tmp_path_factory.mktemp("main-job"))


@pytest.fixture(scope="module")
def whole(shop: Workshop) -> dict[str, Manifest]:
    """A run that nothing disturbed while it trained."""
    ended = shop.run("--run", "whole", "--until", "train", *LONG)
    assert ended.code == 0, ended.err
    return {stage: manifest(shop.store, "whole", stage) for stage in ("prep", "train")}


@pytest.fixture(scope="module")
def judged(shop: Workshop, whole: dict[str, Manifest]) -> dict[str, bytes]:
    """The launcher is killed in the middle of the evaluation of `whole`, and started again.

    Gives the answers that were kept from the first attempt, by key.
    """
    process = start(shop, shop.store, "whole", {}, "runs/whole/evaluate/parts")
    stages = children(process)
    process.kill()
    process.wait(timeout=60)
    for _ in range(600):
        if not any(Path(f"/proc/{pid}").exists() for pid in stages):
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"a killed launcher left {stages} running")
    store = open_store(shop.store)
    kept = {info.key: store.get(info.key) for info in store.list("runs/whole/evaluate/parts")}
    assert read_manifest(store, "runs/whole/evaluate") is None
    ended = shop.run("--run", "whole", *LONG)
    assert ended.code == 0, ended.err
    assert "Final Answer:" in ended.out
    assert "report.html" in ended.out.splitlines()[-1]
    return kept


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


def test_an_evaluation_killed_half_way_asks_nothing_twice(
    shop: Workshop, judged: dict[str, bytes]
) -> None:
    store = open_store(shop.store)
    parts = {info.key: store.get(info.key) for info in store.list("runs/whole/evaluate/parts")}
    assert len(parts) == 16  # 8 questions, one a batch, base and tuned
    assert 0 < len(judged) < 16
    assert {key: parts[key] for key in judged} == judged


def test_manifests_form_a_chain(
    shop: Workshop, whole: dict[str, Manifest], judged: dict[str, bytes]
) -> None:
    prep, train = whole["prep"], whole["train"]
    evaluate = manifest(shop.store, "whole", "evaluate")
    assert train.inputs == {"prep": manifest_digest(prep)}
    assert evaluate.inputs == {"prep": manifest_digest(prep), "train": manifest_digest(train)}
    assert prep.template_sha256 == train.template_sha256 == evaluate.template_sha256
    assert train.metrics["steps"] == 60
    assert train.metrics["last_loss"] < train.metrics["first_loss"]  # type: ignore[operator]
    assert any(f.name.startswith("tracking/") for f in train.files)
    assert {f.name for f in evaluate.files} == {"report.json", "report.html", "samples.jsonl"}


def test_a_finished_run_does_nothing(shop: Workshop, judged: dict[str, bytes]) -> None:
    before = sorted(info.key for info in open_store(shop.store).list("runs/whole"))
    ended = shop.run("--run", "whole", *LONG)
    assert ended.code == 0
    assert [line for line in ended.out.splitlines() if "done already" in line] == [
        "prep: done already",
        "train: done already",
        "evaluate: done already",
    ]
    assert sorted(info.key for info in open_store(shop.store).list("runs/whole")) == before


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(2400):
        if reached():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("not reached within 120 s")


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


def test_stopped_and_killed_in_the_middle_of_training_it_resumes(
    shop: Workshop,
    whole: dict[str, Manifest],
    server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On S3: Ctrl-C, then SIGKILL, then to the end; equal to the run that nothing disturbed."""
    more = server.environment()
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    store = f"s3://{BUCKET}/{tmp_path.name}"
    checkpoints = "runs/hurt/train/checkpoints"
    seed_store(store, tmp_path / "seed")

    process = start(shop, store, "hurt", more, checkpoints)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "stopped on request; step" in out
    assert "the same command goes on" in out
    assert "Traceback" not in out

    process = start(shop, store, "hurt", more, checkpoints)
    for child in children(process):
        os.kill(child, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 137, out
    assert "resumes after step" in out
    assert "train was killed by SIGKILL" in out
    assert "Traceback" not in out
    assert read_manifest(open_store(store), "runs/hurt/train") is None

    ended = shop.run("--run", "hurt", "--until", "train", *LONG, store=store, **more)
    assert ended.code == 0, ended.err
    assert "resumes after step" in ended.out
    hurt = artifact(store, "hurt", "train", tmp_path)
    untouched = artifact(shop.store, "whole", "train", tmp_path)
    weights = "adapter_model.safetensors"
    assert (hurt / weights).read_bytes() == (untouched / weights).read_bytes()
    assert losses(hurt) == losses(untouched)


def test_two_ranks_train_the_same(
    shop: Workshop, whole: dict[str, Manifest], tmp_path: Path
) -> None:
    """Two processes on gloo, as a pod starts them: losses of one process, within fp32 noise."""
    assert shop.run("--run", "two", "--until", "prep", *LONG).code == 0
    process = two_ranks(shop, write_task(shop, "two", tmp_path))
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    one = losses(artifact(shop.store, "whole", "train", tmp_path))
    two = losses(artifact(shop.store, "two", "train", tmp_path))
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)


def test_a_rank_that_waits_for_ever_shows_where_and_ends(shop: Workshop, tmp_path: Path) -> None:
    """One of two ranks is frozen: the other one's watchdog ends it with 70 and its stacks."""
    assert shop.run("--run", "stuck", "--until", "prep", *LONG).code == 0
    path = write_task(shop, "stuck", tmp_path)
    task = json.loads(path.read_text())
    task["execution"]["stall_s"] = 20
    path.write_text(json.dumps(task))
    process = two_ranks(shop, path)
    frozen = second_rank(shop, "stuck", process)
    os.kill(frozen, signal.SIGSTOP)
    try:
        _, err = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(frozen, signal.SIGKILL)
    assert process.returncode == 70
    assert "error: train: no progress for 0:20" in err
    assert "loop.py" in err  # the stack of the step
    assert "rank 0 of this node ended first, with exit code 70" in err


def test_a_rank_that_dies_ends_all_and_the_run_resumes(
    shop: Workshop, whole: dict[str, Manifest], tmp_path: Path
) -> None:
    """Killed on two ranks, resumed on one: losses of the run that nothing disturbed."""
    assert shop.run("--run", "dies", "--until", "prep", *LONG).code == 0
    process = two_ranks(shop, write_task(shop, "dies", tmp_path))
    os.kill(second_rank(shop, "dies", process), signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate(timeout=90)
    assert time.monotonic() - began < 60
    assert process.returncode == 137
    assert "rank 1 of this node ended first, with SIGKILL" in err
    assert "Traceback" not in err  # the other rank lost its peer: a consequence, no cause
    ended = shop.run("--run", "dies", "--until", "train", *LONG)
    assert ended.code == 0, ended.err
    assert "resumes after step" in ended.out
    dies = losses(artifact(shop.store, "dies", "train", tmp_path))
    untouched = losses(artifact(shop.store, "whole", "train", tmp_path))
    assert [loss for _, loss in dies] == pytest.approx([loss for _, loss in untouched], rel=1e-4)


def test_two_ranks_asked_to_stop_commit_the_same_step(shop: Workshop, tmp_path: Path) -> None:
    assert shop.run("--run", "asked", "--until", "prep", *LONG).code == 0
    process = two_ranks(shop, write_task(shop, "asked", tmp_path))
    second_rank(shop, "asked", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.count("stopped on request; step") == 1
    assert "Traceback" not in err


def test_torchrun_starts_it_too(shop: Workshop, whole: dict[str, Manifest], tmp_path: Path) -> None:
    assert shop.run("--run", "torchrun", "--until", "prep", *LONG).code == 0
    task = write_task(shop, "torchrun", tmp_path)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    options = (f"--master-port={free_port()}", "-m", "thinktune.tasks.train", "--task", str(task))
    environ = {**environment(shop.jobs), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *options], env=environ, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    one = losses(artifact(shop.store, "whole", "train", tmp_path))
    two = losses(artifact(shop.store, "torchrun", "train", tmp_path))
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)


def test_two_nodes_find_each_other_and_train_the_same(
    shop: Workshop, whole: dict[str, Manifest], tmp_path: Path
) -> None:
    """A process per node, as two pods have."""
    assert shop.run("--run", "nodes", "--until", "prep", *LONG).code == 0
    nodes = two_nodes(shop, write_task(shop, "nodes", tmp_path), tmp_path)
    for node in nodes:
        _, err = node.communicate(timeout=240)
        assert node.returncode == 0, err
    one = losses(artifact(shop.store, "whole", "train", tmp_path))
    two = losses(artifact(shop.store, "nodes", "train", tmp_path))
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)
    assert not list(tmp_path.glob("node-*/*"))


def test_a_node_that_fails_ends_the_other_though_its_rank_is_stuck(
    shop: Workshop, tmp_path: Path
) -> None:
    """As with NCCL: the surviving rank, frozen here, notices nothing. Its launcher does."""
    assert shop.run("--run", "lost", "--until", "prep", *LONG).code == 0
    nodes = two_nodes(shop, write_task(shop, "lost", tmp_path), tmp_path)
    store = open_store(shop.store)
    wait_for(lambda: bool(manifests_or_parts(store, "runs/lost/train/checkpoints")), nodes[0])
    (survivor,), (victim,) = children(nodes[0]), children(nodes[1])
    os.kill(survivor, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    _, err = nodes[0].communicate(timeout=90)
    assert time.monotonic() - began < 60
    assert nodes[0].returncode == 70
    assert "another node ended first" in err
    assert nodes[1].wait(timeout=30) == 137
    assert not list(tmp_path.glob("node-*/*"))


def second_rank(shop: Workshop, run: str, process: subprocess.Popen[str]) -> int:
    """The process of rank 1, once a checkpoint is there."""
    store = open_store(shop.store)
    wait_for(lambda: bool(manifests_or_parts(store, f"runs/{run}/train/checkpoints")), process)
    return next(pid for pid in children(process) if b"RANK=1" in environment_of(pid))


def environment_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def two_ranks(shop: Workshop, task: Path) -> subprocess.Popen[str]:
    """The train stage as the chart starts it on a node with two GPUs."""
    return start_training(shop, task, THINKTUNE_PROCESSES_PER_NODE="2", MASTER_PORT=free_port())


def two_nodes(shop: Workshop, task: Path, folder: Path) -> list[subprocess.Popen[str]]:
    """One process on each of two nodes, which have a temporary folder of their own."""
    port, nodes = free_port(), []
    for rank in range(2):
        own = folder / f"node-{rank}"
        own.mkdir()
        more = {"THINKTUNE_NODES": "2", "THINKTUNE_NODE_RANK": str(rank), "TMPDIR": str(own)}
        nodes.append(start_training(shop, task, MASTER_PORT=port, **more))
    return nodes


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


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


def test_plain_transformers_and_peft_give_the_same_answers(
    shop: Workshop, judged: dict[str, bytes], tmp_path: Path
) -> None:
    prep = artifact(shop.store, "whole", "prep", tmp_path)
    adapter = artifact(shop.store, "whole", "train", tmp_path)
    evaluate = artifact(shop.store, "whole", "evaluate", tmp_path)
    names = {path.name for path in adapter.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = AutoModelForCausalLM.from_pretrained(
        shop.model, dtype=torch.float32, quantization_config=config
    )
    model = PeftModel.from_pretrained(base, adapter).eval()
    tokenizer = Tokenizer.from_file(str(shop.model / "tokenizer.json"))
    questions = {q["id"]: q["prompt_ids"] for q in pq.read_table(prep / "test.parquet").to_pylist()}
    samples = [json.loads(line) for line in (evaluate / "samples.jsonl").read_text().splitlines()]
    tuned = {s["question_id"]: s["text"] for s in samples if s["variant"] == "tuned"}
    untuned = {s["question_id"]: s["text"] for s in samples if s["variant"] == "base"}
    assert tuned != untuned
    for question, text in tuned.items():
        ids = torch.tensor([questions[question]])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=2,
        )
        new = out[0, ids.shape[1] :].tolist()
        new = new[: new.index(2)] if 2 in new else new
        assert tokenizer.decode(new, skip_special_tokens=False) == text


def test_a_damaged_artifact_is_refused(shop: Workshop, tmp_path: Path) -> None:
    assert shop.run("--run", "damaged", "--until", "prep").code == 0
    store = open_store(shop.store)
    key = next(i.key for i in store.list("runs/damaged/prep/attempts") if "train-" in i.key)
    path = store.local_path(key)
    assert path is not None
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    ended = shop.run("--run", "damaged")
    assert ended.code == 66
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err


def test_a_name_taken_by_another_recipe_is_refused(shop: Workshop) -> None:
    assert shop.run("--run", "taken", "--until", "prep").code == 0
    ended = shop.run("--run", "taken", "--until", "prep", "--set", "data.max_tokens=200")
    assert ended.code == 66
    assert "was made by another recipe" in ended.err
