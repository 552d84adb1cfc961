"""What a sweep would do, before it does it: runs, what is done, what is shared, what it may cost."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from nblib.core import store
from nblib.core.errors import MissingInput, NblibError, RunFailed
from nblib.run import cluster, plan, reports, status
from nblib.run.execute import RUNNING, at_work
from nblib.run.plan import Job, Task
from nblib.run.search import definition, trials

MOST_LINES = 40


def table(runs: list[Task], asked: list[Task]) -> str:
    """Runs and how many of them are done, notebook by notebook; what they share; what is left costs.

    runs: all, with what they rest on; asked: those that the file names.
    """
    jobs = [plan.job_of(*run) for run in runs]
    open_jobs = [job for job in jobs if not done_already(job)]
    total = Counter(j.stage for j in jobs)
    done = total - Counter(j.stage for j in open_jobs)
    spent = _spent()
    lines = [f"{'notebook':26}{'runs':>6}{'done':>6}{'to do':>7}{'work':>12}"]
    seconds: list[float] = []
    unknown = 0
    for stage in sorted(total):
        costs = [_cost(j, spent) for j in open_jobs if j.stage == stage]
        known = [c for c in costs if c is not None]
        seconds += known
        unknown += len(costs) - len(known)
        told = "" if not costs else "?" if not known else f"{_time(sum(known))}{'' if len(known) == len(costs) else ' + ?'}"  # fmt: skip
        lines.append(f"{stage:26}{total[stage]:6}{done[stage]:6}{total[stage] - done[stage]:7}{told:>12}")  # fmt: skip
    todo = total.total() - done.total()
    lines.append(f"{'all':26}{total.total():6}{done.total():6}{todo:7}{_time(sum(seconds)) if seconds else '':>12}")  # fmt: skip
    before = len(jobs) - len({plan.place_of(plan.job_of(*run)) for run in asked})
    if before > 0:
        lines.append(f"{before} of these are not asked for, but what the others rest on: each is made once for all.")  # fmt: skip
    if unknown and todo:
        lines.append(f"Of {unknown} runs the work is not known: no run of that notebook (and model) is here to go by.")  # fmt: skip
    return "\n".join(lines)


def done_already(job: Job) -> bool:
    """Whether a run is committed, or a report is of the runs there are now."""
    return job.committed if job.recipe is not None else reports.there(job) is not None


def _spent() -> dict[tuple[str, str], list[float]]:
    """Seconds of the runs in the data root, by notebook and model."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for folder in store.artifacts():
        try:
            manifest = store.read_manifest(folder)
        except NblibError:
            continue  # `nblib verify` says so
        if manifest["wall_s"] is not None:
            found[folder.parts[-3], manifest["parameters"].get("model", "")].append(manifest["wall_s"])  # fmt: skip
    return found


def _cost(job: Job, spent: dict[tuple[str, str], list[float]]) -> float | None:
    """Seconds this run may take: the median of the same notebook and model; None without one."""
    same = spent.get((job.stage, getattr(job.params, "model", "")))
    return float(np.median(same)) if same else None


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def reasons(runs: list[Task]) -> str:
    """For each run that is to do, why: it was never made, it failed, or something it came from changed."""
    todo = [(run, job) for run in runs if not done_already(job := plan.job_of(*run))]
    made = _made()
    lines = [f"{_label(run):56}  {reason(job, made)}" for run, job in todo[:MOST_LINES]]
    if len(todo) > MOST_LINES:
        lines.append(f"... and {len(todo) - MOST_LINES} more")
    return "\n".join(["to do, and why:", *lines]) if lines else "Nothing to do."


def _label(run: Task) -> str:
    """A run by what was given for it."""
    notebook, given = run
    return f"{notebook} {', '.join(f'{k} {v}' for k, v in given.items())}"


def _made() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Manifests by notebook and recording."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for folder in store.artifacts():
        try:
            found[folder.parts[-3], folder.parts[-2]].append(store.read_manifest(folder))
        except NblibError:
            continue
    return found


def reason(job: Job, made: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Why a run is to do."""
    if job.recipe is None:
        return "a report, of the runs there will be"
    if job.key is None:
        return "its recording is not fetched yet"
    if (kept := failed_notebook(job)).is_file():
        return f"failed before: {kept}"
    others = made.get((job.stage, job.recording), [])
    wanted = _values(job)
    differing = [_differing(wanted, json.loads(json.dumps(m["parameters"]))) for m in others]
    if not others:
        return "never made"
    least = min(differing, key=len)
    if not least:
        return "made before, from another input or by another version"
    return f"made before with another {', '.join(least[:3])}{', ...' if len(least) > 3 else ''}"


def _values(job: Job) -> dict[str, Any]:
    from nblib.road import stages

    settings = job.recipe.settings(stages.STAGES[job.stage].settings).model_dump()
    values = store.plain(settings | job.params.model_dump())
    return {k: v for k, v in values.items() if k not in stages.NOT_IN_KEY}


def _differing(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    return [name for name, value in wanted.items() if there.get(name) != value]


def failed_notebook(job: Job) -> Path:
    """Where the notebook of this run is kept if it fails."""
    return store.failed_dir() / job.recording / f"{job.stage}-{job.key}.ipynb"


def of_study(study: definition.Study) -> str:
    """One line on a study: how many of its trials are done."""
    try:
        n = len(trials.ended(study))
    except MissingInput:
        n = 0  # its recording is not fetched yet
    line = (
        f"search of {', '.join(study.search.space)} ({study.title()}): {n} of {study.search.trials} "
        f"trials done; what {study.search.objective} chooses is then tested once"
    )
    left, cost = study.search.trials - n, _cost(plan.job_of(*study.run({})), _spent())
    if left:
        line += (
            f"; about {_time((left + 2) * cost)} of work"
            if cost
            else "; the work of a trial is not known"
        )
    return line


# --- a sweep at work -----------------------------------------------------------------------------

STATES = ("done", "running", "queued", "failed")


def states(runs: list[Task], *, elsewhere: bool = False) -> list[tuple[Job, str, str]]:
    """For each run its state and, where there is one, the reason and the notebook.

    "queued" is what nobody has begun; elsewhere: whether notebooks on other hosts may be at work
    (jobs of the sweep are in the queue).
    """
    found = []
    for job in (plan.job_of(*run) for run in runs):
        kept = failed_notebook(job)
        begun = [(path, at_work(path)) for path in kept.parent.glob(f"{kept.stem}.*{RUNNING}")]
        at_it = [p for p, who in begun if who.alive or (who.alive is None and elsewhere)]
        if done_already(job):
            state, why = "done", ""
        elif job.recipe is None:
            state, why = "queued", "a report, made last"
        elif at_it:
            state, why = "running", f"on {at_work(at_it[0]).host}: {at_it[0]}"
        elif kept.is_file():
            state, why = "failed", f"{status.words(kept)}  ({kept})"
        elif begun:
            state, why = "queued", f"its last try was killed: {begun[0][0]}"
        else:
            state, why = "queued", ""
        found.append((job, state, why))
    return found


def progress(path: Path, runs: list[Task], studies: list[definition.Study]) -> str:
    """`nblib status FILE`: how far a sweep is, what runs now, what failed and why."""
    lines = [f"sweep {path}, data root {store.home()}"]
    waiting: list[tuple[str, str, str]] = []
    if (driver := cluster.driver(cluster.folder_of(path))) is not None:
        lines.append(f"driver: pid {driver['pid']} on {driver['host']}")
    if cluster.is_here():
        try:
            waiting = cluster.queue(path)
        except RunFailed as error:  # its programs are here, its controller does not answer
            lines.append(f"Slurm: {error}")
        for (state, why), n in sorted(Counter((s, r) for _, s, r in waiting).items()):
            lines.append(f"Slurm: {n} jobs {state}{f' ({why})' if why != 'None' else ''}")
    found = states(runs, elsewhere=bool(waiting))
    lines.append(f"{'notebook':26}" + "".join(f"{name:>9}" for name in STATES))
    for stage in sorted({job.stage for job, _, _ in found}):
        count = Counter(state for job, state, _ in found if job.stage == stage)
        lines.append(f"{stage:26}" + "".join(f"{count[name]:9}" for name in STATES))
    count = Counter(state for _, state, _ in found)
    lines.append(f"{'all':26}" + "".join(f"{count[name]:9}" for name in STATES))
    lines += [of_study(study) for study in studies]
    for job, state, why in found:
        if state in ("running", "failed"):
            lines += [f"{state}: {job.label}", f"    {why}"]
    return "\n".join(lines)
