"""What helm sends as Kubernetes's protobuf: its releases, which are Secrets, and nothing else.

Source: k8s.io/api/core/v1/generated.proto; protobuf.dev, Encoding. Used by `kube_server`.
"""

import base64
import json
from io import BytesIO
from typing import Any

Object = dict[str, Any]
MAGIC = b"k8s\0"
NAME, NAMESPACE, RESOURCE_VERSION, LABELS = 1, 3, 6, 11
"""Fields of ObjectMeta."""


def decoded(body: bytes) -> Object:
    """A request's body: JSON, a Secret in protobuf; empty for its other messages."""
    if not body:
        return {}
    if not body.startswith(MAGIC):
        found: Object = json.loads(body)
        return found
    envelope = _fields(body.removeprefix(MAGIC))
    kind = dict(_fields(dict(envelope)[1]))[2].decode()
    return _secret(dict(envelope)[2]) if kind == "Secret" else {}


def _secret(message: bytes) -> Object:
    found: Object = {"metadata": {}, "data": {}}
    for number, value in _fields(message):
        if number == 1:
            found["metadata"] = _metadata(value)
        elif number == 2:
            key, data = _entry(value)
            found["data"][key] = base64.b64encode(data).decode()
        elif number == 3:
            found["type"] = value.decode()
    return found


def _metadata(message: bytes) -> Object:
    names = {NAME: "name", NAMESPACE: "namespace", RESOURCE_VERSION: "resourceVersion"}
    found: Object = {"labels": {}}
    for number, value in _fields(message):
        if number == LABELS:
            key, label = _entry(value)
            found["labels"][key] = label.decode()
        elif number in names and value:
            found[names[number]] = value.decode()
    return found


def _entry(message: bytes) -> tuple[str, bytes]:
    """Of a map."""
    fields = dict(_fields(message))
    return fields[1].decode(), fields.get(2, b"")


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """Number and content of each; of those that are numbers, no content."""
    found, rest = [], BytesIO(message)
    while (tag := _varint(rest)) is not None:
        value = _varint(rest)
        assert value is not None
        found.append((tag >> 3, rest.read(value) if tag & 7 == 2 else b""))
    return found


def _varint(rest: BytesIO) -> int | None:
    """The next number; None at the end."""
    value = None
    for shift in range(0, 64, 7):
        byte = rest.read(1)
        if not byte:
            break
        value = (value or 0) | (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
    return value
