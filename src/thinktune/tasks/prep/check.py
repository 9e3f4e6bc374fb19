"""What prep would make of a dataset, without a run: `python -m thinktune.tasks.prep.check`.

Called by `thinktune data check`. Reads a CheckRequest from stdin and prints a CheckReport. All rows
are read; only the first are tokenized, so that an answer comes in seconds.
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from thinktune.schema.data_check import (
    CheckReport,
    CheckRequest,
    DroppedRows,
    ShownRow,
    TokenFacts,
)
from thinktune.schema.errors import DataInvalid, ThinktuneError
from thinktune.schema.keys import cache_prefix
from thinktune.store import fetch, open_store, read_manifest
from thinktune.store.data_files import data_files, is_remote
from thinktune.tasks.prep.batches import batched
from thinktune.tasks.prep.ledger import Ledger
from thinktune.tasks.prep.preparation import Batch, Preparation, Prepared
from thinktune.tasks.prep.readers.records import Record
from thinktune.tasks.prep.recognition import Layout, recognized
from thinktune.tasks.prep.rows import question_key
from thinktune.tasks.prep.selection import DUPLICATE, SeenColumns, check_columns
from thinktune.tasks.prep.sources import from_bucket, readable, records_of
from thinktune.tasks.runtime.answering import answer
from thinktune.text.estimate import Estimate
from thinktune.text.templates import Renderer
from thinktune.text.tokens import Encoder

NO_LIMIT = 1 << 24
"""Tokens; the answer says what each limit would cut."""
LIMITS = (2_048, 4_096, 8_192)
ENOUGH = 0.95
"""Share of rows that the proposed `max_tokens` leaves whole."""
MOST = 0.9
"""Share of rows with reasoning above which those without are taken for faulty."""


def main() -> NoReturn:
    """Answers one request."""
    answer(lambda said: check(CheckRequest.model_validate_json(said)).model_dump_json(indent=1))


def check(request: CheckRequest) -> CheckReport:
    """Reads the dataset. Raises DataInvalid, SpecInvalid where nothing can be said of it."""
    with tempfile.TemporaryDirectory(prefix="thinktune-check-") as folder:
        encoder, whose = _encoder(request, Path(folder))
        place = request.data.path or ""
        records = _records(request, Path(folder))
        layout, _, records = recognized(records, request.data, request.dataset, place)
        data = request.data
        if not request.said_length:
            data = data.model_copy(update={"max_tokens": NO_LIMIT})
        if not request.said_reasoning:
            data = data.model_copy(update={"require_reasoning": False})
        renderer = Renderer(request.model, data, conversations=layout.conversational)
        preparation = Preparation(data, layout, renderer, encoder, compares=False)
        found = _Found(request, preparation, layout)
        found.take(records)
    return found.report(whose, estimated=isinstance(encoder, Estimate))


class _Found:
    """What is learned of the rows while they pass."""

    def __init__(self, request: CheckRequest, preparation: Preparation, layout: Layout) -> None:
        self._request = request
        self._preparation = preparation
        self._layout = layout
        self._ledger = Ledger()
        self._lengths: list[int] = []
        self._samples: list[Prepared] = []
        self._learned = 0
        self._reasoned = 0
        self._columns = SeenColumns()
        self._keys: set[bytes] = set()

    def take(self, records: Iterator[Record]) -> None:
        """Looks at all rows."""
        for some in batched(self._columns.of(records)):
            batch = self._preparation.read(some)
            if len(self._lengths) < self._request.measured_rows:
                self._measure(batch)
                continue
            for waiting in batch.waiting:
                waiting.outcome.kept += 1
                key = bytes.fromhex(question_key(waiting.example))[:16]
                self._count(waiting.outcome.place, key, bool(waiting.example.reasoning))
            for outcome in batch.outcomes:
                self._ledger.take(outcome)

    def _measure(self, batch: Batch) -> None:
        outcomes = self._preparation.finish(self._preparation.encode(batch))
        for outcome in outcomes:
            self._ledger.take(outcome)
            for prepared in outcome.prepared:
                self._lengths.append(len(prepared.encoded.ids))
                self._count(outcome.place, prepared.key, prepared.encoded.reasoning_tokens > 0)
                if len(self._samples) < self._request.shown:
                    self._samples.append(prepared)

    def _count(self, place: str, key: bytes, reasoned: bool) -> None:
        if self._request.data.deduplicate and key in self._keys:
            self._ledger.drop(DUPLICATE, place, bad=False)
            return
        self._keys.add(key)
        self._learned += 1
        self._reasoned += reasoned

    def report(self, whose: str, *, estimated: bool) -> CheckReport:
        """All of it."""
        layout, ledger = self._layout, self._ledger
        return CheckReport(
            file=self._request.data.path or "",
            layout=layout.line(),
            columns_used=layout.used,
            columns_unused=layout.unused,
            rows=ledger.rows,
            learned=self._learned,
            with_reasoning=self._reasoned,
            dropped=tuple(
                DroppedRows(
                    reason=known.reason,
                    count=known.count,
                    bad=known.bad,
                    examples=tuple(known.examples),
                    remedy=known.remedy,
                )
                for known in ledger.by_weight()
            ),
            notes=dict(ledger.notes),
            tokens=_tokens(self._lengths, self._learned, whose, estimated=estimated),
            samples=tuple(map(_shown, self._samples)),
            settings=self._settings(),
            refused=self._refused(),
        )

    def _settings(self) -> dict[str, str]:
        """The settings that a recipe needs beyond the file's path."""
        settings: dict[str, str] = {}
        if not self._request.said_reasoning and self._reasoned < MOST * self._learned:
            settings["data.require_reasoning"] = "false"
        fits = sorted(self._lengths)[: round(ENOUGH * len(self._lengths)) or 1]
        limit = next((n for n in LIMITS if fits and fits[-1] <= n), None)
        said = self._request.said_length
        if limit is not None and not said and limit != self._request.data.max_tokens:
            settings["data.max_tokens"] = str(limit)
        return settings

    def _refused(self) -> str | None:
        data, place = self._request.data, self._request.data.path or ""
        held = data.split.test_rows + data.split.validation_rows
        try:
            check_columns(data.filters, data.balance, self._columns.names, place)
            self._ledger.check(data.max_bad_fraction, place)
            self._ledger.check_left(self._learned, place)
            if self._learned <= held:
                fault = (
                    f"{self._learned} distinct questions are left, and {held} are to be held out"
                )
                raise DataInvalid(place, fault, "lower data.split.test_rows, or loosen the filters")
        except ThinktuneError as error:
            return str(error)
        return None


def _records(request: CheckRequest, folder: Path) -> Iterator[Record]:
    path = request.data.path or ""
    if is_remote(path):
        return from_bucket(path, folder).records
    return records_of(readable(data_files(path), path))


def _encoder(request: CheckRequest, folder: Path) -> tuple[Encoder, str]:
    """The model's tokenizer out of the store's cache or a package; else an estimate."""
    model = request.model
    if request.store is not None:
        store = open_store(request.store)
        for revision in (model.revision, model.packaged and model.packaged.revision):
            prefix = cache_prefix("models", model.repo, revision) if revision else None
            manifest = read_manifest(store, prefix) if prefix else None
            if prefix is not None and manifest is not None:
                names = ["tokenizer.json"]
                fetch(store, prefix, manifest, folder / "model", names=names)
                return Encoder(folder / "model" / "tokenizer.json"), request.model_name
    return Estimate(), "four characters a token"


def _tokens(
    lengths: Sequence[int], learned: int, whose: str, *, estimated: bool
) -> TokenFacts | None:
    if not lengths:
        return None
    ordered = sorted(lengths)
    return TokenFacts(
        estimated=estimated,
        tokenizer=whose,
        measured_rows=len(ordered),
        total=round(sum(ordered) * learned / len(ordered)),
        mean=statistics.fmean(ordered),
        median=statistics.median(ordered),
        p95=ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))],
        max=ordered[-1],
        longer_than={str(limit): sum(n > limit for n in ordered) for limit in LIMITS},
    )


def _shown(prepared: Prepared) -> ShownRow:
    rendered = prepared.rendered
    return ShownRow(
        id=prepared.id,
        prompt=tuple((piece.text, piece.control) for piece in rendered.prompt),
        reasoning=rendered.reasoning,
        answer=rendered.answer,
        end=rendered.end,
        tokens=len(prepared.encoded.ids),
    )


if __name__ == "__main__":
    main()
