"""The best possible answer about a simulated film, against all paths of a short one."""

import itertools

import numpy as np
import pytest

from nblib.simulate import film_oracle, movie
from nblib.simulate.film_oracle import KERNEL, film_posterior

P_SCENE, P_CUT = 0.15, 0.25


def short(n_steps=6, n_units=4):
    rng = np.random.default_rng(5)
    film = {"chance_type": np.array([0.4, 0.6]), "chance_hero": np.array([0.3, 0.8]),
            "chance_rival": np.array([0.5, 0.1]), "chance_indoor": np.array([0.0, 1.0])}  # fmt: skip
    units = {"rate_hz": rng.uniform(5, 20, n_units), "weights": rng.normal(0, 0.8, (n_units, 3)),
             "cut": np.array([0, 0, 0.9, 0]), "latency": np.array([0, 1, 0, 2])}  # fmt: skip
    units["weights"][2] = 0
    gains = np.exp(rng.normal(0, 0.3, (1, n_units)))
    counts = rng.poisson(1.0, (n_steps, n_units))
    return film, units, gains, counts, rng.uniform(0.07, 0.09, n_steps)


def by_all_paths(film, units, gains, counts, exposure_s):
    """Every path of (type, hero, rival) and cuts, with its chance times the likelihood of the counts."""
    n_steps, n_units = counts.shape
    kind, hero, rival = np.array(list(itertools.product((0, 1), (0, 1), (0, 1)))).T
    h, r = film["chance_hero"][kind], film["chance_rival"][kind]
    drawn = np.where(hero, h, 1 - h) * np.where(rival, r, 1 - r)
    on = np.column_stack([hero, rival, film["chance_indoor"][kind]])
    path, age = np.arange(8)[:, None], np.zeros((8, 1), int)
    chance = film["chance_type"][kind] * drawn
    for _ in range(1, n_steps):  # each path goes on without a cut, or by a cut to any state
        last = path[:, -1]
        options = [(last, np.minimum(age[:, -1] + 1, len(KERNEL) - 1), 1 - P_SCENE - P_CUT)]
        for state in range(8):
            p = (
                P_SCENE * film["chance_type"][kind[state]] + P_CUT * (kind[last] == kind[state])
            ) * drawn[state]
            options.append((np.full_like(last, state), np.zeros_like(last), p))
        path, age, chance = (
            np.concatenate([np.column_stack([path, to]) for to, _, _ in options]),
            np.concatenate([np.column_stack([age, a]) for _, a, _ in options]),
            np.concatenate([chance * p for _, _, p in options]),
        )
    log = np.zeros(len(path))
    for unit, t in itertools.product(range(n_units), range(n_steps)):
        if units["cut"][unit]:
            drive = units["cut"][unit] * KERNEL[age[:, t]]
        elif t < units["latency"][unit]:
            continue  # before the first step nothing is known: the same for all paths
        else:
            drive = (on @ units["weights"][unit])[path[:, t - units["latency"][unit]]]
        rate = units["rate_hz"][unit] * gains[0, unit] * exposure_s[t] * np.exp(drive)
        log += counts[t, unit] * np.log(rate) - rate
    weight = chance * np.exp(log)
    return np.einsum("p,ptk->tk", weight, on[path]) / weight.sum()


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_the_oracle_is_the_sum_over_all_paths(monkeypatch, at_once):
    """However many units it takes at once."""
    monkeypatch.setattr(film_oracle, "AT_ONCE", at_once)
    args = short()
    exact = by_all_paths(*args)
    found = film_posterior(*args, p_scene=P_SCENE, p_cut=P_CUT)
    assert np.allclose(np.column_stack(list(found.values())), exact, atol=1e-6)


def test_without_signal_the_oracle_says_what_the_chain_does():
    film, units, gains, counts, exposure_s = short()
    quiet = units | {"weights": units["weights"] * 0, "cut": units["cut"] * 0}
    found = film_posterior(film, quiet, gains, counts, exposure_s)
    assert np.allclose(found["hero"], film["chance_type"] @ film["chance_hero"])
    assert np.allclose(found["indoor-setting"], film["chance_type"] @ film["chance_indoor"])


def drawn(seed, n_bins, n_units, signal):
    """A film and what spikes drawn by its truth give: what the oracle takes."""
    rng = np.random.default_rng(seed)
    film = movie.draw_film(n_bins, rng)
    units = movie.draw_units(n_units, signal, rng)
    gains = movie.draw_gains(n_bins, n_units, 1.0, rng)
    exposure_s = np.full(n_bins, 0.082)
    counts = rng.poisson(movie.rates(film, units, gains) * exposure_s[:, None])
    return film, units, gains, counts, exposure_s


def test_the_oracle_is_calibrated():
    """What it says with a probability comes true as often; over films, as one holds few spells."""
    said, true = [], []
    for seed in range(5):
        args = drawn(seed, 8_000, 40, 0.7)
        said.append(film_posterior(*args)["hero"])
        true.append(args[0]["hero"])
    said, true = np.concatenate(said), np.concatenate(true)
    decile = np.minimum((said * 10).astype(int), 9)
    off = [said[decile == d].mean() - true[decile == d].mean() for d in range(10)]
    assert np.average(np.abs(off), weights=np.bincount(decile)) < 0.03
    assert ((said > 0.5) == true).mean() > 0.85


def furthest(told):
    """How far each tenth of what is said of hero and rival is from what is true, at most; over films."""
    off, n = np.zeros(10), np.zeros(10)
    for film, said in told:
        for label in ("hero", "rival"):
            decile = np.minimum((said[label] * 10).astype(int), 9)
            n += np.bincount(decile, minlength=10)
            off += np.bincount(decile, said[label] - film[label], 10)
    return np.abs(off / n).max()


@pytest.mark.slow
def test_the_oracle_is_calibrated_in_ten_bins():
    """In each tenth of what it says, as often true within .03. One film holds few spells, and is off by .1
    from luck; ten are not. An oracle that knows gains or the chain wrongly is found out by five."""
    told, wrong_gains, wrong_chain = [], [], []
    for seed in range(10):
        film, units, gains, *seen = args = drawn(seed, 59_080, 60, 0.5)
        told.append((film, film_posterior(*args)))
        if seed < 5:
            wrong_gains.append((film, film_posterior(film, units, 1.1 * gains, *seen)))
            wrong_chain.append((film, film_posterior(*args, p_cut=3 * movie.P_CUT)))
    off = furthest(told), furthest(wrong_gains), furthest(wrong_chain)
    print(np.round(off, 3))
    assert off[0] <= 0.03 and min(off[1:]) > 0.04


@pytest.mark.parametrize("name", ["hero", "camera-cuts", "scenes"])
def test_annotations_follow_the_film(name):
    rng = np.random.default_rng(1)
    film = movie.draw_film(2000, rng)
    frames = movie.annotations(film, 4000, rng)[name][movie.LEAD : movie.LEAD + 4000]
    steps = frames.reshape(-1, 2)
    of_film = {"hero": "hero", "camera-cuts": "cut", "scenes": "scene_cut"}[name]
    assert np.array_equal(steps.max(axis=1), film[of_film])
    assert (steps.sum(axis=1) == film[of_film] * (2 if name == "hero" else 1)).all()
