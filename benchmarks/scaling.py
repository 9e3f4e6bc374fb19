"""Cases that the plan is held against: training steps of many shapes on one GPU, two and four.

    make bench-scaling         # or: python benchmarks/scaling.py --output measurements.jsonl

Each case is a process of its own per GPU (`train`); as many run beside each other as there are GPUs
for. A line of JSON per case, as soon as it is measured. About ten minutes on four H200.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from train import Case

TINY, SMALL = "r1-distill-qwen-1.5b", "r1-distill-llama-8b"
LARGE, LARGEST = "r1-distill-qwen-32b", "r1-distill-llama-70b"
AUDIT = Case(
    LARGE, row_tokens=8192, recompute_mlps=36, batch_size=24, rank=32, dropout=0.05, steps=5
)
"""As the recipe qwen-32b trains."""
WIDE = Case(SMALL, batch_size=32)
HUGE = Case(LARGEST, row_tokens=8192, recompute_mlps=80, batch_size=8, steps=5)
ONE = [
    replace(AUDIT),
    replace(WIDE),
    Case(LARGEST, row_tokens=4096, recompute=40, recompute_mlps=40, batch_size=8, steps=5),
    replace(HUGE, rank=64),
    Case(LARGE, row_tokens=16384, recompute=64, rank=8, batch_size=24, steps=5),
    Case(LARGE, row_tokens=8192, batch_size=16, steps=5),
    Case(LARGE, row_tokens=4096, recompute=32, recompute_mlps=32, rank=64, batch_size=16, steps=5),
    Case(SMALL, row_tokens=32768, recompute_mlps=16, batch_size=64, steps=5),
    Case(SMALL, recompute=32, rank=64, batch_size=32),
    Case(SMALL, row_tokens=8192, recompute_mlps=32, batch_size=32),
    Case(SMALL, row_tokens=4096, rank=32, batch_size=16),
    Case(TINY, row_tokens=32768, recompute=28, rank=64),
    Case(TINY, recompute_mlps=28),
    Case(TINY, row_tokens=4096, rank=64, batch_size=16),
]
TWO = [
    replace(AUDIT, gpus=2, zero_stage=1),
    replace(HUGE, gpus=2, zero_stage=3),
    replace(AUDIT, gpus=2, zero_stage=3),
    replace(WIDE, gpus=2, zero_stage=1),
    replace(WIDE, gpus=2, zero_stage=2),
    replace(WIDE, gpus=2, zero_stage=3),
    Case(TINY, gpus=2, zero_stage=1, recompute=14, row_tokens=8192),
]
FOUR = [
    replace(AUDIT, gpus=4, zero_stage=1),
    replace(HUGE, gpus=4, zero_stage=3),
    replace(WIDE, gpus=4, zero_stage=3),
]


@dataclass
class Running:
    """A case at work."""

    case: Case
    gpus: list[int]
    ranks: list[subprocess.Popen[str]]
    began: float


def main() -> int:
    """Runs the cases that were asked for, those on several GPUs first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("measurements.jsonl"))
    parser.add_argument("--gpus", default="1,2,4", help="only cases on so many, as 1,2")
    parser.add_argument("--cases", help="numbers of the cases among these, as 0,3")
    options = parser.parse_args()
    wanted = {int(number) for number in options.gpus.split(",")}
    cases = [case for case in (*FOUR, *TWO, *ONE) if case.gpus in wanted]
    if options.cases:
        cases = [cases[int(number)] for number in options.cases.split(",")]
    free = list(range(torch.cuda.device_count()))
    running: list[Running] = []
    failed = 0
    while cases or running:
        while cases and len(free) >= cases[0].gpus:
            case, *cases = cases
            gpus, free = free[: case.gpus], free[case.gpus :]
            running.append(start(case, gpus))
        time.sleep(0.2)
        for work in list(running):
            if any(rank.poll() for rank in work.ranks):
                for rank in work.ranks:
                    rank.kill()
            if all(rank.poll() is not None for rank in work.ranks):
                running.remove(work)
                free += work.gpus
                failed += not write(work, options.output)
    return int(failed > 0)


def start(case: Case, gpus: list[int]) -> Running:
    """One rank per GPU."""
    options = []
    for name, value in vars(case).items():
        option = f"--{name.replace('_', '-')}"
        options += [option] if value is True else [] if value is False else [option, str(value)]
    command = [sys.executable, str(Path(__file__).parent / "train.py"), *options]
    shared = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
    if case.gpus > 1:
        port = str(29600 + gpus[0])
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(case.gpus)}
    ranks = []
    for rank in range(case.gpus):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if case.gpus > 1 else {}
        error = tempfile.TemporaryFile("w+")  # noqa: SIM115
        process = subprocess.Popen(
            command, env=shared | own, stdout=subprocess.PIPE, stderr=error, text=True
        )
        process.stderr = error
        ranks.append(process)
    return Running(case, gpus, ranks, time.monotonic())


def write(work: Running, path: Path) -> bool:
    """The case's line, or why there is none."""
    codes = [rank.wait() for rank in work.ranks]
    took = round(time.monotonic() - work.began)
    found = [line for rank in work.ranks for line in rank.stdout or () if line.startswith("{")]
    if any(codes) or not found:
        for rank in work.ranks:
            assert rank.stderr is not None
            rank.stderr.seek(0)
            sys.stdout.write(rank.stderr.read()[-1500:])
        sys.stdout.write(f"failed with {codes} after {took} s: {work.case}\n")
        sys.stdout.flush()
        return False
    figures: dict[str, Any] = json.loads(found[0])
    figures["date"] = datetime.now(UTC).date().isoformat()
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(figures) + "\n")
    shown = ("model", "gpus", "zero_stage", "row_tokens", "recompute", "recompute_mlps", "rank")
    shown += ("tokens_per_s", "allocated_gib", "reserved_gib", "outside_gib", "communication_s")
    sys.stdout.write(f"{took} s: {' '.join(f'{n}={figures[n]}' for n in shown)}\n")
    sys.stdout.flush()
    return True


if __name__ == "__main__":
    raise SystemExit(main())
