"""Scores of decoded features: by hand, at chance, and with the noise ceiling known."""

import numpy as np
import pytest

from nblib.evaluate import retrieval

FEW = {"n_permutations": 200, "seed": 0}


def test_similarity_is_a_cosine():
    near = retrieval.similarity(np.array([[1.0, 0], [1, 1]]), np.array([[2.0, 0], [0, 3], [0, 0]]))
    np.testing.assert_allclose(near, [[1, 0, 0], [2**-0.5, 2**-0.5, 0]])


def test_ranks_by_hand():
    near = np.array([[0.9, 0.5, 0.1], [0.5, 0.5, 0.1], [0.9, 0.5, 0.1], [0.3, 0.2, 0.1]])
    found = retrieval.retrieval_scores(near, np.array([0, 0, 1, 2]), **FEW)
    # Ranks 1, 2 (a tie counts against the true image), 2 and 3.
    assert found["accuracy"].value == 0.25 and found["median_rank"].value == 2.0
    assert found["top5"].value == 1.0 and found["accuracy"].chance == pytest.approx(1 / 3)
    assert found["median_rank"].chance == 2.0 and found["median_rank"].unit == "rank"


def test_noise_is_at_chance_and_signal_is_not():
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(30), 10)
    near = rng.standard_normal((300, 30))
    noise = retrieval.retrieval_scores(near, y, **FEW)
    assert noise["accuracy"].p > 0.01
    assert noise["accuracy"].ci_low < 1 / 30 < noise["accuracy"].ci_high
    assert noise["median_rank"].value == pytest.approx(15.5, abs=2)
    near[np.arange(300), y] += 2
    signal = retrieval.retrieval_scores(near, y, **FEW)
    assert signal["accuracy"].ci_low > 1 / 30 and signal["accuracy"].p < 0.01
    assert signal["median_rank"].p < 0.01


def test_a_decoder_that_names_one_image_always_has_no_p():
    """All presentations of one scene right, the rest wrong: luck that permuted scenes share."""
    y = np.repeat(np.arange(20), 5)
    near = np.tile(np.eye(20)[3], (100, 1)) + np.random.default_rng(0).random((100, 20)) * 0.1
    found = retrieval.retrieval_scores(near, y, **FEW)
    assert found["accuracy"].value == 0.05 and found["accuracy"].p > 0.5


def test_p_permutes_images_as_wholes():
    """Two of eight images are always found, by luck of their place: forty presentations each say no more."""
    y = np.repeat(np.arange(8), 40)
    near = np.random.default_rng(0).random((320, 8)) * 0.1
    near[np.arange(320), np.array([0, 1, 3, 4, 5, 6, 7, 2])[y]] = 1.0
    assert retrieval.retrieval_scores(near, y, **FEW)["accuracy"].p > 0.05


def test_the_interval_is_over_images_not_presentations():
    """A thousand presentations of five images are still five images."""
    y = np.repeat(np.arange(5), 200)
    near = np.zeros((1000, 5))
    near[y < 2, y[y < 2]] = 1.0  # two images always found, three never
    near[y >= 2, 0] = 1.0
    s = retrieval.retrieval_scores(near, y, **FEW)["accuracy"]
    assert s.value == 0.4 and s.ci_high - s.ci_low > 0.5


@pytest.mark.parametrize("n_scenes", [6, 20])
def test_intervals_of_retrieval_hold_the_truth(n_scenes):
    """Scenes differ in how easily they are found; ranks of other scenes decide nothing."""
    rng = np.random.default_rng(6)
    y = np.repeat(np.arange(n_scenes), 5)

    def one(n_permutations=1):
        ease = rng.normal(0, 0.7, n_scenes)[y]
        own = 1.5 + ease + rng.standard_normal(len(y))
        near = rng.standard_normal((len(y), 40))
        near[np.arange(len(y)), y] = own
        return retrieval.retrieval_scores(near, y, n_permutations=n_permutations, seed=0)

    many = [one() for _ in range(200)]
    for name in ("accuracy", "top5", "median_rank"):
        ends = np.array([(s[name].ci_low, s[name].ci_high) for s in many])
        truth = np.mean([s[name].value for s in many])
        if name == "median_rank":
            truth = np.median([s[name].value for s in many])
        held = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
        assert held >= 0.92, (name, held)


def test_the_interval_of_reconstructions_holds_the_truth():
    rng, held, wide = np.random.default_rng(8), [], []
    for _ in range(200):
        shown = rng.standard_normal((12, 5, 5))
        drawn = 0.5 * shown + rng.standard_normal(shown.shape)
        s = retrieval.reconstruction(
            drawn, shown, np.zeros((5, 5)), n_bootstrap=200, n_permutations=1, seed=0
        )
        wide.append(s.value)
        held.append((s.ci_low, s.ci_high))
    truth = np.mean(wide)
    assert np.mean([a <= truth <= b for a, b in held]) >= 0.92


def test_reliability_is_what_a_decoded_feature_reaches():
    """Decoded = feature + noise: then r is the bound, whatever the noise."""
    rng = np.random.default_rng(2)
    features = rng.standard_normal((200, 4))
    y = np.repeat(np.arange(200), 8)
    for noise in (0.5, 2.0):
        decoded = features[y] + noise * rng.standard_normal((1600, 4))
        found = retrieval.agreement(decoded, features, y)
        assert found["reliability"] == pytest.approx((1 / (1 + noise**2)) ** 0.5, abs=0.04)
        assert found["r"] == pytest.approx(found["reliability"], abs=0.05)
    # Reliable, but of something else: far below the bound.
    other = rng.standard_normal((200, 4))[y] + 0.5 * rng.standard_normal((1600, 4))
    found = retrieval.agreement(other, features, y)
    assert abs(found["r"]) < 0.15 and found["reliability"] > 0.85


def test_no_reliability_without_repeats():
    features = np.random.default_rng(0).standard_normal((10, 3))
    assert np.isnan(retrieval.agreement(features, features, np.arange(10))["reliability"])


def test_no_decoder_beats_the_posterior_mean():
    """Spikes of one Poisson unit a feature: the ceiling lies above a decoder of the counts."""
    rng = np.random.default_rng(4)
    features = rng.standard_normal((50, 3))
    y = np.repeat(np.arange(50), 20)
    rates = np.exp(features)
    counts = rng.poisson(rates[y])
    log_p = (counts[:, None] * np.log(rates) - rates).sum(axis=2)
    proba = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    proba /= proba.sum(axis=1, keepdims=True)
    best = retrieval.best_agreement(proba, features, y)
    assert retrieval.agreement(np.log1p(counts), features, y)["r"] < best < 0.99
    assert retrieval.best_agreement(np.eye(50)[y], features, y) == pytest.approx(1)


def test_reconstruction_beside_other_images():
    rng = np.random.default_rng(3)
    mean = rng.random((8, 8))
    shown = mean + 0.2 * rng.standard_normal((12, 8, 8))
    good = retrieval.reconstruction(shown + 0.05 * rng.standard_normal(shown.shape), shown, mean, n_bootstrap=200, **FEW)  # fmt: skip
    assert good.value > 0.9 and abs(good.chance) < 0.1 and good.p < 0.01 and good.n == 12
    # Drawing what all images share says nothing of any of them.
    same = mean + 0.01 * rng.standard_normal(shown.shape)
    same = retrieval.reconstruction(same, shown, mean, n_bootstrap=200, **FEW)
    assert same.p > 0.01 and same.ci_low < same.chance + 0.05 < 0.2
