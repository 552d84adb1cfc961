"""Figures: the primitives on values; then every figure once, readable, small and in words."""

import io
import itertools
import json
import re

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.text import Text

from nblib.evaluate.scores import Score
from nblib.report import plots
from nblib.report.plots import all_runs as table_plots
from nblib.report.plots import (
    budgets,
    latents,
    preparation,
    primitives,
    recordings,
    responses,
    style,
)
from nblib.report.plots import one_run as run_plots

AREAS = ["LGd", "VISp", "VISl", "VISal", "LP", "CA1"]
LONG = "a_name_of_forty_characters_as_people_use"
NAMES = [f"{LONG}{i}" for i in range(60)]
AREA_NAMES = [f"anterior cingulate area {i}" for i in range(6)]
RNG = np.random.default_rng


# --- primitives, on values -------------------------------------------------------------------------


def scores(values, **columns):
    value = np.asarray(values, float)
    table = pd.DataFrame({"value": value, "ci_low": value - 0.1, "ci_high": value + 0.2})
    return table.assign(**columns)


def panel():
    return style.new_figure(3.0).add_subplot()


def ends(container):
    """[(x, y), (x, y)] of each interval of an errorbar."""
    return np.array([line for bars in container.lines[2] for line in bars.get_segments()])


def named(ax, label):
    (artist,) = [a for a in (*ax.containers, *ax.collections, *ax.lines) if a.get_label() == label]
    return artist


def test_rows_stand_in_order_with_their_intervals_chance_oracle_and_mean():
    ax = panel()
    table = scores([0.6, 0.4, 0.5], who=["b", "a", "a"], chance=[0.1, 0.2, 0.2])
    table = table.assign(oracle=0.9, oracle_low=0.85, oracle_high=0.95, run=["r/1", "r/2", "r/3"])
    assert primitives.intervals(ax, table, "who", mean="mean") == ["b", "a"]
    dots = named(ax, "95 % interval")
    rows = [0, 0.75, 1.25]
    np.testing.assert_allclose(dots.lines[0].get_xydata(), np.c_[table["value"], rows])
    low, high = ends(dots)[:, 0, 0], ends(dots)[:, 1, 0]
    np.testing.assert_allclose([low, high], [table["ci_low"], table["ci_high"]])
    for label, places, half in (
        ("chance", (0.1, 0.2), 0.5),
        ("mean", (0.6, 0.45), primitives.MEAN),
    ):
        bars = named(ax, label).get_segments()
        np.testing.assert_allclose(
            bars, [[[x, i - half], [x, i + half]] for i, x in enumerate(places)]
        )
    band = ax.patches[0]
    assert (band.get_x(), round(band.get_width(), 9)) == (0.85, 0.1)
    assert ax.get_ylim() == (1.5, -0.5)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "a"]
    assert [mark[1:] for mark in ax.figure._marks] == [
        (0.6, 0, "r/1"),
        (0.4, 0.75, "r/2"),
        (0.5, 1.25, "r/3"),
    ]


def test_rows_take_the_colour_of_their_kind_and_go_without_intervals_or_chance():
    ax = panel()
    table = pd.DataFrame({"value": [1.0, 2.0], "who": ["a", "b"], "area": ["VISp", ""]})
    primitives.intervals(ax, table, "who", hue="area", colours={"VISp": style.GREEN})
    colours = [(line.get_color(), line.get_xdata()[0]) for line in ax.lines]
    assert colours == [(style.GREEN, 1.0), (style.BLUE, 2.0)] and not ax.collections


@pytest.mark.parametrize("bands", [False, True])
def test_curves_rise_with_x_and_show_intervals_and_chance(bands):
    ax = panel()
    table = scores(
        [0.5, 0.3, 0.7],
        x=[10, 1, 1],
        who=["a", "a", "b"],
        chance=0.25,
        run=[["r/1", "r/2"], [], []],
    )
    primitives.curves(ax, table, "x", "who", bands=bands)
    np.testing.assert_allclose(named(ax, "a").lines[0].get_xydata(), [[1, 0.3], [10, 0.5]])
    assert [named(ax, n).lines[0].get_color() for n in "ab"] == [style.BLUE, style.VERMILLION]
    if bands:
        edge = ax.collections[0].get_paths()[0].vertices
        assert {(1.0, 0.2), (1.0, 0.5), (10.0, 0.4), (10.0, 0.7)} <= {
            tuple(p) for p in edge.round(9)
        }
    else:
        np.testing.assert_allclose(ends(named(ax, "a"))[:, :, 1], [[0.2, 0.5], [0.4, 0.7]])
    assert set(named(ax, "chance").get_ydata()) == {0.25}
    assert ax.figure._marks == [(ax, 10.0, 0.5, "r/1"), (ax, 10.0, 0.5, "r/2")]


def test_many_curves_differ_in_colour_or_marker():
    looks = primitives.series(range(40))
    assert len(set(looks.values())) == 40


def test_a_matrix_shows_its_values_and_writes_them_readably():
    ax = panel()
    values = np.array([[0.0, 100.0], [np.nan, 40.0]])
    primitives.matrix(ax, values, "share", written=True, cmap="cividis", vmin=0, vmax=100)
    np.testing.assert_array_equal(ax.images[0].get_array().filled(np.nan), values)
    texts = {t.get_position(): (t.get_text(), t.get_color()) for t in ax.texts}
    assert texts == {(0, 0): ("0", "white"), (1, 0): ("100", style.INK), (1, 1): ("40", "white")}
    assert ax.figure.axes[1].get_ylabel() == "share"


def test_a_large_matrix_is_averaged_in_blocks():
    assert primitives.coarse(np.arange(16.0).reshape(4, 4), 2).tolist() == [
        [2.5, 4.5],
        [10.5, 12.5],
    ]
    assert primitives.coarse(np.eye(2), 2).tolist() == np.eye(2).tolist()


def test_spikes_stand_at_their_time_and_row():
    ax = panel()
    primitives.raster(ax, np.array([1.0, 2.0, 3.0]), np.array([0, 2, 1]), ["red", "red", "blue"])
    spots = {line.get_color(): line.get_xydata().tolist() for line in ax.lines}
    assert spots == {"red": [[1, 0], [3, 1]], "blue": [[2, 2]]}
    assert ax.get_ylim() == (2.5, -0.5)


def test_a_swarm_holds_every_value():
    ax = panel()
    table = pd.DataFrame({"value": [0.1, 0.1, 0.9], "k": ["1", "1", "all"], "who": ["a", "b", "a"]})
    primitives.swarm(ax, table, "k", "who")
    heights = sorted(y for dots in ax.collections for _, y in dots.get_offsets())
    assert heights == [0.1, 0.1, 0.9]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "all"]


def test_the_best_come_first_with_all_their_rows():
    table = primitives.best_first(scores([0.1, 0.9, 0.3], who=["a", "b", "a"]), "who")
    assert table["who"].tolist() == ["b", "a", "a"] and table["value"].tolist() == [0.9, 0.1, 0.3]


def test_units_are_ordered_by_area_and_the_areas_named_at_their_middle():
    rows, names = style.by_area(["CA1", "VISp", np.nan, "LGd", "ZI", "VISp"])
    assert rows.tolist() == [3, 1, 5, 0, 4, 2]
    ax = panel()
    primitives.name_areas(ax, names)
    ticks = dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.get_yticks(), strict=True))
    assert ticks == {"LGd (1)": 0, "VISp (2)": 1.5, "CA1 (1)": 3, "ZI (1)": 4, "no area (1)": 5}


def test_flow_between_areas_leaves_out_the_diagonal():
    matrix = np.array([[9.0, 1, 2], [3, 9, 4], [5, 6, 9]])
    flow = run_plots.area_flow(matrix, np.array(["a", "a", "b"]))
    assert flow.loc["a", "a"] == 2 and flow.loc["a", "b"] == 3 and flow.loc["b", "a"] == 5.5
    assert flow.loc["b", "b"] == 0  # one unit has no pair


def test_area_colours_are_fixed_and_known():
    assert plots.area_colour("VISp") == style.BLUE and plots.area_colour("") == style.GREY
    assert plots.area_colour("ZI") == plots.area_colour("ZI")
    assert len({plots.area_colour(area) for area in AREAS}) == len(AREAS)


# --- data for the figures --------------------------------------------------------------------------


def units(n=90, areas=AREAS, **quality):
    rng = RNG(0)
    table = pd.DataFrame({"area": rng.choice(areas, n)}, index=pd.RangeIndex(n, name="unit_id"))
    drawn = {
        "isi_violations": rng.gamma(0.6, 0.4, n),
        "amplitude_cutoff": np.clip(rng.gamma(0.7, 0.08, n), 0, 0.5),
        "presence_ratio": np.clip(1 - rng.gamma(0.5, 0.08, n), 0, 1),
    }
    return table.assign(**drawn | quality)


def no_quality(n, value):
    return units(n, isi_violations=value, amplitude_cutoff=value, presence_ratio=value)


def trials(n_scenes=118, n_repeats=10):
    rng = RNG(0)
    labels = np.concatenate([rng.permutation(np.arange(-1, n_scenes)) for _ in range(n_repeats)])
    start = 30 + 0.25 * np.arange(len(labels)) + 60 * (3 * np.arange(len(labels)) // len(labels))
    return pd.DataFrame(
        {"start_time": start, "stop_time": start + 0.25, "label": labels.astype(float)}
    )


def session(units, labels=None, tables=1, invalid=((120.0, 140.0),), name="frame"):
    shown = trials(4 if labels is not None else 118)
    labels = shown["label"].to_numpy() if labels is None else np.resize(labels, len(shown))
    time = np.arange(0, shown["stop_time"].max() + 30, 5.0)
    rate = pd.DataFrame({"time_s": time, "rate_hz": 5.5 + np.sin(time / 60)})
    intervals = {"trials": shown} | {f"{LONG}{i}": shown.head(5 * i + 5) for i in range(tables)}
    return recordings.session_overview(
        units,
        labels,
        rate,
        intervals,
        np.reshape(invalid, (-1, 2)),
        trials="trials",
        label_name=name,
    )


def raster(n=90, areas=AREAS, labels=None, n_spikes=60):
    rng, shown = RNG(0), trials().head(16)
    shown = shown if labels is None else shown.assign(label=np.resize(labels, 16))
    spikes, unit = rng.uniform(30, 34, n_spikes * n), rng.integers(0, n, n_spikes * n)
    return recordings.raster(spikes, unit, units(n, areas)["area"], shown, (30.0, 34.0))


def without_trials():
    rates = pd.DataFrame({"time_s": np.arange(60.0), "rate_hz": 2 + np.sin(np.arange(60.0))})
    known = {LONG: pd.DataFrame({"start_time": [0.0, 40.0], "stop_time": [33.0, 60.0]})}
    each = {"trials": LONG, "label_name": "", "unit_rates": pd.Series(RNG(0).exponential(3, 90))}
    return recordings.session_overview(units(), None, rates, known, np.empty((0, 2)), **each)


def raster_of_stimulus(n_channels, first=0.0):
    values = RNG(0).normal(size=(200, n_channels))
    values[60] = first
    spikes, unit = RNG(0).uniform(30, 34, 900), RNG(1).integers(0, 9, 900)
    shown = (20 + 0.1 * np.arange(200), values)
    return recordings.raster(spikes, unit, np.full(9, ""), None, (30.0, 34.0), shown)


def averages(n=40, n_channels=4):
    rng, lag_s = RNG(0), 0.008 * np.arange(1, 61)
    shape = np.sin(lag_s / rng.uniform(0.02, 0.08, (n, n_channels, 1))) * np.exp(-lag_s / 0.1)
    values = 20 * shape + rng.normal(size=shape.shape)
    coords = {"unit": np.arange(n) + 700, "lag_s": lag_s}
    return xr.DataArray(values, dims=("unit", "channel", "lag_s"), coords=coords)


def role_rates(n):
    return pd.DataFrame(RNG(0).exponential(3, (n, 3)), columns=["train", "val", "test"])


def psth(areas=AREAS):
    time = np.arange(-0.05, 0.35, 0.01) + 0.005
    rows = [pd.DataFrame({"area": area, "time_s": time, "rate_hz": 4 + i + np.cos(9 * time),
                          "sem_hz": 0.4, "n_units": 10 + i}) for i, area in enumerate(areas)]  # fmt: skip
    return responses.psth_by_area(pd.concat(rows), 0.25)


def tuning(n=90, labels=range(-1, 118), areas=AREAS):
    rate = RNG(0).gamma(2, 2, (n, len(labels)))
    return responses.tuning_heatmap(rate, np.array(labels), units(n, areas)["area"], "frame")


def unit_response(n=400, title="unit 950000012 (VISp), frame 46"):
    trial, time = RNG(0).integers(0, 50, n), RNG(1).normal(0.09, 0.08, n)
    return responses.unit_response(
        trial, time, 50 if n else 0, (-0.1, 0.4), 0.25, title=title, colour="k"
    )


def removals(*rows):
    columns = ["what", "reason", "removed", "kept"]
    return preparation.removals(pd.DataFrame(rows, columns=columns))


def split(n_folds=1, blocked=True, **label):
    shown, folds = trials(), []
    for fold in range(n_folds):
        place = np.arange(len(shown)) / len(shown)
        place = ((place if blocked else RNG(0).permutation(place)) + fold / n_folds) % 1
        role = np.select([place < 0.2, place < 0.28], ["test", "val"], "train")
        if blocked:
            role[(np.abs(place - 0.2) < 0.004) | (np.abs(place - 0.28) < 0.004)] = "gap"
        times = {"start_s": shown["start_time"], "stop_s": shown["stop_time"]}
        folds.append(
            pd.DataFrame({"fold": fold, "role": role, "label": shown["label"]} | times | label)
        )
    return pd.concat(folds, ignore_index=True)


def correlation(n=90):
    matrix = np.corrcoef((RNG(0).normal(size=(500, n)) + 0.3 * RNG(1).normal(size=(500, 1))).T)
    return preparation.correlation(matrix, units(n)["area"])


def graph(n=90, areas=AREAS, signed=False):
    r = np.abs(RNG(0).standard_normal((n, n))) * 0.1
    edges = np.where(r > 0.2, r, 0) + (0.1 * RNG(1).standard_normal((n, n)) if signed else 0)
    return run_plots.graph_overview(edges + np.eye(n), r, units(n, areas)["area"])


def history(n=20, **columns):
    epoch = np.arange(n)
    table = pd.DataFrame({"epoch": epoch, "train_loss": 4.7 * np.exp(-epoch / 6)})
    validation = 4.7 * np.exp(-epoch / 7) + 0.01 * epoch**1.5
    return table.assign(val_loss=validation, val_accuracy=0.9 - 0.9 * np.exp(-epoch / 5)).assign(
        **columns
    )


def confusion(classes, n, name="frame"):
    label = np.resize(classes, n)
    wrong = RNG(0).random(n) < 0.25
    return run_plots.confusion(label, np.where(wrong, RNG(1).permutation(label), label), name)


def score(value, chance=0.0085):
    return Score(value, value - 0.02, min(1.0, value + 0.02), chance, 0.001, 1000)


def by_time(oracle):
    table = scores([0.02, 0.32, 0.61, 0.75, 0.82], time=0.025 + 0.05 * np.arange(5))
    return run_plots.accuracy_by_time(
        table.rename(columns={"value": "accuracy"}), score(0.82), oracle
    )


def summary(oracle=None, title="lstm on demo"):
    values = {"accuracy": score(0.82), "top5": score(0.96, 0.04), "balanced_accuracy": score(0.81)}
    return run_plots.score_summary(values, oracle, title)


def importance(areas=False, names=AREAS):
    unit = scores(
        RNG(0).gamma(0.5, 0.1, 90), unit=np.arange(90) + 950_000_000, area=RNG(1).choice(names, 90)
    )
    bins = scores(RNG(2).gamma(0.5, 0.1, 5), time=np.arange(1, 6) * 0.05)
    unit, bins = (table.rename(columns={"value": "rise"}) for table in (unit, bins))
    kinds = [("", "all", 0.8)] + [
        (a, k, v) for a in AREAS for k, v in (("alone", 0.3), ("without", 0.7))
    ]
    area, kind, value = zip(*kinds, strict=True)
    table = scores(value, area=area, kind=kind, n_units=15, chance=0.01)
    return run_plots.importance(unit, bins, table if areas else None)


def few_shot(
    models=("nearest_mean", "ridge", "poisson_naive_bayes"), shots=(1, 3, 5, 10, 20, 0), draws=1
):
    rows = [(m, k, k or 36.0, 0.1 + 0.15 * np.log(k or 36) + 0.02 * i + 0.003 * d)
            for i, m in enumerate(models) for k in shots for d in range(draws)]  # fmt: skip
    model, k, per_class, value = zip(*rows, strict=True)
    return scores(value, model=model, k=k, per_class=per_class, chance=0.01, accuracy=value)


def budget(tasks, names=("rp", "ts", "cpc", "random", "rp+ts+cpc", "a/very/long/path/to/some/RP_weights.pth"), **columns):  # fmt: skip
    rows = [(name, task, b, 0.9 - 0.05 * i - 0.3 / (1 + j))
            for i, name in enumerate(names) for task in tasks for j, b in enumerate((1, 10, 100, 0))]  # fmt: skip
    embedder, task, b, value = zip(*rows, strict=True)
    return scores(value, embedder=embedder, task=task, budget=b, chance=0.5, **columns)


def classes(states, **names):
    return pd.concat([budget(("one_vs_all",), **names, **{"class": state}) for state in states])


def embedding_map(n=300, label=("home_cage", "", "open_field")):
    subject = np.array([f"m{i}" for i in np.arange(n) // 30])
    return latents.embedding_map(
        RNG(0).standard_normal((n, 2)), np.resize(label, n), subject, np.arange(n)
    )


def spaces(**known):
    rows = [(space, which, 0.1 + 0.1 * i + 0.2 * j) for i, space in enumerate(("vae", "pca", "gabor"))
            for j, which in enumerate(("training images, among all", "held-out images, among all"))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["space", "which", "accuracy"]).assign(
        accuracy_chance=0.01, **known
    )
    ends = {"accuracy_low": table["accuracy"] - 0.05, "accuracy_high": table["accuracy"] + 0.05}
    return latents.space_comparison(table.assign(r=0.2, reliability=0.6, **ends))


PIXELS = RNG(0).random((9, 16, 20))


def found():
    answers = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 0], [4, 3, 2, 1, 0]]
    table = pd.DataFrame({"space": "pca", "row": [0, 1, 2], "rank": [1, 6, 3], "answers": answers})
    return latents.found_images(table, PIXELS, np.arange(9))


def drawn(**pictures):
    return latents.drawn_images(
        {"gabor itself": None, **pictures}, PIXELS, PIXELS.mean(axis=0), np.arange(9)
    )


def all_runs(n_recordings=1, seeds=1, **columns):
    models = ["lstm", "gru", "logistic", "pca_logistic", "linear_svm", "mlp", "cnn", "transformer",
              "transformer_lstm", "autoencoder_lstm"]  # fmt: skip
    rows = [
        {"recording": f"r{r}", "model": model, "decoder": model, "fold": seed, "fit_s": 10.0 ** (i / 4),
         "run": f"r{r}/{r:04d}{i:06d}{seed:06d}", "value": 0.9 - 0.05 * i - 0.03 * r % 0.3 + 0.01 * seed}
        for r in range(n_recordings) for i, model in enumerate(models) for seed in range(seeds)
    ]  # fmt: skip
    same = {
        "group": "demo",
        "base": columns.get("group", "demo"),
        "variant": "",
        "changed": "",
        "n_bins": 5,
        "n_units": 90,
        "n_train": 900,
        "n_classes": 9,
        "val_accuracy": 0.5,
    }
    same |= {"chance": 0.0085, "oracle": 0.95, "oracle_low": 0.94, "oracle_high": 0.96}
    table = pd.DataFrame(rows)
    table = table.assign(ci_low=table["value"] - 0.02, ci_high=table["value"] + 0.02)
    return table.assign(**same | columns)


def test_every_decoder_is_named_in_a_tall_figure_of_several_panels():
    """With names of two lines, and panels that come closer when the figure is laid out."""
    runs = [all_runs(group=name, variant="max_epochs=3") for name in ("a", "b", "c")]
    fig = table_plots.compare_runs(pd.concat(runs))
    fig.draw_without_rendering()
    for ax in fig.axes:
        names = [text for text in ax.get_yticklabels() if text.get_text()]
        assert len(names) == 10
        boxes = sorted((name.get_window_extent() for name in names), key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def odd_runs():
    some = all_runs(2, group=LONG, changed="a=1, " + LONG).query("model in ['lstm', 'mlp']")
    return some.assign(recording=LONG + some["recording"])


def by_size():
    return pd.concat(
        [all_runs(changed=c, n_bins=n) for n, c in {1: "n_bins=1", 5: "", 10: "n_bins=10"}.items()]
    )


def best(n_recordings, folds, **columns):
    return all_runs(n_recordings, folds, **columns).query("model == 'lstm'")


def published(n):
    rows = [(f"r{i}", model, "best of 15 epochs on the test rows", f"a paper, table {model}.csv, row {i}", value)
            for i in range(n) for model, value in (("LSTM", 0.95), ("SVC", 0.6))]  # fmt: skip
    return pd.DataFrame(rows, columns=["recording", "model", "selected", "provenance", "value"])


def spectra(channels=("PrL_Cx", "BLA", "VTA", "IL_Cx", "mSNC"), states=("home_cage", "open_field", "tail_suspension")):  # fmt: skip
    hz = np.linspace(0, 60, 61)
    rows = [pd.DataFrame({"label": state, "channel": c, "frequency_hz": hz, "power": (1 + i + j) / (1 + hz)})
            for i, state in enumerate(states) for j, c in enumerate(channels)]  # fmt: skip
    return pd.concat(rows)


def lfp_overview():
    regions = {
        "region": ["PrL_Cx", "BLA", "VTA"],
        "electrodes": [2, 2, 4],
        "sd": [50.0, 80.0, 20.0],
    }
    times = {
        "label": ["home_cage", "open_field"],
        "start_s": [0.0, 310.0],
        "stop_s": [300.0, 600.0],
    }
    return recordings.lfp_overview(
        pd.DataFrame(regions | {"nan_share": [0, 0.01, 0]}), pd.DataFrame(times)
    )


def traces(names, n=600):
    return recordings.lfp_traces(RNG(0).standard_normal((n, len(names))), 10.0, 100.0, names)


def search_trials(n=12, studies=("demo, lstm", "demo, gru")):
    trial = np.arange(n)
    table = pd.DataFrame(
        {"trial": trial, "state": np.resize(["whole", "whole", "given up early", "failed"], n)}
    )
    value = np.where(table["state"] == "whole", 0.5 + 0.03 * trial - 0.002 * trial**2, np.nan)
    table = table.assign(value=value, last=0.4, epochs=9, seconds=1.0, error="")
    table = table.assign(
        **{
            "fit.learning_rate": 10.0 ** (-trial / 3),
            "n_layers": trial % 3,
            "dropout": trial / 20,
            "kind": np.resize(["relu", "tanh"], n),
        }
    )
    return pd.concat([table.assign(study=study) for study in studies], ignore_index=True)


SHARES = pd.DataFrame({"study": "demo, lstm", "setting": ["n_layers", "kind"], "share": [0.7, 0.3]})
LIMITS = {"isi_violations": 0.5, "amplitude_cutoff": np.inf, "presence_ratio": 0.95}
BEST = {"accuracy": score(0.95)}
STATES = ("home_cage", "open_field", "tail_suspension")
BOTH = ("one_vs_all", "multiclass")

FIGURES = {
    "session": lambda: session(units()),
    "session_no_areas": lambda: session(units(1000, [np.nan])[["area"]], [-1, 0, 1, 2], invalid=()),
    "session_many_areas": lambda: session(units(900, [f"A{i}" for i in range(30)])),
    "session_long": lambda: session(units(90, AREA_NAMES), NAMES, 5, name=LONG),
    "session_one": lambda: session(units(1), [3]),
    "session_nan": lambda: session(no_quality(9, np.nan), ["class 1", "class 2"]),
    "raster": raster,
    "raster_many_areas": lambda: raster(400, [f"A{i}" for i in range(30)]),
    "raster_no_areas": lambda: raster(30, [""]),
    "raster_long": lambda: raster(90, NAMES[:6], NAMES),
    "raster_words": lambda: raster(40, AREAS, ["natural_movie", "grating", "flash"]),
    "raster_one": lambda: raster(1, [""], [1]),
    "session_without_trials": without_trials,
    "raster_stimulus": lambda: raster_of_stimulus(4),
    "raster_stimulus_nan": lambda: raster_of_stimulus(1, np.nan),
    "averages": lambda: responses.clearest_averages(averages()),
    "averages_few": lambda: responses.clearest_averages(averages(2, 1)),
    "averages_all": lambda: responses.all_averages(averages()),
    "averages_none": lambda: responses.all_averages(0 * averages(1, 1)),
    "role_rates": lambda: preparation.role_rates(role_rates(60)),
    "role_rates_silent": lambda: preparation.role_rates(0 * role_rates(1)),
    "psth": psth,
    "psth_no_areas": lambda: psth([""]),
    "tuning": tuning,
    "tuning_few": lambda: tuning(30, np.arange(4), [""]),
    "tuning_long": lambda: tuning(30, np.array(NAMES), NAMES[:5]),
    "unit_response": unit_response,
    "unit_long": lambda: unit_response(0, f"Unit {LONG} ({LONG}), {LONG}"),
    "removals": lambda: removals(
        ("spikes", "inside an invalid interval", 3200, 996_800), ("units", "isi_violations > 0.5", 12, 88),
        ("units", "amplitude_cutoff > 0.1", 0, 88), ("presentations", "touches an invalid interval", 24, 5926),
    ),
    "removals_none": removals,
    "quality": lambda: preparation.quality(units(400), LIMITS),
    "quality_unknown": lambda: preparation.quality(units()[["area"]], {}),
    "quality_nan": lambda: preparation.quality(no_quality(9, np.nan), LIMITS),
    "quality_inf": lambda: preparation.quality(no_quality(1, np.inf), LIMITS),
    "split": lambda: preparation.split_timeline(split()),
    "split_folds": lambda: preparation.split_timeline(split(5)),
    "split_random": lambda: preparation.split_timeline(split(blocked=False)),
    "balance": lambda: preparation.label_balance(split(), "frame"),
    "balance_long": lambda: preparation.label_balance(split(label=np.resize(NAMES, 1190)), LONG),
    "correlation": correlation,
    "correlation_large": lambda: correlation(901),
    "correlation_none": lambda: preparation.correlation(np.empty((0, 0)), ["VISp"] * 9000),
    "graph": graph,
    "graph_learned": lambda: graph(signed=True),
    "graph_long": lambda: graph(30, AREA_NAMES),
    "graph_one": lambda: graph(1, [np.nan]),
    "importance": importance,
    "importance_areas": lambda: importance(areas=True, names=NAMES[:6]),
    "importance_no_areas_known": lambda: importance(names=[""]),
    "importance_none": lambda: run_plots.importance(None, None, None),
    "few_shot": lambda: budgets.few_shot_curves(few_shot(), score(0.95)),
    "few_shot_one": lambda: budgets.few_shot_curves(few_shot(["ridge"], [0])),
    "few_shot_none": lambda: budgets.few_shot_curves(few_shot().iloc[:0]),
    "draws": lambda: budgets.draws_spread(few_shot(draws=10)),
    "learning": lambda: run_plots.learning_curves(history()),
    "learning_one_fit": lambda: run_plots.learning_curves(history(1)[["epoch", "val_accuracy"]]),
    "learning_linear": lambda: run_plots.learning_curves(
        history(4, c=[0.001, 0.01, 0.1, 1.0], val_loss=[3.0, 1.6, 1.2, 1.4])
    ),
    "confusion": lambda: confusion(np.arange(-1, 118), 1190),
    "confusion_few": lambda: confusion(np.arange(-1, 3), 200),
    "confusion_long": lambda: confusion(NAMES, 60, LONG),
    "confusion_one": lambda: confusion([1], 1, LONG),
    "by_time": lambda: by_time(BEST),
    "by_time_no_oracle": lambda: by_time(None),
    "summary": lambda: summary(BEST),
    "summary_long": lambda: summary(title=f"{LONG} on {LONG}"),
    "compare": lambda: table_plots.compare_runs(all_runs()),
    "compare_seeds": lambda: table_plots.compare_runs(all_runs(2, 3)),
    "compare_cohort": lambda: table_plots.compare_runs(all_runs(12), "top5"),
    "compare_variant": lambda: table_plots.compare_runs(all_runs(variant=["", "shuffle_labels=true", *[""] * 8])),
    "compare_long": lambda: table_plots.compare_runs(odd_runs()),
    "compare_none": lambda: table_plots.compare_runs(all_runs().iloc[:0]),
    "search": lambda: table_plots.search_history(search_trials(), "accuracy (validation)", "maximize"),
    "search_none_whole": lambda: table_plots.search_history(search_trials().query("state != 'whole'"), "loss", "minimize"),
    "search_settings": lambda: table_plots.search_settings(search_trials(), SHARES, "accuracy (validation)"),
    "search_settings_one": lambda: table_plots.search_settings(search_trials(12, ["demo"]), SHARES.iloc[:0], "loss"),
    "lfp_overview": lfp_overview,
    "lfp_traces": lambda: traces(["BLA", "VTA", "IL_Cx"]),
    "traces_one": lambda: traces([LONG]),
    "spectra": lambda: responses.state_spectra(spectra()),
    "spectra_long": lambda: responses.state_spectra(spectra(NAMES[:2], NAMES[:20])),
    "bands": lambda: responses.band_power(spectra()),
    "bands_long": lambda: responses.band_power(spectra(NAMES[:5], NAMES[:5])),
    "bands_one": lambda: responses.band_power(spectra(["b"], ["a"])),
    "map": embedding_map,
    "map_60": lambda: embedding_map(60, NAMES),
    "budget": lambda: budgets.budget_curves(budget(BOTH), 200),
    "budget_long": lambda: budgets.budget_curves(budget(BOTH[1:], NAMES[:4]), 200),
    "classes": lambda: budgets.class_curves(classes(STATES), 200),
    "classes_long": lambda: budgets.class_curves(classes(NAMES[:5], names=NAMES[:4]), 200),
    "classes_none": lambda: budgets.class_curves(classes(STATES).iloc[:0], 200),
    "spaces": lambda: spaces(accuracy_best_possible=0.9, ceiling=0.8),
    "spaces_real": spaces,
    "found": found,
    "drawn": lambda: drawn(pca=PIXELS, vae=PIXELS * 0.5),
    "drawn_none": drawn,
    "against": lambda: table_plots.score_against(by_size()),
    "against_cost_alone": lambda: table_plots.score_against(all_runs(4, 2)),
    "against_none": lambda: table_plots.score_against(all_runs().iloc[:0]),
    "best": lambda: table_plots.best_per_recording(best(1, 1), published(0)),
    "best_folds": lambda: table_plots.best_per_recording(best(1, 5), published(1)),
    "best_cohort": lambda: table_plots.best_per_recording(best(32, 3), published(32), "top5"),
    "best_groups": lambda: table_plots.best_per_recording(
        pd.concat([best(1, 1), best(1, 3, group="demo (n_folds=3)")]), published(1)
    ),
    "best_long": lambda: table_plots.best_per_recording(odd_runs().assign(decoder=LONG), published(0)),
    "best_none": lambda: table_plots.best_per_recording(best(1, 1).iloc[:0], published(0)),
}  # fmt: skip


# --- every figure, once ----------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch):
    """Every text as it was drawn last, with the box that it takes."""
    boxes = {}
    draw = Text.draw

    def spy(text, renderer, *args, **kwargs):
        if text.get_text().strip() and text.get_visible():
            boxes[text] = text.get_window_extent(renderer)
        return draw(text, renderer, *args, **kwargs)

    monkeypatch.setattr(Text, "draw", spy)
    return boxes


def misplaced(fig, written, dpi):
    """Texts that leave the figure, and pairs that overprint each other; slanted ones are let be."""
    width, height = fig.get_size_inches() * dpi
    slack = dpi / 40
    faults = [
        text.get_text()
        for text, box in written.items()
        if min(box.x0, box.y0, width - box.x1, height - box.y1) < -slack
    ]
    upright = [
        (text.get_text(), box) for text, box in written.items() if not text.get_rotation() % 90
    ]
    for i, (one, a) in enumerate(upright):
        for two, b in upright[i + 1 :]:
            wide = min(a.x1, b.x1) - max(a.x0, b.x0)
            if wide > slack and min(a.y1, b.y1) - max(a.y0, b.y0) > slack:
                faults.append((one, two))
    return faults


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_readable_and_small(name, written):
    fig = FIGURES[name]()
    png = plots.png_bytes(fig, 72)
    assert misplaced(fig, written, 72) == []
    assert png.startswith(b"\x89PNG")
    assert len(png) < 200_000, "a page holds several figures and must stay under 2 MB"
    assert fig.get_figwidth() <= style.WIDTH_IN + 1e-9
    assert min(text.get_fontsize() for text in written) >= 9
    for ax in fig.axes:
        if ax.axison and len(ax.get_xticks()) and ax.get_shared_x_axes().get_siblings(ax) == [ax]:
            assert ax.get_xlabel() or ax.get_ylabel(), "an axis without a name"
    alt = fig.alt()
    assert 40 < len(alt) < 900 and "mathdefault" not in alt and "\n" not in alt


@pytest.mark.parametrize(
    ("name", "n"),
    [("compare_seeds", 60), ("compare_cohort", 120), ("against", 60), ("best_cohort", 96)],
)
def test_every_mark_tells_its_run_and_where_it_is(name, n):
    png, shown = FIGURES[name]()._repr_png_()
    assert len(shown["runs"]) >= n
    assert all(re.fullmatch(r"r\d+/\d{16}", key) for key, _, _ in shown["runs"])
    assert all(0 < x < 1 and 0 < y < 1 for _, x, y in shown["runs"])
    assert json.loads(json.dumps(shown)) == shown
    # What lies under a mark is ink, not paper.
    picture = mpl.image.imread(io.BytesIO(png))
    for _, x, y in shown["runs"]:
        row, column = round(y * picture.shape[0]), round(x * picture.shape[1])
        assert picture[row - 2 : row + 3, column - 2 : column + 3, :3].min() < 0.95


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("summary", ["Each score with its 95 % interval", "accuracy 82.0%, top-5 accuracy 96.0%"]),
        ("compare", ["accuracy on test presentations", "rows: lstm 90.0%", "mlp 65.0%"]),
        (
            "compare_cohort",
            ["12 recordings", "and 2 more", "one recording", "mean over recordings"],
        ),
        (
            "confusion_one",
            ["Test confusion: 100.0% of 1 right; true a_name", "against predicted a_name"],
        ),
        ("removals", ["isi_violations > 0.5 12 of 100 (12.0%)", "share removed"]),
        ("learning", ["cross-entropy (nats) against epoch", "kept: epoch 17"]),
        ("correlation", ["mean r = 0.0", "VISp (10)", "Colour: correlation r."]),
        ("session", ["1190 presentations, 119 labels; presentations against frame", "VISp 10"]),
        ("few_shot", ["Best with all: poisson naive bayes 67.8%"]),
        ("budget", ["Highest with all labels"]),
        ("drawn_none", ["Nothing to draw. No image was drawn"]),
    ],
)
def test_a_figure_says_what_is_to_be_seen(name, words):
    alt = FIGURES[name]().alt()
    assert all(word in alt for word in words), alt


def test_a_figure_in_words_is_plain_text():
    ax = panel()
    ax.set_title("cost $5\n<b>")
    assert ax.figure.alt() == "cost $5 <b>."


def test_published_numbers_are_drawn_hollow_and_say_where_they_are_from():
    def words(name):
        return " ".join(t.get_text() for t in FIGURES[name]().findobj(Text)).replace("\n", " ")

    cohort = words("best_cohort")
    assert (
        "Hollow, LSTM (32): best of 15 epochs on the test rows; a paper, table LSTM.csv." in cohort
    )
    assert "published SVC" in cohort
    assert "No published number" in words("best")
    assert "One recording: this says nothing of others." in words("best_folds")


def test_every_run_is_named_also_where_all_names_have_two_lines():
    fig = table_plots.compare_runs(
        pd.concat([all_runs(changed=f"max_epochs={n}") for n in (1, 2, 3)])
    )
    names = [tick.get_text() for tick in fig.axes[0].get_yticklabels()]
    assert len(names) == 30 and all("\nmax_epochs=" in name for name in names)


def test_constant_unit_has_no_tuning():
    z = responses.zscore_rows(np.array([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(z, [[0, 0, 0], [-1.2247, 0, 1.2247]], atol=1e-4)


def test_confusion_rows_are_shares_of_the_true_class():
    fig = run_plots.confusion(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(fig.axes[0].images[0].get_array(), [[200 / 3, 100 / 3], [0, 100]])


def test_kept_epoch_is_the_lowest_validation_loss():
    legend = run_plots.learning_curves(history()).axes[0].get_legend()
    kept = int(history()["val_loss"].idxmin())
    assert f"kept: epoch {kept}" in [text.get_text() for text in legend.get_texts()]


def test_the_role_of_each_presentation_stands_at_its_time():
    bars = preparation.split_timeline(split(blocked=True)).axes[0].collections
    first = {c.get_facecolor().tobytes(): c.get_paths()[0].vertices[:, 0].min() for c in bars}
    table = split()
    for role, start in table.groupby("role")["start_s"].min().items():
        assert first[np.array([mpl.colors.to_rgba(preparation.ROLES[role][1])]).tobytes()] == start


# --- the figure itself -----------------------------------------------------------------------------


def test_same_figure_same_bytes(tmp_path):
    for draw in (FIGURES["summary"], FIGURES["draws"]):
        assert plots.png_bytes(draw(), 72) == plots.png_bytes(draw(), 72)
    for name in "ab":
        summary().savefig(tmp_path / f"{name}.svg")
    one, two = ((tmp_path / f"{name}.svg").read_bytes() for name in "ab")
    assert one == two and b"<text" in one, "text stays text"


def test_drawing_changes_no_global_setting_and_leaves_no_figure_open():
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    summary(), FIGURES["draws"]()
    assert dict(mpl.rcParams) == before and plt.get_fignums() == []


def test_a_figure_shows_itself_once_as_png_and_tells_of_no_runs_without_any():
    fig = summary()
    png, shown = fig._repr_png_()
    assert png.startswith(b"\x89PNG") and shown == {"width": 720, "alt": fig.alt()}


if (
    __name__ == "__main__"
):  # python tests/report/test_plots.py FOLDER  writes every figure, to look at
    import sys
    from pathlib import Path

    for name, draw in FIGURES.items():
        Path(sys.argv[1], f"{name}.png").write_bytes(plots.png_bytes(draw(), 100))
