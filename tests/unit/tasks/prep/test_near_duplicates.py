import json
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from reworded_questions import NEAR_MISSES, REWORDINGS, bases, pairs

from thinktune.tasks.prep.near_duplicates import Asked, Groups, NearDuplicates, signature

HATS = Path(__file__).parent / "reworded_hats.jsonl"
OPTIONS = "A. Heparin\nB. Warfarin\nC. Aspirin\nD. Insulin"


def groups(rows: list[Asked]) -> Groups:
    near = NearDuplicates()
    for row in rows:
        near.add(signature(row))
    return near.groups()


def names(found: Groups) -> list[tuple[int, ...]]:
    """The group of each row."""
    return [tuple(key) for key in found.keys.tolist()]


def joined(one: Asked | str, other: Asked | str) -> bool:
    rows = [Asked((row,)) if isinstance(row, str) else row for row in (one, other)]
    first, second = names(groups(rows))
    return first == second


def test_two_hundred_questions_that_differ_in_numbers_and_their_rewordings() -> None:
    """No pair is separated, and no two questions that differ in numbers share a group."""
    rows = [json.loads(line)["question"] for line in HATS.read_text().splitlines()]
    found = groups([Asked((row,)) for row in rows])
    assert len(rows) == 400
    assert names(found)[0::2] == names(found)[1::2]
    assert len(set(names(found))) == 200
    assert (found.joined, found.largest) == (400, 2)
    assert found.examples == [(row, row + 1) for row in range(0, 400, 2)]


@pytest.mark.parametrize("kind", REWORDINGS)
def test_rewordings_are_joined_and_nothing_else(kind: str) -> None:
    made = list(pairs({kind: REWORDINGS[kind]}, bases(120)))
    assert len(made) > 10
    keys = names(groups([Asked((text,)) for _, *both in made for text in both]))
    together = [one == other for one, other in zip(keys[0::2], keys[1::2], strict=True)]
    assert [pair for pair, same in zip(made, together, strict=True) if not same] == []
    assert len(set(keys)) == len(made)


@pytest.mark.parametrize("kind", NEAR_MISSES)
def test_near_misses_are_not_joined(kind: str) -> None:
    made = list(pairs({kind: NEAR_MISSES[kind]}, bases(120)))
    assert len(made) > 10
    keys = names(groups([Asked((text,)) for _, *both in made for text in both]))
    together = [one == other for one, other in zip(keys[0::2], keys[1::2], strict=True)]
    assert [pair for pair, same in zip(made, together, strict=True) if same] == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A shop sells 343 hats in May, 706 in June. How many?", "343 caps, 706? How many?", False),
        (
            "A shop sells 343 hats in May and 706 hats in June. How many hats in both months?",
            "In May a store sold 343 caps, and in June 706. How many caps did it sell altogether?",
            True,
        ),
        (
            "A shop sells 343 hats in May and 706 hats in June. How many hats in both months?",
            "A shop sells 343 hattts in May and 706 hats in Jume. How many hats in both months?",
            False,  # two slips
        ),
        (
            "Anna pays 343 euros for bread and 706 euros for coffee. How much does she pay?",
            "Anna pays 343 euros for bread and 706 euros for cofee. How much does she pay?",
            True,  # one slip
        ),
        ("Is dysphagia a sign of stroke?", "Is dysphasia a sign of stroke?", False),
        ("Who discovered penicillin?", "When was penicillin discovered?", False),
        ("What is 5 - 3?", "What is 5 + 3?", False),
        ("What is -5 + 13?", "What is 5 + 13?", False),
        ("What is 5!?", "What is 5?", False),
        ("Simplify x² + 4.", "Simplify x2 + 4.", False),
        ("Simplify x² + 4.", "Simplify: x^2 + 4", True),
        ("Add 1 to 15.", "Add 2 to 15.", False),
        ("How many legs have two cats and 15 dogs?", "How many legs have 2 cats, 15 dogs?", True),
        ("What is 2,500 mg in grams?", "What is ２５００ milligrams in g?", True),
        ("What is 2,500 mg in grams?", "What is 2.500 mg in grams?", False),
        ("Which drug is contraindicated?", "Which drug isn't contraindicated?", False),
        ("All are true about rods except", "Which is false about rods?", True),
        ("华法林的作用机制是什么？", "请问华法林的作用机制是什么", True),
        ("华法林的作用机制是什么？", "肝素的作用机制是什么？", False),
        ("华法林是安全的吗？", "华法林是不安全的吗？", False),
        ("😀", "🎉", False),
        ("Who are you?", "Hello!", False),
        ("Hello!", "hello", True),
    ],
)  # fmt: skip
def test_pairs(one: str, other: str, same: bool) -> None:
    assert joined(one, other) is same


def test_neither_order_nor_workers_change_the_groups() -> None:
    rows = [Asked((text,)) for _, *both in pairs(REWORDINGS, bases(20)) for text in both]
    rows += [Asked((row.turns[0], "And in a child?")) for row in rows[:50]]
    expected = names(groups(rows))
    order = list(range(len(rows)))
    random.Random(1).shuffle(order)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as workers:
        packed = list(workers.map(signature, [rows[row] for row in order], chunksize=16))
    near = NearDuplicates()
    for one in packed:
        near.add(one)
    assert names(near.groups()) == [expected[row] for row in order]


def test_beginnings_of_a_conversation_are_on_its_side() -> None:
    turns = ("What causes gout in adults?", "Thank you! And why?", "How is it treated, then?")
    rows = [Asked(turns[:length]) for length in (1, 2, 3)]
    rows += [
        Asked(("Hello!", *turns[:1])),
        Asked(("What causes asthma?", *turns[1:])),
        Asked(("Hi",)),
    ]
    first, second, third, greeted, other, greeting = names(groups(rows))  # fmt: skip
    assert first == second == third == greeted
    assert len({first, other, greeting}) == 3


def test_a_turn_that_says_enough_joins_wherever_it_stands() -> None:
    long = (
        "Which enzyme deficiency explains neonatal jaundice with kernicterus, pale stools and a"
        " palpable liver?"
    )
    assert joined(Asked(("Let us talk about babies.", long)), long)
    assert not joined(Asked(("Let us talk about babies.", "Why?")), "Why?")


def test_a_turn_that_many_rows_share_joins_nothing() -> None:
    instruction = "You grade essays strictly for grammar, style, logic, sources, tone and length."
    rows = [
        Asked((instruction, f"Essay of pupil number {row}q, about word{row}")) for row in range(60)
    ]
    assert len(set(names(groups(rows)))) == 60  # fmt: skip


def test_options_are_part_of_what_is_asked() -> None:
    question = "Which of the following is an anticoagulant?"
    shuffled = "(A) Insulin\n(B) Aspirin\n(C) Warfarin\n(D) Heparin"
    others = OPTIONS.replace("Heparin", "Rivaroxaban")
    asked = Asked((question,), OPTIONS)
    assert joined(asked, Asked((f"Question: {question}",), shuffled))
    assert not joined(asked, Asked((question,), others))
    assert not joined(asked, Asked((question.replace("an anti", "no anti"),), OPTIONS))
    assert joined(asked, question)  # asked openly, it is the same question
    assert not joined(Asked(("Which of these is true?",), OPTIONS), "Which of these is true?")
    wordy = "\n".join(
        f"{option} tablets of the oldest Swiss make, swallowed after breakfast"
        for option in OPTIONS.split("\n")
    )
    for options in (OPTIONS, wordy):
        glucose = Asked(("Which of the following lowers glucose?",), options)
        assert not joined(Asked((question,), options), glucose)


def test_the_system_prompt_does_not_separate_unless_it_holds_the_question() -> None:
    question = "What causes gout?"
    assert joined(
        Asked((question,), system="You are terse."), Asked((question,), system="Be kind.")
    )
    tasks = ("Translate the letter.", "Grade the essay.")
    one, other = (Asked(("Please answer.",), system=task) for task in tasks)
    assert not joined(one, other)


def test_an_instruction_before_every_question_joins_none() -> None:
    generator = random.Random(0)
    words = ["".join(generator.choices("bcdfglmnprst", k=6)) for _ in range(2_000)]
    instruction = " ".join(words[:80])
    asked = [
        f"{instruction} {' '.join(words[100 + 4 * row : 104 + 4 * row])}" for row in range(300)
    ]
    assert len(set(names(groups([Asked((text,)) for text in asked])))) == 300  # fmt: skip


@pytest.mark.parametrize("count", [80, 300])
def test_a_template_with_the_same_numbers_joins_none(count: int) -> None:
    text = "A man of 70 kg takes 500 mg of {} every 8 hours for 14 days. How many grams is that?"
    generator = random.Random(0)
    drugs = {"".join(generator.choices("bcdfglmnprst", k=9)) for _ in range(count)}
    found = groups([Asked((text.format(drug),)) for drug in sorted(drugs)])
    assert len(set(names(found))) == count


@pytest.mark.parametrize(("changed", "same"), [(0, True), (4, True), (30, False)])
def test_long_texts_with_few_changes_are_joined(changed: int, same: bool) -> None:
    generator = random.Random(changed)
    words = ["".join(generator.choices("bcdfglmnprst", k=7)) for _ in range(120)]
    text = words[:60]
    other = [*words[60 : 60 + changed], *words[changed:60]]
    generator.shuffle(other)
    assert joined(" ".join(text), " ".join(other)) is same


def test_a_signature_stays_small_and_takes_any_text() -> None:
    generator = random.Random(0)
    words = ["".join(generator.choices("bcdfglmnprst", k=9)) for _ in range(50_000)]
    numbers = [str(generator.random()) for _ in range(50_000)]
    assert len(signature(Asked((" ".join(words), *numbers[:5_000], " ".join(numbers))))) < 24_000
    for odd in ("", "\ud800", "\x00", "１" * 5_000, "(" * 5_000, " \n" * 5_000, "1," * 5_000):
        assert signature(Asked((odd,), odd, odd))
    assert signature(Asked(()))
    nothing = NearDuplicates().groups()
    assert (names(nothing), nothing.joined, nothing.examples) == ([], 0, [])
