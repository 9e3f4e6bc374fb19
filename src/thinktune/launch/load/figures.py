"""What the times of requests come to, and where more clients stop to help. Pure functions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median, quantiles

from thinktune.schema.load import LoadLevel, Spread

GAIN = 0.10
"""A level must give this share more tokens per second than the one before, …"""
LONGER = 0.20
"""… where its median latency is longer by over this share."""


@dataclass(slots=True)
class Timing:
    """One request and the times of its answer, in seconds of the clock."""

    began: float
    texts: list[float] = field(default_factory=list)
    """When each text came."""
    ended: float = 0.0
    tokens: int = 0
    failure: str | None = None
    """What kind of failure it was; None for a whole answer."""


def level_of(concurrency: int, timings: Sequence[Timing], *, whole: bool = True) -> LoadLevel:
    """The figures of one level; at least one request was made."""
    done = [each for each in timings if each.failure is None]
    failures = Counter(each.failure for each in timings if each.failure is not None)
    seconds = max(each.ended for each in timings) - min(each.began for each in timings)
    tokens = sum(each.tokens for each in done)
    written = [each for each in done if each.texts]
    return LoadLevel(
        concurrency=concurrency,
        answered=len(done),
        failures=dict(sorted(failures.items())),
        seconds=seconds,
        tokens=tokens,
        tokens_per_s=tokens / seconds if seconds else 0.0,
        requests_per_s=len(done) / seconds if seconds else 0.0,
        first_token=_spread([each.texts[0] - each.began for each in written]),
        inter_token=_spread([b - a for each in done for a, b in pairwise(each.texts)]),
        per_token=_spread(
            [
                (each.texts[-1] - each.texts[0]) / (each.tokens - 1)
                for each in written
                if each.tokens > 1
            ]
        ),
        latency=_spread([each.ended - each.began for each in done]),
        whole=whole,
    )


def knee(levels: Sequence[LoadLevel]) -> int | None:
    """The last level before one at which clients wait longer and get hardly more; None where there
    is no such level. `levels` rise."""
    for before, after in pairwise(level for level in levels if level.whole):
        if before.latency is None or after.latency is None:
            continue
        more = after.tokens_per_s - before.tokens_per_s
        longer_s = after.latency.median_s - before.latency.median_s
        waits = longer_s > LONGER * before.latency.median_s
        if waits and more < GAIN * before.tokens_per_s:
            return before.concurrency
    return None


def clients(count: int) -> str:
    """So many clients, in words."""
    return f"{count} client" + ("" if count == 1 else "s")


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    p95 = quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    return Spread(median_s=median(values), p95_s=p95)
