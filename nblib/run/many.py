"""Many runs, several at once, each in a process of its own, so that none can harm another.

The processes are forks of one that has imported what they need (see `warm`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nblib.core.errors import BadParameter
from nblib.road.stage_registry import STAGES
from nblib.run import warm
from nblib.run.execute import KERNEL_DIED, Exit
from nblib.run.plan import Task, needs

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip
LIGHT_NOTEBOOKS = {name[:2] for name, info in STAGES.items() if info.light}


def run_many(
    jobs: list[Task],
    n_jobs: int,
    *,
    progress: bool = True,
    count: bool = False,
    retries: int = 0,
    **options: bool,
) -> list[Exit]:
    """Run (notebook, params) pairs, `n_jobs` at a time; the outcomes in their order.

    One that rests on others of them waits for these, and is withheld when one of them fails.
    `options` are those of `attempt`; the others are explained at `run_calls`.
    """
    if n_jobs < 1:
        raise BadParameter(f"jobs = {n_jobs}: expected at least 1.")
    options = {**options, "progress": False}  # of the child; this process says what happened
    calls = [{"notebook": str(n), "params": p, **options} for n, p in jobs]
    heavy = any(Path(n).name[:2] not in LIGHT_NOTEBOOKS for n, _ in jobs)
    how = {"heavy": heavy, "progress": progress, "count": count, "retries": retries}
    return run_calls(calls, n_jobs, after=needs(jobs), **how)


def run_calls(
    calls: list[dict[str, Any]],
    n_jobs: int,
    *,
    after: list[set[int]] | None = None,
    heavy: bool = True,
    progress: bool = True,
    count: bool = False,
    retries: int = 0,
) -> list[Exit]:
    """Call a function that returns an Exit, in a process of its own, once for each of `calls`.

    A call holds plain keyword arguments and, under "call", the function as "module:name" (without
    it, `attempt`). after: for each call those that must have ended well before; heavy: whether torch
    is imported beforehand; count: say after each how far it is; retries: how often one whose kernel
    or process died is begun again (an error of its own is not).
    The cores at hand are shared out: each call gets cores // n_jobs threads, or fewer when the
    environment says so. A signal to this process reaches all, and what was not begun is not begun.
    """
    if n_jobs < 1:
        raise BadParameter(f"jobs = {n_jobs}: expected at least 1.")
    share = max(1, cores() // n_jobs)
    threads = {v: str(min(share, int(os.environ.get(v) or share))) for v in THREAD_VARIABLES}
    began, codes = time.monotonic(), []

    def finished(outcome: Exit) -> None:
        codes.append(outcome.code)
        if progress or outcome.code:
            print(outcome.message, file=sys.stderr if outcome.code else sys.stdout, flush=True)
        if count:
            failed = sum(code != 0 for code in codes)
            told = (len(codes) - failed, len(calls), time.monotonic() - began)
            print(f"    {progress_line(*told, failed=failed)}", flush=True)

    modules = (*warm.LIGHT, *(warm.HEAVY if heavy else ()))
    after = after or [set() for _ in calls]
    return _in_processes(calls, after, n_jobs, modules, threads, finished, retries)


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


# --- processes ------------------------------------------------------------------------------------


@dataclass
class Worker:
    """The process of one job, and the files that take what it prints."""

    process: warm.Process
    out: IO[str]
    err: IO[str]


def _in_processes(
    orders: list[dict[str, Any]],
    needs: list[set[int]],
    n_jobs: int,
    modules: tuple[str, ...],
    environment: dict[str, str],
    finished: Callable[[Exit], None],
    retries: int = 0,
) -> list[Exit]:
    """One process per order, `n_jobs` at a time; the outcomes in the order of `orders`.

    needs: for each order those that must have ended well before; where one did not, it is not run.
    modules: what is imported before the first; environment: variables added to this process's own;
    retries: how often an order is begun again whose process or kernel died.

    A signal to this process is passed on to every job, and what was not begun is not begun. A
    process that ends without an outcome counts as a kernel that died.
    """
    outcomes: list[Any] = [None] * len(orders)
    waiting = list(range(len(orders)))
    active: dict[int, Worker] = {}
    stopped: list[int] = []
    tries = [0] * len(orders)

    def stop(number: int, _frame: Any) -> None:
        stopped.append(number)
        for worker in active.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(number)

    with warm.signals_to(stop), warm.server(modules, environment) as environment:
        while active or (waiting and not stopped):
            for i in [
                i for i in waiting if any(outcomes[k] and outcomes[k].code for k in needs[i])
            ]:
                waiting.remove(i)
                outcomes[i] = _withheld(i, orders, needs, outcomes)
                finished(outcomes[i])
            ready = [i for i in waiting if all(outcomes[k] for k in needs[i])]
            while ready and len(active) < n_jobs and not stopped:
                i = ready.pop(0)
                waiting.remove(i)
                active[i] = _begin(orders[i], environment)
                for number in stopped:  # the signal came while it was being started
                    active[i].process.send_signal(number)
            for i, worker in list(active.items()):
                if worker.process.poll() is not None:
                    outcome = _read(worker)
                    del active[i]
                    if outcome.code == KERNEL_DIED and tries[i] < retries and not stopped:
                        tries[i] += 1
                        waiting.insert(0, i)
                        print(f"Tried once more: {outcome.message}", flush=True)
                        continue
                    outcomes[i] = outcome
                    finished(outcome)
            time.sleep(0.05)
    for i in waiting:
        message = f"{_name(orders[i])}: not begun, the runner was stopped"
        outcomes[i] = Exit(128 + stopped[-1], message)
    return outcomes


def _name(order: dict[str, Any]) -> str:
    return order["notebook"] if "notebook" in order else order["call"]


def _withheld(i: int, orders: list[dict[str, Any]], needs: list[set[int]], outcomes: list[Exit]) -> Exit:  # fmt: skip
    cause = next(k for k in sorted(needs[i]) if outcomes[k] and outcomes[k].code)
    name, before = _name(orders[i]), _name(orders[cause])
    said = outcomes[cause].message
    return Exit(outcomes[cause].code, f"{name} was not run, since {before} failed: {said}")


def _begin(order: dict[str, Any], environment: dict[str, str]) -> Worker:
    """Start one job in a process group of its own: signals reach it from here only."""
    out, err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115 - closed by _read
    with tempfile.TemporaryFile("w+") as told:
        told.write(json.dumps(order))
        told.seek(0)
        env = {**os.environ, **environment}
        process = warm.Process(
            environment[warm.ADDRESS], "job", [], [told, out, err], env=env, tied=True
        )
    return Worker(process, out, err)


def _read(worker: Worker) -> Exit:
    with worker.out as out, worker.err as err:
        out.seek(0)
        err.seek(0)
        try:
            told = json.loads(out.read().strip().split("\n")[-1])
        except ValueError:
            last = err.read().strip().split("\n")[-1] or f"status {worker.process.returncode}"
            return Exit(KERNEL_DIED, f"the process of a job ended without an outcome: {last}")
    paths = {k: Path(told[k]) for k in ("folder", "notebook") if told[k]}
    return Exit(**{**told, **paths})
