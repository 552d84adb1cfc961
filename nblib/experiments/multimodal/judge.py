"""Scores of several sessions that are decoded, encoded and imputed (12): R2, bits a spike, accuracy, differences."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.special import log_softmax

from nblib.core import params as P
from nblib.core.errors import BadParameter
from nblib.evaluate import ratios, stats
from nblib.evaluate.scores import Score, decoding_scores
from nblib.models import FitSettings
from nblib.models.multimodal import masks, poisson
from nblib.models.multimodal.tasks import NETWORK
from nblib.road.stage_registry import CohortParams

if TYPE_CHECKING:
    from nblib.evaluate.result import Result
    from nblib.models.multimodal.branch import Branch, TrialAnswers
    from nblib.models.multimodal.tasks import Task
    from nblib.prepare.sessions import Session

BALANCED, BEYOND_COURSE, BEYOND_PSTH = (
    "balanced_accuracy",
    "R2 beyond the mean course",
    "bits beyond the PSTH",
)
SHOWN = (BEYOND_COURSE, BALANCED, BEYOND_PSTH)  # one of each task
PER_UNIT, D2, FAST_HZ = "bits of units above 5 Hz", "Poisson D2 of units that fired", 5.0
OVER_TEST, OVER_TRAIN = "bits over the test mean", "bits over the train mean"
# By kind of task, the score as most others state it.
USUAL = {"signal": "R2", "variable": BALANCED, "encode": OVER_TEST, "impute": OVER_TEST}
MAX_EPOCHS = 30


class Params(P.Judge, P.Fit, CohortParams):
    """Parameters of 12: the network, what it is taught, and how it is judged."""

    recipe: str = Field("task_demo", description="recipe in params/recipes, or a path to one")
    width: int = Field(64, ge=8, le=1024, description="numbers in a token [count]")
    trunk: Literal["gru", "transformer"] = Field("gru", description="how bins learn of each other")
    layers: int = Field(2, ge=1, le=48, description="layers of the trunk [count]")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.3, description="dropout in the layers")
    causal: bool = Field(False, description="every bin is told from itself and earlier ones alone")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field("32", description="arithmetic")
    compiled: bool = Field(False, description="compile the network, for long trainings on a GPU")
    processes: int = Field(1, ge=1, le=64, description="on GPUs only from a script [count]")
    new: list[str] = Field([], description="recordings kept out, then learnt from few trials")
    budgets: list[Annotated[int, Field(ge=10)]] = Field(
        [10, 25, 60], min_length=1, description="trials of a new recording to learn from [count]"
    )
    by_area: bool = Field(False, description="also what each area's units say of each other's")
    schemes: dict[str, float] = Field({}, description="hidden: scheme -> how often; empty = a mix")
    most_hidden: float = Field(
        masks.MOST_HIDDEN, gt=0, le=1, description="largest share of bins, entries or units hidden"
    )
    learning_rate: float = Field(4e-3, gt=0, description="of AdamW; it falls to 0")
    weight_decay: float = Field(0.05, ge=0, description="of AdamW")
    batch_size: int = Field(32, ge=1, description="trials of one session in a step [count]")
    n_permutations: int = Field(500, ge=100, le=100_000, description="answers moved [count]")
    n_bootstrap: int = Field(500, ge=100, le=100_000, description="bootstrap draws [count]")

    def check(self) -> None:
        """BadParameter for a scheme that is not there or hides less than never, a width that its heads do not
        divide, and a GRU that shall be compiled."""
        if unknown := sorted(set(self.schemes) - set(masks.SCHEMES)):
            raise BadParameter(f"schemes: no {unknown[0]!r}; there are {', '.join(masks.SCHEMES)}.")
        often = self.schemes.values()
        if self.schemes and (min(often) < 0 or max(often) == 0):
            raise BadParameter(
                f"schemes = {self.schemes}: how often each hides must be 0 or more, and one above 0."
            )
        if self.width % self.heads:
            raise BadParameter(f"width = {self.width}: must be a multiple of heads = {self.heads}.")
        if self.compiled and self.trunk == "gru":
            raise BadParameter(
                "compiled = True: a GRU cannot be; take trunk = 'transformer', or leave it out."
            )

    @property
    def heads(self) -> int:
        """Heads of each layer."""
        return 8 if self.width >= 256 else 4

    @property
    def shape(self) -> dict[str, Any]:
        """What the network is made with."""
        shape = self.model_dump(include={"width", "layers", "dropout", "causal", "trunk"})
        return shape | {"heads": self.heads}

    @property
    def mix(self) -> masks.Mix:
        """What is hidden in training."""
        return masks.Mix(self.schemes or masks.CHANCES, self.most_hidden)

    @property
    def fit_settings(self) -> FitSettings:
        """How the network is trained."""
        return FitSettings.of(self, {"max_epochs": MAX_EPOCHS}, progress=False, anneal=True)


def bases(task: Task, session: Session) -> dict[str, np.ndarray]:
    """By metric, what answers are held against: a constant or course of a signal, rates of units."""
    truth, known, test = task.truth(session), session.known, session.rows("test")
    if task.kind == "signal":
        return {"R2": truth[test].mean(), BEYOND_COURSE: truth[known].mean(axis=0)}
    psth = poisson.psth(session, known)[:, np.concatenate(task.groups(session))]
    means = (truth[rows].mean(axis=(0, 1)) for rows in (known, test))
    return dict(zip((OVER_TRAIN, OVER_TEST, BEYOND_PSTH), (*means, psth), strict=True))


def earned(
    task: Task, answers: TrialAnswers, sessions: list[Session], metrics: Collection[str] = ()
) -> dict[str, list[ratios.Earned]]:
    """What answers to test trials earn in each session, by metric: R2, bits a spike; of some `metrics` or all."""
    parts: dict[str, list[ratios.Earned]] = {}
    earn = ratios.of_signal if task.kind == "signal" else ratios.of_counts
    for one, answer in zip(sessions, answers, strict=True):
        test, truth = one.rows("test"), task.truth(one)
        for metric, base in bases(task, one).items():
            if not metrics or metric in metrics:
                parts.setdefault(metric, []).append(earn(truth[test], answer[test], base))
    return parts


def labels_of_test(
    task: Task, answers: TrialAnswers, sessions: list[Session]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the test trials of all sessions: class (B,), log-probabilities (B, C), block of trials (B,) and
    session (B,)."""
    y, log, block, session, n_blocks = [], [], [], [], 0
    for k, (one, answer) in enumerate(zip(sessions, answers, strict=True)):
        test = one.rows("test")
        y.append(task.truth(one)[test])
        log.append(log_softmax(answer[test], axis=1))
        block.append(n_blocks + np.arange(len(test)) // ratios.BLOCK)
        session.append(np.full(len(test), k))
        n_blocks = block[-1][-1] + 1
    return tuple(map(np.concatenate, (y, log, block, session)))


def scores(
    task: Task,
    answers: TrialAnswers,
    sessions: list[Session],
    params: Params,
    metrics: Collection[str] = (),
) -> dict[str, Score]:
    """Scores of the answers to one task, over the test trials of all sessions together, by metric."""
    draws = params.model_dump(include={"n_permutations", "n_bootstrap", "seed"})
    if task.kind == "variable":
        y, log, block, session = labels_of_test(task, answers, sessions)
        return {BALANCED: decoding_scores(y, log, group=block, apart=session, **draws)[BALANCED]}
    unit = ratios.R2 if task.kind == "signal" else ratios.BITS
    parts = earned(task, answers, sessions, metrics)
    return {metric: ratios.score(part, unit, **draws) for metric, part in parts.items()}


def difference(
    task: Task, a: TrialAnswers, b: TrialAnswers, sessions: list[Session], params: Params
) -> tuple[str, float, float, float]:
    """How much better answers a are than b, paired over blocks of trials: metric, difference, ci_low, ci_high."""
    if task.kind == "variable":
        (y, first, group, _), (_, second, _, _) = (
            labels_of_test(task, by, sessions) for by in (a, b)
        )
        right = ((log.argmax(axis=1) == y).astype(float) for log in (first, second))
        d = stats.paired_difference(*right, group=group, seed=params.seed)
        return "accuracy", d.value, d.ci_low, d.ci_high
    metric = BEYOND_COURSE if task.kind == "signal" else BEYOND_PSTH
    parts = (earned(task, by, sessions, (metric,))[metric] for by in (a, b))
    return metric, *ratios.difference(*parts, n_bootstrap=params.n_bootstrap, seed=params.seed)


def against_linear(
    branch: Branch, weights: dict[str, float], sessions: list[Session], params: Params
) -> pd.DataFrame:
    """How much better the network is than the linear model that was chosen (see `difference`).

    One row a task: task, linear, metric, difference, ci_low, ci_high, weight (see `answers.trusted`).
    """
    rows = []
    for task, by in branch.answers.items():
        name = branch.chosen[task]
        gain = difference(task, by[NETWORK], by[name], sessions, params)
        rows.append((task.name, name, *gain, weights[task.name]))
    columns = ["task", "linear", "metric", "difference", "ci_low", "ci_high", "weight"]
    return pd.DataFrame(rows, columns=columns)


def passport(task: Task, by: dict[str, TrialAnswers], sessions: list[Session]) -> pd.DataFrame:
    """One set of expected counts by every variant of the score, a row a model: bits a spike pooled over units,
    by base; their mean over units above 5 Hz, over the test mean; Poisson D2, mean over units that fired."""
    rows = []
    for model, answers in by.items():
        pooled = earned(task, answers, sessions)
        parts: dict[str, list] = {PER_UNIT: [], D2: []}
        for one, answer in zip(sessions, answers, strict=True):
            test, rate = one.counts[one.rows("test")], answer[one.rows("test")]
            fast = one.counts[one.known].mean(axis=(0, 1)) / one.bin_s > FAST_HZ
            bits = ratios.per_unit(test, rate, test.mean(axis=(0, 1)))
            parts[PER_UNIT].append(bits[fast])
            parts[D2].append(ratios.deviance_explained(test, rate))
        means = {name: pd.Series(np.concatenate(part)).mean() for name, part in parts.items()}
        values = {metric: ratios.value(part) for metric, part in pooled.items()}
        rows.append({"model": model} | values | means)
    return pd.DataFrame(rows)


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
