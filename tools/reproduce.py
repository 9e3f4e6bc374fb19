"""Runs the recipe of a published job, and prints its table beside the run's.

    python tools/reproduce.py JOB [--run NAME] [--cluster FILE] [--store URL] [--set KEY=VALUE]…

With a cluster file the recipe is submitted and followed, else it runs on this machine. The same
command again goes on from what is there. `make reproduce JOB=…` calls it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from thinktune.cli.options import read_cluster
from thinktune.recipes.references import load_reference, reference_names
from thinktune.schema.errors import ThinktuneError


def commands(
    job: str, run: str, cluster: str | None, store: str | None, overrides: list[str]
) -> list[list[str]]:
    """What is called in turn: the recipe, then the comparison. Raises SpecInvalid."""
    recipe = load_reference(job).recipe
    sets = [word for each in overrides for word in ("--set", each)]
    store = store or (read_cluster(Path(cluster)).store if cluster else None)
    at = ["--store", store] if store else []
    if cluster:
        first = ["submit", recipe, "--run", run, "--cluster", cluster, *sets]
    else:
        first = ["run", recipe, "--run", run, *at, *sets]
    compare = ["compare", run, "--reference", job, *at]
    return [[sys.executable, "-m", "thinktune", *words] for words in (first, compare)]


def main() -> int:
    """Runs both, and gives the exit code of the first that fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("job", choices=reference_names())
    parser.add_argument("--run", help="id of the run (default: reproduce-JOB)")
    parser.add_argument("--cluster", help="cluster file; without it, this machine")
    parser.add_argument("--store", help="default: the cluster's, or ./thinktune-store")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    run = given.run or f"reproduce-{given.job}"
    try:
        called = commands(given.job, run, given.cluster, given.store, given.overrides)
    except ThinktuneError as error:
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)
    for words in called:
        code = subprocess.run(words, check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
