"""Batches of both providers: every end they can come to, and what is sent and paid for again."""

import json
import time
from collections import Counter

import pytest
from asking_of import INPUT_PRICE, OUTPUT_PRICE, ask_all, prompts, spec_of, spent_money
from llm_server import LlmServer
from llm_wire import Plan

from thinktune.llm import batch_api
from thinktune.llm.asking import reply_prefix
from thinktune.llm.batch_records import BatchRecords
from thinktune.schema.errors import InputMissing, Preempted, ServiceUnavailable, SpecInvalid
from thinktune.store import Store

PROVIDERS = pytest.mark.parametrize("provider", ["openai", "anthropic"])


@PROVIDERS
def test_a_batch_costs_half_and_nothing_the_second_time(
    endpoint: LlmServer, store: Store, provider: str
) -> None:
    spec = spec_of(endpoint, provider, mode="batch")
    for _ in range(2):
        outcomes = ask_all(spec, store, prompts(20) * 2)
        assert {p: o.text for p, o in outcomes.items()} == {
            f"Sum up row{n}": f"The gist of it is row{n}." for n in range(20)
        }
    assert endpoint.billed == Counter(prompts(20)) and len(endpoint.batches) == 1
    cost = endpoint.cost(INPUT_PRICE, OUTPUT_PRICE, batch_factor=0.5)
    assert spent_money(spec, store) == pytest.approx(cost)
    live = ask_all(spec_of(endpoint, provider), store, prompts(20))
    assert all(o.cached for o in live.values())


@PROVIDERS
def test_work_is_divided_by_the_number_and_the_size_of_requests(
    endpoint: LlmServer, store: Store, provider: str
) -> None:
    assert (batch_api.OpenAiBatches.requests, batch_api.AnthropicBatches.requests) == (
        50_000,
        100_000,
    )
    ask_all(spec_of(endpoint, provider, mode="batch", batch={"requests": 8}), store, prompts(20))
    assert [len(batch.requests) for batch in endpoint.batches] == [8, 8, 4]
    endpoint.batches.clear()
    small = spec_of(endpoint, provider, mode="batch", batch={"megabytes": 0.002})
    ask_all(small, store, prompts(20, "other"))
    sizes = [sum(len(json.dumps(r["params"])) for r in b.requests) for b in endpoint.batches]
    assert len(sizes) > 1 and max(sizes) <= 2000


@PROVIDERS
@pytest.mark.parametrize("status", ["expired", "cancelled", "failed"])
def test_what_a_batch_brought_before_its_end_is_kept_and_the_rest_sent_again(
    endpoint: LlmServer, store: Store, provider: str, status: str
) -> None:
    endpoint.plan = lambda number: Plan(status, answered=0.6) if number == 1 else Plan()
    spec = spec_of(endpoint, provider, mode="batch")
    outcomes = ask_all(spec, store, prompts(20))
    assert all(o.text for o in outcomes.values())
    assert [len(batch.requests) for batch in endpoint.batches] == [20, 8]
    assert endpoint.billed == Counter(prompts(20))
    assert spent_money(spec, store) == pytest.approx(endpoint.cost(INPUT_PRICE, OUTPUT_PRICE))


@PROVIDERS
def test_results_that_come_twice_are_taken_once(
    endpoint: LlmServer, store: Store, provider: str
) -> None:
    endpoint.plan = lambda number: Plan(duplicated=4)
    spec = spec_of(endpoint, provider, mode="batch")
    outcomes = ask_all(spec, store, prompts(20))
    assert all(o.text for o in outcomes.values()) and len(endpoint.batches) == 1
    # Whether the second ones are billed nobody knows.
    assert spent_money(spec, store) > endpoint.cost(INPUT_PRICE, OUTPUT_PRICE)


@PROVIDERS
def test_results_that_are_missing_are_asked_for_again_and_taken_for_billed(
    endpoint: LlmServer, store: Store, provider: str
) -> None:
    endpoint.plan = lambda number: Plan(missing=3) if number == 1 else Plan()
    spec = spec_of(endpoint, provider, mode="batch")
    outcomes = ask_all(spec, store, prompts(20))
    assert all(o.text for o in outcomes.values())
    assert [len(batch.requests) for batch in endpoint.batches] == [20, 3]
    assert spent_money(spec, store) >= endpoint.cost(INPUT_PRICE, OUTPUT_PRICE)


@PROVIDERS
def test_a_batch_whose_creation_was_cut_off_is_found_again(
    endpoint: LlmServer, store: Store, provider: str
) -> None:
    endpoint.creating = lambda number: "lost" if number == 2 else None
    spec = spec_of(endpoint, provider, mode="batch", batch={"requests": 8})
    outcomes = ask_all(spec, store, prompts(24))
    assert all(o.text for o in outcomes.values())
    assert endpoint.billed == Counter(prompts(24)) and len(endpoint.batches) == 3


@PROVIDERS
def test_another_run_takes_up_an_open_batch_and_pays_nothing(
    endpoint: LlmServer, store: Store, provider: str
) -> None:
    endpoint.plan = lambda number: Plan(looks=1000)
    spec = spec_of(endpoint, provider, mode="batch")
    with pytest.raises(Preempted):
        ask_all(spec, store, prompts(10), stop=lambda: bool(endpoint.batches))
    began = time.monotonic()
    endpoint.batches[0].plan.looks = 1
    endpoint.plan = lambda number: Plan()
    outcomes = ask_all(spec, store, prompts(12), spend="another")
    assert all(o.text for o in outcomes.values()) and time.monotonic() - began < 10
    assert endpoint.billed == Counter(prompts(12))
    assert [len(batch.requests) for batch in endpoint.batches] == [10, 2]
    ask_all(spec, store, ["Sum up one more"])
    # The first batch is the first run's to pay, whoever fetched it.
    cost = endpoint.cost(INPUT_PRICE, OUTPUT_PRICE)
    theirs, ours = spent_money(spec, store, "another"), spent_money(spec, store)
    assert theirs + ours == pytest.approx(cost) and theirs < ours / 4


def test_a_stop_is_answered_while_a_batch_is_under_way(endpoint: LlmServer, store: Store) -> None:
    endpoint.plan = lambda number: Plan(looks=10_000)
    asked_at: list[float] = []

    def stop() -> bool:
        if endpoint.batches and endpoint.batches[0].looked > 2 and not asked_at:
            asked_at.append(time.monotonic())
        return bool(asked_at)

    spec = spec_of(endpoint, mode="batch")
    with pytest.raises(Preempted):
        ask_all(spec, store, prompts(10), stop=stop)
    assert time.monotonic() - asked_at[0] < 2


def test_batches_that_bring_nothing_end_with_an_error(endpoint: LlmServer, store: Store) -> None:
    endpoint.plan = lambda number: Plan("expired", answered=0.0)
    with pytest.raises(ServiceUnavailable, match=r"batches in a row brought no reply.*expired"):
        ask_all(spec_of(endpoint, mode="batch"), store, prompts(5))
    assert len(endpoint.batches) == 4


def test_a_batch_that_fails_as_a_whole_says_why(endpoint: LlmServer, store: Store) -> None:
    endpoint.plan = lambda number: Plan("failed", answered=0.0, error="no such model")
    with pytest.raises(SpecInvalid, match="no such model"):
        ask_all(spec_of(endpoint, mode="batch"), store, prompts(5))
    assert len(endpoint.batches) == 1


def test_an_endpoint_that_creates_no_batches_says_so(endpoint: LlmServer, store: Store) -> None:
    endpoint.creating = lambda number: "refused"
    with pytest.raises(SpecInvalid, match=r"no batches for this model.*mode: live"):
        ask_all(spec_of(endpoint, mode="batch"), store, prompts(5))
    spec = spec_of(endpoint, mode="batch")
    assert spent_money(spec, store) == 0


def test_a_batch_that_the_endpoint_does_not_know_is_not_paid_again(
    endpoint: LlmServer, store: Store
) -> None:
    endpoint.plan = lambda number: Plan(looks=1000)
    spec = spec_of(endpoint, mode="batch")
    with pytest.raises(Preempted):
        ask_all(spec, store, prompts(10), stop=lambda: bool(endpoint.batches))
    endpoint.batches.clear()
    # Until it has written the batch's name down, it would look for it and find nothing.
    if BatchRecords(store, reply_prefix(spec)).load()[0].state == "sent":
        with pytest.raises(InputMissing, match="knows no batch"):
            ask_all(spec, store, prompts(10))
        assert not endpoint.batches


def test_a_small_budget_is_spent_in_several_batches(endpoint: LlmServer, store: Store) -> None:
    # At the most a request costs about 0.11 in a batch, in truth 0.01.
    spec = spec_of(endpoint, mode="batch", budget={"money": 1.2})
    outcomes = ask_all(spec, store, prompts(30))
    assert all(o.text for o in outcomes.values())
    assert len(endpoint.batches) > 1
    assert endpoint.cost(INPUT_PRICE, OUTPUT_PRICE) <= 1.2


def test_usage_that_a_batch_does_not_tell_counts_as_reserved(
    endpoint: LlmServer, store: Store
) -> None:
    endpoint.decide = lambda asked: "no usage"
    spec = spec_of(endpoint, mode="batch")
    ask_all(spec, store, prompts(5))
    assert spent_money(spec, store) >= 5 * 40 * OUTPUT_PRICE / 1e6 / 2


def test_reasons_of_batch_replies_are_those_of_live_ones(endpoint: LlmServer, store: Store) -> None:
    endpoint.decide = lambda a: "thinks only" if a.prompt.endswith("row3") else None
    outcomes = ask_all(spec_of(endpoint, mode="batch"), store, prompts(5))
    assert {p: o.reason for p, o in outcomes.items() if o.reason} == {"Sum up row3": "truncated"}


def test_a_busy_service_is_waited_for(endpoint: LlmServer, store: Store) -> None:
    refused = []

    def creating(number: int) -> None:
        if len(refused) < 2:
            refused.append(number)
            raise ConnectionResetError

    endpoint.creating = creating  # type: ignore[assignment]
    outcomes = ask_all(spec_of(endpoint, mode="batch"), store, prompts(5))
    assert all(o.text for o in outcomes.values()) and len(refused) == 2
    assert endpoint.billed == Counter(prompts(5))
