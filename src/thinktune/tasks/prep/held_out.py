"""The questions that a run held out: `python -m thinktune.tasks.prep.held_out`.

Called by `thinktune bench serve`. Reads a HeldOutRequest from stdin and prints a HeldOut.
"""

import tempfile
from pathlib import Path
from typing import NoReturn

import pyarrow.parquet as pq

from thinktune.schema.errors import DataInvalid
from thinktune.schema.keys import stage_prefix
from thinktune.schema.load import HeldOut, HeldOutRequest
from thinktune.store import fetch, open_store
from thinktune.tasks.runtime.answering import answer
from thinktune.tasks.runtime.inputs import stage_manifest

FILE = "test.parquet"


def main() -> NoReturn:
    """Answers one request."""
    answer(_answered)


def _answered(said: str) -> str:
    return held_out(HeldOutRequest.model_validate_json(said)).model_dump_json()


def held_out(request: HeldOutRequest) -> HeldOut:
    """The questions, in the order of prep's file. Raises InputMissing, DataInvalid where no
    question was held out."""
    store = open_store(request.store)
    manifest = stage_manifest(store, request.run, "prep")
    with tempfile.TemporaryDirectory(prefix="thinktune-held-out-") as temporary:
        prefix = stage_prefix(request.run, "prep")
        path = fetch(store, prefix, manifest, Path(temporary), names=[FILE]) / FILE
        questions = pq.read_table(path, columns=["question"])["question"].to_pylist()
    if not questions:
        fault, remedy = "no question was held out", "name a file of questions with --questions"
        raise DataInvalid(f"prep of run {request.run}", fault, remedy)
    return HeldOut(questions=tuple(questions))


if __name__ == "__main__":
    main()
