"""The charts that ship, and helm as a subprocess."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from enum import Enum
from functools import cache
from pathlib import Path

import yaml

import thinktune
from thinktune.launch.cluster.kube_messages import refusal_remedy
from thinktune.schema.errors import InputMissing, ServiceUnavailable, SpecInvalid
from thinktune.schema.values import NAME_LENGTH, Values

LEAST_HELM = (3, 14)
PLAIN = re.compile(r"[A-Za-z_/][\w./@:+-]*")
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}


class HelmFault(Enum):
    """Why helm did not do what it was told, as far as the launcher goes on by it."""

    UNAVAILABLE = "the API server does not answer, or does not know us"
    FORBIDDEN = "the API server knows us and refuses: a right, a quota, a rule"
    NAME_TAKEN = "another submit was first, with this release or an object of it"
    MADE_WITHOUT_HELM = "an object of that name is there which helm did not make"
    NO_RELEASE = "there is no such release"
    OTHER = "anything else"


HELM_TEXTS = (
    # Of Kubernetes's client, in helm's errors.
    ("cluster unreachable", HelmFault.UNAVAILABLE),
    ("connection refused", HelmFault.UNAVAILABLE),
    ("i/o timeout", HelmFault.UNAVAILABLE),
    ("no such host", HelmFault.UNAVAILABLE),
    ("TLS handshake", HelmFault.UNAVAILABLE),
    ("etcdserver", HelmFault.UNAVAILABLE),
    ("Unauthorized", HelmFault.UNAVAILABLE),
    ("is forbidden", HelmFault.FORBIDDEN),
    # helm 3 and 4, pkg/action/install.go, availableName
    ("cannot re-use a name", HelmFault.NAME_TAKEN),
    ("cannot reuse a name", HelmFault.NAME_TAKEN),
    # Of the API server, where two helms are past that check: the release's Secret, an object
    ("already exists", HelmFault.NAME_TAKEN),
    # pkg/action/action.go, errPending
    ("in progress", HelmFault.NAME_TAKEN),
    # pkg/action/install.go and validate.go, where `kubectl apply` was first
    ("cannot be imported", HelmFault.MADE_WITHOUT_HELM),
    ("invalid ownership metadata", HelmFault.MADE_WITHOUT_HELM),
    # pkg/storage/driver/driver.go, ErrReleaseNotFound
    ("release: not found", HelmFault.NO_RELEASE),
)
"""What helm says and what it means. Its exit code is 1 for everything, and only its text differs;
the first that is found counts."""
QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`\n]*`|(?<!\w)\'[^\'\n]*\'(?!\w)')
"""What helm's text quotes: names and values that users chose."""


class HelmRefused(SpecInvalid):
    """Helm did not do it, and said why."""

    def __init__(self, said: str, why: HelmFault) -> None:
        super().__init__("helm", said, "change what it names")
        self.why = why


def helm_fault(said: str, chosen: Sequence[str] = ()) -> HelmFault:
    """The fault that helm's text speaks of, by its own words: neither by what it quotes nor by the
    names that users chose."""
    own = QUOTED.sub("…", said)
    for name in chosen:
        own = own.replace(name, "…")
    return next((fault for text, fault in HELM_TEXTS if text in own), HelmFault.OTHER)


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


def helm(*arguments: str, chosen: Sequence[str] = (), stdin: str | None = None) -> str:
    """Runs helm to its end and gives its output. `chosen` are names of releases and folders among
    the arguments, which its errors may hold.

    Raises InputMissing where helm is missing or too old, ServiceUnavailable where the API server
    does not answer it or refuses or it is killed, HelmRefused for anything else.
    """
    done = subprocess.run(
        [_helm(os.environ.get("PATH", "")), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        fault = f"it was killed by {signal.Signals(-done.returncode).name}"
        raise ServiceUnavailable("helm", fault, "the same command again goes on from what it left")
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        why = helm_fault(said, chosen)
        if why is HelmFault.FORBIDDEN:
            raise ServiceUnavailable("helm", said, refusal_remedy(said))
        if why is HelmFault.UNAVAILABLE:
            raise ServiceUnavailable("helm", said, "`thinktune doctor` says what is missing")
        raise HelmRefused(said, why)
    return done.stdout


@cache
def _helm(search: str) -> str:
    """The path of helm, found and checked once for each PATH."""
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
    options = ("--namespace", namespace, "--values", "-")
    return helm("template", release, folder, *options, chosen=(release, folder), stdin=values)
