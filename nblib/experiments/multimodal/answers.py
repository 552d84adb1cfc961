"""What the network and the best possible decoder answer to the tasks of several sessions (12)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nblib.data import opening, sources
from nblib.models.multimodal import linear
from nblib.models.multimodal.branch import at_rest
from nblib.models.multimodal.tasks import BEHAVIOUR, NETWORK, UNITS, Task

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.branch import Branch, TrialAnswers
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the network against the linear models


def of_network(model: Multimodal, sessions: list[Session], branch: Branch) -> Multimodal:
    """Put the network's answers to every task beside those of the branch, each trusted as validation chooses.

    Returns the model with what it is trusted.
    """
    trust, parts = {}, []
    for one in sessions:
        val = one.rows("val")
        parts.append((val, one.at(val), at_rest(one, one.rows("train"))))
    # What is said at rest has seen validation trials; linear models that are compared there have not.
    unseen = replace(model, rest=[rest for *_, rest in parts])
    for task, by in branch.answers.items():
        linear, judged, network = by[branch.chosen[task]], [], []
        for k, (val, part, _) in enumerate(parts):
            best = branch.best(k)
            network.append(model.answer(k, sessions[k], task, best))
            of_val = {name: answer[val] for name, answer in best.items()}
            judged.append((part, linear[k][val], unseen.answer(k, part, task, of_val)))
        trust[task.name] = trusted(task, judged)
        pairs = zip(linear, network, strict=True)
        by[NETWORK] = [task.mixed(*pair, trust[task.name]) for pair in pairs]
    return replace(model, trust=trust)


def trusted(task: Task, judged: list[tuple[Session, np.ndarray, np.ndarray]]) -> float:
    """The weight of the network's answers against linear ones that validation trials choose.

    judged: of each session these trials, and what linear models and the network answer to them.
    """
    losses = {}
    for weight in WEIGHTS:
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
    posterior = sources.offered(recipe.source, "oracle_log_posterior")
    scenes = ("natural_scenes_presentations", "per_presentation", ("frame",))
    if posterior and (recipe.intervals, recipe.binning, tuple(session.classes)) == scenes:
        recording = opening.open_recording(recipe, session.name)
        truth, known = sources.offered(recipe.source, "truth_path")(recording.path), session.classes
        shown = (truth, recording, session.trial[test], session.unit_ids)
        best["frame"], _ = posterior(*shown, classes=known["frame"])
    oracle = sources.offered(recipe.source, "ceiling")
    known = oracle and oracle(recipe, session.name, session.unit_ids)
    if not known:
        return best
    best = known.decode(session.counts[test])
    for s, name in enumerate(session.signal_names):
        if name in best:
            best[name] = (best[name] - session.mean[s]) / session.scale[s]
    for name in set(session.classes) & set(best):
        best[name] = np.log(np.maximum(best[name], linear.LEAST))
    best[BEHAVIOUR] = known.encode(session.trial[test])
    best[UNITS] = known.impute(session.counts[test], *Task(UNITS, "impute").groups(session))
    return best
