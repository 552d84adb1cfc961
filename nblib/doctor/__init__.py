"""`nblib doctor`: is this machine ready? Each line says what was found and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from nblib import store
from nblib.doctor import gpu, machine, software
from nblib.doctor.check import FAIL, OK, WARN, Check
from nblib.errors import NblibError

__all__ = ["FAIL", "OK", "WARN", "Check", "checks", "main"]


def checks() -> list[Check]:
    """Every check of this machine: name, status, what was found, the command that mends it."""
    return list(_checks())


def _checks() -> Iterator[Check]:
    """One after the other, so that a terminal shows each as soon as it is known."""
    yield software.python()
    yield from software.packages(
        software.installed(), software.requirements(), software.constraints()
    )
    yield software.git()
    yield gpu.judge(gpu.cards(), gpu.torch_told())
    yield machine.memory(machine.memory_limits())
    yield from _guarded("data root", machine.root)
    try:
        home = store.home()
    except NblibError:
        pass  # told by the check before
    else:
        yield machine.disk(home, *machine.disk_space(home))
        yield machine.quota(home, machine.quota_lines(home))
        yield machine.writing(home)
        yield machine.locking(home)
    yield from _guarded("notebooks", software.notebooks)
    yield software.kernel(software.kernels())
    yield software.widgets(software.installed(), software.lab_extension())
    yield software.allensdk()


def _guarded(name: str, check: Callable[[], Check]) -> Iterator[Check]:
    try:
        yield check()
    except NblibError as error:
        yield Check(name, FAIL, str(error), "see the message")


def main() -> int:
    """Print every check; 1 when one of them fails."""
    counts = dict.fromkeys((OK, WARN, FAIL), 0)
    for check in _checks():
        counts[check.status] += 1
        print(f"{check.status:>4}  {check.name}: {check.found}", flush=True)
        if check.fix:
            print(f"      -> {check.fix}", flush=True)
    say = partial("{} {}".format)
    print(
        f"\n{say(counts[OK], 'ok')}, {say(counts[WARN], 'to look at')}, {say(counts[FAIL], 'failed')}"
    )
    return 1 if counts[FAIL] else 0
