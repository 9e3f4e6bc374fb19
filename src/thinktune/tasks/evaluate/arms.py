"""What answers for the arms of an evaluation: an engine for each precision."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from thinktune.schema.arms import Arm
from thinktune.schema.engines import INSTRUCTION_MARGIN_TOKENS, Chosen, choose
from thinktune.schema.report import Precision
from thinktune.schema.stages import EvaluateTask
from thinktune.tasks.evaluate.inputs import Inputs
from thinktune.tasks.evaluate.report.build import ArmInfo
from thinktune.tasks.generate.protocol import Engine
from thinktune.tasks.generate.transformers import TransformersEngine
from thinktune.tasks.generate.vllm import VllmEngine, vllm_installed
from thinktune.tasks.model.base import compute_capability
from thinktune.tasks.runtime.progress import Reporter


class Engines:
    """Opens the engine of one precision at a time."""

    def __init__(
        self, task: EvaluateTask, inputs: Inputs, weights: Path, reporter: Reporter
    ) -> None:
        """`weights` is the base model's folder. Raises SpecInvalid for an engine that the recipe
        names and that is not there."""
        self._task = task
        self._inputs = inputs
        self._weights = weights
        self.chosen: Chosen = choose(
            task.evaluate.engine,
            task.model,
            compute_capability(),
            vllm_installed=vllm_installed(),
        )
        reporter.say(f"answers come from {self.chosen.name}: {self.chosen.reason}")

    def info(self, arm: Arm) -> ArmInfo:
        """What the report says of an arm."""
        engine = f"{self.chosen.name} {engine_version(self.chosen.name)}".strip()
        return ArmInfo(arm.label, engine, self.chosen.reason, arm.precision_words())

    @contextmanager
    def open(self, precision: Precision) -> Iterator[Engine]:
        """The engine while the block runs; it loads the model when the first answer is missing."""
        with closing(self._make(precision)) as engine:
            yield engine

    def _make(self, precision: Precision) -> Engine:
        task, adapter = self._task, self._inputs.folder / "train"
        if self.chosen.name == "transformers":
            return TransformersEngine(
                self._weights,
                adapter,
                entry=task.model,
                base=precision,
                dtype=task.dtype,
                rows=task.evaluate.batch_size,
            )
        prompt = max(len(row["prompt_ids"]) for row in self._inputs.rows)
        words = len((task.evaluate.instruction or "").encode()) + INSTRUCTION_MARGIN_TOKENS
        return VllmEngine(
            self._weights,
            adapter,
            repo=task.model.repo,
            base=precision,
            dtype=task.dtype,
            window=prompt + words + task.evaluate.max_new_tokens,
            context=task.model.context,
        )


def engine_version(name: str) -> str:
    """Version of the package that the engine runs, under either of its names on PyPI."""
    for package in (name, f"{name}-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""
