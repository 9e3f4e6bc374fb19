"""Whether a pod reaches the store and may do there what stages do. `thinktune doctor` starts it.

Entry point: `python -m thinktune.tasks.runtime.probe STORE SECONDS`. Waits for that long, until a
NetworkPolicy is in force; then writes, writes again on condition, reads and removes. Its exit codes
are those of the tasks.
"""

import secrets
import sys
import time

from thinktune.schema.errors import ServiceUnavailable, ThinktuneError
from thinktune.store import open_store


def probe(url: str) -> None:
    """Raises what the store raises, and ServiceUnavailable where it ignores conditions."""
    store = open_store(url)
    prefix = f"probes/{secrets.token_hex(8)}"
    key = f"{prefix}/probe"
    try:
        first = store.put_if_absent(key, b"first")
        second = store.put_if_absent(key, b"second")
        read = store.get(key)
    finally:
        store.delete_prefix(prefix)
    if not first or second or read != b"first":
        fault = "it does not honor If-None-Match: two writers would both commit"
        raise ServiceUnavailable(url, fault, "take a server that does: AWS, SeaweedFS, versitygw")


if __name__ == "__main__":
    time.sleep(float(sys.argv[2]))
    try:
        probe(sys.argv[1])
    except ThinktuneError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - what doctor reads
        sys.exit(error.exit_code)
