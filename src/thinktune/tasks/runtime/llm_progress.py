"""How far the asking of a language model is, told to the reporter. Prep and evaluation use it."""

from collections.abc import Callable

from thinktune.llm.asking import Standing
from thinktune.tasks.runtime.progress import Reporter


def told_by(reporter: Reporter, phase: str) -> Callable[[Standing], None]:
    """Begins a phase; what is returned takes each `Standing`."""
    reporter.phase(phase, 0, "replies")
    told = 0

    def tell(standing: Standing) -> None:
        nonlocal told
        reporter.advance(standing.done - told, asked=standing.asked)
        told = standing.done

    return tell
