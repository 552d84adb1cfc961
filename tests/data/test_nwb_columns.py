"""Columns, series, links and files of every kind: read right, or named with what they are."""

import itertools
import sys

import h5py
import numpy as np
import pytest
from nwb_files import electrodes, opened, text, trains

from nblib.core import params
from nblib.core.errors import BadInput, BadParameter, MissingInput
from nblib.data import counts_dataset, opening
from nblib.data.checks import session_report
from nblib.data.files import hdf5, require_file
from nblib.data.nwb import electrodes as nwb_electrodes
from nblib.prepare import binning, cleaning

TRIALS = "intervals/trials"
UNITS = ["a", "b", "c", "d"]


def column(name, values, place=TRIALS, **how):
    """What puts a column into a table in place of the one that is there."""

    def change(file):
        if name in file[place]:
            del file[place][name]
        file[place].create_dataset(name, data=values, **how)

    return change


def coded(codes, elements="elements"):
    """What puts an EnumData column `kind` of words with "ä" into the trials."""

    def change(file):
        words = text(file[TRIALS], "kind_elements", ["ä", "b"])
        made = file[TRIALS].create_dataset("kind", data=np.array(codes))
        made.attrs["neurodata_type"] = "EnumData"
        if elements:
            made.attrs[elements] = words.ref

    return change


def ragged(values, stops, name="kind", depth=1):
    def change(file):
        file[TRIALS][name] = values
        for level in range(1, depth + 1):
            file[TRIALS][name + level * "_index"] = stops

    return change


def references(file):
    made = file[TRIALS].create_dataset("kind", (6,), dtype=h5py.ref_dtype)
    made[...] = [file["units"].ref, file[TRIALS].ref, *[file["units"].ref] * 4]


def dead_reference(file):
    references(file)
    file["intervals/other"] = h5py.SoftLink("/gone")
    gone = file.create_group("gone")
    file[TRIALS]["kind"][5] = gone.ref
    del file["gone"]


def unreadable(group, name):
    """A data set of times of day, a type that h5py does not know."""
    space = h5py.h5s.create_simple((6,))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.UNIX_D32LE, space)


def virtual(file):
    layout = h5py.VirtualLayout((6,), "f8")
    layout[:] = h5py.VirtualSource("lost.h5", "x", (6,))
    file[TRIALS].create_virtual_dataset("kind", layout)


LATIN = "ü".encode("latin-1")
SWITCH = h5py.enum_dtype({"left": 0, "right": 1}, basetype="i1")


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        (column("kind", np.arange(6.0).reshape(-1, 1)), [0, 1, 2, 3, 4, 5]),
        (column("kind", np.arange(6.0).reshape(1, -1)), [0, 1, 2, 3, 4, 5]),
        (column("kind", np.array(["ü", "猫", *"abcd"], object), dtype=h5py.string_dtype()), ["ü", "猫", *"abcd"]),
        (column("kind", np.array([LATIN, *[b"a"] * 5])), ["ü", *"aaaaa"]),
        (column("kind", np.array([b"a\0x", b"a\0y", *[b"b"] * 4])), [*"aabbbb"]),  # what a buffer held before
        (column("kind", np.array(["ü".encode(), *[b"a"] * 5]).reshape(-1, 1)), ["ü", *"aaaaa"]),
        (column("kind", np.array([LATIN, "ü".encode(), *[b"a"] * 4], object), dtype=h5py.string_dtype()), ["ü", "Ã¼", *"aaaa"]),
        (column("kind", np.array([0, 1, 1, 0, 0, 1], "i1"), dtype=SWITCH), ["left", "right", "right", "left", "left", "right"]),
        (coded([[0], [1], [1], [0], [1], [0]]), ["ä", "b", "b", "ä", "b", "ä"]),
        (ragged([[c.encode()] for c in "pqrstu"], np.arange(1, 7).reshape(-1, 1)), list("pqrstu")),
        (references, ["units", "trials", *["units"] * 4]),
    ],
)  # fmt: skip
def test_a_label_column_of_any_kind_is_read(layout, change, labels):
    assert opened(layout(change), label="kind").trial_table["label"].tolist() == labels


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (column("kind", np.zeros((6, 3))), r"is there, but its shape is \(6, 3\)"),
        (column("kind", 3.0), r"is there, but its shape is \(\)"),
        (column("kind", np.zeros(6, [("at", "i4"), ("what", "f8")])), "is made of at, what"),
        (lambda f: f[TRIALS].create_dataset("kind", (6,), h5py.vlen_dtype("i4")), "each value is a list"),
        (lambda f: f[TRIALS].create_dataset("kind", (6,), h5py.regionref_dtype), "a region of other data"),
        (lambda f: f[TRIALS].create_group("kind"), "is there, but it is a group"),
        (ragged(np.arange(8.0), [1, 2, 3, 4, 5, 8]), r"holds lists, in row 0 \[0.0\]"),
        (ragged(np.arange(6.0), np.arange(1, 7), depth=2), "each row is a list of lists"),
        (column("kind", np.array([0, 1, 1, 0, 0, 3], "i1"), dtype=SWITCH), r"holds 3 in row 5.*\(left, right\)"),
        (coded([0, 1, 7, 0, 1, 0]), "holds 7 in row 2, which is none of its 2 elements"),
        (coded(np.array([0, -1, 1, 0, 1, 0])), "holds -1 in row 1"),
        (coded([0, 1, 1, 0, 1, 0], elements=""), "the elements it refers to cannot be read"),
        (dead_reference, "trials/kind refers to what is not in the file, in row 5"),
        (lambda f: f[TRIALS].attrs.__setitem__("colnames", ["stim", "kind"]), "is not there, though the table lists it"),
        (lambda f: f[TRIALS].__setitem__("kind", h5py.SoftLink("/no")), "is a link to /no, which is not in this file"),
        (lambda f: f[TRIALS].__setitem__("kind", h5py.ExternalLink("lost.nwb", "/a")), r"is a link to /a in the file lost.nwb, which is not there; put that file at .*lost\.nwb"),
        (lambda f: unreadable(f[TRIALS], "kind"), "kind cannot be read .No NumPy equivalent"),
        (virtual, "takes its values from the file lost.h5, which is not there"),
    ],
)  # fmt: skip
def test_a_label_column_that_is_no_label_is_named(layout, change, says):
    path = layout(change)
    with pytest.raises(BadInput, match=says) as error:
        opened(path, label="kind")
    told = str(error.value)
    assert told.startswith(f"{path}: trials") and "'kind'" in told and "`label`" in told
    assert "no column" not in told and "damaged" not in told
    report = session_report(opened(path))  # what is not needed stops nothing
    assert report.tables["summary"].set_index("item").value["presentations"] == 6


def test_what_an_event_and_a_time_need(layout):
    """Any column that is asked for goes through the same door."""
    how = {"binning": "edges", "edges_s": [0.0, 0.1]}

    def count(change, event):
        settings = params.BinSettings(event=event, **how)
        return binning.bin_recording(opened(layout(change)), settings)

    with pytest.raises(BadInput, match=r"column 'go' holds 'x' in row 5; a number is needed"):
        count(lambda f: text(f[TRIALS], "go", [*"01234", "x"]), "go")
    with pytest.raises(BadInput, match=r"'go' cannot be used: is there, but its shape is \(6, 2\)"):
        count(column("go", np.zeros((6, 2))), "go")
    assert len(count(lambda f: text(f[TRIALS], "go", list("012345")), "go").trial) == 6
    with pytest.raises(BadInput, match=r"trials: column 'start_time' holds 'x' in row 1"):
        opened(layout(lambda f: (f.__delitem__(f"{TRIALS}/start_time"), text(f[TRIALS], "start_time", ["0", *"x2345"]))))  # fmt: skip
    with pytest.raises(BadInput, match=r"'stop_time' cannot be used: .*its shape is \(6, 2\)"):
        opened(layout(column("stop_time", np.zeros((6, 2)))))


# --- links and tables ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    ["units", "units/id", "units/spike_times", "units/spike_times_index", "intervals", TRIALS,
     f"{TRIALS}/start_time", nwb_electrodes.PLACE],
)  # fmt: skip
@pytest.mark.parametrize("link", [h5py.SoftLink("/no"), h5py.ExternalLink("lost.nwb", "/no")])
def test_a_dead_link_names_its_place_and_its_target(layout, place, link):
    def change(file):
        electrodes(file)
        del file[place]
        file[place] = link

    says = "/no, which is not in this file" if isinstance(link, h5py.SoftLink) else "lost.nwb"
    with pytest.raises(BadInput, match=f"{place} is a link to /no.*{says[-8:]}") as error:
        opened(layout(change))
    assert "damaged" not in str(error.value)


def test_an_external_link_to_a_file_without_it(layout, tmp_path):
    with h5py.File(tmp_path / "sorting.nwb", "w") as file:
        file["else"] = 1.0

    def change(file):
        del file["units/spike_times"]
        file["units/spike_times"] = h5py.ExternalLink("sorting.nwb", "/spike_times")

    path = layout(change)
    with pytest.raises(BadInput, match=r"in the file sorting\.nwb, which holds no such thing"):
        opened(path)
    (tmp_path / "sorting.nwb").write_text("no HDF5")
    with pytest.raises(BadInput, match=r"in the file sorting\.nwb, which is not an HDF5 file"):
        opened(path)
    (tmp_path / "sorting.nwb").unlink()
    with h5py.File(tmp_path / "sorting.nwb", "w") as file:  # as the message says
        file["spike_times"] = np.concatenate(trains())
    np.testing.assert_array_equal(opened(path).spike_times(2), trains()[2])


def test_another_table_that_cannot_be_read_is_told(layout):
    def change(file):
        file["intervals/licks"] = h5py.SoftLink("/gone")
        file.copy(TRIALS, file["intervals"], "other")
        file["intervals/other/extra"] = h5py.ExternalLink("lost.nwb", "/x")

    odd = "\n".join(session_report(opened(layout(change))).odd)
    assert "interval table licks is left out, since it cannot be read" in odd
    assert "other: column 'extra' is left out: intervals/other/extra is a link to /x" in odd


def test_a_table_that_is_no_interval_table_is_not_called_absent(layout):
    path = layout(lambda f: f.create_group("intervals/odd").create_dataset("at", data=np.arange(3)))
    with pytest.raises(BadInput, match="intervals/odd is there, but is no interval table"):
        opened(path, intervals="odd")


# --- units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(-1, 1), (1, -1)])
@pytest.mark.parametrize("how", [{}, {"chunks": True, "compression": "gzip"}])
def test_spike_times_of_matlab_shapes(layout, shape, how):
    def change(file):
        times, index = (file[f"units/{n}"][()] for n in ("spike_times", "spike_times_index"))
        column("spike_times", times.reshape(shape), "units", **how)(file)
        column("spike_times_index", index.reshape(shape), "units")(file)
        column("id", np.arange(4).reshape(shape), "units")(file)

    recording = opened(layout(change))
    for i, train in enumerate(trains()):
        np.testing.assert_array_equal(recording.spike_times(i), train)


def regions(file, gap=0):
    """The index of NWB 2.0b: a region of the spike times for each unit."""
    stops = np.r_[0, file["units/spike_times_index"][()].astype(int)]
    del file["units/spike_times_index"]
    made = file["units"].create_dataset("spike_times_index", (4,), h5py.regionref_dtype)
    for unit, (lo, hi) in enumerate(itertools.pairwise(stops)):
        if hi > lo:
            made[unit] = file["units/spike_times"].regionref[lo + gap : hi]


def test_an_index_of_region_references(layout):
    recording = opened(layout(regions))
    for i, train in enumerate(trains()):
        np.testing.assert_array_equal(recording.spike_times(i), train)
    with pytest.raises(BadInput, match="spike_times_index leaves gaps: row 0 begins at 1"):
        opened(layout(lambda file: regions(file, 1)))


@pytest.mark.parametrize(
    ("ids", "read"),
    [
        (np.array(["ä1", *"bcd"], object), ["ä1", *"bcd"]),
        (np.array([b"\xe91", b"b", b"c", b"d"]), ["é1", *"bcd"]),
        (np.array([[b"x"], [b"b"], [b"c"], [b"d"]]), ["x", *"bcd"]),
    ],
)
def test_text_comes_back_from_stored_counts(layout, tmp_path, ids, read):
    def change(file):
        how = {"dtype": h5py.string_dtype()} if ids.dtype == object else {}
        column("id", ids, "units", **how)(file)
        text(file["units"], "location", ["Área 5", "CA1", "", "猫"])
        text(file["units"], "channel", ["A-000", "A-001", "A-002", "A-003"])
        text(file["units"], "x", ["1", "?", "2", "3"])
        column("stim", np.array(["45°", "90°", "猫"] * 2, object), dtype=h5py.string_dtype())(file)

    recording = opened(layout(change))
    assert recording.units.index.tolist() == read
    binned = binning.bin_recording(recording, params.BinSettings())
    counts_dataset.save(binned, tmp_path)
    back = counts_dataset.load(tmp_path)
    assert back.unit.values.tolist() == read
    assert back.label.values.tolist() == ["45°", "90°", "猫"] * 2
    assert back.area.values.tolist() == ["Área 5", "CA1", "", "猫"]
    assert back.channel.values.tolist() == ["A-000", "A-001", "A-002", "A-003"]
    assert back.x.values.tolist() == ["1", "?", "2", "3"]
    assert any("column 'x' holds '?' in row 1" in note for note in recording.meta["notes"])


def test_quality_as_text_is_read_or_named(layout):
    def change(file):
        text(file["units"], "isi_violations", ["0.1", "bad", "0.2", "0.3"])
        text(file["units"], "presence_ratio", ["1", "0.5", "", "0.99"])

    recording = opened(layout(change))
    np.testing.assert_array_equal(recording.units["presence_ratio"], [1, 0.5, np.nan, 0.99])
    session_report(recording)
    binned = binning.bin_recording(recording, params.BinSettings())
    with pytest.raises(
        BadInput, match=r"x\.nwb: units column 'isi_violations' holds 'bad' in row 1"
    ):
        cleaning.clean(binned, recording, params.CleanSettings(isi_violations_max=0.5))


@pytest.mark.parametrize(
    ("name", "values", "region", "areas", "says"),
    [
        ("max_electrode", [[3], [2], [0], [1]], True, ["CA3", "", "CA1", "VISp"], "electrode in 'max_electrode'"),
        ("electrode_id", [503, 502, 500, 501], False, ["CA3", "", "CA1", "VISp"], "electrode in 'electrode_id'"),
        ("peak_channel", [0, 1, 2, 3], False, None, "areas are unknown"),
        ("max_channel", [503, 502, 500, 501], False, ["CA3", "", "CA1", "VISp"], "electrode in 'max_channel'"),
        ("max_channel", ["A-1", "A-2", "A-3", "A-4"], False, None, "areas are unknown"),
        ("electrode_id", [1, 2, 3, 4], False, None, "areas are unknown"),
        ("anything", [3, 2, 0, 1], True, None, "areas are unknown"),
    ],
)  # fmt: skip
def test_the_column_that_names_an_electrode(layout, name, values, region, areas, says):
    def change(file):
        electrodes(file)
        column(name, np.array(values, "S3" if values[0] == "A-1" else int), "units")(file)
        if region:
            file["units"][name].attrs["neurodata_type"] = "DynamicTableRegion"
            file["units"][name].attrs["table"] = file[nwb_electrodes.PLACE].ref

    recording = opened(layout(change))
    assert (recording.units["area"].tolist() if "area" in recording.units else None) == areas
    assert any(says in note for note in recording.meta["notes"])


@pytest.mark.parametrize("name", ["electrode_id", "electrode", "channel_id", "max_channel"])
@pytest.mark.parametrize("first_id", [0, 1])
@pytest.mark.parametrize("n_probes", [1, 2])
def test_small_numbers_are_electrodes_only_where_nothing_else_fits(
    layout, name, first_id, n_probes
):
    """They may be ids, rows (where ids begin at 1) or channels counted anew on each probe."""

    def change(file):
        electrodes(file)
        table = file[nwb_electrodes.PLACE]
        table["id"][...] = first_id + np.arange(4)
        if n_probes == 1:
            table["group_name"][...] = ["shank0"] * 4
        file["units"][name] = np.array([1, 2, 3, 3])

    known = (first_id == 0 or name.endswith("_id")) and (n_probes == 1 or "electrode" in name)
    assert ("area" in opened(layout(change)).units) == known


def test_the_area_of_an_electrode_group(layout):
    def change(file):
        made = file["units"].create_dataset("electrode_group", (4,), dtype=h5py.ref_dtype)
        for unit, area in enumerate(("CA1", "Área", "CA1", "Área")):
            group = file.require_group(f"{nwb_electrodes.GROUPS}/probe{unit % 2}")
            if "location" not in group:
                text(group, "location", area)
            made[unit] = group.ref

    recording = opened(layout(change))
    assert recording.units["area"].tolist() == ["CA1", "Área", "CA1", "Área"]
    assert "Areas of units are those of their electrode group." in recording.meta["notes"]


def test_units_elsewhere_and_files_before_nwb_2(layout):
    def moved(file):
        file.create_group("processing/ecephys")
        file.move("units", "processing/ecephys/sorted")

    path = layout(moved)
    with pytest.raises(BadInput, match="no units table at /units, but one at processing/ecephys/s"):
        opened(path)
    with h5py.File(path, "r+") as file:  # as the message says
        file["units"] = file["processing/ecephys/sorted"]
    assert opened(path).n_units == 4
    with pytest.raises(BadInput, match=r"version NWB-1\.0\.6, written before NWB 2"):
        opened(layout(lambda f: text(f, "nwb_version", "NWB-1.0.6")))


# --- series ----------------------------------------------------------------------------------------


def series(file, place, data=None, **attributes):
    group = file.create_group(place)
    group["data"] = np.arange(6.0) if data is None else data
    group["starting_time"] = np.array([1.5])
    group["starting_time"].attrs["rate"] = np.array([10.0])
    group["data"].attrs.update(attributes)
    return group


def test_a_broken_series_is_left_out_and_told(layout):
    def change(file):
        series(file, "processing/b/good", conversion=np.array([2.0]), unit=np.array([b"V"]))
        series(file, "processing/b/two", conversion=[1.0, 2.0])
        series(file, "processing/b/word", conversion="mV")
        series(file, "processing/b/still")["starting_time"].attrs["rate"] = 0.0
        del series(file, "processing/b/norate")["starting_time"].attrs["rate"]
        del series(file, "processing/b/noclock")["starting_time"]
        file["processing/b/noclock"].attrs["neurodata_type"] = "TimeSeries"
        series(file, "processing/b/short")["timestamps"] = np.arange(5.0)
        series(file, "processing/b/dead")["timestamps"] = h5py.ExternalLink("lost.nwb", "/t")
        unreadable(file.create_group("acquisition/odd"), "data")
        file["acquisition/odd/timestamps"] = np.arange(6.0)
        file["acquisition/far"] = h5py.ExternalLink("lost.nwb", "/far")
        file["acquisition/alias"] = h5py.SoftLink("/processing/b/good")

    recording = opened(layout(change))
    assert list(recording.series) == ["good"]
    good = recording.series["good"]
    assert good.read(0, 2).tolist() == [0.0, 2.0] and (good.rate_hz, good.start_s) == (10.0, 1.5)
    odd = "\n".join(session_report(recording).odd)
    for says in (
        "b/two/data: the attribute 'conversion' is [1.0, 2.0]", "b/word/data: the attribute",
        "b/still/starting_time gives a rate of 0 Hz", "b/norate/starting_time: the attribute 'rate' is not there",
        "b/noclock has neither timestamps nor a starting_time", "b/short/timestamps has 5 entries for 6 samples",
        "b/dead/timestamps is a link to /t in the file lost.nwb", "acquisition/odd/data cannot be read",
        "acquisition/far is a link to /far in the file lost.nwb",
    ):  # fmt: skip
        assert odd.count(says) == 1, says


def test_a_series_in_another_file_is_read_through_its_link(layout, tmp_path):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        series(file, "a/speed")

    def change(file):
        file["acquisition/wheel"] = h5py.ExternalLink("raw.h5", "/a/speed")

    assert opened(layout(change)).series["wheel"].read(4, 6).tolist() == [4.0, 5.0]


def _start(group, value):
    """Another starting time, at the rate that was."""
    rate = group["starting_time"].attrs["rate"]
    del group["starting_time"]
    group.create_dataset("starting_time", data=value).attrs["rate"] = rate


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: g["starting_time"].attrs.__delitem__("rate"), "lfp/starting_time: the attribute 'rate'"),
        (lambda g: _start(g, "soon"), r"lfp/starting_time is \[b'soon'\]; one number"),
        (lambda g: _start(g, np.empty(0)), r"lfp/starting_time is \[\]; one number"),
        (lambda g: g["data"].attrs.__setitem__("conversion", np.nan), r"the attribute 'conversion' is \[nan\]; one number"),
        (lambda g: (g.__delitem__("data"), g.__setitem__("data", h5py.ExternalLink("raw.nwb", "/x"))), "acquisition/lfp/data is a link to /x in the file raw.nwb"),
        (lambda g: (g.__delitem__("data"), g.__setitem__("data", np.zeros((6, 2, 2)))), r"lfp/data is float64 of shape \(6, 2, 2\)"),
        (lambda g: g["electrodes"].__setitem__(1, 9), "lfp/electrodes points at row 9 of an electrodes table of 4"),
        (lambda g: (g.__delitem__("electrodes"), g.__setitem__("electrodes", [0])), "lfp/electrodes has 1 entries for 2 channels"),
        (lambda g: (g.file.__delitem__(f"{nwb_electrodes.PLACE}/location"), g.file.__setitem__(f"{nwb_electrodes.PLACE}/location", h5py.SoftLink("/no"))), "column 'location' cannot be used"),
    ],
)  # fmt: skip
def test_a_potential_that_is_needed_is_refused_with_its_field(layout, change, says):
    def whole(file):
        electrodes(file, areas=("Área", "CA1", "", "CA3"))
        group = series(file, "acquisition/lfp", np.zeros((6, 2)))
        group.attrs["neurodata_type"] = np.array([b"ElectricalSeries"])
        group["electrodes"] = np.array([[0], [1]])

    given = {"path": str(layout(whole)), "intervals": "trials", "label": "stim"}
    recipe = params.Recipe(recipe="r", recordings=["a"], source="lfp_nwb", **given)
    assert opening.open_recording(recipe, "a").meta["channels"] == ["CA1", "Área"]
    with h5py.File(given["path"], "r+") as file:
        change(file["acquisition/lfp"])
    with pytest.raises(BadInput, match=says):
        opening.open_recording(recipe, "a")


# --- files -----------------------------------------------------------------------------------------


def test_a_filter_that_is_not_here_is_named(layout):
    def change(file):
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((100,))
        settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple((sum(map(len, trains())),))
        del file["units/spike_times"]
        h5py.h5d.create(file["units"].id, b"spike_times", h5py.h5t.IEEE_F64LE, space, settings)

    if h5py.h5z.filter_avail(32015):
        pytest.skip("zstd is installed here")
    says = (
        r"units/spike_times is compressed with zstd \(HDF5 filter 32015\).*pip install hdf5plugin"
    )
    with pytest.raises(BadInput, match=says) as error:
        opened(layout(change))
    assert "damaged" not in str(error.value)


def test_hdf5plugin_is_taken_where_it_is_installed(tmp_path, monkeypatch):
    """A stand-in of that name is imported when a filter lacks, and only then."""
    (tmp_path / "hdf5plugin.py").write_text("imported = True")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hdf5plugin", raising=False)
    assert not hdf5._plugged_in(65000)  # no such filter
    assert sys.modules.pop("hdf5plugin").imported


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "no such file; check `path`"),
        (lambda p: p.mkdir(), "this is a folder; give the path of the file"),
        (lambda p: (p.mkdir(), (p / "zarr.json").write_text("{}")), "this is a Zarr folder"),
        (lambda p: p.symlink_to("../.git/annex/objects/a/b"), "not fetched, git-annex .* `git annex get x.nwb`"),
        (lambda p: p.symlink_to("lost.nwb"), "this is a link to lost.nwb, which is not there"),
        (lambda p: p.write_text("/annex/objects/MD5-s1--00.nwb\n"), "not fetched, git-annex"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), "Git LFS .* `git lfs pull --include=x.nwb`"),
    ],
)  # fmt: skip
def test_what_is_no_file_is_said(tmp_path, make, says):
    path = tmp_path / "x.nwb"
    make(path)
    for door in (require_file, opened):
        with pytest.raises(MissingInput, match=f"x.nwb: .*{says}"):
            door(path)


def test_names_that_are_no_utf8_are_told(layout):
    def change(file):
        h5py.h5g.create(file["units"].id, b"\xe9lectrode")
        h5py.h5g.create(file.create_group("acquisition").id, b"\xe9lan")

    notes = "\n".join(opened(layout(change)).meta["notes"])
    assert "units: column 'électrode' is left out: is there, but its name is not UTF-8" in notes
    assert "Left out: acquisition/élan has a name that is not UTF-8" in notes


def test_damage_is_told_from_what_the_system_refuses():
    def fails(message):
        with hdf5.read_errors("x", "y"):
            raise OSError(message)

    refused = "file read failed: errno = 5, error message = 'Input/output error'"
    with pytest.raises(BadInput, match="x: y cannot be read: Input/output error"):
        fails(refused)
    with pytest.raises(BadInput, match="its bytes are damaged"):
        fails("filter returned failure during read")


@pytest.mark.parametrize(
    "address", ["https://a.org/b.nwb", "s3://bucket/{recording}.nwb", "dandi://a/b"]
)
def test_a_web_address_is_no_path(address):
    recipe = params.Recipe(recipe="r", recordings=["a"], source="nwb", path=address, intervals="t", label="l")  # fmt: skip
    with pytest.raises(BadParameter, match="is a web address"):
        recipe.file("a")
