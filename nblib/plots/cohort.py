"""The figure of a cohort: which recordings a recipe names and how far each has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import ListedColormap

from nblib.plots import style
from nblib.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd


@style.styled
def cohort_progress(table: pd.DataFrame, chosen: str, recipe: str) -> Picture:
    """Tiles, recording by stage, with the number of stored artifacts; the chosen row in bold.

    table: one row a recording, one column a stage, counts.
    """
    counts = table.to_numpy()
    fig = style.new_figure(1.15 + 0.24 * len(table))
    ax = fig.add_subplot()
    colours = ListedColormap(["#F4F4F4", style.shade(style.GREEN, 0.45)])
    ax.pcolormesh(np.minimum(counts, 1), cmap=colours, vmin=0, vmax=1, edgecolors="white", lw=2)
    for (row, column), n in np.ndenumerate(counts):
        ax.text(column + 0.5, row + 0.5, n if n else "–", ha="center", va="center", fontsize=9)
    ax.set_yticks(np.arange(len(table)) + 0.5, table.index)
    for tick, name in zip(ax.get_yticklabels(), table.index, strict=True):
        tick.set_fontweight("bold" if name == chosen else "normal")
    ax.set_xticks(np.arange(table.shape[1]) + 0.5, [c.replace("_", "\n") for c in table.columns])
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.invert_yaxis()
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xlabel(f"stored artifacts, recipe {recipe}")
    begun = int((counts > 0).any(axis=1).sum())
    fig.result = f"Chosen: {chosen}; {begun} of {len(table)} recordings have artifacts"
    return fig
