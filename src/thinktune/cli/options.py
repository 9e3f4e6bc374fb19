"""Arguments that several commands take, spelled once."""

import os
import re
from pathlib import Path

import click

from thinktune.spec.catalog import NAME_RULE, is_name
from thinktune.spec.closed import parse_yaml
from thinktune.spec.cluster import Cluster
from thinktune.spec.compose import Catalog, load_catalog, load_recipe
from thinktune.spec.errors import SpecInvalid
from thinktune.spec.recipe import Recipe

STORE_VARIABLE = "THINKTUNE_STORE"
JOBS_VARIABLE = "THINKTUNE_JOBS"
CLUSTER_VARIABLE = "THINKTUNE_CLUSTER"
CLUSTER_FILE = "cluster.yaml"

recipe_argument = click.argument("recipe", metavar="RECIPE")
"""A name that `thinktune recipes` lists, or a path ending in .yaml."""

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting of the recipe, as in --set train.rank=32. Can be repeated.",
)

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json prints one object on stdout, for programs.",
)

store_option = click.option(
    "--store",
    metavar="URL",
    help="Where artifacts go: a folder, file:///path or s3://bucket/prefix.  "
    f"[default: ${STORE_VARIABLE}, else ./thinktune-store]",
)


cluster_option = click.option(
    "--cluster",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to run: store, images, secrets by name.  "
    f"[default: ${CLUSTER_VARIABLE}, else ./{CLUSTER_FILE}]",
)


def read_cluster(given: Path | None) -> Cluster:
    """The cluster as its file describes it. Raises SpecInvalid."""
    path = given or Path(os.environ.get(CLUSTER_VARIABLE) or CLUSTER_FILE)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        fault = f"no description of a cluster ({error.strerror})"
        remedy = "write one (`store: s3://bucket/prefix` is the least), or say --cluster FILE"
        raise SpecInvalid(str(path), fault, remedy) from None
    return Cluster.parse(parse_yaml(text, str(path)), str(path))


def read(recipe: str, overrides: tuple[str, ...]) -> tuple[Recipe, Catalog]:
    """Recipe and catalog, checked against each other."""
    folder = own_jobs()
    catalog = load_catalog(folder)
    return load_recipe(recipe, overrides, catalog=catalog, folder=folder), catalog


def run_name(given: str | None) -> str | None:
    """The name of a run, which becomes part of keys and labels. Raises SpecInvalid."""
    if given is not None and not is_name(given):
        raise SpecInvalid("--run", f"{given!r} is no name for a run", f"give it {NAME_RULE}")
    return given


def own_jobs() -> Path | None:
    """A folder with a catalog and recipes of the user's own, instead of those that ship."""
    given = os.environ.get(JOBS_VARIABLE)
    return Path(given) if given else None


def store_url(given: str | None) -> str:
    """The store's address: the option, the environment, or a folder here. A path becomes a URL."""
    place = given or os.environ.get(STORE_VARIABLE) or "thinktune-store"
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", place):
        return place
    return Path(place).absolute().as_uri()
