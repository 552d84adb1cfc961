"""Many runs from one file: `params/sweeps/*.yml` read, checked, put in order, run.

A sweep is a list of steps; a step is a notebook, run once for each combination of its recordings,
its models and the values in `each`. What the runs rest on (01-04, the pretexts of 09) is found by
itself and run once. A `search:` block looks for settings first and runs what validation chose.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from nblib.core import params as P
from nblib.core import store
from nblib.core.errors import BadParameter, NblibError
from nblib.core.text_to_values import read_settings, text_of
from nblib.road.stage_registry import SEARCH, STAGES
from nblib.run import cluster, execute, many, plan, status, sweep_recordings
from nblib.run.plan import Task
from nblib.run.search import trials
from nblib.run.search.definition import Search, Study
from nblib.run.sweep_recordings import Recordings

SIGNALLED = 128  # exit codes from here on: stopped by a signal
SECTIONS = ("defaults", "lab")  # of a file of params/models


class Step(P.Params):
    """One step: a notebook, run once for each combination of recordings, models and `each`.

    A notebook may have several steps; in a book, the first one holds the run that is shown in its
    place.
    """

    notebook: str
    params: dict[str, Any] | None = None  # None: the parameters of the whole sweep
    recordings: list[str] | Recordings | None = None  # None: as params say
    models: list[str | dict[str, Any]] = []
    each: dict[str, list[Any]] = {}
    show: dict[str, Any] = {}

    @model_validator(mode="after")
    def _said_once(self) -> Step:
        axes = [("recording", self.recordings is not None), ("model", bool(self.models))]
        for name, there in axes:
            if there and name in {**self.each, **(self.params or {})}:
                raise ValueError(f"{name} is given twice: in {name}s, and in params or each")
        of_models = {
            k
            for m in self.models
            if isinstance(m, dict)
            for v in m.values()
            if isinstance(v, dict)
            for k in v
        }
        if twice := sorted(of_models & set(self.each)):
            raise ValueError(f"{twice[0]} is given twice: in models and in each")
        if "models" in self.model_fields_set and not self.models:
            raise ValueError("models is empty, so nothing would run")
        return self

    def runs(self, common: dict[str, Any]) -> list[Task]:
        """Every run of this step."""
        given = dict(common if self.params is None else self.params)
        axes = [[{name: value} for value in values] for name, values in self.each.items()]
        if self.models:
            axes.insert(0, [_model(model) for model in self.models])
        if self.recordings is not None:
            ids = self.recordings
            if isinstance(ids, Recordings):
                given["recipe"], ids = sweep_recordings.settle(ids, given.get("recipe"))
            axes.insert(0, [{"recording": i} for i in ids])
        return [
            (self.notebook, {**given, **{k: v for part in parts for k, v in part.items()}})
            for parts in itertools.product(*axes)
        ]

    def shown(self, common: dict[str, Any]) -> int:
        """Position of the run that stands for this notebook in a book."""
        for i, (_, given) in enumerate(self.runs(common)):
            if self.show.items() <= given.items():
                return i
        raise BadParameter(f"{self.notebook} has no run with {self.show} to show.")


def _model(entry: str | dict[str, Any]) -> dict[str, Any]:
    """Parameters of one entry of `models`: a name; {name: section of its file} or {name: overrides}."""
    if isinstance(entry, str):
        return {"model": entry}
    if len(entry) != 1:
        raise BadParameter(f"models: {entry}: expected a name, or one name with what differs.")
    ((name, more),) = entry.items()
    if isinstance(more, dict):
        if "model" in more:
            raise BadParameter(f"models: {name}: names another model, {more['model']!r}.")
        return {"model": name, **more}
    path = store.models_dir() / f"{name}.yml"
    if more not in SECTIONS:
        raise BadParameter(
            f"models: {name}: {more!r}: expected settings, or {' or '.join(SECTIONS)} of {path.name}."
        )
    sections: dict[str, Any] = {"defaults": {}}  # those of the code
    if path.is_file() or more != "defaults":
        sections |= read_settings(text_of(path, f"models: {path}"), str(path))
    if more not in sections:
        raise BadParameter(f"models: {path} has no section {more!r}.")
    return {"model": name, **sections[more]}


class Sweep(P.Params):
    """A file of params/sweeps."""

    sweep: str = Field(pattern=P.RECORDING_ID, description="name of the sweep")
    params: dict[str, Any] = {}
    search: Search | None = None
    steps: list[Step] = []
    resources: dict[str, dict[str, str | int]] = Field(
        {}, description="kind of notebook -> what it asks of the cluster, over the profile's"
    )

    def runs(self) -> list[Task]:
        """Every run of every step, in the order of the file."""
        return [run for step in self.steps for run in step.runs(self.params)]

    def studies(self) -> list[Study]:
        """Every study of its search."""
        return [] if self.search is None else self.search.studies(self.sweep, self.params)


def read(path: Path) -> Sweep:
    """Read and check a sweep; BadParameter names what is wrong in it."""
    values = read_settings(text_of(path, str(path)), str(path))
    sweep = P.checked(Sweep, values, str(path))
    if sweep.sweep != path.stem:
        raise BadParameter(
            f"{path}: calls itself {sweep.sweep!r}; name and file must agree, so write 'sweep: {path.stem}'."
        )
    return sweep


def check(sweep: Sweep, path: Path) -> list[Task]:
    """The runs, each planned without fault; BadParameter for an empty product, a faulty run or one
    that stands twice."""
    from nblib import models

    if not sweep.steps and sweep.search is None:
        raise BadParameter(f"{path}: no steps and no search, so nothing would run.")
    for step in sweep.steps:
        lists = {"recordings": step.recordings, **{f"each.{k}": v for k, v in step.each.items()}}
        if empty := [name for name, values in lists.items() if values == []]:
            raise BadParameter(
                f"{path}: {step.notebook}: {empty[0]} is empty, so nothing would run."
            )
    kinds = [*dict.fromkeys(info.kind for info in STAGES.values()), cluster.SEARCH]
    if unknown := [kind for kind in sweep.resources if kind not in kinds]:
        raise BadParameter(f"{path}: resources.{unknown[0]}: there are {', '.join(kinds)}.")
    try:
        runs = sweep.runs()
        for study in sweep.studies():
            study.check()
    except NblibError as error:
        raise type(error)(f"{path}: {error}") from None
    seen: dict[tuple[str, str, str], Task] = {}
    for run in runs:
        try:
            job = plan.job_of(*run)
            if getattr(job.params, "model_params", None):
                models.make(job.params.model, job.params.model_params)
        except NblibError as error:
            raise BadParameter(f"{path}: {_words(run)}: {error}") from None
        where = plan.place_of(job)
        if where in seen:
            raise BadParameter(f"{path}: {_words(run)} stands twice (as {_words(seen[where])}).")
        seen[where] = run
    return runs


def with_roads(runs: list[Task]) -> list[Task]:
    """The runs and, before them, all that they rest on; each artifact once."""
    steps: dict[tuple[str, str, str], Task] = {}
    for run in runs:
        for step in (*plan.road(plan.job_of(*run)), run):
            steps.setdefault(plan.place_of(plan.job_of(*step)), step)
    return list(steps.values())


def split_up(sweep: Sweep, runs: list[Task]) -> tuple[list[Task], list[Task]]:
    """(what runs first, what waits for the search): reports wait, and inputs of studies run first."""
    if sweep.search is None:
        return with_roads(runs), []
    reports = [r for r in runs if plan.job_of(*r).recipe is None]
    inputs = [
        step
        for study in sweep.studies()
        for run in study.inputs()
        for step in plan.road(plan.job_of(*run))
    ]
    first = with_roads([*(r for r in runs if r not in reports), *inputs])
    of_search = (SEARCH, {"search": sweep.sweep})
    return first, reports if of_search in reports else [of_search, *reports]


def _words(run: Task) -> str:
    return f"{run[0]} ({', '.join(f'{k}={v!r}' for k, v in run[1].items())})"


@store.shared()
def run(path: Path, n_jobs: int, dry: bool, profile: str = "local") -> int:
    """`nblib sweep`: print the outlook, then run what is not done. Returns the largest exit code.

    A run that fails does not stop the others; what rests on it is withheld. profile: "local", or a
    folder of workflow/profiles, whose cluster then does the work.
    """
    sweep = read(path)
    runs = check(sweep, path)
    if sweep.search is not None:
        trials.need_optuna()  # now, not when everything else is done
    first, last = split_up(sweep, runs)
    print(f"sweep {path}, data root {store.home()}")
    studies = sweep.studies()
    print(status.outlook(first + last, runs, studies, reasons=dry), flush=True)
    if dry:
        return 0
    work = _Work(path, n_jobs, profile, sweep.resources)
    todo = _undone(first)
    fresh = any(plan.job_of(*run).recipe is not None for run in todo)
    if fresh:  # a report will be of other runs than those there are
        todo = [r for r in first if r in todo or plan.job_of(*r).recipe is None]
    codes = [work.runs(todo)]
    if studies and max(codes) < SIGNALLED:
        codes.append(_search(studies, sweep, last, work))
    if work.total:
        print(f"{work.total - work.failed} of {work.total} runs done, {work.failed} failed.")
    return max(codes)


def progress(path: Path | None) -> str:
    """`nblib status` as text: of a sweep, or without one of the data root."""
    if path is None:
        return status.report()
    sweep = read(path)
    first, last = split_up(sweep, check(sweep, path))
    return status.progress(path, first + last, sweep.studies())


def search_here(sweep: Sweep, n_jobs: int) -> int:
    """The search of a sweep on this machine, without its reports; the largest exit code."""
    studies = sweep.studies()
    return _search(studies, sweep, [], _Work(Path(), n_jobs, "local", {})) if studies else 0


def _search(studies: list[Study], sweep: Sweep, last: list[Task], work: _Work) -> int:
    """Trials, then each study's winner beside the settings as they were, then the reports."""
    codes, sound, waiting = [], [], []
    for study in studies:
        try:
            waiting += trials.calls([study])
            sound.append(study)
        except NblibError as error:  # its input failed: the others go on
            print(f"nblib: search {study.title()}: {error}", file=sys.stderr)
            codes.append(execute.NOTEBOOK_ERROR)
    codes.append(work.trials(waiting, sweep.search.workers))
    if max(codes) >= SIGNALLED:
        return max(codes)
    tested = [run for study in sound for run in trials.tested(study)]
    for study in sound:
        if not trials.tested(study):
            print(
                f"nblib: search {study.title()}: nothing is tested, since its trials have not all ended, or none of them ran whole.",
                file=sys.stderr,
            )
            codes.append(execute.NOTEBOOK_ERROR)
    if len(sound) == len(studies):  # else 91 goes on showing what it showed
        trials.keep(sweep.sweep, sound)
    for runs in (with_roads(tested), last):
        codes.append(work.runs(_undone(runs)))
        if max(codes) >= SIGNALLED:
            break
    return max(codes)


def _undone(runs: list[Task]) -> list[Task]:
    """Those that are not committed, and reports of other runs than there are now."""
    return [run for run in runs if plan.job_of(*run).done() is None]


class _Work:
    """Who does the work: processes of this machine, or jobs of a cluster."""

    def __init__(self, path: Path, n_jobs: int, profile: str, resources: dict[str, dict]):
        self.path, self.n_jobs, self.profile, self.resources = path, n_jobs, profile, resources
        self.total = self.failed = 0

    def runs(self, runs: list[Task]) -> int:
        if not runs:
            return 0
        if self.profile != "local":
            return self._submit(cluster.make_jobs(runs))
        return self._count(many.run_many(runs, self.n_jobs, count=True, retries=1))

    def trials(self, calls: list[dict[str, Any]], workers: int) -> int:
        if not calls:
            return 0
        if self.profile != "local":
            return self._submit(cluster.make_workers(calls, workers))
        return self._count(many.run_calls(calls, self.n_jobs, count=True, retries=1))

    def _submit(self, jobs: list[dict[str, Any]]) -> int:
        """Have a cluster do it, which says itself how it went."""
        return max(cluster.submit(self.path, jobs, self.profile, self.resources), default=0)

    def _count(self, exits: list[execute.Exit]) -> int:
        self.total += len(exits)
        self.failed += sum(one.code != 0 for one in exits)
        return max(one.code for one in exits)
