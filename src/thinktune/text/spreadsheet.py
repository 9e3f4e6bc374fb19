"""Sheets of text for people, as .xlsx and .csv: written so that no cell is a formula, and read back
as Excel, LibreOffice and scripts save them.

Prep writes examples to be corrected with it, evaluation answers to be rated.

In .xlsx a cell says that it is text. CSV has nothing to say so: there an apostrophe stands before
whatever a spreadsheet would compute, also behind a semicolon or a line break, because a spreadsheet
that takes semicolons for its delimiter begins a cell there. Reading takes the apostrophes off.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError
from zipfile import BadZipFile

from thinktune.schema.errors import DataInvalid, DeviceUnusable, InputMissing, SpecInvalid
from thinktune.text.visible import printable

KINDS = (".xlsx", ".csv")
CELL_CHARACTERS = 32_767
"""Of a cell in Excel, in units of UTF-16; what is longer would be cut without a word."""
HEADER_ROWS = 20
"""The header is looked for in so many rows from the top."""
FIELD_CHARACTERS = 2**27
"""Of a field in CSV; Python's own limit is shorter than a long chain of thought."""
DELIMITERS = ",;\t|"
_COMPUTED = r"[=+\-@\t\r＝＋－＠]"
_CELL, _LINE = rf"[\s'\"]*{_COMPUTED}", rf"(?:[^\S\n]|['\"])*{_COMPUTED}"
_TO_QUOTE = re.compile(rf"\A(?={_CELL})|(?<=[;\n])(?={_LINE})")
_QUOTED = re.compile(rf"\A'(?={_CELL})|(?<=[;\n])'(?={_LINE})")
"""The apostrophe that `_TO_QUOTE` says where to write: a text that has some of its own gets one
more, so that reading gives back what was written."""
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
"""How .xlsx spells a character that XML cannot hold."""
_ESCAPED = re.compile(r"_(?=x[0-9A-Fa-f]{4}_)")
_NO_INK = frozenset(("Cc", "Cs", "Cn", "Co", "Zl", "Zp"))
"""Categories of characters that XML refuses, that no font shows, or that break lines unseen."""
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They show text in another order than it has."""
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*\Z')
"""A first line by which Excel is told the delimiter."""


@dataclass(frozen=True)
class Column:
    """One column of a sheet."""

    name: str
    width: int
    """Characters of a line."""
    whole_numbers: tuple[int, int] | None = None
    """The least and the greatest number that Excel lets people write there."""


@dataclass(frozen=True)
class Row:
    """One row below the header."""

    number: int
    """As a spreadsheet numbers it, from 1."""
    cells: Mapping[str, str]
    """Text by the column's name, in lower case."""


def is_excel(path: Path) -> bool:
    """Whether a sheet's name says .xlsx and not .csv. Raises SpecInvalid for any other name."""
    if path.suffix.lower() not in KINDS:
        raise SpecInvalid(str(path), "is no kind of sheet", "name it .xlsx or .csv")
    return path.suffix.lower() == ".xlsx"


def cell_length(text: str) -> int:
    """As Excel counts, to which an emoji is two characters."""
    return len(text) + sum(character > "\uffff" for character in text)


def cut_to_cell(text: str) -> str:
    """The text, with its middle cut out and that said where it is too long for a cell."""
    if cell_length(text) <= CELL_CHARACTERS:
        return text
    half = CELL_CHARACTERS // 4  # of characters that may each count twice
    left = f"\n[… {len(text) - 2 * half:,} characters are left out here …]\n"
    return text[: half - len(left)] + left + text[-half:]


def write_sheet(path: Path, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Writes a header and rows of text. Raises DeviceUnusable, and InputMissing where openpyxl is
    needed and not installed."""
    write = _write_excel if is_excel(path) else _write_csv
    try:
        write(path, columns, rows)
    except OSError as error:
        fault = (error.strerror or str(error)).lower()
        raise DeviceUnusable(str(path), fault, "check that folder, or choose another") from None


def read_sheet(path: Path, needed: Collection[str]) -> Iterator[Row]:
    """The rows below the header, which is the first row that has all columns of `needed`; empty
    rows are left out. Raises DataInvalid, and InputMissing as `write_sheet` does."""
    rows = enumerate(_excel_rows(path) if is_excel(path) else _csv_rows(path), start=1)
    header: list[str] | None = None
    first: set[str] = set()
    for number, values in rows:
        if header is None:
            names = [" ".join(value.split()).lower() for value in values]
            first |= {name for name in names if name}
            if set(needed) <= set(names):
                header = _checked_header(path, names)
            elif number >= HEADER_ROWS:
                break
        elif any(value.strip() for value in values):
            cells = [*values, *[""] * (len(header) - len(values))]
            yield Row(number, dict(zip(header, cells, strict=False)))
    if header is None:
        missing = next((name for name in needed if name not in first), None)
        fault = f"has no column '{missing}'" if missing else "has no row with all names of columns"
        raise DataInvalid(
            str(path), fault, "give back the sheet as it was written, with its header"
        )


def _checked_header(path: Path, names: list[str]) -> list[str]:
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        fault = f"the column '{twice[0]}' stands twice in the header"
        raise DataInvalid(str(path), fault, "rename one of them, or take one out")
    return names


def _storable(text: str) -> str:
    """Without what XML refuses or what would change how the rest is shown; lines stay."""
    text = re.sub(r"\r\n?|[\u2028\u2029]", "\n", text)
    if text.isprintable():
        return text
    return "".join(
        " "
        if char in _DIRECTIONS or (char not in "\n\t" and unicodedata.category(char) in _NO_INK)
        else char
        for char in text
    )


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ModuleNotFoundError:
        fault = "the package openpyxl, which .xlsx needs, is not installed"
        remedy = "pip install 'thinktune[review]', or use .csv"
        raise InputMissing("openpyxl", fault, remedy) from None
    return openpyxl


def _write_excel(path: Path, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    openpyxl = _openpyxl()
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Alignment, Font
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("sheet")
    sheet.freeze_panes = "B2"
    for number, column in enumerate(columns, start=1):
        letter = get_column_letter(number)
        sheet.column_dimensions[letter].width = column.width
        if column.whole_numbers is not None:
            low, high = column.whole_numbers
            allowed = DataValidation("whole", operator="between", formula1=low, formula2=high)
            allowed.error = allowed.prompt = f"a whole number from {low} to {high}"
            allowed.showErrorMessage = allowed.showInputMessage = True
            allowed.add(f"{letter}2:{letter}1048576")
            sheet.data_validations.append(allowed)
    wrapped, bold = Alignment(wrap_text=True, vertical="top"), Font(bold=True)

    def cell(text: str, *, head: bool = False) -> Any:
        # A text that spells an escape of .xlsx is no escape.
        made = WriteOnlyCell(sheet, _ESCAPED.sub("_x005F_", _storable(text)) or None)
        made.alignment = wrapped
        if made.value:
            made.data_type = "s"  # text, whatever it begins with
            made.quotePrefix = 1  # also after somebody edited it
        if head:
            made.font = bold
        return made

    sheet.append([cell(column.name, head=True) for column in columns])
    for row in rows:
        sheet.append([cell(text) for text in row])
    with closing(book):
        book.save(path)


def _write_csv(path: Path, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in columns])
        for row in rows:
            writer.writerow([_TO_QUOTE.sub("'", _storable(text)) for text in row])


def _excel_rows(path: Path) -> Iterator[list[str]]:
    openpyxl = _openpyxl()
    from openpyxl.utils.exceptions import InvalidFileException

    broken = (InvalidFileException, BadZipFile, KeyError, ValueError, ParseError, TypeError)
    try:
        # A formula that somebody wrote counts by what it came to.
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        with closing(book):
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # what programs note there is not always so
            for row in sheet.iter_rows(values_only=True):
                yield [_text(value) for value in row]
    except OSError as error:
        raise _unreadable(path, error) from None
    except (*broken, EOFError, IndexError) as error:
        fault = f"cannot be read as an Excel workbook ({printable(str(error))[:200]})"
        raise DataInvalid(str(path), fault, "save it as .xlsx again, or as CSV UTF-8") from None


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), str(value))


def _csv_rows(path: Path) -> Iterator[list[str]]:
    try:
        lines = list(io.StringIO(_decoded(path.read_bytes()), newline=""))
    except OSError as error:
        raise _unreadable(path, error) from None
    told = _SEPARATOR_LINE.match(lines[0]) if lines else None
    if told is not None:
        lines = lines[1:]
    delimiter = told[1] if told else _delimiter(lines)
    csv.field_size_limit(FIELD_CHARACTERS)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield [_QUOTED.sub("", text) for text in row]
    except csv.Error as error:
        fault = f"cannot be read ({error})"
        remedy = "save it as CSV UTF-8 again, or as .xlsx"
        raise DataInvalid(f"{path}: line {reader.line_num}", fault, remedy) from None


def _decoded(data: bytes) -> str:
    """Excel writes UTF-8 with a mark, UTF-16 as "Unicode text", else the code page of the country,
    which is Windows-1252 in most of those that do not use UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _delimiter(lines: Sequence[str]) -> str:
    """What stands most often between the names of the header; the comma where nothing does."""
    first = next((line for line in lines if line.strip(DELIMITERS + '\r\n "')), "")
    unquoted = re.sub(r'"[^"]*"', "", first)
    return max(DELIMITERS, key=unquoted.count)


def _unreadable(path: Path, error: OSError) -> DataInvalid:
    fault = f"cannot be read ({(error.strerror or str(error)).lower()})"
    return DataInvalid(str(path), fault, "check the path")
