"""Runs and what the task chart renders of them, for all tests of the charts."""

from pathlib import Path
from typing import Any

import yaml
from thinktune.schema.stages import Stage

from thinktune.launch.cluster.charts import manifests, release_name, values_text
from thinktune.launch.runs import Run, make_run, stage_values
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.cluster import Cluster, Identity, Images, Network

CATALOG = load_catalog()
CLUSTER = Cluster(
    store="s3://bucket/prefix",
    namespace="jobs",
    images=Images(registry="registry.example/team", pull_secrets=("registry-key",)),
    identity=Identity(annotations={"example.com/role": "trainer"}, secret="store-keys"),
    network=Network(store_namespace="storage", store_ports=(8333,)),
    priority_class="batch",
    queue="gpus",
    env={"AWS_REGION": "eu-west-1"},
    env_from_secrets=("tracker",),
)
Manifest = dict[str, Any]


def a_run(name: str, own_file: Path, *changes: str) -> Run:
    given = load_recipe(name, changes, catalog=CATALOG)
    if given.data.path is not None:
        given = load_recipe(name, (*changes, f"data.path={own_file}"), catalog=CATALOG)
    return make_run(given, CATALOG, CLUSTER.store)


def rendered(run: Run, stage: Stage, cluster: Cluster = CLUSTER) -> list[Manifest]:
    text = values_text(stage_values(run, stage, cluster))
    return list(yaml.safe_load_all(manifests(release_name(run.id, stage), "jobs", text)))


def of_kind(found: list[Manifest], kind: str) -> Manifest:
    return next(manifest for manifest in found if manifest["kind"] == kind)
