"""Rendered text to token ids: prompts as training, evaluation and serving give them to a model,
whole examples with what each token is part of, and the rule for examples that are too long.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

from thinktune.schema.errors import DataInvalid
from thinktune.text.conversation import Reason, Unusable
from thinktune.text.templates import AFTER_REASONING, Piece, Rendered
from thinktune.text.think import THINK_CLOSE, THINK_OPEN

TOO_LONG = Reason("too long even without its reasoning", "raise data.max_tokens")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example: prompt, reasoning, answer, one after the other."""

    ids: list[int]
    prompt_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    """The end-of-sequence token included: it is learned, whatever the padding token is."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """An example that is short enough."""

    rendered: Rendered
    encoded: Encoded
    cut: bool
    """Whether the end of its reasoning was cut off."""


class Encoder:
    """Tokenizes rendered text of one model."""

    def __init__(self, tokenizer_file: Path) -> None:
        self._control = Tokenizer.from_file(str(tokenizer_file))
        document = json.loads(tokenizer_file.read_text(encoding="utf-8"))
        self._plain = _letters_only(document)
        self._known: dict[str, list[int]] = {}
        self.longest = _longest_token(document, self._plain)
        """Characters of the longest token; 0 where a token can stand for any length."""

    def prompt_ids(self, pieces: Sequence[Piece]) -> list[int]:
        """Ids of a prompt. Training, evaluation and serving all get theirs here."""
        texts = [piece.text for piece in pieces if not piece.control]
        plain = iter(self._plain.encode_batch_fast(texts, add_special_tokens=False))
        return self._prompt(pieces, plain)

    def think_end_ids(self, text: str) -> list[int]:
        """Ids of the end of a think part: that text, as letters, and the closing mark, as training
        has it. What follows is the model's to write."""
        return self.letter_ids(text) + self._marks(THINK_CLOSE)

    def letter_ids(self, text: str) -> list[int]:
        """Ids of text that holds no control token, whatever it spells."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def think_open_ids(self) -> list[int]:
        """Ids of the mark that opens a think part."""
        return self._marks(THINK_OPEN)

    def count(self, text: str) -> int:
        """Number of tokens of a text that a model wrote, as the evaluation counts it."""
        return len(self._control.encode(text, add_special_tokens=False).ids)

    def encode(self, rendered: Rendered) -> Encoded:
        """Ids of the whole example. Raises DataInvalid where the tokenizer splits end or think."""
        return self.encode_all([rendered])[0]

    def encode_all(self, examples: Sequence[Rendered]) -> list[Encoded]:
        """Ids of many examples, on all cores. Raises as `encode` does."""
        texts: list[str] = []
        ends: list[str] = []
        for rendered in examples:
            texts += [piece.text for piece in rendered.prompt if not piece.control]
            _, body, _, after = _parts(rendered.reasoning)
            texts.append(body)
            ends.append(after + rendered.answer)
        # Only what follows a think part is asked where its tokens begin, which costs a tenth.
        plain = iter(self._plain.encode_batch_fast(texts, add_special_tokens=False))
        rest = iter(self._plain.encode_batch(ends, add_special_tokens=False))
        return [self._assembled(rendered, plain, rest) for rendered in examples]

    def surely_longer(self, rendered: Rendered, max_tokens: int) -> bool:
        """Whether a text is longer than that by the number of its characters alone. It spares a
        row of megabytes the tokenizer, which takes twenty times its size."""
        size = len(rendered.reasoning) + len(rendered.answer)
        size += sum(len(piece.text) for piece in rendered.prompt)
        return bool(self.longest) and size > max_tokens * self.longest

    def _assembled(
        self, rendered: Rendered, plain: Iterator[Encoding], following: Iterator[Encoding]
    ) -> Encoded:
        prompt = self._prompt(rendered.prompt, plain)
        opened, _, closed, after = _parts(rendered.reasoning)
        ids = [*self._marks(opened), *next(plain).ids, *self._marks(closed)]
        rest = next(following)
        # A token that begins in the reasoning belongs to it.
        in_reasoning = 0
        if after:
            for start, _ in rest.offsets:
                if start >= len(after):
                    break
                in_reasoning += 1
        end = self._marks(rendered.end)
        reasoning = len(ids) + in_reasoning
        answer = len(rest.ids) - in_reasoning + len(end)
        return Encoded(prompt + ids + rest.ids + end, len(prompt), reasoning, answer)

    def _prompt(self, pieces: Sequence[Piece], plain: Iterator[Encoding]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            ids += self._marks(piece.text) if piece.control else next(plain).ids
        return ids

    def _marks(self, text: str) -> list[int]:
        """Ids of control text: the marks around content are ours and become the model's tokens for
        them, whatever the row says between them stays letters."""
        if text not in self._known:
            ids = self._control.encode(text, add_special_tokens=False).ids
            if THINK_CLOSE in text and THINK_CLOSE not in self._control.decode(
                ids, skip_special_tokens=False
            ):
                fault = f"{THINK_CLOSE} is not among the tokens of the reasoning"
                raise DataInvalid("tokenizer", fault, "the model's tokenizer.json cannot write it")
            self._known[text] = ids
        return self._known[text]

    def end_id(self, end: str) -> int:
        """The token at which generation stops. Raises DataInvalid where the tokenizer has none."""
        ids: list[int] = self._control.encode(end, add_special_tokens=False).ids
        if (
            not ids
            or not self._control.id_to_token(ids[-1])
            or ids[-1] in self._plain.encode(end, add_special_tokens=False).ids
        ):
            fault = f"{end.strip()!r}, which ends a turn, is no special token of its"
            raise DataInvalid("tokenizer", fault, "correct chat_template in the catalog")
        return ids[-1]

    def truncated(self, rendered: Rendered, encoded: Encoded, max_tokens: int) -> Rendered:
        """Cuts the end of the reasoning so that the whole fits. Raises Unusable where it cannot."""
        over = len(encoded.ids) - max_tokens
        body = rendered.reasoning.removesuffix(AFTER_REASONING)
        offsets = self._plain.encode(body, add_special_tokens=False).offsets
        # Two tokens more than needed: the cut can change how the text around it is split.
        keep = len(offsets) - over - 2
        if not rendered.reasoning or keep <= 0:
            raise Unusable(TOO_LONG)
        cut = body[: offsets[keep - 1][1]]
        line = cut.rfind("\n")
        cut = cut[:line] if line > len(cut) // 2 else cut
        return replace(rendered, reasoning=cut.rstrip() + AFTER_REASONING)


def _letters_only(document: dict[str, Any]) -> Tokenizer:
    """The tokenizer for what a row says: none of its added tokens comes of text that spells one.

    `encode_special_tokens` alone leaves out added tokens that are not flagged as special. Those of
    DeepSeek's release are roles and think marks, with which a row could forge a turn.
    """
    for added in document.get("added_tokens") or ():
        added["special"] = True
    tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _longest_token(document: dict[str, Any], tokenizer: Tokenizer) -> int:
    """Characters of the longest token of a byte-level vocabulary; 0 for another kind, whose unknown
    token can stand for any length of text."""
    if "ByteLevel" not in repr(tokenizer.decoder) and not document["model"].get("byte_fallback"):
        return 0
    return max(map(len, tokenizer.get_vocab(with_added_tokens=True)))


def _parts(reasoning: str) -> tuple[str, str, str, str]:
    """Opening mark, what is thought, closing mark, and what stands between it and the answer."""
    begins = re.match(rf"\s*{THINK_OPEN}", reasoning)  # DeepSeek-V2's text has a space before it
    opened = begins[0] if begins else ""
    body, closed, after = reasoning[len(opened) :].rpartition(THINK_CLOSE)
    return opened, body, closed, after


def _longer(max_tokens: int) -> Reason:
    remedy = "raise data.max_tokens, or set data.too_long=truncate"
    return Reason(f"longer than {max_tokens} tokens", remedy)


def fitted(
    encoder: Encoder, examples: Sequence[Rendered], max_tokens: int, rule: str
) -> list[Fitted | Unusable]:
    """The examples within `max_tokens` by the recipe's rule; Unusable where it drops one."""
    found: dict[int, Fitted | Unusable] = {}
    shortened = [_cut_roughly(encoder, rendered, max_tokens, rule) for rendered in examples]
    whole = {n: rendered for n, rendered in enumerate(shortened) if rendered is not None}
    for n, encoded in zip(whole, encoder.encode_all(list(whole.values())), strict=True):
        result = _within(encoder, whole[n], encoded, max_tokens, rule)
        if isinstance(result, Fitted) and whole[n] is not examples[n]:
            result = replace(result, cut=True)
        found[n] = result
    longer = Unusable(_longer(max_tokens) if rule == "drop" else TOO_LONG)
    return [found.get(n, longer) for n in range(len(examples))]


def _cut_roughly(
    encoder: Encoder, rendered: Rendered, max_tokens: int, rule: str
) -> Rendered | None:
    """The example; where it is surely too long, with a beginning of its reasoning that is still too
    long, or None where that is no help."""
    if not encoder.surely_longer(rendered, max_tokens):
        return rendered
    if rule == "drop" or not rendered.reasoning:
        return None
    body = rendered.reasoning.removesuffix(AFTER_REASONING)
    cut = replace(rendered, reasoning=body[: encoder.longest * max_tokens] + AFTER_REASONING)
    rest = replace(rendered, reasoning="")
    return None if encoder.surely_longer(rest, max_tokens) else cut


def _within(
    encoder: Encoder, rendered: Rendered, encoded: Encoded, max_tokens: int, rule: str
) -> Fitted | Unusable:
    if len(encoded.ids) <= max_tokens:
        return Fitted(rendered, encoded, cut=False)
    if rule == "drop":
        return Unusable(_longer(max_tokens))
    try:
        shorter = encoder.truncated(rendered, encoded, max_tokens)
    except Unusable as unusable:
        return unusable
    encoded = encoder.encode(shorter)
    if len(encoded.ids) > max_tokens:
        return Unusable(TOO_LONG)
    return Fitted(shorter, encoded, cut=True)
