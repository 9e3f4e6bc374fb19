"""Questions, rewordings of them and near misses, for the tests of near-duplicates.

A rewording asks the same in other words; a near miss looks alike and asks something else. Each kind
is a function of a base question, made by `bases`.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

DRUGS = (
    "warfarin",
    "heparin",
    "metformin",
    "lisinopril",
    "amoxicillin",
    "ibuprofen",
    "digoxin",
    "lithium",
    "phenytoin",
    "propranolol",
    "omeprazole",
    "furosemide",
    "atorvastatin",
)
NAMES = ("Anna", "Bilal", "Chen", "Dora", "Emeka", "Farid", "Greta", "Hana", "Ivan", "Jorge")
GOODS = ("hats", "loaves", "pens", "lamps", "tickets", "bottles", "muffins", "books")
PLACES = ("shop", "bakery", "market", "factory", "library", "school")


@dataclass(frozen=True)
class Base:
    """One question, in its own words, in another order and in other words."""

    text: str
    reordered: str
    synonyms: str
    number: str
    """A number in the text."""
    drug: str | None = None
    unit: tuple[str, str] | None = None
    """A unit in the text, and another one."""
    verb: tuple[str, str] | None = None
    """Words of the text that can be negated, and their negation."""


def bases(count: int, seed: int = 0) -> list[Base]:
    """So many questions, no two of which ask the same."""
    generator = random.Random(seed)
    made: dict[str, Base] = {}
    while len(made) < count:
        base = generator.choice(TEMPLATES)(generator)
        made.setdefault(base.text, base)
    return list(made.values())


def _shop(generator: random.Random) -> Base:
    a, b = generator.randint(100, 999), generator.randint(1000, 9999)
    good, place = generator.choice(GOODS), generator.choice(PLACES)
    return Base(
        f"A {place} sells {a} {good} in May and {b} {good} in June. How many {good} does it sell in"
        " both months?",
        f"How many {good} does a {place} sell in both months, if in June it sells {b} {good} and in"
        f" May {a} {good}?",
        f"A {place} sold {a} {good} in May and {b} {good} in June. What is the total number of"
        f" {good} that it sold in the two months?",
        str(b),
        verb=("does it sell", "does it not sell"),
    )


def _dose(generator: random.Random) -> Base:
    drug, mg = generator.choice(DRUGS), generator.randrange(110, 990, 10)
    hours, days = generator.choice((4, 6, 8, 12)), generator.randint(11, 59)
    return Base(
        f"A patient takes {mg} mg of {drug} every {hours} hours for {days} days. How many grams of"
        f" {drug} does the patient take?",
        f"For {days} days, every {hours} hours, a patient takes {mg} mg of {drug}. How many grams"
        f" of {drug} does the patient take?",
        f"A patient is taking {mg} milligrams of {drug} each {hours} hours for {days} days."
        f" Calculate how many grams of {drug} the patient takes.",
        str(mg),
        drug,
        ("mg", "µg"),
        ("does the patient take", "does the patient not take"),
    )


def _mechanism(generator: random.Random) -> Base:
    drug = generator.choice(DRUGS)
    age, organ = generator.randint(18, 90), generator.choice(("kidney", "liver", "heart", "lung"))
    return Base(
        f"What is the mechanism by which {drug} harms the {organ} of a {age}-year-old woman?",
        f"In a {age}-year-old woman, by what mechanism does {drug} harm the {organ}?",
        f"Explain the mechanism by which {drug} is harming the {organ} of a female who is {age}"
        " years old.",
        str(age),
        drug,
        ("year", "month"),
        ("harms", "does not harm"),
    )


def _speed(generator: random.Random) -> Base:
    name, km = generator.choice(NAMES), generator.randint(101, 899)
    hours = generator.randint(11, 49)
    return Base(
        f"{name} drives {km} km in {hours} hours. What is the average speed in km per hour?",
        f"What is the average speed in km per hour, if {name} drives {km} km in {hours} hours?",
        f"{name} drove {km} kilometers in {hours} hrs. Determine the average speed in kilometers"
        " per hour.",
        str(km),
        unit=("km", "mi"),
        verb=("drives", "does not drive"),
    )


def _equation(generator: random.Random) -> Base:
    a, b, c = generator.randint(3, 99), generator.randint(3, 99), generator.randint(100, 999)
    return Base(
        f"Solve {a}x + {b}y = {c} for x, where y = 3.",
        f"Where y = 3, solve {a}x + {b}y = {c} for x.",
        f"Find x if {a}x + {b}y = {c} and y = 3.",
        str(c),
        verb=("+", "−"),
    )


def _capital(generator: random.Random) -> Base:
    a, b = generator.sample(NAMES, 2)
    years = generator.randint(101, 999)
    return Base(
        f"The kingdom of {a} fought against the kingdom of {b} for {years} years. Who won the war?",
        f"Who won the war, if for {years} years the kingdom of {a} fought against the kingdom of"
        f" {b}?",
        f"The kingdom of {a} was fighting against the kingdom of {b} for {years} years. Name who"
        " won the war.",
        str(years),
        unit=("years", "weeks"),
        verb=("Who won", "Who never won"),
    )


TEMPLATES: tuple[Callable[[random.Random], Base], ...] = (
    _shop,
    _dose,
    _mechanism,
    _speed,
    _equation,
    _capital,
)


def _wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def _thousands(base: Base) -> str:
    number = int(base.number)
    return base.text.replace(base.number, f"{number:,}")


REWORDINGS: dict[str, Callable[[Base], str]] = {
    "other order": lambda base: base.reordered,
    "synonyms and tenses": lambda base: base.synonyms,
    "full width": lambda base: _wide(base.text),
    "full-width digits": lambda base: "".join(_wide(c) if c.isdigit() else c for c in base.text),
    "Question:": lambda base: f"Question: {base.text}",
    "**Q12.**": lambda base: f"**Q12.** {base.text}",
    "numbering": lambda base: f"17) {base.text}",
    "Answer:": lambda base: f"{base.text}\nAnswer:",
    "punctuation": lambda base: base.text.replace(" for ", ", for ").replace("?", " ? "),
    "no mark at the end": lambda base: base.text.rstrip("?."),
    "upper case": lambda base: base.text.upper(),
    "spacing": lambda base: base.text.replace(". ", ".\n\n").replace(" of ", "  of "),
    "zero width": lambda base: base.text.replace("a", "a\u200b", 1).replace(" ", "\u00a0", 2),
    "please": lambda base: f"Could you please tell me: {base.text} Thanks in advance!",
    "step by step": lambda base: (
        f"{base.text} Please reason step by step, and put your final answer within \\boxed{{}}."
    ),
    "thousands": _thousands,
    "decimals": lambda base: base.text.replace(base.number, f"{base.number}.0"),
}


def _more(base: Base) -> str:
    return base.text.replace(base.number, str(int(base.number) + 1))


def _tenfold(base: Base) -> str:
    return base.text.replace(base.number, f"{base.number}0")


def _negated(base: Base) -> str | None:
    return base.text.replace(*base.verb) if base.verb else None


def _other_unit(base: Base) -> str | None:
    return base.text.replace(*base.unit) if base.unit else None


def _other_drug(base: Base) -> str | None:
    if base.drug is None:
        return None
    return base.text.replace(base.drug, DRUGS[DRUGS.index(base.drug) - 1])


NEAR_MISSES: dict[str, Callable[[Base], str | None]] = {
    "other number": _more,
    "ten times the number": _tenfold,
    "decimal point": lambda base: base.text.replace(base.number, f"{base.number[:-1]}.7"),
    "one number more": lambda base: f"{base.text} Round to 3 digits.",
    "negation": _negated,
    "other unit": _other_unit,
    "other drug": _other_drug,
    "the opposite": lambda base: f"{base.text} Which of these is least likely?",
}


def pairs(
    kinds: dict[str, Callable[[Base], str]] | dict[str, Callable[[Base], str | None]],
    among: list[Base],
) -> Iterator[tuple[str, str, str]]:
    """Kind, question and its variant, for each base that has one of that kind."""
    for kind, vary in kinds.items():
        for base in among:
            varied = vary(base)
            if varied is not None and varied != base.text:
                yield kind, base.text, varied
