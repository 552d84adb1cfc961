"""A simulated film as 11 sees it, drawn without a file: the same chain, units, gains and counts."""

from dataclasses import replace

import numpy as np

from nblib.core import params
from nblib.experiments.film import decoding
from nblib.prepare.continuous import film
from nblib.simulate import movie


def drawn(seed, n_steps=15_000, n_units=40, signal=0.5, gap_s=32.0, label="hero", **changes):
    """A film of 20 minutes, and its units; `changes` are of the film."""
    data, units = next(stretches(seed, 1, n_steps, n_units, signal, gap_s, label))
    return replace(data, **changes), units


def stretches(seed, n, n_steps=15_000, n_units=40, signal=0.5, gap_s=32.0, label="hero"):
    """Films one after the other: n times as long a one of the same story, seen by the same units."""
    rng = np.random.default_rng([seed, 3])
    story, units = movie.draw_film(n * n_steps, rng), movie.draw_units(n_units, signal, rng)
    for first in range(0, n * n_steps, n_steps):
        of_steps = {k: v for k, v in story.items() if len(v) == n * n_steps}
        part = story | {k: v[first : first + n_steps] for k, v in of_steps.items()}
        yield seen(counted(part, units, rng), part[label], gap_s, label), units


def counted(story, units, rng):
    """What units count while they see a story: gains are drawn anew."""
    gains = movie.draw_gains(len(story["cut"]), len(units["latency"]), 1.0, rng)
    return rng.poisson(movie.rates(story, units, gains) * 0.082)


def seen(counts, on, gap_s=32.0, label="hero"):
    """Counts (n, N) and a label (n,) as 11 has them, with the published split at a buffer."""
    n_steps, n_units = counts.shape
    settings = params.SplitSettings(split="segments", n_folds=5, gap_s=gap_s)
    dealt = [film.segment_roles(n_steps, 0.08, fold, settings) for fold in range(5)]
    return decoding.Film(
        counts=counts.astype(float), y=on.astype(int), label_name=label,
        roles=np.array([role for role, _ in dealt]), segment=dealt[0][1], trial=np.arange(n_steps),
        after_pause=np.zeros(n_steps, bool), unit_ids=np.arange(n_units),
        areas=np.array(["A", "H", "EC", "PHC"])[np.arange(n_units) % 4], width_s=0.08,
        split_hash="", settings=settings,
    )  # fmt: skip
