"""`thinktune`: the group of commands, and how every one of them ends."""

import sys
from typing import NoReturn

import click

import thinktune
from thinktune.cli.plan import plan
from thinktune.cli.recipes import recipes
from thinktune.cli.render import render
from thinktune.cli.run import run
from thinktune.launch.local import StageFailed
from thinktune.spec.errors import ThinktuneError, near_misses
from thinktune.spec.exit_codes import ExitCode


class _Group(click.Group):
    """Says what commands there are when one is not known."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = near_misses(args[0], self.list_commands(ctx))
            raise click.UsageError(f"no command '{args[0]}'; {known}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(thinktune.__version__, prog_name="thinktune")
def cli() -> None:
    """Fine-tune models that think: plan, run, and judge what came out."""


cli.add_command(plan)
cli.add_command(recipes)
cli.add_command(render)
cli.add_command(run)


def main() -> NoReturn:
    """Runs the command line; errors end as one paragraph on stderr and the table's exit code."""
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.UsageError as error:
        error.show()
        sys.exit(ExitCode.SPEC_INVALID)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except StageFailed as failure:
        click.echo(str(failure), err=True)
        sys.exit(failure.code)
    except ThinktuneError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`thinktune recipes | head`): nothing is wrong.
        sys.stderr.close()
        sys.exit(0)
