"""A training's figures for Prometheus, where the chart's `monitoring` is on.

Made by the first rank's `progress.Reporter`, which tells it what it tells everybody.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

from thinktune.schema.manifest import MetricValue

PORT = "THINKTUNE_METRICS_PORT"
"""Environment variable with the port to listen on, which the chart sets."""
LABELS = ("run", "stage")


class Exporter:
    """`thinktune_step`, `_steps`, `_loss`, `_tokens_per_second`, `_step_age_seconds`,
    `_gpu_memory_bytes`, each with the labels run and stage."""

    def __init__(self, port: int, run: str, stage: str, idle_s: Callable[[], float]) -> None:
        from prometheus_client import Gauge, start_http_server

        def gauge(name: str, text: str) -> Any:
            return Gauge(f"thinktune_{name}", text, LABELS).labels(run, stage)

        self._step = gauge("step", "Steps done")
        self._steps = gauge("steps", "Steps in all")
        self._figures = {
            "loss": gauge("loss", "Mean loss of a target token in the last step"),
            "tok/s": gauge("tokens_per_second", "Tokens per second over all ranks"),
        }
        gauge("step_age_seconds", "Seconds since anything was done").set_function(idle_s)
        gauge("gpu_memory_bytes", "Most that this rank's tensors took").set_function(_gpu_memory)
        start_http_server(port)

    @classmethod
    def of(
        cls, environment: Mapping[str, str], run: str, stage: str, idle_s: Callable[[], float]
    ) -> Self | None:
        """An exporter where the environment names a port, else None."""
        port = environment.get(PORT)
        return cls(int(port), run, stage, idle_s) if port else None

    def count(self, done: int, of: int, figures: Mapping[str, MetricValue] | None = None) -> None:
        """Takes over how far the work is, and the newest figures."""
        self._step.set(done)
        self._steps.set(of)
        for name, value in (figures or {}).items():
            if name in self._figures and isinstance(value, int | float):
                self._figures[name].set(value)


def _gpu_memory() -> float:
    import torch  # the training has loaded it by now

    return float(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0.0
