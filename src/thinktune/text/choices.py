"""Letters of options in answers: which one is chosen, if exactly one is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

LETTERS = "ABCDEFGHIJ"
FEWEST_LETTERS = 4
"""Options that there are at least, however few of them the references name."""

_BARE = re.compile(r"\(?([A-Ja-j])[).:]?")
_SEEMS = r"(?:is|was|would be|must be|should be|has to be|(?:seems|appears)(?: to be)?|remains)"
# Capitals only: in "the answer is a …" the letter is an article.
_LETTER = r"[\"'\[(]?([A-J])(?![\w'’]|-\w)"
_JOINT = r"(?:,?\s*\b(?:or|and|vs\.?|as well as)\b|[,;/&+])"
_SEVERAL = re.compile(
    rf"[\s$)}}\]*_]*{_JOINT}[\s$*_(\[]*(?:(?i:option|choice|answer)\s+)?(?:\\boxed\s*\{{)?"
    r"([A-J])(?![\w'’]|-\w)"
)
_STATED = tuple(
    re.compile(
        rf"\b(?i:{stated})[\s*_]*"
        rf"(?:(?i:most likely|probably|clearly|therefore|thus|definitely)[,\s]+)?"
        rf"(?i:option\s+|choice\s+)?[*_$]*{_LETTER}"
    )
    for stated in (
        rf"answer\b[*_]*(?:\s+{_SEEMS}[\s*_]*[:=]?|\s*[:=]|\s+-\s)[\s*_]*",
        rf"(?:choice|option)\b[*_]*(?:\s+{_SEEMS}|\s*[:=])",
    )
)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\w*\s*\{)?\s*" + _LETTER)
_NAMED = re.compile(
    r"\(([A-J])\)|^[\s*_>#-]*([A-J])[).:](?=\s|\*|$)|\*\*([A-J])[).:]?\*\*|\b(?i:option)\s+([A-J])\b",
    re.MULTILINE,
)
_LEADING = re.compile(
    r"[\s*_(]*([A-J])(?![\w'’])(?=\s*(?:[).:,;–—-]|\(|because\b|since\b|as\b|for\b"
    r"|is (?:the )?(?:correct|right|best|answer)\b|$))"
)
"""A letter that begins a line which holds the answer: `B because …`, and no article."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a text chooses."""

    letter: str | None
    several: bool = False
    """Whether it names more than one, so that none is chosen."""


def option_letters(references: Sequence[str | None]) -> str:
    """The letters of the options, as far as references show them: A to D at least."""
    chosen = [choice(reference).letter for reference in references if reference]
    last = max((LETTERS.index(letter) for letter in chosen if letter), default=0)
    return LETTERS[: max(FEWEST_LETTERS, last + 1)]


def bare(text: str) -> str | None:
    """The letter that a text consists of."""
    found = _BARE.fullmatch(text.strip().strip("*_$ "))
    return found[1].upper() if found else None


def choice(text: str, letters: str = LETTERS) -> Choice:
    """What a text chooses of the options: all of it, or the last that it states as its answer, or
    the last that it puts in a box, or the last that it names.

    A letter inside a sentence chooses nothing. Where another follows (`A or B`), none is chosen.
    """
    text = text.strip()
    whole = bare(text)
    if whole is not None:
        return Choice(whole if whole in letters else None)
    for found in (*(pattern.finditer(text) for pattern in _STATED), _leading(text)):
        stated = [match for match in found if _is_option(match, text, letters)]
        if stated:
            return _single(stated[-1], text)
    boxed = [match for match in _BOXED.finditer(text) if match[1] in letters]
    if boxed:
        between = text[boxed[-2].end() : boxed[-1].start()] if len(boxed) > 1 else ""
        if re.fullmatch(rf"[\s$)}}]*{_JOINT}[\s$]*", between) and boxed[-1][1] != boxed[-2][1]:
            return Choice(None, several=True)
        return _single(boxed[-1], text)
    return _named(text, letters)


def _leading(text: str) -> list[re.Match[str]]:
    """The letter that begins a text of one line, if that line is an answer."""
    if len(text.splitlines()) != 1:
        return []
    found = _LEADING.match(text)
    if found is None and text[0] in LETTERS and _SEVERAL.match(text, 1):
        found = re.match(r"([A-J])", text)
    return [found] if found else []


def _is_option(match: re.Match[str], text: str, letters: str) -> bool:
    # In "Answer: I think …" and "Answer: A patient …" the letter is a word.
    behind = text[match.end() :]
    word = match[1] in "AI" and re.match(r"\s+(?!because|since|as|is|or|and|vs)[a-z]", behind)
    refuted = re.match(r"\s+(?:is|was|would be)\s+(?:incorrect|wrong|false|not )", behind)
    return match[1] in letters and not word and not refuted


def _single(match: re.Match[str], text: str) -> Choice:
    another = _SEVERAL.match(text, match.end())
    if another is not None and another[1] != match[1]:
        return Choice(None, several=True)
    return Choice(match[1])


def _named(text: str, letters: str) -> Choice:
    """The last option that is named, by the line that names it."""
    for line in reversed(text.splitlines()):
        named = [next(filter(None, match.groups())) for match in _NAMED.finditer(line)]
        named = [letter for letter in named if letter in letters]
        if named:
            return Choice(named[-1]) if len(set(named)) == 1 else Choice(None, several=True)
    return Choice(None)
