"""What the tests of the documentation look for in Markdown. Each check returns the faults found."""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from thinktune.cli.main import cli
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.errors import SpecInvalid

ROOT = Path(__file__).parents[3]
README_LINES = 150
FENCE = re.compile(r"^\s*(```+)\s*(\w*)")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*)$")
TARGET = re.compile(r"^([a-z0-9][a-z0-9-]*|\$\(ON_CLUSTER\)):(?!=)")
VARIABLE = re.compile(r"^([A-Z_]+) *\?=")
IN_RECIPE = re.compile(r"\$\(([A-Z_]+)\)")
COMMANDS = ("thinktune", ".venv/bin/thinktune")
PLACEHOLDERS = {"RUN": "a-run", "NAME": "a-name", "STAGE": "prep"}
"""Words in capitals that a reader replaces, and what the check puts in their place."""


def pages() -> list[Path]:
    """All Markdown that people read, below the repository's root."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def prose_and_code(text: str) -> tuple[list[str], list[str]]:
    """Lines outside of fenced blocks, and the lines of its `console` blocks."""
    outside: list[str] = []
    console: list[str] = []
    open_fence: tuple[str, str] | None = None
    for line in text.splitlines():
        fence = FENCE.match(line)
        if open_fence is None and fence:
            open_fence = (fence[1], fence[2])
        elif open_fence is not None and fence and fence[1] == open_fence[0] and not fence[2]:
            open_fence = None
        elif open_fence is None:
            outside.append(line)
        elif open_fence[1] == "console":
            console.append(line.strip())
    return outside, console


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub derives them."""
    found: set[str] = set()
    for line in prose_and_code(text)[0]:
        heading = HEADING.match(line)
        if heading is None:
            continue
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def broken_links(page: Path, text: str) -> list[str]:
    """Links to a file or an anchor that does not exist. Addresses on the web are not looked at."""
    faults = []
    for link in LINK.findall("\n".join(prose_and_code(text)[0])):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            faults.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(text if target == page else target.read_text()):
            faults.append(f"{link}: no such heading")
    return faults


def commands(text: str) -> Iterator[str]:
    """Commands of the console blocks: what follows `$ `, with its continuation lines."""
    lines = iter(prose_and_code(text)[1])
    for line in lines:
        if not line.startswith("$ "):
            continue
        command = line[2:]
        while command.endswith("\\"):
            command = command[:-1] + next(lines, "")
        yield command


def parts(command: str) -> list[str]:
    """A shell command as words, without its comment."""
    words = shlex.split(command, comments=True)
    return [PLACEHOLDERS.get(word, word) for word in words]


def wrong_command(command: str, makefile: str) -> str | None:
    """What is wrong with a command of thinktune or make; None for a right one and for others."""
    words = parts(command)
    if words and words[0] in COMMANDS:
        return _wrong_call(words[1:])
    if words and words[0] == "make":
        return _wrong_make(words[1:], makefile)
    return None


def _wrong_call(words: list[str]) -> str | None:
    if words in (["--help"], ["--version"]):
        return None
    context = click.Context(cli, info_name="thinktune")
    command = cli.get_command(context, words[0]) if words else None
    if command is None:
        return f"no command {words[:1]}"
    if isinstance(command, click.Group):
        context = click.Context(command, context, words[0])
        command, words = command.get_command(context, words[1] if words[1:] else ""), words[1:]
        if command is None:
            return f"no command {words[:1]}"
    try:
        # Types, choices, required arguments and unknown options, without running anything.
        called = command.make_context(words[0], list(words[1:]), parent=context)
    except click.exceptions.Exit:  # --help
        return None
    except click.UsageError as error:
        return error.format_message()
    recipe = called.params.get("recipe")
    if called.params.get("serve") and recipe in load_catalog().models:
        return None
    return _wrong_settings(recipe, called.params.get("overrides", ()))


def _wrong_settings(recipe: str | None, overrides: Sequence[str]) -> str | None:
    """What is wrong with the settings of a recipe that ships. Placeholders are not looked at."""
    if recipe is None or recipe.endswith(".yaml"):
        return None
    given = [each for each in overrides if not each.endswith(tuple(PLACEHOLDERS))]
    try:
        load_recipe(recipe, given, catalog=load_catalog())
    except SpecInvalid as error:
        return str(error)
    return None


def _wrong_make(words: list[str], makefile: str) -> str | None:
    targets, variables = make_names(makefile)
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and name not in variables:
            return f"the Makefile reads no variable {name}"
        if not equals and word not in targets:
            return f"no target {word}"
    given = dict(word.split("=", 1) for word in words if "=" in word)
    return _wrong_settings(given.get("MODEL"), shlex.split(given.get("SET", "")))


def make_names(makefile: str) -> tuple[set[str], set[str]]:
    """Targets of a Makefile, and the variables that it reads."""
    targets: set[str] = set()
    for line in makefile.splitlines():
        found = TARGET.match(line)
        if found:
            targets.add(found[1])
    variables = {found[1] for line in makefile.splitlines() if (found := VARIABLE.match(line))}
    return targets, variables | set(IN_RECIPE.findall(makefile))


def bare_descriptions(fields: Iterable[tuple[str, str | None]]) -> list[str]:
    """Fields whose description is missing or is no sentence: it starts in lower case, has no full
    stop, or is shorter than three words."""
    faults = []
    for name, text in fields:
        said = " ".join((text or "").split())
        starts = said[:1].isupper() or said.startswith(("`", '"', "/")) or said[:1].isdigit()
        if not starts or not said.endswith(".") or len(said.split()) < 3:
            faults.append(f"{name}: {said or 'no description'}")
    return faults
