"""Asks a server of ours for an answer and reads it while it is written. Called by `thinktune chat`,
and by `thinktune bench serve` before it begins.

The standard library's HTTP is enough for it, so that a laptop needs no client library.
"""

import http.client
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from thinktune.schema.errors import ServiceUnavailable, SpecInvalid
from thinktune.schema.serve import KEY_VARIABLE

CONNECT_S = 600.0
"""Seconds without a word, after which the server is taken for dead. A long prompt takes a while."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more of an answer, or what is known at its end."""

    reasoning: str = ""
    content: str = ""
    finish_reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """`thinktune` of the answer: the final answer, the passages."""


class ChatClient:
    """One server."""

    def __init__(self, url: str, key: str | None) -> None:
        """Raises SpecInvalid for an address that is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SpecInvalid(url, "it is no address of a server", "write http://host:port")
        if parts.username or parts.password:
            remedy = f"leave them out, and set {KEY_VARIABLE} to the key"
            raise SpecInvalid("the address", "it has no place for credentials", remedy)
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._parts = parts
        self._key = key

    @property
    def url(self) -> str:
        """Address of the server, before the path of any request."""
        return self._url + self._parts.path.rstrip("/")

    @property
    def key(self) -> str | None:
        """What the server is shown."""
        return self._key

    def models(self) -> dict[str, dict[str, Any]]:
        """The models by their names, with what the server says of them."""
        connection = self._connection()
        try:
            answer = self._ask(connection, "GET", "/v1/models", None)
            found: dict[str, Any] = json.loads(answer.read())
            return {each["id"]: each.get("thinktune", {}) for each in found["data"]}
        except (ValueError, LookupError, TypeError):
            fault, remedy = "it is no server of thinktune or OpenAI's API", "check the address"
            raise ServiceUnavailable(self._url, fault, remedy) from None
        finally:
            connection.close()

    def answer(self, body: dict[str, Any]) -> Iterator[Piece]:
        """The answer as it is written. Raises ServiceUnavailable, or SpecInvalid where the server
        refuses the request."""
        connection = self._connection()
        try:
            answer = self._ask(connection, "POST", "/v1/chat/completions", body | {"stream": True})
            yield from self._pieces(answer)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from None
        finally:
            connection.close()

    def _pieces(self, answer: http.client.HTTPResponse) -> Iterator[Piece]:
        while line := answer.readline():
            data = line.strip().removeprefix(b"data: ")
            if data == b"[DONE]":
                return
            if not line.startswith(b"data: "):
                continue
            plain = json.loads(data)
            if "error" in plain:
                fault = str(plain["error"].get("message", "it failed"))
                raise ServiceUnavailable(self._url, fault, "ask again")
            for choice in plain.get("choices", ()):
                delta = choice.get("delta", {})
                yield Piece(
                    delta.get("reasoning") or "",
                    delta.get("content") or "",
                    choice.get("finish_reason"),
                    plain.get("thinktune", {}),
                )
        raise ServiceUnavailable(self._url, "the answer broke off", "ask again")

    def _connection(self) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        return kind(self._parts.netloc, timeout=CONNECT_S)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: dict[str, Any] | None,
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, data, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from None
        if answer.status == 200:
            return answer
        raise self._refused(answer)

    def _refused(self, answer: http.client.HTTPResponse) -> Exception:
        try:
            message = str(json.loads(answer.read(1 << 16))["error"]["message"])
        except (OSError, ValueError, LookupError, TypeError):
            message = f"it answers with status {answer.status}"
        if answer.status == 401:
            return SpecInvalid(self._url, message, f"set {KEY_VARIABLE}, or give --key-file")
        if answer.status in (400, 404, 413):
            return SpecInvalid(self._url, message, "change the question or the options")
        return ServiceUnavailable(self._url, message, "try again in a moment")

    def _broken(self, error: Exception) -> ServiceUnavailable:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        fault = f"the server does not answer ({reason})"
        return ServiceUnavailable(self._url, fault, "check the address, or start it")


def chat_body(
    model: str, messages: Sequence[dict[str, str]], settings: dict[str, Any]
) -> dict[str, Any]:
    """The request of a conversation; settings that are None are left to the server."""
    given = {name: value for name, value in settings.items() if value is not None}
    return {"model": model, "messages": list(messages), **given}
