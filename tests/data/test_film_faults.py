"""Files in the layout of SUMMER that are odd, but plausible: read right, or refused by name."""

import shutil

import h5py
import numpy as np
import pytest
from test_movie import counted, film, recipe

from nblib.core import errors
from nblib.data import movie, opening

LOG = f"stimulus/presentation/{movie.WATCH_LOG}"
HOME = "processing/machine_learning"
BINS, MARKS = f"{HOME}/{movie.BINS}", f"{HOME}/{movie.ANNOTATIONS}"
ON = f"{MARKS}/indicator_function"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    film(folder, "p1")
    return folder / "p1.nwb"


def opened(made, tmp_path, change, **given):
    shutil.copy(made, tmp_path / "p1.nwb")
    with h5py.File(tmp_path / "p1.nwb", "r+") as file:
        change(file)
    return opening.open_recording(recipe(tmp_path, **given), "p1")


def put(file, place, values):
    """Other values in place of a data set's, of whatever type."""
    attrs = dict(file[place].attrs)
    del file[place]
    kind = h5py.string_dtype() if np.asarray(values).dtype.kind in "UO" else None
    file.create_dataset(place, data=values, dtype=kind).attrs.update(attrs)


def without(file, table, rows):
    """A table without some of its rows."""
    for name in file[table]:
        put(file, f"{table}/{name}", np.delete(file[f"{table}/{name}"][:], rows, axis=0))


def renamed(file, old, new):
    names = file[f"{MARKS}/label_name"].asstr()[:]
    put(file, f"{MARKS}/label_name", np.where(names == old, new, names).astype(object))


def film_in_ms(file):
    file[f"{LOG}/pts"][:] *= 1e3


def edges_in_ms(file):
    file[f"{BINS}/edges"][:] *= 1e3


def log_in_s(file):
    file[f"{LOG}/neural_recording_time"][:] /= 1e3


def pause_back(file):
    clock = file[f"{LOG}/neural_recording_time"][:]
    paused = np.flatnonzero(np.diff(file[f"{LOG}/pts"][:]) == 0)[0]
    clock[paused + 1] = clock[paused] - 5e3
    file[f"{LOG}/neural_recording_time"][:] = clock


def nan_in_log(file):
    file[f"{LOG}/neural_recording_time"][1500] = np.nan


def nan_in_film(file):
    file[f"{LOG}/pts"][1500] = np.nan


def nan_in_spikes(file):
    file["units/spike_times"][100] = np.nan


def unsorted(file):
    file["units/spike_times"][:2000] = file["units/spike_times"][:2000][::-1]


def no_spikes(file):
    put(file, "units/spike_times", np.empty(0))
    put(file, "units/spike_times_index", np.zeros(8, np.uint64))


def two_logs(file):
    file.copy(LOG, f"{HOME}/{movie.WATCH_LOG}")


def one_frame(file):
    file[f"{LOG}/pts"][:] = 40.0


def text_log(file):
    put(file, f"{LOG}/pts", np.array(["a"] * len(file[f"{LOG}/pts"]), object))


def no_indicator(file):
    for name in ("indicator_function", "indicator_function_index"):
        file.move(f"{MARKS}/{name}", f"{MARKS}/other{name.removeprefix('indicator')}")
    file[MARKS].attrs["colnames"] = ["label_name", "other_function"]


def no_edges(file):
    index = f"{BINS}/edges_index"
    file[index][:] = np.r_[0, file[index][1:]]


def empty(file):
    index, name = f"{ON}_index", f"{MARKS}/label_name"
    stops = file[index][:]
    put(file, name, np.append(file[name].asstr()[:], "nobody"))
    put(file, index, np.append(stops, stops[-1]))
    put(file, f"{MARKS}/id", np.arange(len(stops) + 1))


def half_on(file):
    put(file, ON, file[ON][:] * 0.5)


def words(file):
    put(file, ON, np.where(file[ON][:] == 1, "on", "off").astype(object))


def beyond_a_byte(file):
    put(file, ON, np.where(file[ON][:] == 1, 300, 0))


def rows_twice(file):
    """Each row once more half a frame later, as of a log at 50 Hz."""
    for name in file[LOG]:
        values = np.repeat(file[f"{LOG}/{name}"][:], 2)
        if name == "neural_recording_time":
            values[1::2] += 20
        put(file, f"{LOG}/{name}", values)


def another_clock(file):
    put(file, "units/spike_times", file["units/spike_times"][:] + 3.6e6)


REFUSED = {
    rows_twice: "most film times stand in two or more rows",
    another_clock: r"no spike falls into a frame.*lie at 3600.* s, the watch log at .* must be of one clock",
    film_in_ms: "most rows lie 1000 frames apart; pts must be seconds of film",
    edges_in_ms: "film times must be in seconds",
    log_in_s: "check time_unit in the recipe",
    pause_back: "neural_recording_time falls after row",
    nan_in_log: "neural_recording_time is NaN or infinite in row 1500",
    nan_in_film: "pts is NaN or infinite in row 1500",
    nan_in_spikes: "units/spike_times is NaN or infinite in spike 100",
    no_spikes: "units/spike_times holds no spike",
    two_logs: f"two tables '{movie.WATCH_LOG}'",
    one_frame: "rows of less than 2 frames",
    text_log: "holds 'a' in row 0",
    no_indicator: "no column 'indicator_function'",
    no_edges: "the finest bins have 0 edges",
    empty: "'nobody' has 0 frames",
    half_on: "holds 0.5 in frame",
    words: "holds 'off' in row 0",
    beyond_a_byte: "holds 300 in frame",
    lambda file: renamed(file, "rival", "hero"): "label_name names several annotations alike: hero",
    lambda file: renamed(file, "rival", "frame"): "'frame' is something else of a frame",
    lambda file: renamed(file, "rival", "label"): "'label' is something else of a frame",
}


@pytest.mark.parametrize("change", REFUSED, ids=REFUSED.values())
def test_what_cannot_be_read_right_is_refused_by_name(made, tmp_path, change):
    with pytest.raises(errors.BadInput, match=REFUSED[change]):
        opened(made, tmp_path, change)


def test_spikes_out_of_order_are_refused_where_they_are_counted(made, tmp_path):
    with pytest.raises(errors.BadInput, match="are not sorted; sort them in the file"):
        counted(opened(made, tmp_path, unsorted))


@pytest.mark.parametrize("window", [[2000, 1000], [2000]])
def test_a_window_that_does_not_rise_is_refused(made, tmp_path, window):
    with pytest.raises(errors.BadInput, match="two frames that rise"):
        opened(made, tmp_path, len, source_params={"window": window})


def test_a_short_window_of_a_long_recording_is_read(made, tmp_path):
    """Seconds of ten minutes: no other unit. The spikes are held against the whole watch log."""
    session = opened(made, tmp_path, len, source_params={"window": [1100, 1350]})
    same = opened(made, tmp_path, len).intervals["frames"].query("1100 <= frame < 1350")
    frames = session.intervals["frames"]
    assert frames["hero"].tolist() == same["hero"].tolist() and session.n_spikes > 100


def float_marks(file):
    put(file, ON, file[ON][:].astype(float))


def nan_for_99(file):
    put(file, ON, np.where(file[ON][:] == movie.NO_LABEL, np.nan, file[ON][:]))


def text_marks(file):
    put(file, ON, file[ON][:].astype(str).astype(object))


def bytes_names(file):
    put(file, f"{MARKS}/label_name", file[f"{MARKS}/label_name"][:].astype("S"))


def longer(file):
    stops, values = file[f"{ON}_index"][:].astype(int), file[ON][:]
    parts = [np.append(part, np.ones(500, values.dtype)) for part in np.split(values, stops[:-1])]
    put(file, ON, np.concatenate(parts))
    put(file, f"{ON}_index", np.cumsum([len(part) for part in parts]))


def row_twice(file):
    """A row logged twice, at one time: no pause."""
    for name in file[LOG]:
        put(
            file,
            f"{LOG}/{name}",
            np.insert(file[f"{LOG}/{name}"][:], 1200, file[f"{LOG}/{name}"][1200]),
        )


def silent_unit(file):
    stops = file["units/spike_times_index"][:].astype(int)
    without_its = np.delete(file["units/spike_times"][:], slice(stops[0], stops[1]))
    put(file, "units/spike_times", without_its)
    put(file, "units/spike_times_index", np.r_[stops[0], stops[1:] - (stops[1] - stops[0])])


@pytest.mark.parametrize(
    "change",
    [float_marks, nan_for_99, text_marks, bytes_names, longer, row_twice],
    ids=lambda c: c.__name__,
)
def test_what_is_only_written_otherwise_is_read_the_same(made, tmp_path, change):
    frames = opened(made, tmp_path, change).intervals["frames"]
    same = opened(made, tmp_path, len).intervals["frames"]
    assert list(frames) == list(same)
    for name in frames:
        assert np.array_equal(frames[name], same[name], equal_nan=name == "indoor-setting"), name


@pytest.mark.parametrize("name", ["Zoë–夏", "tom $x^2$", "a|b <i>"])
def test_an_annotation_has_any_name(made, tmp_path, name):
    hero = counted(opened(made, tmp_path, len)).label.values
    session = opened(made, tmp_path, lambda file: renamed(file, "hero", name), label=name)
    assert np.array_equal(counted(session).label.values, hero)


def test_a_unit_without_spikes_counts_none(made, tmp_path):
    binned = counted(opened(made, tmp_path, silent_unit))
    assert binned.counts.values[:, 0].sum(axis=0)[1] == 0 and binned.sizes["unit"] == 8


def test_frames_that_the_log_misses_are_left_out_with_their_bins(made, tmp_path):
    """Ten frames of thirty rows are not in the log: their bins are not there, the next follows a pause."""
    at = np.flatnonzero(np.isclose(np.diff(movie_s(made)), 0.04))[1200] + 1
    binned = counted(opened(made, tmp_path, lambda file: without(file, LOG, range(at, at + 10))))
    gap = np.flatnonzero(np.diff(binned.trial.values) > 1)
    assert len(gap) == 1 and 5 <= np.diff(binned.trial.values)[gap[0]] - 1 <= 6
    assert binned.after_pause.values[gap[0] + 1]


def movie_s(path):
    with h5py.File(path) as file:
        return file[f"{LOG}/pts"][:]


def test_patients_of_one_pool_have_the_same_annotations(made, tmp_path):
    shutil.copy(made, tmp_path / "p1.nwb")
    film(tmp_path, "p2")
    with h5py.File(tmp_path / "p2.nwb", "r+") as file:
        file[ON][1000] = 1 - file[ON][1000]
    pooled = {"source_params": {"pool": {"pool": ["p1", "p2"]}}}
    with pytest.raises(errors.BadInput, match="annotation 'hero' of p1 is another in p2"):
        opening.open_recording(recipe(tmp_path, **pooled), "pool")
