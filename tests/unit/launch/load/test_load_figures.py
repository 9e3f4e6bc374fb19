"""Where more clients stop to help."""

import pytest

from thinktune.launch.load.figures import knee
from thinktune.schema.load import LoadLevel, Spread


def level(clients: int, tokens_per_s: float, latency_s: float, *, whole: bool = True) -> LoadLevel:
    spread = Spread(median_s=latency_s, p95_s=latency_s)
    return LoadLevel(
        concurrency=clients,
        answered=16,
        failures={},
        seconds=10.0,
        tokens=round(10 * tokens_per_s),
        tokens_per_s=tokens_per_s,
        requests_per_s=1.6,
        first_token=spread,
        inter_token=None,
        per_token=None,
        latency=spread,
        whole=whole,
    )


def nothing(clients: int) -> LoadLevel:
    return level(clients, 0, 1).model_copy(update={"latency": None, "answered": 0})


@pytest.mark.parametrize(
    ("levels", "found"),
    [
        ([level(1, 100, 1.0), level(2, 190, 1.1), level(4, 200, 2.0), level(8, 200, 4.0)], 2),
        ([level(1, 100, 1.0), level(2, 110, 2.0)], None),  # 10% more
        ([level(1, 100, 1.0), level(2, 109, 1.2)], None),  # not over 20% longer
        ([level(1, 100, 1.0), level(2, 109, 1.21)], 1),
        ([level(1, 100, 1.0), level(2, 90, 3.0, whole=False)], None),
        ([level(1, 100, 1.0), nothing(2)], None),
        ([level(4, 100, 1.0)], None),
    ],
)
def test_the_knee(levels: list[LoadLevel], found: int | None) -> None:
    assert knee(levels) == found
