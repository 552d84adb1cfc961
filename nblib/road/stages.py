"""The road as a notebook meets it: `stage = nblib.begin(NAME, globals())`.

`begin` checks the parameters, settles the recipe, computes the key and finds the input;
`stage.commit` stores the result. Keys can be computed before anything runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nblib.core import params as P
from nblib.core import recipes, store
from nblib.core.errors import BadInput, BadParameter, MissingInput
from nblib.core.markup import in_html
from nblib.core.source_registry import SOURCES
from nblib.data import sources
from nblib.data.files import hashes
from nblib.road import notebook_code
from nblib.road.stage_registry import (
    COHORT,
    STAGES,
    CohortParams,
    StageInfo,
    StageParams,
    accepted_names,
    chain,
    stage_info,
)

# Parameters that say how to work or what to call it, not what comes out: left out of the key.
NOT_IN_KEY = {"recipe", "recording", "path", "logger"}
# Settings that came after artifacts were made: at its default none is in a key, so those keep theirs.
CAME_LATER = (
    "frames_per_bin", "bin_label", "context_s", "n_parts", "signals", "variables", "stimulus_value", "cycle_s",
    "invalid_times", "unit_limits", "most_units", "most_trials", "least_rate_hz",
)  # fmt: skip
SIGNALS = {"lfp": "field potentials", "spikes": "spikes"}
REPLACE = "NBLIB_REPLACE"  # set for a notebook run by force: its artifact replaces the one there


def settle_recipe(name: str, values: dict[str, Any]) -> tuple[P.Params, P.Recipe | None]:
    """Check the values given to notebook `name`; return its parameters and its recipe.

    `values` may hold the notebook's own parameters and any recipe setting (None = unset).
    Raises BadParameter for unknown names, wrong types and recordings outside the recipe.
    """
    info = stage_info(name)
    parameters = {
        k: v
        for k, v in values.items()
        if k not in P.Recipe.model_fields or k in info.params.model_fields
    }
    checked = P.checked(info.params, parameters, name)
    if not isinstance(checked, (StageParams, CohortParams)):
        if extra := sorted(set(values) - set(parameters)):
            raise BadParameter(f"{name}: unknown parameter {extra[0]!r}.")
        return checked, None
    overrides = {k: v for k, v in values.items() if k not in parameters}
    base = recipes.find_recipe(checked.recipe)
    recipe = recipes.derive(base, overrides, checked.recipe, sources.check)
    kind = "lfp" if recipe.holds == "lfp" else "spikes"
    if info.signal not in ("any", kind):
        there = [name for name, other in STAGES.items() if other.signal in ("any", kind)]
        raise BadParameter(
            f"{name} works on {SIGNALS[info.signal]}; recipe {recipe.recipe!r} (source {recipe.source!r}) "
            f"holds {SIGNALS[kind]}. For these there are {', '.join(there)}."
        )
    sources.check(recipe)
    if info.cohort:
        return checked, recipe
    if checked.recording not in recipe.recordings:
        raise BadParameter(
            f"{name}: recording {checked.recording!r} is not in recipe {recipe.recipe!r}, which "
            f"holds {', '.join(recipe.recordings)}."
        )
    return checked, recipe


@dataclass(frozen=True)
class MadeOf:
    """What the key of an artifact is made of, beside stage and version."""

    values: dict[str, Any]
    upstream: list[str]

    def key(self, name: str) -> str:
        return store.make_key(name, stage_info(name).version, self.values, self.upstream)


def key_for(
    name: str, recipe: P.Recipe, recording: str, params: P.Params | None = None, code: str = ""
) -> str:
    """Key of a stage's artifact, computable before anything runs.

    Runs need their checked `params` and the hash of the notebook's `code`. Raises MissingInput
    when a raw file is not there yet.
    """
    return made_of(name, recipe, recording, params, code).key(name)


def in_key(values: dict[str, Any]) -> dict[str, Any]:
    """Those of the values of a stage that its key is made of."""
    fields = P.Recipe.model_fields
    as_before = {name for name in CAME_LATER if values.get(name) == fields[name].default}
    return {k: v for k, v in values.items() if k not in NOT_IN_KEY | as_before}


def made_of(
    name: str, recipe: P.Recipe, recording: str, params: P.Params | None = None, code: str = ""
) -> MadeOf:
    """What `key_for` makes a key of."""
    info = stage_info(name)
    values = recipe.settings(info.settings).model_dump()
    if info.is_run:
        files = params.files()
        values |= {k: v for k, v in params.model_dump().items() if v not in files.values()}
        values |= {"code": code}
        values |= {what: hashes.content_hash(path) for what, path in files.items()}
    values = in_key(values)
    if info.cohort:  # who they are and in which order: two files may hold the same
        values["recordings"] = recipe.recordings
    if inputs := inputs_of(name, recipe, recording, params):
        return MadeOf(values, [one.key for one in inputs])
    for other in SOURCES.keys() - {recipe.source}:
        values.pop(other, None)  # settings that go by another source's name
    values.pop("source_params", None)
    settings = sources.own_settings(recipe)
    if settings is not None and recipe.source not in values:
        values["settings of the source"] = settings.model_dump()
    values |= recipe.settings(P.LabelRules).model_dump() | {"label": recipe.label}
    return MadeOf(values, [sources.identity(recipe, recording)])


def raw_content(name: str, recipe: P.Recipe, recording: str, params: P.Params) -> dict[str, str]:
    """sha256 of the files from outside the data root that a stage may read: path -> content."""
    if not stage_info(name).is_run:
        return sources.raw_content(recipe, recording)
    return {path: hashes.content_hash(path) for path in params.files().values()}


@dataclass(frozen=True)
class Input:
    """An artifact that a stage rests on: one of a stage before it, or with `params` a further run."""

    stage: str
    recipe: P.Recipe
    recording: str
    recipe_name: str = ""  # what finds the recipe
    params: P.Params | None = None

    @property
    def key(self) -> str:
        code = ""
        if self.params is not None:  # a run of the shipped notebook
            code = notebook_code.hash_of(store.notebooks_dir() / f"{self.stage}.ipynb")
        return key_for(self.stage, self.recipe, self.recording, self.params, code)

    @property
    def values(self) -> dict[str, Any]:
        """The parameters that make it."""
        if self.params is None:
            return {"recipe": self.recipe_name, "recording": self.recording}
        return self.params.model_dump(exclude_defaults=True) | {"recipe": self.recipe_name}

    def place(self, needed_by: str) -> Path:
        """Its folder; MissingInput, with the command that makes it, where it is not there."""
        if store.is_committed(self.stage, self.recording, key := self.key):
            return store.folder(self.stage, self.recording, key)
        what = f"a run of {self.stage}"
        if self.params is None:
            what = f"the artifact of {self.stage} for recording {self.recording!r}, recipe {self.recipe.recipe!r}"
        words = " ".join(f"-p {name} {value}" for name, value in self.values.items())
        raise MissingInput(
            f"{needed_by} needs {what} (key {key}), which is not in {store.home()}. "
            f"Make it with:  nblib run {self.stage} --with-upstream {words}"
        )


def inputs_of(
    name: str, recipe: P.Recipe, recording: str, params: P.Params | None, recipe_name: str = ""
) -> list[Input]:
    """What a stage reads: the stage before it, of each recording, then the further runs, each once."""
    info = stage_info(name)
    inputs = [
        Input(stage, recipe, one, recipe_name)
        for one in (recipe.recordings if info.cohort else [recording])
        for stage in chain(name, recipe.source)[-2:-1]
    ]
    for run in params.needs(recipe) if info.needs else []:
        other, found_by = recipe, recipe_name
        if run.recipe != params.recipe:
            other, found_by = recipes.find_recipe(run.recipe), run.recipe
        one = Input(info.needs, other, recording_of(info.needs, other, run), found_by, run)
        if one not in inputs:
            inputs.append(one)
    return inputs


def road(
    name: str, recipe: P.Recipe, params: P.Params, recipe_name: str
) -> list[tuple[str, dict[str, Any]]]:
    """What must be committed before this stage, in order: (stage, values that make it)."""
    recording = recording_of(name, recipe, params)
    steps = []
    for one in inputs_of(name, recipe, recording, params, recipe_name):
        before = chain(one.stage, recipe.source) if one.params is None else [one.stage]
        steps += [(stage, one.values) for stage in before]
    return steps


def recording_of(name: str, recipe: P.Recipe | None, params: P.Params) -> str:
    """What stands for the recording in the store: its id, the cohort, or all runs."""
    if recipe is None:
        return "all"
    return COHORT if stage_info(name).cohort else params.recording


@dataclass(frozen=True)
class Stage:
    """One notebook at work: its checked parameters, its recipe, its place in the store."""

    name: str
    params: Any
    recipe: P.Recipe | None
    key: str | None  # None where it is not known before the run
    made_of: MadeOf = MadeOf({}, [])
    raw: dict[str, str] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict, repr=False)
    started: float = field(default_factory=time.time)

    @property
    def info(self) -> StageInfo:
        return STAGES[self.name]

    @property
    def recording(self) -> str:
        return recording_of(self.name, self.recipe, self.params)

    @property
    def recordings(self) -> list[str]:
        """The recordings that it takes: its own, or those of a cohort."""
        return self.recipe.recordings if self.info.cohort else [self.recording]

    @property
    def recipe_name(self) -> str:
        """What finds this recipe again: the name or path given, or the name of the derived one."""
        if self.recipe is None:
            return ""
        name = self.params.recipe
        same = recipes.find_recipe(name).recipe == self.recipe.recipe
        return name if same else self.recipe.recipe

    @property
    def settings(self) -> Any:
        """The settings this stage owns, after overrides."""
        return self.recipe.settings(self.info.settings) if self.recipe else self.params

    @property
    def folder(self) -> Path:
        return store.folder(self.name, self.recording, self.key)

    @property
    def log_dir(self) -> Path:
        """Where its log and its checkpoints lie; the checkpoints until it is committed."""
        return store.log_dir(self.name, self.recording, self.key)

    @property
    def who(self) -> dict[str, Any]:
        """Whose result a run is: by these fields runs are found and told apart."""
        shown = self.params.model_dump(include={"model", "fold", "seed", "shuffle_labels"})
        who = {"notebook": self.name, "recipe": self.recipe.recipe, "recording": self.recording}
        return shown | who

    def input(self, name: str, recording: str = "") -> Path:
        """Verified folder of an upstream stage; MissingInput names the command that makes it.

        recording: of a cohort; "" = the stage's own.
        """
        one = Input(name, self.recipe, recording or self.recording, self.recipe_name)
        return store.open_artifact(one.place(self.name))

    def inputs(self, name: str) -> list[Path]:
        """As `input`, of every recording of the recipe."""
        return [self.input(name, recording) for recording in self.recipe.recordings]

    def needed(self, run: P.Params) -> Path:
        """Verified folder of a further run; MissingInput names the command that makes it."""
        one = next(one for one in self._inputs() if one.params == run)
        return store.open_artifact(one.place(self.name))

    def require_inputs(self) -> None:
        """MissingInput for the first of its inputs that is not there, as `input` would raise it."""
        for one in self._inputs() if self.recipe else ():
            one.place(self.name)

    def _inputs(self) -> list[Input]:
        return inputs_of(self.name, self.recipe, self.recording, self.params, self.recipe_name)

    def commit(self, write: Callable[[Path], Any], upstream: list[str] | None = None) -> Path:
        """Store what `write(folder)` puts into a folder; a key that stands already is left alone,
        unless the run is to replace it. BadInput when a raw file changed since the stage began."""
        made, code = self.made_of, dict(self.code)
        for path, content in self.raw.items():
            if Path(path).exists() and hashes.content_hash(path) != content:
                raise BadInput(
                    f"{path}: it changed while {self.name} read it; run {self.name} again."
                )
        if self.info.is_run:
            known, taken = set(code.pop("cells")), accepted_names(self.name)
            foreign = [
                c
                for c in notebook_code.executed_cells()
                if c not in known and not notebook_code.sets_parameters(c, taken)
            ]
            if foreign:  # cells the notebook file does not hold: this is not that notebook's result
                code["code_hash"] = notebook_code.code_hash([code["code_hash"], *foreign])
                code["edited"] = True
                made = MadeOf(made.values | {"code": code["code_hash"]}, made.upstream)
        if upstream is not None:
            made = MadeOf(made.values, upstream)
        values = self.settings.model_dump() | self.params.model_dump()
        extra = {"recipe": self.recipe.model_dump() if self.recipe else None, "notebook": code}
        extra |= {"stage_version": self.info.version, "in_key": made.values, "raw": self.raw}
        place = store.commit(
            self.name, self.recording, made.key(self.name), write, params=values, upstream=made.upstream,
            seed=values.get("seed"), started=self.started, extra=extra, replace=bool(os.environ.get(REPLACE)),
        )  # fmt: skip
        for path in self.log_dir.glob("*.ckpt"):
            path.unlink(missing_ok=True)
        if os.environ.get("NBLIB_RESULT"):
            store.write_text(Path(os.environ["NBLIB_RESULT"]), str(place))
        return place

    def _repr_html_(self) -> str:
        shown = self.params.model_dump() | (self.settings.model_dump() if self.recipe else {})
        shown["recipe"] = self.recipe.recipe if self.recipe else shown.get("recipe", "")
        fields = {**self.info.params.model_fields, **self.info.settings.model_fields}
        left = 'style="text-align: left"'  # JupyterLab's own style sets words to the right
        rows = "".join(
            f"<tr><td {left}><code>{in_html(k)}</code></td><td {left}>{in_html(str(v))}</td>"
            f"<td {left}>{in_html(fields[k].description or '')}</td></tr>"
            for k, v in shown.items()
        )
        head = "".join(f"<th {left}>{word}</th>" for word in ("parameter", "value", "meaning"))
        return f"<table><tr>{head}</tr>{rows}</table>"


def begin(name: str, namespace: dict[str, Any]) -> Stage:
    """Open a notebook: check its parameters, settle its recipe, compute its key.

    `namespace` is the notebook's `globals()`. Raises BadParameter for an injected name the
    notebook does not take, a missing or mistyped parameter, or an unknown recipe or recording.
    """
    notebook_code.show_no_formula()
    info = stage_info(name)
    injected = notebook_code.check_injected(name, accepted_names(name))
    wanted = set(info.params.model_fields) | set(info.settings.model_fields) | injected
    if missing := sorted(set(info.params.model_fields) - set(namespace)):
        raise BadParameter(
            f"{name}: parameter {missing[0]!r} is not set; run the parameters cell first."
        )
    values = {k: namespace[k] for k in wanted if k in namespace}
    params, recipe = settle_recipe(name, values)
    params.check()
    if recipe is not None and not info.cohort and chain(name, recipe.source) == [name]:
        sources.fetch(recipe, params.recording)
    code, code_hash = {}, ""
    if info.is_run:
        cells = notebook_code.code_cells(notebook_code.own_notebook(name))
        shipped = notebook_code.code_cells(store.notebooks_dir() / f"{name}.ipynb")
        code_hash = notebook_code.code_hash(cells)
        code = {"code_hash": code_hash, "edited": cells != shipped, "cells": cells}
    raw = {}
    if recipe is None:
        made = MadeOf(params.model_dump() | {"code": code_hash}, [])
    else:
        where = recording_of(name, recipe, params)
        made = made_of(name, recipe, where, params, code_hash)
        raw = raw_content(name, recipe, where, params)
    stage = Stage(name, params, recipe, made.key(name), made, raw, code)
    if recipe is not None and stage.recipe_name != params.recipe:
        print(
            f"Settings differ from recipe {params.recipe!r}; downstream notebooks take recipe={recipe.recipe!r}."
        )
    return stage
