"""Which code this is: what decides a result, and what a launcher and an image must agree on."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import thinktune

STAGE_PACKAGES = ("llm", "schema", "store", "tasks", "text")
"""Packages that a stage runs. What the launcher does besides changes no result."""
LAUNCHER_ONLY = (
    "cluster.py",
    "cluster_serve.py",
    "kube_names.py",
    "pipeline.py",
    "prices.py",
    "publish.py",
    "serve.py",
    "serve_values.py",
    "values.py",
)
"""Modules of `schema` that no stage imports: how a cluster is described to the launcher, what it
costs, and what a server or an export is told."""
MAKE_NO_ARTIFACT = ("tasks/publish", "tasks/serve")
"""What is done with a finished run changes no result of it."""
RESOURCES = ("*.j2", "*.json")
"""Files of these packages that decide results as well, such as the report's page."""
IGNORED_FIELDS = {"kind", "type_comment", "type_ignores", "ctx"}
"""Fields of syntax nodes that say nothing about what the code does."""


@cache
def code_version() -> str:
    """The version of thinktune and 12 hex digits of its code's digest: other code, another run."""
    digest = code_digest(Path(thinktune.__file__).parent)
    return f"{thinktune.__version__}+{digest[:12]}"


def code_digest(package: Path) -> str:
    """SHA-256 over what decides results in a copy of this package.

    Sources count by their syntax trees, so that comments, docstrings, layout and line endings may
    change without making another run; resources count by their text.
    """
    digest = hashlib.sha256()
    for path in sorted(_deciding_files(package)):
        text = path.read_text(encoding="utf-8")  # universal newlines: every ending reads as \n
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        if path.suffix == ".py":
            parts: list[str] = []
            _write(ast.parse(text), parts)
            digest.update("".join(f"{part}\0" for part in parts).encode("utf-8", "surrogatepass"))
        else:
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _deciding_files(package: Path) -> Iterator[Path]:
    for name in STAGE_PACKAGES:
        for pattern in ("*.py", *RESOURCES):
            found = (package / name).rglob(pattern)
            yield from (path for path in found if not _decides_nothing(path, package))


def _decides_nothing(path: Path, package: Path) -> bool:
    launcher_only = path.parent.name == "schema" and path.name in LAUNCHER_ONLY
    without = any(path.is_relative_to(package / name) for name in MAKE_NO_ARTIFACT)
    return launcher_only or without


def _write(value: object, parts: list[str]) -> None:
    """Appends a syntax tree to `parts`, in pre-order and in a form that does not depend on
    Python's version.

    `ast.dump` does: newer versions add fields, which are empty for the syntax that older ones have.
    """
    if isinstance(value, ast.AST):
        parts.append(type(value).__name__)
        for name in sorted(value._fields):
            field = getattr(value, name, None)
            if isinstance(value, ast.JoinedStr):  # Python 3.12 adds empty texts to some f-strings
                field = [part for part in value.values if not _is_empty_text(part)]
            if name not in IGNORED_FIELDS and field is not None and field != []:
                parts.append(name)
                _write(field, parts)
        parts.append(")")
    elif isinstance(value, list):
        for item in value:
            if not _is_prose(item):
                _write(item, parts)
        parts.append("]")
    else:
        parts.append(repr(value))


def _is_prose(node: object) -> bool:
    """Whether a statement is a bare string: a docstring, of a module, a function or a field."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_empty_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == ""
