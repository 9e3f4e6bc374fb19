"""The files of a user's own dataset: one file, all of a folder, or those that a pattern names.

The launcher takes their digest, by which a run is one of these files; prep reads them.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from thinktune.schema.errors import DataInvalid
from thinktune.store.disk import file_sha256

S3 = "s3://"
ABOUT = frozenset(("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"))
"""What the datasets library writes beside data."""
WILDCARDS = frozenset("*?[")


def is_remote(path: str) -> bool:
    """Whether the data lies in a bucket."""
    return path.startswith(S3)


def data_files(path: str) -> list[Path]:
    """The files that `data.path` names, in the order of their names. Raises DataInvalid where there
    are none."""
    given = Path(path)
    if given.is_dir():
        files = [each for each in given.rglob("*") if each.is_file() and _shown(each, given)]
    elif WILDCARDS & set(path) and not given.exists():
        base = Path(*_before_wildcard(given))
        rest = given.relative_to(base)
        files = [each for each in base.glob(str(rest)) if each.is_file() and _shown(each, base)]
    else:
        return [given]
    if not files:
        raise DataInvalid(path, "no file is there", "check data.path")
    return sorted(files)


def data_digest(files: Sequence[Path]) -> str:
    """SHA-256 of a file's content, or of the names and contents of several. Raises OSError."""
    if len(files) == 1:
        return file_sha256(files[0])
    lines = (f"{file.name} {file_sha256(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _shown(file: Path, folder: Path) -> bool:
    if file.name in ABOUT:
        return False
    return not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _before_wildcard(path: Path) -> tuple[str, ...]:
    parts = []
    for part in path.parts:
        if WILDCARDS & set(part):
            break
        parts.append(part)
    return tuple(parts) or (".",)
