"""One stage looked at again and again, through an API or a store that is away for a while.

Used by whoever follows: `conductor` and `logs -f`.
"""

import time
from collections.abc import Callable, Sequence

from thinktune.launch.cluster.api import Forbidden
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.status.observed import Observed, observe
from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.stages import Stage
from thinktune.store import Store

POLL_S = 1.0
REPEAT_S = 60.0
UNREACHABLE_S = 600.0
"""How long API or store may be down before we give up."""

Say = Callable[[str], None]


class Watch:
    """Observes one stage, and says what is in the way, once."""

    def __init__(
        self,
        run: str,
        stage: Stage,
        kube: Kube,
        store: Store,
        say: Say,
        beside: Sequence[str] = (),
    ) -> None:
        """`beside`: see `observe`."""
        self.run = run
        self._beside = beside
        self.stage = stage
        self.kube = kube
        self.store = store
        self.say = say
        self._before: Observed | None = None
        self._answered = False
        self._said: tuple[str, float] = ("", 0.0)
        self._since: dict[str, float] = {}

    def observe(self) -> Observed:
        """The stage as it is now. Raises what API and store raise."""
        self._before = observe(
            self.run, self.stage, self.kube, self.store, self._before, self._beside
        )
        return self._before

    def attempt(self, look: Callable[[], Observed]) -> Observed | None:
        """Calls `look` and gives its result, or None while the API or the store does not answer.

        Raises their error where they have not answered for ten minutes, or refused from the start.
        """
        try:
            seen = look()
        except ServiceUnavailable as error:
            # A token that is being renewed is refused for a moment; one that never worked is not.
            if isinstance(error, Forbidden) and not self._answered:
                raise
            if self.for_longer_than("unreachable", UNREACHABLE_S):
                raise
            self.remark(f"{error}; tries again")
            return None
        self.no_longer("unreachable")
        self._answered = True
        return seen

    def for_longer_than(self, what: str, seconds: float) -> bool:
        """Whether something has been so for that long; it counts from the first time asked."""
        began = self._since.setdefault(what, time.monotonic())
        return time.monotonic() - began >= seconds

    def no_longer(self, what: str) -> None:
        """Forgets since when something has been so: it no longer is."""
        self._since.pop(what, None)

    def remark(self, text: str) -> None:
        """Says something once, and again after a minute if it still holds."""
        now = time.monotonic()
        if text != self._said[0] or now - self._said[1] > REPEAT_S:
            self._said = (text, now)
            self.say(text)
