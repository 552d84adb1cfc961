"""The process whose forks are jobs: clean forks, true outcomes, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from tiny_project import wait_until

from nblib.run import many
from nblib.run.execute import KERNEL_DIED

SHOW = "import os; print(*(open(f'/proc/self/task/{t}/comm').read() for t in os.listdir('/proc/self/task')))"
CALLS = """
import os, random, signal, time
from pathlib import Path
from nblib.run.execute import Exit

def look(**given):
    import numpy
    leads = os.getpgid(0) == os.getpid()
    seen = (os.environ["COLOUR"], os.getcwd(), leads, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
    return Exit(0, f"{seen} {given}", Path("here"), peak_rss_bytes=7)

def sleep(mark):
    Path(mark).write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(60)

def fail():
    raise ValueError("broken")

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Functions for a job to call, by name."""
    (tmp_path / "more_calls.py").write_text(CALLS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    return lambda name, **given: {"call": f"more_calls:{name}", **given}


def pids(mark: Path) -> list[int]:
    """Of a job that sleeps, and of the process that forked it."""
    wait_until(lambda: mark.is_file() and mark.read_text().count(" "), 240)
    return [int(pid) for pid in mark.read_text().split()]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_job_has_its_own_world(calls, monkeypatch, tmp_path):
    monkeypatch.setenv("COLOUR", "red")
    monkeypatch.chdir(tmp_path)
    ((outcome), *_) = many.run_calls([calls("look", x=[1, None])], 1, heavy=False, progress=False)
    assert outcome.code == 0 and outcome.folder == Path("here") and outcome.peak_rss_bytes == 7
    assert outcome.message == f"{('red', str(tmp_path), True, True)} {{'x': [1, None]}}"


def test_outcomes_are_true(calls, capsys):
    """In their order; one that died is tried once more, one with an error of its own is not."""
    after = [set(), set(), {0}, set()]
    orders = [calls("fail"), calls("die"), calls("fail"), calls("no_such")]
    ends = many.run_calls(orders, 2, after=after, heavy=False, retries=1)
    assert [end.code for end in ends] == [KERNEL_DIED] * 4
    assert "ValueError: broken" in ends[0].message and "status -9" in ends[1].message
    assert "more_calls:fail was not run, since more_calls:fail failed: " in ends[2].message
    assert "no_such" in ends[3].message
    assert capsys.readouterr().out.count("Tried once more") == 3


def test_a_dead_server_is_told_in_a_sentence(calls, tmp_path):
    """What it had at work ends with it, and what it had not begun is named too."""
    mark = tmp_path / "mark"

    def kill() -> None:
        os.kill(pids(mark)[1], signal.SIGKILL)

    threading.Thread(target=kill).start()
    orders = [calls("sleep", mark=str(mark)), calls("fail")]
    ends = many.run_calls(orders, 1, heavy=False, progress=False)
    assert [end.code for end in ends] == [KERNEL_DIED] * 2
    assert all("begins jobs and kernels is gone" in end.message for end in ends)
    wait_until(lambda: gone(pids(mark)[0]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_end_with_who_asked_for_them(calls, tmp_path, number):
    mark = tmp_path / "mark"
    code = (
        "from nblib.run import many\n"
        f"order = {{'call': 'more_calls:sleep', 'mark': {str(mark)!r}}}\n"
        "print([end.code for end in many.run_calls([order, order], 1, heavy=False)])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    job, server = pids(mark)
    began = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate()
    wait_until(lambda: gone(job) and gone(server))
    assert time.monotonic() - began < 30
    if number == signal.SIGTERM:  # the first was killed by it; the second was not begun
        assert out == f"{[KERNEL_DIED, 128 + number]}\n"


def test_what_is_imported_starts_no_thread():
    """A fork copies one thread only: another one's locks would stay locked for ever."""
    modules = (*many.LIGHT, *many.HEAVY)
    code = f"import importlib\nfor m in {modules!r}: importlib.import_module(m)\n{SHOW}"
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **one}, capture_output=True, text=True
    )
    names = out.stdout.split()
    assert names[:1] == ["python"], out.stderr
    assert set(names[1:]) <= {"jemalloc_bg_thd"}  # of pyarrow; jemalloc sees to forks itself
