"""Why an engine that does not come up did not, from what it printed."""

import asyncio

import pytest

from thinktune.schema.errors import InternalError, OutOfGpuMemory
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.serve import ServeTimes
from thinktune.tasks.serve.engine.choose import Command
from thinktune.tasks.serve.engine.output import KEPT_BYTES, out_of_memory
from thinktune.tasks.serve.engine.process import Supervisor

ALLOCATION = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"
    " capacity of 14.74 GiB of which 1.06 GiB is free."
)
WINDOW = (
    "ValueError: To serve at least one request with the model's max seq len (32768), (4.0 GiB KV"
    " cache is needed, which is larger than the available KV cache memory (1.5 GiB). Based on the"
    " available memory, the estimated maximum model length is 12288. Try increasing"
    " `gpu_memory_utilization`"
)
TAKEN = (
    "ValueError: Free memory on device cuda:0 (3.5/79.1 GiB) on startup is less than desired GPU"
    " memory utilization (0.9, 71.19 GiB). Decrease GPU memory utilization"
)


@pytest.mark.parametrize(
    ("said", "fault", "remedy"),
    [
        (ALLOCATION, "2.00 GiB more were asked for", "shorter --window"),
        (WINDOW, "needs 4.0 GiB of KV cache, and 1.5 GiB are left", "set --window 12288 or less"),
        (WINDOW.partition(" Based")[0], "needs 4.0 GiB", "shorter --window"),
        (
            TAKEN,
            "3.5 of 79.1 GiB of the GPU are free, and it is to take 71.19",
            "else uses the GPU",
        ),
        ("No available memory for the cache blocks. Try", "leave no GPU memory", "more memory"),
        ("RuntimeError: CUDA error: out of memory", "the GPU is out of memory", "more memory"),
    ],
)
def test_too_little_memory_is_said_by_how_much(said: str, fault: str, remedy: str) -> None:
    found = out_of_memory(f"(EngineCore) INFO up\n{said}\nRuntimeError: Engine core failed")
    assert found is not None
    assert fault in found.fault
    assert remedy in found.remedy


def supervised(script: str) -> None:
    """Runs an engine that ends before it is up."""
    command = Command(("sh", "-c", script), {})
    asyncio.run(Supervisor(lambda port: command, ServeTimes()).run())


def test_an_engine_without_memory_ends_the_server_with_that_code(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(OutOfGpuMemory, match=r"2\.00 GiB more") as ended:
        supervised(f"echo '{ALLOCATION}' >&2; echo 'and on it goes'; exit 1")
    assert ended.value.exit_code is ExitCode.OUT_OF_GPU_MEMORY
    printed = capfd.readouterr().err
    assert ALLOCATION in printed  # as it came
    assert "and on it goes" in printed


def test_other_ends_and_what_is_long_past_are_no_lack_of_memory() -> None:
    for before in ("", f"echo '{ALLOCATION}'; "):
        flood = f"head -c {KEPT_BYTES} /dev/zero | tr '\\0' x" if before else "true"
        with pytest.raises(InternalError, match="ended with code 3 before it was up"):
            supervised(f"{before}{flood}; exit 3")
