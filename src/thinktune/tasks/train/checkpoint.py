"""Checkpoints: adapter, optimizer and metrics so far, committed like any artifact.

Called by `lifecycle` and `stage`. Safetensors and JSON only. The step's number says where in the
data the training is; the learning rate and the random state of a step follow from it, so none of
them needs a file. Where the best adapter is taken, each checkpoint also holds the best one so far:
no other checkpoint is needed to go on, whichever are removed or damaged. Older checkpoints are
removed once a newer one is committed; a damaged one is passed over for the one before it.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import PeftConfig
from safetensors.torch import load_file, save_file

from thinktune.schema.errors import InputMissing
from thinktune.schema.keys import checkpoint_prefix
from thinktune.schema.manifest import Manifest
from thinktune.store import commit, fetch, read_manifest
from thinktune.store.adapters import checkpoint_steps
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import utc_now
from thinktune.tasks.train.adapter_optimizer import AdapterOptimizer
from thinktune.tasks.train.guard import SpikeGuard
from thinktune.tasks.train.optimizer import Moments

FIRST, SECOND = "first", "second"
"""Adam's moments in `optimizer.safetensors`, per parameter, in float32: neither the number of
ranks nor the optimizer's own form shows."""
BEST_FILE = "best.safetensors"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint must belong to."""

    run: str
    inputs: dict[str, str]
    task_sha256: str


@dataclass
class State:
    """What a training step changes."""

    parameters: Mapping[str, torch.nn.Parameter]
    optimizer: AdapterOptimizer
    guard: SpikeGuard
    config: PeftConfig
    """Of the adapter, so that a checkpoint can be loaded by itself."""
    best: dict[str, torch.Tensor] | None = None
    """The best adapter so far, on the host of the main rank, where the recipe takes the best."""


class Foreign(InputMissing):
    """A checkpoint of another training under this run's name: not ours to use or to remove."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, context: Context, identity: Identity, keep: int | Literal["all"]) -> None:
        self._context = context
        self._identity = identity
        self._keep = keep

    def save(self, step: int, state: State, moments: Moments, metrics: Path) -> None:
        """Commits the state after `step` steps, then removes all but the newest ones."""
        with tempfile.TemporaryDirectory(prefix="thinktune-checkpoint-") as temporary:
            folder = Path(temporary)
            _write(folder, state, moments)
            (folder / "metrics.jsonl").write_bytes(metrics.read_bytes())
            commit(
                self._context.store,
                checkpoint_prefix(self._identity.run, step),
                folder,
                kind="checkpoint",
                run=self._identity.run,
                attempt=self._context.attempt,
                inputs=self._identity.inputs,
                task_sha256=self._identity.task_sha256,
                metrics={"step": step},
                created=utc_now(),
            )
        if self._keep == "all":
            return
        for old in self.steps()[self._keep :]:
            self._context.store.delete_prefix(checkpoint_prefix(self._identity.run, old))

    def steps(self) -> list[int]:
        """Committed steps, newest first."""
        return checkpoint_steps(self._context.store, self._identity.run)

    @contextmanager
    def newest(self) -> Iterator[tuple[int, Path] | None]:
        """The newest checkpoint that is whole, as files in a folder.

        A damaged one is logged, removed, and passed over. Raises Foreign where the newest belongs
        to another recipe or other data.
        """
        with tempfile.TemporaryDirectory(prefix="thinktune-resume-") as temporary:
            for step in self.steps():
                prefix = checkpoint_prefix(self._identity.run, step)
                folder = Path(temporary) / f"{step}"
                try:
                    manifest = read_manifest(self._context.store, prefix)
                    if manifest is None:
                        continue
                    self._check_ours(prefix, manifest)
                    fetch(self._context.store, prefix, manifest, folder)
                except Foreign:
                    raise
                except InputMissing as error:
                    self._context.reporter.say(f"checkpoint of step {step} is unusable: {error}")
                    self._context.store.delete_prefix(prefix)
                    continue
                yield step, folder
                return
            yield None

    def _check_ours(self, prefix: str, manifest: Manifest) -> None:
        ours = (self._identity.inputs, self._identity.task_sha256)
        if (manifest.inputs, manifest.task_sha256) != ours:
            fault = "the checkpoint was made by another recipe or from other data"
            remedy = "use another --run name, or remove it"
            raise Foreign(self._context.store.location(prefix), fault, remedy)


def _write(folder: Path, state: State, moments: Moments) -> None:
    state.config.save_pretrained(str(folder))
    save_file(copied(state.parameters), folder / "adapter.safetensors")
    if state.best is not None:
        save_file(state.best, folder / BEST_FILE)
    tensors = {}
    for kind, values in ((FIRST, moments.first), (SECOND, moments.second)):
        for name, value in zip(state.parameters, values, strict=True):
            tensors[f"{kind}/{name}"] = value.cpu().contiguous()
    save_file(tensors, folder / "optimizer.safetensors")
    (folder / "optimizer.json").write_text(json.dumps({"step": moments.step}), encoding="utf-8")
    (folder / "guard.json").write_text(json.dumps(state.guard.state()), encoding="utf-8")


def copied(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """The adapter's weights as they are now, on the host."""
    return {n: p.detach().to("cpu", copy=True).contiguous() for n, p in parameters.items()}


def load_weights(
    weights: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.nn.Parameter]
) -> None:
    """The reverse of `copied`, in place."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def restore(folder: Path, state: State, *, best: bool) -> None:
    """Loads what `_write` wrote, in place; the best adapter so far only with `best`."""
    load_weights(load_file(folder / "adapter.safetensors"), state.parameters)
    if best and (folder / BEST_FILE).is_file():
        state.best = load_file(folder / BEST_FILE)
    tensors = load_file(folder / "optimizer.safetensors")
    first, second = ([tensors[f"{kind}/{n}"] for n in state.parameters] for kind in (FIRST, SECOND))
    step = json.loads((folder / "optimizer.json").read_text(encoding="utf-8"))["step"]
    state.optimizer.load(Moments(step, first, second))
    state.guard.load(json.loads((folder / "guard.json").read_text(encoding="utf-8")))
