"""What the tests of this folder share within a file: a workshop, and a run that went well in it."""

import pytest
from workshop import LONG, Workshop, manifest, workshop

from thinktune.schema.manifest import Manifest


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return workshop(tmp_path_factory.mktemp("main-job"))


@pytest.fixture(scope="module")
def whole(shop: Workshop) -> dict[str, Manifest]:
    """A run that nothing disturbed while it trained."""
    ended = shop.run("--run", "whole", "--until", "train", *LONG)
    assert ended.code == 0, ended.err
    return {stage: manifest(shop.store, "whole", stage) for stage in ("prep", "train")}
