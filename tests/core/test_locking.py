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

HERE = Path(__file__).resolve().parents[1]
HOLD = """
import fcntl, sys
files = [open(name, "rb") for name in sys.argv[1:]]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def feigned(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    """`code` in a process where no file can be locked."""
    if not no_locks.can_be_feigned():
        pytest.skip("only Linux on x86-64 or ARM can be told to refuse locks")
    return subprocess.run(
        [sys.executable, "-c", f"import no_locks; no_locks.feign()\n{code}", *arguments],
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", **env},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


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
    told = feigned(
        "import sys, json, pathlib, hdf5_files\nfolder = pathlib.Path(sys.argv[1])\n"
        "hdf5_files.make(folder)\nprint(json.dumps(hdf5_files.read(folder)))", str(tmp_path),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout.splitlines()[-1]) == hdf5_files.read(made)


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
    told = feigned(f"import h5py\nh5py.File({str(tmp_path / 'x.h5')!r}, 'w')")
    assert told.returncode == 1 and "unable to lock file" in told.stderr
    assert os.strerror(errno.ENOLCK) in told.stderr


@pytest.mark.slow
def test_a_run_ends_well_where_nothing_can_be_locked(tmp_path):
    run = ["05_train_lstm", "--with-upstream", "-p", "recipe", "tiny", "-p", "recording", "tiny"]
    told = feigned(
        "import sys\nfrom nblib import cli\nsys.exit(cli.main(['run', *sys.argv[1:]]))",
        *run, "-p", "model", "ridge", NBLIB_HOME=str(tmp_path),
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    assert {p.parts[-4] for p in tmp_path.glob("*/*/*/manifest.json")} >= {"05_train_lstm"}


@pytest.mark.parametrize("locking", [None, "best-effort", False])
def test_a_person_may_have_a_file_open_in_the_same_notebook(made, locking):
    expected = hdf5_files.read(made)
    with contextlib.ExitStack() as stack:
        for path in made.iterdir():
            if path.suffix in (".nwb", ".h5", ".nc"):
                stack.enter_context(h5py.File(path, "r", locking=locking))
        assert hdf5_files.read(made) == expected
