"""What the statistics of a label say of films without signal, and of patients together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from drawn_film import counted, drawn, seen, stretches

from nblib.evaluate import states, stats
from nblib.experiments.film import decoding
from nblib.simulate import movie

pytestmark = pytest.mark.slow
N_QUIET, N_STEPS = 200, 15_000  # films of 20 minutes; drift of 25 s in all units
ASKED = decoding.Params(
    models=["ridge"], smooth=False, windows=[[-0.5, 1.0]], n_permutations=100, n_bootstrap=200
)
LONG = ASKED.model_copy(update={"windows": [[-1.5, 1.0]]})


def kappa_of(data):
    answers, _ = decoding.judged(data, ASKED)
    return answers["ridge"]


@pytest.fixture(scope="module")
def quiet():
    """Answers to films without a signal, each of other units."""
    return [kappa_of(drawn(seed, N_STEPS, 20, 0.0, gap_s=8.0)[0]) for seed in range(N_QUIET)]


def test_films_without_signal_are_seldom_called_significant(quiet):
    """Labels moved within segments: at most 12 % of films; intervals leave out 0 in at most 15 %."""
    scores = [states.state_scores(answers, ASKED.n_permutations)[0]["kappa"] for answers in quiet]
    called = np.mean([score.p <= 0.05 for score in scores])
    left_out = np.mean([score.ci_low > 0 or score.ci_high < 0 for score in scores])
    print(f"p {called:.3f}, interval {left_out:.3f}")
    assert called <= 0.12 and left_out <= 0.15


def test_bins_are_worth_what_their_spread_over_films_says(quiet):
    """Effective n, of all films together, is within twice of n times the variance of kappa, were bins
    independent, over the variance that it has."""
    n, kappas = len(quiet[0].y), np.array([answers.values[0] for answers in quiet])
    shares = [states.state_scores(answers, 20)[1] / n for answers in quiet]
    alone = [share * max(stats.jackknife_variance(v[:, 0]) for v in answers.left_out)
             for share, answers in zip(shares, quiet, strict=True)]  # fmt: skip
    worth = np.mean(alone) / np.mean(np.divide(alone, shares))
    true = np.mean(alone) / np.mean(kappas**2)
    print(
        f"worth {n * worth:.0f} of {n}, truly {n * true:.0f}; films {np.quantile(shares, [0.1, 0.5, 0.9]) * n}"
    )
    assert 0.5 <= worth / true <= 2


def test_an_interval_holds_what_twenty_times_longer_data_score():
    """The same units, 20 films of one story: of all together, each by decoders taught by itself."""
    films = [decoding.judged(data, LONG) for data, _ in stretches(0, 20, 59_080, 60)]
    table = pd.concat([table for _, table in films])
    y, p = table["label"].to_numpy(), table["ridge"].to_numpy()
    of_all = states.Answers(y, p, np.zeros(len(y))).values[0]
    low, high = np.transpose([answers["ridge"].interval()[:, 0] for answers, _ in films])
    held = np.mean((low <= of_all) & (of_all <= high))
    print(f"kappa {of_all:.3f}, held {held:.2f}, half {np.mean(high - low) / 2:.3f}")
    assert held >= 0.85


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
