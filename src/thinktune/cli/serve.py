"""`thinktune serve`: a run behind a chat page and an API."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import get_args

import click
from click.core import ParameterSource

from thinktune.cli.options import complete_runs, store_option, store_url
from thinktune.cli.serve_cluster import OnCluster, cluster_options, serve_on_cluster
from thinktune.launch.local import serve_local
from thinktune.schema.catalog import NAME_RULE, is_name
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.recipe import EngineChoice
from thinktune.schema.serve import KEY_VARIABLE, SLOW_TIMES, USUAL_TIMES, ServeTask, ServeTimes
from thinktune.store import open_store

OF_THIS_MACHINE = ("port", "host", "key_file", "opens", "documents", "store")
"""Parameters that a server on a cluster has in its chart or in the cluster file."""

unpromoted_option = click.option(
    "--unpromoted", is_flag=True,
    help="Serve a run that its evaluation did not promote, or that has no evaluation.",
)  # fmt: skip
engine_option = click.option(
    "--engine", type=click.Choice(get_args(EngineChoice)), default="auto", show_default=True,
    help="What computes the answers. auto takes vLLM where it is installed.",
)  # fmt: skip
documents_option = click.option(
    "--documents", metavar="DIR", type=click.Path(path_type=Path),
    help="Folder of text files. Passages of them stand in front of questions that ask for it.",
)  # fmt: skip
window_option = click.option(
    "--window", metavar="TOKENS", type=click.IntRange(min=16),
    help="Longest conversation with its answer.  [default: what the model supports, at most 8192]",
)  # fmt: skip


@click.command()
@click.argument("runs", metavar="[RUN…]", nargs=-1, shell_complete=complete_runs)
@click.option("--local", is_flag=True, help="Serve on this machine, not on a cluster.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
    help="Port to listen on. 0 takes a free one.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True,
    help="Address to listen on. One that others reach needs a key.")  # fmt: skip
@click.option(
    "--key-file", metavar="FILE", type=click.Path(path_type=Path),
    help=f"File with the keys that clients may send, one a line.  [default: ${KEY_VARIABLE}]",
)  # fmt: skip
@click.option("--open", "opens", is_flag=True, help="Open the chat page once the model is loaded.")
@unpromoted_option
@engine_option
@window_option
@documents_option
@store_option
@cluster_options
def serve(
    runs: tuple[str, ...],
    local: bool,
    port: int,
    host: str,
    key_file: Path | None,
    opens: bool,
    unpromoted: bool,
    engine: EngineChoice,
    window: int | None,
    documents: Path | None,
    store: str | None,
    on_cluster: OnCluster,
) -> int:
    """Serve runs: a chat page and an API like OpenAI's.

    The model of the run has its id as its name, and its base model is `base`. Before anything is
    loaded, the base model, the adapter and the prompts are checked against what was trained and
    judged. Ctrl-C lets running answers end.

    \b
    Examples:
      thinktune serve RUN --local
      thinktune serve RUN --local --port 9000 --documents handbook
      thinktune serve RUN --cluster cluster.yaml --replicas 2
    """
    for run in runs:
        if not is_name(run):
            raise SpecInvalid("RUN", f"{run!r} is not a valid name for a run", f"use {NAME_RULE}")
    if not local:
        _check_place(local=False)
        return serve_on_cluster(
            runs, on_cluster, window=window, engine=engine, unpromoted=unpromoted
        )
    if len(runs) != 1:
        fault = f"a machine serves one run, and {len(runs)} are named"
        raise SpecInvalid("thinktune serve --local", fault, "name one: thinktune serve RUN --local")
    _check_place(local=True)
    settings = {
        "run": runs[0],
        "store": open_store(store_url(store)).url,
        "host": host,
        "port": port,
        "key_file": absolute(key_file),
        "engine": engine,
        "window": window,
        "unpromoted": unpromoted,
        "documents": absolute(documents),
        "times": local_times().model_dump(),
    }
    task = ServeTask.parse(settings, f"thinktune serve {runs[0]}")
    serve_local(task, click.echo, up=_open_page if opens else None)
    return int(ExitCode.DONE)


def _check_place(*, local: bool) -> None:
    """Raises SpecInvalid for an option of the other place, which would change nothing here."""
    context = click.get_current_context()
    others = tuple(OnCluster.__dataclass_fields__) if local else OF_THIS_MACHINE
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in others or source is not ParameterSource.COMMANDLINE:
            continue
        option = parameter.opts[0]
        fault = "it is of a server on this machine, and this one goes to a cluster"
        remedy = f"leave it out, or serve on this machine: thinktune serve RUN --local {option} …"
        if local:
            fault = "it is of a server on a cluster, and --local serves on this machine"
            remedy = "leave it out, or leave --local out"
        raise SpecInvalid(option, fault, remedy)


def _open_page(url: str) -> None:
    """In the desktop's browser, where there is a desktop."""
    if sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        webbrowser.open(url)
    else:
        click.echo(f"open {url} in a browser")


def local_times() -> ServeTimes:
    """How long an engine of this machine may say nothing: a CPU reads a long prompt for minutes."""
    return USUAL_TIMES if list(Path("/dev").glob("nvidia[0-9]*")) else SLOW_TIMES


def absolute(path: Path | None) -> str | None:
    """The path as a process elsewhere finds it."""
    return None if path is None else str(path.absolute())
