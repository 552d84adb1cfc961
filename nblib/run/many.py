"""Many runs, several at once, each in a process of its own, so that none can harm another.

`run_calls` starts this module once more, as a process that imports what notebooks need and forks a job
for each call (`Workers`). It computes nothing and starts no thread, so its forks are as clean as a new
interpreter, and start at once; the kernel of a notebook is a fork of its job in turn (see `kernel`). The
calls go there as a line of JSON on stdin, and back comes a line for each that ended. stdin is the line
of life: when this process is gone, the jobs are told to end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

from nblib.core.errors import BadParameter
from nblib.road.stage_registry import STAGES
from nblib.run.execute import KERNEL_DIED, Exit
from nblib.run.plan import Task, needs
from nblib.run.watch import SIGNALS, signals_to

LIGHT = (  # the first of them knows how to import nbclient quickly
    "nblib.run.kernel", "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell",
    "matplotlib_inline.config", "IPython.core.completer", "xarray", "h5py", "pynwb", "scipy.signal",
    "scipy.stats", "seaborn", "matplotlib.pyplot", "nblib.run.execute", "nblib.prepare.binning_stage",
    "nblib.prepare.cleaning", "nblib.prepare.stored_splits", "nblib.report.plots.recordings",
    "nblib.report.plots.preparation", "nblib.report.response_explorer",
)  # fmt: skip
HEAVY = (
    "torch", "torch._dynamo", "lightning", "sklearn.linear_model", "nblib.models.training",
    "nblib.experiments.decode", "nblib.report.plots.one_run",
)  # fmt: skip
FORK = multiprocessing.get_context("fork")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
INLINE = "module://matplotlib_inline.backend_inline"
SERVER_GONE = (
    "the process that begins jobs and kernels is gone: it was killed, perhaps for want of memory. "
    "What is committed stays; call the command again"
)
LIGHT_NOTEBOOKS = {name[:2] for name, info in STAGES.items() if info.light}


def run_many(
    jobs: list[Task],
    n_jobs: int,
    *,
    progress: bool = True,
    explain: bool = True,
    count: bool = False,
    retries: int = 0,
    **options: bool,
) -> list[Exit]:
    """Run (notebook, params) pairs, `n_jobs` at a time; the outcomes in their order.

    One that rests on others of them waits for these, and is withheld when one of them fails.
    `options` are those of `attempt`; the others are explained at `run_calls`.
    """
    options = {**options, "progress": False}  # of the child; this process says what happened
    calls = [{"notebook": str(n), "params": p, **options} for n, p in jobs]
    heavy = any(Path(n).name[:2] not in LIGHT_NOTEBOOKS for n, _ in jobs)
    settings = {"heavy": heavy, "progress": progress, "explain": explain, "count": count}
    return run_calls(calls, n_jobs, after=needs(jobs), retries=retries, **settings)


def run_calls(
    calls: list[dict[str, Any]],
    n_jobs: int,
    *,
    after: list[set[int]] | None = None,
    heavy: bool = True,
    progress: bool = True,
    explain: bool = True,
    count: bool = False,
    retries: int = 0,
) -> list[Exit]:
    """Call a function that returns an Exit, in a process of its own, once for each of `calls`.

    A call holds plain keyword arguments and, under "call", the function as "module:name" (without
    it, `attempt`). after: for each call those that must have ended well before; heavy: whether torch
    is imported beforehand; progress: say what was made; explain: say why one failed; count: say
    after each how far it is; retries: how often one whose kernel or process died is begun again (an
    error of its own is not).
    The cores at hand are shared out: each call gets cores // n_jobs threads, or fewer when the
    environment says so. A signal to this process reaches all, and what was not begun is not begun.
    """
    if n_jobs < 1:
        raise BadParameter(f"jobs = {n_jobs}: expected at least 1.")
    share = max(1, cores() // n_jobs)
    threads = {v: str(min(share, int(os.environ.get(v) or share))) for v in THREAD_VARIABLES}
    # Figures of every kernel go into its notebook, whichever process read this first.
    environment = {"MPLBACKEND": INLINE, **os.environ, **threads}
    after = [sorted(before) for before in after] if after else [[] for _ in calls]
    order = {"calls": calls, "after": after, "n_jobs": n_jobs, "retries": retries, "heavy": heavy}
    outcomes: dict[int, Exit] = {}
    stopped: list[int] = []
    began = time.monotonic()

    def stop(number: int, _frame: Any) -> None:
        stopped.append(number)
        process.send_signal(number)

    process = subprocess.Popen(
        [sys.executable, "-m", "nblib.run.many"], env=environment, process_group=0, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with signals_to(stop), process:
        with contextlib.suppress(BrokenPipeError):  # it died at once, as is said below
            process.stdin.write(f"{json.dumps(order)}\n")
            process.stdin.flush()
        for line in process.stdout:
            report = json.loads(line)
            if "again" in report:
                print(f"Tried once more: {report['again']}", flush=True)
                continue
            outcome = outcomes[report["call"]] = _exit(report["exit"])
            if explain if outcome.code else progress:
                stream = sys.stderr if outcome.code else sys.stdout
                print(outcome.message, file=stream, flush=True)
            if count:
                failed = sum(one.code != 0 for one in outcomes.values())
                spent = time.monotonic() - began
                line = progress_line(len(outcomes) - failed, len(calls), spent, failed=failed)
                print(f"    {line}", flush=True)
    return [outcomes.get(i) or _unmade(call, stopped) for i, call in enumerate(calls)]


def _exit(values: dict[str, Any]) -> Exit:
    paths = {k: Path(values[k]) for k in ("folder", "notebook") if values[k]}
    return Exit(**{**values, **paths})


def _unmade(call: dict[str, Any], stopped: list[int]) -> Exit:
    """The outcome of a call that was never begun, or whose end nobody saw."""
    if stopped:
        return Exit(128 + stopped[-1], f"{name(call)}: not begun, the runner was stopped")
    return Exit(KERNEL_DIED, f"{name(call)}: {SERVER_GONE}")


def name(call: dict[str, Any]) -> str:
    """What a call is for people: its notebook, or the function."""
    return call["notebook"] if "notebook" in call else call["call"]


def progress_line(done: int, total: int, seconds: float, *, failed: int = 0) -> str:
    """How far a sweep is: count, failures, rate and time left."""
    text = f"{done} of {total} done" + (f", {failed} failed" if failed else "")
    if not done:
        return text
    left = seconds / done * (total - done - failed)
    return f"{text}; {60 * done / seconds:.1f} a minute, about {left / 60:.0f} min left"


def cores() -> int:
    """Cores this process may use: a Slurm job or a container often has fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- in the process that forks -------------------------------------------------------------------


def main() -> None:
    """Run the calls that stdin holds, and end when all have ended."""
    order = json.loads(sys.stdin.readline())
    for name in (*LIGHT, *(HEAVY if order.pop("heavy") else ())):
        importlib.import_module(name)
    gc.freeze()  # shared pages stay shared
    Workers(**order).run()


@dataclass
class Job:
    """The process of one call, and the files that take what it prints: its Exit last."""

    process: multiprocessing.process.BaseProcess
    out: IO[str]
    err: IO[str]

    def outcome(self) -> dict[str, Any]:
        """Its Exit; one that ended without any counts as a kernel that died."""
        with self.out as out, self.err as err:
            out.seek(0)
            err.seek(0)
            try:
                return json.loads(out.read().strip().split("\n")[-1])
            except ValueError:
                last = err.read().strip().split("\n")[-1] or f"status {self.process.exitcode}"
                text = f"the process of a job ended without an outcome: {last}"
                return asdict(Exit(KERNEL_DIED, text))


class Workers:
    """Calls at work, `n_jobs` at a time.

    after: for each call those that must have ended well before; where one did not, it is not run.
    retries: how often a call is begun again whose process or kernel died.
    """

    def __init__(
        self, calls: list[dict[str, Any]], after: list[list[int]], n_jobs: int, retries: int
    ):
        self.calls, self.after, self.n_jobs, self.retries = calls, after, n_jobs, retries
        self.waiting = list(range(len(calls)))
        self.active: dict[int, Job] = {}
        self.outcomes: dict[int, dict[str, Any]] = {}
        self.tries: Counter[int] = Counter()
        self.stopped: list[int] = []

    def run(self) -> None:
        """Begin, watch and report each; a signal reaches all, and what was not begun is not begun."""
        for number in SIGNALS:
            signal.signal(number, lambda number, _frame: self.stop(number))
        life = [sys.stdin.fileno()]
        while self.active or (self.waiting and not self.stopped):
            self._withhold()
            self._begin()
            if not self.active:
                continue
            ready = wait([*life, *(job.process.sentinel for job in self.active.values())])
            if life and life[0] in ready:
                life = []
                self.stop(signal.SIGTERM)
            for i in [i for i, job in self.active.items() if job.process.sentinel in ready]:
                self._end(i)

    def stop(self, number: int) -> None:
        """Signal all jobs, and begin no more."""
        self.stopped.append(number)
        for job in self.active.values():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(job.process.pid, number)

    def _withhold(self) -> None:
        """Report as not run what waits for a call that failed."""
        for i in list(self.waiting):
            failed = [k for k in sorted(self.after[i]) if self.outcomes.get(k, {}).get("code")]
            if failed:
                self.waiting.remove(i)
                cause = self.outcomes[failed[0]]
                text = (
                    f"{name(self.calls[i])} was not run, since {name(self.calls[failed[0]])} failed"
                )
                self._report(i, asdict(Exit(cause["code"], f"{text}: {cause['message']}")))

    def _begin(self) -> None:
        """Fork jobs for calls that wait for nothing, as long as there is room."""
        for i in [i for i in self.waiting if all(k in self.outcomes for k in self.after[i])]:
            if len(self.active) == self.n_jobs or self.stopped:
                return
            self.waiting.remove(i)
            files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115 - closed by Job
            process = FORK.Process(target=work, args=(self.calls[i], *files))
            process.start()
            self.active[i] = Job(process, *files)
            for number in self.stopped[:1]:  # the signal came while it was being started
                os.kill(process.pid, number)

    def _end(self, i: int) -> None:
        """Take leave of a job: report its outcome, or let it wait for another try."""
        job = self.active.pop(i)
        job.process.join()
        outcome = job.outcome()
        if outcome["code"] == KERNEL_DIED and self.tries[i] < self.retries and not self.stopped:
            self.tries[i] += 1
            self.waiting.insert(0, i)
            print(json.dumps({"again": outcome["message"]}), flush=True)
        else:
            self._report(i, outcome)

    def _report(self, i: int, outcome: dict[str, Any]) -> None:
        self.outcomes[i] = outcome
        print(json.dumps({"call": i, "exit": outcome}), flush=True)


# --- in a job ------------------------------------------------------------------------------------


def work(call: dict[str, Any], out: IO[str], err: IO[str]) -> None:
    """Make a call in a process group of its own, and print the Exit that it returns."""
    os.setpgid(0, 0)  # signals reach it from its parent only
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    module, _, function = call.pop("call", "nblib.run.execute:attempt").partition(":")
    outcome = getattr(importlib.import_module(module), function)(**call)
    print(json.dumps(asdict(outcome), default=str), flush=True)


def _end_with(parent: int) -> None:
    """End this process when its parent is killed: nothing works on that nobody watches."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
