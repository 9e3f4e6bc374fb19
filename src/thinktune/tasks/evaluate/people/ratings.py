"""What people's ratings come to, from the sheets that they filled: `python -m
thinktune.tasks.evaluate.people.ratings`.

Called by `thinktune evaluate sheet --read`. Reads a RatingsRequest from stdin and prints a
RatingsReport. The artifact of the evaluation stays as it was committed: a report that is to be kept
is put beside the keys.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from thinktune.schema.errors import DataInvalid, InputMissing
from thinktune.schema.keys import ratings_key, sheets_prefix
from thinktune.schema.ratings import (
    HIGHEST,
    LOWEST,
    ArmRatings,
    RaterAgreement,
    RaterFacts,
    RatingsReport,
    RatingsRequest,
    SheetAnswer,
    SheetKey,
)
from thinktune.schema.report import TUNED, PairedTest
from thinktune.store import Store, manifest_digest, open_store
from thinktune.tasks.evaluate import statistics
from thinktune.tasks.evaluate.people.evaluated import read_keys
from thinktune.tasks.evaluate.people.marks import Marks, check_files, read_marks, read_rating
from thinktune.tasks.evaluate.people.reliability import coincidences, ordinal_alpha
from thinktune.tasks.evaluate.people.sheet import RATING
from thinktune.tasks.evaluate.statistics import FEW_QUESTIONS, figure_interval, ratio
from thinktune.tasks.runtime.answering import answer
from thinktune.tasks.runtime.inputs import stage_manifest

SEED = 0
"""Of the resamples and exchanges: the same files give the same report."""
VALUES = HIGHEST - LOWEST + 1
SAME_RATINGS = 10
"""Two files with so many ratings, all the same, are said to look like one person's."""
RELIABLE, TENTATIVE = 0.8, 0.667
"""What Krippendorff asks of α (Content Analysis, 2004, chapter 11)."""
RULE = (
    "The rating of an answer is the mean over the people who rated it, an arm's is the mean over "
    "its answers. Intervals are at 95%: bootstrap over questions, percentiles. The tests pair the "
    "answers to a question that the same people rated: their means are exchanged at random, "
    "question by question, two-sided, with Holm's adjustment over the tests."
)

ByAnswer = Mapping[SheetAnswer, Sequence[int]]
"""All ratings of each answer that has some, from LOWEST."""


def main() -> NoReturn:
    """Answers one request."""
    answer(lambda said: read(RatingsRequest.model_validate_json(said)).model_dump_json())


def read(request: RatingsRequest) -> RatingsReport:
    """Reads all files, and keeps the report if that is asked for. Raises InputMissing where no
    sheet of the run was written, DataInvalid for a file that is none of its sheets."""
    check_files(request.files)
    store = open_store(request.store)
    keys, earlier = _keys(store, request.run)
    ids = {id_: about for key in keys for id_, about in key.rows.items()}
    found = [_marks(file, ids, earlier, request.run) for file in request.files]
    touched = [key for key in keys if any(not marks.ids.isdisjoint(key.rows) for marks in found)]
    report = rated(request.run, request.files, found, touched)
    if request.keep:
        text = json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False)
        store.put(ratings_key(request.run), text.encode())
    return report


def rated(
    run: str, files: Sequence[str], found: Sequence[Marks], keys: Sequence[SheetKey]
) -> RatingsReport:
    """The report of what the files say of the answers in the sheets of `keys`."""
    sheet = dict.fromkeys(about for key in keys for about in key.rows.values())
    arms = list(dict.fromkeys(about.arm for about in sheet))
    ratings = [
        {about: value + LOWEST for about, value in marks.values[RATING].items()} for marks in found
    ]
    by_answer: dict[SheetAnswer, list[int]] = {}
    for of_rater in ratings:
        for about, value in of_rater.items():
            by_answer.setdefault(about, []).append(value)
    compared = None if len(arms) < 2 else TUNED if TUNED in arms else arms[-1]
    problems = [problem for marks in found for problem in marks.problems]
    tests = _tests(ratings, compared, arms)
    report = RatingsReport(
        run=run,
        evaluation=keys[0].evaluation,
        questions=len({about.question for about in sheet}),
        raters=tuple(
            _rater(file, marks, of_rater, keys)
            for file, marks, of_rater in zip(files, found, ratings, strict=True)
        ),
        arms={arm: _arm(arm, by_answer) for arm in arms},
        compared=compared,
        tests=tests,
        agreement=_agreement(ratings, by_answer),
        problems=dict(Counter(problem.problem for problem in problems).most_common()),
        rows=tuple(problems),
        notes=(),
        rule=RULE,
    )
    return report.model_copy(update={"notes": tuple(_notes(report, ratings))})


def _keys(store: Store, run: str) -> tuple[list[SheetKey], set[str]]:
    """The keys of the evaluation that is there, and the ids of sheets of earlier ones."""
    digest = manifest_digest(stage_manifest(store, run, "evaluate"))
    every = read_keys(store, run)
    if not every:
        fault = f"no sheet of run {run} was written"
        remedy = f"`thinktune evaluate sheet {run}` writes one"
        raise InputMissing(store.location(sheets_prefix(run)), fault, remedy)
    earlier = {id_ for key in every if key.evaluation != digest for id_ in key.rows}
    return [key for key in every if key.evaluation == digest], earlier


def _marks(file: str, ids: Mapping[str, SheetAnswer], earlier: set[str], run: str) -> Marks:
    old: list[str] = []

    def find(id_: str) -> SheetAnswer | None:
        if id_ in earlier:
            old.append(id_)
        return ids.get(id_)

    try:
        return read_marks(file, {RATING: read_rating}, find, run=run)
    except DataInvalid:
        if not old:
            raise
        fault = f"its answers are of an earlier evaluation of run {run}, which is gone"
        raise DataInvalid(file, fault, "write new sheets and have them rated") from None


def _rater(
    file: str, marks: Marks, ratings: Mapping[SheetAnswer, int], keys: Sequence[SheetKey]
) -> RaterFacts:
    own = {
        about for key in keys if not marks.ids.isdisjoint(key.rows) for about in key.rows.values()
    }
    return RaterFacts(
        file=file,
        rated=len(ratings),
        unrated=len(own - set(ratings)),
        mean=float(np.mean(list(ratings.values()))) if ratings else None,
    )


def _arm(arm: str, by_answer: ByAnswer) -> ArmRatings:
    own = {about: ratings for about, ratings in by_answer.items() if about.arm == arm}
    every = [value for ratings in own.values() for value in ratings]
    parts = _by_question({about: [float(np.mean(r)), 1.0] for about, r in own.items()})
    mean = float(ratio(parts.sum(axis=0))) if own else None
    interval = figure_interval(parts, ratio, seed=SEED)
    counts = Counter(every)
    return ArmRatings(
        answers=len(own),
        ratings=len(every),
        mean=mean,
        ci95=interval,
        counts=tuple(counts[value] for value in range(LOWEST, HIGHEST + 1)),
    )


def _by_question(parts: Mapping[SheetAnswer, Sequence[float]]) -> NDArray[np.float64]:
    """Contributions of each question, those of its answers together, (questions, parts)."""
    sums: dict[str, NDArray[np.float64]] = {}
    for about, own in parts.items():
        sums[about.question] = sums.get(about.question, np.zeros(len(own))) + np.asarray(own)
    return np.asarray([sums[question] for question in sorted(sums)], dtype=float)


def _tests(
    ratings: Sequence[Mapping[SheetAnswer, int]], compared: str | None, arms: Sequence[str]
) -> dict[str, PairedTest]:
    found = {}
    for arm in arms:
        pairs = _pairs(ratings, compared, arm) if compared not in (None, arm) else []
        if pairs:
            sides = np.asarray(pairs, dtype=float)
            ones = np.ones(len(pairs))
            other, own = (np.stack([sides[:, side], ones], axis=1) for side in (0, 1))
            found[arm] = statistics.permutation_test(other, own, ratio, seed=SEED)
    adjusted = statistics.adjusted({(RATING, arm): (test, "higher") for arm, test in found.items()})
    return {arm: adjusted[RATING, arm] for arm in found}


def _pairs(
    ratings: Sequence[Mapping[SheetAnswer, int]], compared: str | None, other: str
) -> list[tuple[float, float]]:
    """The other arm's and the compared arm's mean rating of each question that somebody rated of
    both: of two people one may be stricter."""
    by_question: dict[str, list[tuple[int, int]]] = {}
    for of_rater in ratings:
        for about, value in of_rater.items():
            twin = about.model_copy(update={"arm": other})
            if about.arm == compared and twin in of_rater:
                by_question.setdefault(about.question, []).append((of_rater[twin], value))
    return [
        (float(np.mean([pair[0] for pair in pairs])), float(np.mean([pair[1] for pair in pairs])))
        for _, pairs in sorted(by_question.items())
    ]


def _agreement(ratings: Sequence[Mapping[SheetAnswer, int]], by_answer: ByAnswer) -> RaterAgreement:
    shared = {about: values for about, values in by_answer.items() if len(values) > 1}
    units = {
        about: coincidences([[value - LOWEST for value in values]], VALUES)
        for about, values in shared.items()
    }
    alpha: float | None = None
    parts = _by_question({about: list(own) for about, own in units.items()})
    if len(parts):
        found = float(ordinal_alpha(parts.sum(axis=0)))
        alpha = None if math.isnan(found) else found
    interval = figure_interval(parts, ordinal_alpha, seed=SEED) if alpha is not None else None
    return RaterAgreement(
        alpha=alpha,
        ci95=interval,
        answers=len(shared),
        meaning=_meaning(alpha, len(shared), sum(bool(of_rater) for of_rater in ratings)),
    )


def _meaning(alpha: float | None, shared: int, raters: int) -> str:
    if raters < 2:
        return (
            "α compares people who rated the same answers, and here one did: how far another "
            "would agree is not known. Have a second one rate the same sheet (--raters 2)."
        )
    if not shared:
        return "No answer was rated by two people, so that there is nothing to compare."
    if alpha is None:
        return (
            "All ratings of answers that two people rated are the same, so that chance alone "
            "would agree as well: α is not defined."
        )
    scale = "1 is full agreement, 0 is what chance gives."
    if alpha >= RELIABLE:
        return f"{scale} From {RELIABLE} on, Krippendorff calls data reliable."
    if alpha >= TENTATIVE:
        return f"{scale} From {TENTATIVE} to {RELIABLE}, data carry tentative conclusions only."
    return f"{scale} Below {TENTATIVE}, people mean different things by the same rating."


def _notes(report: RatingsReport, ratings: Sequence[Mapping[SheetAnswer, int]]) -> list[str]:
    notes = []
    for arm, facts in report.arms.items():
        if not facts.ratings:
            notes.append(f"No answer of {arm} has a rating.")
        elif facts.answers < FEW_QUESTIONS:
            notes.append(
                f"Only {facts.answers} answers of {arm} have a rating; below {FEW_QUESTIONS}, a "
                "mean says little."
            )
    paired = {arm: test.pairs for arm, test in report.tests.items()}
    for arm in report.arms:
        if report.compared not in (None, arm) and not paired.get(arm):
            notes.append(
                f"No question has ratings of both {arm} and {report.compared} by one person, so "
                "that the two cannot be compared."
            )
    for second in range(len(ratings)):
        for first in range(second):
            if len(ratings[first]) >= SAME_RATINGS and ratings[first] == ratings[second]:
                files = report.raters[first].file, report.raters[second].file
                notes.append(
                    f"{files[0]} and {files[1]} have the same ratings: if they are one person's, "
                    "name one of them."
                )
    return notes


if __name__ == "__main__":
    main()
