"""How large report.html is, and how soon a browser shows it.

    python benchmarks/report_page.py --questions 2000 --draws 4

writes a report with that many samples of some 1,000 words, base and tuned, and opens it in headless
Chromium. Prints the file's size, the seconds to write it, and the milliseconds until the samples
can be filtered.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from browser import browser

from thinktune.schema.recipe import EvaluateSpec
from thinktune.tasks.evaluate.metrics.registry import Registry, Setup
from thinktune.tasks.evaluate.report.build import ArmInfo, build_report
from thinktune.tasks.evaluate.report.page import write_html
from thinktune.tasks.evaluate.samples import Question, Sample
from thinktune.tasks.evaluate.verdicts import Rules, judge_all

FILTER = """
const begun = performance.now();
document.querySelector("button[data-filter=fixed]").click();
return performance.now() - begun;
"""


def main() -> None:
    """Writes, opens, prints one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--words", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        began = time.perf_counter()
        _write(page, given.questions, given.draws, given.words)
        written = time.perf_counter() - began
        with browser() as opened:
            opened.open(page.as_uri())
            ready = opened.wait("return document.documentElement.dataset.readyAfterMs")
            filtering = opened.run(FILTER)
        figures = {
            "samples": 2 * given.questions * given.draws,
            "mib": round(page.stat().st_size / 2**20, 1),
            "write_s": round(written, 1),
            "ready_ms": int(ready),
            "filter_ms": round(filtering),
        }
        sys.stdout.write(json.dumps(figures) + "\n")


def _write(page: Path, questions: int, draws: int, words: int) -> None:
    chance = random.Random(0)
    known = ["".join(chance.choices("etaoinshrdlu", k=2 + n % 8)) for n in range(8000)]
    asked = [
        Question(
            id=f"q{n}", question=" ".join(chance.choices(known, k=60)), answer="", reference="4"
        )
        for n in range(questions)
    ]
    samples = [
        Sample(
            question_id=one.id,
            arm=arm,
            sample=draw,
            text=f"<think>{' '.join(chance.choices(known, k=words))}</think>{chance.choice('45')}",
            prompt_opens_think=False,
            tokens=words,
            finished=True,
            reference="4",
        )
        for one in asked
        for arm in ("base", "tuned")
        for draw in range(draws)
    ]
    rules = Rules(marker=None, verifier="number", count_tokens=lambda text: len(text.split()))
    judged = judge_all(samples, asked, rules)
    arms = {
        arm: ArmInfo(f"the {arm} model", "none", "a benchmark", "") for arm in ("base", "tuned")
    }
    spec = EvaluateSpec(samples=draws)
    report = build_report(
        run="page",
        model="none",
        setup=Setup(spec, None, "number", asked),
        arms=arms,
        judged=judged,
        versions={},
        metrics=Registry.discover(),
    )
    write_html(report, asked, judged, [], {}, page)


if __name__ == "__main__":
    main()
