"""What people say of a run's answers: sheets for them, the key that tells whose answers are in a
sheet, and the reports of what came back.

The command line writes a request for a process of `thinktune.tasks.evaluate.people`, which prints
facts or a report; with `--output json` that report is what the command prints.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from thinktune.schema.catalog import Count
from thinktune.schema.closed import Closed
from thinktune.schema.report import ArmName, PairedTest, Share, Tally

LOWEST: Final = 1
HIGHEST: Final = 5
KEY_FORMAT: Final = 1
RATINGS_FORMAT: Final = 1
AGREEMENT_FORMAT: Final = 1

Correlation = Annotated[float, Field(ge=-1, le=1)]
"""An agreement beyond chance; 1 is a full one, 0 is what chance alone gives."""
Interval = tuple[float, float]


class RatingSheetRequest(Closed):
    """Sheets of a run's answers to write."""

    run: str
    """Id of the run."""
    store: str
    """Address of the store."""
    folder: str
    """Folder to write the sheets to."""
    kind: Literal["xlsx", "csv"]
    """What kind of sheet."""
    questions: Count
    """Most questions of a sheet."""
    raters: Count
    """How many people rate, each in a sheet of their own."""
    arms: tuple[str, ...]
    """Arms whose answers are rated; empty for base and tuned."""
    seed: int
    """Draws the questions and names the key."""
    reasoning: bool
    """Whether the sheets show the reasoning beside the answer."""


class RatingSheetFacts(Closed):
    """What was written."""

    files: tuple[str, ...]
    """Paths of the sheets, one for each rater."""
    key: str
    """Where the key is that tells whose answers are in them."""
    questions: Tally
    """Questions of each sheet."""
    arms: tuple[ArmName, ...]
    """Arms whose answers are in it."""
    rows: Tally
    """Answers of each sheet."""
    cut: Tally
    """Texts that were too long for a cell and lost their middle."""
    written_before: bool
    """Whether the key was there already, so that these sheets are those of an earlier call."""


class SheetAnswer(Closed):
    """Whose answer a row of a sheet holds."""

    question: str
    """Id of the question in prep's artifact."""
    arm: ArmName
    """Arm that gave the answer."""
    sample: Tally
    """Which of its answers to the question, from 0."""


class SheetKey(Closed):
    """What a sheet does not say of its rows. It stays in the store, which no rater sees."""

    format: Literal[1] = KEY_FORMAT
    """Version of this file's layout."""
    run: str
    """Id of the run."""
    evaluation: str
    """Digest of the manifest of the evaluation whose answers are rated."""
    seed: int
    """Seed that drew the questions."""
    rows: dict[str, SheetAnswer]
    """Answers by the row's id, which is random and the same in every rater's sheet."""


class SheetProblem(Closed):
    """A row that says nothing, or something that cannot be counted."""

    file: str
    """Path of the file, as it was given."""
    row: Tally
    """Number of the row, as a spreadsheet or an editor shows it."""
    id: str
    """What stands there for the answer's id."""
    problem: str
    """What is wrong, in a few words."""
    said: str
    """What stands there for the rating or the verdict."""


class RatingsRequest(Closed):
    """Filled sheets to read."""

    run: str
    """Id of the run."""
    store: str
    """Address of the store."""
    files: tuple[str, ...]
    """Paths of the sheets; each is one person's."""
    keep: bool
    """Whether the report is put into the store, beside the key."""


class RaterFacts(Closed):
    """One person's sheet."""

    file: str
    """Path of the file, as it was given."""
    rated: Tally
    """Answers that have a rating."""
    unrated: Tally
    """Answers of the sheet without one that counts: an empty cell, a row that is not there, or one
    of `rows`."""
    mean: float | None
    """Mean of the ratings; null where there is none."""


class ArmRatings(Closed):
    """How people rate one arm's answers."""

    answers: Tally
    """Answers with at least one rating."""
    ratings: Tally
    """Ratings, all people's together."""
    mean: float | None
    """Mean over the answers of the mean of their ratings; null without ratings."""
    ci95: Interval | None
    """95% interval of the mean: bootstrap over questions, percentiles."""
    counts: tuple[Tally, Tally, Tally, Tally, Tally]
    """How often each rating was given, from 1 to 5."""


class RaterAgreement(Closed):
    """How far people agree on the same answers."""

    alpha: Correlation | None
    """Krippendorff's α for ordinal data; null where it is not defined."""
    ci95: Interval | None
    """95% interval of α: bootstrap over questions, percentiles. Null where α is null, or not
    defined in more than one of twenty resamples."""
    answers: Tally
    """Answers with ratings of at least two people, which alone count for α."""
    meaning: str
    """What the figure says, or why there is none, in sentences for people."""


class RatingsReport(Closed):
    """What people's ratings of a run come to."""

    format: Literal[1] = RATINGS_FORMAT
    """Version of this file's layout."""
    run: str
    """Id of the run."""
    evaluation: str
    """Digest of the manifest of the evaluation whose answers were rated."""
    questions: Tally
    """Questions of the sheet."""
    raters: tuple[RaterFacts, ...]
    """The people, in the order of the files."""
    arms: dict[ArmName, ArmRatings]
    """The arms of the sheet, in the order in which people read them."""
    compared: ArmName | None
    """Arm that the tests compare with the others: tuned, else the last one. Null where the sheet
    has one arm."""
    tests: dict[ArmName, PairedTest]
    """Its tests against other arms, by the other arm's name. A pair is a question of which one
    person rated both answers; the mean over such people is what is compared. Empty without
    pairs."""
    agreement: RaterAgreement
    """How far people agree."""
    problems: dict[str, Tally]
    """Rows that do not count, by reason."""
    rows: tuple[SheetProblem, ...]
    """Those rows, by file and number."""
    notes: tuple[str, ...]
    """What else a reader must know, such as that there are too few ratings."""
    rule: str
    """How the figures come about, in sentences for people."""


class AgreementRequest(Closed):
    """Labels of people to compare with a judge's verdicts."""

    run: str
    """Id of the run."""
    store: str
    """Address of the store."""
    files: tuple[str, ...]
    """Paths of .csv, .xlsx or .jsonl files; each is one person's."""


class JudgeAgreement(Closed):
    """How far a judge and people agree on one kind of verdict."""

    pairs: Tally
    """Answers that both judged; an answer counts once for each person."""
    questions: Tally
    """Questions of these answers."""
    agreement: Share | None
    """Share of pairs with the same verdict; null without pairs."""
    kappa: Correlation | None
    """Cohen's κ: agreement beyond chance. Null where it is not defined, as where all verdicts are
    the same."""
    ci95: Interval | None
    """95% interval of κ: bootstrap over questions, percentiles. Null where κ is null, or not
    defined in more than one of twenty resamples."""
    weights: Literal["none", "quadratic"]
    """How far off a verdict is: by whether it differs, or by the square of the difference."""
    labels: tuple[str, ...]
    """The verdicts, in the order of the table."""
    table: tuple[tuple[Tally, ...], ...]
    """Pairs by the person's verdict (rows) and the judge's (columns)."""
    by_arm: dict[ArmName, Share]
    """Share of pairs with the same verdict, for each arm that has some."""
    no_verdict: Tally
    """Answers that a person judged and the judge did not: its reply was no verdict, its two replies
    differ, or there was nothing to send."""


class AgreementReport(Closed):
    """A judge's verdicts beside people's."""

    format: Literal[1] = AGREEMENT_FORMAT
    """Version of this file's layout."""
    run: str
    """Id of the run."""
    labels: dict[str, Tally]
    """Verdicts that were read, by file."""
    correct: JudgeAgreement | None
    """Whether answers are correct. Null where the judge or the files do not say."""
    rating: JudgeAgreement | None
    """Ratings from 1 to 5. Null where the judge or the files do not say."""
    problems: dict[str, Tally]
    """Rows that do not count, by reason."""
    rows: tuple[SheetProblem, ...]
    """Those rows, by file and number."""
    notes: tuple[str, ...]
    """What else a reader must know, such as that there are too few labels."""
    rule: str
    """How the figures come about, in sentences for people."""
