"""`thinktune logs`: the log of a stage, from its pods or from the store."""

import re
import time
from pathlib import Path

import click

from thinktune.cli.options import (
    cluster_option,
    context_option,
    read_cluster,
    run_argument,
    stage_option,
    store_of,
)
from thinktune.cli.servers import named_server, server_logs
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.status.chain import first_that_matters
from thinktune.launch.status.observed import SUBMITTED, Observed, observe_all
from thinktune.launch.status.stored_logs import stored_lines
from thinktune.launch.status.tail import Tail
from thinktune.launch.status.watch import POLL_S, Say, Watch
from thinktune.launch.status.why import look
from thinktune.schema.errors import InputMissing
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.stages import STAGES, Stage


@click.command()
@run_argument
@stage_option
@click.option(
    "-f", "--follow", is_flag=True, help="Follow the log until the stage ends, through restarts."
)
@click.option("--rank", type=click.IntRange(min=0), help="Show only lines of this rank.")
@cluster_option
@context_option
def logs(
    run: str,
    stage: Stage | None,
    follow: bool,
    rank: int | None,
    cluster_file: Path | None,
    context: str | None,
) -> int:
    """Show the log of a stage, even after its pods are gone.

    Once the pods are gone, the log comes from the store.

    \b
    Examples:
      thinktune logs -f RUN
      thinktune logs RUN --stage train --rank 1
    """
    cluster = read_cluster(cluster_file)
    kube, store = Kube(cluster.namespace, context), store_of(cluster)
    server = named_server(run, kube, store)
    if server is not None:
        return server_logs(server, kube, store, follow=follow)
    seen = _chosen(observe_all(run, kube, store), stage)

    def say(line: str) -> None:
        if rank is None or _rank_of(line) == rank:
            click.echo(line)

    if follow and seen.state in SUBMITTED:
        _follow(Watch(run, seen.stage, kube, store, _remark), say)
        return int(ExitCode.DONE)
    said = False
    for line in stored_lines(seen, kube, store):
        said = True
        say(line)
    if not said:
        why = look(seen, kube)
        raise InputMissing(f"log of {seen.stage}", f"there is none. {why.cause}", why.remedy)
    return int(ExitCode.DONE)


def _remark(text: str) -> None:
    """Prints what is not a line of the log."""
    click.echo(text, err=True)


def _chosen(stages: list[Observed], stage: Stage | None) -> Observed:
    if stage is not None:
        return next(each for each in stages if each.stage == stage)
    at = first_that_matters(stages)
    if at.state in ("absent", "waiting") and at.stage != STAGES[0]:
        at = stages[STAGES.index(at.stage) - 1]
    return at


def _follow(watch: Watch, say: Say) -> None:
    tail = Tail(watch.kube, say)
    try:
        while True:
            seen = watch.attempt(watch.observe)
            if seen is not None:
                tail.follow(seen.pods)
                if seen.state not in SUBMITTED:
                    break
                if seen.state != "running":
                    watch.remark(look(seen, watch.kube).paragraph())
            time.sleep(POLL_S)
        tail.drain()
        watch.remark(look(seen, watch.kube).paragraph())
    finally:
        tail.close()


def _rank_of(line: str) -> int | None:
    """Ranks but the first mark what they say, and so do pods of several nodes: what comes from
    another pod than the first and has no rank is of its launcher."""
    found = re.match(r"(?:\[(\d+)\] )?(?:\[rank (\d+)\] )?", line)
    assert found is not None
    if found[2] is not None:
        return int(found[2])
    return 0 if found[1] in (None, "0") else None
