"""The charts that ship, and helm as a subprocess."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import yaml

import thinktune
from thinktune.schema.errors import InputMissing, ServiceUnavailable, SpecInvalid
from thinktune.schema.values import NAME_LENGTH, Values

LEAST_HELM = (3, 14)
UNREACHABLE = (
    "cluster unreachable", "connection refused", "i/o timeout", "no such host", "TLS handshake",
    "etcdserver", "forbidden", "Unauthorized",
)  # fmt: skip
"""What helm says where the API server does not answer, or refuses."""
PLAIN = re.compile(r"[A-Za-z_/][\w./@:+-]*")
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}


def chart_folder(name: str) -> Path:
    """`charts/<name>`: beside `src/` in a checkout, inside the package once installed."""
    package = Path(thinktune.__file__).parent
    packaged = package / "charts"
    return (packaged if packaged.is_dir() else package.parents[1] / "charts") / name


def values_text(values: Values) -> str:
    """A values file: the same bytes for the same values."""
    data = values.model_dump(mode="json", by_alias=True)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever some YAML takes for anything but a string: helm's reads `y` as true, `1e5`
    as a number."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    plain = PLAIN.fullmatch(text) and text.lower() not in WORDS
    node: yaml.ScalarNode = dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if plain else "'"
    )
    return node


_Dumper.add_representer(str, _text)


def release_name(run: str, stage: str) -> str:
    """One release per run and stage. Raises SpecInvalid where Helm would refuse its length."""
    name = f"{run}-{stage}".replace(".", "-")  # a Service's name has no dots
    if len(name) > NAME_LENGTH:
        fault = f"the release {name!r} has {len(name)} letters, and Helm takes {NAME_LENGTH}"
        raise SpecInvalid("--run", fault, "give the run a shorter name with --run")
    return name


def helm(*arguments: str, stdin: str | None = None) -> str:
    """Runs helm to its end and gives its output.

    Raises InputMissing where helm is missing or too old, SpecInvalid with helm's words where it
    refuses.
    """
    done = subprocess.run(
        [_helm(os.environ.get("PATH", "")), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip()
        if any(sign in words for sign in UNREACHABLE):
            raise ServiceUnavailable("helm", words, "`thinktune doctor` says what is missing")
        raise SpecInvalid("helm", words, "see its words")
    return done.stdout


@cache
def _helm(search: str) -> str:
    """Looked at once per PATH."""
    path = shutil.which("helm", path=search)
    remedy = f"install helm {'.'.join(map(str, LEAST_HELM))} or newer: https://helm.sh/docs/intro/install"
    if path is None:
        raise InputMissing("helm", "not on the PATH", remedy)
    found = subprocess.run(
        [path, "version", "--short"], capture_output=True, text=True, check=False
    )
    match = re.search(r"v(\d+)\.(\d+)", found.stdout)
    if match is None or (int(match[1]), int(match[2])) < LEAST_HELM:
        raise InputMissing(path, f"it is {found.stdout.strip() or 'no helm'}", remedy)
    return path


def manifests(release: str, namespace: str, values: str, *, chart: str = "task") -> str:
    """What a chart renders to, with the values given as text."""
    folder = str(chart_folder(chart))
    return helm(
        "template", release, folder, "--namespace", namespace, "--values", "-", stdin=values
    )
