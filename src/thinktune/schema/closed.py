"""The base of every model that is written down, and the one way to read such a thing from text."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import ComposerError
from yaml.events import AliasEvent, Event
from yaml.nodes import MappingNode, Node, ScalarNode

from thinktune.schema.errors import SpecInvalid, near_misses

SHOWN_FAULTS = 4


class Closed(BaseModel):
    """Unknown keys are rejected, values never change, and the docstring under a field describes
    it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def canonical(self) -> str:
        """One spelling per value: sorted keys, no spaces. What digests are taken of."""
        return json.dumps(
            self.model_dump(mode="json"),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )

    def digest(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @classmethod
    def parse(cls, data: Any, place: str) -> Self:
        """Validates plain data (from YAML or JSON), without coercion.

        `place` says where the data comes from, a file's path as a rule.
        Raises SpecInvalid with the field, the fault, the remedy and near misses.
        """
        try:
            # Through JSON, where strict mode still takes an array for a tuple.
            return cls.model_validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            raise _spec_invalid(cls, error, place) from None
        except TypeError as error:  # a YAML date, a set: nothing that JSON has
            raise SpecInvalid(
                place, str(error), "use only strings, numbers, lists and mappings"
            ) from None


def added(default: Any) -> Any:
    """A field that a model got later. It is written down only where it has another value than its
    default, so that digests from before hold: a run that was begun without it continues."""
    return Field(default, exclude_if=lambda value: value == default)


def _is_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"not a valid Python regular expression ({error}); "
            "correct it, and put a backslash before each character that is meant literally"
        ) from None
    return pattern


RegularExpression = Annotated[str, AfterValidator(_is_pattern)]
"""A field's text that `re` compiles."""

C = TypeVar("C", bound=Closed)


def _composer_error(problem: str, at: Event | Node) -> ComposerError:
    return ComposerError(None, None, problem, at.start_mark)  # type: ignore[arg-type]


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: PyYAML takes `2e-4` for a string, and a learning rate is written so.

    Also refuses what PyYAML lets pass: a key twice in a mapping, of which the first would be lost,
    and a node that holds itself, which no JSON can say.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._open: list[str] = []

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, AliasEvent) and event.anchor in self._open:
            problem = f"'*{event.anchor}' refers to a value that contains it"
            raise _composer_error(problem, event)
        anchor = None if isinstance(event, AliasEvent) else getattr(event, "anchor", None)
        if anchor is None:
            return super().compose_node(parent, index)
        self._open.append(anchor)
        node = super().compose_node(parent, index)
        self._open.pop()
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        # Here and not while constructing: by then `<<` has added keys that may stand again.
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                problem = f"'{key.value}' is written twice"
                raise _composer_error(problem, key)
            seen.add((key.tag, key.value))
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, place: str) -> Any:
    """Reads one YAML document. Raises SpecInvalid with the line of the fault."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise SpecInvalid(place, "not YAML (nested too deeply)", "use fewer levels") from None
    except ValueError as error:  # an integer of thousands of digits
        raise SpecInvalid(place, f"not YAML ({error})", "correct that value") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{place}:{mark.line + 1}" if mark else place
        problem = getattr(error, "problem", None) or str(error)
        raise SpecInvalid(where, f"not YAML ({problem})", "correct that line") from None


def _spec_invalid(cls: type[Closed], error: ValidationError, place: str) -> SpecInvalid:
    # What is wrong says more than what is missing: a misspelt key is both.
    details = sorted(error.errors(), key=lambda detail: detail["type"] == "missing")
    faults = [_explain(cls, detail) for detail in details]
    fault, remedy = faults[0]
    if len(faults) > 1:
        others = [f"{other}; {remedy}" for other, remedy in faults[1:SHOWN_FAULTS]]
        hidden = len(faults) - SHOWN_FAULTS
        more = f" (and {hidden} more)" if hidden > 0 else ""
        remedy = ". Also: ".join([remedy, *others]) + more
    return SpecInvalid(place, fault, remedy)


def _explain(cls: type[Closed], detail: ErrorDetails) -> tuple[str, str]:
    loc = [part for part in detail["loc"] if not _is_union_tag(part)]
    field = ".".join(str(part) for part in loc) or "the whole"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields_at(cls, loc[:-1])
        return f"unknown key '{field}'", near_misses(str(loc[-1]), known)
    if kind == "missing":
        return f"'{field}' is missing", f"add it{_described(cls, loc)}"
    if kind == "literal_error":
        expected = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        shown = near_misses(str(detail["input"]), expected)
        return f"'{field}' is {detail['input']!r}", shown
    if kind == "value_error":
        message = str(context.get("error", detail["msg"]))
        fault, _, remedy = message.partition("; ")
        where = f"'{field}': " if loc else ""
        return where + fault, remedy or "change it"
    if kind == "json_invalid":  # what JSON cannot hold: half a character of UTF-16
        return f"{field} holds text that is not Unicode", "write it in UTF-8"
    value = detail["input"]
    got = f"{value!r}" if isinstance(value, str | int | float | bool) else type(value).__name__
    wanted = re.sub(r"^Input should be ", "", detail["msg"])
    wanted = re.sub(r"^String should match pattern", "text of the form", wanted)
    return f"'{field}' is {got}", f"it should be {wanted}{_described(cls, loc)}"


def _is_union_tag(part: int | str) -> bool:
    tag = r"[\[(:]|^(constrained-)?(str|int|float|bool)$"
    return isinstance(part, str) and bool(re.search(tag, part))


def _model_of(annotation: Any) -> type[Closed] | None:
    if isinstance(annotation, type) and issubclass(annotation, Closed):
        return annotation
    if get_origin(annotation) is not None:
        return next((found for a in get_args(annotation) if (found := _model_of(a))), None)
    return None


def _model_at(cls: type[Closed], loc: Iterable[int | str]) -> type[Closed] | None:
    model: type[Closed] | None = cls
    for part in loc:
        if model is None:
            return None
        if isinstance(part, str) and part in model.model_fields:
            model = _model_of(model.model_fields[part].annotation)
    return model


def declared_type(cls: type[Closed], path: Sequence[str]) -> Any:
    """The type of the field at that path of keys; None where there is no such field."""
    model = _model_at(cls, path[:-1])
    info = model.model_fields.get(path[-1]) if model else None
    return info.annotation if info else None


def _fields_at(cls: type[Closed], loc: list[int | str]) -> list[str]:
    model = _model_at(cls, loc)
    return list(model.model_fields) if model else []


def _described(cls: type[Closed], loc: list[int | str]) -> str:
    model = _model_at(cls, loc[:-1]) if loc else None
    info = model.model_fields.get(str(loc[-1])) if model else None
    text = info.description if info and info.description else ""
    first = re.split(r"\.\s", " ".join(text.split()))[0].rstrip(".")
    return f" ({first})" if first else ""
