"""What people wrote into files: ratings and verdicts by answer, and the rows that do not count.

Called by `ratings` and `agreement`. Each file is one person's.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinktune.schema.errors import DataInvalid, SpecInvalid
from thinktune.schema.ratings import HIGHEST, LOWEST, SheetAnswer, SheetProblem
from thinktune.text.spreadsheet import KINDS, read_sheet
from thinktune.text.visible import printable

NO_ID = "no id"
UNKNOWN_ID = "an id of no answer of this run"
TWICE = "rated twice in one file"
OUT_OF_RANGE = f"not from {LOWEST} to {HIGHEST}"
NOT_WHOLE = "not a whole number"
NO_NUMBER = "not a number"
NO_VERDICT = "neither yes nor no"
SAID_CHARACTERS = 40

YES = frozenset(("yes", "y", "true", "correct", "right", "1", "ja", "j", "oui", "sí", "si"))
NO = frozenset(("no", "n", "false", "incorrect", "wrong", "0", "nein", "non"))
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d*)?")


class UnreadableMark(Exception):
    """Something that is no rating or verdict; its text is the problem."""


Find = Callable[[str], SheetAnswer | None]
"""The answer of an id; None where no answer has it."""
Read = Callable[[str], int]
"""A value from what stands there, from 0. Raises UnreadableMark."""


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    number: int
    cells: Mapping[str, str]
    """Text by the column's name, in lower case."""

    @property
    def id(self) -> str:
        """What stands there for the answer's id."""
        return self.cells.get("id", "").strip()


@dataclass(frozen=True)
class Marks:
    """What one file says."""

    values: Mapping[str, Mapping[SheetAnswer, int]]
    """Values by the name of their column, and by answer."""
    ids: frozenset[str]
    """The ids of answers that the file has a row for, blank ones included."""
    problems: tuple[SheetProblem, ...]


def read_rating(text: str) -> int:
    """Which of the ratings it is, from 0: `4`, `4.0` and `4,0` are the same. Raises
    UnreadableMark."""
    plain = unicodedata.normalize("NFKC", text).strip()
    if _NUMBER.fullmatch(plain) is None:
        raise UnreadableMark(NO_NUMBER)
    value = float(plain.replace(",", "."))
    if not LOWEST <= value <= HIGHEST:
        raise UnreadableMark(OUT_OF_RANGE)
    if not value.is_integer():
        raise UnreadableMark(NOT_WHOLE)
    return int(value) - LOWEST


def read_verdict(text: str) -> int:
    """1 for a yes, 0 for a no. Raises UnreadableMark."""
    word = unicodedata.normalize("NFKC", text).strip().lower()
    if word not in YES | NO:
        raise UnreadableMark(NO_VERDICT)
    return int(word in YES)


def check_files(files: Sequence[str]) -> None:
    """Raises SpecInvalid where one person's file is given twice, DataInvalid where one cannot be
    read."""
    seen: dict[str, str] = {}
    for file in files:
        try:
            digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        except OSError as error:
            fault = f"cannot be read ({(error.strerror or str(error)).lower()})"
            raise DataInvalid(file, fault, "check the path") from None
        if digest in seen:
            fault = f"it is the same as {seen[digest]}" if seen[digest] != file else "given twice"
            raise SpecInvalid(file, fault, "name each person's file once")
        seen[digest] = file


def read_marks(file: str, columns: Mapping[str, Read], find: Find, *, run: str) -> Marks:
    """What a file says in those of `columns` that it has. Raises DataInvalid for a file that cannot
    be read, and for one that is about another run."""
    values: dict[str, dict[SheetAnswer, int]] = {name: {} for name in columns}
    seen: dict[str, dict[SheetAnswer, tuple[Row, str]]] = {name: {} for name in columns}
    known: set[str] = set()
    problems: list[SheetProblem] = []
    ids = 0
    for row in _rows(Path(file), columns):
        id_ = row.id
        ids += bool(id_)
        about = find(id_) if id_ else None
        if about is not None:
            known.add(id_)
        for name, read in columns.items():
            said = row.cells.get(name, "")
            if not said.strip():
                continue
            try:
                if about is None:
                    raise UnreadableMark(UNKNOWN_ID if id_ else NO_ID)
                if about in seen[name]:
                    # Which of the two is meant nobody knows.
                    if values[name].pop(about, None) is not None:
                        problems.append(_problem(file, *seen[name][about], TWICE))
                    raise UnreadableMark(TWICE)
                seen[name][about] = row, said
                values[name][about] = read(said)
            except UnreadableMark as problem:
                problems.append(_problem(file, row, said, str(problem)))
    if not known:
        fault = f"none of its {ids} ids is of an answer of run {run}" if ids else "it has no ids"
        raise DataInvalid(file, fault, "name the run whose answers are in it")
    return Marks(values, frozenset(known), tuple(problems))


def _problem(file: str, row: Row, said: str, problem: str) -> SheetProblem:
    shown = [printable(" ".join(text.split()))[:SAID_CHARACTERS] for text in (row.id, said)]
    return SheetProblem(file=file, row=row.number, id=shown[0], problem=problem, said=shown[1])


def _rows(path: Path, columns: Collection[str]) -> Iterator[Row]:
    """The file's rows, which have one of the columns at least."""
    if path.suffix.lower() == ".jsonl":
        rows = list(_json_rows(path))
        missing = not any(name in row.cells for row in rows for name in columns)
    elif path.suffix.lower() in KINDS:
        rows = [Row(row.number, row.cells) for row in read_sheet(path, ["id"])]
        missing = bool(rows) and not any(name in rows[0].cells for name in columns)
    else:
        remedy = "give a .csv, .xlsx or .jsonl file; from other programs, save it as .xlsx"
        raise DataInvalid(str(path), f"'{path.suffix}' is no kind of file that is read", remedy)
    if missing:
        named = " or ".join(f"'{name}'" for name in columns)
        raise DataInvalid(str(path), f"no column {named}", "name it so in the header")
    yield from rows


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        fault = f"cannot be read ({(error.strerror or str(error)).lower()})"
        raise DataInvalid(str(path), fault, "check the path") from None
    except UnicodeDecodeError:
        raise DataInvalid(str(path), "it is not UTF-8", "save it as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            fault = "it is no JSON object"
            raise DataInvalid(f"{path}:{number}", fault, "write an object a line")
        yield Row(number, {str(name).strip().lower(): _text(value) for name, value in row.items()})


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)
