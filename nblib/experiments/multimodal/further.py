"""What stands beside the scores of 12: the gain of a random split, bands and what they hold, latency, areas of units."""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.evaluate.scores import decoding_scores
from nblib.experiments.multimodal import judge
from nblib.models.multimodal.branch import fit_branch
from nblib.models.multimodal.tasks import AREAS, NETWORK, OTHERS, Task
from nblib.prepare.sessions import with_roles

if TYPE_CHECKING:
    from nblib.models.multimodal.branch import Branch
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session

LEVEL = 0.9  # that bands are asked to hold


def inflation(sessions: list[Session], branch: Branch, params: judge.Params) -> pd.DataFrame:
    """What the linear model of each task would score if the same trials were split at random: task, model,
    metric, score, at_random, inflation. It is chosen anew."""
    rng, mixed, rows = np.random.default_rng([params.seed, 7]), [], []
    for one in sessions:
        role = one.role.copy()
        role[role != "gap"] = rng.permutation(role[role != "gap"])
        mixed.append(with_roles(one, role))
    again = fit_branch(mixed, params.causal)
    for task in again.chosen:
        name, metric = branch.chosen[task], judge.USUAL[task.kind]
        at_random = again.answers[task][again.chosen[task]]
        pairs = ((branch.answers[task][name], sessions), (at_random, mixed))
        values = [judge.scores(task, *pair, params, (metric,))[metric].value for pair in pairs]
        rows.append((task.name, name, metric, *values, values[1] - values[0]))
    columns = ["task", "model", "metric", "score", "at_random", "inflation"]
    return pd.DataFrame(rows, columns=columns)


def bands(branch: Branch, sessions: list[Session]) -> pd.DataFrame:
    """Bands about each decoded signal, as wide as the errors in other trials say (split conformal), and what
    they hold in test trials: task, model, of ("bins" or "trials"), half_width [standard deviations of the
    signal], asked, held.

    Errors are those of linear models, which answered train and validation trials without having seen them; about
    the network's answers stand bands of the same width. They are those of the half of these trials that is
    nearest in time to the test trials, as what is far away is another state of the animal. Source: Lei et al.
    2018, J. Am. Stat. Assoc. 113:1094.
    """
    rows = []
    for task in (task for task in branch.answers if task.kind == "signal"):
        by, chosen = branch.answers[task], branch.chosen[task]
        for model, unit in product((chosen, NETWORK), ("bins", "trials")):
            held, widths = [], []
            for k, session in enumerate(sessions):
                truth, test = task.truth(session), session.rows("test")
                away = np.abs(session.known - np.median(test))
                near = session.known[np.argsort(away, kind="stable")[: -(-away.size // 2)]]
                known = np.abs(truth[near] - by[chosen][k][near])  # (K, T)
                error = np.abs(truth[test] - by[model][k][test])
                if unit == "trials":
                    known, error = known.max(axis=1), error.max(axis=1)
                rank = int(np.ceil(LEVEL * (known.size + 1)))  # beyond the last: no finite band
                finite = rank <= known.size
                widths.append(np.sort(known, axis=None)[rank - 1] if finite else np.inf)
                held.append(error.ravel() <= widths[-1])
            row = task.name, model, unit, np.mean(widths), LEVEL, np.concatenate(held).mean()
            rows.append(row)
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
    """How well the area of a unit is told from its weights out of the network, by units of the other sessions:
    metric, then the score's fields. Logistic regression; of areas that several sessions have. Empty with fewer
    than two of them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    areas = [one.area for one in model.sessions]
    x = np.concatenate([layer.weight.detach().numpy() for layer in model.net.units_out])
    area, session = np.concatenate(areas), np.repeat(np.arange(len(areas)), list(map(len, areas)))
    names, n = np.unique(np.concatenate([np.unique(a) for a in areas]), return_counts=True)
    kept = np.isin(area, names[(n > 1) & (names != "")])
    known, y = np.unique(area[kept], return_inverse=True)
    if len(known) < 2:
        return pd.DataFrame()
    session = session[kept]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    others = {"groups": session, "cv": LeaveOneGroupOut(), "method": "predict_log_proba"}
    log = cross_val_predict(classifier, x[kept], y, **others)
    draws = params.model_dump(include={"n_permutations", "n_bootstrap", "seed"})
    # Units of a session share what was learnt of others: it takes other sessions to see how that varies.
    scores = decoding_scores(y, log, group=session, apart=session, **draws)
    shown = ("accuracy", judge.BALANCED)
    return pd.DataFrame([{"metric": name} | scores[name].fields() for name in shown])


def areas(
    model: Multimodal, sessions: list[Session], beside: str, params: judge.Params
) -> pd.DataFrame:
    """What the units of one area say of those of another: bits a spike beyond the PSTH of the units of each,
    told from the units of one area alone, or of all others, and from no behaviour, over the sessions that have
    both; a row a pair of areas and model."""
    names = sorted({area for one in sessions for area in one.area} - {""})
    metric, rows = judge.BEYOND_PSTH, []
    for pair in product(names, [*names, OTHERS]):
        task = Task(AREAS, "impute", areas=pair)
        units = [task.groups(one)[0] for one in sessions]
        both = [
            k
            for k, hidden in enumerate(units)
            if len(hidden) and len(task.seen(sessions[k], hidden))
        ]
        if not both:
            continue
        some = [sessions[k] for k in both]
        linear = [task.linear(model.maps[k], sessions[k]) for k in both]
        network = [model.answer(k, sessions[k], task) for k in both]
        mixed = [task.mixed(*two, model.trust[AREAS]) for two in zip(linear, network, strict=True)]
        for name, answer in ((beside, linear), (NETWORK, mixed)):
            score = judge.scores(task, answer, some, params, (metric,))[metric]
            about = {"told": pair[0], "from": pair[1], "model": name, "metric": metric}
            rows.append(about | score.fields() | {"n_units": sum(len(units[k]) for k in both)})
    return pd.DataFrame(rows)
