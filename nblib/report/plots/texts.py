"""Texts of figures: names that fit where they stand, and the alt text of a whole figure.

Widths are estimated from the number of letters, so that no figure has to be drawn twice.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

LETTER_IN, LINE_IN = 0.072, 0.155  # a letter and a line of a name beside an axis
TITLE_LETTER_IN, LABEL_LETTER_IN = 0.088, 0.076
# Panels as laid out at last, over those that matplotlib begins with; what names take from them all.
FILLED, WIDENED = 1.12, 2.2
BETWEEN_IN = 0.65  # what title, numbers and name of the axis take of a panel's height
MOST_LETTERS = 28  # of a name beside a row or in a legend; a longer one loses its middle
MOST_TURNED = 18  # of a name below an axis, or beside one of several columns of panels
MOST_PANELS, MOST_LISTED = 6, 8  # what the words of a figure name one by one


def short(text: str, most: int = MOST_LETTERS) -> str:
    """A name of at most so many letters: the beginning and the end of a longer one."""
    if "\n" in text:
        return "\n".join(short(line, most) for line in text.split("\n"))
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


def fit(fig: Figure) -> None:
    """Shorten, wrap, turn or leave out names, so that none leaves a figure or overprints another."""
    width_in, height_in = fig.get_size_inches()
    # Panels that stand on one another are laid out at last with less between them than at first.
    stacked = {round(ax.get_position().y0, 3): ax.get_position().height for ax in fig.axes}
    between = BETWEEN_IN * len(stacked)
    tall = max(1.0, (height_in - BETWEEN_IN - between) / (sum(stacked.values()) * height_in))
    margins: dict[float, float] = {}  # what the names of rows take, by column of panels
    for ax in fig.axes:
        box = ax.get_position()
        most = MOST_LETTERS if box.width > 0.5 else MOST_TURNED
        _fit_ticks(ax.yaxis, box.height * tall * height_in, ax.get_ylim(), most)
        rows = max((len(text.get_text()) for text in ax.get_yticklabels()), default=0)
        margins[box.x0] = max(margins.get(box.x0, 0.0), rows * LETTER_IN - 0.6)
    for ax in fig.axes:
        box = ax.get_position()
        width = box.width * (FILLED * width_in - WIDENED * sum(margins.values()))
        height = box.height * height_in
        _fit_ticks(ax.xaxis, width, ax.get_xlim(), MOST_TURNED)
        _wrap(ax.xaxis.label, width / LABEL_LETTER_IN)
        _wrap(ax.yaxis.label, height / LABEL_LETTER_IN)
        for title in ax.get_children():
            if isinstance(title, Text) and title not in ax.texts:
                _wrap(title, width / TITLE_LETTER_IN)
        for text in ax.get_legend().get_texts() if ax.get_legend() else ():
            text.set_text(short(text.get_text(), MOST_LETTERS if box.width > 0.5 else MOST_TURNED))


def apart(places: np.ndarray, sizes: np.ndarray) -> list[int]:
    """Which of the things centred at `places` (ascending) fit, the first before later ones."""
    shown: list[int] = []
    for i, place in enumerate(places):
        if not shown or place - places[shown[-1]] >= (sizes[i] + sizes[shown[-1]]) / 2:
            shown.append(i)
    return shown


def _fit_ticks(axis: Axis, length_in: float, limits: tuple[float, float], most: int) -> None:
    """Names beside an axis: short; below an axis turned when they would touch; as many as fit."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return  # numbers, which matplotlib places itself
    ticks, texts = axis.get_ticklocs(), axis.get_ticklabels()
    if len(ticks) != len(texts):
        return  # another panel of the same scale shows them
    scale, below = axis.get_transform().transform, axis.axis_name == "x"
    low, high = scale(np.array(limits))
    places = np.abs(scale(np.asarray(ticks, float)) - low) / abs(high - low) * length_in
    order = np.argsort(places, kind="stable")
    names = [short(text.get_text(), most) for text in texts]
    lines = [name.split("\n") for name in names]
    sizes = np.array(
        [max(map(len, n)) * LETTER_IN + 0.1 if below else len(n) * LINE_IN for n in lines]
    )
    shown = order[apart(places[order], sizes[order])]
    if below and len(shown) < len(names) and any(map(str.isalpha, "".join(names))):
        shown = order[apart(places[order], np.full(len(names), LINE_IN))]
        for text in texts:
            text.set(rotation=40, ha="right", rotation_mode="anchor")
    axis.set_ticks(ticks, [name if i in shown else "" for i, name in enumerate(names)])


def _wrap(text: Text, most: float) -> None:
    lines = text.get_text().split("\n")
    if any(len(line) > most for line in lines):
        text.set_text("\n".join(textwrap.fill(line, max(12, int(most))) for line in lines))


def alt_text(fig: Figure) -> str:
    """Title, axes, rows with their values, and legends of a figure, in plain words."""
    panels = list(dict.fromkeys(filter(None, map(_panel_text, fig.axes))))
    legends = [*fig.legends, *filter(None, (ax.get_legend() for ax in fig.axes))]
    entries = [text.get_text() for legend in legends for text in legend.get_texts()]
    parts = panels[:MOST_PANELS]
    if len(panels) > MOST_PANELS:
        parts.append(f"{len(panels) - MOST_PANELS} more panels")
    if entries:
        parts.append(f"Legend: {_listed(dict.fromkeys(entries))}")
    return ". ".join(parts)


def _panel_text(ax: Axes) -> str:
    """Title, axes and named rows of a panel, each row with the text beside it; "" for a bare one."""
    x, y = ax.get_xlabel(), ax.get_ylabel()
    if ax.get_label() == "<colorbar>":
        return f"Colour: {x or y}" if x or y else ""
    parts = [ax.get_title("left") or ax.get_title(), f"{y} against {x}" if x and y else x or y]
    named = isinstance(ax.yaxis.get_major_locator(), FixedLocator)
    rows = [tick.get_text() for tick in ax.get_yticklabels()] if named else []
    texts = [text.get_text() for text in ax.texts]
    if any(map(str.isalpha, "".join(rows))):
        pairs = zip(rows, texts, strict=True) if len(rows) == len(texts) else ((r,) for r in rows)
        parts.append(f"rows: {_listed(' '.join(pair) for pair in pairs)}")
    elif len(texts) == 1:  # a note in place of a drawing
        parts += texts
    text = "; ".join(dict.fromkeys(filter(None, parts)))
    return text if any(map(str.isalpha, text)) else ""


def _listed(texts: Iterable[str]) -> str:
    """The first texts, and how many there are beside them."""
    texts = [text for text in texts if text]
    more = len(texts) - MOST_LISTED
    return ", ".join(texts[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
