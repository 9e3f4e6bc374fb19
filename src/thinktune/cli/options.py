"""Arguments and options that several commands share."""

import contextlib
import os
import re
import threading
from pathlib import Path

import click

from thinktune.recipes.compose import Catalog, load_catalog, load_recipe, recipe_names
from thinktune.schema.catalog import NAME_RULE, is_name
from thinktune.schema.closed import parse_yaml
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import SpecInvalid, ThinktuneError
from thinktune.schema.recipe import Recipe
from thinktune.schema.stages import STAGES
from thinktune.store import Store, open_store

STORE_VARIABLE = "THINKTUNE_STORE"
JOBS_VARIABLE = "THINKTUNE_JOBS"
CLUSTER_VARIABLE = "THINKTUNE_CLUSTER"
CLUSTER_FILE = "cluster.yaml"
S3_ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_S3"
"""As boto3 and every other AWS client take it."""
COMPLETION_S = 3.0


def complete_recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of recipes, for the shell."""
    del ctx, param
    return [name for name in recipe_names(own_jobs()) if name.startswith(incomplete)]


def complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of runs, from Jobs and the store. The shell waits for this, so it gives up after a
    moment."""
    del param
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(ThinktuneError):
            cluster = read_cluster(ctx.params.get("cluster_file"))
            from thinktune.launch.cluster.kube import Kube
            from thinktune.launch.status.observed import known_runs

            found.extend(
                known_runs(Kube(cluster.namespace, ctx.params.get("context")), store_of(cluster))
            )

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(COMPLETION_S)
    return [run for run in found if run.startswith(incomplete)]


recipe_argument = click.argument("recipe", metavar="RECIPE", shell_complete=complete_recipes)
"""A name that `thinktune recipes` lists, or a path that ends in .yaml."""

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting of the recipe, as in --set train.rank=32. Can be repeated.",
)

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format. json prints JSON on stdout, for programs.",
)

store_option = click.option(
    "--store",
    metavar="URL",
    help="Store for artifacts: a folder, file:///path or s3://bucket/prefix.  "
    f"[default: ${STORE_VARIABLE}, else ./thinktune-store]",
)


cluster_option = click.option(
    "--cluster",
    "cluster_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Cluster file, which names the store, the images and the secrets.  "
    f"[default: ${CLUSTER_VARIABLE}, else ./{CLUSTER_FILE}]",
)


def run_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The name of a run, which becomes part of keys and labels. Raises SpecInvalid."""
    del ctx
    if value is not None and not is_name(value):
        place = "RUN" if isinstance(param, click.Argument) else param.opts[0]
        raise SpecInvalid(place, f"{value!r} is not a valid name for a run", f"use {NAME_RULE}")
    return value


run_argument = click.argument("run", metavar="RUN", shell_complete=complete_runs, callback=run_name)
"""Id of a run, as `thinktune status` lists it."""

optional_run_argument = click.argument(
    "run", metavar="[RUN]", required=False, shell_complete=complete_runs, callback=run_name
)

name_option = click.option(
    "--run",
    "name",
    metavar="NAME",
    callback=run_name,
    help="Id of the run.  [default: the recipe's name and a digest]",
)

stage_option = click.option(
    "--stage", type=click.Choice(STAGES), help="Stage to look at.  [default: the current one]"
)

context_option = click.option(
    "--context", metavar="NAME", help="Context in the kubeconfig.  [default: the current one]"
)


def store_of(cluster: Cluster) -> Store:
    """The cluster's store, reached from this machine: through AWS_ENDPOINT_URL_S3 if it is set
    here (for a port-forward, say), else through the endpoint in the cluster file."""
    endpoint = None if S3_ENDPOINT_VARIABLE in os.environ else cluster.store_endpoint
    return open_store(cluster.store, endpoint=endpoint)


def read_cluster(given: Path | None) -> Cluster:
    """Reads the cluster file. Raises SpecInvalid."""
    path = given or Path(os.environ.get(CLUSTER_VARIABLE) or CLUSTER_FILE)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SpecInvalid(str(path), "it is not UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        fault = f"the cluster file cannot be read ({error.strerror})"
        remedy = "write it (at least `store: s3://bucket/prefix`), or name another with --cluster"
        raise SpecInvalid(str(path), fault, remedy) from None
    return Cluster.parse(parse_yaml(text, str(path)), str(path))


def cluster_described() -> bool:
    """Whether there is a cluster file where commands look for one."""
    return bool(os.environ.get(CLUSTER_VARIABLE)) or Path(CLUSTER_FILE).exists()


def read_optional_cluster(given: Path | None) -> Cluster | None:
    """Reads the cluster file, for commands that do without one; None where none is named and there
    is none in the current folder. Raises SpecInvalid."""
    named = given is not None or os.environ.get(CLUSTER_VARIABLE)
    return read_cluster(given) if named or Path(CLUSTER_FILE).exists() else None


def read(recipe: str, overrides: tuple[str, ...]) -> tuple[Recipe, Catalog]:
    """Recipe and catalog, checked against each other."""
    folder = own_jobs()
    catalog = load_catalog(folder)
    return load_recipe(recipe, overrides, catalog=catalog, folder=folder), catalog


def own_jobs() -> Path | None:
    """The user's own folder of catalog and recipes, which replaces the one that ships."""
    given = os.environ.get(JOBS_VARIABLE)
    return Path(given) if given else None


def store_url(given: str | None) -> str:
    """The store's address, from the option, else the environment, else a folder in the current one.
    A path becomes a URL."""
    location = given or os.environ.get(STORE_VARIABLE) or "thinktune-store"
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", location):
        return location
    return Path(location).absolute().as_uri()
