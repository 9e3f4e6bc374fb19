"""Logs of pods that are followed: each line once, over broken connections, to the end."""

from collections.abc import Iterator

import pytest
from kube_cluster import INDEX, Cluster
from kube_objects import PODS
from kube_server import KubeServer
from launching import NAMESPACE, make_job, request, wait_for

from thinktune.launch.cluster.kube import Kube
from thinktune.launch.status import tail as module
from thinktune.launch.status.tail import Tail


@pytest.fixture
def pod(cluster: Cluster) -> str:
    make_job(cluster, request().run, "prep")
    return cluster.pod_of("r-prep", "Running")


@pytest.fixture
def tail(kube: Kube, said: list[str]) -> Iterator[Tail]:
    opened = Tail(kube, said.append)
    yield opened
    opened.close()


def logs_asked(api: KubeServer) -> int:
    return sum(asked.endswith("/log") for asked in api.requests)


def test_lines_as_they_come(cluster: Cluster, pod: str, tail: Tail, said: list[str]) -> None:
    cluster.say(pod, "one")
    tail.follow(cluster.pods())
    wait_for(lambda: said == ["one"])
    cluster.say(pod, "two")
    wait_for(lambda: said == ["one", "two"])
    cluster.say(pod, "three")
    cluster.end(pod)
    tail.drain()
    assert said == ["one", "two", "three"]


def test_a_pod_is_followed_once_and_only_when_it_runs(
    api: KubeServer, cluster: Cluster, pod: str, tail: Tail, said: list[str]
) -> None:
    cluster.objects.delete(PODS, NAMESPACE, pod)
    waiting = cluster.pod_of("r-prep")
    tail.follow(cluster.pods())
    assert logs_asked(api) == 0
    cluster.run(waiting)
    cluster.say(waiting, "one")
    for _ in range(3):
        tail.follow(cluster.pods())
    cluster.end(waiting)
    tail.drain()
    assert said == ["one"]


@pytest.mark.parametrize("breaks", [[1], [2, 1], [1, 1, 1]])
def test_a_connection_that_breaks_loses_and_repeats_nothing(
    api: KubeServer, cluster: Cluster, pod: str, tail: Tail, said: list[str], breaks: list[int]
) -> None:
    api.log_breaks[pod] = breaks
    cluster.say(pod, "one", "two")
    cluster.say(pod, "three")
    tail.follow(cluster.pods())
    wait_for(lambda: len(said) == 3)
    cluster.say(pod, "four")
    cluster.end(pod)
    tail.drain()
    assert said == ["one", "two", "three", "four"]
    assert logs_asked(api) > len(breaks)


@pytest.mark.parametrize("status", [None, 401, 500])
def test_an_api_server_that_is_away_for_a_while(
    api: KubeServer, cluster: Cluster, pod: str, tail: Tail, said: list[str], status: int | None
) -> None:
    cluster.say(pod, "one")
    with api.away(status):
        tail.follow(cluster.pods())
        wait_for(lambda: logs_asked(api) > 1)
    cluster.end(pod)
    tail.drain()
    assert said == ["one"]


def test_a_pod_that_goes(cluster: Cluster, pod: str, tail: Tail, said: list[str]) -> None:
    cluster.say(pod, "one")
    tail.follow(cluster.pods())
    wait_for(lambda: said == ["one"])
    cluster.objects.delete(PODS, NAMESPACE, pod)
    tail.drain()
    assert not any(thread.is_alive() for thread in tail._threads.values())


def test_pods_of_several_nodes_are_told_apart(
    cluster: Cluster, pod: str, kube: Kube, tail: Tail, said: list[str]
) -> None:
    ranks = [cluster.pod_of("r-prep", "Running", index=index) for index in (0, 1)]
    for index, name in enumerate(ranks):
        cluster.say(name, f"rank {index}")
        cluster.end(name)
    tail.follow([each for each in cluster.pods() if INDEX in each["metadata"]["labels"]])
    tail.drain()
    assert sorted(said) == ["[0] rank 0", "[1] rank 1"]


def test_after_it_is_closed_it_says_nothing(
    cluster: Cluster, pod: str, tail: Tail, said: list[str]
) -> None:
    cluster.say(pod, "one")
    tail.follow(cluster.pods())
    wait_for(lambda: said == ["one"])
    tail.close()
    cluster.say(pod, "two")
    cluster.end(pod)
    tail.drain()
    assert said == ["one"]


def test_nobody_who_reads(cluster: Cluster, pod: str, kube: Kube) -> None:
    """As with `| head`: the error is raised where the command can end by it."""

    def say(text: str) -> None:
        raise BrokenPipeError

    tail = Tail(kube, say)
    cluster.say(pod, "one")
    tail.follow(cluster.pods())
    tail.drain()
    with pytest.raises(BrokenPipeError):
        tail.follow(cluster.pods())


def test_a_log_that_never_ends_is_not_waited_for(
    cluster: Cluster, pod: str, tail: Tail, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_LINES_S", 0.05)
    cluster.say(pod, "one")
    tail.follow(cluster.pods())
    wait_for(lambda: said == ["one"])
    tail.drain()
