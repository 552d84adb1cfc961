"""Figures of all runs (90, 92) and of a search (91): every decoder, the best of each, costs, settings."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from nblib.evaluate.scores import SCORE_TEXT
from nblib.report import planning
from nblib.report.plots import primitives, style
from nblib.report.plots.style import Picture

MOST_PANELS = 6
MOST_STUDIES = 6
NOT_SETTINGS = {"study", "trial", "state", "value", "last", "epochs", "seconds", "error"}
HOLLOW = "Ds^vP*"
CAPTION_WIDTH = 108  # characters of a line of the caption
TRAIN = "Train one with: nblib run 05 --with-upstream"
MORE_SIZES = (
    "Every decoder was run with one number of bins and units. For another one:\n"
    "nblib run 05 --with-upstream -p n_bins 10"
)


@style.styled
def compare_runs(runs: pd.DataFrame, metric: str = "accuracy") -> Picture:
    """Models sorted by score, each run a dot with its interval; chance line, oracle band.

    Parameters
    ----------
    runs
        One row a run with group (the recipe), recording, model, variant, changed, value, ci_low,
        ci_high, chance, run and, where the truth is known, oracle, oracle_low, oracle_high
        (fractions); `chosen`, when it is there, says which stand out, as validation chose them. One
        panel for each recipe and recording; with more than six, one with a dot for each recording.
    """
    if len(runs) == 0:
        return style.say(f"No run yet. {TRAIN}")
    runs = runs.assign(decoder=decoder_names(runs)).sort_values("value", kind="stable")
    chosen = runs["chosen"] if "chosen" in runs else np.zeros(len(runs), bool)
    runs["stands"] = np.where(chosen, "chosen by validation", "one run")
    panels = list(runs.groupby(["group", "recording"]))
    if len(panels) > MOST_PANELS:
        return _cohort(runs, SCORE_TEXT[metric])
    heights = [0.62 + 0.38 * part["decoder"].nunique() for _, part in panels]  # names of two lines
    fig = style.new_figure(sum(heights) + 0.9)
    axes = fig.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    colours = {"chosen by validation": style.VERMILLION}
    for ax, ((recipe, recording), part) in zip(axes, panels, strict=True):
        part = primitives.best_first(part, "decoder")
        names = primitives.intervals(ax, part, "decoder", hue="stands", colours=colours)
        _finish_rows(ax, part, names)
        ax.set_title(recording if recipe == recording else f"{recording}  ({recipe})")
    axes[-1].set_xlabel(f"{SCORE_TEXT[metric]} on test presentations, 95 % interval")
    fig.legend_outside()
    return fig


def _cohort(runs: pd.DataFrame, text: str) -> Picture:
    """Many recordings: a dot for each recording and model, the mean over recordings marked."""
    gathered = {"value": ("value", "mean"), "chance": ("chance", "mean"), "run": ("run", list)}
    each = runs.groupby(["group", "recording", "decoder"], as_index=False).agg(**gathered)
    each = primitives.best_first(each, "decoder").assign(chance=each["chance"].mean())
    fig, ax = style.new_panel(1.6 + 0.42 * each["decoder"].nunique())
    look = {"mean": "mean over recordings", "mean_colour": style.VERMILLION}
    names = primitives.intervals(ax, each, "decoder", label="one recording", **look)
    _finish_rows(ax, each, names)
    ax.set_xlabel(f"{text} on test presentations")
    ax.set_title(f"{each['recording'].nunique()} recordings")
    fig.legend_outside()
    return fig


def decoder_names(runs: pd.DataFrame, between: str = "\n") -> list[str]:
    """How the model of each run is named; one with other settings than the default says which."""
    names = []
    for model, *settings in runs[["model", "variant", "changed"]].itertuples(index=False):
        more = textwrap.shorten(", ".join(filter(None, settings)), 34)
        names.append(model.replace("_", " ") + (between + more if more else ""))
    return names


def _finish_rows(ax: Axes, table: pd.DataFrame, names: list[str]) -> None:
    """Write the mean beside each row; accuracy in percent."""
    means = table.groupby("decoder")["value"].mean()
    primitives.write_beside(ax, [f"{means[name]:.1%}" for name in names])
    ax.set_xlim(-0.01, 1)
    primitives.percent(ax.xaxis)


@style.styled
def best_per_recording(
    chosen: pd.DataFrame, published: pd.DataFrame, metric: str = "accuracy"
) -> Picture:
    """Test score of the decoder that validation chose for each recording, a mark a fold.

    chosen: as `model_choice.chosen` gives it; published: rows of `published` of these recordings, drawn
    hollow, since they were chosen and scored in other ways: the caption says how. Of several folds
    or seeds a bar marks the mean; a single run has its 95 % interval.
    """
    if len(chosen) == 0:
        return style.say(f"No recording has a decoder that validation could choose.\n{TRAIN}")
    who = chosen["recording"]
    if len(set(chosen["group"])) > 1:
        pairs = zip(chosen["group"], who, strict=True)
        who = [group if group.startswith(name) else f"{name}, {group}" for group, name in pairs]
    table = chosen.assign(who=who)
    several = table.groupby("who")["who"].transform("size") > 1
    table.loc[several, ["ci_low", "ci_high"]] = np.nan
    table = primitives.best_first(table.drop(columns=["oracle"], errors="ignore"), "who")
    source = published["provenance"].astype(str).str.rsplit(", row ", n=1).str[0]
    kinds = published.assign(source=source).groupby(["model", "selected", "source"], sort=False)
    notes = _notes(chosen, kinds)
    fig, ax = style.new_panel(1.45 + 0.27 * table["who"].nunique() + 0.17 * (notes.count("\n") + 1))
    label = "one fold" if len(set(chosen["fold"])) > 1 else "one run, 95 % interval"
    mean = "mean" if several.any() else ""
    primitives.intervals(ax, table, "who", label=label, mean=mean)
    first = table.drop_duplicates("who")
    rows = first[["recording"]].assign(row=range(len(first)))
    for i, ((model, _, _), part) in enumerate(kinds):
        marks = rows.merge(part[["recording", "value"]])
        look = {"marker": HOLLOW[i % len(HOLLOW)], "label": f"published {model}", "ls": ""}
        look |= {"ms": 7, "mfc": "none", "mec": style.VERMILLION, "mew": 1.4}
        ax.plot(marks["value"], marks["row"], **look)
    means = table.groupby("who", sort=False)["value"].mean()
    decoders = [textwrap.shorten(str(name).replace("_", " "), 26) for name in first["decoder"]]
    words = [f"{mean:.1%}  {name}" for mean, name in zip(means, decoders, strict=True)]
    primitives.write_beside(ax, words)
    ax.set_xlim(-0.01, 1.01)
    ax.grid(axis="y", color=style.LIGHT, lw=0.6)
    ax.set_axisbelow(True)
    primitives.percent(ax.xaxis)
    ax.set_xlabel(f"{SCORE_TEXT[metric]} on test presentations")
    fig.supxlabel(notes, ha="left", x=0.012, fontsize=9)
    fig.legend_outside(4, "upper left")
    return fig


def _notes(chosen: pd.DataFrame, kinds: Any) -> str:
    """What a reader must know beside the marks, in lines of the page's width; kinds: published
    numbers by model, selection and source."""
    lines = ["Filled: the decoder with the highest mean validation accuracy over folds."]
    if len(set(chosen["recording"])) == 1:
        lines.append("One recording: this says nothing of others.")
    if not len(kinds):
        lines.append("No published number of these recordings is known here.")
    for (model, selected, source), part in kinds:
        lines.append(f"Hollow, {model} ({len(part)}): {selected}; {source}.")
    return "\n".join(textwrap.fill(line, CAPTION_WIDTH) for line in lines)


@style.styled
def score_against(runs: pd.DataFrame, metric: str = "accuracy") -> Picture:
    """Score against presentations, units and bins, for decoders run on several, and the time of a fit.

    runs: as in `compare_runs`, with n_train, n_classes, n_units, n_bins and fit_s [s]. Above, what
    `what_data_buys` draws. Below, a point is a decoder on a recording, its fits averaged over folds
    and seeds.
    """
    if len(runs) == 0:
        return style.say(f"No run yet. {TRAIN}")
    runs = runs.assign(chance=runs.groupby("group")["chance"].transform("mean"))
    cost, sizes = _costs(runs), planning.by_size(runs)
    above = 3.6 if len(sizes) else 0.7
    fig = style.new_figure(above + max(2.6, 0.9 + 0.19 * cost["decoder"].nunique()))
    top, bottom = fig.subfigures(2, 1, height_ratios=[above, fig.get_figheight() - above])
    _draw_sizes(top, sizes, metric)
    ax = bottom.add_subplot()
    primitives.curves(ax, cost, "fit_s", "decoder", line="")
    ax.set_xscale("log")
    primitives.plain_numbers(ax.xaxis)
    ax.set_xlabel("time of one fit (s)")
    primitives.legend_beside(ax)
    _score_axis(ax, metric)
    return fig


@style.styled
def what_data_buys(runs: pd.DataFrame) -> Picture:
    """Accuracy of each decoder, and the best possible one, against presentations, units and bins.

    runs: as in `planning`. A line joins the runs of one decoder on one recording that differ in that
    number alone (mean over folds and seeds, 95 % intervals).
    """
    fig = style.new_figure(3.8)
    _draw_sizes(fig, planning.by_size(runs), "accuracy")
    return fig


def _draw_sizes(fig: Any, table: pd.DataFrame, metric: str) -> None:
    """A panel a size of `planning.by_size`; a note where every decoder was run with one."""
    if table.empty:
        style.note(fig.add_subplot(), MORE_SIZES)
        return
    names = decoder_names(table, " ")
    if table[["base", "recording"]].drop_duplicates().shape[0] > 1:
        places = zip(names, table["base"], table["recording"], strict=True)
        names = [f"{name}, {recipe} {recording}" for name, recipe, recording in places]
    panels = list(table.assign(name=names).groupby("size", sort=False))
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (size, part) in zip(axes, panels, strict=True):
        primitives.curves(ax, part, "at", "name")
        best = part.groupby("at")["oracle"].mean().dropna()
        ax.plot(best.index, best, "--", color=style.GREEN, label="best possible")
        primitives.log_places(ax, {x: f"{x:g}" for x in sorted(set(part["at"]))})
        ax.set_xlabel(size)
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.22))
        _score_axis(ax, metric, named=ax is axes[0])


def _score_axis(ax: Axes, metric: str, named: bool = True) -> None:
    ax.set_ylim(0, 1)
    primitives.percent(ax.yaxis)
    ax.set_ylabel(f"{SCORE_TEXT[metric]}, test" if named else "")


def _costs(runs: pd.DataFrame) -> pd.DataFrame:
    """Score and time of a fit of each decoder and recording, the best decoder first."""
    averaged = {"value": "mean", "fit_s": "mean", "chance": "mean", "run": list}
    runs = runs.assign(decoder=decoder_names(runs, " "))
    each = runs.groupby(["decoder", "group", "recording"], as_index=False).agg(averaged)
    return primitives.best_first(each[each["fit_s"].notna()], "decoder")


@style.styled
def search_history(trials: pd.DataFrame, objective: str, direction: str) -> Picture:
    """Every trial of each study in order, and the best so far.

    trials: as `searched.trials`; objective: its name with unit; direction: "maximize" or
    "minimize". Trials given up stand where they were when they were given up.
    """
    studies = list(trials.groupby("study", sort=False))[:MOST_STUDIES]
    best = np.maximum if direction == "maximize" else np.minimum
    fig = style.new_figure(0.9 + 2.3 * len(studies))
    axes = fig.subplots(len(studies), 1, squeeze=False)[:, 0]
    for ax, (name, study) in zip(axes, studies, strict=True):
        whole, stopped = (study[study["state"] == state] for state in ("whole", "given up early"))
        ax.plot(whole["trial"], whole["value"], "o", color=style.BLUE, label="whole trial")
        ax.plot(stopped["trial"], stopped["last"], "x", color=style.GREY, label="given up early")
        so_far = best.accumulate(whole["value"].to_numpy())
        trial = [*whole["trial"], *[study["trial"].max()] * (len(whole) > 0)]
        look = {"where": "post", "color": style.VERMILLION, "label": "best so far"}
        ax.step(trial, [*so_far, *so_far[-1:]], **look)
        for trial in study.loc[study["state"] == "failed", "trial"]:
            ax.axvline(trial, color=style.ORANGE, ls=":", lw=1.2, label="failed")
        ax.set(title=name, ylabel=objective)
        _percent(ax, objective)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[-1].set_xlabel("trial")
    fig.legend_outside()
    return fig


@style.styled
def search_settings(trials: pd.DataFrame, importances: pd.DataFrame, objective: str) -> Picture:
    """The objective against each setting, whole trials only, one colour a study.

    trials, importances: as `searched` makes them; the title of a panel says how much of the spread
    its setting explains (mean over studies), the most important first.
    """
    share = importances.groupby("setting")["share"].mean() if len(importances) else {}
    names = [name for name in trials.columns if name not in NOT_SETTINGS]
    names.sort(key=lambda name: -share.get(name, 0.0))
    whole = trials[trials["state"] == "whole"]
    fig = style.new_figure(0.6 + 2.4 * -(-len(names) // 3))
    axes = primitives.panels(fig, len(names), 3, y=objective, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        _setting(ax, whole, name)
        ax.set_title(f"{share[name]:.0%} of the spread" if name in share else "", fontsize=10)
        ax.set_xlabel(name.rpartition(".")[2].replace("_", " "))
        _percent(ax, objective)
    if len(set(whole["study"])) > 1:
        fig.legend_outside(2)
    return fig


def _percent(ax: Axes, objective: str) -> None:
    if "accuracy" in objective:
        primitives.percent(ax.yaxis)


def _setting(ax: Axes, whole: pd.DataFrame, name: str) -> None:
    """Numbers on a line (in the logarithm when they span more than 20-fold); words, and a few whole
    numbers, side by side."""
    values = whole[name]
    numbers = values.map(lambda v: isinstance(v, (int, float)) and not isinstance(v, bool)).all()
    levels = sorted(values.dropna().unique(), key=lambda v: (str(type(v)), v))
    integers = numbers and all(float(level).is_integer() for level in levels)
    as_steps = not numbers or (integers and len(levels) <= 5)
    if as_steps:  # apart, and the same each time
        order = whole.groupby("study").cumcount()
        values = values.map(levels.index) + 0.16 * np.sin(2.4 * order)
    primitives.curves(ax, whole.assign(setting=values), "setting", "study", line="")
    if as_steps:
        ax.set_xticks(range(len(levels)), [str(level) for level in levels])
        ax.set_xlim(-0.5, len(levels) - 0.5)
    elif min(levels) > 0 and (span := max(levels) / min(levels)) > 20:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3) if span < 200 else (1,)))
        ax.xaxis.set_minor_locator(NullLocator())
        primitives.plain_numbers(ax.xaxis)
