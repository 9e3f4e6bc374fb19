"""Rendered text to token ids: prompts as training, evaluation and serving give them to a model,
whole examples with what each token is part of, and the rule for examples that are too long.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

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


class Encoder:
    """Tokenizes rendered text of one model."""

    def __init__(self, tokenizer_file: Path) -> None:
        self._control = Tokenizer.from_file(str(tokenizer_file))
        self._plain = _letters_only(tokenizer_file)

    def prompt_ids(self, pieces: Sequence[Piece]) -> list[int]:
        """Ids of a prompt. Training, evaluation and serving all get theirs here."""
        ids: list[int] = []
        for piece in pieces:
            tokenizer = self._control if piece.control else self._plain
            ids += tokenizer.encode(piece.text, add_special_tokens=False).ids
        return ids

    def encode(self, rendered: Rendered) -> Encoded:
        """Ids of the whole example. Raises DataInvalid where the tokenizer splits end or think."""
        prompt = self.prompt_ids(rendered.prompt)
        completion, reasoning = self._completion(rendered)
        end = self._control.encode(rendered.end, add_special_tokens=False).ids
        ids = prompt + completion + end
        if rendered.reasoning:
            learned = self._control.decode(completion[:reasoning], skip_special_tokens=False)
            if THINK_CLOSE not in learned:
                fault = f"{THINK_CLOSE} is not among the tokens of the reasoning"
                raise DataInvalid("tokenizer", fault, "the model's tokenizer.json cannot write it")
        return Encoded(ids, len(prompt), reasoning, len(ids) - len(prompt) - reasoning)

    def _completion(self, rendered: Rendered) -> tuple[list[int], int]:
        """Ids of reasoning and answer, and how many of them are the reasoning's.

        The marks around the reasoning are ours and become the model's tokens for them; whatever
        the row says between them and after them stays letters.
        """
        opened = THINK_OPEN if rendered.reasoning.startswith(THINK_OPEN) else ""
        body, closed, after = rendered.reasoning[len(opened) :].rpartition(THINK_CLOSE)
        ids = [
            *self._control.encode(opened, add_special_tokens=False).ids,
            *self._plain.encode(body, add_special_tokens=False).ids,
            *self._control.encode(closed, add_special_tokens=False).ids,
        ]
        rest = self._plain.encode(after + rendered.answer, add_special_tokens=False)
        # A token that begins in the reasoning belongs to it.
        reasoning = len(ids) + sum(1 for start, _ in rest.offsets if start < len(after))
        return ids + rest.ids, reasoning

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

    def count(self, text: str) -> int:
        """Tokens of plain text."""
        return len(self._plain.encode(text, add_special_tokens=False).ids)


def _letters_only(tokenizer_file: Path) -> Tokenizer:
    """The tokenizer for what a row says: none of its added tokens comes of text that spells one.

    `encode_special_tokens` alone leaves out added tokens that are not flagged as special. Those of
    DeepSeek's release are roles and think marks, with which a row could forge a turn.
    """
    document = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    for added in document.get("added_tokens") or ():
        added["special"] = True
    tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _longer(max_tokens: int) -> Reason:
    remedy = "raise data.max_tokens, or set data.too_long=truncate"
    return Reason(f"longer than {max_tokens} tokens", remedy)


def fitted(
    encoder: Encoder, rendered: Rendered, max_tokens: int, rule: str
) -> tuple[Rendered, Encoded, bool]:
    """The example within `max_tokens` by the recipe's rule, and whether it was cut.

    Raises Unusable where the rule drops it.
    """
    encoded = encoder.encode(rendered)
    if len(encoded.ids) <= max_tokens:
        return rendered, encoded, False
    if rule == "drop":
        raise Unusable(_longer(max_tokens))
    shorter = encoder.truncated(rendered, encoded, max_tokens)
    encoded = encoder.encode(shorter)
    if len(encoded.ids) > max_tokens:
        raise Unusable(TOO_LONG)
    return shorter, encoded, True
