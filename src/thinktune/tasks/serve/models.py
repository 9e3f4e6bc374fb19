"""The models that clients can ask for by name, which may change while requests are answered.

A name leads to a run; the run's adapter has a name of its own in the engine, another one each time
that it is loaded. Requests keep the adapter that they began with: `adapters` unloads one that no
name leads to once no request is left that may use it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from thinktune.schema.serve import BASE_MODEL
from thinktune.tasks.serve.gateway.prompts import Prompts
from thinktune.tasks.serve.inputs import Served
from thinktune.text.tokens import Encoder


@dataclass(frozen=True, eq=False)
class Model:
    """A run as it is served."""

    served: Served
    prompts: Prompts
    engine_name: str
    """Name of its adapter in the engine."""


@dataclass(eq=False)
class Ticket:
    """A request, from before its model is looked up to the end of its answer."""

    offer: int
    """Number of the offer at the request's beginning."""
    engine_name: str | None = None
    """None until it is known: it may be any of that offer or a later one."""


class Models:
    """What there is now."""

    def __init__(self, server: str | None = None) -> None:
        """`server`: the name that always leads to the first model."""
        self._server = server
        self._by_name: dict[str, Model] = {}
        self._first: Model | None = None
        self._tickets: set[Ticket] = set()
        self._offers = 0

    @property
    def first(self) -> Model:
        """The model behind the server's name, whose prompts the base model gets too."""
        assert self._first is not None
        return self._first

    @property
    def tuned(self) -> dict[str, Model]:
        """All but the base model, by name, the first one first."""
        return self._by_name

    def offer(self, models: Sequence[Model]) -> None:
        """From now on these, in one go."""
        named = {self._server: models[0]} if self._server is not None else {}
        # The server's name once more: a run beside the first may have it as its id.
        self._by_name = named | {each.served.run: each for each in models} | named
        self._first = models[0]
        self._offers += 1

    def find(self, name: str, ticket: Ticket) -> Model | None:
        """The model of that name, kept in the engine for as long as the ticket lives."""
        model = self.first if name == BASE_MODEL else self._by_name.get(name)
        if model is not None:
            ticket.engine_name = BASE_MODEL if name == BASE_MODEL else model.engine_name
        return model

    @contextmanager
    def ticket(self) -> Iterator[Ticket]:
        """For one request."""
        ticket = Ticket(self._offers)
        self._tickets.add(ticket)
        try:
            yield ticket
        finally:
            self._tickets.discard(ticket)

    def in_use(self, engine_name: str) -> bool:
        """Whether a request may be answered by that adapter, which is no longer offered."""
        return any(
            each.engine_name == engine_name
            or (each.engine_name is None and each.offer < self._offers)
            for each in self._tickets
        )


def model_of(served: Served, engine_name: str, encoder: Encoder) -> Model:
    """A run with the prompts that it was trained on."""
    return Model(served, Prompts(served.template, encoder, served.window), engine_name)
