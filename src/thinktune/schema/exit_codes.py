"""The one table of exit codes, used by the tasks, the chart's podFailurePolicy and `why`.

Numbers follow sysexits.h where one fits; 143 is 128 + SIGTERM, what Kubernetes expects of a
container that stopped when asked.
"""

from enum import IntEnum
from typing import Literal

Action = Literal["done", "fail", "retry", "ignore"]
"""What a Job does about it: `fail` ends the Job at once, `retry` counts against backoffLimit,
`ignore` starts a new pod without counting."""


class ExitCode(IntEnum):
    """Exit status of a task and of the command line."""

    DONE = 0
    SPEC_INVALID = 64
    DATA_INVALID = 65
    INPUT_MISSING = 66
    SERVICE_UNAVAILABLE = 69
    INTERNAL = 70
    DEVICE_UNUSABLE = 71
    OUT_OF_GPU_MEMORY = 73
    LOSS_NOT_FINITE = 74
    INTERRUPTED = 130
    PREEMPTED = 143


EXIT_CODES: dict[ExitCode, tuple[str, Action]] = {
    ExitCode.DONE: ("done", "done"),
    ExitCode.SPEC_INVALID: ("task, recipe or command line invalid", "fail"),
    ExitCode.DATA_INVALID: ("data invalid", "fail"),
    ExitCode.INPUT_MISSING: ("input artifact missing or mismatched", "fail"),
    ExitCode.SERVICE_UNAVAILABLE: ("store or API unavailable", "retry"),
    ExitCode.INTERNAL: ("internal error", "retry"),
    ExitCode.DEVICE_UNUSABLE: ("disk or device unusable", "fail"),
    ExitCode.OUT_OF_GPU_MEMORY: ("out of GPU memory", "fail"),
    ExitCode.LOSS_NOT_FINITE: ("loss not finite", "fail"),
    ExitCode.INTERRUPTED: ("interrupted at the terminal", "ignore"),
    ExitCode.PREEMPTED: ("stopped on request after a committed checkpoint", "ignore"),
}
