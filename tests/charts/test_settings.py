"""What a batch job on Kubernetes should have, on every recipe and in every way to run it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from charts_of import CATALOG, CLUSTER, Manifest, a_run, of_kind, rendered
from serving_of import a_server
from serving_of import rendered as rendered_server

from thinktune.launch.cluster.charts import manifests, values_text
from thinktune.launch.cluster.kube import OWNED, WORKLOADS
from thinktune.launch.preflight import check_names
from thinktune.launch.runs import conductor_of, pipeline_of
from thinktune.recipes.compose import recipe_names
from thinktune.schema.cluster import Cluster, Identity, Monitoring, Network, Nodes, Prep, Toleration
from thinktune.schema.cluster_serve import Autoscaling, Expose, Serving
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.stages import STAGES, Stage

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two nodes": {},
    "nvme": {"scratch_storage_class": "local-nvme"},
    "cache": {"model_cache_claim": "models"},
    "monitoring": {"monitoring": Monitoring(enabled=True)},
    "bare": {"network": Network(policy=False), "identity": Identity()},
    "long": {"deadline_hours": 2000, "keep_finished_hours": 9000},
}


def all_of(value: Any) -> list[Any]:
    """Every value inside, and itself."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(each for part in inside for each in all_of(part))]


def check_every_object(found: list[Manifest]) -> None:
    for each in found:
        metadata = each["metadata"]
        assert metadata["namespace"] == "jobs"
        assert len(metadata["name"]) <= 63
        labels = metadata["labels"]
        for name in ("name", "instance", "version", "part-of", "component", "managed-by"):
            assert isinstance(labels[f"app.kubernetes.io/{name}"], str)
        assert all(isinstance(value, str) for value in labels.values())
        assert not [value for value in all_of(each) if isinstance(value, float)]


def check_pod(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert key not in pod
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    for name in ("cpu", "memory", "ephemeral-storage"):
        assert name in limits
        assert name in requests
    for volume in pod["volumes"]:
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"].endswith("i")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_in_each_way(name: str, way: str, own_file: Path) -> None:
    cluster = CLUSTER.model_copy(update=WAYS[way])
    nodes = 2 if way == "two nodes" and a_run(name, own_file).node.num_gpus else 1
    run = a_run(name, own_file, f"nodes={nodes}")
    for stage in STAGES:
        found = rendered(run, stage, cluster)
        check_every_object(found)
        spec = of_kind(found, "Job")["spec"]
        check_job(spec, stage, cluster, nodes if stage == "train" else 1)
        pod = spec["template"]["spec"]
        check_pod(pod)
        assert pod["automountServiceAccountToken"] is False
        check_storage(pod, cluster)
        wanted = 1 if cluster.network.policy else 0
        assert sum(each["kind"] == "NetworkPolicy" for each in found) == wanted


def check_job(spec: dict[str, Any], stage: Stage, cluster: Cluster, nodes: int) -> None:
    assert spec["podReplacementPolicy"] == "Failed"
    shards = "backoffLimitPerIndex" in spec
    assert (spec["backoffLimitPerIndex"] if shards else spec["backoffLimit"]) == 3 * nodes
    assert spec["activeDeadlineSeconds"] == 3600 * cluster.deadline_hours
    assert spec["ttlSecondsAfterFinished"] == 3600 * cluster.keep_finished_hours
    assert ("completionMode" in spec) == (nodes > 1 or shards)
    assert len(spec["podFailurePolicy"]["rules"]) == 3
    annotations = spec["template"]["metadata"]["annotations"]
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    pod = spec["template"]["spec"]
    assert ("affinity" in pod) == (nodes > 1)
    environment = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert environment.get("HF_HUB_OFFLINE") == (None if stage == "prep" else "1")


def check_storage(pod: dict[str, Any], cluster: Cluster) -> None:
    (container,) = pod["containers"]
    limits = container["resources"]["limits"]
    assert limits == container["resources"]["requests"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts["/dev/shm"] == "shm"
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    assert (mounts["/tmp"], mounts["/scratch"]) == ("scratch", "scratch")
    if cluster.scratch_storage_class:
        claim = volumes["scratch"]["ephemeral"]["volumeClaimTemplate"]["spec"]
        assert claim["storageClassName"] == "local-nvme"
        assert limits["ephemeral-storage"] == "1Gi"
    else:
        assert volumes["scratch"]["emptyDir"]["sizeLimit"] == limits["ephemeral-storage"]
    assert ("/cache" in mounts) == bool(cluster.model_cache_claim)


def test_the_conductor_keeps_to_the_same_rules(own_file: Path) -> None:
    tolerations = (Toleration(key="pool", operator="Equal", value="small", effect="NoSchedule"),)
    nodes = Nodes(node_selector={"pool": "small"}, tolerations=tolerations)
    cluster = CLUSTER.model_copy(update={"cpu_nodes": nodes, "deadline_hours": 1000})
    pipeline = pipeline_of(a_run("demo", own_file), STAGES, cluster)
    text = values_text(conductor_of(pipeline, cluster))
    found = list(yaml.safe_load_all(manifests("demo-conductor", "jobs", text, chart="conductor")))
    check_every_object(found)
    spec = of_kind(found, "Job")["spec"]
    assert spec["activeDeadlineSeconds"] == 4 * 3600 * 1000
    pod = spec["template"]["spec"]
    check_pod(pod)
    assert pod["nodeSelector"] == {"pool": "small"}
    assert pod["tolerations"][0]["value"] == "small"
    secrets = [each["secretRef"]["name"] for each in pod["containers"][0]["envFrom"]]
    assert secrets == ["store-keys", "tracker"]
    rules = of_kind(found, "Role")["rules"]
    assert {"patch"} == {verb for r in rules if "resourceNames" in r for verb in r["verbs"]}
    (patch,) = [rule for rule in rules if "resourceNames" in rule]
    assert patch["resourceNames"] == [each.release for each in pipeline.stages]
    assert not {"*", "create", "delete"} & {verb for rule in rules for verb in rule["verbs"]}


def test_who_a_stage_is_and_where_it_goes(own_file: Path) -> None:
    cluster = Cluster(
        store="s3://bucket/p",
        namespace="jobs",
        identity=Identity(service_accounts={"train": "trainer"}, pod_labels={"who": "yes"}),
        cpu_nodes=Nodes(node_selector={"pool": "cpu"}),
        gpu_nodes=Nodes(tolerations=(Toleration(key="gpu", operator="Exists"),)),
        hardware_nodes={"a100-40x4": Nodes(node_selector={"accelerator": "a100"})},
    )
    run = a_run("qwen-32b", own_file)
    train, prep = rendered(run, "train", cluster), rendered(run, "prep", cluster)
    pods = [of_kind(found, "Job")["spec"]["template"] for found in (train, prep)]
    assert [pod["metadata"]["labels"]["who"] for pod in pods] == ["yes", "yes"]
    assert pods[0]["spec"]["serviceAccountName"] == "trainer"
    assert not [each for each in train if each["kind"] == "ServiceAccount"]
    assert (
        pods[1]["spec"]["serviceAccountName"] == of_kind(prep, "ServiceAccount")["metadata"]["name"]
    )
    assert [pod["spec"]["nodeSelector"] for pod in pods] == [
        {"accelerator": "a100"},
        {"pool": "cpu"},
    ]
    other = of_kind(rendered(a_run("final-answer-qwen-1.5b", own_file), "train", cluster), "Job")
    assert other["spec"]["template"]["spec"]["tolerations"] == [
        {"key": "gpu", "operator": "Exists"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    ]
    assert pods[0]["spec"]["tolerations"] == [  # though its entry says nothing of it
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert "tolerations" not in pods[1]["spec"]


@pytest.mark.parametrize(
    ("prep", "recipe", "cpu", "memory"),
    [
        (Prep(), "qwen-32b", "3000m", "11264Mi"),
        (Prep(), "demo", "1800m", "5529Mi"),  # of its hardware entry, which is smaller
        (Prep(cpus=8, memory_gib=64), "qwen-32b", "8000m", "65536Mi"),
        (Prep(memory_gib=20), "demo", "1800m", "20480Mi"),
    ],
)
def test_what_prep_asks_for(prep: Prep, recipe: str, cpu: str, memory: str, own_file: Path) -> None:
    cluster = CLUSTER.model_copy(update={"prep": prep})
    job = of_kind(rendered(a_run(recipe, own_file), "prep", cluster), "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert (limits["cpu"], limits["memory"]) == (cpu, memory)


@pytest.mark.parametrize(
    ("endpoint", "namespace", "port"),
    [
        (None, None, 443),
        ("https://minio.example", None, 443),
        ("http://minio.example:9000", None, 9000),
        ("http://s3.storage.svc:8333", "storage", 8333),
        ("http://s3.storage.svc.cluster.local", "storage", 80),
    ],
)
def test_the_way_to_the_store_follows_from_its_address(
    endpoint: str | None, namespace: str | None, port: int, own_file: Path
) -> None:
    cluster = Cluster(store="s3://bucket/p", namespace="jobs", store_endpoint=endpoint)
    policy = of_kind(rendered(a_run("demo", own_file), "train", cluster), "NetworkPolicy")
    assert policy["spec"]["ingress"] == []
    _, store = policy["spec"]["egress"]
    assert store["ports"] == [{"port": port, "protocol": "TCP"}]
    (peer,) = store["to"]
    if namespace is None:
        # Clouds' metadata, with the node's credentials, are no store.
        assert peer == {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}
    else:
        labels = {"kubernetes.io/metadata.name": namespace}
        assert peer == {"namespaceSelector": {"matchLabels": labels}}


def test_addresses_of_the_store_that_are_given_are_taken(own_file: Path) -> None:
    """Though its name is one of the cluster: what stands behind it may be outside."""
    network = Network(store_cidrs=("10.9.0.0/16",))
    endpoint = "http://minio.out.svc:9000"
    cluster = Cluster(
        store="s3://bucket/p", namespace="jobs", store_endpoint=endpoint, network=network
    )
    policy = of_kind(rendered(a_run("demo", own_file), "train", cluster), "NetworkPolicy")
    assert policy["spec"]["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.9.0.0/16"}}]


def test_all_that_a_release_makes_can_be_cleared_away(own_file: Path) -> None:
    """Where there is no Helm release to do it: what `kubectl apply` made."""
    cluster = CLUSTER.model_copy(update=WAYS["monitoring"])
    run = a_run("qwen-32b", own_file, "nodes=2")
    found = [each["kind"] for stage in STAGES for each in rendered(run, stage, cluster)]
    text = values_text(conductor_of(pipeline_of(run, STAGES, cluster), cluster))
    whole = yaml.safe_load_all(manifests("c", "jobs", text, chart="conductor"))
    found += [each["kind"] for each in whole]
    for by, gateway in (("hpa", None), ("keda", "public")):
        expose = Expose(host="chat.example.com", gateway=gateway)
        scaling = Autoscaling(by=by, max_replicas=2, prometheus="http://p:9090")
        serving = Serving(expose=expose, autoscaling=scaling)
        server = a_server(cluster=cluster.model_copy(update={"serve": serving}))
        found += [each["kind"] for each in rendered_server(server)]
    plurals = {f"{kind.lower()}s".replace("ys", "ies").replace("sss", "sses") for kind in found}
    assert plurals - {"jobs", *WORKLOADS} == set(OWNED)


def test_hardware_that_nobody_knows() -> None:
    cluster = Cluster(store="s3://bucket/p", hardware_nodes={"a100-40-x4": Nodes()})
    with pytest.raises(SpecInvalid, match="a100-40x4"):
        check_names(cluster, CATALOG)


def test_words_that_yaml_takes_for_something_else(own_file: Path) -> None:
    words = ("y", "1e5", "0x1f", "null", "1:30", "no", "", "~")
    odd = dict(zip("ABCDENFG", words, strict=True))
    update = {"env": odd, "queue": "true", "identity": Identity(secret="123")}
    found = rendered(a_run("demo", own_file), "train", CLUSTER.model_copy(update=update))
    check_every_object(found)
    job = of_kind(found, "Job")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "true"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert {name: environment[name] for name in odd} == odd
    assert container["envFrom"][0]["secretRef"]["name"] == "123"


def test_the_same_file_from_two_folders_renders_to_the_same_bytes(tmp_path: Path) -> None:
    texts = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        path = folder / "audit.jsonl"
        path.write_text('{"question": "q", "answer": "a"}\n')
        run = a_run("qwen-32b", path)
        texts.append([str(rendered(run, stage)) for stage in STAGES])
        assert str(tmp_path) not in str(texts[-1])
    assert texts[0] == texts[1]
