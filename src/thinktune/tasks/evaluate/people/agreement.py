"""How far the judge of an evaluation agrees with people: `python -m
thinktune.tasks.evaluate.people.agreement`.

Called by `thinktune evaluate agreement`. Reads an AgreementRequest from stdin and prints an
AgreementReport. An id in a file is a row of one of the run's sheets, or an answer's own key as in
judge.jsonl.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NoReturn

import numpy as np

from thinktune.schema.errors import DataInvalid
from thinktune.schema.manifest import Manifest
from thinktune.schema.ratings import (
    HIGHEST,
    LOWEST,
    AgreementReport,
    AgreementRequest,
    JudgeAgreement,
    SheetAnswer,
)
from thinktune.store import Store, manifest_digest, open_store
from thinktune.tasks.evaluate.judge import ORDERS, verdicts_of
from thinktune.tasks.evaluate.judge import RATING as ASKED_RATING
from thinktune.tasks.evaluate.people.evaluated import read_judged, read_keys
from thinktune.tasks.evaluate.people.marks import (
    Marks,
    check_files,
    read_marks,
    read_rating,
    read_verdict,
)
from thinktune.tasks.evaluate.people.reliability import cohens_kappa
from thinktune.tasks.evaluate.people.sheet import RATING
from thinktune.tasks.evaluate.samples import Sample, sample_key
from thinktune.tasks.evaluate.statistics import figure_interval
from thinktune.tasks.runtime.answering import answer

CORRECT = "correct"
SEED = 0
"""Of the resamples: the same files give the same report."""
FEW_LABELS = 50
"""Fewer labels than this say little of a judge."""
RULE = (
    "κ is the agreement beyond what two who judge independently would reach, with each one's own "
    "share of every verdict; of ratings it is weighted by the square of the difference. An answer "
    "counts once for each person. Intervals are at 95%: bootstrap over questions, percentiles. "
    "Answers without a verdict of the judge are left out and counted."
)

Labels = Sequence[tuple[str, Mapping[SheetAnswer, int]]]
"""Values of one kind by the file, and by answer."""


def main() -> NoReturn:
    """Answers one request."""
    answer(lambda said: compare(AgreementRequest.model_validate_json(said)).model_dump_json())


def compare(request: AgreementRequest) -> AgreementReport:
    """Reads all files. Raises InputMissing where no language model judged, DataInvalid for a file
    that is about another run or says nothing that the judge says too."""
    check_files(request.files)
    store = open_store(request.store)
    manifest, samples, replies = read_judged(store, request.run)
    ids = _ids(store, request.run, manifest, samples)
    columns = {CORRECT: read_verdict, RATING: read_rating}
    found = {file: read_marks(file, columns, ids.get, run=request.run) for file in request.files}
    said = verdicts_of(replies)
    asked = {reply.asked for reply in replies}
    correct = rating = None
    if asked & set(ORDERS):
        verdicts = {key: verdict.correct for key, verdict in said.items()}
        correct = _agreement(_labels(found, CORRECT), verdicts, "none", ("incorrect", "correct"))
    if ASKED_RATING in asked:
        ratings = {
            key: None if verdict.rating is None else int(verdict.rating) - LOWEST
            for key, verdict in said.items()
        }
        names = tuple(str(value) for value in range(LOWEST, HIGHEST + 1))
        rating = _agreement(_labels(found, RATING), ratings, "quadratic", names)
    if correct is None and rating is None:
        _refuse(request, found, asked)
    problems = [problem for marks in found.values() for problem in marks.problems]
    return AgreementReport(
        run=request.run,
        labels={file: sum(map(len, marks.values.values())) for file, marks in found.items()},
        correct=correct,
        rating=rating,
        problems=dict(Counter(problem.problem for problem in problems).most_common()),
        rows=tuple(problems),
        notes=tuple(_notes(correct, rating)),
        rule=RULE,
    )


def _ids(
    store: Store, run: str, manifest: Manifest, samples: Mapping[str, Sample]
) -> dict[str, SheetAnswer]:
    """Answers by their keys, and by the rows of the evaluation's sheets."""
    digest = manifest_digest(manifest)
    rows = {
        id_: about
        for key in read_keys(store, run)
        if key.evaluation == digest
        for id_, about in key.rows.items()
    }
    return rows | {
        key: SheetAnswer(question=sample.question_id, arm=sample.arm, sample=sample.sample)
        for key, sample in samples.items()
    }


def _labels(found: Mapping[str, Marks], column: str) -> Labels:
    return [(file, marks.values[column]) for file, marks in found.items() if marks.values[column]]


def _refuse(request: AgreementRequest, found: Mapping[str, Marks], asked: set[str]) -> None:
    judged = [CORRECT] * bool(asked & set(ORDERS)) + [RATING] * (ASKED_RATING in asked)
    named = " and ".join(f"'{name}'" for name in judged)
    people = [name for name in (CORRECT, RATING) if _labels(found, name)]
    said = " and ".join(f"'{name}'" for name in people) or "nothing that can be read"
    fault = f"the judge of run {request.run} says {named}, and here stands {said}"
    remedy = f"give people's labels in a column {named}, one for each answer"
    raise DataInvalid(", ".join(request.files), fault, remedy)


def _agreement(
    labels: Labels,
    verdicts: Mapping[str, int | None],
    weights: Literal["none", "quadratic"],
    names: tuple[str, ...],
) -> JudgeAgreement | None:
    """None where people say nothing of the kind."""
    if not labels:
        return None
    size = len(names)
    tables: dict[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]] = {}
    by_arm: dict[str, list[bool]] = {}
    unjudged: set[SheetAnswer] = set()
    for _, of_person in labels:
        for about, value in of_person.items():
            said = verdicts.get(sample_key(about.arm, about.sample, about.question))
            if said is None:
                unjudged.add(about)
                continue
            table = tables.setdefault(about.question, np.zeros((size, size)))
            table[value, int(said)] += 1
            by_arm.setdefault(about.arm, []).append(value == int(said))
    questions = sorted(tables)
    parts = np.asarray([tables[question].reshape(-1) for question in questions])
    whole = sum(tables.values(), np.zeros((size, size)))
    kappa = cohens_kappa(size, weights)
    found = float(kappa(whole.reshape(-1)))
    pairs = int(whole.sum())
    return JudgeAgreement(
        pairs=pairs,
        questions=len(questions),
        agreement=float(np.trace(whole)) / pairs if pairs else None,
        kappa=None if math.isnan(found) else found,
        ci95=None if math.isnan(found) else figure_interval(parts, kappa, seed=SEED),
        weights=weights,
        labels=names,
        table=tuple(tuple(int(count) for count in row) for row in whole),
        by_arm={arm: sum(same) / len(same) for arm, same in by_arm.items()},
        no_verdict=len(unjudged),
    )


def _notes(correct: JudgeAgreement | None, rating: JudgeAgreement | None) -> list[str]:
    notes = []
    for name, found in (("whether answers are correct", correct), ("ratings", rating)):
        if found is None:
            continue
        if found.pairs < FEW_LABELS:
            notes.append(
                f"Only {found.pairs} answers were judged by both, as to {name}; below {FEW_LABELS}"
                ", κ says little of a judge."
            )
        if found.pairs and found.kappa is None:
            notes.append(
                f"As to {name}, all verdicts of both are the same, so that chance alone would "
                "agree as well: κ is not defined."
            )
    return notes


if __name__ == "__main__":
    main()
