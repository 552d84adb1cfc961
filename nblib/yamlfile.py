"""YAML as people mean it, read so that nothing in it can run."""

from __future__ import annotations

import re
from typing import Any

import yaml

from nblib.errors import BadParameter


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: 1e-3 is a number, 000021 and other padded ids stay strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in pairs if not tag.endswith(("int", "float", "timestamp"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
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


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = sorted({str(k) for k in keys if keys.count(k) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} stands twice")
    return {
        k: loader.construct_object(v, deep=True) for k, (_, v) in zip(keys, node.value, strict=True)
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML; a key that stands twice, or bad syntax, is a BadParameter naming `where`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise BadParameter(f"{where}: not readable as YAML: {error}") from None
