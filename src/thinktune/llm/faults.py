"""What goes wrong while asking, as the loops have to tell it apart, and the key kept out of it.

`client` and the batch services raise these; the live loop and the batch loop decide by them.
"""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from thinktune.llm.requests import NOTHING, Tokens
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid, ThinktuneError
from thinktune.schema.llm import LlmSpec
from thinktune.text.visible import printable

SHOWN_CHARS = 300
"""Of what an endpoint says about a fault."""

REFUSED_UNPAID = {429, 503, 529}
"""Refused before any work was done: neither provider bills these. After other server faults and
after cut connections nobody knows, and they count as if all had been billed."""


class FaultError(Exception):
    """A request that brought no reply."""

    def __init__(self, what: str, *, usage: Tokens | None = NOTHING) -> None:
        super().__init__(what)
        self.what = what
        """For people, without the key."""
        self.usage = usage
        """What it cost nevertheless; None: unknown."""
        self.status: int | None = None
        """HTTP status, where there was one."""


class Throttled(FaultError):
    """HTTP 429: too much was asked at once."""

    def __init__(self, what: str, retry_after_s: float | None, usage: Tokens | None) -> None:
        super().__init__(what, usage=usage)
        self.retry_after_s = retry_after_s


class ServerFault(FaultError):
    """HTTP 5xx, or 408 and 409: the endpoint failed and may do better."""

    def __init__(self, what: str, retry_after_s: float | None, usage: Tokens | None) -> None:
        super().__init__(what, usage=usage)
        self.retry_after_s = retry_after_s


class Lost(FaultError):
    """A reply that did not arrive whole: a cut, a time-out, a body that is none. It may have been
    billed."""


class Unreachable(FaultError):
    """No connection: nothing was sent."""


class Denied(FaultError):
    """HTTP 400, 413, 422: this very request is refused, and would be again."""


class Hopeless(FaultError):
    """No request can succeed: the key, the model or the account is refused."""

    def __init__(self, what: str, remedy: str, *, passing: bool = False) -> None:
        super().__init__(what)
        self.remedy = remedy
        self.passing = passing
        """Whether time or money may heal it, so that it is not the recipe's fault."""


def error_of(fault: "Denied | Hopeless", url: str) -> ThinktuneError:
    """The error that ends a run which such a fault makes pointless."""
    if isinstance(fault, Denied):
        return SpecInvalid(url, fault.what, "change model or parameters to what it takes")
    return (ServiceUnavailable if fault.passing else SpecInvalid)(url, fault.what, fault.remedy)


class Key:
    """The key of an endpoint. It is shown nowhere, and taken out of whatever is."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._shown = re.compile("|".join(re.escape(s) for s in {secret, quote(secret, safe="")}))

    def __repr__(self) -> str:
        return "Key(…)"

    def reveal(self) -> str:
        """The key itself, for the client alone."""
        return self._secret

    def redact(self, text: str) -> str:
        """The text without the key."""
        return self._shown.sub("[key]", text) if self._secret else text


def read_key(spec: LlmSpec, environment: Mapping[str, str] = os.environ) -> Key:
    """The key that the settings name. Raises SpecInvalid if the variable is not set or is odd."""
    name = spec.key_variable
    if name is None:
        return Key("")
    secret = environment.get(name, "").strip()
    place = f"environment variable {name}"
    if not secret:
        remedy = (
            f"set it to the key for {spec.url}, or name in key_secret a Kubernetes Secret that "
            f"has a key {name}"
        )
        raise SpecInvalid(place, "it is not set, or empty", remedy)
    if not re.fullmatch(r"[\x21-\x7e]+", secret):
        fault = "what it holds is no key: it has spaces, line breaks or odd characters"
        raise SpecInvalid(place, fault, "set it to the key alone")
    return Key(secret)


def fault_of_status(
    status: int, body: Any, headers: Mapping[str, str], key: Key, usage: Tokens | None
) -> FaultError:
    """The fault that an answer with that status stands for. `usage` is what its body says."""
    fault = _fault_of_status(status, body, headers, key, usage)
    fault.status = status
    return fault


def _fault_of_status(
    status: int, body: Any, headers: Mapping[str, str], key: Key, usage: Tokens | None
) -> FaultError:
    code, said = _said(body)
    what = f"HTTP {status}" + (f" ({key.redact(said)})" if said else "")
    wait = retry_after_s(headers)
    if code in ("insufficient_quota", "billing_error") or status == 402:
        remedy = "add credit at the provider, then run it again"
        return Hopeless(what, remedy, passing=True)
    if status in (401, 403):
        # Not what the endpoint says: some repeat a part of the key.
        return Hopeless(f"HTTP {status}: it refuses the key", "check the key and what it may use")
    if status == 429:
        return Throttled(what, wait, usage or NOTHING)
    if status in (404, 405) or 300 <= status < 400:
        return Hopeless(what, "check base_url, provider and model")
    if status in (408, 409) or status >= 500:
        unpaid = NOTHING if status in REFUSED_UNPAID or status == 409 else None
        return ServerFault(what, wait, usage or unpaid)
    return Denied(what, usage=usage or NOTHING)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the endpoint says, as a number or as a date; None if it does not say."""
    milliseconds = headers.get("retry-after-ms", "").strip()
    if re.fullmatch(r"\d{1,12}", milliseconds):
        return float(milliseconds) / 1000
    said = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", said):
        return float(said)
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _said(body: Any) -> tuple[str, str]:
    """The code and the message of an error's body, whichever form it has."""
    if isinstance(body, dict):
        error = body.get("error", body)
        if isinstance(error, dict):
            code = str(error.get("code") or error.get("type") or "")
            return code, one_line(str(error.get("message") or code))
        return "", one_line(str(error))
    return "", one_line(body) if isinstance(body, str) else ""


def one_line(text: str, most: int = SHOWN_CHARS) -> str:
    """The beginning of a text on one line, without what a terminal would obey."""
    flat = " ".join(printable(text).split())
    return flat[:most] + ("…" if len(flat) > most else "")
