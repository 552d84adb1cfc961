"""Text of the data on its way into Markdown or HTML: shown as it stands, never obeyed.

Labels, areas, columns, file names and messages come from files that anybody may have written.
"""

from __future__ import annotations

import html
import re
from typing import Any

# Whatever Markdown, its extensions or MathJax could take for a sign of theirs: all but letters,
# digits and harmless punctuation; what makes an address a link ("x://", "www.x"); and what begins
# a line ("- ", "1. ").
SIGNS = re.compile(r"[^\w\s.,;:!=()/%'\"?-]|_|:(?=[/:])|(?<=[^\W\d])\.(?=\w)|^[\W\d]")


def in_markdown(text: Any) -> str:
    """`text` for a place inside a line of Markdown or a cell of its tables."""
    return SIGNS.sub(_entity, " ".join(str(text).split()))


def in_html(text: Any) -> str:
    """`text` for a place inside HTML or a quoted attribute, also where Markdown holds that HTML."""
    return html.escape(str(text)).replace("`", "&#96;").replace("\n", "&#10;")


def no_formula(page: str) -> str:
    """HTML in which MathJax, of Jupyter or of the book, leaves dollars and backslashes as they stand."""
    return f'<div class="tex2jax_ignore mathjax_ignore">{page}</div>'


def _entity(sign: re.Match) -> str:
    """A character as its number. MathJax looks for pairs of dollars and for backslashes after
    Markdown is done with numbers, but never across tags."""
    number = f"&#{ord(sign[0])};"
    return f"<span>{number}</span>" if sign[0] in "$\\" else number
