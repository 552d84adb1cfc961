"""The oracle: exact by brute force, calibrated, at chance without labels, hurt by a wrong truth."""

import dataclasses

import h5py
import numpy as np
import pytest
from scipy.stats import poisson

from nblib.core.errors import BadInput, BadParameter
from nblib.data.nwb import open_nwb
from nblib.simulate.allen import simulate, truth_path
from nblib.simulate.scene_oracle import oracle_log_posterior, read_truth


def made(folder, **settings):
    path = simulate(folder / "made.nwb", **settings)
    recording = open_nwb(path, intervals="natural_scenes_presentations", label="frame")
    return read_truth(truth_path(path)), recording


def information_bits(truth):
    """What single spikes of each unit tell about the image (Brenner et al. 2000, Neural Comput 12)."""
    mean = truth.rates.mean(axis=1, keepdims=True)
    bits = (truth.rates * np.log2(truth.rates / mean)).sum(axis=(1, 2))
    return bits * truth.step_s / truth.rates.shape[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return made(tmp_path_factory.mktemp("tiny"), n_units=6, n_scenes=4, n_repeats=3)


@pytest.fixture(scope="module")
def middle(tmp_path_factory):
    """Hard enough to be wrong often: 1,800 presentations of 12 images and the blank."""
    folder = tmp_path_factory.mktemp("middle")
    return made(folder, n_units=20, n_scenes=11, n_repeats=150, seed=5, signal=0.7)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return made(tmp_path_factory.mktemp("demo"))


def brute_force(truth, recording, trials, unit_ids, classes, window_s=(0.0, np.inf)):
    """The definition, one spike count at a time."""
    result = np.zeros((len(trials), len(classes)))
    units = list(recording.units.index)
    for row, trial in enumerate(trials):
        start, stop = truth.start_s[trial], truth.stop_s[trial]
        for unit in unit_ids:
            times = recording.spike_times(units.index(unit)) - start
            gain = truth.presentation_gain(units.index(unit))[trial]
            for step in range(25):
                lo = max(0.01 * step, window_s[0])
                hi = min(0.01 * (step + 1) if step < 24 else stop - start, window_s[1])
                if hi <= lo:
                    continue
                n = np.sum((times >= lo) & (times < hi))
                for column, c in enumerate(classes):
                    rate = truth.rates[units.index(unit), c + 1, step]
                    result[row, column] += poisson.logpmf(n, rate * gain * (hi - lo))
    return result - np.log(np.exp(result).sum(axis=1, keepdims=True))


def test_equals_brute_force(tiny):
    truth, recording = tiny
    trials = [7, 0, 14, 7]  # any order, even twice
    found, classes = oracle_log_posterior(truth, recording, trials)
    assert list(classes) == [-1, 0, 1, 2, 3]
    wanted = brute_force(truth, recording, trials, recording.units.index, classes)
    assert np.allclose(found, wanted, atol=1e-8)
    assert np.allclose(np.exp(found).sum(axis=1), 1)


def test_equals_brute_force_for_some_units_classes_and_part_of_the_time(tiny):
    truth, recording = tiny
    units, classes, window = list(recording.units.index[[4, 1]]), [0, 2, 3], (0.055, 0.2)
    found, columns = oracle_log_posterior(
        truth, recording, [3, 9], units, classes=classes, window_s=window
    )
    assert list(columns) == classes
    wanted = brute_force(truth, recording, [3, 9], units, classes, window)
    assert np.allclose(found, wanted, atol=1e-8)


def test_takes_the_path_of_a_truth(tiny):
    truth, recording = tiny
    trials, few = np.arange(15), recording.units.index[[5, 0, 2]].to_numpy()
    for units in (None, few):
        one, _ = oracle_log_posterior(truth_path(recording.path), recording, trials, units)
        assert np.array_equal(one, oracle_log_posterior(truth, recording, trials, units)[0])


def test_nothing_known_without_units_or_time(tiny):
    truth, recording = tiny
    for kwargs in ({"unit_ids": []}, {"window_s": (0.3, 0.4)}):
        found, _ = oracle_log_posterior(truth, recording, [0, 1], **kwargs)
        assert np.allclose(found, -np.log(5))


def test_stated_probabilities_match_hit_rates(middle):
    truth, recording = middle
    found, classes = oracle_log_posterior(truth, recording, np.arange(len(truth.label)))
    stated = np.exp(found).ravel()
    true = (classes[None, :] == truth.label[:, None]).ravel()
    for lo, hi in [
        (0.0, 0.02),
        (0.02, 0.1),
        (0.1, 0.3),
        (0.3, 0.5),
        (0.5, 0.7),
        (0.7, 0.9),
        (0.9, 1.1),
    ]:
        here = (stated >= lo) & (stated < hi)
        assert here.sum() > 100
        spread = np.sqrt((stated[here] * (1 - stated[here])).sum())
        assert abs(true[here].sum() - stated[here].sum()) < 4 * spread
    best = found.max(axis=1)
    hit = classes[found.argmax(axis=1)] == truth.label
    assert 0.4 < hit.mean() < 0.95
    assert hit.mean() == pytest.approx(np.exp(best).mean(), abs=4 * 0.5 / np.sqrt(len(hit)))


def test_shuffled_labels_put_it_at_chance(middle):
    truth, recording = middle
    found, classes = oracle_log_posterior(truth, recording, np.arange(len(truth.label)))
    shuffled = np.random.default_rng(0).permutation(truth.label)
    hits = (classes[found.argmax(axis=1)] == shuffled).mean()
    assert hits == pytest.approx(1 / 12, abs=4 * np.sqrt(1 / 12 / len(shuffled)))


def test_any_other_truth_explains_the_labels_worse(middle):
    truth, recording = middle
    trials = np.arange(len(truth.label))

    def score(truth):
        found, classes = oracle_log_posterior(truth, recording, trials)
        return found[trials, np.searchsorted(classes, truth.label)].mean()

    rng = np.random.default_rng(1)
    noisy = truth.rates * np.exp(rng.normal(0, 0.3, truth.rates.shape))
    still = np.zeros_like(truth.latent)
    smooth = np.repeat(truth.rates.mean(axis=2, keepdims=True), 25, axis=2)
    best = score(truth)
    for wrong in ({"rates": noisy}, {"rates": smooth}, {"latent": still}):
        assert score(dataclasses.replace(truth, **wrong)) < best - 0.01


def test_more_units_and_more_time_help(middle):
    truth, recording = middle
    trials = np.arange(len(truth.label))

    def accuracy(**kwargs):
        found, classes = oracle_log_posterior(truth, recording, trials, **kwargs)
        return (classes[found.argmax(axis=1)] == truth.label).mean()

    informative = truth.units["id"][np.argsort(-information_bits(truth))]
    whole = accuracy()
    assert accuracy(unit_ids=informative[:5]) > accuracy(unit_ids=informative[5:10])
    assert accuracy(unit_ids=informative[:10]) < whole
    assert accuracy(window_s=(0, 0.03)) < accuracy(window_s=(0, 0.1)) < whole


def test_no_signal_means_no_knowledge(tmp_path):
    truth, recording = made(tmp_path, n_units=6, n_scenes=4, n_repeats=3, signal=0.0)
    found, _ = oracle_log_posterior(truth, recording, np.arange(15))
    assert np.allclose(found, -np.log(5), atol=1e-3)
    assert information_bits(truth).max() < 1e-4


def test_demo_leaves_room_for_decoders_to_differ(demo):
    """Near 0.95 for the oracle; counts in time say more than counts alone, and less than it."""
    truth, recording = demo
    trials = np.arange(len(truth.label))
    assert len(trials) == 5950
    found, classes = oracle_log_posterior(truth, recording, trials)
    oracle = classes[found.argmax(axis=1)] == truth.label
    assert 0.93 < oracle.mean() < 0.97
    test = trials >= 4760
    learned = {}
    for n_bins in (1, 5):  # Poisson decoder on rates learned from the first 80 %
        edges = (
            truth.start_s[:, None]
            + np.diff([truth.start_s, truth.stop_s], axis=0).T * np.arange(n_bins + 1) / n_bins
        )
        x = np.concatenate(
            [np.diff(np.searchsorted(recording.spike_times(i), edges), axis=1) for i in range(100)],
            1,
        )
        rate = np.stack([x[~test & (truth.label == c)].mean(axis=0) for c in classes]) + 0.05
        guess = classes[(x[test] @ np.log(rate).T - rate.sum(axis=1)).argmax(axis=1)]
        learned[n_bins] = (guess == truth.label[test]).mean()
    assert 0.3 < learned[1] < learned[5] - 0.05
    assert learned[5] < oracle[test].mean() - 0.1


def test_unknown_units_trials_and_classes_are_refused(tiny):
    truth, recording = tiny
    with pytest.raises(BadParameter, match=r"units \[1\] are not"):
        oracle_log_posterior(truth, recording, [0], [1])
    with pytest.raises(BadParameter, match=r"0 to 15; the recording has trials 0 to 14"):
        oracle_log_posterior(truth, recording, [0, 15])
    with pytest.raises(BadParameter, match="whole numbers"):
        oracle_log_posterior(truth, recording, [0.5])
    with pytest.raises(BadParameter, match=r"classes \[7\] were never shown"):
        oracle_log_posterior(truth, recording, [0], classes=[0, 7])


def test_another_recordings_truth_is_refused(tiny, middle):
    with pytest.raises(BadInput, match="belong to different recordings"):
        oracle_log_posterior(middle[0], tiny[1], [0])


def test_broken_truth_files_are_refused(tiny, tmp_path):
    recording = tiny[1]
    whole = truth_path(recording.path).read_bytes()
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    with h5py.File(truth_path(recording.path)) as file:
        chunk = file["rates_hz"].id.get_chunk_info(0)
    flipped[chunk.byte_offset + chunk.size // 2] ^= 1
    (tmp_path / "flipped.h5").write_bytes(flipped)
    lacking = tmp_path / "lacking.h5"
    lacking.write_bytes(whole)
    with h5py.File(lacking, "r+") as file:
        del file["presentations/label"]
    for path in (cut, tmp_path / "flipped.h5", tmp_path / "none.h5", lacking):
        with pytest.raises(BadInput, match="simulate the recording again"):
            read_truth(path)
    with pytest.raises(BadInput, match="not the truth file"):
        read_truth(recording.path)
