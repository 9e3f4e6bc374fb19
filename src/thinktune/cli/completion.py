"""`thinktune completion`: the script that makes a shell complete commands, recipes and runs."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Examples:
      eval "$(thinktune completion bash)"
      eval "$(thinktune completion zsh)"
      thinktune completion fish | source
    """
    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "thinktune", "_THINKTUNE_COMPLETE").source())
