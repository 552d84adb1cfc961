"""What is asked of the models of several sessions (12), and what linear ones and the network answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nblib.data import sources
from nblib.models.multimodal import fitting, linear, masks, poisson

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.fitting import Answers
    from nblib.prepare.sessions import Session

NETWORK, GLM, NOTHING = "masked network", "Poisson GLM", "mean course"
SPIKES, UNITS, AREAS = "spikes", "a fifth of the units", "units of each area"
EVERY = 5  # of the units, hidden at once
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the network against the branch that it starts from


@dataclass
class Answered:
    """What each model answered to one task: model -> for each session, answers for all of its trials.

    kind: "signal" (K, T), "variable" log-probabilities (K, C), or "counts" expected (K, T, n). hidden: of
    counts, the units asked for in each session. against: the linear model that validation prefers.
    """

    kind: str
    by: dict[str, Answers] = field(default_factory=dict)
    hidden: list[np.ndarray] = field(default_factory=list)
    against: str = ""


def fifth(session: Session) -> np.ndarray:
    """Every fifth unit."""
    return np.arange(0, len(session.unit_ids), EVERY)


def hide_behaviour(session: Session) -> masks.Hidden:
    hidden = fitting.nothing(session)
    hidden.behaviour()
    return hidden


def hide_units(units: np.ndarray) -> Callable[[Session], masks.Hidden]:
    """Hide some units, and behaviour, which would tell of them too."""

    def hide(session: Session) -> masks.Hidden:
        hidden = hide_behaviour(session)
        hidden.spikes[:, units] = True
        return hidden

    return hide


def hide_all_but(name: str) -> Callable[[Session], masks.Hidden]:
    """Hide spikes and all behaviour but one signal or variable; "" = show all behaviour."""

    def hide(session: Session) -> masks.Hidden:
        hidden = fitting.nothing(session)
        hidden.spikes[:] = True
        if name:
            hidden.signals[:, [s != name for s in session.signal_names]] = True
            hidden.variables[[v != name for v in session.classes]] = True
        return hidden

    return hide


def linear_answers(sessions: list[Session], branch: fitting.Branch, causal: bool = False) -> dict[str, Answered]:  # fmt: skip
    """What linear models answer to every task; strengths are chosen on validation trials."""
    fits, choose = ([one.rows(role) for one in sessions] for role in ("train", "val"))
    tasks, first = {}, sessions[0]
    courses = [linear.mean_course(one, fit) for one, fit in zip(sessions, fits, strict=True)]
    made = {name: fit(fits, choose) for name, fit in fitting.decoders(sessions, causal).items()}
    for s, name in enumerate(first.signal_names):
        by = {n: [a[..., s] for a in answers] for n, answers in ({NOTHING: courses} | made).items()}
        tasks[name] = Answered("signal", by, against=branch.who[name])
    for q, name in enumerate(first.classes):
        by = {"prior": [linear.prior(one, fit, q) for one, fit in zip(sessions, fits, strict=True)]}
        by |= {n: fit(fits, choose) for n, fit in fitting.classifiers(sessions, q).items()}
        tasks[name] = Answered("variable", by, against=branch.who[name])
    psth = [
        np.broadcast_to(poisson.psth(one, fit), one.counts.shape)
        for one, fit in zip(sessions, fits, strict=True)
    ]
    whole = [np.arange(len(one.unit_ids)) for one in sessions]
    names = (*first.signal_names, *first.classes)
    for name in ("", *(names if len(names) > 1 else ())):
        glm = fitting.each(sessions, poisson.encode, [name] if name else None, causal)(fits, choose)
        by = {"PSTH": psth, GLM: glm}
        tasks[f"{SPIKES} from {name or 'behaviour'}"] = Answered("counts", by, whole, GLM)
    some, areas = [fifth(one) for one in sessions], []
    for one, fit, judge in zip(sessions, fits, choose, strict=True):
        answer = np.empty(one.counts.shape)
        for area in np.unique(one.area):
            inside = np.flatnonzero(one.area == area)
            alone = len(inside) == len(one.area)
            answer[..., inside] = (
                poisson.psth(one, fit)[:, inside]
                if alone
                else poisson.impute(one, fit, judge, inside, causal)
            )
        areas.append(answer)
    units = [
        poisson.impute(*part, causal) for part in zip(sessions, fits, choose, some, strict=True)
    ]
    by = {"PSTH": [p[..., at] for p, at in zip(psth, some, strict=True)], GLM: units}
    tasks[UNITS] = Answered("counts", by, some, GLM)
    tasks[AREAS] = Answered("counts", {"PSTH": psth, GLM: areas}, whole, GLM)
    return tasks


def network_answers(fitted: fitting.Fitted, sessions: list[Session], tasks: dict[str, Answered]) -> None:  # fmt: skip
    """Put the network's answers to every task into `tasks`."""
    decoded = fitting.ask(fitted, sessions, hide_behaviour)
    for s, name in enumerate(sessions[0].signal_names):
        tasks[name].by[NETWORK] = [signals[..., s] for _, signals, _ in decoded]
    for q, name in enumerate(sessions[0].classes):
        tasks[name].by[NETWORK] = [variables[q] for *_, variables in decoded]
    for task, answered in tasks.items():
        if task.startswith(f"{SPIKES} from "):
            given = task.removeprefix(f"{SPIKES} from ")
            hide = hide_all_but("" if given == "behaviour" else given)
            answered.by[NETWORK] = [rates for rates, *_ in fitting.ask(fitted, sessions, hide)]
    hidden = fitting.ask(fitted, sessions, lambda one: hide_units(fifth(one))(one))
    tasks[UNITS].by[NETWORK] = [
        rates[..., fifth(one)] for (rates, *_), one in zip(hidden, sessions, strict=True)
    ]
    answers = [np.empty(one.counts.shape) for one in sessions]
    for area in np.unique(np.concatenate([one.area for one in sessions])):
        asked = fitting.ask(
            fitted, sessions, lambda one, a=area: hide_units(np.flatnonzero(one.area == a))(one)
        )
        for into, (rates, *_), one in zip(answers, asked, sessions, strict=True):
            into[..., one.area == area] = rates[..., one.area == area]
    tasks[AREAS].by[NETWORK] = answers


def shrunk(answered: Answered, task: str, sessions: list[Session]) -> float:
    """Shrink the network's answers to those of `against`, by the weight that validation trials choose; that weight.

    In between lie the mean of two answers, of log-probabilities, or of log rates.
    """
    log = answered.kind == "counts"
    pairs = [
        (np.log(np.maximum(a, poisson.LEAST)), np.log(np.maximum(b, poisson.LEAST))) if log else (a, b)
        for a, b in zip(answered.by[answered.against], answered.by[NETWORK], strict=True)
    ]  # fmt: skip
    tried = {}
    for weight in WEIGHTS:
        mixed = [(1 - weight) * a + weight * b for a, b in pairs]
        tried[weight] = [np.exp(m) for m in mixed] if log else mixed
    losses = {w: loss(answers, answered, task, sessions) for w, answers in tried.items()}
    chosen = min(losses, key=losses.__getitem__)
    answered.by[NETWORK] = tried[chosen]
    return chosen


def loss(answers: Answers, answered: Answered, task: str, sessions: list[Session]) -> float:
    """Loss of answers in validation trials: squared error, or minus the log-likelihood."""
    total = 0.0
    for k, (one, answer) in enumerate(zip(sessions, answers, strict=True)):
        val = one.rows("val")
        if answered.kind == "signal":
            s = one.signal_names.index(task)
            total += ((answer[val] - one.signals[val, :, s]) ** 2).sum()
        elif answered.kind == "variable":
            y = one.variables[val, list(one.classes).index(task)]
            norm = np.logaddexp.reduce(answer[val], axis=1)
            total -= (answer[val, y] - norm).sum()
        else:
            counts = one.counts[val][..., answered.hidden[k]]
            total -= poisson.log_likelihood(counts, answer[val]).sum()
    return float(total)


def ceilings(sessions: list[Session], recipe: Recipe) -> dict[str, Answers]:
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
        said[f"{SPIKES} from behaviour"] = known.encode(one.trial[test])
        said[UNITS] = known.impute(one.counts[test], some)
        for task, answer in said.items():
            into = np.zeros((len(one.role), *answer.shape[1:]))
            into[test] = answer
            best.setdefault(task, []).append(into)
    return best
