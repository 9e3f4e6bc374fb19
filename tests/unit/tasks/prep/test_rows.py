"""Layouts that datasets come in, brought to one shape."""

import math
from typing import Any

import pytest
from reading import OWN

from thinktune.schema.data import DataSpec
from thinktune.tasks.prep.recognition import recognize
from thinktune.tasks.prep.rows import Example, examples_of, normalized, question_key, without_end
from thinktune.text.conversation import Unusable

THOUGHT = "<think>\nfirst\n</think>\n\nanswer"


def example(row: dict[str, Any], **data: Any) -> Example:
    """As a row of a user's own file."""
    spec = DataSpec.model_validate({"dataset": "file", "path": "own.jsonl", **data})
    return examples_of(row, recognize([row], spec, OWN, "own.jsonl"), spec).examples[0]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "answer": THOUGHT},
        {"instruction": "q", "input": "", "output": THOUGHT},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": THOUGHT}]},
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": THOUGHT},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {"role": "assistant", "content": "answer", "reasoning_content": "first"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "answer", "thinking": "first\n"},
            ]
        },
        {
            "messages": '[{"role":"user","content":"q"},{"role":"assistant","content":"'
            + THOUGHT.replace("\n", "\\n")
            + '"}]'
        },
    ],
)
def test_layouts_come_to_the_same(row: dict[str, object]) -> None:
    found = example(row)
    assert (found.question, found.reasoning, found.answer) == ("q", "first", "answer")


def test_mapped_columns() -> None:
    columns = {"question": "Question", "reasoning": "Complex_CoT", "answer": "Response", "id": "n"}
    row = {"Question": "q", "Complex_CoT": "r", "Response": "a", "n": 7}
    found = example(row, columns=columns)
    assert (found.id, found.reasoning, found.answer) == ("7", "r", "a")


def test_alpaca_joins_instruction_and_input() -> None:
    assert example({"instruction": "do", "input": "this", "output": "x"}).question == "do\n\nthis"


def test_earlier_turns_keep_no_reasoning() -> None:
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": THOUGHT},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": THOUGHT},
        {"role": "user", "content": "trailing"},
    ]
    found = example({"messages": turns})
    assert found.system == "be brief"
    assert [(t.role, t.text) for t in found.before] == [("user", "q1"), ("assistant", "answer")]
    assert found.question == "q2"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q", "answer": " "}, "empty answer"),
        ({"question": None, "answer": "a"}, "empty question"),
        ({"question": "q", "answer": "so <think>r</think>a"}, "text before the think part"),
        ({"question": "q", "answer": THOUGHT, "reasoning": "other"}, "two different think parts"),
        ({"question": "q", "answer": "<think>never ends"}, "unfinished think part"),
        ({"question": "q", "answer": THOUGHT + THOUGHT}, "more than one think part"),
        ({"messages": [{"role": "user", "content": "q"}]}, "turns do not alternate"),
        ({"messages": [{"role": "wizard", "content": "q"}]}, "unknown role 'wizard'"),
        ({"messages": "not a list"}, "not a list of turns"),
        ({"messages": None}, "not a list of turns"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "turns do not alternate"),
    ],
)
def test_unusable_rows_say_why(row: dict[str, object], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        example(row)


def test_no_reasoning_is_none() -> None:
    assert example({"question": "q", "answer": "a"}).reasoning is None
    assert example({"question": "q", "answer": "r</think>a"}).reasoning == "r"


def test_reasoning_in_two_places_is_one() -> None:
    row = {"question": "q", "answer": THOUGHT, "reasoning": " first\n"}
    assert (example(row).reasoning, example(row).answer) == ("first", "answer")
    row = {"question": "q", "answer": "answer", "reasoning": "<think>\nfirst\n</think>"}
    assert (example(row).reasoning, example(row).answer) == ("first", "answer")


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        (["x", "y"], "A. x\nB. y"),
        (["x", None, 0], "A. x\nC. 0"),
        (["A) x", "B) y"], "A) x\nB) y"),
        ([{"key": "A", "value": "x"}, {"key": "B", "value": "y"}], "A. x\nB. y"),
        ({"A": 0, "B": None}, "A. 0"),
        ("as they stand", "as they stand"),
        ([], None),
        (None, None),
    ],
)
def test_options_of_every_kind(options: object, listed: str | None) -> None:
    assert example({"question": "q", "answer": "a", "options": options}).options == listed


def test_what_makes_questions_the_same() -> None:
    assert normalized(" What  is\n2+2 ?") == normalized("what is 2+2") == "what is 2+2"
    assert normalized("Straße.") == normalized("strasse")
    different = [
        "3 + 4",
        "3 - 4",
        "3 * 4",
        "-3 + 4",
        "3 + .4",
        "a? b",
        "a b",
        "5",
        "5!",
        "x²",
        "x2",
    ]
    assert len({normalized(text) for text in different}) == len(different)


def test_an_id_is_of_all_that_is_asked() -> None:
    def asked(before: str, options: str = "") -> Example:
        turns = [
            *({"role": "user", "content": before}, {"role": "assistant", "content": "ok"}),
            *({"role": "user", "content": "and?"}, {"role": "assistant", "content": "a"}),
        ]
        columns = {"conversation": "messages", "options": "options"}
        return example({"messages": turns, "options": options}, columns=columns)

    found = [asked("one"), asked("two"), asked("two", "A. x")]
    assert len({e.id for e in found}) == 3
    assert [question_key(e).startswith(e.id) for e in found] == [True] * 3


def test_the_same_question_has_one_key() -> None:
    one = example({"question": "What is  2+2?", "answer": "4"})
    two = example({"question": "what is 2+2", "answer": "four"})
    other = example({"question": "what is 2+3", "answer": "5"})
    assert question_key(one) == question_key(two) != question_key(other)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (-3.0, "-3"),
        (0.25, "0.25"),
        (10**400, str(10**400)),
        ("\u200b 4 \u200b", "\u200b 4 \u200b"),
    ],
)
def test_numbers_are_text(value: object, text: str) -> None:
    assert example({"question": "q", "answer": value}).answer == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["a"], "'answer' is a list, not text"),
        ({"a": 1}, "'answer' is an object, not text"),
        (True, "'answer' is true or false, not text"),
        (math.inf, "'answer' is an infinite number, not text"),
        (1e300, "'answer' is a number without a plain form, not text"),
        (b"a", "'answer' is bytes, not text"),
        (math.nan, "empty answer"),
        ("\u200b\ufeff", "empty answer"),
        ("a\0", "a NUL character in 'answer'"),
        ("a\ud83d", "half a surrogate pair in 'answer'"),
    ],
)
def test_what_is_no_text(value: object, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        example({"question": "q", "answer": value})
    assert caught.value.reason.text == reason


def test_what_pandas_writes_for_nothing() -> None:
    nothing = math.nan
    found = example({"instruction": "q", "input": nothing, "output": THOUGHT, "system": nothing})
    assert (found.question, found.system) == ("q", None)
    assert example({"question": "q", "answer": "a", "reasoning": nothing}).reasoning is None


@pytest.mark.parametrize(
    "answer",
    [
        "<Think>r</Think>a",
        "<think >\nr\n</think >\na",
        "<reasoning>r</reasoning><answer>a</answer>",
        "<thought>r</thought>a",
        "[THINK]r[/THINK]a",
        "<|begin_of_thought|>\nr\n<|end_of_thought|>\na",
        "&lt;think&gt;r&lt;/think&gt;a",
        "◁think▷r◁/think▷a",
        "<seed:think>r</seed:think>a",
        "r</Think>a",
    ],
)
def test_a_think_part_in_another_spelling(answer: str) -> None:
    with pytest.raises(Unusable, match="a think part in another spelling") as caught:
        example({"question": "q", "answer": answer})
    assert "data.think_tags=[[" in caught.value.reason.remedy


def test_marks_that_the_recipe_names() -> None:
    tags = [["<reasoning>", "</reasoning>"], ["[T]", "[/T]"]]
    for answer in ("<reasoning>r</reasoning>a", "[T]r[/T]a", "<think>r</think>a"):
        found = example({"question": "[T] q", "answer": answer}, think_tags=tags)
        assert (found.question, found.reasoning, found.answer) == ("[T] q", "r", "a")
    turns = [{"role": "user", "content": "[T]"}, {"role": "assistant", "content": "[T]r[/T]a"}]
    found = example({"messages": turns}, think_tags=tags)
    assert (found.question, found.reasoning, found.answer) == ("[T]", "r", "a")


@pytest.mark.parametrize("end", ["<|im_end|>", "<｜end▁of▁sentence｜>", "</s>", "<|EOT|> \n"])
def test_an_end_token_behind_the_answer(end: str) -> None:
    assert without_end(f"a {end}") == ("a", True)
    assert without_end(f"a{end}{end}") == ("a", True)
    assert without_end(f"{end} stands here") == (f"{end} stands here".strip(), False)


def test_a_system_prompt_is_part_of_what_is_asked() -> None:
    rows = [{"question": "q", "answer": "a", "system": text} for text in ("one", "two", "one")]
    one, two, three = (question_key(example(row)) for row in rows)
    assert one == three != two


def test_earlier_turns_of_alpaca() -> None:
    row = {"instruction": "q", "output": "a", "history": [["p", "b"]]}
    assert [turn.text for turn in example(row).before] == ["p", "b"]
