"""`thinktune plan`: the table of all stages, with hours, GPUs, memory and money.

Called by `plan`.
"""

import textwrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinktune.cli.plan_tables import hours, show_sentences
from thinktune.plan.evaluation.plan import EvaluationPlan
from thinktune.plan.language_model import LanguageModelPlan
from thinktune.plan.run import RunPlan, StagePlan
from thinktune.schema.catalog import GIB


def show_run(run: RunPlan, console: Console) -> None:
    """Prints all stages for people: a table, what is asked, and what the sums leave out."""
    console.print(Text("The whole run", style="bold"))
    console.print(_table(run), soft_wrap=True)
    if run.money is not None and run.most_money is not None:
        _wrapped(
            f"money: {run.money:,.2f} {run.currency}; {run.most_money:,.2f} {run.currency} if every"
            " answer of the evaluation is as long as it may be",
            console,
        )
    for fault in _faults(run):
        _wrapped(fault, console, style="red")
    if run.evaluation is not None:
        _wrapped(_asked(run.evaluation), console)
    for stage in run.stages:
        if stage.language_model is not None:
            _wrapped(_language_model(stage.language_model), console)
    _wrapped(f"left out: {'; '.join(run.left_out)}", console)
    show_sentences("Assumptions of the other stages", run.assumptions, console)


def _table(run: RunPlan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("  stage", no_wrap=True)
    titles = ["time", "at most", "GPUs", "GPU-hours", "GiB of limit"]
    for title in titles + ([run.currency] if run.currency else []):
        table.add_column(title, justify="right", no_wrap=True)
    for stage in run.stages:
        table.add_row(f"  {stage.stage}", *_figures(stage, run.currency))
    gpu_hours, money = f"{run.gpu_hours:.2f}", [_money(run.money)] if run.currency else []
    at_most = sum(stage.most_hours or 0.0 for stage in run.stages)
    total = ("  sum", _time(run.hours), _time(at_most), "", gpu_hours, "", *money)
    table.add_row(*(Text(each, style="bold") for each in total))
    return table


def _figures(stage: StagePlan, currency: str | None) -> tuple[str | Text, ...]:
    used = "?" if stage.memory_bytes is None else f"{stage.memory_bytes / GIB:.1f}"
    memory = f"{used} of {stage.memory_limit_bytes / GIB:.1f}"
    return (
        _time(stage.hours),
        _time(stage.most_hours),
        str(stage.gpus),
        "?" if stage.gpu_hours is None else f"{stage.gpu_hours:.2f}",
        memory if stage.fits else Text(memory, style="red"),
        *([_money(stage.money)] if currency else []),
    )


def _time(value: float | None) -> str:
    return "?" if value is None else hours(value)


def _money(value: float | None) -> str:
    return "?" if value is None else f"{value:,.2f}"


def _faults(run: RunPlan) -> list[str]:
    found = []
    for stage in run.stages:
        if stage.stage == "prep" and not stage.fits:
            found.append("prep: it needs more memory; raise prep.memory_gib in the cluster file")
    if run.evaluation is not None and not run.evaluation.fits:
        found.append(f"evaluate: {run.evaluation.reason}")
    return found


def _asked(plan: EvaluationPlan) -> str:
    arms = ", ".join(arm.name for arm in plan.arms)
    return (
        f"evaluate: {plan.requests:,} answers by {plan.engine} ({plan.engine_reason}), {plan.rows}"
        f" at once, {plan.tokens_per_s:,.0f} tokens/s; arms: {arms}; {plan.answer_tokens:,} tokens,"
        f" at most {plan.most_answer_tokens:,}"
    )


def _language_model(plan: LanguageModelPlan) -> str:
    asked = f"{plan.section}: {plan.requests:,} requests to {plan.model}"
    if plan.most_cost is None or plan.input_cost is None:
        return f"{asked}, of which the recipe gives no prices"
    return (
        f"{asked}: {plan.input_cost:,.2f} for the prompts, at most {plan.most_cost:,.2f} in all,"
        " in the currency of its prices"
    )


def _wrapped(text: str, console: Console, *, style: str = "") -> None:
    lines = textwrap.wrap(
        text,
        console.width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
    console.print(Text("\n".join(lines), style=style), soft_wrap=True)
