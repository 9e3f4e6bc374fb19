"""What Kubernetes takes for names, labels and images, checked where the user writes them: its own
refusal comes after half of a release is made.

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
    r"(app\.kubernetes\.io|helm\.sh|thinktune\.dev|batch\.kubernetes\.io|kueue\.x-k8s\.io)/.*"
    r"|job-name|controller-uid"
)
"""Labels by which the charts, Kubernetes and Kueue find pods."""


def _matches(pattern: str, rule: str, longest: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text) > longest or not re.fullmatch(pattern, text):
            raise ValueError(f"'{text}' is not what Kubernetes takes; write {rule}")
        return text

    return check


ObjectName = Annotated[
    str,
    AfterValidator(
        _matches(_SUBDOMAIN, "lower-case letters, digits, '-' and '.', at most 253", 253)
    ),
]
"""Of a Secret, a ServiceAccount, a claim, a class."""
Namespace = Annotated[
    str, AfterValidator(_matches(_LABEL, "lower-case letters, digits and '-', at most 63", 63))
]
QueueName = Annotated[
    str, AfterValidator(_matches(_SUBDOMAIN, "the name of a LocalQueue, at most 63 letters", 63))
]
"""It becomes a label's value."""
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
            raise ValueError(f"'{key}' is how pods are found; leave it out")
    return labels


OtherLabels = Annotated[Labels, AfterValidator(_not_ours)]
"""Labels besides those of the charts. One of theirs with another value would take a pod out of its
NetworkPolicy."""
