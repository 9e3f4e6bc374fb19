"""A column written by a language model: rows in, rows with the new field or a reason out.

Prep calls `generate`, and `plan` for a dry run. Rejection sampling is the same with several drafts:
the next one is asked for only where the one before fails a check or disagrees with the reference.
"""

import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any

from thinktune.llm.asking import Asker, Outcome, Standing, reply_prefix
from thinktune.llm.cache import ReplyCache
from thinktune.llm.estimate import Estimate, dry_run
from thinktune.llm.prompts import NotTextError, Template, is_blank, text_of_column
from thinktune.llm.requests import Message, Request
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.llm import GenerateSpec
from thinktune.store import Store

Row = Mapping[str, Any]
Verify = Callable[[str, str], bool]
"""Takes a draft's answer and the reference; whether they agree."""

NO_REASONING, DISAGREES = "no_reasoning", "disagrees"
KEPT = "kept"
SHOWN_CHARS = 200
NOT_ASKED_AGAIN = {"no_reply", "refused_request"}
"""Reasons that another draft would not change."""


@dataclass(frozen=True, slots=True)
class Written:
    """One row, in the order in which they finish."""

    number: int
    """Its place among the rows that came in, from 0."""
    row: dict[str, Any] | None
    """The row with its new field; None where there is a reason."""
    reason: str | None
    """Why it is dropped, as a word to count: what `Outcome.reason` can be; `no:COLUMN` and
    `not_text:COLUMN` for a row that cannot be put into the prompt; `no_reasoning`; `disagrees`."""
    detail: str
    drafts: int
    """Drafts that were looked at; 0 where none was needed or possible."""


def generate(
    rows: Iterable[Row],
    spec: GenerateSpec,
    *,
    store: Store,
    spend_prefix: str,
    columns: Iterable[str] | None = None,
    verify: Verify | None = None,
    place: str = "data.generate",
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Standing], None] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Written]:
    """Asks for each row and yields it as it finishes: its number tells which it was.

    `columns` are those that rows have; None: those of the first row. `verify` is needed with
    `reference`. Rows under way are held in memory, a few hundred of them; in batch mode, where all
    are, in scratch space.
    Raises what `Asker.ask` does, and SpecInvalid for a column that is not there, or is already.
    """
    writer = _Writer(spec, place, verify)
    with Asker(
        spec.llm,
        store,
        spend_prefix,
        place=f"{place}.llm",
        checks=spec.checks,
        stop=stop,
        progress=progress,
        environment=environment,
    ) as asker:
        requests = writer.requests(rows, columns)
        for outcome in asker.ask(requests, writer.again):
            yield writer.written(outcome)


def plan(
    rows: Iterable[Row],
    spec: GenerateSpec,
    *,
    columns: Iterable[str] | None = None,
    store: Store | None = None,
    place: str = "data.generate",
    count_tokens: Callable[[str], int] | None = None,
) -> Estimate:
    """What `generate` would send and cost. With a store, replies that are there are not counted."""
    writer = _Writer(spec, place, None, planning=True)
    requests = (r for r in writer.requests(rows, columns, keep=False) if isinstance(r, Request))
    if store is None:
        return dry_run(spec.llm, requests, drafts=spec.drafts, count_tokens=count_tokens)
    cache = ReplyCache(store, reply_prefix(spec.llm), "dry-run")
    cache.load(lambda: False)
    try:
        return dry_run(
            spec.llm,
            requests,
            drafts=spec.drafts,
            count_tokens=count_tokens,
            is_cached=cache.__contains__,
        )
    finally:
        cache.close()


class _Writer:
    """The rows under way, and what their replies make of them."""

    def __init__(
        self, spec: GenerateSpec, place: str, verify: Verify | None, *, planning: bool = False
    ) -> None:
        self._spec = spec
        self._place = place
        self._verify = verify
        self._prompt = Template(spec.prompt, f"{place}.prompt")
        self._system = Template(spec.system or "", f"{place}.system")
        self._rows = _Shelf(on_disk=spec.llm.mode == "batch")
        self._faults: dict[str, str | None] = {}
        if spec.reference is not None and verify is None and not planning:
            fault = "there is nothing to compare drafts with the reference by"
            raise SpecInvalid(f"{place}.reference", fault, "choose a verifier, or leave it out")

    def requests(
        self, rows: Iterable[Row], columns: Iterable[str] | None, *, keep: bool = True
    ) -> Iterator[Request | Outcome]:
        """One request for each row that needs and allows one; for others their outcome. `keep`
        keeps the rows for `written`."""
        spec = self._spec
        for number, row in enumerate(rows):
            if number == 0:
                self._check_columns(set(row if columns is None else columns))
            id_ = str(number)
            if keep:
                self._rows.put(id_, row)
            if spec.existing == "keep" and not is_blank(row.get(spec.column)):
                yield Outcome(Request(id_, ()), None, "", KEPT, "", cached=True)
                continue
            try:
                yield self._request(id_, row)
            except NotTextError as error:
                yield Outcome(Request(id_, ()), None, "", str(error), "", cached=False)

    def again(self, outcome: Outcome) -> Request | None:
        """The next draft of a row, where this one is not good enough."""
        request = outcome.request
        fault = self._faults[request.id] = self._fault(outcome)
        last = request.draft + 1 >= self._spec.drafts
        if fault is None or last or fault in NOT_ASKED_AGAIN:
            return None
        return replace(request, draft=request.draft + 1)

    def written(self, outcome: Outcome) -> Written:
        """The row with its field, or the reason of its last draft."""
        request = outcome.request
        row = self._rows.pop(request.id)
        number = int(request.id)
        reason = self._faults.pop(request.id, outcome.reason)
        if reason == KEPT:
            return Written(number, row, None, "", 0)
        if reason is not None:
            detail = outcome.detail or (outcome.text or "")[:SHOWN_CHARS]
            return Written(number, None, reason, detail, request.draft + bool(request.messages))
        row[self._spec.column] = outcome.text
        if self._spec.reasoning_column is not None:
            row[self._spec.reasoning_column] = outcome.thinking
        return Written(number, row, None, "", request.draft + 1)

    def _request(self, id_: str, row: Row) -> Request:
        spec = self._spec
        turns = [Message("user", self._prompt.render(row))]
        if spec.system:
            turns.insert(0, Message("system", self._system.render(row)))
        if spec.reference is not None:
            text_of_column(row, spec.reference)  # a row without it can be judged by nothing
        question = text_of_column(row, spec.question) if spec.question is not None else None
        return Request(id_, tuple(turns), question)

    def _fault(self, outcome: Outcome) -> str | None:
        if outcome.text is None:
            return outcome.reason
        if self._spec.reasoning_column is not None and is_blank(outcome.thinking):
            return NO_REASONING
        if self._spec.reference is None or self._verify is None:
            return None
        row = self._rows.get(outcome.request.id)
        reference = text_of_column(row, self._spec.reference)
        return None if self._verify(outcome.text, reference) else DISAGREES

    def _check_columns(self, known: set[str]) -> None:
        spec, place = self._spec, self._place
        self._prompt.check(known)
        self._system.check(known)
        for name, column in (("reference", spec.reference), ("question", spec.question)):
            if column is not None:
                Template(f"{{{column}}}", f"{place}.{name}").check(known)
        for name, column in (("column", spec.column), ("reasoning_column", spec.reasoning_column)):
            if column in known and spec.existing == "refuse":
                fault = f"the rows have a column '{column}' already"
                remedy = "name another, or say existing: replace, or existing: keep"
                raise SpecInvalid(f"{place}.{name}", fault, remedy)


class _Shelf:
    """Rows under way, by id: in memory, or in a file of scratch space."""

    def __init__(self, *, on_disk: bool) -> None:
        self._file: IO[bytes] | None = None
        if on_disk:
            self._file = tempfile.TemporaryFile(prefix="llm-rows-")  # noqa: SIM115 - lives on
        self._rows: dict[str, Row] = {}
        self._offsets: dict[str, int] = {}

    def put(self, id_: str, row: Row) -> None:
        """Keeps a row."""
        if self._file is None:
            self._rows[id_] = row
            return
        self._offsets[id_] = self._file.seek(0, os.SEEK_END)
        pickle.dump(dict(row), self._file)

    def get(self, id_: str) -> dict[str, Any]:
        """A copy of a row."""
        if self._file is None:
            return dict(self._rows[id_])
        self._file.seek(self._offsets[id_])
        row: dict[str, Any] = pickle.load(self._file)
        return row

    def pop(self, id_: str) -> dict[str, Any]:
        """The same for the last time."""
        row = self.get(id_)
        self._rows.pop(id_, None)
        self._offsets.pop(id_, None)
        return row
