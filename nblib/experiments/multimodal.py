"""One model of several sessions that decodes, encodes and imputes, beside linear ones and the best possible (12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core import params as P
from nblib.core.errors import BadParameter
from nblib.core.markup import in_markdown
from nblib.data import sources
from nblib.evaluate import ratios, stats
from nblib.evaluate.ratios import BITS, R2, Earned
from nblib.evaluate.result import Result, Row
from nblib.evaluate.scores import Score, decoding_scores
from nblib.models.multimodal import fitting, linear, masks, poisson
from nblib.models.settings import FitSettings
from nblib.prepare import sessions as prepared

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.fitting import Answers
    from nblib.prepare.sessions import Session

NETWORK, GLM, NOTHING = "masked network", "Poisson GLM", "mean course"
SPIKES, UNITS, AREAS = "spikes", "a fifth of the units", "units of each area"
EVERY = 5  # of the units, hidden at once
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the network against the branch that it starts from
BALANCED = "balanced_accuracy"
SHOWN = ("R2 beyond the mean course", BALANCED, "bits beyond the PSTH")  # one of each task


class Params(P.Judge, P.Fit, P.CohortParams):
    """Parameters of 12: the network, what it is taught, and how it is judged."""

    recipe: str = Field("task_demo", description="recipe in params/recipes, or a path to one")
    width: int = Field(64, ge=8, le=1024, description="numbers in a token [count]")
    layers: int = Field(2, ge=1, le=48, description="layers of the transformer [count]")
    heads: int = Field(4, ge=1, le=32, description="heads of each layer [count]")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.3, description="dropout in the layers")
    causal: bool = Field(False, description="every bin is told from itself and earlier ones alone")
    schemes: dict[str, float] = Field(
        fitting.CHANCES, min_length=1, description="what is hidden in training: scheme -> how often"
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
    def fit_settings(self) -> FitSettings:
        """How the network is trained."""
        return FitSettings.of(self, fitting.DEFAULTS, progress=False)


@dataclass
class Answered:
    """What each model answered to one task: model -> for each session, answers for all of its trials.

    kind: "signal" (K, T), "variable" log-probabilities (K, C), or "counts" expected (K, T, n). hidden: of
    counts, the units asked for in each session. against: the linear model that validation prefers.
    """

    kind: str
    by: dict[str, Answers] = field(default_factory=dict)
    hidden: list[np.ndarray] = field(default_factory=list)
    against: str = ""


def load_sessions(split: list[Path], counts: list[Path], recipe: Recipe, params: Params) -> list[Session]:  # fmt: skip
    """The sessions of the recipe (see `prepared.load_sessions`), with behaviour of other trials as a control."""
    loaded = prepared.load_sessions(split, counts, recipe, params.fold)
    if params.shuffle_labels:
        return [prepared.shuffled(one, params.seed + k) for k, one in enumerate(loaded)]
    return loaded


def table(sessions: list[Session]) -> pd.DataFrame:
    """One row a session: its units, and trials of each role."""
    return prepared.table(sessions)


# --- what is asked ---------------------------------------------------------------------------------


def fifth(session: Session) -> np.ndarray:
    """Every fifth unit."""
    return np.arange(0, len(session.unit_ids), EVERY)


def hide_behaviour(session: Session) -> masks.Hidden:
    hidden = fitting.nothing(session)
    hidden.behaviour()
    return hidden


def hide_units(units: np.ndarray) -> Callable[[Session], masks.Hidden]:
    """Hide some units, and behaviour, which would tell of them too."""

    def hide(session: Session) -> masks.Hidden:
        hidden = hide_behaviour(session)
        hidden.spikes[:, units] = True
        return hidden

    return hide


def hide_all_but(name: str) -> Callable[[Session], masks.Hidden]:
    """Hide spikes and all behaviour but one signal or variable; "" = show all behaviour."""

    def hide(session: Session) -> masks.Hidden:
        hidden = fitting.nothing(session)
        hidden.spikes[:] = True
        if name:
            hidden.signals[:, [s != name for s in session.signal_names]] = True
            hidden.variables[[v != name for v in session.classes]] = True
        return hidden

    return hide


def linear_answers(sessions: list[Session], branch: fitting.Branch, causal: bool = False) -> dict[str, Answered]:  # fmt: skip
    """What linear models answer to every task; strengths are chosen on validation trials."""
    fits, choose = ([one.rows(role) for one in sessions] for role in ("train", "val"))
    tasks, first = {}, sessions[0]
    courses = [linear.mean_course(one, fit) for one, fit in zip(sessions, fits, strict=True)]
    made = {name: fit(fits, choose) for name, fit in fitting.decoders(sessions, causal).items()}
    for s, name in enumerate(first.signal_names):
        by = {n: [a[..., s] for a in answers] for n, answers in ({NOTHING: courses} | made).items()}
        tasks[name] = Answered("signal", by, against=branch.who[name])
    for q, name in enumerate(first.classes):
        by = {"prior": [linear.prior(one, fit, q) for one, fit in zip(sessions, fits, strict=True)]}
        by |= {n: fit(fits, choose) for n, fit in fitting.classifiers(sessions, q).items()}
        tasks[name] = Answered("variable", by, against=branch.who[name])
    psth = [
        np.broadcast_to(poisson.psth(one, fit), one.counts.shape)
        for one, fit in zip(sessions, fits, strict=True)
    ]
    whole = [np.arange(len(one.unit_ids)) for one in sessions]
    names = (*first.signal_names, *first.classes)
    for name in ("", *(names if len(names) > 1 else ())):
        glm = fitting.each(sessions, poisson.encode, [name] if name else None)(fits, choose)
        by = {"PSTH": psth, GLM: glm}
        tasks[f"{SPIKES} from {name or 'behaviour'}"] = Answered("counts", by, whole, GLM)
    some, areas = [fifth(one) for one in sessions], []
    for one, fit, judge in zip(sessions, fits, choose, strict=True):
        answer = np.empty(one.counts.shape)
        for area in np.unique(one.area):
            inside = np.flatnonzero(one.area == area)
            alone = len(inside) == len(one.area)
            answer[..., inside] = (
                poisson.psth(one, fit)[:, inside] if alone else poisson.impute(one, fit, judge, inside)
            )
        areas.append(answer)
    units = [poisson.impute(*part) for part in zip(sessions, fits, choose, some, strict=True)]
    by = {"PSTH": [p[..., at] for p, at in zip(psth, some, strict=True)], GLM: units}
    tasks[UNITS] = Answered("counts", by, some, GLM)
    tasks[AREAS] = Answered("counts", {"PSTH": psth, GLM: areas}, whole, GLM)
    return tasks


def network_answers(fitted: fitting.Fitted, sessions: list[Session], tasks: dict[str, Answered]) -> None:  # fmt: skip
    """Put the network's answers to every task into `tasks`."""
    decoded = fitting.ask(fitted, sessions, hide_behaviour)
    for s, name in enumerate(sessions[0].signal_names):
        tasks[name].by[NETWORK] = [signals[..., s] for _, signals, _ in decoded]
    for q, name in enumerate(sessions[0].classes):
        tasks[name].by[NETWORK] = [variables[q] for *_, variables in decoded]
    for task, answered in tasks.items():
        if task.startswith(f"{SPIKES} from "):
            given = task.removeprefix(f"{SPIKES} from ")
            hide = hide_all_but("" if given == "behaviour" else given)
            answered.by[NETWORK] = [rates for rates, *_ in fitting.ask(fitted, sessions, hide)]
    hidden = fitting.ask(fitted, sessions, lambda one: hide_units(fifth(one))(one))
    tasks[UNITS].by[NETWORK] = [
        rates[..., fifth(one)] for (rates, *_), one in zip(hidden, sessions, strict=True)
    ]
    answers = [np.empty(one.counts.shape) for one in sessions]
    for area in np.unique(np.concatenate([one.area for one in sessions])):
        asked = fitting.ask(
            fitted, sessions, lambda one, a=area: hide_units(np.flatnonzero(one.area == a))(one)
        )
        for into, (rates, *_), one in zip(answers, asked, sessions, strict=True):
            into[..., one.area == area] = rates[..., one.area == area]
    tasks[AREAS].by[NETWORK] = answers


def shrunk(answered: Answered, task: str, sessions: list[Session]) -> float:
    """Shrink the network's answers to those of `against`, by the weight that validation trials choose; that weight.

    In between lie the mean of two answers, of log-probabilities, or of log rates.
    """
    log = answered.kind == "counts"
    pairs = [
        (np.log(np.maximum(a, poisson.LEAST)), np.log(np.maximum(b, poisson.LEAST))) if log else (a, b)
        for a, b in zip(answered.by[answered.against], answered.by[NETWORK], strict=True)
    ]  # fmt: skip
    tried = {}
    for weight in WEIGHTS:
        mixed = [(1 - weight) * a + weight * b for a, b in pairs]
        tried[weight] = [np.exp(m) for m in mixed] if log else mixed
    losses = {w: loss(answers, answered, task, sessions) for w, answers in tried.items()}
    chosen = min(losses, key=losses.__getitem__)
    answered.by[NETWORK] = tried[chosen]
    return chosen


def loss(answers: Answers, answered: Answered, task: str, sessions: list[Session]) -> float:
    """Loss of answers in validation trials: squared error, or minus the log-likelihood."""
    total = 0.0
    for k, (one, answer) in enumerate(zip(sessions, answers, strict=True)):
        val = one.rows("val")
        if answered.kind == "signal":
            s = one.signal_names.index(task)
            total += ((answer[val] - one.signals[val, :, s]) ** 2).sum()
        elif answered.kind == "variable":
            y = one.variables[val, list(one.classes).index(task)]
            norm = np.logaddexp.reduce(answer[val], axis=1)
            total -= (answer[val, y] - norm).sum()
        else:
            counts = one.counts[val][..., answered.hidden[k]]
            total -= poisson.log_likelihood(counts, answer[val]).sum()
    return float(total)


def ceilings(sessions: list[Session], recipe: Recipe, params: Params) -> dict[str, Answers]:
    """The best possible answers by task, where the truth is known; of test trials, other trials are left at 0."""
    oracle, best = sources.offered(recipe.source, "ceiling"), {}
    if oracle is None or params.shuffle_labels or params.causal:
        return {}
    for one in sessions:
        known = oracle(recipe, one.name, one.unit_ids)
        if known is None:
            return {}
        test, some = one.rows("test"), fifth(one)
        said = known.decode(one.counts[test])
        for s, name in enumerate(one.signal_names):
            if name in said:
                said[name] = (said[name] - one.mean[s]) / one.scale[s]
        said = {n: np.log(np.maximum(a, linear.LEAST)) if n in one.classes else a for n, a in said.items()}
        said[f"{SPIKES} from behaviour"] = known.encode(one.trial[test])
        said[UNITS] = known.impute(one.counts[test], some)
        for task, answer in said.items():
            into = np.zeros((len(one.role), *answer.shape[1:]))
            into[test] = answer
            best.setdefault(task, []).append(into)
    return best


# --- how it is judged ------------------------------------------------------------------------------


def earned(task: str, kind: str, answers: Answers, sessions: list[Session], hidden: list[np.ndarray]) -> dict[str, list[Earned]]:  # fmt: skip
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
            made = {n: ratios.of_counts(counts[test], answer[test], null) for n, null in bases.items()}
        for name, part in made.items():
            found.setdefault(name, []).append(part)
    return found


def labels_of_test(task: str, answers: Answers, sessions: list[Session]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Of the test trials of all sessions: class (B,), log-probabilities (B, C), block of trials (B,)."""
    y, log, group = [], [], []
    for k, (one, answer) in enumerate(zip(sessions, answers, strict=True)):
        test = one.rows("test")
        y.append(one.variables[test, list(one.classes).index(task)])
        log.append(answer[test] - np.logaddexp.reduce(answer[test], axis=1, keepdims=True))
        group.append(k * 10_000 + np.arange(len(test)) // ratios.BLOCK)
    return np.concatenate(y), np.concatenate(log), np.concatenate(group)


def scores(task: str, kind: str, answers: Answers, sessions: list[Session], hidden: list[np.ndarray], params: Params) -> dict[str, Score]:  # fmt: skip
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

    One row a task: task, linear, metric, difference, ci_low, ci_high, weight (see `shrunk`).
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


def run(sessions: list[Session], recipe: Recipe, params: Params, folder: Path | None = None) -> Result:
    """Fit linear models and the network on train trials, and score every task on test trials.

    Tables: against (see `against_linear`), history (of the training), units (bits a spike of each unit).
    """
    settings = params.fit_settings
    branch = fitting.fit_branch(sessions, params.causal)
    shape = params.model_dump(include={"width", "layers", "heads", "dropout", "causal"})
    fitted = fitting.fit(sessions, branch, settings, shape, params.schemes, folder)
    tasks = linear_answers(sessions, branch, params.causal)
    network_answers(fitted, sessions, tasks)
    weights = {task: shrunk(answered, task, sessions) for task, answered in tasks.items()}
    best, rows = ceilings(sessions, recipe, params), []
    for task, answered in tasks.items():
        given = answered.kind, sessions, answered.hidden, params
        limit = scores(task, given[0], best[task], *given[1:]) if task in best else {}
        for model, answers in answered.by.items():
            of = {"model": model, "variant": task}
            for metric, score in scores(task, given[0], answers, *given[1:]).items():
                rows.append(Row(f"{task}, {model}: {metric}", score, limit.get(metric), of, metric))
    about = {
        "split_hash": sessions[0].split_hash, "n_train": sum(len(one.rows("train")) for one in sessions),
        "n_test": sum(len(one.rows("test")) for one in sessions), "n_bins": sessions[0].counts.shape[1],
        "n_units": sum(len(one.unit_ids) for one in sessions), "n_sessions": len(sessions),
        "fit_s": fitted.history.attrs["fit_s"], "best_epoch": fitted.history.attrs["best_epoch"],
    }  # fmt: skip
    tables = {
        "against": against_linear(tasks, weights, sessions, params), "history": fitted.history,
        "units": units_table(tasks, sessions),
    }  # fmt: skip
    return Result(rows, about, tables, files=[fitted])


def units_table(tasks: dict[str, Answered], sessions: list[Session]) -> pd.DataFrame:
    """Bits a spike of each unit over its train mean, told from behaviour: session, unit, area, rate_hz, a column a model."""
    parts, answered = [], tasks[f"{SPIKES} from behaviour"]
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
    """Scores as people read them: one row a task and model, a column a metric of interest."""
    rows: dict[tuple[str, str], dict] = {}
    for row in result.rows:
        name = row.metric if row.score.unit != BITS else row.metric.replace("bits", "bits a spike")
        of = rows.setdefault((row.of["variant"], row.of["model"]), {})
        of[name] = f"{row.score.value:.3f} [{row.score.ci_low:.3f}, {row.score.ci_high:.3f}]"
        if row.best is not None and row.metric in SHOWN:
            of["best possible"] = f"{row.best.value:.3f}"
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    return table.rename_axis(["task", "model"])


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
    text += f"It is better than the best linear model at {in_markdown(', '.join(wins)) or 'nothing'}"
    if others:
        text += f"; at {in_markdown(', '.join(others))} a linear model does as well or better"
    drift = {m: next(r.score.value for r in result.rows if r.metric == m and r.of["model"] == "PSTH")
             for m in ("bits over the train mean", "bits over the test mean")}  # fmt: skip
    apart = drift["bits over the train mean"] - drift["bits over the test mean"]
    return f"{text}. Rates drift from train to test by {apart:.3f} bits a spike."
