"""Several sessions, decoded, encoded and imputed: whole, honest at chance, never above the best possible."""

import numpy as np
import pytest

from nblib.core import errors, params, recipes
from nblib.data import counts_dataset, sources
from nblib.experiments.multimodal import judge, tasks
from nblib.models.multimodal import linear
from nblib.prepare import binning, cleaning, sessions, splits

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
        recording = sources.open_recording(recipe, name) if spikes else None
        settings = recipe.settings(params.BinSettings)
        binned = (
            binning.bin_recording(recording, settings)
            if spikes
            else sources.open_binned(recipe, name)
        )
        binned, _ = cleaning.clean(binned, recording, recipe.settings(params.CleanSettings))
        roles = splits.make_split(binned, recipe.settings(params.SplitSettings))
        fitted = splits.fit_folds(binned, roles, recipe.settings(params.SplitSettings))
        for place, kind in zip(places, ("split", "counts"), strict=True):
            place.append(folder / f"{name}-{kind}")
            place[-1].mkdir()
        splits.save(places[0][-1], roles, fitted)
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
    settings = judge.Params(recipe="task_tiny", **FAST)
    return judge.run(judge.load_sessions(*stored, recipe, settings), recipe, settings)


def test_every_task_has_linear_rows_the_network_and_what_is_possible(result):
    by_task = {}
    for row in result.rows:
        by_task.setdefault(row.of["variant"], set()).add(row.of["model"])
        if tasks.NOTHING not in row.what:
            assert np.isfinite([row.score.ci_low, row.score.ci_high, row.score.p]).all()
    assert {"wheel", "whisker", "choice", "probabilityLeft", tasks.UNITS, tasks.AREAS} <= set(
        by_task
    )
    assert {
        f"spikes from {n}" for n in ("behaviour", "wheel", "whisker", "choice", "probabilityLeft")
    } <= set(by_task)
    assert all(tasks.NETWORK in models and len(models) >= 3 for models in by_task.values())
    assert {"ridge", "lagged ridge", "shared map", "causal ridge"} <= by_task["wheel"]
    with_best = {row.of["variant"] for row in result.rows if row.best is not None}
    assert with_best == {
        "wheel",
        "whisker",
        "choice",
        "probabilityLeft",
        "spikes from behaviour",
        tasks.UNITS,
    }


def test_nothing_beats_the_best_possible_by_more_than_its_interval(result):
    for row in result.rows:
        if row.best is not None:
            assert row.score.value <= row.best.ci_high, row.what


def test_the_drift_is_what_the_two_nulls_differ_by_and_the_words_name_where_a_linear_model_wins(
    result,
):
    words = judge.in_words(result)
    assert words.startswith(
        "**Result.** One network of 2 sessions answers 11 tasks on 54 test trials."
    )
    lost = result.tables["against"].query("ci_low <= 0")["task"]
    assert all(task in words for task in lost) and "Rates drift from train to test by" in words
    units = result.tables["units"]
    assert len(units) == 24 and {
        "session",
        "unit",
        "area",
        "rate_hz",
        tasks.GLM,
        tasks.NETWORK,
    } <= set(units)


def test_it_can_be_stored_and_read(result, tmp_path):
    result.save(tmp_path, {"notebook": "12_multimodal"})
    names = {p.name for p in tmp_path.iterdir()}
    assert {"metrics.json", "against.parquet", "config.json", "weights.safetensors"} <= names
    assert len(judge.scores_table(result)) == len({tuple(row.of.values()) for row in result.rows})


def test_shuffled_behaviour_is_at_chance(tiny):
    recipe, stored = tiny
    settings = judge.Params(recipe="task_tiny", shuffle_labels=True, **FAST)
    shuffled = judge.load_sessions(*stored, recipe, settings)
    plain = sessions.load_sessions(*stored, recipe, 0)
    for one, two in zip(shuffled, plain, strict=True):
        assert (one.counts == two.counts).all() and not (one.signals == two.signals).all()
        test = one.rows("test")
        pairs = [np.sort(s.signals[test], axis=None) for s in (one, two)]
        assert (pairs[0] == pairs[1]).all(), "those of the same role"
    result = judge.run(shuffled, recipe, settings)
    for row in result.rows:
        if row.metric == "R2 beyond the mean course" and row.of["model"] != tasks.NOTHING:
            assert row.score.ci_low <= 0 and row.best is None, row.what
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schemes": {"sideways": 1.0}}, "no 'sideways'; there are encode, decode"),
        ({"width": 30}, "must be a multiple of heads = 4"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(errors.BadParameter, match=message):
        judge.Params(**given).check()


def test_a_variable_and_a_fold_that_are_not_there_are_named(tiny):
    recipe, stored = tiny
    with pytest.raises(errors.BadParameter, match="'reward' is no column of the trials of 't1'"):
        sessions.load_sessions(*stored, recipe.model_copy(update={"variables": ["reward"]}), 0)
    with pytest.raises(errors.BadParameter, match="fold = 3: the split of 't1' has 1, from 0"):
        sessions.load_sessions(*stored, recipe, 3)


def test_a_real_session_is_read_and_its_wheel_decoded(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("NBLIB_TEST_DATA", str(real_data("ibl_session_binned.npz").parent))
    recipe = recipes.find_recipe("ibl_binned")
    (one,) = sessions.load_sessions(*on_disk(recipe, tmp_path), recipe, 1)
    assert one.signal_names == ("wheel_speed", "motion_energy", "pupil_diameter", "paw_speed")
    assert one.counts.shape[:2] == (294, 50) and set(one.area) == {"ca1", "dg", "lp", "po", "vis"}
    fit, val, test = (one.rows(role) for role in ("train", "val", "test"))
    answer, course = linear.flat_ridge(one, fit, val)(one), linear.mean_course(one, fit)(one)
    errors_of = [((a - one.signals)[test] ** 2).sum(axis=(0, 1)) for a in (answer, course)]
    beyond = 1 - errors_of[0] / errors_of[1]
    assert beyond[0] > 0.35 and (beyond[1:3] > 0.1).all(), beyond
