"""A spreadsheet of examples for experts to correct, and what they made of it: `python -m
thinktune.tasks.prep.sheet`.

Called by `thinktune data sheet`. Reads a SheetRequest from stdin. Rows are taken as prep does, with
the column that a language model writes; what is read back becomes JSON lines for a recipe.

Cells are text whatever they begin with, so that a row's `=…` is no formula; in CSV, where nothing
says so, an apostrophe stands before it and is taken off again.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NoReturn
from zipfile import BadZipFile

from openpyxl import Workbook, load_workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.styles import Alignment, Font
from openpyxl.utils.exceptions import InvalidFileException

from thinktune.schema.data_check import SheetFacts, SheetRequest
from thinktune.schema.errors import DataInvalid, SpecInvalid
from thinktune.tasks.prep.answering import answer, quiet_context
from thinktune.tasks.prep.generated import with_generated
from thinktune.tasks.prep.ledger import Ledger
from thinktune.tasks.prep.recognition import recognized
from thinktune.tasks.prep.rows import Example, examples_of
from thinktune.tasks.prep.selection import Filters
from thinktune.tasks.prep.sources import open_source
from thinktune.tasks.runtime.stopping import Stop
from thinktune.text.conversation import Unusable
from thinktune.text.visible import printable

GIVEN = ("id", "question", "reasoning", "answer")
CORRECTED = ("corrected reasoning", "corrected answer")
KEEP, COMMENT = "keep (yes or no)", "comment"
HEADER = (*GIVEN, *CORRECTED, KEEP, COMMENT)
CELL_CHARACTERS = 32_767
"""Of a cell in Excel; what is longer would be cut without a word."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
YES, NO = ("yes", "y", "ja", "oui", "1", "true", "x"), ("no", "n", "nein", "non", "0", "false")


def main() -> NoReturn:
    """Answers one request."""
    answer(_answered)


def _answered(said: str) -> str:
    request = SheetRequest.model_validate_json(said)
    return (write(request) if request.read is None else read(request)).model_dump_json()


def write(request: SheetRequest) -> SheetFacts:
    """Writes the sheet. Raises what prep does."""
    path = Path(request.out)
    excel = _is_excel(path)
    ledger = Ledger()
    rows: list[tuple[str, ...]] = []
    left = 0
    for example in islice(_examples(request, ledger), request.rows):
        cells = (example.id, example.question, example.reasoning or "", example.answer)
        if excel and max(map(len, cells)) > CELL_CHARACTERS:
            left += 1
            continue
        rows.append((*cells, "", "", "", ""))
    (_write_excel if excel else _write_csv)(path, rows)
    return SheetFacts(rows=len(rows), dropped=dict(ledger.counts()), too_long=left)


def read(request: SheetRequest) -> SheetFacts:
    """Writes what experts made of the sheet as JSON lines. Raises DataInvalid for a sheet that is
    not one of ours, or that holds what no expert can have meant."""
    path = Path(request.read or "")
    rows = _read_excel(path) if _is_excel(path) else _read_csv(path)
    header = next(rows, [])
    missing = [name for name in HEADER if name not in header]
    if missing:
        fault = f"has no column '{missing[0]}'"
        raise DataInvalid(
            str(path), fault, "give back the sheet as it was written, with its header"
        )
    kept = corrected = out = 0
    with Path(request.out).open("w", encoding="utf-8") as file:
        for number, values in enumerate(rows, start=2):
            cells = dict(zip(header, values, strict=False))
            if not any(values):
                continue
            if not _keeps(cells[KEEP], f"{path}: row {number}"):
                out += 1
                continue
            kept += 1
            corrected += any(cells[name].strip() for name in CORRECTED)
            row = {
                "id": cells["id"],
                "question": cells["question"],
                "reasoning": cells[CORRECTED[0]].strip() or cells["reasoning"],
                "answer": cells[CORRECTED[1]].strip() or cells["answer"],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return SheetFacts(rows=kept, corrected=corrected, not_kept=out)


def _examples(request: SheetRequest, ledger: Ledger) -> Iterator[Example]:
    task = request.task
    with Stop.on_signals() as stop:
        context = quiet_context(task, stop)
        with open_source(task, context) as source:
            written = with_generated(source.records, task, context, ledger)
            layout, _, records = recognized(written, task.data, task.dataset, source.place)
            filters = Filters(task.data.filters)
            for record in records:
                ledger.rows += 1
                try:
                    row = record.read()
                    reason = filters.reason(row)
                    if reason is not None:
                        raise Unusable(reason)
                    yield from examples_of(row, layout, task.data).examples
                except Unusable as unusable:
                    ledger.drop(unusable.reason, record.place, bad=True)


def _is_excel(path: Path) -> bool:
    if path.suffix.lower() not in (".xlsx", ".csv"):
        raise SpecInvalid(str(path), "is no kind of sheet", "name it .xlsx or .csv")
    return path.suffix.lower() == ".xlsx"


def _write_excel(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    book = Workbook(write_only=True)
    sheet = book.create_sheet("examples")
    sheet.freeze_panes = "B2"
    for column, width in zip("ABCDEFGH", (14, 50, 60, 40, 60, 40, 10, 30), strict=True):
        sheet.column_dimensions[column].width = width

    def cell(text: str, *, bold: bool = False) -> WriteOnlyCell:
        made = WriteOnlyCell(sheet, "")
        made.value = "\n".join(printable(line) for line in text.split("\n"))
        made.data_type = "s"  # text, whatever it begins with
        made.alignment = Alignment(wrap_text=True, vertical="top")
        made.font = Font(bold=bold)
        return made

    sheet.append([cell(name, bold=True) for name in HEADER])
    for row in rows:
        sheet.append([cell(text) for text in row])
    with closing(book):
        book.save(path)


def _write_csv(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for row in rows:
            writer.writerow([f"'{text}" if text.startswith(FORMULA) else text for text in row])


def _read_excel(path: Path) -> Iterator[list[str]]:
    try:
        book = load_workbook(path, read_only=True)
    except (OSError, InvalidFileException, BadZipFile, KeyError, ValueError) as error:
        fault = f"cannot be read as an Excel workbook ({error})"
        raise DataInvalid(str(path), fault, "save it as .xlsx again, or as CSV UTF-8") from None
    with closing(book):
        for row in book.worksheets[0].iter_rows(values_only=True):
            yield ["" if value is None else str(value) for value in row]


def _read_csv(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = ";" if file.readline().count(";") > len(GIVEN) else ","
            file.seek(0)
            for row in csv.reader(file, delimiter=delimiter):
                yield [_without_apostrophe(text) for text in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        remedy = "save it as CSV UTF-8, or as .xlsx"
        raise DataInvalid(str(path), f"cannot be read ({error})", remedy) from None


def _without_apostrophe(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def _keeps(said: str, place: str) -> bool:
    word = said.strip().lower()
    if word in NO:
        return False
    if word and word not in YES:
        raise DataInvalid(place, f"'{printable(said)[:40]}' under '{KEEP}'", "write yes or no")
    return True


if __name__ == "__main__":
    main()
