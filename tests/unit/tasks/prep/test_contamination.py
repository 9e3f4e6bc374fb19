import random
from collections.abc import Iterable, Iterator

import pytest

from thinktune.tasks.prep.contamination import Contamination, Match, TestIndex
from thinktune.tasks.prep.near_duplicates import Asked, signature

STEM = (
    "A 45-year-old farmer comes to the clinic with a {} on his left forearm that appeared {} days"
    " after he cleaned the stable of a sick goat. The lesion is painless and has a black center."
    " Gram-positive rods in chains are seen. Which of the following is the most likely diagnosis?"
)
TESTS = [
    ("anthrax", STEM.format("swelling", 3)),
    ("gout", "What is the first-line treatment for acute gout in adults with normal kidneys?"),
    ("short", "What causes scurvy?"),
]


def asked(tests: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Asked]]:
    return ((name, Asked((text,))) for name, text in tests)


def found(text: str, tests: list[tuple[str, str]] = TESTS) -> Match | None:
    return TestIndex("exam", asked(tests)).match("row", text, signature(Asked((text,))))


def test_the_same_question_in_other_words() -> None:
    match = found(
        "Question: which treatment is first line for acute gout in an adult with normal kidneys"
    )
    assert match is not None  # fmt: skip
    assert (match.kind, match.test, match.test_set) == ("same question", "gout", "exam")
    match = found("Scurvy is caused by what?")
    assert match is not None
    assert (match.kind, match.test) == ("same question", "short")


def test_a_passage_is_found_whole_with_its_length() -> None:
    passage = (
        "appeared 3 days after he cleaned the stable of a sick goat the lesion is painless and has"
        " a black center gram positive rods in chains are seen"
    )
    text = f"I read of someone whose ulcer {passage.upper()}, and I wonder what to do about it."
    match = found(text)
    assert match is not None
    assert (match.kind, match.test, match.text) == ("passage", "anthrax", passage)
    assert match.words == len(passage.split())
    assert match.share == pytest.approx(match.words / 53, abs=0.02)


def test_seven_words_are_no_passage() -> None:
    assert found("Gram-positive rods in chains are seen by anyone who stains old milk.") is None


def test_a_phrase_that_stands_all_over_the_test_set_finds_nothing() -> None:
    phrase = "which of the following is the most likely diagnosis in this patient"
    tests = [(str(i), f"Patient word{i}q has word{i}z, {phrase}?") for i in range(20)]
    assert found(f"He has pain in the chest: {phrase}?", tests) is None
    match = found(f"Yesterday patient word7q has word7z, {phrase}, said the nurse.", tests)
    assert match is not None
    assert (match.test, match.kind) == ("7", "passage")
    assert match.text == f"patient word7q has word7z {phrase}"  # the phrase is part of the run


def test_alike_needs_the_numbers_too() -> None:
    text = (
        "Of {} hikers {} drank from a brook, camped beneath spruces, caught giardiasis, recovered."
    )
    test = [("hikers", text.format(812, 377))]  # fmt: skip
    reworded = (
        "After camping beneath spruces, {} of {} recovered hikers who drank out of some brook had"
        " caught giardiasis."
    )
    match = found(reworded.format(377, 812) + " Guess!", test)
    assert match is not None
    assert match.kind in ("alike", "same question")
    assert found(reworded.format(12, 45), test) is None


def test_runs_do_not_reach_over_two_test_questions() -> None:
    one, other = "alpha beta gamma delta epsilon", "zeta eta theta iota kappa"
    assert found(f"{one} {other}", [("1", one), ("2", other)]) is None


def test_counts_and_the_worst_whatever_the_order() -> None:
    index = TestIndex("exam", asked(TESTS))
    texts = [
        TESTS[1][1],
        TESTS[0][1].replace("farmer", "cook"),
        "Something else entirely",
        *["x"] * 20,
    ]
    matches = [index.match(str(row), t, signature(Asked((t,)))) for row, t in enumerate(texts)]
    seen = []
    for seed in range(4):
        random.Random(seed).shuffle(matches)
        report = Contamination(shown=1)
        for match in matches:
            report.add(match)
        seen.append((report.counts, report.worst()))
    assert all(one == seen[0] for one in seen)
    assert seen[0][0] == {"exam": {"same question": 1, "passage": 1}}
    assert [(match.row, match.kind) for match in seen[0][1]] == [("0", "same question")]


def test_no_questions_and_empty_ones() -> None:
    assert found("anything", []) is None
    assert found("anything", [("empty", ""), ("marks", "?!")]) is None
    assert found("", TESTS) is None


def test_a_row_of_repeated_passages_takes_no_longer_than_its_length() -> None:
    index = TestIndex("exam", asked((str(i), f"{'go ' * i}{TESTS[0][1]}") for i in range(8)))
    text = f"{TESTS[0][1]} " * 400  # 100 kB; the test's own time limit is what would end it
    match = index.match("row", text, signature(Asked((text,))))
    assert match is not None
    assert match.share == 1.0
