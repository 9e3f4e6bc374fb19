"""JSON in every shape that files come in, whole and broken."""

import json
from pathlib import Path

import pytest
from read_files import ROWS, broken, fault, lines, rows

from thinktune.tasks.prep.readers.reading import read_records


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


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("﻿" + json.dumps(ROWS[0]), encoding="utf-8")
    assert rows(path) == ROWS[:1]


def test_truncated_json_lines_name_the_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl")
    path.write_bytes(path.read_bytes()[:-6])
    assert broken(path) == ["a.jsonl:2: the last row is cut off"]


def test_a_line_that_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 1,}\n{"a": 2}\n')
    assert broken(path) == ["a.jsonl:2: not JSON"]
    assert [record.row for record in read_records(path)] == [{"a": 1}, None, {"a": 2}]
    path.write_text('{"a": 1}\n[1]\n"text"\n')
    assert broken(path) == [f"a.jsonl:{n}: a row that is no object" for n in (2, 3)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_bytes_that_are_no_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"question": "q"}\n{"question": "\xff\xfe"}\n{"question": "p"}\n')
    assert broken(path) == [f"{name}:2: not UTF-8 text"]


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


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    lines, whole = tmp_path / "a.jsonl", tmp_path / "a.json"
    pair, half = r'{"question": "\ud83d\ude00"}', r'{"question": ["\ud83d"]}'
    lines.write_text(f"{pair}\n{half}\n")
    assert broken(lines) == ["a.jsonl:2: half a surrogate pair, which is no character"]
    whole.write_text(f"[{pair}, {half}]")
    assert broken(whole) == ["a.json: row 2: half a surrogate pair, which is no character"]
    lines.write_text(pair)
    assert rows(lines) == [{"question": "😀"}]


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    deep = '{"question": ' + "[" * 100_000 + "]" * 100_000 + "}"
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"question": "q"}}\n{deep}\n')
    assert broken(path) == ["a.jsonl:2: lists or objects nested too deeply"]
    path = tmp_path / "a.json"
    path.write_text(f'[{{"question": "q"}},\n{deep},\n{{"question": "p"}}]')
    assert broken(path) == ["a.json: row 2: lists or objects nested too deeply"]


def shapes() -> dict[str, tuple[str, str]]:
    """Name and content of JSON in the shapes that people write it in."""
    spelled = [json.dumps(row) for row in ROWS]
    pretty = [json.dumps(row, indent=2) for row in ROWS]
    return {
        "a list under the name of lines": ("a.jsonl", f"[{', '.join(spelled)}]"),
        "a pretty list under the name of lines": ("a.jsonl", json.dumps(ROWS, indent=1)),
        "objects over many lines": ("a.jsonl", "\n".join(pretty)),
        "objects over many lines with commas": ("a.json", ",\n".join(pretty)),
        "objects without a line between": ("a.jsonl", "".join(spelled)),
        "commas behind lines": ("a.jsonl", ",\n".join(spelled)),
        "carriage returns alone": ("a.jsonl", "\r".join(spelled)),
        "Windows lines": ("a.jsonl", "\r\n".join(spelled)),
        "a byte order mark in each line": ("a.jsonl", "\n".join(f"\ufeff{s}" for s in spelled)),
        "empty lines first": ("a.json", "\n\n  \n" + "\n".join(spelled)),
        "two lists": ("a.json", f"[{spelled[0]}]\n[{spelled[1]}]"),
        "an object around a list": ("a.json", json.dumps({"meta": {"v": 1}, "rows": ROWS})),
    }


@pytest.mark.parametrize("shape", shapes())
def test_json_of_any_shape(tmp_path: Path, shape: str) -> None:
    name, text = shapes()[shape]
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert rows(path) == ROWS


def test_a_long_list_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinktune.tasks.prep.readers.json_values.CHUNK", 64)
    many = [{"question": f'{n} é " {"x" * n}', "n": n, "f": n / 7} for n in range(300)]
    path = tmp_path / "a.json"
    for text in (json.dumps(many), json.dumps(many, indent=2), "".join(map(json.dumps, many))):
        path.write_text(text)
        assert rows(path) == many


def test_one_broken_row_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    spelled = [json.dumps({"n": n}, indent=1) for n in range(5)]
    spelled[2] = spelled[2].replace(":", "")
    path.write_text("[\n" + ",\n".join(spelled) + "\n]")
    assert broken(path) == ["a.json: row 3: not JSON"]
    assert [r.row for r in read_records(path) if r.row] == [{"n": n} for n in (0, 1, 3, 4)]
    path.write_text('[{"n": 0}, {"n" 1}, {"n": 2}]')
    assert "a.json: row 2: not JSON from here on" in fault(path)
    path.write_text('[{"n": 0}, {"n": 1}, {"n":')
    assert broken(path) == ["a.json: row 3: the last row is cut off"]
    path.write_text('[{"n": 0}, {"n": 1}')
    assert broken(path) == ["a.json: row 2: the last row is cut off"]


def test_a_name_twice_in_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"answer": "a"}\n{"answer": "a", "answer": "b"}\n')
    assert broken(path) == ["a.jsonl:2: a name stands twice in one object"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"train": ROWS, "test": ROWS}, "several lists of rows (test, train)"),
        ({"question": ["q", "p"], "answer": ["a", "b"]}, "columns, not rows"),
        ({"question": {"0": "q", "1": "p"}, "answer": {"0": "a", "1": "b"}}, "columns, not rows"),
    ],
)
def test_json_that_is_not_by_rows(tmp_path: Path, data: object, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    assert said in fault(path)


def test_the_remedy_for_columns_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"question": {"0": "q", "1": "p"}, "n": {"0": 1, "1": 2}}))
    code = fault(path).split("write rows: ")[1]
    monkeypatch.chdir(tmp_path)
    exec(code, {"pandas": pandas, "json": json, "FILE": str(path)})  # noqa: S102 - our own remedy
    assert rows(tmp_path / "rows.jsonl") == [{"question": "q", "n": 1}, {"question": "p", "n": 2}]


@pytest.mark.parametrize("indent", [1, 2, 4, "\t"])
@pytest.mark.parametrize("fault", ['"n" 21', '"n": 21, "n": 22'])
def test_rows_behind_a_broken_one_of_an_indented_list(
    tmp_path: Path, indent: int | str, fault: str
) -> None:
    text = json.dumps([{"n": n, "qa": [{"q": n}]} for n in range(40)], indent=indent)
    path = tmp_path / "a.json"
    path.write_text(text.replace('"n": 21', fault))
    found = list(read_records(path))
    assert [record.row is None for record in found] == [n == 21 for n in range(40)]
    comma_first = text.replace("},\n", "}\n,")
    path.write_text(comma_first.replace('"n": 21', fault))
    assert [r.row["n"] for r in read_records(path) if r.row] == [n for n in range(40) if n != 21]


def test_a_broken_row_of_a_list_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"n": 0}, {"n": 1, "n": 2}, {"n": 3}]')
    assert broken(path) == ["a.json: row 2: a name stands twice in one object"]
    path.write_text('[{"n": 0},\n {"n" 1},\n {"n": 2}\n]')
    assert broken(path) == ["a.json: row 2: not JSON"]


def test_objects_inside_a_broken_row_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    turns = ", ".join('{"question": "x", "answer": "y"}' for _ in range(5))
    path.write_text(f'{{"n": 0}}\n{{"meta": "bad\\q", "qa": [{turns}]}}\n{{"n": 1}}\n')
    assert [record.row for record in read_records(path)] == [{"n": 0}, None, {"n": 1}]


def test_half_a_pair_in_one_row_of_a_wrapped_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"data": [{"n": "a"}, {"n": "\\ud83d"}, {"n": "b"}]}')
    assert broken(path) == ["a.json: row 2: half a surrogate pair, which is no character"]
    path.write_text('{"n": 1, "m": [{"n": "\\ud83d"}]}\n{"n": 2}\n')
    assert broken(path) == ["a.json:1: half a surrogate pair, which is no character"]


def test_a_single_row_with_a_list_of_objects(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "options": [{"label": "A", "text": "x"}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(row))
    assert rows(path) == [row]


def test_deep_nesting_with_an_escape(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    deep = "[" * 900 + '"\\ud83d\\ude00"' + "]" * 900
    path.write_text(f'{{"n": 1}}\n{{"n": {deep}}}\n')
    assert len(list(read_records(path))) == 2


def test_what_pandas_writes_by_split(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"columns": ["q"], "index": [0], "data": [["x"]]}))
    assert "pandas.DataFrame(**json.load(open(FILE)))" in fault(path)
