"""Sheets: no cell is a formula whatever is written, and what programs save can be read."""

import csv
import io
import random
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import openpyxl
import pytest

from thinktune.schema.errors import DataInvalid, DeviceUnusable, SpecInvalid
from thinktune.text.spreadsheet import (
    CELL_CHARACTERS,
    Column,
    cell_length,
    cut_to_cell,
    read_sheet,
    write_sheet,
)

COLUMNS = [Column("id", 8), Column("Text ", 40), Column("rating", 8, (1, 5))]
HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "  =1",
    "\n=1",
    "＝1",
    "=cmd|' /C calc'!A0",
    "so;=1+1;x",
    'a line\n=HYPERLINK("http://x")\n- item',
    "'=kept",
    "''- kept",
    "a;'=b",
    "\x00\x0b\x1f\x7f \ud800 \ufffe \u202e",
    "_x003D_1+1 and _x000D_",
    "_x0041_x0042_x005F_",
    "#REF!",
    "TRUE",
    "1e5",
    "é – 中 🙂",
    'with "quotes", commas; semicolons',
]
STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def strange_texts() -> list[str]:
    chosen = random.Random(7)
    pieces = [*"=+-@\t\r\n;,'\"|!＝ a1", "cmd|' /C calc'!A0", "_x0041_", "\ud800", "\x01", "🙂"]
    return [
        "".join(chosen.choice(pieces) for _ in range(chosen.randrange(1, 9))) for _ in range(400)
    ]


def texts_of(path: Path) -> list[str]:
    return [row.cells["text"] for row in read_sheet(path, ["id", "text"])]


def as_shown(text: str) -> str:
    """What a sheet keeps of a text: its lines, without what XML refuses."""
    kept = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(" " if c in "\x00\x01\x0b\x1f\x7f\ud800\ufffe\u202e" else c for c in kept)


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv"])
@pytest.mark.parametrize("texts", [HOSTILE, strange_texts()], ids=["hostile", "strange"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str, texts: list[str]) -> None:
    path = tmp_path / name
    write_sheet(path, COLUMNS, [(f"r{n}", text, "") for n, text in enumerate(texts)])
    assert texts_of(path) == [as_shown(text) for text in texts]


@pytest.mark.parametrize("texts", [HOSTILE, strange_texts()], ids=["hostile", "strange"])
def test_no_cell_of_a_workbook_is_a_formula(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "a.xlsx"
    write_sheet(path, COLUMNS, [("r", text, "") for text in texts])
    sheet = openpyxl.load_workbook(path).worksheets[0]
    cells = [cell for row in sheet.iter_rows(min_row=2, max_col=2) for cell in row]
    assert {cell.data_type for cell in cells} == {"s"}
    assert all(cell.quotePrefix for cell in cells if cell.value)
    with zipfile.ZipFile(path) as packed:
        names = packed.namelist()
        tree = ElementTree.fromstring(packed.read("xl/worksheets/sheet1.xml"))
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    assert not list(tree.iter(f"{space}f"))
    assert {cell.get("t") for cell in tree.iter(f"{space}c") if len(cell)} == {"inlineStr"}
    assert not [name for name in names if "external" in name.lower()]


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("texts", [HOSTILE, strange_texts()], ids=["hostile", "strange"])
def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path, texts: list[str], delimiter: str) -> None:
    """Also for a spreadsheet that takes semicolons for the delimiter, as in much of Europe."""
    path = tmp_path / "a.csv"
    write_sheet(path, COLUMNS, [("r", text, "") for text in texts])
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file, delimiter=delimiter) for cell in row]
    assert len(cells) >= len(texts)
    assert [cell for cell in cells if cell.lstrip(" \n").startswith(STARTS)] == []


def test_a_rating_is_a_whole_number_in_excel(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    write_sheet(path, COLUMNS, [("r", "x", "")])
    (rule,) = openpyxl.load_workbook(path).worksheets[0].data_validations.dataValidation
    assert (rule.type, rule.formula1, rule.formula2) == ("whole", "1", "5")
    assert str(rule.sqref).startswith("C2:")


def test_what_is_too_long_for_a_cell_is_cut_and_that_is_said(tmp_path: Path) -> None:
    fits = "🙂" * (CELL_CHARACTERS // 2)
    assert cut_to_cell(fits) == fits
    for text in (fits + "ab", "x" * 200_000):
        cut = cut_to_cell(text)
        assert cell_length(cut) <= CELL_CHARACTERS
        assert "characters are left out here" in cut
        assert cut.endswith(text[-100:])
        write_sheet(tmp_path / "a.xlsx", COLUMNS, [("r", cut, "")])
        assert texts_of(tmp_path / "a.xlsx") == [cut]


ROWS = [["id", "Text", "Rating"], ["a", "é; x", "4"], ["b", "line\nline", "5"]]
CSVS = {
    "excel in Europe": (";", "\r\n", "cp1252"),
    "excel, UTF-8": (",", "\r\n", "utf-8-sig"),
    "excel, Unicode text": ("\t", "\r\n", "utf-16"),
    "libreoffice": (",", "\n", "utf-8"),
    "old Macs": (",", "\r", "utf-8"),
}


@pytest.mark.parametrize("kind", CSVS)
def test_csv_as_programs_save_it(tmp_path: Path, kind: str) -> None:
    delimiter, ending, encoding = CSVS[kind]
    made = io.StringIO()
    writer = csv.writer(made, csv.excel, delimiter=delimiter, lineterminator=ending, quoting=1)
    writer.writerows(ROWS)
    for first in ("", f"sep={delimiter}{ending}"):
        path = tmp_path / "a.csv"
        path.write_bytes((first + made.getvalue()).encode(encoding))
        found = list(read_sheet(path, ["id", "rating"]))
        assert [row.number for row in found] == [2, 3]
        assert [row.cells["text"] for row in found] == ["é; x", "line\nline"]
        assert [row.cells["rating"] for row in found] == ["4", "5"]


def test_rows_above_the_header_other_columns_and_short_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("For Anna,,\n,,\nmine,RATING , ID\n7,4,a\n\n,,\n8\n")
    found = list(read_sheet(path, ["id", "rating"]))
    assert [(row.number, dict(row.cells)) for row in found] == [
        (4, {"mine": "7", "rating": "4", "id": "a"}),
        (7, {"mine": "8", "rating": "", "id": ""}),
    ]


def test_a_workbook_s_own_values(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in (["id", "rating"], ["a", 4], [12, 4.0], ["c", 4.5], ["d", True], ["e", "=1+1"]):
        sheet.append(row)
    book.save(tmp_path / "a.XLSX")
    found = [dict(row.cells) for row in read_sheet(tmp_path / "a.XLSX", ["id", "rating"])]
    assert [each["rating"] for each in found] == ["4", "4", "4.5", "True", ""]
    assert found[1]["id"] == "12"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "a,b\n1,2\n", "has no column 'id'; give back the sheet as it was written"),
        ("a.csv", "id,rating,Rating\na,1,2\n", "'rating' stands twice in the header"),
        ("a.csv", 'id,rating\na,"4\nb,5\n', "a.csv: line 3: cannot be read"),
        ("a.csv", "", "has no column 'id'"),
        ("a.xlsx", "id,rating\n", "cannot be read as an Excel workbook"),
    ],
)
def test_sheets_that_cannot_be_read(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataInvalid, match=message):
        list(read_sheet(tmp_path / name, ["id", "rating"]))
    with pytest.raises(DataInvalid, match="no such file"):
        list(read_sheet(tmp_path / "none" / name, ["id"]))


def test_an_archive_that_is_no_workbook(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("word/document.xml", "<x/>")
    with pytest.raises(DataInvalid, match="cannot be read as an Excel workbook"):
        list(read_sheet(path, ["id"]))
    write_sheet(path, COLUMNS, [("r", "x" * 3000, "")])
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataInvalid, match="cannot be read as an Excel workbook"):
        list(read_sheet(path, ["id"]))


def test_names_and_folders_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match=r"name it \.xlsx or \.csv"):
        list(read_sheet(tmp_path / "a.ods", ["id"]))
    for name in ("none/a.csv", "none/a.xlsx"):
        with pytest.raises(DeviceUnusable, match="no such file or directory"):
            write_sheet(tmp_path / name, COLUMNS, [])
