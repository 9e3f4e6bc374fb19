"""Our own chat templates: the text of an example, never through the model's own template.

The released template of the DeepSeek-R1 family keeps only what follows `</think>` in an assistant's
turn, so training text rendered through it silently loses the reasoning. Training, evaluation and
serving all use the prompts that are rendered here; the digest of template and prompt stands in the
manifests.
"""

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal

from thinktune.schema.catalog import ChatTemplate, ModelEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.prompt import PromptTemplate
from thinktune.text.conversation import Exchange, Query, Reason, Unusable
from thinktune.text.think import THINK_CLOSE, THINK_OPEN

Role = Literal["system", "user", "assistant"]

BEFORE_REASONING = f"{THINK_OPEN}\n"
AFTER_REASONING = f"\n{THINK_CLOSE}\n\n"


@dataclass(frozen=True, slots=True)
class Layout:
    """The control text of a chat format, as the released chat template writes it."""

    begin: str
    system: tuple[str, str]
    """Before and after the system prompt."""
    user: tuple[str, str]
    """Before and after a user's turn."""
    assistant: tuple[str, str]
    """Before and after an assistant's turn; after it stands the end-of-sequence token."""
    after_answer: str = ""
    """Between an assistant's turn and the next one. No model learns it: generation has stopped."""
    before_text: str = ""
    """White space before the text of user and assistant. It is tokenized with the text, as part of
    the first word's token: a prompt ends before it, and the completion begins with it."""
    strips: bool = False
    """Whether the template strips the text of each turn."""


PLAIN_PROMPT = "{question}"
WITH_OPTIONS = "{question}\n\n{options}"

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"

# DeepSeek-V3, DeepSeek-R1 and its distills: nothing stands between the system prompt and the user.
DEEPSEEK = Layout(BOS, ("", ""), ("<｜User｜>", ""), ("<｜Assistant｜>", EOS))

LAYOUTS: dict[ChatTemplate, Layout] = {
    "deepseek-r1": DEEPSEEK,
    "deepseek-v3": DEEPSEEK,
    "deepseek-v2": Layout(
        BOS, ("", "\n\n"), ("User:", "\n\n"), ("Assistant:", EOS), before_text=" "
    ),
    "deepseek-coder": Layout(
        BOS,
        ("", ""),
        ("### Instruction:\n", "\n"),
        ("### Response:\n", "\n<|EOT|>"),
        after_answer="\n",
    ),
    "chatml": Layout(
        "",
        ("<|im_start|>system\n", "<|im_end|>\n"),
        ("<|im_start|>user\n", "<|im_end|>\n"),
        ("<|im_start|>assistant\n", "<|im_end|>"),
        after_answer="\n",
    ),
    "llama3": Layout(
        "<|begin_of_text|>",
        ("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
        strips=True,
    ),
}


END_TEXTS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [
            *(layout.assistant[1].strip() for layout in LAYOUTS.values()),
            *("<|endoftext|>", "</s>", "<eos>", "<|end|>", "<end_of_turn>", "<|end_of_text|>"),
        ]
    )
)
"""What ends a turn in some format, and what people write behind an answer as text."""


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

    def content(self) -> str:
        """What the prompt says, without the control text around it."""
        return "\n".join(piece.text for piece in self.prompt if not piece.control)

    def prompt_text(self) -> str:
        """The prompt as one string."""
        return "".join(piece.text for piece in self.prompt)


class Renderer:
    """Renders queries and exchanges for one model and one recipe."""

    def __init__(self, model: ModelEntry, data: DataSpec, *, conversations: bool = False) -> None:
        """With `conversations`, turns are taken as they stand, the white space around them
        included: the recipe's `prompt` and `answer` patterns are for datasets that keep question
        and answer in columns."""
        if conversations:
            data = data.model_copy(update={"prompt": "{question}", "answer": "{answer}"})
        self._layout = LAYOUTS[model.chat_template]
        self._data = data
        self._system = data.system or model.default_system
        self._model = model
        self._as_they_stand = conversations
        self.end = self._layout.assistant[1]
        """Control text that ends an answer."""
        self.opens_think = model.thinks
        """Whether the prompt ends in `<think>` (DeepSeek's advice for R1 models). A model that was
        never taught to think is asked in its own way and learns to open the part itself."""
        _check_fields("data.prompt", data.prompt, ("question", "options"))
        _check_fields("data.answer", data.answer, ("answer", "summary"))

    @classmethod
    def of(cls, template: PromptTemplate) -> "Renderer":
        """The renderer that `template` describes."""
        data = DataSpec(
            dataset="served",
            system=template.system,
            prompt=template.prompt,
            answer=template.answer,
            final_answer=template.final_answer,
        )
        return cls(template.model, data, conversations=template.conversations)

    def template(self, model_name: str) -> PromptTemplate:
        """What `of` makes the same renderer from. `model_name` is the model's in the catalog."""
        return PromptTemplate(
            model_name=model_name,
            model=self._model,
            system=self._data.system,
            prompt=self._data.prompt,
            answer=self._data.answer,
            final_answer=self._data.final_answer,
            conversations=self._as_they_stand,
        )

    def digest(self) -> str:
        """SHA-256 of all that decides the text."""
        data = {
            "layout": asdict(self._layout),
            "opens_think": self.opens_think,
            "system": self._system,
            "prompt": self._data.prompt,
            "answer": self._data.answer,
            "final_answer": self._data.final_answer,
            "after_reasoning": AFTER_REASONING,
            "as_they_stand": self._as_they_stand,
        }
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def render(self, exchange: Exchange) -> Rendered:
        """The exchange's text. Raises Unusable where it lacks a field that the recipe uses."""
        fields = {"answer": exchange.answer, "summary": exchange.summary or ""}
        answer = self._text(self._data.answer, fields)
        before = "" if self.opens_think else self._layout.before_text
        reasoning = self._reasoning(exchange.reasoning)
        return Rendered(
            prompt=self.prompt(exchange),
            reasoning=before + reasoning if reasoning else "",
            answer=answer if reasoning else before + answer,
            end=self._layout.assistant[1],
            reference=self._reference(answer, exchange),
        )

    def prompt(self, query: Query) -> tuple[Piece, ...]:
        """The prompt alone, up to where the model goes on. Raises Unusable as `render` does."""
        layout = self._layout
        pieces = [Piece(layout.begin, True)]
        system = query.system or self._system
        if system:
            pieces += _turn(layout.system, self._stripped(system))
        for turn in query.before:
            text = layout.before_text + self._stripped(turn.text)
            if turn.role == "user":
                pieces += _turn(layout.user, text)
            else:
                pieces += [*_turn(layout.assistant, text), Piece(layout.after_answer, True)]
        fields = {"question": query.question, "options": query.options or ""}
        # Options that are not shown are not asked. Without a pattern of the recipe they follow.
        plain = self._data.prompt == PLAIN_PROMPT and query.options is not None
        asked = self._text(WITH_OPTIONS if plain else self._data.prompt, fields)
        pieces += _turn(layout.user, layout.before_text + asked)
        opened = layout.before_text + BEFORE_REASONING if self.opens_think else ""
        pieces.append(Piece(layout.assistant[0] + opened, True))
        return tuple(piece for piece in pieces if piece.text)

    def with_answers_checked(self, behind: str, *, options: bool) -> "Renderer":
        """Asks as this one does, with the options of the question, if it has some, and `behind`
        below it. An answer is its own reference."""
        pattern = self._data.prompt
        if "{options}" in pattern:
            asked = "{options}" if options else ""
            pattern = pattern.replace("{options}", "\n\n".join(filter(None, (asked, behind))))
        else:
            asked = WITH_OPTIONS if options else PLAIN_PROMPT
            pattern = pattern.replace("{question}", "\n\n".join(filter(None, (asked, behind))))
        checked = copy.copy(self)
        checked._data = self._data.model_copy(update={"prompt": pattern, "answer": "{answer}"})
        return checked

    def _stripped(self, text: str) -> str:
        return text.strip() if self._layout.strips else text

    def _text(self, pattern: str, fields: dict[str, str]) -> str:
        text = _filled(pattern, fields)
        return self._stripped(text) if self._as_they_stand else text.strip()

    def _reasoning(self, reasoning: str | None) -> str:
        opened = "" if self.opens_think else BEFORE_REASONING
        if reasoning is not None:
            return f"{opened}{reasoning}{AFTER_REASONING}"
        # The prefix `<think>\n\n</think>` is how R1 models are told not to think.
        return AFTER_REASONING if self.opens_think else ""

    def _reference(self, answer: str, exchange: Exchange) -> str:
        unmarked = exchange.summary or exchange.answer
        marker = self._data.final_answer
        if marker is None:
            return unmarked
        marked = [line for line in answer.splitlines() if line.startswith(marker)]
        return marked[-1][len(marker) :].strip() if marked else unmarked


def turns_of(model: ModelEntry, prompt: Sequence[Piece]) -> list[tuple[Role, str]]:
    """The turns of a prompt that a Renderer made for this model: who speaks, and what is said."""
    layout = LAYOUTS[model.chat_template]
    openings: dict[str, Role] = {layout.user[0]: "user", layout.assistant[0]: "assistant"}
    return [
        (openings.get(opening.text, "system"), piece.text.removeprefix(layout.before_text))
        for opening, piece in pairwise([Piece("", True), *prompt])
        if not piece.control
    ]


def _turn(around: tuple[str, str], text: str) -> list[Piece]:
    return [Piece(around[0], True), Piece(text, False), Piece(around[1], True)]


def _filled(pattern: str, fields: dict[str, str]) -> str:
    for name, value in fields.items():
        if f"{{{name}}}" in pattern and not value:
            remedy = f"map data.columns.{name}, or change data.prompt and data.answer"
            raise Unusable(Reason(f"no {name}", remedy))
    # In one pass over the pattern, so that braces inside a question stay what they are.
    names = "|".join(fields)
    return re.sub(r"\{(" + names + r")\}", lambda found: fields[found[1]], pattern)


def _check_fields(place: str, pattern: str, fields: tuple[str, str]) -> None:
    for found in re.finditer(r"\{\s*([A-Za-z_]\w*)\s*\}", pattern):
        meant = difflib.get_close_matches(found[1], fields, 1, 0.7)
        if meant and found[0] != f"{{{meant[0]}}}":
            fault = f"'{found[0]}' is no field, so that it would stay as it is"
            raise SpecInvalid(place, fault, f"write {{{meant[0]}}}")
    if f"{{{fields[0]}}}" not in pattern:
        fault = f"'{pattern[:60]}' does not contain {{{fields[0]}}}"
        raise SpecInvalid(place, fault, f"use the fields {', '.join(fields)} in braces")
