"""The data card: what was read, what was dropped and why, how long the examples are, and three of
them in full.

Written by `stage`; `card.json` is for programs (the evaluation report draws its histogram),
`card.md` for people.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from thinktune.text.conversation import Reason
from thinktune.text.templates import Rendered
from thinktune.text.tokens import Encoded

SAMPLES = 3
BINS = 24


@dataclass
class Card:
    """Filled in while the stage works."""

    source: str
    model: str
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows that were left out, by the text of the reason."""
    remedies: dict[str, str] = field(default_factory=dict)
    """What to do about a reason, by its text."""
    truncated: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    template_sha256: str = ""

    def drop(self, reason: Reason, count: int = 1) -> None:
        """Counts rows that were left out; none is no reason."""
        if count:
            self.dropped[reason.text] += count
            self.remedies[reason.text] = reason.remedy

    def remedy(self) -> str:
        """What to do about the most frequent reason, where no row is left."""
        return self.remedies[self.dropped.most_common(1)[0][0]]

    def counts(self) -> dict[str, int]:
        """The sizes, for the manifest."""
        return {
            "rows": self.rows,
            "dropped": self.dropped.total(),
            "truncated": self.truncated,
            **{f"{side}_rows": size for side, size in self.sizes.items()},
        }

    def dropped_text(self) -> str:
        """` (dropped: duplicate question 3, …)`, or nothing."""
        reasons = [f"{reason} {count}" for reason, count in self.dropped.most_common()]
        if self.truncated:
            reasons.append(f"cut to length {self.truncated}")
        return f" (dropped: {', '.join(reasons)})" if reasons else ""


def write_card(folder: Path, card: Card, train: Sequence[tuple[Rendered, Encoded]]) -> None:
    """Writes `card.json` and `card.md`."""
    lengths = np.array([len(encoded.ids) for _, encoded in train])
    counts, edges = np.histogram(lengths, bins=min(BINS, max(1, len(set(lengths.tolist())))))
    parts = {
        "prompt": sum(e.prompt_tokens for _, e in train),
        "reasoning": sum(e.reasoning_tokens for _, e in train),
        "answer": sum(e.answer_tokens for _, e in train),
    }
    samples = [
        {
            "prompt": rendered.prompt_text(),
            "reasoning": rendered.reasoning,
            "answer": rendered.answer + rendered.end,
            "tokens": len(encoded.ids),
        }
        for rendered, encoded in train[:SAMPLES]
    ]
    data = {
        "source": card.source,
        "model": card.model,
        "template_sha256": card.template_sha256,
        "rows": card.rows,
        "dropped": dict(card.dropped.most_common()),
        "truncated": card.truncated,
        "sizes": card.sizes,
        "tokens": parts,
        "length": {
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "p95": float(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
        },
        "lengths": {"edges": edges.tolist(), "counts": counts.tolist()},
        "samples": samples,
    }
    text = json.dumps(data, indent=1, ensure_ascii=False)
    (folder / "card.json").write_text(text, encoding="utf-8")
    (folder / "card.md").write_text(_markdown(card, data, parts, samples), encoding="utf-8")


def _markdown(
    card: Card, data: dict[str, object], parts: dict[str, int], samples: list[dict[str, object]]
) -> str:
    lines = [
        f"# Data card: {card.source} for {card.model}",
        "",
        f"{card.rows} rows read; " + ", ".join(f"{n} {s}" for s, n in card.sizes.items()) + ".",
        f"Template `{card.template_sha256[:16]}`; {card.truncated} cut to length.",
        "",
        "| dropped because | rows |",
        "|---|---:|",
        *[f"| {reason} | {count} |" for reason, count in card.dropped.most_common()],
        "",
        "| training tokens of | count |",
        "|---|---:|",
        *[f"| {name} | {count} |" for name, count in parts.items()],
        "",
        f"Length in tokens: {json.dumps(data['length'])}",
    ]
    for number, sample in enumerate(samples, start=1):
        lines += ["", f"## Example {number} ({sample['tokens']} tokens)", ""]
        for part in ("prompt", "reasoning", "answer"):
            lines += [f"{part}:", "````text", str(sample[part]), "````"]
    return "\n".join(lines) + "\n"
