"""How likely the models find the reference completions of the held-out questions: reasoning, answer
and end, behind the prompt that the question is asked with. Called by the stage.

What was measured is kept in the store, one object for each model, with a digest of itself and of
all that decides it; what is damaged or of something else is measured again.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from thinktune.schema.arms import Arm
from thinktune.schema.closed import Closed
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.keys import likelihoods_prefix
from thinktune.schema.manifest import Sha256
from thinktune.schema.stages import EvaluateTask
from thinktune.store import ObjectMissing
from thinktune.tasks.evaluate.arms import engine_version
from thinktune.tasks.evaluate.completions import completions
from thinktune.tasks.evaluate.inputs import Inputs
from thinktune.tasks.generate.protocol import Engine, Likelihood
from thinktune.tasks.runtime.entry import Context
from thinktune.text.tokens import Encoder


class _Kept(Closed):
    format: Literal[1]
    rows: tuple[tuple[float, int], ...]
    """Log-probability and tokens of each completion, in the order of the questions."""
    sha256: Sha256


def measures(task: EvaluateTask, arm: Arm) -> bool:
    """Whether an arm is measured. One that is asked in words has other prompts than those behind
    which the completions stand."""
    return task.evaluate.perplexity and not arm.instructed


def measure(
    task: EvaluateTask,
    context: Context,
    inputs: Inputs,
    engine: Engine,
    arm: Arm,
    encoder: Encoder,
    *,
    compute: bool = True,
) -> dict[tuple[str, str], Likelihood] | None:
    """What one arm's model says of each held-out question's completion, by arm and question; None
    where nobody has measured it yet and this process is not to `compute` it."""
    asked = completions(task, inputs.rows, encoder, adapter=arm.adapter)
    if left := len(inputs.rows) - len(asked):
        context.reporter.say(f"perplexity: {left} completions fill the context and are left out")
    decides = [*inputs.digests().values(), engine.name, engine_version(engine.name)]
    decides += [arm.precision, task.dtype, json.dumps([[c.id, c.ids, c.adapter] for c in asked])]
    identity = hashlib.sha256("\n".join(decides).encode()).hexdigest()
    found = _kept(context, task.run, identity, len(asked))
    if found is None and not compute:
        return None
    if found is None:
        context.reporter.phase(f"perplexity {arm.name}", len(asked), "completions")
        found = engine.likelihoods(asked, context.reporter, context.stop)
        rows = [[each.log_probability, each.tokens] for each in found]
        data = {"format": 1, "rows": rows, "sha256": _digest(identity, rows)}
        context.store.put(_key(task.run, identity), json.dumps(data).encode())
    return {(arm.name, one.id): each for one, each in zip(asked, found, strict=True)}


def _key(run: str, identity: str) -> str:
    return f"{likelihoods_prefix(run)}/{identity[:16]}.json"


def _kept(context: Context, run: str, identity: str, count: int) -> list[Likelihood] | None:
    key = _key(run, identity)
    try:
        kept = _Kept.parse(json.loads(context.store.get(key)), context.store.location(key))
    except (ObjectMissing, ValueError, SpecInvalid, RecursionError):
        return None
    rows = [list(row) for row in kept.rows]
    if kept.sha256 != _digest(identity, rows) or len(rows) != count:
        return None
    return [Likelihood(log_probability, tokens) for log_probability, tokens in kept.rows]


def _digest(identity: str, rows: Sequence[Sequence[float]]) -> str:
    return hashlib.sha256(f"{identity}\n{json.dumps(rows)}".encode()).hexdigest()
