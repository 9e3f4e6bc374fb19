"""Trainers of the tiny model, for the tests of this folder."""

from pathlib import Path

import pytest
from trainer import Make, maker


@pytest.fixture
def make_trainer(tiny_folder: Path, tmp_path: Path) -> Make:
    return maker(tiny_folder, tmp_path)
