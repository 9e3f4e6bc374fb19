"""The think part of a text: the one parser of its marks, with a strict and a lenient reading.

Prep reads training rows strictly (`split_think`), because a row that is read wrongly teaches the
wrong thing. Evaluation and serving read generated text leniently (`split_generated`), because every
text that a model writes must be read somehow. The strict reading is the lenient one behind a check
of which marks there are, so both agree wherever the strict one accepts a text.
"""

import re
from dataclasses import dataclass
from typing import Literal

from thinktune.text.conversation import TEXT_BEFORE_THINK, Reason, Unusable

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

UNFINISHED = Reason("unfinished think part", TEXT_BEFORE_THINK.remedy)
SEVERAL = Reason("more than one think part", TEXT_BEFORE_THINK.remedy)

MENTIONED = Reason(
    "a closing think mark inside a sentence",
    "write <think> before the reasoning, so that the mark is no part of the answer",
)
_MENTIONED = re.compile(r"[ \t`'\"(]</think(?:ing)?>[ \t`'\".,;:)]")

MARKS = ("<think>", "</think>", "<thinking>", "</thinking>")
"""Some datasets and models write `<thinking>`; it means the same."""
MARK = re.compile(r"(</?think(?:ing)?>)")
"""One of `MARKS`."""
_WORDS = "think|thinking|thoughts?|reason|reasoning|reflection|scratchpad|analysis|cot"
_OTHER_SPELLING = re.compile(
    rf"\A\s*(<\s*(?:{_WORDS})\s*>|\[(?:{_WORDS})\]|<\|[^|>\n]{{0,20}}(?:think|thought)[^|>\n]{{0,20}}\|>"
    r"|<｜[^｜>\n]{0,20}think[^｜>\n]{0,20}｜>|<[a-z]{2,10}:think(?:ing)?>|◁think▷|&lt;think(?:ing)?&gt;)"
    r"|(<\s*/\s*think(?:ing)?\s*>|\[/think\]|&lt;/think(?:ing)?&gt;)",
    re.IGNORECASE,
)
"""How reasoning begins elsewhere (models, datasets and prompts of all kinds), or ends."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A text taken apart."""

    thinking: str
    """All think parts without their marks, one per line where there are several."""
    answer: str
    """The text outside of the think parts; empty if a think part never ends."""
    closed: bool
    """Whether every think part ends."""
    opened: bool
    """Whether there is any think part, an empty one included."""


@dataclass(frozen=True, slots=True)
class _Piece:
    kind: Literal["open", "close", "text"]
    text: str


def split_think(text: str) -> tuple[str | None, str]:
    """Reasoning and answer of a training row: `<think>r</think>a` gives (r, a).

    The opening mark may be missing, because it may have stood in the prompt. A text without marks
    gives (None, text). Raises Unusable unless there is one think part at most, which ends and comes
    first.
    """
    pieces = _pieces(text)
    marks = [piece.kind for piece in pieces if piece.kind != "text"]
    if marks and "close" not in marks:
        raise Unusable(UNFINISHED)
    if marks not in ([], ["close"], ["open", "close"]):
        raise Unusable(SEVERAL)
    if marks[:1] == ["open"] and pieces[0].text.strip():
        raise Unusable(TEXT_BEFORE_THINK)
    if marks == ["close"] and _MENTIONED.search(text):
        raise Unusable(MENTIONED)
    parsed = _parsed(pieces, opened=False)
    return (parsed.thinking if parsed.opened else None), parsed.answer


def other_spelling(answer: str) -> tuple[str, str | None] | None:
    """The marks of a think part in another spelling than ours, such as `<Think>`, `<reasoning>` or
    `[THINK]`, with which an answer begins, or that ends in it; the second is None where it does not
    stand there. For answers in which `split_think` found no part."""
    found = _OTHER_SPELLING.search(answer)
    if found is None:
        return None
    opened: str = found[1] or found[2]
    closings = (
        *(opened.replace(sign, f"{sign}/", 1) for sign in ("<", "[", "&lt;", "◁")),
        *(opened.replace(start, "end") for start in ("begin", "start")),
        opened.replace("<|", "<|/", 1),
    )
    return opened, next((each for each in closings if each != opened and each in answer), None)


def split_generated(text: str, *, prompt_opens_think: bool) -> Parsed:
    """Takes any generated text apart; a text without marks is all answer.

    `prompt_opens_think`: the prompt ended in `<think>`, so the text begins inside the think part.
    A closing mark without an opening one closes a think part that began with the text.
    """
    return _parsed(_pieces(text), opened=prompt_opens_think)


def _pieces(text: str) -> list[_Piece]:
    """The text in stretches and marks by turns; it begins and ends with a stretch of text, which
    may be empty."""
    pieces = []
    for number, part in enumerate(MARK.split(text)):
        is_mark = number % 2 == 1
        closing = part.startswith("</")
        pieces.append(_Piece(("close" if closing else "open") if is_mark else "text", part))
    return pieces


def _parsed(pieces: list[_Piece], *, opened: bool) -> Parsed:
    thinking: list[str] = []
    answer: list[str] = []
    inside = opened
    for piece in pieces:
        if piece.kind == "open":
            inside = True
            opened = True
        elif piece.kind == "close":
            if not opened:
                thinking = answer
                answer = []
            inside = False
            opened = True
        elif piece.text.strip():
            (thinking if inside else answer).append(piece.text.strip())
    said = "" if inside else "\n".join(answer)
    return Parsed(thinking="\n".join(thinking), answer=said, closed=not inside, opened=opened)
