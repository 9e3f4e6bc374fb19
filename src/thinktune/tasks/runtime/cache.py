"""Reads the base model that prep put into the store's cache.

Called by every stage; only prep writes there (`thinktune.tasks.prep.models`).
"""

import os
from pathlib import Path

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import InputMissing
from thinktune.schema.keys import cache_prefix
from thinktune.store import Store, fetch, file_key, read_manifest, verify
from thinktune.tasks.runtime.entry import Context


def fetch_model(
    entry: ModelEntry, revision: str, context: Context, folder: Path, *, weights: bool
) -> Path:
    """As `fetch_cached`, for a stage."""
    return fetch_cached(entry, revision, context.store, folder, weights=weights)


def fetch_cached(
    entry: ModelEntry, revision: str, store: Store, folder: Path, *, weights: bool
) -> Path:
    """The model's folder as transformers wants it, to be read only; without `weights`, tokenizer
    and config are enough."""
    return fetch_repository(entry.repo, revision, store, folder, weights=weights)


def fetch_repository(
    repo: str, revision: str, store: Store, folder: Path, *, weights: bool
) -> Path:
    """As `fetch_model`, by the name of the repository."""
    prefix = cache_prefix("models", repo, revision)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        place = store.location(prefix)
        raise InputMissing(place, "the model is not in the store's cache", "run prep again")
    here = store.local_path(file_key(store, prefix, manifest, "config.json"))
    if here is not None:  # a store on this machine: read in place, not copied
        verify(store, prefix, manifest, checksums=weights)
        return here.parent
    if cache := os.environ.get("THINKTUNE_CACHE"):
        # A volume that pods share: files that are whole already are kept.
        folder = Path(cache) / prefix
    names = None if weights else [f.name for f in manifest.files if f.name.endswith(".json")]
    return fetch(store, prefix, manifest, folder, names=names)
