"""Artifacts exist exactly when they are complete, and a changed byte never passes."""

import json
import os
import resource
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from forks import Fork
from tiny_project import wait_until

from nblib.core import store
from nblib.core.errors import BadParameter, CorruptArtifact, MissingInput, StorageError
from nblib.data.files import hashes

KEY = "0123456789abcdef"


pytestmark = pytest.mark.usefixtures("home")


def put(text="hello", key=KEY, **more):
    def write(folder):
        (folder / "a.txt").write_text(text)

    return store.commit(
        "02_bin", "r", key, write, params={"n": 5, "limit": float("inf")}, upstream=["u"], **more
    )


def commit(write):
    return store.commit("02_bin", "r", KEY, write, params={}, upstream=[])


def test_the_manifest_tells_how_it_was_made(home):
    folder = put(seed=3, started=time.time() - 2, extra={"note": "x"})
    assert folder == home / "02_bin" / "r" / KEY
    manifest = store.read_manifest(folder)
    assert manifest["parameters"] == {"n": 5, "limit": "inf"}
    assert manifest["outputs"]["a.txt"]["bytes"] == 5
    assert (manifest["seed"], manifest["upstream"], manifest["note"]) == (3, ["u"], "x")
    assert manifest["wall_s"] >= 2 and manifest["peak_rss_bytes"] > 1e6
    assert manifest["packages"]["numpy"] and manifest["code_version"].startswith("0.")
    assert store.open_artifact(folder) == folder
    assert list(store.artifacts()) == [folder]
    assert [p.name for p in folder.parent.iterdir()] == [KEY]


def test_keys_follow_content():
    one = store.make_key("02_bin", 1, {"a": 1, "b": [1.5, float("inf")]}, ["u"])
    assert one == store.make_key("02_bin", 1, {"b": [1.5, float("inf")], "a": 1}, ["u"])
    others = [
        store.make_key("03_clean", 1, {"a": 1, "b": [1.5, float("inf")]}, ["u"]),
        store.make_key("02_bin", 2, {"a": 1, "b": [1.5, float("inf")]}, ["u"]),
        store.make_key("02_bin", 1, {"a": 2, "b": [1.5, float("inf")]}, ["u"]),
        store.make_key("02_bin", 1, {"a": 1, "b": [1.5, float("inf")]}, ["v"]),
    ]
    assert len({one, *others}) == 5


def test_a_committed_key_is_left_alone():
    folder = put("first")
    assert put("second") == folder
    assert (folder / "a.txt").read_text() == "first"


def test_a_folder_that_lost_its_manifest_makes_way():
    (put("first") / store.MANIFEST).unlink()
    assert (store.open_artifact(put("second")) / "a.txt").read_text() == "second"


def test_a_flipped_byte_is_named():
    folder = put()
    path = folder / "a.txt"
    path.write_bytes(b"hellp")
    with pytest.raises(CorruptArtifact, match=r"a\.txt: its bytes changed"):
        store.open_artifact(folder)
    path.unlink()
    with pytest.raises(CorruptArtifact, match="is gone"):
        store.open_artifact(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(CorruptArtifact, match=r"manifest\.json: not readable"):
        store.open_artifact(folder)
    with pytest.raises(MissingInput):
        store.open_artifact(folder.parent / "none")


def test_a_write_that_fails_leaves_nothing():
    def write(folder):
        (folder / "a.txt").write_text("x")
        raise ValueError("mid-write")

    with pytest.raises(ValueError, match="mid-write"):
        commit(write)
    assert not store.is_committed("02_bin", "r", KEY)
    assert list((store.home() / "02_bin" / "r").iterdir()) == []


def test_sigkill_in_mid_write_leaves_no_artifact_and_the_next_commit_cleans_up(tmp_path, home):
    flag = tmp_path / "writing"

    def write(folder):
        (folder / "half.bin").write_bytes(b"0" * 1000)
        flag.touch()
        time.sleep(60)

    child = Fork(lambda: commit(write))
    wait_until(flag.exists, 20)
    child.kill()
    child.done(-signal.SIGKILL)
    assert not store.is_committed("02_bin", "r", KEY)
    assert list(store.artifacts()) == []
    assert len(list((home / "02_bin" / "r").iterdir())) == 1  # the half-written folder
    put()
    assert [p.name for p in (home / "02_bin" / "r").iterdir()] == [KEY]


def test_two_writers_of_one_key(tmp_path):
    """Both succeed; one artifact stands, whole."""

    def write(folder):
        (folder / "a.txt").write_text(str(os.getpid()) * 1000)
        (tmp_path / f"ready{os.getpid()}").touch()
        wait_until(lambda: len(list(tmp_path.glob("ready*"))) == 2)

    for child in [Fork(lambda: commit(write)) for _ in range(2)]:
        child.done()
    (folder,) = store.artifacts()
    store.open_artifact(folder)
    assert [p.name for p in folder.parent.iterdir()] == [KEY]


def test_a_full_disk_is_one_clear_error():
    """A file-size limit stands in for a full disk: the same call fails, the same way."""

    def write(folder):
        with h5py.File(folder / "big.h5", "w") as file:
            file["x"] = np.random.default_rng(0).random(100_000)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        with pytest.raises(StorageError, match=r"nothing was committed.* NBLIB_HOME"):
            commit(write)

    Fork(fill).done()
    assert list(store.artifacts()) == []


@pytest.mark.parametrize(
    ("number", "said"), [(28, "no space left"), (13, "may not be written"), (5, "Input/output")]
)
def test_no_space_and_no_permission(number, said):
    def write(folder):
        raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError, match=said):
        commit(write)


def test_a_data_root_that_is_a_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NBLIB_HOME", str(tmp_path / "file"))
    with pytest.raises(BadParameter, match="is a file"):
        store.home()


def test_home_does_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("NBLIB_HOME")
    here = store.home()
    monkeypatch.chdir(tmp_path)
    assert store.home() == here == store.project_root() / "data"
    monkeypatch.setenv("NBLIB_HOME", "relative/data")
    with pytest.raises(BadParameter, match="relative"):
        store.home()
    monkeypatch.setenv("NBLIB_PROJECT", str(tmp_path))
    with pytest.raises(BadParameter, match="notebooks"):
        store.project_root()


def test_raw_files_are_hashed_once(tmp_path, monkeypatch):
    path = tmp_path / "raw.nwb"
    path.write_bytes(b"1" * 1000)
    first = hashes.file_hash(path)
    calls = []
    monkeypatch.setattr(hashes, "sha256", lambda p: calls.append(p) or "again")
    assert hashes.file_hash(path) == first and calls == []
    path.write_bytes(b"2" * 1001)
    assert hashes.file_hash(path) == "again" and calls == [path]
    (note,) = (store.home() / "cache" / "sha256").iterdir()
    note.write_bytes(b"\xff" + note.read_bytes())
    assert hashes.file_hash(path) == "again" and len(calls) == 2


def test_json_has_no_surprises():
    text = json.dumps(
        store.plain({"a": np.float64("nan"), "b": np.int64(3), "c": Path("/x"), "d": (1, 2)})
    )
    assert json.loads(text) == {"a": "nan", "b": 3, "c": "/x", "d": [1, 2]}


def test_who_may_enter_the_folder_may_read_its_files(home):
    """Some libraries write files that only their owner can read; a group shares a data root."""

    def write(folder):
        (folder / "secret").touch(mode=0o600)

    before = os.umask(0o027)
    try:
        folder = commit(write)
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o640}
