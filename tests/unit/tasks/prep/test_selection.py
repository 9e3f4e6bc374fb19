"""Which rows stay, and on which side."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from thinktune.schema.data import Balance, Filter, Split
from thinktune.schema.errors import DataInvalid, SpecInvalid
from thinktune.tasks.prep import selection
from thinktune.tasks.prep.selection import Filters, balanced, check_columns, split


def dropped(row: dict[str, Any], **test: Any) -> str | None:
    """Why a filter drops a row; None where the row passes."""
    reason = Filters([Filter.model_validate(test)]).reason(row)
    return None if reason is None else f"{reason.text}; {reason.remedy}"


ROW = {
    "quality": "Good ",
    "text": "a proof",
    "n": 3,
    "csv": "3",
    "none": None,
    "x": 2.5,
    "list": ["a"],
}


@pytest.mark.parametrize(
    "test",
    [
        {"column": "quality", "any_of": ["Good ", "excellent"]},
        {"column": "quality", "any_of": ["good", "excellent"], "ignore_case": True},
        {"column": "text", "matches": "pro+f"},
        {"column": "text", "matches": "PROOF", "invert": True},
        {"column": "n", "any_of": [3]},
        {"column": "n", "any_of": [4], "invert": True},
        {"column": "none", "any_of": [4], "invert": True},
        {"column": "n", "matches": "^3$"},
        {"column": "n", "not_empty": True},
        {"column": "none", "not_empty": True, "invert": True},
        {"column": "n", "at_least": 3},
        {"column": "n", "at_most": 3},
        {"column": "x", "above": 2},
        {"column": "x", "below": 2.6},
        {"column": "csv", "at_least": 2},
    ],
)
def test_rows_that_pass(test: dict[str, Any]) -> None:
    assert dropped(ROW, **test) is None
    turned = {**test, "invert": not test.get("invert", False)}
    assert dropped(ROW, **turned) == f"filter on {test['column']}; loosen data.filters"


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ({"column": "quality", "any_of": ["bad"]}, "filter on quality; loosen data.filters"),
        ({"column": "none", "not_empty": True}, "filter on none; loosen data.filters"),
        ({"column": "gone", "any_of": [3]}, "filter on gone; loosen data.filters"),
        ({"column": "gone", "matches": "None"}, "filter on gone; loosen data.filters"),
        ({"column": "csv", "any_of": [3]}, "'3' is text in the rows, not in data.filters; write"),
        ({"column": "n", "any_of": ["3"]}, "3 is a number in the rows, not in data.filters; write"),
        ({"column": "text", "at_least": 1}, "filter on text: no number; compare a column"),
        ({"column": "none", "below": 1}, "filter on none; loosen data.filters"),
        ({"column": "list", "matches": "a"}, "filter on list: no text; match a column of text"),
    ],
)
def test_rows_that_do_not(test: dict[str, Any], said: str) -> None:
    assert said in (dropped(ROW, **test) or "")


def test_the_remedy_for_other_types_is_true() -> None:
    said = dropped({"level": "3"}, column="level", any_of=[3, 4]) or ""
    assert "any_of: ['3', …]" in said
    assert dropped({"level": "3"}, column="level", any_of=["3"]) is None


def test_true_is_not_one() -> None:
    assert dropped({"flag": True}, column="flag", any_of=[1]) is not None
    assert dropped({"flag": 1}, column="flag", any_of=[True]) is not None
    assert dropped({"flag": True}, column="flag", any_of=[True]) is None


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(
    ("value", "test"),
    [("1", {"any_of": [1]}), (1, {"any_of": ["1"]}), ("high", {"at_least": 1})],
)
def test_what_cannot_be_compared_is_dropped_either_way(
    value: object, test: dict[str, Any], invert: bool
) -> None:
    said = dropped({"n": value}, column="n", invert=invert, **test) or ""
    assert "not in data.filters" in said or "no number" in said


def test_a_pattern_that_could_take_forever_is_refused() -> None:
    with pytest.raises((SpecInvalid, ValueError), match="lookahead"):
        dropped({"text": "a"}, column="text", matches="(?=a)")
    # In Python's re this takes longer than a job.
    assert dropped({"text": "a" * 50_000 + "!"}, column="text", matches="(a+)+$") is not None


def test_filters_have_one_test() -> None:
    for test in ({}, {"any_of": [1], "below": 2}, {"matches": "a", "ignore_case": True}):
        with pytest.raises(ValueError, match=r"give exactly one of|write \(\?i\)"):
            Filter.model_validate({"column": "n", **test})


def test_a_column_that_no_row_has() -> None:
    known = {"quality", "level"}
    filters = [Filter(column="qualty", not_empty=True)]
    with pytest.raises(DataInvalid, match="no column 'qualty' to filter on; did you mean"):
        check_columns(filters, None, known, "f")
    with pytest.raises(DataInvalid, match="no column 'levels' to balance by; did you mean"):
        check_columns([], Balance(column="levels", values=("easy",)), known, "f")
    check_columns([], Balance(column="level", values=("easy",)), known, "f")


def keys(names: Sequence[str]) -> selection.Keys:
    raw = b"".join(hashlib.sha256(name.encode()).digest()[:16] for name in names)
    return np.frombuffer(raw, ">u8").reshape(-1, 2).astype(np.uint64)


def test_the_first_of_each_is_kept() -> None:
    assert selection.first_of_each(keys(["b", "a", "b", "c", "a"])).tolist() == [0, 1, 3]


def values(rule: Balance, *given: object) -> np.ndarray[Any, Any]:
    return np.array([selection.balanced_value({"level": each}, rule) for each in given])


def test_balance_takes_as_many_as_the_rarest_has() -> None:
    rule = Balance(column="level", values=("easy", "hard"))
    given = ["easy"] * 5 + ["hard"] * 2 + ["odd"] * 3
    names = [f"q{n}" for n in range(len(given))]
    kept, table = balanced(keys(names), values(rule, *given), rule, "f")
    assert [given[n] for n in kept] == ["easy", "easy", "hard", "hard"]
    assert [(b.value, b.available, b.taken) for b in table] == [("easy", 5, 2), ("hard", 2, 2)]


def test_what_balancing_takes_for_a_value() -> None:
    rule = Balance(column="level", values=("easy", "None", "3"))
    assert values(rule, "easy", None, float("nan"), " Easy", 3, ["easy"]).tolist() == [
        *(0, -1, -1, -1, 2, -1)
    ]
    assert values(rule, 3.0).tolist() == [2]
    loose = rule.model_copy(update={"ignore_case": True})
    assert values(loose, " EASY ", "none").tolist() == [0, 1]


def test_balance_needs_every_value() -> None:
    rule = Balance(column="level", values=("easy", "hard"))
    with pytest.raises(DataInvalid, match="no row has level 'hard'"):
        balanced(keys(["q"]), values(rule, "easy"), rule, "f")


def test_no_held_out_question_is_in_training() -> None:
    names = [f"q{n % 50}" for n in range(120)]  # every question twice or more
    parts = split(keys(names), Split(test_rows=10, validation_rows=5), "f")
    held = {names[i] for i in (*parts.test, *parts.validation)}
    assert (len(parts.test), len(parts.validation), len(held)) == (10, 5, 15)
    assert not held & {names[i] for i in parts.train}
    assert {names[i] for i in parts.train} == set(names) - held


def test_a_question_falls_on_the_same_side_wherever_it_stands() -> None:
    names = [f"q{n}" for n in range(100)]
    sides = split(keys(names), Split(test_rows=20), "f")
    turned = split(keys(names[::-1]), Split(test_rows=20), "f")
    assert {names[i] for i in sides.test} == {names[::-1][i] for i in turned.test}
    other = split(keys(names), Split(test_rows=20, seed=1), "f")
    assert set(other.test) != set(sides.test)


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(DataInvalid, match="3 distinct questions are left, and 3 are to be held"):
        split(keys(["a", "b", "c"]), Split(test_rows=2, validation_rows=1), "f")
