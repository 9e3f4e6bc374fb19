"""Settings of work that is done by asking a language model: who is asked, how, for how much money,
and what a reply must look like.

Prep's `data.generate` uses them, and so does evaluation's judge. `thinktune.llm` carries them out.
"""

import ipaddress
import re
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from thinktune.schema.closed import Closed, RegularExpression

Provider = Literal["openai", "anthropic"]
Positive = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]

PUBLIC_URL: dict[Provider, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
}
KEY_VARIABLE: dict[Provider, str] = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}

OWN_FIELDS = frozenset(
    {"model", "messages", "system", "stream", "stream_options", "n", "best_of", "seed", "stop"}
    | {"max_tokens", "max_completion_tokens", "temperature", "top_p", "stop_sequences"}
    | {"metadata", "tools", "functions"}
)
"""Fields of a request that have a setting of their own here, or that would break the accounts: `n`
would buy several replies with one reservation, `stream` would change the form of a reply."""


class Parameters(Closed):
    """How the model writes. All of it is part of the key under which a reply is cached, so a change
    of any of it asks anew. What is null is not sent: some models refuse it."""

    max_tokens: Count = 1024
    """Longest reply in tokens, the thinking of a reasoning model included. This many are reserved
    in the budget while a request is under way."""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] | None = None
    """How the endpoint calls that limit; null: `max_completion_tokens` at OpenAI's own address,
    `max_tokens` everywhere else."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sampling temperature; null leaves it to the endpoint."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling; null leaves it to the endpoint."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of the first draft, for endpoints that take one; each further draft takes the next."""
    stop: tuple[Text, ...] = ()
    """Texts at which the model ends its reply."""
    extra: dict[str, JsonValue] = {}
    """Further fields of the request as the endpoint names them, such as `reasoning_effort`,
    `thinking` or `chat_template_kwargs`."""

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        taken = sorted(OWN_FIELDS.intersection(extra))
        if taken:
            raise ValueError(
                f"'{taken[0]}' is not free; use the setting of that name, or leave it out"
            )
        return extra


class Prices(Closed):
    """What the provider charges, in whatever currency the budget is given in."""

    input_per_million: Amount
    """Money for a million tokens of prompts."""
    output_per_million: Amount
    """Money for a million tokens of replies, thinking included."""
    batch_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What a token costs in a batch, as a share of its price: OpenAI and Anthropic take half."""

    def money(self, input_tokens: int, output_tokens: int, *, batch: bool) -> float:
        """What so many tokens cost."""
        each = input_tokens * self.input_per_million + output_tokens * self.output_per_million
        return (self.batch_factor if batch else 1.0) * each / 1e6


class Budget(Closed):
    """What a run may spend at most. Reserved plus spent stays below it before anything is sent."""

    money: Positive | None = None
    """Limit in the currency of `prices`, which must then be given."""
    tokens: Count | None = None
    """Limit in tokens, prompts and replies together, for endpoints without a price."""

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.money is None and self.tokens is None:
            raise ValueError("there is no limit; give 'money' (with prices) or 'tokens'")
        return self


class Concurrency(Closed):
    """How many requests are under way at once, found out while asking."""

    start: Count = 20
    """Requests at once to begin with."""
    least: Count = 10
    """What refusals (HTTP 429) never push it below."""
    most: Count = 100
    """What success never raises it above."""
    cut_every_s: Positive = 15.0
    """Refusals within this many seconds of one cut (to 80%) cut no further: they are of the same
    moment. Server faults (5xx) keep it from growing for as long."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.least <= self.start <= self.most:
            raise ValueError(
                f"least {self.least}, start {self.start} and most {self.most} are out of order; "
                "give least ≤ start ≤ most"
            )
        return self


class Retries(Closed):
    """When a request is sent again, and when the endpoint is given up."""

    attempts: Count = 5
    """Failures of one request, while others get their replies, after which its row is dropped and
    counted. Failures of an endpoint that answers nobody count against no row."""
    first_wait_s: Positive = 1.0
    """Wait before a request is sent again; it doubles each time and varies by half at random."""
    longest_wait_s: Positive = 60.0
    """What that wait never exceeds."""
    retry_after_cap_s: Positive = 300.0
    """Longest that a request waits because the endpoint said so (Retry-After)."""
    timeout_s: Positive = 600.0
    """Longest wait for one reply, from sending to its last byte."""
    give_up_after_s: Positive = 600.0
    """Seconds with failures only, without a single reply, after which it ends with exit code 69."""
    unreached_give_up_s: Positive = 60.0
    """The same for an endpoint that has not answered at all so far, so that a wrong address is told
    soon."""


class BatchSettings(Closed):
    """How the provider's batch service is used (`mode: batch`)."""

    requests: Count | None = None
    """Requests in one batch; null: as many as the provider takes (OpenAI 50,000, Anthropic
    100,000)."""
    megabytes: Positive | None = None
    """Size of one batch; null: 190 for OpenAI, which takes 200, and 64 for Anthropic, which takes
    256, because that many are held in memory while they are sent."""
    poll_s: Positive = 30.0
    """Seconds between two looks at a batch."""
    rounds: Count = 4
    """Batches in a row without a single new reply after which the run ends with exit code 69."""
    lookup_s: Annotated[float, Field(ge=0)] = 30.0
    """How long a batch whose creation was cut off is looked for at the provider before it is
    created again."""


class LlmSpec(Closed):
    """A language model to ask, by an OpenAI-compatible endpoint or Anthropic's."""

    provider: Provider
    """The protocol: `openai` for any endpoint with chat completions, `anthropic` for messages."""
    model: Text
    """The model's name as the endpoint knows it."""
    base_url: str | None = None
    """The endpoint, such as `http://vllm.models.svc:8000/v1`; null: the provider's public one."""
    key_env: str | None = None
    """Name of the environment variable that holds the key, never the key itself. Null: the
    provider's usual name at its public address or with `key_secret`; otherwise no key is sent."""
    key_secret: str | None = None
    """Name of the Kubernetes Secret that has a key of that variable's name."""
    parameters: Parameters = Parameters()
    mode: Literal["live", "batch"] = "live"
    """`batch` costs half and takes up to a day; only providers with a batch service have it."""
    prices: Prices | None = None
    """What the provider charges; needed for a budget in money."""
    budget: Budget
    """What may be spent. There is no default, because somebody pays it."""
    concurrency: Concurrency = Concurrency()
    retries: Retries = Retries()
    batch: BatchSettings = BatchSettings()

    @field_validator("key_env")
    @classmethod
    def _is_a_variable(cls, name: str | None) -> str | None:
        # The value is not shown: who gets this wrong has most likely pasted the key.
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
            raise ValueError(
                "that is no name of an environment variable (capitals, digits, '_'); write the "
                "variable's name, such as OPENAI_API_KEY, and never the key"
            )
        return name

    @field_validator("key_secret")
    @classmethod
    def _is_a_secret_name(cls, name: str | None) -> str | None:
        form = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
        if name is not None and (not re.fullmatch(form, name) or name.startswith("sk-")):
            raise ValueError(
                "that is no name of a Kubernetes Secret; write the Secret's name and never the key"
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = _split(url)
        if parts.username or parts.password or "@" in parts.netloc:
            raise ValueError("an address has no place for credentials; use key_env or key_secret")
        if parts.query or parts.fragment:
            raise ValueError("it has a '?' or a '#'; leave that out")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.budget.money is not None and self.prices is None:
            raise ValueError(
                "a budget in money needs prices; give 'prices', or a budget in 'tokens'"
            )
        url = _split(self.url)
        if url.scheme == "http" and self.key_variable and not _is_near(url.hostname or ""):
            raise ValueError(
                f"the key would go to {url.hostname} in the clear; write https:// in base_url"
            )
        return self

    @property
    def url(self) -> str:
        """The endpoint's address."""
        return self.base_url or PUBLIC_URL[self.provider]

    @property
    def host(self) -> tuple[str, int]:
        """Name and port of the one host that is asked, for who opens the network to it."""
        parts = _split(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def key_variable(self) -> str | None:
        """The environment variable that holds the key; None where no key is sent."""
        usual = KEY_VARIABLE[self.provider]
        return self.key_env or (usual if self.base_url is None or self.key_secret else None)


class Checks(Closed):
    """What a reply must be. One that fails a check is dropped, and the check's name counted."""

    one_sentence: bool = False
    """Exactly one sentence on one line, which ends in a full stop, a question mark or the like.
    Abbreviations and decimals end no sentence."""
    min_chars: Count | None = None
    """Shortest reply, in characters."""
    max_chars: Count | None = None
    """Longest reply, in characters."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] | None = None
    """Language by its ISO 639-1 code, such as `en`. Fewer than four words are judged by their
    script alone."""
    not_the_question: bool = False
    """Drops a reply that repeats what was asked: four fifths of its runs of three words stand
    there."""
    matches: RegularExpression | None = None
    """Regular expression that the reply must match somewhere."""
    not_matches: RegularExpression | None = None
    """Regular expression that the reply must match nowhere."""

    @model_validator(mode="after")
    def _some_length_fits(self) -> Self:
        if self.min_chars and self.max_chars and self.min_chars > self.max_chars:
            raise ValueError("min_chars is above max_chars; no reply could pass")
        return self


class GenerateSpec(Closed):
    """A column of the dataset that a language model writes, one request for each row."""

    llm: LlmSpec
    prompt: Text
    """What the model is asked. Columns of the row stand in braces (`{question}`); `{{` and `}}` are
    braces themselves."""
    system: str | None = None
    """System prompt, with columns in braces as well."""
    column: Text
    """Column that takes the reply."""
    reasoning_column: Text | None = None
    """Column that takes the thinking of a reasoning model; rows whose reply has none are dropped
    and counted."""
    existing: Literal["refuse", "replace", "keep"] = "refuse"
    """When rows have that column already: end with an error, write over it, or ask only for the
    rows where it is blank."""
    question: Text | None = None
    """Column that `not_the_question` compares with; null: the whole prompt."""
    drafts: Count = 1
    """Replies to try for each row, one after the other, until one passes the checks and agrees with
    the reference (rejection sampling)."""
    reference: Text | None = None
    """Column with the right answer, which the verifier compares each draft with; null: drafts are
    only checked."""
    checks: Checks = Checks()

    @model_validator(mode="after")
    def _drafts_differ(self) -> Self:
        if self.drafts > 1 and self.llm.parameters.temperature == 0:
            raise ValueError(
                f"{self.drafts} drafts at temperature 0 would all be the same; "
                "raise llm.parameters.temperature, or ask for one"
            )
        if self.reasoning_column == self.column:
            raise ValueError("'column' and 'reasoning_column' are the same; name two")
        return self


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        named = False
    if not named or re.search(r"[\s\x00-\x1f]", url):
        raise ValueError("that is no address; write http://host:port/v1 or https://host/v1")
    return parts


def _is_near(host: str) -> bool:
    """Whether a host is this machine's, the cluster's or a private network's."""
    if "." not in host and ":" not in host:
        return True
    if host.endswith((".svc", ".cluster.local", ".internal", ".local", ".localhost")):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
