"""What a reply must be: each check on texts that pass it and texts that do not."""

import time

import pytest

from thinktune.llm.checks import Checker, is_one_sentence, repeats
from thinktune.llm.language import Language
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.llm import Checks

ONE = [
    "The patient has acute appendicitis.",
    "It is E. coli.",
    "Dr. Smith gave 3.5 mg i.v. to him.",
    'He asked "Why?" and left.',
    "A!",
    "U.S. patients do well.",
    "First, wait... then go.",
    "It fits (see Fig. 3).",
    "**Bold.**",
    "患者好。",
    'She said: "It is so."',
    "Hypokalemia (K+ 2.9) vs. hyperkalemia, etc., is seen.",
]
MORE_OR_LESS = [
    "One. Two.",
    "No end",
    "Is it? Yes.",
    "患者好。很好。",
    "He saw the man. He left.",
    "Line\nother.",
    "The dose is low. 3 times a day is right.",
    "",
    "Here is the summary:\n\nIt is E. coli.",
    "Stop! Go.",
]


@pytest.mark.parametrize("text", ONE)
def test_one_sentence(text: str) -> None:
    assert is_one_sentence(text)


@pytest.mark.parametrize("text", MORE_OR_LESS)
def test_not_one_sentence(text: str) -> None:
    assert not is_one_sentence(text)


ENGLISH = [
    "The patient has acute appendicitis.",
    "Metformin 500 mg bid.",
    "Administer IV vancomycin plus piperacillin-tazobactam.",
    "Treat with β-blockers (50 µg).",
    "Escherichia coli bacteremia",
    "Yes.",
    "12 34",
    "Total: 57 boxes",
    "Bacterial vaginosis (Gardnerella vaginalis) is diagnosed by clue cells.",
]
FOREIGN = [
    "Der Patient hat Fieber und Husten.",
    "El paciente tiene apendicitis aguda y necesita cirugía.",
    "Le patient souffre d'une insuffisance cardiaque.",
    "患者急性阑尾炎，需要手术。",
    "The answer is 患者 fine",
    "У пациента острый аппендицит.",
]


def test_language() -> None:
    english = Language("en", "checks")
    assert [text for text in ENGLISH if not english.is_language_of(text)] == []
    assert [text for text in FOREIGN if english.is_language_of(text)] == []
    chinese = Language("zh", "checks")
    assert chinese.is_language_of("诊断是 Kallmann 综合征 (KAL1)。")
    assert not chinese.is_language_of("It is Kallmann syndrome, of course.")


def test_an_unknown_language_is_told_with_near_misses() -> None:
    with pytest.raises(SpecInvalid, match="no language 'xx' is known"):
        Checker(Checks(language="xx"), "data.generate.checks")


def test_repeating_the_question() -> None:
    question = "What is the cause of fever in this man of 40?"
    assert repeats("What is the cause of FEVER in this man of 40", question)
    assert repeats("What is the cause of fever in this man?", question)
    assert not repeats("The cause of fever is a viral infection of the upper airways.", question)
    assert repeats("这位患者的诊断是什么", "这位患者的诊断是什么？")
    assert not repeats("", question)


@pytest.mark.parametrize(
    ("checks", "text", "reason"),
    [
        ({"min_chars": 5}, "four", "min_chars"),
        ({"max_chars": 3}, "four", "max_chars"),
        ({"one_sentence": True}, "One. Two.", "one_sentence"),
        ({"not_the_question": True}, "Why is the sky blue", "not_the_question"),
        ({"matches": r"\d"}, "no number", "matches"),
        ({"not_matches": "As an AI"}, "As an AI model", "not_matches"),
        ({"language": "en"}, "Der Patient hat Fieber und Husten.", "language"),
        ({"one_sentence": True, "max_chars": 40, "language": "en"}, "It is so.", None),
    ],
)
def test_the_first_check_that_fails_is_the_reason(
    checks: dict[str, object], text: str, reason: str | None
) -> None:
    made = Checks.parse(checks, "test")
    assert Checker(made, "checks").failed(text, "Why is the sky blue?") == reason


def test_a_pattern_that_takes_for_ever_is_given_up() -> None:
    began = time.monotonic()
    checker = Checker(Checks(matches=r"^(\w+\s?)*$"), "checks")
    assert checker.failed("a" * 5000 + "!", "") == "matches"
    assert time.monotonic() - began < 2
