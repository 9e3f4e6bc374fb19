"""Chart values of a server, from its runs, its size and the cluster: the same in, the same out.

Called by `serve` and by tools that render examples.
"""

import math
from dataclasses import dataclass
from typing import Final

from thinktune.launch.cluster.charts import release_name
from thinktune.launch.serving.sizing import ServerSize
from thinktune.launch.values import access_of, endpoint_of, image_of, placement_of
from thinktune.schema.catalog import HardwareEntry
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.serve import SLOW_TIMES, USUAL_TIMES, ServeTask, ServeTimes
from thinktune.schema.serve_values import (
    AutoscalingValues,
    ExposeValues,
    GatewayValues,
    RolloutValues,
    ServeMonitoringValues,
    ServeTimeValues,
    ServeValues,
    Workload,
)
from thinktune.schema.served import SERVED_FILE, Desired
from thinktune.schema.serving import ServeExecution
from thinktune.schema.stages import Stage
from thinktune.schema.values import ResourceValues, StorageValues

SERVE: Final = "serve"
SERVE_IMAGE: Stage = "evaluate"
"""The stage whose image serves: that of evaluation has vLLM, transformers and the gateway. What
judged a run then serves it, to the version, and a node that did one has the image for the other."""
PORT = 8080
KEY_ENTRY = "key"
PRE_STOP_S = 15
"""Endpoints take some seconds to reach every node and every ingress controller."""
GRACE_MARGIN_S = 30
CHECK_S = 5
"""Seconds between two startup probes, as in the chart."""
PROGRESS_MARGIN_S = 300
"""For pulling the image and finding a node."""
SOCKETS = {"NCCL_SOCKET_IFNAME": "eth0", "GLOO_SOCKET_IFNAME": "eth0"}
"""The interface of a pod's network, where several nodes serve one model."""


@dataclass(frozen=True)
class ServerFacts:
    """A server as it is asked for."""

    name: str
    desired: Desired
    task: ServeTask
    size: ServerSize
    replicas: int
    workload: Workload


def server_release(name: str) -> str:
    """Name of a server's Helm release. Raises SpecInvalid where Helm would refuse its length."""
    return release_name(name, SERVE)


def key_secret_of(name: str, cluster: Cluster) -> str:
    """Name of the Secret with the key that clients send."""
    return cluster.serve.key_secret or f"{server_release(name)}-key"


def usual_times(execution: ServeExecution | None) -> ServeTimes:
    """Those of a server for which nobody sets others."""
    return SLOW_TIMES if execution is None else USUAL_TIMES


def server_task(name: str, task: ServeTask, size: ServerSize, slots: int) -> ServeTask:
    """The task as the pod reads it: what is asked for, with what the chart and the plan decide."""
    asked = {name: getattr(task.times, name) for name in task.times.model_fields_set}
    times = usual_times(size.execution).model_copy(update=asked | {"start_s": float(size.start_s)})
    changes = {
        # Which runs it serves changes without a new pod, so no pod is told here.
        "run": name,
        "unpromoted": False,
        "host": "0.0.0.0",
        "port": PORT,
        "key_file": "/etc/thinktune-key/key",
        "server": name,
        "desired_file": f"/etc/thinktune-adapters/{SERVED_FILE}",
        "adapters": slots,
        "execution": size.execution,
        "window": size.window,
        "times": times,
    }
    return task.model_copy(update=changes)


def serve_values(
    facts: ServerFacts, hardware: HardwareEntry, cluster: Cluster, version: str
) -> ServeValues:
    """Values of `charts/serve`; `version` is the images' where the cluster names no other."""
    size, settings = facts.size, cluster.serve
    placement = placement_of(SERVE_IMAGE, size.gpus, size.hardware, hardware, cluster)
    startup_s = size.fetch_s + size.start_s
    expose = settings.expose
    sockets = SOCKETS if size.nodes > 1 else {}
    env = {**sockets, **endpoint_of(cluster), "HF_HUB_OFFLINE": "1", **cluster.env}
    return ServeValues(
        server=facts.name,
        task=facts.task.canonical(),
        served=facts.desired.canonical(),
        workload=facts.workload,
        hardware=size.hardware,
        replicas=facts.replicas,
        nodes=size.nodes,
        image=image_of(SERVE_IMAGE, cluster, version),
        rollout=_rollout(facts, cluster),
        resources=ResourceValues(
            gpus=size.gpus,
            cpu_millis=size.cpu_millis,
            memory_mib=size.memory_mib,
            disk_gib=size.disk_gib,
            shm_mib=size.shm_mib,
        ),
        seconds=ServeTimeValues(
            startup_checks=math.ceil(startup_s / CHECK_S),
            progress=startup_s + PROGRESS_MARGIN_S,
            pre_stop=PRE_STOP_S,
            grace=math.ceil(PRE_STOP_S + facts.task.times.grace_s + GRACE_MARGIN_S),
        ),
        # A queue admits what ends. A server in it would keep its place for good.
        placement=placement.model_copy(update={"queue": None}),
        storage=StorageValues(
            scratch_storage_class=cluster.scratch_storage_class,
            cache_claim=cluster.model_cache_claim,
        ),
        access=access_of(SERVE, cluster),
        gateway=GatewayValues(
            port=PORT,
            key_secret=key_secret_of(facts.name, cluster),
            key_entry=KEY_ENTRY,
            client_namespaces=_client_namespaces(cluster),
        ),
        expose=ExposeValues.model_validate(expose.model_dump()) if expose else None,
        autoscaling=_autoscaling(facts, cluster),
        monitoring=ServeMonitoringValues(
            enabled=cluster.monitoring.enabled,
            labels=cluster.monitoring.labels,
            stalled_after_seconds=_stalled_after(facts, cluster),
            waiting=settings.waiting,
        ),
        env=dict(sorted(env.items())),
    )


def _client_namespaces(cluster: Cluster) -> tuple[str, ...]:
    """Metrics come from the port of the clients, so that who scrapes them is one. Raises
    SpecInvalid where nobody says who that is."""
    named, monitoring = cluster.serve.client_namespaces, cluster.monitoring
    if not named or not monitoring.enabled:
        return named
    if monitoring.namespace is None:
        fault = "serve.client_namespaces keeps out whoever scrapes metrics"
        raise SpecInvalid("monitoring.namespace", fault, "name the namespace of Prometheus there")
    return tuple(dict.fromkeys((*named, monitoring.namespace)))


def _stalled_after(facts: ServerFacts, cluster: Cluster) -> int:
    """Seconds without a token after which the alert fires. Raises SpecInvalid for so many that the
    engine is killed, and the count begins anew, before it can."""
    asked, hung_s = cluster.serve.stalled_after_seconds, facts.task.times.hung_s
    if asked is None:
        return max(1, math.floor(hung_s / 2))
    if cluster.monitoring.enabled and asked >= hung_s:
        fault = f"the alert would never fire: after {hung_s:g} seconds the engine is killed"
        remedy = f"set fewer than {hung_s:g}, leave it out, or raise --set times.hung_s"
        raise SpecInvalid("serve.stalled_after_seconds", fault, remedy)
    return asked


def _rollout(facts: ServerFacts, cluster: Cluster) -> RolloutValues:
    """A new pod first where that costs no GPU, or where a single one serves: it would pause."""
    surge = cluster.serve.surge
    if surge is None:
        surge = not facts.size.gpus or facts.replicas == 1
    return RolloutValues(max_surge=int(surge), max_unavailable=int(not surge))


def _autoscaling(facts: ServerFacts, cluster: Cluster) -> AutoscalingValues | None:
    """Raises SpecInvalid for a server that cannot be scaled."""
    asked = cluster.serve.autoscaling
    if asked is None:
        return None
    if facts.workload == "statefulset":
        fault = "without LeaderWorkerSet, several nodes are one server, which nothing scales"
        remedy = "install it (https://lws.sigs.k8s.io), or use a cluster file without autoscaling"
        raise SpecInvalid("serve.autoscaling", fault, remedy)
    return AutoscalingValues(
        by=asked.by,
        min_replicas=facts.replicas,
        max_replicas=max(asked.max_replicas, facts.replicas),
        requests=asked.requests,
        waiting=asked.waiting,
        kv_use_percent=asked.kv_use_percent,
        prometheus=asked.prometheus or "",
    )
