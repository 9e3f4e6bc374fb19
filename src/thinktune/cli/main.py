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
    "recipes": ("recipes", "List the recipes that ship, with model and hardware."),
    "plan": ("plan", "Show what a recipe takes on its hardware, before anything runs."),
    "run": ("run", "Prepare, train and evaluate a recipe on this machine."),
    "doctor": ("doctor", "Check a cluster for a recipe: rights, secrets, nodes, images, store."),
    "render": ("render", "Write chart values and manifests of all stages."),
    "submit": ("submit", "Submit a recipe's stages to a cluster."),
    "status": ("status", "List runs, or show the stages of one."),
    "logs": ("logs", "Show the log of a stage, also after its pods are gone."),
    "why": ("status", "Explain in one paragraph why a run is where it is."),
    "fetch": ("fetch", "Download a stage's artifact, checked by its checksums."),
    "cancel": ("cancel", "End a run's Jobs; what is at work commits first."),
    "delete": ("cancel", "Remove a run: its Jobs, artifacts and checkpoints."),
    "completion": ("completion", "Print the completion script of a shell."),
}
"""Name → module below `thinktune.cli` and what the list says: only the one that is called is
loaded."""


class _Group(click.Group):
    """Says what commands there are when one is not known."""

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
            raise click.UsageError(f"no command '{args[0]}'; {known}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(thinktune.__version__, prog_name="thinktune")
def cli() -> None:
    """Fine-tune models that think: plan, run, and judge what came out."""


def _open_stdout() -> None:
    """Gives a process that was started with a closed stdout (`>&-`) one that goes nowhere."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def main() -> NoReturn:
    """Runs the command line; errors end as one paragraph on stderr and the table's exit code."""
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
        click.echo(str(failure), err=True)
        sys.exit(failure.code)
    except ThinktuneError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - the last line of defense
        traceback.print_exc()
        click.echo("error: that is a fault of thinktune's own; please report it", err=True)
        sys.exit(ExitCode.INTERNAL)
