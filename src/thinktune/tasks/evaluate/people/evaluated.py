"""A finished evaluation, as far as people look at it: its questions and answers, and the keys of
its sheets. Called by the programs of this package."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from thinktune.schema.closed import Closed
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import sheets_prefix, stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.ratings import SheetKey
from thinktune.store import Store, fetch, manifest_digest
from thinktune.tasks.evaluate.judge import Reply, read_replies
from thinktune.tasks.evaluate.samples import Question, Sample
from thinktune.tasks.runtime.inputs import stage_manifest

SAMPLES, REPLIES = "samples.jsonl", "judge.jsonl"


@dataclass(frozen=True)
class Evaluated:
    """What was asked and answered."""

    digest: str
    """Of the evaluation's manifest."""
    questions: tuple[Question, ...]
    samples: Mapping[str, Sample]
    """By their keys, the arms in the order in which people read them."""

    @property
    def arms(self) -> list[str]:
        """Names of the arms."""
        return list(dict.fromkeys(sample.arm for sample in self.samples.values()))


def read_evaluated(store: Store, run: str) -> Evaluated:
    """The questions and answers of a run. Raises InputMissing, also where prep's artifact is no
    longer the one whose questions were asked."""
    manifest = stage_manifest(store, run, "evaluate")
    prep = stage_manifest(store, run, "prep")
    prefix = stage_prefix(run, "prep")
    if manifest_digest(prep) != manifest.inputs.get("prep"):
        fault = "it is not the artifact whose questions were asked"
        raise InputMissing(store.location(prefix), fault, "evaluate the run again")
    with tempfile.TemporaryDirectory(prefix="thinktune-people-") as temporary:
        folder = Path(temporary)
        samples = _samples(store, run, manifest, folder)
        path = fetch(store, prefix, prep, folder, names=["test.parquet"]) / "test.parquet"
        table = pq.read_table(path, columns=["id", "question", "answer", "reference"])
    asked = {sample.question_id for sample in samples.values()}
    questions = (Question(**row) for row in table.to_pylist() if row["id"] in asked)
    return Evaluated(manifest_digest(manifest), tuple(questions), samples)


def read_judged(store: Store, run: str) -> tuple[Manifest, Mapping[str, Sample], list[Reply]]:
    """The answers of a run and the judge's replies. Raises InputMissing, also where no language
    model judged."""
    manifest = stage_manifest(store, run, "evaluate")
    if REPLIES not in {entry.name for entry in manifest.files}:
        fault = "no language model judged the answers"
        remedy = "set evaluate.judge in the recipe, and run it under another id"
        raise InputMissing(store.location(stage_prefix(run, "evaluate")), fault, remedy)
    with tempfile.TemporaryDirectory(prefix="thinktune-people-") as temporary:
        folder = Path(temporary)
        samples = _samples(store, run, manifest, folder)
        prefix = stage_prefix(run, "evaluate")
        fetch(store, prefix, manifest, folder, names=[REPLIES])
        return manifest, samples, read_replies(folder / REPLIES)


def key_location(run: str, name: str) -> str:
    """Where the key of a sheet is in the store."""
    return f"{sheets_prefix(run)}/keys/{name}.json"


def read_keys(store: Store, run: str) -> list[SheetKey]:
    """The keys of all sheets of a run, those of an earlier evaluation included."""
    found = store.list(f"{sheets_prefix(run)}/keys")
    return [read_key(store, info.key) for info in found]


def read_key(store: Store, key: str) -> SheetKey:
    """One key. Raises InputMissing for what is none."""
    place = store.location(key)
    remedy = "delete it; sheets that were written with it cannot be read any more"
    try:
        return SheetKey.parse(json.loads(store.get(key)), place)
    except SpecInvalid as error:
        raise InputMissing(place, error.fault, remedy) from None
    except ValueError:
        raise InputMissing(place, "it is not JSON", remedy) from None


def put_if_absent(store: Store, key: str, value: Closed) -> bool:
    """Writes a model as JSON. False where something is there."""
    text = json.dumps(value.model_dump(mode="json"), indent=1, ensure_ascii=False)
    return store.put_if_absent(key, text.encode())


def _samples(store: Store, run: str, manifest: Manifest, folder: Path) -> dict[str, Sample]:
    prefix = stage_prefix(run, "evaluate")
    path = fetch(store, prefix, manifest, folder, names=[SAMPLES]) / SAMPLES
    with path.open(encoding="utf-8") as file:
        samples = [Sample(**json.loads(line)) for line in file]
    return {sample.key: sample for sample in samples}
