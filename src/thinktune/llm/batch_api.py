"""The batch services of OpenAI and Anthropic behind one interface. `batch` drives it.

Every method raises a FaultError where the service fails, and reads nothing into a result but what
it says.
"""

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import IO, Any, Literal

from thinktune.llm.batch_records import BatchRecord
from thinktune.llm.client import fault_of, open_client
from thinktune.llm.faults import Denied, Key, Lost, fault_of_status
from thinktune.llm.replies import NotAReplyError, parse_body, read_answer, usage_of
from thinktune.llm.requests import NOTHING, Tokens
from thinktune.schema.llm import LlmSpec

SKEW_S = 3600.0
"""How far the provider's clock may be behind ours when a batch is looked for."""
DOWNLOADS = 3
"""Times that results which end in the middle of a line are fetched."""
NAME = "thinktune_batch"
"""Metadata by which a batch is found again."""

Fate = Literal["reply", "unanswered", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a batch brought for one request."""

    key: str
    fate: Fate
    """`unanswered`: expired or canceled before it was its turn, and not billed; `refused`: it would
    be again; `failed`: it may do better."""
    raw: str
    """The reply's body as JSON; "" without one."""
    detail: str
    usage: Tokens | None
    """What was billed; None: unknown."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a batch is getting on."""

    ended: bool
    complete: bool
    """Whether it ended by itself, so that what is missing from its results is missing by mistake
    and may have been billed."""
    done: int
    """Requests that it has dealt with."""
    note: str
    """What the provider calls its state."""
    fault: str
    """Why it failed as a whole, if it did."""
    outputs: tuple[str, ...] = ()
    """Files with results (OpenAI)."""


class BatchApi(ABC):
    """One endpoint's batch service."""

    requests: int
    """Most requests in a batch, by the provider."""
    megabytes: float
    """Most megabytes in a batch, by us."""

    def __init__(self, spec: LlmSpec, key: Key) -> None:
        self._spec = spec
        self._key = key
        self._client: Any = open_client(spec, key)

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.close()

    @abstractmethod
    def line(self, key: str, body: dict[str, Any]) -> bytes:
        """A request as it is counted for the size of a batch, with the end of its line."""

    @abstractmethod
    async def create(self, record: BatchRecord, lines: IO[bytes]) -> str:
        """Creates a batch and returns the provider's name for it."""

    @abstractmethod
    async def find(self, record: BatchRecord, known: Collection[str]) -> str | None:
        """The provider's name of a batch whose creation was cut off, if it exists. `known` are
        those of all other batches."""

    @abstractmethod
    async def status(self, batch_id: str) -> Status:
        """How it is getting on."""

    @abstractmethod
    def results(self, batch_id: str, status: Status) -> AsyncIterator[Result]:
        """What an ended batch brought, in any order; lines that are none are left out."""

    def _fault(self, error: Exception) -> Exception:
        return fault_of(error, self._key)

    def _reply(self, key: str, body: Any, usage: Tokens | None) -> Result:
        try:
            read_answer(self._spec.provider, body)
        except NotAReplyError as error:
            return Result(key, "failed", "", str(error), usage)
        raw = json.dumps(body, separators=(",", ":"))
        return Result(key, "reply", self._key.redact(raw), "", usage)

    def _error(self, key: str, status: int, body: Any) -> Result:
        usage = usage_of(body) if isinstance(body, dict) else None
        fault = fault_of_status(status, body, {}, self._key, usage)
        fate: Fate = "refused" if isinstance(fault, Denied) else "failed"
        return Result(key, fate, "", fault.what, usage or NOTHING)

    async def _lines(self, open_stream: Any) -> AsyncIterator[dict[str, Any]]:
        """JSON objects of a file of lines, fetched again where it ends in the middle of one."""
        for fetch in range(DOWNLOADS):
            with tempfile.TemporaryFile(prefix="llm-results-") as file:
                try:
                    async with open_stream() as response:
                        async for piece in response.iter_bytes():
                            file.write(piece)
                except Exception as error:  # noqa: BLE001 - two libraries' errors
                    raise self._fault(error) from None
                if _is_cut(file) and fetch + 1 < DOWNLOADS:
                    continue
                file.seek(0)
                for line in file:
                    try:
                        yield parse_body(line)
                    except NotAReplyError:
                        continue
                return


class OpenAiBatches(BatchApi):
    """Files of requests, files of results."""

    requests, megabytes = 50_000, 190.0

    def line(self, key: str, body: dict[str, Any]) -> bytes:
        whole = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(whole, ensure_ascii=False).encode() + b"\n"

    async def create(self, record: BatchRecord, lines: IO[bytes]) -> str:
        try:
            file = await self._client.files.create(
                file=(f"{record.name}.jsonl", lines), purpose="batch"
            )
            batch = await self._client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={NAME: record.name},
            )
        except Exception as error:  # noqa: BLE001
            raise self._fault(error) from None
        return _named(batch)

    async def find(self, record: BatchRecord, known: Collection[str]) -> str | None:
        del known  # its name tells
        try:
            async for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get(NAME) == record.name:
                    return _named(batch)
                if (batch.created_at or 0) < record.created - SKEW_S:
                    return None
        except Exception as error:  # noqa: BLE001
            raise self._fault(error) from None
        return None

    async def status(self, batch_id: str) -> Status:
        try:
            batch = await self._client.batches.retrieve(batch_id)
        except Exception as error:  # noqa: BLE001
            raise self._fault(error) from None
        counts = batch.request_counts
        errors = (batch.errors.data or []) if batch.errors else []
        fault = "; ".join(self._key.redact(f"{e.code}: {e.message}") for e in errors[:3])
        return Status(
            ended=batch.status in ("completed", "failed", "expired", "cancelled"),
            complete=batch.status == "completed",
            done=(counts.completed or 0) + (counts.failed or 0) if counts else 0,
            note=str(batch.status),
            fault=fault if batch.status == "failed" else "",
            outputs=tuple(f for f in (batch.output_file_id, batch.error_file_id) if f),
        )

    async def results(self, batch_id: str, status: Status) -> AsyncIterator[Result]:
        del batch_id  # its files are named apart
        files = self._client.files.with_streaming_response
        for output in status.outputs:
            async for line in self._lines(lambda name=output: files.content(name)):
                result = self._result(line)
                if result is not None:
                    yield result

    def _result(self, line: dict[str, Any]) -> Result | None:
        key, response, error = line.get("custom_id"), line.get("response"), line.get("error")
        if not isinstance(key, str):
            return None
        if isinstance(response, dict):
            body, status = response.get("body"), response.get("status_code")
            if status == 200 and isinstance(body, dict):
                return self._reply(key, body, usage_of(body))
            return self._error(key, status if isinstance(status, int) else 500, body)
        code = error.get("code", "") if isinstance(error, dict) else ""
        if code in ("batch_expired", "batch_cancelled"):
            return Result(key, "unanswered", "", code, NOTHING)
        return self._error(key, 500, {"error": error})


class AnthropicBatches(BatchApi):
    """One request with all requests, one stream with all results."""

    requests, megabytes = 100_000, 64.0

    def line(self, key: str, body: dict[str, Any]) -> bytes:
        return json.dumps({"custom_id": key, "params": body}, ensure_ascii=False).encode() + b"\n"

    async def create(self, record: BatchRecord, lines: IO[bytes]) -> str:
        del record  # there is nowhere to write its name
        try:
            requests = [json.loads(line) for line in lines]
            batch = await self._client.messages.batches.create(requests=requests)
        except Exception as error:  # noqa: BLE001
            raise self._fault(error) from None
        return _named(batch)

    async def find(self, record: BatchRecord, known: Collection[str]) -> str | None:
        # There is nothing to name a batch by: one of that size, of about that time, that is nobody
        # else's. Whether it is ours its results will show by their keys.
        oldest = None
        try:
            async for batch in self._client.messages.batches.list(limit=100):
                counts = batch.request_counts
                size = sum(v for v in counts.model_dump().values() if isinstance(v, int))
                if batch.created_at.timestamp() < record.created - LOCAL_SKEW_S:
                    break
                if size == record.count and batch.id not in known:
                    oldest = _named(batch)
        except Exception as error:  # noqa: BLE001
            raise self._fault(error) from None
        return oldest

    async def status(self, batch_id: str) -> Status:
        try:
            batch = await self._client.messages.batches.retrieve(batch_id)
        except Exception as error:  # noqa: BLE001
            raise self._fault(error) from None
        counts = batch.request_counts
        ended = batch.processing_status == "ended"
        done = counts.succeeded + counts.errored + counts.canceled + counts.expired
        complete = ended and not counts.canceled and not counts.expired
        return Status(ended, complete, done, str(batch.processing_status), "")

    async def results(self, batch_id: str, status: Status) -> AsyncIterator[Result]:
        del status
        batches = self._client.messages.batches.with_streaming_response
        async for line in self._lines(lambda: batches.results(batch_id)):
            key, result = line.get("custom_id"), line.get("result")
            if isinstance(key, str) and isinstance(result, dict):
                yield self._result(key, result)

    def _result(self, key: str, result: dict[str, Any]) -> Result:
        kind, message = result.get("type"), result.get("message")
        if kind == "succeeded" and isinstance(message, dict):
            return self._reply(key, message, usage_of(message))
        if kind in ("expired", "canceled"):
            return Result(key, "unanswered", "", str(kind), NOTHING)
        error = result.get("error")
        inner = error.get("error", {}) if isinstance(error, dict) else {}
        refused = isinstance(inner, dict) and inner.get("type") == "invalid_request_error"
        return self._error(key, 400 if refused else 500, error)


LOCAL_SKEW_S = 300.0
"""The same for Anthropic, where another batch of that size could be taken for ours."""


def open_batches(spec: LlmSpec, key: Key) -> BatchApi:
    """The provider's service. Made in the event loop that uses it."""
    return (AnthropicBatches if spec.provider == "anthropic" else OpenAiBatches)(spec, key)


def _named(batch: Any) -> str:
    if not isinstance(batch.id, str) or not batch.id:
        raise Lost("a batch without an id", usage=None)
    return batch.id


def _is_cut(file: IO[bytes]) -> bool:
    """Whether a file of lines ends within one: no line break, and no JSON either."""
    size = file.seek(0, 2)
    if not size:
        return False
    file.seek(max(0, size - 1))
    if file.read(1) == b"\n":
        return False
    file.seek(0)
    last = b""
    for last in file:  # noqa: B007
        pass
    try:
        parse_body(last)
    except NotAReplyError:
        return True
    return False
