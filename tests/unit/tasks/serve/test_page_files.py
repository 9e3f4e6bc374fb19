"""The files of the chat page: what lies there is what was recorded, and nothing runs inline."""

import hashlib
import re
from pathlib import Path

import thinktune
from thinktune.tasks.serve.gateway.static import POLICY, page_files

PAGE = Path(thinktune.__file__).parent / "tasks" / "serve" / "page"
VENDOR = PAGE / "vendor"
LICENSES = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause"}


def test_libraries_are_what_was_recorded_and_have_their_licenses() -> None:
    lines = (VENDOR / "VENDORED").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    for sha256, file, package, version, license_, _ in rows:
        assert hashlib.sha256((VENDOR / file).read_bytes()).hexdigest() == sha256, file
        assert (VENDOR / f"{package}.LICENSE").stat().st_size > 500
        assert license_ in LICENSES and re.fullmatch(r"\d+\.\d+\.\d+", version)
    recorded = {file for _, file, *_ in rows} | {f"{row[2]}.LICENSE" for row in rows}
    assert {path.name for path in VENDOR.iterdir()} == recorded | {"VENDORED"}


def test_the_page_runs_nothing_inline_and_loads_nothing_from_elsewhere() -> None:
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", html)
    for address in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert address.startswith(("/page/", "#")), address
    for path in PAGE.glob("*.js"):
        text = path.read_text()
        assert not re.search(
            r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
        )
        assert all(name.startswith("./") for name in re.findall(r'from "([^"]+)"', text)), path
    assert "unsafe" not in POLICY and "default-src 'none'" in POLICY


def test_files_that_are_served() -> None:
    files = page_files()
    assert files["/"].content_type == "text/html; charset=utf-8"
    assert files["/page/vendor/katex.mjs"].content_type == "text/javascript; charset=utf-8"
    assert files["/page/icon.svg"].content_type == "image/svg+xml"
    assert not [path for path in files if "LICENSE" in path or "VENDORED" in path]
