"""Figures of 10: finding the image, the images found, the images drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from nblib.report.plots import style
from nblib.report.plots.style import Picture

if TYPE_CHECKING:
    import pandas as pd

GREYS = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}


@style.styled
def space_comparison(table: pd.DataFrame) -> Picture:
    """Feature spaces beside each other: how often the image is found, and the noise ceiling.

    table: one row a space and set (`latents.comparison`): space, which, accuracy with _low, _high,
    _chance and perhaps _best_possible; r, reliability and perhaps
    ceiling (correlations), of which those of the last set are drawn.
    """
    names, sets = list(dict.fromkeys(table["space"])), list(dict.fromkeys(table["which"]))
    fig = style.new_figure(1.7 + 0.55 * len(names))
    axes = fig.subplots(1, len(sets) + 1, sharey=True)
    for ax, which in zip(axes, sets, strict=False):
        part = table[table["which"] == which].set_index("space").loc[names]
        error = np.abs(
            part[["accuracy_low", "accuracy_high"]].to_numpy().T - part["accuracy"].to_numpy()
        )
        ax.errorbar(part["accuracy"], range(len(names)), xerr=error, fmt="o", ms=6, capsize=3, color=style.BLUE)  # fmt: skip
        ax.axvline(part["accuracy_chance"].iloc[0], color=style.INK, ls=":", lw=1.6)
        if "accuracy_best_possible" in part:
            ax.axvline(part["accuracy_best_possible"].iloc[0], color=style.GREEN, lw=1.6)
        for row, value in enumerate(part["accuracy"]):
            ax.text(max(value, 0.16), row - 0.28, f"{value:.1%}", ha="center", fontsize=9)
        ax.set_title("\n".join(which.split(", ")), fontsize=9)
        ax.set_xlim(-0.03, 1)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_xlabel("nearest is right")
    last = table.drop_duplicates("space", keep="last").set_index("space").loc[names]
    axes[-1].plot(last["r"], range(len(names)), "o", ms=6, color=style.VERMILLION)
    axes[-1].plot(last["reliability"], range(len(names)), "|", ms=14, mew=2, color=style.PURPLE)
    if "ceiling" in last:
        axes[-1].plot(last["ceiling"], range(len(names)), "|", ms=14, mew=2, color=style.GREEN)
    axes[-1].axvline(0, color=style.INK, ls=":", lw=1.6)
    axes[-1].set_xlim(min(-0.05, float(last["r"].min()) - 0.05), 1)
    axes[-1].set_title("one feature,\none presentation", fontsize=9)
    axes[-1].set_xlabel("correlation")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.6)
    upright = {"marker": "|", "ms": 12, "mew": 2}
    handles: list[Any] = [
        Line2D([], [], marker="o", ls="", color=style.BLUE, label="95 % interval over images"),
        Line2D([], [], color=style.INK, ls=":", lw=1.6, label="chance"),
        Line2D([], [], marker="o", ls="", color=style.VERMILLION, label="decoded and true feature"),
        Line2D([], [], ls="", color=style.PURPLE, label="the most its noise allows", **upright),
    ]
    if "accuracy_best_possible" in table:
        handles.insert(2, Line2D([], [], color=style.GREEN, lw=1.6, label="best possible"))
    fig.legend_outside(handles, 3)
    return fig


@style.styled
def found_images(examples: pd.DataFrame, pixels: np.ndarray, label: np.ndarray) -> Picture:
    """What was shown, and the five images that lie nearest to what was decoded.

    examples: space, row, rank, answers (`latents.examples`); pixels (n, H, W) in [0, 1]; label (n,).
    The true image has a frame.
    """
    fig = style.new_figure(0.8 + 1.05 * len(examples))
    axes = fig.subplots(len(examples), 6, squeeze=False)
    for line, (row, rank, answers) in zip(
        axes, examples[["row", "rank", "answers"]].itertuples(index=False), strict=True
    ):
        for ax, image in zip(line, [row, *answers], strict=False):
            ax.imshow(pixels[image], **GREYS)
            right = ax is not line[0] and image == row
            for spine in ax.spines.values():
                spine.set(visible=right, color=style.VERMILLION, linewidth=3)
        for ax in line:
            ax.set_xticks([])
            ax.set_yticks([])
            if not ax.images:
                ax.set_axis_off()
        line[0].set_ylabel(f"image {label[row]}\nrank {rank}", rotation=0, ha="right", va="center")
    fig.suptitle(f"Feature space {examples['space'].iloc[0]}", fontsize=10)
    axes[0, 0].set_title("shown")
    for place in range(5):
        axes[0, place + 1].set_title("nearest" if place == 0 else f"{place + 1}.")
    return fig


@style.styled
def drawn_images(
    pictures: dict[str, np.ndarray | None], shown: np.ndarray, mean: np.ndarray, label: np.ndarray
) -> Picture:
    """Held-out images above what each space makes of them, without what all images share.

    pictures: name -> images (n, H, W) or None; shown (n, H, W); mean (H, W) of the training
    images, taken off all but the first row; label (n,).
    """
    drawn = {name: p for name, p in pictures.items() if p is not None}
    if not drawn or len(shown) == 0:
        return style.say(
            "No image was drawn: that needs held-out images and a space that leads back\n"
            "to pixels (pca or vae)."
        )
    n = min(7, len(shown))
    fig = style.new_figure(0.4 + 0.72 * (1 + len(drawn)))
    axes = fig.subplots(1 + len(drawn), n, squeeze=False)
    for line, (name, images) in zip(axes, {"shown": shown, **drawn}.items(), strict=True):
        for i, ax in enumerate(line):
            picture = images[i]
            if name != "shown":  # contrast as the eye needs it, picture by picture
                picture = picture - mean
                picture = 0.5 + 0.5 * picture / max(float(np.quantile(np.abs(picture), 0.98)), 1e-6)
            ax.imshow(picture, **GREYS)
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
        line[0].set_ylabel(name.replace(" ", "\n", 1), rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], label, strict=False):
        ax.set_title(str(name), fontsize=9)
    return fig
