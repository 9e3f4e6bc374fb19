"""The whole stage on a user's own file, with the tiny model's tokenizer and a store on disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tiny_tokenizer import commit_model, tiny_entry, write_tokenizer

from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import PrepTask
from thinktune.store import fetch, open_store
from thinktune.tasks.prep import stage
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

OWN = DatasetEntry(license="x", format="columns", description="x")


@dataclass(frozen=True)
class Made:
    """An artifact of prep."""

    folder: Path
    manifest: Manifest

    @property
    def card(self) -> dict[str, Any]:
        """What card.json says."""
        found: dict[str, Any] = json.loads((self.folder / "card.json").read_text(encoding="utf-8"))
        return found

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Rows of `train`, `validation` or `test`."""
        files = sorted(self.folder.glob(f"{name}*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]


class Prep:
    """A store with the tiny tokenizer in its cache, where prep can run any number of times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file://{folder}/store"
        self._runs = 0
        model = folder / "model"
        model.mkdir()
        write_tokenizer(model)
        commit_model(self.url, model)

    def run(self, path: Path | str, *, stop: Stop | None = None, **data: Any) -> Made:
        """Runs the stage. Raises what it does."""
        self._runs += 1
        spec = {"dataset": "file", "path": str(path), "require_reasoning": False, **data}
        task = PrepTask(
            run=f"r{self._runs}",
            store=self.url,
            model_name="tiny",
            model=tiny_entry(),
            dataset=OWN,
            data=DataSpec.model_validate(spec),
        )
        store = open_store(self.url)
        context = Context(store, "a", Reporter(store, task.run, "prep", "a"), stop or Stop())
        manifest = stage.run(task, context)
        output = self.folder / task.run
        fetch(store, stage_prefix(task.run, "prep"), manifest, output)
        return Made(output, manifest)
