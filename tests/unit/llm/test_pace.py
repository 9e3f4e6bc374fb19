"""How many at once, and when an endpoint is given up, by a clock of the test's own."""

import asyncio

import pytest

from thinktune.llm.faults import Lost, ServerFault, Throttled, Unreachable
from thinktune.llm.pace import Breaker, Pace, Tries
from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.llm import Concurrency, Retries


class Clock:
    """Stands until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fill(pace: Pace) -> None:
    async def enter() -> None:
        while pace.active < pace.limit:
            await pace.enter()

    asyncio.run(enter())


def rounds(pace: Pace, count: int) -> None:
    for _ in range(count):
        fill(pace)
        for _ in range(pace.limit):
            pace.leave()
            pace.succeeded()


def throttled(retry_after_s: float | None = None) -> Throttled:
    return Throttled("HTTP 429", retry_after_s, None)


def test_it_grows_by_a_twentieth_for_each_clean_round_in_use(clock: Clock) -> None:
    pace = Pace(Concurrency(), clock)
    rounds(pace, 1)
    assert pace.limit == 21
    rounds(pace, 200)
    assert pace.limit == 100


def test_it_does_not_grow_where_it_is_not_in_use(clock: Clock) -> None:
    pace = Pace(Concurrency(), clock)
    for _ in range(1000):
        pace.succeeded()
    assert pace.limit == 20


def test_a_refusal_cuts_to_four_fifths_once_in_fifteen_seconds(clock: Clock) -> None:
    pace = Pace(Concurrency(), clock)
    limits = []
    for now in (0.0, 1.0, 14.9, 15.0, 16.0, 30.0, 45.0, 60.0, 75.0):
        clock.now = now
        pace.failed(throttled())
        limits.append(pace.limit)
    assert limits == [16, 16, 16, 12, 12, 10, 10, 10, 10]


def test_a_server_fault_cuts_nothing_and_pauses_growth(clock: Clock) -> None:
    pace = Pace(Concurrency(), clock)
    pace.failed(ServerFault("HTTP 500", None, None))
    rounds(pace, 3)
    assert pace.limit == 20
    clock.now = 15.1
    rounds(pace, 1)
    assert pace.limit == 21


def test_a_refusal_spoils_the_round(clock: Clock) -> None:
    pace = Pace(Concurrency(cut_every_s=0.1), clock)
    for _ in range(10):
        fill(pace)
        for _ in range(pace.limit - 1):
            pace.succeeded()
        pace.failed(Lost("cut", usage=None))
        clock.now += 1
    assert pace.limit == 20


def test_all_hold_back_for_as_long_as_told_up_to_the_time_of_a_cut(clock: Clock) -> None:
    pace = Pace(Concurrency(), clock)
    pace.failed(throttled(retry_after_s=2.0))
    assert pace.wait_s() == 2
    pace.failed(throttled(retry_after_s=300.0))
    assert pace.wait_s() == 15
    clock.now = 16.0
    assert pace.wait_s() == 0


def breaker_of(clock: Clock, **retries: float) -> Breaker:
    breaker = Breaker(
        Retries.model_validate({"give_up_after_s": 60.0, **retries}), clock, "http://x"
    )
    breaker.begin()
    return breaker


def test_sustained_refusals_are_given_up_and_count_against_no_request(clock: Clock) -> None:
    breaker = breaker_of(clock)
    breaker.succeeded()
    tries = Tries()
    for clock.now in range(0, 60, 5):
        assert breaker.failed("a", tries, throttled(300.0)) == "again"
    clock.now = 61
    with pytest.raises(ServiceUnavailable, match=r"nothing for 61 s \(13 × HTTP 429\)") as raised:
        breaker.failed("a", tries, throttled(300.0))
    assert "asks to wait 300 s" in raised.value.fault


def test_one_reply_forgives_all(clock: Clock) -> None:
    breaker, tries = breaker_of(clock), Tries()
    for clock.now in range(0, 600, 50):
        assert breaker.failed("a", tries, ServerFault("HTTP 500", None, None)) == "again"
        breaker.succeeded()
        tries.seen = breaker.replies


def test_a_request_that_fails_while_others_are_answered_is_dropped(clock: Clock) -> None:
    breaker, tries = breaker_of(clock, attempts=3), Tries()
    answers = []
    for _ in range(3):
        breaker.succeeded()
        answers.append(breaker.failed("a", tries, Lost("cut", usage=None)))
    assert answers == ["again", "again", "drop"]


def test_the_last_request_cannot_take_the_whole_run_down(clock: Clock) -> None:
    breaker, tries = breaker_of(clock), Tries()
    breaker.succeeded()
    assert breaker.failed("a", tries, ServerFault("HTTP 500", None, None)) == "again"
    clock.now = 61
    assert breaker.failed("a", tries, ServerFault("HTTP 500", None, None)) == "drop"


def test_an_endpoint_never_reached_is_given_up_sooner(clock: Clock) -> None:
    breaker, tries = breaker_of(clock, unreached_give_up_s=5), Tries()
    assert breaker.failed("a", tries, Unreachable("no connection")) == "again"
    clock.now = 6
    with pytest.raises(ServiceUnavailable, match="no connection"):
        breaker.failed("a", tries, Unreachable("no connection"))


def test_time_in_which_nothing_is_asked_does_not_count(clock: Clock) -> None:
    breaker = breaker_of(clock)
    breaker.succeeded()
    breaker.end()
    clock.now = 1000
    breaker.begin()
    tries = Tries()
    for _ in range(3):
        assert breaker.failed("a", tries, throttled()) == "again"
