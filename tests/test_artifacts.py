"""Nothing stored changes unseen: renamed folders, flipped bits, changed raw files, kills in mid-swap."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from forks import Fork

from nblib.cli import main
from nblib.core import integrity, params, store
from nblib.core.errors import BadInput, CorruptArtifact, MissingInput, OutdatedArtifact
from nblib.data import sources
from nblib.data.files import hashes
from nblib.experiments import self_supervision
from nblib.experiments.images import from_spikes
from nblib.road import stages
from nblib.run import clean_up

pytestmark = pytest.mark.usefixtures("home")
SETTINGS = {"n": 5, "limit": 0.25}


def put(text="hello", recording="r", stage="02_bin", **more):
    """An artifact with a key of its own, as a stage commits it; its folder."""
    values = SETTINGS | {"text": text}
    key = store.make_key(stage, 3, values, ["u"])
    extra = {"stage_version": 3, "in_key": values, "raw": more.pop("raw", {})}
    return store.commit(
        stage, recording, key, lambda folder: (folder / "a.txt").write_text(text),
        params=values | {"recipe": "demo"}, upstream=["u"], extra=extra, **more,
    )  # fmt: skip


# --- the folder and its manifest -----------------------------------------------------------------


def test_a_folder_under_another_name_is_found():
    one, two = put("one"), put("two")
    aside = one.with_name("aside")
    one.rename(aside), two.rename(one), aside.rename(two)
    for folder in (one, two):
        with pytest.raises(CorruptArtifact, match="this folder holds 02_bin/r/"):
            store.open_artifact(folder)
    assert main(["verify"]) == 1
    one.rename(aside), two.rename(one), aside.rename(two)  # the advice: names given back
    assert store.open_artifact(one) == one and main(["verify"]) == 0
    for stage, recording in (("02_bin", "other"), ("03_clean", "r")):
        place = store.folder(stage, recording, one.name)
        place.parent.mkdir(parents=True)
        one.rename(place)
        with pytest.raises(CorruptArtifact, match="renamed or moved"):
            store.open_artifact(place)
        place.rename(one)


def test_every_flipped_bit_of_a_manifest_is_found():
    folder = put()
    path = folder / store.MANIFEST
    whole = path.read_bytes()
    rng = random.Random(0)
    places = {rng.randrange(8 * len(whole)) for _ in range(1500)}
    for name in (
        b'"02_bin"',
        b'"u"',
        b'"n": 5',
        b'"host"',
        b'"created"',
        b'"stage_version"',
        b'"sha256"',
    ):
        start = 8 * whole.index(name)
        places |= set(range(start, start + 8 * (len(name) + 4)))
    for place in places:
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(CorruptArtifact):
            store.open_artifact(folder)
    path.write_bytes(whole)
    assert store.open_artifact(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("upstream", ["v"]),
        ("stage_version", 4),
        ("parameters", SETTINGS | {"text": "hello", "n": 6}),
        ("in_key", SETTINGS | {"text": "hello", "n": 6}),
    ],
)
def test_a_manifest_written_anew_with_other_settings_does_not_fit_its_key(name, value):
    folder = put()
    changed = store.read_manifest(folder) | {name: value}
    (folder / store.MANIFEST).write_text(integrity.dump_sealed({**changed, "sha256": ""}))
    with pytest.raises(CorruptArtifact, match="does not belong to key"):
        store.read_manifest(folder)


def test_a_manifest_of_an_earlier_version_is_refused_and_can_be_freed():
    folder = put()
    manifest = store.read_manifest(folder)
    del manifest["sha256"]
    (folder / store.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(OutdatedArtifact, match="earlier version of nblib"):
        store.open_artifact(folder)
    assert [w.path for w in clean_up.waste()] == [folder]


def test_what_a_stage_commits_can_be_checked(tmp_path, monkeypatch):
    recipe = params.Recipe(recipe="r", recordings=["a"])
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(3))
    asked = from_spikes.Params(recipe="r", recording="a", images=str(path))
    made = stages.made_of("10_image_latents", recipe, "a", asked, "code")
    raw = stages.raw_content("10_image_latents", recipe, "a", asked)
    code = {"code_hash": "code", "edited": False, "cells": []}
    monkeypatch.setattr(stages.notebook_code, "executed_cells", lambda: [])
    stage = stages.Stage("10_image_latents", asked, recipe, made.key("10_image_latents"), made, raw, code)  # fmt: skip
    folder = stage.commit(lambda folder: None)
    assert folder == stage.folder and store.open_artifact(folder)
    assert store.read_manifest(folder)["raw"] == {str(path): integrity.sha256(path)}
    np.save(path, np.ones(3))
    with pytest.raises(BadInput, match=r"x\.npy: it changed while 10_image_latents read it"):
        stage.commit(lambda folder: None)


# --- the executed notebook -----------------------------------------------------------------------


def test_a_changed_or_foreign_notebook_is_found(capsys):
    one, two = put("one", stage="05_train_lstm"), put("two", stage="05_train_lstm")
    notebook = {"cells": [{"source": "score = 0.5"}], "metadata": {"kernelspec": {}}, "nbformat": 4}
    paths = [store.attach(folder, notebook) for folder in (one, two)]
    assert store.read_attached(one)["cells"] == notebook["cells"] and main(["verify"]) == 0
    whole = paths[0].read_bytes()
    for changed in (
        whole.replace(b"0.5", b"0.9"),
        paths[1].read_bytes(),
        json.dumps(notebook).encode(),
        b"{",
    ):
        paths[0].write_bytes(changed)
        assert main(["verify"]) == 1 and "executed.ipynb" in capsys.readouterr().out
        assert store.open_artifact(one)  # the result itself stands
        with pytest.raises(CorruptArtifact):
            store.read_attached(one)
    paths[0].write_bytes(whole)
    assert main(["verify"]) == 0


def test_a_file_that_was_not_written_with_an_artifact_is_told(capsys):
    """Some readers take a file where it is there: nobody may add one."""
    one = put("one")
    (one / ".ipynb_checkpoints").mkdir()
    (one / ".ipynb_checkpoints" / "executed-checkpoint.ipynb").write_text("{}")  # Jupyter's own
    assert main(["verify"]) == 0
    capsys.readouterr()
    (one / "model").mkdir()
    (one / "model" / "weights.safetensors").write_bytes(b"x")
    assert main(["verify"]) == 1
    told = capsys.readouterr().out
    assert f"FOREIGN {one / 'model' / 'weights.safetensors'}: not of what was written" in told
    assert "checkpoint" not in told and "1 faults" in told


# --- raw files -----------------------------------------------------------------------------------


def change_in_place(path, old, new):
    """Other bytes of the same length under the same size and times."""
    before = path.stat()
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    with path.open("r+b") as file:
        file.write(content.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def nwb_recipe(path):
    return params.Recipe(recipe="r", recordings=["a", "b"], source="nwb", path=str(path))


def test_a_raw_file_changed_in_place_has_another_key(tmp_path):
    path = tmp_path / "raw.nwb"
    path.write_bytes(b"labels 1 2 3")
    key = stages.key_for("01_ingest", nwb_recipe(path), "a")
    change_in_place(path, b"1 2 3", b"3 1 2")
    assert stages.key_for("01_ingest", nwb_recipe(path), "a") != key
    twin = tmp_path / "other.nwb"
    twin.write_bytes(b"labels 1 2 3")
    twin.replace(path)
    assert stages.key_for("01_ingest", nwb_recipe(path), "a") == key


def test_verify_reads_raw_files_again(tmp_path, capsys):
    path = tmp_path / "raw.nwb"
    path.write_bytes(b"labels 1 2 3")
    first = put(raw=sources.raw_content(nwb_recipe(path), "a"))
    assert main(["verify"]) == 0
    change_in_place(path, b"1 2 3", b"3 1 2")
    assert main(["verify"]) == 1
    assert f"BROKEN  {path}: it no longer holds what" in capsys.readouterr().out
    put("again", raw=sources.raw_content(nwb_recipe(path), "a"))  # run again
    assert main(["verify"]) == 0
    assert f"OLD     {first}: read from what {path} held" in capsys.readouterr().out
    change_in_place(path, b"3 1 2", b"1 2 3")
    assert main(["verify"]) == 0
    path.unlink()
    assert main(["verify"]) == 0 and f"GONE    {path}" in capsys.readouterr().out


def linked_to(tmp_path, how):
    """A main file whose `x` lies in another file, and that file."""
    main_file, other = tmp_path / "main.nwb", tmp_path / "other.h5"
    values = np.arange(4.0)
    if how == "external storage":
        other.write_bytes(values.tobytes())
        with h5py.File(main_file, "w") as file:
            file.create_dataset(
                "units/x", (4,), "f8", external=[(str(other), 0, h5py.h5f.UNLIMITED)]
            )
        return main_file, other
    with h5py.File(other, "w") as file:
        file["deep/x"] = values
    middle = tmp_path / "middle.h5"
    if how == "link to a link":
        with h5py.File(middle, "w") as file:
            file["x"] = h5py.ExternalLink("other.h5", "deep/x")
    with h5py.File(main_file, "w") as file:
        if how == "virtual":
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource("other.h5", "deep/x", (4,))
            file.create_virtual_dataset("units/x", layout)
        elif how == "link to a link":
            file["units/x"] = h5py.ExternalLink("middle.h5", "x")
        else:
            file["units/x"] = h5py.ExternalLink("other.h5", "deep/x")
    return main_file, other


@pytest.mark.parametrize("how", ["link", "link to a link", "virtual", "external storage"])
def test_data_in_another_file_count(tmp_path, how):
    path, other = linked_to(tmp_path, how)
    recipe = nwb_recipe(path)
    with h5py.File(path) as file:
        assert file["units/x"][1] == 1.0
    key = sources.identity(recipe, "a")
    assert str(other) in sources.raw_content(recipe, "a")
    change_in_place(other, np.arange(4.0).tobytes(), np.arange(4.0)[::-1].tobytes())
    assert sources.identity(recipe, "a") != key
    other.unlink()
    assert sources.identity(recipe, "a") != key  # its reader says what is missing


def test_data_in_a_file_that_depends_on_the_working_folder_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.bin").write_bytes(bytes(32))
    path = tmp_path / "main.nwb"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (4,), "f8", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(BadInput, match=r"/x keeps its data in another file, 'raw\.bin'"):
        sources.identity(nwb_recipe(path), "a")
    with h5py.File(path, "r+") as file:  # the advice
        data = file["x"][()]
        del file["x"]
        file["x"] = data
    assert sources.identity(nwb_recipe(path), "a") == integrity.sha256(path)


# --- cohorts -------------------------------------------------------------------------------------


def cohort_key(recordings, **more):
    recipe = params.Recipe(recipe="r", recordings=recordings, **{"source": "simulate_lfp"} | more)
    return stages.key_for(
        "08_ssl_pretext", recipe, stages.COHORT, self_supervision.Params(recipe="r")
    )


def test_cohorts_of_other_recordings_have_other_keys(tmp_path):
    keys = [cohort_key(r) for r in (["m1", "m2"], ["k1", "k2"], ["m2", "m1"], ["m1", "m3"], ["m1"])]
    assert len(set(keys)) == 5 and cohort_key(["m1", "m2"]) == keys[0]
    (tmp_path / "same.nwb").write_bytes(b"raw")
    real = {"source": "lfp_nwb", "path": str(tmp_path / "same.nwb"), "intervals": "i", "label": "l"}
    keys = [cohort_key(r, **real) for r in (["m1", "m2"], ["k1", "k2"], ["m2", "m1"])]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("source", ["simulate", "simulate_lfp"])
def test_simulated_recordings_have_keys_of_their_own(source):
    recipe = params.Recipe(recipe="r", recordings=["a", "b"], source=source)
    assert stages.key_for("02_bin", recipe, "a") != stages.key_for("02_bin", recipe, "b")


# --- replacing -----------------------------------------------------------------------------------


def replace_and_die(folder, n):
    """Commit anew what is there; killed before the n-th rename or removal."""
    count = itertools.count(1)

    def dying(do):
        def at(self, *args, **kwargs):
            if next(count) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return do(self, *args, **kwargs)

        return at

    def write(place):
        (place / "a.txt").write_text("hello")
        (place / "new").write_text("new")

    Path.rename, shutil.rmtree = dying(Path.rename), dying(shutil.rmtree)
    old = store.read_manifest(folder)
    extra = {name: old[name] for name in ("stage_version", "in_key")}
    store.commit(
        "02_bin", "r", folder.name, write, params=old["parameters"], upstream=["u"], extra=extra, replace=True
    )  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_kill_while_a_result_is_replaced_loses_neither(n):
    """Before each rename, and before what stood there is deleted."""
    folder = put()
    Fork(replace_and_die, folder, n).done(-signal.SIGKILL if n < 5 else 0)
    if n == 2:
        assert not folder.exists()  # between the two renames
    assert list(store.artifacts()) == [folder] and store.is_committed("02_bin", "r", folder.name)
    store.open_artifact(folder)
    assert (folder / "new").exists() == (n > 2)
    left = list(integrity.leftovers(folder.parent))
    assert len(left) == (n < 5)
    clean_up.gc(delete=True) if n < 5 else None
    assert not any(integrity.leftovers(folder.parent))


def test_one_that_stands_aside_is_brought_back_by_whoever_asks_first(capsys):
    asks = [
        lambda f: store.is_committed(*f.parts[-3:]),
        store.open_artifact,
        lambda f: f in list(store.artifacts()),
        lambda f: main(["verify"]) == 0,
    ]
    for ask in asks:
        folder = put()
        folder.rename(folder.with_name(f".{folder.name}.replaced"))
        assert ask(folder) and store.open_artifact(folder)
        assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_what_was_replaced_is_seen_and_freed(capsys):
    folder = put()
    aside = folder.with_name(f".{folder.name}.replaced")
    aside.mkdir()
    (aside / store.MANIFEST).write_text("{}")
    assert main(["verify"]) == 0 and f"LEFT    {aside}" in capsys.readouterr().out
    assert aside in {w.path for w in clean_up.waste()}
    put("another")  # the next commit cleans up, too
    assert not aside.exists()


def test_a_replacement_that_fails_leaves_what_stood():
    folder = put()

    def write(place):
        raise ValueError("mid-write")

    with pytest.raises(ValueError, match="mid-write"):
        store.commit("02_bin", "r", folder.name, write, params={}, upstream=[], replace=True)
    assert store.open_artifact(folder) and len(list(folder.parent.iterdir())) == 1
    with pytest.raises(MissingInput):
        store.open_artifact(folder.with_name("none"))


def test_a_file_that_changes_while_it_is_hashed_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "growing"
    path.write_bytes(b"1")

    def growing(path):
        path.write_bytes(b"12")
        return "digest"

    monkeypatch.setattr(hashes, "sha256", growing)
    with pytest.raises(BadInput, match="changed while it was read"):
        hashes.file_hash(path)
