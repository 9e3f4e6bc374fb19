"""Renders the golden texts from the released chat templates, as transformers does.

    python tests/unit/text/golden/render.py FOLDER

FOLDER holds the templates that templates.json lists, one file NAME.jinja each. The file texts.json
is written from them and from conversations.json. SmolLM2's template is not among them: the tests
read it from the model's GGUF file and render it themselves.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent
Turns = list[dict[str, str]]


def golden(name: str) -> dict[str, Any]:
    """One of the JSON files beside this one."""
    found: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return found


def sha256(name: str) -> str:
    """Digest of what a JSON file beside this one says, however it is laid out."""
    return hashlib.sha256(json.dumps(golden(name), sort_keys=True).encode()).hexdigest()


def texts(template: str, turns: Turns, *, bos: str, eos: str) -> dict[str, str]:
    """What a released template makes of a conversation that ends in an answer: `prompt` is all
    before the answer, up to where the model goes on; `full` is the whole conversation."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    render = environment.from_string(template).render
    tokens = {"bos_token": bos, "eos_token": eos}
    return {
        "prompt": render(messages=turns[:-1], add_generation_prompt=True, **tokens),
        "full": render(messages=turns, add_generation_prompt=False, **tokens),
    }


def main(folder: Path) -> None:
    """Writes texts.json. Fails where a template is not the listed one."""
    rendered: dict[str, dict[str, dict[str, str]]] = {}
    for name, source in golden("templates").items():
        template = (folder / f"{name}.jinja").read_bytes()
        if hashlib.sha256(template).hexdigest() != source["sha256"]:
            raise SystemExit(f"{folder / name}.jinja is not the template that templates.json lists")
        rendered[name] = {
            conversation: texts(template.decode(), turns, bos=source["bos"], eos=source["eos"])
            for conversation, turns in golden("conversations").items()
        }
    document = {
        "conversations_sha256": sha256("conversations"),
        "templates_sha256": sha256("templates"),
        "texts": rendered,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (HERE / "texts.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
