"""A finished training and what it was made from: whether the parts are those that belong together.

Called by those that hand a run on: serving and publishing. Base model, adapter and prompts are
checked by their digests, and answers are drawn as those that were judged.
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from thinktune.schema.errors import InputMissing
from thinktune.schema.keys import cache_prefix
from thinktune.schema.manifest import Manifest, MetricValue
from thinktune.schema.prompt import PromptTemplate
from thinktune.schema.recipe import BasePrecision
from thinktune.store import Store, files_digest, manifest_digest, read_manifest
from thinktune.text.templates import Renderer

TEMPERATURE, TOP_P = 0.6, 0.95
"""How answers are drawn for a run that has no evaluation: as DeepSeek advises for R1 models."""

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    temperature: float
    top_p: float
    max_new_tokens: int | None
    """Longest answer that was judged, in tokens; None where none was."""


def judged_sampling(evaluation: Manifest | None) -> Sampling:
    """How the answers were drawn that were judged."""
    figures = evaluation.metrics if evaluation is not None else {}
    temperature, top_p = figures.get("temperature"), figures.get("top_p")
    longest = figures.get("max_new_tokens")
    if (
        isinstance(temperature, int | float)
        and isinstance(top_p, int | float)
        and isinstance(longest, int)
    ):
        return Sampling(float(temperature), float(top_p), longest)
    return Sampling(TEMPERATURE, TOP_P, None)


def check_template(run: str, template: PromptTemplate, prep: Manifest, train: Manifest) -> None:
    """Raises InputMissing unless this code renders prompts as the run learned them."""
    ours = Renderer.of(template).digest()
    for stage, digest in (("prep", prep.template_sha256), ("train", train.template_sha256)):
        if digest != ours:
            fault = (
                f"{stage} rendered its prompts in another way ({digest}) than this code ({ours})"
            )
            remedy = "use the version of thinktune that trained it, or train it again"
            raise InputMissing(f"run {run}", fault, remedy)
    if train.inputs.get("prep") != manifest_digest(prep):
        fault = "its adapter was trained on another artifact of prep"
        raise InputMissing(f"run {run}", fault, "train again, or name a new run")


def trained_precision(run: str, figures: dict[str, MetricValue]) -> tuple[BasePrecision, Dtype]:
    """Precision of the base model under the adapter, and the type of the training. Raises
    InputMissing where an earlier version trained it."""
    base, dtype = figures.get("base"), figures.get("dtype")
    if base not in get_args(BasePrecision) or dtype not in get_args(Dtype):
        fault = "its adapter does not say at which precision it was trained"
        raise InputMissing(f"run {run}", fault, "an earlier version trained it, train it again")
    return cast(BasePrecision, base), cast(Dtype, dtype)


def check_base(store: Store, repo: str, revision: str, train: Manifest) -> None:
    """Raises InputMissing where the cached base model is not the one that was trained on."""
    prefix = cache_prefix("models", repo, revision)
    manifest = read_manifest(store, prefix)
    place = store.location(prefix)
    if manifest is None:
        raise InputMissing(place, "the base model is not in the store's cache", "run prep again")
    if files_digest(manifest) != train.metrics.get("base_model_sha256"):
        fault = "its files are not those that the adapter was trained on"
        raise InputMissing(place, fault, "delete that artifact and run prep again")
