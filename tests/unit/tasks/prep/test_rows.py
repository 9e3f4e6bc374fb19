"""Layouts that datasets come in, brought to one shape."""

import pytest

from thinktune.schema.catalog import ColumnMap, Format
from thinktune.schema.errors import DataInvalid
from thinktune.tasks.prep.rows import (
    Example,
    check_columns,
    completed,
    detect_format,
    normalized,
    question_key,
    to_example,
    with_distinct_ids,
)
from thinktune.text.conversation import Unusable

THOUGHT = "<think>\nfirst\n</think>\n\nanswer"
NONE = ColumnMap()


def example(
    row: dict[str, object], layout: Format | None = None, map_: ColumnMap = NONE
) -> Example:
    """As a row of a user's own file."""
    layout = layout or detect_format([row], map_)
    return to_example(row, layout, completed([row], layout, map_, own_file=True))


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
    columns = ColumnMap(question="Question", reasoning="Complex_CoT", answer="Response", id="n")
    row = {"Question": "q", "Complex_CoT": "r", "Response": "a", "n": 7}
    found = example(row, "columns", columns)
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
        ({"question": "q"}, "no column 'answer'"),
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


def test_options_are_listed() -> None:
    row = {"question": "q", "answer": "a", "options": {"A": "x", "B": "y"}}
    assert example(row, "columns", ColumnMap(options="options")).options == "A. x\nB. y"


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(DataInvalid, match="no column 'Question', which plays the role 'question'"):
        check_columns([{"question": ""}], "columns", ColumnMap(question="Question"), "f.jsonl")
    with pytest.raises(DataInvalid, match="did you mean 'messages'"):
        check_columns([{"messages": []}], "messages", ColumnMap(conversation="message"), "f.jsonl")
    with pytest.raises(DataInvalid, match="no column 'answer'"):
        check_columns([{"question": "q", "text": "t"}], "columns", NONE, "f.jsonl")


def test_a_column_that_some_rows_lack() -> None:
    columns = ColumnMap(summary="s", id="n")
    rows: list[dict[str, object]] = [{"question": "q", "answer": "a"}, {"n": 1}, {"s": "x"}]
    check_columns(rows, "columns", columns, "f.jsonl")
    with pytest.raises(DataInvalid, match="no column 'n', which plays the role 'id'"):
        check_columns(rows[:1] + rows[2:], "columns", columns, "f.jsonl")
    with pytest.raises(DataInvalid, match=r"the role 'system'; set data\.columns\.system"):
        check_columns([{"messages": []}], "messages", ColumnMap(system="sys"), "f.jsonl")


def test_reasoning_in_two_places_is_one() -> None:
    row = {"question": "q", "answer": THOUGHT, "reasoning": " first\n"}
    assert (example(row).reasoning, example(row).answer) == ("first", "answer")
    row = {"question": "q", "answer": "answer", "reasoning": "<think>\nfirst\n</think>"}
    assert (example(row).reasoning, example(row).answer) == ("first", "answer")


def test_columns_of_a_role_s_name_play_it() -> None:
    names = ("reasoning", "summary", "system", "options", "id")
    row = {"question": "q", "answer": "a", **{name: f"its {name}" for name in names}}
    found = example(row)
    assert [getattr(found, name) for name in names] == [f"its {name}" for name in names]
    alpaca = example({"instruction": "q", "output": "a", "reasoning": "r"})
    assert alpaca.reasoning == "r"
    # The catalog says all that its datasets have, and a mapped column plays one role.
    assert completed([row], "columns", NONE, own_file=False) == NONE
    assert completed([row], "columns", ColumnMap(answer="summary"), own_file=True).summary is None


@pytest.mark.parametrize("name", ["messages", "conversations", "conversation"])
def test_a_conversation_is_known_by_its_shape(name: str) -> None:
    turns = '[{"role": "user", "value": "q"}, {"from": "gpt", "content": "a"}]'
    row: dict[str, object] = {name: turns, "question": "?", "answer": "!"}
    assert example(row).question == "q"
    others = {"messages": 2, "conversations": "c-17", "conversation": None}
    assert example({**others, name: turns}).question == "q"
    assert example({**row, name: 17}).question == "?"


def test_a_mapped_conversation_needs_no_format() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert example({"dialogue": turns}, map_=ColumnMap(conversation="dialogue")).question == "q"


def test_a_system_column_beside_the_turns() -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert example({"conversations": turns, "system": "be brief"}).system == "be brief"
    turns.insert(0, {"from": "system", "value": "be long"})
    assert example({"conversations": turns, "system": "be brief"}).system == "be long"
    columns = completed([{"messages": turns}], "messages", NONE, own_file=False)
    assert columns.system == "system"


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


def test_a_value_nested_too_deeply() -> None:
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Unusable, match="nested too deeply"):
        example({"question": deep, "answer": "a"})


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
        columns = ColumnMap(conversation="messages", options="options")
        return to_example({"messages": turns, "options": options}, "messages", columns)

    found = [asked("one"), asked("two"), asked("two", "A. x")]
    assert len({e.id for e in found}) == 3
    assert [question_key(e).startswith(e.id) for e in found] == [True] * 3


def test_ids_are_made_distinct() -> None:
    given = ["a", "a", "b", "a#2", "a", "b"]
    examples = [example({"question": f"q{n}", "answer": "a", "id": i}) for n, i in enumerate(given)]
    found = with_distinct_ids(examples)
    assert [e.id for e in found] == ["a", "a#3", "b", "a#2", "a#4", "b#2"]
    assert [e.question for e in found] == [e.question for e in examples]


def test_the_same_question_has_one_key() -> None:
    one = example({"question": "What is  2+2?", "answer": "4"})
    two = example({"question": "what is 2+2", "answer": "four"})
    other = example({"question": "what is 2+3", "answer": "5"})
    assert question_key(one) == question_key(two) != question_key(other)
