"""The figure of embeddings (08): a map of windows."""

from __future__ import annotations

import numpy as np

from nblib.report.plots import primitives, style
from nblib.report.plots.style import Picture

MOST_DOTS = 4000


@style.styled
def embedding_map(
    place: np.ndarray, label: np.ndarray, subject: np.ndarray, start_s: np.ndarray
) -> Picture:
    """The same windows three times: coloured by state, by subject and by time in the recording.

    place (W, 2); label (W,) with "" for windows without a state; subject (W,); start_s (W,) [s].
    """
    keep = np.linspace(0, len(place) - 1, min(len(place), MOST_DOTS)).astype(int)
    place, label, subject, start_s = (values[keep] for values in (place, label, subject, start_s))
    limits = np.quantile(place, [0.005, 0.995], axis=0)
    fig = style.new_figure(3.6)
    axes = fig.subplots(1, 3)
    for ax, names in zip(axes, (label, subject), strict=False):
        for name, (colour, _) in primitives.series(sorted(set(names) - {""})).items():
            dots = place[names == name].T
            ax.plot(*dots, "o", ms=2, mew=0, alpha=0.5, color=colour, rasterized=True)
            if ax is axes[0]:
                ax.plot([], [], "o", color=colour, label=name.replace("_", " "))
    fig.legend_outside(3, "lower left")
    look = {"s": 4, "lw": 0, "alpha": 0.6, "cmap": "viridis", "rasterized": True}
    dots = axes[2].scatter(*place.T, c=start_s, **look)
    fig.colorbar(dots, ax=axes[2], label="time in the recording (s)")
    titles = ("by state", f"by subject ({len(set(subject) - {''})})", "by time")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(xlim=limits[:, 0], ylim=limits[:, 1], xticks=[], yticks=[])
        ax.set(xlabel="component 1", title=title)
    axes[0].set_ylabel("component 2")
    return fig
