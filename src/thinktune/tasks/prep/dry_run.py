"""What writing a column by a language model would send and cost: `python -m
thinktune.tasks.prep.dry_run`.

Called by `thinktune data generate --dry-run`. Reads a prep task from stdin, prints an estimate, and
sends the language model nothing. A dataset of the hub is fetched, as prep would.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, NoReturn

from thinktune.llm.estimate import Estimate
from thinktune.llm.generate import plan
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.stages import PrepTask
from thinktune.tasks.prep.answering import quiet_context
from thinktune.tasks.prep.readers.records import Record
from thinktune.tasks.prep.sources import open_source
from thinktune.tasks.runtime.answering import answer
from thinktune.tasks.runtime.stopping import Stop


def main() -> NoReturn:
    """Answers one request."""
    answer(_answered)


def _answered(said: str) -> str:
    return json.dumps(dataclasses.asdict(estimate(PrepTask.model_validate_json(said))))


def estimate(task: PrepTask) -> Estimate:
    """Reads all rows. Raises SpecInvalid where the recipe asks no language model."""
    spec = task.data.generate
    if spec is None:
        fault = "the recipe asks no language model"
        raise SpecInvalid("data.generate", fault, "set it, or take a recipe that has it")
    context = quiet_context(task, Stop())
    with open_source(task, context) as source:
        return plan(_rows(source.records), spec, store=context.store)


def _rows(records: Iterator[Record]) -> Iterator[dict[str, Any]]:
    return (record.row for record in records if record.row is not None)


if __name__ == "__main__":
    main()
