"""A server on a cluster: what is refused, what is installed, what a second command changes."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_objects import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    LEADER_WORKER_SETS,
    POLICIES,
    SECRETS,
    STATEFUL_SETS,
)
from kube_server import KubeServer
from launching import NAMESPACE
from serving_world import (
    RELEASE,
    SERVER,
    add_replicas,
    asked,
    commit_run,
    desired,
    make_ready,
    say_state,
    train_again,
)

from thinktune.launch.cluster import install as install_module
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving import follow as follow_module
from thinktune.launch.serving import serve as module
from thinktune.launch.serving.explain import explain
from thinktune.launch.serving.follow import follow
from thinktune.launch.serving.live import is_entrance, known_server, live_server, task_of
from thinktune.launch.serving.planned import ServerRequest
from thinktune.launch.serving.remove import remove
from thinktune.launch.serving.sizing import ServeWishes
from thinktune.schema.errors import InputMissing, SpecInvalid, StageFailed
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.serve import ServeLimits, ServeTask, ServeTimes
from thinktune.store import Store

pytestmark = pytest.mark.usefixtures("helm")
Serve = Callable[[ServerRequest], Any]


@pytest.fixture
def serve(kube: Kube, store: Store, say: Callable[[str], None]) -> Serve:
    return lambda request: module.serve(request, kube, store, say)


@pytest.fixture(autouse=True)
def hurry_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "POLL_S", 0.01)


def test_a_server_is_installed_with_a_key_that_nobody_sees(
    serve: Serve, cluster: Cluster, store: Store, said: list[str]
) -> None:
    digest = commit_run(store, "one")
    serve(asked("one"))
    assert cluster.objects.get(DEPLOYMENTS, NAMESPACE, RELEASE)["spec"]["replicas"] == 1
    now = desired(cluster)
    assert (now.revision, now.first.run, now.first.train_sha256) == (1, "one", digest)
    secret = cluster.objects.get(SECRETS, NAMESPACE, f"{RELEASE}-key")
    key = base64.b64decode(secret["data"]["key"]).decode()
    assert len(key) >= 40
    everything = json.dumps([cluster.objects.list(kind) for kind in (CONFIG_MAPS, DEPLOYMENTS)])
    assert key not in everything + "".join(said)
    assert "one: promoted by its evaluation" in said
    assert f"{SERVER}: installed" in said


@pytest.mark.parametrize(
    ("promoted", "words"),
    [(False, "did not promote it: accuracy is 0.1"), (None, "it has not been evaluated")],
)
def test_what_the_gate_held_back_is_refused(
    serve: Serve, cluster: Cluster, store: Store, promoted: bool | None, words: str
) -> None:
    commit_run(store, "one", promoted=promoted)
    with pytest.raises(SpecInvalid, match=words) as refused:
        serve(asked("one"))
    assert "--unpromoted" in refused.value.remedy
    assert not cluster.objects.list(DEPLOYMENTS)
    serve(asked("one", unpromoted=True))
    assert desired(cluster).first.unpromoted


def test_an_evaluation_of_another_adapter_counts_for_nothing(serve: Serve, store: Store) -> None:
    commit_run(store, "one")
    store.delete_prefix("runs/one/train")
    evaluated = {info.key for info in store.list("runs/one/evaluate")}
    commit_run(store, "one", promoted=None, rank=8)
    assert evaluated <= {info.key for info in store.list("runs/one/evaluate")}
    with pytest.raises(SpecInvalid, match="its evaluation is of another adapter"):
        serve(asked("one"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_sha256": "e" * 64}, "its content of the base model is"),
        ({"base": "16bit"}, "its precision is 16bit"),
        ({"model": "r1-distill-qwen-1.5b"}, "its base model is deepseek-ai/"),
    ],
)
def test_runs_of_different_bases_do_not_go_together(
    serve: Serve, store: Store, changes: dict[str, Any], words: str
) -> None:
    commit_run(store, "one")
    commit_run(store, "two", **changes)
    with pytest.raises(SpecInvalid, match=words):
        serve(asked("one", "two"))


def test_what_is_missing_is_said_before_anything_is_made(
    serve: Serve, cluster: Cluster, store: Store
) -> None:
    with pytest.raises(InputMissing, match="stage prep of run one has committed nothing"):
        serve(asked("one"))
    commit_run(store, "one")
    with pytest.raises(InputMissing, match="no secret store-keys"):
        serve(asked("one", identity={"secret": "store-keys"}))
    with pytest.raises(InputMissing, match="no secret clients with an entry 'key'"):
        serve(asked("one", serve={"key_secret": "clients"}))
    cluster.add_secret("clients", "other")
    with pytest.raises(InputMissing, match="no secret clients with an entry 'key'"):
        serve(asked("one", serve={"key_secret": "clients"}))
    assert not cluster.objects.list(DEPLOYMENTS)


@pytest.mark.parametrize("name", ["base", "7b"])
def test_a_servers_name_is_nobody_elses(serve: Serve, store: Store, name: str) -> None:
    commit_run(store, "one")
    with pytest.raises(SpecInvalid, match="cannot be a server's name"):
        serve(asked("one", name=name))


def test_a_run_called_base(serve: Serve, store: Store) -> None:
    commit_run(store, "base")
    with pytest.raises(SpecInvalid, match="cannot be told from its base model"):
        serve(asked("base"))


def test_a_name_that_a_run_or_another_release_has_is_refused(
    serve: Serve, store: Store, kube: Kube, cluster: Cluster
) -> None:
    commit_run(store, "one")
    commit_run(store, "two")
    with pytest.raises(SpecInvalid, match="there is a run 'two'"):
        serve(asked("one", name="two"))
    cluster.objects.create(POLICIES, NAMESPACE, {"metadata": {"name": RELEASE}})
    with pytest.raises(SpecInvalid, match=r"cannot be imported|invalid ownership"):
        serve(asked("one"))


def test_a_server_that_no_node_can_take_is_refused(
    serve: Serve, cluster: Cluster, store: Store
) -> None:
    commit_run(store, "one")
    with pytest.raises(SpecInvalid, match="it asks for 1 × 4") as refused:
        serve(asked("one", hardware="a100-40x4"))
    assert "--force" in refused.value.remedy
    serve(asked("one", hardware="a100-40x4", force=True))
    assert cluster.objects.list(DEPLOYMENTS)


def test_the_smallest_hardware_that_is_there_is_chosen(
    serve: Serve, cluster: Cluster, store: Store
) -> None:
    commit_run(store, "one")
    planned = serve(asked("one", hardware=None))
    assert planned.facts.size.hardware == "cpu"  # no node has a GPU
    cluster.add_node("gpus", gpus=1, product="Tesla-T4")
    planned = serve(asked("one", hardware=None, name="other"))
    assert planned.facts.size.hardware == "t4x1"
    pod = cluster.objects.get(DEPLOYMENTS, NAMESPACE, "other-serve")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "Tesla-T4"}


def test_what_cannot_fit_is_refused_with_what_would(serve: Serve, store: Store) -> None:
    commit_run(store, "one", model="r1-distill-qwen-32b", base="16bit")
    with pytest.raises(SpecInvalid, match="GiB") as refused:
        serve(asked("one", hardware="l4x1"))
    assert "would fit: --" in refused.value.remedy
    # Nothing that this command does not take, or that the run's artifacts do not allow.
    assert "awq" not in refused.value.remedy
    assert "--kv-dtype" not in refused.value.remedy
    assert "t4" not in refused.value.remedy  # where vLLM is not taken


@pytest.mark.parametrize(
    ("model", "precision", "others"),
    [
        ("r1-distill-qwen-32b", "awq", "fp8 or nf4 or 16bit"),
        ("deepseek-r1", "16bit", "fp8"),
        ("deepseek-r1", "nf4", "fp8"),
    ],
)
def test_a_precision_without_a_checkpoint_is_refused(
    serve: Serve, store: Store, model: str, precision: Any, others: str
) -> None:
    commit_run(store, "one", model=model)
    wishes = ServeWishes(precision=precision)
    with pytest.raises(SpecInvalid, match="needs a checkpoint made beforehand") as refused:
        serve(asked("one", hardware="h100x8", force=True, wishes=wishes))
    assert f"set --precision to {others}" in refused.value.remedy


def test_gpus_older_than_vllm_takes_serve_by_transformers_on_one(
    serve: Serve, cluster: Cluster, store: Store, kube: Kube
) -> None:
    cluster.add_node("gpus", gpus=4, product="Tesla-T4")
    commit_run(store, "one", model="r1-distill-qwen-1.5b")
    with pytest.raises(SpecInvalid, match="it has 4 GPUs, and transformers") as refused:
        serve(asked("one", hardware="t4x4"))
    assert "Ampere or newer" in refused.value.remedy
    planned = serve(asked("one", hardware=None))
    assert (planned.facts.size.hardware, planned.facts.size.gpus) == ("t4x1", 1)
    task = task_of(RELEASE, kube)
    assert task is not None
    assert (task.execution, task.window) == (None, 8192)
    commit_run(store, "large", model="r1-distill-qwen-14b", base="16bit")
    with pytest.raises(SpecInvalid, match="does not fit one T4 with transformers"):
        serve(asked("large", hardware="t4x1"))
    for wishes, words in (
        (ServeWishes(nodes=2), "serves on one node"),
        (ServeWishes(precision="fp8"), "precision of the training, nf4"),
        (ServeWishes(window=10**7), "the model supports"),
    ):
        with pytest.raises(SpecInvalid, match=words):
            serve(asked("one", hardware="t4x1", name="other", wishes=wishes))


def test_vllm_on_old_gpus_is_planned_where_it_is_asked_for(serve: Serve, store: Store) -> None:
    commit_run(store, "one", model="r1-distill-qwen-1.5b")
    request = asked("one", hardware="t4x4", force=True)
    task = request.task.model_copy(update={"engine": "vllm"})
    execution = serve(replace(request, task=task)).facts.size.execution
    assert execution is not None
    assert execution.data_parallel * execution.tensor_parallel == 4


def test_the_same_again_changes_nothing(serve: Serve, store: Store, said: list[str]) -> None:
    commit_run(store, "one")
    serve(asked("one"))
    said.clear()
    serve(asked("one"))
    assert said[-1] == f"{SERVER}: there already, just so"


def test_more_replicas_and_other_runs_without_naming_all_again(
    serve: Serve, cluster: Cluster, store: Store, said: list[str]
) -> None:
    for run in ("one", "two"):
        commit_run(store, run)
    serve(asked("one"))
    serve(asked(replicas=3))
    workload = cluster.objects.get(DEPLOYMENTS, NAMESPACE, RELEASE)
    assert workload["spec"]["replicas"] == 3
    assert "changed (replicas" in said[-1]
    assert [each.run for each in desired(cluster).runs] == ["one"]
    template = workload["spec"]["template"]
    serve(asked("two", "one"))
    now = desired(cluster)
    assert [each.run for each in now.runs] == ["two", "one"]
    assert (now.revision, now.former and now.former.run) == (2, "one")
    workload = cluster.objects.get(DEPLOYMENTS, NAMESPACE, RELEASE)
    assert workload["spec"]["template"] == template  # pods follow; none is made anew
    assert workload["spec"]["replicas"] == 3


@pytest.mark.parametrize(
    ("labels", "entrance"),
    [
        ({}, True),
        ({"apps.kubernetes.io/pod-index": "1"}, False),
        ({"leaderworkerset.sigs.k8s.io/worker-index": "1"}, False),
        # The first node of a second group.
        (
            {
                "leaderworkerset.sigs.k8s.io/worker-index": "0",
                "apps.kubernetes.io/pod-index": "1",
            },
            True,
        ),
    ],
)
def test_clients_reach_the_first_node_of_each_group(labels: dict[str, str], entrance: bool) -> None:
    assert is_entrance({"metadata": {"labels": labels}}) is entrance


def test_what_is_not_asked_for_stays_as_it_was(
    serve: Serve, cluster: Cluster, store: Store, kube: Kube, said: list[str]
) -> None:
    commit_run(store, "one")
    limits = ServeLimits(requests=9)
    first = asked("one", wishes=ServeWishes(window=1024, slots=3))
    serve(replace(first, task=first.task.model_copy(update={"limits": limits})))
    again = asked(hardware=None, replicas=2)
    slower = again.task.model_copy(update={"times": ServeTimes(grace_s=30)})
    cluster.add_node("gpus", gpus=1, product="Tesla-T4")  # which would be chosen anew
    serve(replace(again, task=slower))
    task = task_of(RELEASE, kube)
    assert task is not None
    assert (task.window, task.adapters, task.limits.requests) == (1024, 3, 9)
    assert task.times.grace_s == 30
    workload = cluster.objects.get(DEPLOYMENTS, NAMESPACE, RELEASE)
    assert workload["metadata"]["labels"]["thinktune.dev/hardware"] == "cpu"
    assert workload["spec"]["replicas"] == 2


def test_an_engine_on_cpus_may_read_a_long_prompt(serve: Serve, store: Store, kube: Kube) -> None:
    commit_run(store, "one")

    def times() -> ServeTimes:
        task = task_of(RELEASE, kube)
        assert task is not None
        return task.times

    serve(asked("one"))
    assert (times().unready_s, times().hung_s) == (30, 900)
    serve(asked("one", hardware="l4x1", force=True))  # whose times are not those of CPUs
    assert (times().unready_s, times().hung_s) == (20, 120)
    request = asked("one")
    set_there = request.task.model_copy(update={"times": ServeTimes(hung_s=120)})
    serve(replace(request, task=set_there))
    serve(asked(replicas=2))
    assert (times().unready_s, times().hung_s) == (30, 120)


def test_there_is_a_place_for_the_widest_adapter(serve: Serve, store: Store, kube: Kube) -> None:
    for run, rank in (("one", 8), ("two", 12)):
        commit_run(store, run, rank=rank)
    serve(asked("one", "two", hardware="l4x1", force=True))
    task = task_of(RELEASE, kube)
    assert task is not None
    assert task.execution is not None
    assert (task.execution.max_lora_rank, task.execution.max_loras) == (16, 2)
    commit_run(store, "wide", rank=513)
    with pytest.raises(SpecInvalid, match="run wide: rank 513, and vLLM takes 512 at most"):
        serve(asked("wide", hardware="l4x1", force=True, name="other"))


def test_another_precision_than_was_judged_is_said(
    serve: Serve, store: Store, said: list[str]
) -> None:
    commit_run(store, "one")
    wishes = ServeWishes(precision="16bit")
    serve(asked("one", hardware="l4x1", force=True, wishes=wishes))
    assert "note: its evaluation judged it on nf4, and this is 16bit" in said


@pytest.mark.parametrize("promoted", [True, False])
def test_what_is_kept_is_no_other_adapter(
    serve: Serve, cluster: Cluster, store: Store, promoted: bool
) -> None:
    """Neither the gate's verdict nor the one adapter stands for the other, and a new pod could
    not serve what the store no longer has."""
    commit_run(store, "one")
    serve(asked("one"))
    before = desired(cluster)
    train_again(store, "one", promoted=promoted)
    words = "it was trained again" if promoted else "did not promote it"
    with pytest.raises(SpecInvalid, match=words) as refused:
        serve(asked(replicas=3))
    assert not promoted or "thinktune serve one --name shop" in refused.value.remedy
    assert desired(cluster) == before
    assert cluster.objects.get(DEPLOYMENTS, NAMESPACE, RELEASE)["spec"]["replicas"] == 1


def test_what_was_served_unpromoted_stays_so(serve: Serve, cluster: Cluster, store: Store) -> None:
    commit_run(store, "one", promoted=False)
    serve(asked("one", unpromoted=True))
    before = desired(cluster)
    serve(asked(replicas=3))
    assert desired(cluster) == before
    assert before.first.unpromoted


def test_nothing_named_and_nothing_there(serve: Serve) -> None:
    with pytest.raises(SpecInvalid, match="there is no server 'shop' yet, and no run is named"):
        serve(asked())


TWO = {"hardware": "h100x8", "wishes": ServeWishes(nodes=2), "force": True}


def test_several_nodes_without_leader_worker_sets(
    serve: Serve, cluster: Cluster, store: Store
) -> None:
    commit_run(store, "one", model="r1-distill-qwen-32b")
    with pytest.raises(SpecInvalid, match="need LeaderWorkerSet, which is not there"):
        serve(asked("one", replicas=2, **TWO))
    serve(asked("one", **TWO))
    found = cluster.objects.get(STATEFUL_SETS, NAMESPACE, RELEASE)
    assert found["spec"]["replicas"] == 2
    task = cluster.objects.get(CONFIG_MAPS, NAMESPACE, RELEASE)["data"]["task.json"]
    told = ServeTask.parse(json.loads(task), "task")
    assert told.execution is not None
    assert told.execution.nodes == 2
    with pytest.raises(SpecInvalid, match="runs as a StatefulSet, and is to run as a deployment"):
        serve(asked("one", hardware="h100x8", force=True, wishes=ServeWishes(nodes=1)))


def test_several_nodes_with_leader_worker_sets(
    serve: Serve, cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kube_discovery
    import kube_server

    known = (*kube_discovery.RESOURCES, LEADER_WORKER_SETS)
    monkeypatch.setattr(kube_discovery, "RESOURCES", known)
    key = (LEADER_WORKER_SETS.group, LEADER_WORKER_SETS.plural)
    monkeypatch.setitem(kube_server.BY_PATH, key, LEADER_WORKER_SETS)
    commit_run(store, "one", model="r1-distill-qwen-32b")
    serve(asked("one", replicas=2, **TWO))
    found = cluster.objects.get(LEADER_WORKER_SETS, NAMESPACE, RELEASE)
    assert found["spec"]["replicas"] == 2
    assert found["spec"]["leaderWorkerTemplate"]["size"] == 2


def test_it_is_followed_until_all_replicas_are_ready(
    serve: Serve, cluster: Cluster, kube: Kube, store: Store, said: list[str], say: Any
) -> None:
    commit_run(store, "one")
    serve(asked("one", replicas=2))
    with pytest.raises(StageFailed, match="is not ready after") as late:
        follow(SERVER, 0.0, kube, store, say)
    assert late.value.code
    pods = add_replicas(cluster, 2, ready=False)
    assert "is loading its model" in explain(known_server(SERVER, kube, store), kube).cause
    for pod in pods:
        make_ready(cluster, pod)
        say_state(store, pod, 1, "one")
    server = follow(SERVER, 5.0, kube, store, say)
    assert (server.state, server.ready, server.wanted) == ("ready", 2, 2)
    said_of_it = explain(server, kube)
    assert said_of_it.code == 0
    assert "2 of 2 replicas answer" in said_of_it.paragraph()


def test_what_never_starts_is_not_waited_for(
    serve: Serve, cluster: Cluster, kube: Kube, store: Store, say: Any
) -> None:
    commit_run(store, "one")
    serve(asked("one"))
    (pod,) = add_replicas(cluster, 1, ready=False)
    cluster.hold(pod, "ImagePullBackOff", "no such image")
    with pytest.raises(StageFailed, match="cannot be pulled") as failed:
        follow(SERVER, 60.0, kube, store, say)
    assert failed.value.code == ExitCode.INPUT_MISSING


def crashed(cluster: Cluster, pod: str, code: int, message: str, reason: str = "Error") -> None:
    """Its container has ended so, and is started again."""
    from kube_objects import PODS

    ended = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    status = {"name": "task", "image": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    statuses = [status | {"lastState": ended, "restartCount": 2}]
    patch = {"status": {"containerStatuses": statuses}}
    cluster.objects.patch(PODS, NAMESPACE, pod, patch)


def test_why_tells_how_a_pod_ended(
    serve: Serve, cluster: Cluster, kube: Kube, store: Store, say: Any
) -> None:
    commit_run(store, "one")
    serve(asked("one"))
    (pod,) = add_replicas(cluster, 1, ready=False)
    crashed(cluster, pod, 66, "error: run one: its adapter is damaged; promote it again")
    found = explain(known_server(SERVER, kube, store), kube)
    assert "its adapter is damaged" in found.paragraph()
    assert "Promote it again." in found.paragraph()
    assert (found.code, found.hopeless) == (66, True)
    crashed(cluster, pod, 137, "", "OOMKilled")
    assert "more memory than its pod has" in explain(known_server(SERVER, kube, store), kube).cause


def test_why_tells_of_a_replica_that_does_not_follow(
    serve: Serve, cluster: Cluster, kube: Kube, store: Store
) -> None:
    commit_run(store, "one")
    serve(asked("one"))
    (pod,) = add_replicas(cluster, 1)
    say_state(store, pod, 1, "one", fault="run two: its files are damaged", tried=1)
    found = explain(known_server(SERVER, kube, store), kube)
    assert "cannot follow a change" in found.cause
    assert "its files are damaged" in found.paragraph()
    assert "--undo" in found.remedy


def test_it_is_ended_with_all_that_it_had(
    serve: Serve, cluster: Cluster, kube: Kube, store: Store, said: list[str], say: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(install_module, "POLL_S", 0.01)
    commit_run(store, "one")
    serve(asked("one"))
    (pod,) = add_replicas(cluster, 1)
    say_state(store, pod, 1, "one")
    remove(known_server(SERVER, kube, store), kube, store, say)
    assert live_server(SERVER, kube, store) is None
    kinds = (DEPLOYMENTS, CONFIG_MAPS, SECRETS, POLICIES)
    assert not [each for kind in kinds for each in cluster.objects.list(kind, NAMESPACE)]
    assert not list(store.list("servers"))
    assert list(store.list("runs/one"))  # what it served is nobody's to remove
    assert said[-1] == f"{SERVER}: removed"


def test_rights_that_we_lack(serve: Serve, api: KubeServer, store: Store, cluster: Cluster) -> None:
    commit_run(store, "one")
    api.denied = {("list", "nodes"), ("create", "secrets")}
    with pytest.raises(InputMissing, match="with the key of clients cannot be made") as refused:
        serve(asked("one"))
    assert "create secret generic shop-serve-key --from-literal=key=" in refused.value.remedy
    api.denied = {("list", "nodes")}
    serve(asked("one"))
    assert cluster.objects.list(DEPLOYMENTS)
