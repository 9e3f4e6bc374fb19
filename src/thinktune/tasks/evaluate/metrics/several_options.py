"""Share of the answers that name several options where one is asked for."""

from thinktune.tasks.evaluate.metrics.registry import Description, share_metric

METRIC = share_metric(
    lambda judged: judged.several,
    name="several_options",
    order=28,
    direction="lower",
    description=Description(
        label="Several options named",
        rule="Share of the answers that name two options or more. They count as wrong.",
    ),
    applies=lambda setup: setup.verifier == "choice",
)
