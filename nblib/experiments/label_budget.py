"""Label-budget curves of embedders (09): how many labels does each need?

Every embedder gets the same draws of labelled windows from training subjects (see `few_labels.draw`) and is
judged on all labelled windows of test subjects. Shapes: W windows, E embedding, K classes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from nblib.core import params as P
from nblib.core import store
from nblib.core.errors import BadParameter
from nblib.core.markup import in_markdown
from nblib.evaluate import stats
from nblib.evaluate.result import Result, Row, readable, with_interval
from nblib.evaluate.scores import Score, score_over_subjects
from nblib.experiments import readouts, self_supervision
from nblib.experiments.embedders import Embedders, check_embedders, trains_a_network
from nblib.experiments.few_labels import ALL, answers, draw
from nblib.experiments.pretext import TASKS
from nblib.experiments.subjects import Fold, fold_hash, make_folds
from nblib.road.stage_registry import CohortParams

if TYPE_CHECKING:
    from nblib.prepare.potentials.stored_windows import Cohort

LAB_DICT = "budget_accuracy.json"


class Params(P.Fit, CohortParams):
    """Parameters of 09: embedders on a label budget."""

    embedders: list[str] = Field(
        ["rp", "ts", "cpc", "random", "bandpower"],
        min_length=1,
        description="also supervised, rp@all, .pth, a+b",
    )
    head: Literal["logistic", "linear", "finetune"] = Field(
        "logistic", description="logistic probe, a linear layer, or all layers trained on"
    )
    tasks: list[Literal["one_vs_all", "multiclass"]] = Field(
        ["one_vs_all", "multiclass"], min_length=1, description="what is asked of the embedding"
    )
    budgets: list[Annotated[int, Field(ge=0)]] = Field(
        [1, 10, 100, 0], min_length=1, description="labels a class; 0 = all [count]"
    )
    n_draws: int = Field(20, ge=1, le=1000, description="draws at each budget [count]")
    n_draws_trained: int = Field(3, ge=1, le=1000, description="draws where a network is trained")
    folds: list[Annotated[int, Field(ge=0)]] = Field(
        [0, 1, 2, 3, 4], min_length=1, description="folds to judge on"
    )
    n_folds: int = Field(5, ge=2, description="folds by subject, as in 08 [count]")
    pretext_params: dict[str, Any] = Field({}, description="parameters of 08 beside its defaults")
    compare: list[str] = Field(
        ["rp - bandpower", "ts - bandpower", "cpc - bandpower"],
        description="differences to test",
    )
    preset: Literal["banville", "lab"] = Field("banville", description="layers of the StagerNet")
    max_epochs: int | None = Field(None, ge=1, description="of a network; None = 100 [count]")
    shuffle_labels: bool = Field(
        False, description="control: labels permuted within each recording"
    )

    @field_validator("embedders", "tasks", "budgets", "folds", "compare")
    @classmethod
    def _each_once(cls, values: list[Any]) -> list[Any]:
        if twice := [v for i, v in enumerate(values) if v in values[:i]]:
            raise ValueError(f"{twice[0]!r} stands twice")
        return values

    def check(self) -> None:
        check_embedders(self)

    def files(self) -> dict[str, str]:
        return {part: part for part in self.parts() if part.endswith(".pth")}

    def needs(self, recipe: P.Recipe) -> list[self_supervision.Params]:
        runs = [self.pretext_run(part, fold) for part in self.parts() for fold in self.folds]
        return [run for run in runs if run is not None]

    def parts(self) -> list[str]:
        """The embedders, those that are joined by `+` one by one."""
        return sorted({part for embedder in self.embedders for part in embedder.split("+")})

    def pretext_run(self, part: str, fold: int) -> self_supervision.Params | None:
        """The run of 08 behind one embedder and fold; None for an embedder that 08 does not make.

        `rp`, `ts`, `cpc`: taught without the fold's test subjects; `rp@all`: taught by all
        subjects, once.
        """
        pretext, at, teachers = part.partition("@")
        if pretext not in TASKS or (at and teachers != "all"):
            return None
        shared = {name: getattr(self, name) for name in ("recipe", "n_folds", "seed", "preset")}
        decided = (*shared, "pretext", "fold", "teachers", "shuffle_time")
        if twice := [name for name in decided if name in self.pretext_params]:
            raise BadParameter(
                f"09: pretext_params holds {twice[0]!r}, which 09 itself decides: otherwise 08 could learn "
                "from subjects that 09 tests. Taught by all subjects is `rp@all`."
            )
        values = {**shared, **self.pretext_params, "pretext": pretext, "fold": fold}
        if at:
            values |= {"teachers": "all_subjects", "fold": min(self.folds)}
        return P.checked(self_supervision.Params, values, "09: pretext_params")


def drawn(
    fold: Fold, budget: int, number: int, seed: int, positive: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a draw and what they are labelled: `budget` of each class, or of the positive class
    (then 1) and as many of the others (0). With all labels the larger of these two is cut."""
    y = fold.y[fold.train]
    if positive is not None:
        y = (y == positive).astype(int)
    if budget != ALL:
        task = 0 if positive is None else positive + 1
        sorted_as = y if positive is None else 1 - y  # the positive class is drawn first
        rows = draw(sorted_as, budget, [seed, fold.number, number, task, 46])
    elif positive is None:
        rows = np.arange(len(y))
    else:
        rng = np.random.default_rng([seed, fold.number, positive, 47])
        few = np.bincount(y, minlength=2).min()
        parts = [rng.permutation(np.flatnonzero(y == v))[:few] for v in (0, 1)]
        rows = np.sort(np.concatenate(parts))
    return fold.train[rows], y[rows]


def learning_curves(
    cohort: Cohort, params: Params, pretext_folder: Callable[[Any], Path] | None = None
) -> Result:
    """Every embedder at every budget, fold and draw; judged subject by subject.

    Parameters
    ----------
    pretext_folder
        Where the run of 08 with given parameters lies (`Stage.needed`); only needed for
        embedders that 08 trained.

    Returns
    -------
    Result
        Tables: draws, one row an embedder, task, budget, fold, draw, class and subject; subjects,
        their means; curve, one row an embedder, task and budget with its interval over subjects;
        classes, the same by state.
    """
    check_embedders(params)
    folds = make_folds(cohort, params)
    embedders = Embedders(cohort, params, pretext_folder)
    device = _device(params)
    n_states = len(folds[0].classes)
    states = {"one_vs_all": range(n_states), "multiclass": [None]}
    questions = [(task, positive) for task in params.tasks for positive in states[task]]

    def n_draws(name: str, _: int) -> int:
        return params.n_draws_trained if trains_a_network(name, params.head) else params.n_draws

    def predict(learn, fold, question, budget, number):
        positive = question[1]
        rows, y = drawn(fold, budget, number, params.seed, positive)
        rows, y, chooses = readouts.teach_and_choose(rows, y, budget, cohort)
        seed = zlib.crc32(repr((params.seed, fold.number, number)).encode()) % 2**31
        return learn(rows, y, chooses, n_states if positive is None else 2, seed)

    rows = []
    for fold in folds:
        for name in params.embedders:
            learn = partial(predict, readouts.learner(name, fold, embedders, device), fold)
            for answer in answers({name: learn}, params.budgets, n_draws, questions):
                task, positive = answer.question
                of = {
                    "embedder": name,
                    "task": task,
                    "budget": answer.budget,
                    "fold": fold.number,
                    "draw": answer.draw,
                }
                rows += [of | row for row in by_subject(fold, answer.predicted, positive)]
    return summarise(pd.DataFrame(rows), cohort, params, folds)


def _device(params: Params) -> str:
    """Where networks are trained, said once; "cpu" where none is."""
    if params.head == "logistic" and not any(
        trains_a_network(e, params.head) for e in params.embedders
    ):
        return "cpu"
    from nblib.models import say_device

    return say_device(params.device)


def by_subject(fold: Fold, predicted: np.ndarray, positive: int | None) -> list[dict[str, Any]]:
    """Balanced accuracy of each test subject, and of one answer to all; predicted (W_test,)."""
    truth, subject = fold.y[fold.test], fold.subject[fold.test]
    state = "" if positive is None else str(fold.classes[positive])
    if positive is not None:
        truth = (truth == positive).astype(int)
    rows = []
    for name in np.unique(subject):
        here = subject == name
        n_present = len(np.unique(truth[here]))
        if n_present < 2:
            continue  # a subject of one answer says nothing of telling them apart
        scored = {"accuracy": balanced(truth[here], predicted[here]), "chance": 1 / n_present}
        rows.append({"class": state, "subject": str(name), **scored, "n": int(here.sum())})
    return rows


def balanced(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes present of the share answered right; truth and predicted (n,)."""
    return float(np.mean([(predicted[truth == c] == c).mean() for c in np.unique(truth)]))


def summarise(draws: pd.DataFrame, cohort: Cohort, params: Params, folds: list[Fold]) -> Result:
    """Draws are averaged first, then classes; intervals and p are over subjects."""
    by, values = ["embedder", "task", "budget", "class", "subject"], ["accuracy", "chance"]
    means = draws.groupby(by, sort=False)[values].mean().reset_index()
    by.remove("class")
    subjects = means.groupby(by, sort=False)[values].mean().reset_index()
    curve, classes, rows = [], [], []
    for (name, task, budget), part in subjects.groupby(["embedder", "task", "budget"], sort=False):
        score = score_over_subjects(*part[values].to_numpy().T, params.seed)
        curve.append({"embedder": name, "task": task, "budget": budget, **_columns(score)})
        labels = _labels(budget)
        of = {"model": f"{name} ({params.head})", "variant": f"{task}, {labels} labels"}
        rows.append(Row(f"{name}, {task}, {labels}", score, of=of, metric="balanced_accuracy"))
    one_vs_all = means[means["task"] == "one_vs_all"]
    for (name, budget, state), part in one_vs_all.groupby(
        ["embedder", "budget", "class"], sort=False
    ):
        score = score_over_subjects(*part[values].to_numpy().T, params.seed)
        classes.append({"embedder": name, "budget": budget, "class": state, **_columns(score)})
    tables = {
        "draws": draws,
        "subjects": subjects,
        "curve": pd.DataFrame(curve),
        "classes": pd.DataFrame(classes),
    }
    about = {
        "fold": -1 if len(params.folds) > 1 else params.folds[0],
        "split_hash": fold_hash(cohort, params.n_folds, params.seed),
        "n_test": sum(len(fold.test) for fold in folds),
        "n_classes": len(set(one_vs_all["class"])),
    }
    return Result(rows, about, tables, files=[LabDictionary(tables["curve"])])


def _columns(score: Score) -> dict[str, Any]:
    names = ("value", "ci_low", "ci_high", "chance", "p")
    return {name: getattr(score, name) for name in names} | {"n_subjects": score.n}


def _labels(budget: int) -> str:
    return "all" if budget == ALL else str(budget)


def compare(subjects: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The differences named beforehand, "a - b", paired over subjects at each budget.

    p by flipping signs of subjects' differences, adjusted by Holm for all of them together. Left out
    is one whose embedders were not run (the default names all that are run by default).
    """
    rows = []
    for text in params.compare:
        names = text.split(" - ")
        if not set(names) <= set(params.embedders):
            continue
        for (task, budget), part in subjects.groupby(["task", "budget"], sort=False):
            a, b = (part[part["embedder"] == n].set_index("subject")["accuracy"] for n in names)
            difference = (a - b.loc[a.index]).to_numpy(float)
            low, high = stats.t_interval(difference, -1.0, 1.0)
            rows.append(
                {"difference": text, "task": task, "budget": budget, "value": difference.mean(),
                 "ci_low": low, "ci_high": high, "n_subjects": len(difference),
                 "p": stats.sign_flip_p(difference, seed=params.seed, two_sided=True)}
            )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(**{"p, Holm": stats.holm(table["p"].to_numpy())}) if len(table) else table


# --- as people read it ---------------------------------------------------------------------------


@dataclass(frozen=True)
class LabDictionary:
    """The curve as the lab kept it: embedder -> task -> budget ("None" = all) -> mean test accuracy."""

    curve: pd.DataFrame

    def entries(self) -> dict[str, dict[str, dict[str, float]]]:
        entries: dict[str, dict[str, dict[str, float]]] = {}
        for row in self.curve.itertuples():
            budget = "None" if row.budget == ALL else str(row.budget)
            of_task = entries.setdefault(row.embedder, {}).setdefault(row.task, {})
            of_task[budget] = round(row.value, 6)
        return entries

    def save(self, folder: Path) -> None:
        store.write_text(folder / LAB_DICT, json.dumps(self.entries(), indent=1) + "\n")


def short_table(curve: pd.DataFrame) -> pd.DataFrame:
    """The curve as people read it: one row an embedder and task, a column a budget."""
    cells = readable(curve, {"text": "{value:.1%} ({ci_low:.0%} to {ci_high:.0%})"})
    budgets = [_labels(budget) + " labels" * (budget != ALL) for budget in curve["budget"]]
    table = curve[["embedder", "task"]].assign(budget=budgets, text=cells["text"])
    wide = table.pivot_table("text", ["embedder", "task"], "budget", aggfunc="first", sort=False)
    return wide.reset_index().rename_axis(columns=None)


def compared_table(subjects: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The differences named beforehand (see `compare`), as people read them."""
    table = compare(subjects, params)
    if len(table) == 0:
        return pd.DataFrame(
            {"no difference": ["named in `compare` is between embedders that were run"]}
        )
    columns = {
        "difference": "{difference}",
        "task": "{task}",
        "labels": "{labels}",
        "value": "{value:+.1%}",
        "95 % interval": "{ci_low:+.1%} to {ci_high:+.1%}",
        "subjects": "{n_subjects}",
        "p, sign flips": "{p:.2g}",
        "p, Holm": "{p, Holm:.2g}",
    }
    return readable(table.assign(labels=table["budget"].map(_labels)), columns)


def in_words(result: Result, params: Params) -> str:
    """The result at the smallest and the largest budget, embedder by embedder."""
    task, curve = params.tasks[0], result.tables["curve"]
    part = curve[curve["task"] == task]
    size = part["budget"].replace(ALL, np.inf)
    ends = part[size.isin([size.min(), size.max()])]
    lines = []
    for name, points in ends.groupby("embedder", sort=False):
        texts = [
            f"{with_interval(r)} with {'all labels' if r.budget == ALL else f'{r.budget} a class'}"
            for r in points.itertuples()
        ]
        lines.append(f"- **{in_markdown(name)}**: {', '.join(texts)}")
    n, chance = part["n_subjects"].iloc[0], part["chance"].iloc[0]
    judged, every = len(params.folds), params.n_folds
    folds = f"{judged} of {every} folds" if judged < every else f"{every} folds"
    words = {"one_vs_all": "one state against all others", "multiclass": "which state it is"}[task]
    return (
        f"**Result.** Balanced accuracy for {words}, mean over {n} test subjects ({folds}); guessing gives {chance:.0%}:\n\n"
        + "\n".join(lines)
    )
