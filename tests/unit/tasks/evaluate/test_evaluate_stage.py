"""The evaluate stage around an engine: what it asks, what it keeps, what it needs of prep."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_tokenizer import tiny_entry
from tokenizers import Tokenizer

from thinktune.schema.arms import arms_of
from thinktune.schema.errors import InputMissing
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PromptFacts
from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.stages import EvaluateTask
from thinktune.store import Store, commit, open_store
from thinktune.tasks.evaluate import stage
from thinktune.tasks.evaluate.asking import ask_all
from thinktune.tasks.evaluate.inputs import Inputs
from thinktune.tasks.evaluate.samples import Sample
from thinktune.tasks.generate.protocol import Answer, Batch, Request, Sampling
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

FACTS = PromptFacts(stop_ids=(2, 5), template_sha256="a" * 64, opens_think=True)
QUESTIONS = [
    {
        "id": f"q{number}",
        "prompt_ids": [40] * (9 - number),
        "pieces": [
            {"text": "<|im_start|>user\n", "control": True},
            {"text": f"What is {number}?", "control": False},
            {"text": "<|im_end|>\n", "control": True},
        ],
        "reference": str(number),
    }
    for number in range(5)
]


class Recorder:
    """Answers every prompt with its length, and keeps what it was asked."""

    name = "recorder"
    unit = "requests"

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.sampling: list[Sampling] = []

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> list[Batch]:
        return [(request,) for request in requests]

    def work(self, batches: Sequence[Batch], sampling: Sampling) -> int:
        return len(batches)

    def generate(
        self, batches: Sequence[Batch], sampling: Sampling, reporter: Reporter, stop: Stop
    ) -> Iterator[Answer]:
        for (request,) in batches:
            self.requests.append(request)
            self.sampling.append(sampling)
            yield Answer(request.id, (100 + len(request.prompt_ids),), finished=True)

    def close(self) -> None:
        pass


class OneEngine:
    """The recorder at every precision."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.opened: list[str] = []

    @contextmanager
    def open(self, precision: str) -> Iterator[Recorder]:
        self.opened.append(precision)
        yield self.recorder


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
) -> tuple[Recorder, list[Sample]]:
    recorder, samples = asked_in_part(store, folder, tokenizer_file, adapter=adapter, **spec)
    assert samples is not None
    return recorder, samples


def asked_in_part(
    store: Store, folder: Path, tokenizer_file: Path, *, adapter: str = "one", **spec: object
) -> tuple[Recorder, list[Sample] | None]:
    recorder = Recorder()
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    elsewhere = open_store(f"file://{folder}/{adapter}/store")
    inputs = Inputs(
        put(elsewhere, folder / adapter, "prep", x="x"),
        put(elsewhere, folder / adapter, "train", x=adapter),
        folder,
        FACTS,
        QUESTIONS,
    )
    engines = OneEngine(recorder)
    found = ask_all(task(store, **spec), context, inputs, engines, tokenizer_file)  # type: ignore[arg-type]
    return recorder, found.samples[None] if found is not None else None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


def test_all_arms_get_the_same_requests_and_seeds(
    store: Store, tmp_path: Path, tokenizer_file: Path
) -> None:
    recorder, samples = asked(store, tmp_path, tokenizer_file)
    half = len(recorder.requests) // 2
    base, tuned = recorder.requests[:half], recorder.requests[half:]
    assert {request.adapter for request in base} == {False}
    assert {request.adapter for request in tuned} == {True}
    assert [request.seed for request in base] == [request.seed for request in tuned]
    assert len({request.seed for request in base}) == 10
    assert [r.prompt_ids for r in base] == [r.prompt_ids for r in tuned]
    assert {sampling.stop_ids for sampling in recorder.sampling} == {(2, 5)}

    assert len(samples) == 2 * 2 * 5
    assert [s.question_id for s in samples[:5]] == ["q0", "q1", "q2", "q3", "q4"]
    assert [(s.arm, s.sample) for s in samples[::5]] == [
        ("base", 0),
        ("base", 1),
        ("tuned", 0),
        ("tuned", 1),
    ]
    last = samples[4]
    assert (last.reference, last.tokens, last.prompt_opens_think) == ("4", 1, True)
    assert last.text == Tokenizer.from_file(str(tokenizer_file)).decode([105])


def test_a_base_that_is_asked_in_words(store: Store, tmp_path: Path, tokenizer_file: Path) -> None:
    recorder, samples = asked(
        store, tmp_path, tokenizer_file, samples=1, instruction="End in a line <|im_end|>."
    )
    assert [sample.arm for sample in samples[::5]] == ["base", "asked", "tuned"]
    in_words = recorder.requests[5]
    assert not in_words.adapter
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    text = tokenizer.decode(list(in_words.prompt_ids), skip_special_tokens=False)
    assert text == "<|im_start|>user\nWhat is 0?\n\nEnd in a line <|im_end|>.<|im_end|>\n"
    end = tokenizer.token_to_id("<|im_end|>")
    assert in_words.prompt_ids.count(end) == 1  # the instruction's is letters


def test_other_precisions_are_arms_of_the_tuned_model(
    store: Store, tmp_path: Path, tokenizer_file: Path
) -> None:
    recorder, samples = asked(
        store, tmp_path, tokenizer_file, samples=1, precisions=["nf4", "16bit"]
    )
    assert [sample.arm for sample in samples[::5]] == ["base", "tuned", "tuned-16bit"]
    assert [request.adapter for request in recorder.requests[::5]] == [False, True, True]
    arms = arms_of(task(store, precisions=["16bit"]).evaluate, "nf4")
    assert [arm.precision_words() for arm in arms] == [
        "4-bit NF4 base",
        "4-bit NF4 base, adapter unmerged",
        "16-bit base, adapter unmerged",
    ]


def test_a_second_attempt_asks_nothing(store: Store, tmp_path: Path, tokenizer_file: Path) -> None:
    _, samples = asked(store, tmp_path / "1", tokenizer_file)
    again, same = asked(store, tmp_path / "2", tokenizer_file)
    assert again.requests == []
    assert same == samples


def test_shards_divide_the_questions_and_the_last_one_has_all_answers(
    store: Store, tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = asked(open_store(f"file://{tmp_path}/other"), tmp_path / "w", tokenizer_file)
    monkeypatch.setenv("THINKTUNE_SHARDS", "3")
    requests, found = [], []
    for index in (2, 0, 1):
        monkeypatch.setenv("THINKTUNE_SHARD", str(index))
        recorder, samples = asked_in_part(store, tmp_path / str(index), tokenizer_file)
        requests.append([request.id for request in recorder.requests])
        found.append(samples)
    assert found == [None, None, expected]
    assert sorted(id_ for some in requests for id_ in some) == sorted(
        request.id for request in whole.requests
    )
    assert max(map(len, requests)) - min(map(len, requests)) <= 2  # one for each arm


def test_a_shard_that_was_killed_at_its_end_finds_the_others_answers(
    store: Store, tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINKTUNE_SHARDS", "2")
    for index, expected in ((0, False), (1, True), (0, True)):
        monkeypatch.setenv("THINKTUNE_SHARD", str(index))
        recorder, samples = asked_in_part(store, tmp_path / f"{index}{expected}", tokenizer_file)
        assert (samples is not None) is expected
    assert recorder.requests == []


@pytest.mark.parametrize("other", [{"verifier": "none"}, {"require": {}}, {"side_by_side": 9}])
def test_what_decides_no_answer_asks_none_anew(
    store: Store, tmp_path: Path, tokenizer_file: Path, other: dict[str, object]
) -> None:
    asked(store, tmp_path / "1", tokenizer_file)
    again, _ = asked(store, tmp_path / "2", tokenizer_file, **other)  # type: ignore[arg-type]
    assert again.requests == []


@pytest.mark.parametrize("other", [{"adapter": "another"}, {"temperature": 0.1}])
def test_another_adapter_or_sampling_is_asked_anew(
    store: Store, tmp_path: Path, tokenizer_file: Path, other: dict[str, object]
) -> None:
    asked(store, tmp_path / "1", tokenizer_file)
    again, _ = asked(store, tmp_path / "2", tokenizer_file, **other)  # type: ignore[arg-type]
    assert len(again.requests) == 20


def test_an_artifact_of_prep_that_says_no_end_is_refused(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "prep", test_parquet="x", card_json="{}")
    put(store, tmp_path, "train", adapter_config_json="{}")
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    with pytest.raises(InputMissing, match=r"it has no prompt\.json") as caught:
        stage.run(task(store), context)
    assert caught.value.exit_code == 66


@pytest.mark.parametrize("what", ["model", "chat template"])
def test_an_adapter_of_another_base_or_template_is_refused(
    store: Store, tmp_path: Path, what: str
) -> None:
    prep = put(store, tmp_path, "prep", test_parquet="x", card_json="{}", prompt_json="{}")
    train = put(store, tmp_path, "train", adapter_config_json="{}")
    other = {"revisions": {"model": "b" * 40}, "template_sha256": prep.template_sha256}
    if what == "chat template":
        other = {"revisions": prep.revisions, "template_sha256": "b" * 64}
    store.put(
        "runs/r/train/manifest.json", train.model_copy(update=other).model_dump_json().encode()
    )
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    with pytest.raises(InputMissing, match=f"was trained with another {what}") as caught:
        stage.run(task(store), context)
    assert caught.value.exit_code == 66


def test_an_older_prep_has_no_place_for_words(store: Store, tmp_path: Path) -> None:
    """Found before hours of generation, not at the second arm."""
    folder = tmp_path / "old"
    folder.mkdir()
    rows = [{"id": "q0", "question": "?", "prompt": "?", "prompt_ids": [40], "reference": "4"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    (folder / "prompt.json").write_text(FACTS.model_dump_json())
    (folder / "card.json").write_text("{}")
    commit(
        store,
        "runs/r/prep",
        folder,
        kind="prep",
        run="r",
        attempt="a",
        inputs={},
        task_sha256=None,
        created="2026-01-01T00:00:00+00:00",
    )
    put(store, tmp_path, "train", adapter_config_json="{}")
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    with pytest.raises(InputMissing, match="endpoints need; delete that artifact"):
        stage.run(task(store, instruction="End in a line."), context)
