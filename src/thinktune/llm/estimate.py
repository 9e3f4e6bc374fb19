"""What asking would cost, without asking: for `--dry-run`. Loads no client, needs no key."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from thinktune.llm.requests import Request, Tokens, body_of, key_of, text_of
from thinktune.schema.llm import LlmSpec

SHOWN = 3
CHARS_PER_TOKEN = 4
"""Of English. Chinese and code have more tokens."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A dry run's figures."""

    prompts: tuple[str, ...]
    """The first prompts, rendered, the system prompt in front."""
    requests: int
    """Different requests to send: equal ones are sent once."""
    cached: int
    """Requests among them whose reply is stored already."""
    input_tokens: int
    """Tokens of all prompts that would be sent."""
    output_tokens: int
    """Tokens of all replies if each is as long as it may be."""
    counted_by: str
    """`tokenizer`, or `characters / 4`, which is an estimate."""
    input_cost: float | None
    """Money for the prompts; None without prices."""
    most_cost: float | None
    """Money for the prompts, and for replies as long as they may be."""
    over_budget: bool
    """Whether that is more than the budget allows, so that it may end before all is done."""


def dry_run(
    spec: LlmSpec,
    requests: Iterable[Request],
    *,
    drafts: int = 1,
    count_tokens: Callable[[str], int] | None = None,
    is_cached: Callable[[str], bool] = lambda _: False,
) -> Estimate:
    """Reads all requests and sends none. `drafts` of each are taken to be needed. `count_tokens`
    is the model's tokenizer; `is_cached` tells of a key whether its reply is stored."""
    prompts: list[str] = []
    seen: set[str] = set()
    cached, inputs = 0, 0
    for request in requests:
        body = body_of(spec, request)
        text, key = text_of(body), key_of(body, request.draft)
        if len(prompts) < SHOWN:
            prompts.append(text)
        if key in seen:
            continue
        seen.add(key)
        if is_cached(key):
            cached += 1
        else:
            inputs += count_tokens(text) if count_tokens else -(-len(text) // CHARS_PER_TOKEN)
    sent = len(seen) - cached
    tokens = Tokens(inputs * drafts, sent * drafts * spec.parameters.max_tokens)
    input_cost, most_cost = _cost(spec, Tokens(tokens.input, 0)), _cost(spec, tokens)
    return Estimate(
        prompts=tuple(prompts),
        requests=len(seen),
        cached=cached,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        counted_by="tokenizer" if count_tokens else f"characters / {CHARS_PER_TOKEN}",
        input_cost=input_cost,
        most_cost=most_cost,
        over_budget=_is_over(spec, tokens, most_cost),
    )


def _cost(spec: LlmSpec, tokens: Tokens) -> float | None:
    prices = spec.prices
    return prices.money(*tokens, batch=spec.mode == "batch") if prices else None


def _is_over(spec: LlmSpec, tokens: Tokens, cost: float | None) -> bool:
    budget = spec.budget
    over_tokens = budget.tokens is not None and sum(tokens) > budget.tokens
    return over_tokens or (budget.money is not None and (cost or 0.0) > budget.money)
