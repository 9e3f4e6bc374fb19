"""What needs CUDA: `python -m pytest tests/gpu` on such a machine; never part of `make test`."""

from pathlib import Path

import pytest
import torch
from trainer import Make, maker


@pytest.fixture(scope="session", autouse=True)
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.fail("these tests need a CUDA GPU; without one run `make test`")
    return torch.device("cuda", 0)


@pytest.fixture
def make_trainer(tiny_folder: Path, tmp_path: Path, gpu: torch.device) -> Make:
    return maker(tiny_folder, tmp_path, gpu)
