"""Figures of the split (04): who teaches, who judges, and how units go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from nblib.report.plots import style
from nblib.report.plots.areas import mark_areas
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

_ROLES = ("train", "val", "test", "gap")
_ROLE_TEXT = {"train": "train", "val": "validation", "test": "test", "gap": "gap (unused)"}


@style.styled
def split_timeline(split: pd.DataFrame) -> Picture:
    """The role of every presentation on the time axis, one row a fold.

    split: one row per presentation and fold, with columns fold, role, start_s and stop_s [s].
    Gaps are short against a session, so a second panel looks at one from near.
    """
    folds = sorted(split["fold"].unique())
    near = _around_gap(split)
    heights = [1.0 + 0.42 * len(folds), 1.2][: 1 if near is None else 2]
    fig = style.new_figure(sum(heights) + 0.35)
    axes = fig.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    ax = axes[0]
    for row, fold in enumerate(folds):
        part = split[split["fold"] == fold].sort_values("start_s")
        _draw_roles(ax, _runs(part), row, rasterized=len(part) > 500)
    roles = [r for r in _ROLES if (split["role"] == r).any()]
    per_fold = split["role"].value_counts() / len(folds)
    ax.legend(
        [Patch(color=style.ROLE_COLOURS[r]) for r in roles],
        [f"{_ROLE_TEXT[r]}: {per_fold[r]:.0f}" for r in roles],
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(roles), borderaxespad=0.2,
    )  # fmt: skip
    ax.set_yticks(range(len(folds)), [f"fold {f}" for f in folds])
    ax.set_ylim(len(folds) - 0.5, -0.5)
    ax.set_xlabel("time in the session (s)")
    if near is not None:
        part = split[split["fold"] == folds[0]]
        part = part[(part["stop_s"] > near[0]) & (part["start_s"] < near[1])]
        each = part[["role", "start_s", "stop_s"]].itertuples(index=False, name=None)
        _draw_roles(axes[1], each, 0, edgecolor="white", lw=0.8)
        axes[1].set_xlim(*near)
        axes[1].set_ylim(0.5, -0.5)
        axes[1].set_yticks([0], [f"fold {folds[0]}"])
        axes[1].set_xlabel("time in the session (s)")
        axes[1].set_title("A gap from near, one box a presentation", fontweight="normal")
    return fig


def _draw_roles(ax: Axes, runs, row: int, **more) -> None:
    for role, start, stop in runs:
        colour = style.ROLE_COLOURS[role]
        ax.broken_barh(
            [(start, stop - start)], (row - 0.38, 0.76), **{"facecolor": colour, "lw": 0, **more}
        )


def _around_gap(split: pd.DataFrame) -> tuple[float, float] | None:
    """A window around the last gap of the first fold; None without one, or when it is plain to see."""
    part = split[split["fold"] == split["fold"].min()].sort_values("start_s")
    gaps = [(start, stop) for role, start, stop in _runs(part) if role == "gap"]
    if not gaps:
        return None
    start, stop = gaps[-1]
    width = stop - start
    if width > 0.02 * (part["stop_s"].max() - part["start_s"].min()):
        return None
    return start - 4 * width, stop + 4 * width


def _runs(part: pd.DataFrame, closer_s: float = 1.0) -> list[tuple[str, float, float]]:
    """Neighbouring presentations of one role as one bar; a pause of `closer_s` breaks it."""
    runs: list[list] = []
    for role, start, stop in part[["role", "start_s", "stop_s"]].itertuples(index=False):
        if runs and runs[-1][0] == role and start - runs[-1][2] < closer_s:
            runs[-1][2] = stop
        else:
            runs.append([role, start, stop])
    return [tuple(run) for run in runs]


@style.styled
def label_balance(split: pd.DataFrame, label_name: str = "label") -> Picture:
    """Presentations of each label in each role, for the first fold; one panel a role.

    split: columns fold, role and label; the dotted line is the mean over labels.
    """
    part = split[split["fold"] == split["fold"].min()]
    labels = np.sort(part["label"].unique())
    roles = [r for r in ("train", "val", "test") if (part["role"] == r).any()]
    fig = style.new_figure(0.9 + 1.05 * len(roles))
    axes = fig.subplots(len(roles), 1, squeeze=False, sharex=True)[:, 0]
    for ax, role in zip(axes, roles, strict=True):
        counts = part.loc[part["role"] == role, "label"].value_counts()
        n = counts.reindex(labels, fill_value=0).to_numpy()
        ax.bar(np.arange(len(labels)), n, color=style.ROLE_COLOURS[role], width=0.8)
        ax.axhline(n.mean(), color=style.INK, ls=":", lw=1.2)
        span = f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
        ax.set_title(f"{_ROLE_TEXT[role]}: {span} of each label", fontweight="normal")
        ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes[-1].set_xticks(*style.label_ticks(labels, 14))
    axes[-1].set_xlabel(label_name)
    fig.supylabel("presentations", fontsize=10)
    return fig


@style.styled
def correlation(matrix: np.ndarray, areas: np.ndarray) -> Picture:
    """Correlation of units over train rows, ordered by area; the diagonal is left out.

    matrix: (unit, unit), or empty where it was left out; areas: (unit,). Colours end at the 99th
    percentile of |r|; more than 300 units are averaged in blocks.
    """
    if len(matrix) == 0:
        fig = style.new_figure(1.0)
        fig.text(
            0.5,
            0.5,
            f"Unit correlation: left out, as {len(areas):,} units are too many",
            ha="center",
        )
        return fig
    names = np.array([style.area_name(a) for a in areas], dtype=object)
    row = np.concatenate([np.flatnonzero(names == a) for a in style.area_order(names)])
    shown = np.array(matrix, float)[np.ix_(row, row)]
    np.fill_diagonal(shown, np.nan)
    mean = float(np.nanmean(shown)) if len(row) > 1 else 0.0
    shown = coarse(shown)
    finite = np.abs(shown[np.isfinite(shown)])
    limit = float(np.clip(np.percentile(finite, 99) if finite.size else 1.0, 0.05, 1.0))
    fig = style.new_figure(5.4, 6.6)
    ax = fig.add_subplot()
    extent = (-0.5, len(row) - 0.5, len(row) - 0.5, -0.5)
    image = ax.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent)
    mark_areas(ax, names[row], both=True)
    ax.set_xticks([])
    ax.set_xlabel("units, same order")
    ax.set_title(f"Unit correlation on train rows ({len(row)} units, mean r = {mean:.3f})")
    fig.colorbar(image, ax=ax, label="correlation r", shrink=0.7, extend="both", pad=0.02)
    return fig


def coarse(matrix: np.ndarray, most: int = 300) -> np.ndarray:
    """Average blocks of a large matrix, so that a picture of 2,000 units stays small."""
    step = int(np.ceil(len(matrix) / most))
    if step <= 1:
        return matrix
    n = len(matrix) // step * step
    blocks = matrix[:n, :n].reshape(n // step, step, n // step, step)
    return np.nanmean(blocks, axis=(1, 3))
