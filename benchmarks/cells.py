"""Cells that the plan is held against: training steps of many shapes on one GPU, two and four.

    make bench-cells         # or: python benchmarks/cells.py --output cells.jsonl

Each cell is a process of its own per GPU (`train`); as many run beside each other as there are GPUs
for. A line of JSON per cell, as soon as it is measured. About ten minutes on four H200.
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
from train import Cell

TINY, SMALL = "r1-distill-qwen-1.5b", "r1-distill-llama-8b"
LARGE, LARGEST = "r1-distill-qwen-32b", "r1-distill-llama-70b"
AUDIT = Cell(
    LARGE, row_tokens=8192, recompute_mlps=36, batch_size=24, rank=32, dropout=0.05, steps=5
)
"""As the recipe qwen-32b trains."""
WIDE = Cell(SMALL, batch_size=32)
HUGE = Cell(LARGEST, row_tokens=8192, recompute_mlps=80, batch_size=8, steps=5)
ONE = [
    replace(AUDIT),
    replace(WIDE),
    Cell(LARGEST, row_tokens=4096, recompute=40, recompute_mlps=40, batch_size=8, steps=5),
    replace(HUGE, rank=64),
    Cell(LARGE, row_tokens=16384, recompute=64, rank=8, batch_size=24, steps=5),
    Cell(LARGE, row_tokens=8192, batch_size=16, steps=5),
    Cell(LARGE, row_tokens=4096, recompute=32, recompute_mlps=32, rank=64, batch_size=16, steps=5),
    Cell(SMALL, row_tokens=32768, recompute_mlps=16, batch_size=64, steps=5),
    Cell(SMALL, recompute=32, rank=64, batch_size=32),
    Cell(SMALL, row_tokens=8192, recompute_mlps=32, batch_size=32),
    Cell(SMALL, row_tokens=4096, rank=32, batch_size=16),
    Cell(TINY, row_tokens=32768, recompute=28, rank=64),
    Cell(TINY, recompute_mlps=28),
    Cell(TINY, row_tokens=4096, rank=64, batch_size=16),
]
TWO = [
    replace(AUDIT, gpus=2, zero_stage=1),
    replace(HUGE, gpus=2, zero_stage=3),
    replace(AUDIT, gpus=2, zero_stage=3),
    replace(WIDE, gpus=2, zero_stage=1),
    replace(WIDE, gpus=2, zero_stage=2),
    replace(WIDE, gpus=2, zero_stage=3),
    Cell(TINY, gpus=2, zero_stage=1, recompute=14, row_tokens=8192),
]
FOUR = [
    replace(AUDIT, gpus=4, zero_stage=1),
    replace(HUGE, gpus=4, zero_stage=3),
    replace(WIDE, gpus=4, zero_stage=3),
]


@dataclass
class Running:
    """A cell at work."""

    cell: Cell
    gpus: list[int]
    ranks: list[subprocess.Popen[str]]
    began: float


def main() -> int:
    """Runs the cells that were asked for, those on several GPUs first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("cells.jsonl"))
    parser.add_argument("--gpus", default="1,2,4", help="only cells on so many, as 1,2")
    parser.add_argument("--cells", help="numbers of the cells among these, as 0,3")
    options = parser.parse_args()
    wanted = {int(number) for number in options.gpus.split(",")}
    cells = [cell for cell in (*FOUR, *TWO, *ONE) if cell.gpus in wanted]
    if options.cells:
        cells = [cells[int(number)] for number in options.cells.split(",")]
    free = list(range(torch.cuda.device_count()))
    running: list[Running] = []
    failed = 0
    while cells or running:
        while cells and len(free) >= cells[0].gpus:
            cell, *cells = cells
            gpus, free = free[: cell.gpus], free[cell.gpus :]
            running.append(start(cell, gpus))
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


def start(cell: Cell, gpus: list[int]) -> Running:
    """One rank per GPU."""
    options = []
    for name, value in vars(cell).items():
        option = f"--{name.replace('_', '-')}"
        options += [option] if value is True else [] if value is False else [option, str(value)]
    command = [sys.executable, str(Path(__file__).parent / "train.py"), *options]
    shared = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
    if cell.gpus > 1:
        port = str(29600 + gpus[0])
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(cell.gpus)}
    ranks = []
    for rank in range(cell.gpus):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if cell.gpus > 1 else {}
        error = tempfile.TemporaryFile("w+")  # noqa: SIM115
        process = subprocess.Popen(
            command, env=shared | own, stdout=subprocess.PIPE, stderr=error, text=True
        )
        process.stderr = error
        ranks.append(process)
    return Running(cell, gpus, ranks, time.monotonic())


def write(work: Running, path: Path) -> bool:
    """The cell's line, or why there is none."""
    codes = [rank.wait() for rank in work.ranks]
    took = round(time.monotonic() - work.began)
    found = [line for rank in work.ranks for line in rank.stdout or () if line.startswith("{")]
    if any(codes) or not found:
        for rank in work.ranks:
            assert rank.stderr is not None
            rank.stderr.seek(0)
            sys.stdout.write(rank.stderr.read()[-1500:])
        sys.stdout.write(f"failed with {codes} after {took} s: {work.cell}\n")
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
