"""The files of the chat page, read once: no request ever names a file."""

import gzip
import mimetypes
from dataclasses import dataclass
from pathlib import Path

import thinktune.tasks.serve

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".woff2": "font/woff2"}
SERVED = (".html", ".css", ".js", ".mjs", ".svg", ".woff2")
"""Licenses and records lie beside them and are not served."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file as it is sent."""

    content: bytes
    packed: bytes
    """The content, compressed by gzip."""
    content_type: str


def page_files() -> dict[str, StaticFile]:
    """Path → file; `/` is the page itself."""
    folder = Path(next(iter(thinktune.tasks.serve.__path__))) / "page"
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in SERVED and path.is_file():
            name = path.relative_to(folder).as_posix()
            kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
            if kind.startswith("text/"):
                kind += "; charset=utf-8"
            at = "/" if name == "index.html" else f"/page/{name}"
            content = path.read_bytes()
            found[at] = StaticFile(content, gzip.compress(content, mtime=0), kind)
    return found
