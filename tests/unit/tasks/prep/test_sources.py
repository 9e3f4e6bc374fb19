"""The user's own file: from where it was submitted, or out of the store, where `submit` put it."""

from pathlib import Path

import pytest
from tiny_tokenizer import tiny_entry

from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import DataInvalid
from thinktune.schema.keys import source_key
from thinktune.schema.stages import PrepTask
from thinktune.store import file_sha256, open_store
from thinktune.tasks.prep.sources import open_source
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop


def rows(folder: Path, path: Path, sha256: str) -> list[object]:
    url = f"file://{folder}/store"
    task = PrepTask(
        run="r",
        store=url,
        model_name="tiny",
        model=tiny_entry(),
        dataset=DatasetEntry(license="x", format="columns", description="x"),
        data=DataSpec(dataset="file", path=str(path)),
        source_sha256=sha256,
    )
    store = open_store(url)
    context = Context(store, "a", Reporter(store, "r", "prep", "a"), Stop())
    with open_source(task, context) as source:
        return [record.row for record in source.records]


def test_a_file_that_lies_elsewhere_comes_out_of_the_store(tmp_path: Path) -> None:
    own = tmp_path / "rows.jsonl"
    own.write_text('{"question": "q", "answer": "a"}\n')
    digest = file_sha256(own)
    here = rows(tmp_path, own, digest)
    open_store(f"file://{tmp_path}/store").upload(source_key(digest, own.name), own, digest)
    own.unlink()
    assert rows(tmp_path, own, digest) == here == [{"question": "q", "answer": "a"}]


def test_a_file_that_is_nowhere_or_another(tmp_path: Path) -> None:
    own = tmp_path / "rows.jsonl"
    with pytest.raises(DataInvalid, match="cannot be read"):
        rows(tmp_path, own, "0" * 64)
    own.write_text("{}\n")
    with pytest.raises(DataInvalid, match="not the one that was submitted"):
        rows(tmp_path, own, "0" * 64)
