"""How a small program behind a command ends: an answer on stdout, or an error on stderr with the
exit code of the table.

Called by the modules that `launch.local.ask_module` runs.
"""

import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from thinktune.schema.errors import ThinktuneError
from thinktune.schema.exit_codes import ExitCode


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
