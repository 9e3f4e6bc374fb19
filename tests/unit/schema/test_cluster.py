"""What a cluster file may say: what Kubernetes would refuse is refused where it is written."""

from typing import Any

import pytest

from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import SpecInvalid


def parse(**settings: Any) -> Cluster:
    return Cluster.parse({"store": "s3://bucket/prefix", **settings}, "cluster.yaml")


@pytest.mark.parametrize(
    "settings",
    [
        {"namespace": 59 * "n"},
        {"namespace": "7b"},
        {"identity": {"secret": 250 * "s", "service_accounts": {"train": "a.b-c"}}},
        {"images": {"registry": "localhost:5000/team/models", "tag": "v1.2_x"}},
        {"images": {"registry": "123.dkr.ecr.eu-west-1.amazonaws.com"}},
        {"gpu_nodes": {"node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"}}},
        {"gpu_nodes": {"node_selector": {"pool": ""}}},
        {"gpu_nodes": {"tolerations": [{"operator": "Exists"}]}},
        {"identity": {"pod_labels": {"azure.workload.identity/use": "true"}}},
        {"store": "s3://bucket"},
        {"store": "s3://Old_Bucket/team/"},
        {"env": {"TOKENIZERS_PARALLELISM": "false", "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/token"}},
    ],
)
def test_what_kubernetes_takes(settings: dict[str, Any]) -> None:
    parse(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"store": "file:///data"}, "s3://bucket"),
        ({"store": "s3://"}, "s3://bucket"),
        ({"store": "gs://bucket"}, "s3://bucket"),
        ({"store": "s3://bucket/../x"}, "s3://bucket"),
        ({"store": "s3://bucket//x"}, "s3://bucket"),
        ({"namespace": "a.b"}, "'-', at most 63"),
        ({"namespace": 64 * "n"}, "at most 63"),
        ({"identity": {"secret": "Keys"}}, "lower-case"),
        ({"images": {"registry": "https://registry.example"}}, "no scheme"),
        ({"images": {"registry": "registry.example/"}}, "no scheme"),
        ({"images": {"tag": "bad tag"}}, "a tag"),
        ({"images": {"tag": "ünïcode"}}, "a tag"),
        ({"identity": {"annotations": {"a b": "x"}}}, "label's key"),
        ({"priority_class": "High Prio"}, "lower-case"),
        ({"queue": "My Queue"}, "LocalQueue"),
        ({"gpu_nodes": {"node_selector": {"a b": "c"}}}, "label's key"),
        ({"gpu_nodes": {"node_selector": {"a": "b c"}}}, "letters, digits"),
        (
            {"gpu_nodes": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
            "Equal",
        ),
        ({"gpu_nodes": {"tolerations": [{"effect": "NoSchedule"}]}}, "name the taint's key"),
        ({"gpu_nodes": {"tolerations": [{"key": "", "value": "x"}]}}, "label's key"),
        ({"gpu_nodes": {"tolerations": [{"key": "a", "value": "b c"}]}}, "letters, digits"),
        ({"identity": {"pod_labels": {"app.kubernetes.io/instance": "x"}}}, "remove it"),
        ({"monitoring": {"labels": {"thinktune.dev/run": "x"}}}, "remove it"),
        ({"deadline_hours": 10**11}, "87600"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "is a credential"),
        ({"env": {"HF_TOKEN": "x"}}, "env_from_secrets"),
        ({"env": {"HTTPS_PROXY": "http://me:pw@proxy:3128"}}, "is a credential"),
        ({"env": {"HOME": "/"}}, "is set by the chart"),
        ({"env": {"a b": "x"}}, "is not a variable's name"),
        ({"network": {"store_cidrs": ["nonsense"]}}, "10.0.0.0/8"),
        ({"store_endpoint": "minio:9000"}, "write it as http://host:port"),
        ({"store_endpoint": "http://minio:90000"}, "write it as http://host:port"),
        ({"store_endpoint": "http://me:pw@minio"}, "is not an address without credentials"),
        ({"images": {"digests": {"train": "latest"}}}, "sha256"),
        ({"images": {"digests": {"tran": "sha256:" + 64 * "0"}}}, "did you mean 'train'"),
    ],
)
def test_what_it_would_refuse(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecInvalid) as refused:
        parse(**settings)
    assert words in str(refused.value)


def test_a_single_address_is_written_as_a_network() -> None:
    assert parse(network={"store_cidrs": ["10.9.0.5"]}).network.store_cidrs == ("10.9.0.5/32",)
