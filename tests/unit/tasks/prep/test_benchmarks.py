"""The questions of a benchmark: asked as the run's own are, and an artifact of their own."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from letters import commit_letters, letter_rows
from prep_stage import OWN, Prep
from reading import written
from tiny_tokenizer import tiny_entry
from tokenizers import Tokenizer

from thinktune.launch.find_finished import finished
from thinktune.schema.benchmark import BenchmarkSource, BenchmarkSpec
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import DataInvalid, InputMissing
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import PrepTask
from thinktune.store import fetch, manifest_digest, open_store, read_manifest
from thinktune.tasks.prep import stage
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

ROWS = letter_rows(40)


@pytest.fixture
def prep(tmp_path: Path) -> Prep:
    return Prep(tmp_path)


def task(prep: Prep, *, data: dict[str, Any] | None = None, **spec: Any) -> PrepTask:
    """Prep of a run with 30 rows of its own, one of them a question of the benchmark, `spec`."""
    own = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(30)]
    own.append({"question": str(ROWS[8]["question"]), "answer": "4"})
    path = written(prep.folder, own)
    benchmarks = {}
    if spec:
        source = BenchmarkSpec.model_validate({"dataset": "letters", **spec})
        entry = commit_letters(prep.url, ROWS)
        benchmarks = {"letters": BenchmarkSource(spec=source, entry=entry)}
    settings = {"dataset": "file", "path": str(path), "require_reasoning": False, **(data or {})}
    return PrepTask(
        run="r",
        store=prep.url,
        model_name="tiny",
        model=tiny_entry(),
        dataset=OWN,
        data=DataSpec.model_validate(settings),
        benchmarks=benchmarks,
    )


def run(task: PrepTask, attempt: str = "a") -> Manifest:
    store = open_store(task.store)
    context = Context(store, attempt, Reporter(store, task.run, "prep", attempt), Stop())
    return stage.run(task, context)


def made(prep: Prep) -> tuple[Manifest, list[dict[str, Any]], dict[str, Any]]:
    """The benchmark's artifact: manifest, questions, contamination."""
    store = open_store(prep.url)
    manifest = read_manifest(store, "runs/r/benchmarks/letters")
    assert manifest is not None
    folder = fetch(store, "runs/r/benchmarks/letters", manifest, prep.folder / "benchmark")
    found = json.loads((folder / "contamination.json").read_text())
    return manifest, pq.read_table(folder / "questions.parquet").to_pylist(), found


def prompt(prep: Prep, row: dict[str, Any]) -> str:
    tokenizer = Tokenizer.from_file(str(prep.folder / "model" / "tokenizer.json"))
    return str(tokenizer.decode(row["prompt_ids"], skip_special_tokens=False))


def test_questions_are_asked_as_those_of_the_run(prep: Prep) -> None:
    filters = [{"column": "question", "matches": "\\+|shop"}]
    data = {
        "final_answer": "Final Answer:",
        "system": "You count.",
        "prompt": "### Task\nCount.\n\n### Query\n{question}\n\n### Answer",
        "answer": "{answer}\n\nFinal Answer: {answer}",
        "filters": filters,
        "require_reasoning": False,
        "max_tokens": 130,  # of training examples alone
    }
    own = run(task(prep, data=data, questions=12))
    manifest, rows, found = made(prep)
    assert manifest.inputs == {"prep": manifest_digest(own)}
    assert manifest.metrics == {"questions": 12, "training_rows_alike": found_rows(found)}
    assert len({row["id"] for row in rows}) == len(rows) == 12
    by_question = {row["question"]: row for row in ROWS}
    for row in rows:
        question, _, options = row["question"].partition("\n\n")
        source = by_question[question]
        assert row["reference"] == row["answer"] == source["answer_idx"]
        assert options.splitlines() == [f"{k}. {v}" for k, v in source["options"].items()]  # type: ignore[attr-defined]
    text = prompt(prep, rows[0])
    assert "You count." in text
    assert f"### Query\n{rows[0]['question']}\n\nChoose one option" in text
    assert "“Final Answer:” and its letter.\n\n### Answer" in text
    joined = "".join(piece["text"] for piece in rows[0]["pieces"])
    assert joined.strip() == text.strip()


def found_rows(found: dict[str, Any]) -> int:
    return sum(count for kinds in found["counts"].values() for count in kinds.values())


def test_training_rows_that_a_benchmark_knows_are_found(prep: Prep) -> None:
    run(task(prep, verifier="choice"))
    manifest, rows, found = made(prep)
    assert len(rows) == len(ROWS)
    assert manifest.metrics["training_rows_alike"] == found_rows(found) >= 1
    assert any("figs" in match["text"] or "pears" in match["text"] for match in found["worst"])


def test_a_run_that_gains_a_benchmark_keeps_its_data(prep: Prep) -> None:
    plain = task(prep)
    before = run(plain)
    store = open_store(prep.url)
    assert finished(store, plain, "prep", {}) == before
    more = task(prep, questions=5)
    assert more.result_digest() == plain.result_digest()
    assert finished(store, more, "prep", {}) is None  # it is to run again, for the benchmark
    assert run(more, "b") == before
    assert finished(store, more, "prep", {}) == before
    assert len(made(prep)[1]) == 5
    again = task(prep, questions=6)
    with pytest.raises(InputMissing, match=r"benchmarks/letters.*another recipe") as caught:
        finished(store, again, "prep", {})
    assert caught.value.exit_code == 66


def test_the_draw_is_the_same_for_every_run(prep: Prep) -> None:
    run(task(prep, questions=7))
    few = [row["id"] for row in made(prep)[1]]
    open_store(prep.url).delete_prefix("runs/r")
    run(task(prep, questions=20))
    assert [row["id"] for row in made(prep)[1]][:7] == few


def test_rows_of_another_dataset_revision_are_not_compared(prep: Prep) -> None:
    before = run(task(prep))
    other = before.model_copy(update={"revisions": {"model": "b" * 40, "dataset": "x"}})
    key = "runs/r/prep/manifest.json"
    open_store(prep.url).put(key, other.model_dump_json().encode())
    with pytest.raises(InputMissing, match=r"the hub has .* by now"):
        run(task(prep, questions=5), "b")


def test_a_benchmark_that_cannot_be_read(prep: Prep) -> None:
    good = task(prep, questions=5)
    columns = good.benchmarks["letters"].entry.columns.model_copy(update={"answer": "nosuch"})
    entry = good.benchmarks["letters"].entry.model_copy(update={"columns": columns})
    source = good.benchmarks["letters"].model_copy(update={"entry": entry})
    with pytest.raises(DataInvalid, match="nosuch"):
        run(good.model_copy(update={"benchmarks": {"letters": source}}))


def test_without_benchmarks_a_task_is_what_it_was(prep: Prep) -> None:
    assert "benchmarks" not in task(prep).model_dump(mode="json")
    assert "benchmarks" not in json.loads(task(prep).canonical())
    assert task(prep).commits_beside() == {}
