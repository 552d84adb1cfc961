"""What can be freed: all that no result rests on, and nothing else."""

from __future__ import annotations

import os
import platform

import pytest

from nblib.cli import main
from nblib.core import store
from nblib.core.errors import NblibError
from nblib.run import clean_up


def put(stage, key, upstream, n_bytes=1000):
    def write(folder):
        (folder / "data").write_bytes(b"x" * n_bytes)

    return store.commit(stage, "r", key * 16, write, params={}, upstream=[u * 16 for u in upstream])


@pytest.fixture
def root(home):
    """A run "e" on a road a-b-c-d from a simulation s; a side road x-y; another run without a road."""
    kept = [
        put("00_simulate", "0", []), put("01_ingest", "a", "0"), put("02_bin", "b", "a"),
        put("03_clean", "c", "b"), put("04_split", "d", "c"), put("05_train_lstm", "e", "d"),
        put("05_train_lstm", "f", "9"),
    ]  # fmt: skip
    waste = [put("02_bin", "1", "a", 5000), put("03_clean", "2", "1")]
    return kept, waste


def test_only_what_no_result_rests_on_is_freed(root, capsys):
    kept, waste = root
    assert [w.path for w in clean_up.waste()] == waste  # the largest first
    assert main(["gc"]) == 0 and "could be freed; nblib gc --delete" in capsys.readouterr().out
    assert all(p.is_dir() for p in kept + waste)
    assert main(["gc", "--delete"]) == 0 and "Freed" in capsys.readouterr().out
    assert all(p.is_dir() for p in kept) and not any(p.exists() for p in waste)
    assert main(["gc"]) == 0 and "Nothing to free" in capsys.readouterr().out
    for folder in kept:
        store.open_artifact(folder)


def test_leavings_of_the_dead_are_freed_and_those_of_the_living_are_not(root):
    place = store.home() / "02_bin" / "r"
    dead = place / f".{'7' * 16}.{platform.node()}.999999999.ab.tmp"
    alive = place / f".{'8' * 16}.{platform.node()}.{os.getpid()}.ab.tmp"
    elsewhere = place / f".{'9' * 16}.another-host.1.ab.tmp"
    failed = store.failed_dir() / "r" / "05_train_lstm-abc.ipynb"
    running = failed.with_name(f"05_train_lstm-abc.{os.getpid()}@{platform.node()}.running.ipynb")
    failed.parent.mkdir(parents=True)
    for path in (dead, alive, elsewhere):
        path.mkdir()
    for path in (failed, running):
        path.write_text("{}")
    found = {w.path for w in clean_up.waste()}
    assert {dead, failed} <= found and not {alive, elsewhere, running} & found


def test_a_manifest_that_cannot_be_read_stops_it(root, capsys):
    kept, waste = root
    (kept[3] / store.MANIFEST).write_text("{")
    with pytest.raises(NblibError):
        clean_up.gc(delete=True)
    assert all(p.is_dir() for p in kept + waste)
    assert main(["du"]) == 0 and "is not known" in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["gone", "a folder", "nested"])
def test_an_artifact_without_a_manifest_is_told_and_nothing_is_freed(root, capsys, fault):
    kept, waste = root
    manifest = kept[4] / store.MANIFEST
    manifest.unlink()
    if fault == "a folder":
        manifest.mkdir()
    elif fault == "nested":
        manifest.write_text("[" * 100_000)
    assert main(["verify"]) == 1
    assert f"BROKEN  {kept[4]}" in capsys.readouterr().out
    assert main(["gc", "--delete"]) == 1 and str(kept[4]) in capsys.readouterr().err
    assert all(p.is_dir() for p in kept + waste)


def test_sizes_by_part(root, capsys):
    assert main(["du"]) == 0
    said = capsys.readouterr().out
    assert str(store.home()) in said and "05_train_lstm" in said and "nblib gc would free" in said
