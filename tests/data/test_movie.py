"""Films: each spike in its frame, pauses dropped and counted, annotations, patients laid together."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

from nblib.core import errors, params
from nblib.data import checks, film_frames, movie, opening
from nblib.prepare import binning, binning_stage, responses
from nblib.simulate import movie as simulated

STEPS = [0, 40, 80, 120, 160, 200, 240, 280, 320]
SPIKES = [0, 39.9, 40, 79, 80, 100, 160, 161, 200, 239, 240, 300, 319]
AT_AN_EDGE = (
    [0, 1, 2, 2, 3, 4, 5, 6, 7, 8],
    [0, 40, 80, 1080, 1120, 1160, 1200, 1240, 1280, 1320],
    [0, 39.9, 40, 79, 80, 100, 500, 1079, 1080, 1119, 1120, 1160, 1200, 1240, 1300, 1319],
)
IN_A_BIN = (
    [0, 1, 2, 3, 3, 4, 5, 6, 7, 8],
    [0, 40, 80, 120, 1120, 1160, 1200, 1240, 1280, 1320],
    [0, 80, 119, 120, 600, 1119, 1120, 1159, 1160, 1300],
)
TWO_IN_A_BIN = (
    [0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8],
    [0, 40, 540, 580, 1080, 1120, 1160, 1200, 1240, 1280, 1320],
    [0, 39, 40, 300, 540, 579, 580, 800, 1080, 1100],
)


@pytest.mark.parametrize("offset_ms", [0, 1e3, 1e6])
@pytest.mark.parametrize(
    ("frames", "clock_ms", "spikes_ms", "k", "expected"),
    [
        (range(9), STEPS, SPIKES, 2, [4, 2, 4, 3]),
        (*AT_AN_EDGE, 2, [4, 3, 2, 3]),
        (*IN_A_BIN, 2, [1, 4, 1, 1]),
        (*TWO_IN_A_BIN, 4, [6, 0]),
        (range(9), STEPS, [320], 2, [0, 0, 0, 0]),
    ],
)
def test_spikes_fall_into_their_frames(frames, clock_ms, spikes_ms, k, expected, offset_ms):
    clock, spikes = (np.add(values, offset_ms) / 1e3 for values in (clock_ms, spikes_ms))
    shown = film_frames.shown_frames(np.array(frames) * 0.04, clock, 25.0, "log")
    film_s, inside, in_pause = film_frames.on_film(spikes, shown, 25.0)
    edges = np.arange(0, 9, k) * 40_000_000
    counts = np.histogram(np.rint(film_s[inside] * 1e9).astype(int), edges)[0]
    assert counts.tolist() == expected
    last = spikes >= clock[-1]
    assert not (inside & in_pause).any() and (inside | in_pause | last).all()


def test_a_pause_is_marked_and_the_time_of_frames_kept():
    frames, clock, _ = IN_A_BIN
    shown = film_frames.shown_frames(np.array(frames) * 0.04, np.array(clock) / 1e3, 25.0, "log")
    assert shown.after_pause.tolist() == [False] * 3 + [True] + [False] * 4
    assert set(shown.stop - shown.start) == {40_000_000}


def recipe(path, **given):
    given = {"source": "movie", "time_unit": "ms", "intervals": "frames", "label": "hero"} | given
    return params.Recipe(
        recipe="film", recordings=["p1", "p2", "pool"], path=str(path / "{recording}.nwb"),
        binning="frames", split="segments", **given,
    )  # fmt: skip


def film(path, recording, **given):
    settings = simulated.Settings(
        **{"n_frames": 3000, "n_units": 8, "n_pauses": 3, "seed": 2} | given
    )
    simulated.simulate(path / f"{recording}.nwb", settings, recording)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for recording in ("p1", "p2"):
        film(folder, recording)
    return folder


def counted(recording, k=2, **given):
    settings = params.BinSettings(binning="frames", frames_per_bin=k, **given)
    return binning.bin_recording(recording, settings)


@pytest.mark.parametrize("recording", ["p1", "p2"])
def test_no_spike_is_lost(films, recording):
    session = opening.open_recording(recipe(films), recording)
    with h5py.File(films / f"{recording}.nwb") as file:
        stops = file["units/spike_times_index"][:]
    frames = counted(session, 1).counts.values[:, 0].astype(int)
    units = session.units
    total = frames.sum(axis=0) + units["n_in_pauses"] + units["n_outside"]
    assert total.tolist() == np.diff(stops, prepend=0).tolist()
    assert units["n_in_pauses"].sum() > 100
    for k in (2, 5, 12, 25):
        n = len(frames) // k
        merged = frames[: n * k].reshape(n, k, -1).sum(axis=1)
        assert np.array_equal(counted(session, k).counts.values[:, 0], merged)


def test_frames_labels_and_pauses_of_bins(films):
    session = opening.open_recording(recipe(films), "p1")
    binned = counted(session)
    with h5py.File(films / "p1.nwb") as file:
        table = file["processing/machine_learning"][movie.ANNOTATIONS]
        hero = table["indicator_function"][:][: table["indicator_function_index"][0]]
    assert binned.frame.values[0] == 918 and binned.label.values[0] == hero[918]
    note = session.meta["notes"][-1]
    assert "the first one here, frame 918, is frame_000919.jpg" in note
    assert np.array_equal(binned.label.values, hero[918 : 918 + 3000 : 2])
    assert binned.after_pause.values.sum() == 3
    assert np.allclose(binned.exposure_s.values, 0.082)  # not the 0.08 s of film
    assert binned.start_s.values[0] == 36.72


def test_an_event_of_one_frame_is_in_one_bin_with_any_and_in_half_of_them_with_first(films):
    session = opening.open_recording(recipe(films), "p1")
    with h5py.File(films / "p1.nwb") as file:
        table = file["processing/machine_learning"][movie.ANNOTATIONS]
        k = table["label_name"].asstr()[:].tolist().index("camera-cuts")
        parts = np.split(table["indicator_function"][:], table["indicator_function_index"][:-1])
    events = np.flatnonzero(parts[k][918 : 918 + 3000])
    assert len(events) > 20 and np.diff(events).min() > 1
    in_bins = {
        rule: np.flatnonzero(counted(session, bin_label=rule).annotation.sel(name="camera-cuts"))
        for rule in ("first", "any", "majority")
    }
    assert in_bins["any"].tolist() == (events // 2).tolist()
    assert in_bins["first"].tolist() == (events[events % 2 == 0] // 2).tolist()
    n = len(events)
    assert abs(len(in_bins["first"]) - n / 2) <= 3 * n**0.5 / 2
    assert set(in_bins["majority"]) <= set(in_bins["any"])


def test_what_is_undefined_is_no_class(films):
    session = opening.open_recording(recipe(films, label="indoor-setting"), "p1")
    assert session.labelled.classes == ["0", "1"] and session.labelled.left_out["no label"] > 0
    binned = counted(session)
    assert set(np.unique(binned.label)) == {0, 1, 99}


@pytest.mark.parametrize("home", ["processing/misc", "stimulus", "own module", "machine_learning"])
@pytest.mark.parametrize(
    "file_name",
    ["sub{recording}.nwb", "sub-{recording}/sub-{recording}_ses-sub{recording}_ecephys.nwb"],
    ids=["as first named", "as published"],
)
def test_tables_are_found_in_each_home_under_both_file_names(films, tmp_path, home, file_name):
    path = tmp_path / file_name.replace("{recording}", "p1")
    path.parent.mkdir(exist_ok=True)
    shutil.copy(films / "p1.nwb", path)
    with h5py.File(path, "r+") as file:
        for name in (movie.BINS, movie.ANNOTATIONS):
            place = {"own module": f"processing/{name}/{name}", "machine_learning": ""}.get(
                home, f"{home}/{name}"
            )
            if place:
                file.move(f"processing/machine_learning/{name}", place)
    other = recipe(tmp_path).model_copy(update={"path": f"{tmp_path}/{file_name}"})
    session = opening.open_recording(other, "p1")
    same = opening.open_recording(recipe(films), "p1")
    pd.testing.assert_frame_equal(session.intervals["frames"], same.intervals["frames"])


def changed(films, tmp_path, change):
    shutil.copy(films / "p1.nwb", tmp_path / "p1.nwb")
    with h5py.File(tmp_path / "p1.nwb", "r+") as file:
        change(file)
    return recipe(tmp_path)


@pytest.mark.parametrize(("off", "shown"), [(1e-3, "40\\.001"), (-1e-3, "39\\.999")])
def test_film_times_may_be_off_by_a_rounding_only(films, tmp_path, off, shown):
    log = "stimulus/presentation/cleaned_watchlogs/pts"

    def move(seconds):
        def change(file):
            file[log][1000] += seconds

        return changed(films, tmp_path, change)

    opening.open_recording(move(off * 1e-6), "p1")
    with pytest.raises(errors.BadInput, match=rf"pts is {shown} s in row 1000; .* begins at 40 s"):
        opening.open_recording(move(off), "p1")


def test_faults_are_refused_by_name(films, tmp_path):
    def in_seconds(file):
        file["units/spike_times"][:] /= 1e3

    with pytest.raises(errors.BadInput, match="Check the unit of units/spike_times"):
        opening.open_recording(changed(films, tmp_path, in_seconds), "p1")
    with pytest.raises(errors.BadInput, match="check time_unit in the recipe"):
        opening.open_recording(recipe(films, time_unit="s"), "p1")
    with pytest.raises(errors.BadParameter, match="no annotation 'heroes'; did you mean hero"):
        opening.open_recording(recipe(films, label="heroes"), "p1")


def test_patients_are_laid_together(films, tmp_path):
    pooled = {"source_params": {"pool": {"pool": ["p1", "p2"]}}}
    together = opening.open_recording(recipe(films, **pooled), "pool")
    assert together.n_units == 16 and together.units.index[9] == "p2-1"
    assert list(together.units["probe"]) == ["p1"] * 8 + ["p2"] * 8
    each = [counted(opening.open_recording(recipe(films), p)).counts.values for p in ("p1", "p2")]
    binned = counted(together)
    assert np.array_equal(binned.counts.values, np.concatenate(each, axis=2))
    assert binned.after_pause.values.sum() == 6
    shutil.copy(films / "p1.nwb", tmp_path)
    film(tmp_path, "p2", n_frames=2000)
    with pytest.raises(errors.BadInput, match=r"p1 has 3000 frames, p2 has 2000"):
        opening.open_recording(recipe(tmp_path, **pooled), "pool")


def test_annotations_from_a_csv_are_those_of_the_file(films, tmp_path):
    frames = opening.open_recording(recipe(films), "p1").intervals["frames"]
    on = frames["hero"].to_numpy()
    first = frames["frame"].to_numpy()[np.flatnonzero(np.diff(on, prepend=0) == 1)]
    last = frames["frame"].to_numpy()[np.flatnonzero(np.diff(on, append=0) == -1)]
    spans = {"frames": {"first_frame": first, "last_frame": last},
             "seconds": {"start": first / 25, "stop": (last + 1) / 25}}  # fmt: skip
    for name, columns in spans.items():
        path = tmp_path / f"{name}.csv"
        pd.DataFrame({"label": "again", **columns}).to_csv(path, index=False)
        session = opening.open_recording(recipe(films, times=str(path), label="again"), "p1")
        assert np.array_equal(session.intervals["frames"]["again"], on)
    path.write_text("label,start,stop\n01,50,51\n1,60,62\n1.0,70,73\nNA,80,84\n")
    frames = opening.open_recording(recipe(films, times=str(path)), "p1").intervals["frames"]
    on = frames[["01", "1", "1.0", "NA"]].sum()
    assert on.tolist() == [25, 50, 75, 100], "labels are as they are written"
    path.write_text("label,begin\na,1\n")
    with pytest.raises(errors.BadInput, match="expected columns start and stop"):
        opening.open_recording(recipe(films, times=str(path)), "p1")


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ("start,stop\na,50,60\na,60,50", r"no frame from start to stop, in row 1"),
        ("start,stop\na,60.001,60.03", "a frame lasts 0.04 s"),
        ("start,stop\na,50,", "no frame from start to stop, in row 0"),
        ("start,stop\n,50,60", "no label"),
        ("start,stop,first_frame,last_frame\na,50,60,1000,1100", "last_frame, not both; found"),
        ("first_frame,last_frame\na,1500,1400", "no frame from first_frame to last_frame"),
        (
            "first_frame,last_frame\na,1000,1200\na,1300.5,1400",
            r"first_frame is 1300\.5 in row 1; whole",
        ),
        ("first_frame,last_frame\na,1000,1200.5", r"last_frame is 1200\.5 in row 0; whole frames"),
        (
            "start,stop\na,0,40\na,50000,60000\na,90000,150000",
            r"0 to 150000 \[s of film\].* here, 36\.72 to 156\.72, holds 0\.00%.* such as milliseconds",
        ),
        ("start,stop\na,5000,5600", "of another film, or in another unit"),
        (
            "first_frame,last_frame\na,90000,90500",
            r"90000 to 90500 \[frames\].* here, 918 to 3918, holds 0",
        ),
        ("start,stop\nhero,50,60", "has an annotation 'hero' too; rename this one"),
    ],
)
def test_spans_of_a_csv_that_would_be_lost_are_refused(films, tmp_path, rows, match):
    path = tmp_path / "spans.csv"
    path.write_text(f"label,{rows}\n")
    with pytest.raises(errors.BadInput, match=match):
        opening.open_recording(recipe(films, times=str(path)), "p1")


def test_annotations_of_the_whole_film_may_reach_beyond_what_is_read(films, tmp_path):
    """A film of 4,726 s, of which two minutes are shown here: not another film."""
    path = tmp_path / "whole.csv"
    path.write_text("label,start,stop\na,0,50\na,100,120\na,900,2000\nlogo,0,10\n")
    session = opening.open_recording(recipe(films, times=str(path), label="a"), "p1")
    frames = session.intervals["frames"]
    on = frames.loc[frames["a"] == 1, "start_time"]
    assert len(on) == round((50 - 36.72 + 20) * 25) and on.max() == pytest.approx(119.96)
    assert not frames["logo"].any()


def test_a_film_is_told_in_frames_onsets_and_pauses(films):
    """Not as so many presentations: what is looked at begins where the label does."""
    session = opening.open_recording(recipe(films), "p1")
    report = checks.session_report(session)
    on = session.intervals["frames"]["hero"].to_numpy()
    n = int((np.diff(on, prepend=0) == 1).sum())
    assert (
        f"and 3,000 frames, in which hero begins {n} times and the film pauses 3 times"
        in report.sentence()
    )
    assert "presentation" not in report.sentence() + report.odd_markdown()
    spells = responses.drawn_trials(session)
    assert len(spells) == (np.diff(on) != 0).sum() + 1 and (spells["label"] == 1).sum() == n
    assert np.allclose(spells["start_time"][1:], spells["stop_time"][:-1])
    binned = counted(session)
    told = binning_stage.sentence(binned, binning_stage.response(session, binned))
    assert "**Result.** 1,500 bins of film × 8 units" in told and "The film paused 3 times" in told
    assert "presentation" not in told


@pytest.mark.parametrize("bin_s", [0.1, 0.04, 0.2])
def test_a_width_that_is_not_so_many_frames_is_refused(films, bin_s):
    session = opening.open_recording(recipe(films), "p1")
    told = (
        rf"bin_s = {bin_s:g} s is {bin_s / 0.04:g} frames of 0\.04 s, frames_per_bin = 2 is 0\.08 s"
    )
    with pytest.raises(errors.BadParameter, match=told):
        counted(session, bin_s=bin_s)
    assert counted(session, bin_s=0.08).equals(counted(session))


@pytest.mark.parametrize("parts", [[], ["p1", "p1"], ["pool"], ["p1", "both"]])
def test_a_pool_is_of_patients_each_once(films, parts):
    given = {"pool": {"pool": parts, "both": ["p1", "p2"]}}
    with pytest.raises(errors.BadParameter, match="it needs recordings, each once"):
        opening.open_recording(recipe(films, source_params=given), "pool")


def test_a_blank_that_no_label_has_and_invalid_times_of_a_film_are_told(films, tmp_path):
    path = tmp_path / "p1.nwb"
    shutil.copy(films / "p1.nwb", path)
    with h5py.File(path, "a") as file:
        for column, value in (("start_time", 1.0), ("stop_time", 2.0), ("id", 0)):
            file[f"intervals/invalid_times/{column}"] = [value]
    odd = {}
    for blank in ("", "0", "grey"):
        odd[blank] = " ".join(
            checks.session_report(opening.open_recording(recipe(tmp_path, blank=blank), "p1")).odd
        )
    told = "blank = 'grey' of the recipe is no label here; there is 0, 1."
    assert told in odd["grey"] and "blank" not in odd["0"] + odd[""]
    assert "invalid_times: by the name, times to leave out" in odd[""]
