import pytest

from thinktune.text.question_content import Content, content, normalized
from thinktune.text.question_words import canonical


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,000 and 1000 and １０００ and 1000.0", ("1000",) * 4),
        ("٣٤٣ pens", ("343",)),
        ("007 and .50 and 0.5", ("0.5", "0.5", "7")),
        ("-5 °C, 10-20 mg, covid-19", ("-5 degre", "10", "19", "20 mg")),
        ("500mg, 500 milligrams, 500 µg", ("500 mcg", "500 mg", "500 mg")),
        ("two hundred and five, twenty-three, five thousand", ("205", "23", "5000")),
        ("three and four, nineteen ninety", ("19", "3", "4", "90")),
        ("a 45-year-old, aged 45, 45 months", ("45", "45", "45 month")),
        ("5% or 5 percent", ("5 percent", "5 percent")),
        ("1,2 and 1,23 and 12,345,678", ("12345678", "23")),
    ],
)
def test_numbers_are_values(text: str, values: tuple[str, ...]) -> None:
    assert content(text).values == values


def test_one_and_two_may_be_words() -> None:
    asked = content("A cat and one dog eat 1 fish; both eat two mice and 2 birds.")
    assert (asked.ones, asked.twos, asked.values) == ((1, 2), (2, 1), ())


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("3 + 4 = 7", ("+", "=")),
        ("3 × 4, 3*4, 3·4", ("*", "*", "*")),
        ("3 ÷ 4, 3/4, mg/dL, and/or", ("/", "/")),
        ("5 − 3, 5 - 3, 5-3", ("−", "−", "−")),
        ("x² is x^2", ("^", "^")),
        ("p < 0.05, <b>bold</b>, a <= b", ("<", "<", "=")),
        ("5! + 3", ("!", "+")),
        ("**bold** and 343 hats!", ()),
    ],
)  # fmt: skip
def test_arithmetic_signs(text: str, signs: tuple[str, ...]) -> None:
    assert content(text).signs == signs


@pytest.mark.parametrize(
    ("text", "negations"),
    [
        ("It is not, isn't, isn’t, never.", 4),
        ("All of these except the LEAST likely", 2),
        ("Das ist kein Hut, nicht wahr?", 2),
        ("Ce n'est pas un chapeau.", 1),
        ("这不是帽子", 1),
        ("nothing noted in Norway", 0),
    ],
)
def test_negations(text: str, negations: int) -> None:
    assert content(text).negations == negations


def test_words_carry_what_is_asked() -> None:
    assert content("Could you please tell me what a hat is?").words == {"hat"}
    assert content("**Q12.** What is a hat?\n\nAnswer:") == content("what is a hat")
    assert content("(A) hats (B) shoes").words == content("1. shoes\n2. hats").words
    assert content("What is this?") == Content((), (0, 0), (0, 0), (), 0, (0, 0), frozenset())
    assert not content("And why is that so?").substantial
    assert content("k(a)").words == {"k"}
    assert content("a\u200bb\u00ad").words == {"ab"}


@pytest.mark.parametrize(
    "same",
    [
        ("sell", "sells", "selling", "sold"),
        ("bake", "baked", "bakes", "baking"),
        ("stop", "stopped", "stopping"),
        ("carry", "carries", "carried"),
        ("buy", "bought", "purchased"),
        ("oedema", "edema"),
        ("diagnosis", "diagnoses"),
        ("child", "children", "kids"),
        ("milligram", "mg"),
        ("potato", "potatoes"),
    ],
)
def test_inflections_and_synonyms(same: tuple[str, ...]) -> None:
    assert len({canonical(word) for word in same}) == 1


def test_words_that_are_not_the_same() -> None:
    words = "sell buy warfarin heparin mg kg hypertension hypotension left right increase decrease"
    assert len({canonical(word) for word in words.split()}) == len(words.split())


def test_normalized_keeps_letters() -> None:
    assert normalized("Ｑ：ﬁx İ x² 5") == "q:fix i̇ x^2 5"
    assert normalized("é") == normalized("e\u0301")
