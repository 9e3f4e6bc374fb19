"""Whether the working tree computes what another commit does, to the bit: `make same-bits REF=…`.

Trains the tiny model of the tests and the demo for six steps, once with the code of REF (in a git
worktree in a temporary folder) and once with the working tree's, and compares losses, gradient
norms and adapters. Exits with 1 and says what differs.

Each tree is driven by its own command line, tests/support/workshop.py and files, because modules
and settings may have other names in each. What both must have: `workshop(folder)` with `.jobs` and
`.store`, `thinktune run RECIPE --local --store --run --until --set`, and an artifact's layout in
the store (`runs/RUN/train/manifest.json`, `attempts/…`).

`--write` measures the tiny model with the working tree alone and commits its values to
tests/local/same_bits.json, which tests/local/test_same_bits.py compares with.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "tests" / "local" / "same_bits.json"
STEPS, RUN = 6, "same-bits"
ERROR_LINES = 20
"""Of a command that failed, how many lines are shown."""
MAKE_WORKSHOP = """\
import json, sys
from pathlib import Path
from workshop import workshop
shop = workshop(Path(sys.argv[1]))
print(json.dumps({"jobs": str(shop.jobs), "store": shop.store}))
"""
WHERE = "import thinktune; print(thinktune.__file__)"
KIND = "import torch; from cpu_kind import cpu_kind; print(torch.__version__, cpu_kind())"
Figures = dict[str, Any]
"""Lists of numbers per step, by name; and the adapter's digest."""


class Tree:
    """A checkout of the project."""

    def __init__(self, root: Path) -> None:
        self._root = root
        package = self.python("-c", WHERE).strip()
        if not Path(package).is_relative_to(root):
            raise SystemExit(f"error: {root}: Python imports {package} instead; look at PYTHONPATH")

    def tiny(self, folder: Path) -> Figures:
        """What comes of training the tests' tiny model."""
        made = json.loads(self.python("-c", MAKE_WORKSHOP, str(folder)).splitlines()[-1])
        return self._train("tiny", made["store"], THINKTUNE_JOBS=made["jobs"])

    def demo(self, folder: Path) -> Figures:
        """What comes of training the demo."""
        return self._train("demo", f"file://{folder}")

    def _train(self, recipe: str, store: str, **environment: str) -> Figures:
        command = ("-m", "thinktune", "run", recipe, "--local", "--store", store, "--run", RUN)
        settings = ("--until", "train", "--set", f"train.max_steps={STEPS}")
        self.python(*command, *settings, **environment)
        return figures_of(Path(store.removeprefix("file://")) / "runs" / RUN / "train")

    def python(self, *arguments: str, **environment: str) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("THINKTUNE_", "AWS_"))}
        path = f"{self._root / 'src'}:{self._root / 'tests' / 'support'}"
        # More threads add up in another order.
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
        done = subprocess.run(
            [sys.executable, *arguments],
            env=kept | own,
            cwd=self._root,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-ERROR_LINES:])
            raise SystemExit(f"error: {self._root}: {arguments[:4]} failed:\n{last}")
        return done.stdout


def figures_of(stage: Path) -> Figures:
    """The figures of a committed train stage in a local store."""
    attempt = json.loads((stage / "manifest.json").read_text(encoding="utf-8"))["attempt"]
    folder = stage / "attempts" / attempt
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found: Figures = {
        name: [row[name] for row in rows if name in row]
        for name in ("loss", "grad_norm", "validation_loss")
    }
    adapter = (folder / "adapter_model.safetensors").read_bytes()
    return found | {"adapter_sha256": hashlib.sha256(adapter).hexdigest()}


def differences(one: Figures, other: Figures) -> list[str]:
    """What is not the same, in words; empty where everything is."""
    found = []
    for name, value in one.items():
        if other[name] == value:
            continue
        if not isinstance(value, list) or len(value) != len(other[name]):
            found.append(f"{name}: {value} and {other[name]}")
            continue
        pairs = zip(value, other[name], strict=True)
        number, (a, b) = next((n, p) for n, p in enumerate(pairs, start=1) if p[0] != p[1])
        found.append(f"{name}: first at value {number} of {len(value)}: {a!r} and {b!r}")
    return found


@contextmanager
def worktree(ref: str) -> Iterator[Path]:
    """REF's files in a temporary folder."""
    git = ["git", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory(prefix="thinktune-same-bits-") as temporary:
        folder = Path(temporary).resolve() / "tree"
        added = subprocess.run(
            [*git, "worktree", "add", "--detach", "--quiet", str(folder), ref],
            capture_output=True,
            text=True,
        )
        if added.returncode:
            raise SystemExit(f"error: REF={ref}: {added.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(folder)], check=True)


def compare(ref: str, models: list[str]) -> int:
    """Trains with both trees and says what differs; gives the exit code."""
    different = False
    with worktree(ref) as folder, tempfile.TemporaryDirectory() as temporary:
        trees = {ref: Tree(folder), "the working tree": Tree(ROOT)}
        for model in models:
            found = []
            for number, (name, tree) in enumerate(trees.items()):
                sys.stdout.write(f"{model}: {STEPS} steps with the code of {name}\n")
                sys.stdout.flush()
                own = Path(temporary) / f"{model}-{number}"
                found.append(tree.tiny(own) if model == "tiny" else tree.demo(own))
            for difference in differences(*found):
                different = True
                sys.stdout.write(f"{model}: DIFFERS in {difference}\n")
            if found[0] == found[1]:
                adapter = found[0]["adapter_sha256"]
                sys.stdout.write(f"{model}: the same to the bit, adapter {adapter[:12]}\n")
    return int(different)


def write() -> int:
    """Commits the working tree's values of the tiny model."""
    with tempfile.TemporaryDirectory() as temporary:
        found = Tree(ROOT).tiny(Path(temporary) / "tiny")
        torch, _, cpu = Tree(ROOT).python("-c", KIND).strip().partition(" ")
    document = {"torch": torch, "cpu": cpu, **found}
    COMMITTED.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {COMMITTED.relative_to(ROOT)}\n")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ref", nargs="?", help="a commit, branch or tag to compare with")
    parser.add_argument("--model", action="append", choices=("tiny", "demo"), help="only this one")
    parser.add_argument("--write", action="store_true", help=f"write {COMMITTED.name} instead")
    options = parser.parse_args()
    if options.write:
        sys.exit(write())
    if not options.ref:
        parser.error("give a commit to compare with: make same-bits REF=main")
    sys.exit(compare(options.ref, options.model or ["tiny", "demo"]))


if __name__ == "__main__":
    main()
