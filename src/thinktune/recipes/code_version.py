"""Which code this is: what decides a result, and what a launcher and an image must agree on."""

import hashlib
from functools import cache
from pathlib import Path

import thinktune

STAGE_PACKAGES = ("spec", "store", "tasks", "text")
"""Packages that a stage runs. What the launcher does besides changes no result."""


@cache
def code_version() -> str:
    """Version and digest of the sources of these packages: another code is another run."""
    package = Path(thinktune.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for name in STAGE_PACKAGES for path in (package / name).rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return f"{thinktune.__version__}+{digest.hexdigest()[:12]}"
