"""Sphinx extension: parts of pages that are derived from the code, so they cannot grow stale.

`{parameters} nblib.core.params.BinSettings` makes the table of a settings model, `{decoders}` the table
of the model registry, `{tree}` the list of all modules, `{modules} nblib.core` the reference of every
module of a room.
"""

from __future__ import annotations

import ast
import importlib
import math
import pkgutil
import re
import typing
from pathlib import Path

from annotated_types import Ge, Gt, Le, Lt
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from pydantic import BaseModel
from sphinx.util.docutils import SphinxDirective

import nblib


def resolve(path: str):
    """The object behind a dotted name; raises ValueError when there is none."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                raise ValueError(f"{path}: {found.__name__} has no {part!r}")
            found = getattr(found, part)
        return found
    raise ValueError(f"{path}: no such module")


def type_text(annotation) -> str:
    """A type as a reader writes it: the choices of a Literal, `number` for float."""
    names = {
        float: "number",
        int: "whole number",
        str: "text",
        bool: "true or false",
        type(None): "none",
    }
    if annotation in names:
        return names[annotation]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " \\| ".join(f"`{p}`" for p in parts)
    if origin is typing.Annotated:
        return type_text(parts[0])
    if origin is list:
        return f"list of {type_text(parts[0])}"
    if origin is dict:
        return "names and values"
    if parts:
        return " or ".join(type_text(p) for p in parts)
    return f"see `{annotation.__name__}`"


def value_text(value) -> str:
    """A default as it is written in a recipe."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and math.isinf(value):
        return "`.inf`" if value > 0 else "`-.inf`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if value is None:
        return "none"
    if hasattr(type(value), "model_fields"):
        return "see below"
    return f"`{value}`"


def bound_text(metadata) -> str:
    """Limits of a number, in words of the page: `≥ 1, ≤ 50`."""
    signs = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
    found = []
    for item in metadata:
        for kind, (sign, name) in signs.items():
            if isinstance(item, kind):
                found.append(f"{sign} {getattr(item, name):,}")
    return ", ".join(found)


def parameter_rows(model, own: bool = False) -> list[tuple[str, str, str, str]]:
    """Rows (name, meaning with unit, type and bounds, default) of a model's fields.

    own: only the fields that the model does not inherit.
    """
    inherited = {n for base in model.__bases__ for n in getattr(base, "model_fields", {})}
    rows = []
    for name, field in model.model_fields.items():
        if own and name in inherited:
            continue
        kind = ", ".join(filter(None, (type_text(field.annotation), bound_text(field.metadata))))
        default = "required" if field.is_required() else value_text(field.default)
        rows.append((f"`{name}`", field.description or "", kind, default))
    return rows


def markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def decoder_rows() -> list[tuple[str, str, str]]:
    """Rows (name in a recipe, name for people, own settings with defaults) of the registry."""
    from nblib.models import MODELS
    from nblib.models.base import hyper_parameters

    rows = []
    for name, model in MODELS.items():
        settings = [f"`{key}={value}`" for key, value in hyper_parameters(model).items()]
        rows.append((f"`{name}`", model.title, " ".join(settings)))
    return rows


class _Table(SphinxDirective):
    """A directive whose content is Markdown made from code."""

    def markdown(self) -> str:
        raise NotImplementedError

    def run(self):
        holder = nodes.container()
        text = self.markdown().splitlines()
        self.state.nested_parse(
            StringList(text, source=self.env.docname), self.content_offset, holder
        )
        return holder.children


class Parameters(_Table):
    """`{parameters} dotted.name.of.a.model`, with `:own:` to leave out inherited fields."""

    required_arguments = 1
    option_spec: typing.ClassVar = {"own": directives.flag}

    def markdown(self) -> str:
        try:
            model = resolve(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from None
        rows = parameter_rows(model, own="own" in self.options)
        return markdown_table(("name", "meaning", "type", "default"), rows)


class Decoders(_Table):
    """`{decoders}`."""

    def markdown(self) -> str:
        return markdown_table(
            ("model", "what it is", "its settings and their defaults"), decoder_rows()
        )


def tree_lines(folder: Path, depth: int = 0) -> list[str]:
    """A line a folder and module below `folder`: its name, and the first sentence about it."""
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name)):
        file = path / "__init__.py" if path.is_dir() else path
        if not file.is_file() or file.suffix != ".py" or path.name.startswith("_"):
            continue
        about = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\n")[0]
        name = "  " * depth + path.name + ("/" if path.is_dir() else "")
        lines.append(f"{name:<26} {' '.join(about.split())}".rstrip())
        lines += tree_lines(path, depth + 1) if path.is_dir() else []
    return lines


class Tree(_Table):
    """`{tree}`."""

    def markdown(self) -> str:
        lines = tree_lines(Path(nblib.__file__).parent)
        return "\n".join(["```text", *lines, "```"])


MODULES = re.compile(r"^```\{modules\} (nblib\.\w+)\n```$", re.MULTILINE)


def module_sections(room: str) -> str:
    """A section for each module of a room, folders first to last by name; empty ones are left out."""
    package = importlib.import_module(room)
    found = pkgutil.walk_packages(package.__path__, f"{room}.")
    sections = []
    for name in (module.name for module in found):
        members = vars(importlib.import_module(name)).values()
        if any(getattr(member, "__module__", None) == name for member in members):
            title = name.removeprefix(f"{room}.")
            sections.append(f"## {title}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```")
    return "\n\n".join(sections)


def write_modules(app, docname, source):
    """`{modules}` as headings, which no directive of Markdown can make."""
    source[0] = MODULES.sub(lambda match: module_sections(match[1]), source[0])


def skip(app, what, name, obj, already, options):
    """Members that another package put into our classes are not ours to document."""
    module = getattr(obj, "__module__", None) or ""
    return True if module and not module.startswith("nblib") and callable(obj) else None


def without_fields(app, what, name, obj, options, signature, returns):
    """No signature for a model of settings: its fields are a table of the data dictionary."""
    return ("", "") if isinstance(obj, type) and issubclass(obj, BaseModel) else None


def setup(app):
    """Register the directives, and what the reference leaves out."""
    app.connect("source-read", write_modules)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", without_fields)
    app.add_directive("parameters", Parameters)
    app.add_directive("decoders", Decoders)
    app.add_directive("tree", Tree)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
