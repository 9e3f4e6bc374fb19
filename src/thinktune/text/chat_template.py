"""Our layout of a conversation as a Jinja chat template, for programs that render by one.

Called by `tasks.publish`: transformers and vLLM render a published model by the file that this
makes. Its text is that of `templates.Renderer`, with one limit of every Jinja template: what a user
writes is tokenized with the control text around it, so that `<|im_end|>` in a question ends a turn.
"""

import json

from thinktune.schema.prompt import PromptTemplate
from thinktune.text.templates import AFTER_REASONING, BEFORE_REASONING, LAYOUTS, Layout
from thinktune.text.think import THINK_CLOSE, THINK_OPEN

TEMPLATE_FILE = "chat_template.jinja"
"""Where transformers looks for it, beside the tokenizer."""


def chat_template(template: PromptTemplate) -> str:
    """The template of the runs whose prompts `template` describes.

    It takes `messages` of the roles system, developer, user and assistant, whose `content` is text,
    and `add_generation_prompt`. Reasoning is read from an assistant's `reasoning_content` or
    `reasoning`, or from a think part in its content. As in training, earlier turns are written
    without it, and a last turn of the assistant with it. `enable_thinking=false` writes an empty
    think part for the model.
    """
    layout = LAYOUTS[template.model.chat_template]
    system = template.system or template.model.default_system or ""
    return "\n".join(
        [
            *_macros(layout),
            *_read_messages(),
            _said(layout.begin),
            f"{{%- set system = ns.system | join({_text(chr(10) * 2)}) or {_text(system)} -%}}",
            "{%- if system -%}",
            f"{{{{- {_text(layout.system[0])} ~ shown(system) ~ {_text(layout.system[1])} -}}}}",
            "{%- endif -%}",
            "{%- for message in messages -%}",
            *_user_turn(layout, template),
            *_assistant_turn(layout, opens=template.model.thinks),
            "{%- endfor -%}",
            *_generation_prompt(layout, opens=template.model.thinks),
            "",
        ]
    )


def _macros(layout: Layout) -> list[str]:
    """`shown`: a text as the layout writes it. `answered` and `reasoned`: the two parts of an
    assistant's message, without the white space around them."""
    stripped = " | trim" if layout.strips else ""
    close, opened = _text(THINK_CLOSE), _text(THINK_OPEN)
    return [
        f"{{%- macro shown(text) -%}}{{{{- text{stripped} -}}}}{{%- endmacro -%}}",
        "{%- macro answered(message) -%}",
        f"{{{{- (message.content or '').split({close})[-1] | trim -}}}}",
        "{%- endmacro -%}",
        "{%- macro reasoned(message) -%}",
        "{%- set apart = message.reasoning_content or message.reasoning -%}",
        "{%- if apart -%}{{- apart | trim -}}",
        f"{{%- elif {close} in (message.content or '') -%}}",
        f"{{{{- message.content.split({close})[0].split({opened})[-1] | trim -}}}}",
        "{%- endif -%}",
        "{%- endmacro -%}",
    ]


def _read_messages() -> list[str]:
    """`ns.system`: the system prompts; `ns.asked`: the place of the last question."""
    return [
        "{%- set ns = namespace(system=[], asked=-1) -%}",
        "{%- for message in messages -%}",
        "{%- if message.role in ('system', 'developer') -%}",
        "{%- if message.content and message.content | trim -%}",
        "{%- set ns.system = ns.system + [message.content] -%}",
        "{%- endif -%}",
        "{%- elif message.role == 'user' -%}{%- set ns.asked = loop.index0 -%}",
        "{%- elif message.role != 'assistant' -%}",
        "{{- raise_exception('this model knows no messages of the role ' ~ message.role) -}}",
        "{%- endif -%}",
        "{%- endfor -%}",
    ]


def _user_turn(layout: Layout, template: PromptTemplate) -> list[str]:
    # As the server asks: a chat has no options of a test beside the question.
    pattern = template.prompt.replace("{options}", "")
    asked = " ~ message.content ~ ".join(_text(part) for part in pattern.split("{question}"))
    # Patterns are stripped when they are filled; turns of a conversation are taken as they stand.
    asked = f"shown({asked})" if template.conversations else f"({asked}) | trim"
    before = _text(layout.user[0] + layout.before_text)
    return [
        "{%- if message.role == 'user' -%}",
        f"{{{{- {before} -}}}}",
        f"{{%- if loop.index0 == ns.asked -%}}{{{{- {asked} -}}}}",
        "{%- else -%}{{- shown(message.content) -}}{%- endif -%}",
        _said(layout.user[1]),
    ]


def _assistant_turn(layout: Layout, *, opens: bool) -> list[str]:
    start, end = layout.assistant
    text = "{{- answered(message) -}}"
    opened = _said(layout.before_text + BEFORE_REASONING)
    reasoned = f"{{{{- reasoned(message) ~ {_text(AFTER_REASONING)} -}}}}"
    # A model whose prompts open the think part learns an empty one where there is no reasoning.
    otherwise = opened + _said(AFTER_REASONING) if opens else _said(layout.before_text)
    return [
        "{%- elif message.role == 'assistant' and loop.index0 < ns.asked -%}",
        _said(start + layout.before_text) + text + _said(end + layout.after_answer),
        "{%- elif message.role == 'assistant' -%}",
        _said(start),
        f"{{%- if reasoned(message) -%}}{opened}{reasoned}",
        f"{{%- else -%}}{otherwise}{{%- endif -%}}",
        text + _said(end),
        "{%- endif -%}",
    ]


def _generation_prompt(layout: Layout, *, opens: bool) -> list[str]:
    opened = layout.before_text + BEFORE_REASONING if opens else ""
    skipped = f"\n{THINK_CLOSE}" if opens else f"{THINK_OPEN}\n\n{THINK_CLOSE}"
    return [
        "{%- if add_generation_prompt -%}",
        _said(layout.assistant[0] + opened),
        "{%- if enable_thinking is defined and not enable_thinking -%}",
        _said(skipped),
        "{%- endif -%}",
        "{%- endif -%}",
    ]


def _said(text: str) -> str:
    """The text itself, as an expression: Jinja strips white space that is plain text."""
    return f"{{{{- {_text(text)} -}}}}" if text else ""


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
