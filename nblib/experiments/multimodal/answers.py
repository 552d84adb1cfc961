"""What the network and the best possible decoder answer to the tasks of several sessions (12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nblib.data import sources
from nblib.models.multimodal import linear
from nblib.models.multimodal.branch import FOLDS, at_rest
from nblib.models.multimodal.tasks import (
    BEHAVIOUR,
    GIVEN,
    IMPUTING,
    NETWORK,
    UNITS,
    Task,
    by_folds,
    encoding,
)

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.branch import Branch, TrialAnswers
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session

WEIGHTS = (0.0, 0.5)  # of the network beside the linear models; with few trials to choose, no finer
FEWEST = 20  # validation trials that choose; where there are fewer, linear models answer alone
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)  # of what behaviour says, where other units tell too


def of_network(model: Multimodal, sessions: list[Session], branch: Branch) -> Multimodal:
    """Put the network's answers to every task beside those of the branch, each trusted as validation chooses.

    Returns the model with what it is trusted.
    """
    trust, parts = {}, []
    of_train = [at_rest(one, one.rows("train")) for one in sessions]
    for k, one in enumerate(sessions):
        for fold in np.array_split(one.known, FOLDS):
            val = np.intersect1d(fold, one.rows("val"))
            if len(val):
                parts.append((k, val, one.at(val), at_rest(one, np.setdiff1d(one.known, fold))))

    def unseen(task: Task, k: int, of_fold: dict[str, np.ndarray]) -> Multimodal:
        """The network where what is said at rest has seen no more than the linear models that are compared:
        all but a fold of known trials, or train trials alone."""
        rest = of_fold if task in folded else of_train[k]
        return replace(model, rest=[rest] * len(sessions))

    folded = by_folds(sessions[0])
    for task, by in branch.answers.items():
        linear, judged = by[branch.chosen[task]], []
        for k, val, part, rest in parts:
            network = unseen(task, k, rest).answer(k, part, task)
            judged.append((part, linear[k][val], network))
        trust[task.name] = trusted(task, judged)
        network = [model.answer(k, one, task) for k, one in enumerate(sessions)]
        pairs = zip(linear, network, strict=True)
        by[NETWORK] = [task.mixed(*pair, trust[task.name]) for pair in pairs]
    spikes = encoding(sessions[0])[0]
    for task in (task for task in IMPUTING if task in branch.answers):
        linear, judged = branch.answers[task][branch.chosen[task]], []
        for k, val, part, rest in parts:
            given = replace(task, shown=tuple(part.behaviour))
            network = unseen(task, k, rest).answer(k, part, given)
            told = task.mixed(linear[k][val], network, trust[task.name])
            beyond = branch.answers[spikes][branch.chosen[spikes]][k][val] / rest[BEHAVIOUR]
            judged.append((part, told, told * beyond[..., np.concatenate(task.groups(part))]))
        trust[task.name + GIVEN] = trusted(task, judged, SHARES)
    return replace(model, trust=trust)


def trusted(
    task: Task,
    judged: list[tuple[Session, np.ndarray, np.ndarray]],
    weights: Sequence[float] = WEIGHTS,
) -> float:
    """The weight of the network's answers against linear ones, of `weights`, that validation trials choose.

    judged: of each session these trials, and what linear models and the network answer to them.
    """
    if sum(len(part.role) for part, *_ in judged) < FEWEST:
        return 0.0
    losses = {}
    for weight in weights:
        answers = (task.mixed(linear, network, weight) for _, linear, network in judged)
        losses[weight] = sum(map(task.loss, (part for part, *_ in judged), answers))
    return min(losses, key=losses.__getitem__)


def ceilings(sessions: list[Session], recipe: Recipe) -> dict[str, TrialAnswers]:
    """The best possible answers by task, where the truth is known; of test trials, other trials are left at 0."""
    best: dict[str, TrialAnswers] = {}
    for one in sessions:
        test = one.rows("test")
        for task, answer in ideal_answers(one, recipe).items():
            whole = np.zeros((len(one.role), *answer.shape[1:]))
            whole[test] = answer
            best.setdefault(task, []).append(whole)
    return best


def ideal_answers(session: Session, recipe: Recipe) -> dict[str, np.ndarray]:
    """The best possible answers to test trials, by task, as a simulated source knows them."""
    test, best = session.rows("test"), {}
    observer = sources.offered(recipe.source, "ideal_observer")
    scenes = ("natural_scenes_presentations", "per_presentation", ("frame",))
    if observer and (recipe.intervals, recipe.binning, tuple(session.classes)) == scenes:
        shown = session.name, session.trial[test], session.unit_ids
        best["frame"], _ = observer(recipe, *shown, classes=session.classes["frame"])
    oracle = sources.offered(recipe.source, "ceiling")
    known = oracle and oracle(recipe, session.name, session.unit_ids)
    if not known:
        return best
    best = known.decode(session.counts[test])
    for s, name in enumerate(session.signal_names):
        if name in best:
            best[name] = (best[name] - session.mean[s]) / session.scale[s]
    for name in set(session.classes) & set(best):
        best[name] = linear.log_shares(best[name])
    best[BEHAVIOUR] = known.encode(session.trial[test])
    best[UNITS] = known.impute(session.counts[test], *Task(UNITS, "impute").groups(session))
    return best
