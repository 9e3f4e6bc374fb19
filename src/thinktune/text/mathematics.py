"""What can be said of two mathematical answers without a computer algebra system.

math-verify decides the rest (`math_process`). Beside what is plainly equal, this decides what its
version 0.9 gets wrong: a set against a pair, one value against two, √ outside LaTeX, a decimal
against a fraction, an interval against an inequality. It also refuses what only costs time.
"""

import re
from dataclasses import dataclass

from thinktune.text.numbers import NUMBER, has_power, last_number, plain_numbers, same_number

TAIL_CHARACTERS = 300
"""How much of an answer without a boxed expression is read, from its end."""
MOST_CHARACTERS = 4_096
MOST_NESTING = 64
MOST_EXPONENT = 10_000

MATHEMATICS = re.compile(
    r"\\[a-zA-Z]+|[\^=√π∞≤≥±]|\d\s*[+*/]\s*\d|\d[a-z]\b|^[(\[{][^,]+,.*[)\]}]$|^[a-zA-Z]$"
)
"""What sets an expression apart from a plain number or word."""

_SPACING = re.compile(r"\\(?:left|right|displaystyle|[,!;: ])")
_EXPONENT = re.compile(r"\^\s*\{?\s*[-+]?(\d+)")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[a-zA-Z]))")
_BOUND = r"([-+]?(?:\d+(?:\.\d+)?|\\?infty|∞|\\frac\{\d+\}\{\d+\}|\d+/\d+))"
_LESS = r"(<|≤)"
_BETWEEN = re.compile(rf"{_BOUND}{_LESS}[a-z]{_LESS}{_BOUND}")
_AT_MOST = re.compile(r"\\leq?(?![a-zA-Z])|<=")
_WHOLE_TEXT = re.compile(r"\\text\w*\s*\{([^{}]*)\}")
_BOTH_SIGNS = re.compile(r"(?:\\pm|±)\s*")
_BOXES_JOINED = re.compile(
    r"\\boxed\s*\{([^{}]*)\}[\s$]*(?:,?\s*\bor\b|,)[\s$]*\\boxed\s*\{([^{}]*)\}"
)
_OR = re.compile(r"\s*(?:\\text\s*\{\s*or\s*\}|\\(?:text)?or\b|\bor\b|\\vee|;)\s*")
_VALUE_END = re.compile(r"(?:[\d)}\]$π∞]|\b[a-z])\s*$")
_VALUE_START = re.compile(r"\s*[-+($\\]*(?:\d|\\|[a-z]\b)")
_SHORT = re.compile(r"[-+]?[\w\\{}./^()]{1,24}(?:\s*=\s*[-+]?[\w\\{}./^()]{1,24})?")
"""An element of a list without brackets."""
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BRACKETS = {"{": "}", "(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Expression:
    """One side of a comparison, in the form in which it is compared."""

    text: str
    """Without its box, dollars, spacing commands and the words around it."""
    latex: str
    """The same, for math-verify."""
    hostile: bool
    """Whether it is beyond the limits, so that nobody computes it."""


def expression(answer: str) -> Expression:
    """The mathematical part of an answer: its last box, or else its end, there its last formula."""
    answer = _BOXES_JOINED.sub(r"\\boxed{\1 or \2}", answer[-MOST_CHARACTERS:])
    boxed = _last_box(answer)
    if boxed is None:
        line = answer.strip()[-MOST_CHARACTERS:].rpartition("\n")[2]
        if len(line) == MOST_CHARACTERS:
            return Expression(line[-TAIL_CHARACTERS:], "", hostile=True)
        boxed = _last_formula(answer.strip()[-TAIL_CHARACTERS:])
    found = _SPACING.sub("", boxed).strip().removesuffix(".").strip()
    found = _ROOT.sub(_latex_root, found)
    plain = found.replace("\\{", "{").replace("\\}", "}")
    return Expression(plain, found, _hostile(plain))


def decided(candidate: Expression, reference: Expression) -> bool | None:
    """Whether both are the same; None where only algebra can tell."""
    said, wanted = _plain(candidate.text), _plain(reference.text)
    if said == wanted:
        return True
    if candidate.hostile:
        return False
    powers = has_power(candidate.text) or has_power(reference.text)
    if not powers and NUMBER.fullmatch(plain_numbers(wanted)):
        number = NUMBER.fullmatch(plain_numbers(said))
        if number or not (MATHEMATICS.search(candidate.text) or _OR.search(candidate.text)):
            return same_number(last_number(candidate.text), last_number(wanted))
    values = _values(candidate), _values(reference)
    if len(values[0]) != len(values[1]):
        return False
    if len(values[0]) > 1:
        return None
    brackets = _enclosed(said), _enclosed(wanted)
    if all(brackets):
        return _same_lists(said, wanted) if brackets[0] == brackets[1] else False
    interval = _interval(said) or said, _interval(wanted) or wanted
    if any(brackets) and interval != (said, wanted):
        return interval[0] == interval[1]
    return None


def _same_lists(said: str, wanted: str) -> bool | None:
    """Two lists in the same brackets, which are no sets of several elements."""
    of_said, of_wanted = _elements(said[1:-1]), _elements(wanted[1:-1])
    if len(of_said) != len(of_wanted):
        return False
    verdicts = [
        decided(*(Expression(text, text, _hostile(text)) for text in pair))
        for pair in zip(of_said, of_wanted, strict=True)
    ]
    return None if None in verdicts else all(verdicts)


def for_algebra(candidate: Expression, reference: Expression) -> tuple[str, str]:
    """Both as math-verify is to compare them: several values as sets, since their order is free."""
    sides = []
    for side in (candidate, reference):
        values = _values(side)
        sides.append(rf"$\{{{', '.join(values)}\}}$" if len(values) > 1 else side.latex)
    return sides[0], sides[1]


def _values(side: Expression) -> list[str]:
    """The values that one side gives: those with `or` between them, or the elements of a set."""
    found = alternatives(side.latex)
    if len(found) == 1 and len(_BOTH_SIGNS.findall(found[0])) == 1:
        found = [_BOTH_SIGNS.sub("", found[0]), _BOTH_SIGNS.sub("-", found[0])]
    if len(found) == 1 and "," in side.text and not _enclosed(_plain(side.text)):
        listed = _elements(side.text)
        found = listed if all(_SHORT.fullmatch(part.strip()) for part in listed) else found
    if len(found) == 1 and _enclosed(_plain(side.text)) == "{}":
        found = _elements(side.text.strip()[1:-1])
    if len(found) == 1:
        return found
    return [re.sub(r"^\s*[a-zA-Z]\s*=", "", value).strip(" $") for value in found]


def _elements(text: str) -> list[str]:
    """A list's elements; commas inside brackets divide nothing."""
    found, depth = [""], 0
    for character in text:
        depth += (character in _BRACKETS) - (character in _BRACKETS.values())
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return found


def alternatives(text: str) -> list[str]:
    """The values that a text gives with `or` between them; a text without such is one."""
    parts = _OR.split(text)
    joined = [parts[0]]
    for part in parts[1:]:
        if _VALUE_END.search(joined[-1]) and _VALUE_START.match(part):
            joined.append(part)
        else:  # a word of a sentence
            joined[-1] += f" or {part}"
    return joined


def _last_formula(text: str) -> str:
    """The last formula between dollars or brackets, with those that `or` or a comma joins to it;
    the text itself where there is none."""
    found = list(_FORMULA.finditer(text))
    if not found:
        return text
    inner = [next(filter(None, formula.groups()), "") for formula in found]
    said = inner[-1]
    for place in range(len(found) - 1, 0, -1):
        joint = text[found[place - 1].end() : found[place].start()].strip()
        if joint not in ("or", ",", ";", ", or"):
            break
        said = inner[place - 1] + (" or " if "or" in joint else ", ") + said
    return said


def _last_box(text: str) -> str | None:
    """What stands in the last `\\boxed{…}`, its braces balanced."""
    start = text.rfind(r"\boxed")
    opened = text.find("{", start)
    if start < 0 or opened < 0:
        return None
    depth = 0
    for position in range(opened, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[opened + 1 : position]
    return None


def _hostile(text: str) -> bool:
    depth = deepest = 0
    for character in text:
        depth += (character in _BRACKETS) - (character in _BRACKETS.values())
        deepest = max(deepest, depth)
    too_high = any(
        len(digits) > 5 or int(digits) > MOST_EXPONENT for digits in _EXPONENT.findall(text)
    )
    return deepest > MOST_NESTING or too_high


def _plain(text: str) -> str:
    text = _WHOLE_TEXT.sub(r"\1", text.strip())
    text = _AT_MOST.sub("≤", text).replace(r"\lt", "<").replace(r"\infty", "∞")
    return re.sub(r"\s+", "", text).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")


def _latex_root(found: re.Match[str]) -> str:
    return rf"\sqrt{{{found[1] or found[2] or found[3]}}}"


def _enclosed(text: str) -> str | None:
    """The brackets around a list, such as `{}` or `[)`; None where there is none."""
    if len(text) < 3 or text[0] not in _BRACKETS or text[-1] not in _BRACKETS.values():
        return None
    return text[0] + text[-1] if "," in text else None


def _interval(text: str) -> str | None:
    """`0<x≤1` as `(0,1]`."""
    found = _BETWEEN.fullmatch(text)
    if found is None:
        return None
    low, opens, closes, high = found.groups()
    return f"{'(' if opens == '<' else '['}{low},{high}{')' if closes == '<' else ']'}"
