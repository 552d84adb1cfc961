"""What carries the answer: planted units are found, idle ones are not, and the truth agrees."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from nblib import models
from nblib.core.errors import BadInput
from nblib.core.params import BinSettings, SplitSettings
from nblib.data import nwb
from nblib.evaluate import importance
from nblib.experiments import decode
from nblib.experiments.decode import Params as TrainParams
from nblib.prepare import binning, split_roles, train_statistics
from nblib.prepare.decoder_inputs import Samples, role_samples
from nblib.simulate import allen, scene_oracle

N_CLASSES, N_UNITS = 4, 8


def planted(n=400, seed=0):
    """Units 0 and 1 tell the class, in bin 1 alone; the others are noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % N_CLASSES
    x = rng.standard_normal((n, 3, N_UNITS)).astype(np.float32)
    x[:, 1, 0] += 3 * (y % 2)
    x[:, 1, 1] += 3 * (y // 2)
    return Samples(x, y, np.arange(n))


def fitted(name, train):
    decoder = models.make(name, {"hidden": 16} if name == "lstm" else {})
    settings = TrainParams(
        model=name, max_epochs=8, batch_size=32, device="cpu", learning_rate=0.01
    )
    val = planted(80, 9)
    decoder.set_params(settings=settings).fit(train.x, train.y, (val.x, val.y))
    return decoder


@pytest.mark.parametrize("name", ["logistic", "lstm"])
def test_planted_units_and_bins_are_found(name):
    decoder, test = fitted(name, planted()), planted(300, 1)
    units = importance.by_unit(decoder, test)
    assert (units["ci_low"][:2] > 0.1).all()
    assert (units["rise"][2:].abs() < 0.1).all() and units["ci_low"][2:].max() < 0.05
    bins = importance.by_bin(decoder, test)
    assert bins["rise"].argmax() == 1 and bins["ci_low"][1] > 10 * bins["rise"][[0, 2]].abs().max()


def test_a_bin_changes_places_and_is_not_silenced():
    """A decoder that only needs the mean of a bin, which is the same in every order, loses nothing."""
    decoder, test = fitted("logistic", planted()), planted(300, 1)
    same = Samples(test.x.copy(), test.y, test.trial)
    same.x[:, 1] = 7.0  # one value for all: changing places changes nothing, silencing would
    assert importance.by_bin(decoder, same)["rise"][1] == pytest.approx(0, abs=1e-9)


def test_a_unit_without_weight_carries_nothing_at_all():
    decoder, test = fitted("logistic", planted()), planted(300, 1)
    decoder.weight.reshape(3, N_UNITS, -1)[:, 5] = 0
    row = importance.by_unit(decoder, test).iloc[5]
    assert row["rise"] == pytest.approx(0, abs=1e-12)
    assert row["ci_low"] <= 1e-12 and row["ci_high"] >= -1e-12


def test_the_linear_way_gives_what_asking_again_gives():
    decoder, test = fitted("logistic", planted()), planted(200, 1)
    rows = importance.sample(test, 500, 0)
    x, y = test.x[rows], test.y[rows]
    order = np.random.default_rng(0).permutation(len(y))
    parts = [*(np.s_[:, :, unit] for unit in range(N_UNITS)), *(np.s_[:, t] for t in range(3))]
    quick = np.array(list(importance._linear(decoder, parts, x, y, order)))
    slow = np.array(list(importance._any(decoder, parts, x, y, order)))
    np.testing.assert_allclose(quick, slow, atol=1e-5)


def test_labels_that_mean_nothing_leave_nothing_to_carry():
    train, test = planted(), planted(300, 1)
    rng = np.random.default_rng(0)
    shuffled = Samples(train.x, rng.permutation(train.y), train.trial)
    wrong = Samples(test.x, rng.permutation(test.y), test.trial)
    units = importance.by_unit(fitted("logistic", shuffled), wrong)
    assert units["rise"].abs().max() < 0.05


def test_a_sample_of_presentations_is_enough_and_repeatable():
    decoder, test = fitted("logistic", planted()), planted(2000, 1)
    few = importance.by_unit(decoder, test, most=400)
    assert few.equals(importance.by_unit(decoder, test, most=400))
    every = importance.by_unit(decoder, test, most=2000)
    assert few["rise"][0] == pytest.approx(every["rise"][0], rel=0.3)
    width = few["ci_high"] - few["ci_low"]
    assert (every["ci_high"] - every["ci_low"])[0] < width[0]


def test_the_ranking_agrees_with_each_unit_s_true_information(tmp_path):
    path = tmp_path / "simulated.nwb"
    allen.simulate(path, n_units=40, n_scenes=12, n_repeats=50, seed=3)
    recording = nwb.open_nwb(path, intervals="natural_scenes_presentations", label="frame")
    binned = binning.bin_recording(recording, BinSettings())
    asked = SplitSettings(gap_s=0.5, test_fraction=0.3)
    split = split_roles.make_split(binned, asked)
    fitted_on = train_statistics.fit_statistics(binned, split, 0, asked)
    samples = role_samples(binned, split, fitted_on, 0)
    decoder = models.make("logistic")
    train, val = samples["train"], samples["val"]
    decoder.fit(train.x, train.y, (val.x, val.y))
    units = importance.by_unit(decoder, samples["test"])
    truth = scene_oracle.read_truth(allen.truth_path(path))
    mean = truth.rates.mean(axis=1, keepdims=True)  # what single spikes tell (Brenner et al. 2000)
    bits = (truth.rates * np.log(truth.rates / mean)).sum(axis=(1, 2))
    bits = pd.Series(bits, index=truth.units["id"])
    agreement = spearmanr(units["rise"], bits.loc[fitted_on.unit_ids]).statistic
    assert agreement > 0.7
    rng = np.random.default_rng(0)
    assert (
        abs(spearmanr(rng.permutation(units["rise"]), bits.loc[fitted_on.unit_ids]).statistic) < 0.5
    )


def test_some_units_of_the_data():
    data = decode.Data(
        planted(8), planted(8, 1), planted(8, 2), classes=np.arange(4), unit_ids=np.arange(10, 18),
        units=pd.DataFrame({"area": list("aabbccdd")}, index=np.arange(10, 18)),
        scaling=(np.arange(8.0), np.ones(8)), stop_s=np.arange(3), label_name="frame", split_hash="h",
    )  # fmt: skip
    part = decode.of_units(data, np.array([0, 1, 0, 0, 0, 0, 0, 1], bool))
    assert part.unit_ids.tolist() == [11, 17] and part.units["area"].tolist() == ["a", "d"]
    np.testing.assert_array_equal(part.test.x, data.test.x[:, :, [1, 7]])
    assert part.scaling[0].tolist() == [1, 7] and data.train.x.shape[2] == 8


def area_data(areas):
    """Area "a" holds the two units that tell the class."""
    return decode.Data(
        planted(), planted(80, 9), planted(300, 1), classes=np.arange(4), unit_ids=np.arange(8),
        units=pd.DataFrame({"area": areas}), scaling=(np.full(8, 20.0), np.ones(8)),
        stop_s=np.arange(3), label_name="frame", split_hash="h",
    )  # fmt: skip


def test_the_area_that_tells_is_told_from_the_one_that_does_not():
    data = area_data(["a", "a", "b", "b", "b", "c", "c", ""])
    decoder = models.make("nearest_mean")
    decoder.fit(data.train.x, data.train.y, (data.val.x, data.val.y))
    params = TrainParams(
        recipe="r", recording="planted", model="nearest_mean", areas=True, n_bootstrap=200,
        n_permutations=100,
    )  # fmt: skip
    table = decode.by_area(decoder.predict_log_proba(data.test.x), data, params)
    assert table["kind"].tolist() == ["all", *["alone", "without"] * 3]
    row = table.set_index(["area", "kind"])
    assert row.loc[("a", "alone"), "n_units"] == 2 and row.loc[("a", "without"), "n_units"] == 6
    assert row.loc[("a", "alone"), "ci_low"] > 0.6 > 0.4 > row.loc[("a", "without"), "ci_high"]
    assert (
        row.loc[("a", "without"), "less_low"] > 0.3
        and row.loc[("b", "without"), "less_low"] <= 0.03
    )
    assert row.loc[("b", "alone"), "p"] > 0.001 and row.loc[("", "all"), "less"] == 0
    with pytest.raises(BadInput, match="names 1 area"):
        decode.by_area(np.zeros((300, 4)), area_data(["a"] * 8), params)
