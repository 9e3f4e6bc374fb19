"""Sheets in a real LibreOffice Calc: it computes nothing that a model wrote, and what it saves can
be read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest

from thinktune.text.spreadsheet import read_sheet, write_sheet

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/text"))
from test_spreadsheet import COLUMNS, HOSTILE, strange_texts

pytestmark = pytest.mark.skipif(shutil.which("soffice") is None, reason="no LibreOffice Calc")
TEXTS = [*HOSTILE, *strange_texts()]
COMMA, SEMICOLON = 44, 59
OPENED = "CSV:{},34,76,1,,0,false,true,false,false,false,-1,true"
"""As a person opens a file: special numbers are recognized and formulas are evaluated."""


def convert(file: Path, kind: str, *options: str) -> Path:
    """The file as LibreOffice saves it, in a folder beside it."""
    folder = file.parent / f"saved {kind.partition(':')[0]}"
    command = ["soffice", "--headless", "--norestore", *options]
    subprocess.run(
        [*command, "--convert-to", kind, "--outdir", str(folder), str(file)],
        env={**os.environ, "HOME": str(file.parent)},
        check=True,
        capture_output=True,
        timeout=240,
    )
    return folder / f"{file.stem}.{kind.partition(':')[0]}"


def formulas(file: Path) -> list[str]:
    sheet = openpyxl.load_workbook(file).worksheets[0]
    return [str(c.value) for row in sheet.iter_rows() for c in row if c.data_type == "f"]


def sheet_of(folder: Path, name: str) -> Path:
    path = folder / name
    write_sheet(path, COLUMNS, [(f"r{n}", text, "4") for n, text in enumerate(TEXTS)])
    return path


@pytest.mark.parametrize("delimiter", [COMMA, SEMICOLON])
def test_nothing_in_a_csv_is_computed(tmp_path: Path, delimiter: int) -> None:
    option = f"--infilter={OPENED.format(delimiter)}"
    assert formulas(convert(sheet_of(tmp_path, "a.csv"), "xlsx", option)) == []
    plain = tmp_path / "plain.csv"
    plain.write_text('id,text\nr,=1+1\nr,"x;=2+2;y"\n')
    computed = ["=1+1"] if delimiter == COMMA else ["=2+2"]
    assert formulas(convert(plain, "xlsx", option)) == computed  # so it does compute


def test_nothing_in_a_workbook_is_computed(tmp_path: Path) -> None:
    assert formulas(convert(sheet_of(tmp_path, "a.xlsx"), "xlsx")) == []


@pytest.mark.parametrize(
    "kind",
    ["xlsx", *(f"csv:Text - txt - csv (StarCalc):{how}" for how in ("59,34,1,1", "9,34,65535,1"))],
    ids=["workbook", "semicolons in Windows-1252", "tabs in UTF-16"],
)
def test_what_it_saves_can_be_read(tmp_path: Path, kind: str) -> None:
    saved = convert(sheet_of(tmp_path, "a.xlsx"), kind)
    rows = [row.cells for row in read_sheet(saved, ["id", "rating"])]
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(len(TEXTS))]
    assert {row["rating"] for row in rows} == {"4"}
