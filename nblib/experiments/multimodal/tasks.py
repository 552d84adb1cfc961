"""What is asked of the models of several sessions (12), and what linear ones and the network answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from nblib.data import sources
from nblib.models.multimodal import fitting, linear, masks, poisson
from nblib.models.multimodal.model import (
    BEHAVIOUR,
    UNITS,
    Multimodal,
    fifth,
    from_one,
    mixed,
    of_area,
)

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.fitting import TrialAnswers
    from nblib.models.multimodal.model import Map
    from nblib.prepare.sessions import Session

NETWORK, GLM, NOTHING, PSTH = "masked network", "Poisson GLM", "mean course", "PSTH"
AREAS = "units of each area"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the network against the linear models


@dataclass
class Answered:
    """What each model answered to one task: model -> for each session, answers for all of its trials.

    kind: "signal" (K, T), "variable" log-probabilities (K, C), or "counts" expected (K, T, n). hidden: of
    counts, the units asked for in each session. against: the linear model that validation prefers.
    """

    kind: str
    by: dict[str, TrialAnswers] = field(default_factory=dict)
    hidden: list[np.ndarray] = field(default_factory=list)
    against: str = ""


def hide_behaviour(session: Session, units: np.ndarray | slice = slice(0)) -> masks.Hidden:
    """Hide all behaviour, and some units."""
    hidden = masks.nothing(session)
    hidden.behaviour()
    hidden.spikes[:, units] = True
    return hidden


def hide_spikes(session: Session, shown: str = "") -> masks.Hidden:
    """Hide spikes, and all behaviour but one signal or variable; "" = show all behaviour."""
    hidden = masks.nothing(session)
    hidden.spikes[:] = True
    if shown:
        hidden.signals[:, [s != shown for s in session.signal_names]] = True
        hidden.variables[[v != shown for v in session.classes]] = True
    return hidden


def areas_of(session: Session) -> dict[str, np.ndarray]:
    """Positions of the units of each area."""
    return {area: np.flatnonzero(session.area == area) for area in np.unique(session.area)}


def linear_models(sessions: list[Session], branch: fitting.Branch, causal: bool = False) -> list[dict[str, Map]]:  # fmt: skip
    """The linear model of every task in each session: those of the branch, and Poisson regressions."""
    names, maps = (*sessions[0].signal_names, *sessions[0].classes), []
    for k, one in enumerate(sessions):
        fit, choose, more = one.rows("train"), one.rows("val"), {}
        for name in names if len(names) > 1 else ():
            more[from_one(name)] = poisson.encode(one, fit, choose, (name,), causal)
        for task, units in ({UNITS: fifth(one)} | {of_area(a): at for a, at in areas_of(one).items()}).items():  # fmt: skip
            more[task] = poisson.impute(one, fit, choose, units, causal)
        maps.append(branch.maps[k] | more)
    return maps


def by_area(sessions: list[Session], answer: Callable[[int, str, np.ndarray], np.ndarray]) -> TrialAnswers:  # fmt: skip
    """Answers for all units, area by area: answer(session, area, its units) -> (K, T, units)."""
    whole = [np.empty(one.counts.shape) for one in sessions]
    for k, one in enumerate(sessions):
        for area, units in areas_of(one).items():
            whole[k][..., units] = answer(k, area, units)
    return whole


def linear_answers(sessions: list[Session], branch: fitting.Branch, maps: list[dict[str, Map]]) -> dict[str, Answered]:  # fmt: skip
    """What linear models answer to every task that `maps` has a model for."""
    tasks, fits = {}, [one.rows("train") for one in sessions]
    for task, tried in branch.tried.items():
        signal = task in sessions[0].signal_names
        known: dict[str, list[Map]] = {}
        if signal:
            s = sessions[0].signal_names.index(task)
            courses = map(linear.mean_course, sessions, fits)
            known[NOTHING] = [course.of_signal(s) for course in courses]
        else:
            q = list(sessions[0].classes).index(task)
            known["prior"] = [linear.prior(*part, q) for part in zip(sessions, fits, strict=True)]
        by = {
            name: [model(one) for model, one in zip(models, sessions, strict=True)]
            for name, models in (known | tried).items()
        }
        tasks[task] = Answered("signal" if signal else "variable", by, against=branch.chosen[task])
    psth = [
        np.broadcast_to(poisson.psth(one, fit), one.counts.shape)
        for one, fit in zip(sessions, fits, strict=True)
    ]
    whole, some = [np.arange(len(one.unit_ids)) for one in sessions], [*map(fifth, sessions)]
    encoding = [task for task in (BEHAVIOUR, *map(from_one, branch.tried)) if task in maps[0]]
    for task in (*encoding, *((UNITS,) if UNITS in maps[0] else ())):
        units = some if task == UNITS else whole
        glm = [of[task](one) for of, one in zip(maps, sessions, strict=True)]
        nothing_known = [p[..., at] for p, at in zip(psth, units, strict=True)]
        tasks[task] = Answered("counts", {PSTH: nothing_known, GLM: glm}, units, GLM)
    if UNITS not in tasks:
        return tasks
    glm = by_area(sessions, lambda k, area, units: maps[k][of_area(area)](sessions[k]))
    tasks[AREAS] = Answered("counts", {PSTH: psth, GLM: glm}, whole, GLM)
    return tasks


def network_answers(model: Multimodal, sessions: list[Session], tasks: dict[str, Answered]) -> Multimodal:  # fmt: skip
    """Put the network's answers to every task into `tasks`, each trusted as validation chooses.

    Returns the model with what it is trusted.
    """
    for task, answered in tasks.items():
        if answered.kind == "counts" and task not in (UNITS, AREAS):
            shown = "" if task == BEHAVIOUR else task.removeprefix(from_one(""))
            answered.by[NETWORK] = [
                model.network(k, one, hide_spikes(one, shown))[0] for k, one in enumerate(sessions)
            ]
    decoded = [model.network(k, one, hide_behaviour(one)) for k, one in enumerate(sessions)]
    for s, name in enumerate(sessions[0].signal_names):
        tasks[name].by[NETWORK] = [signals[..., s] for _, signals, _ in decoded]
    for q, name in enumerate(sessions[0].classes):
        tasks[name].by[NETWORK] = [variables[q] for *_, variables in decoded]

    def imputed(k: int, area: str, units: np.ndarray) -> np.ndarray:
        return model.network(k, sessions[k], hide_behaviour(sessions[k], units))[0][..., units]

    if UNITS in tasks:
        tasks[UNITS].by[NETWORK] = [imputed(k, "", fifth(one)) for k, one in enumerate(sessions)]
        tasks[AREAS].by[NETWORK] = by_area(sessions, imputed)
    trust = {task: trusted(answered, task, sessions) for task, answered in tasks.items()}
    if AREAS in trust:
        trust |= {of_area(area): trust[AREAS] for one in sessions for area in areas_of(one)}
    return replace(model, trust=trust)


def trusted(answered: Answered, task: str, sessions: list[Session]) -> float:
    """Shrink the network's answers to those of `against`, by the weight that validation trials choose; that weight."""
    tried, losses = {}, {}
    for weight in WEIGHTS:
        tried[weight] = [
            mixed(a, b, weight, rates=answered.kind == "counts")
            for a, b in zip(answered.by[answered.against], answered.by[NETWORK], strict=True)
        ]
        losses[weight] = sum(
            fitting.validation_loss(
                one, task, answer, answered.hidden[k] if answered.hidden else None
            )
            for k, (one, answer) in enumerate(zip(sessions, tried[weight], strict=True))
        )
    chosen = min(losses, key=losses.__getitem__)
    answered.by[NETWORK] = tried[chosen]
    return chosen


def ceilings(sessions: list[Session], recipe: Recipe) -> dict[str, TrialAnswers]:
    """The best possible answers by task, where the truth is known; of test trials, other trials are left at 0."""
    oracle, best = sources.offered(recipe.source, "ceiling"), {}
    if oracle is None:
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
        said = {
            n: np.log(np.maximum(a, linear.LEAST)) if n in one.classes else a
            for n, a in said.items()
        }
        said[BEHAVIOUR] = known.encode(one.trial[test])
        said[UNITS] = known.impute(one.counts[test], some)
        for task, answer in said.items():
            into = np.zeros((len(one.role), *answer.shape[1:]))
            into[test] = answer
            best.setdefault(task, []).append(into)
    return best
