"""Fetching from the warehouse loses nothing and leaves nothing half-done; local tables are joined.

The SDK's own query and download code runs, against a warehouse on this machine.
"""

import os
import platform
import resource
import shutil
import threading
import time

import h5py
import numpy as np
import pandas as pd
import pytest
from forks import Fork
from PIL import Image
from warehouse import OTHER, SCENES, Warehouse, write_session

from nblib.core.errors import BadInput, BadParameter, MissingInput, StorageError
from nblib.core.params import Recipe
from nblib.data import allen, opening, sources
from nblib.data.allen import warehouse
from nblib.data.checks import session_report
from nblib.data.files import hashes
from nblib.road import stages

pytest.importorskip("allensdk", reason="allensdk is not installed")
ONE, TWO = "715093703", "719161530"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("warehouse")
    write_session(root / f"{ONE}.nwb", ONE)
    return root


@pytest.fixture
def house(files, home, monkeypatch):
    house = Warehouse(files, {int(TWO): OTHER, int(ONE): SCENES})
    server = house.start()
    monkeypatch.setenv("NBLIB_ALLEN_WAREHOUSE", house.address)
    monkeypatch.setattr(warehouse, "PAUSES_S", (0.0,))
    monkeypatch.setattr(warehouse, "CHUNK_BYTES", 5_000)
    yield house
    server.shutdown()
    server.server_close()


def left_behind(home):
    """Everything under the data root, folders too."""
    return sorted(str(p.relative_to(home)) for p in home.rglob("*"))


def original(house):
    return (house.root / f"{ONE}.nwb").read_bytes()


# --- listing ---------------------------------------------------------------------------------------


def test_sessions_with_natural_scenes_are_listed(house):
    table = allen.list_sessions()
    assert table.index.tolist() == [ONE] and not table.downloaded.any()
    assert allen.list_sessions("").index.tolist() == [ONE, TWO]
    allen.download(ONE)
    assert allen.list_sessions("").downloaded.to_dict() == {ONE: True, TWO: False}


@pytest.mark.parametrize("fault", [500, 503, "html", "refuse"])
def test_a_query_that_fails_once_is_asked_again(house, fault):
    house.query_faults = [fault]
    assert allen.list_sessions().index.tolist() == [ONE]
    assert house.n_queries == 2


def test_tries_are_bounded_and_the_error_says_what_to_do(house, home):
    house.query_faults = [500] * 50
    with pytest.raises(MissingInput, match=r"5 tries.*HTTP 500.*NBLIB_ALLEN_WAREHOUSE"):
        allen.list_sessions()
    assert house.n_queries == warehouse.TRIES
    house.n_queries, house.query_faults = 0, [404]
    with pytest.raises(MissingInput, match=r"in 1 tries.*HTTP 404"):
        allen.list_sessions()
    assert house.n_queries == 1  # the answer is final


def test_no_warehouse_at_all(home, monkeypatch):
    monkeypatch.setattr(warehouse, "PAUSES_S", (0.0,))
    monkeypatch.setenv("NBLIB_ALLEN_WAREHOUSE", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(MissingInput, match="could not be fetched"):
        allen.download(ONE)
    assert left_behind(home) == []
    monkeypatch.setenv("NBLIB_ALLEN_WAREHOUSE", "ftp://somewhere")
    with pytest.raises(BadParameter, match="NBLIB_ALLEN_WAREHOUSE"):
        allen.list_sessions()


@pytest.mark.parametrize("silent", [False, True])
def test_a_list_without_network_is_refused_within_seconds(home, monkeypatch, silent):
    """Refused at once, or by a network that never answers, as behind many firewalls."""
    monkeypatch.setenv("NBLIB_ALLEN_WAREHOUSE", "http://127.0.0.1:9")
    said = "no answer within 3 s" if silent else "refused"
    if silent:

        def never(*_given, **_more):
            time.sleep(9)
            raise OSError("too late")

        monkeypatch.setattr(warehouse.socket, "create_connection", never)
    began = time.monotonic()
    with pytest.raises(MissingInput, match=f"127.0.0.1:9 cannot be reached from here .*{said}"):
        allen.list_sessions()
    assert time.monotonic() - began < 5


# --- downloading -----------------------------------------------------------------------------------


def test_a_download_is_the_file_and_a_second_call_asks_nothing(house, home):
    path = allen.download(ONE)
    assert path == home / "raw" / "allen" / f"session_{ONE}" / f"session_{ONE}.nwb"
    assert path.read_bytes() == original(house)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    asked = house.n_queries + len(house.asked)
    assert allen.download(ONE) == path
    assert house.n_queries + len(house.asked) == asked


def test_a_body_cut_short_goes_on_where_it_stopped(house):
    house.faults = [("cut", 20_000), ("cut", 15_000)]
    assert allen.download(ONE).read_bytes() == original(house)
    assert [wanted for _, wanted in house.asked] == [None, "bytes=20000-", "bytes=35000-"]


def test_a_server_that_cannot_go_on_is_asked_from_the_start(house):
    house.resumable = False
    house.faults = [("cut", 20_000)]
    assert allen.download(ONE).read_bytes() == original(house)
    assert [wanted for _, wanted in house.asked] == [None, None]


def test_another_part_than_asked_for_is_not_glued_on(house):
    house.faults = [("cut", 20_000), ("wrong part", 7)]
    assert allen.download(ONE).read_bytes() == original(house)
    assert [wanted for _, wanted in house.asked] == [None, "bytes=20000-", None]


def test_a_server_that_falls_silent_is_not_waited_for(house, monkeypatch):
    monkeypatch.setattr(warehouse, "STALL_S", 0.3)
    house.faults = [("stall", 20_000)]
    begun = time.monotonic()
    assert allen.download(ONE).read_bytes() == original(house)
    assert time.monotonic() - begun < 1.4
    assert [wanted for _, wanted in house.asked] == [None, "bytes=20000-"]


def test_an_error_page_is_tried_again_and_never_kept(house):
    house.faults = [500, 503]
    assert allen.download(ONE).read_bytes() == original(house)
    assert len(house.asked) == 3


@pytest.mark.parametrize(
    ("faults", "error", "says"),
    [
        ([("cut", 100)] * 50, MissingInput, "5 tries"),
        ([500] * 50, MissingInput, "HTTP 500"),
        ([404], MissingInput, "HTTP 404"),
        ([("body", b"<html>we are down</html>")], BadInput, "not an HDF5 file"),
        ([("body", b"")] * 50, MissingInput, "0 of"),
    ],
)
def test_a_failed_download_leaves_nothing(house, home, faults, error, says):
    house.resumable = False
    house.faults = faults
    with pytest.raises(error, match=says):
        allen.download(ONE)
    assert left_behind(home) == []


def test_without_a_stated_length_a_short_body_is_found_out(house, home):
    house.with_length = False
    house.faults = [("cut", 20_000)]
    with pytest.raises(BadInput, match="truncated"):
        allen.download(ONE)
    assert left_behind(home) == []
    assert allen.download(ONE).read_bytes() == original(house)


@pytest.mark.parametrize("fault", [("body", b"garbage"), 404, ("cut", 10)])
def test_a_verified_file_survives_whatever_happens(house, home, fault):
    house.resumable = False
    path = allen.download(ONE)
    house.faults = [fault] * 50
    with pytest.raises((BadInput, MissingInput)):
        allen.download(ONE, again=True)
    assert path.read_bytes() == original(house)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_broken_file_is_replaced_by_a_verified_one_only(house, capsys):
    path = allen.download(ONE)
    broken = original(house)[:30_000]
    path.write_bytes(broken)
    house.faults = [404]
    with pytest.raises(MissingInput):
        allen.download(ONE)
    assert path.read_bytes() == broken  # still there: nothing better came
    assert allen.download(ONE).read_bytes() == original(house)
    assert "truncated" in capsys.readouterr().err


def test_the_file_of_another_session_is_refused(house, home, tmp_path):
    other = write_session(tmp_path / "other.nwb", TWO).read_bytes()
    house.faults = [("body", other)]
    with pytest.raises(BadInput, match=f"expected session {ONE}.*{TWO}"):
        allen.download(ONE)
    assert left_behind(home) == []


def test_a_session_the_warehouse_does_not_hold(house, home):
    with pytest.raises(BadParameter, match="nblib allen list"):
        allen.download(TWO)
    assert house.n_queries == 1 and left_behind(home) == []
    with pytest.raises(BadParameter, match="digits only"):
        allen.download("../715093703")


def test_a_full_disk_is_said_before_and_during(house, home, monkeypatch):
    def small(_):
        return shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000)

    with monkeypatch.context() as patch:
        patch.setattr(warehouse.shutil, "disk_usage", small)
        with pytest.raises(StorageError, match="are free"):
            allen.download(ONE)
    assert left_behind(home) == []

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with pytest.raises(StorageError, match="file size limit"):
            allen.download(ONE)

    Fork(limited).done()
    assert left_behind(home) == []


def test_what_a_killed_process_left_is_swept_away(house):
    place = allen.local_path(ONE)
    place.parent.mkdir(parents=True)
    ended = Fork(int)
    ended.done()
    stale = place.parent / f".{place.name}.{platform.node()}.{ended.pid}.0123abcd.tmp"
    alive = place.parent / f".{place.name}.{platform.node()}.{os.getpid()}.0123abcd.tmp"
    stale.write_bytes(b"half")
    alive.write_bytes(b"half")
    allen.download(ONE)
    assert sorted(p.name for p in place.parent.iterdir()) == sorted([place.name, alive.name])


def test_two_downloads_at_once_give_one_file(house):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(allen.download(ONE))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(results)) == 1 and len(results) == 2
    assert results[0].read_bytes() == original(house)
    assert [p.name for p in results[0].parent.iterdir()] == [results[0].name]


# --- opening ---------------------------------------------------------------------------------------


def recipe(**settings):
    return Recipe(recipe="r", recordings=[ONE], source="allen", **settings)


def test_a_recipe_finds_the_fetched_file_or_says_how_to_fetch_it(house):
    with pytest.raises(MissingInput, match=f"nblib allen get {ONE}"):
        opening.open_recording(recipe(), ONE)
    path = allen.download(ONE)
    recording = opening.open_recording(recipe(), ONE)
    assert recording.path == path and recording.meta["source"] == "allen"
    assert sources.identity(recipe(), ONE) == hashes.file_hash(path)


def test_the_first_notebook_of_the_road_fetches_its_session_once(house, tmp_path):
    path = tmp_path / "fetched.yml"
    path.write_text(f'recipe: fetched\nrecordings: ["{ONE}"]\nsource: allen\n')
    given = {"recipe": str(path), "recording": ONE}
    with pytest.raises(MissingInput, match=f"nblib allen get {ONE}"):
        stages.begin("02_bin", given)
    assert not house.asked
    stage = stages.begin("01_ingest", given)
    assert sources.raw_file(stage.recipe, ONE) == allen.local_path(ONE)
    asked = len(house.asked)
    stages.begin("01_ingest", given)
    assert asked > 0 and len(house.asked) == asked


@pytest.fixture
def cache(tmp_path):
    """A folder as the SDK's cache lays it out, with tables in the folder above the file."""
    path = write_session(tmp_path / f"session_{ONE}" / f"session_{ONE}.nwb", ONE)
    pd.DataFrame({"id": [int(ONE)], "session_type": [SCENES], "sex": ["F"]}).to_csv(
        tmp_path / "sessions.csv", index=False
    )
    pd.DataFrame({"id": [801, 802], "name": ["probeA", "probeB"]}).to_csv(
        tmp_path / "probes.csv", index=False
    )
    pd.DataFrame(
        {"id": 850 + np.arange(6), "ecephys_structure_acronym": ["VISp", "VISam", "CA3", "LGd", "", ""]}
    ).to_csv(tmp_path / "channels.csv", index=False)  # fmt: skip
    pd.DataFrame(
        {"id": 950 + np.arange(4), "ecephys_channel_id": 850 + np.arange(4), "snr": 2.0}
    ).to_csv(tmp_path / "units.csv", index=False)
    return path


def test_tables_fill_what_the_file_lacks_and_never_replace(cache):
    recording = allen.open_recording(cache, recipe(), ONE)
    assert recording.units.area.tolist() == ["VISp", "VISam", "CA1", "LGd"]  # the second was empty
    assert recording.units.snr.tolist() == [2.0] * 4
    assert recording.units.channel.tolist() == [850, 851, 852, 853]
    assert recording.meta["session"]["sex"] == "F"
    notes = [n for n in session_report(recording).odd if "channels.csv" in n]
    assert len(notes) == 1 and "1 units" in notes[0] and "952" in notes[0]  # CA3 against CA1


def test_tables_are_part_of_what_a_recording_is(cache):
    asked = recipe(path=str(cache))
    before = sources.identity(asked, ONE)
    table = pd.read_csv(cache.parents[1] / "units.csv").assign(snr=3.0)
    table.to_csv(cache.parents[1] / "units.csv", index=False)
    assert sources.identity(asked, ONE) != before


@pytest.mark.parametrize("text", ["number,name\n1,x\n", "id,name\n1,x\n1,y\n", ""])
def test_a_table_that_is_none_is_refused(cache, text):
    (cache.parents[1] / "probes.csv").write_text(text)
    with pytest.raises(BadInput, match=r"probes\.csv"):
        allen.open_recording(cache, recipe(), ONE)


def test_a_file_without_tables_and_of_another_session(tmp_path):
    path = write_session(tmp_path / "deep" / "folder" / "x.nwb", TWO)
    recording = allen.open_recording(path, recipe(), ONE)
    assert recording.units.area.tolist() == ["VISp", "", "CA1", "LGd"]
    assert any(TWO in note and ONE in note for note in recording.meta["notes"])


def test_a_peak_channel_that_is_not_there(tmp_path):
    path = write_session(tmp_path / "x.nwb", ONE)
    with h5py.File(path, "r+") as file:
        file["units/peak_channel_id"][2] = 12345
    with pytest.raises(BadInput, match=r"peak_channel_id of unit 952"):
        allen.open_recording(path, recipe(), ONE)


# --- templates of the natural scenes -------------------------------------------------------------


@pytest.fixture
def scenes(house):
    """Three templates in the warehouse."""
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (3, 20, 24), dtype=np.uint8)
    for number, pixels in enumerate(shown):
        Image.fromarray(pixels).save(house.root / f"{number}.tiff")
    return shown


def test_templates_are_fetched_once_and_are_the_pictures(house, scenes):
    paths = allen.download_scenes([0, 1, 2])
    assert [np.asarray(Image.open(path)).tolist() for path in paths] == scenes.tolist()
    asked = len(house.asked)
    assert allen.download_scenes([2, 0]) == [paths[2], paths[0]] and len(house.asked) == asked


def test_a_template_that_is_no_picture_leaves_nothing(house, scenes):
    house.faults = [("body", b"<html>")]
    with pytest.raises(BadInput, match="not readable as an image"):
        allen.download_scenes([0])
    assert not allen.scene_place(0).parent.exists()


def test_a_template_that_breaks_off_is_taken_up_again(house, scenes):
    house.faults = [("cut", 100)]
    (path,) = allen.download_scenes([1])
    assert np.asarray(Image.open(path)).tolist() == scenes[1].tolist() and len(house.asked) == 2


def test_a_template_that_is_not_there_is_named(house, scenes):
    with pytest.raises(BadParameter, match="natural scene 117"):
        allen.download_scenes([117])
