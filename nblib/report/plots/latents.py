"""Figures of latent spaces (08, 10): a map of windows; finding the image, the images found and drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nblib.report.plots import primitives, style
from nblib.report.plots.style import Picture

GREYS = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
ACCURACY = {
    "accuracy": "value",
    "accuracy_low": "ci_low",
    "accuracy_high": "ci_high",
    "accuracy_chance": "chance",
}
MOST_DOTS = 4000


@style.styled
def space_comparison(table: pd.DataFrame) -> Picture:
    """Feature spaces beside each other: how often the image is found, and the noise ceiling.

    table: one row a space and set (`latents.comparison`): space, which, accuracy with _low, _high,
    _chance and perhaps _best_possible; r, reliability and perhaps
    ceiling (correlations), of which those of the last set are drawn.
    """
    n = table["space"].nunique()
    fig = style.new_figure(1.7 + 0.55 * n)
    axes = fig.subplots(1, table["which"].nunique() + 1, sharey=True)
    for ax, (which, part) in zip(axes, table.groupby("which", sort=False), strict=False):
        part = part.rename(columns=ACCURACY)
        primitives.intervals(ax, part, "space", label="95 % interval over images")
        if "accuracy_best_possible" in part:
            best = part["accuracy_best_possible"].iloc[0]
            ax.axvline(best, color=style.GREEN, label="best possible")
        for row, value in enumerate(part["value"]):
            ax.text(max(value, 0.16), row - 0.28, f"{value:.1%}", ha="center", fontsize=9)
        ax.set_title(which.replace(", ", "\n"), fontsize=9)
        ax.set(xlim=(-0.03, 1), xlabel="nearest is right")
        primitives.percent(ax.xaxis)
    last = table.drop_duplicates("space", keep="last")
    rows, ax = range(n), axes[-1]
    ax.plot(last["r"], rows, "o", ms=6, color=style.VERMILLION, label="decoded and true feature")
    bar = {"ms": 12, "mew": 2}
    ax.plot(
        last["reliability"], rows, "|", color=style.PURPLE, label="the most its noise allows", **bar
    )
    if "ceiling" in last:
        ax.plot(last["ceiling"], rows, "|", color=style.GREEN, **bar)
    ax.axvline(0, **primitives.CHANCE)
    ax.set_title("one feature,\none presentation", fontsize=9)
    ax.set(xlim=(min(-0.05, float(last["r"].min()) - 0.05), 1), xlabel="correlation")
    axes[0].set_ylim(n - 0.5, -0.6)
    fig.legend_outside(3)
    return fig


@style.styled
def found_images(examples: pd.DataFrame, pixels: np.ndarray, label: np.ndarray) -> Picture:
    """What was shown, and the five images that lie nearest to what was decoded.

    examples: space, row, rank, answers (`latents.examples`); pixels (n, H, W) in [0, 1]; label (n,).
    The true image has a frame.
    """
    fig = style.new_figure(0.8 + 1.05 * len(examples))
    axes = fig.subplots(len(examples), 6, squeeze=False)
    for ax in axes.flat:
        _bare(ax)
    for line, (row, rank, answers) in zip(
        axes, examples[["row", "rank", "answers"]].itertuples(index=False), strict=True
    ):
        for ax, image in zip(line, [row, *answers], strict=False):
            ax.imshow(pixels[image], **GREYS)
            if image == row and ax is not line[0]:
                ax.spines[:].set(visible=True, color=style.VERMILLION, linewidth=3)
        line[0].set_ylabel(f"image {label[row]}\nrank {rank}", rotation=0, ha="right", va="center")
    fig.suptitle(f"Feature space {examples['space'].iloc[0]}", fontsize=10)
    for ax, title in zip(axes[0], ("shown", "nearest", "2.", "3.", "4.", "5."), strict=True):
        ax.set_title(title)
    return fig


@style.styled
def drawn_images(
    pictures: dict[str, np.ndarray | None], shown: np.ndarray, mean: np.ndarray, label: np.ndarray
) -> Picture:
    """Held-out images above what each space makes of them, without what all images share.

    pictures: name -> images (n, H, W) or None; shown (n, H, W); mean (H, W) of the training
    images, taken off all but the first row; label (n,).
    """
    drawn = {name: images for name, images in pictures.items() if images is not None}
    if not drawn or len(shown) == 0:
        return style.say(
            "No image was drawn: that needs held-out images and a space that leads back\n"
            "to pixels (pca or vae)."
        )
    fig = style.new_figure(0.4 + 0.72 * (1 + len(drawn)))
    axes = fig.subplots(1 + len(drawn), min(7, len(shown)), squeeze=False)
    for line, (name, images) in zip(axes, {"shown": shown, **drawn}.items(), strict=True):
        for ax, picture in zip(line, images, strict=False):
            if name != "shown":  # contrast as the eye needs it, picture by picture
                picture = picture - mean
                picture = 0.5 + 0.5 * picture / max(float(np.quantile(np.abs(picture), 0.98)), 1e-6)
            ax.imshow(picture, **GREYS)
            _bare(ax)
        line[0].set_ylabel(name.replace(" ", "\n", 1), rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], label, strict=False):
        ax.set_title(str(name), fontsize=9)
    return fig


def _bare(ax) -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


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
