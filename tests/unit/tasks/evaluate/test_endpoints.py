"""Endpoints answer as arms of an evaluation, against a real server that speaks their protocol."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking_of import spec_dict
from llm_server import LlmServer, Refuse, llm_server
from llm_wire import Spoiled
from llm_worker import KEY
from tiny_tokenizer import tiny_entry

from thinktune.schema.errors import ServiceUnavailable, SpecInvalid
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PromptFacts
from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.stages import EvaluateTask
from thinktune.store import Store, open_store
from thinktune.tasks.evaluate.asking import Asked
from thinktune.tasks.evaluate.endpoints import (
    ask_endpoints,
    check_endpoints,
    endpoint_info,
    sampled_as,
)
from thinktune.tasks.evaluate.inputs import Inputs
from thinktune.tasks.evaluate.samples import Sample
from thinktune.tasks.evaluate.stage import _ask_endpoints
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

FACTS = PromptFacts(stop_ids=(2,), template_sha256="a" * 64, opens_think=True)
OPENED, CLOSED = "<|im_start|>{}\n", "<|im_end|>\n"


def pieces(*turns: tuple[str, str]) -> list[dict[str, object]]:
    said = []
    for role, text in turns:
        said += [(OPENED.format(role), True), (text, False), (CLOSED, True)]
    said.append((OPENED.format("assistant"), True))
    return [{"text": text, "control": control} for text, control in said]


ROWS = [
    {
        "id": f"q{number}",
        "pieces": pieces(("system", "Be brief."), ("user", f"What is {number}?")),
        "reference": str(number),
    }
    for number in range(3)
]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[LlmServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with llm_server() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


def task(endpoint: LlmServer, store: Store, **more: object) -> EvaluateTask:
    evaluate = {"samples": 2, "max_new_tokens": 40, "temperature": 0.5} | more
    evaluate.setdefault("endpoints", {"rival": {"llm": spec_dict(endpoint)}})
    return EvaluateTask(
        run="r",
        store=store.url,
        model_name="tiny",
        model=tiny_entry(),
        evaluate=EvaluateSpec.model_validate(evaluate),
        final_answer=None,
        base="nf4",
    )


def answered(of: EvaluateTask, store: Store) -> list[Sample]:
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    nothing = Manifest.model_construct()
    inputs = Inputs(nothing, nothing, Path(), FACTS, [dict(row) for row in ROWS])
    return ask_endpoints(of, context, inputs)


def test_each_question_is_answered_as_often_as_by_the_other_arms(
    endpoint: LlmServer, store: Store
) -> None:
    endpoint.reply = lambda prompt: f"<think>\nhm\n</think>\n\nIt is {prompt.split()[-1][:-1]}."
    samples = answered(task(endpoint, store), store)
    keys = [f"rival-{n:03d}/q{q}" for n in range(2) for q in range(3)]
    assert [each.key for each in samples] == keys
    assert [each.text for each in samples[:2]] == [
        "<think>\nhm\n</think>\n\nIt is 0.",
        "<think>\nhm\n</think>\n\nIt is 1.",
    ]
    assert all(each.finished and each.tokens for each in samples)
    assert len(endpoint.bills) == 6  # two draws of three questions
    again = answered(task(endpoint, store), store)
    assert again == samples
    assert len(endpoint.bills) == 6  # nothing is paid for twice


def test_sampling_is_that_of_the_other_arms_unless_it_has_its_own(
    endpoint: LlmServer, store: Store
) -> None:
    spec = task(endpoint, store).evaluate
    same = sampled_as(spec, spec.endpoints["rival"]).parameters
    assert (same.temperature, same.top_p, same.max_tokens) == (0.5, 0.95, 40)
    own = {"rival": {"llm": spec_dict(endpoint), "own_sampling": True}}
    spec = task(endpoint, store, endpoints=own).evaluate
    assert sampled_as(spec, spec.endpoints["rival"]) == spec.endpoints["rival"].llm


def test_the_instruction_is_for_who_was_not_tuned(endpoint: LlmServer, store: Store) -> None:
    arms = {
        "served": {"llm": spec_dict(endpoint)},
        "rival": {"llm": spec_dict(endpoint), "instructed": True},
    }
    of = task(endpoint, store, samples=1, endpoints=arms, instruction="Say it in one word.")
    answered(of, store)
    told = [bill.prompt.endswith("Say it in one word.") for bill in endpoint.bills]
    assert sorted(told) == [False] * 3 + [True] * 3
    rival = endpoint_info("rival", of.evaluate.endpoints["rival"])
    assert rival.label == "rival, asked in words"
    assert rival.engine == "model-of-tests at 127.0.0.1"


def test_a_refused_question_counts_as_not_answered_and_a_cut_one_by_what_is_there(
    endpoint: LlmServer, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    def decide(asked: object) -> Spoiled | Refuse | None:
        prompt = getattr(asked, "prompt", "")
        if "What is 1?" in prompt:
            return Refuse(400, message="a filter found something")
        return "too long" if "What is 2?" in prompt else None

    endpoint.decide = decide
    samples = answered(task(endpoint, store, samples=1), store)
    # A refusal is no matter of length.
    assert [each.finished for each in samples] == [True, True, False]
    assert [each.text for each in samples[1:]] == ["", "The gist"]
    assert "rival: no answer to 2 requests (1 refused_request, 1 truncated)" in "".join(
        capfd.readouterr()
    )


def test_the_same_name_at_another_address_is_another_model(
    endpoint: LlmServer, store: Store
) -> None:
    of = task(endpoint, store, samples=1)
    first = answered(of, store)
    with llm_server() as other:
        other.reply = lambda prompt: "Something else."
        moved = task(other, store, samples=1)
        assert {each.text for each in answered(moved, store)} == {"Something else."}
        again = moved.model_copy(update={"run": "s"})
        answered(again, store)
        assert len(other.bills) == 6  # nor are the answers of another run believed
    assert answered(of, store) == first
    assert len(endpoint.bills) == 3


def test_an_endpoint_that_is_gone_leaves_what_the_others_said(
    endpoint: LlmServer, store: Store
) -> None:
    endpoint.decide = lambda asked: Refuse(503)
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    nothing = Manifest.model_construct()
    inputs = Inputs(nothing, nothing, Path(), FACTS, [dict(row) for row in ROWS])
    asked = Asked({None: []}, {})
    fault = _ask_endpoints(task(endpoint, store), context, inputs, asked)
    assert isinstance(fault, ServiceUnavailable)
    assert asked.samples == {None: []}


def test_an_endpoint_that_is_gone_ends_it_and_the_next_attempt_goes_on(
    endpoint: LlmServer, store: Store
) -> None:
    endpoint.decide = lambda asked: Refuse(503) if asked.number > 2 else None
    of = task(endpoint, store, samples=1)
    with pytest.raises(ServiceUnavailable, match=r"evaluate\.endpoints\.rival"):
        answered(of, store)
    paid = len(endpoint.bills)
    endpoint.decide = lambda asked: None
    assert all(each.finished for each in answered(of, store))
    assert len(endpoint.bills) == 3 >= paid


def test_a_missing_key_is_told_before_anything_is_asked(
    endpoint: LlmServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = task(endpoint, store)
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(SpecInvalid, match="TEST_KEY"):
        check_endpoints(of.evaluate)


@pytest.mark.parametrize("name", ["base", "asked", "tuned", "tuned-16bit", "Rival", "a b"])
def test_names_of_arms_are_taken(endpoint: LlmServer, store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        task(endpoint, store, endpoints={name: {"llm": spec_dict(endpoint)}})


def test_an_instruction_that_is_not_there(endpoint: LlmServer, store: Store) -> None:
    arms = {"rival": {"llm": spec_dict(endpoint), "instructed": True}}
    with pytest.raises(ValueError, match="leave out 'instructed'"):
        task(endpoint, store, endpoints=arms)
