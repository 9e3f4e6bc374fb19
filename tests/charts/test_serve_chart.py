"""The serve chart, rendered by helm in every way that a server can be run."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from charts_of import CATALOG, CLUSTER, Manifest, of_kind
from serving_of import SERVER, a_server, rendered
from test_settings import all_of, check_every_object

from thinktune.launch.cluster.charts import HelmRefused, chart_folder, manifests, values_text
from thinktune.launch.cluster.kube import OWNED, WORKLOADS
from thinktune.schema.cluster import Cluster, Egress, Monitoring, Network
from thinktune.schema.cluster_serve import Autoscaling, Expose, Serving
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.serve import ServeTask
from thinktune.schema.serve_values import ServeValues, Workload
from thinktune.schema.served import Desired
from thinktune.tasks.serve import gateway

RELEASE = f"{SERVER}-serve"
GPUS: dict[str, Any] = {"model": "r1-distill-qwen-32b", "hardware": "a100-40x4"}
TWO: dict[str, Any] = {
    "model": "deepseek-r1",
    "hardware": "h100x8",
    "nodes": 2,
    "precision": "fp8",
    "slots": 1,
    "window": 65536,
}
HPA = Autoscaling(by="hpa", max_replicas=4)
KEDA = Autoscaling(by="keda", max_replicas=4, prometheus="http://prometheus.watch:9090")
INGRESS = Expose(host="chat.example.com", ingress_class="traefik", tls_secret="chat-tls")
ROUTE = Expose(
    host="chat.example.com", gateway="public", gateway_namespace="edge", listener="https"
)
WATCHED = Monitoring(enabled=True, labels={"release": "stack"})


def on(**settings: Any) -> Cluster:
    return CLUSTER.model_copy(update=settings)


WAYS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpus": GPUS,
    "three replicas": GPUS | {"replicas": 3},
    "group": TWO | {"workload": "leaderworkerset"},
    "plain group": TWO | {"workload": "statefulset"},
    "nvme": {"cluster": on(scratch_storage_class="local-nvme")},
    "cache": GPUS | {"cluster": on(model_cache_claim="models")},
    "hpa": GPUS | {"cluster": on(serve=Serving(autoscaling=HPA))},
    "keda": GPUS | {"cluster": on(serve=Serving(autoscaling=KEDA))},
    "scaled group": TWO
    | {"workload": "leaderworkerset", "cluster": on(serve=Serving(autoscaling=HPA))},
    "monitoring": {"cluster": on(monitoring=WATCHED)},
    "ingress": {"cluster": on(serve=Serving(expose=INGRESS))},
    "route": {"cluster": on(serve=Serving(expose=ROUTE))},
    "bare": {"cluster": on(network=Network(policy=False))},
}


@pytest.fixture(scope="module")
def every() -> dict[str, tuple[ServeValues, list[Manifest]]]:
    """Each way, rendered once."""
    made = {way: a_server(**settings) for way, settings in WAYS.items()}
    return {way: (values, rendered(values)) for way, values in made.items()}


Every = dict[str, tuple[ServeValues, list[Manifest]]]


def workload_of(found: list[Manifest]) -> Manifest:
    kinds = ("Deployment", "LeaderWorkerSet", "StatefulSet")
    (only,) = [each for each in found if each["kind"] in kinds]
    return only


def pods_of(workload: Manifest) -> list[dict[str, Any]]:
    """The pod templates."""
    if workload["kind"] != "LeaderWorkerSet":
        return [workload["spec"]["template"]]
    group = workload["spec"]["leaderWorkerTemplate"]
    return [group["leaderTemplate"], group["workerTemplate"]]


def pod_of(found: list[Manifest]) -> dict[str, Any]:
    spec: dict[str, Any] = pods_of(workload_of(found))[0]["spec"]
    return spec


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_restricted_and_complete(every: Every, way: str) -> None:
    values, found = every[way]
    check_every_object(found)
    for template in pods_of(workload_of(found)):
        check_pod(template["spec"], values)
    wanted = 0 if way == "bare" else 1
    assert sum(each["kind"] == "NetworkPolicy" for each in found) == wanted
    assert of_kind(found, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    # All that it makes is known to whoever removes what `kubectl apply` made.
    kinds = {f"{each['kind'].lower()}s" for each in found}
    kinds = {kind.replace("policys", "policies").replace("ingresss", "ingresses") for kind in kinds}
    assert kinds <= {*OWNED, *WORKLOADS}


def check_pod(pod: dict[str, Any], values: ServeValues) -> None:
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "initContainers" not in pod
    assert not [each for each in all_of(pod) if isinstance(each, dict) and "hostPath" in each]
    (port,) = container["ports"]
    assert port == {"name": "gateway", "containerPort": 8080}
    limits = container["resources"]["limits"]
    assert limits == container["resources"]["requests"]
    assert int(limits.get("nvidia.com/gpu", 0)) == values.resources.gpus
    drain = ServeTask.parse(json.loads(values.task), "task").times.grace_s
    (sleep,) = container["lifecycle"]["preStop"].values()
    assert sleep["command"] == ["sleep", str(values.seconds.pre_stop)]
    assert pod["terminationGracePeriodSeconds"] >= values.seconds.pre_stop + drain + 15


@pytest.mark.parametrize("way", [way for way in WAYS if way != "route"])
def test_kubernetes_knows_every_field(every: Every, way: str) -> None:
    own = ("monitoring.coreos.com", "keda.sh", "leaderworkerset.x-k8s.io")
    checked = [each for each in every[way][1] if not each["apiVersion"].startswith(own)]
    assert len(checked) >= 6
    for manifest in checked:
        kubernetes_validate.validate(manifest, "1.34", strict=True)


def test_the_pods_of_a_group_are_valid_pods(every: Every) -> None:
    for template in pods_of(workload_of(every["group"][1])):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {**template["metadata"], "name": "p"}
        kubernetes_validate.validate(pod, "1.34", strict=True)


def test_only_the_gateway_is_asked_how_the_pod_is(every: Every) -> None:
    values, found = every["gpus"]
    (container,) = pod_of(found)["containers"]
    paths = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")
    }
    assert paths == {
        "startup": {"path": "/readyz", "port": "gateway"},
        "readiness": {"path": "/readyz", "port": "gateway"},
        "liveness": {"path": "/healthz", "port": "gateway"},
    }
    startup = container["startupProbe"]
    task = ServeTask.parse(json.loads(values.task), "task")
    # The engine gets its time, and the weights theirs before it.
    assert startup["periodSeconds"] * startup["failureThreshold"] > task.times.start_s
    assert task.execution is not None
    assert task.times.start_s > task.execution.ready_timeout_s
    assert workload_of(found)["spec"]["progressDeadlineSeconds"] > task.times.start_s


def test_clients_reach_one_port_and_pods_reach_the_store(every: Every) -> None:
    policy = of_kind(every["gpus"][1], "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}]}]
    ports = [sorted({port["port"] for port in rule["ports"]}) for rule in policy["egress"]]
    assert ports == [[53], [8333]]
    assert policy["egress"][1]["to"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}}
    ]
    named = on(serve=Serving(client_namespaces=("edge", "apps")))
    (rule,) = of_kind(rendered(a_server(cluster=named)), "NetworkPolicy")["spec"]["ingress"]
    names = [each["namespaceSelector"]["matchLabels"] for each in rule["from"]]
    assert [each["kubernetes.io/metadata.name"] for each in names] == ["edge", "apps"]
    watched = named.model_copy(update={"monitoring": Monitoring(enabled=True, namespace="watch")})
    (rule,) = of_kind(rendered(a_server(cluster=watched)), "NetworkPolicy")["spec"]["ingress"]
    assert len(rule["from"]) == 3  # whoever scrapes the metrics comes to the same port
    with pytest.raises(SpecInvalid, match="keeps out whoever scrapes metrics"):
        a_server(cluster=named.model_copy(update={"monitoring": WATCHED}))
    extra = Network(extra=(Egress(cidr="10.0.0.7/32", port=3128),))
    rules = of_kind(rendered(a_server(cluster=on(network=extra))), "NetworkPolicy")["spec"][
        "egress"
    ]
    assert rules[-1]["to"] == [{"ipBlock": {"cidr": "10.0.0.7/32"}}]


def test_the_nodes_of_a_group_reach_each_other_and_no_one_else(every: Every) -> None:
    for way in ("group", "plain group"):
        policy = of_kind(every[way][1], "NetworkPolicy")["spec"]
        own = [{"podSelector": policy["podSelector"]}]
        assert policy["ingress"][1] == {"from": own}
        assert {"to": own} in policy["egress"]


def test_a_replica_goes_before_the_next_comes_where_gpus_are_taken(every: Every) -> None:
    def rollout(found: list[Manifest]) -> dict[str, int]:
        spec: dict[str, int] = workload_of(found)["spec"]["strategy"]["rollingUpdate"]
        return spec

    first, last = {"maxSurge": 1, "maxUnavailable": 0}, {"maxSurge": 0, "maxUnavailable": 1}
    assert rollout(every["cpu"][1]) == first
    assert rollout(every["gpus"][1]) == first  # a single one, whose clients would wait
    assert rollout(every["three replicas"][1]) == last
    for surge, wanted in ((True, first), (False, last)):
        cluster = on(serve=Serving(surge=surge))
        assert rollout(rendered(a_server(**GPUS, replicas=3, cluster=cluster))) == wanted


def test_a_plan_for_gpus_becomes_the_pod(every: Every) -> None:
    values, found = every["gpus"]
    pod = pod_of(found)
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    product = CATALOG.hardware["a100-40x4"].product
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": product}
    assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert container["image"].startswith("registry.example/team/evaluate:")
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["shm"]["emptyDir"] == {
        "medium": "Memory",
        "sizeLimit": f"{values.resources.shm_mib}Mi",
    }
    task = ServeTask.parse(json.loads(of_kind(found, "ConfigMap")["data"]["task.json"]), "task")
    assert task.execution is not None
    assert task.execution.tensor_parallel * task.execution.data_parallel == 4
    assert task.execution.max_loras == task.adapters == 2
    assert (task.host, task.port) == ("0.0.0.0", 8080)
    assert "kueue.x-k8s.io/queue-name" not in workload_of(found)["metadata"]["labels"]


def test_the_key_is_a_file_of_a_secret_and_nowhere_else(every: Every) -> None:
    values, found = every["monitoring"]
    pod = pod_of(found)
    (key,) = [each for each in pod["volumes"] if each["name"] == "key"]
    assert key["secret"]["secretName"] == f"{RELEASE}-key"
    assert key["secret"]["defaultMode"] == 0o440
    task = ServeTask.parse(json.loads(values.task), "task")
    assert task.key_file == "/etc/thinktune-key/key"
    (endpoint,) = of_kind(found, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": f"{RELEASE}-key", "key": "key"}
    theirs = rendered(a_server(cluster=on(serve=Serving(key_secret="clients"))))
    assert "clients" in json.dumps(pod_of(theirs)["volumes"])
    assert "Secret" not in {each["kind"] for each in theirs}


def test_runs_are_desired_state_beside_the_task(every: Every) -> None:
    values, found = every["cpu"]
    maps = {each["metadata"]["name"]: each for each in found if each["kind"] == "ConfigMap"}
    told = json.loads(maps[f"{RELEASE}-adapters"]["data"]["served.json"])
    assert Desired.parse(told, "served").first.run == "r"
    pod = pod_of(found)
    (container,) = pod["containers"]
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    # What is mounted by `subPath` never changes.
    assert mounts["adapters"] == {
        "name": "adapters",
        "mountPath": "/etc/thinktune-adapters",
        "readOnly": True,
    }
    task = ServeTask.parse(json.loads(values.task), "task")
    assert task.desired_file == "/etc/thinktune-adapters/served.json"
    assert '"r"' not in values.task  # another run is no new pod


def test_another_task_makes_new_pods_and_another_run_does_not() -> None:
    values = a_server()
    served = values.model_copy(update={"served": values.served.replace('"r"', '"s"')})
    task = values.model_copy(update={"task": values.task.replace("8192", "4096")})
    templates = [pods_of(workload_of(rendered(each)))[0] for each in (values, served, task)]
    assert templates[0] == templates[1] != templates[2]


@pytest.mark.parametrize("workload", ["leaderworkerset", "statefulset"])
def test_several_nodes_are_made_anew_for_another_run(workload: Workload) -> None:
    values = a_server(workload=workload)
    served = values.model_copy(update={"served": values.served.replace('"r"', '"s"')})
    templates = [pods_of(workload_of(rendered(each)))[0] for each in (values, served)]
    assert templates[0] != templates[1]


@pytest.mark.parametrize(
    ("way", "kind"), [("group", "leaderworkerset"), ("plain group", "stateful")]
)
def test_several_nodes_serve_one_model(every: Every, way: str, kind: str) -> None:
    values, found = every[way]
    workload = workload_of(found)
    assert workload["kind"].lower().startswith(kind)
    task = ServeTask.parse(json.loads(values.task), "task")
    assert task.execution is not None
    assert task.execution.nodes == 2
    service = of_kind(found, "Service")
    assert service["metadata"]["name"] == RELEASE
    assert service["spec"]["ports"][0]["targetPort"] == "gateway"
    for template in pods_of(workload):
        (container,) = template["spec"]["containers"]
        environment = {each["name"]: each for each in container["env"]}
        assert environment["THINKTUNE_NODES"]["value"] == "2"
        assert environment["NCCL_SOCKET_IFNAME"]["value"] == "eth0"
        path = environment["THINKTUNE_NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert path in [f"metadata.labels['{label}']" for label in service["spec"]["selector"]]


def test_a_group_is_made_anew_as_a_whole(every: Every) -> None:
    spec = workload_of(every["group"][1])["spec"]
    group = spec["leaderWorkerTemplate"]
    assert (group["size"], group["restartPolicy"]) == (2, "RecreateGroupAfterStart")
    assert group["leaderTemplate"] == group["workerTemplate"]  # their rank tells them apart
    assert spec["startupPolicy"] == "LeaderCreated"


def test_the_service_of_a_group_is_not_that_of_its_clients(every: Every) -> None:
    """The controller makes no Service where there is one of the name, and the one for clients has
    an address of its own: the name of the first node would lead nowhere."""
    found = every["group"][1]
    workload = workload_of(found)
    assert workload["spec"]["networkConfig"] == {"subdomainPolicy": "UniquePerReplica"}
    own = {each["metadata"]["name"] for each in found if each["kind"] == "Service"}
    groups = {f"{workload['metadata']['name']}-{group}" for group in range(3)}
    assert not own & groups


def test_without_leader_worker_sets_nodes_find_each_other_by_name(every: Every) -> None:
    found = every["plain group"][1]
    spec = workload_of(found)["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (2, "Parallel")
    (nodes,) = [each for each in found if each["metadata"]["name"] == f"{RELEASE}-nodes"]
    assert nodes["spec"]["clusterIP"] == "None"
    assert nodes["spec"]["publishNotReadyAddresses"] is True
    assert spec["serviceName"] == f"{RELEASE}-nodes"
    (container,) = pod_of(found)["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["MASTER_ADDR"] == f"{RELEASE}-0.{RELEASE}-nodes"


@pytest.mark.parametrize("way", ["hpa", "scaled group"])
def test_replicas_follow_running_requests(every: Every, way: str) -> None:
    found = every[way][1]
    scaler, workload = of_kind(found, "HorizontalPodAutoscaler")["spec"], workload_of(found)
    assert "replicas" not in workload["spec"]  # each upgrade would set it back
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (workload["kind"], RELEASE)
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 4)
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] in exported()
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 600


def test_replicas_follow_waiting_requests_and_the_cache(every: Every) -> None:
    found = every["keda"][1]
    scaled = of_kind(found, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == RELEASE
    waiting, used = (each["metadata"] for each in scaled["triggers"])
    assert "vllm:num_requests_waiting" in waiting["query"]
    assert "vllm:kv_cache_usage_perc" in used["query"]
    assert {waiting["serverAddress"], used["serverAddress"]} == {"http://prometheus.watch:9090"}
    assert f'pod=~"{RELEASE}-.*"' in waiting["query"]


def test_a_server_without_leader_worker_sets_is_not_scaled() -> None:
    scaled = on(serve=Serving(autoscaling=HPA))
    with pytest.raises(SpecInvalid, match="several nodes are one server") as refused:
        a_server(**TWO, workload="statefulset", cluster=scaled)
    assert refused.value.place == "serve.autoscaling"


def exported() -> set[str]:
    """Metrics that the gateway has of its own."""
    text = (Path(next(iter(gateway.__path__))) / "http.py").read_text()
    return set(re.findall(r'"(thinktune_gateway_\w+)"', text))


AUTOSCALING = {
    "by": "hpa", "minReplicas": 5, "maxReplicas": 2, "requests": 1, "waiting": 1,
    "kvUsePercent": 1, "prometheus": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "changes", "fault"),
    [
        ("rollout", {"maxSurge": 0, "maxUnavailable": 0}, "rollout: with maxSurge 0"),
        ("autoscaling", AUTOSCALING, "minReplicas 5 is more than maxReplicas 2"),
        ("seconds", {"grace": 100}, "seconds.grace: 100 seconds are fewer than preStop (15)"),
        ("access", {"podLabels": {"app.kubernetes.io/name": "mine"}}, "by which pods are found"),
        ("placement", {"queue": "team"}, "placement.queue: a queue admits what ends"),
    ],
)
def test_values_that_cannot_work_are_refused(
    section: str, changes: dict[str, Any], fault: str
) -> None:
    """As somebody may have changed them by hand; the models do not make them."""
    values = yaml.safe_load(values_text(a_server()))
    values[section] = {**(values[section] or {}), **changes}
    with pytest.raises(HelmRefused, match=re.escape(fault)):
        manifests(RELEASE, "jobs", yaml.safe_dump(values), chart="serve")


def test_a_stateful_set_with_a_scaler_is_refused() -> None:
    values = yaml.safe_load(values_text(a_server(**TWO, workload="statefulset")))
    values["autoscaling"] = AUTOSCALING | {"maxReplicas": 5}
    with pytest.raises(HelmRefused, match="which nothing scales"):
        manifests(RELEASE, "jobs", yaml.safe_dump(values), chart="serve")


def test_no_range_of_addresses_leads_to_the_metadata_service() -> None:
    ranges = {
        "0.0.0.0/0": "169.254.169.254/32",
        "128.0.0.0/1": "169.254.169.254/32",
        "169.254.0.0/16": "169.254.169.254/32",
        "::/0": "fd00:ec2::254/128",
        "0.0.0.0/1": None,  # ends at 127.255.255.255
        "10.0.0.0/8": None,
        "2001:db8::/32": None,
    }
    asked = on(network=Network(store_cidrs=tuple(ranges)), store_endpoint=None)
    policy = of_kind(rendered(a_server(cluster=asked)), "NetworkPolicy")["spec"]
    blocks = [each["ipBlock"] for each in policy["egress"][1]["to"]]
    found = {each["cidr"]: (each.get("except") or [None])[0] for each in blocks}
    assert found == ranges


def test_the_address_from_outside_has_tls_where_there_is_a_certificate() -> None:
    plain = Expose(host="chat.example.com")
    assert [each.scheme for each in (plain, INGRESS, ROUTE)] == ["http", "https", "https"]


def test_what_is_watched_is_exported(every: Every) -> None:
    found = every["monitoring"][1]
    assert not {"PodMonitor", "PrometheusRule"} & {each["kind"] for each in every["gpus"][1]}
    rules = of_kind(found, "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert {each["alert"].removeprefix("ThinktuneServing") for each in rules} == {
        "Stalled",
        "EngineDown",
        "Queue",
        "Rejections",
        "CacheFull",
        "Silent",
        "NotStarted",
    }
    (board,) = [each for each in found if each["metadata"]["name"].endswith("-dashboard")]
    panels = json.loads(board["data"][f"{RELEASE}.json"])["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += [each["expr"] for each in rules]
    names = set(re.findall(r"thinktune_gateway_\w+", " ".join(asked)))
    assert names <= exported(), f"nobody exports {names - exported()}"
    for each in asked:
        assert f'{{namespace="jobs",pod=~"{RELEASE}-.*"}}' in each
    for kind in ("PodMonitor", "PrometheusRule"):
        assert of_kind(found, kind)["metadata"]["labels"]["release"] == "stack"


def test_the_alert_of_a_stall_fires_before_the_engine_is_killed(every: Every) -> None:
    for settings in ({}, GPUS):
        values = a_server(**settings, cluster=on(monitoring=WATCHED))
        times = ServeTask.parse(json.loads(values.task), "task").times
        assert values.monitoring.stalled_after_seconds == times.hung_s / 2
    with pytest.raises(SpecInvalid, match="the alert would never fire") as refused:
        a_server(**GPUS, cluster=on(monitoring=WATCHED, serve=Serving(stalled_after_seconds=120)))
    assert "fewer than 120" in refused.value.remedy
    fine = on(monitoring=WATCHED, serve=Serving(stalled_after_seconds=120))
    assert a_server(cluster=fine).monitoring.stalled_after_seconds == 120  # on CPUs


def test_a_pod_that_starts_is_not_silent(every: Every) -> None:
    values, found = every["monitoring"]
    rules = of_kind(found, "PrometheusRule")["spec"]["groups"][0]["rules"]
    named = {each["alert"].removeprefix("ThinktuneServing"): each for each in rules}
    assert "max_over_time(up" in named["Silent"]["expr"]
    assert named["NotStarted"]["for"] == f"{5 * values.seconds.startup_checks}s"


def test_it_is_reached_from_outside_where_that_is_asked_for(every: Every) -> None:
    ingress = of_kind(every["ingress"][1], "Ingress")["spec"]
    assert ingress["tls"] == [{"hosts": ["chat.example.com"], "secretName": "chat-tls"}]
    assert ingress["ingressClassName"] == "traefik"
    route = of_kind(every["route"][1], "HTTPRoute")["spec"]
    (parent,) = route["parentRefs"]
    assert parent == {"name": "public", "namespace": "edge", "sectionName": "https"}
    assert route["hostnames"] == ["chat.example.com"]
    assert route["rules"][0]["timeouts"] == {"request": "0s"}  # a long answer is no fault
    assert not {"Ingress", "HTTPRoute"} & {each["kind"] for each in every["gpus"][1]}


def test_the_same_bytes_every_time() -> None:
    texts = [values_text(a_server(**GPUS)) for _ in range(2)]
    assert texts[0] == texts[1]
    first, again = (manifests(RELEASE, "jobs", text, chart="serve") for text in texts)
    assert first == again


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": 0}, "replicas"),
        ({"workload": "daemonset"}, "workload"),
        ({"rollout": {"maxSurge": 1, "maxUnavailable": 0, "type": "Recreate"}}, "type"),
        ({"gateway": {"port": 80}}, "port"),
    ],
)
def test_helm_refuses_wrong_values(change: Manifest, words: str) -> None:
    text = yaml.safe_dump({**yaml.safe_load(values_text(a_server())), **change})
    with pytest.raises(SpecInvalid, match=words):
        manifests(RELEASE, "jobs", text, chart="serve")


@pytest.mark.parametrize("way", ["cpu", "group", "plain group", "keda", "monitoring", "route"])
def test_helm_lint_finds_nothing(every: Every, way: str, tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(values_text(every[way][0]))
    command = ["helm", "lint", "--strict", str(chart_folder("serve")), "-f", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_makes_no_sense_is_refused_where_it_is_written() -> None:
    with pytest.raises(SpecInvalid, match="add its address"):
        Autoscaling.parse({"by": "keda", "max_replicas": 3}, "cluster.yaml")
    with pytest.raises(SpecInvalid, match="a Gateway has its own"):
        Expose.parse({"host": "a.example", "gateway": "g", "tls_secret": "s"}, "cluster.yaml")
    with pytest.raises(SpecInvalid, match="host"):
        Expose.parse({"host": "https://a.example"}, "cluster.yaml")


def test_every_kind_of_workload_is_rendered() -> None:
    kinds: dict[Workload, str] = {
        "deployment": "Deployment",
        "leaderworkerset": "LeaderWorkerSet",
        "statefulset": "StatefulSet",
    }
    for workload, kind in kinds.items():
        assert workload_of(rendered(a_server(workload=workload)))["kind"] == kind
