"""Runs that can be served, servers in the cluster in memory, and replicas that follow."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kube_cluster import Cluster as FakeCluster
from kube_objects import CONFIG_MAPS, DEPLOYMENTS, PODS
from launching import CATALOG, CREATED, NAMESPACE

from thinktune.launch.serving.planned import ServerRequest
from thinktune.launch.serving.sizing import ServeWishes
from thinktune.schema.cluster import Cluster
from thinktune.schema.data import DataSpec
from thinktune.schema.keys import replica_key, stage_prefix
from thinktune.schema.prompt import PROMPT_FILE, PromptFacts
from thinktune.schema.serve import ServeTask
from thinktune.schema.served import SERVED_FILE, Desired, ReplicaState
from thinktune.store import Store, commit, manifest_digest, new_attempt
from thinktune.text.templates import Renderer

MODEL = "smollm2-135m"
SERVER, RELEASE = "shop", "shop-serve"


def commit_run(
    store: Store,
    run: str,
    *,
    promoted: bool | None = True,
    rank: int = 16,
    model: str = MODEL,
    base: str = "nf4",
    base_sha256: str = "b" * 64,
    created: str = CREATED,
    attempt: str | None = None,
    besides: tuple[str, ...] = (),
) -> str:
    """What prep, train and evaluate leave of a run, as far as serving reads it; the digest of its
    adapter's manifest. `promoted`: what the gate says; None where nothing was evaluated.
    `besides`: layers that its adapter changes beside the usual ones."""
    entry = CATALOG.models[model]
    template = Renderer(entry, DataSpec(dataset="inventory-sums")).template(model)
    facts = PromptFacts(
        stop_ids=(2,), template_sha256="c" * 64, opens_think=False, template=template
    )
    targets = [*entry.lora_targets, *besides]
    adapter = {"r": rank, "target_modules": targets, "peft_type": "LORA"}
    same = {"run": run, "task_sha256": None, "created": created}
    prep = _commit(
        store, stage_prefix(run, "prep"), {PROMPT_FILE: facts.model_dump_json()},
        kind="prep", inputs={}, revisions={"model": entry.revision}, **same,
    )  # fmt: skip
    train = _commit(
        store, stage_prefix(run, "train"),
        {"adapter_config.json": json.dumps(adapter), "adapter_model.safetensors": run},
        kind="train", inputs={"prep": manifest_digest(prep)},
        metrics={"base": base, "base_model_sha256": base_sha256, "dtype": "auto"}, **same,
    )  # fmt: skip
    digest = manifest_digest(train)
    if promoted is not None:
        said: dict[str, Any] = {"promoted": promoted}
        if not promoted:
            said["not_promoted_because"] = "accuracy is 0.1"
        _commit(
            store, stage_prefix(run, "evaluate"), {"report.json": "{}"}, kind="evaluate",
            inputs={"train": digest}, metrics=said, **same,
        )  # fmt: skip
    return digest


def train_again(store: Store, run: str, *, promoted: bool | None = True) -> str:
    """Another adapter under the same id; the digest of its manifest."""
    for stage in ("prep", "train", "evaluate"):
        store.delete_prefix(f"runs/{run}/{stage}")
    return commit_run(store, run, promoted=promoted, rank=8)


def _commit(store: Store, prefix: str, files: dict[str, str], **of: Any) -> Any:
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        return commit(store, prefix, Path(folder), attempt=new_attempt(), **of)


def asked(
    *runs: str,
    name: str = SERVER,
    hardware: str | None = "cpu",
    replicas: int | None = None,
    unpromoted: bool = False,
    force: bool = False,
    wishes: ServeWishes | None = None,
    **settings: Any,
) -> ServerRequest:
    """A server, asked of a cluster with these settings."""
    described = {"store": "s3://bucket", "namespace": NAMESPACE, **settings}
    return ServerRequest(
        name=name,
        runs=runs,
        task=ServeTask(run="server", store="s3://bucket"),
        hardware=hardware,
        wishes=wishes or ServeWishes(),
        replicas=replicas,
        unpromoted=unpromoted,
        cluster=Cluster.parse(described, "cluster.yaml"),
        catalog=CATALOG.hardware,
        force=force,
    )


def desired(cluster: FakeCluster, release: str = RELEASE) -> Desired:
    """What the ConfigMap says."""
    found = cluster.objects.get(CONFIG_MAPS, NAMESPACE, f"{release}-adapters")
    return Desired.parse(json.loads(found["data"][SERVED_FILE]), "served")


def add_replicas(
    cluster: FakeCluster, count: int, *, ready: bool = True, release: str = RELEASE
) -> list[str]:
    """Pods of the server, as its Deployment makes them; their names."""
    workload = cluster.objects.get(DEPLOYMENTS, NAMESPACE, release)
    template = workload["spec"]["template"]
    names = []
    for _ in range(count):
        metadata = {"generateName": f"{RELEASE}-", "labels": template["metadata"]["labels"]}
        body = {"metadata": metadata, "spec": template["spec"]}
        pod = cluster.objects.create(PODS, NAMESPACE, body)
        names.append(str(pod["metadata"]["name"]))
        cluster.run(names[-1])
        if ready:
            make_ready(cluster, names[-1], release)
    return names


def make_ready(cluster: FakeCluster, pod: str, release: str = RELEASE) -> None:
    """Its probe succeeds; and its Deployment says so."""
    condition = {"type": "Ready", "status": "True"}
    cluster.objects.patch(PODS, NAMESPACE, pod, {"status": {"conditions": [condition]}})
    count = int(cluster.objects.get(DEPLOYMENTS, NAMESPACE, release)["spec"].get("replicas", 1))
    status = {"replicas": count, "updatedReplicas": count, "readyReplicas": count}
    cluster.objects.patch(DEPLOYMENTS, NAMESPACE, release, {"status": status})


def say_state(
    store: Store,
    pod: str,
    revision: int,
    *runs: str,
    fault: str | None = None,
    tried: int | None = None,
) -> None:
    """What a replica says of itself."""
    state = ReplicaState(
        pod=pod, revision=revision, runs=runs, fault=fault, tried=tried, written=CREATED
    )
    store.put(replica_key(SERVER, pod), state.canonical().encode())


def replicas_follow(
    cluster: FakeCluster, store: Store, pods: list[str], release: str = RELEASE
) -> Callable[[], None]:
    """Makes replicas serve what the ConfigMap says at each call, as they do by themselves."""

    def follow() -> None:
        now = desired(cluster, release)
        for pod in pods:
            say_state(store, pod, now.revision, *(each.run for each in now.runs))

    return follow
