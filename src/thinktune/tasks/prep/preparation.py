"""From records to prepared examples: the part of prep that looks at each row by itself.

Called by `stage` and `check`. What becomes of a row depends on that row alone, so rows may be
prepared in any batches, in any number of processes, with the same result.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from thinktune.schema.data import DataSpec
from thinktune.schema.errors import SpecInvalid
from thinktune.tasks.prep.near_duplicates import Asked, signature
from thinktune.tasks.prep.readers.records import Record
from thinktune.tasks.prep.recognition import Layout
from thinktune.tasks.prep.rows import Example, examples_of, question_key
from thinktune.tasks.prep.selection import Filters, balanced_value
from thinktune.text.conversation import Reason, Unusable
from thinktune.text.doubt_loops import loops
from thinktune.text.language import LANGUAGES, SURE, UNKNOWN, language
from thinktune.text.scrub import scrub
from thinktune.text.templates import Rendered, Renderer
from thinktune.text.tokens import Encoded, Encoder, Fitted, fitted

NO_REASONING = Reason(
    "no complete think part",
    "answers need <think>…</think> before them, or map data.columns.reasoning; to train without"
    " reasoning set data.require_reasoning=false",
)
SPELLED = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("[INST]", "[/INST]", "<｜User｜>", "<｜Assistant｜>"),
)
"""Marks by which a text shows that it was rendered for a model already."""
LOOPS = Reason("goes round in circles", "set data.drop_loops=false")
TOO_SHORT = Reason("shorter than data.min_tokens", "lower it")
REASONING_LENGTH = Reason(
    "reasoning not of the length that is wanted",
    "change data.min_reasoning_tokens and data.max_reasoning_tokens",
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """One example as text and as tokens, with what chooses among examples."""

    id: str
    question: str
    """The question alone, as reports show it."""
    key: bytes
    """Digest of all that is asked, 16 bytes."""
    rendered: Rendered
    encoded: Encoded
    asked: Asked | None
    """All that is asked; None where nobody compares questions."""
    signature: bytes
    """Of `asked`; empty where there is none."""
    place: str
    """File and row number."""
    balance: int
    """Which of the balanced values the row has; -1 for none of them."""


@dataclass(slots=True)
class Outcome:
    """What became of one record."""

    place: str
    prepared: list[Prepared] = field(default_factory=list)
    reasons: list[tuple[Reason, bool]] = field(default_factory=list)
    """Why it, or a part of it, is not learned, and whether that is because it is bad."""
    notes: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    """Examples that are as good as prepared, where nobody tokenizes them."""


class _LeftOut(Unusable):
    """A row that could be used, and that the recipe leaves out."""


class Preparation:
    """Prepares batches of records for one model and one recipe."""

    def __init__(
        self,
        data: DataSpec,
        layout: Layout,
        renderer: Renderer,
        encoder: Encoder,
        *,
        compares: bool,
    ) -> None:
        """Raises SpecInvalid for a pattern that cannot be searched and a language that cannot be
        told. `compares`: whether somebody will compare questions with each other."""
        self._data = data
        self._layout = layout
        self._renderer = renderer
        self._encoder = encoder
        self._compares = compares
        self._filters = Filters(data.filters)
        unknown = [code for code in data.languages if code not in LANGUAGES]
        if unknown:
            fault = f"'{unknown[0]}' is no language that can be told"
            raise SpecInvalid("data.languages", fault, f"use codes of {', '.join(LANGUAGES)}")

    def read(self, records: Sequence[Record]) -> "Batch":
        """Rows as text; the first half of the work, in Python."""
        batch = Batch()
        for record in records:
            outcome = Outcome(record.place)
            batch.outcomes.append(outcome)
            try:
                self._read(record, outcome, batch)
            except _LeftOut as left:
                outcome.reasons.append((left.reason, False))
            except Unusable as unusable:
                outcome.reasons.append((unusable.reason, True))
        return batch

    def encode(self, batch: "Batch") -> "Batch":
        """Texts as tokens; the second half, in the tokenizer's own threads."""
        data = self._data
        rendered = [waiting.rendered for waiting in batch.waiting]
        batch.fitted = fitted(self._encoder, rendered, data.max_tokens, data.too_long)
        return batch

    def finish(self, batch: "Batch") -> list[Outcome]:
        """What became of each record, in their order."""
        for waiting, result in zip(batch.waiting, batch.fitted, strict=True):
            outcome = waiting.outcome
            try:
                if isinstance(result, Unusable):
                    raise _LeftOut(result.reason)
                self._check_lengths(result)
            except _LeftOut as left:
                outcome.reasons.append((left.reason, False))
                continue
            if result.cut:
                _note(outcome, "cut to length", 1)
            example = waiting.example
            asked = asked_of(example) if self._compares else None
            outcome.prepared.append(
                Prepared(
                    example.id,
                    example.question,
                    bytes.fromhex(question_key(example))[:16],
                    result.rendered,
                    result.encoded,
                    asked,
                    signature(asked) if asked is not None else b"",
                    outcome.place,
                    waiting.balance,
                )
            )
        return batch.outcomes

    def _read(self, record: Record, outcome: Outcome, batch: "Batch") -> None:
        row = record.read()
        reason = self._filters.reason(row)
        if reason is not None:
            raise _LeftOut(reason)
        balance = balanced_value(row, self._data.balance)
        taken = examples_of(row, self._layout, self._data)
        _note(outcome, "end token taken off", taken.end_tokens)
        _note(outcome, "earlier answer not learned", taken.turns_left)
        _note(outcome, "turn behind the last answer", taken.turns_after)
        said = [text for each in taken.examples for text in (each.question, each.answer)]
        if any(mark in text for text in said for mark in SPELLED):
            _note(outcome, "spells marks of a chat template, which stay text", 1)
        left: Unusable | None = None
        for example in taken.examples:
            try:
                wanted = self._wanted(self._scrubbed(example, outcome))
                rendered = self._renderer.render(wanted)
            except Unusable as unusable:
                left = unusable
            else:
                batch.waiting.append(_Waiting(outcome, wanted, rendered, balance))
        if left is not None:
            raise left

    def _scrubbed(self, example: Example, outcome: Outcome) -> Example:
        if not self._data.scrub:
            return example

        def clean(text: str) -> str:
            scrubbed = scrub(text, self._data.scrub)
            for what, count in scrubbed.counts.items():
                _note(outcome, f"{what} scrubbed", count)
            return scrubbed.text

        return example.with_texts(clean)

    def _wanted(self, example: Example) -> Example:
        """The example, if the recipe wants it. Raises Unusable, _LeftOut."""
        data = self._data
        if example.reasoning is None and data.require_reasoning:
            raise Unusable(NO_REASONING)
        if data.languages:
            for text in (example.question, example.answer):
                code, sure = language(text)
                if code not in (UNKNOWN, *data.languages) and sure >= SURE:
                    raise _LeftOut(Reason(f"in language '{code}'", "add it to data.languages"))
        if data.drop_loops and loops(f"{example.reasoning or ''}\n{example.answer}"):
            raise _LeftOut(LOOPS)
        return example

    def _check_lengths(self, result: Fitted) -> None:
        data, encoded = self._data, result.encoded
        if data.min_tokens is not None and len(encoded.ids) < data.min_tokens:
            raise _LeftOut(TOO_SHORT)
        least = data.min_reasoning_tokens or 0
        most = data.max_reasoning_tokens or encoded.reasoning_tokens
        if not least <= encoded.reasoning_tokens <= most:
            raise _LeftOut(REASONING_LENGTH)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An example on its way to the tokenizer."""

    outcome: Outcome
    example: Example
    rendered: Rendered
    balance: int


@dataclass(slots=True)
class Batch:
    """Some records on their way."""

    outcomes: list[Outcome] = field(default_factory=list)
    waiting: list[_Waiting] = field(default_factory=list)
    fitted: list[Fitted | Unusable] = field(default_factory=list)


def asked_of(example: Example) -> Asked:
    """What one example asks, for comparison with others."""
    turns = [turn.text for turn in example.before if turn.role == "user"]
    return Asked((*turns, example.question), example.options, example.system)


def _note(outcome: Outcome, text: str, count: int) -> None:
    if count:
        outcome.notes[text] = outcome.notes.get(text, 0) + count
