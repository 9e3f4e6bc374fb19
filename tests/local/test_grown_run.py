"""A run that gains a benchmark: neither data nor adapter are made again, and its report has a
section of it, whether or not the evaluation was killed on the way."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import COMMAND, environment, thinktune
from letters import commit_letters, letter_rows
from workshop import Workshop, artifact, manifest, manifests_or_parts, wait_for

from thinktune.schema.manifest import Manifest
from thinktune.schema.report import Report
from thinktune.store import open_store, read_manifest

LETTERS = (
    *("--set", "evaluate.benchmarks.letters.dataset=letters"),
    *("--set", "evaluate.benchmarks.letters.questions=12"),
    *("--set", "evaluate.perplexity=true"),
    *("--set", "evaluate.batch_size=4", "--set", "evaluate.max_new_tokens=8"),
)


@pytest.fixture(scope="module")
def grown(shop: Workshop) -> dict[str, Manifest]:
    """The artifacts of a run that was trained before it had a benchmark."""
    catalog = shop.jobs / "catalog" / "datasets.yaml"
    entry = commit_letters(shop.store, letter_rows(30)).model_dump(mode="json")
    catalog.write_text(catalog.read_text() + "\n" + yaml.safe_dump({"letters": entry}))
    ended = shop.run("--run", "grown", "--until", "train")
    assert ended.code == 0, ended.err
    before = {stage: manifest(shop.store, "grown", stage) for stage in ("prep", "train")}
    ended = shop.run("--run", "grown", *LETTERS)
    assert ended.code == 0, ended.err
    assert "benchmark letters: 12 questions" in ended.out
    assert "train: done already" in ended.out
    assert "letters: " in ended.out.split("difference and p")[1]
    return before


def report(shop: Workshop, run: str, folder: Path) -> tuple[Report, Path]:
    found = artifact(shop.store, run, "evaluate", folder)
    read: Any = json.loads((found / "report.json").read_text())
    return Report.parse(read, "report.json"), found


def test_data_and_adapter_stay(shop: Workshop, grown: dict[str, Manifest], tmp_path: Path) -> None:
    assert {stage: manifest(shop.store, "grown", stage) for stage in grown} == grown
    found, folder = report(shop, "grown", tmp_path)
    letters = found.benchmarks["letters"]
    assert (letters.questions, letters.verifier) == (12, "choice")
    assert set(letters.accuracy) == set(letters.cut_off) == {"base", "asked", "tuned"}
    assert set(letters.tests) == {"base", "asked"}
    tests = [*letters.tests.values()]
    tests += [test for metric in found.metrics.values() for test in metric.tests.values()]
    assert all(test.holm_p >= test.p for test in tests)
    rows = [json.loads(line) for line in (folder / "benchmark-letters.jsonl").open()]
    assert len(rows) == 3 * 12
    right = [row["correct"] for row in rows if row["arm"] == "tuned"]
    assert letters.accuracy["tuned"] == pytest.approx(sum(right) / 12)
    assert "<h2>letters</h2>" in (folder / "report.html").read_text()
    assert "### letters" in (folder / "report.md").read_text()
    perplexity = found.metrics["perplexity"]
    assert perplexity.values["asked"] is None
    assert perplexity.values["tuned"] < perplexity.values["base"]  # type: ignore[operator]
    metrics = manifest(shop.store, "grown", "evaluate").metrics
    assert metrics["tuned_letters_accuracy"] == letters.accuracy["tuned"]
    assert metrics["letters_accuracy_p"] == letters.tests["base"].p
    told = thinktune("compare", "grown", "--reference", "final-answer", "--store", shop.store)
    lines = [line.split() for line in told.out.splitlines()]
    shown = f"{metrics['tuned_perplexity']:.3g}"
    assert any(line[:1] == ["Perplexity"] and shown in line for line in lines)
    assert "The run has not measured: Accuracy by the judge, MedQA in letters." in told.out
    assert "The run asked 8 questions, the reference 326." in told.out


def test_killed_in_a_benchmark_it_gives_the_same_report(
    shop: Workshop, grown: dict[str, Manifest], tmp_path: Path
) -> None:
    whole, _ = report(shop, "grown", tmp_path)
    store = open_store(shop.store)
    store.delete_prefix("runs/grown/evaluate")
    process = subprocess.Popen(
        [*COMMAND, "run", "tiny", "--local", "--store", shop.store, "--run", "grown", *LETTERS],
        env=environment(shop.jobs, {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    prefix = "runs/grown/evaluate/parts"
    wait_for(lambda: len(manifests_or_parts(store, prefix)) > 1, process)
    process.kill()
    process.wait(timeout=60)
    assert read_manifest(store, "runs/grown/evaluate") is None
    assert len(list(store.list(prefix))) > 0
    ended = shop.run("--run", "grown", *LETTERS)
    assert ended.code == 0, ended.err
    again, _ = report(shop, "grown", tmp_path / "again")
    assert again == whole
