"""Answers made one story: the sum over all paths, each segment by itself."""

import itertools

import numpy as np

from nblib.experiments.film import smoothing

CHANGE = np.array([[0.9, 0.1], [0.2, 0.8]])


def by_all_paths(odds, prior, temperature):
    adds = temperature * (odds - np.log(prior / (1 - prior)))
    total, on = 0.0, np.zeros(len(odds))
    for path in itertools.product((0, 1), repeat=len(odds)):
        weight = (1 - prior, prior)[path[0]] * np.exp(np.dot(path, adds))
        for a, b in itertools.pairwise(path):
            weight *= CHANGE[a, b]
        total, on = total + weight, on + weight * np.array(path)
    return on / total


def test_it_is_the_sum_over_all_paths_of_each_segment():
    odds = np.random.default_rng(0).normal(size=10) * 3
    segment = np.repeat([4, 7], [6, 4])
    found = smoothing.smoothed(odds, segment, CHANGE, 0.3, 0.5)
    expected = [by_all_paths(odds[segment == s], 0.3, 0.5) for s in (4, 7)]
    assert np.allclose(found, np.concatenate(expected))
    huge = smoothing.smoothed(odds * 1e4, segment, CHANGE, 0.3, 1.0)
    assert np.isfinite(huge).all()


def test_changes_are_counted_between_neighbours_alone():
    y, at = np.array([0, 0, 1, 1, 0]), np.array([0, 1, 2, 10, 11])
    change = smoothing.transitions(y, at)
    assert np.allclose(change, [[1.5 / 3, 1.5 / 3], [1.5 / 2, 0.5 / 2]])


def test_validation_chooses_how_much_an_answer_counts():
    rng = np.random.default_rng(1)
    y = np.repeat(rng.integers(0, 2, 40), 30)
    odds = (2 * y - 1) * 0.5 + rng.normal(size=len(y)) * 2
    change = smoothing.transitions(y, np.arange(len(y)))
    temperature, _ = smoothing.best_temperature(odds, np.zeros(len(y)), change, 0.5, y)
    assert temperature in smoothing.TEMPERATURES
    smooth = smoothing.smoothed(odds, np.zeros(len(y)), change, 0.5, temperature)
    assert ((smooth > 0.5) == y).mean() > ((odds > 0) == y).mean() + 0.1
