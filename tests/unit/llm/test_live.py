"""One reply at a time, against a server with every fault that such services have had."""

import time

import pytest
from asking_of import (
    ENVIRONMENT,
    INPUT_PRICE,
    OUTPUT_PRICE,
    ask_all,
    prompts,
    requests_of,
    spec_of,
    spent_money,
)
from llm_server import Asked, LlmServer, Refuse
from llm_wire import Spoiled

from thinktune.llm.asking import Asker, Standing
from thinktune.schema.errors import Preempted, ServiceUnavailable, SpecInvalid
from thinktune.schema.llm import Checks
from thinktune.store import Store

PROVIDERS = ["openai", "anthropic"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_prompt_is_paid_once_whatever_is_asked_again(
    endpoint: LlmServer, store: Store, provider: str
) -> None:
    spec = spec_of(endpoint, provider)
    texts = prompts(30)
    first = ask_all(spec, store, texts + texts)
    assert {p: o.text for p, o in first.items()} == {
        f"Sum up row{n}": f"The gist of it is row{n}." for n in range(30)
    }
    checked = ask_all(spec, store, texts, Checks(max_chars=20), spend="another-run")
    assert {o.reason for o in checked.values()} == {"max_chars"}
    assert all(o.cached for o in checked.values())
    assert set(endpoint.billed.values()) == {1} and len(endpoint.billed) == 30
    assert spent_money(spec, store) == pytest.approx(endpoint.cost(INPUT_PRICE, OUTPUT_PRICE))
    assert spent_money(spec, store, "another-run") == 0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [("empty", "empty"), ("thinks only", "truncated"), ("too long", "truncated")],
)
def test_what_is_no_answer_has_a_reason_and_is_kept(
    endpoint: LlmServer, store: Store, provider: str, spoiled: Spoiled, reason: str
) -> None:
    endpoint.decide = lambda asked: spoiled if asked.prompt.endswith("row3") else None
    spec = spec_of(endpoint, provider)
    for _ in range(2):
        outcomes = ask_all(spec, store, prompts(5))
        lost = {prompt: o.reason for prompt, o in outcomes.items() if o.reason}
        assert lost == {"Sum up row3": reason}
    assert set(endpoint.billed.values()) == {1}


@pytest.mark.parametrize("spoiled", ["cut", "half a character", "hang", "not json", "error in 200"])
def test_a_reply_that_does_not_arrive_is_asked_again_and_its_cost_is_assumed(
    endpoint: LlmServer, store: Store, spoiled: Spoiled
) -> None:
    def decide(asked: Asked) -> Spoiled | None:
        return spoiled if asked.prompt.endswith("row3") and asked.time == 1 else None

    endpoint.decide = decide
    spec = spec_of(endpoint, retries={"timeout_s": 0.5})
    outcomes = ask_all(spec, store, prompts(5))
    assert all(o.text for o in outcomes.values())
    assert endpoint.billed["Sum up row3"] == 2
    assert spent_money(spec, store) >= endpoint.cost(INPUT_PRICE, OUTPUT_PRICE)


def test_usage_that_is_not_told_counts_as_what_was_reserved(
    endpoint: LlmServer, store: Store
) -> None:
    endpoint.decide = lambda asked: "no usage"
    spec = spec_of(endpoint)
    assert ask_all(spec, store, ["Sum up x"])["Sum up x"].text
    reserved = (len("Sum up x") + 2 * 64) * INPUT_PRICE / 1e6 + 40 * OUTPUT_PRICE / 1e6
    assert spent_money(spec, store) == pytest.approx(reserved)


def test_usage_of_a_failed_reply_counts(endpoint: LlmServer, store: Store) -> None:
    endpoint.decide = lambda a: Refuse(500, billed=True) if a.time == 1 else None
    spec = spec_of(endpoint)
    ask_all(spec, store, prompts(5))
    assert sum(endpoint.billed.values()) == 10
    assert spent_money(spec, store) >= endpoint.cost(INPUT_PRICE, OUTPUT_PRICE)


def test_a_refusal_is_waited_out_as_long_as_it_says(endpoint: LlmServer, store: Store) -> None:
    endpoint.decide = lambda asked: Refuse(429, retry_after="1") if asked.number == 1 else None
    spec = spec_of(endpoint, concurrency={"start": 1, "least": 1, "cut_every_s": 0.1})
    outcomes = ask_all(spec, store, ["Sum up x"])
    assert outcomes["Sum up x"].text
    assert endpoint.times[1] - endpoint.times[0] >= 1


def test_the_wait_has_a_cap_and_holds_up_nobody_else_for_long(
    endpoint: LlmServer, store: Store
) -> None:
    order: list[str] = []

    def decide(asked: Asked) -> Refuse | None:
        order.append(asked.prompt)
        first = asked.prompt == "Sum up row0" and asked.time == 1
        return Refuse(429, retry_after="300") if first else None

    endpoint.decide = decide
    spec = spec_of(endpoint, retries={"retry_after_cap_s": 2.0}, concurrency={"cut_every_s": 0.1})
    began = time.monotonic()
    outcomes = ask_all(spec, store, prompts(25))
    assert all(o.text for o in outcomes.values())
    assert 2 <= time.monotonic() - began < 8
    assert order[-1] == "Sum up row0" and len(order) == 26


def test_sustained_refusals_end_with_an_error_that_says_so(
    endpoint: LlmServer, store: Store
) -> None:
    endpoint.decide = lambda a: Refuse(429, retry_after="1") if a.number > 30 else None
    spec = spec_of(endpoint, retries={"give_up_after_s": 1.5})
    with pytest.raises(ServiceUnavailable) as raised:
        ask_all(spec, store, prompts(60))
    assert raised.value.exit_code == 69
    assert "HTTP 429" in str(raised.value) and "asks to wait" in str(raised.value)
    kept = ask_all(spec, store, [p for p, n in endpoint.billed.items() if n])
    assert len(kept) == 30 and all(o.cached for o in kept.values())


def test_a_burst_of_server_faults_loses_no_row(endpoint: LlmServer, store: Store) -> None:
    endpoint.decide = lambda a: (
        Refuse((500, 502, 503, 529)[a.number % 4]) if a.number < 80 else None
    )
    spec = spec_of(endpoint, retries={"attempts": 2, "give_up_after_s": 20.0})
    outcomes = ask_all(spec, store, prompts(40))
    assert all(o.text for o in outcomes.values())


def test_a_request_that_fails_alone_is_dropped_with_a_reason(
    endpoint: LlmServer, store: Store
) -> None:
    endpoint.decide = lambda a: Refuse(503) if a.prompt.endswith("row3") else None
    endpoint.latency_s = 0.02
    spec = spec_of(endpoint, retries={"give_up_after_s": 1.0})
    outcomes = ask_all(spec, store, prompts(50))
    lost = {prompt: (o.reason, o.detail) for prompt, o in outcomes.items() if o.reason}
    assert lost == {"Sum up row3": ("no_reply", "HTTP 503 (told to)")}


def test_a_request_that_is_refused_as_such_is_dropped_with_what_was_said(
    endpoint: LlmServer, store: Store
) -> None:
    endpoint.decide = lambda a: Refuse(400, message="too long") if a.prompt.endswith("3") else None
    outcomes = ask_all(spec_of(endpoint), store, prompts(5))
    refused = outcomes["Sum up row3"]
    assert (refused.reason, refused.detail) == ("refused_request", "HTTP 400 (too long)")


@pytest.mark.parametrize("count", [1, 40])
def test_settings_that_are_refused_end_the_run(
    endpoint: LlmServer, store: Store, count: int
) -> None:
    endpoint.decide = lambda asked: Refuse(400, message="no temperature, please")
    with pytest.raises(SpecInvalid, match="no temperature, please"):
        ask_all(spec_of(endpoint), store, prompts(count))
    assert len(endpoint.times) <= 30


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (Refuse(401, message="bad key sk-secret-of-tests-0123456789"), 64, "refuses the key"),
        (Refuse(404, message="no model"), 64, "no model"),
        (Refuse(429, code="insufficient_quota", message="no credit"), 69, "add credit"),
        (Refuse(302, message="elsewhere"), 64, "check base_url"),
    ],
)
def test_what_no_request_can_pass_ends_the_run_at_once(
    endpoint: LlmServer, store: Store, fault: Refuse, code: int, says: str
) -> None:
    endpoint.decide = lambda asked: fault
    with pytest.raises((SpecInvalid, ServiceUnavailable), match=says) as raised:
        ask_all(spec_of(endpoint), store, prompts(100))
    assert raised.value.exit_code == code
    assert "sk-secret" not in str(raised.value)
    assert len(endpoint.times) <= 21


def test_an_address_where_nobody_answers_is_told_soon(endpoint: LlmServer, store: Store) -> None:
    spec = spec_of(endpoint, base_url="http://127.0.0.1:9/v1")
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="ConnectError"):
        ask_all(spec, store, prompts(5))
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("retry_after", [None, "300"])
def test_a_stop_is_answered_within_two_seconds(
    endpoint: LlmServer, store: Store, retry_after: str | None
) -> None:
    if retry_after:
        endpoint.decide = lambda asked: Refuse(429, retry_after=retry_after)
    else:
        endpoint.decide = lambda asked: None if asked.prompt in prompts(10) else "hang"
    asked_at: list[float] = []

    def stop() -> bool:
        if not asked_at and len(endpoint.times) >= 15:
            asked_at.append(time.monotonic())
        return bool(asked_at) and time.monotonic() - asked_at[0] > 0.5

    spec = spec_of(endpoint, retries={"timeout_s": 600, "give_up_after_s": 600})
    with pytest.raises(Preempted):
        ask_all(spec, store, prompts(50), stop=stop)
    assert time.monotonic() - asked_at[0] < 2.5
    if not retry_after:
        kept = ask_all(spec, store, prompts(10))
        assert all(o.cached for o in kept.values())


def test_the_key_is_nowhere(endpoint: LlmServer, store: Store, store_url: str) -> None:
    endpoint.decide = lambda asked: "tells the key"
    outcomes = ask_all(spec_of(endpoint), store, ["Sum up x"])
    assert endpoint.credentials == {"sk-secret-of-tests-0123456789"}
    assert outcomes["Sum up x"].text == "You sent Bearer [key]."
    for info in store.list(""):
        assert b"secret-of-tests" not in store.get(info.key)


def test_a_missing_key_is_told_before_anything_is_asked(endpoint: LlmServer, store: Store) -> None:
    spec = spec_of(endpoint, key_env="NOT_SET")
    with pytest.raises(SpecInvalid, match="environment variable NOT_SET: it is not set") as raised:
        ask_all(spec, store, prompts(1))
    assert "key_secret" in raised.value.remedy


def test_an_endpoint_without_a_key_is_sent_none(
    endpoint: LlmServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "meant for another endpoint")
    ask_all(spec_of(endpoint, key_env=None), store, prompts(1))
    assert endpoint.credentials == {"none"}


def test_progress_says_how_it_stands_while_it_waits(endpoint: LlmServer, store: Store) -> None:
    endpoint.decide = lambda a: Refuse(429, "1", message="slowly") if a.number == 1 else None
    told: list[Standing] = []
    spec = spec_of(endpoint, concurrency={"start": 1, "least": 1, "cut_every_s": 0.1})
    ask_all(spec, store, prompts(3), progress=told.append)
    assert any("slowly" in standing.waits_for for standing in told)
    last = told[-1]
    assert (last.asked, last.done, last.lost, last.waits_for) == (3, 3, 0, "")
    assert last.spent.money == pytest.approx(endpoint.cost(INPUT_PRICE, OUTPUT_PRICE))


def test_one_asker_asks_several_times(endpoint: LlmServer, store: Store) -> None:
    spec = spec_of(endpoint)
    with Asker(spec, store, "spend", environment=ENVIRONMENT) as asker:
        for word in ("a", "b", "a"):
            assert all(o.text for o in asker.ask(requests_of(prompts(5, word))))
        for mode in ("live", "batch"):
            batch = spec_of(endpoint, mode=mode)
            assert all(ask_all(batch, store, prompts(5, mode)).values())
    assert set(endpoint.billed.values()) == {1}


def test_half_a_character_in_a_prompt_is_a_reason(endpoint: LlmServer, store: Store) -> None:
    outcomes = ask_all(spec_of(endpoint), store, ["Sum up \ud83d", "Sum up x"])
    assert outcomes["Sum up \ud83d"].reason == "not_text"
    assert outcomes["Sum up x"].text
