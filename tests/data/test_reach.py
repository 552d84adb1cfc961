"""Cursor reaches in the layout of their files: counts, velocity, and an arm decoded as well as can be."""

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import BinSettings, Recipe, SplitSettings
from nblib.data import counts_dataset, opening, sources
from nblib.models.multimodal import branch, linear
from nblib.models.multimodal.tasks import decoding
from nblib.prepare import binning, sessions, split_roles, stored_splits, train_statistics

RATE_HZ, BIN_S = 250, 0.064


def write(path, trains, names, position, change=None):
    """A file as MATLAB 7.3 writes one. trains: (channel, unit) -> times; position (n, 2)."""
    n_units = 1 + max(unit for _, unit in trains)
    with h5py.File(path, "w") as file:
        refs = file.create_group("#refs#")

        def cell(name, values):
            refs[name] = values
            return refs[name].ref

        spikes = file.create_dataset("spikes", (n_units, len(names)), h5py.ref_dtype)
        for c in range(len(names)):
            for u in range(n_units):
                times = trains.get((c, u), [])
                held = np.reshape(times, (1, -1)) if len(times) else np.zeros(2, np.uint64)
                spikes[u, c] = cell(f"s{c}_{u}", held)
        listed = file.create_dataset("chan_names", (1, len(names)), h5py.ref_dtype)
        for c, name in enumerate(names):
            listed[0, c] = cell(f"n{c}", np.array([list(map(ord, name))], np.uint16).T)
        file["t"] = 100 + np.arange(len(position))[None] / RATE_HZ
        for name in ("cursor_pos", "target_pos"):
            file[name] = position.T
        file["finger_pos"] = np.zeros((3, len(position)))
        if change:
            change(file)
    return path


def recipe(path, **given):
    signals = {f"v{axis}": {"series": "cursor_velocity", "channel": k} for k, axis in enumerate("xy")}  # fmt: skip
    values = {"intervals": "", "series": "cursor_velocity", "binning": "continuous", "bin_s": BIN_S}
    split = {"split": "blocked", "n_folds": 5, "context_s": [0.5, 0.0], "highest_value": np.inf}
    return Recipe(recipe="reach", recordings=["indy_1"], source="reach", path=str(path), signals=signals, **values | split | given)  # fmt: skip


def opened(asked):
    sources.check(asked)
    return opening.open_recording(asked, "indy_1")


NAMES = ["M1 001", "M1 002", "S1 001"]


@pytest.fixture
def small(tmp_path):
    rng = np.random.default_rng(0)
    trains = {(c, u): 100 + np.sort(rng.uniform(0, 40, 300)) for c, u in [(0, 0), (0, 1), (2, 0)]}
    position = np.cumsum(rng.normal(size=(40 * RATE_HZ + 50, 2)), axis=0)
    return tmp_path / "indy_1.mat", trains, position


def test_counts_and_velocity_are_those_of_the_file(small):
    path, trains, position = small
    asked = recipe(write(path, trains, NAMES, position))
    made = opened(asked)
    assert made.units.index.tolist() == ["M1 001 0", "M1 001 1", "S1 001 0"]
    assert made.units["area"].tolist() == ["M1", "M1", "S1"] and made.subject == "indy"
    binned = binning.bin_recording(made, asked.settings(BinSettings))
    number = binned.trial.values[:, None] * 16 + np.arange(16)
    edges = np.rint(np.append(number.ravel(), number[-1, -1] + 1) * BIN_S * 1e9) / 1e9
    for unit, times in enumerate(trains.values()):
        expected = np.histogram(times, edges)[0]
        np.testing.assert_array_equal(binned.counts.values[:, :, unit].ravel(), expected)
    time_s = 100 + np.arange(len(position)) / RATE_HZ
    inner = (position[2:] - position[:-2]) / (time_s[2:] - time_s[:-2])[:, None]
    place = np.searchsorted(edges, time_s[1:-1], side="right") - 1
    for k, axis in enumerate("xy"):
        means = [inner[place == i, k].mean() for i in range(1, len(edges) - 1)]
        np.testing.assert_allclose(binned[f"v{axis}"].values.ravel()[1:], means, rtol=1e-4)
    sorted_only = opened(recipe(path, source_params={"unsorted": False}))
    assert sorted_only.units.index.tolist() == ["M1 001 1"]


def replaced(name, values):
    def change(file):
        del file[name]
        if values is not None:
            file[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced("cursor_pos", None), "no cursor_pos; the file holds"),
        (
            replaced("target_pos", np.zeros((2, 7))),
            r"target_pos is float64 of shape \(2, 7\); expected \(axes, 10050\)",
        ),
        (
            replaced("cursor_pos", np.zeros((10050, 2))),
            r"cursor_pos is .* \(10050, 2\); expected \(axes, 10050\)",
        ),
        (replaced("finger_pos", np.array([b"far"])), "finger_pos cannot be read"),
        (
            replaced("t", np.arange(10050.0) // 2),
            r"t of sample 0, 2, 4, .* is that of the next one too",
        ),
        (replaced("t", 100 - np.arange(10050.0)), "t falls after sample 0"),
        (replaced("t", np.zeros(1)), "t has 1 samples"),
        (
            replaced("spikes", np.zeros((2, 3))),
            "spikes, a cell of times a channel and unit, cannot be read",
        ),
        (
            replaced("chan_names", np.zeros(3)),
            "chan_names, a cell of text a channel, cannot be read",
        ),
        (lambda f: f["spikes"].parent.move("spikes", "old"), "no spikes; the file holds"),
    ],
)
def test_a_file_that_lacks_a_part_is_refused(small, change, words):
    path, trains, position = small
    with pytest.raises(BadInput, match=rf"indy_1\.mat: {words}"):
        opened(recipe(write(path, trains, NAMES, position, change)))


def test_channels_without_a_name_are_refused(small):
    """Or with one name for two: the second would take the place of the first."""
    path, trains, position = small
    path = write(path, trains, NAMES, position)
    with h5py.File(path, "r+") as file:
        names = file["chan_names"][:, :2]
        del file["chan_names"]
        file.create_dataset("chan_names", names.shape, h5py.ref_dtype)[...] = names
    with pytest.raises(
        BadInput, match=r"spikes is object of shape \(2, 3\); expected \(units, 2\)"
    ):
        opened(recipe(path))
    with pytest.raises(BadInput, match="chan_names names several channels alike: M1 001"):
        opened(recipe(write(path, small[1], ["M1 001", "M1 001", "S1 001"], small[2])))


def test_a_cell_of_times_may_lie_or_stand_and_an_empty_one_holds_its_shape(small):
    """Times in a row, in a column or flat, as other writers than MATLAB leave them."""
    path, trains, position = small

    def turned(file):
        for c, turn in ((0, np.transpose), (2, np.ravel)):
            cell = file["#refs#"][f"s{c}_0"]
            name, times = cell.name, cell[()]
            del file[name]
            file[name] = turn(times)
            file["spikes"][0, c] = file[name].ref

    made = opened(recipe(write(path, trains, NAMES, position, turned)))
    assert made.units.index.tolist() == ["M1 001 0", "M1 001 1", "S1 001 0"]
    assert np.diff(made.spike_index).tolist() == [300, 300, 300]


def test_an_older_file_of_matlab_is_told_to_be_saved_anew(small):
    savemat(small[0], {"t": np.arange(3.0)})
    with pytest.raises(BadInput, match=r"version before 7\.3, and no HDF5; save it anew with save"):
        opened(recipe(small[0]))


def test_trials_are_refused(small):
    path, trains, position = small
    asked = recipe(write(path, trains, NAMES, position), intervals="trials", binning="fixed_width", series="")  # fmt: skip
    with pytest.raises(BadParameter, match="no table of trials"):
        opening.open_recording(asked, "indy_1")


def test_an_arm_is_decoded_to_its_ceiling(tmp_path):
    """Units whose counts are linear in velocity; the ceiling is that of the best linear estimate, from
    the covariances that were simulated, in rows of 16 bins."""
    rng = np.random.default_rng(1)
    n_units, n_bins, keep, mean = 12, 20_000, 0.7, 25.0
    velocity = np.empty((n_bins, 2))
    velocity[0] = rng.normal(size=2)
    for i in range(1, n_bins):
        velocity[i] = keep * velocity[i - 1] + np.sqrt(1 - keep**2) * rng.normal(size=2)
    weights = rng.normal(0, 1.0, (n_units, 2))
    counts = rng.poisson(np.maximum(mean + velocity @ weights.T, 0))
    # Bin i of the file is bin i + first of the clock; velocity is even within it.
    first = 16 * 100
    starts = (first + np.arange(n_bins)) * BIN_S
    trains = {}
    for unit in range(n_units):
        times = np.repeat(starts, counts[:, unit])
        trains[unit, 0] = np.sort(times + rng.uniform(0.001, 0.063, len(times)))
    position = np.repeat(velocity, 16, axis=0).cumsum(axis=0) / RATE_HZ

    def clock(file):
        file["t"][...] = starts[0] + np.arange(len(position))[None] / RATE_HZ

    names = [f"M1 {unit:03}" for unit in range(n_units)]
    asked = recipe(write(tmp_path / "indy_1.mat", trains, names, position, clock))
    made = opened(asked)
    binned = binning.bin_recording(made, asked.settings(BinSettings))
    split_settings = asked.settings(SplitSettings)
    split = split_roles.make_split(binned, split_settings)
    counts_dataset.save(binned, tmp_path)
    stored_splits.save(tmp_path, split, train_statistics.fit_folds(binned, split, split_settings))
    apart = np.abs(np.subtract.outer(np.arange(16), np.arange(16)))
    course = keep**apart
    seen = np.kron(course, weights @ weights.T) + mean * np.eye(16 * n_units)
    both = np.kron(course, weights.T)  # (bin and axis, bin and unit)
    ceiling = np.diag(both @ np.linalg.solve(seen, both.T)).reshape(16, 2).mean(axis=0)
    off, spread = np.zeros((2, 2))
    for fold in range(5):
        (session,) = sessions.load_sessions([tmp_path], [tmp_path], asked, fold)
        tasks = [task for task in decoding(session) if task.kind == "signal"]
        fit, known = linear.lagged_ridge, [session.known]
        paths = [branch.each([session], fit, width) for width in linear.WIDTHS]
        folds = [[rows] for rows in np.array_split(session.known, branch.FOLDS)]
        said = branch.crossed(paths, [session], tasks, known, folds)[1]
        rows = session.rows("test")
        answer = np.stack([said[task][0][rows] for task in tasks], axis=-1)
        truth = session.signals[rows]
        off += ((truth - answer) ** 2).sum(axis=(0, 1))
        spread += ((truth - truth.mean(axis=(0, 1))) ** 2).sum(axis=(0, 1))
    assert np.abs(1 - off / spread - ceiling).max() < 0.02
    assert ceiling.min() > 0.3
