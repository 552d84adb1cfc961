"""Text and files to values of the declared types; every fault is one sentence.

YAML is read as people mean it (1e-3 is a number, 000021 and other padded ids stay text), so that
nothing in it can run, and nothing in it can swell.
"""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from nblib.core.errors import BadParameter

MOST_FAULTS = 5  # told at once
DEEPEST = 50  # levels of lists and mappings; the reader itself fails at some hundreds
RECORDING_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$"  # it becomes the name of a folder
INF = re.compile(r"^[-+]?\.(inf|Inf|INF)$")
INTEGER = re.compile(r"^[-+]?(0|[1-9][0-9]{0,99})$")
NUMBER = re.compile(
    r"^[-+]?((0|[1-9][0-9]*)?\.[0-9]+([eE][-+]?[0-9]+)?"
    r"|(0|[1-9][0-9]*)\.?([eE][-+]?[0-9]+)|(0|[1-9][0-9]*)\."
    r"|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$"
)


# --- YAML ----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, tags, names that stand twice, or numbers in other notations."""

    depth = 0
    yaml_implicit_resolvers = {
        first: [(tag, regex) for tag, regex in pairs if tag.endswith((":bool", ":null"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):  # a few lines of them can stand for gigabytes
            self._refuse("an alias (*name) is not taken; write the value out")
        if getattr(event, "tag", None) is not None:
            self._refuse(f"a tag ({event.tag}) is not taken; leave it out")
        self.depth += 1
        if self.depth > DEEPEST:
            self._refuse(f"lists and mappings are nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse("a list or a mapping cannot be a name", key)
            if (name := self.construct_object(key)) in names:
                self._refuse(f"key {name!r} stands twice", key)
            names.add(name)
        return super().construct_mapping(node, deep)

    def _refuse(self, problem: str, node: yaml.Node | None = None) -> None:
        mark = node.start_mark if node else self.peek_event().start_mark
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Strings(_Loader):
    """Every scalar as it is typed, but for infinity; whoever declared the type converts it."""

    yaml_implicit_resolvers = {}


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))
_Strings.add_implicit_resolver("tag:yaml.org,2002:float", INF, list("-+."))


def read_yaml(text: str, where: str, *, strings: bool = False) -> Any:
    """Parse YAML; a key that stands twice, or bad syntax, is a BadParameter naming `where`.

    strings: leave numbers, true, false and null as text.
    """
    try:
        return yaml.load(text, Loader=_Strings if strings else _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise BadParameter(f"{where}: not readable as YAML{place}: {problem}.") from None


def read_settings(text: str, where: str) -> dict[str, Any]:
    """Parse YAML that holds 'name: value' lines; BadParameter for anything else."""
    values = read_yaml(text, where)
    if not isinstance(values, dict):
        raise BadParameter(f"{where}: expected 'name: value' lines.")
    return values


def text_of(path: Path, where: str) -> str:
    """The text of a file of settings; BadParameter naming `where` when there is none to be had."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadParameter(f"{where}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise BadParameter(f"{where}: cannot be read: it is no text in UTF-8.") from None


# --- declared types ------------------------------------------------------------------------------


def checked(model: type[BaseModel], values: dict[str, Any], where: str) -> Any:
    """Build `model` from `values`; raise BadParameter that names `where` and each fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explained(error, model, where) from None


def from_text(name: str, text: str, kind: Any) -> Any:
    """A value of the command line, converted by the declared type of its parameter, never guessed.

    A str stays as typed (000021 stays "000021"); lists and mappings are YAML, their items again
    by the declared type. Raises BadParameter naming the parameter, the text and what was expected.
    """
    adapter = TypeAdapter(kind)
    if kind is str:
        return text
    if text.lower() in ("none", "null") and type(None) in get_args(kind):
        return None
    free = get_origin(kind) is dict  # no types declared: as YAML has them
    value = read_yaml(text, f"{name} = {shown(text)}", strings=not free)
    try:
        return adapter.dump_python(adapter.validate_python(value, strict=False), exclude_unset=True)
    except ValidationError as error:
        raise _explained(error, None, "-p", name) from None


def _explained(
    error: ValidationError, model: type[BaseModel] | None, where: str, name: str = ""
) -> BadParameter:
    """Pydantic's report as one sentence per fault: name, value, what was expected.

    model: whose names are proposed for an unknown one; name: stands before each fault's own.
    """
    lines = []
    for fault in error.errors(include_url=False):
        at = [part for part in (name, *fault["loc"]) if part != ""]
        lines.append(_sentence(fault, ".".join(str(part) for part in at) or "settings", model))
    if len(lines) > MOST_FAULTS:
        lines = [*lines[:MOST_FAULTS], f"and {len(lines) - MOST_FAULTS} more faults"]
    return BadParameter(f"{where}: " + "; ".join(lines) + ".")


def _sentence(fault: Any, name: str, model: type[BaseModel] | None) -> str:
    value, kind = fault["input"], fault["type"]
    if kind in ("extra_forbidden", "invalid_key"):
        close = difflib.get_close_matches(name, model.model_fields, n=3) if model else []
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"unknown parameter {shown(name)}{hint}"
    if kind == "missing":
        return f"parameter {name!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    message = f"{name}: {message}" if name == "settings" else f"{name} = {shown(value)}: {message}"
    if kind in ("list_type", "dict_type") and isinstance(value, str):
        if value.startswith(("[", "{")):  # papermill's -p and -r leave it text
            message += f"; write it without quotes (papermill: -y '{name}: {cut(value)}')"
        elif kind == "list_type":
            message += f", such as [{cut(value)}]"
    if kind == "string_type" and type(value) in (int, float):
        message += f"; put it into quotes, just as it is written: '{value}'"
        if len(fault["loc"]) == 1:
            message += f" (papermill: -r {name} {value})"
    return message


def shown(value: Any) -> str:
    """A value as Python writes it, cut to what fits into a sentence."""
    return cut(repr(value))


def cut(text: str) -> str:
    """A text as it is, or its beginning where it is too long for a sentence."""
    return text if len(text) <= 200 else f"{text[:60]}... ({len(text)} characters)"


def recording_id(name: str) -> str:
    """A name that may be that of a folder; ValueError for any other."""
    if not re.fullmatch(RECORDING_ID, name):
        raise ValueError(
            f"a recording id may hold letters, digits, '.', '_' and '-' only, at most 120, not {shown(name)}"
        )
    return name


def holds_nan(value: Any) -> bool:
    """Whether a value is NaN, or one in its lists and dictionaries."""
    if isinstance(value, dict | list):
        return any(map(holds_nan, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and math.isnan(value)


def with_room(limits: list[float]) -> list[float]:
    """Limits [lowest, highest] that some number keeps."""
    if limits[0] > limits[1] or limits in ([math.inf] * 2, [-math.inf] * 2):
        raise ValueError(f"no number lies between; write [lowest, highest], not {limits}")
    return limits


def check_names(names: list[str], of: str) -> None:
    """ValueError for a name that stands twice, or that a file cannot hold."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{of} name {shown(name)} twice; rename one")
        if "/" in name or not name.strip(". "):
            raise ValueError(
                f"{of}: {shown(name)} is no name that a file may hold; take one without '/' that is not of dots "
                "or spaces alone"
            )
