"""Sphinx extension: formulas as inline SVG, drawn by matplotlib's mathtext.

A page then needs no MathJax, hence no network, and a formula takes the colour of the text
around it, in the light theme and in the dark one. A formula that mathtext cannot read is a
warning, which the book's build treats as an error.
"""

from __future__ import annotations

import html
import re

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextToPath
from sphinx.util import logging

EM = 100.0  # glyphs are laid out at this many units per em, then rounded to whole units
TEXT_SCALE = 1.16  # Computer Modern looks small beside the sans text of the page
ROW_GAP = 0.55  # space between the rows of an aligned block [em]
LETTERS = {
    Outline.MOVETO: ("M", 1),
    Outline.LINETO: ("L", 1),
    Outline.CURVE3: ("Q", 2),
    Outline.CURVE4: ("C", 3),
}
# TeX that mathtext does not know, in words that it does.
SPELLINGS = [
    (
        r"\\begin\{(aligned|align\*?|split|gathered)\}|\\end\{(aligned|align\*?|split|gathered)\}",
        "",
    ),
    (r"\\[lr]Vert(?![A-Za-z])", r"\\|"),
    (r"\\[lr]vert(?![A-Za-z])", r"|"),
    (r"\\(big|Big|bigg|Bigg)[lrm]?(?![A-Za-z])", ""),
    (r"\\tfrac(?![A-Za-z])", r"\\frac"),
    (r"\\textstyle|\\displaystyle|\\nolimits", ""),
]


def _outline(latex: str) -> tuple[str, float, float, float]:
    """Draw one row: its SVG path (y up, baseline at 0), width, height and depth in em/100."""
    text = f"${latex.strip()}$"
    prop = FontProperties(size=EM, math_fontfamily="cm")
    writer = TextToPath()
    width, height, depth = writer.get_text_width_height_descent(text, prop, ismath=True)
    points, codes = writer.get_text_path(prop, text, ismath=True)
    parts, i = [], 0
    while i < len(codes):
        if codes[i] == Outline.CLOSEPOLY:
            parts.append("Z")
            i += 1
            continue
        letter, count = LETTERS[codes[i]]
        numbers = " ".join(f"{x:.0f} {y:.0f}" for x, y in points[i : i + count])
        parts.append(letter + numbers)
        i += count
    if len(points):
        height = max(height, max(y for _, y in points) + depth)
    return "".join(parts), width, height, depth


def render(latex: str, *, display: bool = False) -> str:
    r"""SVG of a formula; rows are split at ``\\`` and aligned at ``&``. Raises ValueError."""
    for pattern, replacement in SPELLINGS:
        latex = re.sub(pattern, replacement, latex)
    if display:  # as in TeX, a displayed fraction keeps the size of its parts
        latex = re.sub(r"\\frac(?![A-Za-z])", r"\\dfrac", latex)
    rows = [row for row in re.split(r"\\\\", latex) if row.strip()] or [" "]
    cells = [
        [_outline(cell) if cell.strip() else ("", 0.0, 70.0, 0.0) for cell in row.split("&")]
        for row in (r.strip().replace("\n", " ") for r in rows)
    ]
    left = max(row[0][1] for row in cells) if any(len(row) > 1 for row in cells) else 0.0
    drawn, y, width = [], 0.0, 0.0
    for k, row in enumerate(cells):
        ascent = max(height - depth for _, _, height, depth in row)
        depth = max(d for *_, d in row)
        y += ascent + (ROW_GAP * EM if k else 0.0)
        x = left - row[0][1] if len(row) > 1 else 0.0
        for path, wide, _, _ in row:
            drawn.append(f'<path transform="translate({x:.0f} {y:.0f}) scale(1 -1)" d="{path}"/>')
            x += wide
        width = max(width, x)
        y += depth
    total, base = y, (depth if len(cells) == 1 else 0.0)
    pad = 6.0
    size = TEXT_SCALE / EM
    style = f"width:{(width + 2 * pad) * size:.3f}em;height:{(total + 2 * pad) * size:.3f}em"
    if not display:
        style += f";vertical-align:{-(base + pad) * size:.3f}em"
    label = html.escape(" ".join(latex.split()), quote=True)
    return (
        f'<svg class="formula" role="img" aria-label="{label}" style="{style}" viewBox="'
        f'{-pad:.0f} {-pad:.0f} {width + 2 * pad:.0f} {total + 2 * pad:.0f}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(drawn)}</svg>'
    )


def _svg(node: nodes.Element, display: bool) -> str:
    try:
        return render(node.astext(), display=display)
    except ValueError as error:
        reason = str(error).strip().splitlines()[-1]
        logging.getLogger(__name__).warning(
            "formula %r cannot be drawn: %s", node.astext(), reason, location=node
        )
        return f"<code>{html.escape(node.astext())}</code>"


def visit_inline(translator, node):
    """Write an inline formula."""
    translator.body.append(f'<span class="math-inline">{_svg(node, False)}</span>')
    raise nodes.SkipNode


def visit_block(translator, node):
    """Write a displayed formula, scrolling sideways on a narrow screen."""
    translator.body.append(f'<div class="math-block">{_svg(node, True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer under the name `svg`."""
    app.add_html_math_renderer("svg", (visit_inline, None), (visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
