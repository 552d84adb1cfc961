"""Run several jobs at once, each in a process of its own, so that no job can harm another.

The processes are forks of one that has imported what they need (see `warm`).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nblib.run.runner import warm
from nblib.run.runner.outcome import KERNEL_DIED, Outcome


@dataclass
class Worker:
    """The process of one job, and the files that take what it prints."""

    process: warm.Process
    out: IO[str]
    err: IO[str]


def run(
    orders: list[dict[str, Any]],
    needs: list[set[int]],
    n_jobs: int,
    modules: tuple[str, ...],
    environment: dict[str, str],
    finished: Callable[[Outcome], None],
    retries: int = 0,
) -> list[Outcome]:
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
        outcomes[i] = Outcome(128 + stopped[-1], message)
    return outcomes


def _name(order: dict[str, Any]) -> str:
    return order["notebook"] if "notebook" in order else order["call"]


def _withheld(i: int, orders: list[dict[str, Any]], needs: list[set[int]], outcomes: list[Outcome]) -> Outcome:  # fmt: skip
    cause = next(k for k in sorted(needs[i]) if outcomes[k] and outcomes[k].code)
    name, before = _name(orders[i]), _name(orders[cause])
    said = outcomes[cause].message
    return Outcome(outcomes[cause].code, f"{name} was not run, since {before} failed: {said}")


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


def _read(worker: Worker) -> Outcome:
    with worker.out as out, worker.err as err:
        out.seek(0)
        err.seek(0)
        try:
            told = json.loads(out.read().strip().split("\n")[-1])
        except ValueError:
            last = err.read().strip().split("\n")[-1] or f"status {worker.process.returncode}"
            return Outcome(KERNEL_DIED, f"the process of a job ended without an outcome: {last}")
    paths = {k: Path(told[k]) for k in ("folder", "notebook") if told[k]}
    return Outcome(**{**told, **paths})
