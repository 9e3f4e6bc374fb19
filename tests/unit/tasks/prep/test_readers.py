"""Files as users bring them, whole and broken."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thinktune.spec.errors import DataInvalid
from thinktune.tasks.prep.readers import read_rows

ROWS = [
    {"question": "q, with a comma\nand a line", "answer": "a"},
    {"question": "é", "answer": "b"},
]


def rows(path: Path) -> list[dict[str, object]]:
    return list(read_rows(path))


def fault(path: Path) -> str:
    with pytest.raises(DataInvalid) as caught:
        rows(path)
    assert caught.value.exit_code == 65
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lines(path: Path) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n", encoding="utf-8")
    return path


def test_json_lines(tmp_path: Path) -> None:
    assert rows(lines(tmp_path / "a.jsonl")) == ROWS
    assert rows(lines(tmp_path / "a.ndjson")) == ROWS


def test_json_lines_under_the_name_json(tmp_path: Path) -> None:
    assert rows(lines(tmp_path / "a.json")) == ROWS


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS))
    assert rows(path) == ROWS
    path.write_text(json.dumps({"version": 1, "data": ROWS}))
    assert rows(path) == ROWS


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert rows(path) == ROWS


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,answer\n"q, with a comma\nand a line",a\né,b\n', encoding="utf-8")
    assert rows(path) == ROWS


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("﻿" + json.dumps(ROWS[0]), encoding="utf-8")
    assert rows(path) == ROWS[:1]


def test_truncated_json_lines_name_the_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl")
    path.write_bytes(path.read_bytes()[:-6])
    assert "a.jsonl:2: the last line is cut off" in fault(path)


def test_a_line_that_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 1,}\n{"a": 2}\n')
    assert "a.jsonl:2: not JSON" in fault(path)
    path.write_text("[1]\n")
    assert "a.jsonl:1: a row is a list" in fault(path)


def test_a_file_is_what_its_name_says(tmp_path: Path) -> None:
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    disguised = tmp_path / "a.jsonl"
    disguised.write_bytes(parquet.read_bytes())
    assert "the name says jsonl, the content is Parquet" in fault(disguised)
    parquet.write_text("{}")
    assert "the name says parquet, the content is not Parquet" in fault(parquet)


def test_a_cut_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS * 100), path)
    path.write_bytes(path.read_bytes()[:-50])
    assert "not a whole Parquet file" in fault(path)


def test_a_csv_row_with_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nq,a\nq,a,more\n")
    assert "a.csv:3: a row with other than 2 columns" in fault(path)
    path.write_text("question,answer\nq\n")
    assert "a.csv:2" in fault(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_bytes_that_are_no_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"question": "\xff\xfe"}\n')
    assert "not UTF-8 text" in fault(path)


def test_no_file_and_no_kind(tmp_path: Path) -> None:
    assert "no such file" in fault(tmp_path / "none.jsonl")
    (tmp_path / "a.xlsx").write_text("x")
    assert "kind of file '.xlsx' is not known; use one of .jsonl" in fault(tmp_path / "a.xlsx")
    (tmp_path / "a.jsonl").touch()
    assert "the file is empty" in fault(tmp_path / "a.jsonl")
