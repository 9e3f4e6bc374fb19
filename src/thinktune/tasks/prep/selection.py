"""Which examples stay, and on which side of the split: filters, duplicates, balance, hold-out.

Called by `preparation` and `stage`. Every choice is by a hash of the question and a seed, never by
position, so that the same question falls on the same side whatever file it comes from.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thinktune.schema.data import Balance, Filter, Split
from thinktune.schema.errors import DataInvalid, near_misses
from thinktune.tasks.prep.cells import is_missing
from thinktune.tasks.prep.readers.records import Record, Row
from thinktune.text.conversation import Reason, Unusable
from thinktune.text.linear_regex import Pattern, TooCostly, compile_pattern
from thinktune.text.visible import shows_nothing

DUPLICATE = Reason("duplicate question")
Positions = NDArray[np.int64]
Keys = NDArray[np.uint64]
"""Digests of questions, two numbers each."""


class SeenColumns:
    """The names of all columns that some row has."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records, looked at."""
        for record in records:
            if record.row is not None and not self.names.issuperset(record.row):
                self.names.update(record.row)
            yield record


def check_columns(
    filters: Sequence[Filter], balance: Balance | None, known: Collection[str], place: str
) -> None:
    """Raises DataInvalid on a column that no row has; in a row that lacks it, it is null."""
    wanted = [(test.column, "to filter on") for test in filters]
    if balance is not None:
        wanted.append((balance.column, "to balance by"))
    for column, purpose in wanted:
        if column not in known:
            raise DataInvalid(place, f"no column '{column}' {purpose}", near_misses(column, known))


class Filters:
    """The recipe's filters, ready to be asked."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        """Raises SpecInvalid for a pattern that cannot be searched in linear time."""
        self._tests: list[tuple[Filter, Pattern | None]] = [
            (
                test,
                compile_pattern(test.matches, f"data.filters[{number}].matches")
                if test.matches is not None
                else None,
            )
            for number, test in enumerate(filters)
        ]

    def reason(self, row: Row) -> Reason | None:
        """None where the row passes all filters, else why it does not. Raises Unusable for a value
        that cannot be tested."""
        for test, pattern in self._tests:
            value = row.get(test.column)
            passed, fault = _passes(value, test, pattern)
            if fault is not None:  # it could not be compared, whatever is wanted
                return fault
            if passed == test.invert:
                return _filtered(test)
        return None


def _passes(value: object, test: Filter, pattern: Pattern | None) -> tuple[bool, Reason | None]:
    if test.any_of is not None:
        return _is_any_of(value, test)
    if pattern is not None:
        if isinstance(value, (list, dict)):
            remedy = "match a column of text"
            return False, Reason(f"filter on {test.column}: no text", remedy)
        try:
            return pattern.search("" if is_missing(value) else str(value)), None
        except TooCostly as error:
            raise Unusable(Reason(f"'{test.column}' is {error}", "simplify the pattern")) from None
    if test.not_empty:
        if isinstance(value, str):
            return not shows_nothing(value), None
        return not is_missing(value) and value not in ([], {}), None
    return _compares(value, test)


def _is_any_of(value: object, test: Filter) -> tuple[bool, Reason | None]:
    wanted = test.any_of or ()
    if test.ignore_case and isinstance(value, str):
        texts = {folded(each) for each in wanted if isinstance(each, str)}
        if folded(value) in texts:
            return True, None
    if isinstance(value, (list, dict)) or is_missing(value):
        return False, None
    # In Python True equals 1, which no dataset means.
    same = [each for each in wanted if isinstance(each, bool) is isinstance(value, bool)]
    if value in same:
        return True, None
    if str(value) in {str(each) for each in wanted}:
        kind = "text" if isinstance(value, str) else "a number"
        written = repr(str(value)) if isinstance(value, str) else str(value)
        fault = f"filter on {test.column}: {written} is {kind} in the rows, not in data.filters"
        remedy = f"write any_of: [{written}, …], as the rows have it"
        return False, Reason(fault, remedy)
    return False, None


def _compares(value: object, test: Filter) -> tuple[bool, Reason | None]:
    if is_missing(value) or value == "":
        return False, None
    number = _number(value)
    if number is None:
        fault = f"filter on {test.column}: no number"
        return False, Reason(fault, "compare a column of numbers, or use any_of")
    return (
        (test.at_least is None or number >= test.at_least)
        and (test.at_most is None or number <= test.at_most)
        and (test.above is None or number > test.above)
        and (test.below is None or number < test.below)
    ), None


def _number(value: object) -> float | None:
    """A number, or the number that a CSV file holds as text."""
    if isinstance(value, bool) or is_missing(value):
        return None
    if not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if number != number else number


def _filtered(test: Filter) -> Reason:
    return Reason(f"filter on {test.column}", "loosen data.filters")


def folded(text: str) -> str:
    """The text with case and spacing set aside."""
    return " ".join(text.casefold().split())


def balanced_value(row: Row, balance: Balance | None) -> int:
    """Which of the values that are balanced the row has; -1 for none of them."""
    if balance is None:
        return -1
    value = row.get(balance.column)
    if is_missing(value) or isinstance(value, (list, dict)):
        return -1
    text = _shown(value)
    if balance.ignore_case:
        wanted = [folded(each) for each in balance.values]
        text = folded(text)
    else:
        wanted = list(balance.values)
    return wanted.index(text) if text in wanted else -1


def _shown(value: object) -> str:
    """A value as people write it in a recipe: 1 for 1.0, true for True."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def order(key: str, seed: int, purpose: str) -> str:
    """A pseudo-random rank of a question for one purpose."""
    return hashlib.sha256(f"{purpose}\x1f{seed}\x1f{key}".encode()).hexdigest()


def ranks(keys: Keys, seed: int, purpose: str) -> NDArray[np.uint64]:
    """The rank of each question, by `order` of its key in hex."""
    hexed = (f"{high:016x}{low:016x}" for high, low in keys.tolist())
    return np.fromiter((int(order(key, seed, purpose)[:16], 16) for key in hexed), np.uint64)


def first_of_each(keys: Keys) -> Positions:
    """The positions of the first row of each question, ascending."""
    _, first = np.unique(keys, axis=0, return_index=True)
    return np.sort(first).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Balanced:
    """What balancing took of one value."""

    value: str
    available: int
    taken: int
    wanted: int | None
    """What `rows_per_value` asks for."""


def balanced(
    keys: Keys, values: NDArray[np.int64], balance: Balance, place: str
) -> tuple[Positions, list[Balanced]]:
    """The same number of rows for each value, value by value, and the table of that.

    `values`: which value each row has, -1 for none. Raises DataInvalid where a value has no rows.
    """
    available = [int((values == number).sum()) for number in range(len(balance.values))]
    empty = [v for v, count in zip(balance.values, available, strict=True) if not count]
    if empty:
        fault = f"no row has {balance.column} {', '.join(repr(v) for v in empty)}"
        raise DataInvalid(place, fault, "correct data.balance.values or loosen data.filters")
    size = min(available)
    if balance.rows_per_value is not None:
        size = min(size, balance.rows_per_value)
    kept = []
    for number in range(len(balance.values)):
        positions = np.flatnonzero(values == number)
        ranked = positions[np.argsort(ranks(keys[positions], 0, "balance"), kind="stable")]
        kept.append(ranked[:size])
    table = [
        Balanced(value, count, size, balance.rows_per_value)
        for value, count in zip(balance.values, available, strict=True)
    ]
    return np.concatenate(kept), table


@dataclass(frozen=True, slots=True)
class Parts:
    """The sides of a split, as positions in what was split."""

    train: Positions
    validation: Positions
    test: Positions


def split(keys: Keys, spec: Split, place: str) -> Parts:
    """Holds out whole questions: rows that share a key are on one side. Of a held-out question the
    first row is asked, the others are left out.

    Raises DataInvalid when nothing would be left to train on.
    """
    distinct, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    held = spec.test_rows + spec.validation_rows
    if len(distinct) <= held:
        fault = f"{len(distinct)} distinct questions are left, and {held} are to be held out"
        remedy = "lower data.split.test_rows and data.split.validation_rows, or loosen the filters"
        raise DataInvalid(place, fault, remedy)
    ranked = np.argsort(ranks(distinct, spec.seed, "split"), kind="stable")
    side = np.zeros(len(distinct), np.int64)
    side[ranked[:held]] = 1
    train = np.flatnonzero(side[group.reshape(-1)] == 0)
    first = first.astype(np.int64)
    return Parts(train, first[ranked[spec.test_rows : held]], first[ranked[: spec.test_rows]])
