"""What a question asks, apart from how it is worded.

`tasks.prep.near_duplicates` and `tasks.prep.contamination` compare questions by it. Numbers are
values with units (1,000 is 1000 and １０００), words count by their meaning as far as
`question_words` knows it; so do negations and arithmetic signs. The order of words does not.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from thinktune.text.question_words import (
    NEGATIONS,
    NUMBER_WORDS,
    ONE,
    SCALES,
    TWO,
    UNITS,
    WORDING,
    canonical,
)

EVIDENCE_VALUES = 2
EVIDENCE_DIGITS = 3
"""So many numbers of so many digits in all are not the same in two questions by chance."""


ASKING = ("who", "when", "where", "why", "how")
"""Question words that are not exchanged for each other; `which` and `what` are."""


@dataclass(frozen=True, slots=True)
class Content:
    """What one question asks."""

    values: tuple[str, ...]
    """Its numbers but 1 and 2, with their units, sorted, each as often as it stands there."""
    ones: tuple[int, int]
    """How often 1 stands there as a digit, and how often a word may stand for it: `a`, `one`."""
    twos: tuple[int, int]
    """The same for 2; the words are `both`, `double`, `pair`."""
    signs: tuple[str, ...]
    """Arithmetic signs, sorted."""
    negations: int
    asking: tuple[int, int]
    """Which of ASKING begin a sentence, and which stand anywhere, as bits."""
    words: frozenset[str]
    """The words that are asked about."""

    @property
    def substantial(self) -> bool:
        """Whether anything is asked by these words alone; `And why is that?` asks nothing."""
        return bool(self.words or self.values)

    @property
    def evidence(self) -> bool:
        """Whether the numbers alone nearly tell the question from all others."""
        return (
            len(self.values) >= EVIDENCE_VALUES
            and sum(character.isdigit() for value in self.values for character in value)
            >= EVIDENCE_DIGITS
        )


_KINDS = ("number", "1", "one", "2", "two", "sign", "negation")
_SIGNS = {"×": "*", "·": "*", "⋅": "*", "÷": "/", "⁄": "/", "∕": "/"}
_SIGNS |= {"−": "-", "–": "-", "’": "'", "‘": "'"}
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f]")
_LABEL = re.compile(
    r"\s*[#>*\s]*(?:(?:question|problem|query|exercise|task|frage|aufgabe|pregunta|domanda|q)"
    r" ?(?:no\.? ?)?#?\d{0,4}[ *]*(?:[:.)\-]+|\n)[\s*]*|\(?\d{1,4}[.):](?=\s)\s*)*"
)
_OPTION_LABEL = re.compile(
    r"^[ \t]*\(?(?:[a-h]|\d{1,2})[.):][ \t]|(?<=\s)\([a-h]\)(?=\s)", re.MULTILINE
)
_ASIDES = re.compile(
    r"\b(?:let's |let us )?(?:think|reason|go) (?:about (?:this|it) )?step[ -]by[ -]step\b"
    r"|\b(?:please )?(?:put|write|give|provide|place|enclose|box) (?:only )?(?:your|the)"
    r" (?:final )?answer (?:with)?in \\?boxed(?:\{\})?"
    r"|\b(?:show|explain) (?:all )?(?:your|the) (?:work|working|steps|reasoning|answer)\b"
    r"|\b(?:work|figure)(?: it)? out\b|\bquick question\b"
)
_ASKING = re.compile(
    r"(?P<begins>(?:\A|[.?!:]\s)\s?)?\b(?P<word>who|when|where|why"
    r"|how(?! (?:many|much|long|far|old|often|big|large|tall|high|fast|heavy)\b))\b"
)
_MINUS = re.compile(r"(?<=[\d)])\s?-\s?(?=[\d(])")
_TOKEN = re.compile(
    r"\d+(?:st|nd|rd|th)\b"
    r"|(?:(?<![\w)\-])-)?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?"
    r"|(?<![\w.])\.\d+"
    r"|[^\W\d_](?:[^\W_]|'(?=[^\W\d_]))*"
    r"|(?<=[\d)]) ?(?:/(?= ?[\d(])|\*(?= ?[\d(a-z]))|(?<=\d)!(?=[\s?]*[?)*/^=+\u2212-])"
    r"|[+=^√∑∫≤≥≠\u2212%°€£¥]|[<>](?==| ?-?\d)"
)
_SYMBOLS = {"%": "percent", "°": "degree", "€": "euro", "£": "pound", "¥": "yen"}
_SYMBOLS = {symbol: canonical(word) for symbol, word in _SYMBOLS.items()}
_ELIDED = re.compile(r"^(?:[cdjlmnst]|qu)'")


def normalized(text: str) -> str:
    """Text without what does not change its letters: case, the width of characters, marks of
    formatting that take no space."""
    if not text.isascii():
        text = _replaced(text, _superscript)
        text = _replaced(unicodedata.normalize("NFKC", text), _plain)
        text = _UNSPACED.sub(r" \g<0> ", text)
    return text.casefold()


def content(text: str) -> Content:
    """What a question asks. Time is linear in its length."""
    text = normalized(text)
    text = _OPTION_LABEL.sub(" ", text[_LABEL.match(text).end() :])  # type: ignore[union-attr]
    text = _MINUS.sub(" \u2212 ", _ASIDES.sub(" ", text))
    found: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    words: set[str] = set()
    spelled: list[str] = []  # a number in words runs over several tokens
    counted = False
    for token in [*_TOKEN.findall(text), ""]:
        kind, meaning = _kind(token)
        if spelled and kind != "number word" and token != "and":
            for value in _spelled_values(spelled):
                found[value if value in _KINDS else "number"].append(value)
            spelled = []
            counted = value not in _KINDS
        if kind == "word":
            if counted and meaning in UNITS:
                found["number"][-1] += UNITS[meaning]
            else:
                words.add(meaning)
        elif kind == "number word":
            spelled.append(meaning)
        elif kind:
            found[kind].append(meaning)
        counted = kind == "number"
    return Content(
        values=tuple(sorted(found["number"])),
        ones=(len(found["1"]), len(found["one"])),
        twos=(len(found["2"]), len(found["two"])),
        signs=tuple(sorted(found["sign"])),
        negations=len(found["negation"]),
        asking=_asking(text),
        words=frozenset(words),
    )


def _asking(text: str) -> tuple[int, int]:
    begin = anywhere = 0
    for match in _ASKING.finditer(text):
        bit = 1 << ASKING.index(match["word"])
        anywhere |= bit
        begin |= bit if match["begins"] is not None else 0
    return begin, anywhere


def _replaced(text: str, replacement: Callable[[str], str]) -> str:
    for character in set(text):
        if not character.isascii() and (other := replacement(character)) != character:
            text = text.replace(character, other)
    return text


def _superscript(character: str) -> str:
    """A power is no digit of the number before it, as NFKC would have it."""
    return f"^{unicodedata.digit(character)}" if character in "⁰¹²³⁴⁵⁶⁷⁸⁹" else character


def _plain(character: str) -> str:
    """A sign as it stands on a keyboard, a digit as 0 to 9; nothing for a mark of formatting."""
    if character in _SIGNS:
        return _SIGNS[character]
    if unicodedata.category(character) == "Cf":
        return ""
    return str(unicodedata.decimal(character)) if character.isdecimal() else character


def _spelled_values(words: list[str]) -> Iterator[str]:
    """The numbers in a run of number words: `two hundred five`, `twenty three`, `two three`. `One`
    by itself may be an article."""
    if words == ["one"]:
        yield "one"
        return
    above, current = 0, None
    for word in words:
        if word == "hundred":
            current = 100 * (1 if current is None else current)
        elif word in SCALES:
            above += SCALES[word] * (1 if current is None else current)
            current = None
        else:
            value = NUMBER_WORDS[word]
            tens = current is not None and current % 100 >= 20 and current % 10 == 0
            if current is None:
                current = value
            elif (tens and 0 < value < 10) or (current and current % 100 == 0):
                current += value
            else:
                yield str(above + current)
                above, current = 0, value
    yield str(above + (current or 0))


@lru_cache(maxsize=1 << 16)
def _kind(token: str) -> tuple[str, str]:
    """What a token is and what it says."""
    token = token.strip(" ")
    if token in _SYMBOLS:
        return "word", _SYMBOLS[token]
    if not any(character.isalnum() for character in token):
        return ("sign" if token else ""), token
    if not token[-1].isalpha():
        value = _value(token)
        kind = value if value in _KINDS else "number"
        return (kind, value) if token[0] in "-.0123456789" else ("word", token)
    token = _ELIDED.sub("", token)
    if token.endswith("n't") or token in NEGATIONS:
        return "negation", ""
    token = token.split("'")[0] if token.endswith("'s") else token.replace("'", "")
    if token in NUMBER_WORDS or token in SCALES:
        return "number word", token
    if token in ONE or token in TWO:
        return ("one" if token in ONE else "two"), ""
    return ("", "") if token in WORDING else ("word", canonical(token))


def _value(number: str) -> str:
    """One spelling of a number: 007 is 7, 1,000 is 1000, 2.50 is 2.5."""
    sign, digits = ("-", number[1:]) if number[0] == "-" else ("", number)
    whole, _, fraction = digits.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    return f"{sign}{whole.lstrip('0') or '0'}{'.' if fraction else ''}{fraction}"
