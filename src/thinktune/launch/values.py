"""Chart values of a stage, from its task, the plan and the cluster: the same in, the same out.

Called by the launcher's `render` and `submit`.
"""

import ipaddress
import math
from collections.abc import Sequence

from thinktune.launch.cluster.capacity import PRODUCT
from thinktune.plan.prep import NODE_SHARE, pod_memory
from thinktune.plan.training.plan import Plan
from thinktune.schema.catalog import GIB, HardwareEntry
from thinktune.schema.cluster import Cluster, Nodes, Part, Prep, Toleration
from thinktune.schema.exit_codes import EXIT_CODES, Action
from thinktune.schema.llm import LlmSpec
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.recipe import MERGED
from thinktune.schema.stages import STAGE_INFO, STAGES, EvaluateTask, PrepTask, Stage
from thinktune.schema.task import StageTask
from thinktune.schema.values import (
    AccessValues,
    ConductorValues,
    EndpointValues,
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
TAINT = Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
"""The toleration of the taint that GPU nodes have in nearly every cluster."""
BACKOFF_LIMIT = 3
CONDUCTOR_IMAGE: Stage = "prep"
"""The smallest image that has the launcher in it."""
LEAST_GRACE_S = 300
PREP_CPU_MILLIS = 3000
"""What clouds leave of a node with 4 CPUs."""


def task_values(
    task: StageTask,
    stage: Stage,
    plan: Plan,
    hardware_name: str,
    hardware: HardwareEntry,
    cluster: Cluster,
    version: str,
    *,
    wait: bool = False,
) -> TaskValues:
    """Values of `charts/task` for one stage; `version` is the images' where the cluster names no
    other. With `wait`, the Job starts when it is told to."""
    gpus = _gpus(stage, hardware)
    distributed = STAGE_INFO[stage].gpus == "all"
    nodes = plan.topology.nodes if distributed else 1
    return TaskValues(
        run=task.run,
        stage=stage,
        task=task.canonical(),
        wait=wait,
        image=image_of(stage, cluster, version),
        topology=TopologyValues(
            nodes=nodes,
            processes_per_node=max(1, gpus) if distributed else 1,
            shards=task.evaluate.shards if isinstance(task, EvaluateTask) else 1,
        ),
        resources=_resources(stage, plan, hardware, cluster.prep, _merged_bytes(task)),
        failure=FailureValues(
            fail_codes=_codes("fail"),
            ignore_codes=_codes("ignore"),
            # When a pod fails, those of the other nodes end with it, and each counts.
            backoff_limit=BACKOFF_LIMIT * nodes,
        ),
        seconds=TimeValues(
            grace=max(LEAST_GRACE_S, plan.grace_s if distributed else 0),
            deadline=3600 * cluster.deadline_hours,
            keep_finished=3600 * cluster.keep_finished_hours,
        ),
        placement=placement_of(stage, gpus, hardware_name, hardware, cluster),
        storage=StorageValues(
            scratch_storage_class=cluster.scratch_storage_class,
            cache_claim=cluster.model_cache_claim,
        ),
        access=access_of(stage, cluster, [llm for _, llm in asked_models(task)]),
        monitoring=MonitoringValues(
            enabled=cluster.monitoring.enabled and distributed,
            labels=cluster.monitoring.labels,
            namespace=cluster.monitoring.namespace,
            port=cluster.monitoring.port,
            stalled_after_seconds=cluster.monitoring.stalled_after_seconds,
        ),
        env=_env(stage, cluster),
    )


def conductor_values(pipeline: Pipeline, cluster: Cluster, version: str) -> ConductorValues:
    """Values of `charts/conductor`, which runs in the image of prep and needs no GPU."""
    return ConductorValues(
        run=pipeline.run,
        pipeline=pipeline.canonical(),
        jobs=tuple(each.release for each in pipeline.stages),
        image=image_of(CONDUCTOR_IMAGE, cluster, version),
        placement=_placement(cluster.cpu_nodes, {}, cluster, queue=None),
        # Each stage has its own deadline, and may wait for a node besides.
        fail_codes=_codes("fail"),
        ignore_codes=_codes("ignore"),
        deadline_seconds=3600 * cluster.deadline_hours * (len(STAGES) + 1),
        keep_finished_seconds=3600 * cluster.keep_finished_hours,
        access=access_of("conductor", cluster),
        api_cidrs=cluster.network.api_cidrs,
        api_ports=cluster.network.api_ports,
        env=endpoint_of(cluster) | cluster.env,
    )


def _gpus(stage: Stage, hardware: HardwareEntry) -> int:
    """Number of GPUs that one pod of the stage requests."""
    most = {"none": 0, "one": 1, "all": hardware.num_gpus}
    return min(most[STAGE_INFO[stage].gpus], hardware.num_gpus)


def _codes(action: Action) -> tuple[int, ...]:
    return tuple(sorted(code.value for code, (_, does) in EXIT_CODES.items() if does == action))


def image_of(stage: Stage, cluster: Cluster, version: str) -> ImageValues:
    """The image of a stage, as the cluster file has it."""
    images = cluster.images
    name = STAGE_INFO[stage].image
    image, digest = f"{images.registry}/{name}", images.digests.get(name)
    return ImageValues(
        reference=f"{image}@{digest}" if digest else f"{image}:{images.tag or version}",
        pull_policy=images.pull_policy,
        pull_secrets=images.pull_secrets,
    )


def _merged_bytes(task: StageTask) -> int:
    """Disk of the merged copy that an evaluation makes, in 16 bits."""
    merges = isinstance(task, EvaluateTask) and set(task.evaluate.precisions) & set(MERGED)
    return 2 * task.model.parameters if merges else 0


def _resources(
    stage: Stage, plan: Plan, hardware: HardwareEntry, prep: Prep, more_disk: int
) -> ResourceValues:
    disk = math.ceil((plan.disk_bytes + more_disk) / GIB)
    shm = math.ceil(plan.shm_bytes / MIB)
    cpus = math.floor(1000 * hardware.cpus * NODE_SHARE)
    if STAGE_INFO[stage].gpus == "none":
        cpus = 1000 * prep.cpus if prep.cpus else min(PREP_CPU_MILLIS, cpus)
        memory = pod_memory(prep.memory_gib, hardware) // MIB
        return ResourceValues(gpus=0, cpu_millis=cpus, memory_mib=memory, disk_gib=disk, shm_mib=64)
    # Memory-backed files count towards the pod's memory.
    memory = math.ceil(plan.host_memory_bytes / MIB) + shm
    gpus = _gpus(stage, hardware)
    return ResourceValues(
        gpus=gpus,
        # The CPUs are divided as the GPUs are.
        cpu_millis=cpus * gpus // hardware.num_gpus if gpus else cpus,
        memory_mib=memory,
        disk_gib=disk,
        shm_mib=shm,
    )


def placement_of(
    stage: Stage, gpus: int, name: str, hardware: HardwareEntry, cluster: Cluster
) -> PlacementValues:
    """Where the pods of a stage go that request that many GPUs of a hardware entry."""
    section, nodes = nodes_for(stage, gpus, name, cluster)
    by_label = gpus and not (section.startswith("hardware_nodes") and nodes.node_selector)
    product = {PRODUCT: hardware.product} if by_label and hardware.product else {}
    if gpus and TAINT not in nodes.tolerations:
        nodes = nodes.model_copy(update={"tolerations": (*nodes.tolerations, TAINT)})
    return _placement(nodes, product, cluster, queue=cluster.queue)


def nodes_for(stage: Stage, gpus: int, hardware: str, cluster: Cluster) -> tuple[str, Nodes]:
    """Which section of the cluster file says where a stage goes, by name, and what it says."""
    if STAGE_INFO[stage].gpus != "none" and hardware in cluster.hardware_nodes:
        return f"hardware_nodes.{hardware}", cluster.hardware_nodes[hardware]
    return ("gpu_nodes", cluster.gpu_nodes) if gpus else ("cpu_nodes", cluster.cpu_nodes)


def _placement(
    nodes: Nodes, besides: dict[str, str], cluster: Cluster, *, queue: str | None
) -> PlacementValues:
    return PlacementValues(
        node_selector=nodes.node_selector | besides,
        tolerations=nodes.tolerations,
        priority_class=cluster.priority_class,
        queue=queue,
    )


def asked_models(task: StageTask) -> list[tuple[str, LlmSpec]]:
    """The language models that a stage asks, each with the setting by which it does."""
    if isinstance(task, PrepTask) and task.data.generate is not None:
        return [("data.generate", task.data.generate.llm)]
    if not isinstance(task, EvaluateTask):
        return []
    spec = task.evaluate
    judge = [("evaluate.judge", spec.judge.llm)] if spec.judge is not None else []
    return judge + [(f"evaluate.endpoints.{name}", e.llm) for name, e in spec.endpoints.items()]


def access_of(part: Part, cluster: Cluster, asked: Sequence[LlmSpec] = ()) -> AccessValues:
    """Who a pod is and what it may connect to, the language models that it asks included."""
    identity, network = cluster.identity, cluster.network
    namespace, ports = cluster.store_location
    own = [identity.secret, identity.model_hub_secret if _reaches_hub(part) else None]
    own += [llm.key_secret for llm in asked]
    return AccessValues(
        service_account=identity.service_accounts.get(part),
        service_account_annotations=identity.annotations,
        pod_labels=identity.pod_labels,
        secrets=(*dict.fromkeys(name for name in own if name), *cluster.env_from_secrets),
        network_policy=network.policy,
        store_cidrs=network.store_cidrs,
        store_ports=ports,
        store_namespace=namespace,
        hub=network.hub and _reaches_hub(part),
        language_models=tuple(dict.fromkeys(_endpoint_of(llm) for llm in asked)),
        dns=network.dns,
        extra=network.extra,
    )


def _endpoint_of(asked: LlmSpec) -> EndpointValues:
    host, port = asked.host
    cidr = namespace = None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        parts = host.removesuffix(".").removesuffix(".cluster.local").split(".")
        namespace = parts[1] if parts[-1] == "svc" and len(parts) > 2 else None
    else:
        cidr = f"{address}/{address.max_prefixlen}"
    return EndpointValues(namespace=namespace, cidr=cidr, port=port)


def _reaches_hub(part: Part) -> bool:
    """Whether it may fetch from the hub; a library that asks the hub elsewhere would be a leak."""
    return part != "conductor" and part != "serve" and STAGE_INFO[part].network == "hub"


def _env(stage: Stage, cluster: Cluster) -> dict[str, str]:
    offline = {} if _reaches_hub(stage) else {"HF_HUB_OFFLINE": "1"}
    return dict(sorted((endpoint_of(cluster) | offline | cluster.env).items()))


def endpoint_of(cluster: Cluster) -> dict[str, str]:
    """The variable that names the store's server, where it is not AWS."""
    return {"AWS_ENDPOINT_URL_S3": cluster.store_endpoint} if cluster.store_endpoint else {}
