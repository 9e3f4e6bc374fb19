"""The recipe: what to do, never how to fit it (that is the plan's).

One YAML file under `jobs/recipes/`; the file's name is the recipe's. Reading, extending and
overriding one is `thinktune.recipes.compose`.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from thinktune.schema.catalog import ColumnMap, Count, Format, Name, Revision
from thinktune.schema.closed import Closed

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What every generator of random numbers takes."""


class Filter(Closed):
    """Keeps the rows whose column passes. Exactly one of the tests is given."""

    column: str
    any_of: tuple[str | int | float | bool, ...] | None = None
    """Keeps rows whose value is one of these."""
    matches: str | None = None
    """Keeps rows whose text matches this regular expression somewhere."""
    not_empty: Literal[True] | None = None
    """Keeps rows with a value that is neither null nor blank."""

    @field_validator("matches")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(
                f"no regular expression of Python's ({error}); "
                "fix it, with a backslash before a character that stands for itself"
            ) from None
        return pattern

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        given = [t for t in (self.any_of, self.matches, self.not_empty) if t is not None]
        if len(given) != 1:
            raise ValueError(
                f"a filter on '{self.column}' has {len(given)} tests; "
                "give exactly one of any_of, matches, not_empty"
            )
        return self


class Balance(Closed):
    """Takes the same number of rows for each value of a column."""

    column: str
    values: Annotated[tuple[str, ...], Field(min_length=1)]
    """The values to keep; rows with others are dropped."""
    rows_per_value: Count | None = None
    """Rows of each; null: as many as the rarest has."""


class Split(Closed):
    """Who is held out, decided by a hash of the question, so the same question never stands on
    both sides."""

    test_rows: Annotated[int, Field(ge=0)] = 0
    """Questions kept for `evaluate`; never trained on."""
    validation_rows: Annotated[int, Field(ge=0)] = 0
    """Questions whose loss is watched during training; never trained on."""
    seed: Seed = 0


class DataSpec(Closed):
    """From a dataset to tokens."""

    dataset: Name
    """Name in the catalog, or `file` for a file of your own."""
    revision: Revision | None = None
    """Commit of the dataset on the hub, instead of the catalog's."""
    path: str | None = None
    """Your own file (.jsonl, .json, .parquet, .csv), with `dataset: file`."""
    format: Format | None = None
    """How rows are laid out; null: as the catalog says, or for your own file as its columns say."""
    columns: ColumnMap = ColumnMap()
    """Overrides of the catalog's column map."""
    filters: tuple[Filter, ...] = ()
    require_reasoning: bool = True
    """Drop rows without a complete think part. With none left, prep fails and says so."""
    deduplicate: bool = True
    """Keep the first row of each question."""
    balance: Balance | None = None
    expected_rows: Count | None = None
    """Rows to plan with where the catalog does not know how many there are, as of your own file;
    held-out ones included."""
    sample_rows: Count | None = None
    """Rows to draw, by seed, for training, after everything else; null: all."""
    split: Split = Split()
    system: str | None = None
    """System prompt; DeepSeek advises none for R1 models."""
    prompt: str = "{question}"
    """What the user says; fields in braces: question, options."""
    answer: str = "{answer}"
    """What follows the think part; fields in braces: answer, summary."""
    final_answer: str | None = None
    """Marker of the line that holds the checkable answer, such as `Final Answer:`."""
    max_tokens: Annotated[int, Field(ge=16)] = 2048
    """Longest training example, in tokens."""
    too_long: Literal["drop", "truncate"] = "drop"
    """`truncate` cuts the end of the reasoning, so that `</think>` and the answer stay."""

    @model_validator(mode="after")
    def _file_has_path(self) -> Self:
        if (self.dataset == "file") != (self.path is not None):
            raise ValueError(
                "'path' and 'dataset: file' belong together; "
                "give both for a file of your own, neither for a dataset of the catalog"
            )
        return self


class TrainSpec(Closed):
    """LoRA fine-tuning of a frozen base. `batch_size` and the schedule mean the same on any
    number of GPUs."""

    base: Literal["nf4", "16bit"] = "nf4"
    """Frozen weights: 4-bit NormalFloat with double quantization (QLoRA, arXiv:2305.14314), or
    16 bits."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Compute type; `auto` is bfloat16 where the device has it, else float16 (a GPU) or float32."""
    fp8: bool = False
    """The frozen weights' products in FP8 (e4m3, a scale per row; arXiv:2209.05433) where the fused
    path runs on an Ada or Hopper GPU: faster, with other rounding."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    """LoRA scale: α/r, or α/√r with rsLoRA."""
    rslora: bool = False
    """Rank-stabilized scale (arXiv:2312.03732)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    """LoRA dropout."""
    targets: Literal["all", "attention", "mlp"] | tuple[str, ...] = "all"
    """Layers that take an adapter: a group, or names from the model's catalog entry."""
    loss_on: Literal["completion", "answer"] = "completion"
    """`answer` leaves the reasoning tokens out of the loss."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """8-bit states (arXiv:2110.02861) save 6 bytes per trained weight, and each step then waits for
    the GPU once; the plain form is used where there is none."""
    lr: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Fraction = 0.03
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: Fraction = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    spike_factor: Annotated[float, Field(gt=1)] | None = 10.0
    """A step whose gradient norm is more than this many times the running mean changes nothing;
    null: every finite one counts."""
    max_skipped: Count = 10
    """Skipped steps, in all, with which the training fails."""
    batch_size: Count
    """Examples per optimizer step, over all GPUs."""
    epochs: Count = 1
    max_steps: Count | None = None
    """Stop after this many optimizer steps, also in the middle of an epoch."""
    packing: bool = True
    """Several examples per row, attention kept inside each; off: each example is a row of its
    own, without padding."""
    seed: Seed = 0
    evaluate_every_steps: Count | None = None
    """How often the loss on the validation rows is measured; null: at the end only."""
    checkpoint_every_steps: Count = 50
    """How much work a kill can cost, in optimizer steps."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """Newest checkpoints to keep; two, so that a damaged one has one before it."""
    tracking: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Trackers, through accelerate; their credentials come from the environment."""


class EvaluateSpec(Closed):
    """The same questions to the base model and to the tuned one."""

    questions: Count | None = None
    """PlanVsActual-out questions to ask; null: all of them."""
    samples: Count = 1
    """Answers per question and model; figures are averaged over them."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 4096
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.6
    """0 is greedy. DeepSeek advises 0.6 with top_p 0.95 for R1 models; greedy alone misleads."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    batch_size: Count = 16
    """Questions per generation batch."""
    verifier: Literal["auto", "number", "choice", "math", "text", "none"] = "auto"
    """How an answer is checked; `auto` looks at the reference answers; `none` measures no
    accuracy."""
    side_by_side: Annotated[int, Field(ge=0)] = 3
    """Questions shown with both answers at the end."""
    seed: Seed = 0


class Recipe(Closed):
    """One fine-tuning job, from data to judgement."""

    name: Name
    """The file's name; not written in it."""
    description: str
    model: Name
    """Name in the catalog."""
    revision: Revision | None = None
    """Commit of the model on the hub, instead of the catalog's."""
    hardware: Name
    """Name in the catalog: the node that each training pod gets."""
    nodes: Count = 1
    data: DataSpec
    train: TrainSpec
    evaluate: EvaluateSpec = EvaluateSpec()
