"""Follows a server until every replica is new and ready, and says what is in the way, once."""

import time

from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving.explain import explain
from thinktune.launch.serving.live import LiveServer, known_server
from thinktune.launch.status.watch import Say
from thinktune.schema.errors import ServiceUnavailable, StageFailed
from thinktune.store import Store

POLL_S = 2.0
UNREACHABLE_S = 600.0
"""How long API or store may be down before we give up."""


def follow(name: str, limit_s: float, kube: Kube, store: Store, say: Say) -> LiveServer:
    """Waits for it. Raises StageFailed where waiting longer will not help, or where it takes longer
    than the plan gives it."""
    deadline, reached, said = time.monotonic() + limit_s, time.monotonic(), ""
    while True:
        try:
            server = known_server(name, kube, store)
            found = explain(server, kube)
        except ServiceUnavailable as error:
            if time.monotonic() - reached > UNREACHABLE_S:
                raise
            text = f"{error}; tries again"
        else:
            reached = time.monotonic()
            if server.settled and server.ready >= server.wanted:
                return server
            text = found.paragraph()
            if found.hopeless:
                raise StageFailed(text, found.code)
            if time.monotonic() > deadline:
                late = f"{name} is not ready after {limit_s / 60:.0f} minutes. {text}"
                raise StageFailed(late, found.code or ServiceUnavailable.exit_code)
        if text != said:
            say(text)
            said = text
        time.sleep(POLL_S)
