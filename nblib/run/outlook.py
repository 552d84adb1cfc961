"""What a sweep would do, before it does it: runs, what is done, what is shared, what it may cost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nblib.core import store
from nblib.core.errors import MissingInput, NblibError
from nblib.road import stages
from nblib.road.stage_registry import STAGES
from nblib.run import plan
from nblib.run.plan import Job, Task
from nblib.run.search import trials
from nblib.run.search.definition import Study

MOST_LINES = 40


def manifests() -> list[tuple[str, str, dict[str, Any]]]:
    """(stage, recording, manifest) of every artifact of the data root whose manifest is readable."""
    rows = []
    for folder in store.artifacts():
        try:
            rows.append((folder.parts[-3], folder.parts[-2], store.read_manifest(folder)))
        except NblibError:
            continue  # `nblib verify` says so
    return rows


def table(tasks: list[Task], asked: list[Task], made: list[tuple]) -> str:
    """Runs and how many of them are done, notebook by notebook; what they share; what is left costs.

    tasks: all, with what they rest on; asked: those that the file names; made: `manifests()`.
    """
    jobs = [plan.job_of(*task) for task in tasks]
    todo = [job for job in jobs if job.done() is None]
    total, left = (Counter(job.stage for job in some) for some in (jobs, todo))
    lines = [f"{'notebook':26}{'runs':>6}{'done':>6}{'to do':>7}{'work':>12}"]
    seconds: list[float] = []
    for stage in sorted(total):
        costs = [_cost(job, made) for job in todo if job.stage == stage]
        known = [cost for cost in costs if cost is not None]
        seconds += known
        work = "" if not costs else _time(sum(known)) if known else "?"
        work += " + ?" if known and len(known) < len(costs) else ""
        lines.append(_line(stage, total[stage], left[stage], work))
    lines.append(_line("all", total.total(), left.total(), _time(sum(seconds)) if seconds else ""))
    before = len(jobs) - len({plan.place_of(plan.job_of(*task)) for task in asked})
    if before > 0:
        lines.append(f"{before} of these are not asked for, but what the others rest on: each is made once for all.")  # fmt: skip
    if unknown := len(todo) - len(seconds):
        lines.append(f"Of {unknown} runs the work is not known: no run of that notebook (and model) is here to go by.")  # fmt: skip
    return "\n".join(lines)


def _line(name: str, total: int, left: int, work: str) -> str:
    return f"{name:26}{total:6}{total - left:6}{left:7}{work:>12}"


def _cost(job: Job, made: list[tuple]) -> float | None:
    """Seconds this run may take: the median of the same notebook and model; None without one."""
    model = getattr(job.params, "model", "")
    seconds = [
        manifest["wall_s"]
        for stage, _, manifest in made
        if stage == job.stage
        and manifest["parameters"].get("model", "") == model
        and manifest["wall_s"] is not None
    ]
    return float(np.median(seconds)) if seconds else None


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def reasons(tasks: list[Task], made: list[tuple]) -> str:
    """For each run that is to do, why: it was never made, it failed, or something it came from changed."""
    todo = [(task, job) for task in tasks if (job := plan.job_of(*task)).done() is None]
    lines = [f"{_label(task):56}  {reason(job, made)}" for task, job in todo[:MOST_LINES]]
    if len(todo) > MOST_LINES:
        lines.append(f"... and {len(todo) - MOST_LINES} more")
    return "\n".join(["to do, and why:", *lines]) if lines else "Nothing to do."


def _label(task: Task) -> str:
    """A task by what was given for it."""
    notebook, values = task
    return f"{notebook} {', '.join(f'{k} {v}' for k, v in values.items())}"


def reason(job: Job, made: list[tuple]) -> str:
    """Why a run is to do."""
    if job.recipe is None:
        return "a report, of the runs there will be"
    if job.key is None:
        return "its recording is not fetched yet"
    if (kept := failed_notebook(job)).is_file():
        return f"failed before: {kept}"
    wanted = _values(job)
    differing = [
        [name for name, value in wanted.items() if value != manifest["parameters"].get(name)]
        for stage, recording, manifest in made
        if (stage, recording) == (job.stage, job.recording)
    ]
    if not differing:
        return "never made"
    least = min(differing, key=len)
    if not least:
        return "made before, from another input or by another version"
    return f"made before with another {', '.join(least[:3])}{', ...' if len(least) > 3 else ''}"


def _values(job: Job) -> dict[str, Any]:
    """What is in the key of a run, as its manifest would hold it."""
    settings = job.recipe.settings(STAGES[job.stage].settings).model_dump()
    values = store.plain(settings | job.params.model_dump())
    values = {k: v for k, v in values.items() if k not in stages.NOT_IN_KEY}
    return json.loads(json.dumps(values))


def failed_notebook(job: Job) -> Path:
    """Where the notebook of this run is kept if it fails."""
    return store.failed_dir() / job.recording / f"{job.stage}-{job.key}.ipynb"


def of_study(study: Study, made: list[tuple]) -> str:
    """One line on a study: how many of its trials are done."""
    try:
        n = len(trials.ended(study))
    except MissingInput:
        n = 0  # its recording is not fetched yet
    search = study.search
    line = (
        f"search of {', '.join(search.space)} ({study.title()}): {n} of {search.trials} "
        f"trials done; what {search.objective} chooses is then tested once"
    )
    if n == search.trials:
        return line
    cost = _cost(plan.job_of(*study.run({})), made)
    if not cost:
        return f"{line}; the work of a trial is not known"
    return f"{line}; about {_time((search.trials - n + 2) * cost)} of work"
