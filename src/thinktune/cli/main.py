"""`thinktune`: the group of commands, and how every one of them ends."""

import importlib
import os
import sys
import traceback
from typing import NoReturn

import click

import thinktune
from thinktune.schema.errors import StageFailed, ThinktuneError, near_misses
from thinktune.schema.exit_codes import ExitCode

COMMANDS = {
    "recipes": ("recipes", "List the recipes with their models and hardware."),
    "data": ("data", "Look at a dataset before a run, or at what a run has learned from."),
    "evaluate": (
        "evaluate",
        "Judge answers of any origin, with people or without, and look closer at a run's own.",
    ),
    "compare": ("evaluate", "Compare the evaluations of several runs."),
    "plan": ("plan", "Show the memory, time and money that a recipe needs, before anything runs."),
    "run": ("run", "Prepare, train and evaluate a recipe on this machine."),
    "serve": ("serve", "Serve runs: a chat page and an API like OpenAI's."),
    "chat": ("chat", "Talk to a run, or to a server, in the terminal."),
    "bench": ("bench", "Measure how much load a server carries."),
    "promote": ("serve_cluster", "Put a run behind the name of a server while it serves."),
    "doctor": ("doctor", "Check whether a cluster can run a recipe."),
    "render": ("render", "Write the chart values and manifests of a recipe's stages."),
    "submit": ("submit", "Submit a recipe to a cluster and follow it."),
    "status": ("status", "List runs and servers, or show the stages of one run, or one server."),
    "logs": ("logs", "Show the log of a stage, even after its pods are gone."),
    "why": ("status", "Explain the state of a run or of a server in one paragraph."),
    "fetch": ("fetch", "Download the artifact of a stage and verify its checksums."),
    "export": ("publish", "Write a run as a folder that transformers, PEFT and vLLM load."),
    "publish": ("publish", "Push a run to the Hugging Face hub, to a bucket or into a folder."),
    "cancel": ("cancel", "Stop a run after it has saved its progress, or end a server."),
    "delete": ("cancel", "Delete a run: its Jobs, artifacts and checkpoints; or end a server."),
    "completion": ("completion", "Print the completion script for a shell."),
}
"""Command → its module below `thinktune.cli` and its line in `thinktune --help`. Only the module of
the command that is called is loaded."""


class _Group(click.Group):
    """Loads commands lazily, and lists them when a command is unknown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"thinktune.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            known = near_misses(args[0], COMMANDS, shown=len(COMMANDS))
            raise click.UsageError(f"unknown command '{args[0]}'; {known}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(thinktune.__version__, prog_name="thinktune")
def cli() -> None:
    """Fine-tune reasoning models: plan a training, run it here or on a cluster, judge and serve it.

    \b
    Examples:
      thinktune run demo                   # everything on this machine, in minutes
      thinktune plan qwen-32b              # memory and time, before anything runs
      thinktune submit qwen-32b            # on the cluster that cluster.yaml describes
    """


def _open_stdout() -> None:
    """Gives a process that was started with a closed stdout (`>&-`) one that goes nowhere."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def main() -> NoReturn:
    """Runs the command line. An error ends as one paragraph on stderr and an exit code of the
    table."""
    _open_stdout()
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except BrokenPipeError:
        # Whoever read has enough, as in `thinktune status | head`. What the interpreter still
        # flushes at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)  # as click ends where a command is still writing
    except click.UsageError as error:
        error.show()
        sys.exit(ExitCode.SPEC_INVALID)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.stdout.flush()
        # Not `sys.exit`: it waits for threads, which may have gigabytes to go.
        os._exit(ExitCode.INTERRUPTED)
    except StageFailed as failure:
        if str(failure):
            click.echo(str(failure), err=True)
        sys.exit(failure.code)
    except ThinktuneError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - the last line of defense
        traceback.print_exc()
        click.echo(
            "error: this is a bug in thinktune; please report it with the traceback above", err=True
        )
        sys.exit(ExitCode.INTERNAL)
