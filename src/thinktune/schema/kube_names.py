"""What Kubernetes accepts as names, labels and images. Checked when the cluster file is read,
because Kubernetes itself would refuse them after half of a release is installed.

Source: kubernetes.io, Object Names and IDs; Labels and Selectors. distribution/reference, grammar.
"""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_KEY = rf"((?=.{{1,253}}/){_SUBDOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
_HOST = r"[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]+)?"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_OURS = re.compile(
    r"(apps?\.kubernetes\.io|helm\.sh|thinktune\.dev|batch\.kubernetes\.io|kueue\.x-k8s\.io"
    r"|leaderworkerset\.sigs\.k8s\.io)/.*"
    r"|job-name|controller-uid"
)
"""Labels by which the charts, Kubernetes, Kueue and LeaderWorkerSet find pods."""


def _matches(pattern: str, rule: str, longest: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text) > longest or not re.fullmatch(pattern, text):
            raise ValueError(f"Kubernetes does not accept '{text}' here; write {rule}")
        return text

    return check


ObjectName = Annotated[
    str,
    AfterValidator(
        _matches(_SUBDOMAIN, "lower-case letters, digits, '-' and '.', at most 253", 253)
    ),
]
"""Name of an object such as a Secret, a ServiceAccount, a claim or a class."""
Namespace = Annotated[
    str, AfterValidator(_matches(_LABEL, "lower-case letters, digits and '-', at most 63", 63))
]
QueueName = Annotated[
    str, AfterValidator(_matches(_SUBDOMAIN, "the name of a LocalQueue, at most 63 letters", 63))
]
"""Name of a Kueue LocalQueue, which becomes the value of a label."""
LabelKey = Annotated[
    str, AfterValidator(_matches(_KEY, "a label's key, as in example.com/pool", 253 + 1 + 63))
]
LabelValue = Annotated[
    str,
    AfterValidator(_matches(_VALUE, "letters, digits, '-', '_' and '.', at most 63", 63)),
]
Labels = dict[LabelKey, LabelValue]
Registry = Annotated[
    str,
    AfterValidator(
        _matches(
            rf"{_HOST}(/{_PART})*", "host[:port]/path, with no scheme, as in ghcr.io/team", 255
        )
    ),
]
Tag = Annotated[
    str,
    AfterValidator(
        _matches(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", "a tag: letters, digits, '_', '.', '-'", 128)
    ),
]


def _not_ours(labels: dict[str, str]) -> dict[str, str]:
    for key in labels:
        if _OURS.fullmatch(key):
            raise ValueError(f"'{key}' is a label by which pods are found; remove it")
    return labels


OtherLabels = Annotated[Labels, AfterValidator(_not_ours)]
"""Labels other than those of the charts. Another value for one of the charts' own labels would take
a pod out of its NetworkPolicy."""
