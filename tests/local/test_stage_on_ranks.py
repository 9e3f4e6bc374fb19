"""The train stage on several processes and nodes: as one, killed, frozen, stopped, lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import environment, free_port
from workshop import (
    LONG,
    Workshop,
    artifact,
    children,
    environment_of,
    losses,
    manifests_or_parts,
    start_training,
    wait_for,
    write_task,
)

from thinktune.schema.manifest import Manifest
from thinktune.store import open_store


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
    assert "lifecycle.py" in err  # the stack of the step
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
    assert err.count("stopped on request, step") == 1
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
