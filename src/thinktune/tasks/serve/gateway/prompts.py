"""A request's conversation as prompt ids: rendered and tokenized by the functions of training.

What a client writes stays letters: no text of a message, of a document's name or of its passages
becomes a control token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from thinktune.schema.prompt import PromptTemplate
from thinktune.tasks.serve.gateway.chat_api import ChatRequest, Message
from thinktune.tasks.serve.gateway.errors import ApiError
from thinktune.tasks.serve.gateway.retrieval import Index, Passage
from thinktune.text.conversation import Query, Turn, Unusable
from thinktune.text.templates import Renderer
from thinktune.text.think import split_generated
from thinktune.text.tokens import Encoder

EMPTY_THINK = "\n\n"
"""What stands between the marks of a think part that is left out."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is given."""

    ids: tuple[int, ...]
    inside_think: bool
    """Whether the model goes on inside a think part."""
    passages: tuple[Passage, ...]
    """Passages of documents that stand in it."""


class Prompts:
    """Renders requests for one model."""

    def __init__(self, template: PromptTemplate, encoder: Encoder, window: int) -> None:
        # Options are shown with the rows of a test; a chat has none, and asks without them.
        asked = template.prompt.replace("{options}", "")
        self._renderer = Renderer.of(template.model_copy(update={"prompt": asked}))
        self._encoder = encoder
        self._window = window
        self._most_chars = window * encoder.longest

    def render(self, asked: ChatRequest, index: Sequence[Index], most_passages: int) -> Prompt:
        """The prompt of a request, with passages of `index`. Raises ApiError where it is too
        long or has an impossible order."""
        system, turns, question = _taken_apart(asked.messages)
        passages = _nearest(question, index, most_passages)
        query = Query(
            question=with_passages(question, passages),
            system=system,
            before=turns,
        )
        try:
            pieces = self._renderer.prompt(query)
        except Unusable as error:
            raise ApiError(400, f"the conversation has {error}", param="messages") from None
        chars = sum(len(piece.text) for piece in pieces)
        if self._most_chars and chars > self._most_chars:
            raise self._too_long(f"{chars} characters")
        ids = self._encoder.prompt_ids(pieces)
        inside = self._renderer.opens_think
        if not asked.thinks():
            ids += self._empty_think(opened=inside)
            inside = False
        if len(ids) >= self._window:
            raise self._too_long(f"{len(ids)} tokens")
        return Prompt(tuple(ids), inside, passages)

    def _empty_think(self, *, opened: bool) -> list[int]:
        if opened:
            return self._encoder.think_end_ids("\n")
        return self._encoder.think_open_ids() + self._encoder.think_end_ids(EMPTY_THINK)

    def _too_long(self, length: str) -> ApiError:
        fault = f"the conversation has {length}, and the window {self._window} tokens"
        return ApiError(400, fault, param="messages", code="context_length_exceeded")


def with_passages(question: str, passages: Sequence[Passage]) -> str:
    """The user's turn with passages before the question, each under its number and its document's
    name."""
    if not passages:
        return question
    shown = [
        f"[{number}] {' '.join(passage.name.split())}\n{passage.text}"
        for number, passage in enumerate(passages, 1)
    ]
    return "\n\n".join(
        [
            "Use these passages where they help, and cite them by their numbers in brackets.",
            *shown,
            question,
        ]
    )


def _nearest(question: str, index: Sequence[Index], most: int) -> tuple[Passage, ...]:
    found = [pair for each in index for pair in each.nearest(question, most)]
    found.sort(key=lambda pair: -pair[0])
    return tuple(passage for _, passage in found[:most])


def _taken_apart(messages: Sequence[Message]) -> tuple[str | None, tuple[Turn, ...], str]:
    """System prompt, earlier turns, question."""
    system = [each.text() for each in messages if each.role in ("system", "developer")]
    spoken = [each for each in messages if each.role in ("user", "assistant")]
    turns = []
    for each in spoken[:-1]:
        text = each.text()
        if each.role == "assistant":
            text = _without_reasoning(text)
        turns.append(Turn(each.role, text))
    joined = "\n\n".join(text for text in system if text.strip())
    return joined or None, tuple(turns), spoken[-1].text()


def _without_reasoning(text: str) -> str:
    parsed = split_generated(text, prompt_opens_think=False)
    return parsed.answer if parsed.opened else text
