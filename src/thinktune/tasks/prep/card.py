"""The data card: what was read, what was dropped and why, how long the examples are, and three of
them in full.

Written by `stage`; `card.json` is for programs (the evaluation report draws its histogram),
`card.html` for people.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from thinktune.tasks.prep.card_page import write_page
from thinktune.tasks.prep.contamination import Contamination
from thinktune.tasks.prep.ledger import Ledger
from thinktune.tasks.prep.preparation import Prepared
from thinktune.tasks.prep.selection import Balanced, Positions
from thinktune.tasks.prep.spool import Spool

SAMPLES = 3
BINS = 24
PADDED_BATCH = 8
"""Examples of a batch for which padding is reckoned."""


@dataclass
class Card:
    """Filled in while the stage works."""

    NEAR_DUPLICATES: ClassVar[int] = 20
    """Pairs of rewordings that the card shows."""

    model: str
    source: str = ""
    name: str = ""
    """What people call the dataset."""
    layout: str = ""
    """How rows were read, in one line."""
    ledger: Ledger = field(default_factory=Ledger)
    balance: list[Balanced] = field(default_factory=list)
    joined: int = 0
    """Rows that are rewordings of another row."""
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    contamination: Contamination | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    template_sha256: str = ""

    def counts(self) -> dict[str, int]:
        """The sizes, for the manifest."""
        return {
            "rows": self.ledger.rows,
            "dropped": self.ledger.total(),
            "truncated": self.ledger.notes["cut to length"],
            **{f"{side}_rows": size for side, size in self.sizes.items()},
        }


def write_card(folder: Path, card: Card, spool: Spool, train: Positions) -> None:
    """Writes `card.json` and `card.html`."""
    lengths = spool.lengths()[train]
    parts = spool.parts()[train].sum(axis=0) if len(train) else np.zeros(3, np.int64)
    data = {
        "source": card.source,
        "name": card.name,
        "model": card.model,
        "layout": card.layout,
        "template_sha256": card.template_sha256,
        "rows": card.ledger.rows,
        "dropped": dict(card.ledger.counts()),
        "drops": [
            {
                "reason": known.reason,
                "count": known.count,
                "bad": known.bad,
                "examples": known.examples,
                "remedy": known.remedy,
            }
            for known in card.ledger.by_weight()
        ],
        "notes": dict(card.ledger.notes.most_common()),
        "truncated": card.ledger.notes["cut to length"],
        "sizes": card.sizes,
        "balance": [
            {"value": b.value, "wanted": b.wanted, "available": b.available, "taken": b.taken}
            for b in card.balance
        ],
        "near_duplicates": {
            "rows": card.joined,
            "examples": [list(pair) for pair in card.near_duplicates],
        },
        "contamination": contamination_data(card.contamination),
        "tokens": dict(zip(("prompt", "reasoning", "answer"), parts.tolist(), strict=True)),
        **_lengths(lengths),
        "samples": [sample(spool[position]) for position in train[:SAMPLES].tolist()],
    }
    text = json.dumps(data, indent=1, ensure_ascii=False)
    (folder / "card.json").write_text(text, encoding="utf-8")
    write_page(folder / "card.html", data)


def sample(prepared: Prepared) -> dict[str, Any]:
    """One example for eyes: its parts as text, control text marked."""
    rendered = prepared.rendered
    return {
        "id": prepared.id,
        "prompt": rendered.prompt_text(),
        "pieces": [[piece.text, piece.control] for piece in rendered.prompt],
        "reasoning": rendered.reasoning,
        "answer": rendered.answer + rendered.end,
        "end": rendered.end,
        "tokens": len(prepared.encoded.ids),
    }


def contamination_data(found: Contamination | None) -> dict[str, Any] | None:
    """What was found, for programs; None where nobody looked."""
    if found is None:
        return None
    return {
        "counts": {name: dict(kinds) for name, kinds in found.counts.items()},
        "worst": [
            {
                "row": match.row,
                "test_set": match.test_set,
                "test": match.test,
                "kind": match.kind,
                "words": match.words,
                "share": round(match.share, 3),
                "similarity": round(match.similarity, 3),
                "text": match.text,
            }
            for match in found.worst()
        ],
    }


def _lengths(lengths: NDArray[np.int64]) -> dict[str, Any]:
    counts, edges = np.histogram(lengths, bins=min(BINS, max(1, len(set(lengths.tolist())))))
    return {
        "length": {
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "p95": float(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
        },
        "lengths": {"edges": edges.tolist(), "counts": counts.tolist()},
        "padding_saved": _padding(lengths.tolist()),
    }


def _padding(lengths: Sequence[int]) -> float:
    """Share of padding that batches of PADDED_BATCH would have, in the order of the file. Packed
    rows have none."""
    batches = [lengths[n : n + PADDED_BATCH] for n in range(0, len(lengths), PADDED_BATCH)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / padded if padded else 0.0
