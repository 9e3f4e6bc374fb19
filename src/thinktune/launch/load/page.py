"""A load test as one self-contained page: curves, figures, the knee. It runs no script."""

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, log10
from pathlib import Path

from thinktune.launch.load.figures import clients
from thinktune.schema.load import LoadLevel, LoadReport, Spread

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 30
TICKS = 4
_STYLE = """
:root{color-scheme:light dark;--paper:#fcfcfa;--ink:#1b2126;--soft:#48525a;--faint:#6b757d;
--rule:#e2e3df;--line1:#23707a;--line2:#b0843a}
@media(prefers-color-scheme:dark){:root{--paper:#121517;--ink:#e6e8e9;--soft:#b7bec3;
--faint:#8d979e;--rule:#2b3136;--line1:#5ab4be;--line2:#d1a55c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:62rem;margin:0 auto;padding:3.5rem 1.5rem 5rem}
h1{font-size:1.4rem;font-weight:500;line-height:1.42;margin:.9rem 0 0;overflow-wrap:anywhere}
h2{font-size:1.05rem;font-weight:600;margin:3.5rem 0 1rem}
header p,.note{color:var(--faint);font-size:.875rem;margin:.75rem 0 0;max-width:46rem}
header p{margin:0}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.5rem .75rem;text-align:right;white-space:nowrap;font-weight:400}
th:first-child,td:first-child{text-align:left;padding-left:0}
thead th{color:var(--faint);font-size:.8125rem;border-bottom:1px solid var(--rule)}
tbody tr+tr>*{border-top:1px solid var(--rule)}tbody tr.knee>*{font-weight:600}
.figures{display:grid;gap:2.25rem 2.5rem;margin-top:2.5rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr))}
figure{margin:0}figcaption{font-size:.8125rem;color:var(--soft);margin:0 0 .6rem}
svg{display:block;width:100%;height:auto}
svg text{font-size:11px;fill:var(--faint);font-family:inherit}
.grid{stroke:var(--rule)}line.knee{stroke:var(--faint);stroke-dasharray:3 3}
.median{stroke:var(--line1);fill:none;stroke-width:2}.p95{stroke:var(--line2);fill:none;
stroke-width:2;stroke-dasharray:5 3}
.dot1{fill:var(--line1)}.dot2{fill:var(--line2)}
.k1{color:var(--line1)}.k2{color:var(--line2)}
"""
Curve = list[tuple[int, float]]


def write_page(path: Path, report: LoadReport) -> None:
    """Writes the page of a report with at least one level."""
    path.write_text(_page(report), encoding="utf-8")


def _page(report: LoadReport) -> str:
    figures = [
        _figure("Tokens per second", report, [_curve(report, lambda each: each.tokens_per_s)]),
        _figure("Whole answers, seconds", report, _times(report, lambda each: each.latency)),
        _figure("First token, seconds", report, _times(report, lambda each: each.first_token)),
        _figure("Between tokens, seconds", report, _times(report, lambda each: each.inter_token)),
    ]
    limit = f", at most {report.max_tokens} tokens each" if report.max_tokens else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Load of {escape(report.model)}</title><style>{_STYLE}</style></head><body><main>"
        f"<header><p>Load test of {escape(report.server)}</p>"
        f"<h1>{escape(report.model)}: {_headline(report)}</h1>"
        f'<p class="note">{report.questions:,} questions, asked in turn{limit}. Each client asks '
        "its next question as soon as it has the answer to the last.</p></header>"
        f'<div class="figures">{"".join(figures)}</div>'
        f'<p class="note"><b class="k1">Solid</b>: median. <b class="k2">Dashed</b>: 95th '
        "percentile. Clients are on a logarithmic axis.</p>"
        f"<h2>Figures</h2>{_table(report)}"
        '<p class="note">Times are medians, and 95th percentiles behind them, in seconds. '
        "Tokens include reasoning, as the server counts them. Failed requests are in no other "
        "column.</p></main></body></html>\n"
    )


def _headline(report: LoadReport) -> str:
    if report.knee is not None:
        return f"the knee is at {clients(report.knee)}"
    most = max(report.levels, key=lambda each: each.tokens_per_s)
    return (
        f"{most.tokens_per_s:,.1f} tokens per second with {clients(most.concurrency)}, and no knee"
    )


def _curve(report: LoadReport, value: Callable[[LoadLevel], float]) -> Curve:
    return [(each.concurrency, value(each)) for each in report.levels if each.answered]


def _times(report: LoadReport, spread: Callable[[LoadLevel], Spread | None]) -> list[Curve]:
    found = [(each.concurrency, spread(each)) for each in report.levels]
    known = [(count, each) for count, each in found if each is not None]
    return [
        [(count, each.median_s) for count, each in known],
        [(count, each.p95_s) for count, each in known],
    ]


def _figure(title: str, report: LoadReport, curves: Sequence[Curve]) -> str:
    counts = [each.concurrency for each in report.levels]
    low, high = log10(counts[0]), log10(counts[-1])
    top = _round_up(max((value for curve in curves for _, value in curve), default=1.0))

    def x(count: int) -> float:
        share = (log10(count) - low) / (high - low) if high > low else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in range(TICKS + 1):
        value = top * tick / TICKS
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text x="{LEFT - 6}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{value:,.4g}</text>'
        )
    parts += [
        f'<text x="{x(count):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{count}</text>'
        for count in counts
    ]
    if report.knee is not None:
        at = f"{x(report.knee):.1f}"
        parts.append(f'<line class="knee" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for number, (curve, name) in enumerate(zip(curves, ("median", "p95"), strict=False), 1):
        points = [(f"{x(count):.1f}", f"{y(value):.1f}") for count, value in curve]
        line = " ".join(",".join(point) for point in points)
        parts.append(f'<polyline class="{name}" points="{line}"/>')
        parts += [f'<circle class="dot{number}" cx="{a}" cy="{b}" r="3"/>' for a, b in points]
    return (
        f"<figure><figcaption>{title}, by clients</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}, by clients">'
        + "".join(parts)
        + "</svg></figure>"
    )


def _round_up(value: float) -> float:
    """The next higher of 1, 2, 4, 5, 8 and 10 times a power of ten, so that ticks are short."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (ceil(log10(value)) - 1)
    steps = (1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 20.0)
    return next(step * power for step in steps if step * power >= value)


def _table(report: LoadReport) -> str:
    names = (
        "clients",
        "answered",
        "failed",
        "tokens/s",
        "requests/s",
        "first token",
        "between tokens",
        "per token",
        "whole answer",
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(_row(each, each.concurrency == report.knee) for each in report.levels)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _row(level: LoadLevel, is_knee: bool) -> str:
    failed = ", ".join(f"{count} × {kind}" for kind, count in level.failures.items())
    cells = (
        str(level.concurrency) + ("" if level.whole else " (stopped)"),
        f"{level.answered:,}",
        failed or "0",
        f"{level.tokens_per_s:,.1f}",
        f"{level.requests_per_s:,.2f}",
        _seconds(level.first_token),
        _seconds(level.inter_token),
        _seconds(level.per_token),
        _seconds(level.latency),
    )
    kind = ' class="knee"' if is_knee else ""
    return f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _seconds(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.median_s:.3g}, {spread.p95_s:.3g}"
