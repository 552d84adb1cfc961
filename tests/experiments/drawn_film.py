"""A simulated film as 11 sees it, drawn without a file: the same chain, units, gains and counts."""

import numpy as np

from nblib.core import params
from nblib.experiments.film import decoding
from nblib.prepare.continuous import film
from nblib.simulate import movie


def drawn(seed, n_steps=15_000, n_units=40, signal=0.5, gap_s=32.0, label="hero", **changes):
    """A film of 20 minutes, and its units; `changes` are of the film."""
    rng = np.random.default_rng([seed, 3])
    story, units = movie.draw_film(n_steps, rng), movie.draw_units(n_units, signal, rng)
    gains = movie.draw_gains(n_steps, n_units, 1.0, rng)
    counts = rng.poisson(movie.rates(story, units, gains) * 0.082)
    settings = params.SplitSettings(split="segments", n_folds=5, gap_s=gap_s)
    dealt = [film.segment_roles(n_steps, 0.08, fold, settings) for fold in range(5)]
    made = decoding.Film(
        counts=counts.astype(float), y=story[label].astype(int), label_name=label,
        roles=np.array([role for role, _ in dealt]), segment=dealt[0][1], trial=np.arange(n_steps),
        after_pause=np.zeros(n_steps, bool), unit_ids=np.arange(n_units),
        areas=np.array(["A", "H", "EC", "PHC"])[np.arange(n_units) % 4], width_s=0.08,
        split_hash="", settings=settings,
    )  # fmt: skip
    return decoding.replace(made, **changes), units
