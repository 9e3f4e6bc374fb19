"""A spreadsheet of examples for experts to correct, and what they made of it: `python -m
thinktune.tasks.prep.sheet`.

Called by `thinktune data sheet`. Reads a SheetRequest from stdin. Rows are taken as prep does, with
the column that a language model writes; what is read back becomes JSON lines for a recipe.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NoReturn

from thinktune.schema.data_check import SheetFacts, SheetRequest
from thinktune.schema.errors import DataInvalid
from thinktune.tasks.prep.answering import quiet_context
from thinktune.tasks.prep.generated import with_generated
from thinktune.tasks.prep.ledger import Ledger
from thinktune.tasks.prep.recognition import recognized
from thinktune.tasks.prep.rows import Example, examples_of
from thinktune.tasks.prep.selection import Filters
from thinktune.tasks.prep.sources import open_source
from thinktune.tasks.runtime.answering import answer
from thinktune.tasks.runtime.stopping import Stop
from thinktune.text.conversation import Unusable
from thinktune.text.spreadsheet import (
    CELL_CHARACTERS,
    Column,
    cell_length,
    is_excel,
    read_sheet,
    write_sheet,
)
from thinktune.text.visible import printable

GIVEN = ("id", "question", "reasoning", "answer")
CORRECTED = ("corrected reasoning", "corrected answer")
KEEP, COMMENT = "keep (yes or no)", "comment"
HEADER = (*GIVEN, *CORRECTED, KEEP, COMMENT)
WIDTHS = (14, 50, 60, 40, 60, 40, 10, 30)
"""Of the columns, in characters."""
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
    excel = is_excel(path)
    ledger = Ledger()
    rows: list[tuple[str, ...]] = []
    left = 0
    for example in islice(_examples(request, ledger), request.rows):
        cells = (example.id, example.question, example.reasoning or "", example.answer)
        if excel and max(map(cell_length, cells)) > CELL_CHARACTERS:
            left += 1
            continue
        rows.append((*cells, "", "", "", ""))
    columns = [Column(name, width) for name, width in zip(HEADER, WIDTHS, strict=True)]
    write_sheet(path, columns, rows)
    return SheetFacts(rows=len(rows), dropped=dict(ledger.counts()), too_long=left)


def read(request: SheetRequest) -> SheetFacts:
    """Writes what experts made of the sheet as JSON lines. Raises DataInvalid for a sheet that is
    not one of ours, or that holds what no expert can have meant."""
    path = Path(request.read or "")
    kept = corrected = out = 0
    rows = list(read_sheet(path, HEADER))  # before the file to write is opened
    with Path(request.out).open("w", encoding="utf-8") as file:
        for found in rows:
            cells, number = found.cells, found.number
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


def _keeps(said: str, place: str) -> bool:
    word = said.strip().lower()
    if word in NO:
        return False
    if word and word not in YES:
        raise DataInvalid(place, f"'{printable(said)[:40]}' under '{KEEP}'", "write yes or no")
    return True


if __name__ == "__main__":
    main()
