"""The keys that clients send: compared as digests, in constant time, and printed nowhere."""

import hashlib
import hmac
import os
from pathlib import Path

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.serve import KEY_VARIABLE, ServeTask

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Keys:
    """Whether a client may ask."""

    def __init__(self, keys: list[str]) -> None:
        """`keys`: any of them will do; without one, everybody may ask."""
        self._digests = [_digest(key) for key in keys]

    @property
    def any(self) -> bool:
        """Whether a key is asked for."""
        return bool(self._digests)

    def allow(self, header: str | None) -> bool:
        """Whether a request with that Authorization header may go on."""
        if not self._digests:
            return True
        scheme, _, key = (header or "").partition(" ")
        given = _digest(key.strip())
        # All are compared, so that the time says nothing of which it was.
        found = [hmac.compare_digest(given, each) for each in self._digests]
        return scheme.lower() == "bearer" and any(found)


def read_keys(task: ServeTask) -> Keys:
    """From the file, else the environment. Raises SpecInvalid where the server can be reached from
    elsewhere and has no key."""
    if task.key_file is not None:
        keys = _of_file(Path(task.key_file))
    else:
        # Out of the environment: no process that is started from here needs it.
        key = os.environ.pop(KEY_VARIABLE, "").strip()
        keys = [key] if key else []
    if not keys and task.host not in LOOPBACK:
        fault = "others can reach the server, and it has no key"
        remedy = f"name a file with one (--key-file), or set {KEY_VARIABLE}"
        raise SpecInvalid(f"--host {task.host}", fault, remedy)
    return Keys(keys)


def _of_file(path: Path) -> list[str]:
    place = f"--key-file {path}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise SpecInvalid(place, "it cannot be read", "name a text file, a key on a line") from None
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise SpecInvalid(place, "it holds no key", "write one into it, on a line of its own")
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
