"""Packs an unpacked package of SITE into a wheel, stored, not compressed: SITE PACKAGE FOLDER."""

import sys
import zipfile
from pathlib import Path

site, package, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
(info,) = site.glob(f"{package}-*.dist-info")
tag = next(
    line.split(": ")[1]
    for line in (info / "WHEEL").read_text().splitlines()
    if line.startswith("Tag: ")
)
tops = {line.split("/")[0] for line in (info / "RECORD").read_text().splitlines()}
target = folder / f"{info.name.removesuffix('.dist-info')}-{tag}.whl"
with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as wheel:
    for top in sorted(tops - {"..", "bin"}):
        for path in sorted((site / top).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                wheel.write(path, path.relative_to(site))
sys.stdout.write(f"{target}\n")
