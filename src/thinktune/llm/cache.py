"""Raw replies in the store, so that no reply is paid for twice. Read and written by both loops.

A reply is stored as it came, before anything is checked, under the digest of model, parameters and
messages: a restart, a changed check and another run with the same prompts cost nothing.

One object for each reply would be slow to write and slower to list on S3. So replies are appended
in segments: whatever has come in since the last put goes into one object of JSON lines. A segment
is put as soon as the one before it is there, and after a pause of five times what that put took,
between 0.05 and 1 s. Every 64 segments are packed into one compressed object. An object of the
store is there whole or not at all, so a kill loses the replies that are not in a segment yet; the
live loop counts these as still under way, which makes the bound its number of concurrent requests.

    <prefix>/open/<group>/<number>.jsonl     what is being appended to
    <prefix>/packed/<group>.jsonl.gz         64 of those

A group is named for the time at which it was begun and for its writer. Each writer has its own
groups, so several may write at once. Replies of one profile (model and
parameters) are under one prefix and are read at the start into a file of scratch space, of which
memory holds an index of some 200 bytes a reply.
"""

import asyncio
import gzip
import json
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from thinktune.schema.errors import InputMissing
from thinktune.store import ObjectMissing, Store

SEGMENTS_PER_GROUP = 64
GROUP_BYTES = 8 << 20
"""What of a group is kept in memory until it is packed."""
GROUP_AGE_S = 3600.0
"""Nothing is appended to a group older than this, long before it could be taken for a dead one."""
RECORDS_AT_ONCE = 1000
"""Replies of a batch in one object."""
PARALLEL_READS = 8
PAUSE_FACTOR = 5
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
DEAD_AFTER = timedelta(days=2)
"""Age of another writer's unpacked group at which it is taken for one that was killed."""


class Record(NamedTuple):
    """One reply as it came."""

    key: str
    """SHA-256 of what was asked, in hex."""
    body: str
    """The endpoint's JSON, the key of the endpoint taken out."""
    via: str
    """`live` or `batch`."""

    def to_line(self) -> bytes:
        """One line of a segment."""
        return json.dumps(self._asdict(), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


class ReplyCache:
    """The replies of one profile. `get` may be called from any thread, the rest from one loop."""

    def __init__(self, store: Store, prefix: str, writer: str) -> None:
        self.store = store
        self.prefix = prefix
        self._writer = writer
        self._scratch = tempfile.TemporaryFile(prefix="llm-replies-")  # noqa: SIM115 - lives on
        self._end = 0
        self._index: dict[bytes, tuple[int, int]] = {}
        self._group, self._begun, self._segment = "", 0.0, 0
        self._group_lines: list[bytes] = []
        self._groups = 0
        self._waiting: list[tuple[Record, asyncio.Future[None]]] = []
        self.begin()

    def __len__(self) -> int:
        return len(self._index)

    def load(self, stop: Callable[[], bool]) -> None:
        """Reads what is stored, until `stop` says so. Raises InputMissing for a broken object."""
        while not stop():
            found = [info.key for info in self.store.list(self.prefix)]
            with suppress(ObjectMissing):  # packed by its writer since: it has another name now
                self._load([key for key in found if _is_segment(key, self.prefix)], stop)
                self._pack_dead(found)
                return

    def get(self, key: str) -> str | None:
        """The body of a reply, if there is one."""
        at = self._index.get(bytes.fromhex(key))
        if at is None:
            return None
        line = os.pread(self._scratch.fileno(), at[1], at[0])
        body: str = json.loads(line)["body"]
        return body

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._index

    def begin(self) -> None:
        """Makes ready for `add` and `run` in the event loop that runs now."""
        self._waiting = []
        self._arrived = asyncio.Event()
        self._finishing = asyncio.Event()

    async def add(self, record: Record) -> None:
        """Returns once the reply is in the store, for which `run` must be running."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, stored))
        self._arrived.set()
        await stored

    async def add_all(self, records: list[Record]) -> None:
        """Stores many at once, packed already; for batches."""
        for start in range(0, len(records), RECORDS_AT_ONCE):
            lines = _lines(records[start : start + RECORDS_AT_ONCE])
            group = self._new_group()
            await asyncio.to_thread(self._put_packed, group, lines)
            self._remember(lines, group)

    async def run(self, after: Callable[[], Awaitable[None]]) -> None:
        """Puts segments until `finish`, and then what is left; awaits `after()` behind each."""
        while not self._finishing.is_set():
            await self._arrived.wait()
            took = await self._put_waiting(after)
            pause = min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, PAUSE_FACTOR * took))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._finishing.wait(), pause)
        await self._put_waiting(after)
        if self._segment > 1:
            await self._pack()

    def finish(self) -> None:
        """Ends `run`, once everything that was added is stored."""
        self._finishing.set()
        self._arrived.set()

    def close(self) -> None:
        """Gives the scratch file back."""
        self._scratch.close()

    async def _put_waiting(self, after: Callable[[], Awaitable[None]]) -> float:
        batch, self._waiting = self._waiting, []
        self._arrived.clear()
        if not batch:
            return 0.0
        began = time.monotonic()
        await self._append(_lines(record for record, _ in batch))
        took = time.monotonic() - began
        for _, stored in batch:
            if not stored.done():
                stored.set_result(None)
        await after()
        return took

    async def _append(self, lines: bytes) -> None:
        if self._segment and time.monotonic() - self._begun > GROUP_AGE_S:
            await self._pack()
        if not self._segment:
            self._group, self._begun = self._new_group(), time.monotonic()
        key = f"{self.prefix}/open/{self._group}/{self._segment:06d}.jsonl"
        await asyncio.to_thread(self.store.put, key, lines)
        self._segment += 1
        self._group_lines.append(lines)
        self._remember(lines, key)
        size = sum(len(segment) for segment in self._group_lines)
        if self._segment >= SEGMENTS_PER_GROUP or size > GROUP_BYTES:
            await self._pack()

    async def _pack(self) -> None:
        await asyncio.to_thread(self._replace, self._group, b"".join(self._group_lines))
        self._segment, self._group_lines = 0, []

    def _replace(self, group: str, lines: bytes) -> None:
        """One object in place of a group's; first the new one, so that a kill leaves both."""
        self._put_packed(group, lines)
        self.store.delete_prefix(f"{self.prefix}/open/{group}")

    def _put_packed(self, group: str, lines: bytes) -> None:
        packed = gzip.compress(lines, compresslevel=6, mtime=0)
        self.store.put(f"{self.prefix}/packed/{group}.jsonl.gz", packed)

    def _new_group(self) -> str:
        self._groups += 1
        return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{self._writer}-{self._groups:05d}"

    def _load(self, keys: list[str], stop: Callable[[], bool]) -> None:
        for key, lines in self._read_all(sorted(keys, key=_by_age)):
            if stop():
                return
            self._remember(lines, key)

    def _read_all(self, keys: list[str]) -> Iterator[tuple[str, bytes]]:
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            # A few at a time: the whole need not fit into memory.
            for start in range(0, len(keys), PARALLEL_READS):
                some = keys[start : start + PARALLEL_READS]
                yield from zip(some, pool.map(self._read, some), strict=True)

    def _read(self, key: str) -> bytes:
        raw = self.store.get(key)
        if not key.endswith(".gz"):
            return raw
        try:
            return gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise self._broken(key, str(error)) from None

    def _remember(self, lines: bytes, key: str) -> None:
        """The first reply to a key stays: what was read once is read again after a restart."""
        os.pwrite(self._scratch.fileno(), lines, self._end)
        for line in lines.splitlines(keepends=True):
            try:
                asked = bytes.fromhex(json.loads(line)["key"])
            except (ValueError, KeyError, TypeError) as error:
                raise self._broken(key, str(error)) from None
            self._index.setdefault(asked, (self._end, len(line)))
            self._end += len(line)

    def _broken(self, key: str, why: str) -> InputMissing:
        place = self.store.location(key)
        fault = f"holds no replies as they were stored ({why})"
        return InputMissing(place, fault, "delete it; what it held is asked and paid for again")

    def _pack_dead(self, keys: list[str]) -> None:
        """Packs what killed writers have left behind long ago."""
        groups = {key.split("/")[-2] for key in keys if key.startswith(f"{self.prefix}/open/")}
        for group in sorted(groups):
            if not _is_old(group):
                continue
            inside = sorted(key for key in keys if key.split("/")[-2] == group)
            self._replace(group, b"".join(self.store.get(key) for key in inside))


def _lines(records: Iterable[Record]) -> bytes:
    return b"".join(record.to_line() for record in records)


def _is_segment(key: str, prefix: str) -> bool:
    return key.removeprefix(f"{prefix}/").startswith(("open/", "packed/"))


def _by_age(key: str) -> str:
    """Sorts segments by their group, whether packed or not."""
    return re.sub(r".*/(open|packed)/", "", key)


def _is_old(group: str) -> bool:
    found = re.match(r"\d{8}T\d{6}", group)
    if not found:
        return False
    begun = datetime.strptime(found[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return datetime.now(UTC) - begun > DEAD_AFTER
