"""Work that is killed at random moments: nothing stored is paid for twice, nothing is overspent."""

import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from asking_of import (
    INPUT_PRICE,
    OUTPUT_PRICE,
    prompts,
    requests_of,
    spec_dict,
    spec_of,
    spent_money,
)
from llm_fixtures import endpoint, helper, store, store_url
from llm_server import LlmServer
from llm_wire import Plan
from llm_worker import Workers

from thinktune.llm.asking import reply_prefix
from thinktune.llm.cache import ReplyCache
from thinktune.llm.requests import body_of, key_of
from thinktune.schema.llm import LlmSpec
from thinktune.store import Store, open_store

__all__ = ["endpoint", "helper", "store", "store_url"]

KILLS = 12


def stored(spec: LlmSpec, store: Store, texts: list[str]) -> set[str]:
    """The prompts whose reply is in the store."""
    cache = ReplyCache(store, reply_prefix(spec), "test")
    cache.load(lambda: False)
    keys = {request.id: key_of(body_of(spec, request)) for request in requests_of(texts)}
    cache_has = {text for text, key in keys.items() if key in cache}
    cache.close()
    return cache_has


def test_live_work_killed_a_dozen_times(
    endpoint: LlmServer, store: Store, store_url: str, helper: Workers, tmp_path: Path
) -> None:
    endpoint.latency_s = 0.05
    most = 8
    texts = prompts(250)
    settings = spec_dict(
        endpoint, concurrency={"start": most, "least": 1, "most": most}, budget={"money": 120.0}
    )
    spec = LlmSpec.parse(settings, "test")
    random.seed(11)
    paid_for: Counter[str] = Counter()
    for _ in range(KILLS):
        before = endpoint.billed
        job = helper.start(settings, store_url, texts, tmp_path / "out")
        time.sleep(random.uniform(0.03, 0.4))
        job.kill()
        job.wait()
        time.sleep(2 * endpoint.latency_s)  # what was under way is billed all the same
        safe = stored(spec, store, texts)
        # What was paid for by this process and is not stored was under way.
        new = endpoint.billed - before
        assert sum(n for text, n in new.items() if text not in safe) <= most
        # What had been stored before it was not asked for again.
        assert not [text for text in paid_for if new[text]]
        paid_for = Counter(dict.fromkeys(safe, 1))
        assert endpoint.cost(INPUT_PRICE, OUTPUT_PRICE) <= spent_money(spec, store) <= 120.0
    done = helper.start(settings, store_url, texts, tmp_path / "last")
    assert done.wait() == 0
    outcomes = [json.loads(line) for line in (tmp_path / "last").read_text().splitlines()]
    assert {text for text, reply, _ in outcomes if reply} == set(texts)
    assert sum((endpoint.billed - Counter(texts)).values()) <= KILLS * most
    assert endpoint.cost(INPUT_PRICE, OUTPUT_PRICE) <= spent_money(spec, store) <= 120.0


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_batches_killed_a_dozen_times_are_paid_once(
    endpoint: LlmServer,
    store: Store,
    store_url: str,
    helper: Workers,
    tmp_path: Path,
    provider: str,
) -> None:
    endpoint.latency_s = 0.1  # between the creation of a batch and the answer that says so
    endpoint.plan = lambda number: Plan(looks=3)
    texts = prompts(90)
    settings = spec_dict(
        endpoint, provider, mode="batch", batch={"requests": 30, "lookup_s": 0.4, "poll_s": 0.1}
    )
    random.seed(5)
    for _ in range(KILLS):
        job = helper.start(settings, store_url, texts, tmp_path / "out")
        time.sleep(random.uniform(0.02, 0.7))
        job.kill()
        job.wait()
    done = helper.start(settings, store_url, texts, tmp_path / "last")
    assert done.wait() == 0
    outcomes = [json.loads(line) for line in (tmp_path / "last").read_text().splitlines()]
    assert {text for text, reply, _ in outcomes if reply} == set(texts)
    assert endpoint.billed == Counter(texts)
    cost = endpoint.cost(INPUT_PRICE, OUTPUT_PRICE)
    spec = spec_of(endpoint, provider, mode="batch", batch={"requests": 30})
    assert spent_money(spec, store) == pytest.approx(cost)


def test_a_stop_by_signal_is_answered_in_time_and_loses_nothing(
    endpoint: LlmServer, store: Store, store_url: str, helper: Workers, tmp_path: Path
) -> None:
    endpoint.latency_s = 0.1
    texts = prompts(2000)
    settings = spec_dict(endpoint)
    job = helper.start(settings, store_url, texts, tmp_path / "out")
    while len(endpoint.bills) < 50:
        time.sleep(0.02)
    began = time.monotonic()
    job.terminate()
    assert job.wait() == 143
    assert time.monotonic() - began < 2
    assert stored(LlmSpec.parse(settings, "test"), open_store(store_url), texts) == set(
        endpoint.billed
    )
