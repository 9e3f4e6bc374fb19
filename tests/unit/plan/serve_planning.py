"""Shared by the tests of serving plans: works and requests to vary."""

from typing import Any

from planning import CATALOG

from thinktune.plan.serving.memory import ServeWork
from thinktune.plan.serving.plan import ServingPlan, make_serving_plan
from thinktune.plan.serving.request import ServeRequest


def a_work(model: str, hardware: str = "h200x8", **changes: Any) -> ServeWork:
    """A server of 32,768 tokens in 16 bits on one GPU, without adapters."""
    entry = CATALOG.models[model]
    settings: dict[str, Any] = {
        "precision": "16bit",
        "window": 32768,
        "sequences": 256,
        "batched_tokens": 8192,
        "adapters": 0,
        "rank": 16,
        "targets": entry.lora_targets,
        "kv_dtype": "auto",
        "tensor": 1,
        "pipeline": 1,
        "graphs": True,
    }
    node = CATALOG.hardware[hardware]
    return ServeWork(model=entry, hardware=node, **(settings | changes))


def a_request(model: str, hardware: str, **changes: Any) -> ServeRequest:
    """As the command line asks for a model without further options."""
    settings: dict[str, Any] = {"precision": "16bit", "window": 32768}
    targets = CATALOG.models[model].lora_targets
    return ServeRequest(model=model, hardware=hardware, targets=targets, **(settings | changes))


def plan_of(request: ServeRequest) -> ServingPlan:
    """Its plan on the shipped catalog."""
    return make_serving_plan(request, CATALOG.models[request.model], CATALOG.hardware)
