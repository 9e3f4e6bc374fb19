"""Each recipe's stages on nodes that are there in name: the real scheduler places them.

The nodes are objects of the API alone, and say that they are ready for as long as a test takes.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from command import Ended, thinktune
from conftest import Place, kubectl, wait_for

from thinktune.launch.cluster.charts import release_name
from thinktune.launch.cluster.install import install, uninstall
from thinktune.launch.cluster.kube import Kube
from thinktune.recipes.compose import load_catalog, load_recipe, recipe_names
from thinktune.schema.stages import STAGES, Stage

CATALOG = load_catalog()
NODES = {
    "a100-40": ("NVIDIA-A100-SXM4-40GB", 4, {"cpu": "48", "memory": "340Gi"}),
    "h100": ("NVIDIA-H100-80GB-HBM3", 8, {"cpu": "208", "memory": "1900Gi"}),
    "l4": ("NVIDIA-L4", 4, {"cpu": "48", "memory": "192Gi"}),
    "t4": ("Tesla-T4", 1, {"cpu": "16", "memory": "60Gi"}),
    "plain": (None, 0, {"cpu": "16", "memory": "64Gi"}),
}
"""As clouds sell them and NVIDIA's feature discovery labels them, not as our catalog says."""
WHERE = {
    "demo": "plain",
    "final-answer-judged": "a100-40",
    "final-answer-qwen-1.5b": "a100-40",
    "final-answer-written": "a100-40",
    "llama-70b": "h100",
    "math-qwen-1.5b": "t4",
    "medical-cot-llama-8b": "l4",
    "medical-cot-llama-8b-full": "h100",
    "medical-cot-small": "t4",
    "qwen-14b": "l4",
    "qwen-32b": "a100-40",
    "qwen-32b-judged": "a100-40",
}
GPUS = {"qwen-32b": 4, "qwen-32b-judged": 4, "qwen-14b": 4, "llama-70b": 4, "demo": 0}
"""Of a training; 1 where nothing is said."""
BEAT_S = 10.0


def node(name: str, product: str | None, gpus: int, sizes: dict[str, str]) -> None:
    """A node that says it is ready."""
    labels = {"kubernetes.io/hostname": name, "named": "true"}
    taints = [{"key": "named", "value": "true", "effect": "NoSchedule"}]
    sizes = sizes | {"ephemeral-storage": "4000Gi", "pods": "110"}
    if product is not None:
        labels["nvidia.com/gpu.product"] = product
        taints.append({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"})
        sizes["nvidia.com/gpu"] = str(gpus)
    body = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    patch = json.dumps({"status": {"capacity": sizes, "allocatable": sizes}})
    kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)


def heartbeat(name: str) -> None:
    """What its kubelet would say."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "True", "reason": "InName", "message": ""}
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    patch = json.dumps({"status": {"conditions": [ready | times]}})
    kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)
    # A controller may have put them on a node that was silent for a moment.
    for taint in ("not-ready", "unreachable"):
        command = ["kubectl", "taint", "node", name, f"node.kubernetes.io/{taint}-"]
        subprocess.run(command, capture_output=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[None]:
    over = threading.Event()

    def keep_ready() -> None:
        while True:
            for name in NODES:
                heartbeat(f"named-{name}")
            if over.wait(BEAT_S):
                return

    beating = threading.Thread(target=keep_ready)
    try:
        for name, (product, gpus, sizes) in NODES.items():
            node(f"named-{name}", product, gpus, sizes)
        beating.start()
        yield
    finally:
        over.set()
        if beating.ident is not None:
            beating.join()
        kubectl("delete", "node", *(f"named-{name}" for name in NODES), "--ignore-not-found")


@pytest.fixture(scope="module")
def there(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster file for these nodes alone: they stand apart by a taint and a label."""
    toleration = {"key": "named", "operator": "Exists"}
    nvidia = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    selector = {"named": "true"}
    return place.changed(
        "named",
        tmp_path_factory.mktemp("named"),
        cpu_nodes={"node_selector": selector, "tolerations": [toleration]},
        gpu_nodes={"node_selector": selector, "tolerations": [toleration, nvidia]},
    )


@pytest.mark.parametrize("name", recipe_names())
def test_each_stage_goes_where_its_hardware_entry_says(
    place: Place, nodes: None, there: Path, name: str, tmp_path: Path
) -> None:
    recipe = load_recipe(name, (), catalog=CATALOG)
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "q", "answer": "a"}\n')
    changes = ("--set", f"data.path={own}") if recipe.data.dataset == "file" else ()
    run = f"at-{name}"[:40]
    options = ("--run", run, "--out", str(tmp_path / "out"), "--cluster", str(there), *changes)
    rendered = shipped(place, "render", name, *options)
    assert rendered.code == 0, rendered.err
    wanted = {"prep": 0, "train": GPUS.get(name, 1), "evaluate": min(1, GPUS.get(name, 1))}
    for stage in STAGES:
        file = tmp_path / "out" / run / f"{stage}.yaml"
        kubectl("apply", "--dry-run=server", "-f", str(file))  # the API server takes all of it
        pod = placed(place, run, stage, file.with_suffix(".values.yaml").read_text())
        at = WHERE[name] if wanted[stage] else "plain"
        assert pod["spec"]["nodeName"] == f"named-{at}"
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert int(limits.get("nvidia.com/gpu", 0)) == wanted[stage]


def placed(place: Place, run: str, stage: Stage, values: str) -> dict[str, Any]:
    """The stage's pod, once the scheduler has chosen a node; nothing of it is left."""
    release, kube = release_name(run, stage), Kube(place.namespace)
    assert install(release, "task", kube, values) is None
    try:
        wait_for(lambda: where(place, release) is not None, 30, f"a node for {release}")
        return place.pods(release)[0]
    finally:
        # No kubelet is there to end them.
        force = ("--force", "--grace-period=0", "--ignore-not-found")
        place.kubectl("delete", "job", release, "--cascade=background")
        place.kubectl("delete", "pods", "-l", f"job-name={release}", *force)
        uninstall(release, run, kube)


def shipped(place: Place, *arguments: str) -> Ended:
    """The launcher with the recipes that ship."""
    return thinktune(*arguments, more=place.environment)


def where(place: Place, release: str) -> str | None:
    """The node of the release's pod."""
    found = place.pods(release)
    return found[0]["spec"].get("nodeName") if found else None
