"""Sheets in which people rate answers without knowing whose they are: `python -m
thinktune.tasks.evaluate.people.sheet`.

Called by `thinktune evaluate sheet`. Reads a RatingSheetRequest from stdin and prints
RatingSheetFacts.

What tells whose answers the rows hold is the key. It stays in the run's store: whoever reads the
sheets back needs the store anyway, and from a folder of sheets it would be sent along by mistake.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from thinktune.schema.errors import DeviceUnusable, SpecInvalid, near_misses
from thinktune.schema.ratings import (
    HIGHEST,
    LOWEST,
    RatingSheetFacts,
    RatingSheetRequest,
    SheetAnswer,
    SheetKey,
)
from thinktune.schema.report import BASE, TUNED
from thinktune.store import Store, open_store
from thinktune.tasks.evaluate.people.evaluated import (
    Evaluated,
    key_location,
    put_if_absent,
    read_evaluated,
    read_key,
)
from thinktune.tasks.evaluate.samples import Question, sample_key
from thinktune.tasks.runtime.answering import answer
from thinktune.text.spreadsheet import Column, cut_to_cell, write_sheet
from thinktune.text.think import split_generated

ID, RATING, COMMENT = "id", "rating", "comment"
NOTHING = "(no answer)"
"""Stands where a model gave none, so that its cell is not taken for a fault of the sheet."""
LETTERS = "bcdfghjklmnpqrstvwxz"
"""Of ids: they spell no word, no number and no date, so that no spreadsheet changes them."""
ID_LETTERS = 8


def main() -> NoReturn:
    """Answers one request."""
    answer(lambda said: write(RatingSheetRequest.model_validate_json(said)).model_dump_json())


def write(request: RatingSheetRequest) -> RatingSheetFacts:
    """Writes a sheet for each rater, and the key unless it is there: the same request gives the
    same sheets. Raises SpecInvalid, InputMissing, DeviceUnusable."""
    store = open_store(request.store)
    paths = _paths(request)
    evaluated = read_evaluated(store, request.run)
    arms = _arms(request.arms, evaluated.arms)
    questions = _drawn(evaluated.questions, request.seed)[: request.questions]
    place, key, written_before = _key(store, request, evaluated, arms, questions)
    columns = [Column(ID, 12), Column("question", 45), Column("reference", 35)]
    columns += [Column("reasoning", 60)] if request.reasoning else []
    columns += [Column("answer", 60), Column(RATING, 9, (LOWEST, HIGHEST)), Column(COMMENT, 35)]
    texts = _texts(request, evaluated, key, questions)
    shown = {id_: [cut_to_cell(text) for text in cells] for id_, cells in texts.items()}
    _make(Path(request.folder))
    for rater, path in enumerate(paths, start=1):
        rows = sorted(shown, key=lambda id_: _hash(rater, id_))
        write_sheet(path, columns, [[id_, *shown[id_], "", ""] for id_ in rows])
    return RatingSheetFacts(
        files=tuple(map(str, paths)),
        key=store.location(place),
        questions=len(questions),
        arms=tuple(arms),
        rows=len(shown),
        cut=sum(a != b for id_ in shown for a, b in zip(shown[id_], texts[id_], strict=True)),
        written_before=written_before,
    )


def _paths(request: RatingSheetRequest) -> list[Path]:
    """Of all sheets. Raises SpecInvalid where one is there: it may have ratings in it."""
    names = [f"{request.run}-{rater}.{request.kind}" for rater in range(1, request.raters + 1)]
    paths = [Path(request.folder) / name for name in names]
    for path in paths:
        if path.exists():
            fault = "it is there already, and may have ratings in it"
            remedy = "name another folder with --out, or delete the file"
            raise SpecInvalid(str(path), fault, remedy)
    return paths


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = (error.strerror or str(error)).lower()
        raise DeviceUnusable(str(folder), fault, "name another folder with --out") from None


def _arms(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    for arm in wanted:
        if arm not in known:
            raise SpecInvalid("--arm", f"no answers of an arm '{arm}'", near_misses(arm, known))
    chosen = wanted or [arm for arm in (BASE, TUNED) if arm in known] or known
    return [arm for arm in known if arm in chosen]


def _drawn(questions: Sequence[Question], seed: int) -> list[Question]:
    return sorted(questions, key=lambda asked: _hash(seed, asked.id))


def _key(
    store: Store,
    request: RatingSheetRequest,
    evaluated: Evaluated,
    arms: Sequence[str],
    questions: Sequence[Question],
) -> tuple[str, SheetKey, bool]:
    """Where the key is, the key, and whether it was there already."""
    decides = json.dumps([evaluated.digest, request.seed, len(questions), arms])
    place = key_location(request.run, hashlib.sha256(decides.encode()).hexdigest()[:12])
    answers = [
        SheetAnswer(question=asked.id, arm=arm, sample=0) for asked in questions for arm in arms
    ]
    key = SheetKey(
        run=request.run,
        evaluation=evaluated.digest,
        seed=request.seed,
        rows=dict(zip(_ids(len(answers)), answers, strict=True)),
    )
    if put_if_absent(store, place, key):
        return place, key, False
    return place, read_key(store, place), True


def _ids(count: int) -> list[str]:
    """Different ones. They are drawn at random: from the seed a rater could compute the arms."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(secrets.choice(LETTERS) for _ in range(ID_LETTERS))] = None
    return list(found)


def _texts(
    request: RatingSheetRequest,
    evaluated: Evaluated,
    key: SheetKey,
    questions: Sequence[Question],
) -> Mapping[str, list[str]]:
    """What stands in each row between its id and its rating."""
    asked = {question.id: question for question in questions}
    found = {}
    for id_, row in key.rows.items():
        question = asked[row.question]
        sample = evaluated.samples[sample_key(row.arm, row.sample, row.question)]
        parsed = split_generated(sample.text, prompt_opens_think=sample.prompt_opens_think)
        cells = [question.question, question.reference or question.answer]
        cells += [parsed.thinking.strip()] if request.reasoning else []
        found[id_] = [*cells, parsed.answer.strip() or NOTHING]
    return found


def _hash(first: int, second: str) -> str:
    return hashlib.sha256(f"{first}:{second}".encode()).hexdigest()


if __name__ == "__main__":
    main()
