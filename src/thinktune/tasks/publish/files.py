"""The files of an export: the adapter or the merged model, and all that a program needs beside it.

Called by `__main__`. They are the same bytes whenever they are made of the same run: an export is
recognized by its checksums.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import cache_prefix, stage_prefix
from thinktune.schema.manifest import FileEntry, Manifest
from thinktune.store import Store, file_key, hash_folder, read_manifest
from thinktune.store.adapters import CONFIG_FILE, WEIGHTS_FILE
from thinktune.tasks.publish.card import card
from thinktune.tasks.publish.source import Source
from thinktune.tasks.runtime.cache import fetch_cached
from thinktune.tasks.runtime.trained import Dtype
from thinktune.text.chat_template import TEMPLATE_FILE, chat_template

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERATION_CONFIG = "generation_config.json"
SUMS_FILE = "SHA256SUMS"
"""Checksums of all other files, as `sha256sum --check` reads them."""
REPLACED = ("README.md", "chat_template.json", TEMPLATE_FILE, GENERATION_CONFIG)
"""Files of a base model that say something else than the run does."""
BEFORE_BF16 = ("T4", "V100", "P100", "RTX 20", "Quadro RTX", "TITAN", "GTX")
"""In the names of GPUs that have no bfloat16: `auto` then computed in float16."""

Say = Callable[[str], None]


def write_files(
    source: Source, folder: Path, scratch: Path, *, merged: bool, name: str, say: Say
) -> tuple[FileEntry, ...]:
    """Writes the export into `folder`, which is not there yet, and gives its files. `name` is what
    programs load it by; `scratch` takes copies from the store."""
    if merged:
        _write_merged(source, folder, scratch, say)
    else:
        folder.mkdir()
        _write_adapter(source, folder)
        _write_tokenizer(source, folder)
    _without_template(folder / TOKENIZER_CONFIG)
    (folder / TEMPLATE_FILE).write_text(chat_template(source.template), encoding="utf-8")
    _write_json(folder / GENERATION_CONFIG, _generation(source))
    text = card(source, merged=merged, name=name)
    (folder / "README.md").write_text(text, encoding="utf-8")
    files = hash_folder(folder)
    sums = "".join(f"{entry.sha256}  {entry.name}\n" for entry in files)
    (folder / SUMS_FILE).write_text(sums, encoding="utf-8")
    return hash_folder(folder)


def _write_adapter(source: Source, folder: Path) -> None:
    prefix = stage_prefix(source.run, "train")
    _copy(source.store, prefix, source.train, (CONFIG_FILE, WEIGHTS_FILE), folder)
    path = folder / CONFIG_FILE
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # So that PEFT loads the very base model by itself.
    config |= {"base_model_name_or_path": source.repo, "revision": source.hub_revision}
    _write_json(path, config)


def _write_tokenizer(source: Source, folder: Path) -> None:
    prefix = cache_prefix("models", source.repo, source.revision)
    cached = read_manifest(source.store, prefix)
    assert cached is not None, "the base model was checked"
    there = {entry.name for entry in cached.files}
    names = [name for name in TOKENIZER_FILES if name in there]
    _copy(source.store, prefix, cached, names, folder)


def _write_merged(source: Source, folder: Path, scratch: Path, say: Say) -> None:
    if source.template.model.dtype == "float8_e4m3fn":
        fault = "its base model is released in FP8, into which nothing is merged"
        raise SpecInvalid(f"run {source.run}", fault, "publish the adapter, without --merged")
    # Imported here: an adapter alone is published without torch.
    from thinktune.tasks.model.base import compute_dtype, local_device
    from thinktune.tasks.model.merge import merge

    model = source.template.model
    weights = fetch_cached(model, source.revision, source.store, scratch / "base", weights=True)
    adapter = scratch / "adapter"
    adapter.mkdir()
    prefix = stage_prefix(source.run, "train")
    _copy(source.store, prefix, source.train, (CONFIG_FILE, WEIGHTS_FILE), adapter)
    say(f"merges the adapter into {source.repo}, in fp32")
    device = local_device()
    dtype = compute_dtype(_trained_dtype(source), device)
    merge(weights, adapter, folder, base=source.base, dtype=dtype, device=device, beat=_nothing)
    for name in REPLACED:
        (folder / name).unlink(missing_ok=True)


def _trained_dtype(source: Source) -> Dtype:
    """The type that the training computed in, on whatever it ran: 4 bits are rounded from it."""
    device = source.train.metrics.get("device")
    if source.dtype != "auto" or not isinstance(device, str):
        return source.dtype
    if device.startswith("CPU"):
        return "float32"
    return "float16" if any(old in device for old in BEFORE_BF16) else "bfloat16"


def _copy(
    store: Store, prefix: str, manifest: Manifest, names: Iterable[str], folder: Path
) -> None:
    """Copies of files of an artifact, checked. Not links: who has them may change them."""
    entries = {entry.name: entry for entry in manifest.files}
    for name in names:
        if name not in entries:
            fault = f"it has no {name}"
            raise InputMissing(store.location(prefix), fault, "make that artifact again")
        store.download(file_key(store, prefix, manifest, name), folder / name, entries[name])


def _without_template(path: Path) -> None:
    """The released template stands in the tokenizer's settings of older models."""
    settings: dict[str, Any] = {}
    if path.exists():
        settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("chat_template", None)
    _write_json(path, settings)


def _generation(source: Source) -> dict[str, Any]:
    """Where an answer ends, and how answers were drawn that were judged."""
    sampling = source.sampling
    found: dict[str, Any] = {
        "eos_token_id": list(source.stop_ids),
        "pad_token_id": source.stop_ids[0],
        "do_sample": sampling.temperature > 0,
    }
    if sampling.temperature > 0:
        # transformers would otherwise sample from the 50 likeliest tokens.
        found |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    if sampling.max_new_tokens is not None:
        found["max_new_tokens"] = sampling.max_new_tokens
    return found


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _nothing() -> None:
    """Nobody watches a merge."""
