"""Learning curves (07): accuracy against presentations a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from nblib.report.plots import style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd


@style.styled
def few_shot_curves(curve: pd.DataFrame, oracle: Any | None = None) -> Picture:
    """Test accuracy of each decoder against presentations a class, with 95 % intervals.

    curve: model, k (0 = all), per_class, value, ci_low, ci_high, chance; oracle: score of the best
    possible decoder, or None. `runs`, where given, are those behind a point.
    """
    if len(curve) == 0:
        return style.say(
            "No learning curve yet. Draw one with: nblib run 07_few_shot --with-upstream"
        )
    fig = style.new_figure(4.6)
    ax = fig.add_subplot()
    colours = style.SERIES
    for i, (name, part) in enumerate(curve.groupby("model", sort=False)):
        part = part.sort_values("per_class")
        k = part["per_class"].to_numpy(float)
        colour = colours[i % len(colours)]
        mark = "osD^vP"[i // len(colours) % 6]
        ax.fill_between(k, part["ci_low"], part["ci_high"], color=colour, alpha=0.18, lw=0)
        ax.plot(k, part["value"], f"-{mark}", color=colour, ms=4.5, label=name.replace("_", " "))
        for at, value, behind in zip(
            k, part["value"], part.get("runs", [[]] * len(k)), strict=True
        ):
            fig.mark(ax, at, value, behind)
    ax.axhline(curve["chance"].iloc[0], color=style.INK, ls=":", lw=1.2, label="chance")
    if oracle is not None and oracle.value == oracle.value:
        ax.axhline(oracle.value, color=style.INK, ls="-.", lw=1.2, label="best possible (oracle)")
    best = curve.loc[curve[curve["per_class"] == curve["per_class"].max()]["value"].idxmax()]
    with_k = "all" if best["k"] == 0 else f"{best['k']}"
    fig.result = f"Best with {with_k}: {best['model'].replace('_', ' ')} {best['value']:.1%}"
    ax.set_xscale("log")
    ticks = curve.drop_duplicates("k").sort_values("per_class")
    text = {
        float(per): ("all" if k == 0 else f"{k}")
        for k, per in zip(ticks["k"], ticks["per_class"], strict=True)
    }
    ax.xaxis.set_major_locator(FixedLocator(list(text)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: text.get(float(x), "")))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("training presentations of each class")
    ax.set_ylabel("accuracy on test presentations")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


@style.styled
def draws_spread(draws: pd.DataFrame) -> Picture:
    """Each draw a dot, so that one sees how much a single small draw is worth."""
    names = list(dict.fromkeys(draws["model"]))
    shots = sorted(set(draws["k"]), key=lambda k: k or np.inf)
    fig = style.new_figure(3.4)
    ax = fig.add_subplot()
    for i, name in enumerate(names):
        for j, k in enumerate(shots):
            y = draws.loc[(draws["model"] == name) & (draws["k"] == k), "accuracy"].to_numpy(float)
            x = j + (i - (len(names) - 1) / 2) * 0.8 / len(names)
            side = np.linspace(-0.25, 0.25, len(y)) * 0.8 / len(names) if len(y) > 1 else 0
            ax.plot(
                x + side, y, "o", ms=3, mew=0, alpha=0.75,
                color=style.SERIES[i % len(style.SERIES)],
                label=name.replace("_", " ") if j == 0 else None,
            )  # fmt: skip
    ax.set_xticks(range(len(shots)), ["all" if k == 0 else str(k) for k in shots])
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel("training presentations of each class")
    ax.set_ylabel("accuracy, one dot a draw")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
