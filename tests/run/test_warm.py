"""The server whose forks are jobs and kernels: clean forks, true statuses, nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_project import wait_until

from nblib.core.errors import RunFailed
from nblib.run import warm

SHOW = "import os; print(*(open(f'/proc/self/task/{t}/comm').read() for t in os.listdir('/proc/self/task')))"


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def tasks(tmp_path):
    """A module of tasks for the server to import."""
    (tmp_path / "more_tasks.py").write_text(
        "import os, random, sys, time\n"
        "from nblib.run import warm\n"
        "def tell():\n"
        "    import numpy\n"
        "    print(os.environ.get('COLOUR'), os.getcwd(), numpy.random.random(), random.random(),"
        " sys.stdin.read(), os.getpgid(0) == os.getpid())\n"
        "    return 7\n"
        "def sleep(seconds):\n"
        "    time.sleep(seconds)\n"
        "def fail():\n"
        "    raise ValueError('broken')\n"
        "warm.TASKS.update(tell=tell, sleep=sleep, fail=fail)\n"
    )
    return {"PYTHONPATH": str(tmp_path)}


def start(environment, task, *arguments, folder, **options):
    """A process of the server, with its output in folder/out."""
    (folder / "in").write_text("asked")
    with (folder / "in").open() as told, (folder / "out").open("w") as out:
        env = {**os.environ, **options.pop("env", {})}
        address = environment[warm.ADDRESS]
        return warm.Process(address, task, list(arguments), [told, out, out], env=env, **options)


def test_a_fork_has_its_own_world(tasks, tmp_path):
    with warm.server(("numpy", "more_tasks"), tasks) as environment:
        seen = []
        for colour in ("red", "blue"):
            folder = tmp_path / colour
            folder.mkdir()
            process = start(environment, "tell", folder=folder, env={"COLOUR": colour}, cwd=str(folder))  # fmt: skip
            assert process.wait() == 7 == process.poll()
            seen.append((folder / "out").read_text().split())
            assert seen[-1][0] == colour and seen[-1][1] == str(folder)
            assert seen[-1][4:] == ["asked", "True"]
        assert seen[0][2:4] != seen[1][2:4]  # random numbers
    assert not Path(environment[warm.ADDRESS]).parent.exists()


def test_statuses_are_true(tasks, tmp_path):
    with warm.server(("more_tasks",), tasks) as environment:
        process = start(environment, "fail", folder=tmp_path)
        assert process.wait() == 1 and "ValueError: broken" in (tmp_path / "out").read_text()
        process = start(environment, "sleep", 60, folder=tmp_path)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        process.send_signal(signal.SIGTERM)  # it has ended: nobody is hit


def test_a_tied_process_ends_with_who_asked_for_it(tasks, tmp_path):
    with warm.server(("more_tasks",), tasks) as environment:
        tied = start(environment, "sleep", 60, folder=tmp_path, tied=True)
        free = start(environment, "sleep", 60, folder=tmp_path)
        for process in (tied, free):
            process.told.close()
            process.connection.close()
        wait_until(lambda: not alive(tied.pid))
        assert alive(free.pid)
        os.kill(free.pid, signal.SIGKILL)
    assert not alive(free.pid)


def test_the_server_outlives_its_parent_until_its_children_end(tasks, tmp_path):
    code = (
        "import os, signal, sys, time\n"
        "from nblib.run import warm\n"
        "with warm.server(('more_tasks',), {}) as environment, open(os.devnull, 'r+') as null:\n"
        "    process = warm.Process(environment[warm.ADDRESS], 'sleep', [1.0], [null] * 3, env=dict(os.environ))\n"
        "    print(environment[warm.ADDRESS], process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with (tmp_path / "told").open("w") as told:  # a pipe would stay open as long as the server
        env = {**os.environ, **tasks}
        done = subprocess.run([sys.executable, "-c", code], env=env, stdout=told)
    address, pid = (tmp_path / "told").read_text().split()
    assert done.returncode == -signal.SIGKILL and alive(pid)
    wait_until(lambda: not Path(address).parent.exists())
    assert not alive(pid)


def test_a_killed_server_is_a_killed_job(tasks, tmp_path):
    with warm.server(("more_tasks",), tasks) as environment:
        process = start(environment, "sleep", 60, folder=tmp_path)
        parent = int(Path(f"/proc/{process.pid}/stat").read_text().split()[3])
        os.kill(parent, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        wait_until(lambda: not alive(process.pid))  # nothing works on that nobody watches


@pytest.mark.parametrize("there", [True, False])
def test_a_dead_server_is_told_in_a_sentence(tmp_path, there):
    """A socket that nobody listens on any more, or none at all."""
    address = tmp_path / "warm"
    if there:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
    with pytest.raises(RunFailed, match="begins jobs and kernels is gone") as error:
        warm.Process(str(address), "job", [], [], env={})
    assert str(address) in str(error.value) and "NBLIB_WARM" in str(error.value)


def test_what_is_imported_starts_no_thread():
    """A fork copies one thread only: another one's locks would stay locked for ever."""
    modules = (*warm.LIGHT, *warm.HEAVY)
    code = f"import importlib\nfor m in {modules!r}: importlib.import_module(m)\n{SHOW}"
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **one}, capture_output=True, text=True
    )
    names = out.stdout.split()
    assert names[:1] == ["python"], out.stderr
    assert set(names[1:]) <= {"jemalloc_bg_thd"}  # of pyarrow; jemalloc sees to forks itself
