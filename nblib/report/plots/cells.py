"""Predicted spikes (13): scores, trains under the recorded one, calibration, and cells in a plane."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.experiments.spikes.prediction import BITS
from nblib.report.plots import one_run, primitives, style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    from nblib.evaluate.result import Result

MOST_POINTS = 32  # of an average, a channel
WIDTH, HEIGHT = 720, 400


@style.styled
def scores(result: Result) -> Picture:
    """Every model's bits a spike with its interval over cells, and the truth's where it is known."""
    missing = "No model that says how likely spikes are was asked for."
    xlabel = "bits a spike over a constant rate, 95 % interval over cells"
    return one_run.model_scores(result, BITS, xlabel, "constant rate", missing)


@style.styled
def calibration(table: pd.DataFrame | None) -> Picture:
    """How often a spike came, against how likely it was said to be, in groups of equally many bins."""
    if table is None:
        return style.say("No model one step ahead was asked for: -p encoders '[glm]'")
    fig, ax = style.new_panel(3.4)
    known = table[(table["said"] > 0) & (table["seen"] > 0)]
    ends = known[["said", "seen"]].min().min(), known[["said", "seen"]].max().max()
    ax.plot(ends, ends, color=style.GREY, lw=1, label="as said")
    ax.errorbar(
        known["said"],
        known["seen"],
        3 * known["sd"],
        fmt="o",
        color=style.BLUE,
        capsize=3,
        label=f"{table['model'].iloc[0]}, ± 3 sd",
    )
    ax.set(
        xscale="log", yscale="log", xlabel="probability said", ylabel="share of bins with a spike"
    )
    for axis in (ax.xaxis, ax.yaxis):
        primitives.plain_numbers(axis)
    fig.legend_outside()
    return fig


@style.styled
def stretch(trains: dict[str, np.ndarray], bin_s: float) -> Picture:
    """Some seconds of one cell: the recorded train, and under it every inferred one; rates are grey."""
    fig, ax = style.new_panel(0.8 + 0.3 * len(trains))
    for row, train in enumerate(trains.values()):
        time_s = np.arange(len(train)) * bin_s
        if np.isin(train, (0, 1)).all():
            colour = style.INK if row == 0 else style.BLUE
            ax.vlines(time_s[train > 0], row - 0.4, row + 0.4, color=colour, lw=1.1)
        else:
            low = row + 0.4
            ax.fill_between(
                time_s, low, low - 0.8 * train / max(train.max(), 1e-9), color=style.GREY, lw=0
            )
    primitives.name_rows(ax, list(trains))
    ax.set(xlabel="time in test windows [s]")
    return fig


class CellPlane:
    """Cells in a plane, each with its spike-triggered average on hover and on focus: SVG alone.

    plane: a row a cell (unit, x, y, kind, rate_hz, type); sta (C, channel, lag), the latest last.
    """

    def __init__(self, plane: pd.DataFrame, sta: np.ndarray, step_s: float):
        self.plane, self.back_s = plane, step_s * sta.shape[2]
        self.sta = sta[:, :, :: -(-sta.shape[2] // MOST_POINTS)]

    def __repr__(self) -> str:
        return f"{len(self.plane)} cells in {self.plane['kind'].nunique()} groups"

    def _repr_html_(self) -> str:
        style_ = (
            ".nb-cell .k{visibility:hidden}.nb-cell:hover .k,.nb-cell:focus .k{visibility:visible}"
            ".nb-cell:focus{outline:none}.nb-cell:focus circle,.nb-cell:hover circle{stroke:#888;stroke-width:5}"
            ".nb-words{font-size:13px;text-anchor:end}@media(max-width:600px){.nb-words{font-size:22px}}"
        )
        head = (
            f'<style>{style_}</style><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="max-width:{WIDTH}px;width:100%" '
            f'aria-label="{escape(repr(self))}; each point shows its spike-triggered average">'
        )
        said = f"mean stimulus, last {self.back_s:.2f} s, {self.sta.shape[1]} channel(s)"
        note = f'<text class="nb-words" x="700" y="{HEIGHT - 5}">{said}</text>'
        points = zip(self.plane.itertuples(), self.sta, strict=True)
        return head + note + "".join(self._point(row, sta) for row, sta in points) + "</svg>"

    def _point(self, row, sta: np.ndarray) -> str:
        """A circle that can be focused, with its text and its average beside the plane."""
        colour = style.SERIES[row.kind % len(style.SERIES)]
        x, y = 20 + 400 * row.x, 40 + (HEIGHT - 80) * row.y
        kind = "" if row.type < 0 else f", true kind {row.type}"
        text = escape(f"unit {row.unit}: {row.rate_hz:.1f} Hz, group {row.kind}{kind}")
        across = np.round(460 + 240 * np.linspace(0, 1, sta.shape[1])).astype(int)
        down = np.round(HEIGHT / 2 - 130 * sta / max(np.abs(sta).max(), 1e-9)).astype(int)
        lines = "".join(
            f'<polyline fill="none" stroke-width="2" stroke="{style.SERIES[k % len(style.SERIES)]}" points="'
            + " ".join(f"{a},{b}" for a, b in zip(across, line, strict=True))
            + '"/>'
            for k, line in enumerate(down)
        )
        return (
            f'<g class="nb-cell" tabindex="0" aria-label="{text}"><title>{text}</title>'
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="6" fill="{colour}"/>'
            f'<g class="k"><text class="nb-words" x="700" y="20">{text}</text>{lines}</g></g>'
        )
