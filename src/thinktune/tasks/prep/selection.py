"""Which examples stay, and on which side of the split: filters, duplicates, balance, hold-out.

Called by `stage`. Every choice is by a hash of the question and a seed, never by position, so that
the same question falls on the same side whatever file it comes from.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from thinktune.schema.errors import DataInvalid, near_misses
from thinktune.schema.recipe import Balance, Filter, Split
from thinktune.tasks.prep.readers import Row
from thinktune.text.conversation import Reason


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


def passes(row: Row, filters: Sequence[Filter]) -> Reason | None:
    """None where the row passes all filters, else the reason."""
    for test in filters:
        value = row.get(test.column)
        text = "" if value is None else str(value)
        if test.any_of is not None and value not in test.any_of:
            return _filtered(test)
        if test.matches is not None and not re.search(test.matches, text):
            return _filtered(test)
        if test.not_empty and not text.strip():
            return _filtered(test)
    return None


def _filtered(test: Filter) -> Reason:
    return Reason(f"filter on {test.column}", "loosen data.filters")


T = TypeVar("T")

BALANCE = Reason("balance")
"""Rows beyond the number that each value has."""


def order(key: str, seed: int, purpose: str) -> str:
    """A pseudo-random rank of a question for one purpose."""
    return hashlib.sha256(f"{purpose}\x1f{seed}\x1f{key}".encode()).hexdigest()


def deduplicated(items: Sequence[T], key: Callable[[T], str]) -> tuple[list[T], int]:
    """The first of each question, and how many others there were."""
    first: dict[str, T] = {}
    for item in items:
        first.setdefault(key(item), item)
    return list(first.values()), len(items) - len(first)


def balanced(
    items: Sequence[T],
    balance: Balance,
    key: Callable[[T], str],
    row: Callable[[T], Row],
    place: str,
) -> tuple[list[T], Counter[Reason]]:
    """The same number for each value of the column, and what was dropped by reason."""
    groups: dict[str, list[T]] = defaultdict(list)
    dropped: Counter[Reason] = Counter()
    others = Reason(f"{balance.column} not among the balanced values")
    for item in items:
        value = row(item).get(balance.column)
        if value is not None and str(value) in balance.values:
            groups[str(value)].append(item)
        else:
            dropped[others] += 1
    empty = [value for value in balance.values if not groups[value]]
    if empty:
        fault = f"no row has {balance.column} {', '.join(repr(v) for v in empty)}"
        raise DataInvalid(place, fault, "correct data.balance.values or loosen data.filters")
    size = min(len(groups[value]) for value in balance.values)
    if balance.rows_per_value is not None:
        size = min(size, balance.rows_per_value)
    kept: list[T] = []
    for value in balance.values:
        ranked = sorted(groups[value], key=lambda item: order(key(item), 0, "balance"))
        kept += ranked[:size]
        if len(ranked) > size:
            dropped[BALANCE] += len(ranked) - size
    return kept, dropped


@dataclass(frozen=True, slots=True)
class Parts:
    """The sides of a split, as positions in the list that was split."""

    train: list[int]
    validation: list[int]
    test: list[int]


def split(keys: Sequence[str], spec: Split, place: str) -> Parts:
    """Holds out whole questions. Rows that share a held-out question are held out of training too:
    of a test question the first row is asked, the others are left out.

    Raises DataInvalid when nothing would be left to train on.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        rows[key].append(position)
    ranked = sorted(rows, key=lambda key: order(key, spec.seed, "split"))
    held = spec.test_rows + spec.validation_rows
    if len(ranked) <= held:
        fault = f"{len(ranked)} distinct questions are left, and {held} are to be held out"
        remedy = "lower data.split.test_rows and data.split.validation_rows, or loosen the filters"
        raise DataInvalid(place, fault, remedy)
    test = [rows[key][0] for key in ranked[: spec.test_rows]]
    validation = [rows[key][0] for key in ranked[spec.test_rows : held]]
    train = sorted(position for key in ranked[held:] for position in rows[key])
    return Parts(train, validation, test)
