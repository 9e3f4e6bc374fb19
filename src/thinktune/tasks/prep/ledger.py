"""Every row that is not learned, with its reason, a count and examples: the one policy for rows
that readers cannot read, that make no example, or that the recipe leaves out.

Filled in by `stage` and `check` while rows pass; shown on the data card.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from thinktune.schema.errors import DataInvalid
from thinktune.tasks.prep.preparation import Outcome
from thinktune.text.conversation import Reason

EXAMPLES = 3
MOST = 40
OTHERS = Reason("other reasons", "mend the reasons above first")
SHOWN = 3
"""Reasons that an error names."""


@dataclass(slots=True)
class Dropped:
    """Rows that were dropped for one reason."""

    reason: str
    remedy: str
    bad: bool
    """Whether they could not be read or used, as opposed to being left out by the recipe."""
    count: int = 0
    examples: list[str] = field(default_factory=list)
    """Places of the first ones: file and row number."""


@dataclass
class Ledger:
    """What happened to the rows of one dataset."""

    rows: int = 0
    """Rows that were read or should have been."""
    dropped: dict[str, Dropped] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    """What was done to rows that stayed, such as `end tokens taken off`."""

    def drop(self, reason: Reason, place: str | None = None, *, bad: bool, count: int = 1) -> None:
        """Counts rows that are not learned; none is no reason."""
        if count <= 0:
            return
        if len(self.dropped) >= MOST and reason.text not in self.dropped:
            reason = OTHERS  # as many reasons as rows would tell nobody anything
        known = self.dropped.setdefault(reason.text, Dropped(reason.text, reason.remedy, bad))
        known.count += count
        if place is not None and len(known.examples) < EXAMPLES:
            known.examples.append(place)

    def take(self, outcome: Outcome) -> None:
        """Counts one record and what became of it. Of a conversation of which some answers are
        learned, those that are not count as notes: the row is not lost."""
        self.rows += 1
        for text, count in outcome.notes.items():
            self.note(text, count)
        for reason, bad in outcome.reasons:
            if outcome.prepared or outcome.kept:
                self.note(f"answer left out ({reason.text})")
            else:
                self.drop(reason, outcome.place, bad=bad)
                break

    def note(self, text: str, count: int = 1) -> None:
        """Counts what was done to rows that stayed."""
        if count:
            self.notes[text] += count

    def by_weight(self) -> list[Dropped]:
        """The most frequent reason first."""
        return sorted(self.dropped.values(), key=lambda known: (-known.count, known.reason))

    def counts(self) -> Mapping[str, int]:
        """Rows that were dropped, by reason, the most frequent first."""
        return {known.reason: known.count for known in self.by_weight()}

    def total(self) -> int:
        """All rows that were dropped."""
        return sum(known.count for known in self.dropped.values())

    def check(self, max_bad_fraction: float, place: str) -> None:
        """Raises DataInvalid where too many rows could not be read or used, or none was read."""
        if self.rows == 0:
            raise DataInvalid(place, "the dataset has no rows", "check data.path or data.dataset")
        bad = [known for known in self.by_weight() if known.bad]
        count = sum(known.count for known in bad)
        if count <= max_bad_fraction * self.rows:
            return
        reasons = ", ".join(
            f"{known.reason}: {known.count}, first {known.examples[0]}"
            if known.examples
            else f"{known.reason}: {known.count}"
            for known in bad[:SHOWN]
        )
        more = f", and {len(bad) - SHOWN} more reasons" if len(bad) > SHOWN else ""
        fault = (
            f"{count} of {self.rows} rows cannot be used, more than data.max_bad_fraction="
            f"{max_bad_fraction:g} allows ({reasons}{more})"
        )
        remedy = bad[0].remedy
        if count < self.rows:
            remedy += "; or raise data.max_bad_fraction to go on without them"
        raise DataInvalid(place, fault, remedy)

    def check_left(self, left: int, place: str) -> None:
        """Raises DataInvalid where no row is left, with the remedy of the most frequent reason."""
        if left:
            return
        reasons = ", ".join(f"{known.reason}: {known.count}" for known in self.by_weight()[:4])
        fault = f"none of {self.rows} rows is left ({reasons})"
        remedy = self.by_weight()[0].remedy if self.dropped else "check data.path or data.dataset"
        raise DataInvalid(place, fault, remedy)

    def text(self) -> str:
        """` (dropped: duplicate question 3, …)`, or nothing."""
        reasons = [f"{reason} {count}" for reason, count in self.counts().items()]
        done = [f"{text} {count}" for text, count in self.notes.most_common()]
        parts = [f"dropped: {', '.join(reasons)}"] if reasons else []
        parts += [", ".join(done)] if done else []
        return f" ({'; '.join(parts)})" if parts else ""
