"""The whole simulated film, drawn with five seeds: what must hold for at least four of them."""

import numpy as np
import pytest
from test_film_decoding import loaded, prepared

from nblib.experiments.film import decoding

pytestmark = pytest.mark.slow
SEEDS = range(5)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Scores and calibration of each seed."""
    rows = []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp(f"film{seed}")
        given = {"source_params": {"seed": seed}}
        data, asked = loaded(*prepared(folder, recipe="movie_demo", **given))
        answers, _ = decoding.judged(data, asked)
        one_bin = asked.model_copy(update={"windows": [[0.0, 0.08]], "smooth": False})
        bins = decoding.judged(data, one_bin)[0]["logistic"]
        names = {
            "windows": "logistic",
            "smoothed": "logistic smoothed",
            "chosen": "chosen",
            "best": "",
        }
        row = {name: answers[key].values[[0, 3]] for name, key in names.items()}
        decile = np.minimum((data.best * 10).astype(int), 9)
        off = [data.best[decile == d].mean() - data.y[decile == d].mean() for d in range(10)]
        row |= {"bins": bins.values[3], "off": np.array(off), "n": np.bincount(decile)}
        row["more"] = answers["logistic smoothed"].over(bins)
        rows.append(row)
        print(seed, {k: np.round(v, 3).tolist() for k, v in row.items()}, flush=True)
    return rows


def in_most(told, holds):
    found = [bool(holds(row)) for row in told]
    assert sum(found) >= 4, found


def test_one_bin_tells_little(told):
    in_most(told, lambda row: row["bins"] <= 0.62)


def test_windows_tell_more(told):
    in_most(told, lambda row: row["windows"][0] >= 0.30 and row["windows"][1] >= 0.74)


def test_smoothing_adds_to_windows(told):
    in_most(told, lambda row: row["smoothed"][0] >= max(0.42, row["windows"][0] + 0.05)
            and row["smoothed"][1] >= row["windows"][1] + 0.02)  # fmt: skip


def test_the_best_decoder_comes_near_the_best_possible(told):
    in_most(told, lambda row: row["smoothed"][0] >= 0.6 * row["best"][0]
            and row["smoothed"][1] - 0.5 >= 0.7 * (row["best"][1] - 0.5))  # fmt: skip


def test_smoothed_windows_beat_one_bin_on_the_same_segments(told):
    in_most(told, lambda row: row["more"][1] > 0)


def test_the_oracle_is_calibrated_as_far_as_one_film_can_say(told):
    """A tenth of the posterior holds few spells, so its own share is off by their luck; the mean is not."""
    off = [np.average(np.abs(row["off"]), weights=row["n"]) for row in told]
    assert np.sum(np.array(off) <= 0.03) >= 4 and np.mean(off) <= 0.03
