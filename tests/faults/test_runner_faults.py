"""What goes wrong while a notebook runs: one clear error, the right code, nothing left over."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import tiny_project
from tiny_project import gone, wait_until

from nblib.core import store
from nblib.run import execute, kernel, many, plan, status

SLEEP = """\
import os, pathlib, time
pathlib.Path(os.environ['NBLIB_HOME'], 'pid').write_text(str(os.getpid()))
time.sleep(120)"""


def nothing_left(project) -> None:
    assert project.committed() == []
    assert not list(project.home.glob("*/*/.*.tmp")), "a half-written artifact"
    assert project.sockets() == [], "a kernel's private folder"


def command(*arguments: str, **options) -> subprocess.Popen:
    """`nblib run ...` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nblib", "run", *arguments, "-p", "recipe", "tiny"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def kernel_pid(project, process: subprocess.Popen) -> int:
    """Pid of the kernel, once its cell is at work."""
    told = project.home / "pid"
    for _ in range(600):
        if told.is_file() and told.read_text():
            return int(told.read_text())
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the kernel did not start within a minute")


def test_a_kernel_killed_in_mid_cell_gives_4_at_once(project, capsys):
    kill = (
        "import os, signal, subprocess\n"
        "subprocess.Popen(['sleep', '97'])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    notebook = project.notebook("killed", f"{kill}\n---\n{tiny_project.COMMIT}", stage="01_ingest")
    began = time.monotonic()
    assert execute.run(notebook, {"recipe": "tiny"}, progress=False) == 4
    assert time.monotonic() - began < 60  # a busy machine takes a while to start it
    said = capsys.readouterr().err
    assert "killed by SIGKILL" in said and "Nothing was committed" in said
    nothing_left(project)
    (kept,) = project.failed()
    assert str(kept) in said
    shown = nbformat.read(kept, as_version=4)
    nbformat.validate(shown)
    assert "killed by SIGKILL" in shown.cells[0].source
    statuses = [c.metadata.papermill.status for c in shown.cells[1:] if c.cell_type == "code"]
    assert "failed" in statuses and shown.metadata.papermill.exception is True
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "97"]]


def test_a_notebook_that_raises_gives_3_and_is_kept(project, forked_kernels, capsys):
    project.notebook("01_ingest", "raise ValueError('first line\\nunit 7 has no spikes')")
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False) == 3
    said = capsys.readouterr().err
    assert "raised ValueError: unit 7 has no spikes" in said and "Traceback" not in said
    nothing_left(project)
    (kept,) = project.failed()
    key = plan.job_of("01_ingest", {"recipe": "tiny"}).key
    assert kept == project.home / "failed" / "000021" / f"01_ingest-{key}.ipynb"
    assert str(kept) in said

    # Mended, it runs, and the notebook that was kept is gone.
    project.notebook("01_ingest")
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False) == 0
    assert project.failed() == [] and len(project.committed()) == 1


def test_a_parameter_that_the_notebook_itself_refuses_gives_2(project, forked_kernels, capsys):
    refuse = "from nblib.core.errors import BadParameter\nraise BadParameter('fold 7: this split has 5.')"
    project.notebook("01_ingest", refuse)
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False) == 2
    assert "01_ingest 000021: fold 7: this split has 5. Nothing" in capsys.readouterr().err
    nothing_left(project)


def test_two_runs_of_one_key_at_once_make_one_artifact(project, preloaded):
    # Each waits in its cell until the other is there too, so that both commit.
    meet = (
        "import os, pathlib, time\n"
        "here = pathlib.Path(os.environ['NBLIB_HOME'])\n"
        "(here / f'met-{os.getpid()}').touch()\n"
        "limit = time.monotonic() + 60\n"
        "while len(list(here.glob('met-*'))) < 2 and time.monotonic() < limit: time.sleep(0.02)"
    )
    project.notebook("01_ingest", f"{meet}\n---\n{tiny_project.COMMIT}")
    job = ("01_ingest", {"recipe": "tiny"})
    outcomes = many.run_many([job, job], 2, progress=False)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert len(list(project.home.glob("met-*"))) == 2, "they did not run at once"
    (folder,) = project.committed()
    assert {outcome.folder for outcome in outcomes} == {folder}
    assert store.open_artifact(folder) and (folder / "executed.ipynb").is_file()
    assert project.failed() == [] and project.sockets() == []
    assert not list(folder.parent.glob(".*"))


def test_two_commands_that_need_the_same_make_it_once(project, preloaded):
    """Neither knows of the other: all that both need is missing when they begin."""
    call = {"notebook": "03_clean", "params": {"recipe": "tiny"}, "with_upstream": True}
    outcomes = many.run_calls([call, call], 2, progress=False)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    folders = project.committed()
    assert [p.parts[-3] for p in folders] == ["01_ingest", "02_bin", "03_clean"]
    assert all(store.open_artifact(p) and (p / "executed.ipynb").is_file() for p in folders)
    assert list(project.home.glob("*/*/.*")) == [] and project.failed() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_runner_told_to_stop_takes_its_kernel_with_it(project, number):
    project.notebook("01_ingest", f"{SLEEP}\n---\n{tiny_project.COMMIT}")
    process = command("01_ingest")
    pid = kernel_pid(project, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, (out, err)
    assert gone(pid)
    assert (
        f"stopped by {number.name}. The same command begins it again. Nothing was committed" in err
    )
    assert "Traceback" not in err
    nothing_left(project)
    assert str(project.failed()[0]) in err
    ((_, reason),) = status.failed()  # what `nblib status` says of it
    assert reason == f"This run did not end well: stopped by {number.name}."


def test_a_stopped_training_says_that_it_goes_on(project):
    job = plan.job_of("01_ingest", {"recipe": "tiny"})
    folder = store.log_dir(job.name, job.recording, job.key)
    folder.mkdir(parents=True)
    assert execute._goes_on(job) == "The same command begins it again"
    (folder / "fit.ckpt").touch()
    assert execute._goes_on(job).startswith(f"The training so far is kept in {folder}: the same")


def test_a_runner_that_is_killed_leaves_no_kernel_and_no_artifact(project):
    project.notebook("01_ingest", f"{SLEEP}\n---\n{tiny_project.COMMIT}")
    process = command("01_ingest")
    pid = kernel_pid(project, process)
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: gone(pid), 20)
    assert project.committed() == []
    (kept,) = project.failed()  # how far it had come can still be read
    assert kept.name.endswith(".running.ipynb")
    nbformat.validate(nbformat.read(kept, as_version=4))


def limit() -> None:
    """As a full disk: no file of this process grows beyond 1 MB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_during_the_commit_is_one_clear_error(project):
    big = "stage.commit(lambda folder: (folder / 'big.bin').write_bytes(bytes(3_000_000)))"
    project.notebook("01_ingest", big)
    process = command("01_ingest", preexec_fn=limit)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, (out, err)
    assert "file size limit reached; nothing was committed" in err and "Traceback" not in err
    nothing_left(project)
    assert len(project.failed()) == 1


def test_a_full_disk_after_the_commit_leaves_the_result(project):
    project.notebook("01_ingest", f"{tiny_project.COMMIT}\nprint('x' * 2_000_000)")
    process = command("01_ingest", preexec_fn=limit)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, (out, err)
    (folder,) = project.committed()
    assert err.endswith(
        f"{project.home}/failed/000021: file size limit reached; the executed notebook could not be written. "
        "Free space there or point NBLIB_HOME at a larger disk. Its result was committed before that and "
        f"stands: {folder}.\n"
    )
    assert project.failed() == [] and project.sockets() == []


def test_what_was_committed_is_told_by_the_store(project, forked_kernels, capsys):
    """A kernel may be killed once its result stands and before it could say so; by force, too."""
    kill = (
        "import os, signal\nos.environ.pop('NBLIB_RESULT')\n{}os.kill(os.getpid(), signal.SIGKILL)"
    )
    commit = kill.format(
        "stage.commit(lambda folder: (folder / 'x').write_text(str(os.getpid())))\n"
    )
    for force, cell, stands in (
        (False, commit, True),
        (True, commit, True),
        (True, kill.format(""), False),
    ):
        project.notebook("01_ingest", cell)
        assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False, force=force) == 4
        (folder,) = project.committed()
        said = capsys.readouterr().err
        assert (f"Its result was committed before that and stands: {folder}" in said) == stands
        assert ("Nothing was committed" in said) != stands


def test_a_disk_too_full_for_the_notebook_itself_is_one_clear_error(project, monkeypatch, capsys):
    def full(*_args, **_kwargs):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(kernel, "execute", full)
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False) == 3
    assert "no space left on the disk" in capsys.readouterr().err
    nothing_left(project)
    assert not any(Path(project.home / "failed").rglob("*.ipynb"))
