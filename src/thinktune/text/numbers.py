"""Numbers in answers: which one is meant, and whether two are the same."""

import contextlib
import re
from dataclasses import dataclass
from fractions import Fraction

NUMBER = re.compile(
    r"(?<![\w^])(?P<sign>(?<!\))[-+])?"
    r"(?:(?P<whole>[0-9]{1,9})[ ](?=[0-9]+/[0-9]))?"
    r"(?P<value>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?P<power>[eE][-+]?[0-9]{1,3}(?![0-9]))?"
    r"(?:[ ]?/[ ]?(?P<below>[0-9]+(?:\.[0-9]+)?))?"
    r"(?P<percent>[ ]?%|[ ]percent\b)?"
)
ONLY_NUMBER = re.compile(rf"[ ]?{NUMBER.pattern}\.?[ ]?°?(?:[^\W\d_][\w/²³^·]*[ ]?){{0,2}}")


@dataclass(frozen=True)
class Number:
    """A number as written."""

    value: Fraction
    places: int | None
    """Decimal places as written; None for a fraction."""
    percent: bool
    text: str


def plain_numbers(text: str) -> str:
    """Takes LaTeX, currency and typographic separators out of numbers."""
    text = text.replace("\N{MINUS SIGN}", "-").replace(r"\%", "%").replace(r"\$", "$")
    text = re.sub(r"\{,\}|\\[,!]|(?<=\d)[\u00a0\u2009\u202f'_](?=\d{3})", "", text)
    text = re.sub(r"(?<![\d.,])(\d{1,2}(?:,\d{2})+,\d{3})(?![\d,])", _ungrouped, text)
    text = re.sub(r"(?<![\d.,/])(\d{1,3}(?: \d{3})+)(?![\d/])", _ungrouped, text)
    text = re.sub(r"(?<=\d)\s*(?=\\[dt]?frac)", " ", text)
    text = re.sub(r"\\[dt]?frac\s*(\d)(\d)(?!\d)", r"\1/\2", text)
    text = re.sub(r"\\[dt]?frac\s*\{(-?[\d.]+)\}\s*\{([\d.]+)\}", r"\1/\2", text)
    text = re.sub(r"\s*(?:×|\\times|\\cdot|\*)\s*10\s*\^\s*\{?(-?\d+)\}?", r"e\1", text)
    text = re.sub(r"(?<![\w.])10\s*\^\s*\{?(-?\d+)\}?", r"1e\1", text)
    text = re.sub(r"\^\s*(?:\{[^{}]*\}|-?\d+)", "", text)  # an exponent is not the answer
    return re.sub(r"[$€£¥₹]|\b(?:USD|EUR|GBP)\b", "", text)


def _ungrouped(found: re.Match[str]) -> str:
    return re.sub(r"[, ]", "", found[1])


def has_power(text: str) -> bool:
    """Whether an exponent is part of a number, which `plain_numbers` would drop: `2^{10}`."""
    return bool(re.search(r"[\d)}]\s*\^", re.sub(r"(?<![\w.])10\s*\^|e-?\d+", "", text)))


def last_number(text: str) -> Number | None:
    """The number in the last `\\boxed{…}`, or else the last one outside a closing remark in
    brackets, or else the last one."""
    plain = plain_numbers(text)
    boxed = re.findall(r"\\boxed\s*\{([^{}]*)\}", plain)[-1:]
    for stretch in [*boxed, re.sub(r"\s\([^()]*\)[\s.]*$", "", plain), plain]:
        for match in reversed(list(NUMBER.finditer(stretch))):
            with contextlib.suppress(ValueError, ZeroDivisionError):  # 5,000 digits, or 3/0
                return _number(match)
    return None


def _number(match: re.Match[str]) -> Number:
    digits = match["value"].replace(",", "")
    value = Fraction(digits + (match["power"] or ""))
    places: int | None = len(digits.partition(".")[2])
    if match["below"]:
        value, places = int(match["whole"] or 0) + value / Fraction(match["below"]), None
    value = -value if match["sign"] == "-" else value
    return Number(value, places, bool(match["percent"]), match[0].strip())


def same_number(candidate: Number | None, reference: Number | None) -> bool:
    """Whether the candidate has the reference's value, to as many places as that is given."""
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
