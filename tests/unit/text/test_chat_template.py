"""The Jinja template that is published against the Renderer of training, for every layout."""

from functools import cache
from itertools import product
from typing import Any, get_args

import pytest
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tiny_tokenizer import tiny_entry

from thinktune.schema.catalog import ChatTemplate
from thinktune.schema.data import DataSpec
from thinktune.text.chat_template import chat_template
from thinktune.text.conversation import Exchange, Turn
from thinktune.text.templates import Renderer

LAYOUTS = get_args(ChatTemplate)
PATTERNS: tuple[dict[str, Any], ...] = (
    {},
    {"prompt": "Q: {question}\n\n{options}\nAnswer in \"one\" line, {braces} and 'all' ✓\n"},
    {"system": " Be brief.\n"},
)
BEFORE = (Turn("user", " Hello "), Turn("assistant", "Hi.\n\nWhat is it?"), Turn("user", "Wait"))
BEFORE += (Turn("assistant", "I do."),)


def renderer(layout: str, *, thinks: bool = False, talks: bool = False, **data: Any) -> Renderer:
    entry = tiny_entry().model_copy(
        update={"chat_template": layout, "thinks": thinks, "default_system": "You help."}
    )
    spec = DataSpec(dataset="some", final_answer="Final Answer:", **data)
    return Renderer(entry, spec, conversations=talks)


def by_jinja(of: Renderer, messages: list[dict[str, str]], **more: Any) -> str:
    """As transformers compiles and renders a template."""
    return _compiled(chat_template(of.template("tiny"))).render(messages=messages, **more)


@cache
def _compiled(source: str) -> Template:
    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    world.globals["raise_exception"] = _refuse
    return world.from_string(source)


def _refuse(message: str) -> None:
    raise ValueError(message)


def by_training(of: Renderer, exchange: Exchange) -> tuple[str, str]:
    """The prompt, and the whole example."""
    rendered = of.render(exchange)
    prompt = rendered.prompt_text()
    return prompt, prompt + rendered.reasoning + rendered.answer + rendered.end


def messages_of(exchange: Exchange) -> list[dict[str, str]]:
    """The conversation up to the question. Earlier answers have their reasoning in them."""
    said = [{"role": "system", "content": exchange.system}] if exchange.system else []
    for turn in exchange.before:
        thought = "<think>\nearlier\n</think>\n\n" if turn.role == "assistant" else ""
        said.append({"role": turn.role, "content": thought + turn.text})
    return [*said, {"role": "user", "content": exchange.question}]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize("talks", [False, True])
def test_the_text_is_that_of_training(layout: str, thinks: bool, talks: bool) -> None:
    for system, before, reasoning, data in product(
        (None, "You count.\nAlways."), ((), BEFORE), (None, "one,\n\ntwo"), PATTERNS
    ):
        of = renderer(layout, thinks=thinks, talks=talks, **data)
        # A chat has no options; the server, too, asks without them.
        plain = {**data, "prompt": data.get("prompt", "{question}").replace("{options}", "")}
        exchange = Exchange(
            question=" How many\n<b>{x}</b>? ", system=system, before=before,
            answer="Three.\n\nFinal Answer: 3", reasoning=reasoning,
        )  # fmt: skip
        asked = renderer(layout, thinks=thinks, talks=talks, **plain)
        prompt, whole = by_training(asked, exchange)
        messages = messages_of(exchange)
        assert by_jinja(of, messages, add_generation_prompt=True) == prompt
        thought = f"<think>\n{reasoning}\n</think>\n\n" if reasoning else ""
        answer = {"role": "assistant", "content": exchange.answer}
        inside = answer | {"content": thought + exchange.answer}
        assert by_jinja(of, [*messages, inside]) == whole
        for name in ("reasoning", "reasoning_content"):
            assert by_jinja(of, [*messages, answer | {name: reasoning or ""}]) == whole


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_answer_begins_where_training_opens_the_think_part(layout: str) -> None:
    question = [{"role": "user", "content": "?"}]
    opened = by_jinja(renderer(layout, thinks=True), question, add_generation_prompt=True)
    assert opened.endswith("<think>\n")
    left_out = by_jinja(
        renderer(layout, thinks=True), question, add_generation_prompt=True, enable_thinking=False
    )
    assert left_out == opened + "\n</think>"
    plain = by_jinja(renderer(layout), question, add_generation_prompt=True)
    assert "<think>" not in plain
    empty = by_jinja(renderer(layout), question, add_generation_prompt=True, enable_thinking=False)
    assert empty == plain + "<think>\n\n</think>"


def test_a_role_that_training_never_showed_is_refused() -> None:
    with pytest.raises(ValueError, match="no messages of the role tool"):
        by_jinja(renderer("chatml"), [{"role": "tool", "content": "4"}])
