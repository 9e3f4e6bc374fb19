"""Files as users bring them, whole and broken."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thinktune.schema.errors import DataInvalid
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


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "q"}]},
        {"conversations": [{"from": "human", "value": "q"}]},
        {"conversation": [{"from": "human", "value": "q"}]},
        {"question": "q", "options": ["x", "y"]},
    ],
)
def test_an_object_that_is_the_only_row(tmp_path: Path, row: dict[str, object]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(row))
    assert rows(path) == [row]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_of_csv(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    header = delimiter.join(["question", '"answer, or; so|"', "n"])
    path.write_text(f"{header}\n" + delimiter.join(["q", "a", "1"]) + "\n")
    assert rows(path) == [{"question": "q", "answer, or; so|": "a", "n": "1"}]
    path.write_text("question\nq\n")
    assert rows(path) == [{"question": "q"}]


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    lines, whole = tmp_path / "a.jsonl", tmp_path / "a.json"
    pair, half = r'{"question": "\ud83d\ude00"}', r'{"question": ["\ud83d"]}'
    lines.write_text(f"{pair}\n{half}\n")
    assert r"a.jsonl:2: half a surrogate pair, \ud83d" in fault(lines)
    whole.write_text(f"[{pair}, {half}]")
    assert r"a.json: row 1: half a surrogate pair, \ud83d" in fault(whole)
    lines.write_text(pair)
    assert rows(lines) == [{"question": "😀"}]


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    deep = '{"question": ' + "[" * 100_000 + "]" * 100_000 + "}"
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"question": "q"}}\n{deep}\n')
    assert "a.jsonl:2: lists or objects nested too deeply" in fault(path)
    path = tmp_path / "a.json"
    path.write_text(f"[{deep}]")
    assert "a.json: lists or objects nested too deeply" in fault(path)


def test_no_file_and_no_kind(tmp_path: Path) -> None:
    assert "no such file" in fault(tmp_path / "none.jsonl")
    (tmp_path / "a.xlsx").write_text("x")
    assert "kind of file '.xlsx' is not known; use one of .jsonl" in fault(tmp_path / "a.xlsx")
    (tmp_path / "a.jsonl").touch()
    assert "the file is empty" in fault(tmp_path / "a.jsonl")


def test_a_byte_order_mark_before_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question;answer\nq;a\n", encoding="utf-8-sig")
    assert rows(path) == [{"question": "q", "answer": "a"}]


def test_parquet_text_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    column = pa.StringArray.from_buffers(
        1, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"\xff\xfe")
    )
    pq.write_table(pa.table({"question": column}), path)
    assert "not UTF-8 text" in fault(path)
