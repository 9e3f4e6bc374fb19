"""Each recipe's training on nodes that are there in name: the real scheduler places it.

The nodes are objects of the API alone, ready for as long as a test takes.
"""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from command import Ended, thinktune
from conftest import Place, kubectl, wait_for

from thinktune.launch.charts import release_name
from thinktune.launch.install import install
from thinktune.launch.kube import Kube
from thinktune.spec.compose import load_catalog, load_recipe, recipe_names
from thinktune.spec.task import STAGES

CATALOG = load_catalog()
SIZES = {"cpu": "100", "memory": "2000Gi", "ephemeral-storage": "8000Gi", "pods": "110"}
PRODUCTS = {
    name: (CATALOG.hardware[name].product, CATALOG.hardware[name].num_gpus)
    for name in {load_recipe(r, (), catalog=CATALOG).hardware for r in recipe_names()}
    if CATALOG.hardware[name].num_gpus
}


def node(name: str, product: str, gpus: int) -> None:
    """A node that says it is ready."""
    labels = {"nvidia.com/gpu.product": product, "kubernetes.io/hostname": name}
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    body = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [taint]},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "True", "reason": "InName", "message": ""}
    sizes = SIZES | {"nvidia.com/gpu": str(gpus)}
    status = {
        "capacity": sizes,
        "allocatable": sizes,
        "conditions": [ready | {"lastHeartbeatTime": now, "lastTransitionTime": now}],
    }
    patch = json.dumps({"status": status})
    kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)
    # A controller may have put it on a node that was not ready yet.
    taint_name = "node.kubernetes.io/not-ready"
    subprocess.run(["kubectl", "taint", "node", name, f"{taint_name}-"], capture_output=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[None]:
    names = []
    try:
        for hardware, (product, gpus) in PRODUCTS.items():
            names.append(f"named-{hardware}")
            node(names[-1], str(product), gpus)
        yield
    finally:
        kubectl("delete", "node", *names, "--ignore-not-found")


@pytest.mark.parametrize(
    "name", [r for r in recipe_names() if load_recipe(r, (), catalog=CATALOG).hardware != "cpu"]
)
def test_a_training_goes_where_its_hardware_entry_says(
    place: Place, nodes: None, name: str, tmp_path: Path
) -> None:
    recipe = load_recipe(name, (), catalog=CATALOG)
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "q", "answer": "a"}\n')
    changes = ("--set", f"data.path={own}") if recipe.data.dataset == "file" else ()
    run = f"at-{name}"[:40]
    folder = str(tmp_path / "out")
    options = ("--run", run, "--out", folder, *changes)
    rendered = shipped(place, "render", name, *options)
    assert rendered.code == 0, rendered.err
    for stage in STAGES:
        file = str(tmp_path / "out" / run / f"{stage}.yaml")
        place.kubectl("apply", "--dry-run=server", "-f", file)  # the API server takes all of it
    values = (tmp_path / "out" / run / "train.values.yaml").read_text()
    release = release_name(run, "train")
    assert install(release, "task", Kube(place.namespace), values)
    try:
        wait_for(lambda: where(place, release) is not None, 30, f"a node for {name}")
        pod: dict[str, Any] = place.pods(release)[0]
        entry = CATALOG.hardware[recipe.hardware]
        fit = [h for h, (p, n) in PRODUCTS.items() if p == entry.product and n >= entry.num_gpus]
        assert pod["spec"]["nodeName"] in [f"named-{hardware}" for hardware in fit]
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert int(limits["nvidia.com/gpu"]) == CATALOG.hardware[recipe.hardware].num_gpus
        if name == "qwen-32b":
            assert limits["nvidia.com/gpu"] == "4"
    finally:
        place.helm("uninstall", release)
        force = ("--force", "--grace-period=0", "--ignore-not-found")
        place.kubectl("delete", "pods", "-l", f"job-name={release}", *force)


def shipped(place: Place, *arguments: str) -> Ended:
    """The launcher with the recipes that ship."""
    return thinktune(*arguments, "--cluster", str(place.description), more=place.environment)


def where(place: Place, release: str) -> str | None:
    """The node of the release's pod."""
    found = place.pods(release)
    return found[0]["spec"].get("nodeName") if found else None
