"""A further session with few trials: through what others taught, and from its own trials alone (12)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.core.errors import BadParameter
from nblib.evaluate import stats
from nblib.experiments.multimodal import answers, judge
from nblib.models import pick_device
from nblib.models.multimodal import fitting
from nblib.models.multimodal.branch import fit_branch
from nblib.models.multimodal.tasks import NETWORK
from nblib.prepare.sessions import with_roles

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.branch import TrialAnswers
    from nblib.models.multimodal.model import Multimodal
    from nblib.models.multimodal.tasks import Task
    from nblib.prepare.sessions import Session

ALONE, SHARED, SCRATCH = "linear, alone", "linear, with the others", "network, alone"
TUNED = {"stitch": "network, its layers fitted", "full": "network, fine-tuned"}
CHOOSE = 5  # every fifth of the few trials chooses


def with_few(session: Session, n: int, seed: int) -> Session:
    """A session as if n of its train trials were all that there is to learn from: every fifth of them
    chooses, all else but test trials is left out, and they alone say how to scale.

    Raises BadParameter where it has fewer.
    """
    there = session.rows("train")
    if n > len(there):
        raise BadParameter(
            f"budgets: {n} trials, but {session.name!r} has {len(there)} train trials; ask for no more."
        )
    taken = np.sort(np.random.default_rng([seed, 0, n]).permutation(there)[:n])
    role = np.where(session.role == "test", "test", "gap").astype("U5")
    role[taken] = "train"
    role[taken[CHOOSE // 2 :: CHOOSE]] = "val"
    return with_roles(session, role)


def answers_of(
    few: Session, taught: Multimodal, params: judge.Params
) -> dict[str, dict[Task, tuple[TrialAnswers, float]]]:
    """What each model, fitted to the few trials of a session, answers to each task, and the weight of the
    network in it: 0 where too few of the trials can choose it, NaN without one."""
    device = pick_device(params.fit_settings)[0].type  # said once, by the first fit
    settings, by_model = replace(params.fit_settings, device=device), {}
    for linear, factors in ((ALONE, None), (SHARED, taught.factors)):
        branch = fit_branch([few], params.causal, factors)
        by_model[linear] = {
            task: (by[branch.chosen[task]], np.nan) for task, by in branch.answers.items()
        }
        for tuning in ("",) if factors is None else TUNED:
            tuned = {"taught": taught, "how": tuning} if tuning else {}
            model, _ = fitting.fit([few], branch, settings, params.shape, params.mix, **tuned)
            trust = answers.of_network(model, [few], branch).trust
            network = {task: (by[NETWORK], trust[task.name]) for task, by in branch.answers.items()}
            by_model[TUNED.get(tuning, SCRATCH)] = network
    return by_model


def curve(
    new: list[Session], taught: Multimodal, recipe: Recipe, params: judge.Params
) -> pd.DataFrame:
    """Scores of each model for each further session, number of trials and task: session, trials, model, weight
    of the network in its answer, task, metric and the score's fields; best, the best possible, and share, of the way there from chance, where it
    is known; gain, gain_low, gain_high over the linear model of these trials alone (see `judge.difference`).
    """
    rows = []
    for one, n in product(new, params.budgets):
        few = with_few(one, n, params.seed)
        limits = answers.ceilings([few], recipe)
        by_model = answers_of(few, taught, params)
        for model, by_task in by_model.items():
            for task, (answer, weight) in by_task.items():
                metric, best = judge.USUAL[task.kind], np.nan
                score = judge.scores(task, answer, [few], params, (metric,))[metric]
                if (limit := limits.get(task.name)) is not None:
                    best = judge.scores(task, limit, [few], params, (metric,))[metric].value
                gain = judge.difference(task, answer, by_model[ALONE][task][0], [few], params)[1:]
                about = {"session": one.name, "trials": n, "model": model, "weight": weight}
                share = (score.value - score.chance) / (best - score.chance)
                beside = {"metric": metric, "best": best, "share": share}
                beside |= zip(("gain", "gain_low", "gain_high"), gain, strict=True)
                rows.append(about | {"task": task.name} | score.fields() | beside)
    return pd.DataFrame(rows)


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """How far each model comes by the number of trials, mean over tasks; a row a model and number: value,
    with its interval over sessions where there are several, n of them."""
    whole = table.groupby(["model", "trials", "session"], sort=False)["share"].mean()
    rows = []
    for (model, trials), part in whole.groupby(["model", "trials"], sort=False):
        low, high = (
            stats.t_interval(part.to_numpy(), -np.inf, np.inf)
            if len(part) > 1
            else (np.nan, np.nan)
        )
        rows.append((model, trials, part.mean(), low, high, len(part)))
    return pd.DataFrame(rows, columns=["model", "trials", "value", "ci_low", "ci_high", "n"])


def told_apart(table: pd.DataFrame) -> pd.DataFrame:
    """Without networks of weight 0 at every task: they say what linear models say."""
    by = [table["model"], table["trials"]]
    return table[(table["weight"] != 0).groupby(by).transform("any")]


def in_words(table: pd.DataFrame) -> str:
    """What pretraining is worth at the fewest trials; "" where no session is new or the best is not known."""
    if table.empty or (table := table.dropna(subset="share")).empty:
        return ""
    n = table["trials"].min()
    by = shares(told_apart(table[table["trials"] == n])).set_index("model")["value"]
    said = ", ".join(f"{model} {value:.2f}" for model, value in by.items())
    if len(by) < table["model"].nunique():
        said += "; the others are networks, which so few trials cannot choose"
    return (
        f" A further session of which {n} trials are known is told this far from chance to the best possible, "
        f"mean over {', '.join(table['task'].unique())}: {said}."
    )
