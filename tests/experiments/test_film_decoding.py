"""A label of a film, decoded: what windows, smoothing and a clock tell of it, and what leaks."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from drawn_film import drawn

from nblib import models
from nblib.core import errors, params, recipes
from nblib.data import counts_dataset, opening
from nblib.evaluate import states, stats
from nblib.experiments import decode
from nblib.experiments.film import beyond, decoding
from nblib.prepare import binning, split_roles, stored_splits, train_statistics

FEW = {"n_permutations": 20, "n_bootstrap": 100}
# 13 minutes at a buffer of 4 s: long enough for scores, short enough for a test.
HALF = {"n_frames": 20_001, "n_units": 30, "signal": 0.8, "seed": 1, "n_pauses": 2}


def prepared(folder, recording="p1", recipe="movie_tiny", **changes):
    """The recipe, and a folder with the counts and the split that 03 and 04 would make."""
    recipe = recipes.find_recipe(recipe).model_copy(update=changes)
    session = opening.open_recording(recipe, recording)
    counts = binning.bin_recording(session, recipe.settings(params.BinSettings))
    counts_dataset.save(counts, folder)
    settings = recipe.settings(params.SplitSettings)
    roles = split_roles.make_split(counts, settings)
    stored_splits.save(folder, roles, train_statistics.fit_folds(counts, roles, settings))
    return recipe, folder


def loaded(recipe, folder, **asked):
    asked = decoding.Params(**{"recipe": recipe.recipe, "recording": "p1", **FEW, **asked})
    return decoding.load_film(folder, folder, recipe, asked), asked


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("half"), source_params=HALF, n_parts=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def answers(half):
    data, asked = loaded(*half, models=["ridge"])
    return decoding.judged(data, asked)[0]


def test_windows_smoothing_and_the_best_possible(half, answers):
    """In the order of what they see: one bin, windows around it, a whole segment, the truth."""
    one_bin, asked = loaded(*half, windows=[[0.0, 0.08]], models=["ridge"])
    bins = decoding.judged(one_bin, asked)[0]["ridge"]
    kappa, _, _, auroc = answers["ridge"].values
    smooth_kappa, _, _, smooth_auroc = answers["ridge smoothed"].values
    best_kappa, _, _, best_auroc = answers[""].values
    assert bins.values[3] < 0.70 and auroc > bins.values[3] + 0.1
    assert kappa > 0.3 and smooth_kappa > kappa + 0.03 and smooth_auroc > auroc + 0.01
    assert best_kappa > smooth_kappa > 0.5 * best_kappa
    assert smooth_auroc - 0.5 > 0.6 * (best_auroc - 0.5)
    value, low, _ = answers["ridge smoothed"].over(bins)
    assert value > 0.1 and low > 0


def test_the_clock_needs_no_spike(half):
    """Bins dealt at random: the clock knows almost all; a buffer longer than the label lasts: nothing."""
    data, asked = loaded(*half, leak=[0.0, 4.0, 32.0], folds=[0, 2], models=["ridge"])
    leak = beyond.leak_curve(data, asked)
    clock = leak[leak["model"] == "clock"].set_index("buffer_s")["value"]
    assert clock[0] >= 0.95 and clock[4] < clock[0] - 0.4 and abs(clock[32]) < 0.5
    assert set(leak.loc[leak["buffer_s"] == 0, "model"]) == {"clock", "ridge", "chosen"}
    assert (leak["ci_low"] <= leak["value"]).all() and (leak["value"] <= leak["ci_high"]).all()


def test_a_result_stands_beside_clock_oracle_and_chance(tiny):
    data, asked = loaded(
        *tiny, leak=[0.0], models=["ridge", "linear_label"], max_epochs=1, folds=[0, 1]
    )
    assert data.rows(0, "test").size == 500 and data.table()["train"].tolist() == [2300] * 5
    result = beyond.extended(decoding.decode(data, asked), data, asked)
    assert set(result.tables["answers"].columns[3:]) == {
        "clock", "ridge", "ridge smoothed", "linear_label", "linear_label smoothed", "chosen",
        "choice", "fold",
    }  # fmt: skip
    assert len(result.rows) == 6 * 4 and all(row.best is not None for row in result.rows)
    assert {row.score.null for row in result.rows} == {stats.NULLS[states.MOVED]}
    over = result.tables["effective"].set_index("decoder")
    assert over.loc["clock", list(decoding.OVER)].tolist() == [0, 0, 0]
    assert (over["ci_low"] <= over["over_clock"]).all() and (over["n_effective"] < 1000).all()
    told = beyond.headline(result)
    kappa, best = result.scores["chosen: kappa"], result.rows[0].best
    assert told.startswith(f"**κ = {kappa.value:.2f}** ({kappa.ci_low:.2f} to {kappa.ci_high:.2f})")
    assert (
        f"no spike {result.scores['clock: kappa'].value:.2f}, the best possible decoder {best.value:.2f}"
        in told
    )
    words = beyond.in_words(result)
    assert ".0 independent ones" not in words and " independent ones" in words
    assert (
        "a clock that reads no spike tells" in words and "of such a score needs no neuron" in words
    )
    effective = result.tables["effective"].set_index("decoder")
    for low, unsure in ((-0.1, True), (0.1, False)):
        effective.loc["chosen", "ci_low"] = low
        changed = replace(result, tables=result.tables | {"effective": effective.reset_index()})
        assert ("the spikes may add nothing" in beyond.in_words(changed)) == unsure
    assert "test bins worth" in words and "It is one viewing of one film." in words


@pytest.mark.parametrize(
    ("given", "reach"),
    [
        ({"windows": [[-3.2, 0.0]]}, "from -3.2 to 0 s"),
        ({"windows": [[0.0, 1.4]]}, "from 0 to 1.4 s"),
        ({"models": ["lstm_20"], "windows": [[0.0, 0.1]]}, "from -0.8 to 0.8 s"),
    ],
)
def test_what_sees_more_than_the_split_keeps_free_is_refused(tiny, given, reach):
    """A published decoder brings windows of its own."""
    recipe, folder = tiny
    if "models" in given:
        recipe = recipe.model_copy(update={"context_s": [0.5, 0.5]})
    with pytest.raises(errors.BadParameter, match=reach):
        loaded(recipe, folder, **given)


def test_validation_alone_chooses_the_decoder(tiny):
    """Whatever test bins say, the choice stays; where validation bins say otherwise, it goes."""
    data, asked = loaded(*tiny, models=["ridge", "nearest_mean"])
    before = decoding.answers_of_fold(data, 0, asked)
    y = data.y.copy()
    y[data.rows(0, "test")] = 1 - y[data.rows(0, "test")]
    after = decoding.answers_of_fold(replace(data, y=y), 0, asked)
    pd.testing.assert_frame_equal(after.drop(columns="label"), before.drop(columns="label"))
    assert before["chosen"].equals(before[before["choice"][0]].rename("chosen"))
    y = data.y.copy()
    y[data.rows(0, "val")] = 1 - y[data.rows(0, "val")]
    other = decoding.answers_of_fold(replace(data, y=y), 0, asked)
    assert other["choice"][0] != before["choice"][0]


def test_the_decoder_that_is_right_on_test_bins_alone_is_not_chosen(tiny, monkeypatch):
    data, asked = loaded(*tiny, models=["ridge", "nearest_mean"], smooth=False)
    right = [6.0 * data.y[data.rows(0, role)] - 3 for role in ("val", "test")]
    said = {"ridge": (right[0], -right[1]), "nearest_mean": (-right[0], right[1])}
    monkeypatch.setattr(decoding, "log_odds", lambda name, *_: said[name])
    assert set(decoding.answers_of_fold(data, 0, asked)["choice"]) == {"ridge"}


def test_another_label_needs_no_new_counts(tiny):
    data, _ = loaded(*tiny, label_name="indoor-setting")
    assert set(np.unique(data.y)) == {0, 1, 99}
    for role in ("train", "val", "test"):
        assert set(np.unique(data.y[data.rows(0, role)])) <= {0, 1}
    other, _ = loaded(*tiny)
    assert data.split_hash == other.split_hash and data.label_name == "indoor-setting"
    with pytest.raises(errors.BadParameter, match="no annotation 'rivals'; did you mean rival"):
        loaded(*tiny, label_name="rivals")


def test_a_rare_label_stands_beside_its_own_chance(monkeypatch):
    """On 14 % of the time: of guessing, PR-AUC is that share and kappa 0, whatever it always says."""
    data, _ = drawn(2, label="rival", gap_s=8.0)
    asked = decoding.Params(models=["ridge"], smooth=False, **FEW)
    base = np.concatenate([data.y[data.rows(fold, "test")] for fold in range(5)]).mean()
    assert 0.08 < base < 0.16
    chance = {"kappa": 0.0, "f1": 2 * base / (1 + base), "pr_auc": base, "auroc": 0.5}
    scores = decoding.decode(data, asked).scores
    for metric, value in chance.items():
        assert scores[f"ridge: {metric}"].chance == pytest.approx(value, abs=1e-12)
    assert scores["ridge: pr_auc"].value > base

    for always in (-3.0, 3.0):

        def constant(name, film, fold, params, odds=always):
            return [np.full(film.rows(fold, role).size, odds) for role in ("val", "test")]

        monkeypatch.setattr(decoding, "log_odds", constant)
        guess = decoding.decode(data, asked).scores
        for metric in ("kappa", "pr_auc", "auroc"):
            assert guess[f"ridge: {metric}"].value == pytest.approx(chance[metric], abs=1e-12)
            assert guess[f"ridge: {metric}"].p == 1


@pytest.mark.parametrize("name", [name for name in models.MODELS if name not in models.ON_GRAPHS])
def test_05_takes_a_film_with_every_decoder_that_is_not_a_graph(tiny, name, tmp_path):
    """As it is: a bin is a presentation, and what has no label is in no role."""
    recipe, folder = tiny
    given = {"recipe": recipe.recipe, "recording": "p1", "importance": 0, "max_epochs": 1}
    asked = decode.Params(model=name, **given, n_permutations=100, n_bootstrap=100, device="cpu")
    data = decode.load_data(folder, folder, recipe, asked)
    assert [len(part) for part in (data.train, data.val, data.test)] == [2300, 500, 500]
    members = {}
    for member in ("ridge", "nearest_mean") if name == "ensemble" else ():
        members[member] = tmp_path / member
        one = decode.make_decoder(asked.model_copy(update={"model": member}))
        decode.fit(one, data, asked, None, progress=False)
        one.save(members[member])
    decoder = decode.make_decoder(asked, members)
    history = decode.fit(decoder, data, asked, None, progress=False)
    result = decode.evaluate(decoder, data, asked, history)
    score = result.scores["accuracy"]
    assert score.n == 500 and score.null == stats.NULLS["time"]
    assert len(result.tables["predictions"]) == 500


def test_a_recipe_whose_label_is_undefined_in_places_leaves_other_labels_whole(tmp_path, tiny):
    data, _ = loaded(*prepared(tmp_path, label="indoor-setting"), label_name="hero")
    same, _ = loaded(*tiny)
    assert data.split_hash == same.split_hash and np.array_equal(data.roles, same.roles)
    assert np.array_equal(data.rows(0, "train"), same.rows(0, "train"))


def test_without_signal_nothing_is_told(tmp_path):
    quiet = {**HALF, "signal": 0.0, "n_units": 10}
    data, asked = loaded(*prepared(tmp_path, source_params=quiet, n_parts=0), models=["ridge"])
    result = decoding.decode(data, asked)
    kappa = result.scores["ridge: kappa"]
    assert kappa.ci_low < 0 < kappa.ci_high


def test_what_cannot_be_is_refused(tiny):
    recipe, folder = tiny
    with pytest.raises(errors.BadParameter, match="keeps 3 s before and 1 s after a bin free"):
        loaded(recipe, folder, windows=[[-4.0, 0.0]])
    with pytest.raises(errors.BadParameter, match="folds: 7: the split has 5, from 0"):
        loaded(recipe, folder, folds=[7])
    with pytest.raises(errors.BadParameter, match="'gat' needs a graph"):
        decoding.Params(models=["gat"]).check()
    with pytest.raises(errors.BadParameter, match="a start before its stop"):
        decoding.Params(windows=[[1.0, 0.0]]).check()
    with pytest.raises(errors.BadParameter, match="a fold twice would count its bins twice"):
        decoding.Params(folds=[1, 0, 1]).check()
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        decoding.Params(leak=[-4.0])
    data, asked = loaded(recipe, folder)
    alike = data.y.copy()
    alike[data.rows(0, "test")] = 0
    with pytest.raises(
        errors.BadInput, match=r"'hero': it never changes in the test bins of folds \[0\]"
    ):
        decoding.judged(replace(data, y=alike), asked.model_copy(update={"folds": [0]}))
    never = replace(data, y=np.zeros_like(data.y))
    with pytest.raises(errors.BadInput, match="it never changes in train bins"):
        decoding.answers_of_fold(never, 0, asked)


def test_both_patients_together_have_more_units(tmp_path, tiny):
    data, _ = loaded(*prepared(tmp_path, "pool"), recording="pool")
    alone, _ = loaded(*tiny)
    assert data.counts.shape[1] == 40 and alone.counts.shape[1] == 20
    together, one = (np.abs(d.best - d.y).mean() for d in (data, alone))
    assert together < one  # the truth of both tells more


def test_the_best_possible_of_a_pool_of_one_is_that_patients_own(tmp_path, tiny):
    recipe, _ = tiny
    given = recipe.source_params | {"pool": {"pool": ["p1"]}}
    data, _ = loaded(*prepared(tmp_path, "pool", source_params=given), recording="pool")
    assert np.array_equal(data.best, loaded(*tiny)[0].best)


def test_whole_fifths_of_a_film_are_judged_by_segments_too(tmp_path):
    recipe, folder = prepared(tmp_path, split="blocked", n_folds=5)
    data, asked = loaded(recipe, folder, models=["ridge"], folds=[1])
    answers = decoding.judged(data, asked)[0]["ridge"]
    assert 3 <= len(answers.left_out[0]) < 40 and len(answers.y) == 900  # no bin stands alone
    near = recipe.model_copy(update={"gap_s": 1.0})
    with pytest.raises(errors.BadParameter, match=r"gap_s = 1 s free .* Set gap_s: 4 or more"):
        loaded(near, folder)
    loaded(near, folder, windows=[[-0.5, 0.5]])


@pytest.mark.slow
def test_on_the_whole_film_the_original_tells_little_and_the_clock_falls(tmp_path):
    """4,726 s, 60 units, five folds; what other decoders reach is asked of five such films elsewhere."""
    recipe, folder = prepared(tmp_path, recipe="movie_demo")
    data, asked = loaded(
        recipe, folder, models=["linear_label"], windows=[[0.0, 0.5]], smooth=False
    )
    one_fold = asked.model_copy(update={"folds": [0]})  # each is a minute of training
    assert decoding.judged(data, one_fold)[0]["linear_label"].values[3] <= 0.62
    few = {"models": ["nearest_mean"], "leak": [0.0, 4.0, 8.0, 16.0, 32.0]}
    leak = beyond.leak_curve(data, asked.model_copy(update=few))
    clock = leak[leak["model"] == "clock"].set_index("buffer_s")["value"]
    assert clock[0] >= 0.95 and clock.is_monotonic_decreasing and abs(clock[32]) <= 0.15
