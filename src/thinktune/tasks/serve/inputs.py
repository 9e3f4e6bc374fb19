"""What a server needs of a run, and whether it may be served: base model, adapter and prompts.

Everything that an engine takes on trust is checked here, before it loads: the base model by the
digest of its files, the adapter by its checksums, the prompts by the digest of their template, and
that the evaluation promoted the run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import cache_prefix, stage_prefix
from thinktune.schema.manifest import Manifest, MetricValue
from thinktune.schema.promotion import check_promoted
from thinktune.schema.prompt import PromptTemplate
from thinktune.schema.serve import BasePrecision, ServeTask
from thinktune.store import (
    Store,
    fetch,
    files_digest,
    manifest_digest,
    read_manifest,
)
from thinktune.tasks.runtime.cache import fetch_cached
from thinktune.tasks.runtime.inputs import prompt_facts, stage_manifest
from thinktune.tasks.serve.adapter_check import CONFIG_FILE, WEIGHTS_FILE, read_config
from thinktune.text.templates import Renderer

DEFAULT_WINDOW = 8192
TEMPERATURE, TOP_P = 0.6, 0.95
"""How answers are drawn for a run that has no evaluation: as DeepSeek advises for R1 models."""
TIMES_AS_LONG = 2
"""An answer may have this many times the tokens that the judged ones might, unless its request
says otherwise: a model that repeats itself would go on to the end of the window."""

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class Defaults:
    """What holds for requests that do not say it: as the answers were drawn that were judged."""

    temperature: float
    top_p: float
    max_tokens: int | None
    """Tokens of an answer; None leaves it to the window."""


@dataclass(frozen=True)
class Served:
    """A run that may be served, its files on this machine."""

    run: str
    template: PromptTemplate
    stop_ids: tuple[int, ...]
    weights: Path
    adapter: Path
    adapter_config: dict[str, Any]
    base: BasePrecision
    """Precision of the base model that the adapter was trained and judged on."""
    dtype: Dtype
    window: int
    """Tokens of the longest prompt with its answer."""
    defaults: Defaults
    judged: str
    """What the evaluation says, for the log."""
    base_sha256: str = ""
    """Digest of the files of the base model."""


def read_served(
    task: ServeTask,
    store: Store,
    folder: Path,
    *,
    base: Path | None = None,
    weights: Path | None = None,
) -> Served:
    """Checks the run and brings its files to `folder`, its base model to `base`; `weights`: where
    that is already, because another run has it too. Raises InputMissing or SpecInvalid."""
    prep = stage_manifest(store, task.run, "prep")
    train = stage_manifest(store, task.run, "train")
    evaluation = read_manifest(store, stage_prefix(task.run, "evaluate"))
    judged = check_promoted(
        task.run, manifest_digest(train), evaluation, unpromoted=task.unpromoted
    )
    facts = prompt_facts(store, task.run, prep, folder / "prep")
    template = _template(task.run, facts.template, prep, train)
    precision, dtype = _precision(task.run, train.metrics)
    model, revision = template.model, prep.revisions["model"]
    _check_base(store, model.repo, revision, train)
    weights = weights or fetch_cached(
        model, revision, store, base or folder / "model", weights=True
    )
    names = [CONFIG_FILE, WEIGHTS_FILE]
    adapter = fetch(store, stage_prefix(task.run, "train"), train, folder / "adapter", names=names)
    return Served(
        run=task.run,
        template=template,
        stop_ids=facts.stop_ids,
        weights=weights,
        adapter=adapter,
        adapter_config=read_config(adapter),
        base=precision,
        dtype=dtype,
        window=_window(task, model.context),
        defaults=_sampling(evaluation),
        judged=judged,
        base_sha256=str(train.metrics["base_model_sha256"]),
    )


def _template(
    run: str, template: PromptTemplate | None, prep: Manifest, train: Manifest
) -> PromptTemplate:
    """Raises InputMissing unless this code renders prompts as the run learned them."""
    if template is None:
        fault = "an earlier version prepared it, and it does not say how its prompts are rendered"
        raise InputMissing(f"run {run}", fault, "run its recipe again under a new name")
    ours = Renderer.of(template).digest()
    for stage, digest in (("prep", prep.template_sha256), ("train", train.template_sha256)):
        if digest != ours:
            fault = (
                f"{stage} rendered its prompts in another way ({digest}) than this code ({ours})"
            )
            remedy = "serve it with the version of thinktune that trained it, or train it again"
            raise InputMissing(f"run {run}", fault, remedy)
    if train.inputs.get("prep") != manifest_digest(prep):
        fault = "its adapter was trained on another artifact of prep"
        raise InputMissing(f"run {run}", fault, "train again, or name a new run")
    return template


def _precision(run: str, figures: dict[str, MetricValue]) -> tuple[BasePrecision, Dtype]:
    base, dtype = figures.get("base"), figures.get("dtype")
    if base not in get_args(BasePrecision) or dtype not in get_args(Dtype):
        fault = "its adapter does not say at which precision it was trained"
        raise InputMissing(f"run {run}", fault, "an earlier version trained it, train it again")
    return cast(BasePrecision, base), cast(Dtype, dtype)


def _check_base(store: Store, repo: str, revision: str, train: Manifest) -> None:
    """Raises InputMissing where the cached base model is not the one that was trained on."""
    prefix = cache_prefix("models", repo, revision)
    manifest = read_manifest(store, prefix)
    place = store.location(prefix)
    if manifest is None:
        raise InputMissing(place, "the base model is not in the store's cache", "run prep again")
    if files_digest(manifest) != train.metrics.get("base_model_sha256"):
        fault = "its files are not those that the adapter was trained on"
        raise InputMissing(place, fault, "delete that artifact and run prep again")


def _sampling(evaluation: Manifest | None) -> Defaults:
    """How the answers were drawn that were judged."""
    figures = evaluation.metrics if evaluation is not None else {}
    temperature, top_p = figures.get("temperature"), figures.get("top_p")
    longest = figures.get("max_new_tokens")
    if (
        isinstance(temperature, int | float)
        and isinstance(top_p, int | float)
        and isinstance(longest, int)
    ):
        return Defaults(float(temperature), float(top_p), TIMES_AS_LONG * longest)
    return Defaults(TEMPERATURE, TOP_P, None)


def _window(task: ServeTask, context: int) -> int:
    window = task.window or min(DEFAULT_WINDOW, context)
    if window > context:
        fault = f"the window is {window} tokens, and the model supports {context}"
        raise SpecInvalid(f"run {task.run}", fault, f"set --window to {context} or less")
    return window
