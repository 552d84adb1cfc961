"""The promises that make a score worth believing, for every decoder: no leak, nothing above truth.

Each check is also shown to fail when the fault it looks for is put in on purpose.
"""

import numpy as np
import pytest
from scipy.stats import binomtest

from nblib import models
from nblib.core.params import BinSettings, SplitSettings
from nblib.data import nwb
from nblib.evaluate import scores, stats
from nblib.experiments.decode import Params as TrainParams
from nblib.models import MODELS
from nblib.prepare import binning, split_roles, train_statistics
from nblib.prepare.decoder_inputs import role_samples, shuffle_labels
from nblib.simulate import allen, scene_oracle

SPLITS = {
    "blocked": SplitSettings(gap_s=0.5),
    "blocked 3-fold": SplitSettings(gap_s=0.5, n_folds=3),
    "random": SplitSettings(split="random"),
    "random stratified": SplitSettings(split="random", stratified=True),
}
N_CLASSES = 5


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A simulated recording of 4 scenes and the blank, 40 repeats: file, recording, counts."""
    path = tmp_path_factory.mktemp("honesty") / "simulated.nwb"
    allen.simulate(path, n_units=16, n_scenes=4, n_repeats=40, seed=5, signal=1.0)
    recording = nwb.open_nwb(path, intervals="natural_scenes_presentations", label="frame")
    return path, recording, binning.bin_recording(recording, BinSettings())


def cut(binned, asked):
    split = split_roles.make_split(binned, asked)
    statistics = train_statistics.fit_statistics(binned, split, 0, asked)
    samples = role_samples(binned, split, statistics, 0)
    return Cut(samples, scaling=(statistics.mean, statistics.scale))


class Cut(dict):
    """Samples by role, and the mean and scale that make them counts again."""

    def __init__(self, samples, scaling):
        super().__init__(samples)
        self.scaling = scaling


def fitted(name, samples, epochs=3):
    settings = TrainParams(model=name, max_epochs=epochs, batch_size=32, device="cpu", threads=1)
    decoder = models.make(name)
    decoder.set_params(settings=settings, scaling=samples.scaling)
    train, val = samples["train"], samples["val"]
    decoder.fit(train.x, train.y, (val.x, val.y), n_classes=N_CLASSES)
    return decoder


def shuffled(samples):
    return Cut(shuffle_labels(samples, seed=0), samples.scaling)


def inside_chance(right, chance, level=0.9999):
    """Is the number of right answers one that guessing gives, at the 99.99 % level?"""
    exact = binomtest(int(right.sum()), len(right)).proportion_ci(level)  # Clopper and Pearson
    return exact.low <= chance <= exact.high


# A decoder that leaks does so on any split, and a split that leaks to any decoder.
CASES = [(name, "blocked") for name in MODELS]
CASES += [(name, how) for how in SPLITS if how != "blocked" for name in ("logistic", "lstm")]


@pytest.mark.parametrize(("name", "how"), CASES)
def test_shuffled_labels_score_at_chance(session, name, how):
    samples = shuffled(cut(session[2], SPLITS[how]))
    right = fitted(name, samples, epochs=2).predict(samples["test"].x) == samples["test"].y
    assert inside_chance(right, 1 / N_CLASSES), f"{name}, {how}: {right.mean():.2f} of {len(right)}"


def test_the_chance_check_sees_a_leak(session):
    """Test rows among the train rows: the same check, the same shuffled labels, now fails."""
    samples = shuffled(cut(session[2], SPLITS["blocked"]))
    leaked = Cut(samples | {"train": samples["test"]}, samples.scaling)
    right = fitted("logistic", leaked).predict(samples["test"].x) == samples["test"].y
    assert not inside_chance(right, 1 / N_CLASSES)


def above(right, best):
    """Is a decoder right more often than the oracle, as 40 presentations can tell (p < 0.02)?"""
    difference = stats.paired_difference(right.astype(float), best)
    return difference.value > 0 and difference.p < 0.02


@pytest.fixture(scope="module")
def truth(session):
    """The blocked samples and whether the oracle names each test presentation."""
    path, recording, binned = session
    samples = cut(binned, SPLITS["blocked"])
    log_posterior, classes = scene_oracle.oracle_log_posterior(
        allen.truth_path(path), recording, samples["test"].trial, None
    )
    label = binned.label.sel(trial=samples["test"].trial).values
    return samples, (classes[log_posterior.argmax(axis=1)] == label).astype(float)


@pytest.mark.parametrize("name", MODELS)
def test_no_decoder_beats_the_oracle(truth, name):
    samples, best = truth
    right = fitted(name, samples, epochs=15).predict(samples["test"].x) == samples["test"].y
    assert not above(right, best), f"{name} beats the oracle with {right.mean():.3f}: a leak?"


def test_the_oracle_check_sees_a_leak(truth):
    """A decoder that has seen the test answers stands above the oracle, and is caught."""
    _, best = truth
    assert 0.5 < best.mean() < 0.97, "the recording is too easy for this test to mean anything"
    assert above(np.ones(len(best)), best)


def test_decoders_decode(truth):
    """The other side: with true labels the baseline is far above chance and p says so."""
    samples, _ = truth
    found = scores.decoding_scores(
        samples["test"].y, fitted("logistic", samples).predict_log_proba(samples["test"].x)
    )
    assert found["accuracy"].ci_low > found["accuracy"].chance and found["accuracy"].p < 0.01
