"""What a reply must be, checked: the first check that it fails is its reason. `asking` calls it.

The rules are simple enough to be stated, and the reply is stored before them: a change of a check
reads it again and costs nothing.
"""

import re

from thinktune.llm.language import Language
from thinktune.schema.llm import Checks
from thinktune.text.linear_regex import Pattern, TooCostly, compile_pattern

REPEATED_SHARE = 0.8
RUN_WORDS = 3

_END = re.compile(r"[.!?…。！？]+[\"'”’»)\]」』]*")
_CLOSED = re.compile(r"(?:[.!?…][\"'”’»)\]*]*|[。！？][」』”’）]*)$")
_ABBREVIATIONS = frozenset(
    word
    for line in (
        "dr mr mrs ms prof st sr jr vs no nos fig figs eq approx ca cf al etc e.g i.e eg ie resp",
        "incl excl min max vol ed pp inc ltd dept est temp wt ht pt pts u.s u.k a.m p.m ph.d m.d",
        "q.i.d b.i.d t.i.d p.o i.v i.m bzw z.b d.h usw",
    )
    for word in line.split()
)
_WORD = re.compile(r"\w+")


class Checker:
    """The checks of one setting. Raises SpecInvalid for one that cannot be made."""

    def __init__(self, checks: Checks, place: str) -> None:
        self._checks = checks
        code = checks.language
        self._language = Language(code, f"{place}.language") if code else None
        self._matches = _compiled(checks.matches, f"{place}.matches")
        self._not_matches = _compiled(checks.not_matches, f"{place}.not_matches")

    def failed(self, text: str, question: str) -> str | None:
        """The first check that the text fails, by the name of its setting; None if it passes."""
        checks = self._checks
        if checks.min_chars is not None and len(text) < checks.min_chars:
            return "min_chars"
        if checks.max_chars is not None and len(text) > checks.max_chars:
            return "max_chars"
        if checks.one_sentence and not is_one_sentence(text):
            return "one_sentence"
        if self._language is not None and not self._language.is_language_of(text):
            return "language"
        if checks.not_the_question and repeats(text, question):
            return "not_the_question"
        if self._matches is not None and not _found(self._matches, text, or_late=False):
            return "matches"
        if self._not_matches is not None and _found(self._not_matches, text, or_late=True):
            return "not_matches"
        return None


def is_one_sentence(text: str) -> bool:
    """One line, with an end of a sentence at its end and none before.

    An end within the text is a mark followed by a space and a capital, a digit or a letter of a
    script without capitals (after a Chinese or Japanese mark, anything), unless a full stop closes
    an abbreviation or a single letter (`E. coli`).
    """
    text = text.strip()
    if not text or len(text.splitlines()) > 1 or not _CLOSED.search(text):
        return False
    return not any(_ends(text, found) for found in _END.finditer(text))


def repeats(text: str, question: str) -> bool:
    """Whether a reply says what was asked once more: the same words, or four fifths of its runs of
    three words. Of a script without spaces, characters stand for words."""
    said, asked = _words(text), _words(question)
    if not said:
        return False
    if said == asked:
        return True
    if len(said) < RUN_WORDS:
        return False
    runs, there = _runs(said), set(_runs(asked))
    return sum(run in there for run in runs) >= REPEATED_SHARE * len(runs)


def _ends(text: str, found: "re.Match[str]") -> bool:
    rest = text[found.end() :]
    if not rest.strip():
        return False
    if found[0][0] in "。！？":
        return True
    following = rest.lstrip()[0]
    if not rest[0].isspace() or following.islower():
        return False
    if following in "([-–—,;:" or found[0][0] != ".":
        return found[0][0] in "!?" and following.isalnum()
    word = text[: found.start()].rsplit(None, 1)[-1] if text[: found.start()].split() else ""
    word = word.strip("([\"'“‘").casefold()
    return word not in _ABBREVIATIONS and not (len(word) == 1 and word.isalpha())


def _words(text: str) -> list[str]:
    words: list[str] = []
    for word in _WORD.findall(text.casefold()):
        spaced = word.isascii() or not any("\u3040" <= char <= "\u9fff" for char in word)
        words += [word] if spaced else list(word)
    return words


def _runs(words: list[str]) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(RUN_WORDS)), strict=False))


def _compiled(pattern: str | None, place: str) -> Pattern | None:
    return None if pattern is None else compile_pattern(pattern, place)


def _found(pattern: Pattern, text: str, *, or_late: bool) -> bool:
    """Whether it matches somewhere; `or_late` where it would take too long to tell."""
    try:
        return pattern.search(text)
    except TooCostly:
        return or_late
