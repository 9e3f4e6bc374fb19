"""How `thinktune bench serve` shows its figures in the terminal."""

from thinktune.launch.load.figures import clients
from thinktune.schema.load import LoadLevel, LoadReport, Spread

WIDTHS = (8, 9, 8, 9, 11, 16, 16, 16)
NAMES = (
    "CLIENTS",
    "ANSWERED",
    "FAILED",
    "TOKENS/S",
    "REQUESTS/S",
    "FIRST TOKEN",
    "BETWEEN TOKENS",
    "ANSWER",
)


def _line(cells: tuple[str, ...]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


HEAD = _line(NAMES) + "\n" + _line(("", "", "", "", "", *["median   p95"] * 3))


def row(level: LoadLevel) -> str:
    """One level. Times are medians and 95th percentiles."""
    failed = sum(level.failures.values())
    cells = (
        str(level.concurrency),
        str(level.answered),
        str(failed),
        f"{level.tokens_per_s:,.1f}",
        f"{level.requests_per_s:,.2f}",
        *(times(each) for each in (level.first_token, level.inter_token, level.latency)),
    )
    kinds = ", ".join(f"{kind}: {count}" for kind, count in level.failures.items())
    return _line(cells) + (f"  {kinds}" if kinds else "") + ("" if level.whole else "  (stopped)")


def times(spread: Spread | None) -> str:
    """Median and 95th percentile."""
    if spread is None:
        return "–"
    return f"{duration(spread.median_s)} {duration(spread.p95_s):>7}"


def duration(seconds: float) -> str:
    """Three figures with their unit."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else "1.00 s"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def knee_line(report: LoadReport) -> str:
    """Where more clients stop to help."""
    if report.knee is None:
        return "no knee up to here: more clients still gave more, or did not wait longer"
    return (
        f"the knee is at {clients(report.knee)}: beyond it, answers take over 20% longer and "
        "tokens per second rise by less than 10%"
    )
