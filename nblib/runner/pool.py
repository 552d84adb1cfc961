"""Run several jobs at once, each in a process of its own, so that no job can harm another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-c", "import sys; from nblib.runner import child; sys.exit(child())"]


def run(
    orders: list[dict[str, Any]],
    n_jobs: int,
    environment: dict[str, str],
    outcome_type: type,
    finished: Callable[[dict[str, Any], Any], None],
) -> list[Any]:
    """One process per order, `n_jobs` at a time; the outcomes in the order of `orders`.

    A signal to this process is passed on to every job, and what was not begun is not begun. A
    process that ends without an outcome counts as a kernel that died (code 4).
    """
    outcomes: list[Any] = [None] * len(orders)
    waiting = list(range(len(orders)))
    active: dict[int, tuple[subprocess.Popen, Any, Any]] = {}
    stopped: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        stopped.append(number)
        for process, _, _ in active.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    with _handlers(stop):
        while active or (waiting and not stopped):
            while waiting and len(active) < n_jobs and not stopped:
                i = waiting.pop(0)
                active[i] = _begin(orders[i], environment)
            for i, (process, out, err) in list(active.items()):
                if process.poll() is not None:
                    outcomes[i] = _read(process, out, err, outcome_type)
                    del active[i]
                    finished(orders[i], outcomes[i])
            time.sleep(0.05)
    for i in waiting:
        outcomes[i] = outcome_type(128 + stopped[-1], f"{orders[i]['notebook']}: not begun, the runner was stopped")
    return outcomes


@contextlib.contextmanager
def _handlers(stop: Callable[[int, Any], None]):
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begin(order: dict[str, Any], environment: dict[str, str]) -> tuple[subprocess.Popen, Any, Any]:
    """Start one job in a process group of its own: signals reach it from here only."""
    out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
    env = {**os.environ, **environment}
    process = subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=out, stderr=err, text=True, env=env, process_group=0
    )
    with process.stdin as pipe, contextlib.suppress(BrokenPipeError):
        pipe.write(json.dumps(order))
    return process, out, err


def _read(process: subprocess.Popen, out: Any, err: Any, outcome_type: type) -> Any:
    with out, err:
        out.seek(0)
        err.seek(0)
        lines = out.read().strip().split("\n")
        try:
            told = json.loads(lines[-1])
        except ValueError:
            last = err.read().strip().split("\n")[-1] or f"exit status {process.returncode}"
            return outcome_type(4, f"the process of this job ended without an outcome: {last}")
    return outcome_type(**{k: Path(v) if k in ("folder", "notebook") and v else v for k, v in told.items()})
