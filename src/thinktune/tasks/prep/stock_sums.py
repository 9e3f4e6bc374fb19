"""The demo's questions: what is left in stock after a few deliveries and sales, with the steps.

Called by `sources` for the generator `stock-sums`. Each answer can be checked, each question is
distinct, and a seed gives the same questions everywhere.
"""

import random
from collections.abc import Iterator

ROWS = 1200
MOVES = (2, 4)
"""Fewest and most changes of the stock per question."""
START = (20, 60)
CHANGE = (3, 30)

THINGS = ("apples", "books", "lamps", "chairs", "cups", "bikes", "keys", "pens", "shoes", "hats")
PLACES = ("A shop", "A warehouse", "A kiosk", "A market stall", "A depot", "A studio")
GAINS = ("{n} more arrive", "{n} are delivered", "{n} come back from customers", "{n} are added")
LOSSES = ("{n} are sold", "{n} are sent away", "{n} break", "{n} are given to a school")


def stock_sums(seed: int = 0, rows: int = ROWS) -> Iterator[dict[str, str]]:
    """Rows with `id, question, reasoning, answer, summary`, all text."""
    draw = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < rows:
        row = _row(draw)
        if row["question"] in seen:
            continue
        row["id"] = f"stock-sums-{len(seen):05d}"
        seen.add(row["question"])
        yield row


def _row(draw: random.Random) -> dict[str, str]:
    thing, place = draw.choice(THINGS), draw.choice(PLACES)
    stock = draw.randint(*START)
    sentences = [f"{place} has {stock} {thing}."]
    steps = [f"Start: {stock}."]
    for _ in range(draw.randint(*MOVES)):
        change = draw.randint(*CHANGE)
        gain = draw.random() < 0.5 or change > stock
        sentences.append(draw.choice(GAINS if gain else LOSSES).format(n=change).capitalize() + ".")
        after = stock + change if gain else stock - change
        steps.append(f"{stock} {'+' if gain else '-'} {change} = {after}.")
        stock = after
    return {
        "question": " ".join([*sentences, f"How many {thing} are there now?"]),
        "reasoning": "\n".join(steps),
        "answer": f"There are {stock} {thing} now.",
        "summary": str(stock),
    }
