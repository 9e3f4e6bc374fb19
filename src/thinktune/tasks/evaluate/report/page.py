"""report.html: one file with headline, table and figures. The stage calls `write_html`."""

import io
import math
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thinktune.schema.report import SHARE, Histogram, MetricResult, Report
from thinktune.tasks.evaluate.report.browser import pack_samples
from thinktune.tasks.evaluate.report.template import environment
from thinktune.tasks.evaluate.report.wording import (
    benchmark_notes,
    benchmark_rows,
    benchmark_sentence,
    table,
)
from thinktune.tasks.evaluate.samples import Judged, Question

# Colors stand for the page's CSS variables, so that one drawing serves light and dark.
INK = "#010101"
FAINT = "#020202"
RULE = "#030303"
ARMS = tuple(f"#0{digit}0{digit}0{digit}" for digit in "456789ab")
TUNED = ARMS[2]
CSS_VARIABLES = {
    INK: "ink",
    FAINT: "faint",
    RULE: "rule",
    **{color: f"arm{number}" for number, color in enumerate(ARMS, 1)},
}

Training = Sequence[Mapping[str, Any]]
"""Rows of train's metrics.jsonl: `step`, `loss`, `lr`, `tokens_per_s`, `validation_loss`, each but
the first optional."""
Lengths = Mapping[str, Sequence[float]]
"""`edges` and `counts` of prep's histogram of example lengths in tokens; may be empty."""

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


@dataclass(frozen=True)
class Drawing:
    """One figure of the page."""

    title: str
    caption: str
    keyed: bool
    """Whether it shows both models, so that it needs the key to their colors."""
    svg: Markup


def write_html(
    report: Report,
    questions: Sequence[Question],
    judged: Sequence[Judged],
    training: Training,
    lengths: Lengths,
    path: Path,
) -> None:
    """Writes report.html: one file that needs no network, in light and dark.

    Where there is no training, or no lengths, the figure of that is left out.
    """
    packed, clipped = pack_samples(report, questions, judged)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            rows=table(report),
            packed=packed,
            clipped=clipped,
            figures=_drawings(report, training, lengths),
            rules=_rules(report),
            benchmarks=_benchmarks(report),
            notes=[result.note for result in report.metrics.values() if result.note],
            reasons=[result for result in report.metrics.values() if result.why_none],
        )
    )
    path.write_text(page, encoding="utf-8")


def _rules(report: Report) -> dict[str, str]:
    """How each metric came about, by its label; metrics that share a rule share an entry."""
    labels: dict[str, list[str]] = defaultdict(list)
    for result in report.metrics.values():
        labels[result.rule].append(result.label)
    return {"; ".join(sharing): rule for rule, sharing in labels.items()}


def _benchmarks(report: Report) -> dict[str, dict[str, Any]]:
    """The sections of benchmarks, by name."""
    arms = list(report.arms)
    return {
        name: {
            "sentence": benchmark_sentence(result),
            "rows": benchmark_rows(result, arms),
            "notes": benchmark_notes(result),
        }
        for name, result in report.benchmarks.items()
    }


def _drawings(report: Report, training: Training, lengths: Lengths) -> list[Drawing]:
    """The figures for which there is data."""
    drawings = []
    tested = [result for result in report.metrics.values() if result.tests and result.unit == SHARE]
    if tested:
        caption = "Shares, over the questions."
        drawings.append(
            Drawing("Compared", caption, True, _draw(lambda axes: _compare(axes, tested)))
        )
    thinking = report.thinking_lengths
    if any(sum(counts) for counts in thinking.counts.values()):
        caption = "Thinking tokens per answer."
        drawings.append(
            Drawing("Thinking length", caption, True, _draw(lambda axes: _thinking(axes, thinking)))
        )
    if _curve(training, "loss"):
        caption = "Per optimizer step; points are the loss on validation questions."
        drawings.append(
            Drawing("Training loss", caption, False, _draw(lambda axes: _loss(axes, training)))
        )
    if sum(lengths.get("counts", ())):
        caption = "Length in tokens, prompt and thinking included."
        drawings.append(
            Drawing(
                "Training examples", caption, False, _draw(lambda axes: _lengths(axes, lengths))
            )
        )
    return drawings


def _draw(plot: Callable[[Axes], None]) -> Markup:
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
    return Markup(svg.replace("<svg", '<svg aria-hidden="true"', 1))


def _compare(axes: Axes, tested: Sequence[MetricResult]) -> None:
    arms = list(tested[0].values)
    width = 0.76 / len(arms)
    for number, arm in enumerate(arms):
        known = [result.values[arm] for result in tested]
        values = [100 * (value or 0) for value in known]
        offset = (number - (len(arms) - 1) / 2) * width
        positions = [position + offset for position in range(len(tested))]
        bars = axes.bar(positions, values, width=0.9 * width, color=ARMS[number % len(ARMS)])
        digits = "{:.0f}" if len(tested) * len(arms) > 6 else "{:.1f}%"
        labels = ["–" if value is None else digits.format(100 * value) for value in known]
        axes.bar_label(bars, labels, padding=3, color=INK, fontsize=8)
    named = [textwrap.fill(result.label, 16) for result in tested]
    axes.set_xticks(range(len(tested)), named, fontsize=8)
    axes.set_xlim(-0.6, len(tested) - 0.4)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 25), [f"{tick}%" for tick in range(0, 101, 25)])


def _thinking(axes: Axes, histogram: Histogram) -> None:
    for counts, color in zip(histogram.counts.values(), cycle(ARMS), strict=False):
        axes.stairs(counts, histogram.edges, color=color, fill=True, alpha=0.22)
        axes.stairs(counts, histogram.edges, color=color, linewidth=1.5)
    axes.set_xlim(0, histogram.edges[-1])
    _thousands(axes, "thinking tokens", "answers")


def _curve(training: Training, name: str) -> list[tuple[float, float]]:
    rows = [(row["step"], row[name]) for row in training if row.get(name) is not None]
    return [(step, value) for step, value in rows if math.isfinite(value)]


def _loss(axes: Axes, training: Training) -> None:
    axes.plot(*zip(*_curve(training, "loss"), strict=True), color=TUNED, linewidth=1.3)
    if validation := _curve(training, "validation_loss"):
        axes.plot(*zip(*validation, strict=True), "o", color=INK, markersize=4.5)
    axes.margins(x=0.02)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")


def _lengths(axes: Axes, lengths: Lengths) -> None:
    axes.stairs(lengths["counts"], lengths["edges"], color=TUNED, fill=True, alpha=0.85)
    axes.set_xlim(lengths["edges"][0], lengths["edges"][-1])
    _thousands(axes, "tokens", "examples")


def _thousands(axes: Axes, x_label: str, y_label: str) -> None:
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
