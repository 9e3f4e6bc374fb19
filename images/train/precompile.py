"""Compiles the one C module that Triton would compile where it first runs: FOLDER gets it, as a
cache of Triton's. So the image needs no compiler.

Run while the image is built, with gcc and without a GPU: an empty library stands for the driver's,
which the module finds by name where it runs.
"""

import contextlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from platform import machine, system

from triton import knobs
from triton.backends.nvidia import driver
from triton.runtime import build

DRIVER = "libcuda.so.1"
LINKAGES = ("ELF", "")
"""What Python says of the platform with the tool `file` and without; part of Triton's key."""


def compile_module(
    name: str, source: str, folder: str, libraries: list[str], includes: list[str], *_: object
) -> str:
    """In Triton's place, which would leave the driver out: nothing of it is found in the stub."""
    module = str(Path(folder) / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}")
    where = [*(f"-I{path}" for path in (*includes, sysconfig.get_paths()["include"], folder))]
    where += [f"-L{path}" for path in libraries]
    options = ["-O3", "-shared", "-fPIC", "-Wno-psabi", "-Wl,--no-as-needed", f"-l:{DRIVER}"]
    subprocess.run(["gcc", source, "-o", module, *where, *options], check=True)
    return module


def main(folder: Path) -> None:
    os.environ["TRITON_CACHE_DIR"] = str(folder)
    knobs.build.impl = compile_module
    with tempfile.TemporaryDirectory() as stub:
        empty = ["gcc", "-shared", f"-Wl,-soname,{DRIVER}", "-xc", os.devnull]
        subprocess.run([*empty, "-o", str(Path(stub) / DRIVER)], check=True)
        for linkage in LINKAGES:
            platform = ",".join([machine(), system(), "64bit", linkage])
            build.platform_key = lambda platform=platform: platform
            # It is compiled and kept, and cannot be loaded without the driver.
            with contextlib.suppress(ImportError):
                build.compile_module_from_src(
                    src=(Path(driver.dirname) / "driver.c").read_text(),
                    name="cuda_utils",
                    library_dirs=[stub],
                    include_dirs=driver.include_dirs,
                )
    made = list(folder.rglob("cuda_utils*.so"))
    assert len(made) == len(LINKAGES), made


if __name__ == "__main__":
    main(Path(sys.argv[1]))
