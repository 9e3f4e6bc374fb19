"""Settings of prep: which rows of a dataset are taken, and how they become text to train on.

Part of a recipe (`thinktune.schema.recipe`), as its `data`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from thinktune.schema.catalog import ColumnMap, Count, Format, Name, Revision
from thinktune.schema.closed import Closed, RegularExpression
from thinktune.schema.llm import GenerateSpec

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""A seed that every random number generator accepts."""


FILTER_TESTS = ("any_of", "matches", "not_empty", "at_least", "at_most", "above", "below")


class Filter(Closed):
    """A filter keeps the rows whose column passes its test. Give exactly one test."""

    column: str
    """Column of the dataset that the filter looks at."""
    any_of: tuple[str | int | float | bool, ...] | None = None
    """Keep rows whose value is one of these."""
    at_least: float | None = None
    """Keep rows whose value is a number and not below this one."""
    at_most: float | None = None
    """Keep rows whose value is a number and not above this one."""
    above: float | None = None
    """Keep rows whose value is a number above this one."""
    below: float | None = None
    """Keep rows whose value is a number below this one."""
    matches: RegularExpression | None = None
    """Keep rows whose text contains a match of this regular expression."""
    not_empty: Literal[True] | None = None
    """Keep rows whose value is neither null nor blank."""
    invert: bool = False
    """Keep the rows that fail the test instead, and drop those that pass it."""
    ignore_case: bool = False
    """For `any_of`: take texts for equal whatever their case and spacing."""

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        given = [name for name in FILTER_TESTS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a filter on '{self.column}' has {len(given)} tests; "
                f"give exactly one of {', '.join(FILTER_TESTS)}"
            )
        if self.ignore_case and given != ["any_of"]:
            raise ValueError(
                f"ignore_case is for any_of, and the filter on '{self.column}' has {given[0]}; "
                "write (?i) at the beginning of a pattern"
            )
        return self


class Balance(Closed):
    """Balancing keeps the same number of rows for each value of a column."""

    column: str
    """Column of the dataset whose values are balanced."""
    values: Annotated[tuple[str, ...], Field(min_length=1)]
    """Values to keep. Rows with any other value are dropped."""
    ignore_case: bool = False
    """Take values for equal whatever their case and spacing."""
    rows_per_value: Count | None = None
    """Rows to keep for each value. Null keeps as many as the rarest value has."""


class Split(Closed):
    """Which questions are held out of training. A hash of the question decides, and questions that
    are rewordings of each other are held out together."""

    test_rows: Annotated[int, Field(ge=0)] = 0
    """Questions that are kept for the evaluation and never trained on."""
    validation_rows: Annotated[int, Field(ge=0)] = 0
    """Questions whose loss is measured during training and that are never trained on."""
    seed: Seed = 0
    """Seed of the hash that chooses the held-out questions and the rows of `sample_rows`."""


Mark = Annotated[str, Field(min_length=1)]


class DataSpec(Closed):
    """How a dataset becomes tokens to train on."""

    dataset: Name
    """Name of a dataset in the catalog, or `file` for a file of your own."""
    revision: Revision | None = None
    """Commit of the dataset on the hub that replaces the one in the catalog."""
    path: str | None = None
    """Path of your own file: .parquet, or .jsonl, .json, .csv or .tsv, which may be packed as .gz,
    .zst, .bz2 or .xz. It requires `dataset: file`. A folder, a pattern such as `data/*.jsonl` and
    an `s3://bucket/prefix/` read all of their files, in the order of their names."""
    format: Format | None = None
    """Layout of the rows. Null takes the catalog's layout; for a file of your own, the layout
    follows from its columns."""
    columns: ColumnMap = ColumnMap()
    """Columns that replace those in the catalog's column map."""
    filters: tuple[Filter, ...] = ()
    """Filters for rows. A row is kept only if it passes all of them."""
    max_bad_fraction: Fraction = 0.1
    """Prep fails if more than this share of the rows cannot be read or used. Rows that the recipe
    itself leaves out, by filters, lengths, duplicates and the like, are not counted."""
    think_tags: tuple[tuple[Mark, Mark], ...] = ()
    """Pairs of marks around the reasoning in your rows, if they are not `<think>` and `</think>`,
    such as `[['<reasoning>', '</reasoning>']]`. Case and spacing count."""
    learn_turns: Literal["last", "every"] = "last"
    """Which answers of a conversation are learned. `every` makes an example of each, with the turns
    before it as its prompt."""
    ignore_columns: tuple[str, ...] = ()
    """Columns of your own file that nothing reads, whatever their names usually mean."""
    ignore_turn_keys: tuple[str, ...] = ()
    """Keys of a turn that may be passed over, such as `timestamp`. A row with any other key that is
    not understood is dropped."""
    require_reasoning: bool = True
    """Drop rows without complete reasoning, and count them as rows that cannot be used."""
    drop_loops: bool = False
    """Drop rows whose reasoning or answer repeats itself, by the rule with which the evaluation
    counts loops."""
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2}$")], ...] = ()
    """Keep rows whose question and answer are in one of these languages (ISO 639-1, such as `en`).
    A text too short to tell stays. Empty keeps all rows."""
    scrub: tuple[Literal["secrets", "emails", "phones"], ...] = ()
    """What to replace by a placeholder such as `[secret]`, wherever a row holds it."""
    deduplicate: bool = True
    """Keep only the first usable row of each question."""
    balance: Balance | None = None
    """Keep the same number of rows for each value of a column. Null keeps all rows."""
    expected_rows: Count | None = None
    """Number of rows, held-out ones included, that the plan counts with where the catalog does not
    say it, for example for your own file."""
    sample_rows: Count | None = None
    """Rows to draw at random for training, after all other selection. Null takes all rows."""
    split: Split = Split()
    test_sets: tuple[str, ...] = ()
    """Test sets in which training rows are looked for: datasets of the catalog, files, or
    `held-out` for the run's own test questions. The data card lists what was found; nothing is
    dropped."""
    generate: GenerateSpec | None = None
    """A column that a language model writes before rows are read. Null asks no model."""
    system: str | None = None
    """System prompt. DeepSeek advises against one for R1 models."""
    prompt: str = "{question}"
    """Text of the user's turn. It can contain the fields `{question}` and `{options}`."""
    answer: str = "{answer}"
    """Text that follows the reasoning. It can contain the fields `{answer}` and `{summary}`."""
    final_answer: str | None = None
    """Marker of the line that contains the answer to check, such as `Final Answer:`."""
    max_tokens: Annotated[int, Field(ge=16)] = 2048
    """Length of the longest training example, in tokens."""
    min_tokens: Count | None = None
    """Length of the shortest training example, in tokens. Null sets no limit."""
    min_reasoning_tokens: Count | None = None
    """Drop rows whose reasoning is shorter than this, in tokens."""
    max_reasoning_tokens: Count | None = None
    """Drop rows whose reasoning is longer than this, in tokens."""
    too_long: Literal["drop", "truncate"] = "drop"
    """What happens to an example that is longer than `max_tokens`. `truncate` cuts the end of its
    reasoning, so that `</think>` and the answer stay."""

    @model_validator(mode="after")
    def _file_has_path(self) -> Self:
        if (self.dataset == "file") != (self.path is not None):
            raise ValueError(
                "'path' and 'dataset: file' belong together; "
                "give both for a file of your own, and neither for a dataset in the catalog"
            )
        return self
