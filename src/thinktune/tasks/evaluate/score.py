"""Judges answers of any origin without a model: `python -m thinktune.tasks.evaluate.score`.

Reads a `ScoreRequest` on stdin and prints a `ScoreReport`. The verdicts are those of an evaluation.
A row that has no text where text is wanted gets no verdict and is counted; it ends nothing.
"""

import csv
import json
import math
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from thinktune.schema.errors import DataInvalid, ThinktuneError, near_misses
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.report import Verifier
from thinktune.schema.score import ScoredRow, ScoreReport, ScoreRequest
from thinktune.text.choices import option_letters
from thinktune.text.final_answer import final_answer
from thinktune.text.think import split_generated
from thinktune.text.verifiers import (
    CHECK_RULES,
    Checked,
    check_all,
    checkable,
    choose_verifier,
)

Z95 = 1.959963984540054
CSV_FIELD_BYTES = 2**27
MOST_BITS = 4096
"""Of an integer that is read; Python refuses to print much larger ones."""
Row = Mapping[str, Any]

NOT_JSON = "not a JSON object"
NO_REFERENCE = "no reference that can be checked"
NO_ANSWER = "no text in the answer's column"
EMPTY = "empty answer"
UNFINISHED = "thinking never ends"
SEVERAL = "several options named"


def score(request: ScoreRequest) -> ScoreReport:
    """Judges all rows. Raises DataInvalid for a file that cannot be read or has no such columns."""
    rows = list(_rows(Path(request.file)))
    _check_columns(request, rows)
    references = [_text(row.get(request.reference)) if row else None for row in rows]
    verifier: Verifier = request.verifier or choose_verifier(references)
    cases: dict[int, tuple[str, str]] = {}
    problems: dict[int, str] = {}
    for number, (row, reference) in enumerate(zip(rows, references, strict=True)):
        said = _text(row.get(request.answer)) if row else None
        if row is None:
            problems[number] = NOT_JSON
        elif reference is None or not checkable(reference, verifier):
            problems[number] = NO_REFERENCE
        elif said is None:
            problems[number] = NO_ANSWER
        else:
            parsed = split_generated(said, prompt_opens_think=False)
            final = final_answer(parsed.answer, request.marker) if request.marker else None
            if not parsed.answer.strip():
                problems[number] = EMPTY if parsed.closed else UNFINISHED
            cases[number] = (final or parsed.answer, reference)
    letters = option_letters(references)
    checked = dict(
        zip(cases, check_all(list(cases.values()), verifier, letters=letters), strict=True)
    )
    problems |= {number: SEVERAL for number, found in checked.items() if found.several}
    return _report(verifier, rows, checked, problems)


def _report(
    verifier: Verifier,
    rows: list[Row | None],
    checked: Mapping[int, Checked],
    problems: Mapping[int, str],
) -> ScoreReport:
    right = sum(found.correct for found in checked.values())
    scored = len(checked)
    verdicts = []
    for number, row in enumerate(rows):
        found = checked.get(number)
        id_ = _text(row.get("id")) if row else None
        verdicts.append(
            ScoredRow(
                id=id_ or f"row {number + 1}",
                extracted=found.extracted if found else None,
                correct=found.correct if found else None,
                problem=problems.get(number),
            )
        )
    return ScoreReport(
        verifier=verifier,
        rule=CHECK_RULES[verifier],
        rows=len(rows),
        scored=scored,
        correct=right,
        accuracy=right / scored if scored else None,
        ci95=wilson(right, scored) if scored else None,
        problems=dict(Counter(problems.values()).most_common()),
        verdicts=tuple(verdicts),
    )


def wilson(right: int, of: int) -> tuple[float, float]:
    """95% interval of a share (Wilson, JASA 22, 1927)."""
    share, square = right / of, Z95**2
    middle = share + square / (2 * of)
    half = Z95 * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return max(0.0, (middle - half) / (1 + square / of)), min(
        1.0, (middle + half) / (1 + square / of)
    )


def _rows(path: Path) -> Iterator[Row | None]:
    """None for a line that is no object."""
    remedy = "give a .jsonl or .csv file with a column of answers and one of references"
    if path.suffix not in (".jsonl", ".csv"):
        raise DataInvalid(str(path), f"'{path.suffix}' is no kind of file that is read", remedy)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                csv.field_size_limit(CSV_FIELD_BYTES)
                yield from csv.DictReader(file)
                return
            for line in file:
                if line.strip():
                    yield _object(line)
    except OSError as error:
        raise DataInvalid(str(path), str(error.strerror), remedy) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataInvalid(str(path), f"cannot be read ({error})", "save it as UTF-8") from None


def _object(line: str) -> Row | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(value: object) -> str | None:
    """The value where it is text or a number; NaN, lists and the like are neither."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # half characters are no text
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return str(value) if value.bit_length() <= MOST_BITS else None
    return str(value) if math.isfinite(value) else None


def _check_columns(request: ScoreRequest, rows: list[Row | None]) -> None:
    known = {str(name) for row in rows if row for name in row}
    for column in (request.answer, request.reference):
        if column not in known:
            fault = f"no row has a column '{column}'"
            remedy = f"name it with --answer and --reference; {near_misses(column, known)}"
            raise DataInvalid(request.file, fault, remedy)


def main() -> int:
    """Answers one request on stdin."""
    try:
        report = score(ScoreRequest.model_validate_json(sys.stdin.read()))
    except ThinktuneError as error:
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)
    sys.stdout.write(report.model_dump_json() + "\n")
    return int(ExitCode.DONE)


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
