"""The page of a load test."""

import re
from pathlib import Path
from xml.etree import ElementTree

from thinktune.launch.load.page import write_page
from thinktune.schema.load import LoadLevel, LoadReport, Spread

HOSTILE = '<script>alert("x")</script>'


def report(*levels: LoadLevel, knee: int | None) -> LoadReport:
    return LoadReport(
        server="http://127.0.0.1:8080",
        model=HOSTILE,
        questions=12,
        max_tokens=64,
        levels=levels,
        knee=knee,
    )


def level(clients: int, tokens_per_s: float, first_s: float | None) -> LoadLevel:
    spread = None if first_s is None else Spread(median_s=first_s, p95_s=2 * first_s)
    return LoadLevel(
        concurrency=clients,
        answered=0 if spread is None else 16,
        failures={"status 503": 3},
        seconds=10.0,
        tokens=round(10 * tokens_per_s),
        tokens_per_s=tokens_per_s,
        requests_per_s=1.6,
        first_token=spread,
        inter_token=spread,
        per_token=spread,
        latency=spread,
        whole=True,
    )


def test_curves_and_figures(tmp_path: Path) -> None:
    levels = [level(1, 100, 1.0), level(2, 200, 2.0), level(4, 200, 4.0)]
    write_page(tmp_path / "load.html", report(*levels, knee=2))
    text = (tmp_path / "load.html").read_text()
    assert HOSTILE not in text and "&lt;script&gt;" in text
    assert "the knee is at 2 clients" in text and "3 × status 503" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://127.0.0.1:8080", "")
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text)]
    assert len(drawings) == 4
    tokens, latency = (list(each.iter("polyline")) for each in drawings[:2])
    # 0 to 200 on an axis from 210 up to 10, and the three levels equally far apart.
    assert [each.get("points") for each in tokens] == ["52.0,110.0 260.0,10.0 468.0,10.0"]
    # The 95th percentile is 8 s at most.
    assert [each.get("points") for each in latency] == [
        "52.0,185.0 260.0,160.0 468.0,110.0",
        "52.0,160.0 260.0,110.0 468.0,10.0",
    ]


def test_a_test_of_one_level_without_an_answer(tmp_path: Path) -> None:
    write_page(tmp_path / "load.html", report(level(1, 0, None), knee=None))
    text = (tmp_path / "load.html").read_text()
    assert "0.0 tokens per second with 1 client," in text
    assert len(re.findall(r"<svg.*?</svg>", text)) == 4
