"""The adapters of a run in the store: the one that it trained, and those of its checkpoints.

Whether a training can start from one is asked by the launcher when it makes a run whose recipe has
`train.init_from`, and by the train stage again before it loads the adapter.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import checkpoints_prefix, stage_prefix
from thinktune.schema.lora_targets import target_names
from thinktune.schema.manifest import AdapterSource, Manifest
from thinktune.schema.recipe import TrainSpec
from thinktune.store.artifact import REMAKE, file_key, read_manifest
from thinktune.store.base import ObjectMissing, Store

PLACE = "train.init_from"
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
"""As PEFT names them."""
STEP = re.compile(r"/step-(\d+)/manifest\.json$")


@dataclass(frozen=True)
class StoredAdapter:
    """The artifact of a training that is done."""

    prefix: str
    manifest: Manifest
    source: AdapterSource
    config: dict[str, Any]
    """PEFT's."""


def find_adapter(store: Store, run: str) -> StoredAdapter:
    """The adapter that a run has trained. Raises InputMissing where there is none, or half of
    one."""
    prefix = stage_prefix(run, "train")
    place = store.location(prefix)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        fault = f"{PLACE} names run {run}, whose training has committed nothing"
        raise InputMissing(place, fault, "finish that run first, or name another of this store")
    checksums = {entry.name: entry.sha256 for entry in manifest.files}
    if WEIGHTS_FILE not in checksums:
        raise InputMissing(place, f"it has no {WEIGHTS_FILE}", REMAKE)
    try:
        config = json.loads(store.get(file_key(store, prefix, manifest, CONFIG_FILE)))
    except (ObjectMissing, ValueError):
        raise InputMissing(place, f"its {CONFIG_FILE} cannot be read", REMAKE) from None
    source = AdapterSource(run=run, sha256=checksums[WEIGHTS_FILE])
    return StoredAdapter(prefix, manifest, source, config)


def checkpoint_steps(store: Store, run: str) -> list[int]:
    """Steps of a run's committed checkpoints, newest first."""
    found = (STEP.search(info.key) for info in store.list(checkpoints_prefix(run)))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def check_adapter(
    found: StoredAdapter, train: TrainSpec, model: ModelEntry, revision: str | None
) -> None:
    """Raises SpecInvalid naming all that differs where a training cannot start from it.

    `revision` is that of the base model; None where only prep will know it.
    """
    run, config = found.source.run, found.config
    theirs = found.manifest.revisions.get("model")
    repo = config.get("base_model_name_or_path")
    if repo != model.repo:
        fault = f"the adapter of run {run} is for {repo}, this recipe trains {model.repo}"
        raise SpecInvalid(PLACE, fault, "name a run of the same model")
    if revision is not None and theirs != revision:
        fault = f"the adapter of run {run} is for revision {theirs} of {repo}, this recipe trains"
        remedy = f"add --set revision={theirs}, or name another run"
        raise SpecInvalid(PLACE, f"{fault} {revision}", remedy)
    # As the recipe writes them, so that the remedy can be copied.
    there = {
        "base": found.manifest.metrics.get("base", train.base),
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "rslora": config.get("use_rslora", False),
        "targets": sorted(config.get("target_modules") or ()),
    }
    here = {
        "base": train.base,
        "rank": train.rank,
        "alpha": train.alpha,
        "rslora": train.rslora,
        "targets": sorted(target_names(model, train)),
    }
    differing = [name for name, value in here.items() if value != there[name]]
    if differing:
        fault = f"the adapter of run {run} has {_listed(there, differing)}, this recipe"
        settings = [f"--set 'train.{name}={_yaml(there[name])}'" for name in differing]
        remedy = f"add {' '.join(settings)}, or name another run"
        raise SpecInvalid(PLACE, f"{fault} {_listed(here, differing)}", remedy)


def _listed(values: dict[str, Any], names: list[str]) -> str:
    return " and ".join(f"{name} {_yaml(values[name])}" for name in names)


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
