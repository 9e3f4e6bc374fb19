"""Another run behind a server's name: what is refused, what is waited for, and two at a time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_objects import CONFIG_MAPS, PODS
from kube_server import KubeServer
from launching import NAMESPACE, Meanwhile
from serving_world import (
    RELEASE,
    SERVER,
    add_replicas,
    asked,
    commit_run,
    desired,
    replicas_follow,
    say_state,
    train_again,
)

from thinktune.launch.cluster.charts import values_text
from thinktune.launch.cluster.install import install
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving import promote as module
from thinktune.launch.serving import serve
from thinktune.launch.serving.planned import Before, plan_server
from thinktune.launch.serving.promote import REVISION
from thinktune.launch.serving.sizing import ServeWishes
from thinktune.schema.errors import InputMissing, ServiceUnavailable, SpecInvalid
from thinktune.store import Store

pytestmark = pytest.mark.usefixtures("helm")
CONFIG_MAP = f"PATCH /api/v1/namespaces/{NAMESPACE}/configmaps/{RELEASE}-adapters"
Promote = Callable[..., Any]


@pytest.fixture(autouse=True)
def hurry_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For replicas that do not follow at all."""
    monkeypatch.setattr(module, "FOLLOWED_S", 0.1)


@pytest.fixture
def pods(kube: Kube, cluster: Cluster, store: Store, say: Callable[[str], None]) -> list[str]:
    """Two replicas of a server of run one; runs two and three are there too."""
    for run in ("one", "two", "three"):
        commit_run(store, run)
    serve.serve(asked("one", replicas=2), kube, store, say)
    names = add_replicas(cluster, 2)
    replicas_follow(cluster, store, names)()
    return names


@pytest.fixture
def promote(kube: Kube, store: Store, say: Callable[[str], None]) -> Promote:
    return lambda run, **more: module.promote(run, SERVER, kube, store, say, **more)


@pytest.fixture
def followed(api: KubeServer, cluster: Cluster, store: Store, pods: list[str]) -> None:
    """Replicas follow as soon as they are told to look."""
    follow = replicas_follow(cluster, store, pods)
    for pod in pods * 3:
        api.when(f"PATCH /api/v1/namespaces/{NAMESPACE}/pods/{pod}", follow)


@pytest.mark.usefixtures("followed")
def test_a_promotion_waits_until_every_replica_serves_it(
    promote: Promote, cluster: Cluster, pods: list[str], said: list[str]
) -> None:
    after = promote("two")
    assert [each.run for each in after.runs] == ["two", "one"]
    assert desired(cluster) == after
    assert f"{SERVER}: one → two (revision 2)" in said
    assert said[-1] == f"{SERVER}: all 2 replicas serve two"
    for pod in pods:  # whose kubelets then look at the ConfigMap at once
        annotations = cluster.objects.get(PODS, NAMESPACE, pod)["metadata"]["annotations"]
        assert annotations[REVISION] == "2"


@pytest.mark.usefixtures("followed")
def test_undo_goes_back_and_forth(promote: Promote, cluster: Cluster) -> None:
    promote("two")
    assert promote(None).first.run == "one"
    again = promote(None)
    assert (again.first.run, again.revision) == ("two", 4)


def test_there_is_nothing_to_go_back_to(promote: Promote, pods: list[str]) -> None:
    with pytest.raises(SpecInvalid, match="no run was promoted to it yet"):
        promote(None)


@pytest.mark.usefixtures("followed")
def test_the_same_run_again_only_waits(promote: Promote, cluster: Cluster) -> None:
    promote("two")
    assert promote("two").revision == desired(cluster).revision == 2


@pytest.mark.usefixtures("pods", "impatient")
def test_what_the_gate_held_back_is_refused(
    promote: Promote, cluster: Cluster, store: Store
) -> None:
    commit_run(store, "bad", promoted=False)
    with pytest.raises(SpecInvalid, match="did not promote it"):
        promote("bad")
    assert desired(cluster).revision == 1
    with pytest.raises(ServiceUnavailable, match="not every replica has followed"):
        promote("bad", unpromoted=True)
    assert desired(cluster).first.unpromoted


@pytest.mark.usefixtures("followed")
def test_going_back_asks_the_gate_nothing_new(
    promote: Promote, cluster: Cluster, store: Store
) -> None:
    commit_run(store, "bad", promoted=False)
    promote("bad", unpromoted=True)
    promote("two")
    assert promote(None).first.run == "bad"  # whoever served it before said so then


@pytest.mark.usefixtures("followed")
def test_another_adapter_of_a_run_is_asked_of_the_gate_anew(
    promote: Promote, cluster: Cluster, store: Store
) -> None:
    commit_run(store, "bad", promoted=False)
    promote("bad", unpromoted=True)
    promote("two")
    train_again(store, "bad", promoted=False)
    with pytest.raises(SpecInvalid, match="did not promote it"):
        promote("bad")
    assert desired(cluster).first.run == "two"


@pytest.mark.usefixtures("pods")
def test_a_run_of_another_base_model_is_refused(
    promote: Promote, cluster: Cluster, store: Store
) -> None:
    commit_run(store, "other", base_sha256="e" * 64)
    with pytest.raises(SpecInvalid, match="content of the base model"):
        promote("other")
    assert desired(cluster).revision == 1


def test_a_run_that_the_engine_has_no_place_for_is_refused(
    kube: Kube, cluster: Cluster, store: Store, say: Any, promote: Promote
) -> None:
    commit_run(store, "one", model="r1-distill-qwen-32b")
    commit_run(store, "wide", model="r1-distill-qwen-32b", rank=64)
    serve.serve(asked("one", hardware="a100-40x4", force=True), kube, store, say)
    with pytest.raises(SpecInvalid, match="its rank is 64, and shop has room for 16") as refused:
        promote("wide")
    assert "thinktune serve wide --name shop" in refused.value.remedy


def test_vllm_on_cpus_has_room_for_the_widest_adapter_of_its_start(
    kube: Kube, cluster: Cluster, store: Store, say: Any, promote: Promote
) -> None:
    for run, rank in (("one", 8), ("two", 16), ("wide", 64)):
        commit_run(store, run, rank=rank)
    request = asked("one", "two")
    task = request.task.model_copy(update={"engine": "vllm"})
    serve.serve(replace(request, task=task), kube, store, say)
    with pytest.raises(SpecInvalid, match="its rank is 64, and shop has room for 16"):
        promote("wide")
    assert desired(cluster).first.run == "one"


def test_an_adapter_that_vllm_would_apply_in_part_is_refused(
    kube: Kube, cluster: Cluster, store: Store, say: Any, promote: Promote
) -> None:
    commit_run(store, "one", model="r1-distill-qwen-32b")
    commit_run(store, "head", model="r1-distill-qwen-32b", besides=("lm_head",))
    with pytest.raises(SpecInvalid, match="lm_head, for which vLLM has no place") as refused:
        serve.serve(asked("head", hardware="a100-40x4", force=True), kube, store, say)
    assert "--engine transformers" in refused.value.remedy
    serve.serve(asked("one", hardware="a100-40x4", force=True), kube, store, say)
    with pytest.raises(SpecInvalid, match="lm_head, for which vLLM has no place"):
        promote("head")
    assert desired(cluster).first.run == "one"


def test_several_nodes_are_served_anew(
    kube: Kube, store: Store, say: Any, promote: Promote
) -> None:
    for run in ("one", "two"):
        commit_run(store, run, model="r1-distill-qwen-32b")
    wishes = ServeWishes(nodes=2)
    request = asked("one", hardware="h100x8", force=True, wishes=wishes)
    serve.serve(request, kube, store, say)
    with pytest.raises(SpecInvalid, match="takes 2 nodes, which load adapters at their start"):
        promote("two")


def test_nobody_promotes_to_what_is_not_there(promote: Promote, cluster: Cluster) -> None:
    with pytest.raises(InputMissing, match="there is no server 'shop', only: none"):
        promote("two")


@pytest.mark.usefixtures("pods", "impatient")
def test_of_two_promotions_at_a_time_one_is_told(
    promote: Promote, api: KubeServer, cluster: Cluster, store: Store
) -> None:
    """The second changes the ConfigMap between the first one's look and its change."""
    others: list[Meanwhile] = []

    def other_first() -> None:
        others.append(Meanwhile(lambda: promote("three")))
        while desired(cluster).first.run != "three":
            pass

    api.when(CONFIG_MAP, other_first)
    with pytest.raises(ServiceUnavailable, match="somebody else has changed it meanwhile"):
        promote("two")
    now = desired(cluster)
    assert [each.run for each in now.runs] == ["three", "one"]  # neither is lost
    with pytest.raises(ServiceUnavailable, match="not every replica"):
        others[0].result()


@pytest.mark.usefixtures("pods")
def test_another_change_of_the_config_map_is_no_other_promotion(
    promote: Promote, api: KubeServer, cluster: Cluster, store: Store, pods: list[str]
) -> None:
    def relabel() -> None:
        name = f"{RELEASE}-adapters"
        cluster.objects.patch(CONFIG_MAPS, NAMESPACE, name, {"metadata": {"labels": {"a": "b"}}})

    api.when(CONFIG_MAP, relabel)
    follow = replicas_follow(cluster, store, pods)
    for pod in pods:
        api.when(f"PATCH /api/v1/namespaces/{NAMESPACE}/pods/{pod}", follow)
    assert promote("two").first.run == "two"


def test_a_promotion_over_ours_is_told(
    promote: Promote, api: KubeServer, cluster: Cluster, store: Store, pods: list[str]
) -> None:
    def over() -> None:
        promoted = desired(cluster).promoted(desired(cluster).runs[-1], 2)
        name = f"{RELEASE}-adapters"
        patch = {"data": {"served.json": promoted.canonical()}}
        cluster.objects.patch(CONFIG_MAPS, NAMESPACE, name, patch)

    api.when(f"PATCH /api/v1/namespaces/{NAMESPACE}/pods/{pods[0]}", over)
    with pytest.raises(ServiceUnavailable, match="meanwhile one was promoted"):
        promote("two")


def test_replicas_that_cannot_serve_it_say_why(
    promote: Promote, api: KubeServer, cluster: Cluster, store: Store, pods: list[str]
) -> None:
    def refuse() -> None:
        for pod in pods:
            say_state(store, pod, 1, "one", fault="run two: its files are damaged", tried=2)

    api.when(f"PATCH /api/v1/namespaces/{NAMESPACE}/pods/{pods[1]}", refuse)
    with pytest.raises(ServiceUnavailable, match="2 of 2 replicas cannot serve it") as refused:
        promote("two")
    assert "its files are damaged" in refused.value.fault
    assert "--undo" in refused.value.remedy


def test_going_back_after_a_failure_does_not_see_the_old_fault(
    promote: Promote, api: KubeServer, cluster: Cluster, store: Store, pods: list[str]
) -> None:
    """Replicas say it until they look again, after as long as 15 seconds."""

    def refuse() -> None:
        for pod in pods:
            say_state(store, pod, 1, "one", fault="run two: its files are damaged", tried=2)

    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    api.when(f"PATCH {path}/{pods[1]}", refuse)
    with pytest.raises(ServiceUnavailable, match="2 of 2 replicas cannot serve it"):
        promote("two")
    api.when(f"GET {path}", replicas_follow(cluster, store, pods), after=2)
    assert promote(None).first.run == "one"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("state", [(7, "two"), (2, "one"), (2,)])
def test_what_an_earlier_pod_said_under_its_name_counts_for_nothing(
    promote: Promote, store: Store, pods: list[str], state: tuple[Any, ...]
) -> None:
    """As of a StatefulSet that was installed again, whose pods have the names of those before."""
    for pod in pods:
        say_state(store, pod, *state)
    with pytest.raises(ServiceUnavailable, match="not every replica has followed"):
        promote("two")


@pytest.mark.usefixtures("impatient")
def test_a_replica_that_is_not_ready_serves_nobody(
    promote: Promote, cluster: Cluster, store: Store, pods: list[str]
) -> None:
    condition = {"type": "Ready", "status": "False"}
    cluster.objects.patch(PODS, NAMESPACE, pods[0], {"status": {"conditions": [condition]}})
    for pod in pods:
        say_state(store, pod, 2, "two", "one")
    with pytest.raises(ServiceUnavailable, match=rf"not every replica .*\({pods[0]}\)"):
        promote("two")


def test_without_the_right_to_wake_kubelets_it_takes_longer(
    promote: Promote, api: KubeServer, cluster: Cluster, store: Store, pods: list[str]
) -> None:
    api.denied.add(("patch", "pods"))
    follow = replicas_follow(cluster, store, pods)
    api.when(f"PATCH /api/v1/namespaces/{NAMESPACE}/pods/{pods[0]}", lambda: None)
    api.when(f"GET /api/v1/namespaces/{NAMESPACE}/pods", follow, after=2)
    assert promote("two").first.run == "two"


def test_a_server_that_was_installed_under_another_name(
    kube: Kube, cluster: Cluster, store: Store, promote: Promote, api: KubeServer
) -> None:
    for run in ("one", "two"):
        commit_run(store, run)
    planned = plan_server(asked("one"), store, Before())
    text = values_text(planned.values)
    assert install("mine", "serve", kube, text) is None
    (pod,) = add_replicas(cluster, 1, release="mine")
    follow = replicas_follow(cluster, store, [pod], release="mine")
    api.when(f"PATCH /api/v1/namespaces/{NAMESPACE}/pods/{pod}", follow)
    assert promote("two").first.run == "two"
    assert desired(cluster, "mine").first.run == "two"


@pytest.mark.usefixtures("followed")
def test_those_before_stay_as_far_as_there_are_places(promote: Promote) -> None:
    promote("two")
    after = promote("three")
    assert [each.run for each in after.runs] == ["three", "two"]
    assert after.former is not None
    assert after.former.run == "two"


@pytest.mark.usefixtures("followed")
def test_an_adapter_that_is_another_one_now_is_not_gone_back_to(
    promote: Promote, store: Store
) -> None:
    promote("two")
    train_again(store, "one")
    with pytest.raises(SpecInvalid, match="is another one than it served before"):
        promote(None)
