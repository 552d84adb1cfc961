"""What the network and the best possible decoder answer to the tasks of several sessions (12)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nblib.data import opening, sources
from nblib.models.multimodal import linear, masks
from nblib.models.multimodal.tasks import AREAS, BEHAVIOUR, UNITS, Task, of_area

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.fitting import Branch, TrialAnswers
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session

NETWORK = "masked network"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the network against the linear models


def of_network(model: Multimodal, sessions: list[Session], branch: Branch) -> Multimodal:
    """Put the network's answers to every task beside those of the branch, each trusted as validation chooses.

    Returns the model with what it is trusted.
    """
    decoded, trust = [model.network(k, one, masks.hide(one))[1:] for k, one in enumerate(sessions)], {}  # fmt: skip
    for task, by in branch.answers.items():
        by[NETWORK] = [
            model.counts(k, one, task) if task.of_counts else task.pick(*decoded[k], one)
            for k, one in enumerate(sessions)
        ]
        trust[task.name] = trusted(task, by, branch.chosen[task], sessions)
    if AREAS in trust:
        trust |= {of_area(area): trust[AREAS] for one in sessions for area in one.area}
    return replace(model, trust=trust)


def trusted(task: Task, by: dict[str, TrialAnswers], against: str, sessions: list[Session]) -> float:  # fmt: skip
    """Shrink the network's answers to those of `against`, by the weight that validation trials choose; that weight."""
    tried, losses = {}, {}
    for weight in WEIGHTS:
        pairs = zip(by[against], by[NETWORK], strict=True)
        tried[weight] = [task.mixed(*pair, weight) for pair in pairs]
        losses[weight] = sum(map(task.loss, sessions, tried[weight]))
    chosen = min(losses, key=losses.__getitem__)
    by[NETWORK] = tried[chosen]
    return chosen


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
    if posterior and (recipe.intervals, recipe.binning) == ("natural_scenes_presentations", "per_presentation"):  # fmt: skip
        recording = opening.open_recording(recipe, session.name)
        truth = sources.offered(recipe.source, "truth_path")(recording.path)
        for name in {"frame"} & set(session.classes):
            best[name], _ = posterior(truth, recording, session.trial[test], session.unit_ids, classes=session.classes[name])  # fmt: skip
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
