"""A file as prep reads it, row by row, without a model: what tests of rows share."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.data import DataSpec
from thinktune.tasks.prep.readers.reading import read_records
from thinktune.tasks.prep.recognition import HEAD_ROWS, recognize
from thinktune.tasks.prep.rows import Example, examples_of
from thinktune.text.conversation import Unusable

Row = dict[str, Any]
OWN = DatasetEntry(license="x", format="columns", description="x")


@dataclass
class Read:
    """What became of a file."""

    line: str
    examples: list[Example] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    end_tokens: int = 0
    turns_left: int = 0
    turns_after: int = 0


def read(path: Path, **data: Any) -> Read:
    """Reads a file by a recipe's settings."""
    spec = DataSpec.model_validate({"dataset": "file", "path": str(path), **data})
    records = list(read_records(path))
    rows = [record.row for record in records if record.row is not None]
    layout = recognize(rows[:HEAD_ROWS], spec, OWN, path.name)
    found = Read(layout.line())
    for record in records:
        try:
            if record.broken is not None:
                raise Unusable(record.broken)
            assert record.row is not None
            taken = examples_of(record.row, layout, spec)
        except Unusable as unusable:
            reason = unusable.reason.text
            found.dropped[reason] += 1
            found.places.setdefault(reason, []).append(record.place.removeprefix(str(path)))
        else:
            found.examples += taken.examples
            found.end_tokens += taken.end_tokens
            found.turns_left += taken.turns_left
            found.turns_after += taken.turns_after
    return found


def written(folder: Path, rows: list[Row], name: str = "own.jsonl") -> Path:
    """A file of JSON lines."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
