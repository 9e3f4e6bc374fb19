"""Kinds of files, packing and encodings, by name and by content."""

import bz2
import gzip
import hashlib
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from read_files import ROWS, fault, lines, rows


def test_a_file_is_what_its_name_says(tmp_path: Path) -> None:
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    disguised = tmp_path / "a.jsonl"
    disguised.write_bytes(parquet.read_bytes())
    assert "the name says text, the content is Parquet; rename it to a.parquet" in fault(disguised)
    parquet.write_text("{}")
    assert "the name says Parquet, the content is not Parquet" in fault(parquet)


def test_no_file_and_no_kind(tmp_path: Path) -> None:
    assert "no such file" in fault(tmp_path / "none.jsonl")
    (tmp_path / "a.xlsx").write_text("x")
    assert "kind of file '.xlsx' is not known; use one of .jsonl" in fault(tmp_path / "a.xlsx")
    (tmp_path / "a.jsonl").touch()
    assert "the file is empty" in fault(tmp_path / "a.jsonl")


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


def test_an_archive_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"PK\x03\x04 rest")
    assert "a zip archive (or an Excel workbook); unzip it" in fault(path)


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
