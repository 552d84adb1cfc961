"""Everything about a run that can be checked before a kernel starts."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nblib import models
from nblib.core import recipes, store
from nblib.core.errors import BadParameter, MissingInput, NblibError, there_is
from nblib.core.text_to_values import shown
from nblib.road import notebook_code, stages
from nblib.road.stage_registry import STAGES, by_name

Task = tuple[str | Path, dict[str, Any]]  # notebook, parameters


@dataclass(frozen=True)
class Job(stages.Stage):
    """A stage to run: its notebook, and the values that are injected into it."""

    notebook: Path = Path()
    values: dict[str, Any] = field(default_factory=dict)

    def done(self) -> Path | None:
        """Where the result lies, None where it is to do. A report (90, 91) is done when it is of
        just the runs there are now and holds its executed notebook."""
        if self.recipe is not None:
            return self.folder if self.committed else None
        info = STAGES[self.name]
        try:
            upstream = by_name(info.reads)(self.params)
        except NblibError:
            return None  # making it says what is wrong
        code = notebook_code.hash_of(self.notebook)
        values = self.params.model_dump() | {"code": code}
        key = store.make_key(self.name, info.version, values, upstream)
        folder = store.folder(self.name, self.recording, key)
        return folder if (folder / store.EXECUTED).is_file() else None

    @property
    def label(self) -> str:
        model = getattr(self.params, "model", "") or getattr(self.params, "pretext", "")
        return f"{self.name} {self.recording} {model}".rstrip()

    @property
    def committed(self) -> bool:
        return bool(self.key) and store.is_committed(self.name, self.recording, self.key)


def find_notebook(name: str | Path) -> tuple[Path, str]:
    """Notebook file and stage of '05', a whole name or a path; BadParameter otherwise."""
    text = str(name)
    if text.endswith(".ipynb"):
        path = Path(text).expanduser().resolve()
        if not path.is_file():
            raise BadParameter(f"{path}: no such notebook.")
        return path, stage_of(path)
    matches = [s for s in stages.STAGES if text in (s, s.split("_")[0])]
    if not matches:
        raise BadParameter(f"no notebook {shown(text)}; {there_is(stages.STAGES, text)}")
    path = store.notebooks_dir() / f"{matches[0]}.ipynb"
    if not path.is_file():
        raise BadParameter(f"{path}: the notebook of stage {matches[0]} is not there.")
    return path, matches[0]


def stage_of(path: Path) -> str:
    """The stage that a notebook opens with `nblib.begin("...", globals())`."""
    try:
        cells = notebook_code.code_cells(path)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadParameter(f"{path}: not a readable notebook ({error}).") from None
    opened = re.findall(r"^[^#\n]*\bbegin\(\s*[\"']([^\"']+)[\"']", "\n".join(cells), re.M)
    if len(set(opened)) != 1 or opened[0] not in stages.STAGES:
        raise BadParameter(
            f'{path}: expected one call nblib.begin("<stage>", globals()) with a stage out of '
            f"{', '.join(stages.STAGES)}; found {', '.join(opened) or 'none'}."
        )
    return opened[0]


def job_of(notebook: str | Path, values: dict[str, Any] | None = None) -> Job:
    """Check names, types, recipe and recording, and compute the key; BadParameter otherwise.

    `session` may stand for `recording`. Without either, the recipe's only recording is meant.
    """
    path, stage = find_notebook(notebook)
    values = dict(values or {})
    if "session" in values and "recording" not in values:  # the Allen Institute's word
        values["recording"] = values.pop("session")
    notebook_code.check_names(stage, values, stages.accepted_names(stage))
    if str(values.get("recipe", "")).endswith((".yml", ".yaml")):
        values["recipe"] = str(Path(values["recipe"]).expanduser().resolve())
    if names_recordings(stage, values):
        recordings = values.get("recordings") or recordings_of(values["recipe"])
        if len(recordings) > 1:
            raise BadParameter(
                f"{stage}: recipe {values['recipe']!r} holds {len(recordings)} recordings; give "
                f"one of {', '.join(recordings)} as `recording`."
            )
        values["recording"] = recordings[0]
    params, recipe = stages.settle_recipe(stage, values)
    for model in [getattr(params, "model", None), *getattr(params, "models", [])]:
        if model is not None and model not in models.MODELS:
            models.MODELS[model]  # raises, and names the models there are
    job = Job(stage, params, recipe, None, notebook=path, values=values)
    return replace(job, key=key_of(job))


def names_recordings(stage: str, values: dict[str, Any]) -> bool:
    """Whether a recipe is given and no recording: then its recordings are meant."""
    takes = "recording" in stages.accepted_names(stage)
    return takes and "recipe" in values and "recording" not in values


def recordings_of(recipe: Any) -> list[str]:
    """The recordings of a recipe, given by name or path."""
    if not isinstance(recipe, str):
        raise BadParameter(f"recipe = {recipe!r}: expected the name of a recipe, a string.")
    return recipes.find_recipe(recipe).recordings


def key_of(job: Job) -> str | None:
    """The key, or None: a report's inputs, or a recording not fetched yet, are known only later."""
    if job.recipe is None:
        return None
    info = stages.STAGES[job.name]
    code = notebook_code.hash_of(job.notebook) if info.is_run else ""
    try:
        return stages.key_for(job.name, job.recipe, job.recording, job.params, code)
    except MissingInput:
        return None


def needs(runs: list[Task]) -> list[set[int]]:
    """For each run the positions of those whose artifacts it rests on.

    A report rests on all others. One that cannot be planned needs nothing: it says why when it runs.
    """
    planned: dict[int, Job] = {}
    place: defaultdict[tuple[str, str, str], set[int]] = defaultdict(set)
    for i, run in enumerate(runs):
        with contextlib.suppress(NblibError):
            planned[i] = job_of(*run)
            place[place_of(planned[i])].add(i)
    others = {i for i, job in planned.items() if job.recipe is not None}
    needed: list[set[int]] = [set() for _ in runs]
    for i, job in planned.items():
        if job.recipe is None:
            needed[i] = others
        for step in road(job):
            needed[i] |= place[place_of(job_of(*step))]
    return needed


def road(job: Job) -> list[Task]:
    """What a job rests on, directly or not, in order."""
    return stages.road(job.name, job.recipe, job.params, job.recipe_name) if job.recipe else []


def place_of(job: Job) -> tuple[str, str, str]:
    """(stage, recording, key); recipe and parameters stand for a key not known before the run."""
    values = {k: v for k, v in job.params.model_dump().items() if k not in ("recipe", "recording")}
    return job.name, job.recording, job.key or f"{job.recipe_name} {values}"
