"""Answers that are kept as they finish: a restart asks for what is missing and for nothing else."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from thinktune.schema.errors import Preempted
from thinktune.store import Store, open_store
from thinktune.tasks.generate import answers
from thinktune.tasks.generate.answers import AnswerStore, generate
from thinktune.tasks.generate.protocol import Answer, Batch, Request, Sampling
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=4, stop_ids=(2,))
REQUESTS = [
    Request(f"q{number}{letter}", (5, number), seed=number, adapter=False)
    for number in range(3)
    for letter in "ab"
]
IDENTITY = "0123456789abcdef" * 4


class Adding:
    """Answers with a number of its own and the last token of the prompt; the last request first,
    as an engine may that mixes batches. It computes two requests together."""

    name = "adding"
    unit = "requests"

    def __init__(self, number: int = 7, *, dies_after: int | None = None) -> None:
        self.number = number
        self.asked: list[str] = []
        self._dies_after = dies_after

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> list[Batch]:
        return [tuple(requests[n : n + 2]) for n in range(0, len(requests), 2)]

    def work(self, batches: Sequence[Batch], sampling: Sampling) -> int:
        return sum(len(batch) for batch in batches)

    def generate(
        self, batches: Sequence[Batch], sampling: Sampling, reporter: Reporter, stop: Stop
    ) -> Iterator[Answer]:
        for request in reversed([request for batch in batches for request in batch]):
            if self._dies_after is not None and len(self.asked) >= self._dies_after:
                raise Preempted("here", "stopped", "go on")
            self.asked.append(request.id)
            reporter.advance(1)
            yield Answer(request.id, (self.number, request.prompt_ids[-1]), finished=True)

    def close(self) -> None:
        pass


class Lazy(Adding):
    """Leaves the last answer out."""

    def generate(
        self, batches: Sequence[Batch], sampling: Sampling, reporter: Reporter, stop: Stop
    ) -> Iterator[Answer]:
        yield from list(super().generate(batches, sampling, reporter, stop))[:-1]


class Inventing(Adding):
    """Answers what nobody asked, after some of what was asked."""

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self._request_id = request_id

    def generate(
        self, batches: Sequence[Batch], sampling: Sampling, reporter: Reporter, stop: Stop
    ) -> Iterator[Answer]:
        for number, answer in enumerate(super().generate(batches, sampling, reporter, stop), 1):
            yield answer
            if number == 3:  # a batch and a half
                yield Answer(self._request_id, (1,), finished=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}")


def ask(store: Store, engine: Adding, identity: str = IDENTITY) -> list[Answer]:
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    kept = AnswerStore(store, "parts", identity)
    return generate(engine, REQUESTS, SAMPLING, kept, context, phase="generate base")


def parts(store: Store) -> list[str]:
    return [info.key for info in store.list("parts")]


def test_answers_come_in_the_order_of_the_requests(store: Store) -> None:
    found = ask(store, Adding())
    assert [answer.request_id for answer in found] == ["q0a", "q0b", "q1a", "q1b", "q2a", "q2b"]
    assert found[3] == Answer("q1b", (7, 1), finished=True)


def test_what_is_kept_is_not_asked_again(store: Store) -> None:
    with pytest.raises(Preempted):
        ask(store, Adding(dies_after=3))  # a batch and a half
    second = Adding(number=8)
    found = ask(store, second)
    assert second.asked == ["q1b", "q1a", "q0b", "q0a"]
    assert [answer.ids[0] for answer in found] == [8, 8, 8, 8, 7, 7]
    third = Adding()
    assert ask(store, third) == found
    assert third.asked == []


def test_what_decides_the_answers_keeps_them_apart(store: Store) -> None:
    ask(store, Adding())
    other = Adding(number=8)
    assert ask(store, other, identity="f" * 64)[0].ids[0] == 8
    assert len(other.asked) == 6


def test_parts_are_written_after_some_answers_and_some_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(store, Adding())
    assert len(parts(store)) == 1
    monkeypatch.setattr(answers, "PART_ANSWERS", 3)
    ask(store, Adding(), identity="f" * 64)
    assert len(parts(store)) == 3  # after two batches, and at the end
    monkeypatch.undo()
    monkeypatch.setattr(answers, "PART_S", 0.0)
    ask(store, Adding(), identity="e" * 64)
    assert len(parts(store)) == 6


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[1, 2]",
        b'{"format": 2, "answers": []}',
        b'{"format": 1, "answers": [{"request_id": "q1a", "ids": [1], "finished": true}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_part_is_made_again(store: Store, data: bytes) -> None:
    whole = ask(store, Adding())
    store.put(parts(store)[0], data)
    again = Adding()
    assert ask(store, again) == whole
    assert len(again.asked) == 6
    none = Adding()
    assert ask(store, none) == whole
    assert none.asked == []


@pytest.mark.parametrize("field", ["ids", "finished", "request_id", "sha256"])
def test_a_forged_answer_is_made_again(store: Store, field: str) -> None:
    whole = ask(store, Adding())
    key = parts(store)[0]
    part = json.loads(store.get(key))
    forged = {"ids": [9, 9], "finished": False, "request_id": "q2a", "sha256": "0" * 64}
    place = next(n for n, a in enumerate(part["answers"]) if a["request_id"] == "q0b")
    part["answers"][place][field] = forged[field]
    store.put(key, json.dumps(part).encode())
    again = Adding()
    assert ask(store, again) == whole
    assert again.asked == ["q0b"]


def test_an_answer_of_another_generation_is_made_again(store: Store) -> None:
    """Copied from the folder of another: the digest says what it answers."""
    ask(store, Adding())
    data = store.get(parts(store)[0])
    store.put(f"parts/{'f' * 16}/copied.json", data)
    other = Adding(number=8)
    ask(store, other, identity="f" * 64)
    assert len(other.asked) == 6


def test_an_engine_that_leaves_answers_out(store: Store) -> None:
    with pytest.raises(ValueError, match="engine adding: left 1 of 6 requests unanswered"):
        ask(store, Lazy())


def test_an_engine_that_answers_what_was_not_asked(store: Store) -> None:
    with pytest.raises(ValueError, match="engine adding: answers q9z, which was not asked"):
        ask(store, Inventing("q9z"))


@pytest.mark.parametrize("request_id", ["q2a", "q1b"])
def test_an_engine_that_answers_twice(store: Store, request_id: str) -> None:
    """Of a batch that is whole already, and of one that is not."""
    with pytest.raises(ValueError, match=f"engine adding: answers {request_id} a second time"):
        ask(store, Inventing(request_id))


def test_progress_begins_where_the_last_attempt_ended(store: Store) -> None:
    with pytest.raises(Preempted):
        ask(store, Adding(dies_after=3))
    reporter = Reporter(store, "r", "evaluate", "a")
    context = Context(store, "a", reporter, Stop())
    kept = AnswerStore(store, "parts", IDENTITY)
    engine = Adding(dies_after=1)
    with pytest.raises(Preempted):
        generate(engine, REQUESTS, SAMPLING, kept, context, phase="generate base")
    assert (reporter._done, reporter._of, reporter._phase) == (3, 6, "generate base")
