"""A public benchmark of lettered options, in the store's cache as if the hub had given it."""

import hashlib
import json
import tempfile
from pathlib import Path

from thinktune.schema.catalog import ColumnMap, DatasetEntry
from thinktune.schema.keys import cache_prefix
from thinktune.store import commit, open_store

ENTRY = DatasetEntry(
    repo="owner/letters",
    revision="a" * 40,
    files=("test.jsonl",),
    license="CC0-1.0",
    format="columns",
    columns=ColumnMap(question="question", options="options", answer="answer_idx"),
    description="Questions with four options.",
)


def letter_rows(count: int) -> list[dict[str, object]]:
    """Rows in MedQA's layout; the right letters go round."""
    words = ("apples", "pears", "plums", "figs", "grapes", "lemons", "dates")
    return [
        {
            "question": f"A shop has {n} {words[n % 7]} and sells {n // 2}. How many are left?",
            "answer": str(n - n // 2),
            "options": {letter: str(n - n // 2 + k - n % 4) for k, letter in enumerate("ABCD")},
            "answer_idx": "ABCD"[n % 4],
        }
        for n in range(count)
    ]


def commit_letters(url: str, rows: list[dict[str, object]]) -> DatasetEntry:
    """Puts the rows where prep looks before it asks the hub."""
    files = hashlib.sha256("\n".join(ENTRY.files).encode()).hexdigest()[:8]
    prefix = cache_prefix("datasets", str(ENTRY.repo), f"{ENTRY.revision}-{files}")
    with tempfile.TemporaryDirectory() as folder:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (Path(folder) / "test.jsonl").write_text(text, encoding="utf-8")
        commit(
            open_store(url),
            prefix,
            Path(folder),
            kind="dataset",
            run=None,
            attempt="a",
            inputs={},
            task_sha256=None,
            created="2026-01-01T00:00:00+00:00",
        )
    return ENTRY
