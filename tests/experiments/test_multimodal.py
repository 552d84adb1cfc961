"""Several sessions, decoded, encoded and imputed: whole, honest at chance, never above the best possible."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from nblib import models
from nblib.core import errors, params, recipes
from nblib.data import counts_dataset, opening
from nblib.evaluate import stats
from nblib.experiments.multimodal import answers, experiment, further, judge, transfer
from nblib.models.multimodal import linear
from nblib.models.multimodal.branch import (
    KINDS,
    NOTHING,
    Branch,
    candidates,
    crossed,
    fit_branch,
    stacked,
)
from nblib.models.multimodal.tasks import AREAS, BEHAVIOUR, OTHERS, UNITS, Task
from nblib.prepare import binning, cleaning, sessions, split_roles, stored_splits, train_statistics

FAST = {
    "max_epochs": 2,
    "n_bootstrap": 100,
    "n_permutations": 100,
    "width": 16,
    "layers": 1,
    "device": "cpu",
}


def on_disk(recipe, folder):
    """What 04 and 03 store of the recordings of a recipe."""
    places = ([], [])
    for name in recipe.recordings:
        spikes = recipe.holds == "spikes"
        recording = opening.open_recording(recipe, name) if spikes else None
        settings = recipe.settings(params.BinSettings)
        binned = (
            binning.bin_recording(recording, settings)
            if spikes
            else opening.open_binned(recipe, name)
        )
        binned, _ = cleaning.clean(binned, recording, recipe.settings(params.CleanSettings))
        roles = split_roles.make_split(binned, recipe.settings(params.SplitSettings))
        fitted = train_statistics.fit_folds(binned, roles, recipe.settings(params.SplitSettings))
        for place, kind in zip(places, ("split", "counts"), strict=True):
            place.append(folder / f"{name}-{kind}")
            place[-1].mkdir()
        stored_splits.save(places[0][-1], roles, fitted)
        counts_dataset.save(binned, places[1][-1])
    return places


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Recipe task_tiny, and what is stored of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLIB_HOME", str(tmp_path_factory.mktemp("home")))
        recipe = recipes.find_recipe("task_tiny")
        yield recipe, on_disk(recipe, tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def result(tiny):
    recipe, stored = tiny
    settings = judge.Params(recipe="task_tiny", by_area=True, **FAST)
    return experiment.run(experiment.load_sessions(*stored, recipe, settings), recipe, settings)


@pytest.fixture
def without_random_split(monkeypatch):
    """A run without the random split, which takes a third of its time and is in `result`."""
    monkeypatch.setattr(further, "inflation", lambda *_: pd.DataFrame())


def test_every_task_has_linear_rows_the_network_and_what_is_possible(result):
    by_task = {}
    for row in result.rows:
        by_task.setdefault(row.of["variant"], set()).add(row.of["model"])
        if NOTHING not in row.what:
            assert np.isfinite([row.score.ci_low, row.score.ci_high, row.score.p]).all()
    assert {"wheel", "whisker", "choice", "probabilityLeft", UNITS, AREAS} <= set(by_task)
    assert {
        f"spikes from {n}" for n in ("behaviour", "wheel", "whisker", "choice", "probabilityLeft")
    } <= set(by_task)
    assert all(answers.NETWORK in models and len(models) >= 3 for models in by_task.values())
    assert {"ridge", "lagged ridge", "shared map", "Wiener filter"} <= by_task["wheel"]
    with_best = {row.of["variant"] for row in result.rows if row.best is not None}
    assert with_best == {
        "wheel",
        "whisker",
        "choice",
        "probabilityLeft",
        "spikes from behaviour",
        UNITS,
    }


def test_what_areas_say_of_each_other_has_intervals_and_reads_the_named_area_alone(tiny, result):
    table = result.tables["areas"]
    assert len(table) == 2 * 4 * 5 and {*table["told"], OTHERS} == set(table["from"])
    assert np.isfinite(table[["value", "ci_low", "ci_high", "p"]]).all(axis=None)
    recipe, stored = tiny
    one = sessions.load_sessions(*stored, recipe, 0)[0]
    same = Task("", "impute", areas=("CA1", "CA1"))
    (units,) = same.groups(one)
    others = same.seen(one, units)
    assert not set(units) & set(others) and set(one.area[[*units, *others]]) == {"CA1"}
    apart = Task("", "impute", areas=("CA1", "VISp"))
    (units,) = apart.groups(one)
    others = apart.seen(one, units)
    rest = Task("", "impute", areas=("CA1", OTHERS))
    assert {*rest.seen(one, units)} == {*np.flatnonzero(one.area != "CA1")}
    assert {*rest.groups(one)[0]} == {*np.flatnonzero(one.area == "CA1")}
    maps, counts = result.files[0].maps[0], one.counts.copy()
    counts[..., np.setdiff1d(np.arange(12), others)] = 7
    answers = [
        Task(AREAS, "impute", areas=apart.areas).linear(maps, s)
        for s in (one, replace(one, counts=counts))
    ]
    np.testing.assert_array_equal(*answers)


def test_nothing_beats_the_best_possible_by_more_than_its_interval(result):
    for row in result.rows:
        if row.best is not None:
            assert row.score.value <= row.best.ci_high, row.what


def test_a_label_that_leaks_into_a_unit_beats_the_best_possible_and_so_is_seen(tiny):
    recipe, stored = tiny
    one = sessions.load_sessions(*stored, recipe, 0)[0]
    asked, block = judge.Params(recipe="task_tiny", **FAST), Task("probabilityLeft", "variable")
    limit = judge.scores(block, answers.ceilings([one], recipe)[block.name], [one], asked)
    spikes = one.counts.copy()
    spikes[..., 0] = 2 * block.truth(one)[:, None]
    said = {}
    for name, counts in (("sound", one.counts), ("leaking", spikes)):
        session = sessions.with_roles(replace(one, counts=counts), one.role)
        *_, maps = linear.logistic(session, session.known)
        answer = [block.linear({block.name: [maps[block.name]]}, session)]
        said[name] = judge.scores(block, answer, [session], asked)[judge.BALANCED].value
    assert said["sound"] <= limit[judge.BALANCED].ci_high < said["leaking"]


def test_the_drift_is_what_the_two_nulls_differ_by_and_the_words_name_where_a_linear_model_wins(
    result,
):
    words = experiment.in_words(result)
    assert words.startswith(
        "**Result.** One network of 2 sessions answers 11 tasks on 54 test trials."
    )
    assert "Rates drift from train to test by" in words
    table = result.tables["against"].assign(ci_low=-0.1)
    lost = replace(result, tables=result.tables | {"against": table})
    assert "At no task is it better than the best linear model." in experiment.in_words(lost)
    table.loc[0, "ci_low"] = 0.1
    words = experiment.in_words(lost)
    first, *others = table["task"]
    of_others = words.partition(f"better than the best linear model at {first}; at ")[2]
    assert all(task in of_others for task in others)
    assert result.tables["transfer"].empty and result.tables["causal"].empty
    passport = result.tables["passport"].set_index("model")
    by_row = result.of_metric("bits over the test mean").query("variant == @BEHAVIOUR")
    pooled = by_row.set_index("model")["value"]
    np.testing.assert_allclose(passport["bits over the test mean"], pooled[passport.index])
    assert np.isfinite(passport).all(axis=None) and answers.NETWORK in passport.index


def test_shuffled_behaviour_is_at_chance(tiny, without_random_split):
    recipe, stored = tiny
    settings = judge.Params(recipe="task_tiny", shuffle_labels=True, **FAST)
    shuffled = experiment.load_sessions(*stored, recipe, settings)
    plain = sessions.load_sessions(*stored, recipe, 0)
    for one, two in zip(shuffled, plain, strict=True):
        assert (one.counts == two.counts).all() and not (one.signals == two.signals).all()
        test = one.rows("test")
        pairs = [np.sort(s.signals[test], axis=None) for s in (one, two)]
        assert (pairs[0] == pairs[1]).all(), "those of the same role"
    result = experiment.run(shuffled, recipe, settings)
    for row in result.rows:
        if row.metric == "R2 beyond the mean course" and row.of["model"] != NOTHING:
            assert row.score.ci_low <= 0 and row.best is None, row.what
        if row.metric == judge.BEYOND_PSTH and row.of["variant"].startswith("spikes from"):
            assert row.score.ci_low <= 0, row.what
        if row.metric == judge.BALANCED:
            assert row.score.ci_low <= row.score.chance, row.what


def test_signals_are_scaled_by_train_trials_alone(tiny):
    recipe, stored = tiny
    one = sessions.load_sessions(*stored, recipe, 0)[0]
    train = one.signals[one.rows("train")]
    np.testing.assert_allclose(train.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=(0, 1)), 1, atol=1e-5)
    np.testing.assert_allclose(one.x[one.rows("train")].mean(axis=(0, 1)), 0, atol=1e-5)
    other = np.where((one.role == "test")[:, None, None], 99, one.counts)
    np.testing.assert_array_equal(sessions.root_scaling(other, one.rows("train")), one.roots)


def test_a_network_that_learned_nothing_is_not_trusted_for_having_seen_validation(
    tiny, monkeypatch
):
    monkeypatch.setattr(answers, "FEWEST", 1)
    recipe, stored = tiny
    one = sessions.load_sessions(*stored, recipe, 0)[0]
    counts = one.counts * np.where(one.role == "val", 4, 1)[:, None, None].astype(np.float32)
    drifting = sessions.with_roles(replace(one, counts=counts), one.role)
    asked = judge.Params(recipe="task_tiny", learning_rate=1e-12, **FAST | {"max_epochs": 1})
    branch, model, _ = experiment.fitted([drifting], asked)
    trust = answers.of_network(model, [drifting], branch).trust
    assert {trust[f"spikes from {name}"] for name in ("wheel", "choice")} == {0.0}, trust
    assert trust[UNITS] == trust[AREAS] == 0, trust


def test_a_network_of_no_weight_is_the_linear_model_and_wins_by_no_rounding(tiny):
    recipe, stored = tiny
    one, rng = sessions.load_sessions(*stored, recipe, 0)[0], np.random.default_rng(3)
    task = Task(UNITS, "impute")
    linear, network = rng.gamma(2, 0.1, (2, *task.truth(one).shape)) + 1e-3
    np.testing.assert_array_equal(task.mixed(linear, network, 0.0), linear)


@pytest.mark.parametrize(("n", "off", "weight"), [(20, 1.0, 0.5), (20, 9.0, 0.0), (19, 1.0, 0.0)])
def test_a_network_is_averaged_where_that_is_better_and_twenty_trials_say_so(tiny, n, off, weight):
    recipe, stored = tiny
    wheel = Task("wheel", "signal")
    part = sessions.load_sessions(*stored, recipe, 0)[0].at(slice(n))
    truth = wheel.truth(part)
    assert answers.trusted(wheel, [(part, truth + 1, truth - off)]) == weight


def test_a_further_signal_is_a_line_of_the_recipe(tiny, tmp_path):
    recipe = tiny[0]
    line = {"turned": params.SignalSettings(series="wheel", max_gap_s=np.inf)}
    more = recipe.model_copy(update={"recordings": ["t1"], "signals": recipe.signals | line})
    asked = judge.Params(recipe="task_tiny", **FAST)
    (one,) = experiment.load_sessions(*on_disk(more, tmp_path), more, asked)
    assert one.signal_names == ("wheel", "whisker", "turned") and np.isfinite(one.signals).all()
    branch, model, _ = experiment.fitted([one], asked, whole=False)
    turned = Task("turned", "signal")
    assert {"ridge", "lagged ridge", "Wiener filter"} <= set(branch.answers[turned])
    assert model.decode(one.counts)["turned"].shape == one.counts.shape[:2]


def test_a_stored_run_says_what_the_run_scored(tiny, result, tmp_path):
    recipe, stored = tiny
    result.save(tmp_path, {"notebook": "12_multimodal"})
    names = {p.name for p in tmp_path.iterdir()}
    assert {"metrics.json", "against.parquet", "config.json", "weights.safetensors"} <= names
    assert len(judge.scores_table(result)) == len({tuple(row.of.values()) for row in result.rows})
    model = models.load(tmp_path)
    loaded = experiment.load_sessions(*stored, recipe, judge.Params(recipe="task_tiny"))
    scores = result.scores
    behaviour = [own_units(one) for one in loaded]
    asked = [Task("wheel", "signal"), Task("choice", "variable"), Task(BEHAVIOUR, "encode")]
    asked += [Task(UNITS, "impute"), Task(AREAS, "impute")]
    by_task = {task.name: [] for task in asked}
    for one, known in zip(loaded, behaviour, strict=True):
        said = model.decode(one.counts, session=one.name)
        by_task["wheel"].append((said["wheel"] - one.mean[0]) / one.scale[0])
        by_task["choice"].append(np.log(said["choice"]))
        by_task[BEHAVIOUR].append(model.encode(known, one.name))
        by_task[UNITS].append(model.impute(one.counts, np.arange(0, 12, 5), session=one.name))
        by_task[AREAS].append(np.concatenate([
            model.impute(one.counts, units, session=one.name) for units in asked[-1].groups(one)
        ], axis=-1))  # fmt: skip
    params = judge.Params(recipe="task_tiny", **FAST)
    for task in asked:
        for metric, score in judge.scores(task, by_task[task.name], loaded, params).items():
            before = scores[f"{task.name}, {answers.NETWORK}: {metric}"].value
            assert score.value == pytest.approx(before, abs=1e-5), (task, metric)


def own_units(one):
    known = dict(
        zip(one.signal_names, np.moveaxis(one.signals * one.scale + one.mean, -1, 0), strict=True)
    )
    return known | {n: c[one.variables[:, q]] for q, (n, c) in enumerate(one.classes.items())}


def test_a_new_session_is_learnt_from_its_few_trials_alone_and_by_what_others_taught(
    tiny, without_random_split
):
    recipe, stored = tiny
    params = judge.Params(recipe="task_tiny", new=["t2"], budgets=[10], **FAST)
    loaded = experiment.load_sessions(*stored, recipe, params)
    result = experiment.run(loaded, recipe, params)
    assert [one.name for one in result.files[0].sessions] == ["t1"] and result.about["n_sessions"] == 1  # fmt: skip
    table = result.tables["transfer"]
    assert len(table) == 5 * 5 and set(table["session"]) == {"t2"}
    scored = table[["value", "ci_low", "ci_high", "chance", "p", "n", "best", "share"]]
    assert np.isfinite(scored).all(axis=None) and (table["value"] <= table["best"] + 0.1).all()
    said = transfer.in_words(table)
    assert "of which 10 trials are known" in said and transfer.SCRATCH not in said
    assert "which so few trials cannot choose" in said
    assert set(transfer.told_apart(table)["model"]) == {transfer.ALONE, transfer.SHARED}
    half = table.assign(weight=np.where(table["task"] == "wheel", 0.5, table["weight"]))
    assert transfer.SCRATCH in transfer.in_words(half)
    weight = table.set_index("model")["weight"]
    assert (weight.drop([transfer.ALONE, transfer.SHARED]) == 0).all(), "two trials choose nothing"
    assert weight[[transfer.ALONE, transfer.SHARED]].isna().all()
    real = table.assign(best=np.nan, share=np.nan)  # as of sessions whose truth nobody knows
    shown = experiment.beside(replace(result, tables=result.tables | {"transfer": real}))[-1]
    assert {"value", "gain_low"} <= set(shown) and "share" not in shown and len(shown) == 25


def test_mice_that_see_the_same_scenes_are_sessions_of_one_variable(
    home, tmp_path, without_random_split
):
    small = {"n_units": 16, "n_scenes": 4, "n_repeats": 20}
    simulate = params.SimulateSettings(**small)
    mice = {"recordings": ["m1", "m2", "m3"], "simulate": simulate}
    recipe = recipes.find_recipe("scenes_demo").model_copy(update=mice)
    asked = judge.Params(recipe="scenes_demo", new=["m3"], budgets=[24], **FAST)
    loaded = experiment.load_sessions(*on_disk(recipe, tmp_path), recipe, asked)
    result = experiment.run(loaded, recipe, asked)
    assert result.files[0].sessions[0].signal_names == () and result.tables["bands"].empty
    table = result.tables["transfer"].query("task == 'frame'")
    assert set(table["model"]) == {transfer.ALONE, transfer.SHARED, transfer.SCRATCH, *transfer.TUNED.values()}  # fmt: skip
    models_of_frame = {row.of["model"] for row in result.rows if row.of["variant"] == "frame"}
    assert {"logistic", "Poisson Bayes", "shared map", "shared kinds"} <= models_of_frame
    assert (table["best"] > 0.5).all() and (table["value"] <= table["best"] + 0.1).all()
    gains = table.set_index("model")[["gain", "gain_low", "gain_high"]]
    assert (gains["gain_low"] <= gains["gain"]).all() and gains.loc[transfer.ALONE, "gain"] == 0
    shown = [row for row in result.rows if row.metric == judge.BALANCED]
    assert all(row.best is not None for row in shown)


@pytest.mark.slow
def test_what_other_mice_teach_of_scenes_helps_a_new_one_and_mixed_up_labels_do_not(home, tmp_path):
    mice = {"recordings": [f"m{i}" for i in range(1, 9)]}
    recipe = recipes.find_recipe("scenes_demo").model_copy(update=mice)
    loaded = sessions.load_sessions(*on_disk(recipe, tmp_path), recipe, 0)
    teachers, new = loaded[:3], loaded[3:]
    mixed = [sessions.shuffled(one, 0) for one in teachers]
    asked, frame = judge.Params(recipe="scenes_demo", **FAST), Task("frame", "variable")

    def taught_by(those):
        rows = [one.known for one in those]
        kinds = [linear.kinds(one, one.known, "frame") for one in those]
        return {
            "frame": linear.factors(those, rows, "frame"),
            KINDS + "frame": np.concatenate(kinds),
        }

    def no_signals(rows):
        raise AssertionError("behaviour without signals is not recalled")

    def told(few, factors):
        folds = [[rows] for rows in np.array_split(few.known, 5)]
        by = {
            name: crossed(paths, [few], [frame], [few.known], folds)[1][frame]
            for name, (paths, tasks) in candidates([few], False, factors, no_signals).items()
            if frame in tasks and name != "logistic"  # slow, and never chosen here
        }
        return stacked(frame, [few], [few.known], by)[1]

    taught = {
        "alone": None,
        "shared": taught_by(teachers),
        "mixed": taught_by(mixed),
        "one mixed": taught_by([mixed[0], *teachers[1:]]),
    }
    for trials in (120, 400):  # 3 and 10 repeats
        right = {name: [] for name in taught}
        for one in new:
            few = transfer.with_few(one, trials, 0)
            for name, factors in taught.items():
                answer = told(few, factors)
                score = judge.scores(frame, answer, [few], asked)[judge.BALANCED]
                right[name].append(score.value)
        gain = np.subtract(right["shared"], right["alone"])
        low, _ = stats.t_interval(gain, -np.inf, np.inf)
        assert low > 0, (trials, right)
        assert abs(np.mean(right["mixed"]) - np.mean(right["alone"])) < 0.02
        assert np.mean(right["one mixed"]) <= np.mean(right["shared"]) + 0.01


@pytest.mark.slow
def test_it_comes_near_the_best_possible_and_others_help_where_trials_are_few(home, tmp_path):
    recipe = recipes.find_recipe("task_transfer")
    quick = {"n_bootstrap": 100, "n_permutations": 100, "device": "cpu"}
    asked = judge.Params(
        recipe="task_transfer", new=["s7", "s8", "s9"], budgets=[25], threads=1, **quick
    )
    loaded = experiment.load_sessions(*on_disk(recipe, tmp_path), recipe, asked)
    known = [one for one in loaded if one.name not in asked.new]
    branch, model, _ = experiment.fitted(known, asked, whole=False)
    model, limits = answers.of_network(model, known, branch), answers.ceilings(known, recipe)
    shares = []
    for task, by in branch.answers.items():
        metric = judge.USUAL[task.kind]
        pair = (by[answers.NETWORK], limits[task.name])
        score, best = (judge.scores(task, a, known, asked, (metric,))[metric] for a in pair)
        shares.append((score.value - score.chance) / (best.value - score.chance))
    assert len(shares) == 5 and np.mean(shares) >= 0.8, shares
    new = [one for one in loaded if one.name in asked.new]
    table = transfer.curve(new, model, recipe, asked)
    by = transfer.shares(table).set_index("model")["value"]
    assert by[transfer.TUNED["full"]] >= 0.5, by
    assert by[transfer.TUNED["full"]] >= by[[transfer.SCRATCH, transfer.ALONE]].max() + 0.1, by


def test_few_trials_teach_choose_and_scale_alone(tiny):
    recipe, stored = tiny
    one = sessions.load_sessions(*stored, recipe, 0)[0]
    few = transfer.with_few(one, 10, 0)
    fit, val, test = (few.rows(role) for role in ("train", "val", "test"))
    assert (len(fit), len(val)) == (8, 2) and np.isin([*fit, *val], one.rows("train")).all()
    np.testing.assert_array_equal(test, one.rows("test"))
    np.testing.assert_allclose(few.signals[fit].mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(few.x[fit].mean(axis=(0, 1)), 0, atol=1e-5)
    for now, before in zip(own_units(few).values(), own_units(one).values(), strict=True):
        np.testing.assert_allclose(now, before, atol=1e-4)
    other = transfer.with_few(one, 10, 1)
    assert not np.array_equal(other.rows("train"), fit)
    with pytest.raises(errors.BadParameter, match="budgets: 99 trials, but 't1' has"):
        transfer.with_few(one, 99, 0)


def test_a_random_split_flatters_where_rates_drift(tiny, result):
    recipe, stored = tiny
    signals = recipe.model_copy(update={"variables": []})
    plain = sessions.load_sessions(*stored, signals, 0)[0]
    late = np.linspace(0.3, 3.0, len(plain.role))[:, None, None]
    counts = np.random.default_rng(0).poisson(plain.counts.mean(axis=(0, 1)) * late + 0 * plain.counts)  # fmt: skip
    drifting = sessions.with_roles(replace(plain, counts=counts.astype(np.float32)), plain.role)
    params = judge.Params(recipe="task_tiny", **FAST)
    flattered = further.inflation([drifting], fit_branch([drifting]), params).set_index("task")
    usual = result.tables["inflation"].set_index("task")
    assert set(usual.index) == {"wheel", "whisker", "choice", "probabilityLeft", BEHAVIOUR}
    gained, nothing = (table.loc[BEHAVIOUR, "inflation"] for table in (flattered, usual))
    assert gained > 0.05 > abs(nothing)


def test_bands_hold_what_they_are_asked_for_where_nothing_drifts(tiny):
    recipe, stored = tiny
    one = sessions.load_sessions(*stored, recipe, 0)[0]
    rng, k = np.random.default_rng(1), 1000
    signals = rng.normal(size=(k, 25, 2)).astype(np.float32)
    many = replace(one, signals=signals, role=np.repeat(["train", "val", "test"], [400, 200, 400]))
    off = signals[..., 0] + rng.normal(0, 0.5, (k, 25))
    wheel = Task("wheel", "signal")
    branch = Branch({wheel: {answers.NETWORK: [off], "ridge": [off]}}, {wheel: "ridge"}, [], [], {})
    table = further.bands(branch, [many])
    assert table["held"].between(0.87, 0.93).all() and len(table) == 4
    bins, trials = (table.query("of == @unit")["half_width"] for unit in ("bins", "trials"))
    assert bins.between(0.75, 0.9).all() and (trials.to_numpy() > bins.to_numpy()).all()
    # Errors of a state of the animal that is far away in time say nothing of test trials.
    off[:300] = signals[:300, :, 0] + rng.normal(0, 5, (300, 25))
    table = further.bands(branch, [many])
    assert table["held"].between(0.87, 0.93).all()
    assert table.query("of == 'bins'")["half_width"].between(0.75, 0.9).all()


def test_areas_of_units_are_told_from_weights_that_hold_them_and_not_from_others(result):
    model, params = result.files[0], judge.Params(**FAST)
    told = copy.deepcopy(model)
    for one, layer in zip(told.sessions, told.net.units_out, strict=True):
        known = np.unique(one.area, return_inverse=True)[1]
        layer.weight.data = torch.eye(layer.weight.shape[1])[known]
    table = further.areas_of_units(told, params).set_index("metric")
    assert (table["value"] > 0.8).all() and (table["p"] < 0.05).all()
    rng = np.random.default_rng(0)
    for layer in told.net.units_out:
        layer.weight.data = torch.as_tensor(rng.normal(size=layer.weight.shape))
    table = further.areas_of_units(told, params).set_index("metric")
    assert (table["ci_low"] <= table["chance"]).all()
    assert (table["ci_high"] > 0.9).all(), (
        "two sessions say little of a third, whatever their units"
    )


def test_a_causal_model_says_what_it_costs_and_how_long_it_takes(tiny, without_random_split):
    recipe, stored = tiny
    params = judge.Params(recipe="task_tiny", causal=True, **FAST)
    signals = recipe.model_copy(update={"variables": []})  # of one session, in a third of the time
    loaded = experiment.load_sessions(*stored, signals, params)[:1]
    result = experiment.run(loaded, recipe, params)
    table = result.tables["causal"].set_index("task")
    causal = result.of_metric(judge.BEYOND_COURSE).query("model == @answers.NETWORK")
    assert set(table.index) == {"wheel", "whisker"}
    assert table["causal"].tolist() == pytest.approx(causal["value"].tolist())
    np.testing.assert_allclose(table["all_bins"] - table["causal"], table["price"], atol=1e-9)
    assert (table["p50_ms"] > 0).all() and (table["p50_ms"] <= table["p99_ms"]).all()


@pytest.mark.parametrize(
    ("new", "message"),
    [(["t9"], "new: 't9' is not in recipe 'task_tiny'"), (["t1", "t2"], "no recording is left")],
)
def test_a_new_recording_that_cannot_be_is_refused(new, message, tiny):
    recipe, stored = tiny
    with pytest.raises(errors.BadParameter, match=message):
        experiment.load_sessions(*stored, recipe, judge.Params(recipe="task_tiny", new=new))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schemes": {"sideways": 1.0}}, "no 'sideways'; there are encode, decode"),
        ({"schemes": {"decode": 0.0}}, "schemes = .*'decode': 0.0.*one above 0"),
        ({"schemes": {"decode": -1.0, "encode": 2.0}}, "must be 0 or more"),
        ({"width": 30}, "must be a multiple of heads = 4"),
        ({"compiled": True, "trunk": "gru"}, "compiled = True: a GRU cannot be"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(errors.BadParameter, match=message):
        judge.Params(**given).check()


def test_a_variable_and_a_fold_that_are_not_there_are_named(tiny):
    recipe, stored = tiny
    with pytest.raises(errors.BadParameter, match="'reward' is no column of the trials of 't1'"):
        sessions.load_sessions(*stored, recipe.model_copy(update={"variables": ["reward"]}), 0)
    with pytest.raises(errors.BadParameter, match="fold = 3: the split of 't1' has 1 fold"):
        sessions.load_sessions(*stored, recipe, 3)


def test_a_real_session_is_read_and_its_wheel_decoded(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("NBLIB_TEST_DATA", str(real_data("ibl_session_binned.npz").parent))
    recipe = recipes.find_recipe("ibl_binned")
    (one,) = sessions.load_sessions(*on_disk(recipe, tmp_path), recipe, 1)
    assert one.signal_names == ("wheel_speed", "motion_energy", "pupil_diameter", "paw_speed")
    assert one.counts.shape[:2] == (294, 50) and set(one.area) == {"ca1", "dg", "lp", "po", "vis"}
    fit, test = one.rows("train"), one.rows("test")
    *_, maps = linear.flat_ridge(one, fit)
    course = one.signals[fit].mean(axis=0)
    answer = np.stack([maps[name](one) for name in one.signal_names], axis=-1)
    errors_of = [((a - one.signals)[test] ** 2).sum(axis=(0, 1)) for a in (answer, course)]
    beyond = 1 - errors_of[0] / errors_of[1]
    assert beyond[0] > 0.35 and (beyond[1:3] > 0.1).all(), beyond


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t2: {"whisker": 0 * t2.whisker + 2}, "'t2': signal 'whisker' never changes"),
        (lambda t2: {"exposure_s": 2 * t2.exposure_s}, "bins: 25 of 0.04 s and 25 of 0.08 s"),
        (lambda t2: {"choice": t2.choice.astype(str)}, r"that are text: \[\] and \['choice'\]"),
        (
            lambda t2: {"whisker": t2.whisker.where(t2.trial < 50)},
            r"'whisker' is known in 0 of \d+\.",
        ),
        (
            lambda t2: {
                "whisker": t2.whisker.where(t2.trial % 2 == 0),
                "choice": t2.choice.where(t2.trial % 2 == 1),
            },
            r"known in some of \d+ are 'whisker' in \d+, 'choice' in \d+, never all together",
        ),
        (lambda t2: {"choice": t2.choice.where(t2.trial < 80, 7)}, "choice = 7 is in no training"),
    ],
    ids=[
        "still signal",
        "wider bins",
        "text",
        "camera stops",
        "never both",
        "class of test trials",
    ],
)
def test_a_session_that_does_not_fit_is_named_with_what_to_leave_out(
    change, message, tiny, monkeypatch
):
    recipe, stored = tiny

    def changed(folder):
        binned = counts_dataset.load(folder)
        if binned.attrs["recording"] == "t1":
            return binned
        parts = change(binned)
        return binned.assign(parts) if "whisker" in parts else binned.assign_coords(parts)

    monkeypatch.setattr(sessions, "load", changed)
    with pytest.raises(errors.NblibError, match=f"{message}.* out of `"):
        sessions.load_sessions(*stored, recipe, 0)


def test_signals_of_binned_files_may_stand_in_any_order_and_be_yes_or_no(tmp_path):
    rng, made = np.random.default_rng(0), {}
    for name in ("a", "b"):
        counts, speed = rng.poisson(1.0, (40, 10, 4)), rng.normal(size=(40, 10))
        made[name] = {"counts": counts, "bin_s": 0.02, "speed": speed, "lick": speed > 0}
    made["b"] = dict(reversed(made["b"].items()))
    recipe = params.Recipe(
        recipe="r", recordings=["a", "b"], source="counts", path=str(tmp_path / "{recording}.npz"), label="",
        gap_s=0.1,
    )  # fmt: skip
    for name, arrays in made.items():
        np.savez(tmp_path / name, **arrays)
    one, two = sessions.load_sessions(*on_disk(recipe, tmp_path), recipe, 0)
    assert one.signal_names == two.signal_names == ("speed", "lick")
    for session, arrays in ((one, made["a"]), (two, made["b"])):
        own = own_units(session)
        np.testing.assert_allclose(own["speed"], arrays["speed"], atol=1e-5)
        np.testing.assert_allclose(own["lick"], arrays["lick"], atol=1e-5)
    np.savez(tmp_path / "b", **made["b"] | {"left/speed": speed})
    with pytest.raises(errors.BadInput, match=r"b.npz: left/speed .*without '/'"):
        opening.open_binned(recipe, "b")


def test_a_signal_that_is_called_as_a_task_is_refused(tiny, monkeypatch):
    recipe, stored = tiny
    (one, two), load = sessions.load_sessions(*stored, recipe, 0), sessions.load_sessions
    named = replace(one, signal_names=("behaviour", "whisker"))
    monkeypatch.setattr(sessions, "load_sessions", lambda *_: [named, two])
    with pytest.raises(errors.BadParameter, match="called 'spikes from behaviour'; rename"):
        experiment.load_sessions(*stored, recipe, judge.Params(recipe="task_tiny"))
    monkeypatch.setattr(sessions, "load_sessions", load)
    asked = judge.Params(recipe="task_tiny", new=["t2"], budgets=[10, 99])
    with pytest.raises(errors.BadParameter, match="budgets: 99 trials, but 't2' has"):
        experiment.load_sessions(*stored, recipe, asked)
