"""Money: nothing is sent that might go past the limit, whatever is killed and begun again."""

import asyncio
import json

import pytest
from asking_of import INPUT_PRICE, OUTPUT_PRICE, ask_all, prompts, spec_of, spent_money
from llm_server import LlmServer

from thinktune.llm.budget import Budget, BudgetReached
from thinktune.llm.requests import Tokens
from thinktune.schema.errors import InputMissing
from thinktune.schema.llm import LlmSpec
from thinktune.store import Store

ONE = Tokens(100, 40)


def budget_of(store: Store, writer: str, tokens: int = 1000, **settings: object) -> Budget:
    spec = LlmSpec.parse(
        {"provider": "openai", "model": "m", "budget": {"tokens": tokens}, **settings}, "test"
    )
    budget = Budget(spec, store, "spend", "data.generate.llm.budget", writer)
    budget.load()
    return budget


def test_a_run_stops_before_its_limit_and_goes_on_where_it_is_raised(
    endpoint: LlmServer, store: Store
) -> None:
    texts = prompts(60)
    spec = spec_of(endpoint, budget={"money": 0.9})
    with pytest.raises(BudgetReached) as raised:
        ask_all(spec, store, texts, place="data.generate")
    assert raised.value.exit_code == 64
    assert raised.value.place == "data.generate.budget"
    assert "raise data.generate.budget" in raised.value.remedy
    first = endpoint.billed
    assert 0 < len(first) < 60
    assert endpoint.cost(INPUT_PRICE, OUTPUT_PRICE) <= 0.9
    with pytest.raises(BudgetReached):
        ask_all(spec, store, texts)
    assert endpoint.billed == first
    outcomes = ask_all(spec_of(endpoint, budget={"money": 3.0}), store, texts)
    assert all(o.text for o in outcomes.values())
    assert set(endpoint.billed.values()) == {1}


def test_a_limit_in_tokens_needs_no_prices(endpoint: LlmServer, store: Store) -> None:
    spec = spec_of(endpoint, budget={"tokens": 600}, prices=None)
    with pytest.raises(BudgetReached, match="budget of 600 tokens is reached"):
        ask_all(spec, store, prompts(100))
    assert sum(bill.input + bill.output for bill in endpoint.bills) <= 600


def test_a_limit_below_one_request_sends_nothing(endpoint: LlmServer, store: Store) -> None:
    with pytest.raises(BudgetReached):
        ask_all(spec_of(endpoint, budget={"tokens": 50}), store, prompts(3))
    assert not endpoint.times


def test_what_is_under_way_may_come_back_cheaper_and_make_room(
    endpoint: LlmServer, store: Store
) -> None:
    # Each request can cost some 175 tokens, and costs about 17: two fit at a time, all do in turn.
    endpoint.latency_s = 0.02
    spec = spec_of(endpoint, budget={"tokens": 600})
    assert all(o.text for o in ask_all(spec, store, prompts(20)).values())
    assert endpoint.most_at_once <= 4


def test_the_lease_of_a_killed_process_counts_as_spent(store: Store) -> None:
    async def begin() -> None:
        for _ in range(3):
            await killed.reserve(ONE)

    killed = budget_of(store, "killed")
    asyncio.run(begin())
    after = budget_of(store, "after")
    # What it may have sent, and nothing beyond what it had leased.
    assert sum(after.spent.tokens) >= 3 * 140 and after.spent.tokens == after.spent.assumed
    assert sum(after.spent.tokens) <= 1000
    assert not after.fits(Tokens(600, 0))


def test_a_process_that_ends_gives_its_lease_back(store: Store) -> None:
    async def work() -> None:
        await ended.reserve(ONE)
        ended.settle(ONE, Tokens(10, 5))
        await ended.store_now(last=True)

    ended = budget_of(store, "ended")
    asyncio.run(work())
    assert budget_of(store, "after").spent.tokens == Tokens(10, 5)


def test_what_is_stored_always_covers_what_is_under_way(store: Store) -> None:
    """The invariant that the limit rests on, looked at after every step."""

    async def work() -> None:
        under_way: list[Tokens] = []
        for step in range(40):
            if len(under_way) >= 3:
                one = under_way.pop(0)
                budget.settle(one, Tokens(one.input // 2, 1) if step % 3 else None)
            one = Tokens(30 + step, 10)
            await budget.reserve(one)
            under_way.append(one)
            read = json.loads(store.get("spend/w.json"))
            stored = sum(read["settled"]) + sum(read["lease"])
            settled = sum(budget.spent.tokens)
            assert settled + sum(sum(one) for one in under_way) <= stored <= 10_000
            if step % 5 == 0:
                await budget.store_now()

    budget = budget_of(store, "w", tokens=10_000)
    asyncio.run(work())


def test_an_account_that_cannot_be_read_is_not_taken_for_nothing(store: Store) -> None:
    store.put("spend/x.json", b"{}")
    with pytest.raises(InputMissing, match="is no account"):
        budget_of(store, "w")


def test_prices_count_batches_at_their_own(endpoint: LlmServer, store: Store) -> None:
    spec = spec_of(
        endpoint, mode="batch", prices={"input_per_million": 1e6, "output_per_million": 0}
    )
    ask_all(spec, store, prompts(1))
    assert spent_money(spec, store) == pytest.approx(endpoint.bills[0].input / 2)
