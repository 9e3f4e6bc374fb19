"""The whole log of a stage: from the cluster, from the store, and from both."""

from kube_cluster import Cluster
from kube_objects import PODS
from kube_server import KubeServer
from launching import NAMESPACE, make_job, request, write_log

from thinktune.launch.cluster.kube import Kube
from thinktune.launch.status.observed import observe
from thinktune.launch.status.stored_logs import stored_lines
from thinktune.store import Store

LATER = "2026-11-22T11:00:00+00:00"


def lines(kube: Kube, store: Store) -> list[str]:
    return list(stored_lines(observe("r", "prep", kube, store), kube, store))


def test_pods_that_are_gone_come_first_and_in_order(
    cluster: Cluster, kube: Kube, store: Store
) -> None:
    make_job(cluster, request().run, "prep")
    write_log(store, "r", "prep", "b", "the first pod", ended="2026-11-22T09:00:00+00:00")
    write_log(store, "r", "prep", "a", "the second pod", ended=LATER)
    alive = cluster.pod_of("r-prep", "Running")
    cluster.say(alive, "the third pod")
    assert lines(kube, store) == ["the first pod", "the second pod", "the third pod"]


def test_a_pod_that_is_there_is_not_read_twice(cluster: Cluster, kube: Kube, store: Store) -> None:
    """Its log is in the store already, up to some line."""
    make_job(cluster, request().run, "prep")
    pod = cluster.pod_of("r-prep", "Running")
    cluster.say(pod, "one", "two")
    write_log(store, "r", "prep", pod, "one")
    assert lines(kube, store) == ["one", "two"]


def test_after_the_job_is_gone_the_store_has_it_all(kube: Kube, store: Store) -> None:
    write_log(store, "r", "prep", "a", "one", "two")
    assert lines(kube, store) == ["one", "two"]


def test_a_pod_that_goes_while_its_log_is_asked_for(
    cluster: Cluster, kube: Kube, store: Store
) -> None:
    make_job(cluster, request().run, "prep")
    pod = cluster.pod_of("r-prep", "Running")
    seen = observe("r", "prep", kube, store)
    write_log(store, "r", "prep", pod, "from the store")
    cluster.objects.delete(PODS, NAMESPACE, pod)
    assert list(stored_lines(seen, kube, store)) == ["from the store"]


def test_a_log_whose_pod_left_no_word_of_its_end(kube: Kube, store: Store) -> None:
    """Killed between the two: the log is there all the same."""
    write_log(store, "r", "prep", "a", "one")
    for info in list(store.list("runs/r/prep/logs")):
        if info.key.endswith(".json"):
            store.delete_prefix(info.key)
    assert lines(kube, store) == ["one"]


def test_a_pod_that_has_not_started_and_one_that_said_nothing(
    api: KubeServer, cluster: Cluster, kube: Kube, store: Store
) -> None:
    make_job(cluster, request().run, "prep")
    cluster.pod_of("r-prep")
    assert lines(kube, store) == []
    assert any(asked.endswith("/log") for asked in api.requests)
