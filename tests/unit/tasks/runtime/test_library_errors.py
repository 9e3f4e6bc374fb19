"""Errors of libraries, raised by the libraries themselves where this machine can make them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from thinktune.schema.exit_codes import ExitCode
from thinktune.tasks.runtime import entry


def ending(error: Exception) -> ExitCode:
    def work() -> None:
        raise error

    return entry.guarded(work)


def raised_by_safetensors(path: Path) -> Exception:
    with pytest.raises(SafetensorError) as raised:
        save_file({"a": np.zeros(4)}, path)
    return raised.value


def test_a_disk_that_safetensors_finds_full(capsys: pytest.CaptureFixture[str]) -> None:
    full = SafetensorError("Error while serializing: I/O error: No space left (os error 28)")
    assert ending(full) == ExitCode.DEVICE_UNUSABLE
    assert "no space left on device; free space there" in capsys.readouterr().err.lower()


def test_an_error_of_safetensors_that_is_not_the_disks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = raised_by_safetensors(tmp_path / "missing" / "file")
    assert "(os error 2)" in str(missing)
    assert ending(missing) == ExitCode.INTERNAL
    assert "Traceback" in capsys.readouterr().err


def test_memory_of_a_gpu_that_ran_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        ending(torch.OutOfMemoryError("CUDA out of memory.\nTried")) == ExitCode.OUT_OF_GPU_MEMORY
    )
    assert "GPU: out of memory (CUDA out of memory.); lower" in capsys.readouterr().err


def test_another_class_of_that_name_is_a_fault_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    class OutOfMemoryError(Exception):
        """Of no library that we know."""

    assert ending(OutOfMemoryError("CUDA out of memory")) == ExitCode.INTERNAL
    assert "Traceback" in capsys.readouterr().err
