"""How the rows of a dataset are laid out: by what the recipe says, else by the catalog, else by
the first rows.

Called by `stage` and `check`. What is said wins over what is seen, and where two things that are
said contradict each other the recipe is refused. What was recognized is told in one line, with the
columns that are used and those that are not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

from thinktune.schema.catalog import ColumnMap, DatasetEntry, Format
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import DataInvalid, SpecInvalid, near_misses
from thinktune.tasks.prep.conversations import (
    CONVERSATIONAL,
    is_conversation,
)
from thinktune.tasks.prep.known_columns import (
    KNOWN_ROLES,
    complete_open,
    conversation_column,
    named,
    named_one,
    not_the_role,
)
from thinktune.tasks.prep.readers.json_values import CONVERSATION_COLUMNS
from thinktune.tasks.prep.readers.records import Record, Row

HEAD_ROWS = 100
"""Rows by which the layout is told and mapped columns are looked for: a row of JSON may lack any
column."""
SHOWN = 12
"""Columns that the line names."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are read."""

    format: Format
    columns: ColumnMap
    how: str
    """`as the recipe says`, `as the catalog says` or `recognized`."""
    used: dict[str, str]
    """Column of each role that is played."""
    unused: tuple[str, ...]
    """Columns of the first rows that nothing reads."""
    notes: tuple[str, ...] = ()
    """Why a column that has a known name is not used."""
    own_file: bool = False
    """Whether it is a file of the user's, whose columns have the meaning of their names."""
    late: frozenset[str] = frozenset()
    """Known names, in all spellings of case, that a later column of a user's file may have."""

    @property
    def conversational(self) -> bool:
        """Whether a row holds a list of turns."""
        return self.format in CONVERSATIONAL

    def line(self) -> str:
        """One line for people."""
        used = ", ".join(
            role if role == column else f"{role} from '{column}'"
            for role, column in self.used.items()
        )
        left = [f"'{name}'" for name in self.unused[:SHOWN]]
        more = len(self.unused) - len(left)
        left += [f"{more} more"] if more else []
        parts = [f"rows are read as {self.format} ({self.how}): {used}"]
        parts += [f"not used: {', '.join(left)}"] if left else ["all columns are used"]
        return "; ".join([*parts, *self.notes])


class Recognized(NamedTuple):
    """A dataset whose layout is known."""

    layout: Layout
    head: list[Row]
    """The first rows, by which it was told."""
    records: Iterator[Record]
    """All records, the first ones included."""


def recognized(
    records: Iterator[Record], data: DataSpec, dataset: DatasetEntry, place: str
) -> Recognized:
    """Looks at the first records of a dataset. Raises as `recognize` does."""
    first = list(islice(records, HEAD_ROWS))
    head = [record.row for record in first if record.row is not None]
    return Recognized(recognize(head, data, dataset, place), head, chain(first, records))


def recognize(head: Sequence[Row], data: DataSpec, dataset: DatasetEntry, place: str) -> Layout:
    """The layout of a dataset whose first rows these are. Raises SpecInvalid for settings that
    contradict each other, DataInvalid where a column is missing."""
    said = _given(data.columns)
    own_file = data.path is not None
    _refuse_contradictions(data, said)
    layout, how = _format(head, data, dataset, said)
    _refuse_patterns(data, layout)
    roles = dict(said)
    if not own_file:
        roles = {**_fitting(_given(dataset.columns), layout, said), **said}
    names = list(dict.fromkeys(str(name) for row in head for name in row))
    free = [name for name in names if name not in data.ignore_columns]
    _complete(roles, layout, head, free, place, own_file=own_file)
    _refuse_two_roles(roles, layout, said)
    notes = _optional(roles, layout, head, free, data) if own_file else ()
    _show_options(roles, data, said)
    if head:
        _check_there(roles, names, said, place, head)
    asked = {test.column for test in data.filters} | {data.balance.column if data.balance else ""}
    unused = tuple(name for name in names if name not in roles.values() and name not in asked)
    used = {role: column for role, column in roles.items() if column in names or not names}
    columns = ColumnMap.model_validate(roles)
    late: frozenset[str] = frozenset()
    if own_file:
        lacking = [name for name in KNOWN_ROLES if name not in {n.lower() for n in names}]
        late = frozenset(spelled for n in lacking for spelled in (n, n.capitalize(), n.upper()))
    return Layout(layout, columns, how, used, unused, tuple(notes), own_file, late)


def _given(columns: ColumnMap) -> dict[str, str]:
    return {role: name for role, name in columns.model_dump().items() if name is not None}


def _refuse_contradictions(data: DataSpec, said: Mapping[str, str]) -> None:
    in_columns = [role for role in ("question", "answer") if role in said]
    if data.format in CONVERSATIONAL and in_columns:
        fault = f"maps '{said[in_columns[0]]}', and data.format={data.format} reads turns"
        remedy = "leave one of them out, or set data.format=columns"
        raise SpecInvalid(f"data.columns.{in_columns[0]}", fault, remedy)
    if "conversation" in said and (in_columns or data.format in ("columns", "alpaca")):
        other = f"data.columns.{in_columns[0]}" if in_columns else f"data.format={data.format}"
        fault = f"maps '{said['conversation']}', and {other} reads columns"
        raise SpecInvalid("data.columns.conversation", fault, "leave one of them out")
    if "completion" in said and "conversation" not in said:
        fault = f"maps '{said['completion']}' without the turns before it"
        raise SpecInvalid("data.columns.completion", fault, "map data.columns.conversation too")


def _refuse_patterns(data: DataSpec, layout: Format) -> None:
    """Conversations are taken as they stand; a pattern for them would be ignored."""
    for name in ("prompt", "answer"):
        if layout in CONVERSATIONAL and getattr(data, name) != DataSpec.model_fields[name].default:
            fault = f"is a pattern for columns, and rows are read as {layout}"
            plain = DataSpec.model_fields[name].default
            remedy = (
                f"take conversations as they stand with data.{name}='{plain}', or map"
                " data.columns.question and data.columns.answer"
            )
            raise SpecInvalid(f"data.{name}", fault, remedy)


def _refuse_two_roles(roles: Mapping[str, str], layout: Format, said: Mapping[str, str]) -> None:
    """One column cannot be asked and answered. What conversations do not read is no role there."""
    for role in ("input", "history"):
        if layout in CONVERSATIONAL and role in said:
            fault = f"maps '{said[role]}', and rows are read as {layout}"
            raise SpecInvalid(f"data.columns.{role}", fault, "leave it out")
    for role, name in said.items():
        other = next((r for r, n in roles.items() if n == name and r != role), None)
        if other is not None:
            fault = f"'{name}' plays the role '{other}' too"
            raise SpecInvalid(f"data.columns.{role}", fault, "map a column of its own")


def _format(
    head: Sequence[Row], data: DataSpec, dataset: DatasetEntry, said: Mapping[str, str]
) -> tuple[Format, str]:
    if data.format is not None:
        return data.format, "as the recipe says"
    if "conversation" in said:
        return "messages", "as the recipe says"
    if "question" in said or "answer" in said:
        is_alpaca = data.path is None and dataset.format == "alpaca"
        return ("alpaca" if is_alpaca else "columns"), "as the recipe says"
    if data.path is None:
        return dataset.format, "as the catalog says"
    return _format_of(head, data), "recognized"


def _format_of(head: Sequence[Row], data: DataSpec) -> Format:
    """By the first rows of a user's own file: the shape of a column's values comes before its
    name, as a `conversation` may be a number."""
    known = {str(name) for row in head for name in row}
    patterns = any(
        getattr(data, name) != DataSpec.model_fields[name].default for name in ("prompt", "answer")
    )
    in_columns = any(named(known, "question")) and any(named(known, "answer"))
    if not (patterns and in_columns):  # a pattern in the recipe says that there are columns
        for name in (*CONVERSATION_COLUMNS, "prompt"):
            if any(is_conversation(row.get(name)) for row in head):
                return "sharegpt" if name == "conversations" else "messages"
    if {"instruction", "output"} <= known:
        return "alpaca"
    if in_columns or not known & {"messages", "conversations"}:
        return "columns"
    return "messages" if "messages" in known else "sharegpt"


def _fitting(catalog: dict[str, str], layout: Format, said: Mapping[str, str]) -> dict[str, str]:
    """What of the catalog's map goes with the recipe's format and its own map."""
    apart = ("question", "answer") if layout in CONVERSATIONAL else ("conversation", "completion")
    return {
        role: name
        for role, name in catalog.items()
        if role not in apart and name not in said.values()
    }


def _complete(
    roles: dict[str, str],
    layout: Format,
    head: Sequence[Row],
    names: list[str],
    place: str,
    *,
    own_file: bool,
) -> None:
    """Fills in the roles without which there is no example."""
    if layout in CONVERSATIONAL:
        if "conversation" not in roles:
            roles["conversation"] = conversation_column(head, layout)
        if own_file and "completion" not in roles:
            complete_open(roles, head, names, place)
        return
    if layout == "alpaca":
        roles.setdefault("question", "instruction")
        roles.setdefault("answer", "output")
    instruction = next((name for name in names if name.lower() == "instruction"), None)
    more = next((name for name in names if name.lower() == "input"), None)
    asks = instruction is not None and roles.get("question", instruction) == instruction
    if own_file and asks and more is not None and more not in roles.values():
        roles.setdefault("question", str(instruction))
        roles.setdefault("input", more)
    for role in ("question", "answer"):
        if role not in roles:
            roles[role] = named_one(role, roles, names, place) if own_file else role


def _optional(
    roles: dict[str, str], layout: Format, head: Sequence[Row], names: list[str], data: DataSpec
) -> tuple[str, ...]:
    """Adds roles that columns of a user's own file play by their names, where they can."""
    notes = []
    wanted = ["reasoning", "system", "id", "history"]
    if layout in CONVERSATIONAL:
        wanted.remove("history")
    else:
        wanted += ["summary"] if "{summary}" in data.answer else []
        wanted += ["options"]
    for role in wanted:
        if role in roles:
            continue
        for name in named(names, role):
            if name in roles.values():
                continue
            fault = not_the_role(name, role, head)
            if fault is None:
                roles[role] = name
                break
            notes.append(f"'{name}' {fault}")
    return tuple(notes)


def _show_options(roles: dict[str, str], data: DataSpec, said: Mapping[str, str]) -> None:
    """Options that the prompt does not show are not what is asked. Raises SpecInvalid where the
    recipe maps them and has a prompt without them."""
    default = data.prompt == DataSpec.model_fields["prompt"].default
    if "options" not in roles or default or "{options}" in data.prompt:
        return
    if "options" in said:
        fault = f"maps '{said['options']}', and data.prompt does not show {{options}}"
        remedy = "put {options} into data.prompt, or leave the mapping out"
        raise SpecInvalid("data.columns.options", fault, remedy)
    del roles["options"]


def _check_there(
    roles: Mapping[str, str],
    names: list[str],
    said: Mapping[str, str],
    place: str,
    head: Sequence[Row],
) -> None:
    """Raises DataInvalid where none of the first rows has a column that is needed."""
    for role, name in roles.items():
        if name in names:
            continue
        fault = f"no column '{name}', which plays the role '{role}'"
        remedy = near_misses(name, names)
        turns = next((n for n in names if any(is_conversation(row.get(n)) for row in head)), None)
        if role == "question" and turns is not None:
            remedy = f"'{turns}' holds turns: data.columns.conversation={turns}"
            raise DataInvalid(place, fault, remedy)
        if role in said:
            raise DataInvalid(place, fault, f"correct data.columns.{role}; {remedy}")
        raise DataInvalid(place, fault, f"set data.columns.{role}; {remedy}")
