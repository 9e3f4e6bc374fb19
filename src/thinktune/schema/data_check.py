"""What `thinktune data check` asks of prep's reader, and what it answers.

The command line writes a `CheckRequest` for a process of `thinktune.tasks.prep.check`, which prints
a `CheckReport`; with `--output json` that report is what the command prints.
"""

from thinktune.schema.catalog import Count, DatasetEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.data import DataSpec
from thinktune.schema.stages import PrepTask


class CheckRequest(Closed):
    """A dataset and how it is to be read."""

    data: DataSpec
    dataset: DatasetEntry
    model_name: str
    model: ModelEntry
    store: str | None
    """Store whose cache may hold the model's tokenizer."""
    said_reasoning: bool
    """Whether somebody said that rows must have reasoning. If not, the answer says how many do."""
    said_length: bool
    """Whether somebody set `max_tokens`. If not, the answer says what some limits would leave."""
    measured_rows: Count = 2_000
    """Rows that are tokenized; all rows are read."""
    shown: Count = 3
    """Rows that are shown in full."""


class DroppedRows(Closed):
    """Rows that are not learned, for one reason."""

    reason: str
    count: int
    bad: bool
    """Whether they cannot be read or used; if not, the recipe leaves them out."""
    examples: tuple[str, ...]
    """Places of the first ones: file and row number."""
    remedy: str


class TokenFacts(Closed):
    """How long the examples are."""

    estimated: bool
    """Whether there was no tokenizer at hand, so that a token is taken for four characters."""
    tokenizer: str
    """Whose tokenizer counted."""
    measured_rows: int
    total: int
    """Tokens of all learned rows; of more rows than were measured, an extrapolation."""
    mean: float
    median: float
    p95: float
    max: int
    longer_than: dict[str, int]
    """How many of the measured rows are longer than so many tokens."""


class ShownRow(Closed):
    """One example as the model gets it."""

    id: str
    prompt: tuple[tuple[str, bool], ...]
    """Pieces of the prompt, and whether each is control text."""
    reasoning: str
    answer: str
    end: str
    """Control text behind the answer."""
    tokens: int


class CheckReport(Closed):
    """What prep would make of a dataset."""

    file: str
    layout: str
    """How rows are read, in one line."""
    columns_used: dict[str, str]
    """Column of each role."""
    columns_unused: tuple[str, ...]
    rows: int
    learned: int
    with_reasoning: int
    dropped: tuple[DroppedRows, ...]
    notes: dict[str, int]
    """What is done to rows that stay."""
    tokens: TokenFacts | None
    """Null where no row is left."""
    samples: tuple[ShownRow, ...]
    settings: dict[str, str]
    """Settings for a recipe's `data`, by their name."""
    refused: str | None
    """Why prep would refuse the dataset. Null where it would not."""


class ShowRequest(Closed):
    """Rows of a run's training data; the answer is a list of `ShownRow`."""

    run: str
    store: str
    rows: tuple[Count, ...]
    """Numbers of training rows, from 1."""
    models: dict[str, str]
    """Repository of each model of the catalog."""


class SheetRequest(Closed):
    """A sheet of examples to write, or one to read back."""

    task: PrepTask
    out: str
    """File to write: the sheet, or JSON lines of what was read back."""
    read: str | None
    """Sheet to read back. Null writes one."""
    rows: Count
    """Most rows of a sheet."""


class SheetFacts(Closed):
    """What was written."""

    rows: int
    corrected: int = 0
    """Rows that experts changed."""
    not_kept: int = 0
    """Rows that experts said no to."""
    too_long: int = 0
    """Rows that no cell of Excel can hold."""
    dropped: dict[str, int] = {}
    """Rows that make no example, by reason."""
