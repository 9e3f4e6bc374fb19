"""The demo's questions: what is in stock after a few deliveries, with the steps.

Called by `sources` for the generator `inventory-sums`. Each answer can be checked, each question is
distinct, and a seed gives the same questions everywhere.
"""

import random
from collections.abc import Iterator

ROWS = 1200
MOVES = (2, 4)
"""Fewest and most deliveries per question."""
START = (10, 50)
DELIVERY = (2, 20)
"""Sums only: a model of 135M parameters in 4 bits adds two-digit numbers well after a few hundred
examples, and subtracts them in a third of the cases."""

THINGS = ("apples", "books", "lamps", "chairs", "cups", "bikes", "keys", "pens", "shoes", "hats")
PLACES = ("A shop", "A warehouse", "A kiosk", "A market stall", "A depot", "A studio")
DELIVERIES = (
    "{n} more arrive",
    "{n} are delivered",
    "{n} come back from customers",
    "{n} are added",
    "{n} are bought for it",
)


def inventory_sums(seed: int = 0, rows: int = ROWS) -> Iterator[dict[str, str]]:
    """Rows with `id, question, reasoning, answer, summary`, all text."""
    draw = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < rows:
        row = _row(draw)
        if row["question"] in seen:
            continue
        row["id"] = f"inventory-sums-{len(seen):05d}"
        seen.add(row["question"])
        yield row


def _row(draw: random.Random) -> dict[str, str]:
    thing, place = draw.choice(THINGS), draw.choice(PLACES)
    stock = draw.randint(*START)
    sentences = [f"{place} has {stock} {thing}."]
    steps = [f"Start: {stock}."]
    for _ in range(draw.randint(*MOVES)):
        more = draw.randint(*DELIVERY)
        sentences.append(draw.choice(DELIVERIES).format(n=more).capitalize() + ".")
        steps.append(f"{stock} + {more} = {stock + more}.")
        stock += more
    return {
        "question": " ".join([*sentences, f"How many {thing} are there now?"]),
        "reasoning": "\n".join(steps),
        "answer": f"There are {stock} {thing} now.",
        "summary": str(stock),
    }
