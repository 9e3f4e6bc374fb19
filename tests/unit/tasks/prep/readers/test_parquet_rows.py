"""Parquet files, whole and broken."""

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from read_files import ROWS, broken, fault, rows

from thinktune.tasks.prep.readers.reading import read_records


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert rows(path) == ROWS


def test_a_cut_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS * 100), path)
    path.write_bytes(path.read_bytes()[:-50])
    assert "not a whole Parquet file" in fault(path)


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


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([[1], [2]], names=["q", "q"]), path)
    assert "two columns are named 'q'" in fault(path)


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
