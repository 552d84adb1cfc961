"""Figures of cleaning and the split (03, 04): what was removed, who teaches, who judges."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nblib.data.recording import QUALITY
from nblib.prepare.continuous import is_continuous
from nblib.prepare.stored_splits import rates_by_role
from nblib.report.plots import primitives, style
from nblib.report.plots.style import Picture

GONE = style.shade(style.VERMILLION, 0.4)
QUALITY_TEXT = {
    "isi_violations": "ISI violations (ratio)",
    "amplitude_cutoff": "amplitude cutoff (fraction)",
    "presence_ratio": "presence ratio (fraction)",
}
ROLES = {  # name and colour of each
    "train": ("train", style.BLUE),
    "val": ("validation", style.ORANGE),
    "test": ("test", style.GREEN),
    "gap": ("gap (unused)", "#BBBBBB"),
}
ONE_BAR_S = 1.0  # presentations of one role that lie closer are drawn as one bar


@style.styled
def removals(table: pd.DataFrame) -> Picture:
    """Bars: the share removed for each reason, with the count beside it.

    table: columns what (spikes, presentations, units), reason, removed, kept; one row a reason.
    """
    if len(table) == 0:
        return style.say("The settings ask for no removal.")
    fig, ax = style.new_panel(1.1 + 0.36 * max(len(table), 2))
    looks = primitives.series(table["what"])
    total = table["removed"] + table["kept"]
    shares = (table["removed"] / total.where(total > 0, 1)).to_numpy(float)
    ax.barh(range(len(table)), shares, 0.7, color=[looks[what][0] for what in table["what"]])
    for row, share in enumerate(shares):
        text = f"  {table['removed'].iloc[row]:,.0f} of {total.iloc[row]:,.0f} ({share:.1%})"
        ax.text(share, row, text, va="center", fontsize=9)
    primitives.name_rows(ax, (table["what"] + ": " + table["reason"]).tolist(), 0.6)
    ax.set_xlim(0, max(0.02, shares.max() * 1.6))
    ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= min(1.0, ax.get_xlim()[1])])
    primitives.percent(ax.xaxis, None)
    ax.set(xlabel="share removed", title="What was removed, and why")
    return fig


@style.styled
def quality(units: pd.DataFrame, limits: dict[str, float]) -> Picture:
    """Distributions of recorded unit quality with the limits in force and the Allen defaults.

    units: one row per unit; limits: isi_violations (upper), amplitude_cutoff (upper) and
    presence_ratio (lower); an infinite limit removes nothing.
    """
    known = [name for name in QUALITY_TEXT if name in units and np.isfinite(units[name]).any()]
    if not known:
        return style.say("This recording holds no unit quality, so none can be limited.")
    fig = style.new_figure(2.9)
    axes = fig.subplots(1, len(known), squeeze=False)[0]
    for ax, name in zip(axes, known, strict=True):
        _distribution(ax, units[name].to_numpy(float), name, limits[name])
    axes[0].set_ylabel("units")
    fig.legend_outside(3)
    return fig


def _distribution(ax: Axes, values: np.ndarray, name: str, limit: float) -> None:
    values = values[np.isfinite(values)]
    allen = next(value for value in QUALITY[name] if np.isfinite(value))
    low = min(values.min(), allen, 0.0)
    high = max(np.quantile(values, 0.99), allen, 0.5 if name == "amplitude_cutoff" else 1.0)
    counts, edges = np.histogram(np.clip(values, low, high), np.linspace(low, high, 31))
    middle, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    gone = middle < limit if name == "presence_ratio" else middle > limit
    ax.bar(middle, np.where(gone, 0, counts), width, color=style.BLUE, label="kept")
    ax.bar(middle, np.where(gone, counts, 0), width, color=GONE, label="removed")
    ax.axvline(allen, zorder=3, label="Allen default limit", **primitives.CHANCE)
    if np.isfinite(limit) and limit != allen:
        ax.axvline(limit, color=style.VERMILLION, lw=1.6)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel(QUALITY_TEXT[name])
    ax.set_title(f"limit: {limit:g}" if np.isfinite(limit) else "no limit", fontweight="normal")


@style.styled
def split_timeline(split: pd.DataFrame) -> Picture:
    """The role of every presentation on the time axis, one row a fold.

    split: one row per presentation and fold, with columns fold, role, start_s and stop_s [s].
    Gaps are short against a session, so a second panel looks at one from near.
    """
    folds = sorted(split["fold"].unique())
    first = split[split["fold"] == folds[0]].sort_values("start_s")
    near = _around_gap(first)
    heights = [1.0 + 0.42 * len(folds), 1.2][: 1 if near is None else 2]
    fig = style.new_figure(sum(heights) + 0.35)
    axes = fig.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    per_fold = split["role"].value_counts() / len(folds)
    for row, fold in enumerate(folds):
        _role_bars(axes[0], _stretches(split[split["fold"] == fold].sort_values("start_s")), row)
    for role, (name, colour) in ROLES.items():
        if role in per_fold:
            axes[0].bar(np.nan, 0, color=colour, label=f"{name}: {per_fold[role]:.0f}")
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.2)
    primitives.name_rows(axes[0], [f"fold {fold}" for fold in folds])
    if near is not None:
        part = first[(first["stop_s"] > near[0]) & (first["start_s"] < near[1])]
        _role_bars(axes[1], part, 0, edgecolor="white", lw=0.8)
        axes[1].set_xlim(*near)
        primitives.name_rows(axes[1], [f"fold {folds[0]}"])
        axes[1].set_title("A gap from near, one box a presentation", fontweight="normal")
    for ax in axes:
        ax.set_xlabel("time in the session (s)")
    return fig


def _role_bars(ax: Axes, part: pd.DataFrame, row: int, **look) -> None:
    for role, some in part.groupby("role"):
        look = {"lw": 0, "rasterized": len(some) > 100} | look
        times = some["start_s"], some["stop_s"]
        primitives.stretches(ax, row, *times, 0.38, facecolor=ROLES[role][1], **look)


def _around_gap(first: pd.DataFrame) -> tuple[float, float] | None:
    """A window around the last gap between two roles of a fold; None without one, or when it is plain to see."""
    gaps = _stretches(first)[:-1].query("role == 'gap'")
    if gaps.empty:
        return None
    start, stop = gaps["start_s"].iloc[-1], gaps["stop_s"].iloc[-1]
    width = stop - start
    if width > 0.02 * (first["stop_s"].max() - first["start_s"].min()):
        return None
    return start - 4 * width, stop + 4 * width


def _stretches(part: pd.DataFrame) -> pd.DataFrame:
    """Neighbouring presentations of one role as one row, in order of time; a pause breaks it."""
    pause = part["start_s"] - part["stop_s"].shift() >= ONE_BAR_S
    number = ((part["role"] != part["role"].shift()) | pause).cumsum()
    ends = {"role": "first", "start_s": "first", "stop_s": "last"}
    return part.groupby(number.to_numpy()).agg(ends)


def role_balance(split: pd.DataFrame, binned: xr.Dataset) -> Picture:
    """Whether roles are alike: labels in each, or rates of units where there are no labels."""
    if is_continuous(binned):
        return role_rates(rates_by_role(binned, split))
    return label_balance(split, binned.attrs["label_name"])


@style.styled
def role_rates(rates: pd.DataFrame) -> Picture:
    """The rate of each unit in the validation and test parts against its rate in train.

    rates: a row a unit, in Hz: train, val, test (`stored_splits.rates_by_role`).
    """
    fig, ax = style.new_panel(3.6)
    for role, name, colour in (("val", "validation", style.ORANGE), ("test", "test", style.GREEN)):
        ax.plot(
            rates["train"], rates[role], "o", ms=4.5, mew=0, alpha=0.7, color=colour, label=name
        )
    ends = [0, 1.05 * float(rates.to_numpy().max())]
    ax.plot(ends, ends, label="as in train", **primitives.CHANCE)
    ax.set(
        xlabel="rate in train (Hz)",
        ylabel="rate there (Hz)",
        title="Does a unit fire alike in every role?",
    )
    primitives.legend_beside(ax)
    return fig


@style.styled
def label_balance(split: pd.DataFrame, label_name: str = "label") -> Picture:
    """Presentations of each label in each role, for the first fold; one panel a role.

    split: columns fold, role and label; the dotted line is the mean over labels.
    """
    part = split[split["fold"] == split["fold"].min()]
    labels = np.sort(part["label"].unique())
    roles = [role for role in ("train", "val", "test") if (part["role"] == role).any()]
    fig = style.new_figure(0.9 + 1.05 * len(roles))
    axes = fig.subplots(len(roles), 1, squeeze=False, sharex=True)[:, 0]
    for ax, role in zip(axes, roles, strict=True):
        name, colour = ROLES[role]
        counts = part.loc[part["role"] == role, "label"].value_counts()
        n = counts.reindex(labels, fill_value=0).to_numpy()
        ax.bar(np.arange(len(labels)), n, color=colour, width=0.8)
        ax.axhline(n.mean(), **primitives.CHANCE)
        span = f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
        ax.set_title(f"{name}: {span} of each label", fontweight="normal")
        ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes[-1].set_xticks(*style.label_ticks(labels, 14))
    axes[-1].set_xlabel(label_name)
    fig.supylabel("presentations", fontsize=10)
    return fig


@style.styled
def correlation(matrix: np.ndarray, areas: np.ndarray) -> Picture:
    """Correlation of units over train rows, ordered by area; the diagonal is left out.

    matrix: (unit, unit), or empty where it was left out; areas: (unit,). Colours end at the 99th
    percentile of `|r|`; more than 300 units are averaged in blocks.
    """
    n = len(areas)
    if len(matrix) == 0:
        return style.say(f"Unit correlation: left out, as {n:,} units are too many")
    row, names = style.by_area(areas)
    values = np.array(matrix, float)[np.ix_(row, row)]
    np.fill_diagonal(values, np.nan)
    mean = float(np.nanmean(values)) if n > 1 else 0.0
    drawn = np.abs(primitives.coarse(values))
    finite = drawn[np.isfinite(drawn)]
    limit = float(np.clip(np.percentile(finite, 99) if finite.size else 1.0, 0.05, 1.0))
    fig, ax = style.new_panel(5.4, 6.6)
    look = primitives.either_side(limit, bar={"extend": "both"})
    primitives.units_matrix(ax, values, names, "correlation r", **look)
    ax.set_xlabel("units, same order")
    ax.set_title(f"Unit correlation on train rows ({n} units, mean r = {mean:.3f})")
    return fig
