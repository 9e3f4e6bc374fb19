"""Shared by the tests of the plan: the shipped catalog and a recipe to vary."""

from typing import Any

from thinktune.plan.training.plan import Plan, make_plan
from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.recipe import Recipe

CATALOG = load_catalog()


def a_recipe(model: str, hardware: str, **changes: Any) -> Recipe:
    """A recipe of 16 examples a step; keys of `data` and `train` go in as such mappings."""
    data = {"dataset": "inventory-sums", **changes.pop("data", {})}
    train = {"batch_size": 16, **changes.pop("train", {})}
    written = {"name": "test", "description": "", "model": model, "hardware": hardware}
    return Recipe.parse({**written, "data": data, "train": train, **changes}, "test")


def plan_of(recipe: Recipe, dataset: DatasetEntry | None = None) -> Plan:
    """Its plan on the shipped catalog; `dataset` says how many rows there are."""
    model, hardware = CATALOG.models[recipe.model], CATALOG.hardware[recipe.hardware]
    return make_plan(recipe, model, hardware, CATALOG.hardware, dataset=dataset)
