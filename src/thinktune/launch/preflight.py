"""What is checked before anything is made: place, secrets, deadline, nodes. Called by `submit`,
`render` and `doctor`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from thinktune.launch.cluster import capacity as schedule
from thinktune.launch.cluster.api import Forbidden, Unauthenticated
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.runs import Run, compare_hardware, on_hardware, run_id, stage_values
from thinktune.launch.status.watch import Say
from thinktune.launch.values import nodes_for
from thinktune.recipes.compose import Catalog
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import InputMissing, SpecInvalid, near_misses
from thinktune.schema.recipe import Recipe
from thinktune.schema.stages import Stage

TRACKER_KEYS = {"wandb": "WANDB_API_KEY"}


@dataclass(frozen=True)
class Request:
    """What is asked of a cluster."""

    run: Run
    recipe: Recipe
    catalog: Catalog
    cluster: Cluster
    stages: Sequence[Stage]
    force: bool = False
    """Submit although no node there could take it: an autoscaler may bring one."""


def check_names(cluster: Cluster, catalog: Catalog) -> None:
    """Raises SpecInvalid for hardware that the cluster file names and nobody knows."""
    for name in cluster.hardware_nodes:
        if name not in catalog.hardware:
            fault = f"no hardware is called '{name}'"
            raise SpecInvalid("hardware_nodes", fault, near_misses(name, catalog.hardware))


def check_deadline(run: Run, cluster: Cluster, stages: Sequence[Stage]) -> None:
    """Raises SpecInvalid where the plan takes longer than a Job may."""
    hours, most = run.plan.hours, cluster.deadline_hours
    if "train" in stages and hours is not None and hours > most:
        fault = f"training takes about {hours:.0f} h, and deadline_hours ends it after {most}"
        raise SpecInvalid(f"run {run.id}", fault, "raise it in the cluster file")


def check_place(request: Request, kube: Kube) -> None:
    """Raises SpecInvalid for a namespace that is not there, InputMissing for a secret."""
    cluster = request.cluster
    name = cluster.namespace
    with _what_may_be_unseen():
        if kube.namespace_object() is None:
            fault = "there is no such namespace"
            remedy = f"kubectl create namespace {name}, or set namespace in the cluster file"
            raise SpecInvalid(f"namespace {name}", fault, remedy)
    for secret in secrets_of(cluster):
        with _what_may_be_unseen():
            if kube.secret_keys(secret) is None:
                fault = f"no secret {secret}, which the cluster file names"
                raise InputMissing(f"namespace {name}", fault, secret_remedy(cluster, secret))
    if "train" in request.stages:
        with _what_may_be_unseen():
            check_trackers(request, kube)


@contextlib.contextmanager
def _what_may_be_unseen() -> Iterator[None]:
    """What is not ours to see, the pod will tell. Who is not known at all gets no further."""
    try:
        yield
    except Unauthenticated:
        raise
    except Forbidden:
        return


def check_trackers(request: Request, kube: Kube) -> None:
    """Raises InputMissing where a tracker would find no key, once it has its GPUs."""
    cluster = request.cluster
    given = {key for name in cluster.env_from_secrets for key in kube.secret_keys(name) or ()}
    for tracker in request.recipe.train.tracking:
        key = TRACKER_KEYS.get(tracker)
        if key is not None and key not in given:
            fault = f"the recipe tracks with {tracker}, and no secret of env_from_secrets has {key}"
            remedy = (
                f"kubectl -n {cluster.namespace} create secret generic {tracker}"
                f" --from-literal={key}=… and env_from_secrets: [{tracker}],"
                " or --set 'train.tracking=[]'"
            )
            raise InputMissing(f"namespace {cluster.namespace}", fault, remedy)


def secrets_of(cluster: Cluster) -> list[str]:
    """Names of all secrets that pods will want."""
    identity = cluster.identity
    own = (identity.secret, identity.model_hub_secret, *cluster.env_from_secrets)
    return [name for name in (*own, *cluster.images.pull_secrets) if name]


def secret_remedy(cluster: Cluster, secret: str) -> str:
    """How to make it."""
    make = f"kubectl -n {cluster.namespace} create secret"
    if secret in cluster.images.pull_secrets:
        registry = cluster.images.registry.partition("/")[0]
        options = f"--docker-server={registry} --docker-username=… --docker-password=…"
        return f"{make} docker-registry {secret} {options}"
    keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    if secret == cluster.identity.model_hub_secret:
        keys = ["HF_TOKEN"]
    elif secret in cluster.env_from_secrets:
        keys = ["NAME"]
    return f"{make} generic {secret} {' '.join(f'--from-literal={key}=…' for key in keys)}"


def check_nodes(request: Request, kube: Kube, stages: Sequence[Stage], say: Say) -> None:
    """Says which GPUs are free. Raises SpecInvalid, naming what would fit, where a stage can never
    be scheduled and that is not forced."""
    try:
        found = kube.nodes()
    except Unauthenticated:
        raise
    except Forbidden as error:
        say(f"cluster: GPUs unknown ({error.fault})")
        return
    try:
        nodes = schedule.nodes_of(found, kube.all_pods())
        free = schedule.free_gpus(nodes)
        said = [f"{some} of {every} {product} free" for product, (some, every) in free.items()]
    except Forbidden:
        nodes = schedule.nodes_of(found, ())
        every_gpu = schedule.free_gpus(nodes)
        said = [f"{every} {product}, free or not" for product, (_, every) in every_gpu.items()]
    say(f"cluster: {', '.join(said) or 'no GPUs'}")
    if request.force:
        return
    for stage in stages:
        short = _shortage(request, request.run, stage, nodes)
        if short is not None:
            place = f"{stage} of {request.run.id}"
            raise SpecInvalid(place, short.fault, _remedy(request, stages, nodes, short))


def _remedy(
    request: Request,
    stages: Sequence[Stage],
    nodes: Sequence[schedule.Node],
    short: schedule.Shortage,
) -> str:
    takers = (name for name in _other_hardware(request) if _takes(request, name, stages, nodes))
    there = [f"--set hardware={name}" for name in islice(takers, 4)]
    # Hardware is part of a derived id: what is done stays with the other run.
    again = "" if _is_named(request) or "prep" in stages else " as another run, from prep on"
    ways = [f"would be scheduled with {', or '.join(there)}{again}"] if there else []
    ways += [*short.remedies, "--force where an autoscaler would bring such nodes"]
    return "; or ".join(ways)


def _other_hardware(request: Request) -> list[str]:
    rows = compare_hardware(request.recipe, request.catalog)
    return [row.hardware for row in rows if row.hardware != request.run.hardware]


def _takes(
    request: Request, hardware: str, stages: Sequence[Stage], nodes: Sequence[schedule.Node]
) -> bool:
    """Whether all the stages would run there on that hardware."""
    try:
        run = on_hardware(request.run, request.recipe, request.catalog, hardware)
        check_deadline(run, request.cluster, stages)
    except SpecInvalid:
        return False
    return all(_shortage(request, run, stage, nodes) is None for stage in stages)


def _is_named(request: Request) -> bool:
    own = request.run.own_file
    derived = run_id(request.recipe, request.catalog, own.sha256 if own else None)
    return request.run.id != derived


def _shortage(
    request: Request, run: Run, stage: Stage, nodes: Sequence[schedule.Node]
) -> schedule.Shortage | None:
    values = stage_values(run, stage, request.cluster)
    section, _ = nodes_for(stage, values.resources.gpus, run.hardware, request.cluster)
    return schedule.shortage(values, nodes, section)
