"""The recipe: what a run does. How it fits the hardware is decided by the plan.

A recipe is one YAML file under `jobs/recipes/`, and the file's name is the recipe's name.
`thinktune.recipes.compose` reads, extends and overrides recipes.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from thinktune.schema.catalog import ColumnMap, Count, Format, Name, Revision
from thinktune.schema.closed import Closed, RegularExpression

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""A seed that every random number generator accepts."""


class Filter(Closed):
    """A filter keeps the rows whose column passes its test. Give exactly one test."""

    column: str
    """Column of the dataset that the filter looks at."""
    any_of: tuple[str | int | float | bool, ...] | None = None
    """Keep rows whose value is one of these."""
    matches: RegularExpression | None = None
    """Keep rows whose text contains a match of this regular expression."""
    not_empty: Literal[True] | None = None
    """Keep rows whose value is neither null nor blank."""

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
    """Balancing keeps the same number of rows for each value of a column."""

    column: str
    """Column of the dataset whose values are balanced."""
    values: Annotated[tuple[str, ...], Field(min_length=1)]
    """Values to keep. Rows with any other value are dropped."""
    rows_per_value: Count | None = None
    """Rows to keep for each value. Null keeps as many as the rarest value has."""


class Split(Closed):
    """Which questions are held out of training. A hash of the question decides, so that one
    question is never on both sides."""

    test_rows: Annotated[int, Field(ge=0)] = 0
    """Questions that are kept for the evaluation and never trained on."""
    validation_rows: Annotated[int, Field(ge=0)] = 0
    """Questions whose loss is measured during training and that are never trained on."""
    seed: Seed = 0
    """Seed of the hash that chooses the held-out questions and the rows of `sample_rows`."""


class DataSpec(Closed):
    """How a dataset becomes tokens to train on."""

    dataset: Name
    """Name of a dataset in the catalog, or `file` for a file of your own."""
    revision: Revision | None = None
    """Commit of the dataset on the hub that replaces the one in the catalog."""
    path: str | None = None
    """Path of your own file (.jsonl, .json, .parquet or .csv). It requires `dataset: file`."""
    format: Format | None = None
    """Layout of the rows. Null takes the catalog's layout; for a file of your own, the layout
    follows from its columns."""
    columns: ColumnMap = ColumnMap()
    """Columns that replace those in the catalog's column map."""
    filters: tuple[Filter, ...] = ()
    """Filters for rows. A row is kept only if it passes all of them."""
    require_reasoning: bool = True
    """Drop rows without complete reasoning. Prep fails if no row is left."""
    deduplicate: bool = True
    """Keep only the first row of each question."""
    balance: Balance | None = None
    """Keep the same number of rows for each value of a column. Null keeps all rows."""
    expected_rows: Count | None = None
    """Number of rows, held-out ones included, that the plan counts with where the catalog does not
    say it, for example for your own file."""
    sample_rows: Count | None = None
    """Rows to draw at random for training, after all other selection. Null takes all rows."""
    split: Split = Split()
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


class TrainSpec(Closed):
    """LoRA fine-tuning of a frozen base model. `batch_size` and the schedule mean the same on any
    number of GPUs."""

    base: Literal["nf4", "16bit"] = "nf4"
    """Precision of the frozen weights: 4-bit NormalFloat with double quantization (QLoRA,
    arXiv:2305.14314), or 16 bits."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type in which the training computes. `auto` takes bfloat16 if the device supports it, else
    float16 on a GPU and float32 on a CPU."""
    fp8: bool = False
    """Multiply by the frozen weights in FP8 (e4m3 with one scale per row, arXiv:2209.05433) where
    the fused path runs on an Ada or Hopper GPU. This is faster and rounds differently."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank r of the LoRA matrices."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """LoRA's α. The adapter is scaled by α/r, or by α/√r with `rslora`."""
    rslora: bool = False
    """Scale the adapter by α/√r (rank-stabilized LoRA, arXiv:2312.03732)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    """Probability of dropout on the input of the adapters."""
    targets: Literal["all", "attention", "mlp"] | tuple[str, ...] = "all"
    """Linear layers that get an adapter: a group, or names from the model's catalog entry."""
    loss_on: Literal["completion", "answer"] = "completion"
    """Tokens that the loss counts. `answer` leaves out the reasoning."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """Optimizer of the adapter. 8-bit states (arXiv:2110.02861) save 6 bytes per trained weight,
    and each step then waits for the GPU once. Without a GPU, plain AdamW is used."""
    lr: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate changes after the warmup."""
    warmup: Fraction = 0.03
    """Share of the steps, from 0 to 1, over which the learning rate rises from 0."""
    weight_decay: Fraction = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    spike_factor: Annotated[float, Field(gt=1)] | None = 10.0
    """A step is skipped when its gradient norm exceeds this many times the running mean. Null skips
    no step whose gradient is finite."""
    max_skipped: Count = 10
    """Number of skipped steps, over the whole training, at which the training fails."""
    batch_size: Count
    """Examples per optimizer step, summed over all GPUs."""
    epochs: Count = 1
    """Number of times that each example is trained on."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, even in the middle of an epoch. Null trains all
    epochs."""
    packing: bool = True
    """Put several examples into one row, with attention confined to each. Without packing, each
    example is a row of its own, without padding."""
    seed: Seed = 0
    """Seed of the order of the examples, of the adapter's initial weights and of dropout."""
    evaluate_every_steps: Count | None = None
    """Measure the loss on the validation rows every this many steps. Null measures it once, at the
    end."""
    checkpoint_every_steps: Count = 50
    """Save a checkpoint every this many optimizer steps, which is also the most work that a kill
    can cost."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """Number of newest checkpoints to keep. With two, a damaged one still has one before it."""
    tracking: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Experiment trackers to report to, through accelerate. Their credentials come from the
    environment."""


class EvaluateSpec(Closed):
    """How the base model and the tuned one answer the same held-out questions."""

    questions: Count | None = None
    """Number of held-out questions to ask. Null asks all of them."""
    samples: Count = 1
    """Answers per question and model, over which metrics are averaged."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 4096
    """Longest answer in tokens, reasoning included. An answer that is cut off counts as not
    answered."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.6
    """Sampling temperature; 0 decodes greedily. DeepSeek advises 0.6 with top_p 0.95 for R1 models,
    whose greedy answers tend to repeat themselves."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Sample from the most likely tokens whose probabilities add up to this share (nucleus
    sampling)."""
    batch_size: Count = 16
    """Questions that are answered at once."""
    verifier: Literal["auto", "number", "choice", "math", "text", "none"] = "auto"
    """How an answer is compared with the reference answer. `auto` chooses by looking at the
    reference answers; `none` measures no accuracy."""
    side_by_side: Annotated[int, Field(ge=0)] = 3
    """Number of questions that the report shows with both answers."""
    seed: Seed = 0
    """Seed of sampling, of the confidence intervals and of the questions that the report shows."""


class Recipe(Closed):
    """One fine-tuning job: data, training and evaluation."""

    name: Name
    """Name of the recipe, which is the name of its file and is not written in it."""
    description: str
    """What the recipe is for. Its first sentence is shown in the list of recipes."""
    model: Name
    """Name of the model in the catalog."""
    revision: Revision | None = None
    """Commit of the model on the hub that replaces the one in the catalog."""
    hardware: Name
    """Name in the catalog of the node that each training pod gets."""
    nodes: Count = 1
    """Number of such nodes that train together."""
    data: DataSpec
    train: TrainSpec
    evaluate: EvaluateSpec = EvaluateSpec()
