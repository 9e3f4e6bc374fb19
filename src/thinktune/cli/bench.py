"""`thinktune bench serve`: a server under rising load."""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from thinktune.cli.bench_output import HEAD, knee_line, row
from thinktune.cli.chat import key_file_option, model_of, server_of
from thinktune.cli.options import (
    complete_runs,
    output_option,
    run_name,
    store_option,
    store_url,
)
from thinktune.cli.serve import engine_option, unpromoted_option
from thinktune.launch.chat_client import ChatClient, chat_body
from thinktune.launch.load.figures import clients, knee
from thinktune.launch.load.page import write_page
from thinktune.launch.load.questions import read_questions
from thinktune.launch.local import ask_module, check_packages
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.load import HeldOut, HeldOutRequest, LoadLevel, LoadReport
from thinktune.schema.recipe import EngineChoice

LEVELS = "1,2,4,8,16,32"
CHAT_PATH = "/v1/chat/completions"
WARM_TOKENS = 8


@click.group()
def bench() -> None:
    """Measure how much load a server carries."""


def _levels(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Numbers with commas, each higher than the last. Raises SpecInvalid."""
    del ctx, param
    words = value.split(",")
    levels = tuple(int(word) for word in words if word.strip().isdecimal())
    rising = all(low < high for low, high in pairwise(levels))
    if len(levels) != len(words) or not rising or min(levels, default=0) < 1:
        fault = f"{value!r} is no list of rising numbers"
        raise SpecInvalid("--concurrency", fault, f"write one as in {LEVELS}")
    return levels


@bench.command("serve")
@click.argument("run_or_url", metavar="RUN|URL", shell_complete=complete_runs)
@click.option("--concurrency", metavar="N,…", default=LEVELS, show_default=True, callback=_levels,
    help="How many clients ask at a time, one level after the other.")  # fmt: skip
@click.option("--requests", metavar="N", type=click.IntRange(min=1),
    help="Requests of each level, at least one a client.  "
    "[default: four a client, at least 16]")  # fmt: skip
@click.option("--questions", "file", metavar="FILE", type=click.Path(path_type=Path),
    help="Questions to ask: a text file with one on each line, or a .jsonl file with `question` in "
    "each row.  [default: held-out ones of a run]")  # fmt: skip
@click.option("--run", "name", metavar="RUN", callback=run_name,
    help="Run whose held-out questions are asked.  [default: the one that is served]")  # fmt: skip
@click.option("--arm", type=click.Choice(["tuned", "base"]), default="tuned", show_default=True,
    help="Ask the run's model, or its base model.")  # fmt: skip
@click.option("--max-tokens", metavar="TOKENS", type=click.IntRange(min=1),
    help="Longest answer, reasoning included.  [default: the server's]")  # fmt: skip
@click.option("--stalled-after", "silent_s", metavar="SECONDS", default=120.0, show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds without a word, after which an answer has failed.")  # fmt: skip
@click.option("--html", "page", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with plots.")  # fmt: skip
@key_file_option
@unpromoted_option
@engine_option
@store_option
@output_option
def serve(
    run_or_url: str,
    concurrency: tuple[int, ...],
    requests: int | None,
    file: Path | None,
    name: str | None,
    arm: str,
    max_tokens: int | None,
    silent_s: float,
    page: Path | None,
    key_file: Path | None,
    unpromoted: bool,
    engine: EngineChoice,
    store: str | None,
    output: str,
) -> int:
    """Ask a server a run's held-out questions, with more and more clients.

    At each level it measures the time to the first token, between tokens and of whole answers,
    tokens and requests per second, and what failed. The knee is the level beyond which clients wait
    longer and get hardly more. Given a run, it starts a server of its own for as long as it lasts.
    Ctrl-C ends the test and shows what was measured.

    \b
    Examples:
      thinktune bench serve RUN --concurrency 1,2,4
      thinktune bench serve http://localhost:8080 --html load.html
      thinktune bench serve https://chat.example.com --key-file key --questions asked.txt
    """
    check_packages("thinktune bench serve", ("aiohttp",), "serve")
    _check_page(page)
    if file is not None and name is not None:
        raise SpecInvalid("--questions", "--run names questions too", "give one of them")
    given = None if file is None else read_questions(file)
    say = _say(output)
    with server_of(run_or_url, store, unpromoted, engine, key_file) as client:
        models = client.models()
        model = model_of(models, arm)
        questions = given or _held_out(name or _served_run(models), store)
        settings = {"max_tokens": max_tokens}
        bodies = [
            chat_body(model, [{"role": "user", "content": each}], settings) for each in questions
        ]
        say(f"{client.url}: {model}, {len(questions):,} different questions")
        _warm(client, bodies[0])
        levels, stopped = _drive(client, bodies, concurrency, requests, silent_s, say)
    if not levels:
        raise KeyboardInterrupt
    report = _report(client.url, model, len(questions), max_tokens, levels)
    if page is not None:
        write_page(page, report)
    say(knee_line(report))
    if output == "json":
        click.echo(report.model_dump_json(indent=1))
    return _code(client, report, stopped)


def _say(output: str) -> Callable[[str], None]:
    """Lines for people; where stdout is for programs, they go to stderr."""
    return lambda line: click.echo(line, err=output == "json")


def _drive(
    client: ChatClient,
    bodies: list[dict[str, Any]],
    concurrency: tuple[int, ...],
    requests: int | None,
    silent_s: float,
    say: Callable[[str], None],
) -> tuple[list[LoadLevel], bool]:
    # They load aiohttp, which not everybody has who asks for help.
    from thinktune.launch.load.drive import Load, drive
    from thinktune.launch.load.timing import streamed

    asked = [streamed(body) for body in bodies]
    load = Load(client.url + CHAT_PATH, client.key, asked, concurrency, requests, silent_s)
    say(HEAD)
    return drive(load, lambda level: say(row(level)))


def _report(
    url: str, model: str, questions: int, max_tokens: int | None, levels: list[LoadLevel]
) -> LoadReport:
    return LoadReport(
        server=url,
        model=model,
        questions=questions,
        max_tokens=max_tokens,
        levels=tuple(levels),
        knee=knee(levels),
    )


def _code(client: ChatClient, report: LoadReport, stopped: bool) -> int:
    """The exit code. Raises ServiceUnavailable where the last level had no answer."""
    if stopped:
        return int(ExitCode.INTERRUPTED)
    last = report.levels[-1]
    if not last.answered:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in last.failures.items())
        fault = f"no request of {clients(last.concurrency)} was answered ({kinds})"
        remedy = "see the server's log, or ask with fewer clients"
        raise ServiceUnavailable(client.url, fault, remedy)
    return int(ExitCode.DONE)


def _check_page(path: Path | None) -> None:
    """Raises SpecInvalid where no page can be written there, before an hour is measured."""
    if path is None:
        return
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        fault, remedy = "it cannot be written", "name a file in a folder of yours"
        raise SpecInvalid(f"--html {path}", fault, remedy)


def _served_run(models: dict[str, dict[str, Any]]) -> str:
    """The run that the server serves. Raises SpecInvalid for a server that is none of ours."""
    for name, facts in models.items():
        if facts.get("arm") == "tuned":
            return str(facts.get("run", name))
    fault = "the server does not say which run it serves"
    raise SpecInvalid("thinktune bench serve", fault, "give --questions or --run")


def _held_out(run: str, store: str | None) -> tuple[str, ...]:
    request = HeldOutRequest(run=run, store=store_url(store))
    answered = ask_module("thinktune.tasks.prep.held_out", request)
    return HeldOut.model_validate_json(answered).questions


def _warm(client: ChatClient, body: dict[str, Any]) -> None:
    """One short answer, so that the first level meets a server at work, and a server that refuses
    says why. Raises SpecInvalid, ServiceUnavailable."""
    for _ in client.answer(body | {"max_tokens": WARM_TOKENS}):
        pass
