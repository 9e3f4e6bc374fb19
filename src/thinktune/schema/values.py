"""Values of the charts: `charts/task` for one stage of one run, `charts/conductor` for a whole run.

The charts' `values.schema.json` files are generated from these models. Names are in camelCase
there, as is usual in Helm.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from thinktune.schema.closed import Closed
from thinktune.schema.cluster import Addresses, Dns, Egress, Ports, Toleration
from thinktune.schema.stages import Stage

NAME_LENGTH = 53
"""Longest name of a Helm release. The names that the charts derive from it then stay within the 63
characters that Kubernetes allows."""


class Values(Closed):
    """Base of all values: names in camelCase in YAML, in snake_case in Python."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class ImageValues(Values):
    """The container image."""

    reference: str
    """Image as `registry/repository:tag` or `registry/repository@sha256:…`."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"]
    """When a node pulls the image."""
    pull_secrets: tuple[str, ...]
    """Secrets in the namespace with the credentials for the registry."""


class TopologyValues(Values):
    """Number of pods and of processes in each."""

    nodes: Annotated[int, Field(ge=1)]
    """Number of pods, one per node. More than one make an Indexed Job whose pods find each other
    through a headless Service."""
    processes_per_node: Annotated[int, Field(ge=1)]
    """Number of processes in each pod, one per GPU. The stage starts them itself."""
    shards: Annotated[int, Field(ge=1)]
    """Number of pods that divide the work and know nothing of each other. More than one make an
    Indexed Job in which each is tried again by itself."""


class ResourceValues(Values):
    """Resources of one pod. Requests and limits are the same."""

    gpus: Annotated[int, Field(ge=0)]
    """Number of GPUs."""
    cpu_millis: Annotated[int, Field(ge=1)]
    """CPU time, in thousandths of a CPU."""
    memory_mib: Annotated[int, Field(ge=1)]
    """Memory in MiB, shared memory included."""
    disk_gib: Annotated[int, Field(ge=1)]
    """Size of the scratch volume, in GiB."""
    shm_mib: Annotated[int, Field(ge=1)]
    """Size of /dev/shm in MiB, which is part of the memory."""


class FailureValues(Values):
    """What a Job does after a pod has failed, by exit code, from the table in
    `thinktune.schema.exit_codes`."""

    fail_codes: tuple[int, ...]
    """Exit codes that end the Job at once."""
    ignore_codes: tuple[int, ...]
    """Exit codes after which a new pod starts that does not count against `backoffLimit`."""
    backoff_limit: Annotated[int, Field(ge=0)]
    """Number of new pods that start after any other failure."""


class TimeValues(Values):
    """Time limits, in seconds."""

    grace: Annotated[int, Field(ge=1)]
    """Seconds from SIGTERM to SIGKILL, enough for the current step and a last checkpoint."""
    deadline: Annotated[int, Field(ge=1)]
    """Seconds after which the Job is ended."""
    keep_finished: Annotated[int, Field(ge=0)]
    """Seconds for which the Job and its pods are kept after they end."""


class PlacementValues(Values):
    """Where and when pods are scheduled."""

    node_selector: dict[str, str]
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...]
    """Taints that the pods tolerate."""
    priority_class: str | None
    """PriorityClass of the pods. Null uses the cluster's default."""
    queue: str | None
    """LocalQueue of Kueue that the Job is submitted to. Null does without a queue."""


class StorageValues(Values):
    """Volumes that a pod writes to."""

    scratch_storage_class: str | None
    """Storage class of the scratch volume. Null uses the node's own disk."""
    cache_claim: str | None
    """PersistentVolumeClaim that keeps base models between pods. Null makes each pod fetch the
    model from the store."""


class EndpointValues(Values):
    """A service that a pod asks besides the store and the hub. A NetworkPolicy knows no names of
    hosts."""

    namespace: str | None
    """Namespace of a service inside the cluster. Its address does not tell on which ports the pods
    behind it listen, so all ports of that namespace are open."""
    cidr: str | None
    """The one address, where the service is named by its address."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Port of a service elsewhere; with neither namespace nor address, at any public address."""


class AccessValues(Values):
    """The pod's identity, and what it may connect to. Secrets are given by name only."""

    service_account: str | None
    """Existing service account. Null creates one with the annotations below."""
    service_account_annotations: dict[str, str]
    """Annotations of the service account that the release creates."""
    pod_labels: dict[str, str]
    """Further labels of the pods."""
    secrets: tuple[str, ...]
    """Secrets in the namespace whose keys become environment variables."""
    network_policy: bool
    """Whether a NetworkPolicy limits what the pods may connect to."""
    store_cidrs: Addresses
    """Addresses of the store."""
    store_ports: Ports
    """Ports that the store listens on."""
    store_namespace: str | None
    """Namespace of a store inside the cluster, which replaces its addresses."""
    hub: bool
    """Whether the pod may connect to port 443 of any address, as prep does to fetch files."""
    language_models: tuple[EndpointValues, ...]
    """Language model that prep asks, if the recipe has one write a column. Null opens nothing."""
    dns: Dns
    extra: tuple[Egress, ...]
    """Further addresses that the pod may connect to."""


class MonitoringValues(Values):
    """Monitoring by the Prometheus Operator and Grafana."""

    enabled: bool
    """Whether the pod serves metrics, with a PodMonitor, alerts and a Grafana dashboard."""
    labels: dict[str, str]
    """Further labels of the PodMonitor and the PrometheusRule."""
    namespace: str | None
    """Only pods in this namespace may scrape metrics. Null allows pods in any namespace."""
    port: Annotated[int, Field(ge=1024, le=65535)]
    """Port at which the pod serves its metrics."""
    stalled_after_seconds: Annotated[int, Field(ge=1)]
    """The alert fires when a training has finished no step for this many seconds."""


class TaskValues(Values):
    """All values of the chart `charts/task`."""

    run: str
    """Id of the run."""
    stage: Stage
    """Stage of the run that the Job executes."""
    task: str
    """Text of the task file, in JSON."""
    wait: bool
    """Whether the Job is created suspended. The launcher or the conductor then starts it once the
    previous stage has committed its artifact."""
    image: ImageValues
    topology: TopologyValues
    resources: ResourceValues
    failure: FailureValues
    seconds: TimeValues
    placement: PlacementValues
    storage: StorageValues
    access: AccessValues
    monitoring: MonitoringValues
    env: dict[str, str]
    """Environment variables of the container."""


class ConductorValues(Values):
    """All values of the chart `charts/conductor`, whose Job starts the stages of one run in
    turn."""

    run: str
    """Id of the run."""
    pipeline: str
    """The stages to start and their order, in JSON."""
    jobs: tuple[str, ...]
    """Names of the Jobs that the conductor may start."""
    image: ImageValues
    placement: PlacementValues
    fail_codes: tuple[int, ...]
    """Exit codes that end the conductor's Job at once: the table of
    `thinktune.schema.exit_codes`."""
    ignore_codes: tuple[int, ...]
    """Exit codes after which a new pod starts without being counted."""
    deadline_seconds: Annotated[int, Field(ge=1)]
    """Seconds after which the conductor's Job is ended."""
    keep_finished_seconds: Annotated[int, Field(ge=0)]
    """Seconds for which the Job and its pods are kept after they end."""
    access: AccessValues
    api_cidrs: Addresses
    """Addresses of the API server."""
    api_ports: Ports
    """Ports of the API server."""
    env: dict[str, str]
    """Environment variables of the container."""
