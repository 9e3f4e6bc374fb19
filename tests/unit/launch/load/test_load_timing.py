"""Times of answers from a real server that streams by a script; the clock is the script's."""

import asyncio

import pytest
from scripted_stream import DONE, FIRST, Answer, Piece, SetClock, event, said, stream_server, usage

from thinktune.launch.load.figures import Timing, level_of
from thinktune.launch.load.timing import Asker, open_session, streamed

KEY = "a-key"


def asked(*answers: Answer, silent_s: float = 30.0, started: float = 0.0) -> list[Timing]:
    """The times of one request after the other."""

    async def work() -> list[Timing]:
        clock = SetClock(started)
        async with stream_server(clock, list(answers)) as server, open_session(silent_s) as session:
            asker = Asker(session, server.url, KEY, clock)
            found = [await asker.ask(streamed({"messages": []})) for _ in answers]
        assert server.keys == [f"Bearer {KEY}"] * len(answers)
        assert all(each["stream"] for each in server.asked)
        return found

    return asyncio.run(work())


def test_an_answer_whose_events_are_cut_anywhere() -> None:
    thought = said("so", "reasoning")
    [timing] = asked(
        Answer(
            [
                Piece(10.5, FIRST),  # says nothing: no first token
                Piece(11.0, thought[:7]),
                Piece(12.0, thought[7:] + said("Four")[:20]),
                Piece(12.5, said("Four")[20:-1]),
                Piece(13.0, b"\n" + said(".") + said("Final")),
                Piece(
                    14.0, event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                ),
                Piece(14.5, usage(7)),
                Piece(15.0, DONE),
            ]
        ),
        started=10.0,
    )
    assert timing == Timing(10.0, [12.0, 12.5, 13.0, 13.0], 15.0, 7, None)


def test_figures_of_a_scripted_timeline_by_hand() -> None:
    """Two answers in turn: 2 s to the first token and 1, 1 s between tokens; 1 s, then 3 s."""
    timings = asked(
        Answer(
            [
                Piece(2.0, said("a")),
                Piece(3.0, said("b")),
                Piece(4.0, said("c") + usage(3) + DONE),
            ]
        ),
        Answer([Piece(5.0, said("a")), Piece(8.0, said("b") + usage(4)), Piece(10.0, DONE)]),
    )
    level = level_of(1, timings)
    assert (level.answered, level.failures, level.seconds, level.tokens) == (2, {}, 10.0, 7)
    assert level.tokens_per_s == 0.7 and level.requests_per_s == 0.2
    assert level.first_token is not None and level.first_token.median_s == 1.5
    assert level.inter_token is not None and level.inter_token.median_s == 1.0
    assert level.latency is not None and level.latency.median_s == 5.0
    assert level.per_token is not None and level.per_token.median_s == 1.0
    # Interpolated: 95% of the way from 4 to 6, and from 1 to 2.
    assert level.latency.p95_s == pytest.approx(5.9)
    assert level.first_token.p95_s == pytest.approx(1.95)
    # The gaps are 1, 1 and 3: position 1.9 of 0 to 2.
    assert level.inter_token.p95_s == pytest.approx(2.8)


def test_a_server_that_does_not_count_tokens() -> None:
    [timing] = asked(Answer([Piece(1.0, said("a") + said("b") + DONE)]))
    assert timing.tokens == 2


def test_a_server_that_gives_token_ids() -> None:
    choices = [{"index": 0, "text": "a", "token_ids": [1]}], [{"text": "", "token_ids": [2, 3]}]
    data = b"".join(event({"choices": each}) for each in choices)
    [timing] = asked(Answer([Piece(1.0, data + DONE)]))
    assert timing.tokens == 3 and timing.texts == [1.0]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Answer(status=503), "status 503"),
        (Answer(status=401), "status 401"),
        (Answer([Piece(1.0, said("a"))]), "broke off"),
        (Answer([Piece(1.0, said("a"))], end="cut"), "broke off"),
        (Answer([Piece(1.0, event({"error": {"message": "x"}}))]), "an error in the answer"),
        (Answer([Piece(1.0, said("a") + b"data: {\n\n")]), "no JSON"),
        (Answer([Piece(1.0, b"data: 3\n\n")]), "no JSON"),
        (Answer([Piece(1.0, said("a"))], end="stall"), "stalled"),
        (Answer(end="stall"), "stalled"),
    ],
)
def test_failures_by_kind(answer: Answer, failure: str) -> None:
    whole = Answer([Piece(5.0, said("b") + usage(1) + DONE)])
    silent_s = 0.05 if failure == "stalled" else 30.0
    failed, done = asked(answer, whole, silent_s=silent_s)
    assert failed.failure == failure and failed.ended >= failed.began
    assert done.failure is None
    level = level_of(1, [failed, done])
    assert level.failures == {failure: 1} and level.answered == 1 and level.tokens == 1


def test_nobody_listens() -> None:
    async def work() -> Timing:
        async with open_session(30.0) as session:
            return await Asker(session, "http://127.0.0.1:9/x", None, SetClock()).ask({})

    timing = asyncio.run(work())
    assert timing.failure == "no connection"
    level = level_of(1, [timing])
    assert level.latency is None and level.first_token is None and level.tokens_per_s == 0
