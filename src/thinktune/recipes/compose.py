"""Reads recipes and the catalog from YAML: extending, overriding, and names that must exist.

The command line is the caller. What it returns is validated as a whole, so nothing behind it
checks again.
"""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import thinktune
from thinktune.schema.catalog import NAME_RULE, DatasetEntry, HardwareEntry, ModelEntry, is_name
from thinktune.schema.closed import Closed, declared_type, parse_yaml
from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.schema.lora_targets import target_names
from thinktune.schema.recipe import Recipe

OWN_FILE = "file"
"""`data.dataset` of a user's own file: no catalog entry."""

QUOTED = re.compile(r"""\s*("([^"\\]|\\.)*"|'([^']|'')*')\s*""", re.DOTALL)
"""A text that is one quoted scalar of YAML from end to end."""


class Catalog(Closed):
    """All entries of the catalog, by name."""

    models: dict[str, ModelEntry]
    datasets: dict[str, DatasetEntry]
    hardware: dict[str, HardwareEntry]


def jobs_folder() -> Path:
    """The folder `jobs/`: beside `src/` in a checkout, inside the package once installed."""
    package = Path(thinktune.__file__).parent
    packaged = package / "jobs"
    return packaged if packaged.is_dir() else package.parents[1] / "jobs"


def load_catalog(folder: Path | None = None) -> Catalog:
    """Reads `catalog/{models,datasets,hardware}.yaml`. Raises SpecInvalid."""
    root = (folder or jobs_folder()) / "catalog"
    return Catalog(
        models=_entries(root / "models.yaml", ModelEntry),
        datasets=_entries(root / "datasets.yaml", DatasetEntry),
        hardware=_entries(root / "hardware.yaml", HardwareEntry),
    )


def recipe_names(folder: Path | None = None) -> list[str]:
    """Names of the recipes that ship, sorted."""
    return sorted(path.stem for path in ((folder or jobs_folder()) / "recipes").glob("*.yaml"))


def load_recipe(
    name: str, overrides: Sequence[str] = (), *, catalog: Catalog, folder: Path | None = None
) -> Recipe:
    """The recipe of that name, or in that file (a path ending in .yaml), with overrides applied.

    `overrides` are `dotted.key=value` with the value in YAML, as in `--set train.rank=32`; a text
    needs no quotes, whatever it holds.
    Raises SpecInvalid naming the file, the field, the fault and what would do.
    """
    path = _recipe_path(name, folder)
    data = _with_parents(path, folder, seen=())
    place = str(path)
    if not is_name(path.stem):
        fault = f"a recipe is named after its file, and {path.stem!r} is not a valid name"
        raise SpecInvalid(place, fault, f"rename it: {NAME_RULE}")
    if "name" in data:
        raise SpecInvalid(place, "unknown key 'name'", "remove it; the file gives the name")
    for override in overrides:
        _apply(data, override)
    if overrides:
        place += " with --set " + " --set ".join(overrides)
    recipe = Recipe.parse({"name": path.stem, **data}, place)
    _check_names(recipe, catalog, place)
    _check_context(recipe, catalog.models[recipe.model], place)
    return recipe


K = TypeVar("K", bound=Closed)


def _entries(path: Path, kind: type[K]) -> dict[str, K]:
    data = parse_yaml(_read(path, "the catalog"), str(path))
    if not isinstance(data, dict):
        raise SpecInvalid(
            str(path), "not a mapping of names to entries", "take the shipped file as a model"
        )
    return {name: kind.parse(entry, f"{path}: {name}") for name, entry in data.items()}


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SpecInvalid(str(path), f"{what} is not UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecInvalid(
            str(path), f"{what} cannot be read ({reason})", "check the path"
        ) from None
    except ValueError:  # a NUL, as no path has it
        raise SpecInvalid(
            repr(str(path)), f"{what} cannot have this path", "write a path without NUL"
        ) from None


def _recipe_path(name: str, folder: Path | None, beside: Path | None = None) -> Path:
    """`beside` is the recipe that names this one: a path is first looked up from its folder."""
    if name.endswith((".yaml", ".yml")):
        near = beside.parent / name if beside else Path(name)
        # os.path and not Path: that raises for a name too long to be one.
        return near if os.path.isfile(near) else Path(name)  # noqa: PTH113
    known = recipe_names(folder)
    if name not in known:
        raise SpecInvalid(f"recipe '{name}'", "not known", near_misses(name, known))
    return (folder or jobs_folder()) / "recipes" / f"{name}.yaml"


def _with_parents(path: Path, folder: Path | None, seen: tuple[Path, ...]) -> dict[str, Any]:
    data = parse_yaml(_read(path, "the recipe"), str(path))
    own = path.resolve()
    if own in seen:
        way = " → ".join(str(step) for step in (*seen[seen.index(own) :], own))
        raise SpecInvalid(
            str(path), f"'extends' leads back: {way}", "remove one of these 'extends'"
        )
    if not isinstance(data, dict):
        raise SpecInvalid(str(path), "not a mapping", "a recipe has keys such as model and train")
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        raise SpecInvalid(str(path), f"'extends' is {parent!r}", "name another recipe")
    above = _recipe_path(parent, folder, beside=path)
    return _merged(_with_parents(above, folder, (*seen, own)), data)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key; anything else is replaced."""
    result = copy.deepcopy(dict(below))
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise SpecInvalid(f"--set {override}", "not key=value", "write --set train.rank=32")
    if parts[0] in ("name", "extends"):
        fault = f"'{parts[0]}' cannot be overridden"
        raise SpecInvalid(f"--set {override}", fault, "copy the recipe's file instead")
    level = data
    for part in parts[:-1]:
        inner = level.setdefault(part, {})
        if inner is None:
            inner = level[part] = {}
        if not isinstance(inner, dict):
            fault = f"'{part}' is a single value and has no keys"
            raise SpecInvalid(f"--set {override}", fault, f"set '{part}' itself")
        level = inner
    level[parts[-1]] = _value(parts, text, f"--set {override}")


def _value(path: Sequence[str], text: str, place: str) -> Any:
    """The value of an override. A text field takes it literally, because the shell has removed the
    quotes that YAML would need."""
    declared = declared_type(Recipe, path)
    optional = declared == (str | None)
    if declared is not str and not optional:
        return parse_yaml(text, place)
    if optional and text.strip() == "null":
        return None
    return parse_yaml(text, place) if QUOTED.fullmatch(text) else text


def _check_names(recipe: Recipe, catalog: Catalog, place: str) -> None:
    named: list[tuple[str, str, Mapping[str, Any]]] = [
        ("model", recipe.model, catalog.models),
        ("hardware", recipe.hardware, catalog.hardware),
    ]
    if recipe.data.dataset != OWN_FILE:
        named.append(("data.dataset", recipe.data.dataset, catalog.datasets))
    named += [
        (f"evaluate.benchmarks.{benchmark}.dataset", spec.dataset, catalog.datasets)
        for benchmark, spec in recipe.evaluate.benchmarks.items()
        if spec.dataset is not None
    ]
    for field, name, known in named:
        if name not in known:
            more = [*known, OWN_FILE] if field == "data.dataset" else known
            fault = f"{field} '{name}' is not in the catalog"
            raise SpecInvalid(place, fault, near_misses(name, more))
    balance = recipe.data.balance
    for benchmark, spec in recipe.evaluate.benchmarks.items():
        for group in spec.groups:
            groups = balance.values if balance is not None else ()
            if group not in groups:
                fault = f"evaluate.benchmarks.{benchmark}: no held-out question has group '{group}'"
                remedy = near_misses(group, groups) if groups else "balance the rows: data.balance"
                raise SpecInvalid(place, fault, remedy)
    try:
        target_names(catalog.models[recipe.model], recipe.train)
    except SpecInvalid as error:
        raise SpecInvalid(place, f"{error.place}: {error.fault}", error.remedy) from None


def _check_context(recipe: Recipe, model: ModelEntry, place: str) -> None:
    """Checks that evaluation's answers fit into the model's context. The plan checks the length of
    training examples, because it knows what would fit instead."""
    asked = recipe.evaluate.max_new_tokens
    if asked >= model.context:
        fault = (
            f"evaluate.max_new_tokens is {asked:,}, and {recipe.model} supports "
            f"{model.context:,} tokens, those of the question included"
        )
        remedy = f"lower it, for example with --set evaluate.max_new_tokens={model.context // 2}"
        raise SpecInvalid(place, fault, remedy)
