"""Whether a run's evaluation promoted it: asked by the launcher, and again by the server itself."""

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.manifest import Manifest


def check_promoted(
    run: str, train_sha256: str, evaluation: Manifest | None, *, unpromoted: bool
) -> str:
    """What the evaluation says of the adapter whose manifest has that digest.

    Raises SpecInvalid where that is not enough to be served, unless it is served all the same.
    """
    if evaluation is None:
        fault, remedy = "it has not been evaluated", f"thinktune run … --run {run}"
    elif evaluation.inputs.get("train") != train_sha256:
        fault, remedy = "its evaluation is of another adapter", "evaluate it again"
    elif evaluation.metrics.get("promoted") is False:
        because = evaluation.metrics.get("not_promoted_because", "a requirement is not met")
        fault, remedy = f"its evaluation did not promote it: {because}", "train a better one"
    elif evaluation.metrics.get("promoted") is None:
        return "evaluated, without requirements (evaluate.require)"
    else:
        return "promoted by its evaluation"
    if not unpromoted:
        remedy = f"{remedy}, or take it all the same with --unpromoted"
        raise SpecInvalid(f"run {run}", fault, remedy)
    return f"not promoted: {fault}"
