"""Values against their declared types; every fault becomes a sentence with name, value and remedy."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from nblib.core.errors import BadParameter

MOST_FAULTS = 5  # told at once


def explain(
    error: ValidationError, model: type[BaseModel] | None, where: str, name: str = ""
) -> BadParameter:
    """Turn pydantic's report into one sentence per fault: name, value, what was expected.

    model: whose names are proposed for an unknown one; name: stands before each fault's own.
    """
    lines = []
    for fault in error.errors(include_url=False):
        at = [part for part in (name, *fault["loc"]) if part != ""]
        lines.append(_in_words(fault, ".".join(str(part) for part in at) or "settings", model))
    if len(lines) > MOST_FAULTS:
        lines = [*lines[:MOST_FAULTS], f"and {len(lines) - MOST_FAULTS} more faults"]
    return BadParameter(f"{where}: " + "; ".join(lines) + ".")


def _in_words(fault: Any, name: str, model: type[BaseModel] | None) -> str:
    if fault["type"] in ("extra_forbidden", "invalid_key"):
        close = difflib.get_close_matches(name, model.model_fields, n=3) if model else []
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"unknown parameter {shown(name)}{hint}"
    if fault["type"] == "missing":
        return f"parameter {name!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    value = "" if name == "settings" else f" = {shown(fault['input'])}"
    message = f"{name}{value}: {message[:1].lower()}{message[1:]}"
    if fault["type"] in ("list_type", "dict_type") and isinstance(fault["input"], str):
        if fault["input"].startswith(("[", "{")):  # papermill's -p and -r leave it text
            message += f"; write it without quotes (papermill: -y '{name}: {cut(fault['input'])}')"
        elif fault["type"] == "list_type":
            message += f", such as [{cut(fault['input'])}]"
    if fault["type"] == "string_type" and type(fault["input"]) in (int, float):
        message += f"; put it into quotes, just as it is written: '{fault['input']}'"
        if len(fault["loc"]) == 1:
            message += f" (papermill: -r {name} {fault['input']})"
    return message


def shown(value: Any) -> str:
    """A value as Python writes it, cut to what fits into a sentence."""
    return cut(repr(value))


def cut(text: str) -> str:
    """A text as it is, or its beginning where it is too long for a sentence."""
    return text if len(text) <= 200 else f"{text[:60]}... ({len(text)} characters)"


def checked(model: type[BaseModel], values: dict[str, Any], where: str) -> Any:
    """Build `model` from `values`; raise BadParameter that names `where` and each fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain(error, model, where) from None


def converted(kind: Any, value: Any, where: str, name: str) -> Any:
    """Text, or lists and mappings of text, as the type `kind` that parameter `name` is declared with.

    Raises BadParameter that names `where`, the value and what was expected.
    """
    adapter = TypeAdapter(kind)
    try:
        found = adapter.validate_python(value, strict=False)
    except ValidationError as error:
        raise explain(error, None, where, name) from None
    return adapter.dump_python(found, exclude_unset=True)
