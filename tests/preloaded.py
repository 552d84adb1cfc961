"""A process that has imported what notebooks need, whose forks stand in for new interpreters.

To import torch and Lightning takes seconds, and many tests start processes that need them. Those of
`nblib.run.many`, and of `execute.run` where a test asks for it, begin here as forks of one process a
worker of pytest; the tests of plain papermill, of faults and of a real Slurm have real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import util
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from nblib.run import many

util.get_temp_dir()  # now: that of a test may be gone, or too long for a socket
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([*many.LIGHT, *many.HEAVY, __name__])


class Forked:
    """What `run_calls` asks of its `subprocess.Popen`: the process that forks jobs, its stdin and stdout."""

    def __init__(self, command: list[str], *, env: dict[str, str], **_: Any):
        assert command == [sys.executable, "-m", many.__name__]
        (orders, stdin), (stdout, reports) = os.pipe(), os.pipe()
        ends = DupFd(orders), DupFd(reports)
        self.process = FORKS.Process(target=become_server, args=(*ends, env, str(Path.cwd())))
        self.process.start()
        os.close(orders)
        os.close(reports)
        self.stdin, self.stdout = os.fdopen(stdin, "w"), os.fdopen(stdout)

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stdin.close()
        self.process.join()
        self.stdout.close()


def become_server(orders: Any, reports: Any, environment: dict[str, str], folder: str) -> None:
    """`python -m nblib.run.many`, its imports done."""
    os.setpgid(0, 0)
    for number, end in enumerate((orders, reports)):
        os.dup2(end.detach(), number)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    many.main()


def run(notebook: str, params: dict[str, Any], *, progress: bool = True, **options: Any) -> int:
    """`execute.run` in a fork."""
    outcome = attempt(notebook, params, **options)
    print(outcome.message, file=sys.stderr if outcome.code else sys.stdout)
    return outcome.code


def attempt(notebook: str, params: dict[str, Any], **options: Any) -> Any:
    """`execute.attempt` in a fork, whose kernels are forks in turn."""
    call = {"notebook": notebook, "params": params, "progress": False, **options}
    return many.run_calls([call], 1, progress=False, explain=False)[0]
