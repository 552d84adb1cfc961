"""Other films than SUMMER's: real clips by the recording's own clock, and a film of another rate."""

import h5py
import numpy as np
import pandas as pd
import pytest
from test_film_decoding import FEW, loaded, prepared

from nblib.core import errors
from nblib.data import movie, opening
from nblib.experiments.film import beyond, decoding, forecast
from nblib.simulate import movie as simulated


@pytest.fixture(scope="module")
def clips(real_data, tmp_path_factory):
    """90 clips of about 8 s, of which 30 hold a hard boundary, as a film of 15 minutes."""
    path = real_data("human_mtl_movie_clips.nwb")
    folder = tmp_path_factory.mktemp("clips")
    with h5py.File(path) as file:
        table = {name: file[f"intervals/encoding_table/{name}"][:]
                 for name in ("start_time", "stop_time", "stimCategory")}  # fmt: skip
    spans = pd.DataFrame({"start": table["start_time"], "stop": table["stop_time"]})
    hard = spans[table["stimCategory"] == 2]
    labelled = pd.concat([spans.assign(label="clip"), hard.assign(label="hard")])
    labelled.to_csv(folder / "clips.csv", index=False)
    given = {"clock": "recording", "window": [0, int(spans["stop"].max() * 25)]}
    return prepared(
        folder, source="movie", path=str(path), time_unit="s", times=str(folder / "clips.csv"),
        label="hard", source_params=given, n_parts=0,
    )  # fmt: skip


def test_real_clips_end_near_chance_and_a_random_split_hides_it(clips):
    data, asked = loaded(*clips, leak=[0.0, 4.0], models=["ridge"])
    assert data.counts.shape[1] == 35 and 11_500 < len(data.y) < 11_800
    assert 0.2 < data.y.mean() < 0.35
    result = beyond.extended(decoding.decode(data, asked), data, asked)
    scores = result.scores
    print(
        {
            name: round(scores[name].value, 3)
            for name in scores
            if "kappa" in name or "auroc" in name
        }
    )
    assert abs(scores["ridge: auroc"].value - 0.5) < 0.08 and scores["ridge: kappa"].ci_low < 0.05
    leak = result.tables["leak"].set_index(["buffer_s", "model"])["value"]
    print(leak.round(3).to_dict())
    assert leak[0, "clock"] > 0.95 and abs(leak[4, "clock"]) < 0.2
    assert leak[0, "ridge"] > leak[4, "ridge"] + 0.02
    assert "would score κ" in beyond.in_words(result)


@pytest.mark.slow
def test_on_a_real_recording_forecasts_shrink_to_the_mean(clips):
    data, asked = loaded(*clips, horizons_s=[0.08, 2.0])
    for fold in range(5):
        rows, table = forecast.forecast(data, asked.model_copy(update={"folds": [fold]}))
        print(fold, {row.what: round(row.score.value, 4) for row in rows})
        assert all(row.score.value >= -0.005 for row in rows)
    assert (table.loc[table["model"] == "last count", "weight"] == 0).all()


def test_a_file_without_a_watch_log_says_how_to_go_on(clips):
    recipe = clips[0].model_copy(update={"source_params": {}})
    with pytest.raises(errors.BadInput, match=r"source_params: \{clock: recording\}"):
        opening.open_recording(recipe, "p1")


def test_a_film_of_another_rate_and_length_needs_a_recipe_alone(tmp_path):
    """8 minutes, played at 30 frames/s, with labels of other names: the same counts a frame."""
    path = tmp_path / "p1.nwb"
    settings = simulated.Settings(n_frames=14_400, n_units=12, n_pauses=2, seed=4)
    simulated.simulate(path, settings, "p1")
    slow = {
        "source": "movie",
        "path": str(path),
        "time_unit": "ms",
        "source_params": {},
        "n_parts": 0,
    }
    at_25, _ = loaded(*prepared(tmp_path, **slow))
    with h5py.File(path, "r+") as file:
        log = file["stimulus/presentation/cleaned_watchlogs"]
        for times in (log["pts"], log["neural_recording_time"], file["units/spike_times"]):
            times[:] *= 25 / 30
        module = file["processing/machine_learning"]
        module[f"{movie.BINS}/edges"][:] *= 25 / 30
        names = module[f"{movie.ANNOTATIONS}/label_name"]
        names[:] = ["who is on" if name == b"hero" else name for name in names[:]]
    fast = slow | {"label": "who is on", "source_params": {"frame_rate_hz": 30.0}}
    data, asked = loaded(*prepared(tmp_path, **fast), models=["ridge"], **FEW)
    assert data.width_s == pytest.approx(2 / 30) and np.array_equal(data.y, at_25.y)
    assert abs(data.counts - at_25.counts).sum() <= 1e-3 * at_25.counts.sum()
    assert "ridge: kappa" in decoding.decode(data, asked).scores
