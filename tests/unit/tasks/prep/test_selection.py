"""Which rows stay, and on which side."""

import pytest

from thinktune.schema.errors import DataInvalid
from thinktune.schema.recipe import Balance, Filter, Split
from thinktune.tasks.prep.selection import (
    balanced,
    check_columns,
    deduplicated,
    passes,
    split,
)
from thinktune.text.conversation import Reason


def filtered(text: str) -> Reason:
    return Reason(text, "loosen data.filters")


def test_filters() -> None:
    row = {"quality": "good", "text": "a proof", "n": 3, "none": None}
    assert passes(row, [Filter(column="quality", any_of=("good", "excellent"))]) is None
    assert passes(row, [Filter(column="quality", any_of=("bad",))]) == filtered("filter on quality")
    assert passes(row, [Filter(column="text", matches="pro+f")]) is None
    assert passes(row, [Filter(column="n", any_of=(3,))]) is None
    assert passes(row, [Filter(column="none", not_empty=True)]) == filtered("filter on none")
    assert passes({"n": 0}, [Filter(column="n", matches="^0$")]) is None


def test_a_column_that_some_rows_lack_is_null_there() -> None:
    assert passes({}, [Filter(column="n", any_of=(3,))]) == filtered("filter on n")
    assert passes({}, [Filter(column="n", not_empty=True)]) == filtered("filter on n")
    assert passes({}, [Filter(column="n", matches="None")]) == filtered("filter on n")
    rule = Balance(column="level", values=("easy", "None"))
    with pytest.raises(DataInvalid, match="no row has level 'None'"):
        balanced([{"level": "easy"}, {}], rule, lambda i: "", lambda i: i, "f")


def test_a_column_that_no_row_has() -> None:
    known = {"quality", "level"}
    filters = [Filter(column="qualty", not_empty=True)]
    with pytest.raises(DataInvalid, match="no column 'qualty' to filter on; did you mean"):
        check_columns(filters, None, known, "f")
    with pytest.raises(DataInvalid, match="no column 'levels' to balance by; did you mean"):
        check_columns([], Balance(column="levels", values=("easy",)), known, "f")
    check_columns([], Balance(column="level", values=("easy",)), known, "f")


def test_the_first_of_each_is_kept() -> None:
    assert deduplicated(["a1", "b1", "a2"], lambda x: x[0]) == (["a1", "b1"], 1)


def items(**counts: int) -> list[tuple[str, str]]:
    return [(value, f"{value}{n}") for value, count in counts.items() for n in range(count)]


def test_balance_takes_as_many_as_the_rarest_has() -> None:
    rule = Balance(column="level", values=("easy", "hard"))
    kept, dropped = balanced(
        items(easy=5, hard=2, odd=3), rule, lambda i: i[1], lambda i: {"level": i[0]}, "f"
    )
    assert [value for value, _ in kept] == ["easy", "easy", "hard", "hard"]
    counted = {reason.text: count for reason, count in dropped.items()}
    assert counted == {"level not among the balanced values": 3, "balance": 3}


def test_balance_needs_every_value() -> None:
    rule = Balance(column="level", values=("easy", "hard"))
    with pytest.raises(DataInvalid, match="no row has level 'hard'"):
        balanced(items(easy=5), rule, lambda i: i[1], lambda i: {"level": i[0]}, "f")


def test_no_held_out_question_is_in_training() -> None:
    keys = [f"q{n % 50}" for n in range(120)]  # every question twice or more
    parts = split(keys, Split(test_rows=10, validation_rows=5), "f")
    held = {keys[i] for i in parts.test + parts.validation}
    assert (len(parts.test), len(parts.validation), len(held)) == (10, 5, 15)
    assert not held & {keys[i] for i in parts.train}
    assert {keys[i] for i in parts.train} == set(keys) - held


def test_a_question_falls_on_the_same_side_wherever_it_stands() -> None:
    keys = [f"q{n}" for n in range(100)]
    sides = split(keys, Split(test_rows=20), "f")
    turned = split(keys[::-1], Split(test_rows=20), "f")
    assert {keys[i] for i in sides.test} == {keys[::-1][i] for i in turned.test}
    other = split(keys, Split(test_rows=20, seed=1), "f")
    assert set(other.test) != set(sides.test)


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(DataInvalid, match="3 distinct questions are left, and 3 are to be held"):
        split(["a", "b", "c"], Split(test_rows=2, validation_rows=1), "f")
