"""Checks answers against references: numbers, letters of options, mathematics, short texts.

Everything here is a pure function of its arguments, except the `math` verifier, which asks the
processes of `math_process` what `mathematics` cannot decide.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thinktune.schema.report import Verifier
from thinktune.text.choices import LETTERS, bare, choice
from thinktune.text.math_process import math_processes
from thinktune.text.mathematics import MATHEMATICS, Expression, decided, expression, for_algebra
from thinktune.text.numbers import ONLY_NUMBER, last_number, plain_numbers, same_number

FEW_WORDS = 5
"""Longest reference, in words, that two people would write alike."""
TYPICAL = 0.95
"""Share of the references that must fit a verifier for `auto` to take it."""
TAIL_CHARACTERS = 4_000
"""How much of a text without a final-answer line is read, from its end."""

CHECK_RULES: dict[Verifier, str] = {
    "number": "Numbers are compared by value: separators, units and currency are ignored, 50% "
    "equals 0.5, and a decimal with two places or more is matched to those places. An answer that "
    "ends in two numbers with “or” between them chooses none.",
    "choice": "The letter of the chosen option is compared; the option's wording is not read. An "
    "answer that names two letters chooses none.",
    "math": "Expressions are compared by math-verify (symbolic and numeric equality). A set is no "
    "pair, two values are not one, and a decimal answers a fraction to its places.",
    "text": "Texts are equal if they are so without case, punctuation and articles.",
    "none": "Accuracy was not measured.",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check comes to."""

    correct: bool
    extracted: str | None
    """What was compared with the reference; None where nothing was found."""
    several: bool = False
    """Whether the answer names several where one is asked for."""


_EITHER = re.compile(
    r"(-?\d[\d.,/%]*),?\s+(?:[^\W\d_]+\s+)?or\s+(-?\d[\d.,/%]*)\s*(?:[^\W\d_]+\s*){0,3}\.?\s*$"
)
"""Two numbers at the end of an answer, of which it chooses none."""
_EITHER_BOLD = re.compile(r"\*\*([^*]+)\*\*(?=\s+or\s)|(?<=\bor )\*\*([^*]+)\*\*")
WRONG = Checked(False, None)


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
    number = bool(ONLY_NUMBER.fullmatch(plain_numbers(reference)))
    if verifier == "choice":
        return bare(reference) is not None
    if verifier == "math":
        return number or bool(MATHEMATICS.search(reference))
    return number if verifier == "number" else len(reference.split()) <= FEW_WORDS


def checkable(reference: str, verifier: Verifier) -> bool:
    """Whether a reference is of the kind that the verifier can compare with."""
    if verifier == "number":
        return last_number(reference) is not None
    if verifier == "choice":
        return choice(reference).letter is not None
    return verifier != "none" and bool(reference.strip())


def check(candidate: str, reference: str, verifier: Verifier) -> bool:
    """Whether the candidate, a final-answer line or the text after the think part, is right."""
    return check_all([(candidate, reference)], verifier)[0].correct


def check_all(
    cases: Sequence[tuple[str, str]],
    verifier: Verifier,
    *,
    letters: str = LETTERS,
    stop: Callable[[], None] = lambda: None,
) -> list[Checked]:
    """Checks candidates against their references. `letters` are those of the options. `stop`
    raises where the work is to end; it is asked several times a second."""
    found: list[Checked] = []
    algebra: dict[int, tuple[Expression, Expression]] = {}
    for number, (candidate, reference) in enumerate(cases):
        stop()
        if verifier == "none" or not candidate.strip():
            found.append(WRONG)
        elif verifier == "math":
            said, wanted = expression(candidate), expression(reference)
            same = decided(said, wanted)
            if same is None:
                algebra[number] = said, wanted
            found.append(Checked(bool(same), said.text or None))
        else:
            tail = candidate.strip()[-TAIL_CHARACTERS:]
            found.append(_checked(tail, reference, verifier, letters))
    if algebra:
        pairs = [for_algebra(said, wanted) for said, wanted in algebra.values()]
        for number, same in zip(algebra, math_processes().check_all(pairs, stop), strict=True):
            found[number] = Checked(same, found[number].extracted)
    return found


def _checked(candidate: str, reference: str, verifier: Verifier, letters: str) -> Checked:
    if verifier == "number":
        either = _EITHER.search(_unboxed(candidate.strip().splitlines()[-1]))
        if either and not same_number(last_number(either[1]), last_number(either[2])):
            return Checked(False, either[0], several=True)
        number = last_number(candidate)
        extracted = None if number is None else number.text
        return Checked(same_number(number, last_number(reference)), extracted)
    if verifier == "choice":
        chosen = choice(candidate, letters)
        right = chosen.letter is not None and chosen.letter == choice(reference).letter
        return Checked(right, chosen.letter, chosen.several)
    wanted, statements = _normal(reference), _statements(candidate)
    last = candidate.splitlines()[-1]
    bold = {_normal(found[1] or found[2]) for found in _EITHER_BOLD.finditer(last)}
    if len(bold) > 1:
        return Checked(False, last, several=True)
    matching = [part for part in statements if wanted and _normal(part) == wanted]
    return Checked(bool(matching), (matching or statements)[-1 if matching else 2])


def _unboxed(line: str) -> str:
    """A line as plain numbers, without boxes, dollars and emphasis around them."""
    line = re.sub(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", r"\1", line)
    return plain_numbers(re.sub(r"[$*_]", "", line))


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
