"""One recipe on every node of the catalog, and a forecast beside what was measured.

Called by the command line.
"""

from collections.abc import Mapping

from thinktune.plan.training.plan import Plan, make_plan
from thinktune.schema.catalog import DatasetEntry, HardwareEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.manifest import MetricValue
from thinktune.schema.recipe import Recipe


class OnHardware(Closed):
    """What a recipe would take on a node that it fits."""

    recipe: str
    """Name of the recipe."""
    hardware: str
    """Name of the catalog's hardware entry."""
    gpu_total_bytes: int
    """Bytes at the peak on one GPU."""
    gpu_capacity_bytes: int
    """Bytes of memory that one GPU has."""
    zero_stage: int
    """ZeRO stage, as in the plan's topology."""
    tokens_per_s: float
    """Tokens per second over all GPUs."""
    hours: float | None
    """Hours of training alone; null where the number of rows is not known."""
    gpu_hours: float | None
    """Those hours times all GPUs; null where the number of rows is not known."""
    measured: bool
    """Whether rates were measured on this kind of GPU; else they are scaled by published peaks."""


class PlanVsActual(Closed):
    """A forecast against what was measured."""

    what: str
    """Name of the figure, for people."""
    planned: float | None
    """Figure that the plan forecast; null where the run was started without a plan."""
    actual: float | None
    """Figure that was measured; null where the device does not say."""

    @property
    def relative_error(self) -> float | None:
        """The forecast's error, as a share of what was measured."""
        if not self.planned or not self.actual:
            return None
        return self.planned / self.actual - 1


def on_all_hardware(
    recipe: Recipe,
    model: ModelEntry,
    catalog: Mapping[str, HardwareEntry],
    dataset: DatasetEntry | None,
) -> tuple[OnHardware, ...]:
    """Every node that the recipe fits, the fastest first."""
    found = []
    for name, entry in catalog.items():
        changed = recipe.model_copy(update={"hardware": name})
        plan = make_plan(changed, model, entry, {}, dataset=dataset)
        if plan.fits:
            found.append(_entry(changed, plan))
    return tuple(sorted(found, key=lambda row: -row.tokens_per_s))


def _entry(changed: Recipe, plan: Plan) -> OnHardware:
    assert plan.tokens_per_s is not None
    return OnHardware(
        recipe=changed.name,
        hardware=changed.hardware,
        gpu_total_bytes=plan.gpu_total_bytes,
        gpu_capacity_bytes=plan.gpu_capacity_bytes,
        zero_stage=plan.topology.zero_stage,
        tokens_per_s=plan.tokens_per_s,
        hours=plan.hours,
        gpu_hours=plan.gpu_hours,
        measured=plan.measured,
    )


def plan_vs_actual(metrics: Mapping[str, MetricValue]) -> tuple[PlanVsActual, ...]:
    """The planned and the measured figures of a train manifest, in pairs."""

    def number(name: str) -> float | None:
        value = metrics.get(name)
        return float(value) if isinstance(value, int | float) else None

    return tuple(
        PlanVsActual(what=name, planned=number(f"planned_{name}"), actual=number(actual))
        for name, actual in (
            ("gpu_memory_bytes", "peak_gpu_memory_bytes"),
            ("tokens_per_s", "tokens_per_s"),
        )
    )
