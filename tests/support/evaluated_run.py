"""A store with a finished evaluation, as people look at one: artifacts of prep and evaluate."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from answers import sample

from thinktune.store import Store, commit, manifest_digest, open_store
from thinktune.tasks.evaluate.judge import Reply, write_replies

Say = Callable[[str, int], str]
"""What an arm says to a question, by its number."""


def usual(arm: str, number: int) -> str:
    """A thought, and an answer that does not tell the arm."""
    return f"<think>Let me see: {number}.</think>\nIt is {number}{'.' if arm == 'tuned' else ''}"


def evaluated(
    folder: Path,
    run: str = "sums-1",
    *,
    questions: int = 40,
    arms: tuple[str, ...] = ("base", "tuned"),
    say: Say = usual,
    replies: Mapping[str, Mapping[str, str | None]] | None = None,
    samples: int = 1,
) -> Store:
    """The store. `replies`: what the judge replied, by the sample's key and what it was asked."""
    store = open_store(f"file://{folder}/store")
    rows = [
        {"id": f"q{n}", "question": f"What is {n}?", "answer": f"It is {n}.", "reference": str(n)}
        for n in range(questions)
    ]
    prep = folder / f"{run}-prep"
    prep.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), prep / "test.parquet")
    common = {"run": run, "attempt": "a", "task_sha256": None, "created": "2026-01-01T00:00:00Z"}
    made = commit(store, f"runs/{run}/prep", prep, kind="prep", inputs={}, **common)
    output = folder / f"{run}-evaluate"
    output.mkdir()
    said = [
        sample(say(arm, n), str(n), arm=arm, question=f"q{n}", number=number)
        for arm in arms
        for number in range(samples)
        for n in range(questions)
    ]
    lines = (json.dumps(asdict(each)) for each in said)
    (output / "samples.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if replies is not None:
        came = [
            Reply(key, asked, text, None if text else "no_reply")
            for key, of_sample in replies.items()
            for asked, text in of_sample.items()
        ]
        write_replies(came, output / "judge.jsonl")
    inputs = {"prep": manifest_digest(made), "train": "0" * 64}
    commit(store, f"runs/{run}/evaluate", output, kind="evaluate", inputs=inputs, **common)
    return store
