"""The evaluate stage around an engine: what it asks, what it keeps, what it needs of prep."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tiny_tokenizer import tiny_entry
from tokenizers import Tokenizer

from thinktune.schema.errors import InputMissing
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PromptFacts
from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.stages import EvaluateTask
from thinktune.store import Store, commit, open_store
from thinktune.tasks.evaluate import stage
from thinktune.tasks.generate.protocol import Answer, Batch, Sampling
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

FACTS = PromptFacts(stop_ids=(2, 5), template_sha256="a" * 64, opens_think=True)
QUESTIONS = [
    {"id": f"q{number}", "prompt_ids": [40] * (9 - number), "reference": str(number)}
    for number in range(5)
]


class Recorder:
    """Answers every prompt with its length, and keeps what it was asked."""

    name = "recorder"
    unit = "requests"

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.sampling: list[Sampling] = []

    def work(self, batches: Sequence[Batch], sampling: Sampling) -> int:
        return len(batches)

    def generate(
        self, batches: Sequence[Batch], sampling: Sampling, reporter: Reporter, stop: Stop
    ) -> Iterator[Answer]:
        for batch in batches:
            self.batches.append(batch)
            self.sampling.append(sampling)
            for request in batch.requests:
                yield Answer(request.id, (100 + len(request.prompt_ids),), finished=True)


def task(store: Store, **spec: object) -> EvaluateTask:
    return EvaluateTask(
        run="r",
        store=store.url,
        model_name="tiny",
        model=tiny_entry(),
        evaluate=EvaluateSpec.model_validate({"batch_size": 2, "samples": 2, "seed": 10, **spec}),
        final_answer=None,
        base="nf4",
    )


def put(store: Store, folder: Path, kind: str, **files: str) -> Manifest:
    output = folder / kind
    output.mkdir(parents=True)
    for name, text in files.items():
        (output / name.replace("_", ".")).write_text(text)
    return commit(
        store,
        f"runs/r/{kind}",
        output,
        kind=kind,
        run="r",
        attempt="a",
        inputs={},
        task_sha256=None,
        created="2026-01-01T00:00:00+00:00",
    )


def asked(
    store: Store, folder: Path, tokenizer_file: Path, *, adapter: str = "one", **spec: object
) -> tuple[Recorder, list[stage.Sample]]:
    recorder = Recorder()
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    elsewhere = open_store(f"file://{folder}/{adapter}/store")
    inputs = stage.Inputs(
        put(elsewhere, folder / adapter, "prep", x="x"),
        put(elsewhere, folder / adapter, "train", x=adapter),
        folder,
        FACTS,
        QUESTIONS,
    )
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    return recorder, stage.ask(task(store, **spec), context, inputs, recorder, tokenizer)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


def test_both_models_get_the_same_batches_and_seeds(
    store: Store, tmp_path: Path, tokenizer_file: Path
) -> None:
    recorder, samples = asked(store, tmp_path, tokenizer_file)
    half = len(recorder.batches) // 2
    base, tuned = recorder.batches[:half], recorder.batches[half:]
    assert {batch.adapter for batch in base} == {False}
    assert {batch.adapter for batch in tuned} == {True}
    assert [batch.seed for batch in base] == [batch.seed for batch in tuned]
    assert [batch.seed for batch in base] == [10, 11, 12, 7929, 7930, 7931]
    prompts = [[r.prompt_ids for r in batch.requests] for batch in base]
    assert prompts == [[r.prompt_ids for r in batch.requests] for batch in tuned]
    # Neighbors in length share a batch.
    assert [len(ids) for of_batch in prompts[:3] for ids in of_batch] == [5, 6, 7, 8, 9]
    assert {sampling.stop_ids for sampling in recorder.sampling} == {(2, 5)}

    assert len(samples) == 2 * 2 * 5
    assert [s.question_id for s in samples[:5]] == ["q4", "q3", "q2", "q1", "q0"]
    assert [(s.variant, s.sample) for s in samples[::5]] == [
        ("base", 0),
        ("base", 1),
        ("tuned", 0),
        ("tuned", 1),
    ]
    first = samples[0]
    assert (first.reference, first.tokens, first.prompt_opens_think) == ("4", 1, True)
    assert first.text == Tokenizer.from_file(str(tokenizer_file)).decode([105])


def test_a_second_attempt_asks_nothing(store: Store, tmp_path: Path, tokenizer_file: Path) -> None:
    _, samples = asked(store, tmp_path / "1", tokenizer_file)
    again, same = asked(store, tmp_path / "2", tokenizer_file)
    assert again.batches == []
    assert same == samples


@pytest.mark.parametrize("other", [{"adapter": "another"}, {"temperature": 0.1}])
def test_another_adapter_or_sampling_is_asked_anew(
    store: Store, tmp_path: Path, tokenizer_file: Path, other: dict[str, object]
) -> None:
    asked(store, tmp_path / "1", tokenizer_file)
    again, _ = asked(store, tmp_path / "2", tokenizer_file, **other)  # type: ignore[arg-type]
    assert len(again.batches) == 12


def test_an_artifact_of_prep_that_says_no_end_is_refused(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "prep", test_parquet="x", card_json="{}")
    put(store, tmp_path, "train", adapter_config_json="{}")
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    with pytest.raises(InputMissing, match=r"it has no prompt\.json") as caught:
        stage.run(task(store), context)
    assert caught.value.exit_code == 66
