"""What may be spent and what has been, over all restarts of a run.

The live loop and batches reserve before they send, at the most that a request can cost, and settle
by what the endpoint says it billed. What was reserved is in the store before anything is sent for
it, as this writer's *lease*: a process that is killed leaves its lease, which then counts as spent.
So the sum of all bills stays within the limit over any number of kills, as long as no reply costs
more than was reserved for it. One process of a run spends at a time.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from thinktune.llm.requests import NOTHING, Tokens
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.llm import LlmSpec
from thinktune.store import Store


class BudgetReached(SpecInvalid):
    """Nothing more may be sent. All replies so far are kept."""


@dataclass(frozen=True)
class Spent:
    """What a run has cost so far."""

    tokens: Tokens
    """Tokens in and out, as the endpoint billed them or as they must be taken to be."""
    assumed: Tokens
    """The part of them that no endpoint has confirmed: time-outs, cut replies, replies without
    usage, and what killed processes may have had under way."""
    money: float | None
    """In the currency of the prices; None without prices."""

    def __str__(self) -> str:
        whole = f"{sum(self.tokens):,} tokens"
        return whole if self.money is None else f"{self.money:.4g} for {whole}"


@dataclass
class _Account:
    """One writer's entry in the store: live requests of a process, or one batch."""

    batch: bool
    settled: Tokens = NOTHING
    assumed: Tokens = NOTHING
    lease: Tokens = NOTHING

    @property
    def most(self) -> Tokens:
        """What it counts for: all that it may have spent."""
        return self.settled.plus(self.lease)

    def to_bytes(self) -> bytes:
        return json.dumps(
            {
                "batch": self.batch,
                "settled": self.settled,
                "assumed": self.assumed,
                "lease": self.lease,
            }
        ).encode()


@dataclass
class Budget:
    """The accounts of one run. Used in one event loop; `load` may be called before it runs."""

    spec: LlmSpec
    store: Store
    prefix: str
    """Folder of the store for this run's accounts."""
    place: str
    """Name of the setting, for messages: `data.generate.budget`."""
    writer: str
    """Name of this process, unique."""
    headroom: int = 4
    """Further requests that a lease is taken for, so that not each one waits for the store."""
    _accounts: dict[str, _Account] = field(default_factory=dict)
    _reserved: Tokens = NOTHING
    _stored: Tokens = NOTHING
    """`settled` of this process as the store has it."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, whenever something is settled."""
    _usual: Tokens = NOTHING
    """The latest request, as a measure for the next ones."""

    def load(self) -> None:
        """Reads what earlier processes of the run have spent, and what they may have."""
        for info in self.store.list(self.prefix):
            name = info.key.rpartition("/")[2].removesuffix(".json")
            try:
                read = json.loads(self.store.get(info.key))
                parts = (Tokens(*read[part]) for part in ("settled", "assumed", "lease"))
                self._accounts[name] = _Account(bool(read["batch"]), *parts)
            except (ValueError, KeyError, TypeError):
                remedy = "delete it, and lower the budget by what it may have held"
                raise InputMissing(self.store.location(info.key), "is no account", remedy) from None
        self._accounts.setdefault(self.writer, _Account(batch=False))

    def begin(self) -> None:
        """Makes ready for the event loop that runs now, with nothing under way."""
        self._reserved = NOTHING
        self._lock = asyncio.Lock()
        self._settled = asyncio.Event()

    @property
    def spent(self) -> Spent:
        """All accounts together. What killed processes had leased counts as assumed."""
        own = self._accounts.get(self.writer)
        left = [a.lease for a in list(self._accounts.values()) if a is not own]
        tokens = _sum([a.settled for a in list(self._accounts.values())] + left)
        assumed = _sum([a.assumed for a in list(self._accounts.values())] + left)
        priced = self.spec.prices is not None
        money = self._money(NOTHING, lease=False) if priced else None
        return Spent(tokens, assumed, money)

    def fits(self, more: Tokens, *, batch: bool = False) -> bool:
        """Whether that much may be reserved on top of everything."""
        limit = self.spec.budget
        held = [a.most for name, a in self._accounts.items() if name != self.writer]
        own = self._accounts[self.writer].settled.plus(self._reserved)
        if limit.tokens is not None and sum(_sum([*held, own, more])) > limit.tokens:
            return False
        if limit.money is None:
            return True
        return self._money(more, batch=batch) <= limit.money

    async def reserve(self, most: Tokens) -> None:
        """Sets that much aside, waiting for what is under way where that may come back cheaper.

        Raises BudgetReached once nothing is under way and it still does not fit.
        """
        while True:
            # Under the lock, so that nobody reserves by a lease that is being replaced.
            async with self._lock:
                settled = self._settled
                if self.fits(most):
                    if not self._is_leased(most):
                        await self._write(self._lease_for(most))
                    self._reserved, self._usual = self._reserved.plus(most), most
                    return
                if self._reserved == NOTHING:
                    raise self.reached()
            await settled.wait()

    def settle(self, most: Tokens, usage: Tokens | None) -> None:
        """Puts what a request cost in place of what was set aside; unknown counts as all of it."""
        account = self._accounts[self.writer]
        self._reserved = self._reserved.less(most)
        account.settled = account.settled.plus(most if usage is None else usage)
        if usage is None:
            account.assumed = account.assumed.plus(most)
        self._settled.set()
        self._settled = asyncio.Event()

    async def store_now(self, *, last: bool = False) -> None:
        """Brings the account in the store up to date; `last` gives the lease back."""
        async with self._lock:
            await self._write(self._reserved if last else self._lease_for(self._usual))

    async def open_batch(self, name: str, most: Tokens) -> None:
        """Sets aside what a whole batch can cost, in the store at once. Check `fits` before."""
        await self._put(name, _Account(batch=True, lease=most))

    async def settle_batch(self, name: str, cost: Tokens, assumed: Tokens = NOTHING) -> None:
        """Puts what a batch cost in place of what was set aside. Doing it twice changes nothing;
        a batch that another run has opened is that run's to pay."""
        if name in self._accounts:
            await self._put(name, _Account(batch=True, settled=cost, assumed=assumed))

    def open_batches(self) -> list[str]:
        """Names of batches of this run that are not settled."""
        return [name for name, a in self._accounts.items() if a.batch and a.lease != NOTHING]

    def batch_lease(self, name: str) -> Tokens | None:
        """What is set aside for a batch of this run."""
        account = self._accounts.get(name)
        return account.lease if account else None

    def reached(self) -> BudgetReached:
        """The error that ends the run, for people."""
        budget = self.spec.budget
        limits = [f"{budget.money:g}" if budget.money else "", _tokens(budget.tokens)]
        limit = " and ".join(part for part in limits if part)
        sure = f", {sum(self.spent.assumed):,} of them assumed" if sum(self.spent.assumed) else ""
        fault = f"the budget of {limit} is reached ({self.spent}{sure}); all replies are kept"
        return BudgetReached(self.place, fault, f"raise {self.place}, and run it again to go on")

    def _is_leased(self, more: Tokens) -> bool:
        account = self._accounts[self.writer]
        held = account.settled.less(self._stored).plus(self._reserved).plus(more)
        return held.input <= account.lease.input and held.output <= account.lease.output

    def _lease_for(self, one: Tokens) -> Tokens:
        """What is under way and `one`, with as many more like it as `headroom` says where all of
        them fit."""
        held = self._reserved.plus(one)
        ahead = Tokens(one.input * self.headroom, one.output * self.headroom)
        if self.fits(one.plus(ahead)):
            return held.plus(ahead)
        return held if self.fits(one) else self._reserved

    async def _write(self, lease: Tokens) -> None:
        account = self._accounts[self.writer]
        new = _Account(False, account.settled, account.assumed, lease)
        await asyncio.to_thread(self.store.put, self._key(self.writer), new.to_bytes())
        account.lease = lease
        self._stored = new.settled

    async def _put(self, name: str, account: _Account) -> None:
        await asyncio.to_thread(self.store.put, self._key(name), account.to_bytes())
        self._accounts[name] = account

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}.json"

    def _money(self, more: Tokens, *, batch: bool = False, lease: bool = True) -> float:
        """Everything in money, `more` of one kind included."""
        own = self._accounts[self.writer]
        total = self._price(more, batch)
        total += self._price(own.settled.plus(self._reserved if lease else NOTHING), False)
        others = (a for a in list(self._accounts.values()) if a is not own)
        return total + sum(self._price(other.most, other.batch) for other in others)

    def _price(self, tokens: Tokens, batch: bool) -> float:
        prices = self.spec.prices
        return prices.money(*tokens, batch=batch) if prices else 0.0


def _sum(parts: Iterable[Tokens]) -> Tokens:
    total = NOTHING
    for part in parts:
        total = total.plus(part)
    return total


def _tokens(limit: int | None) -> str:
    return f"{limit:,} tokens" if limit is not None else ""
