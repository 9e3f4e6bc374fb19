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
from thinktune.schema.report import Precision
from thinktune.schema.serve import EngineKind, ServeTask
from thinktune.store import (
    Store,
    fetch,
    files_digest,
    manifest_digest,
    read_manifest,
)
from thinktune.tasks.runtime.cache import fetch_cached
from thinktune.tasks.runtime.inputs import prompt_facts, stage_manifest
from thinktune.tasks.serve.adapter_check import CONFIG_FILE, WEIGHTS_FILE, check_adapter
from thinktune.text.templates import Renderer

DEFAULT_WINDOW = 8192
TEMPERATURE, TOP_P = 0.6, 0.95
"""How answers are drawn for a run that has no evaluation: as DeepSeek advises for R1 models."""

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class Served:
    """A run that may be served, its files on this machine."""

    run: str
    template: PromptTemplate
    stop_ids: tuple[int, ...]
    opens_think: bool
    weights: Path
    adapter: Path
    adapter_config: dict[str, Any]
    base: Precision
    """Precision of the base model that the adapter was trained and judged on."""
    dtype: Dtype
    window: int
    """Tokens of the longest prompt with its answer."""
    temperature: float
    """Default of requests that give none: what the answers were judged at."""
    top_p: float
    judged: str
    """What the evaluation says, for the log."""


def read_served(task: ServeTask, store: Store, folder: Path, engine: EngineKind) -> Served:
    """Checks the run and brings its files to `folder`. Raises InputMissing or SpecInvalid."""
    prep = stage_manifest(store, task.run, "prep")
    train = stage_manifest(store, task.run, "train")
    evaluation = read_manifest(store, stage_prefix(task.run, "evaluate"))
    judged = check_promoted(
        task.run, manifest_digest(train), evaluation, unpromoted=task.unpromoted
    )
    facts = prompt_facts(store, task.run, prep, folder / "prep")
    if facts.template is None:
        fault = "an earlier version prepared it, and it does not say how its prompts are rendered"
        raise InputMissing(f"run {task.run}", fault, "run its recipe again under a new name")
    _check_template(task.run, facts.template, prep, train)
    base, dtype = _precision(task.run, train.metrics)
    model, revision = facts.template.model, prep.revisions["model"]
    _check_base(store, model.repo, revision, train)
    weights = fetch_cached(model, revision, store, folder / "model", weights=True)
    names = [CONFIG_FILE, WEIGHTS_FILE]
    adapter = fetch(store, stage_prefix(task.run, "train"), train, folder / "adapter", names=names)
    temperature, top_p = _sampling(evaluation)
    return Served(
        run=task.run,
        template=facts.template,
        stop_ids=facts.stop_ids,
        opens_think=facts.opens_think,
        weights=weights,
        adapter=adapter,
        adapter_config=check_adapter(adapter, model, engine),
        base=base,
        dtype=dtype,
        window=_window(task, model.context),
        temperature=temperature,
        top_p=top_p,
        judged=judged,
    )


def _check_template(run: str, template: PromptTemplate, prep: Manifest, train: Manifest) -> None:
    """Raises InputMissing unless this code renders prompts as the run learned them."""
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


def _precision(run: str, figures: dict[str, MetricValue]) -> tuple[Precision, Dtype]:
    base, dtype = figures.get("base"), figures.get("dtype")
    if base not in get_args(Precision) or dtype not in get_args(Dtype):
        fault = "its adapter does not say at which precision it was trained"
        raise InputMissing(f"run {run}", fault, "an earlier version trained it, train it again")
    return cast(Precision, base), cast(Dtype, dtype)


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


def _sampling(evaluation: Manifest | None) -> tuple[float, float]:
    """Temperature and top_p of the answers that were judged."""
    figures = evaluation.metrics if evaluation is not None else {}
    temperature, top_p = figures.get("temperature"), figures.get("top_p")
    if isinstance(temperature, int | float) and isinstance(top_p, int | float):
        return float(temperature), float(top_p)
    return TEMPERATURE, TOP_P


def _window(task: ServeTask, context: int) -> int:
    window = task.window or min(DEFAULT_WINDOW, context)
    if window > context:
        fault = f"the window is {window} tokens, and the model supports {context}"
        raise SpecInvalid(f"run {task.run}", fault, f"set --window to {context} or less")
    return window
