"""One model of several sessions that decodes, encodes and imputes, beside linear ones and the best possible (12)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core import params as P
from nblib.core.errors import BadParameter
from nblib.core.markup import in_markdown
from nblib.evaluate import ratios, stats
from nblib.evaluate.ratios import BITS, R2, Earned
from nblib.evaluate.result import Result, Row
from nblib.evaluate.scores import Score, decoding_scores
from nblib.experiments.multimodal import areas
from nblib.experiments.multimodal import tasks as asked
from nblib.experiments.multimodal.tasks import NETWORK, Answered
from nblib.models.multimodal import fitting, masks, poisson
from nblib.models.multimodal.model import BEHAVIOUR
from nblib.models.settings import FitSettings
from nblib.prepare import sessions as prepared
from nblib.road.stage_registry import CohortParams

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.fitting import TrialAnswers
    from nblib.prepare.sessions import Session

BALANCED = "balanced_accuracy"
SHOWN = ("R2 beyond the mean course", BALANCED, "bits beyond the PSTH")  # one of each task


class Params(P.Judge, P.Fit, CohortParams):
    """Parameters of 12: the network, what it is taught, and how it is judged."""

    recipe: str = Field("task_demo", description="recipe in params/recipes, or a path to one")
    width: int = Field(64, ge=8, le=1024, description="numbers in a token [count]")
    layers: int = Field(2, ge=1, le=48, description="layers of the transformer [count]")
    heads: int = Field(4, ge=1, le=32, description="heads of each layer [count]")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.3, description="dropout in the layers")
    causal: bool = Field(False, description="every bin is told from itself and earlier ones alone")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field("32", description="arithmetic")
    compiled: bool = Field(False, description="compile the network, for long trainings on a GPU")
    processes: int = Field(
        1, ge=1, le=64, description="that share each batch; on GPUs only from a script [count]"
    )
    new: list[str] = Field(
        [], description="recordings kept out, then learnt from few trials; empty = none"
    )
    budgets: list[Annotated[int, Field(ge=10)]] = Field(
        [10, 25, 60], min_length=1, description="trials of a new recording to learn from [count]"
    )
    n_draws: int = Field(1, ge=1, le=100, description="draws of these [count]")
    by_area: bool = Field(False, description="also what each area's units say of each other's")
    schemes: dict[str, float] = Field(
        {}, description="what is hidden in training: scheme -> how often; empty = a mix of all"
    )
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(0.05, ge=0, description="of AdamW")
    batch_size: int = Field(32, ge=1, description="trials of one session in a step [count]")
    patience: int = Field(15, ge=1, description="epochs without a better validation loss [count]")
    n_permutations: int = Field(500, ge=100, le=100_000, description="answers moved [count]")
    n_bootstrap: int = Field(500, ge=100, le=100_000, description="bootstrap draws [count]")

    def check(self) -> None:
        """BadParameter for a scheme that is not there, and heads that do not divide the width."""
        if unknown := sorted(set(self.schemes) - set(masks.SCHEMES)):
            raise BadParameter(f"schemes: no {unknown[0]!r}; there are {', '.join(masks.SCHEMES)}.")
        if self.width % self.heads:
            raise BadParameter(f"width = {self.width}: must be a multiple of heads = {self.heads}.")

    @property
    def shape(self) -> dict[str, Any]:
        """What the network is made with."""
        return self.model_dump(include={"width", "layers", "heads", "dropout", "causal"})

    @property
    def fit_settings(self) -> FitSettings:
        """How the network is trained."""
        return FitSettings.of(self, fitting.DEFAULTS, progress=False)


def load_sessions(split: list[Path], counts: list[Path], recipe: Recipe, params: Params) -> list[Session]:  # fmt: skip
    """The sessions of the recipe (see `prepared.load_sessions`), with behaviour of other trials as a control.

    Raises BadParameter for a `new` recording that is not there, and where no other is left.
    """
    if unknown := sorted(set(params.new) - set(recipe.recordings)):
        raise BadParameter(f"new: {unknown[0]!r} is not in recipe {recipe.recipe!r}.")
    if len(params.new) == len(recipe.recordings):
        raise BadParameter("new: no recording is left to learn from.")
    loaded = prepared.load_sessions(split, counts, recipe, params.fold)
    if params.shuffle_labels:
        return [prepared.shuffled(one, params.seed + k) for k, one in enumerate(loaded)]
    return loaded


def earned(task: str, kind: str, answers: TrialAnswers, sessions: list[Session], hidden: list[np.ndarray]) -> dict[str, list[Earned]]:  # fmt: skip
    """What answers to test trials earn in each session, by metric: R2, bits a spike."""
    found: dict[str, list[Earned]] = {}
    for k, (one, answer) in enumerate(zip(sessions, answers, strict=True)):
        test, train = one.rows("test"), one.rows("train")
        if kind == "signal":
            y = one.signals[..., one.signal_names.index(task)]
            bases = {"R2": y[test].mean(), "R2 beyond the mean course": y[train].mean(axis=0)}
            made = {n: ratios.of_signal(y[test], answer[test], base) for n, base in bases.items()}
        else:
            counts, psth = one.counts[..., hidden[k]], poisson.psth(one, train)[:, hidden[k]]
            bases = {
                "bits over the train mean": counts[train].mean(axis=(0, 1)),
                "bits over the test mean": counts[test].mean(axis=(0, 1)),
                "bits beyond the PSTH": psth,
            }
            made = {
                n: ratios.of_counts(counts[test], answer[test], null) for n, null in bases.items()
            }
        for name, part in made.items():
            found.setdefault(name, []).append(part)
    return found


def labels_of_test(task: str, answers: TrialAnswers, sessions: list[Session]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Of the test trials of all sessions: class (B,), log-probabilities (B, C), block of trials (B,)."""
    y, log, group = [], [], []
    for k, (one, answer) in enumerate(zip(sessions, answers, strict=True)):
        test = one.rows("test")
        y.append(one.variables[test, list(one.classes).index(task)])
        log.append(answer[test] - np.logaddexp.reduce(answer[test], axis=1, keepdims=True))
        group.append(k * 10_000 + np.arange(len(test)) // ratios.BLOCK)
    return np.concatenate(y), np.concatenate(log), np.concatenate(group)


def scores(task: str, kind: str, answers: TrialAnswers, sessions: list[Session], hidden: list[np.ndarray], params: Params) -> dict[str, Score]:  # fmt: skip
    """Scores of the answers to one task, over the test trials of all sessions together, by metric."""
    judge = params.model_dump(include={"n_permutations", "n_bootstrap", "seed"})
    if kind == "variable":
        y, log, group = labels_of_test(task, answers, sessions)
        return {BALANCED: decoding_scores(y, log, group=group, **judge)[BALANCED]}
    unit = R2 if kind == "signal" else BITS
    found = earned(task, kind, answers, sessions, hidden)
    return {name: ratios.score(parts, unit, **judge) for name, parts in found.items()}


def against_linear(tasks: dict[str, Answered], weights: dict[str, float], sessions: list[Session], params: Params) -> pd.DataFrame:  # fmt: skip
    """How much better the network is than the linear model that validation prefers, paired over blocks of trials.

    One row a task: task, linear, metric, difference, ci_low, ci_high, weight (see `tasks.trusted`).
    """
    rows, draws = [], {"n_bootstrap": params.n_bootstrap, "seed": params.seed}
    for task, answered in tasks.items():
        two = answered.by[NETWORK], answered.by[answered.against]
        if answered.kind == "variable":
            metric = "accuracy"
            (y, a, group), (_, b, _) = (labels_of_test(task, one, sessions) for one in two)
            right = ((log.argmax(axis=1) == y).astype(float) for log in (a, b))
            d = stats.paired_difference(*right, group=group, seed=params.seed)
            found = d.value, d.ci_low, d.ci_high
        else:
            a, b = (earned(task, answered.kind, one, sessions, answered.hidden) for one in two)
            metric = list(a)[-1]
            found = ratios.difference(a[metric], b[metric], **draws)
        rows.append((task, answered.against, metric, *found, weights[task]))
    columns = ["task", "linear", "metric", "difference", "ci_low", "ci_high", "weight"]
    return pd.DataFrame(rows, columns=columns)


def run(
    sessions: list[Session], recipe: Recipe, params: Params, folder: Path | None = None
) -> Result:
    """Fit linear models and the network on train trials, and score every task on test trials.

    Tables: against (see `against_linear`), history (of the training), units (bits a spike of each unit),
    areas (see `areas.matrix`), empty where it is not asked for.
    """
    settings, split_hash = params.fit_settings, sessions[0].split_hash
    sessions = [one for one in sessions if one.name not in params.new]
    branch = fitting.fit_branch(sessions, params.causal)
    model, history = fitting.fit(
        sessions,
        branch,
        settings,
        params.shape,
        params.schemes or fitting.CHANCES,
        folder,
        compiled=params.compiled,
        processes=params.processes,
    )
    maps = asked.linear_models(sessions, branch, params.causal)
    tasks = asked.linear_answers(sessions, branch, maps)
    model = asked.network_answers(replace(model, maps=maps), sessions, tasks)
    known = not (params.shuffle_labels or params.causal)
    best, rows = asked.ceilings(sessions, recipe) if known else {}, []
    for task, answered in tasks.items():
        given = answered.kind, sessions, answered.hidden, params
        limit = scores(task, given[0], best[task], *given[1:]) if task in best else {}
        for name, answers in answered.by.items():
            of = {"model": name, "variant": task}
            for metric, score in scores(task, given[0], answers, *given[1:]).items():
                rows.append(Row(f"{task}, {name}: {metric}", score, limit.get(metric), of, metric))
    about = {
        "split_hash": split_hash, "n_train": sum(len(one.rows("train")) for one in sessions),
        "n_test": sum(len(one.rows("test")) for one in sessions), "n_bins": sessions[0].counts.shape[1],
        "n_units": sum(len(one.unit_ids) for one in sessions), "n_sessions": len(sessions),
        "fit_s": history.attrs["fit_s"], "best_epoch": history.attrs["best_epoch"],
    }  # fmt: skip
    by_area = areas.matrix(model, sessions, params) if params.by_area else pd.DataFrame(columns=areas.COLUMNS)  # fmt: skip
    tables = {
        "areas": by_area, "against": against_linear(tasks, model.trust, sessions, params), "history": history,
        "units": units_table(tasks, sessions),
    }  # fmt: skip
    return Result(rows, about, tables, files=[model])


def units_table(tasks: dict[str, Answered], sessions: list[Session]) -> pd.DataFrame:
    """Bits a spike of each unit over its train mean, told from behaviour: session, unit, area, rate_hz, a column a model."""
    parts, answered = [], tasks[BEHAVIOUR]
    for k, one in enumerate(sessions):
        test, null = one.rows("test"), one.counts[one.rows("train")].mean(axis=(0, 1))
        part = pd.DataFrame({
            "session": one.name, "unit": one.unit_ids.astype(str), "area": one.area,
            "rate_hz": null / one.bin_s,
        })  # fmt: skip
        for model, answers in answered.by.items():
            part[model] = ratios.per_unit(one.counts[test], answers[k][test], null)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def scores_table(result: Result) -> pd.DataFrame:
    """Scores as people read them: one row a task and model, a column a metric; chance, p, number of test
    trials and the best possible are of the metric of `SHOWN`."""
    rows: dict[tuple[str, str], dict] = {}
    for row in result.rows:
        name, score = row.metric.replace("bits", "bits a spike"), row.score
        of = rows.setdefault((row.of["variant"], row.of["model"]), {})
        of[name] = f"{score.value:.3f} [{score.ci_low:.3f}, {score.ci_high:.3f}]"
        if row.metric in SHOWN:
            of |= {"chance": f"{score.chance:.3f}", "p": f"{score.p:.3f}", "n": score.n}
            of["best possible"] = f"{row.best.value:.3f}" if row.best else ""
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    last = ["chance", "p", "n", "best possible"]
    return table[[*table.columns.drop(last), *last]].rename_axis(["task", "model"])


def in_words(result: Result) -> str:
    """How near the network comes to the best possible, and every task where a linear model does as well."""
    shown = [row for row in result.rows if row.metric in SHOWN and row.of["model"] == NETWORK]
    near = [
        f"{in_markdown(row.of['variant'])} {row.score.value:.3f} of {row.best.value:.3f}"
        for row in shown if row.best is not None
    ]  # fmt: skip
    table = result.tables["against"]
    wins = table[table["ci_low"] > 0]["task"].tolist()
    others = table[table["ci_low"] <= 0]["task"].tolist()
    text = (
        f"**Result.** One network of {result.about['n_sessions']} sessions answers {len(table)} tasks on "
        f"{result.about['n_test']} test trials. "
    )
    if near:
        text += f"It reaches, of what is possible: {'; '.join(near)}. "
    text += (
        f"It is better than the best linear model at {in_markdown(', '.join(wins)) or 'nothing'}"
    )
    if others:
        text += f"; at {in_markdown(', '.join(others))} a linear model does as well or better"
    drift = {m: next(r.score.value for r in result.rows if r.metric == m and r.of["model"] == "PSTH")
             for m in ("bits over the train mean", "bits over the test mean")}  # fmt: skip
    apart = drift["bits over the train mean"] - drift["bits over the test mean"]
    return f"{text}. Rates drift from train to test by {apart:.3f} bits a spike."
