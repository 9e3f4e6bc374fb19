"""`thinktune evaluate sheet` and `thinktune evaluate agreement`: what people say of a run's
answers.

`cli.evaluate` has the group that they are in.
"""

from pathlib import Path
from typing import Literal

import click
from click.core import ParameterSource

from thinktune.cli.options import output_option, run_argument, store_option, store_url
from thinktune.cli.people_output import show_agreement, show_ratings
from thinktune.launch.local import PEOPLE, ask_module
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.ratings import (
    AgreementReport,
    AgreementRequest,
    RatingSheetFacts,
    RatingSheetRequest,
    RatingsReport,
    RatingsRequest,
)

WRITING = ("questions", "raters", "arms", "kind", "reasoning", "seed", "folder")
"""Parameters of `sheet` that say what to write."""


@click.command()
@run_argument
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--read", is_flag=True, help="Read sheets that came back, one of each person.")
@click.option(
    "--questions", type=click.IntRange(min=1), default=40, show_default=True, metavar="N",
    help="Most questions, drawn from those of the evaluation.",
)  # fmt: skip
@click.option(
    "--raters", type=click.IntRange(1, 100), default=1, show_default=True, metavar="N",
    help="How many people rate. Each gets a file with the same rows in another order.",
)  # fmt: skip
@click.option(
    "--arm", "arms", multiple=True, metavar="NAME",
    help="Arm whose answers are rated. Can be repeated.  [default: base and tuned]",
)  # fmt: skip
@click.option("--reasoning", is_flag=True, help="Show the reasoning in a column beside the answer.")
@click.option(
    "--format", "kind", type=click.Choice(["xlsx", "csv"]), default="xlsx", show_default=True,
    help="Kind of sheet.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Seed that draws the questions.",
)  # fmt: skip
@click.option(
    "-o", "--out", "folder", type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write the sheets to.  [default: ./RUN/sheets]",
)  # fmt: skip
@click.option(
    "--keep", is_flag=True, help="With --read: put the report into the store, beside the key."
)
@store_option
@output_option
def sheet(
    run: str,
    files: tuple[str, ...],
    read: bool,
    questions: int,
    raters: int,
    arms: tuple[str, ...],
    reasoning: bool,
    kind: Literal["xlsx", "csv"],
    seed: int,
    folder: Path | None,
    keep: bool,
    store: str | None,
    output: str,
) -> int:
    """Write a run's answers to sheets for people to rate, and read the ratings back.

    A row holds a question, its reference and one answer, an empty cell for a rating from 1 to 5 and
    one for a comment. It does not say whose answer it is; the key to that stays in the store. The
    same command writes the same sheets again.

    With --read, shows what the ratings come to: means with intervals, a paired test, how far the
    people agree, and the rows that do not count.

    \b
    Examples:
      thinktune evaluate sheet RUN --questions 40 --raters 3
      thinktune evaluate sheet RUN --read anna.xlsx ben.csv
      thinktune evaluate sheet RUN --read anna.xlsx ben.csv --output json
    """
    _check(read, files, keep)
    if read:
        asked = RatingsRequest(run=run, store=store_url(store), files=files, keep=keep)
        answered = ask_module("thinktune.tasks.evaluate.people.ratings", asked, PEOPLE)
        report = RatingsReport.model_validate_json(answered)
        if output == "json":
            click.echo(report.model_dump_json(indent=1))
        else:
            show_ratings(report)
        return int(ExitCode.DONE)
    request = RatingSheetRequest(
        run=run,
        store=store_url(store),
        folder=str(folder or Path(run) / "sheets"),
        kind=kind,
        questions=questions,
        raters=raters,
        arms=arms,
        seed=seed,
        reasoning=reasoning,
    )
    answered = ask_module("thinktune.tasks.evaluate.people.sheet", request, PEOPLE)
    facts = RatingSheetFacts.model_validate_json(answered)
    if output == "json":
        click.echo(facts.model_dump_json(indent=1))
    else:
        _show_written(facts, questions)
    return int(ExitCode.DONE)


@click.command()
@run_argument
@click.option(
    "--labels", "files", metavar="FILE", multiple=True, required=True,
    help="One person's labels: .csv, .xlsx or .jsonl. Can be repeated.",
)  # fmt: skip
@store_option
@output_option
def agreement(run: str, files: tuple[str, ...], store: str | None, output: str) -> int:
    """Show how far the judge of a run agrees with people.

    FILE has a row for each answer: its `id`, and what a person says of it under `correct` (yes or
    no) or `rating` (1 to 5). The id is that of a row of `thinktune evaluate sheet`, whose filled
    sheets can be given as they are, or the `sample` of a row of the run's judge.jsonl.

    \b
    Examples:
      thinktune evaluate agreement RUN --labels labels.csv
      thinktune evaluate agreement RUN --labels anna.xlsx --labels ben.xlsx --output json
    """
    request = AgreementRequest(run=run, store=store_url(store), files=files)
    answered = ask_module("thinktune.tasks.evaluate.people.agreement", request, PEOPLE)
    report = AgreementReport.model_validate_json(answered)
    if output == "json":
        click.echo(report.model_dump_json(indent=1))
    else:
        show_agreement(report)
    return int(ExitCode.DONE)


def _check(read: bool, files: tuple[str, ...], keep: bool) -> None:
    """Raises SpecInvalid for what does not go together."""
    if read and not files:
        raise SpecInvalid("--read", "no file is given", "name the sheets that came back")
    if files and not read:
        fault = "files are given, and nothing is to be read"
        raise SpecInvalid(files[0], fault, "add --read before them")
    if keep and not read:
        raise SpecInvalid("--keep", "there is no report to keep", "use it with --read")
    context = click.get_current_context()
    said = [
        param
        for param in context.command.params
        if param.name in WRITING
        and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]
    if read and said:
        fault = "it says what to write, and --read writes nothing"
        raise SpecInvalid(said[0].opts[-1], fault, "leave one of the two out")


def _show_written(facts: RatingSheetFacts, wanted: int) -> None:
    for file in facts.files:
        click.echo(file)
    fewer = f" (the evaluation has no more than {facts.questions})"
    click.echo(
        f"{facts.rows} answers to {facts.questions} questions"
        f"{fewer if facts.questions < wanted else ''}, of {' and '.join(facts.arms)}, in each"
    )
    if facts.cut:
        click.echo(f"{facts.cut} texts are too long for a cell: their middle is left out")
    again = "as an earlier call wrote them; " if facts.written_before else ""
    click.echo(f"{again}whose answers they are stands in {facts.key}: show it to no rater")
