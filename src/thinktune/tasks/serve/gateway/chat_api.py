"""The request of a chat: as much of OpenAI's API as is supported, and a few fields of ours.

Fields that other servers know and that change nothing here are taken and left alone; an unknown
one is refused, as OpenAI refuses it, and so is one that asks for something that is not there.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from thinktune.schema.closed import Closed
from thinktune.schema.serve import ServeLimits
from thinktune.tasks.serve.gateway.errors import ApiError
from thinktune.text.visible import has_half_character

DEEPEST = 32
"""Levels of nesting that the JSON of a request may have."""
MOST_SEED = 2**63 - 1
NAME_CHARS = 256
"""Longest name of a document: it is searched with each of the document's passages."""
MOST_DOCUMENTS = 1024
SHOWN = 120

Penalty = Annotated[float, Field(ge=-2, le=2)]


class TextPart(Closed):
    """A part of a message's content."""

    type: Literal["text"]
    """Kind of the part; there is text alone."""
    text: str
    """Its text."""


class Message(Closed):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    """Who says it. `developer` is another word for `system`."""
    content: str | tuple[TextPart, ...] | None = None
    """What is said."""
    name: str | None = None
    """Ignored."""
    reasoning: str | None = None
    """Ignored: an assistant's turn is learned without its reasoning."""
    reasoning_content: str | None = None
    """Ignored, as `reasoning`."""
    refusal: None = None
    """OpenAI's answers have it."""
    annotations: tuple[()] | None = None
    """OpenAI's answers have it."""
    audio: None = None
    """OpenAI's answers have it."""
    function_call: None = None
    """There are no tools."""
    tool_calls: tuple[()] | None = None
    """There are no tools."""

    def text(self) -> str:
        """Its content as one text."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)


class StreamOptions(Closed):
    """What a stream holds beside the answer."""

    include_usage: bool = False
    """Whether the last event says how many tokens there were."""
    include_obfuscation: bool = False
    """Ignored."""


class JsonSchema(Closed):
    """A form that the answer is to have."""

    name: str
    """Name of the form; ignored."""
    description: str | None = None
    """Ignored."""
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    """The form, as JSON Schema."""
    strict: bool | None = None
    """Ignored: the answer always has the form."""


class ResponseFormat(Closed):
    """Which form the answer is to have."""

    type: Literal["text", "json_object", "json_schema"]
    """`text` is free."""
    json_schema: JsonSchema | None = None
    """The form, for `json_schema`."""


class Document(Closed):
    """A text that the answer may draw on."""

    name: Annotated[str, Field(max_length=NAME_CHARS)]
    """What passages of it are cited by."""
    text: str
    """The text."""

    @property
    def size(self) -> int:
        """Bytes of name and text in UTF-8."""
        return sum(len(part.encode("utf-8", "surrogatepass")) for part in (self.name, self.text))


class TemplateSettings(Closed):
    """Settings of a chat template, as clients of vLLM send them."""

    enable_thinking: bool | None = None
    """As `thinking`."""
    thinking: bool | None = None
    """As `thinking` of the request."""


class ChatRequest(Closed):
    """The body of `POST /v1/chat/completions`."""

    model: str
    """The id of the run, or `base`."""
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    """The conversation, which ends with a message of the user."""
    stream: bool | None = None
    """Whether the answer comes as it is written."""
    stream_options: StreamOptions | None = None
    """What the stream holds beside the answer."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of the answer, reasoning included; what the window leaves is the upper limit."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of `max_tokens`."""
    n: Annotated[int, Field(ge=1)] | None = None
    """Number of answers."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Temperature of sampling; 0 is greedy. The default is what the run was judged at."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Smallest share of the probability that tokens are drawn from."""
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] | None = None
    """Seed of sampling."""
    stop: str | tuple[str, ...] | None = None
    """Texts that end the answer; the reasoning may contain them."""
    frequency_penalty: Penalty | None = None
    """Passed on to vLLM."""
    presence_penalty: Penalty | None = None
    """Passed on to vLLM."""
    response_format: ResponseFormat | None = None
    """Form of the answer, which holds after the reasoning."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """`none` turns thinking off."""
    thinking: bool | None = None
    """Whether the model thinks before it answers. False gives it an empty think part."""
    thinking_budget: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of reasoning, after which the think part is closed for the model."""
    chat_template_kwargs: TemplateSettings | None = None
    """`enable_thinking`, as clients of vLLM send it."""
    documents: Annotated[tuple[Document, ...], Field(max_length=MOST_DOCUMENTS)] = ()
    """Texts that the answer may draw on: the passages nearest to the question stand before it."""
    use_server_documents: bool = False
    """Whether the server's own documents are drawn on as well."""
    logprobs: Literal[False] | None = None
    """There are none."""
    top_logprobs: Literal[0] | None = None
    """There are none."""
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    """There is none."""
    tools: tuple[()] | None = None
    """There are none."""
    tool_choice: Literal["none", "auto"] | None = None
    """There are no tools."""
    parallel_tool_calls: bool | None = None
    """There are no tools."""
    functions: tuple[()] | None = None
    """There are none."""
    function_call: Literal["none", "auto"] | None = None
    """There are no tools."""
    modalities: tuple[Literal["text"], ...] | None = None
    """There is text alone."""
    audio: None = None
    """There is text alone."""
    user: str | None = None
    """Ignored."""
    metadata: dict[str, str] | None = None
    """Ignored."""
    store: bool | None = None
    """Ignored: nothing is kept."""
    service_tier: str | None = None
    """Ignored."""
    prompt_cache_key: str | None = None
    """Ignored."""
    prompt_cache_retention: str | None = None
    """Ignored."""
    safety_identifier: str | None = None
    """Ignored."""
    verbosity: str | None = None
    """Ignored."""

    def thinks(self) -> bool:
        """Whether the model may think."""
        settings = self.chat_template_kwargs
        asked = [self.thinking]
        if settings is not None:
            asked += [settings.enable_thinking, settings.thinking]
        return self.reasoning_effort != "none" and False not in asked

    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        given = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        return tuple(text for text in given if text)


def read_request(body: bytes, limits: ServeLimits) -> ChatRequest:
    """The request in a body. Raises ApiError."""
    try:
        plain = json.loads(body.decode())
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise ApiError(400, "the body is not JSON in UTF-8") from None
    if not isinstance(plain, dict):
        raise ApiError(400, "the body is not a JSON object")
    if _is_deeper(plain, DEEPEST):
        raise ApiError(400, f"the body is nested deeper than {DEEPEST} levels")
    try:
        # From the bytes again: strict mode takes an array for a tuple in JSON alone.
        asked = ChatRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise _invalid(error) from None
    _check(asked, limits, body)
    return asked


def _check(asked: ChatRequest, limits: ServeLimits, body: bytes) -> None:
    if len(asked.messages) > limits.messages:
        fault = f"{len(asked.messages)} messages, and {limits.messages} are the limit"
        raise ApiError(400, fault, param="messages")
    if (asked.n or 1) > limits.choices:
        raise ApiError(400, f"n is {asked.n}, and {limits.choices} is the limit", param="n")
    if len(asked.stops()) > 16 or any(len(text) > 256 for text in asked.stops()):
        raise ApiError(400, "there may be 16 texts of 256 characters", param="stop")
    if asked.messages[-1].role != "user":
        raise ApiError(400, "the last message must be of the role user", param="messages")
    if not asked.messages[-1].text().strip():
        raise ApiError(400, "the last message is empty", param="messages")
    size = sum(document.size for document in asked.documents)
    if size > limits.document_bytes:
        fault = f"the documents have {size} bytes, and {limits.document_bytes} are the limit"
        raise ApiError(400, fault, param="documents")
    form = asked.response_format
    if form is not None and (form.type == "json_schema") != (form.json_schema is not None):
        raise ApiError(400, "json_schema belongs to the type json_schema", param="response_format")
    # JSON spells half a character by an escape alone.
    if b"\\u" in body and has_half_character(asked.model_dump_json(warnings=False)):
        raise ApiError(400, "a text holds half a character")


def _invalid(error: ValidationError) -> ApiError:
    """What is wrong first, in words; nothing of the request's own text beyond a field's name."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] == "missing")
    detail = details[0]
    place = ".".join(str(part) for part in detail["loc"])[:SHOWN] or "body"
    if detail["type"] == "extra_forbidden":
        return ApiError(400, f"unrecognized request argument: {place}", param=place)
    if detail["type"] == "missing":
        return ApiError(400, f"missing required parameter: {place}", param=place)
    field = str(detail["loc"][0]) if detail["loc"] else ""
    if field in ("tools", "tool_choice", "functions", "function_call"):
        return ApiError(400, f"{field}: this server has no tools", param=place)
    if field in ("logprobs", "top_logprobs", "logit_bias"):
        return ApiError(400, f"{field} is not supported", param=place)
    return ApiError(400, f"{place}: {detail['msg'][:SHOWN]}", param=place)


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether there are more levels of arrays and objects, without recursion."""
    level = [value]
    for _ in range(levels + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += [v for v in each.values() if isinstance(v, dict | list)]
            elif isinstance(each, list):
                inner += [v for v in each if isinstance(v, dict | list)]
        if not inner:
            return False
        level = inner
    return True
