"""What is left of a run, left to a conductor in the cluster."""

import json
from collections.abc import Callable

import pytest
from kube_cluster import Cluster
from kube_objects import CONFIG_MAPS, JOBS
from kube_server import KubeServer
from launching import (
    NAMESPACE,
    uid,
)

from thinktune.launch.cluster.install import Foreign
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.preflight import Request
from thinktune.launch.runs import pipeline_of
from thinktune.launch.submit import detach
from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.stages import STAGES, Stage

Say = Callable[[str], None]
CONDUCTOR = "r-conductor"


def todo(asked: Request, *stages: Stage) -> Pipeline:
    """What a submit of these stages leaves to a conductor."""
    return pipeline_of(asked.run, stages, asked.cluster)


def told(cluster: Cluster) -> list[str]:
    """Stages that the conductor in the cluster is to start."""
    data = cluster.objects.get(CONFIG_MAPS, NAMESPACE, CONDUCTOR)["data"]
    return [each["stage"] for each in json.loads(data["pipeline.json"])["stages"]]


Leave = Callable[[Pipeline], None]


@pytest.fixture
def leave(helm: None, asked: Request, kube: Kube, say: Say) -> Leave:
    """The rest of a run to a conductor."""
    return lambda plan: detach(plan, asked.cluster, kube, say)


def test_a_conductor_starts_what_is_left(
    asked: Request, leave: Leave, cluster: Cluster, said: list[str]
) -> None:
    leave(todo(asked, *STAGES))
    assert said == ["conductor: starts the stages in turn"]
    assert told(cluster) == list(STAGES)
    before = uid(cluster, CONDUCTOR)
    leave(todo(asked, *STAGES))
    assert said[-1] == "conductor: there already"
    assert uid(cluster, CONDUCTOR) == before


def test_a_conductor_at_work_keeps_its_stages(
    asked: Request, leave: Leave, cluster: Cluster
) -> None:
    leave(todo(asked, "prep", "train"))
    leave(todo(asked, "evaluate"))
    assert told(cluster) == ["prep", "train", "evaluate"]


def test_a_conductor_that_has_ended_is_replaced(
    asked: Request, leave: Leave, cluster: Cluster
) -> None:
    leave(todo(asked, *STAGES))
    before = uid(cluster, CONDUCTOR)
    cluster.end_job(CONDUCTOR, "Failed", "PodFailurePolicy", "exit code 66")
    leave(todo(asked, "evaluate"))
    assert uid(cluster, CONDUCTOR) != before
    assert told(cluster) == ["evaluate"]


def test_a_conductor_s_name_that_is_taken(asked: Request, leave: Leave, cluster: Cluster) -> None:
    cluster.objects.create(JOBS, NAMESPACE, {"metadata": {"name": CONDUCTOR}})
    with pytest.raises(Foreign, match="taken by something else"):
        leave(todo(asked, *STAGES))


def test_a_conductor_that_cannot_be_installed(
    api: KubeServer, asked: Request, leave: Leave
) -> None:
    message = f'secrets "sh.helm.release.v1.{CONDUCTOR}.v1" already exists'
    api.fail("POST .*/secrets", 409, message, times=100)
    with pytest.raises(ServiceUnavailable, match="could not be installed after 5 attempts"):
        leave(todo(asked, *STAGES))
