"""Columns of a user's own file by their usual names and by what they hold.

Called by `recognition`.
"""

from collections.abc import Mapping, Sequence

from thinktune.schema.catalog import Format
from thinktune.schema.errors import DataInvalid
from thinktune.tasks.prep.cells import SWITCHES, is_missing
from thinktune.tasks.prep.conversations import is_conversation, turns_of
from thinktune.tasks.prep.readers.json_values import CONVERSATION_COLUMNS
from thinktune.tasks.prep.readers.records import Row
from thinktune.tasks.prep.turns import ROLE_KEYS, ROLES

KNOWN_AS: dict[str, tuple[str, ...]] = {
    "question": ("question", "prompt", "instruction", "query", "problem", "input"),
    "answer": ("answer", "response", "completion", "output", "solution"),
    "reasoning": (
        *("reasoning", "reasoning_content", "thinking", "rationale", "chain_of_thought"),
        *("complex_cot", "cot", "deepseek_reasoning", "reasoning (reasoning_content)"),
    ),
    "summary": ("summary",),
    "system": ("system", "system_prompt"),
    "options": ("options", "choices"),
    "id": ("id",),
    "history": ("history",),
}
"""Names by which a column of a user's own file plays a role, the best first; case aside."""
KNOWN_ROLES = {name: role for role, names in KNOWN_AS.items() for name in names}
FEW_VALUES, ENOUGH_ROWS, SHORT = 3, 8, 20
"""A column of so many rows with no more different values than these, all short, is a label."""


def named_one(role: str, roles: Mapping[str, str], names: list[str], place: str) -> str:
    """The column with a known name for a role. Raises DataInvalid where several could be it."""
    free = [name for name in named(names, role) if name not in roles.values()]
    if len(free) == 1:
        return free[0]
    if free:
        fault = f"columns {', '.join(repr(name) for name in free)} could each be the {role}"
        raise DataInvalid(place, fault, f"say which: data.columns.{role}={free[0]}")
    return role


def named(names: Sequence[str] | set[str], role: str) -> list[str]:
    """Columns whose name is known for a role, the best first."""
    known = KNOWN_AS[role]
    found = [name for name in sorted(names) if name.strip().lower() in known]
    return sorted(found, key=lambda name: known.index(name.strip().lower()))


def not_the_role(name: str, role: str, head: Sequence[Row]) -> str | None:
    """Why a column of a known name does not play that role, by its values; None where it may."""
    values = [row.get(name) for row in head]
    values = [value for value in values if not is_missing(value) and value != ""]
    if role == "history":
        pairs = all(isinstance(v, list) or str(v).lstrip().startswith("[") for v in values)
        return None if pairs else "holds no list of earlier turns"
    if role != "reasoning" or not values:
        return None
    texts = [str(value).strip().lower() for value in values]
    if all(text in SWITCHES for text in texts):
        return "holds a switch, not reasoning"
    few = len(set(texts)) <= FEW_VALUES and len(texts) >= ENOUGH_ROWS
    if few and max(map(len, texts)) <= SHORT:
        return "holds a label, not reasoning"
    return None


def complete_open(roles: dict[str, str], head: Sequence[Row], names: list[str], place: str) -> None:
    """Where conversations end in a question, the column that answers it. Raises DataInvalid where
    that is for the recipe to say."""
    ends = [_last_role(row.get(roles["conversation"])) for row in head]
    if not any(role == "user" for role in ends):
        return
    for name in ("chosen", "rejected"):
        if name in names:
            fault = f"conversations end in a question, and '{name}' is one of two answers to choose"
            remedy = f"say which is learned: data.columns.conversation={roles['conversation']} and"
            raise DataInvalid(place, fault, f"{remedy} data.columns.completion=chosen")
    answers = [name for name in named(names, "answer") if name not in roles.values()]
    if len(answers) > 1:
        fault = f"columns {', '.join(map(repr, answers))} could each answer the conversations"
        raise DataInvalid(place, fault, f"say which: data.columns.completion={answers[0]}")
    if answers:
        roles["completion"] = answers[0]


def _last_role(value: object) -> str | None:
    turns = turns_of(value) if is_conversation(value) else []
    if not turns:
        return None
    name = next((turns[-1][key] for key in ROLE_KEYS if turns[-1].get(key) is not None), "")
    return ROLES.get(str(name).strip().lower())


def conversation_column(head: Sequence[Row], layout: Format) -> str:
    """The column that holds the turns; where none does, the usual name."""
    usual = "messages" if layout == "messages" else "conversations"
    for name in (usual, *CONVERSATION_COLUMNS, "prompt"):
        if any(is_conversation(row.get(name)) for row in head):
            return name
    return usual
