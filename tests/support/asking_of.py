"""Settings, requests and runs for the tests of asking."""

from collections.abc import Iterable
from typing import Any

from llm_server import LlmServer
from llm_worker import KEY

from thinktune.llm.asking import Asker, Outcome
from thinktune.llm.requests import Message, Request
from thinktune.schema.llm import Checks, LlmSpec
from thinktune.store import Store

INPUT_PRICE, OUTPUT_PRICE = 1000.0, 2000.0
ENVIRONMENT = {"TEST_KEY": KEY}

FAST = {
    "retries": {
        "first_wait_s": 0.02,
        "longest_wait_s": 0.1,
        "timeout_s": 5.0,
        "give_up_after_s": 5.0,
        "unreached_give_up_s": 0.5,
    },
    "batch": {"poll_s": 0.05, "lookup_s": 0.2},
}


def spec_dict(server: LlmServer, provider: str = "openai", **settings: Any) -> dict[str, Any]:
    """Settings for that server, with short times and prices."""
    path = "/v1" if provider == "openai" else ""
    whole: dict[str, Any] = {
        "provider": provider,
        "model": "model-of-tests",
        "base_url": server.url + path,
        "key_env": "TEST_KEY",
        "parameters": {"max_tokens": 40},
        "prices": {"input_per_million": INPUT_PRICE, "output_per_million": OUTPUT_PRICE},
        "budget": {"money": 1000.0},
        **FAST,
    }
    for name, value in settings.items():
        merge = isinstance(value, dict) and name in FAST
        whole[name] = {**whole[name], **value} if merge else value
    return whole


def spec_of(server: LlmServer, provider: str = "openai", **settings: Any) -> LlmSpec:
    """The same, parsed."""
    return LlmSpec.parse(spec_dict(server, provider, **settings), "test")


def prompts(count: int, word: str = "row") -> list[str]:
    """Different ones."""
    return [f"Sum up {word}{number}" for number in range(count)]


def requests_of(texts: Iterable[str]) -> list[Request]:
    """One request each, named by its prompt."""
    return [Request(text, (Message("user", text),)) for text in texts]


def ask_all(
    spec: LlmSpec,
    store: Store,
    texts: Iterable[str],
    checks: Checks | None = None,
    spend: str = "spend",
    **more: Any,
) -> dict[str, Outcome]:
    """Outcomes by prompt."""
    with Asker(spec, store, spend, checks=checks, environment=ENVIRONMENT, **more) as asker:
        return {o.request.id: o for o in asker.ask(requests_of(texts))}


def spent_money(spec: LlmSpec, store: Store, spend: str = "spend") -> float:
    """What the accounts in the store say."""
    with Asker(spec, store, spend, environment=ENVIRONMENT) as asker:
        money = asker.spent.money
    assert money is not None
    return money
