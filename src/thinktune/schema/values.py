"""Values of the chart `charts/task`: one stage of one run, as Helm gets it.

`charts/task/values.schema.json` is generated from this. Written as Helm writes them, in camelCase.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from thinktune.schema.closed import Closed
from thinktune.schema.cluster import Addresses, Dns, Egress, Ports, Toleration
from thinktune.schema.stages import Stage

NAME_LENGTH = 53
"""Of a Helm release; what the chart derives from it then stays within Kubernetes's 63."""


class Values(Closed):
    """camelCase outside, snake_case inside."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class ImageValues(Values):
    """What runs."""

    reference: str
    """`registry/repository:tag` or `…@sha256:…`."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"]
    pull_secrets: tuple[str, ...]


class TopologyValues(Values):
    """How many pods and processes."""

    nodes: Annotated[int, Field(ge=1)]
    """More than one: an Indexed Job whose pods find each other by a headless Service."""
    processes_per_node: Annotated[int, Field(ge=1)]
    """One per GPU; the train stage starts them where there is more than one in all."""


class ResourceValues(Values):
    """Of one pod; requests are limits."""

    gpus: Annotated[int, Field(ge=0)]
    cpu_millis: Annotated[int, Field(ge=1)]
    memory_mib: Annotated[int, Field(ge=1)]
    disk_gib: Annotated[int, Field(ge=1)]
    shm_mib: Annotated[int, Field(ge=1)]
    """/dev/shm; part of the memory."""


class FailureValues(Values):
    """What a Job does about an exit code: the table of `thinktune.schema.exit_codes`."""

    fail_codes: tuple[int, ...]
    """End the Job at once."""
    ignore_codes: tuple[int, ...]
    """Start a new pod without counting."""
    backoff_limit: Annotated[int, Field(ge=0)]
    """New pods for anything else."""


class TimeValues(Values):
    """In seconds."""

    grace: Annotated[int, Field(ge=1)]
    """From SIGTERM to SIGKILL: the step at work and a last checkpoint."""
    deadline: Annotated[int, Field(ge=1)]
    keep_finished: Annotated[int, Field(ge=0)]


class PlacementValues(Values):
    """Which nodes."""

    node_selector: dict[str, str]
    tolerations: tuple[Toleration, ...]
    priority_class: str | None
    queue: str | None


class StorageValues(Values):
    """Where a pod writes."""

    scratch_storage_class: str | None
    """Null: the node's own disk."""
    cache_claim: str | None
    """PersistentVolumeClaim with base models, shared by pods; null: each pod fetches its own."""


class AccessValues(Values):
    """Who the pod is, and what it may reach. Secrets by name only."""

    service_account: str | None
    """One that is there; null: the release makes its own, with these annotations."""
    service_account_annotations: dict[str, str]
    pod_labels: dict[str, str]
    secrets: tuple[str, ...]
    """Their keys become environment variables."""
    network_policy: bool
    store_cidrs: Addresses
    store_ports: Ports
    store_namespace: str | None
    """Instead of the addresses."""
    hub: bool
    """Port 443 of anything: for prep, which fetches."""
    dns: Dns
    extra: tuple[Egress, ...]


class MonitoringValues(Values):
    """For Prometheus's operator and Grafana's sidecar."""

    enabled: bool
    """Figures of the training on `port`, a PodMonitor, alerts, a dashboard."""
    labels: dict[str, str]
    """Of PodMonitor and PrometheusRule."""
    namespace: str | None
    """From which pods may be asked; null: from anywhere."""
    port: Annotated[int, Field(ge=1024, le=65535)]
    stalled_after_seconds: Annotated[int, Field(ge=1)]
    """The alert fires for a training whose last step is older."""


class TaskValues(Values):
    """All values of the chart."""

    run: str
    stage: Stage
    task: str
    """The task file's text: JSON."""
    wait: bool
    """The Job is made suspended, and started by the launcher or its conductor once the stage before
    it is committed."""
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


class ConductorValues(Values):
    """All values of the chart `charts/conductor`: what starts the stages of one run in turn."""

    run: str
    pipeline: str
    """What it is to do: JSON."""
    jobs: tuple[str, ...]
    """Names of the Jobs that it may start."""
    image: ImageValues
    placement: PlacementValues
    deadline_seconds: Annotated[int, Field(ge=1)]
    keep_finished_seconds: Annotated[int, Field(ge=0)]
    access: AccessValues
    api_cidrs: Addresses
    """Of the API server."""
    api_ports: Ports
    env: dict[str, str]
