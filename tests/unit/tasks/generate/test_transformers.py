"""The engine of transformers on the tiny model and a random adapter."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_entry
from transformers import AutoModelForCausalLM

from thinktune.schema.errors import Preempted
from thinktune.store import open_store
from thinktune.tasks.generate.protocol import Answer, Batch, Engine, Request, Sampling
from thinktune.tasks.generate.transformers import TransformersEngine
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

GREEDY = Sampling(temperature=0.0, top_p=0.95, max_new_tokens=6, stop_ids=(2,))
PROMPTS = ((40, 41, 42, 43), (50, 51))


def batch(name: str, *, adapter: bool, seed: int = 3, prompts: int = 2) -> Batch:
    return tuple(
        Request(f"{name}/{number}", prompt, seed + number, adapter)
        for number, prompt in enumerate(PROMPTS[:prompts])
    )


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules=list(tiny_entry().lora_targets), init_lora_weights=False
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), config)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(tiny_folder: Path, adapter: Path) -> Engine:
    return TransformersEngine(
        tiny_folder, adapter, entry=tiny_entry(), base="16bit", dtype="float32"
    )


@pytest.fixture
def context(tmp_path: Path) -> Context:
    store = open_store(f"file://{tmp_path}")
    reporter = Reporter(store, "r", "evaluate", "a")
    reporter.phase("generate", 10_000, "steps")
    return Context(store, "a", reporter, Stop())


def ids(answers: list[Answer]) -> list[tuple[int, ...]]:
    return [answer.ids for answer in answers]


def test_greedy_answers_are_those_of_the_library(
    engine: Engine, context: Context, tiny_folder: Path
) -> None:
    answers = list(
        engine.generate([batch("b", adapter=False)], GREEDY, context.reporter, context.stop)
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        inputs = torch.tensor([prompt])
        out = model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=2,
        )
        new = out[0, len(prompt) :].tolist()
        assert list(answer.ids) == (new[: new.index(2)] if 2 in new else new)
        assert answer.finished == (2 in new)


def test_the_adapter_is_on_for_the_batches_that_ask_for_it(
    engine: Engine, context: Context
) -> None:
    both = [batch("b", adapter=False), batch("t", adapter=True)]
    answers = list(engine.generate(both, GREEDY, context.reporter, context.stop))
    assert [answer.request_id for answer in answers] == ["b/0", "b/1", "t/0", "t/1"]
    assert ids(answers[:2]) != ids(answers[2:])
    # The order of batches decides nothing, nor a caller that took one answer and left.
    next(engine.generate([both[0]], GREEDY, context.reporter, context.stop))
    assert list(engine.generate([both[1]], GREEDY, context.reporter, context.stop)) == answers[2:]


def test_what_is_drawn_depends_on_the_request_alone(engine: Engine, context: Context) -> None:
    hot = GREEDY.model_copy(update={"temperature": 1.0, "max_new_tokens": 12})
    both = batch("b", adapter=False)
    together = {
        answer.request_id: answer
        for answer in engine.generate([both], hot, context.reporter, context.stop)
    }
    for request in both:
        alone = next(engine.generate([(request,)], hot, context.reporter, context.stop))
        assert alone == together[request.id]


def test_neighbors_in_length_share_a_batch(engine: Engine, tiny_folder: Path) -> None:
    requests = [
        Request(f"{adapter}{n}", (40,) * (9 - n), 0, adapter)
        for adapter in (True, False)
        for n in range(5)
    ]
    few = TransformersEngine(
        tiny_folder, tiny_folder, entry=tiny_entry(), base="16bit", dtype="float32", rows=2
    )
    lengths = [[len(r.prompt_ids) for r in each] for each in few.batches(requests, GREEDY)]
    assert lengths == [[5, 6], [7, 8], [9]] * 2
    assert [each[0].adapter for each in few.batches(requests, GREEDY)] == [False] * 3 + [True] * 3
    assert [len(each) for each in engine.batches(requests, GREEDY)] == [5, 5]


def test_a_batch_is_drawn_from_its_seed(engine: Engine, context: Context) -> None:
    hot = GREEDY.model_copy(update={"temperature": 2.0, "top_p": 1.0, "max_new_tokens": 12})
    first = batch("b", adapter=False, seed=1)
    before = ids(list(engine.generate([first], hot, context.reporter, context.stop)))
    torch.rand(7)
    assert ids(list(engine.generate([first], hot, context.reporter, context.stop))) == before
    other = batch("b", adapter=False, seed=2)
    assert ids(list(engine.generate([other], hot, context.reporter, context.stop))) != before


def test_an_answer_ends_before_its_stop_id(engine: Engine, context: Context) -> None:
    one = batch("b", adapter=False, prompts=1)
    whole = next(engine.generate([one], GREEDY, context.reporter, context.stop))
    assert not whole.finished and len(whole.ids) == 6
    stopping = GREEDY.model_copy(update={"stop_ids": (2, whole.ids[3])})
    ended = next(engine.generate([one], stopping, context.reporter, context.stop))
    assert ended.finished
    assert ended.ids == whole.ids[: whole.ids.index(whole.ids[3])]


def test_progress_comes_to_the_work(engine: Engine, context: Context) -> None:
    batches = [batch("b", adapter=False), batch("t", adapter=True, prompts=1)]
    # Every answer ends at its first token, long before the limit.
    ended = GREEDY.model_copy(update={"stop_ids": tuple(range(320))})
    answers = list(engine.generate(batches, ended, context.reporter, context.stop))
    assert all(answer.finished and answer.ids == () for answer in answers)
    assert context.reporter._done == engine.work(batches, ended) == 12


def test_asked_to_stop_it_stops(engine: Engine, context: Context) -> None:
    context.stop.requested = True
    with pytest.raises(Preempted):
        next(engine.generate([batch("b", adapter=False)], GREEDY, context.reporter, context.stop))
    assert context.reporter._done == 1


def test_without_an_adapter_it_is_the_base(
    engine: Engine, tiny_folder: Path, context: Context
) -> None:
    alone = TransformersEngine(tiny_folder, None, entry=tiny_entry(), base="16bit", dtype="float32")
    some = batch("base", adapter=False)
    found = [
        ids(list(each.generate([some], GREEDY, context.reporter, Stop())))
        for each in (engine, alone)
    ]
    assert found[0] == found[1]
