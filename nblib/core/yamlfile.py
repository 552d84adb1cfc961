"""YAML as people mean it, read so that nothing in it can run, and nothing in it can swell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from nblib.core.errors import BadParameter

DEEPEST = 50  # levels of lists and mappings; the reader itself fails at some hundreds
INF = re.compile(r"^[-+]?\.(inf|Inf|INF)$")


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: 1e-3 is a number, 000021 and other padded ids stay strings."""

    depth = 0

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

    def _refuse(self, problem: str) -> None:
        raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)


class _Strings(_Loader):
    """Every scalar as it is typed, but for infinity; whoever declared the type converts it."""


OTHERWISE = ("int", "float", "timestamp", "merge", "value")  # read below, or as text
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in pairs if not tag.endswith(OTHERWISE)]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]{0,99})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?((0|[1-9][0-9]*)?\.[0-9]+([eE][-+]?[0-9]+)?"
        r"|(0|[1-9][0-9]*)\.?([eE][-+]?[0-9]+)|(0|[1-9][0-9]*)\."
        r"|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


_Strings.yaml_implicit_resolvers = {}
_Strings.add_implicit_resolver("tag:yaml.org,2002:float", INF, list("-+."))


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            problem = "a list or a mapping cannot be a name"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = [i for i, key in enumerate(keys) if key in keys[:i]]
    if twice:
        problem, mark = f"key {keys[twice[0]]!r} stands twice", node.value[twice[0]][0].start_mark
        raise yaml.constructor.ConstructorError(None, None, problem, mark)
    return {
        k: loader.construct_object(v, deep=True) for k, (_, v) in zip(keys, node.value, strict=True)
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_Strings.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


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
