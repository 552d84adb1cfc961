"""A recording that is binned already enters as counts, or says what is wrong with its file."""

import h5py
import numpy as np
import pytest
import xarray as xr

from nblib.core import params
from nblib.core.errors import BadInput, BadParameter
from nblib.data import counts_dataset, opening
from nblib.prepare import binning_stage, cleaning, split_roles
from nblib.road import stages

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(2.0, (12, 5, 3)).astype(np.uint8)  # (trial, time, unit)
SOUND = {
    "counts": COUNTS, "bin_s": 0.02, "start_s": np.arange(12) * 2.0, "unit": np.array([7, 3, 9]),
    "area": np.array(["CA1", "VISp", "VISp"]), "choice": np.tile([-1.0, 1.0, np.nan], 4),
    "wheel": RNG.normal(size=(12, 5)), "pose": RNG.normal(size=(12, 5, 2)), "t": np.arange(5) * 0.02,
    "session": np.array("2024-01-05"),
}  # fmt: skip


def recipe(path, **given):
    asked = {"source": "counts", "path": str(path), "label": "choice", **given}
    return params.checked(params.Recipe, {"recipe": "r", "recordings": ["a"], **asked}, "r.yml")


def opened(path, **given):
    return opening.open_binned(recipe(path, **given), "a")


def written(folder, arrays, kind="npz"):
    path = folder / f"counts.{kind}"
    if kind == "npz":
        np.savez_compressed(path, **arrays)
        return path
    axes = {12: "trial", 5: "time", 3: "unit"}
    held = {
        n: (tuple(axes.get(k, "xy") for k in np.shape(v)), np.asarray(v)) for n, v in arrays.items()
    }
    xr.Dataset(held).to_netcdf(path, engine="h5netcdf")
    return path


@pytest.mark.parametrize("kind", ["npz", "nc"])
def test_counts_come_in_as_they_are(tmp_path, kind):
    path = written(tmp_path, SOUND, kind)
    binned = opened(path)
    assert binned.trial.values.tolist() == [i for i in range(12) if i % 3 != 2]  # NaN is no label
    np.testing.assert_array_equal(binned.counts, COUNTS[binned.trial.values])
    assert binned.label.values.tolist() == [-1, 1] * 4 and binned.label.dtype == np.int64
    assert binned.unit.values.tolist() == [7, 3, 9] and binned.area.values.tolist()[0] == "CA1"
    np.testing.assert_allclose(binned.exposure_s, 0.02)
    np.testing.assert_allclose(binned.stop_s - binned.start_s, 0.1)
    assert binned.attrs["clock"] == "recorded" and binned.attrs["left_out"] == '{"no label": 4}'
    assert "odd" not in binned.attrs and "session" not in binned.variables
    assert "blank = '7' of the recipe is no label" in opened(path, blank="7").attrs["odd"]
    np.testing.assert_array_equal(binned.wheel, SOUND["wheel"][binned.trial.values])
    counts_dataset.save(binned, tmp_path)
    again = counts_dataset.load(tmp_path)
    assert again.pose.shape == (8, 5, 2)
    cleaned, _ = cleaning.clean(again, None, params.CleanSettings(regions=["VISp"]))
    assert cleaned.sizes["unit"] == 2
    assert set(split_roles.make_split(cleaned, params.SplitSettings(gap_s=0.0))["label"]) == {-1, 1}


def test_what_the_file_does_not_say_the_recipe_may(tmp_path):
    turned = {"spikes": COUNTS.transpose(0, 2, 1).astype(float), "region": SOUND["area"]}
    path = written(tmp_path, turned)
    names = {"counts": "spikes", "area": "region"}
    own = {"names": names, "axes": ["trial", "unit", "time"], "bin_s": 0.02}
    binned = opened(path, label="", source_params=own)
    np.testing.assert_array_equal(binned.counts, COUNTS)
    assert binned.attrs["clock"] == "nominal" and binned.unit.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(binned.start_s, np.arange(12) * 0.1)
    with pytest.raises(BadInput, match="its trials have no label"):
        split_roles.make_split(binned, params.SplitSettings())
    for change, says in [
        ({"names": {"counts": "nope"}}, "has no 'nope'; it holds spikes, region"),
        ({"axes": ["unit", "time"]}, "expected trial, time, unit in some order"),
        ({"bin_s": 0.0}, "nothing tells how wide a bin is"),
        ({"axes": ["trial", "time", "unit"]}, "area has shape"),
    ]:
        with pytest.raises((BadInput, BadParameter), match=says):
            opened(path, label="", source_params={**own, **change})


def test_the_label_may_be_an_expression(tmp_path):
    path = written(tmp_path, SOUND | {"contrast": np.arange(12) / 10})
    binned = opened(path, label="contrast > 0.55", where="choice == 1")
    assert binned.label.values.tolist() == ["False", "False", "True", "True"]
    assert binned.attrs["label_name"] == "contrast > 0.55"
    with pytest.raises(BadInput, match="has no column 'block'; its columns are"):
        opened(path, label="block")


FAULTS = {
    "no counts": ({"counts": None}, "no array 'counts'"),
    "two axes": ({"counts": COUNTS[0]}, r"of shape \(5, 3\); expected numbers"),
    "text": ({"counts": COUNTS.astype(str)}, "expected numbers"),
    "negative": ({"counts": COUNTS.astype(int) - 9}, "expected whole numbers from 0 to 65535"),
    "fractions": ({"counts": COUNTS / 2}, "Rates and z-scores cannot be used"),
    "NaN": ({"counts": np.where(COUNTS == 2, np.nan, COUNTS)}, "counts hold nan at"),
    "beyond": ({"counts": COUNTS.astype(int) + 70_000}, "expected whole numbers"),
    "ids twice": ({"unit": np.array([1, 1, 2])}, "unit names several units alike: 1"),
    "area too long": ({"area": np.array(["a"] * 4)}, r"area has shape \(4,\)"),
    "column too long": ({"choice": np.zeros(13)}, r"choice has shape \(13,\)"),
    "no width": ({"bin_s": None}, "no bin_s"),
    "width below zero": ({"bin_s": -0.1}, "bin_s must be above 0 s"),
    "width NaN": ({"bin_s": np.nan}, "bin_s must be above 0 s"),
    "start NaN": ({"start_s": np.full(12, np.nan)}, "start_s must hold one finite time"),
    "a pair a trial": (
        {"choice": np.zeros(12, [("a", "i4")])},
        "choice .* expected numbers or text",
    ),
    "an end of its own": ({"stop_s": np.zeros(12)}, "another name than stop_s and exposure_s"),
    "Python objects": (
        {"choice": np.array(["a", None] * 6, object)},
        "holds Python objects; write numbers",
    ),
    "a signal as label": (
        {"choice": np.zeros((12, 5))},
        "'choice' cannot be used: is there, but its axes are trial, time",
    ),
    "start too short": ({"start_s": np.zeros(3)}, "start_s must hold one finite time"),
}
SQUARE = {
    "counts": (("unit", "time", "trial"), COUNTS[:3].transpose(2, 1, 0)), "bin_s": ((), 0.02),
    "choice": ("trial", ["日", "n/a", "日 "]), "depth": ("unit", [1.0, 2.0, 3.0]), "area": ("unit", ["CA1", "CA1 ", "NA"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"bin_s": ((), 20, {"units": "ms"})}, ""),
        ({"bin_s": ((), 2, {"units": "samples"})}, "bin_s is in 'samples'; expected s or ms"),
        ({"start_s": ("trial", [0.0, 1.0, 2.0], {"units": "h"})}, "start_s is in 'h'"),
        ({"choice": ("unit", [1, 2, 3])}, "choice has shape"),
        ({"counts": (("unit", "bin", "trial"), COUNTS[:3])}, "counts lie along unit, bin, trial"),
    ],
)
def test_a_netcdf_is_read_by_the_names_of_its_axes_and_its_units(tmp_path, change, says):
    held = {n: v for n, v in (SQUARE | change).items() if n != "depth" or "choice" in change}
    xr.Dataset(held).to_netcdf(tmp_path / "counts.nc", engine="h5netcdf")
    if says:
        with pytest.raises(BadInput, match=says):
            opened(tmp_path / "counts.nc", label="choice")
        return
    binned = opened(tmp_path / "counts.nc", label="choice")
    np.testing.assert_array_equal(binned.counts, COUNTS[[0, 2]])
    np.testing.assert_allclose(binned.exposure_s, 0.02)
    assert binned.label.values.tolist() == ["日", "日 "]
    psth = binning_stage.binned_psth(binned)
    told = binning_stage.sentence(binned, psth).replace("&#32;", " ")
    assert "1 (no label)" in told and "labels that differ only in blanks" in told
    assert "areas that differ only in blanks" in told and "taken for areas of their own" in told


def test_the_row_number_is_no_array_of_the_file(tmp_path):
    path = written(tmp_path, SOUND | {"trial": np.arange(12) % 3})
    assert opened(path).sizes["trial"] == 8
    named = {"source_params": {"names": {"block": "trial"}}}
    assert set(opened(path, label="block", **named).label.values) == {0, 1, 2}
    with pytest.raises(BadParameter, match="'trial', but that is the number of the row here"):
        opened(path, label="trial")


@pytest.mark.parametrize("which", FAULTS)
def test_a_fault_in_the_file_is_named(tmp_path, which):
    change, says = FAULTS[which]
    arrays = {k: v for k, v in (SOUND | change).items() if v is not None}
    path = written(tmp_path, arrays)
    with pytest.raises(BadInput, match=says) as told:
        opened(path)
    assert str(path) in str(told.value)


def test_text_beyond_ascii(tmp_path):
    for code in ("utf-8", "latin-1"):
        text = np.array(["über".encode(code), b"go"] * 6)
        assert set(opened(written(tmp_path, SOUND | {"choice": text})).label.values) == {
            "über",
            "go",
        }


def test_a_netcdf_that_claims_more_than_there_is(tmp_path):
    path = tmp_path / "counts.nc"
    with h5py.File(path, "w") as file:
        file.create_dataset("counts", (10**6, 1000, 1000), "f8", chunks=(1, 1000, 1000))
    with pytest.raises(BadInput, match="says it holds 8000000000000 bytes, but 0 are stored"):
        opened(path)


def test_counts_enter_at_02(tmp_path):
    path = written(tmp_path, SOUND)
    assert stages.chain("03_clean", "counts") == ["02_bin", "03_clean"]
    with pytest.raises(BadParameter, match="holds counts, no spike times; it enters at 02"):
        opening.open_recording(recipe(path), "a")
    with pytest.raises(BadParameter, match="is binned already"):
        opened(path, binning="fixed_width")
    keys = {
        stages.key_for("02_bin", recipe(path, **given), "a")
        for given in (
            {},
            {"label": "x"},
            {"where": "choice == 1"},
            {"source_params": {"bin_s": 1.0}},
        )
    }
    assert len(keys) == 4


def test_a_real_session(real_data):
    path = real_data("ibl_session_binned.npz")
    own = {
        "names": {"counts": "spikes", "area": "region"},
        "axes": ["trial", "unit", "time"],
        "bin_s": 0.02,
    }
    binned = opened(path, label="", source_params=own)
    assert binned.counts.shape == (294, 50, 449) and int(binned.counts.max()) == 11
    assert {"wheel_speed", "motion_energy", "pupil_diameter", "paw_speed"} <= set(binned.data_vars)


PER_BIN, PER_TRIAL = np.arange(1, 6) * 0.01, np.arange(1, 6) * 0.1  # as many trials as bins


@pytest.mark.parametrize(
    ("axes", "bin_s", "is_per_bin"),
    [
        (("time",), PER_BIN, True),
        (("trial",), PER_TRIAL, False),
        (("trial", "time"), np.tile(PER_BIN, (5, 1)), True),
        (("time", "trial"), np.tile(PER_TRIAL, (5, 1)), False),
    ],
)
def test_named_axes_tell_whether_widths_are_of_bins_or_of_trials(tmp_path, axes, bin_s, is_per_bin):
    arrays = {
        "counts": (("trial", "time", "unit"), COUNTS[:5]), "bin_s": (axes, bin_s),
        "choice": ("trial", [0, 1, 0, 1, 0]),
    }  # fmt: skip
    path = tmp_path / "counts.nc"
    xr.Dataset(arrays).to_netcdf(path, engine="h5netcdf")
    expected = np.tile(PER_BIN, (5, 1)) if is_per_bin else np.tile(PER_TRIAL, (5, 1)).T
    np.testing.assert_allclose(opened(path).exposure_s, expected)


def test_widths_of_bins_or_of_trials_are_not_guessed(tmp_path):
    five = {"counts": COUNTS[:5], "bin_s": PER_BIN, "choice": np.array([0, 1, 0, 1, 0])}
    path = written(tmp_path, five)
    with pytest.raises(
        BadInput, match=r"bin_s holds 5 numbers.* one a bin, or one a trial\?.* \(trial, time\)"
    ):
        opened(path)
    path = written(tmp_path, five | {"counts": COUNTS[:5, :3], "bin_s": PER_TRIAL})
    np.testing.assert_allclose(opened(path).exposure_s, np.tile(PER_TRIAL, (3, 1)).T)
    lying = {
        "counts": (("trial", "time", "unit"), COUNTS[:5]),
        "bin_s": ((), 0.1),
        "start_s": ("time", PER_TRIAL),
    }
    path = tmp_path / "counts.nc"
    xr.Dataset(lying | {"choice": ("trial", five["choice"])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(BadInput, match="start_s must hold one finite time for each of 5 trials"):
        opened(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"counts": COUNTS * np.uint8(3)}, "All counts are multiples of 3"),
        (
            {"bin_s": 20.0, "start_s": np.arange(12) * 200.0},
            "Bins last up to 20 s; if bin_s is in milli",
        ),
        (
            {"start_s": np.arange(12) * 2000.0},
            "Trials of 0.1 s start 2000 s apart; if start_s is in",
        ),
    ],
)
def test_what_is_probably_scaled_or_in_milliseconds_is_told(tmp_path, change, says):
    assert says in opened(written(tmp_path, SOUND | change)).attrs["odd"]


def test_rates_that_are_whole_numbers_are_refused(tmp_path):
    path = written(tmp_path, SOUND | {"counts": COUNTS * np.float64(50)})
    with pytest.raises(BadInput, match="multiples of 50, which is 1 / bin_s: these are rates"):
        opened(path)


def test_trials_and_units_that_stand_twice_are_told(tmp_path):
    assert "odd" not in opened(written(tmp_path, SOUND)).attrs
    twice = COUNTS.copy()
    twice[7], twice[:, :, 2] = twice[3], twice[:, :, 0]
    odd = opened(written(tmp_path, SOUND | {"counts": twice})).attrs["odd"]
    assert "1 trials have the very counts of another trial" in odd
    assert "1 units have the very counts of another unit" in odd


def test_files_of_other_kinds_are_named(tmp_path):
    """MATLAB 7.3 is HDF5 with the axes in the other order: read as it is, units would be trials."""
    path = tmp_path / "counts.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["counts"], file["bin_s"] = COUNTS.T.astype(float), [[0.02]]
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))
    with pytest.raises(
        BadInput, match=r"counts\.mat: this is a MATLAB file; counts are read from .npz and"
    ):
        opened(path)
    with h5py.File(path) as file:  # the advice
        np.savez(tmp_path / "counts.npz", counts=file["counts"][()].T, bin_s=file["bin_s"][()])
    np.testing.assert_array_equal(opened(tmp_path / "counts.npz", label="").counts, COUNTS)
    path.write_bytes(b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(200))
    with pytest.raises(BadInput, match="this is a MATLAB file"):
        opened(path)
    np.save(tmp_path / "counts.npy", COUNTS)
    with pytest.raises(BadInput, match=r"counts\.npy: this is neither an \.npz nor an HDF5 file"):
        opened(tmp_path / "counts.npy")


def test_a_column_of_bad_trials_is_told(tmp_path):
    path = written(tmp_path, SOUND | {"bad": np.arange(12) == 1})
    assert (
        "To leave such trials out, set in the recipe  where: bad == False"
        in opened(path).attrs["odd"]
    )
    assert len(opened(path, where="bad == False").trial) == 7
