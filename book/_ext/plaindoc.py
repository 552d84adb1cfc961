"""Sphinx extension: docstrings are plain text, read as such.

The package's docstrings are written for people who read code: no markup but `names in backticks`,
lists with a dash, indented code, and sections underlined with dashes. This turns them into what
Sphinx reads, so that a star or a bar in a sentence is only that.
"""

from __future__ import annotations

import re

ITEM = re.compile(r"^(\w[\w, .]*?) : (.*)$")


def escape(text: str) -> str:
    """One line of prose: backticks become literals, everything else stands as it is."""
    parts = re.split(r"``([^`]+)``|`([^`]+)`", text)
    out = []
    for i in range(0, len(parts), 3):
        out.append(re.sub(r"([\\*|_`<>])", r"\\\1", parts[i]))
        literal = next((p for p in parts[i + 1 : i + 3] if p), None)
        if literal:
            out.append(f"``{literal.strip()}``")
            if i + 3 < len(parts) and re.match(r"\w", parts[i + 3]):
                out.append("\\ ")  # a literal must end before a letter begins
    return "".join(out)


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Runs of lines between blank lines."""
    runs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            runs[-1].append(line.rstrip())
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def listing(run: list[str], starts) -> list[list[str]]:
    """Lines gathered into items; a line that does not start an item continues the last one."""
    items: list[list[str]] = []
    for line in run:
        if starts(line) or not items:
            items.append([line])
        else:
            items[-1].append(line.strip())
    return items


def plain(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText."""
    out: list[str] = []
    for run in paragraphs(lines):
        if len(run) > 1 and re.fullmatch(r"-{3,}", run[1].strip()):
            out += [f".. rubric:: {run[0].strip()}", ""]
            run = run[2:]
        if not run:
            continue
        if all(line.startswith("    ") for line in run):
            out += ["::", "", *run, ""]
        elif run[0].startswith("- "):
            items = listing(run, lambda line: line.startswith("- "))
            out += [f"- {escape(' '.join(item)[2:])}" for item in items] + [""]
        elif ITEM.match(run[0]):
            for item in listing(run, lambda line: not line.startswith(" ")):
                name, _, text = " ".join(item).partition(" : ")
                if text:
                    out += [f"``{name}``", f"    {escape(text)}", ""]
                else:
                    out += [escape(name), ""]
        else:
            out += [escape(" ".join(line.strip() for line in run)), ""]
    return out


def process(app, what, name, obj, options, lines):
    """autodoc's hook: change the lines in place."""
    lines[:] = plain(lines)


def skip(app, what, name, obj, already, options):
    """Members that another package put there are not ours to document."""
    module = getattr(obj, "__module__", None) or ""
    return True if module and not module.startswith("nblib") and callable(obj) else None


def setup(app):
    """Register the hooks."""
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", skip)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
