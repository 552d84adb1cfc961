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
from nblib.models.multimodal import fitting
from nblib.models.settings import pick_device
from nblib.prepare.sessions import with_roles

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session

ALONE, SHARED, SCRATCH = "linear, alone", "linear, through shared factors", "network, alone"
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
            f"budgets: {n} trials, but {session.name!r} has {len(there)} train trials."
        )
    taken = np.sort(np.random.default_rng([seed, 0, n]).permutation(there)[:n])
    role = np.where(session.role == "test", "test", "gap").astype("U5")
    role[taken] = "train"
    role[taken[CHOOSE // 2 :: CHOOSE]] = "val"
    return with_roles(session, role)


def branches_of(few: Session, taught: Multimodal, params: judge.Params) -> dict[str, tuple[fitting.Branch, bool]]:  # fmt: skip
    """What each model, fitted to the few trials of a session, answers to each task, and whether it is a network."""
    device = pick_device(params.fit_settings)[0].type  # said once, by the first fit
    settings, by_model = replace(params.fit_settings, device=device), {}
    for linear, factors in ((ALONE, None), (SHARED, taught.factors)):
        branch = fitting.fit_branch([few], params.causal, factors)
        by_model[linear] = branch, False
        for how in ("",) if factors is None else TUNED:
            tuned = {"taught": taught, "how": how} if how else {}
            model, _ = fitting.fit([few], branch, settings, params.shape, params.chances, **tuned)
            own = replace(branch, answers={task: dict(by) for task, by in branch.answers.items()})
            answers.of_network(model, [few], own)
            by_model[TUNED.get(how, SCRATCH)] = own, True
    return by_model


def curve(new: list[Session], taught: Multimodal, recipe: Recipe, params: judge.Params) -> pd.DataFrame:  # fmt: skip
    """Scores of each model for each further session, number of trials and task: session, trials, model, task,
    metric and the score's fields; best, the best possible, and share, of the way there from chance, where it
    is known; gain, gain_low, gain_high over the linear model of these trials alone (see `judge.difference`).
    """
    rows = []
    for one, n in product(new, params.budgets):
        few = with_few(one, n, params.seed)
        limits = answers.ceilings([few], recipe)
        by_model = branches_of(few, taught, params)
        alone = by_model[ALONE][0]
        for model, (branch, network) in by_model.items():
            for task, by in branch.answers.items():
                metric = judge.USUAL[task.kind]
                answer = by[answers.NETWORK if network else branch.chosen[task]]
                score, best = judge.scores(task, answer, [few], params, (metric,))[metric], np.nan
                if task.name in limits:
                    best = judge.scores(task, limits[task.name], [few], params, (metric,))[metric].value  # fmt: skip
                gain = judge.difference(task, answer, alone.answers[task][alone.chosen[task]], [few], params)[1:]  # fmt: skip
                rows.append({
                    "session": one.name, "trials": n, "model": model, "task": task.name, "metric": metric,
                    **score.fields(), "best": best, "share": (score.value - score.chance) / (best - score.chance),
                    **dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True)),
                })  # fmt: skip
    return pd.DataFrame(rows)


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """How far each model comes by the number of trials, mean over tasks; a row a model and number: value,
    with its interval over sessions where there are several, n of them."""
    whole = table.groupby(["model", "trials", "session"], sort=False)["share"].mean()
    rows = []
    for (model, trials), part in whole.groupby(["model", "trials"], sort=False):
        low, high = stats.t_interval(part.to_numpy(), -np.inf, np.inf) if len(part) > 1 else (np.nan, np.nan)  # fmt: skip
        rows.append((model, trials, part.mean(), low, high, len(part)))
    return pd.DataFrame(rows, columns=["model", "trials", "value", "ci_low", "ci_high", "n"])


def in_words(table: pd.DataFrame) -> str:
    """What pretraining is worth at the fewest trials; "" where no session is new or the best is not known."""
    if table.empty or (table := table.dropna(subset="share")).empty:
        return ""
    by = shares(table).set_index(["model", "trials"])["value"]
    n = table["trials"].min()
    said = ", ".join(f"{model} {by[model, n]:.2f}" for model in table["model"].unique())
    return (
        f" A further session of which {n} trials are known is told this far from chance to the best possible, "
        f"mean over {', '.join(table['task'].unique())}: {said}."
    )
