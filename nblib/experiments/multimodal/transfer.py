"""A further session with few trials: through what others taught, and from its own trials alone (12)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.core.errors import BadParameter
from nblib.evaluate import stats
from nblib.experiments.multimodal import judge, tasks
from nblib.models.multimodal import fitting
from nblib.models.settings import pick_device
from nblib.prepare.sessions import root_scaling, scaled

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.evaluate.result import Result
    from nblib.prepare.sessions import Session

ALONE, SHARED, SCRATCH = "linear, alone", "linear, through shared factors", "network, alone"
TUNED = {"stitch": "network, its layers fitted", "full": "network, fine-tuned"}
CHOOSE = 5  # every fifth of the few trials chooses
COLUMNS = ["session", "trials", "draw", "model", "task", "metric", "value", "ci_low", "ci_high", "chance", "p", "n", "best", "share"]  # fmt: skip


def with_few(session: Session, n: int, seed: list[int]) -> Session:
    """A session as if n of its train trials were all that there is to learn from: every fifth of them
    chooses, all else but test trials is left out, and they alone say how to scale.

    Raises BadParameter where it has fewer.
    """
    there = session.rows("train")
    if n > len(there):
        raise BadParameter(
            f"budgets: {n} trials, but {session.name!r} has {len(there)} train trials."
        )
    taken = np.sort(np.random.default_rng([*seed, n]).permutation(there)[:n])
    role = np.where(session.role == "test", "test", "gap").astype("U5")
    role[taken] = "train"
    role[taken[CHOOSE // 2 :: CHOOSE]] = "val"
    fit = np.flatnonzero(role == "train")
    roots = root_scaling(session.counts, fit)
    signals = session.signals * session.scale + session.mean
    mean, scale = signals[fit].mean(axis=(0, 1)), signals[fit].std(axis=(0, 1))
    scale = np.where(scale > 0, scale, 1.0)
    return replace(
        session, x=scaled(session.counts, roots), roots=roots, mean=mean, scale=scale, role=role,
        signals=((signals - mean) / scale).astype(np.float32),
    )  # fmt: skip


def answers_of(few: Session, taught: fitting.Multimodal, params: judge.Params) -> dict[str, dict[str, tasks.Answered]]:  # fmt: skip
    """What each model, fitted to the few trials of a session, answers to each task."""
    settings, chances = params.fit_settings, params.schemes or fitting.CHANCES
    settings = replace(
        settings, device=pick_device(settings)[0].type
    )  # said once, by the first fit
    said = {}
    for linear, factors in ((ALONE, None), (SHARED, taught.factors)):
        branch = fitting.fit_branch([few], params.causal, factors)
        for how in ("",) if factors is None else TUNED:
            model, _ = fitting.fit(
                [few], branch, settings, params.shape, chances, taught=taught if how else None, how=how
            )  # fmt: skip
            told = tasks.linear_answers([few], branch, branch.maps)
            said[linear] = {t: replace(a, by={linear: a.by[a.against]}) for t, a in told.items()}
            tasks.network_answers(model, [few], told)
            name = TUNED.get(how, SCRATCH)
            said[name] = {t: replace(a, by={name: a.by[tasks.NETWORK]}) for t, a in told.items()}
    return said


def curve(new: list[Session], taught: fitting.Multimodal, recipe: Recipe, params: judge.Params) -> pd.DataFrame:  # fmt: skip
    """Scores of each model for each further session, number of trials and draw of them: `COLUMNS`.

    share: of the way from chance to the best possible, where that is known.
    """
    rows = []
    for one in new:
        for n in params.budgets:
            for draw in range(params.n_draws):
                few = with_few(one, n, [params.seed, draw])
                limits = tasks.ceilings([few], recipe)
                for model, told in answers_of(few, taught, params).items():
                    for task, answered in told.items():
                        of = answered.kind, [few], answered.hidden, params
                        metric = {"signal": "R2", "counts": "bits over the test mean"}.get(
                            answered.kind, judge.BALANCED
                        )
                        score = judge.scores(task, of[0], answered.by[model], *of[1:])[metric]
                        best = np.nan
                        if task in limits:
                            best = judge.scores(task, of[0], limits[task], *of[1:])[metric].value
                        share = (score.value - score.chance) / (best - score.chance)
                        rows.append((
                            one.name, n, draw, model, task, metric, score.value, score.ci_low, score.ci_high,
                            score.chance, score.p, score.n, best, share,
                        ))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def extended(result: Result, sessions: list[Session], recipe: Recipe, params: judge.Params) -> Result:  # fmt: skip
    """A result of 12 with the table `transfer` (see `curve`), empty where no session is new."""
    new = [one for one in sessions if one.name in params.new]
    table = curve(new, result.files[0], recipe, params)
    return replace(result, tables=result.tables | {"transfer": table})


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """How far each model comes by the number of trials, mean over tasks; a row a model and number: value,
    with its interval over sessions and draws where there are several, n of them."""
    whole = table.groupby(["model", "trials", "session", "draw"], sort=False)["share"].mean()
    rows = []
    for (model, trials), part in whole.groupby(["model", "trials"], sort=False):
        low, high = stats.t_interval(part.to_numpy(), -np.inf, np.inf) if len(part) > 1 else (np.nan, np.nan)  # fmt: skip
        rows.append((model, trials, part.mean(), low, high, len(part)))
    return pd.DataFrame(rows, columns=["model", "trials", "value", "ci_low", "ci_high", "n"])


def in_words(table: pd.DataFrame) -> str:
    """What pretraining is worth at the fewest trials; "" where no session is new or the best is not known."""
    if table.empty or table["share"].isna().all():
        return ""
    by = shares(table).set_index(["model", "trials"])["value"]
    n = table["trials"].min()
    said = ", ".join(f"{model} {by[model, n]:.2f}" for model in table["model"].unique())
    return (
        f" A further session of which {n} trials are known is told this far from chance to the best possible, "
        f"mean over {', '.join(table['task'].unique())}: {said}."
    )
