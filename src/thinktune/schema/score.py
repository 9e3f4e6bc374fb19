"""What `thinktune evaluate score` asks of the evaluation's verdicts, and what they answer.

The command line writes a `ScoreRequest` for a process of `thinktune.tasks.evaluate.score`, which
prints a `ScoreReport`.
"""

from thinktune.schema.closed import Closed
from thinktune.schema.report import Share, Tally, Verifier


class ScoreRequest(Closed):
    """A file of answers and how they are to be judged."""

    file: str
    """Path of a .jsonl or .csv file."""
    verifier: Verifier | None
    """How answers are compared; null chooses by the references."""
    marker: str | None
    """What the line of the final answer starts with; null reads the whole answer."""
    answer: str
    """Column of the answers."""
    reference: str
    """Column of the references."""


class ScoredRow(Closed):
    """The verdict on one row."""

    id: str
    """The row's `id`, else `row N`."""
    extracted: str | None
    """What was compared with the reference; null where nothing was found."""
    correct: bool | None
    """Null if the reference cannot be checked."""
    problem: str | None
    """Why there is no verdict, or what is odd about the answer."""


class ScoreReport(Closed):
    """The verdicts on all rows."""

    verifier: Verifier
    rule: str
    """How answers were compared, in sentences for people."""
    rows: Tally
    """Rows of the file."""
    scored: Tally
    """Rows that have a verdict."""
    correct: Tally
    """Rows whose answer is right."""
    accuracy: Share | None
    """Right answers among those that have a verdict."""
    ci95: tuple[Share, Share] | None
    """95% interval of the accuracy (Wilson)."""
    problems: dict[str, Tally]
    """Rows without a verdict, and odd answers, by reason."""
    verdicts: tuple[ScoredRow, ...]
