"""Figures of each step: `metrics.jsonl` always, trackers where the recipe names them.

Called by `step_log` and `lifecycle`. The file goes into checkpoints, so after a resume it reads as
if the training had never stopped.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator

from thinktune.schema.manifest import MetricValue


class Metrics:
    """Appends rows: one per optimizer step, and one per validation."""

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path = path
        self._accelerator = accelerator
        path.touch()

    def resume(self, earlier: Path) -> None:
        """Takes over the rows of a checkpoint."""
        self.path.write_bytes(earlier.read_bytes())

    def add(self, step: int, row: Mapping[str, MetricValue]) -> None:
        """Writes one row and passes its numbers on to the trackers."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")
        self._accelerator.log({k: v for k, v in row.items() if isinstance(v, int | float)}, step)

    def rows(self) -> list[dict[str, MetricValue]]:
        """All rows so far."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
