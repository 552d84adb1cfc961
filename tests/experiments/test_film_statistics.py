"""What the statistics of a label say where the truth is known: films without signal, and one very long film."""

from dataclasses import replace

import numpy as np
import pytest
from drawn_film import counted, drawn, seen

from nblib.evaluate import states
from nblib.experiments.film import decoding
from nblib.simulate import movie

pytestmark = pytest.mark.slow
N_QUIET, N_PARTS, N_STEPS = 40, 40, 15_000  # films of 20 minutes; drift of 25 s in all units
ASKED = decoding.Params(
    models=["ridge"], smooth=False, windows=[[-0.5, 1.0]], n_permutations=100, n_bootstrap=200
)


def kappa_of(data):
    answers, _ = decoding.judged(data, ASKED)
    return answers["ridge"]


@pytest.fixture(scope="module")
def quiet():
    """Answers to films without a signal, each of other units."""
    return [kappa_of(drawn(seed, N_STEPS, 20, 0.0, gap_s=8.0)[0]) for seed in range(N_QUIET)]


@pytest.fixture(scope="module")
def parts():
    """Answers to each part of one film of 13 hours, seen by the same units."""
    rng = np.random.default_rng(7)
    story, units = movie.draw_film(N_PARTS * N_STEPS, rng), movie.draw_units(30, 0.5, rng)
    counts = counted(story, units, rng)
    films = zip(np.split(counts, N_PARTS), np.split(story["hero"], N_PARTS), strict=True)
    return [kappa_of(seen(*film, gap_s=8.0)) for film in films]


def test_films_without_signal_are_seldom_called_significant(quiet):
    """Labels moved within segments: at most 12 % of films; intervals leave out 0 in at most 15 %."""
    scores = [states.state_scores(answers, ASKED.n_permutations)[0]["kappa"] for answers in quiet]
    called = np.mean([score.p <= 0.05 for score in scores])
    left_out = np.mean([score.ci_low > 0 or score.ci_high < 0 for score in scores])
    print(f"p {called:.3f}, interval {left_out:.3f}")
    assert called <= 0.12 and left_out <= 0.15


def test_an_interval_covers_the_score_of_a_film_forty_times_as_long(parts):
    whole = states.Answers(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("y", "said", "segment"))
    ).values[0]  # fmt: skip
    low, high = np.array([part.interval()[:, 0] for part in parts]).T
    covered = np.mean((low <= whole) & (whole <= high))
    print(f"kappa {whole:.3f}, covered {covered:.3f}")
    assert covered >= 0.85


def test_the_effective_number_of_bins_is_that_of_the_true_spread(parts):
    """n times (sd were bins independent over the true one) squared, within a factor of 2."""
    effective = [states.state_scores(part, 20)[1] for part in parts]
    n = len(parts[0].y)
    kappa, alone = np.array([part.values[0] for part in parts]), []
    rng = np.random.default_rng(0)
    for part in parts:
        rows = rng.integers(0, n, (100, n))
        y, said = part.y[rows], part.said[rows]
        both, said, on = (y * said).sum(axis=1), said.sum(axis=1), y.sum(axis=1)
        alone.append(states.kappa(both, said, on, n).var())
    true = n * np.mean(alone) / kappa.var()
    print(f"effective {np.median(effective):.0f}, true {true:.0f} of {n}")
    assert 0.5 < np.median(effective) / true < 2


def test_shuffled_labels_score_at_chance():
    """Labels moved round by 60 s and more, decoders fitted again: intervals hold 0 in 80 of 100."""
    rng, held = np.random.default_rng(3), []
    for seed in range(10):
        data, _ = drawn(seed, N_STEPS, 20, gap_s=8.0)
        for move in rng.integers(750, N_STEPS - 750, 10):
            low, high = kappa_of(replace(data, y=np.roll(data.y, move))).interval()[:, 0]
            held.append(low <= 0 <= high)
    print(f"held {np.mean(held):.2f}")
    assert len(held) == 100 and np.sum(held) >= 80


def test_four_patients_tell_more_than_the_best_of_them():
    """60 units each at signal .4, one film: windows and logistic regression, by kappa."""
    rng = np.random.default_rng(0)
    story = movie.draw_film(59_080, rng)
    counts = [counted(story, movie.draw_units(60, 0.4, rng), rng) for _ in range(4)]
    asked = decoding.Params(models=["logistic"], smooth=False, folds=[0, 2], n_bootstrap=100)
    kappas = [
        decoding.judged(seen(part, story["hero"]), asked)[0]["logistic"].values[0]
        for part in (*counts, np.hstack(counts))
    ]
    print(np.round(kappas, 3))
    assert kappas[-1] >= max(kappas[:-1]) + 0.10
