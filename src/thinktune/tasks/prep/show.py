"""Training rows of a run as the model got them: `python -m thinktune.tasks.prep.show`.

Called by `thinktune data show`. Reads a ShowRequest from stdin and prints a list of ShownRow. The
text is decoded from the token ids that the run trained on, not rendered again.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pyarrow.parquet as pq
from tokenizers import Tokenizer

from thinktune.schema.data_check import ShownRow, ShowRequest
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import cache_prefix, stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.store import Store, fetch, open_store, read_manifest
from thinktune.tasks.runtime.answering import answer


def main() -> NoReturn:
    """Answers one request."""
    answer(_answered)


def _answered(said: str) -> str:
    rows = show(ShowRequest.model_validate_json(said))
    dumped = [row.model_dump(mode="json") for row in rows]
    return json.dumps(dumped, indent=1, ensure_ascii=False)


def show(request: ShowRequest) -> list[ShownRow]:
    """The rows that were asked for. Raises InputMissing, SpecInvalid."""
    store = open_store(request.store)
    prefix = stage_prefix(request.run, "prep")
    manifest = read_manifest(store, prefix)
    if manifest is None:
        fault = f"prep of run {request.run} has no committed artifact"
        remedy = f"`thinktune why {request.run}` explains the run's state"
        raise InputMissing(store.location(prefix), fault, remedy)
    with tempfile.TemporaryDirectory(prefix="thinktune-show-") as temporary:
        folder = Path(temporary)
        names = [file.name for file in manifest.files if file.name.startswith("train-")]
        fetch(store, prefix, manifest, folder, names=[*names, "card.json"])
        model = json.loads((folder / "card.json").read_text(encoding="utf-8"))["model"]
        tokenizer = _tokenizer(store, manifest, request.models.get(model, ""), folder)
        found = _rows([folder / name for name in sorted(names)], request.rows)
    missing = [number for number in request.rows if number not in found]
    if missing:
        fault = f"the run has {manifest.metrics['training_rows']} training rows"
        raise SpecInvalid(f"--row {missing[0]}", fault, "name one of them, from 1")
    return [_shown(found[number], tokenizer) for number in request.rows]


def _tokenizer(store: Store, manifest: Manifest, repo: str, folder: Path) -> Tokenizer:
    prefix = cache_prefix("models", repo, manifest.revisions["model"]) if repo else ""
    cached = read_manifest(store, prefix) if repo else None
    if cached is None:
        fault = "the model's tokenizer is not in the store's cache"
        raise InputMissing(store.location(prefix), fault, "run prep again")
    fetch(store, prefix, cached, folder / "model", names=["tokenizer.json"])
    return Tokenizer.from_file(str(folder / "model" / "tokenizer.json"))


def _rows(files: Sequence[Path], wanted: Sequence[int]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    before = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            count = file.metadata.num_rows
            here = {n for n in wanted if before < n <= before + count}
            if here:
                table = file.read()
                found |= {n: table.slice(n - before - 1, 1).to_pylist()[0] for n in here}
            before += count
    return found


def _shown(row: dict[str, Any], tokenizer: Tokenizer) -> ShownRow:
    ids: list[int] = row["ids"]
    prompt, reasoning = row["prompt_tokens"], row["reasoning_tokens"]
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token}
    pieces = tuple(
        (tokenizer.decode(run, skip_special_tokens=False), control)
        for run, control in _runs(ids[:prompt], special)
    )
    end = ids[-1:] if ids[-1] in special else []
    learned = ids[prompt : len(ids) - len(end)]
    return ShownRow(
        id=row["id"],
        prompt=pieces,
        reasoning=tokenizer.decode(learned[:reasoning], skip_special_tokens=False),
        answer=tokenizer.decode(learned[reasoning:], skip_special_tokens=False),
        end=tokenizer.decode(end, skip_special_tokens=False) if end else "",
        tokens=len(ids),
    )


def _runs(ids: Sequence[int], special: set[int]) -> list[tuple[list[int], bool]]:
    """The ids in stretches of control tokens and of others."""
    runs: list[tuple[list[int], bool]] = []
    for number in ids:
        control = number in special
        if runs and runs[-1][1] == control:
            runs[-1][0].append(number)
        else:
            runs.append(([number], control))
    return runs


if __name__ == "__main__":
    main()
