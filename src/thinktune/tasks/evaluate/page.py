"""report.html: one file with the words, the table and the figures. The stage calls `write_html`."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thinktune.tasks.evaluate.samples import VARIANTS, Variant
from thinktune.tasks.evaluate.wording import (
    Report,
    p_value,
    percent,
    plain,
    points,
    significant,
    table,
)

# Colors stand for the page's CSS variables, so that one drawing serves light and dark.
INK, FAINT, RULE, BASE, TUNED = "#010101", "#020202", "#030303", "#040404", "#050505"
CSS_VARIABLES = {INK: "ink", FAINT: "faint", RULE: "rule", BASE: "base", TUNED: "tuned"}
COLORS: dict[Variant, str] = {"base": BASE, "tuned": TUNED}

STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "thinktune",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


def write_html(
    report: Report,
    training: Sequence[Mapping[str, Any]],
    lengths: Mapping[str, Sequence[float]],
    path: Path,
) -> None:
    """Writes report.html: one file that needs no network, in light and dark.

    `training`: rows of train's metrics.jsonl (`step`, `loss`, `lr`, `tokens_per_s`,
    `validation_loss`, each but the first optional); `lengths`: `edges` and `counts` of prep's
    histogram of example lengths in tokens. Either may be empty; its figure is then left out.
    """
    environment = Environment(
        loader=PackageLoader("thinktune.tasks.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=points, p_value=p_value, plain=plain)
    page = environment.get_template("report.html.j2").render(
        report=report,
        rows=table(report),
        variants=VARIANTS,
        figures=_figures(report, training, lengths),
        significant=significant,
    )
    path.write_text(page, encoding="utf-8")


def _figures(
    report: Report, training: Sequence[Mapping[str, Any]], lengths: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """Title, caption, SVG and whether it needs the key, of each figure that has data."""
    figures = [
        (
            "Base and tuned",
            "Share of answers, mean over the questions.",
            True,
            any(report["tests"].values()) and _draw(lambda ax: _compare(ax, report)),
        ),
        (
            "Thinking length",
            "Thinking tokens per answer.",
            True,
            any(sum(report["thinking_lengths"][v]) for v in VARIANTS)
            and _draw(lambda ax: _thinking(ax, report["thinking_lengths"])),
        ),
        (
            "Training loss",
            "Per optimizer step; points are the loss on validation questions.",
            False,
            _curve(training, "loss") and _draw(lambda ax: _loss(ax, training)),
        ),
        (
            "Training examples",
            "Length in tokens, prompt and thinking included.",
            False,
            sum(lengths.get("counts", ())) and _draw(lambda ax: _lengths(ax, lengths)),
        ),
    ]
    return [
        {"title": title, "caption": caption, "keyed": keyed, "svg": Markup(svg)}
        for title, caption, keyed, svg in figures
        if svg
    ]


def _draw(plot: Callable[[Axes], None]) -> str:
    """Draws into an SVG that stands inside an HTML page and takes its fonts and colors."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.0, 2.7), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        plot(axes)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True)
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| (width|height)="[\d.]+pt"', "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg).replace("xlink:href", "href")
    for color, name in CSS_VARIABLES.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg.replace("<svg", '<svg aria-hidden="true"', 1)


def _compare(axes: Axes, report: Report) -> None:
    names = [n for n in ("presence", "accuracy") if report["tests"][n]]
    for offset, variant in zip((-0.19, 0.19), VARIANTS, strict=True):
        values = [100 * report["variants"][variant][n] for n in names]
        places = [i + offset for i in range(len(names))]
        bars = axes.bar(places, values, width=0.34, color=COLORS[variant])
        axes.bar_label(bars, [f"{v:.1f} %" for v in values], padding=3, color=INK, fontsize=8.5)
    labels = {"presence": f"{report['marker']} present", "accuracy": "accuracy"}
    axes.set_xticks(range(len(names)), [labels[n] for n in names])
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 25), [f"{tick} %" for tick in range(0, 101, 25)])


def _thinking(axes: Axes, histogram: Mapping[str, Sequence[float]]) -> None:
    for variant in VARIANTS:
        counts, edges = histogram[variant], histogram["edges"]
        axes.stairs(counts, edges, color=COLORS[variant], fill=True, alpha=0.22)
        axes.stairs(counts, edges, color=COLORS[variant], linewidth=1.5)
    axes.set_xlim(0, histogram["edges"][-1])
    _thousands(axes, "thinking tokens", "answers")


def _curve(training: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    rows = [(row["step"], row[name]) for row in training if row.get(name) is not None]
    return [(step, value) for step, value in rows if math.isfinite(value)]


def _loss(axes: Axes, training: Sequence[Mapping[str, Any]]) -> None:
    axes.plot(*zip(*_curve(training, "loss"), strict=True), color=TUNED, linewidth=1.3)
    if validation := _curve(training, "validation_loss"):
        axes.plot(*zip(*validation, strict=True), "o", color=INK, markersize=4.5)
    axes.margins(x=0.02)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")


def _lengths(axes: Axes, lengths: Mapping[str, Sequence[float]]) -> None:
    axes.stairs(lengths["counts"], lengths["edges"], color=TUNED, fill=True, alpha=0.85)
    axes.set_xlim(lengths["edges"][0], lengths["edges"][-1])
    _thousands(axes, "tokens", "examples")


def _thousands(axes: Axes, x: str, y: str) -> None:
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
