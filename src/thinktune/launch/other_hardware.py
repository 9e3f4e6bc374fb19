"""What would get a run scheduled where a cluster's nodes cannot take it: other hardware first.

Asks the plan about every hardware entry of the catalog. Called by `submit` and `doctor`, once
`preflight` has found a shortage.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from thinktune.launch.cluster.capacity import Node
from thinktune.launch.preflight import NodeCheck, Request, check_deadline, shortage
from thinktune.launch.runs import compare_hardware, on_hardware, run_id
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.stages import STAGES, Stage

SHOWN = 4
FIRST = STAGES[0]
"""The stage from which a run of another id begins again."""


def shortage_error(request: Request, stages: Sequence[Stage], found: NodeCheck) -> SpecInvalid:
    """The error of a run whose nodes are short of something, with what would help."""
    assert found.short is not None
    remedy = _remedy(request, stages, found)
    return SpecInvalid(f"{found.stage} of {request.run.id}", found.short.fault, remedy)


def _remedy(request: Request, stages: Sequence[Stage], found: NodeCheck) -> str:
    assert found.short is not None and found.nodes is not None
    there = list(islice(_takers(request, stages, found.nodes), SHOWN))
    ways = []
    if there:
        # Hardware is part of a derived id: what is done stays with the other run.
        again = "" if _is_named(request) or FIRST in stages else f" as another run, from {FIRST} on"
        settings = [f"--set hardware={name}" for name in there]
        ways.append(f"would be scheduled with {', or '.join(settings)}{again}")
    ways += [*found.short.remedies, "--force where an autoscaler would bring such nodes"]
    return "; or ".join(ways)


def _takers(request: Request, stages: Sequence[Stage], nodes: Sequence[Node]) -> Iterator[str]:
    """Names of hardware on which all the stages would run here, the fastest first."""
    for row in compare_hardware(request.recipe, request.catalog):
        if row.hardware != request.run.hardware and _takes(request, row.hardware, stages, nodes):
            yield row.hardware


def _takes(request: Request, hardware: str, stages: Sequence[Stage], nodes: Sequence[Node]) -> bool:
    try:
        run = on_hardware(request.run, request.recipe, request.catalog, hardware)
        check_deadline(run, request.cluster, stages)
    except SpecInvalid:
        return False
    return all(shortage(request, run, stage, nodes) is None for stage in stages)


def _is_named(request: Request) -> bool:
    own, adapter = request.run.own_file, request.run.adapter
    derived = run_id(request.recipe, request.catalog, own.sha256 if own else None, adapter)
    return request.run.id != derived
