"""Checks answers against references: numbers, letters of options, mathematics, short texts.

Everything here is a pure function of its arguments, except the `math` verifier, which asks the
process of `math_process`.
"""

import contextlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from thinktune.schema.report import Verifier
from thinktune.text.math_process import MATHEMATICS, math_process

FEW_WORDS = 5
"""Longest reference, in words, that two people would write alike."""
TYPICAL = 0.95
"""Share of the references that must fit a verifier for `auto` to take it."""
TAIL_CHARACTERS = 4_000
"""How much of a text without a final-answer line is read, from its end."""

CHECK_RULES: dict[Verifier, str] = {
    "number": "Numbers are compared by value: separators, units and currency are ignored, 50% "
    "equals 0.5, and a decimal with two places or more is matched to those places.",
    "choice": "The letter of the chosen option is compared; the option's wording is not read.",
    "math": "Expressions are compared by math-verify (symbolic and numeric equality).",
    "text": "Texts are equal if they are so without case, punctuation and articles.",
    "none": "Accuracy was not measured.",
}


def choose_verifier(references: Sequence[str | None]) -> Verifier:
    """The verifier that fits the references (`auto`): the first that fits nearly all of them."""
    given = [text.strip() for text in references if text and text.strip()]
    if not given:
        return "none"
    verifiers: tuple[Verifier, ...] = ("choice", "number", "math", "text")
    for verifier in verifiers:
        if sum(_fits(reference, verifier) for reference in given) >= TYPICAL * len(given):
            return verifier
    return "none"


def _fits(reference: str, verifier: Verifier) -> bool:
    number = bool(_ONLY_NUMBER.fullmatch(_plain_numbers(reference)))
    if verifier == "choice":
        return bool(_CHOICE.fullmatch(reference))
    if verifier == "math":
        return number or bool(MATHEMATICS.search(reference))
    return number if verifier == "number" else len(reference.split()) <= FEW_WORDS


def checkable(reference: str, verifier: Verifier) -> bool:
    """Whether a reference is of the kind that the verifier can compare with."""
    if verifier == "number":
        return _last_number(reference) is not None
    if verifier == "choice":
        return _chosen(reference) is not None
    return verifier != "none" and bool(reference.strip())


def check(candidate: str, reference: str, verifier: Verifier) -> bool:
    """Whether the candidate, a final-answer line or the text after the think part, is right."""
    if not candidate.strip():
        return False
    candidate = candidate[-TAIL_CHARACTERS:]
    if verifier == "number":
        return _same_number(_last_number(candidate), _last_number(reference))
    if verifier == "choice":
        chosen = _chosen(candidate)
        return chosen is not None and chosen == _chosen(reference)
    if verifier == "math":
        return candidate.strip() == reference.strip() or math_process().check(candidate, reference)
    if verifier == "text":
        wanted = _normal(reference)
        return bool(wanted) and any(_normal(part) == wanted for part in _statements(candidate))
    return False


# -- number

_NUMBER = re.compile(
    r"(?<![\w^])(?P<sign>(?<!\))[-+])?"
    r"(?:(?P<whole>[0-9]{1,9})[ ](?=[0-9]+/[0-9]))?"
    r"(?P<value>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?P<power>[eE][-+]?[0-9]{1,3}(?![0-9]))?"
    r"(?:[ ]?/[ ]?(?P<below>[0-9]+(?:\.[0-9]+)?))?"
    r"(?P<percent>[ ]?%|[ ]percent\b)?"
)
_ONLY_NUMBER = re.compile(rf"[ ]?{_NUMBER.pattern}\.?[ ]?°?(?:[^\W\d_][\w/²³^·]*[ ]?){{0,2}}")


@dataclass(frozen=True)
class _Number:
    value: Fraction
    places: int | None
    """Decimal places as written; None for a fraction."""
    percent: bool


def _plain_numbers(text: str) -> str:
    """Takes LaTeX, currency and typographic separators out of numbers."""
    text = text.replace("\N{MINUS SIGN}", "-").replace(r"\%", "%").replace(r"\$", "$")
    text = re.sub(r"\{,\}|\\[,!]|(?<=\d)[\u00a0\u2009\u202f'_](?=\d{3})", "", text)
    text = re.sub(r"\\[dt]?frac\s*\{(-?[\d.]+)\}\s*\{([\d.]+)\}", r"\1/\2", text)
    text = re.sub(r"\s*(?:×|\\times|\\cdot|\*)\s*10\s*\^\s*\{?(-?\d+)\}?", r"e\1", text)
    text = re.sub(r"(?<![\w.])10\s*\^\s*\{?(-?\d+)\}?", r"1e\1", text)
    text = re.sub(r"\^\s*(?:\{[^{}]*\}|-?\d+)", "", text)  # an exponent is not the answer
    return re.sub(r"[$€£¥₹]|\b(?:USD|EUR|GBP)\b", "", text)


def _last_number(text: str) -> _Number | None:
    """The number in the last `\\boxed{…}`, or else the last one outside a closing remark in
    brackets, or else the last one."""
    plain = _plain_numbers(text)
    boxed = re.findall(r"\\boxed\s*\{([^{}]*)\}", plain)[-1:]
    for stretch in [*boxed, re.sub(r"\s\([^()]*\)[\s.]*$", "", plain), plain]:
        for match in reversed(list(_NUMBER.finditer(stretch))):
            with contextlib.suppress(ValueError, ZeroDivisionError):  # 5,000 digits, or 3/0
                return _number(match)
    return None


def _number(match: re.Match[str]) -> _Number:
    digits = match["value"].replace(",", "")
    value = Fraction(digits + (match["power"] or ""))
    places: int | None = len(digits.partition(".")[2])
    if match["below"]:
        value, places = int(match["whole"] or 0) + value / Fraction(match["below"]), None
    value = -value if match["sign"] == "-" else value
    return _Number(value, places, bool(match["percent"]))


def _same_number(candidate: _Number | None, reference: _Number | None) -> bool:
    if candidate is None or reference is None:
        return False
    # 3.14159 answers 3.14; where the reference is a fraction, 0.33 answers 1/3.
    places = candidate.places if reference.places is None else reference.places
    places = places or 0
    tolerance = Fraction(1, 2 * 10**places) if 2 <= places <= 30 else Fraction(0)
    wanted = reference.value
    values = [candidate.value]
    if candidate.percent != reference.percent:
        values.append(candidate.value * (Fraction(1, 100) if candidate.percent else 100))
    return any(abs(value - wanted) <= max(tolerance, abs(wanted) / 10**9) for value in values)


# -- choice

_CHOICE = re.compile(r"\(?([A-Ja-j])[).:]?")
_LETTER = r"([A-HJ]\b(?!['’])|I(?=\s*(?:[).:,;*}\n]|$)))"
_STATED_CHOICES = (
    re.compile(r"\\boxed\s*\{\s*(?:\\text\w*\s*\{)?\s*\(?" + _LETTER),
    # Capitals only: in "the answer is a …" the letter is an article.
    re.compile(
        r"\b(?i:answer|choice)(?:\s+(?:is|would be))?\s*[*_]*:?[\s*_]*(?i:option\s+)?\(?" + _LETTER
    ),
)
_NAMED_CHOICE = re.compile(
    r"\(([A-J])\)|^[\s*_>#-]*([A-J])[).:](?=\s|\*|$)|\*\*([A-J])\*\*|\b(?i:option)\s+([A-J])\b",
    re.MULTILINE,
)


def _chosen(text: str) -> str | None:
    """Letter of the chosen option: the text itself, what it states, or the last it names."""
    bare = _CHOICE.fullmatch(text.strip().strip("*_$ "))
    if bare:
        return bare[1].upper()
    for pattern in _STATED_CHOICES:
        stated: list[str] = pattern.findall(text)
        if stated:
            return stated[-1]
    named = list(_NAMED_CHOICE.finditer(text))
    return next(letter for letter in named[-1].groups() if letter) if named else None


# -- text


def _normal(text: str) -> str:
    """Lower case, without punctuation, articles and repeated spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.sub(r"[^\w\s]|_", " ", folded).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"})


def _statements(text: str) -> list[str]:
    """Parts of a text that may be the answer: all of it, its last sentence, what that one says."""
    lines = [line for line in text.splitlines() if line.strip()]
    sentence = re.split(r"(?<=[.!?])\s+", lines[-1].strip())[-1]
    said = re.split(r"\b(?:is|are|was)\b|:", sentence)[-1]
    boxed = re.findall(r"\\boxed\s*\{(?:\\text\w*\s*\{)?([^{}]*)\}", text)[-1:]
    return [text, lines[-1], sentence, said, *re.findall(r"\*\*(.+?)\*\*", sentence), *boxed]
