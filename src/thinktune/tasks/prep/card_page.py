"""The data card as one self-contained page. Whatever rows contain stays text: every value is
escaped, characters that do not print are shown as spaces, and the page runs no script."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from thinktune.text.visible import printable

SHOWN_CHARACTERS = 6_000
"""Of each part of a sample; the rest is in the artifact's Parquet files."""
BAR_WIDTH = 160
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#5b6470;--rule:#d8dde3;--bar:#4878a8;
--back:#fff;--control:#8250df;--reason:#0a6b3d}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--faint:#9aa4b0;--rule:#30363d;
--bar:#6ea3d8;--back:#0f1318;--control:#c297ff;--reason:#7ee0a8}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:60rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--rule);
vertical-align:top;overflow-wrap:anywhere}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.faint{color:var(--faint)}.wide{overflow-x:auto}
pre{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid var(--rule);padding:.6rem;
border-radius:6px}
.control{color:var(--control);font-weight:600}.reason{color:var(--reason)}
.bar{display:inline-block;height:.7rem;background:var(--bar)}
"""


def write_page(path: Path, data: Mapping[str, Any]) -> None:
    """Writes the page from what `card.json` holds."""
    parts = [
        f"<h1>Data card: {_text(data['name'])} for {_text(data['model'])}</h1>",
        f"<p>{data['rows']:,} rows read; {_sizes(data)}.</p>",
        f'<p class="faint">{_text(data["layout"])}</p>',
        _drops(data["drops"]),
        _table("What was done to rows that stayed", ("what", "count"), data["notes"].items()),
        _balance(data["balance"]),
        _lengths(data),
        _near(data["near_duplicates"]),
        _contamination(data["contamination"]),
        *(_sample(n, each) for n, each in enumerate(data["samples"], start=1)),
        f'<p class="faint">Source {_text(data["source"])}; template'
        f" {_text(data['template_sha256'][:16])}.</p>",
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Data card: {_text(data['name'])}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(part for part in parts if part)
        + "</body></html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _text(value: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Any text of a row, safe inside an element or an attribute."""
    lines = str(value)[: limit + 1].split("\n")
    shown = "\n".join(printable(line.replace("\t", "    ")) for line in lines)
    return escape(shown[:limit] + (" …" if len(shown) > limit else ""))


def _sizes(data: Mapping[str, Any]) -> str:
    return ", ".join(f"{size:,} {_text(side)}" for side, size in data["sizes"].items())


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = []
    for row in rows:
        cells = [
            f'<td class="n">{value:,}</td>'
            if isinstance(value, int)
            else f"<td>{_text(value)}</td>"
            for value in row
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    if not body:
        return ""
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    return (
        f'<h2>{_text(title)}</h2><div class="wide"><table><tr>{head}</tr>'
        f"{''.join(body)}</table></div>"
    )


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{_text(value)}</td>"


def _drops(drops: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            d["reason"] if d["bad"] else f"{d['reason']} (by the recipe)",
            d["count"],
            ", ".join(d["examples"]),
            d["remedy"] if d["bad"] else "",
        )
        for d in drops
    ]
    names = ("dropped because", "rows", "the first of them", "what to do")
    return _table("Rows that are not learned", names, rows)


def _balance(balance: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            b["value"],
            b["available"] if b["wanted"] is None else b["wanted"],
            b["available"],
            b["taken"],
        )
        for b in balance
    ]
    return _table("Balance", ("value", "wanted", "available", "taken"), rows)


def _lengths(data: Mapping[str, Any]) -> str:
    counts, edges = data["lengths"]["counts"], data["lengths"]["edges"]
    top = max(counts, default=0) or 1
    bars = "".join(
        f'<tr><td class="n">{round(low):,} to {round(high):,}</td>'
        f'<td><span class="bar" style="width:{round(BAR_WIDTH * count / top)}px"></span></td>'
        f'<td class="n">{count:,}</td></tr>'
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    )
    length, tokens = data["length"], data["tokens"]
    parts = ", ".join(f"{count:,} of {_text(name)}" for name, count in tokens.items())
    return (
        "<h2>Lengths</h2>"
        f"<p>Tokens of training examples: mean {length['mean']:,.0f}, median"
        f" {length['median']:,.0f}, 95th percentile {length['p95']:,.0f}, longest"
        f" {length['max']:,}. In all {parts}. Padded batches of 8 would hold"
        f" {data['padding_saved']:.0%} padding; packing has none.</p>"
        f'<div class="wide"><table><tr><th class="n">tokens</th><th></th>'
        f'<th class="n">examples</th></tr>{bars}</table></div>'
    )


def _near(near: Mapping[str, Any]) -> str:
    if not near["rows"]:
        return ""
    title = f"Rewordings of one question ({near['rows']:,} rows), which stay on one side"
    return _table(title, ("one", "the other"), [tuple(pair) for pair in near["examples"]])


def _contamination(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    counts = [
        (name, kind, count)
        for name, kinds in found["counts"].items()
        for kind, count in kinds.items()
    ]
    if not counts:
        return "<h2>Test sets</h2><p>No training row is like a question of a named test set.</p>"
    rows = [
        (
            w["test_set"],
            w["kind"],
            w["row"],
            w["test"],
            f"{max(w['share'], w['similarity']):.0%}",
            w["text"],
        )
        for w in found["worst"]
    ]
    return _table(
        "Training rows that a test set knows", ("test set", "how", "rows"), counts
    ) + _table(
        "The clearest of them, for eyes",
        ("test set", "how", "row", "test question", "alike", "what both say"),
        rows,
    )


def _sample(number: int, sample: Mapping[str, Any]) -> str:
    prompt = "".join(
        f'<span class="control">{_text(text)}</span>' if control else _text(text)
        for text, control in sample["pieces"]
    )
    answer = str(sample["answer"]).removesuffix(sample["end"])
    return (
        f"<h2>Example {number}: {_text(sample['id'])} ({sample['tokens']:,} tokens)</h2>"
        '<p class="faint">The prompt, and below it what is learned.</p>'
        f"<pre>{prompt}</pre>"
        f'<pre><span class="reason">{_text(sample["reasoning"])}</span>{_text(answer)}'
        f'<span class="control">{_text(sample["end"])}</span></pre>'
    )
