"""What a server needs of a run, and whether it may be served: base model, adapter and prompts.

Everything that an engine takes on trust is checked here, before it loads: the base model by the
digest of its files, the adapter by its checksums, the prompts by the digest of their template, and
that the evaluation promoted the run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.promotion import check_promoted
from thinktune.schema.prompt import PromptTemplate
from thinktune.schema.recipe import BasePrecision
from thinktune.schema.serve import ServeTask
from thinktune.store import Store, fetch, manifest_digest, read_manifest
from thinktune.store.adapters import CONFIG_FILE, WEIGHTS_FILE
from thinktune.tasks.runtime.cache import fetch_cached
from thinktune.tasks.runtime.inputs import prompt_facts, stage_manifest
from thinktune.tasks.runtime.trained import (
    Dtype,
    check_base,
    check_template,
    judged_sampling,
    trained_precision,
)
from thinktune.tasks.serve.adapter_check import read_config

DEFAULT_WINDOW = 8192
TIMES_AS_LONG = 2
"""An answer may have this many times the tokens that the judged ones might, unless its request
says otherwise: a model that repeats itself would go on to the end of the window."""


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
    precision, dtype = trained_precision(task.run, train.metrics)
    model, revision = template.model, prep.revisions["model"]
    check_base(store, model.repo, revision, train)
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
    check_template(run, template, prep, train)
    return template


def _sampling(evaluation: Manifest | None) -> Defaults:
    judged = judged_sampling(evaluation)
    longest = judged.max_new_tokens
    most = TIMES_AS_LONG * longest if longest is not None else None
    return Defaults(judged.temperature, judged.top_p, most)


def _window(task: ServeTask, context: int) -> int:
    window = task.window or min(DEFAULT_WINDOW, context)
    if window > context:
        fault = f"the window is {window} tokens, and the model supports {context}"
        raise SpecInvalid(f"run {task.run}", fault, f"set --window to {context} or less")
    return window
