"""Requests in, outcomes out as they finish: the way in for prep and evaluation, which know no
event loop. One runs here in a thread of its own; rows, checks and callbacks stay in the caller's.
"""

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from thinktune.llm.batch import Batches
from thinktune.llm.budget import Budget, Spent
from thinktune.llm.cache import ReplyCache
from thinktune.llm.checks import Checker
from thinktune.llm.faults import one_line, read_key
from thinktune.llm.live import Live
from thinktune.llm.replies import NOT_TEXT, parse_body, read_answer
from thinktune.llm.requests import Request, body_of, key_of, profile_of, text_of
from thinktune.llm.worker import Came, Deliver, Loop, State, Worker
from thinktune.schema.errors import Preempted
from thinktune.schema.keys import cache_prefix
from thinktune.schema.llm import Checks, LlmSpec
from thinktune.store import Store, new_attempt

REPLY_SHOWN_CHARS = 200
"""How much of a reply that failed a check its reason shows."""
LOOK_S = 0.1
"""How often the caller's `stop` is asked."""
TELL_S = 1.0
"""How often the caller's `progress` is told, also while nothing comes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request."""

    request: Request
    text: str | None
    """The reply's text, checked; None where there is a reason."""
    thinking: str
    """What the model thought, where the endpoint tells."""
    reason: str | None
    """Why there is no text, as a word to count: a check's name, `truncated`, `empty`, `refused`,
    `not_text`, `no_reply`, `refused_request`."""
    detail: str
    """The reason for people: the fault, or the beginning of the reply."""
    cached: bool
    """Whether the reply was there already."""
    tokens: int | None = None
    """Tokens of the reply, thinking included; None where the endpoint does not say."""
    cut: str = ""
    """Of a truncated reply, what was answered before its limit."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the work is, for a progress line and a heartbeat."""

    asked: int
    """Requests taken from the caller so far."""
    done: int
    """Those that have their outcome."""
    cached: int
    """Those of them whose reply was there already."""
    lost: int
    """Those of them with a reason instead of a text."""
    under_way: int
    """Requests that the endpoint has now."""
    concurrency: int
    """Requests that it may have now; 0 in batch mode."""
    spent: Spent
    waits_for: str
    """What the endpoint said last instead of a reply, or which batches are waited for; "" while
    replies come."""


class Asker:
    """Asks a language model, within the budget of one run. A context manager, in which `ask` may be
    called several times, one after the other."""

    def __init__(
        self,
        spec: LlmSpec,
        store: Store,
        spend_prefix: str,
        *,
        place: str = "llm",
        checks: Checks | None = None,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[Standing], None] | None = None,
        environment: Mapping[str, str] = os.environ,
        replies_prefix: str | None = None,
    ) -> None:
        """`spend_prefix` is the run's folder for its accounts; `place` the settings' name in the
        recipe, for messages; `replies_prefix` where replies are kept, if not with those of all
        runs. Raises SpecInvalid if the key is missing or a check is impossible."""
        self._spec = spec
        self._key = read_key(spec, environment)
        self._checker = Checker(checks or Checks(), f"{place}.checks")
        self._place = place
        self._stop = stop
        self._progress = progress
        self._told = 0.0
        writer = new_attempt()
        self.cache = ReplyCache(store, replies_prefix or reply_prefix(spec), writer)
        self._budget = Budget(
            spec, store, f"{spend_prefix}/{profile_of(spec)}", f"{place}.budget", writer
        )
        self._asked = self._done = self._cached = self._lost = 0
        self._worker: Worker | None = None

    def __enter__(self) -> Self:
        """Reads what is stored. Raises Preempted if asked to stop meanwhile."""
        self._budget.load()
        self.cache.load(self._stop)
        self._check_stop()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._worker is not None:
            self._worker.end()
        self.cache.close()

    @property
    def spent(self) -> Spent:
        """What the run has cost, earlier processes included."""
        return self._budget.spent

    def ask(
        self,
        requests: Iterable[Request | Outcome],
        again: Callable[[Outcome], Request | None] | None = None,
    ) -> Iterator[Outcome]:
        """Outcomes in the order in which they finish. `requests` is read as far as is needed; an
        outcome among them, of what needs no asking, is handed on.

        `again` is shown each reply first; the request that it returns is asked in its stead.
        Raises Preempted when asked to stop, BudgetReached, ServiceUnavailable when the endpoint or
        the store is given up, SpecInvalid when they refuse the key or the settings. Every reply
        that came is stored whatever ends it, and is there at once the next time.
        """
        source = iter(requests)
        further: deque[Request] = deque()
        worker = self._worker = Worker(self._loop)
        try:
            while True:
                self._check_stop()
                request: Request | Outcome | None = further.popleft() if further else None
                if request is None and worker.has_room():
                    request = next(source, None)
                if isinstance(request, Outcome):
                    self._asked += 1
                    self._count(request)
                    yield request
                    continue
                if request is None and not worker.outstanding:
                    break
                came = worker.take(LOOK_S) if request is None else self._put(worker, request)
                self._tell(worker.state)
                if came is None:
                    continue
                outcome = self._outcome(came)
                following = again(outcome) if again is not None else None
                if following is not None:
                    further.append(following)
                else:
                    self._count(outcome)
                    yield outcome
            worker.finish()
        finally:
            worker.end()
            self._worker = None
            self._tell(worker.state, at_once=True)

    def _loop(self, deliver: Deliver) -> Loop:
        kind: type[Batches] | type[Live] = Batches if self._spec.mode == "batch" else Live
        return kind(self._spec, self._key, self.cache, self._budget, deliver)

    def _put(self, worker: Worker, request: Request) -> Came | None:
        """Hands a request to the loop, unless its reply is there already."""
        self._asked += 1
        body = body_of(self._spec, request)
        try:
            text_of(body).encode()
        except UnicodeEncodeError:
            return Came(request, None, NOT_TEXT, "the prompt holds half a character of UTF-16")
        known = self.cache.get(key_of(body, request.draft))
        if known is not None:
            return Came(request, known, None, "", cached=True)
        worker.put(request)
        return worker.take(0)

    def _outcome(self, came: Came) -> Outcome:
        request = came.request
        if came.raw is None:
            return Outcome(request, None, "", came.reason, came.detail, came.cached)
        answer = read_answer(self._spec.provider, parse_body(came.raw.encode()))
        asked = request.messages[-1].content if request.question is None else request.question
        reason = answer.problem or self._checker.failed(answer.text, asked)
        tokens = answer.usage.output if answer.usage is not None else None
        if reason is None:
            return Outcome(request, answer.text, answer.thinking, None, "", came.cached, tokens)
        shown = one_line(answer.text or answer.thinking, REPLY_SHOWN_CHARS)
        thinking, cut = answer.thinking, answer.cut
        return Outcome(request, None, thinking, reason, shown, came.cached, tokens, cut)

    def _count(self, outcome: Outcome) -> None:
        self._done += 1
        self._cached += outcome.cached
        self._lost += outcome.reason is not None

    def _tell(self, state: State, *, at_once: bool = False) -> None:
        now, progress = time.monotonic(), self._progress
        if progress is None:
            return
        if at_once or now - self._told >= TELL_S:
            self._told = now
            counts = (self._asked, self._done, self._cached, self._lost)
            progress(Standing(*counts, *state[:2], self._budget.spent, state.waits_for))

    def _check_stop(self) -> None:
        if self._stop():
            fault = "stopped on request; all replies that came are stored"
            raise Preempted(self._place, fault, "run the same command again to go on")


def reply_prefix(spec: LlmSpec) -> str:
    """Where replies of these settings are cached, whichever run asks."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", spec.model)[:80].strip(".-") or "model"
    return cache_prefix("llm", name, profile_of(spec))
