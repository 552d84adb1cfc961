"""Many runs, several at once, each in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nblib.core.errors import BadParameter
from nblib.road import stages
from nblib.run.runner.outcome import Outcome
from nblib.run.runner.plan import Run, needs

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip
LIGHT_NOTEBOOKS = {name[:2] for name, info in stages.STAGES.items() if not info.is_run} | {"90"}


def run_many(
    jobs: list[Run],
    n_jobs: int,
    *,
    progress: bool = True,
    count: bool = False,
    retries: int = 0,
    **options: bool,
) -> list[Outcome]:
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
) -> list[Outcome]:
    """Call a function that returns an Outcome, in a process of its own, once for each of `calls`.

    A call holds plain keyword arguments and, under "call", the function as "module:name" (without
    it, `attempt`). after: for each call those that must have ended well before; heavy: whether torch
    is imported beforehand; count: say after each how far it is; retries: how often one whose kernel
    or process died is begun again (an error of its own is not).
    The cores at hand are shared out: each call gets cores // n_jobs threads, or fewer when the
    environment says so. A signal to this process reaches all, and what was not begun is not begun.
    """
    from nblib.run.runner import pool, warm

    if n_jobs < 1:
        raise BadParameter(f"jobs = {n_jobs}: expected at least 1.")
    share = max(1, cores() // n_jobs)
    threads = {v: str(min(share, int(os.environ.get(v) or share))) for v in THREAD_VARIABLES}
    began, codes = time.monotonic(), []

    def finished(outcome: Outcome) -> None:
        codes.append(outcome.code)
        if progress or outcome.code:
            print(outcome.message, file=sys.stderr if outcome.code else sys.stdout, flush=True)
        if count:
            failed = sum(code != 0 for code in codes)
            told = (len(codes) - failed, len(calls), time.monotonic() - began)
            print(f"    {progress_line(*told, failed=failed)}", flush=True)

    modules = (*warm.LIGHT, *(warm.HEAVY if heavy else ()))
    after = after or [set() for _ in calls]
    return pool.run(calls, after, n_jobs, modules, threads, finished, retries)


def child() -> int:
    """What a process of `run_calls` does: one call on stdin, one outcome on stdout."""
    call = json.load(sys.stdin)
    module, _, name = call.pop("call", "nblib.run.runner:attempt").partition(":")
    outcome = getattr(importlib.import_module(module), name)(**call)
    print(json.dumps(asdict(outcome), default=str))
    return outcome.code


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
