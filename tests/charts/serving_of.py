"""Servers and what the serve chart renders of them, for all tests of that chart."""

from typing import Any

import yaml
from charts_of import CATALOG, CLUSTER, Manifest

import thinktune
from thinktune.launch.cluster.charts import manifests, values_text
from thinktune.launch.serving.artifacts import Servable
from thinktune.launch.serving.sizing import ServeWishes, size_server
from thinktune.launch.serving.values import (
    ServerFacts,
    serve_values,
    server_release,
    server_task,
)
from thinktune.schema.cluster import Cluster
from thinktune.schema.serve import ServeTask
from thinktune.schema.serve_values import ServeValues, Workload
from thinktune.schema.served import Desired, DesiredRun

SERVER = "audit"


def a_servable(model: str, run: str = "r", rank: int = 16, **changes: Any) -> Servable:
    entry = CATALOG.models[model]
    given: dict[str, Any] = {
        "desired": DesiredRun(run=run, train_sha256="0" * 64),
        "model_name": model,
        "model": entry,
        "revision": entry.revision,
        "base": "nf4",
        "base_sha256": "1" * 64,
        "rank": rank,
        "targets": entry.lora_targets,
        "unplaced": (),
        "judged": "promoted by its evaluation",
        "created": "2026-11-22T10:00:00+00:00",
    }
    return Servable(**(given | changes))


def a_server(
    model: str = "smollm2-135m",
    hardware: str = "cpu",
    *,
    cluster: Cluster = CLUSTER,
    replicas: int = 1,
    nodes: int | None = None,
    workload: Workload = "deployment",
    **wishes: Any,
) -> ServeValues:
    run = a_servable(model)
    asked = ServeWishes(nodes=nodes, **wishes)
    size = size_server([run], hardware, asked, CATALOG.hardware)
    task = server_task(SERVER, ServeTask(run="r", store=cluster.store), size, asked.slots)
    facts = ServerFacts(
        name=SERVER,
        desired=Desired(revision=1, runs=(run.desired,)),
        task=task,
        size=size,
        replicas=replicas,
        workload=workload,
    )
    return serve_values(facts, CATALOG.hardware[hardware], cluster, thinktune.__version__)


def rendered(values: ServeValues) -> list[Manifest]:
    release = server_release(values.server)
    text = manifests(release, "jobs", values_text(values), chart="serve")
    return [each for each in yaml.safe_load_all(text) if each]
