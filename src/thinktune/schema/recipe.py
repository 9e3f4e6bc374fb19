"""The recipe: what a run does. How it fits the hardware is decided by the plan.

A recipe is one YAML file under `jobs/recipes/`, and the file's name is the recipe's name.
`thinktune.recipes.compose` reads, extends and overrides recipes.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from thinktune.schema.benchmark import BenchmarkName, BenchmarkSpec, absent_if_empty
from thinktune.schema.catalog import Count, Name, Revision
from thinktune.schema.closed import Closed, added
from thinktune.schema.data import DataSpec, Fraction, Seed
from thinktune.schema.llm import LlmSpec

EngineName = Literal["vllm", "transformers"]
EngineChoice = Literal["auto", "vllm", "transformers"]
BasePrecision = Literal["nf4", "16bit"]
"""Precisions of a base model that an adapter is trained and judged on."""
Precision = Literal["nf4", "16bit", "merged", "fp8"]
"""Weights as they are served: the adapter beside a base of 4 or 16 bits; merged into it, in 16
bits; merged and then rounded to FP8."""
MERGED: tuple[Precision, ...] = ("merged", "fp8")
"""Those of them for which a merged copy of the model is made."""
EndpointName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
"""Name of an arm that an endpoint answers."""


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
    keep_checkpoints: Annotated[int, Field(ge=2)] | Literal["all"] = 2
    """Number of newest checkpoints to keep, or `all`. With two, a damaged one still has one before
    it."""
    select: Literal["last", "best"] = added("last")
    """Which adapter the training gives: that of the last step, or that of the step with the lowest
    validation loss. `best` requires `evaluate_every_steps`; only measured steps can be taken."""
    early_stopping_patience: Count | None = added(None)
    """Stop after this many measurements of the validation loss in a row without a new lowest one.
    It requires `evaluate_every_steps`. The schedule of the learning rate still plans for all steps.
    Null trains to the end."""
    init_from: Name | None = added(None)
    """Id of a run in the same store whose adapter the training starts from, with a new optimizer.
    Model, rank, α, targets and `rslora` must be those of that run. Null starts from an adapter that
    changes nothing."""
    tracking: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Experiment trackers to report to, through accelerate. Their credentials come from the
    environment."""

    @property
    def chooses(self) -> bool:
        """Whether the validation loss decides anything."""
        return self.select == "best" or self.early_stopping_patience is not None

    @model_validator(mode="after")
    def _measured_where_it_chooses(self) -> Self:
        if self.chooses and self.evaluate_every_steps is None:
            setting = "select: best" if self.select == "best" else "early_stopping_patience"
            raise ValueError(
                f"'{setting}' goes by the validation loss, which is measured at the end alone; "
                "set evaluate_every_steps, for example to checkpoint_every_steps"
            )
        return self


def normal_label(name: str) -> str:
    """How labels are compared: lower case, without punctuation, with single spaces."""
    return " ".join(re.sub(r"[\W_]+", " ", name).casefold().split())


class LabelSpec(Closed):
    """A closed list of labels, of which an answer names some on one line."""

    values: Annotated[tuple[str, ...], Field(min_length=1)]
    """The labels."""
    marker: str = "Violations:"
    """What the line starts with. Labels stand behind it, with `;` or `|` between them."""
    none: str = "none"
    """The label that says that there is nothing. It counts as a label of its own."""
    aliases: dict[str, str] = {}
    """Other names of labels, by name. What is in neither list counts as a false positive."""

    @model_validator(mode="after")
    def _aliases_of_labels(self) -> Self:
        names = [normal_label(name) for name in (*self.values, *self.aliases)]
        alike = [name for name in names if not name or names.count(name) > 1]
        if alike:
            raise ValueError(
                f"labels are compared without case, punctuation and spacing, and then '{alike[0]}' "
                "is nothing or is there twice; give names that differ in letters and digits"
            )
        for name, label in self.aliases.items():
            if label not in (*self.values, self.none):
                raise ValueError(f"alias '{name}' is of '{label}', which is no label of the list")
        return self


class JudgeSpec(Closed):
    """A language model that reads answers. Take one of another family than the models it judges."""

    llm: LlmSpec
    """Who is asked, and for how much money. Set its temperature to 0."""
    correct: bool = True
    """Ask whether an answer agrees with the reference, twice: once with the reference first, once
    with the answer first. Only what both replies say counts."""
    rating: str | None = None
    """What answers are rated by, from 1 to 5, such as `Would an auditor accept the reasoning?`.
    Null asks for no rating."""


class EndpointSpec(Closed):
    """A model behind an endpoint that answers the same questions, such as a served run or a model
    of another maker."""

    llm: LlmSpec
    """Who is asked, and for how much money."""
    instructed: bool = False
    """Whether `evaluate.instruction` stands behind each question. Set it for a model that was not
    tuned to answer in that form."""
    own_sampling: bool = False
    """Draw as `llm.parameters` say. Otherwise temperature, top_p and the longest answer are those
    of the other arms, and `seed` is the evaluation's. Some models refuse a temperature."""


class Requirement(Closed):
    """A condition under which the tuned model may be served."""

    at_least: float | None = None
    """The figure is this or higher."""
    at_most: float | None = None
    """The figure is this or lower."""
    not_worse_by: Annotated[float, Field(ge=0)] | None = None
    """The 95% interval of the difference to the base model leaves out a loss of more than this."""

    @model_validator(mode="after")
    def _some_condition(self) -> Self:
        if self.at_least is None and self.at_most is None and self.not_worse_by is None:
            raise ValueError("a requirement is empty; give at_least, at_most or not_worse_by")
        return self


class EvaluateSpec(Closed):
    """How the base model and the tuned one answer the same held-out questions."""

    questions: Count | None = None
    """Number of held-out questions to ask. Null asks all of them."""
    samples: Count = 1
    """Answers per question and model, over which metrics are averaged."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 4096
    """Longest answer in tokens, reasoning included. An answer that is cut off is judged by what is
    there; one that is cut off in its reasoning says nothing."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.6
    """Sampling temperature; 0 decodes greedily. DeepSeek advises 0.6 with top_p 0.95 for R1 models,
    whose greedy answers tend to repeat themselves."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Sample from the most likely tokens whose probabilities add up to this share (nucleus
    sampling)."""
    engine: EngineChoice = "auto"
    """What generates the answers. `auto` takes vLLM on a GPU of compute capability 8.0 or more, and
    transformers elsewhere."""
    shards: Count = 1
    """Number of pods, each on a GPU of its own, that divide the questions among them on a cluster.
    The last to finish judges. Answers of vLLM stay the same; transformers, whose batches are then
    others, may round differently."""
    batch_size: Count | None = None
    """Questions that the transformers engine answers at once. Null takes as many as fit the GPU's
    memory, and 16 on a CPU."""
    instruction: str | None = None
    """What the base model is told in words beside the question, as a further arm of the
    comparison, so that the report shows what a prompt alone would have done. Null leaves that arm
    out."""
    precisions: tuple[Precision, ...] = ()
    """Precisions at which the tuned model answers as well, beside the one that it was trained at: a
    base of 4 or 16 bits under the adapter, the adapter `merged` into 16 bits, or merged and rounded
    to `fp8`, for which vLLM is needed. A model answers differently at another precision."""
    endpoints: dict[EndpointName, EndpointSpec] = {}
    """Models behind endpoints that answer as well, each an arm of the comparison, by the name that
    the report gives it."""
    verifier: Literal["auto", "number", "choice", "math", "text", "none"] = "auto"
    """How an answer is compared with the reference answer. `auto` chooses by looking at the
    reference answers; `none` measures no accuracy."""
    labels: LabelSpec | None = None
    """Labels that answers name, for precision, recall and F1. Null measures none."""
    judge: JudgeSpec | None = None
    """A language model that judges the answers. Null asks none."""
    perplexity: Annotated[bool, Field(exclude_if=absent_if_empty)] = False
    """Measure how likely each model finds the reference completions of the held-out questions."""
    benchmarks: Annotated[
        dict[BenchmarkName, BenchmarkSpec], Field(exclude_if=absent_if_empty)
    ] = {}
    """Questions that are reported apart from the held-out ones, such as those of a public test set,
    by the name that the report gives them."""
    require: dict[str, Requirement] = {}
    """What the tuned model must reach to be promoted, by metric, at each precision that it is
    judged at. The manifest says whether it does."""
    side_by_side: Annotated[int, Field(ge=0)] = 3
    """Number of questions that the report shows with both answers."""
    seed: Seed = 0
    """Seed of sampling, of the confidence intervals and of the questions that the report shows."""

    @model_validator(mode="after")
    def _each_precision_once(self) -> Self:
        if len(set(self.precisions)) < len(self.precisions):
            raise ValueError("'precisions' names one twice; name each once")
        return self

    @model_validator(mode="after")
    def _endpoints_are_arms_of_their_own(self) -> Self:
        for name, endpoint in self.endpoints.items():
            if name.split("-")[0] in ("base", "asked", "tuned"):
                raise ValueError(
                    f"an endpoint is called '{name}', as an arm of the run itself is or may be; "
                    "call it by the model that it serves"
                )
            if endpoint.instructed and self.instruction is None:
                raise ValueError(
                    f"endpoint '{name}' is to be told the instruction, and there is none; give "
                    "'instruction', or leave out 'instructed'"
                )
        return self


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

    @model_validator(mode="after")
    def _validation_rows_where_it_chooses(self) -> Self:
        if self.train.chooses and self.data.split.validation_rows == 0:
            raise ValueError(
                "'train' goes by the validation loss, and no rows are held out for it; "
                "set data.split.validation_rows"
            )
        return self
