"""Replies in the store: there at once, packed in time, first come first kept."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from s3_server import BUCKET, S3Server

from thinktune.llm import cache as cache_module
from thinktune.llm.cache import Record, ReplyCache
from thinktune.schema.errors import InputMissing
from thinktune.store import Store, open_store

PREFIX = "cache/llm/m@1"


@pytest.fixture(params=["folder", "s3"])
def each_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Store:
    if request.param == "folder":
        return open_store((tmp_path / "store").as_uri())
    server: S3Server = request.getfixturevalue("server")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}/{tmp_path.name}")


@contextmanager
def opened(store: Store, writer: str = "w") -> Iterator[ReplyCache]:
    cache = ReplyCache(store, PREFIX, writer)
    cache.load(lambda: False)
    yield cache
    cache.close()


def key(number: int) -> str:
    return f"{number:064x}"


async def nothing() -> None:
    """After each segment."""


async def write(cache: ReplyCache, numbers: list[int], body: str = "body {}") -> None:
    running = asyncio.create_task(cache.run(nothing))
    for number in numbers:
        await cache.add(Record(key(number), body.format(number), "live"))
    cache.finish()
    await running


def test_what_is_added_is_there_for_the_next(each_store: Store) -> None:
    with opened(each_store) as cache:
        asyncio.run(write(cache, [1, 2, 3]))
        assert cache.get(key(2)) == "body 2" and cache.get(key(9)) is None
    with opened(each_store, "other") as cache:
        assert cache.get(key(3)) == "body 3" and len(cache) == 3
        assert key(1) in cache and key(9) not in cache


def test_segments_are_packed_and_read_the_same(
    each_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SEGMENTS_PER_GROUP", 4)
    monkeypatch.setattr(cache_module, "LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr(cache_module, "SHORTEST_PAUSE_S", 0.0)
    with opened(each_store) as cache:
        asyncio.run(write(cache, list(range(11))))
    kinds = [info.key.split("/")[3] for info in each_store.list(PREFIX)]
    assert kinds.count("packed") == 3 and kinds.count("open") == 0
    with opened(each_store) as cache:
        assert [cache.get(key(n)) for n in range(11)] == [f"body {n}" for n in range(11)]


def test_a_reply_is_stored_when_add_returns(store: Store) -> None:
    async def killed() -> None:
        running = asyncio.create_task(cache.run(nothing))
        await cache.add(Record(key(1), "body", "live"))
        running.cancel()  # and nothing of what a process does at its end

    with opened(store) as cache:
        asyncio.run(killed())
    with opened(store, "next") as cache:
        assert cache.get(key(1)) == "body"


def test_of_two_replies_the_first_stays_also_once_it_is_packed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SEGMENTS_PER_GROUP", 1)
    monkeypatch.setattr(ReplyCache, "_new_group", lambda self: f"20260101T000000-{self._writer}-1")
    with opened(store, "a") as first, opened(store, "b") as second:
        asyncio.run(write(first, [1], "from a"))  # packed
        monkeypatch.setattr(cache_module, "SEGMENTS_PER_GROUP", 9)
        asyncio.run(write(second, [1], "from b"))  # open
    with opened(store) as cache:
        assert cache.get(key(1)) == "from a"


def test_what_killed_writers_left_long_ago_is_packed(store: Store) -> None:
    line = Record(key(1), "old", "live").to_line()
    store.put(f"{PREFIX}/open/20260101T000000-x-00001/000000.jsonl", line)
    store.put(f"{PREFIX}/open/20990101T000000-x-00001/000000.jsonl", line)
    with opened(store) as cache:
        assert cache.get(key(1)) == "old"
    names = [info.key.removeprefix(f"{PREFIX}/") for info in store.list(PREFIX)]
    assert names == [
        "open/20990101T000000-x-00001/000000.jsonl",
        "packed/20260101T000000-x-00001.jsonl.gz",
    ]
    with opened(store) as cache:
        assert cache.get(key(1)) == "old"


def test_many_at_once_are_packed_already(store: Store) -> None:
    with opened(store) as cache:
        asyncio.run(cache.add_all([Record(key(n), str(n), "batch") for n in range(2500)]))
        assert cache.get(key(2400)) == "2400"
    assert [info.key.split("/")[3] for info in store.list(PREFIX)] == ["packed"] * 3
    with opened(store) as cache:
        assert len(cache) == 2500


@pytest.mark.parametrize("name", ["open/20260101T000000-x-1/0.jsonl", "packed/x.jsonl.gz"])
def test_an_object_that_is_broken_is_not_passed_over(store: Store, name: str) -> None:
    store.put(f"{PREFIX}/{name}", b"not what it was")
    with pytest.raises(InputMissing, match="paid for again"), opened(store):
        pass


def test_any_text_comes_back_as_it_was(store: Store) -> None:
    body = '{"a": "é\u2028 \\u0000 \\ud83d 患者\\r\\n"}'
    with opened(store) as cache:
        asyncio.run(
            write(cache, [1], "{}".replace("{}", body.replace("{", "{{").replace("}", "}}")))
        )
    with opened(store) as cache:
        assert cache.get(key(1)) == body
