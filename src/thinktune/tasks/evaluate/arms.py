"""What answers for the arms of an evaluation: an engine for each precision."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from thinktune.schema.arms import Arm
from thinktune.schema.engines import INSTRUCTION_MARGIN_TOKENS, Chosen, choose
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.recipe import MERGED, Precision
from thinktune.schema.stages import EvaluateTask
from thinktune.tasks.evaluate.completions import longest_completion
from thinktune.tasks.evaluate.inputs import Inputs
from thinktune.tasks.evaluate.report.build import ArmInfo
from thinktune.tasks.generate.protocol import Engine
from thinktune.tasks.generate.transformers import TransformersEngine
from thinktune.tasks.generate.vllm import VllmEngine, vllm_installed
from thinktune.tasks.model.base import (
    Base,
    compute_capability,
    compute_dtype,
    local_device,
)
from thinktune.tasks.model.merge import merge
from thinktune.tasks.runtime.progress import Reporter
from thinktune.text.tokens import Encoder


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
        self._reporter = reporter
        self._merged = inputs.folder / "merged"
        if "fp8" in task.evaluate.precisions and self.chosen.name != "vllm":
            fault = f"answers come from {self.chosen.name}, which has no FP8 ({self.chosen.reason})"
            remedy = "leave fp8 out, or evaluate on a GPU of compute capability 8.0 or more"
            raise SpecInvalid("evaluate.precisions", fault, remedy)

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
        task, base = self._task, _base_of(precision)
        adapter = self._inputs.folder / "train" if precision not in MERGED else None
        weights = self._weights if adapter is not None else self._merged_weights()
        if self.chosen.name == "transformers":
            return TransformersEngine(
                weights,
                adapter,
                entry=task.model,
                base=base,
                dtype=task.dtype,
                rows=task.evaluate.batch_size,
            )
        words = len((task.evaluate.instruction or "").encode()) + INSTRUCTION_MARGIN_TOKENS
        window = self._inputs.longest_prompt() + words + task.evaluate.max_new_tokens
        if task.evaluate.perplexity:
            encoder = Encoder(self._weights / "tokenizer.json")
            window = max(window, longest_completion(task, self._inputs.rows, encoder) + 1)
        return VllmEngine(
            weights,
            adapter,
            repo=task.model.repo,
            base=base,
            fp8=precision == "fp8",
            dtype=task.dtype,
            window=window,
            context=task.model.context,
            scores=task.evaluate.perplexity,
        )

    def _merged_weights(self) -> Path:
        """The folder with the merged model, which is made once."""
        if not self._merged.exists():
            self._reporter.say("merges the adapter into the base, in fp32")
            device = local_device()
            merge(
                self._weights,
                self._inputs.folder / "train",
                self._merged,
                base=self._task.base,
                dtype=compute_dtype(self._task.dtype, device),
                device=device,
                beat=self._reporter.heartbeat,
            )
        return self._merged


def _base_of(precision: Precision) -> Base:
    return "nf4" if precision == "nf4" else "16bit"


def engine_version(name: str) -> str:
    """Version of the package that the engine runs, under either of its names on PyPI."""
    for package in (name, f"{name}-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""
