"""HDF5 files are read while somebody else has them locked, and made where nothing can be locked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5_files
import no_locks
import pytest
from forks import Fork

from nblib import cli

HERE = Path(__file__).resolve().parents[1]
HOLD = """
import fcntl, sys
files = [open(name, "rb") for name in sys.argv[1:]]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def feigned(body, *arguments, code=0) -> str:
    """What `body` prints in a process where no file can be locked."""
    if not no_locks.can_be_feigned():
        pytest.skip("only Linux on x86-64 or ARM can be told to refuse locks")

    def without_locks():
        no_locks.feign()
        body(*arguments)

    return Fork(without_locks).done(code, seconds=300)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    hdf5_files.make(folder)
    return folder


def test_files_that_another_process_has_locked_are_read(made):
    files = [str(p) for p in made.iterdir() if p.suffix in (".nwb", ".h5", ".nc")]
    assert len(files) == 6, files
    expected = hdf5_files.read(made)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "held\n"
        with Path(files[0]).open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # so a plain reader would be refused
        assert hdf5_files.read(made) == expected
    finally:
        other.communicate()


def test_files_are_made_and_read_where_nothing_can_be_locked(tmp_path, made):
    def make_and_read():
        hdf5_files.make(tmp_path)
        print(json.dumps(hdf5_files.read(tmp_path)))

    assert json.loads(feigned(make_and_read).splitlines()[-1]) == hdf5_files.read(made)


def test_every_file_is_opened_that_way():
    found = [
        (path.name, call)
        for path in (HERE.parent / "nblib").rglob("*.py")
        for call in re.findall(r"h5py\.File\([^)]*\)", path.read_text())
    ]
    assert len(found) > 3
    assert [
        (name, call) for name, call in found if "UNLOCKED" not in call and name != "hdf5.py"
    ] == []


def test_the_feigned_machine_does_refuse(tmp_path):
    said = feigned(h5py.File, tmp_path / "x.h5", "w", code=1)
    assert "unable to lock file" in said and os.strerror(errno.ENOLCK) in said


@pytest.mark.slow
def test_a_run_ends_well_where_nothing_can_be_locked(home):
    run = ["05_train_lstm", "--with-upstream", "-p", "recipe", "tiny", "-p", "recording", "tiny"]
    feigned(lambda: sys.exit(cli.main(["run", *run, "-p", "model", "ridge"])))
    assert {p.parts[-4] for p in home.glob("*/*/*/manifest.json")} >= {"05_train_lstm"}


@pytest.mark.parametrize("locking", [None, "best-effort", False])
def test_a_person_may_have_a_file_open_in_the_same_notebook(made, locking):
    expected = hdf5_files.read(made)
    with contextlib.ExitStack() as stack:
        for path in made.iterdir():
            if path.suffix in (".nwb", ".h5", ".nc"):
                stack.enter_context(h5py.File(path, "r", locking=locking))
        assert hdf5_files.read(made) == expected
