"""Labels from a closed list that an answer names on one line: `Violations: overstated; none`.

Labels are compared as wholes, never by substring: "revenue" inside another word names nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from thinktune.schema.recipe import normal_label
from thinktune.text.final_answer import final_answer

Problem = Literal["missing", "contradictory"]

LABEL_RULE = (
    "Labels are read from the last line after the think part that starts with the marker, one "
    "between separators, compared without case, punctuation and spacing, then by the recipe's "
    "table of aliases. A name that is in neither list counts as a false positive. A line that is "
    "missing, or that says “none” beside labels, names nothing."
)


@dataclass(frozen=True, slots=True)
class Labels:
    """What one text names."""

    named: frozenset[str]
    """Labels of the list, the one for none included."""
    unknown: tuple[str, ...]
    """Names that are neither labels nor aliases."""
    problem: Problem | None
    """`missing`: no line. `contradictory`: none and a label beside it. Nothing is named then."""


class LabelList:
    """The labels of a recipe."""

    def __init__(
        self, marker: str, values: Sequence[str], none: str, aliases: Mapping[str, str]
    ) -> None:
        """`none` is the label that says there is nothing; `aliases` maps other names to labels."""
        self._marker = marker
        self._none = none
        self._known = {normal_label(value): value for value in (*values, none)}
        self._known |= {normal_label(name): label for name, label in aliases.items()}

    def read(self, text: str) -> Labels:
        """The labels that a text names; for answers, the text after the think part."""
        line = final_answer(text, self._marker)
        if line is None:
            return Labels(frozenset(), (), "missing")
        said = {normal_label(name): name.strip() for name in re.split(r"[;|]", line)}
        labels = {self._known[key] for key in said if key in self._known}
        unknown = tuple(name for key, name in said.items() if key and key not in self._known)
        if self._none in labels and (len(labels) > 1 or unknown):
            return Labels(frozenset(), unknown, "contradictory")
        if not labels and not unknown:
            return Labels(frozenset(), (), "missing")
        return Labels(frozenset(labels), unknown, None)
