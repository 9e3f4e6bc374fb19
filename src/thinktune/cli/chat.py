"""`thinktune chat`: a conversation with a run, or with a server, in the terminal."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from thinktune.cli.chat_output import Screen
from thinktune.cli.options import complete_runs, store_option, store_url
from thinktune.cli.serve import engine_option, local_times, unpromoted_option
from thinktune.launch.chat_client import ChatClient, chat_body
from thinktune.launch.local import local_server
from thinktune.schema.catalog import NAME_RULE, is_name
from thinktune.schema.errors import SpecInvalid, ThinktuneError, near_misses
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.recipe import EngineChoice
from thinktune.schema.serve import BASE_MODEL, KEY_VARIABLE, ServeTask
from thinktune.store import open_store

HELP = """\
/new      forget the conversation
/think    let the model think (/no-think: do not)
/base     ask the base model (/tuned: the run's)
/exit     end, as Ctrl-D does; Ctrl-C ends an answer"""
COMMANDS = ("/new", "/think", "/no-think", "/base", "/tuned", "/exit", "/help")

key_file_option = click.option(
    "--key-file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help=f"File with the server's key.  [default: ${KEY_VARIABLE}]",
)  # fmt: skip


@click.command()
@click.argument("run_or_url", metavar="RUN|URL", shell_complete=complete_runs)
@click.argument("prompt", metavar="[PROMPT]...", nargs=-1)
@click.option("--arm", type=click.Choice(["tuned", "base"]), default="tuned", show_default=True,
    help="Ask the run's model, or its base model.")  # fmt: skip
@click.option("--no-think", is_flag=True, help="Ask for an answer without reasoning.")
@click.option("--think-budget", metavar="TOKENS", type=click.IntRange(min=1),
    help="Close the reasoning after this many tokens.")  # fmt: skip
@click.option("--show-thinking", is_flag=True, help="Show the reasoning, not its length alone.")
@click.option("--document", "documents", metavar="FILE", multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Text that answers may draw on. Can be repeated.")  # fmt: skip
@click.option("--max-tokens", metavar="TOKENS", type=click.IntRange(min=1),
    help="Longest answer, reasoning included.")  # fmt: skip
@click.option("--temperature", type=click.FloatRange(0, 2),
    help="Temperature of sampling.  [default: what the run was judged at]")  # fmt: skip
@key_file_option
@unpromoted_option
@engine_option
@store_option
def chat(
    run_or_url: str,
    prompt: tuple[str, ...],
    arm: str,
    no_think: bool,
    think_budget: int | None,
    show_thinking: bool,
    documents: tuple[Path, ...],
    max_tokens: int | None,
    temperature: float | None,
    key_file: Path | None,
    unpromoted: bool,
    engine: EngineChoice,
    store: str | None,
) -> int:
    """Talk to a run, or to a server, in the terminal.

    Given a run, it starts a server of its own for as long as it lasts. With a PROMPT, or with text
    on stdin, it prints one answer and ends.

    \b
    Examples:
      thinktune chat RUN
      thinktune chat RUN "A shop has 12 hats and sells 5. How many are left?"
      thinktune chat http://localhost:8080 --arm base --document notes.txt
    """
    asked = _prompt(prompt)
    settings = {
        "thinking_budget": think_budget,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "documents": _documents(documents),
    }
    with server_of(run_or_url, store, unpromoted, engine, key_file) as client:
        talk = _Talk(client, Screen(show_thinking=show_thinking), settings)
        talk.choose(arm)
        talk.thinks = not no_think
        if asked is not None:
            talk.ask(asked)
        else:
            talk.converse()
    return int(ExitCode.DONE)


@dataclass
class _Talk:
    """A conversation."""

    client: ChatClient
    screen: Screen
    settings: dict[str, Any]
    thinks: bool = True
    model: str = BASE_MODEL
    messages: list[dict[str, str]] = field(default_factory=list)

    def choose(self, arm: str) -> None:
        """Asks that arm from now on. Raises SpecInvalid where the server has none."""
        self.model = model_of(self.client.models(), arm)

    def ask(self, question: str) -> None:
        """One question and its answer, which stay in the conversation."""
        messages = [*self.messages, {"role": "user", "content": question}]
        thinking = None if self.thinks else False
        body = chat_body(self.model, messages, self.settings | {"thinking": thinking})
        said = self.screen.show(self.client.answer(body))
        self.messages = [*messages, {"role": "assistant", "content": said}]

    def converse(self) -> None:
        """Questions from the terminal until there are no more."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives `input` a history and editing
        self.screen.note(f"{self.model}; /help lists commands")
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                self.screen.note("")
                return
            except KeyboardInterrupt:
                self.screen.note("\n/exit or Ctrl-D ends")
                continue
            if line.startswith("/") and line.split()[0] in COMMANDS:
                if line == "/exit":
                    return
                self._command(line.split()[0])
            elif line:
                self._answered(line)

    def _answered(self, line: str) -> None:
        try:
            self.ask(line)
        except KeyboardInterrupt:
            self.screen.note("\n(stopped)")
        except ThinktuneError as error:
            self.screen.note(f"error: {error}")

    def _command(self, name: str) -> None:
        if name == "/new":
            self.messages = []
        elif name in ("/think", "/no-think"):
            self.thinks = name == "/think"
        elif name in ("/base", "/tuned"):
            self.choose(name[1:])
        if name == "/help":
            self.screen.note(HELP)
            return
        thinking = "" if self.thinks else ", without thinking"
        self.screen.note(f"{self.model}{thinking}, {len(self.messages) // 2} answers before")


def model_of(models: dict[str, dict[str, Any]], arm: str) -> str:
    """The name of that arm's first model. Raises SpecInvalid where the server has none."""
    found = [name for name, facts in models.items() if facts.get("arm", "tuned") == arm]
    if not found:
        raise SpecInvalid("--arm", f"the server has no {arm} model", near_misses(arm, models))
    return found[0]


@contextlib.contextmanager
def server_of(
    run_or_url: str,
    store: str | None,
    unpromoted: bool,
    engine: EngineChoice,
    key_file: Path | None,
) -> Iterator[ChatClient]:
    """The server that is named, or one of our own while the block runs."""
    if "://" in run_or_url:
        yield ChatClient(run_or_url, _key(key_file))
        return
    if not is_name(run_or_url):
        fault = f"{run_or_url!r} is neither a run nor an address"
        raise SpecInvalid("RUN|URL", fault, f"use {NAME_RULE}, or http://host:port")
    settings = {
        "run": run_or_url,
        "store": open_store(store_url(store)).url,
        "port": 0,
        "unpromoted": unpromoted,
        "engine": engine,
        "times": local_times().model_dump(),
    }
    task = ServeTask.parse(settings, f"thinktune chat {run_or_url}")
    os.environ.pop(KEY_VARIABLE, None)  # a server that this process alone talks to needs none
    with tempfile.TemporaryDirectory(prefix="thinktune-chat-") as folder:
        click.echo(f"loading {run_or_url} …", err=True)
        with local_server(task, Path(folder) / "server.log") as url:
            yield ChatClient(url, None)


def _key(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        return path.read_text(encoding="utf-8").split()[0]
    except (OSError, ValueError, IndexError):
        fault, remedy = "it holds no key", "name a text file with the key"
        raise SpecInvalid(f"--key-file {path}", fault, remedy) from None


def _prompt(words: tuple[str, ...]) -> str | None:
    """The question, from the arguments or a pipe; None for a conversation."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().strip()
    given = "\n\n".join(text for text in (" ".join(words), piped) if text)
    if not given and sys.stdin is not None and not sys.stdin.isatty():
        raise SpecInvalid("stdin", "it is empty, and there is no PROMPT", "give one of them")
    return given or None


def _documents(paths: tuple[Path, ...]) -> list[dict[str, str]] | None:
    found = []
    for path in paths:
        try:
            found.append({"name": path.name, "text": path.read_text(encoding="utf-8")})
        except (OSError, UnicodeDecodeError):
            fault, remedy = "it cannot be read as text", "name a text file in UTF-8"
            raise SpecInvalid(f"--document {path}", fault, remedy) from None
    return found or None
