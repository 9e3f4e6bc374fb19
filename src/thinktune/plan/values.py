"""Chart values of a stage, from its task, the plan and the cluster: the same in, the same out.

Called by the launcher's `render` and `submit`.
"""

import math

from thinktune.plan.plan import Plan
from thinktune.spec.catalog import GIB, HardwareEntry
from thinktune.spec.cluster import Cluster
from thinktune.spec.exit_codes import MEANING, Action
from thinktune.spec.task import STAGES, Stage, StageTask
from thinktune.spec.values import (
    AccessValues,
    ConductorValues,
    FailureValues,
    ImageValues,
    MonitoringValues,
    PlacementValues,
    ResourceValues,
    StorageValues,
    TaskValues,
    TimeValues,
    TopologyValues,
)

MIB = 1024**2
BACKOFF_LIMIT = 3
LEAST_GRACE_S = 300
PREP_CPU_MILLIS, PREP_MEMORY_MIB = 4000, 16 * 1024
"""Tokenising is the whole of it; weights pass through, a file at a time."""
NODE_SHARE = 0.9
"""Of a node's CPUs and memory: the rest is the kubelet's and the daemons'."""


def task_values(
    task: StageTask,
    stage: Stage,
    plan: Plan,
    hardware: HardwareEntry,
    cluster: Cluster,
    version: str,
    *,
    wait: bool = False,
) -> TaskValues:
    """Values of `charts/task` for one stage; `version` is the images' where the cluster names no
    other. With `wait`, the Job starts when it is told to."""
    gpus = _gpus(stage, hardware)
    nodes = plan.topology.nodes if stage == "train" else 1
    return TaskValues(
        run=task.run,
        stage=stage,
        task=task.canonical(),
        wait=wait,
        image=_image(stage, cluster, version),
        topology=TopologyValues(
            nodes=nodes,
            processes_per_node=max(1, gpus) if stage == "train" else 1,
        ),
        resources=_resources(stage, plan, hardware),
        failure=FailureValues(
            fail_codes=_codes("fail"),
            ignore_codes=_codes("ignore"),
            # When a pod fails, those of the other nodes end with it, and each counts.
            backoff_limit=BACKOFF_LIMIT * nodes,
        ),
        seconds=TimeValues(
            grace=max(LEAST_GRACE_S, plan.grace_s if stage == "train" else 0),
            deadline=3600 * cluster.deadline_hours,
            keep_finished=3600 * cluster.keep_finished_hours,
        ),
        placement=_placement(gpus, hardware, cluster),
        storage=StorageValues(
            scratch_storage_class=cluster.scratch_storage_class,
            cache_claim=cluster.model_cache_claim,
        ),
        access=_access(stage, cluster),
        monitoring=MonitoringValues(
            enabled=cluster.monitoring.enabled and stage == "train",
            port=cluster.monitoring.port,
            stalled_after_seconds=cluster.monitoring.stalled_after_seconds,
        ),
        env=_env(cluster),
    )


def conductor_values(run: str, conduct: str, cluster: Cluster, version: str) -> ConductorValues:
    """Values of `charts/conductor`, which runs in the image of prep and needs no GPU."""
    return ConductorValues(
        run=run,
        conduct=conduct,
        image=_image("prep", cluster, version),
        placement=PlacementValues(
            node_selector=cluster.node_selector,
            tolerations=(),
            priority_class=cluster.priority_class,
            queue=None,
        ),
        # Each stage has its own deadline, and may wait for a node besides.
        deadline_seconds=3600 * cluster.deadline_hours * (len(STAGES) + 1),
        keep_finished_seconds=3600 * cluster.keep_finished_hours,
        access=_access("evaluate", cluster),
        api_cidrs=cluster.network.api_cidrs,
        api_ports=cluster.network.api_ports,
        env=_env(cluster),
    )


def _gpus(stage: Stage, hardware: HardwareEntry) -> int:
    """Of one pod. Evaluation is one process on one device."""
    most = {"prep": 0, "train": hardware.num_gpus, "evaluate": 1}
    return min(most[stage], hardware.num_gpus)


def _codes(action: Action) -> tuple[int, ...]:
    return tuple(sorted(code.value for code, (_, does) in MEANING.items() if does == action))


def _image(stage: Stage, cluster: Cluster, version: str) -> ImageValues:
    images = cluster.images
    name = f"{images.registry}/{stage}"
    digest = images.digests.get(stage)
    return ImageValues(
        reference=f"{name}@{digest}" if digest else f"{name}:{images.tag or version}",
        pull_policy=images.pull_policy,
        pull_secrets=images.pull_secrets,
    )


def _resources(stage: Stage, plan: Plan, hardware: HardwareEntry) -> ResourceValues:
    disk = math.ceil(plan.disk_bytes / GIB)
    shm = math.ceil(plan.shm_bytes / MIB)
    cpus = math.floor(1000 * hardware.cpus * NODE_SHARE)
    if stage == "prep":
        cpus = min(PREP_CPU_MILLIS, cpus)
        memory = min(PREP_MEMORY_MIB, math.floor(hardware.host_memory_gib * 1024 * NODE_SHARE))
        return ResourceValues(gpus=0, cpu_millis=cpus, memory_mib=memory, disk_gib=disk, shm_mib=64)
    # Memory-backed files count towards the pod's memory.
    memory = math.ceil(plan.host_memory_bytes / MIB) + shm
    gpus = _gpus(stage, hardware)
    return ResourceValues(
        gpus=gpus,
        # Its share of the node's.
        cpu_millis=cpus * gpus // hardware.num_gpus if gpus else cpus,
        memory_mib=memory,
        disk_gib=disk,
        shm_mib=shm,
    )


def _placement(gpus: int, hardware: HardwareEntry, cluster: Cluster) -> PlacementValues:
    selector = dict(cluster.node_selector)
    if gpus and hardware.product is not None:
        selector["nvidia.com/gpu.product"] = hardware.product
    return PlacementValues(
        node_selector=selector,
        tolerations=cluster.tolerations if gpus else (),
        priority_class=cluster.priority_class,
        queue=cluster.queue,
    )


def _access(stage: Stage, cluster: Cluster) -> AccessValues:
    identity, network = cluster.identity, cluster.network
    own = (identity.secret, identity.model_hub_secret if stage == "prep" else None)
    return AccessValues(
        service_account_annotations=identity.annotations,
        secrets=(*(name for name in own if name), *cluster.env_from_secrets),
        network_policy=network.policy,
        store_cidrs=network.store_cidrs,
        store_ports=network.store_ports,
        store_namespace=network.store_namespace,
        hub=network.hub and stage == "prep",
        extra=network.extra,
    )


def _env(cluster: Cluster) -> dict[str, str]:
    endpoint = {"AWS_ENDPOINT_URL_S3": cluster.store_endpoint} if cluster.store_endpoint else {}
    return dict(sorted({**endpoint, **cluster.env}.items()))
