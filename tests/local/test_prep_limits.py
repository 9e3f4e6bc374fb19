"""Prep as a process: in how much memory, and how soon it answers a request to stop."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = """
import json, resource, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from prep_stage import Prep
from thinktune.tasks.runtime.stopping import Stop
folder = Path(sys.argv[2])
folder.mkdir()
prep = Prep(folder)
print("ready", flush=True)
with Stop.on_signals() as stop:
    prep.run(sys.argv[3], stop=stop, max_bad_fraction=1.0, **json.loads(sys.argv[4]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
SUPPORT = Path(__file__).parents[1]


def started(folder: Path, file: Path, **data: object) -> subprocess.Popen[str]:
    paths = [str(SUPPORT / "support"), str(SUPPORT / "unit" / "tasks" / "prep")]
    command = [sys.executable, "-c", RUN, json.dumps(paths), str(folder), str(file)]
    process = subprocess.Popen(
        [*command, json.dumps(data)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def peak_mib(folder: Path, file: Path, **data: object) -> int:
    out, _ = started(folder, file, **data).communicate(timeout=300)
    return int(out.splitlines()[-1])


def rows_file(path: Path, count: int, characters: int) -> Path:
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghilmnoprstu", k=2 + n % 7)) for n in range(3000)]
    with path.open("w") as file:
        for number in range(count):
            thought = " ".join(chance.choices(words, k=characters // 6))
            answer = f"<think>{thought}</think>{number}"
            file.write(
                json.dumps({"question": f"{number} {thought[:60]}?", "answer": answer}) + "\n"
            )
    return path


@pytest.mark.parametrize("rule", ["drop", "truncate"])
def test_a_row_of_ten_megabytes(tmp_path: Path, rule: str) -> None:
    small = rows_file(tmp_path / "small.jsonl", 200, 600)
    giant = tmp_path / "giant.jsonl"
    row = {"question": "Why?", "answer": f"<think>{'so it goes on and on ' * 480_000}</think>done"}
    giant.write_text(small.read_text() + json.dumps(row) + "\n")
    data = {"max_tokens": 1500, "too_long": rule}
    without = peak_mib(tmp_path / "a", small, **data)
    assert peak_mib(tmp_path / "b", giant, **data) - without <= 200


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """The stage holds a few numbers of each row: ten times as many cost little. The figure for
    large datasets is in docs/performance.md."""
    few = peak_mib(tmp_path / "a", rows_file(tmp_path / "few.jsonl", 3_000, 500), max_tokens=2048)
    many = peak_mib(
        tmp_path / "b", rows_file(tmp_path / "many.jsonl", 30_000, 500), max_tokens=2048
    )
    assert many <= 1.25 * few


@pytest.mark.parametrize("after_s", [0.0, 0.7, 2.0, 4.0])
def test_a_request_to_stop_is_answered_within_two_seconds(tmp_path: Path, after_s: float) -> None:
    file = rows_file(tmp_path / "rows.jsonl", 6_000, 3_000)
    data = {
        "max_tokens": 4096,
        "split": {"test_rows": 100},
        "drop_loops": True,
        "languages": ["en"],
        # In Python's re this would take longer than a job.
        "filters": [{"column": "answer", "matches": "(a+)+$", "invert": True}],
    }
    process = started(tmp_path / "a", file, **data)
    time.sleep(after_s)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert process.returncode != 0
    # Two seconds on an idle machine; CI compiles a Kubernetes beside the tests.
    assert time.monotonic() - asked < 5.0
