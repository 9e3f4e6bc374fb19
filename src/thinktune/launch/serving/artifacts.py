"""What the artifacts of runs say about serving them: base model, adapter, and the gate's verdict.

The server checks all of it again, file by file, before it loads anything. Called by `serve` and
`promote`.
"""

import json
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.promotion import check_promoted
from thinktune.schema.prompt import PROMPT_FILE, PromptFacts
from thinktune.schema.served import DesiredRun
from thinktune.schema.stages import Stage
from thinktune.store import Store, fetch, manifest_digest, read_manifest
from thinktune.store.adapters import CONFIG_FILE


@dataclass(frozen=True)
class Servable:
    """A run that may be served, as far as its manifests tell."""

    desired: DesiredRun
    model_name: str
    """Name of its base model in the catalog."""
    model: ModelEntry
    revision: str
    base: Literal["nf4", "16bit"]
    """Precision of the base model that it was trained and judged on."""
    base_sha256: str
    """Digest of the files of that base model."""
    rank: int
    targets: tuple[str, ...]
    """Layers that its adapter changes, of those that recipes train."""
    unplaced: tuple[str, ...]
    """Other layers that it changes, for which vLLM has no place."""
    judged: str
    """What its evaluation says."""
    created: str
    """When its adapter was committed."""

    @property
    def run(self) -> str:
        """Its id."""
        return self.desired.run


def read_servable(
    run: str, store: Store, *, unpromoted: bool = False, known: Collection[DesiredRun] = ()
) -> Servable:
    """Raises InputMissing where an artifact is missing or says too little, SpecInvalid where the
    evaluation did not promote the run and nobody asked to serve it all the same.

    `known`: what a server serves or served. Whoever chose that said then whether the gate counts,
    for that adapter and for no other of the same run.
    """
    prep, train = _manifest(store, run, "prep"), _manifest(store, run, "train")
    evaluation = read_manifest(store, stage_prefix(run, "evaluate"))
    digest = manifest_digest(train)
    asked_before = [each.unpromoted for each in known if each.is_of(run, digest)]
    unpromoted = unpromoted or any(asked_before)
    judged = check_promoted(run, digest, evaluation, unpromoted=unpromoted)
    with tempfile.TemporaryDirectory(prefix="thinktune-serve-") as folder:
        facts = _json(store, run, "prep", prep, PROMPT_FILE, Path(folder))
        adapter = _json(store, run, "train", train, CONFIG_FILE, Path(folder))
    template = PromptFacts.parse(facts, f"{PROMPT_FILE} of {run}").template
    base, base_sha256 = train.metrics.get("base"), train.metrics.get("base_model_sha256")
    if template is None or base not in ("nf4", "16bit") or not isinstance(base_sha256, str):
        fault = "an earlier version made it, and it does not say what a server must know"
        raise InputMissing(f"run {run}", fault, "run its recipe again under a new name")
    changed = adapter.get("target_modules") or ()
    # A pattern says nothing of layers; the pod looks at the tensors.
    layers = set() if isinstance(changed, str) else {each.rpartition(".")[2] for each in changed}
    return Servable(
        desired=DesiredRun(run=run, train_sha256=digest, unpromoted=unpromoted),
        model_name=template.model_name,
        model=template.model,
        revision=prep.revisions.get("model", ""),
        base=cast(Literal["nf4", "16bit"], base),
        base_sha256=base_sha256,
        rank=max([int(adapter["r"]), *map(int, (adapter.get("rank_pattern") or {}).values())]),
        targets=tuple(name for name in template.model.lora_targets if name in changed),
        unplaced=tuple(sorted(layers - set(template.model.lora_targets))),
        judged=judged,
        created=train.created,
    )


def check_placed(runs: Sequence[Servable]) -> None:
    """Raises SpecInvalid for an adapter that vLLM would apply in part."""
    for run in runs:
        if run.unplaced:
            fault = f"its adapter changes {', '.join(run.unplaced)}, for which vLLM has no place"
            remedy = "serve it by transformers (--engine transformers), or train it without"
            raise SpecInvalid(f"run {run.run}", fault, remedy)


def check_same_base(runs: Sequence[Servable]) -> None:
    """Raises SpecInvalid where the runs do not share one base model at one precision."""
    first = runs[0]
    for other in runs[1:]:
        for what, ours, theirs in (
            ("base model", first.model.repo, other.model.repo),
            ("revision of the base model", first.revision, other.revision),
            ("content of the base model", first.base_sha256, other.base_sha256),
            ("precision", first.base, other.base),
        ):
            if ours != theirs:
                fault = f"its {what} is {theirs}, and that of {first.run} is {ours}"
                remedy = "one server has one base model: serve it by another one (--name)"
                raise SpecInvalid(f"run {other.run}", fault, remedy)


def newest_run(recipe: str, store: Store) -> str | None:
    """The run of a recipe whose adapter was committed last; None where there is none."""
    suffix = "/train/manifest.json"
    found = []
    for info in store.list("runs"):
        run = info.key.removeprefix("runs/").removesuffix(suffix)
        if info.key.endswith(suffix) and "/" not in run and _is_of(run, recipe):
            train = read_manifest(store, stage_prefix(run, "train"))
            found += [(train.created, run)] if train is not None else []
    return max(found)[1] if found else None


def _is_of(run: str, recipe: str) -> bool:
    """Whether a run has the id that its recipe gives it: a name, and a digest of 8 digits."""
    name, _, digest = run.rpartition("-")
    return name == recipe and len(digest) == 8 and set(digest) <= set("0123456789abcdef")


def _manifest(store: Store, run: str, stage: Stage) -> Manifest:
    prefix = stage_prefix(run, stage)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        fault = f"stage {stage} of run {run} has committed nothing"
        remedy = "finish the run first; `thinktune status` lists the runs"
        raise InputMissing(store.location(prefix), fault, remedy)
    return manifest


def _json(
    store: Store, run: str, stage: Stage, manifest: Manifest, name: str, folder: Path
) -> dict[str, Any]:
    """What a small file of an artifact says."""
    prefix = stage_prefix(run, stage)
    if name not in {entry.name for entry in manifest.files}:
        fault, remedy = f"it has no {name}", f"delete that artifact and run {stage} again"
        raise InputMissing(store.location(prefix), fault, remedy)
    path = fetch(store, prefix, manifest, folder / stage, names=[name]) / name
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
