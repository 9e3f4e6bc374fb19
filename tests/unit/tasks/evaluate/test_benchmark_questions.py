"""What evaluation asks of a benchmark: the same of all arms, in parts of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_evaluate_stage import FACTS, QUESTIONS, OneEngine, Recorder, put, task
from tokenizers import Tokenizer

from thinktune.schema.benchmark import LETTER, BenchmarkSource, BenchmarkSpec
from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.errors import InputMissing
from thinktune.schema.stages import EvaluateTask
from thinktune.store import Store, commit, manifest_digest, open_store
from thinktune.tasks.evaluate import stage
from thinktune.tasks.evaluate.inputs import Inputs, read_inputs, with_instruction
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

ENTRY = DatasetEntry(repo="o/letters", license="x", format="columns", description="x")
LETTERS = [
    {
        "id": f"m{number}",
        "question": f"Which is {number}?",
        "answer": "A",
        "reasoning": "",
        "group": None,
        "prompt_ids": [41] * (3 + number),
        "pieces": [
            {"text": "<|im_start|>user\n", "control": True},
            {"text": f"Which is {number}?\n\nA. 1\nB. 2\n\n{LETTER}", "control": False},
            {"text": "<|im_end|>\n", "control": True},
        ],
        "reference": "A",
    }
    for number in range(3)
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


def with_letters(of: EvaluateTask, **spec: Any) -> EvaluateTask:
    source = BenchmarkSource(
        spec=BenchmarkSpec.model_validate({"dataset": "letters", **spec}), entry=ENTRY
    )
    benchmarks = of.evaluate.model_copy(update={"benchmarks": {"letters": source.spec}})
    return of.model_copy(update={"benchmarks": {"letters": source}, "evaluate": benchmarks})


def commit_run(store: Store, folder: Path, of: EvaluateTask) -> None:
    """Prep, train and the benchmark of a run."""
    own = folder / "own"
    own.mkdir()
    rows = [{**row, "question": "?", "answer": "x", "group": None} for row in QUESTIONS]
    pq.write_table(pa.Table.from_pylist(rows), own / "test.parquet")
    (own / "prompt.json").write_text(FACTS.model_dump_json())
    (own / "card.json").write_text("{}")
    made = {"run": "r", "attempt": "a", "created": "2026-01-01T00:00:00+00:00"}
    prep = commit(
        store, "runs/r/prep", own, kind="prep", inputs={}, task_sha256="a" * 64, **made
    )  # fmt: skip
    put(store, folder, "train", adapter_config_json="{}")
    letters = folder / "letters"
    letters.mkdir()
    pq.write_table(pa.Table.from_pylist(LETTERS), letters / "questions.parquet")
    commit(
        store,
        "runs/r/benchmarks/letters",
        letters,
        kind="benchmark",
        inputs={"prep": manifest_digest(prep)},
        task_sha256=of.benchmarks["letters"].made_by("a" * 64),
        **made,
    )


def context_of(store: Store) -> Context:
    return Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())


def read(store: Store, of: EvaluateTask, folder: Path) -> Inputs:
    return read_inputs(of, context_of(store), folder)


def test_all_arms_are_asked_the_same(store: Store, tmp_path: Path, tokenizer_file: Path) -> None:
    of = with_letters(task(store, samples=1, instruction="Be brief."))
    commit_run(store, tmp_path, of)
    inputs = read(store, of, tmp_path / "read")
    assert inputs.longest_prompt() == 9
    assert set(inputs.pinned()) == {"prep", "train", "benchmarks/letters"}
    recorder = Recorder()
    asked = stage.ask_all(of, context_of(store), inputs, OneEngine(recorder), tokenizer_file)  # type: ignore[arg-type]
    assert set(asked.samples) == {None, "letters"}
    samples = asked.samples["letters"]
    assert [(s.arm, s.question_id) for s in samples[::3]] == [
        ("base", "m0"), ("asked", "m0"), ("tuned", "m0")
    ]  # fmt: skip
    assert len(asked.samples[None] or []) == 3 * 5
    of_letters = [r for r in recorder.requests if r.id.split("/")[1].startswith("m")]
    base, in_words, tuned = of_letters[:3], of_letters[3:6], of_letters[6:]
    assert [r.prompt_ids for r in base] == [r.prompt_ids for r in tuned]
    assert [r.seed for r in base] == [r.seed for r in tuned]
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    text = tokenizer.decode(list(in_words[0].prompt_ids), skip_special_tokens=False)
    assert f"A. 1\nB. 2\n\nBe brief.\n\n{LETTER}<|im_end|>" in text


def test_held_out_answers_are_kept_when_a_benchmark_comes(
    store: Store, tmp_path: Path, tokenizer_file: Path
) -> None:
    of = with_letters(task(store, samples=1))
    commit_run(store, tmp_path, of)
    whole = read(store, of, tmp_path / "read")
    plain = replace(whole, benchmarks={})
    first, second = Recorder(), Recorder()
    before = stage.ask_all(of, context_of(store), plain, OneEngine(first), tokenizer_file)  # type: ignore[arg-type]
    after = stage.ask_all(of, context_of(store), whole, OneEngine(second), tokenizer_file)  # type: ignore[arg-type]
    assert len(first.requests) == 10
    assert {r.id.split("/")[1] for r in second.requests} == {"m0", "m1", "m2"}
    assert after.samples[None] == before.samples[None]


def test_questions_of_another_benchmark_are_refused(store: Store, tmp_path: Path) -> None:
    of = with_letters(task(store))
    commit_run(store, tmp_path, of)
    with pytest.raises(InputMissing, match="made by another recipe") as caught:
        read(store, with_letters(task(store), questions=2), tmp_path / "1")
    assert caught.value.exit_code == 66
    store.delete_prefix("runs/r/benchmarks")
    with pytest.raises(InputMissing, match="benchmark letters is not there"):
        read(store, of, tmp_path / "2")


def test_a_benchmark_has_the_last_word() -> None:
    assert with_instruction("q", "i") == "q\n\ni"
    assert with_instruction("q\n\nb", "i", "b") == "q\n\ni\n\nb"
    assert with_instruction("b or b", "i", "b") == "b or b\n\ni"
    spec = BenchmarkSpec(dataset="letters")
    assert spec.asks_for(None, options=True) == LETTER
    assert "“Final Answer:”" in spec.asks_for("Final Answer:", options=True)
    assert spec.asks_for(None, options=False) == ""
    assert BenchmarkSpec(dataset="x", instruction="Go.").asks_for(None, options=True) == "Go."
