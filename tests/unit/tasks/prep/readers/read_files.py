"""Rows of a file, and what is said of those that cannot be read: shared by tests of readers."""

import json
from pathlib import Path

import pytest

from thinktune.schema.errors import DataInvalid
from thinktune.tasks.prep.readers.reading import read_records

ROWS = [
    {"question": "q, with a comma\nand a line", "answer": "a"},
    {"question": "é", "answer": "b"},
]


def rows(path: Path) -> list[dict[str, object]]:
    """The rows of a file that has no broken one."""
    records = list(read_records(path))
    assert [record.broken for record in records if record.broken] == []
    return [record.row for record in records if record.row is not None]


def broken(path: Path) -> list[str]:
    """Place and reason of each row that could not be read."""
    return [
        f"{record.place.removeprefix(str(path.parent) + '/')}: {record.broken.text}"
        for record in read_records(path)
        if record.broken is not None
    ]


def fault(path: Path) -> str:
    with pytest.raises(DataInvalid) as caught:
        rows(path)
    assert caught.value.exit_code == 65
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lines(path: Path) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n", encoding="utf-8")
    return path
