"""The think part of a text that is still being written: `think.split_generated`, piece by piece.

Called by serving. What comes out, put together, is what `split_generated` says of the whole text,
with two exceptions that nobody can see coming: where a think part is closed that was never opened,
what stood before it has been given out as the answer; and where one behind an answer never ends,
the answer has been given out that `split_generated` leaves out.
"""

import re
from dataclasses import dataclass
from typing import Literal

from thinktune.text.think import MARK, MARKS

Kind = Literal["reasoning", "content"]

_LONGEST = max(len(mark) for mark in MARKS)
_SPACE = re.compile(r"\s+\Z")


@dataclass(frozen=True, slots=True)
class Delta:
    """Some more of one part of an answer."""

    kind: Kind
    text: str


class ThinkStream:
    """Takes a text apart while it arrives; white space around each stretch is left out."""

    def __init__(self, *, prompt_opens_think: bool, thinking_is_over: bool = False) -> None:
        """`prompt_opens_think`: the prompt ended inside a think part. `thinking_is_over`: all text
        is the answer, and marks in it are left out."""
        self._thinking_is_over = thinking_is_over
        self.inside = prompt_opens_think
        """Whether the text is in a think part now."""
        self.opened = prompt_opens_think
        """Whether there has been a think part."""
        self._held = ""
        """The end of what came, which may be the beginning of a mark."""
        self._space = {"reasoning": "", "content": ""}
        """White space that is only given out if something follows it in the same stretch."""
        self._began = {"reasoning": False, "content": False}
        self._fresh = True
        """Whether the current stretch has no text yet."""

    def feed(self, text: str) -> list[Delta]:
        """What is known now that this has come."""
        return self._take(self._held + text, final=False)

    def close(self) -> list[Delta]:
        """The rest, once nothing more comes."""
        return self._take(self._held, final=True)

    def _take(self, text: str, *, final: bool) -> list[Delta]:
        found: list[Delta] = []
        at = 0
        for mark in MARK.finditer(text):
            found += self._stretch(text[at : mark.start()])
            self._pass_mark(mark[0])
            at = mark.end()
        kept = 0 if final else _may_begin_a_mark(text[at:])
        self._held = text[len(text) - kept :]
        found += self._stretch(text[at : len(text) - kept])
        return found

    def _pass_mark(self, mark: str) -> None:
        self.inside = not mark.startswith("</") and not self._thinking_is_over
        self.opened = True
        self._fresh = True
        # Stretches of one kind stand on lines of their own.
        self._space = {kind: "\n" if self._began[kind] else "" for kind in self._space}

    def _stretch(self, text: str) -> list[Delta]:
        kind: Kind = "reasoning" if self.inside else "content"
        if self._fresh:
            text = text.lstrip()
        if not text:
            return []
        space = _SPACE.search(text)
        said = text[: space.start()] if space else text
        if not said:
            self._space[kind] += text
            return []
        before, self._space[kind] = self._space[kind], space[0] if space else ""
        self._fresh, self._began[kind] = False, True
        return [Delta(kind, before + said)]


def _may_begin_a_mark(text: str) -> int:
    """How many characters at the end of a text may be the beginning of a mark."""
    for size in range(min(_LONGEST - 1, len(text)), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in MARKS):
            return size
    return 0
