"""The plan of a whole run: all stages with their hours, GPUs, memory and money.

Called by the launcher for the command line. The training's own plan is made by
`thinktune.plan.training` and only summed up here.
"""

from collections.abc import Sequence

from thinktune.plan.evaluation.plan import LOAD_BYTES_PER_S, EvaluationPlan, plan_evaluation
from thinktune.plan.language_model import LanguageModelPlan, judge
from thinktune.plan.network import fetch_seconds
from thinktune.plan.prep import PrepPlan, plan_prep
from thinktune.plan.shapes import released_bytes
from thinktune.plan.training.plan import Plan
from thinktune.schema.catalog import DatasetEntry, HardwareEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.prices import HourlyPrices
from thinktune.schema.recipe import Recipe
from thinktune.schema.stages import Stage

LEFT_OUT = (
    "waiting for nodes, pulling images, nodes that are idle, attempts that are repeated, the"
    " conductor, storage and traffic"
)
"""What no money is counted for."""


class StagePlan(Closed):
    """One stage of the run."""

    stage: Stage
    """Name of the stage."""
    hours: float | None
    """Hours of the stage, start included; null where they are not known."""
    most_hours: float | None
    """Upper bound of the hours, where answers can be longer than assumed; else the same."""
    nodes: int
    """Number of nodes that the stage takes."""
    gpus: int
    """Number of GPUs that the stage takes on all nodes."""
    gpu_hours: float | None
    """Hours times GPUs; null where the hours are not known."""
    memory_bytes: int | None
    """Bytes at the peak on one GPU, or of the process of a stage without; null if not known."""
    memory_limit_bytes: int
    """Bytes that the stage may take there."""
    fits: bool
    """Whether it stays below the limit."""
    money: float | None
    """What the hours cost, in the currency of `prices`; null without a price or without hours."""
    language_model: LanguageModelPlan | None = None
    """The language model that the stage asks; null where it asks none."""


class RunPlan(Closed):
    """A whole run. Sums are of the stages whose figures are known; `left_out` names the others."""

    stages: tuple[StagePlan, ...]
    """The stages in the order in which they run, those that are left out not among them."""
    hours: float
    """Hours of all stages, one after the other."""
    gpu_hours: float
    """GPU-hours of all stages."""
    most_gpu_hours: float
    """GPU-hours of all stages, if each answer of the evaluation reaches its limit."""
    currency: str | None
    """Currency of `money`; null where the cluster file gives no prices."""
    money: float | None
    """What the nodes of all stages cost; null where no stage has a price."""
    most_money: float | None
    """The same, if each answer of the evaluation reaches its limit."""
    left_out: tuple[str, ...]
    """What the sums leave out, one phrase each."""
    prep: PrepPlan
    """The data preparation in detail."""
    evaluation: EvaluationPlan | None
    """The evaluation in detail; null where the recipe holds out no question."""
    assumptions: tuple[str, ...]
    """What the figures rest on beside those of the training, one sentence each."""

    @property
    def fits(self) -> bool:
        """Whether each stage stays below its limit."""
        return all(stage.fits for stage in self.stages)


def plan_run(
    recipe: Recipe,
    model: ModelEntry,
    hardware: HardwareEntry,
    training: Plan,
    *,
    dataset: DatasetEntry | None,
    prep_limit_bytes: int,
    prices: HourlyPrices | None = None,
    benchmark_questions: int = 0,
) -> RunPlan:
    """Plans all stages of `recipe`, whose training is planned already. `prep_limit_bytes` is what
    prep's pod may take; `benchmark_questions` are asked beside those that are held out."""
    prepared = plan_prep(recipe, model, dataset)
    evaluation = plan_evaluation(recipe, model, hardware, benchmark_questions)
    stages = [
        _prep(recipe, prepared, hardware, prep_limit_bytes, prices),
        _train(recipe, model, hardware, training, prices),
    ]
    if evaluation is not None:
        stages.append(_evaluate(recipe, evaluation, hardware, prices))
    spent = [stage.money for stage in stages if stage.money is not None]
    most = [_most_money(stage) for stage in stages if stage.money is not None]
    return RunPlan(
        stages=tuple(stages),
        hours=sum(stage.hours or 0.0 for stage in stages),
        gpu_hours=sum(stage.gpu_hours or 0.0 for stage in stages),
        most_gpu_hours=sum((stage.most_hours or 0.0) * stage.gpus for stage in stages),
        currency=prices.currency if prices else None,
        money=sum(spent) if spent else None,
        most_money=sum(most) if most else None,
        left_out=_left_out(stages, prices, recipe, hardware),
        prep=prepared,
        evaluation=evaluation,
        assumptions=(
            *prepared.assumptions,
            "Training starts after fetching the model from the store and loading it.",
            *(evaluation.assumptions if evaluation else ()),
        ),
    )


def _prep(
    recipe: Recipe,
    plan: PrepPlan,
    hardware: HardwareEntry,
    limit: int,
    prices: HourlyPrices | None,
) -> StagePlan:
    return StagePlan(
        stage="prep",
        hours=plan.hours,
        most_hours=plan.hours,
        nodes=1,
        gpus=0,
        gpu_hours=None if plan.hours is None else 0.0,
        memory_bytes=plan.memory_bytes,
        memory_limit_bytes=limit,
        fits=plan.memory_bytes is None or plan.memory_bytes <= limit,
        money=_times(plan.hours, _cpu_price(recipe, hardware, prices)),
        language_model=plan.language_model,
    )


def _train(
    recipe: Recipe,
    model: ModelEntry,
    hardware: HardwareEntry,
    plan: Plan,
    prices: HourlyPrices | None,
) -> StagePlan:
    start = fetch_seconds(model) + released_bytes(model) / LOAD_BYTES_PER_S
    hours = None if plan.hours is None else plan.hours + start / 3600
    gpus, nodes = plan.topology.gpus_per_node, plan.topology.nodes
    return StagePlan(
        stage="train",
        hours=hours,
        most_hours=hours,
        nodes=nodes,
        gpus=gpus * nodes,
        gpu_hours=_times(hours, gpus * nodes),
        memory_bytes=plan.gpu_total_bytes,
        memory_limit_bytes=plan.gpu_capacity_bytes,
        fits=plan.fits,
        money=_times(hours, _price(recipe, hardware, gpus, nodes, prices)),
    )


def _evaluate(
    recipe: Recipe, plan: EvaluationPlan, hardware: HardwareEntry, prices: HourlyPrices | None
) -> StagePlan:
    spec = recipe.evaluate
    gpus = min(1, hardware.num_gpus)
    asked = judge(recipe, plan.questions * spec.samples * (len(plan.arms) + len(spec.endpoints)))
    waits = (asked.hours or 0.0) if asked is not None else 0.0
    # The last pod waits for the judge; the others have ended.
    price = _price(recipe, hardware, gpus, 1, prices)
    pod_hours = plan.hours * spec.shards + waits
    return StagePlan(
        stage="evaluate",
        hours=plan.hours + waits,
        most_hours=plan.most_hours + waits,
        nodes=spec.shards,
        gpus=gpus * spec.shards,
        gpu_hours=pod_hours * gpus,
        memory_bytes=plan.gpu_total_bytes,
        memory_limit_bytes=plan.gpu_budget_bytes,
        fits=plan.fits,
        money=_times(pod_hours, price),
        language_model=asked,
    )


def _price(
    recipe: Recipe, hardware: HardwareEntry, gpus: int, nodes: int, prices: HourlyPrices | None
) -> float | None:
    """Money for an hour of a stage that takes the recipe's hardware."""
    if prices is None:
        return None
    if not gpus:
        price = _cpu_price(recipe, hardware, prices)
        return None if price is None else nodes * price
    return prices.on_gpus(recipe.hardware, hardware, gpus, nodes)


def _cpu_price(
    recipe: Recipe, hardware: HardwareEntry, prices: HourlyPrices | None
) -> float | None:
    """Money for an hour of a node of `cpu_nodes`: the recipe's own hardware, where that has no
    GPU and has a price."""
    if prices is None:
        return None
    own = None if hardware.num_gpus else prices.node_hour.get(recipe.hardware)
    return prices.cpu_node_hour if own is None else own


def _times(hours: float | None, price: float | None) -> float | None:
    return None if hours is None or price is None else hours * price


def _most_money(stage: StagePlan) -> float:
    money, hours, most = stage.money or 0.0, stage.hours, stage.most_hours
    return money * most / hours if hours and most else money


def _where(stage: StagePlan, recipe: Recipe, hardware: HardwareEntry) -> str:
    """Where the cluster file can give a stage's price."""
    if not stage.gpus:
        return "prices.cpu_node_hour"
    return f"prices.node_hour.{recipe.hardware}, or prices.gpu_hour.{hardware.product}"


def _left_out(
    stages: Sequence[StagePlan],
    prices: HourlyPrices | None,
    recipe: Recipe,
    hardware: HardwareEntry,
) -> tuple[str, ...]:
    found = [f"the hours of {stage.stage}" for stage in stages if stage.hours is None]
    if recipe.evaluate.perplexity:
        found.append("the perplexity of held-out rows")
    if recipe.evaluate.endpoints:
        found.append("what the endpoints of evaluate.endpoints take and charge")
    if prices is not None:
        found += [
            f"the price of {stage.stage} ({_where(stage, recipe, hardware)})"
            for stage in stages
            if stage.money is None and stage.hours is not None
        ]
    found += [
        f"the language model of {stage.language_model.section}, which has prices of its own"
        for stage in stages
        if stage.language_model is not None
    ]
    if prices is None:
        found.append("money, because the cluster file gives no prices")
    return (*found, LEFT_OUT)
