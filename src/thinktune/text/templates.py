"""Our own chat templates: the text of an example, never through the model's own template.

The released template of the DeepSeek-R1 family keeps only what follows `</think>` in an assistant's
turn, so training text rendered through it silently loses the reasoning. Training, evaluation and
serving all use the prompts that are rendered here; the digest of template and prompt stands in the
manifests.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from thinktune.schema.catalog import ChatTemplate, ModelEntry
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.recipe import DataSpec
from thinktune.text.conversation import Exchange, Query, Reason, Unusable
from thinktune.text.think import THINK_CLOSE, THINK_OPEN

BEFORE_REASONING = f"{THINK_OPEN}\n"
AFTER_REASONING = f"\n{THINK_CLOSE}\n\n"


@dataclass(frozen=True, slots=True)
class Layout:
    """The control text of a chat format; `{}` is where content goes."""

    begin: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    """Before and after an assistant's turn; after it stands the end-of-sequence token."""


BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"

LAYOUTS: dict[ChatTemplate, Layout] = {
    # tokenizer_config.json of DeepSeek-R1 and its distills
    "deepseek-r1": Layout(BOS, ("", ""), ("<｜User｜>", ""), ("<｜Assistant｜>", EOS)),
    "deepseek-v3": Layout(BOS, ("", "\n\n"), ("<｜User｜>", ""), ("<｜Assistant｜>", EOS)),
    "deepseek-v2": Layout(BOS, ("", "\n\n"), ("User: ", "\n\n"), ("Assistant:", EOS)),
    "deepseek-coder": Layout(
        BOS, ("", "\n"), ("### Instruction:\n", "\n"), ("### Response:\n", "\n<|EOT|>")
    ),
    "chatml": Layout(
        "",
        ("<|im_start|>system\n", "<|im_end|>\n"),
        ("<|im_start|>user\n", "<|im_end|>\n"),
        ("<|im_start|>assistant\n", "<|im_end|>"),
    ),
    "llama3": Layout(
        "<|begin_of_text|>",
        ("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    ),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the prompt. Only `control` text may become special tokens: a user who writes
    `<|im_end|>` writes letters."""

    text: str
    control: bool


@dataclass(frozen=True, slots=True)
class Rendered:
    """One exchange as text."""

    prompt: tuple[Piece, ...]
    reasoning: str
    """The first part of the completion, up to and including the line after `</think>`; empty where
    the exchange has no reasoning."""
    answer: str
    """The rest of the completion, without the end-of-sequence text."""
    end: str
    """Control text that ends the turn."""
    reference: str
    """What an answer is checked against."""

    def prompt_text(self) -> str:
        """The prompt as one string."""
        return "".join(piece.text for piece in self.prompt)


class Renderer:
    """Renders queries and exchanges for one model and one recipe."""

    def __init__(self, model: ModelEntry, data: DataSpec, *, conversations: bool = False) -> None:
        """With `conversations`, turns are taken as they stand: the recipe's `prompt` and `answer`
        patterns are for datasets that keep question and answer in columns."""
        if conversations:
            data = data.model_copy(update={"prompt": "{question}", "answer": "{answer}"})
        self._layout = LAYOUTS[model.chat_template]
        self._data = data
        self.opens_think = model.thinks
        """Whether the prompt ends in `<think>` (DeepSeek's advice for R1 models). A model that was
        never taught to think is asked in its own way and learns to open the part itself."""
        _check_fields("data.prompt", data.prompt, ("question", "options"))
        _check_fields("data.answer", data.answer, ("answer", "summary"))

    def digest(self) -> str:
        """SHA-256 of all that decides the text."""
        data = {
            "layout": asdict(self._layout),
            "opens_think": self.opens_think,
            "system": self._data.system,
            "prompt": self._data.prompt,
            "answer": self._data.answer,
            "final_answer": self._data.final_answer,
            "after_reasoning": AFTER_REASONING,
        }
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def render(self, exchange: Exchange) -> Rendered:
        """The exchange's text. Raises Unusable where it lacks a field that the recipe uses."""
        answer = self._answer(exchange)
        return Rendered(
            prompt=self.prompt(exchange),
            reasoning=self._reasoning(exchange.reasoning),
            answer=answer,
            end=self._layout.assistant[1],
            reference=self._reference(answer, exchange),
        )

    def prompt(self, query: Query) -> tuple[Piece, ...]:
        """The prompt alone, up to where the model goes on. Raises Unusable as `render` does."""
        layout = self._layout
        pieces = [Piece(layout.begin, True)]
        system = query.system or self._data.system
        if system:
            pieces += _turn(layout.system, system)
        for turn in query.before:
            pieces += _turn(layout.user if turn.role == "user" else layout.assistant, turn.text)
        fields = {"question": query.question, "options": query.options or ""}
        pieces += _turn(layout.user, _filled(self._data.prompt, fields).strip())
        opened = BEFORE_REASONING if self.opens_think else ""
        pieces.append(Piece(layout.assistant[0] + opened, True))
        return tuple(piece for piece in pieces if piece.text)

    def _reasoning(self, reasoning: str | None) -> str:
        opened = "" if self.opens_think else BEFORE_REASONING
        if reasoning is not None:
            return f"{opened}{reasoning}{AFTER_REASONING}"
        # The prefix `<think>\n\n</think>` is how R1 models are told not to think.
        return AFTER_REASONING if self.opens_think else ""

    def _answer(self, exchange: Exchange) -> str:
        fields = {"answer": exchange.answer, "summary": exchange.summary or ""}
        return _filled(self._data.answer, fields)

    def _reference(self, answer: str, exchange: Exchange) -> str:
        unmarked = exchange.summary or exchange.answer
        marker = self._data.final_answer
        if marker is None:
            return unmarked
        marked = [line for line in answer.splitlines() if line.startswith(marker)]
        return marked[-1][len(marker) :].strip() if marked else unmarked


def _turn(around: tuple[str, str], text: str) -> list[Piece]:
    return [Piece(around[0], True), Piece(text, False), Piece(around[1], True)]


def _filled(pattern: str, fields: dict[str, str]) -> str:
    for name, value in fields.items():
        if f"{{{name}}}" in pattern and not value:
            remedy = f"map data.columns.{name}, or change data.prompt and data.answer"
            raise Unusable(Reason(f"no {name}", remedy))
    # In one pass over the pattern, so that braces inside a question stay what they are.
    names = "|".join(fields)
    return re.sub(r"\{(" + names + r")\}", lambda found: fields[found[1]], pattern).strip()


def _check_fields(place: str, pattern: str, fields: tuple[str, str]) -> None:
    if f"{{{fields[0]}}}" not in pattern:
        fault = f"'{pattern[:60]}' does not contain {{{fields[0]}}}"
        raise SpecInvalid(place, fault, f"use the fields {', '.join(fields)} in braces")
