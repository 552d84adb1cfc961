"""Many runs from one file: params/sweeps/*.yml read, checked, put in order, run.

A sweep is a list of steps; a step is a notebook, run once for each combination of the values in
`each`. What the runs rest on (01-04, the pretexts of 09) is found by itself and run once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

from nblib import params as P
from nblib import store, yamlfile
from nblib.errors import BadParameter, NblibError
from nblib.runner.plan import Run


class Step(P.Params):
    """One step: a notebook, run once for each combination of the values in `each`.

    A notebook may have several steps; in a book, the first one holds the run that is shown in its
    place.
    """

    notebook: str
    params: dict[str, Any] | None = None  # None: the parameters of the whole sweep
    each: dict[str, list[Any]] = {}
    show: dict[str, Any] = {}

    def runs(self, common: dict[str, Any]) -> list[Run]:
        """Every run of this step."""
        given = common if self.params is None else self.params
        combinations = itertools.product(*self.each.values())
        return [
            (self.notebook, {**given, **dict(zip(self.each, values, strict=True))})
            for values in combinations
        ]

    def shown(self, common: dict[str, Any]) -> int:
        """Position of the run that stands for this notebook in a book."""
        for i, (_, given) in enumerate(self.runs(common)):
            if self.show.items() <= given.items():
                return i
        raise BadParameter(f"{self.notebook} has no run with {self.show} to show.")


class Sweep(P.Params):
    """A file of params/sweeps."""

    sweep: str
    params: dict[str, Any] = {}
    steps: list[Step]

    def runs(self) -> list[Run]:
        """Every run of every step, in the order of the file."""
        return [run for step in self.steps for run in step.runs(self.params)]


def read(path: Path) -> Sweep:
    """Read and check a sweep; BadParameter names what is wrong in it."""
    if not path.is_file():
        raise BadParameter(f"{path}: no such file.")
    values = yamlfile.read_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(values, dict):
        raise BadParameter(f"{path}: expected 'name: value' lines.")
    return P.checked(Sweep, values, str(path))


def check(sweep: Sweep, path: Path) -> list[Run]:
    """The runs, each planned without fault; BadParameter for an empty product, a faulty run or one
    that stands twice."""
    from nblib import runner

    runs = sweep.runs()
    if not sweep.steps:
        raise BadParameter(f"{path}: no steps, so nothing would run.")
    for step in sweep.steps:
        for name, values in step.each.items():
            if not values:
                raise BadParameter(f"{path}: {step.notebook}: each.{name} is empty, so nothing would run.")  # fmt: skip
    seen: dict[tuple[str, str, str], Run] = {}
    for run in runs:
        try:
            job = runner.plan(*run)
        except NblibError as error:
            raise BadParameter(f"{path}: {_words(run)}: {error}") from None
        where = runner.place_of(job)
        if where in seen:
            raise BadParameter(f"{path}: {_words(run)} stands twice (as {_words(seen[where])}).")
        seen[where] = run
    return runs


def with_roads(runs: list[Run]) -> list[Run]:
    """The runs and, before them, all that they rest on; each artifact once."""
    from nblib import runner

    found: dict[tuple[str, str, str], Run] = {}
    for run in runs:
        for step in (*runner.road(runner.plan(*run)), run):
            found.setdefault(runner.place_of(runner.plan(*step)), step)
    return list(found.values())


def _words(run: Run) -> str:
    return f"{run[0]} ({', '.join(f'{k}={v!r}' for k, v in run[1].items())})"


def outlook(runs: list[Run]) -> str:
    """What a sweep would do, as text: runs and how many of them are done, notebook by notebook."""
    from nblib import runner

    total, done = Counter(), Counter()
    for run in runs:
        job = runner.plan(*run)
        total[job.stage] += 1
        done[job.stage] += job.committed
    lines = [f"{'notebook':26}{'runs':>6}{'done':>6}{'to do':>7}"]
    for stage in sorted(total):
        lines.append(f"{stage:26}{total[stage]:6}{done[stage]:6}{total[stage] - done[stage]:7}")
    todo = total.total() - done.total()
    lines.append(f"{'all':26}{total.total():6}{done.total():6}{todo:7}")
    return "\n".join(lines)


def run(path: Path, *, n_jobs: int, dry: bool, profile: str = "local") -> int:
    """`nblib sweep`: print the outlook, then run what is not done. Returns the largest exit code.

    A run that fails does not stop the others; what rests on it is withheld. profile: "local", or a
    folder of workflow/profiles, whose cluster then does the work.
    """
    from nblib import runner

    runs = with_roads(check(read(path), path))
    print(f"sweep {path}, data root {store.home()}")
    print(outlook(runs), flush=True)
    todo = [r for r in runs if not runner.plan(*r).committed]
    if dry or not todo:
        return 0
    if profile != "local":
        from nblib import cluster

        return cluster.run(path, todo, profile)
    outcomes = runner.run_many(todo, n_jobs, count=True)
    failed = [outcome for outcome in outcomes if outcome.code]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} runs done, {len(failed)} failed.")
    return max(outcome.code for outcome in outcomes)
