"""What helm asks an API server before it makes anything: versions, groups, resources.

Source: kubernetes.io, API discovery. Used by `kube_server`.
"""

import re

from kube_objects import RESOURCES, Object, Resource

VERSION = "v1.34.0"


def discovery(path: str) -> Object | None:
    """What helm asks before it makes anything."""
    groups = sorted({each.group for each in RESOURCES if each.group})
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": VERSION}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {"name": group, "versions": [version], "preferredVersion": version}
                for group in groups
                for version in [{"groupVersion": f"{group}/v1", "version": "v1"}]
            ],
        }
    if path == "/openapi/v3":
        paths = ["api/v1", *(f"apis/{group}/v1" for group in groups)]
        return {"paths": {each: {"serverRelativeURL": f"/openapi/v3/{each}"} for each in paths}}
    found = re.fullmatch(r"(/openapi/v3)?/(?:api|apis/([^/]+))/v1", path)
    if found is None or (found[2] or "") not in ["", *groups]:
        return None
    of_group = [each for each in RESOURCES if each.group == (found[2] or "")]
    return _openapi(of_group) if found[1] else _resource_list(of_group)


def _openapi(of_group: list[Resource]) -> Object:
    """That the server checks fields itself, which helm then leaves to it."""
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": {
            f"/{each.plural}/{{name}}": {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query"}],
                    "responses": {},
                    "x-kubernetes-group-version-kind": {
                        "group": each.group,
                        "version": "v1",
                        "kind": each.kind,
                    },
                }
            }
            for each in of_group
        },
    }


def _resource_list(of_group: list[Resource]) -> Object:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": of_group[0].api_version,
        "resources": [
            {
                "name": each.plural,
                "singularName": each.kind.lower(),
                "namespaced": each.namespaced,
                "kind": each.kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update"],
            }
            for each in of_group
        ],
    }
