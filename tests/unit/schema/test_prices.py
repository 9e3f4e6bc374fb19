"""Prices in the cluster file."""

from typing import Any

import pytest

from thinktune.recipes.compose import load_catalog
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import SpecInvalid

L4 = load_catalog().hardware["l4x4"]


def cluster(prices: dict[str, Any]) -> Cluster:
    return Cluster.parse({"store": "s3://bucket", "prices": prices}, "cluster.yaml")


def test_a_node_costs_what_it_says_before_what_its_gpus_say() -> None:
    given = {"currency": "EUR", "node_hour": {"l4x4": 4.0}, "gpu_hour": {"NVIDIA-L4": 0.5}}
    prices = cluster(given).prices
    assert prices is not None
    assert prices.on_gpus("l4x4", L4, gpus=1, nodes=2) == 8.0
    assert prices.on_gpus("l4x1", L4, gpus=1, nodes=2) == 1.0
    unknown = L4.model_copy(update={"product": "Other"})
    assert prices.on_gpus("other", unknown, gpus=1, nodes=1) is None
    assert prices.on_gpus("none", L4.model_copy(update={"product": None}), 1, 1) is None


def test_a_cluster_file_without_prices() -> None:
    assert Cluster.parse({"store": "s3://bucket"}, "cluster.yaml").prices is None


@pytest.mark.parametrize(
    ("prices", "fault"),
    [
        ({"node_hour": {"l4x4": 1}}, "currency"),
        ({"currency": "euro", "cpu_node_hour": 1}, "currency"),
        ({"currency": "EUR"}, "there is no price; give gpu_hour, node_hour or cpu_node_hour"),
        ({"currency": "EUR", "cpu_node_hour": -1}, "cpu_node_hour"),
        ({"currency": "EUR", "gpu_hour": {"NVIDIA-L4": float("inf")}}, "gpu_hour"),
        ({"currency": "EUR", "node_hours": {"l4x4": 1}}, "node_hour"),
        ({"currency": "EUR", "gpu_hour": {"NVIDIA L4": 1}}, "gpu_hour"),
    ],
)
def test_what_is_no_price_is_refused(prices: dict[str, Any], fault: str) -> None:
    with pytest.raises(SpecInvalid, match=fault):
        cluster(prices)
