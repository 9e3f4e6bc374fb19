"""Columns written by a model: rows in, rows or reasons out."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from asking_of import ENVIRONMENT, spec_dict
from llm_server import LlmServer

from thinktune.llm.generate import Written, generate, plan
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.llm import GenerateSpec
from thinktune.store import Store


def spec_of(server: LlmServer, mode: str = "live", **settings: Any) -> GenerateSpec:
    whole = {
        "llm": spec_dict(server, mode=mode),
        "prompt": "Sum up {question}",
        "column": "summary",
    }
    return GenerateSpec.parse({**whole, **settings}, "test")


def rows(count: int = 5) -> list[dict[str, Any]]:
    return [{"question": f"q{n}", "answer": f"a{n}"} for n in range(count)]


def written(
    some: Iterable[dict[str, Any]], spec: GenerateSpec, store: Store, **more: Any
) -> list[Written]:
    made = generate(some, spec, store=store, spend_prefix="spend", environment=ENVIRONMENT, **more)
    return sorted(made, key=lambda one: one.number)


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_each_row_gets_its_field(endpoint: LlmServer, store: Store, mode: str) -> None:
    made = written(rows(), spec_of(endpoint, mode), store)
    assert [one.row for one in made] == [
        {"question": f"q{n}", "answer": f"a{n}", "summary": f"The gist of it is q{n}."}
        for n in range(5)
    ]
    assert all(one.reason is None and one.drafts == 1 for one in made)


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_every_row_that_is_lost_has_a_reason(endpoint: LlmServer, store: Store, mode: str) -> None:
    endpoint.decide = lambda asked: "too long" if asked.prompt.endswith("q3") else None
    some = [*rows(4), {"question": None}, {"question": ["x"]}, {"question": "long " * 9 + "q6"}]
    endpoint.reply = lambda prompt: prompt if "q6" in prompt else "It is so."
    made = written(some, spec_of(endpoint, mode, checks={"not_the_question": True}), store)
    assert [one.reason for one in made] == [
        *(None, None, None, "truncated", "no:question", "not_text:question", "not_the_question")
    ]
    assert made[6].detail.startswith("Sum up long") and made[4].drafts == 0


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_drafts_are_tried_until_one_agrees_with_the_reference(
    endpoint: LlmServer, store: Store, mode: str
) -> None:
    """Row n is right at its n-th draft."""
    tries: dict[str, int] = {}

    def reply(prompt: str) -> str:
        tries[prompt] = tries.get(prompt, 0) + 1
        number = int(prompt.removeprefix("Sum up q"))
        answer = f"a{number}" if tries[prompt] > number else "ax"
        return f"<think>Draft {tries[prompt]}.</think>{answer}"

    endpoint.reply = reply
    spec = spec_of(
        endpoint,
        mode,
        column="draft",
        reasoning_column="reasoning",
        drafts=3,
        reference="answer",
    )
    made = written(rows(), spec, store, verify=lambda draft, reference: draft == reference)
    assert [(one.reason, one.drafts) for one in made] == [
        (None, 1),
        (None, 2),
        (None, 3),
        ("disagrees", 3),
        ("disagrees", 3),
    ]
    assert made[2].row is not None and made[2].row["reasoning"] == "Draft 3."
    assert sum(endpoint.billed.values()) == 1 + 2 + 3 + 3 + 3
    if mode == "batch":  # one round for each draft, not one batch for each row
        assert [len(batch.requests) for batch in endpoint.batches] == [5, 4, 3]
    again = written(rows(), spec, store, verify=lambda draft, reference: draft == reference)
    assert again == made and sum(endpoint.billed.values()) == 12


def test_a_draft_without_thinking_is_no_think_block(endpoint: LlmServer, store: Store) -> None:
    spec = spec_of(endpoint, reasoning_column="reasoning")
    assert {one.reason for one in written(rows(), spec, store)} == {"no_reasoning"}


def test_a_column_that_is_there_already(endpoint: LlmServer, store: Store) -> None:
    some = [{"question": "q0", "summary": "mine"}, {"question": "q1", "summary": None}]
    with pytest.raises(SpecInvalid, match="a column 'summary' already; name another"):
        written(some, spec_of(endpoint), store)
    kept = written(some, spec_of(endpoint, existing="keep"), store)
    assert [one.row and one.row["summary"] for one in kept] == ["mine", "The gist of it is q1."]
    assert endpoint.billed == {"Sum up q1": 1}
    replaced = written(some, spec_of(endpoint, existing="replace"), store)
    assert replaced[0].row == {"question": "q0", "summary": "The gist of it is q0."}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompt": "{qestion}"}, "data.generate.prompt: there is no column 'qestion'; did you"),
        ({"system": "{tone}"}, "data.generate.system: there is no column 'tone'"),
        ({"question": "text"}, "data.generate.question: there is no column 'text'"),
        ({"reference": "gold"}, "data.generate.reference: there is no column 'gold'"),
        ({"prompt": "{"}, "data.generate.prompt: there is a '{' on its own"),
    ],
)
def test_settings_that_do_not_fit_the_rows_end_before_anything_is_sent(
    endpoint: LlmServer, store: Store, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(SpecInvalid, match=says):
        written(rows(), spec_of(endpoint, **settings), store, verify=lambda a, b: True)
    assert not endpoint.times


def test_a_reference_needs_a_verifier(endpoint: LlmServer, store: Store) -> None:
    with pytest.raises(SpecInvalid, match="nothing to compare drafts"):
        written(rows(), spec_of(endpoint, reference="answer"), store)


def test_rows_are_read_as_they_are_needed(endpoint: LlmServer, store: Store) -> None:
    read = []

    def endless() -> Iterator[dict[str, Any]]:
        for number in range(1_000_000):
            read.append(number)
            yield {"question": f"q{number}"}

    made = generate(
        endless(), spec_of(endpoint), store=store, spend_prefix="spend", environment=ENVIRONMENT
    )
    for _ in range(10):
        next(made)
    made.close()  # type: ignore[attr-defined]
    assert len(read) <= 300
    before = len(endpoint.times)
    assert before <= 300


def test_a_dry_run_sends_nothing_and_needs_no_key(endpoint: LlmServer, store: Store) -> None:
    spec = spec_of(endpoint, system="Be brief.")
    written(rows(2), spec, store)
    asked = len(endpoint.times)
    estimate = plan([*rows(6), {"question": None}], spec, store=store)
    assert estimate.prompts[0] == "Be brief.\nSum up q0" and len(estimate.prompts) == 3
    assert (estimate.requests, estimate.cached) == (6, 2)
    # 19 characters make 5 tokens; replies of 40 at the most.
    assert (estimate.input_tokens, estimate.output_tokens) == (4 * 5, 4 * 40)
    assert estimate.counted_by == "characters / 4"
    assert estimate.most_cost == pytest.approx((20 * 1000 + 160 * 2000) / 1e6)
    counted = plan(rows(2), spec, count_tokens=lambda text: 7)
    assert (counted.input_tokens, counted.counted_by) == (14, "tokenizer")
    assert len(endpoint.times) == asked


def test_a_dry_run_tells_what_the_budget_does_not_reach(endpoint: LlmServer) -> None:
    spec = spec_of(endpoint)
    assert not plan(rows(), spec).over_budget
    poor = spec.model_copy(
        update={"llm": spec.llm.model_copy(update={"budget": type(spec.llm.budget)(money=0.01)})}
    )
    assert plan(rows(), poor).over_budget
    batch = plan(rows(), spec_of(endpoint, "batch"))
    live = plan(rows(), spec)
    assert batch.most_cost is not None and live.most_cost == 2 * batch.most_cost
