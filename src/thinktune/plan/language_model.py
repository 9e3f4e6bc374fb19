"""What asking a language model comes to: requests, tokens, money and hours, before any row is read.

Called by `thinktune.plan.run` for a column that prep has written, and for a judge. `thinktune data
generate --dry-run` counts the same from the rows themselves.
"""

from thinktune.plan.network import BYTES_PER_TOKEN
from thinktune.plan.training.speed import mean_tokens
from thinktune.schema.closed import Closed
from thinktune.schema.llm import GenerateSpec, LlmSpec
from thinktune.schema.recipe import Recipe

REPLY_S = 10.0
"""Assumed seconds until a language model has replied."""
JUDGE_WORDS_TOKENS = 120
"""Tokens of the judge's own instructions around question, reference and answer."""


class LanguageModelPlan(Closed):
    """What a language model is asked, and the most that it can cost."""

    section: str
    """Section of the recipe that asks it."""
    model: str
    """Name of the language model."""
    requests: int
    """Requests, replies that are cached already included."""
    input_tokens: int
    """Tokens of all prompts: an estimate."""
    most_output_tokens: int
    """Tokens of all replies if each is as long as it may be."""
    hours: float | None
    """Hours that the stage waits for replies; null for a batch service, which takes up to a day."""
    input_cost: float | None
    """Money for the prompts; null without prices."""
    most_cost: float | None
    """Money for the prompts and for replies as long as they may be, or the budget if that is less;
    null without prices."""


def written_column(recipe: Recipe, rows: int) -> LanguageModelPlan | None:
    """The column that prep has written for `rows` rows; None where the recipe asks for none."""
    spec = recipe.data.generate
    if spec is None:
        return None
    # The columns that the prompt takes in are about as long as an example.
    each = _template_tokens(spec) + mean_tokens(recipe)
    return _plan("data.generate", spec.llm, rows * spec.drafts, each)


def judge(recipe: Recipe, answers: int) -> LanguageModelPlan | None:
    """The judge of `answers` answers; None where the recipe has none."""
    spec = recipe.evaluate.judge
    if spec is None:
        return None
    # Correctness is asked in both orders; a rating once.
    asked = (2 if spec.correct else 0) + (1 if spec.rating is not None else 0)
    each = mean_tokens(recipe) + JUDGE_WORDS_TOKENS
    return _plan("evaluate.judge", spec.llm, answers * asked, each)


def _template_tokens(spec: GenerateSpec) -> int:
    return -(-len((spec.prompt + (spec.system or "")).encode()) // BYTES_PER_TOKEN)


def _plan(section: str, llm: LlmSpec, requests: int, tokens_each: int) -> LanguageModelPlan:
    inputs, outputs = requests * tokens_each, requests * llm.parameters.max_tokens
    batch = llm.mode == "batch"
    input_cost = most_cost = None
    if llm.prices is not None:
        input_cost = llm.prices.money(inputs, 0, batch=batch)
        most_cost = llm.prices.money(inputs, outputs, batch=batch)
        if llm.budget.money is not None:
            most_cost = min(most_cost, llm.budget.money)
    return LanguageModelPlan(
        section=section,
        model=llm.model,
        requests=requests,
        input_tokens=inputs,
        most_output_tokens=outputs,
        hours=None if batch else requests * REPLY_S / llm.concurrency.start / 3600,
        input_cost=input_cost,
        most_cost=most_cost,
    )
