"""Generates what follows from the code: the charts' schemas and READMEs, and the pages of
docs/reference/. `make reference` writes them; with `--check`, as in CI, it compares them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click
import yaml

import thinktune
from thinktune.cli.main import cli
from thinktune.launch.cluster.charts import values_text
from thinktune.launch.runs import conductor_of, make_run, pipeline_of, stage_values
from thinktune.launch.serving.artifacts import Servable
from thinktune.launch.serving.sizing import ServeWishes, size_server
from thinktune.launch.serving.values import ServerFacts, serve_values, server_task
from thinktune.recipes.compose import Catalog, load_catalog, load_recipe
from thinktune.schema.closed import Closed
from thinktune.schema.cluster import Cluster, Identity
from thinktune.schema.recipe import Recipe
from thinktune.schema.serve import ServeTask
from thinktune.schema.serve_values import ServeValues
from thinktune.schema.served import Desired, DesiredRun
from thinktune.schema.stages import STAGES
from thinktune.schema.values import ConductorValues, TaskValues, Values

ROOT = Path(__file__).parents[1]
CHARTS: dict[str, type[Closed]] = {
    "task": TaskValues,
    "conductor": ConductorValues,
    "serve": ServeValues,
}
EXAMPLE = Cluster(
    store="s3://bucket/thinktune", namespace="jobs", identity=Identity(secret="store-keys")
)
COMMANDS = {
    "task": ("thinktune render RECIPE", "thinktune submit"),
    "conductor": ("thinktune render RECIPE", "thinktune submit"),
    "serve": ("thinktune serve RUN --render DIR", "thinktune serve RUN --cluster FILE"),
}
"""Commands that write a chart's values and that install it."""
NO_DEFAULTS = """\
# Written by `make reference`.
# There are no defaults: each release sets every value. `{command}` writes such a
# values file, and ci/demo-values.yaml is an example.
"""
GENERATED = "<!-- Written by `make reference`. -->\n"
WIDTH = 100


def schema(model: type[Closed]) -> str:
    """A chart's `values.schema.json`, closed at every level."""
    found = model.model_json_schema(by_alias=True)
    # Helm may add it to any chart's values.
    found["properties"]["global"] = {"type": "object", "maxProperties": 0}
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
    return json.dumps(whole, indent=1) + "\n"


def table(model: type[Closed]) -> str:
    """One row for each setting and each group of settings, at every level."""
    whole = model.model_json_schema(by_alias=True)
    rows: list[tuple[str, ...]] = [("setting", "type", "default", "meaning")]
    for key, field, needed in _settings(whole, whole, ""):
        group = _group(field, whole)
        text = field.get("description") or (group or {}).get("description", "")
        default = "(required)" if needed else f"`{json.dumps(field.get('default'))}`"
        optional = "anyOf" in field
        if group:
            kind, default = ("group or null", default) if optional else ("group", "")
        else:
            kind = _kind(field, whole)
        rows.append((f"`{key}`", kind, default, " ".join(text.split())))
    if all(default in ("(required)", "") for _, _, default, _ in rows[1:]):
        rows = [(key, kind, text) for key, kind, _, text in rows]  # no defaults at all
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


def _settings(part: dict[str, Any], whole: dict[str, Any], prefix: str) -> Any:
    for name, field in part["properties"].items():
        yield f"{prefix}{name}", field, name in part.get("required", ())
        group = _group(field, whole)
        if group is not None:
            yield from _settings(group, whole, f"{prefix}{name}.")


def _group(field: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any] | None:
    """The model that a field holds; None where the field holds a value."""
    either = [each for each in field.get("anyOf", ()) if each.get("type") != "null"]
    named = _named(either[0] if len(either) == 1 else field, whole)
    return named if named is not None and "properties" in named else None


def _named(field: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any] | None:
    if "$ref" not in field:
        return None
    found: dict[str, Any] = whole["$defs"][field["$ref"].rpartition("/")[2]]
    return found


def _kind(field: dict[str, Any], whole: dict[str, Any]) -> str:
    named = _named(field, whole)
    if named is not None and "properties" not in named:
        return "any value"
    if named is not None:
        inside = [f"{key}: {_kind(each, whole)}" for key, each in named["properties"].items()]
        return "{" + ", ".join(inside) + "}"
    if "anyOf" in field:
        return " or ".join(_kind(each, whole) for each in field["anyOf"])
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "prefixItems" in field:
        return f"list of {' and '.join(_kind(each, whole) for each in field['prefixItems'])}"
    if field["type"] == "array":
        return f"list of {_kind(field['items'], whole)}"
    if field["type"] == "object":
        by_pattern = field.get("patternProperties", {}).values()
        (inside,) = by_pattern or [field["additionalProperties"]]
        return f"map to {_kind(inside, whole)}"
    return str(field["type"]) + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {field[name]}" for name, sign in signs.items() if name in field]
    return f" {', '.join(found)}" if found else ""


def chart_readme(name: str) -> str:
    """What a chart is for, its settings, and where they come from."""
    about = yaml.safe_load((ROOT / "charts" / name / "Chart.yaml").read_text(encoding="utf-8"))
    text = (
        f"{about['description']}. Kubernetes {about['kubeVersion']}.\n\n"
        f"`{COMMANDS[name][0]}` writes values files, and `{COMMANDS[name][1]}` installs them. "
        "There are no defaults: each release sets every value, as in ci/demo-values.yaml."
    )
    return page(about["name"], text, CHARTS[name])


def page(title: str, text: str, model: type[Closed]) -> str:
    """The settings of one kind of file, under a title."""
    return f"{GENERATED}# {title}\n\n{text}\n\n{table(model)}"


def commands() -> str:
    """`--help` of every command."""
    whole = [f"{GENERATED}# Commands\n"]
    context = click.Context(cli, info_name="thinktune", **cli.context_settings)
    whole.append(_help(cli, context.info_name or "", None, 2))
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        whole.append(_help(command, name, context, 2))
        if isinstance(command, click.Group):
            group = click.Context(command, context, name)
            for inner, each in command.commands.items():
                whole.append(_help(each, inner, group, 3))
    return "\n".join(whole)


def _help(command: click.Command, name: str, parent: click.Context | None, level: int) -> str:
    inside = click.Context(command, parent, name)
    inside.terminal_width = WIDTH
    title = f"{'#' * level} {inside.command_path}\n\n" if parent is not None else ""
    return f"{title}```text\n{command.get_help(inside)}\n```\n"


def example(name: str) -> str:
    """Values as `thinktune render demo` writes them."""
    catalog = load_catalog()
    run = make_run(load_recipe("demo", catalog=catalog), catalog, EXAMPLE.store, "demo")
    # Less the code's digest, which would be another one with each change.
    for stage, task in run.tasks.items():
        run.tasks[stage] = task.model_copy(update={"code": None})
    if name == "serve":
        return f"# Written by `make reference`.\n{values_text(server_example(catalog))}"
    values: Values = stage_values(run, "prep", EXAMPLE)
    if name == "conductor":
        values = conductor_of(pipeline_of(run, STAGES, EXAMPLE), EXAMPLE)
    return f"# Written by `make reference`.\n{values_text(values)}"


def server_example(catalog: Catalog) -> ServeValues:
    """Values of a server of the demo's run."""
    recipe = load_recipe("demo", catalog=catalog)
    model = catalog.models[recipe.model]
    run = Servable(
        desired=DesiredRun(run="demo", train_sha256="0" * 64),
        model_name=recipe.model,
        model=model,
        revision=model.revision,
        base="nf4",
        base_sha256="0" * 64,
        rank=recipe.train.rank,
        targets=model.lora_targets,
        unplaced=(),
        judged="",
        created="",
    )
    wishes = ServeWishes()
    size = size_server([run], recipe.hardware, wishes, catalog.hardware)
    task = server_task("demo", ServeTask(run="demo", store=EXAMPLE.store), size, wishes.slots)
    facts = ServerFacts(
        name="demo",
        desired=Desired(revision=1, runs=(run.desired,)),
        task=task,
        size=size,
        replicas=1,
        workload="deployment",
    )
    return serve_values(facts, catalog.hardware[size.hardware], EXAMPLE, thinktune.__version__)


def files() -> dict[Path, str]:
    """Path of each generated file → its text."""
    found = {}
    for name, model in CHARTS.items():
        found[ROOT / f"charts/{name}/values.schema.json"] = schema(model)
        found[ROOT / f"charts/{name}/README.md"] = chart_readme(name)
        found[ROOT / f"charts/{name}/values.yaml"] = NO_DEFAULTS.format(command=COMMANDS[name][0])
        found[ROOT / f"charts/{name}/ci/demo-values.yaml"] = example(name)
    recipe = (
        "A recipe is one file below `jobs/recipes/`, or any path that ends in `.yaml`. "
        "`extends: OTHER` starts from another recipe, and `--set SETTING=VALUE` overrides one "
        "setting."
    )
    found[ROOT / "docs/reference/recipe.md"] = page("Recipe settings", recipe, Recipe)
    cluster = (
        "The cluster file is `cluster.yaml`, or the file that `--cluster` or `THINKTUNE_CLUSTER` "
        "names. It refers to Secrets by name only."
    )
    found[ROOT / "docs/reference/cluster.md"] = page("Cluster settings", cluster, Cluster)
    found[ROOT / "docs/reference/commands.md"] = commands()
    return found


if __name__ == "__main__":
    stale = []
    for path, text in files().items():
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path.relative_to(ROOT)))
    if stale:
        sys.exit(f"out of date (`make reference` writes them): {', '.join(stale)}")
