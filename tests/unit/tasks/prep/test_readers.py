"""Files as users bring them, whole and broken."""

import bz2
import gzip
import hashlib
import json
import lzma
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

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
    assert broken(path) == ["a.jsonl:2: the last row is cut off"]


def test_a_line_that_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 1,}\n{"a": 2}\n')
    assert broken(path) == ["a.jsonl:2: not JSON"]
    assert [record.row for record in read_records(path)] == [{"a": 1}, None, {"a": 2}]
    path.write_text('{"a": 1}\n[1]\n"text"\n')
    assert broken(path) == [f"a.jsonl:{n}: a row that is no object" for n in (2, 3)]


def test_a_file_is_what_its_name_says(tmp_path: Path) -> None:
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    disguised = tmp_path / "a.jsonl"
    disguised.write_bytes(parquet.read_bytes())
    assert "the name says text, the content is Parquet; rename it to a.parquet" in fault(disguised)
    parquet.write_text("{}")
    assert "the name says Parquet, the content is not Parquet" in fault(parquet)


def test_a_cut_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS * 100), path)
    path.write_bytes(path.read_bytes()[:-50])
    assert "not a whole Parquet file" in fault(path)


def test_a_csv_row_with_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nq,a\nq,a,more\nq\nq,a\n")
    assert broken(path) == [
        "a.csv:3: a row with more than 2 fields",
        "a.csv:4: a row with fewer than 2 fields",
    ]
    assert sum(record.row is not None for record in read_records(path)) == 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_bytes_that_are_no_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"question": "q"}\n{"question": "\xff\xfe"}\n{"question": "p"}\n')
    assert broken(path) == [f"{name}:2: not UTF-8 text"]


def test_csv_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,answer\nq,\xff\nq,a\n")
    assert broken(path) == ["a.csv:2: not UTF-8 text"]
    path.write_bytes(b"question,\xff\nq,a\n")
    assert "a.csv:1: not UTF-8 text; save the file as UTF-8" in fault(path)


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
    pq.write_table(
        pa.concat_tables([pa.table({"question": ["q"]}), pa.table({"question": column})]), path
    )
    assert broken(path) == ["a.parquet: row 2: not UTF-8 text"]
    assert next(read_records(path)).row == {"question": "q"}


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


PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("named", [True, False])
def test_packed_files(tmp_path: Path, kind: str, named: bool) -> None:
    plain = lines(tmp_path / "b.jsonl").read_bytes()
    path = tmp_path / (f"a.jsonl.{kind}" if named else "a.jsonl")
    path.write_bytes(PACKERS[kind](plain))
    assert rows(path) == ROWS


@pytest.mark.parametrize("kind", PACKERS)
def test_a_packed_file_that_is_cut_off(tmp_path: Path, kind: str) -> None:
    noise = "".join(
        json.dumps({"n": hashlib.sha256(b"%d" % n).hexdigest()}) + "\n" for n in range(3000)
    )
    path = tmp_path / f"a.jsonl.{kind}"
    path.write_bytes(PACKERS[kind](noise.encode())[:-3000])
    assert "damaged or cut off" in fault(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_other_encodings(tmp_path: Path, encoding: str, name: str) -> None:
    text = "question,answer\né,b\n" if name == "a.csv" else json.dumps(ROWS[1], ensure_ascii=False)
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    assert rows(path) == ROWS[1:]


def test_csv_as_excel_and_scripts_write_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    expected = [{"question": "q", "answer": "a"}, {"question": "p", "answer": "b"}]
    for text in (
        "sep=;\nquestion;answer\nq;a\np;b\n",
        "question, answer\nq, a\np, b\n",
        "question,answer\nq,a\n\np,b\n,\n,,\n",
        "question,answer,\nq,a,\np,b,\n".replace(",\n", "\n"),
        'question,answer\r\n"q",a\r\np,"b"\r\n',
        "question\tanswer\nq\ta\np\tb\n",
    ):
        path.write_text(text, newline="")
        assert rows(path) == expected, text
    tsv = tmp_path / "a.tsv"
    tsv.write_text("question\tanswer\nq\ta\np\tb\n")
    assert rows(tsv) == expected


def test_a_header_that_names_a_column_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer,answer\nq,a,b\n")
    assert "a.csv:1: column 'answer' stands twice in the header" in fault(path)


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,answer\nq,a\n"p,b\nr,c\ns,d\n')
    assert broken(path) == [f"a.csv:{n}: a quote that is never closed" for n in (3, 4, 5)]
    path.write_text('question,answer\nq,"a"b\np,b\n')
    assert broken(path) == ["a.csv:2: a row with a stray quote"]


def test_an_archive_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"PK\x03\x04 rest")
    assert "a zip archive (or an Excel workbook); unzip it" in fault(path)


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([[1], [2]], names=["q", "q"]), path)
    assert "two columns are named 'q'" in fault(path)


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


def test_rows_that_a_stray_quote_swallows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [f"q{n},a{n}" for n in range(100)]
    lines[4], lines[50] = '"q4,a4', 'q50,"a50"'
    path.write_text("question,answer\n" + "\n".join(lines) + "\n")
    found = list(read_records(path))
    assert len(found) == 100
    lines[50] = 'q50",a50'  # which happens to close the quote of row 4
    path.write_text("question,answer\n" + "\n".join(lines) + "\n")
    found = list(read_records(path))
    assert (len(found), sum(record.row is None for record in found)) == (100, 47)
    text = "one, two\nthree, four\nfive\nsix, seven"  # a field of several lines stays
    path.write_text(f'question,answer\nq,"{text}"\n')
    assert rows(path) == [{"question": "q", "answer": text}]


@pytest.mark.parametrize("size", [10, 1000, -3, -1])
def test_zstandard_that_is_cut_off(tmp_path: Path, size: int) -> None:
    digests = (hashlib.sha256(b"%d" % n).hexdigest() for n in range(3000))
    whole = zstandard.ZstdCompressor().compress(
        "\n".join(f'{{"n": "{d}"}}' for d in digests).encode()
    )
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(whole[:size])
    assert "damaged or cut off" in fault(path)
    path.write_bytes(b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + whole + whole)
    assert len(rows(path)) == 6000


def test_parquet_values_that_python_has_no_plain_form_of(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "when": pa.array([2**62], pa.timestamp("us")),
            "span": pa.array([2**62], pa.duration("ns")),
            "price": pa.array([Decimal("1.50")]),
            "short": pa.array([0.1], pa.float32()),
            "none": pa.array([float("nan")], pa.float32()),
            "options": pa.array([[("A", "x")]], pa.map_(pa.string(), pa.string())),
        }
    )
    pq.write_table(table, path)
    (row,) = rows(path)
    assert (row["price"], row["short"], row["none"]) == ("1.50", "0.1", None)
    assert row["options"] == {"A": "x"}


def test_what_pandas_writes_by_split(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"columns": ["q"], "index": [0], "data": [["x"]]}))
    assert "pandas.DataFrame(**json.load(open(FILE)))" in fault(path)


def test_json_under_the_name_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('{"question": "q"}\n')
    assert "the name says CSV, the content is JSON; rename it to a.jsonl" in fault(path)
