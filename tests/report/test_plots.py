"""Every figure on small synthetic data: it draws, is labelled, readable, small and repeatable."""

import io
import json
import re

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from nblib.core.errors import StorageError
from nblib.evaluate.scores import Score
from nblib.report import plots
from nblib.report.plots import style

AREAS = ["LGd", "VISp", "VISl", "VISal", "LP", "CA1"]


def fake_units(n=90, areas=AREAS, quality=True, seed=0):
    rng = np.random.default_rng(seed)
    units = pd.DataFrame({"area": rng.choice(areas, n)}, index=pd.RangeIndex(n, name="unit_id"))
    if quality:
        units["isi_violations"] = rng.gamma(0.6, 0.4, n)
        units["amplitude_cutoff"] = np.clip(rng.gamma(0.7, 0.08, n), 0, 0.5)
        units["presence_ratio"] = np.clip(1 - rng.gamma(0.5, 0.08, n), 0, 1)
    return units


def fake_trials(n_scenes=118, n_repeats=10, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([rng.permutation(np.arange(-1, n_scenes)) for _ in range(n_repeats)])
    start = 30 + 0.25 * np.arange(len(labels))
    for block in (1, 2):
        start[block * len(labels) // 3 :] += 60
    return pd.DataFrame(
        {"start_time": start, "stop_time": start + 0.25, "label": labels.astype(float)}
    )


def session(n_units=90, areas=AREAS, quality=True, n_scenes=118, invalid=True):
    trials = fake_trials(n_scenes)
    end = trials["stop_time"].max() + 30
    time = np.arange(0, end, 5.0)
    rate = pd.DataFrame({"time_s": time, "rate_hz": 5.5 + np.sin(time / 60)})
    other = pd.DataFrame({"start_time": [0.0, end - 30], "stop_time": [29.0, end - 5]})
    intervals = {"spontaneous_presentations": other, "natural_scenes_presentations": trials}
    return plots.session_overview(
        fake_units(n_units, areas, quality), trials["label"].to_numpy(), rate, intervals,
        np.array([[120.0, 140.0]]) if invalid else np.empty((0, 2)),
        trials="natural_scenes_presentations", label_name="frame",
    )  # fmt: skip


def raster(n_units=90, areas=AREAS):
    rng = np.random.default_rng(0)
    return plots.raster(
        rng.uniform(30, 34, 60 * n_units), rng.integers(0, n_units, 60 * n_units),
        fake_units(n_units, areas)["area"], fake_trials(), (30.0, 34.0),
    )  # fmt: skip


def psth(areas=AREAS):
    time = np.arange(-0.05, 0.35, 0.01) + 0.005
    parts = []
    for i, area in enumerate(areas):
        bump = np.exp(-0.5 * ((time - 0.06 - 0.01 * i) / 0.03) ** 2) * (time > 0)
        part = {"area": area, "time_s": time, "rate_hz": 4 + i + 6 * bump, "sem_hz": 0.4}
        parts.append(pd.DataFrame({**part, "n_units": 10 + i}))
    return plots.psth_by_area(pd.concat(parts), 0.25)


def tuning(n_units=90, n_labels=119, areas=AREAS):
    rng = np.random.default_rng(0)
    rate = rng.gamma(2, 2, (n_units, n_labels))
    rate[np.arange(n_units), rng.integers(0, n_labels, n_units)] += 20
    return plots.tuning_heatmap(
        rate, np.arange(-1, n_labels - 1), fake_units(n_units, areas)["area"], "frame"
    )


def unit_response():
    rng = np.random.default_rng(0)
    trial = rng.integers(0, 50, 400)
    time = np.where(rng.random(400) < 0.6, rng.normal(0.09, 0.02, 400), rng.uniform(-0.1, 0.4, 400))
    return plots.unit_response(
        trial, time, 50, (-0.1, 0.4), 0.25, title="unit 950000012 (VISp), frame 46", colour=style.area_colour("VISp")
    )  # fmt: skip


def removals():
    return plots.removals(
        pd.DataFrame(
            [
                ("spikes", "inside an invalid interval", 3200, 996_800),
                ("presentations", "touches an invalid interval", 24, 5926),
                ("units", "isi_violations > 0.5", 12, 88),
                ("units", "amplitude_cutoff > 0.1", 0, 88),
                ("units", "region not asked for", 30, 58),
            ],
            columns=["what", "reason", "removed", "kept"],
        )
    )


def fake_split(n_folds=1, n_scenes=118, n_repeats=10, blocked=True, seed=0):
    trials = fake_trials(n_scenes, n_repeats)
    rng = np.random.default_rng(seed)
    folds = []
    for fold in range(n_folds):
        place = np.arange(len(trials)) / len(trials)
        place = place if blocked else rng.permutation(place)
        place = (place + fold / n_folds) % 1
        role = np.select([place < 0.2, place < 0.28], ["test", "val"], "train")
        if blocked:
            role[(np.abs(place - 0.2) < 0.004) | (np.abs(place - 0.28) < 0.004)] = "gap"
        folds.append(
            pd.DataFrame(
                {
                    "fold": fold,
                    "role": role,
                    "label": trials["label"],
                    "start_s": trials["start_time"],
                    "stop_s": trials["stop_time"],
                }
            )
        )
    return pd.concat(folds, ignore_index=True)


def correlation(n=90, areas=AREAS):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(500, 1))
    matrix = np.corrcoef((rng.normal(size=(500, n)) + 0.3 * shared).T)
    return plots.correlation(matrix, fake_units(n, areas)["area"])


def history(n=20):
    epoch = np.arange(n)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 4.7 * np.exp(-epoch / 6),
            "val_loss": 4.7 * np.exp(-epoch / 7) + 0.01 * epoch**1.5,
            "val_accuracy": 0.9 * (1 - np.exp(-epoch / 5)),
        }
    )


def confusion(n_classes=119, n=1190):
    rng = np.random.default_rng(0)
    label = np.tile(np.arange(-1, n_classes - 1), n // n_classes)
    wrong = rng.random(len(label)) < 0.25
    return plots.confusion(label, np.where(wrong, rng.permutation(label), label), "frame")


def by_time(oracle=0.95):
    accuracy = np.array([0.02, 0.32, 0.61, 0.75, 0.82])
    table = pd.DataFrame({"time": 0.025 + 0.05 * np.arange(5), "accuracy": accuracy})
    table = table.assign(ci_low=accuracy - 0.03, ci_high=accuracy + 0.03)
    return plots.accuracy_by_time(
        table, score(0.82), {"accuracy": score(oracle)} if oracle else None
    )


def score(value, chance=0.0085):
    return {
        "value": value,
        "ci_low": value - 0.02,
        "ci_high": min(1.0, value + 0.02),
        "chance": chance,
    }


def summary(oracle=True):
    scores = {"accuracy": score(0.82), "top5": score(0.96, 0.04), "balanced_accuracy": score(0.81)}
    return plots.score_summary(
        scores, {"accuracy": score(0.95)} if oracle else None, "lstm on demo"
    )


def runs(n_recordings=1, seeds=1):
    rows = []
    models = ["lstm", "gru", "logistic", "pca_logistic", "linear_svm", "mlp", "cnn", "transformer"]
    for recording in range(n_recordings):
        for i, model in enumerate([*models, "transformer_lstm", "autoencoder_lstm"]):
            for seed in range(seeds):
                value = 0.9 - 0.05 * i - 0.03 * recording % 0.3 + 0.01 * seed
                rows.append(
                    {"recipe": "demo", "base": "demo", "group": "demo", "recording": f"r{recording}", "model": model, "variant": "",
                     "changed": "", "n_bins": 5, "n_units": 90, "fit_s": 10.0 ** (i / 4), "fold": seed, "decoder": model,
                     "run": f"r{recording}/{recording:04d}{i:06d}{seed:06d}", **score(value),
                     "oracle": 0.95, "oracle_low": 0.94, "oracle_high": 0.96}
                )  # fmt: skip
    return pd.DataFrame(rows)


def lfp_overview():
    regions = ["PrL_Cx", "BLA", "VTA"]
    channels = pd.DataFrame({"region": regions, "electrodes": [2, 2, 4], "sd": [50.0, 80.0, 20.0], "nan_share": [0, 0.01, 0]})  # fmt: skip
    intervals = pd.DataFrame({"label": ["home_cage", "open_field"], "start_s": [0.0, 310.0], "stop_s": [300.0, 600.0]})  # fmt: skip
    return plots.potentials.lfp_overview(channels, intervals)


def spectra():
    frequency = np.linspace(0, 60, 61)
    rows = [
        pd.DataFrame({"label": state, "channel": c, "frequency_hz": frequency, "power": (1 + i + j) / (1 + frequency)})
        for i, state in enumerate(("home_cage", "open_field", "tail_suspension"))
        for j, c in enumerate(("PrL_Cx", "BLA", "VTA", "IL_Cx", "mSNC"))
    ]  # fmt: skip
    return pd.concat(rows)


def embedding_map():
    rng = np.random.default_rng(0)
    label = np.array(["home_cage", "", "open_field"])[np.arange(300) % 3]
    subject = np.array([f"m{i}" for i in np.arange(300) // 30])
    return plots.embedding_map(rng.standard_normal((300, 2)), label, subject, np.arange(300.0))


def purity():
    rows = {"recording": [f"m{i}" for i in range(12)], "state": np.linspace(0.6, 0.9, 12), "state_chance": 0.33,
            "subject": np.linspace(0.2, 0.5, 12), "subject_chance": 0.08}  # fmt: skip
    return plots.neighbour_purity(pd.DataFrame(rows))


def budget(tasks=("one_vs_all", "multiclass")):
    rows = []
    for i, name in enumerate(("rp", "ts", "cpc", "random", "rp+ts+cpc", "a/very/long/path/to/some/RP_weights.pth")):  # fmt: skip
        for task in tasks:
            for j, b in enumerate((1, 10, 100, 0)):
                value = 0.9 - 0.05 * i - 0.3 / (1 + j)
                rows.append({"embedder": name, "task": task, "budget": b, "value": value, "ci_low": value - 0.05,
                             "ci_high": value + 0.05, "chance": 0.5 if task == "one_vs_all" else 1 / 3})  # fmt: skip
    return pd.DataFrame(rows)


def class_table():
    table = budget(("one_vs_all",))
    return pd.concat([table.assign(**{"class": s}) for s in ("home_cage", "open_field", "tail_suspension")])  # fmt: skip


def spaces(best=True):
    rows = []
    for i, space in enumerate(("vae", "pca", "gabor")):
        for j, which in enumerate(("training images, among all", "held-out images, among all")):
            value = 0.1 + 0.1 * i + 0.2 * j
            row = {"space": space, "which": which, "accuracy": value, "accuracy_low": value - 0.05,
                   "accuracy_high": value + 0.05, "accuracy_chance": 0.01, "r": 0.2, "reliability": 0.6}  # fmt: skip
            rows.append(row | ({"accuracy_best_possible": 0.9, "ceiling": 0.8} if best else {}))
    return plots.space_comparison(pd.DataFrame(rows))


def found(n=3):
    pixels = np.random.default_rng(0).random((9, 16, 20))
    answers = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 0], [4, 3, 2, 1, 0]][:n]
    table = pd.DataFrame(
        {"space": "pca", "row": [0, 1, 2][:n], "rank": [1, 6, 3][:n], "answers": answers}
    )
    return plots.found_images(table, pixels, np.arange(9))


def drawn_pictures(spaces=2):
    shown = np.random.default_rng(0).random((9, 16, 20))
    pictures = {"pca itself": shown, "pca from spikes": shown * 0.5, "gabor itself": None}
    kept = dict(list(pictures.items())[-spaces - 1 :] if spaces else [("gabor itself", None)])
    return plots.drawn_images(kept, shown, shown.mean(axis=0), np.arange(9))


def by_size():
    changed = {1: "n_bins=1", 5: "", 10: "n_bins=10"}
    return pd.concat([runs().assign(changed=c, n_bins=n) for n, c in changed.items()])


def best(n_recordings, folds):
    """The runs of one decoder a recording."""
    found = runs(n_recordings, folds)
    return found[found["model"] == "lstm"]


def published(n):
    """Published numbers of n recordings by two models; of one model from two tables."""
    rows = [
        {"recording": f"r{i}", "model": model, "selected": "best of 15 epochs on the test rows",
         "provenance": f"a paper, table {model}.csv, row {i}", "value": value}
        for i in range(n)
        for model, value in (("LSTM", 0.95), ("SVC", 0.6))
    ]  # fmt: skip
    columns = ["recording", "model", "selected", "provenance", "value"]
    return pd.DataFrame(rows, columns=columns)


def network(n=90, areas=AREAS, signed=False):
    rng = np.random.default_rng(0)
    r = np.abs(rng.standard_normal((n, n))) * 0.1
    edges = np.where(r > 0.2, r, 0) + (0.1 * rng.standard_normal((n, n)) if signed else 0)
    return plots.graph_overview(edges + np.eye(n), r, fake_units(n, areas)["area"])


def carriers(areas=False, names=AREAS):
    rng = np.random.default_rng(0)

    def rises(n):
        rise = rng.gamma(0.5, 0.1, n)
        return pd.DataFrame({"rise": rise, "ci_low": rise - 0.02, "ci_high": rise + 0.02})

    units = rises(90).assign(unit=np.arange(90) + 950_000_000, area=rng.choice(names, 90))
    bins = rises(5).assign(time=np.arange(1, 6) * 0.05)
    rows = [("", "all", 0.8, 90)]
    rows += [(a, kind, v, 15) for a in AREAS for kind, v in (("alone", 0.3), ("without", 0.7))]
    table = pd.DataFrame(rows, columns=["area", "kind", "value", "n_units"]).assign(chance=0.01)
    table = table.assign(ci_low=table["value"] - 0.05, ci_high=table["value"] + 0.05)
    return plots.importance(units, bins, table if areas else None)


def few_shot(names=("nearest_mean", "ridge", "poisson_naive_bayes"), shots=(1, 3, 5, 10, 20, 0)):
    rows = [
        {
            "model": m,
            "k": k,
            "per_class": k or 36.0,
            "value": 0.1 + 0.15 * np.log(k or 36) + 0.02 * i,
        }
        for i, m in enumerate(names)
        for k in shots
    ]
    table = pd.DataFrame(rows).assign(chance=0.01)
    return table.assign(ci_low=table["value"] - 0.03, ci_high=table["value"] + 0.03)


def few_shot_draws():
    rng = np.random.default_rng(0)
    each = few_shot().drop(columns=["ci_low", "ci_high"])
    table = pd.concat([each.assign(draw=d) for d in range(10)], ignore_index=True)
    return table.assign(
        accuracy=np.clip(table["value"] + 0.02 * rng.standard_normal(len(table)), 0, 1)
    )


def summary_score():
    return Score(0.95, 0.94, 0.96, 0.01, 0.001, 1000)


FIGURES = {
    "session": session,
    "session_no_areas": lambda: session(1000, [np.nan], False, 4, invalid=False),
    "session_many_areas": lambda: session(900, [f"A{i}" for i in range(30)]),
    "raster": raster,
    "raster_many_areas": lambda: raster(400, [f"A{i}" for i in range(30)]),
    "raster_no_areas": lambda: raster(30, [""]),
    "raster_large": lambda: raster(1500),
    "psth": psth,
    "psth_no_areas": lambda: psth([""]),
    "tuning": tuning,
    "tuning_few": lambda: tuning(30, 4, [""]),
    "unit_response": unit_response,
    "removals": removals,
    "removals_none": lambda: plots.removals(
        pd.DataFrame(columns=["what", "reason", "removed", "kept"])
    ),
    "quality": lambda: plots.quality(
        fake_units(400),
        {"isi_violations": 0.5, "amplitude_cutoff": np.inf, "presence_ratio": 0.95},
    ),
    "quality_unknown": lambda: plots.quality(fake_units(quality=False), {}),
    "split": lambda: plots.split_timeline(fake_split()),
    "split_folds": lambda: plots.split_timeline(fake_split(5)),
    "split_random": lambda: plots.split_timeline(fake_split(blocked=False)),
    "balance": lambda: plots.label_balance(fake_split(), "frame"),
    "balance_few": lambda: plots.label_balance(fake_split(n_scenes=3), "orientation"),
    "correlation": correlation,
    "correlation_large": lambda: correlation(1501),
    "graph": network,
    "graph_learned": lambda: network(signed=True),
    "graph_one_area": lambda: network(30, [""]),
    "graph_large": lambda: network(700),
    "importance": lambda: carriers(),
    "importance_areas": lambda: carriers(areas=True),
    "importance_no_areas_known": lambda: carriers(names=[""]),
    "importance_none": lambda: plots.importance(None, None, None),
    "few_shot": lambda: plots.few_shot_curves(few_shot(), summary_score()),
    "few_shot_one": lambda: plots.few_shot_curves(few_shot(["ridge"], [0])),
    "draws": lambda: plots.draws_spread(few_shot_draws()),
    "learning": lambda: plots.learning_curves(history()),
    "learning_one_fit": lambda: plots.learning_curves(
        pd.DataFrame({"epoch": [0], "val_accuracy": [0.7]})
    ),
    "learning_linear": lambda: plots.learning_curves(
        history(4).assign(c=[0.001, 0.01, 0.1, 1.0], val_loss=[3.0, 1.6, 1.2, 1.4])
    ),
    "confusion": confusion,
    "confusion_few": lambda: confusion(4, 200),
    "by_time": by_time,
    "by_time_no_oracle": lambda: by_time(None),
    "summary": summary,
    "summary_no_oracle": lambda: summary(False),
    "compare": lambda: plots.compare_runs(runs()),
    "compare_seeds": lambda: plots.compare_runs(runs(2, 3)),
    "compare_cohort": lambda: plots.compare_runs(runs(12), "top5"),
    "compare_variant": lambda: plots.compare_runs(
        runs().assign(variant=["", "", "shuffle_labels=true", *[""] * 7])
    ),
    "lfp_overview": lfp_overview,
    "lfp_traces": lambda: plots.potentials.lfp_traces(
        np.random.default_rng(0).standard_normal((600, 3)), 10.0, 100.0, ["BLA", "VTA", "IL_Cx"]
    ),
    "spectra": lambda: plots.potentials.state_spectra(spectra()),
    "bands": lambda: plots.potentials.band_power(spectra()),
    "map": embedding_map,
    "purity": purity,
    "budget": lambda: plots.budget_curves(budget(), 200),
    "budget_one_task": lambda: plots.budget_curves(budget(("multiclass",)), 200),
    "classes": lambda: plots.class_curves(class_table(), 200),
    "classes_none": lambda: plots.class_curves(class_table().iloc[:0], 200),
    "spaces": spaces,
    "spaces_real": lambda: spaces(False),
    "found": found,
    "drawn": drawn_pictures,
    "drawn_none": lambda: drawn_pictures(0),
    "against": lambda: plots.score_against(by_size()),
    "against_cost_alone": lambda: plots.score_against(runs(4, 2)),
    "against_none": lambda: plots.score_against(runs().iloc[:0]),
    "best": lambda: plots.best_per_recording(best(1, 1), published(0)),
    "best_folds": lambda: plots.best_per_recording(best(1, 5), published(1)),
    "best_cohort": lambda: plots.best_per_recording(best(32, 3), published(32), "top5"),
    "best_groups": lambda: plots.best_per_recording(
        pd.concat([best(1, 1), best(1, 3).assign(group="demo (n_folds=3)")]), published(1)
    ),
    "best_none": lambda: plots.best_per_recording(best(1, 1).iloc[:0], published(0)),
    "compare_none": lambda: plots.compare_runs(runs().iloc[:0]),
}


@pytest.fixture(scope="module")
def drawn():
    return {}


LONG = "a_name_of_forty_characters_as_people_use"
NAMES = [f"{LONG}{i}" for i in range(60)]
AREA_NAMES = [f"anterior cingulate area {i}" for i in range(6)]


def odd_session(labels, units, tables=0):
    trials = fake_trials(4).assign(label=lambda t: np.resize(labels, len(t)))
    rate = pd.DataFrame({"time_s": np.arange(0, 60, 5.0), "rate_hz": 5.0})
    other = {f"{LONG}{i}": trials.head(i) for i in range(tables)}
    return plots.session_overview(
        units, trials["label"].to_numpy(), rate, {"trials": trials, **other}, np.empty((0, 2)),
        trials="trials", label_name=LONG,
    )  # fmt: skip


def odd_raster(labels, areas, n_units):
    rng = np.random.default_rng(0)
    unit, trials = rng.integers(0, n_units, 500), fake_trials().head(16)
    trials = trials.assign(label=np.resize(labels, 16))
    names = fake_units(n_units, areas)["area"]
    return plots.raster(rng.uniform(30, 34, 500), unit, names, trials, (30.0, 34.0))


def odd_spectra(states, channels):
    one = spectra().query("label == 'home_cage' and channel == 'BLA'")
    return pd.concat([one.assign(label=s, channel=c) for s in states for c in channels])


def odd_budget(names, states=("a",)):
    return pd.concat([budget(("one_vs_all",)).assign(**{"class": s}) for s in states]).replace(
        {"embedder": dict(zip(["rp", "ts", "cpc", "random"], names, strict=False))}
    )


def odd_runs():
    some = runs(2).query("model in ['lstm', 'mlp']")
    return some.assign(group=LONG, changed="a=1, " + LONG, recording=lambda t: LONG + t["recording"])  # fmt: skip


def without_quality(n, value):
    columns = ("isi_violations", "amplitude_cutoff", "presence_ratio")
    return fake_units(n).assign(**dict.fromkeys(columns, value))


LIMITS = {"isi_violations": 0.5, "amplitude_cutoff": 0.1, "presence_ratio": 0.95}
ODD = {
    "session_long": lambda: odd_session(NAMES, fake_units(90, AREA_NAMES), 5),
    "session_one": lambda: odd_session([3], fake_units(1)),
    "session_nan": lambda: odd_session(["class 1", "class 2"], without_quality(9, np.nan)),
    "raster_long": lambda: odd_raster(NAMES, NAMES[:6], 90),
    "raster_words": lambda: odd_raster(["natural_movie", "grating", "flash"], AREAS, 40),
    "raster_one": lambda: odd_raster([1], [""], 1),
    "tuning_long": lambda: plots.tuning_heatmap(np.eye(30, 60), np.array(NAMES), NAMES[:30], LONG),
    "confusion_long": lambda: plots.confusion(np.array(NAMES), np.array(NAMES), LONG),
    "confusion_one": lambda: plots.confusion(np.array([1]), np.array([1]), LONG),
    "balance_long": lambda: plots.label_balance(
        fake_split().assign(label=lambda t: np.resize(NAMES, len(t))), LONG
    ),
    "quality_nan": lambda: plots.quality(without_quality(9, np.nan), LIMITS),
    "quality_inf": lambda: plots.quality(without_quality(1, np.inf), LIMITS),
    "compare_long": lambda: plots.compare_runs(odd_runs()),
    "best_long": lambda: plots.best_per_recording(odd_runs().assign(decoder=LONG), published(0)),
    "traces_one": lambda: plots.potentials.lfp_traces(np.zeros((60, 1)), 1.0, 10.0, [LONG]),
    "spectra_long": lambda: plots.potentials.state_spectra(odd_spectra(NAMES[:20], NAMES[:2])),
    "bands_long": lambda: plots.potentials.band_power(odd_spectra(NAMES[:5], NAMES[:5])),
    "bands_one": lambda: plots.potentials.band_power(odd_spectra(["a"], ["b"])),
    "map_60": lambda: plots.embedding_map(
        np.eye(60, 2), np.array(NAMES), np.array(["m"] * 60), np.arange(60.0)
    ),
    "budget_long": lambda: plots.budget_curves(odd_budget(NAMES[:4]), 200),
    "classes_long": lambda: plots.class_curves(odd_budget(NAMES[:4], NAMES[:5]), 200),
    "importance_long": lambda: carriers(areas=True, names=NAMES[:6]),
    "graph_long": lambda: network(30, AREA_NAMES),
    "graph_one": lambda: network(1, [np.nan]),
    "summary_long": lambda: plots.score_summary({"accuracy": score(1.0)}, None, f"{LONG} on {LONG}"),
    "unit_long": lambda: plots.unit_response(
        np.array([], int), np.array([]), 0, (-0.1, 0.4), 0.25, title=f"Unit {LONG} ({LONG}), {LONG}"
    ),
}  # fmt: skip


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
    found = [
        text.get_text()
        for text, box in written.items()
        if min(box.x0, box.y0, width - box.x1, height - box.y1) < -slack
    ]
    upright = [
        (text.get_text(), box) for text, box in written.items() if not text.get_rotation() % 90
    ]
    for i, (one, a) in enumerate(upright):
        for two, b in upright[i + 1 :]:
            if (
                min(a.x1, b.x1) - max(a.x0, b.x0) > slack
                and min(a.y1, b.y1) - max(a.y0, b.y0) > slack
            ):
                found.append((one, two))
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ODD)
def test_long_many_and_missing_names_fit(name, written):
    fig = ODD[name]()
    plots.png_bytes(fig, 60)
    assert misplaced(fig, written, 60) == []
    assert 40 < len(fig.alt()) < 900


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_readable_and_small(name, drawn, written, tmp_path):
    fig = FIGURES[name]()
    png = plots.png_bytes(fig)
    assert misplaced(fig, written, style.DPI) == []
    assert png.startswith(b"\x89PNG")
    assert len(png) < 400_000, "a page holds several figures and must stay under 2 MB"
    assert fig.get_figwidth() <= style.WIDTH_IN + 1e-9
    texts = [t for t in fig.findobj(Text) if t.get_text().strip() and t.get_visible()]
    assert min(t.get_fontsize() for t in texts) >= 9
    for ax in fig.axes:
        if ax.axison and ax.get_xticks().size and ax.get_shared_x_axes().get_siblings(ax) == [ax]:
            assert ax.get_xlabel() or ax.get_ylabel(), "an axis without a name"
    svg = plots.save_svg(fig, tmp_path / f"{name}.svg")
    assert svg.stat().st_size < 1_500_000
    assert b"<text" in svg.read_bytes()
    alt = fig.alt()
    assert 40 < len(alt) < 600 and "mathdefault" not in alt and "\n" not in alt


@pytest.mark.parametrize(
    ("name", "n"),
    [("compare_seeds", 60), ("compare_cohort", 120), ("against", 60), ("best_folds", 5), ("best_cohort", 96)],
)  # fmt: skip
def test_every_mark_tells_its_run_and_where_it_is(name, n):
    fig = FIGURES[name]()
    png, shown = fig._repr_png_()
    keys = [key for key, _, _ in shown["runs"]]
    assert len(shown["runs"]) >= n and all(re.fullmatch(r"r\d+/\d{16}", key) for key in keys)
    assert all(0 < x < 1 and 0 < y < 1 for _, x, y in shown["runs"])
    assert json.loads(json.dumps(shown)) == shown
    # What lies under a mark is ink, not paper.
    picture = mpl.image.imread(io.BytesIO(png))
    for _, x, y in shown["runs"]:
        row, column = round(y * picture.shape[0]), round(x * picture.shape[1])
        assert picture[row - 2 : row + 3, column - 2 : column + 3, :3].min() < 0.95


def test_a_figure_without_runs_tells_of_none():
    assert set(summary()._repr_png_()[1]) == {"width", "alt"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("summary", ["Each score with its 95 % interval", "accuracy 82.0%, top-5 accuracy 96.0%"]),
        ("compare", ["accuracy on test presentations", "rows: lstm 90.0%", "mlp 65.0%"]),
        ("compare_cohort", ["12 recordings", "and 2 more", "Legend: one recording, mean over"]),
        ("confusion", ["Test confusion: 76.6% of 1190 right; true frame against predicted frame"]),
        ("removals", ["isi_violations > 0.5 12 of 100 (12.0%)", "share removed"]),
        ("learning", ["cross-entropy (nats) against epoch", "kept: epoch 17"]),
        ("correlation", ["mean r = 0.087", "VISp (10)", "Colour: correlation r."]),
        ("session", ["1190 presentations, 119 labels; presentations against frame", "VISp 10"]),
        ("few_shot", ["Best with all: poisson naive bayes 67.8%"]),
        ("budget", ["Highest with all labels"]),
        ("drawn_none", ["Nothing to draw. No image was drawn"]),
    ],
)
def test_a_figure_says_what_is_to_be_seen(name, words):
    fig = FIGURES[name]()
    alt = fig.alt()
    assert all(word in alt for word in words), alt
    assert fig._repr_png_()[1]["alt"] == alt


def test_a_figure_in_words_is_plain_text():
    fig = style.new_figure(2.0)
    ax = fig.add_subplot()
    ax.set_title("cost $5\n<b>")
    assert fig.alt() == "cost $5 <b>."


def test_published_numbers_are_drawn_hollow_and_say_where_they_are_from():
    fig = FIGURES["best_cohort"]()
    words = " ".join(t.get_text() for t in fig.findobj(Text)).replace("\n", " ")
    assert (
        "Hollow, LSTM (32): best of 15 epochs on the test rows; a paper, table LSTM.csv." in words
    )
    assert "published SVC" in words
    assert "No published number" in " ".join(t.get_text() for t in FIGURES["best"]().findobj(Text))
    assert "One recording: this says nothing of others." in " ".join(
        t.get_text() for t in FIGURES["best_folds"]().findobj(Text)
    )


def test_same_figure_same_bytes(tmp_path):
    for draw in (summary, raster):
        assert plots.png_bytes(draw()) == plots.png_bytes(draw())
        one, two = (plots.save_svg(draw(), tmp_path / f"{i}.svg").read_bytes() for i in "ab")
        assert one == two


def test_drawing_changes_no_global_setting():
    before = dict(mpl.rcParams)
    summary()
    assert dict(mpl.rcParams) == before
    with mpl.rc_context():
        plots.use_style()
        assert mpl.rcParams["font.size"] == 10


def test_figures_do_not_pile_up():
    import matplotlib.pyplot as plt

    summary()
    assert plt.get_fignums() == []


def test_a_figure_shows_itself_once_as_png():
    png, size = summary()._repr_png_()
    assert png.startswith(b"\x89PNG") and size["width"] == 720


def test_save_svg_refuses_other_names_and_reports_the_disk(tmp_path):
    with pytest.raises(ValueError, match="svg"):
        plots.save_svg(summary(), tmp_path / "figure.png")
    with pytest.raises(StorageError, match=r"gone/figure\.svg"):
        plots.save_svg(summary(), tmp_path / "gone" / "figure.svg")


def test_area_colours_are_fixed_and_known():
    assert plots.area_colour("VISp") == style.BLUE
    assert plots.area_colour("") == style.GREY
    assert plots.area_colour("ZI") == plots.area_colour("ZI")
    known = [plots.area_colour(a) for a in AREAS]
    assert len(set(known)) == len(known)


def test_area_order_follows_the_pathway():
    assert style.area_order(["CA1", "VISp", np.nan, "LGd", "ZI", "VISp"]) == [
        "LGd",
        "VISp",
        "CA1",
        "ZI",
        "",
    ]


def test_constant_unit_has_no_tuning():
    from nblib.report.plots.responses import zscore_rows

    z = zscore_rows(np.array([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]]))
    assert z[0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(z[1], [-1.2247, 0, 1.2247], atol=1e-4)


def test_confusion_rows_are_shares_of_the_true_class():
    fig = plots.confusion(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    shown = fig.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, [[200 / 3, 100 / 3], [0, 100]])


def test_kept_epoch_is_the_lowest_validation_loss():
    fig = plots.learning_curves(history())
    best = int(history()["val_loss"].idxmin())
    assert f"kept: epoch {best}" in [t.get_text() for t in fig.axes[0].get_legend().get_texts()]


if (
    __name__ == "__main__"
):  # python tests/report/test_plots.py FOLDER  writes every figure, to look at
    import sys
    from pathlib import Path

    for name, draw in FIGURES.items():
        Path(sys.argv[1], f"{name}.png").write_bytes(
            io.BytesIO(plots.png_bytes(draw(), 100)).getvalue()
        )
