"""The documentation: its links lead somewhere, its commands are real, its settings are explained.

Each check is also shown bad text that it must refuse.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from checks import (
    README_LINES,
    ROOT,
    bare_descriptions,
    broken_links,
    commands,
    make_names,
    pages,
    wrong_command,
)
from pydantic import BaseModel

from thinktune.cli.main import COMMANDS, cli
from thinktune.cli.recipes import first_sentence
from thinktune.plan.training.comparison import OnHardware, PlanVsActual
from thinktune.plan.training.plan import Alternative, Plan, Topology
from thinktune.recipes.compose import load_catalog, load_recipe, recipe_names
from thinktune.schema.cluster import Cluster
from thinktune.schema.exit_codes import EXIT_CODES
from thinktune.schema.manifest import Manifest, Progress
from thinktune.schema.pipeline import Pipeline, PipelineStage
from thinktune.schema.ratings import (
    AgreementReport,
    ArmRatings,
    JudgeAgreement,
    RatingsReport,
    SheetKey,
    SheetProblem,
)
from thinktune.schema.recipe import Recipe
from thinktune.schema.report import (
    ArmFacts,
    MetricResult,
    PairedTest,
    Report,
    ShownAnswer,
    SideBySide,
)
from thinktune.schema.stages import EvaluateTask, PrepTask, TrainTask
from thinktune.schema.termination import PodTermination
from thinktune.schema.values import ConductorValues, TaskValues

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
ALL_PAGES = pages()
each_page = pytest.mark.parametrize(
    "page", ALL_PAGES, ids=[path.relative_to(ROOT).as_posix() for path in ALL_PAGES]
)
MODELS = (
    Recipe, Cluster, TaskValues, ConductorValues, PrepTask, TrainTask, EvaluateTask, Manifest,
    Progress, Pipeline, PipelineStage, PodTermination, Plan, Alternative, Topology, OnHardware,
    PlanVsActual, Report, MetricResult, PairedTest, ArmFacts, SideBySide, ShownAnswer,
    RatingsReport, AgreementReport, JudgeAgreement, ArmRatings, SheetKey, SheetProblem,
)  # fmt: skip


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@each_page
def test_commands_are_real(page: Path) -> None:
    found = [(each, wrong_command(each, MAKEFILE)) for each in commands(page.read_text("utf-8"))]
    assert [(each, fault) for each, fault in found if fault] == []


def test_every_page_is_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        text = page.read_text(encoding="utf-8")
        todo += [other for other in ALL_PAGES if f"({_relative(page, other)}" in text]
    assert set(ALL_PAGES) - seen == set()


def _relative(page: Path, other: Path) -> str:
    # os.path and not Path.relative_to: that knows no `..` before Python 3.12.
    return os.path.relpath(other, page.parent)


def test_the_readme_is_short_and_shows_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    shown = list(commands(text))
    assert {"make demo", "make test"} <= {" ".join(each.split()[:2]) for each in shown}
    assert sum("thinktune" in each.split()[0] for each in shown) >= 4


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Settings of a model and of the models in it. A nested model explains itself."""
    for name, info in model.model_fields.items():
        if name == "stage":
            continue
        inner = info.annotation
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        own = info.description or (inner.__doc__ if nested else None)
        yield f"{prefix}{name}", own
        if nested:
            yield from _fields(inner, f"{prefix}{name}.")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_settings_are_explained_in_sentences(model: type[BaseModel]) -> None:
    assert bare_descriptions(_fields(model, f"{model.__name__}.")) == []


def all_commands() -> list[str]:
    """Names of all commands, those of groups with their group's."""
    names = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        inner = command.commands if isinstance(command, click.Group) else {}
        names += [f"{name} {each}" for each in inner] or [name]
    return names


@pytest.mark.parametrize("name", all_commands())
def test_help_has_an_example_that_is_right(name: str) -> None:
    first, _, second = name.partition(" ")
    command = cli.get_command(click.Context(cli), first)
    if isinstance(command, click.Group):
        command = command.get_command(click.Context(command), second)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=name))
    examples = [
        line.strip() for line in text.partition("Examples:")[2].partition("Options:")[0].split("\n")
    ]
    calls = [line for line in examples if f"thinktune {name}" in line]
    assert calls
    for call in calls:
        plain = call.removeprefix('eval "$(').removesuffix(')"').partition(" | ")[0]
        assert wrong_command(plain, MAKEFILE) is None, call


def test_the_list_of_commands_and_their_help_agree() -> None:
    for name, (_, text) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and command.help is not None
        assert " ".join(command.help.split("\n\n")[0].split()) == text


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_in_one_sentence_what_it_is_for(name: str) -> None:
    said = first_sentence(load_recipe(name, catalog=load_catalog()).description)
    assert said.endswith(".") and 4 <= len(said.split()) <= 20, said


# What the checks must refuse.


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("See [x](missing.md).", "missing.md: no such file"),
        ("See [x](docs/tested.md#nowhere).", "docs/tested.md#nowhere: no such heading"),
        ("# Here\n\nSee [x](#there).", "#there: no such heading"),
        ("See [x](docs/guide/../tested.md#not-walked).", "no such heading"),
    ],
)
def test_a_bad_link_is_found(text: str, fault: str) -> None:
    (found,) = broken_links(ROOT / "README.md", text)
    assert fault in found


@pytest.mark.parametrize(
    "text",
    [
        "# Two words, `code`\n\n[x](#two-words-code)",
        "# A\n\n# A\n\n[x](#a) [x](#a-1)",
        "[x](https://example.com/none) and ![x](none.png)",
        "[x](docs/tested.md#not-run)",
        "```text\n[x](none.md)\n```",
    ],
)
def test_a_good_link_is_not(text: str) -> None:
    assert broken_links(ROOT / "README.md", text) == []


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("$ thinktune rn demo", "no command"),
        ("$ thinktune", "no command"),
        ("$ .venv/bin/thinktune run demo --remote", "--remote"),
        ("$ thinktune fetch RUN --stage serving", "'serving' is not one of"),
        ("$ thinktune run", "Missing argument"),
        ("$ thinktune run demo \\\n    --sett train.rank=32", "--sett"),
        ("$ make demonstration", "no target demonstration"),
        ("$ make images REGISTER=localhost", "no variable REGISTER"),
        ("  $ make setup lod", "no target lod"),
        ("$ thinktune run dmo", "did you mean 'demo'"),
        ("$ thinktune run demo --set train.rnk=32", "unknown key 'train.rnk'"),
        ('$ make train MODEL=qwen-32b SET="train.rnk=32"', "unknown key 'train.rnk'"),
    ],
)
def test_a_bad_command_is_found(block: str, fault: str) -> None:
    (command,) = commands(f"```console\n{block}\n```\n")
    said = wrong_command(command, MAKEFILE)
    assert said is not None and fault in said


@pytest.mark.parametrize(
    "block",
    [
        "$ thinktune plan qwen-32b        # a comment",
        "$ thinktune plan --all-hardware",
        "$ thinktune --help",
        "$ thinktune run demo --set data.dataset=file --set data.path=x.jsonl \\\n"
        "    --set data.answer='{answer}'",
        '$ make train MODEL=qwen-32b SET="data.path=audit.jsonl"',
        "$ make images load REGISTRY=localhost LOCK=requirements.cpu.txt",
        "$ kubectl apply -f none",
    ],
)
def test_a_good_command_is_not(block: str) -> None:
    (command,) = commands(f"```console\n{block}\n```\n")
    assert wrong_command(command, MAKEFILE) is None


def test_only_console_blocks_hold_commands() -> None:
    assert list(commands("```yaml\n$ thinktune rn\n```\n$ thinktune rn\n")) == []


def test_names_in_a_makefile() -> None:
    targets, variables = make_names("A ?= 1\nB := 2\nrun: setup ## Run\n\t@x $(C) $(A)\n")
    assert (targets, variables) == ({"run"}, {"A", "C"})


def test_a_bare_description_is_found() -> None:
    fields = [
        ("a", None), ("b", "In seconds."), ("c", "Seconds until the end"),
        ("d", "seconds until the end."), ("e", "Seconds until the end."), ("f", "`x` by stage."),
    ]  # fmt: skip
    assert [each[0] for each in bare_descriptions(fields)] == ["a", "b", "c", "d"]


def test_the_table_of_exit_codes_is_that_of_the_code() -> None:
    actions = {
        "done": "completes",
        "fail": "fails",
        "retry": "tries again",
        "ignore": "starts a new pod without counting it",
    }
    text = (ROOT / "docs/guide/operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    wanted = [
        (str(code.value), meaning, actions[does]) for code, (meaning, does) in EXIT_CODES.items()
    ]
    assert rows == wanted
