"""How the small programs behind `thinktune data` end: an answer on stdout, or an error on stderr
with the exit code of the table."""

import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from thinktune.schema.errors import ThinktuneError
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.stages import PrepTask
from thinktune.store import new_attempt, open_store
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop


def quiet_context(task: PrepTask, stop: Stop) -> Context:
    """What surrounds a stage, for a program that tells nobody how far it is."""
    store, attempt = open_store(task.store), new_attempt()
    return Context(store, attempt, Reporter(store, task.run, "prep", attempt, quiet=True), stop)


def answer(work: Callable[[str], str]) -> NoReturn:
    """Gives `work` the request from stdin, prints what it returns, and ends the process."""
    try:
        said = work(sys.stdin.read())
    except ThinktuneError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one relay
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception:  # noqa: BLE001 - the last line of defense
        traceback.print_exc()
        sys.exit(ExitCode.INTERNAL)
    print(said)  # noqa: T201 - the answer
    sys.exit(ExitCode.DONE)
