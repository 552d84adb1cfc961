"""What stands beside the scores of 12: the gain of a random split, bands and what they hold, latency, areas of units."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.evaluate.scores import decoding_scores
from nblib.experiments.multimodal import judge
from nblib.experiments.multimodal.answers import NETWORK
from nblib.models.multimodal import fitting
from nblib.models.multimodal.tasks import decoding, encoding
from nblib.prepare.sessions import with_roles

if TYPE_CHECKING:
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session

LEVEL = 0.9  # that bands are asked to hold
FEWEST = 5  # units of an area, one for each fold


def inflation(sessions: list[Session], branch: fitting.Branch, params: judge.Params) -> pd.DataFrame:  # fmt: skip
    """What the linear model of each task would score if the same trials were split at random: task, model,
    metric, score, at_random, inflation. Nothing is chosen anew."""
    rng, mixed, rows = np.random.default_rng([params.seed, 7]), [], []
    for one in sessions:
        role = one.role.copy()
        role[role != "gap"] = rng.permutation(role[role != "gap"])
        mixed.append(with_roles(one, role))
    fits, choose = ([one.rows(role) for one in mixed] for role in ("train", "val"))
    fit = fitting.candidates(mixed, params.causal, None)
    maps = {name: fit[name](fits, choose) for name in sorted(set(branch.chosen.values()))}
    for task in (*decoding(sessions[0]), encoding(sessions[0])[0]):
        name, metric = branch.chosen[task], judge.USUAL[task.kind]
        said = [of[task.name](one) for of, one in zip(maps[name], mixed, strict=True)]
        pairs = ((branch.answers[task][name], sessions), (said, mixed))
        values = [judge.scores(task, *pair, params, (metric,))[metric].value for pair in pairs]
        rows.append((task.name, name, metric, *values, values[1] - values[0]))
    columns = ["task", "model", "metric", "score", "at_random", "inflation"]
    return pd.DataFrame(rows, columns=columns)


def bands(branch: fitting.Branch, sessions: list[Session]) -> pd.DataFrame:
    """Bands about each decoded signal, as wide as the errors in other trials say (split conformal), and what
    they hold in test trials: task, model, of ("bins" or "trials"), half_width [standard deviations of the
    signal], asked, held.

    The network's errors are those in validation trials. Linear models answered train trials without having
    seen them, so theirs are of both. Source: Lei et al. 2018, J. Am. Stat. Assoc. 113:1094.
    """
    rows = []
    for task in (task for task in branch.answers if task.kind == "signal"):
        for model, roles in ((branch.chosen[task], ("train", "val")), (NETWORK, ("val",))):
            for unit in ("bins", "trials"):
                held, widths = [], []
                for session, answer in zip(sessions, branch.answers[task][model], strict=True):
                    error = np.abs(task.truth(session) - answer)  # (K, T)
                    error = error.max(axis=1) if unit == "trials" else error
                    known = np.sort(error[np.isin(session.role, roles)], axis=None)
                    rank = int(np.ceil(LEVEL * (len(known) + 1)))  # beyond the last: no finite band
                    widths.append(known[rank - 1] if rank <= len(known) else np.inf)
                    held.append(error[session.rows("test")].ravel() <= widths[-1])
                rows.append((task.name, model, unit, np.mean(widths), LEVEL, np.concatenate(held).mean()))  # fmt: skip
    columns = ["task", "model", "of", "half_width", "asked", "held"]
    return pd.DataFrame(rows, columns=columns)


def latency(model: Multimodal, session: Session, n: int = 200) -> dict[str, float]:
    """How long it takes to decode a trial once more when a bin has come, of `n` calls: p50 and p99 [ms]."""
    took = []
    for row in np.resize(session.rows("test"), n + 1):
        start = time.perf_counter()
        model.decode(session.counts[[row]], session=session.name)
        took.append(1e3 * (time.perf_counter() - start))
    return dict(zip(("p50_ms", "p99_ms"), np.percentile(took[1:], (50, 99)).tolist(), strict=True))


def areas_of_units(model: Multimodal, params: judge.Params) -> pd.DataFrame:
    """How well the area of a unit is told from its weights out of the network, units of all sessions together:
    metric, then the score's fields. Logistic regression in five folds; empty with fewer than two areas."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate([layer.weight.detach().numpy() for layer in model.net.units_out])
    area = np.concatenate([one.area for one in model.sessions])
    names, n = np.unique(area, return_counts=True)
    kept = np.isin(area, names[(n >= FEWEST) & (names != "")])
    known, y = np.unique(area[kept], return_inverse=True)
    if len(known) < 2:
        return pd.DataFrame()
    folds = StratifiedKFold(FEWEST, shuffle=True, random_state=params.seed)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    log = cross_val_predict(classifier, x[kept], y, cv=folds, method="predict_log_proba")
    draws = params.model_dump(include={"n_permutations", "n_bootstrap", "seed"})
    scores = decoding_scores(y, log, **draws)
    return pd.DataFrame([{"metric": name} | scores[name].fields() for name in ("accuracy", judge.BALANCED)])  # fmt: skip
