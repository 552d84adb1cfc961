"""The process whose forks are jobs: clean forks, true outcomes, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import more_calls
import psutil
import pytest
from tiny_project import gone, wait_until

from nblib.run import many
from nblib.run.execute import KERNEL_DIED


def call(name, **given):
    return {"call": f"more_calls:{name}", **given}


def pids(mark: Path) -> list[int]:
    """Of a job that sleeps, and of the process that forked it."""
    wait_until(lambda: mark.is_file() and mark.read_text().count(" "), 240)
    return [int(pid) for pid in mark.read_text().split()]


def test_a_job_has_its_own_world(preloaded, monkeypatch, tmp_path):
    monkeypatch.setenv("COLOUR", "red")
    monkeypatch.chdir(tmp_path)
    (outcome,) = many.run_calls([call("look", x=[1, None])], 1, progress=False)
    assert outcome.code == 0 and outcome.folder == Path("here") and outcome.peak_rss_bytes == 7
    assert outcome.message == f"{('red', str(tmp_path), True, True)} {{'x': [1, None]}}"
    # A fork copies one thread only: another one's locks would stay locked for ever.
    (server,) = [p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())]
    names = [p.read_text().strip() for p in Path(f"/proc/{server.pid}/task").glob("*/comm")]
    # But for that of pyarrow's jemalloc, which sees to forks itself.
    assert names.count("python") == 1 and set(names) <= {"python", "jemalloc_bg_thd"}


def test_what_jobs_share_is_imported_quickly():
    """The grammar of web addresses, which a validator of nbclient compiles and no job needs, takes a second."""
    code = (
        "import importlib, sys\n"
        "from nblib.run import many\n"
        "names = iter(many.LIGHT)\n"
        "while 'nbclient' not in sys.modules:\n"
        "    importlib.import_module(next(names))\n"
        "sys.exit('rfc3987_syntax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_outcomes_are_true(preloaded, capsys):
    """In their order; one that died is tried once more, one with an error of its own is not."""
    after = [set(), set(), {0}, set()]
    orders = [call("fail"), call("die"), call("fail"), call("no_such")]
    ends = many.run_calls(orders, 2, after=after, retries=1)
    assert [end.code for end in ends] == [KERNEL_DIED] * 4
    assert "ValueError: broken" in ends[0].message and "status -9" in ends[1].message
    assert "more_calls:fail was not run, since more_calls:fail failed: " in ends[2].message
    assert "no_such" in ends[3].message
    assert capsys.readouterr().out.count("Tried once more") == 3


def test_a_dead_server_is_told_in_a_sentence(preloaded, tmp_path):
    """What it had at work ends with it, and what it had not begun is named too."""
    mark = tmp_path / "mark"

    def kill() -> None:
        os.kill(pids(mark)[1], signal.SIGKILL)

    threading.Thread(target=kill).start()
    orders = [call("sleep", mark=str(mark)), call("fail")]
    ends = many.run_calls(orders, 1, progress=False)
    assert [end.code for end in ends] == [KERNEL_DIED] * 2
    assert all("begins jobs and kernels is gone" in end.message for end in ends)
    wait_until(lambda: gone(pids(mark)[0]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_end_with_who_asked_for_them(tmp_path, number):
    mark = tmp_path / "mark"
    code = (
        "from nblib.run import many\n"
        f"order = {{'call': 'more_calls:sleep', 'mark': {str(mark)!r}}}\n"
        "print([end.code for end in many.run_calls([order, order], 1, heavy=False)])"
    )
    path = os.pathsep.join(
        [str(Path(more_calls.__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )  # fmt: skip
    job, server = pids(mark)
    began = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate()
    wait_until(lambda: gone(job) and gone(server))
    assert time.monotonic() - began < 30
    if number == signal.SIGTERM:  # the first was killed by it; the second was not begun
        assert out == f"{[KERNEL_DIED, 128 + number]}\n"
