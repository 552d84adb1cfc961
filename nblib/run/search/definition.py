"""A search for settings, as a sweep file says it: what to try, and what chooses.

A study is the search on one recording or cohort, fold and seed. Its name is made from the settings of the
search and the keys of its input, so that trials of another question or of other data are never mixed
in. Validation trials alone choose; `trials` does the work.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from nblib.core import params as P
from nblib.core import store
from nblib.core.errors import BadParameter
from nblib.road import stages
from nblib.road.stage_registry import SEARCHED, SPLIT, STAGES, ReportParams
from nblib.run import plan
from nblib.run.plan import Task


class Params(ReportParams):
    """Parameters of 91."""

    search: str = Field("", description="name of the sweep that searched; empty = the only one")


VERSION = 1  # raise it when a trial comes to judge in another way
TRAINING = ("max_epochs", "batch_size", "learning_rate", "weight_decay", "patience")
DIRECTION = {"val_accuracy": "maximize", "val_loss": "minimize"}
HOW_TO_WORK = {"device", "threads", "logger", "n_permutations", "n_bootstrap"}
HOW_TO_WORK |= {"importance", "areas"}
# What says which presentations judge or how to work, or acts after they judged: not to be chosen by them.
NOT_SEARCHED = HOW_TO_WORK | {
    "recipe", "recording", "recordings", "source", "path", "label", "intervals", "fold", "seed", "shuffle_labels", "refit",
    "pseudo_population", "keep_blank", "unusable_trials", "invalid_times", "invalid_presentations", "unobserved",
    *P.LabelRules.model_fields, *P.SplitSettings.model_fields,
}  # fmt: skip


class Space(P.Params):
    """Where one setting may lie: a list of choices, or a range with both ends in it."""

    choices: list[bool | int | float | str] = Field([], description="values to choose from")
    low: int | float | None = Field(None, description="lowest value of a range")
    high: int | float | None = Field(None, description="highest value of a range")
    log: bool = Field(False, description="a range in the logarithm")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Space:
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give choices, or low and high, not both")
        elif self.low is None or self.high is None:
            raise ValueError("give choices, or low and high")
        elif not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"low = {self.low:g} must lie below high = {self.high:g}"
                + (", and above 0 for log" if self.log else "")
            )
        return self

    @property
    def ends(self) -> list[Any]:
        """The values that are checked before anything runs."""
        return self.choices or [self.low, self.high]


class Search(P.Params):
    """The `search:` block of a sweep: one study for each combination of the values in `each`."""

    notebook: Literal[SEARCHED] = Field(SEARCHED[0], description="notebook whose settings they are")
    params: dict[str, Any] | None = Field(None, description="None = those of the whole sweep")
    each: dict[str, list[Any]] = Field({}, description="a study for each combination")
    space: dict[str, Space] = Field(
        min_length=1, description="settings to search; model_params.NAME is the model's own"
    )
    trials: int = Field(20, ge=1, description="trials of each study [count]")
    objective: Literal["val_accuracy", "val_loss"] = Field(
        "val_accuracy", description="score on validation presentations that chooses"
    )
    sampler: Literal["tpe", "random", "grid"] = Field("tpe", description="who proposes")
    pruner: Literal["median", "asha", "none"] = Field("median", description="who gives up early")
    grace_epochs: int = Field(3, ge=1, description="epochs before a trial may be given up [count]")
    seed: P.Seed = Field(0, description="seed of the proposals")
    workers: int = Field(4, ge=1, description="jobs of a study on a cluster [count]")

    @field_validator("objective", mode="before")
    @classmethod
    def _never_a_test_score(cls, value: Any) -> Any:
        if "test" in str(value):
            raise ValueError(
                "a search that looks at test presentations makes their score worthless; "
                f"choose {' or '.join(DIRECTION)}"
            )
        return value

    @model_validator(mode="after")
    def _a_grid_has_an_end(self) -> Search:
        known = STAGES[self.notebook].objectives
        if self.objective not in known:
            raise ValueError(
                f"objective = '{self.objective}': {self.notebook} has {' and '.join(known)}"
            )
        if self.sampler == "grid":
            if ranges := [name for name, space in self.space.items() if not space.choices]:
                raise ValueError(f"a grid needs choices for every setting; {ranges[0]} has a range")
            n = int(np.prod([len(space.choices) for space in self.space.values()]))
            if self.trials > n:
                raise ValueError(f"trials = {self.trials}, but the grid has {n} points")
        if judge := sorted(set(self.space) & NOT_SEARCHED):
            raise ValueError(
                f"{judge[0]} says what trials are judged on, how to work, or what to do once they are "
                "judged; it can be fixed, or in each, but not searched"
            )
        return self

    @property
    def direction(self) -> str:
        """Optuna's word for whether more is better."""
        return DIRECTION[self.objective]

    def studies(self, name: str, common: dict[str, Any]) -> list[Study]:
        """One study a combination; BadParameter for an empty one."""
        given = common if self.params is None else self.params
        if empty := [k for k, values in self.each.items() if not values]:
            raise BadParameter(f"search: each.{empty[0]} is empty, so nothing would run.")
        for k, values in self.each.items():
            if twice := [v for i, v in enumerate(values) if v in values[:i]]:
                raise BadParameter(f"search: each.{k} names {twice[0]!r} twice.")
            if k in given:
                raise BadParameter(f"search: {k} is given twice: in params and in each.")
        inner = {f"model_params.{k}" for k in given.get("model_params", {})}
        if fixed := sorted(set(self.space) & (set(given) | set(self.each) | inner)):
            raise BadParameter(f"search: {fixed[0]} is fixed and searched.")
        return [
            Study(name, self, {**given, **dict(zip(self.each, values, strict=True))})
            for values in itertools.product(*self.each.values())
        ]


def settings_text(settings: dict[str, Any]) -> str:
    """Settings for people: 'learning_rate 0.00265, hidden 200'."""
    short = {k: f"{v:.3g}" if isinstance(v, float) else str(v) for k, v in settings.items()}
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in short.items())


@dataclass(frozen=True)
class Study:
    """One search: its settings, and the values of the notebook that stay as they are."""

    name: str  # of the sweep
    search: Search
    fixed: dict[str, Any]

    def task(self, settings: dict[str, Any]) -> Task:
        """Notebook and values of the run with these settings; a name "model_params.x" sets x of the model.

        Of a number drawn from a range four digits count: more say nothing, and nobody reads them.
        """
        values = dict(self.fixed)
        for name, value in settings.items():
            if isinstance(value, float) and not self.search.space[name].choices:
                value = float(f"{value:.4g}")
            outer, dot, inner = name.partition(".")
            values[outer] = {**values.get(outer, {}), inner: value} if dot else value
        return self.search.notebook, values

    def inputs(self) -> list[Task]:
        """One run for each input that trials may have, such as another number of bins."""
        of_recipe = [
            name
            for name in self.search.space
            if "." not in name
            and name not in stages.STAGES[self.search.notebook].params.model_fields
        ]
        for name in of_recipe:
            if not self.search.space[name].choices:
                raise BadParameter(
                    f"search: {name} changes what stages 01-04 make, so it needs choices, not a range."
                )
        values = [self.search.space[name].choices for name in of_recipe]
        return [self.task(dict(zip(of_recipe, v, strict=True))) for v in itertools.product(*values)]

    def check(self) -> None:
        """BadParameter for a setting that the notebook or the model would not take."""
        from nblib import models

        model = getattr(plan.job_of(*self.task({})).params, "model", "")
        for name, space in self.search.space.items():
            if model and name in TRAINING and not models.MODELS[model].training:
                raise BadParameter(f"search: {model} is not trained by epochs and has no {name}.")
            for value in space.ends:
                plan.job_of(*self.task({name: value})).params.check()
        self.inputs()

    def folder(self) -> Path:
        """Where its trials are kept. MissingInput for a recording that is not fetched yet."""
        search = self.search.model_dump(exclude={"trials", "workers", "params", "each"})
        fixed = plan.job_of(*self.task({}))
        search["fixed"] = {
            k: v for k, v in fixed.params.model_dump().items() if k not in HOW_TO_WORK | {"recipe"}
        }
        search["stage"] = stages.STAGES[fixed.name].version
        keys = []
        for run in self.inputs():
            job = plan.job_of(*run)
            keys += [stages.key_for(SPLIT, job.recipe, name) for name in job.recordings]
        return (
            store.searches_dir()
            / self.name
            / store.make_key("search", VERSION, search, sorted(keys))
        )

    def title(self) -> str:
        """What it is about: the model and the values that tell studies apart."""
        params = plan.job_of(*self.task({})).params
        fixed = [
            f"{k} {self.fixed[k]}" for k in self.search.each if k not in ("recording", "model")
        ]
        about = [getattr(params, name) for name in ("recording", "model") if hasattr(params, name)]
        return ", ".join([*(about or [params.recipe]), *fixed])
