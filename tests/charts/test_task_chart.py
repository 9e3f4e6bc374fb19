"""The task chart, rendered by helm for every recipe and stage."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from charts_of import CATALOG, CLUSTER, Manifest, a_run, of_kind, rendered

from thinktune.launch.cluster import charts
from thinktune.launch.cluster.charts import chart_folder, manifests, release_name, values_text
from thinktune.launch.runs import conductor_of, pipeline_of, stage_values
from thinktune.recipes.compose import load_recipe, recipe_names
from thinktune.schema.cluster import Egress, Monitoring, Network
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.exit_codes import EXIT_CODES
from thinktune.schema.stages import STAGE_INFO, STAGES, Stage
from thinktune.schema.values import NAME_LENGTH
from thinktune.tasks.runtime import exporter


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_renders_a_restricted_job(name: str, stage: Stage, own_file: Path) -> None:
    recipe = load_recipe(name, (), catalog=CATALOG)
    hardware = CATALOG.hardware[recipe.hardware]
    run = a_run(name, own_file)
    found = rendered(run, stage)
    job = of_kind(found, "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"] == container["resources"]["limits"]
    most = {"none": 0, "one": 1, "all": hardware.num_gpus}[STAGE_INFO[stage].gpus]
    gpus = min(most, hardware.num_gpus)
    assert int(container["resources"]["limits"].get("nvidia.com/gpu", 0)) == gpus
    wanted = {"nvidia.com/gpu.product": hardware.product} if gpus else None
    assert pod.get("nodeSelector") == wanted
    assert ("tolerations" in pod) == bool(gpus)
    assert pod["terminationGracePeriodSeconds"] >= 300
    task = json.loads(of_kind(found, "ConfigMap")["data"]["task.json"])
    assert task == json.loads(run.tasks[stage].canonical())


def test_qwen_32b_asks_for_four_gpus_of_one_node(own_file: Path) -> None:
    job = of_kind(rendered(a_run("qwen-32b", own_file), "train"), "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["THINKTUNE_PROCESSES_PER_NODE"] == "4"
    assert "completionMode" not in job["spec"]


def test_failures_follow_the_table_of_exit_codes(own_file: Path) -> None:
    job = of_kind(rendered(a_run("demo", own_file), "train"), "Job")
    disruption, ignored, failed = job["spec"]["podFailurePolicy"]["rules"]
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    for rule, action in ((ignored, "Ignore"), (failed, "FailJob")):
        assert rule["action"] == action
        does = {"Ignore": "ignore", "FailJob": "fail"}[action]
        codes = [code for code, (_, each) in EXIT_CODES.items() if each == does]
        assert rule["onExitCodes"]["values"] == sorted(codes)


def test_several_nodes_find_each_other_by_name(own_file: Path) -> None:
    run = a_run("llama-70b", own_file, "nodes=2")
    found = rendered(run, "train")
    job, service = of_kind(found, "Job"), of_kind(found, "Service")
    name = job["metadata"]["name"]
    assert (job["spec"]["completions"], job["spec"]["completionMode"]) == (2, "Indexed")
    pod = job["spec"]["template"]["spec"]
    rendezvous = f"ranks-{name}"  # a Service's name starts with a letter, a run's need not
    assert pod["subdomain"] == service["metadata"]["name"] == rendezvous
    assert service["spec"]["clusterIP"] == "None"
    environment = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert environment["MASTER_ADDR"] == f"{name}-0.{rendezvous}"
    assert "THINKTUNE_NODE_RANK" in environment
    policy = of_kind(found, "NetworkPolicy")["spec"]
    assert {"podSelector": {"matchLabels": policy["podSelector"]["matchLabels"]}} in (
        policy["ingress"][0]["from"]
    )


def test_what_the_cluster_says_arrives(own_file: Path) -> None:
    found = rendered(a_run("demo", own_file), "prep")
    job = of_kind(found, "Job")
    pod = job["spec"]["template"]["spec"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert pod["priorityClassName"] == "batch"
    assert pod["imagePullSecrets"] == [{"name": "registry-key"}]
    container = pod["containers"][0]
    assert container["image"].startswith("registry.example/team/prep:")
    assert container["envFrom"] == [
        {"secretRef": {"name": "store-keys"}},
        {"secretRef": {"name": "tracker"}},
    ]
    account = of_kind(found, "ServiceAccount")
    assert account["metadata"]["annotations"] == {"example.com/role": "trainer"}
    egress = of_kind(found, "NetworkPolicy")["spec"]["egress"]
    assert egress[1]["to"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "storage"
    }


def test_the_same_bytes_every_time(own_file: Path) -> None:
    first, again = (rendered(a_run("demo", own_file), "train") for _ in range(2))
    assert first == again


def test_a_stage_that_waits_is_suspended_and_leaves_the_queue_to_later(own_file: Path) -> None:
    run = a_run("qwen-32b", own_file)
    values = stage_values(run, "train", CLUSTER, wait=True)
    job = of_kind(list(yaml.safe_load_all(manifests("r", "jobs", values_text(values)))), "Job")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["annotations"] == {
        "thinktune.dev/waits": "true",
        "thinktune.dev/queue": "gpus",
    }
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]


def test_monitoring_is_off_unless_asked_for_and_then_complete(own_file: Path) -> None:
    run = a_run("demo", own_file)
    kinds = {m["kind"] for m in rendered(run, "train")}
    assert not kinds & {"PodMonitor", "PrometheusRule"}
    monitoring = Monitoring(enabled=True, labels={"release": "stack"}, namespace="watch")
    watched = CLUSTER.model_copy(update={"monitoring": monitoring})
    assert {m["kind"] for m in rendered(run, "prep", watched)} == kinds
    found = rendered(run, "train", watched)
    assert kinds | {"PodMonitor", "PrometheusRule"} == {m["kind"] for m in found}
    container = of_kind(found, "Job")["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9400}]
    stalled, silent = of_kind(found, "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert stalled["expr"].endswith("> 900")
    assert silent["expr"].startswith("up{")
    for kind in ("PodMonitor", "PrometheusRule"):
        assert of_kind(found, kind)["metadata"]["labels"]["release"] == "stack"
    (asked,) = of_kind(found, "NetworkPolicy")["spec"]["ingress"]
    assert asked["ports"] == [{"port": 9400, "protocol": "TCP"}]
    (peer,) = asked["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "watch"}
    (dashboard,) = [m for m in found if m["metadata"]["name"].endswith("-dashboard")]
    board = json.loads(dashboard["data"][f"{dashboard['metadata']['name'][:-10]}.json"])
    assert board["title"] == f"thinktune: {run.id}"
    panels = board["panels"]
    asked = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    written = (Path(exporter.__file__)).read_text()
    for name in set(re.findall(r"thinktune_(\w+)", asked + stalled["expr"])):
        assert f'"{name}"' in written, f"nobody exports thinktune_{name}"


ANYWHERE = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}},
    {"ipBlock": {"cidr": "::/0", "except": ["fd00:ec2::254/128"]}},
]
"""Everything but the metadata services of clouds."""


@pytest.mark.parametrize(
    ("url", "to", "port"),
    [
        (
            "http://vllm.models.svc:8000/v1",
            [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}}}],
            None,
        ),
        ("http://10.1.2.3:8000/v1", [{"ipBlock": {"cidr": "10.1.2.3/32"}}], 8000),
        ("http://[fd00::7]:8000/v1", [{"ipBlock": {"cidr": "fd00::7/128"}}], 8000),
        ("https://llm.example.com:8443/v1", ANYWHERE, 8443),
    ],
)
def test_prep_alone_reaches_the_language_model(
    own_file: Path, url: str, to: object, port: int | None
) -> None:
    asked = {"provider": "openai", "model": "m", "base_url": url, "budget": {"tokens": 9}}
    asked["key_secret"] = "llm-key"
    generate = json.dumps({"column": "c", "prompt": "{question}", "llm": asked})
    if url.startswith("http:"):
        generate = generate.replace(', "key_secret": "llm-key"', "")
    run = a_run("demo", own_file, f"data.generate={generate}")
    network = Network(store_namespace="storage", store_ports=(8333,), hub=False)
    cluster = CLUSTER.model_copy(update={"network": network})
    for stage in STAGES:
        made = rendered(run, stage, cluster)
        rules = of_kind(made, "NetworkPolicy")["spec"]["egress"]
        opened = [rule for rule in rules if rule.get("to") == to]
        assert bool(opened) is (stage == "prep")
        if stage == "prep":
            ports = [{"port": port, "protocol": "TCP"}] if port is not None else None
            assert opened[0].get("ports") == ports
        container = of_kind(made, "Job")["spec"]["template"]["spec"]["containers"][0]
        secrets = [each["secretRef"]["name"] for each in container.get("envFrom", ())]
        assert ("llm-key" in secrets) is (stage == "prep" and url.startswith("https"))


def test_evaluation_reaches_its_judge_and_its_endpoints_and_nothing_twice(own_file: Path) -> None:
    asked = {"provider": "openai", "model": "m", "budget": {"tokens": 9}}
    at = {name: asked | {"base_url": f"http://10.1.2.{name}:8000/v1"} for name in "345"}
    endpoints = {"one": {"llm": at["3"]}, "other": {"llm": at["4"]}, "same": {"llm": at["4"]}}
    judge = json.dumps({"llm": at["5"]})
    settings = (f"evaluate.judge={judge}", f"evaluate.endpoints={json.dumps(endpoints)}")
    run = a_run("demo", own_file, *settings)
    opened = {}
    for stage in STAGES:
        rules = of_kind(rendered(run, stage, CLUSTER), "NetworkPolicy")["spec"]["egress"]
        cidrs = [to.get("ipBlock", {}).get("cidr", "") for rule in rules for to in rule["to"]]
        opened[stage] = sorted(cidr for cidr in cidrs if cidr.startswith("10.1.2."))
    assert opened == {
        "prep": [],
        "train": [],
        "evaluate": ["10.1.2.3/32", "10.1.2.4/32", "10.1.2.5/32"],
    }


def test_shards_are_tried_again_one_by_one(own_file: Path) -> None:
    run = a_run("demo", own_file, "evaluate.shards=4")
    made = rendered(run, "evaluate", CLUSTER)
    job = of_kind(made, "Job")["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 4, 4)
    assert job["backoffLimitPerIndex"] > 0
    assert "backoffLimit" not in job
    container = job["template"]["spec"]["containers"][0]
    env = {each["name"]: each for each in container["env"]}
    assert env["THINKTUNE_SHARDS"]["value"] == "4"
    assert "completion-index" in env["THINKTUNE_SHARD"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert "THINKTUNE_NODES" not in env  # they know nothing of each other
    assert not [each for each in made if each["kind"] == "Service"]
    assert "backoffLimitPerIndex" not in of_kind(rendered(run, "train", CLUSTER), "Job")["spec"]


def test_prep_alone_goes_to_the_hub_and_extra_ways_out_are_for_all(own_file: Path) -> None:
    proxy = Egress(cidr="10.0.0.7/32", port=3128)
    network = Network(store_namespace="storage", store_ports=(8333,), extra=(proxy,))
    cluster = CLUSTER.model_copy(update={"network": network})
    run, ways = a_run("demo", own_file), {}
    for stage in STAGES:
        policy = of_kind(rendered(run, stage, cluster), "NetworkPolicy")["spec"]
        ways[stage] = [(rule.get("to"), rule["ports"][0]["port"]) for rule in policy["egress"]]
    assert (ANYWHERE, 443) in ways["prep"]
    assert all(443 not in [port for _, port in ways[s]] for s in ("train", "evaluate"))
    assert all(([{"ipBlock": {"cidr": "10.0.0.7/32"}}], 3128) in each for each in ways.values())
    with pytest.raises(SpecInvalid, match="store_cidrs"):
        Network.parse({"store_cidrs": []}, "cluster.yaml")  # which Kubernetes takes for everybody


def test_dots_of_a_run_are_none_of_its_service(own_file: Path) -> None:
    run = a_run("final-answer-qwen-1.5b", own_file, "nodes=2")
    service = of_kind(rendered(run, "train"), "Service")
    assert "." not in service["metadata"]["name"]


def test_a_model_cache_is_mounted(own_file: Path) -> None:
    cached = CLUSTER.model_copy(update={"model_cache_claim": "models"})
    pod = of_kind(rendered(a_run("demo", own_file), "train", cached), "Job")
    spec = pod["spec"]["template"]["spec"]
    claim = {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    assert claim in spec["volumes"]
    assert {"name": "THINKTUNE_CACHE", "value": "/cache"} in spec["containers"][0]["env"]


def test_the_conductor_may_do_little(own_file: Path) -> None:
    run = a_run("demo", own_file)
    pipeline = pipeline_of(run, STAGES, CLUSTER)
    text = values_text(conductor_of(pipeline, CLUSTER))
    found = list(yaml.safe_load_all(manifests("c", "jobs", text, chart="conductor")))
    rules = of_kind(found, "Role")["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "patch"}
    assert "ClusterRole" not in {m["kind"] for m in found}
    pod = of_kind(found, "Job")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert "nvidia.com/gpu" not in json.dumps(pod)
    told = json.loads(of_kind(found, "ConfigMap")["data"]["pipeline.json"])
    assert [each["release"] for each in told["stages"]] == [f"{run.id}-{s}" for s in STAGES]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resurces": {}}, "resurces"),
        ({"seconds": {"grace": 300, "deadline": 1, "keepFinished": 1, "patience": 2}}, "patience"),
        ({"stage": "serve"}, "stage"),
        ({"topology": {"nodes": 0, "processesPerNode": 1}}, "nodes"),
    ],
)
def test_helm_refuses_wrong_values(own_file: Path, change: Manifest, words: str) -> None:
    values = stage_values(a_run("demo", own_file), "train", CLUSTER)
    text = yaml.safe_dump({**yaml.safe_load(values_text(values)), **change})
    with pytest.raises(SpecInvalid, match=words):
        manifests("r", "jobs", text)


@pytest.mark.parametrize("chart", ["task", "conductor"])
def test_helm_lint_finds_nothing(chart: str, own_file: Path, tmp_path: Path) -> None:
    run = a_run("demo", own_file)
    watched = CLUSTER.model_copy(update={"monitoring": Monitoring(enabled=True)})
    stage = stage_values(run, "train", watched)
    conductor = conductor_of(pipeline_of(run, STAGES, CLUSTER), CLUSTER)
    path = tmp_path / "values.yaml"
    path.write_text(values_text({"task": stage, "conductor": conductor}[chart]))
    chart = str(chart_folder(chart))
    done = subprocess.run(
        ["helm", "lint", "--strict", chart, "-f", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_release_name_that_is_too_long_is_refused() -> None:
    assert release_name("r" * (NAME_LENGTH - 6), "train")
    with pytest.raises(SpecInvalid, match="has 54 letters, and Helm takes 53"):
        release_name("r" * (NAME_LENGTH - 5), "train")


def test_no_helm_and_an_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputMissing, match="helm: not on the PATH"):
        charts.helm("version")
    old = tmp_path / "helm"
    old.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\necho v3.9.4+gdbc6d8e\n")
    old.chmod(0o755)
    with pytest.raises(InputMissing, match=r"it is v3\.9\.4"):
        charts.helm("version")
