"""The branch: linear models of all sessions of a recipe, each chosen by trials that did not teach it.

A path fits one kind of model under ever weaker penalties. It is fitted to all but one contiguous fold of the
known trials (train and validation) at a time; the folds that are left out choose the penalty, and the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nblib.models.multimodal import linear, poisson, recall
from nblib.models.multimodal.model import Map
from nblib.models.multimodal.tasks import (
    AREAS,
    BEHAVIOUR,
    IMPUTING,
    Task,
    by_folds,
    decoding,
    encoding,
)
from nblib.prepare.sessions import Session

GLM, PSTH, NOTHING, STACK = "Poisson GLM", "PSTH", "mean course", "linear stack"
CURVED, RECALLED = "curved GLM", "Bayes by GLM"
AT_REST = {"signal": NOTHING, "variable": "prior", "encode": PSTH, "impute": PSTH}
KINDS = "kinds of units by "  # and a variable: their key among the factors
SEEN = ("signals that were seen", "variables that were seen")  # keys of behaviour among the factors
FOLDS, PATIENCE = 5, 2

Rows = list[np.ndarray]  # trials of each session
Maps = list[dict[str, list[Map]]]  # of each session, the models of each task, whose mean counts
TrialAnswers = list[np.ndarray]  # of each session, for all of its trials
# Trials that teach -> what the counts of each session follow, and the prior of their weights.
Together = Callable[[Rows], tuple[list[poisson.PoissonMap], poisson.Prior]]
PenaltyPath = Callable[[Rows], Iterator[Maps]]  # trials that teach -> models, penalty by penalty


@dataclass(frozen=True)
class Branch:
    """The linear models that the network stands beside.

    answers: for each task, by the name of the model, what it says of all trials of each session (see
    `Task.linear`), of the known ones as models say that did not see them; first what is said where no trial
    is looked at. chosen: the name that known trials prefer; maps: of each session, the model of each task;
    rest: of each session, what is said where a trial is not looked at, by task; factors: of each signal and
    variable, and of behaviour as a whole, what further sessions are read through (see `linear.factors`,
    `linear.kinds`, `poisson.Prior`, `recall.seen`); none of a session alone.
    """

    answers: dict[Task, dict[str, TrialAnswers]]
    chosen: dict[Task, str]
    maps: Maps
    rest: list[dict[str, np.ndarray]]
    factors: dict[str, Any]


def each(sessions: list[Session], fit: Callable[..., Iterator], *more: Any) -> PenaltyPath:
    """The path of models of one session as that of all."""

    def path(rows: Rows) -> Iterator[Maps]:
        paths = [fit(*part, *more) for part in zip(sessions, rows, strict=True)]
        for of_sessions in zip(*paths, strict=True):
            yield [{name: [one] for name, one in maps.items()} for maps in of_sessions]

    return path


def of_task(
    task: Task, fit: Callable[..., Iterator[Map]]
) -> Callable[..., Iterator[dict[str, Map]]]:
    """A path of maps as one of the maps by task, of which there is one."""
    return lambda *data: ({task.name: one} for one in fit(*data))


def crossed(
    paths: Sequence[PenaltyPath],
    sessions: list[Session],
    tasks: Sequence[Task],
    known: Rows,
    folds: list[Rows],
) -> tuple[Maps, dict[Task, TrialAnswers]]:
    """Choose the path of each task, and its penalty, by what models say of trials that did not teach them.

    known: trials that teach; folds: those of them that are left out together. Returns the models that all
    known trials teach, and their answers, those to the folds by models that did not see them.
    """
    left_out = [(k, rows) for fold in folds for k, rows in enumerate(fold)]
    parts = [sessions[k].at(rows) for k, rows in left_out]
    losses: dict[Task, float] = {}
    at, heard = {}, {}
    for n, path in enumerate(paths):
        by_penalty = zip(*(path([*map(np.setdiff1d, known, fold)]) for fold in folds), strict=True)
        least: dict[Task, tuple[float, int]] = {}  # of this path, and where
        for i, by_fold in enumerate(by_penalty):
            maps = [of for models in by_fold for of in models]
            for task in tasks:
                answers = [*map(task.linear, maps, parts)]
                loss = sum(map(task.loss, parts, answers))
                least[task] = min(least.get(task, (np.inf, i)), (loss, i))
                if loss < losses.get(task, np.inf):
                    losses[task], at[task], heard[task] = loss, (n, i), answers
            if i - max(best for _, best in least.values()) == PATIENCE:
                break  # weaker penalties are worse still
    chosen: Maps = [{} for _ in sessions]
    for n, path in enumerate(paths):
        last = max((i for of, i in at.values() if of == n), default=-1)
        for i, maps in enumerate(islice(path(known), last + 1)):
            for name in (task.name for task in tasks if at[task] == (n, i)):
                for into, of in zip(chosen, maps, strict=True):
                    into[name] = of[name]
    said = {}
    for task in tasks:
        said[task] = [np.array(answer) for answer in map(task.linear, chosen, sessions)]
        for (k, rows), answer in zip(left_out, heard[task], strict=True):
            said[task][k][rows] = answer
    return chosen, said


def kinds_of_others(
    sessions: list[Session], rows: Rows, names: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """For each session, the kinds of units that all others have, by variable (see `linear.kinds`)."""
    parts = list(zip(sessions, rows, strict=True))
    by_name = {name: [linear.kinds(*part, name) for part in parts] for name in names}
    return {
        one.name: {name: np.concatenate(of[:k] + of[k + 1 :]) for name, of in by_name.items()}
        for k, one in enumerate(sessions)
    }


def candidates(
    sessions: list[Session],
    causal: bool,
    factors: dict[str, Any] | None,
    together: Together,
) -> dict[str, tuple[list[PenaltyPath], list[Task]]]:
    """Paths by name, of which known trials choose one, with the tasks that each can do; causal ones alone where
    they have to be.

    factors: those of other sessions; None: of these, where they are several. together: see `Together`.
    """
    first = sessions[0]
    tasks, spikes = decoding(first), encoding(first)[0]
    signals, variables = ([t for t in tasks if t.kind == kind] for kind in ("signal", "variable"))
    shared = variables if causal else tasks
    several = len(sessions) > 1 or bool(factors)
    able = recall.is_able(first)
    encode = partial(each, sessions, of_task(spikes, poisson.encode), spikes.shown, causal)

    def through(rows: Rows) -> Iterator[Maps]:
        known = factors or {t.name: linear.factors(sessions, rows, t.name) for t in shared}
        by_task = {task.name: known[task.name] for task in shared}
        return each(sessions, linear.through, by_task)(rows)

    def shared_glm(rows: Rows) -> Iterator[Maps]:
        yield [{spikes.name: [one]} for one in together(rows)[0]]

    def by_kinds(rows: Rows) -> Iterator[Maps]:
        names = [t.name for t in variables]
        if factors:
            known = {first.name: {name: factors[KINDS + name] for name in names}}
        else:
            known = kinds_of_others(sessions, rows, names)
        return each(sessions, linear.by_rates, known)(rows)

    def smooth(fit: Callable[..., Iterator]) -> list[PenaltyPath]:
        return [each(sessions, fit, width) for width in linear.WIDTHS]

    kinds = {
        "ridge": (smooth(linear.flat_ridge), [] if causal else signals),
        "lagged ridge": (smooth(linear.lagged_ridge), [] if causal else signals),
        "Wiener filter": ([each(sessions, linear.lagged_ridge, 0.0)], signals),
        "logistic": ([each(sessions, linear.logistic)], variables),
        "Poisson Bayes": ([each(sessions, linear.by_rates)], variables),
        "shared map": ([through], shared if several else []),
        "shared kinds": ([by_kinds], variables if several else []),
        RECALLED: ([recalling(sessions, shared, factors, together)], shared if able else []),
        GLM: ([encode()], [spikes]),
        CURVED: ([encode(True)], [spikes] if signals else []),
        "shared GLM": ([shared_glm], [spikes] if several and able else []),
    }
    return {name: (paths, tasks) for name, (paths, tasks) in kinds.items() if tasks}


def recalling(
    sessions: list[Session],
    tasks: Sequence[Task],
    factors: dict[str, Any] | None,
    together: Together,
) -> PenaltyPath:
    """The path of behaviour that is remembered, and of counts that it lets expect (see `recall`)."""

    def path(rows: Rows) -> Iterator[Maps]:
        others = tuple(factors[name] for name in SEEN) if factors else None
        behaviour = recall.seen(sessions, rows, others)
        pairs = zip(sessions, together(rows)[0], strict=True)
        memories = [recall.remember(*pair, behaviour) for pair in pairs]
        for sure in recall.SURENESS:
            yield [
                {task.name: [recall.RecalledMap(memory, task.name, sure)] for task in tasks}
                for memory in memories
            ]

    return path


def beside_decoding(
    sessions: list[Session],
    causal: bool,
    factors: dict[str, Any] | None,
    together: Together,
) -> Iterator[dict[str, tuple[list[PenaltyPath], list[Task]]]]:
    """Paths by name for spikes from one signal or variable, and for units from others, task by task (see
    `candidates`)."""
    first = sessions[0]
    for task in encoding(first)[1:]:
        alone = each(sessions, of_task(task, poisson.encode), task.shown, causal)
        yield {GLM: ([alone], [task])}
    for task in IMPUTING:
        by_factors = each(sessions, of_task(task, poisson.impute), causal, task.name == AREAS)
        kinds = {GLM: ([by_factors], [task])}
        if recall.is_able(first) and not causal:  # what is recalled depends on all bins of a trial
            kinds[RECALLED] = ([recalling(sessions, [task], factors, together)], [task])
        yield kinds


# NumPy and SciPy have threads of their own, which wait for each other's where an optimiser takes turns.
@threadpool_limits.wrap(limits=1, user_api="blas")
def fit_branch(
    sessions: list[Session],
    causal: bool = False,
    factors: dict[str, Any] | None = None,
    whole: bool = False,
) -> Branch:
    """Fit to train and validation trials (see `crossed`).

    factors: as other sessions taught them (see `Branch`). whole: also spikes from one signal or variable,
    and units from others; validation trials alone are left out there.
    """
    first, known = sessions[0], [one.known for one in sessions]
    folds = list(zip(*(np.array_split(rows, FOLDS) for rows in known), strict=True))
    answers: dict[Task, dict[str, TrialAnswers]] = {task: {} for task in by_folds(first)}
    prior = (factors or {}).get(BEHAVIOUR)
    fitted: dict[tuple[bytes, ...], tuple[list[poisson.PoissonMap], poisson.Prior]] = {}

    def together(rows: Rows) -> tuple[list[poisson.PoissonMap], poisson.Prior]:
        key = tuple(map(bytes, rows))  # asked for by several kinds of models
        if key not in fitted:
            fitted[key] = poisson.encode_together(sessions, rows, causal, prior)
        return fitted[key]

    groups = [(candidates(sessions, causal, factors, together), folds)]
    val = [[one.rows("val") for one in sessions]]
    for kinds in beside_decoding(sessions, causal, factors, together) if whole else ():
        groups.append((kinds, val))
    chosen, maps = {}, [{} for _ in sessions]
    for kinds, left_out in groups:
        models, judged = {}, [np.concatenate(rows) for rows in zip(*left_out, strict=True)]
        for name, (paths, tasks) in kinds.items():
            models[name], said = crossed(paths, sessions, tasks, known, left_out)
            for task in tasks:
                answers.setdefault(task, {})[name] = said[task]
        for task in dict.fromkeys(task for _, tasks in kinds.values() for task in tasks):
            by = answers[task]
            names, mean = stacked(task, sessions, judged, by)
            chosen[task] = names[0] if len(names) == 1 else STACK
            by[chosen[task]] = mean
            for k, into in enumerate(maps):
                into[task.name] = [one for name in names for one in models[name][k][task.name]]
    rest = list(map(at_rest, sessions, known))
    for task, by in answers.items():
        answers[task] = {AT_REST[task.kind]: list(map(task.at_rest, sessions, rest))} | by
    if factors is None and len(sessions) > 1:
        factors = factors_of(sessions, known, together)
    return Branch(answers, chosen, maps, rest, factors or {})


def factors_of(sessions: list[Session], rows: Rows, together: Together) -> dict[str, Any]:
    """What further sessions are read through, as these trials teach it (see `Branch`)."""
    first = sessions[0]
    factors = {name: linear.factors(sessions, rows, name) for name in first.behaviour}
    if recall.is_able(first):
        factors[BEHAVIOUR] = together(rows)[1]
    for name in first.classes:
        of_all = [linear.kinds(*part, name) for part in zip(sessions, rows, strict=True)]
        factors[KINDS + name] = np.concatenate(of_all)
    return factors | dict(zip(SEEN, recall.seen(sessions, rows), strict=True))


def at_rest(session: Session, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the trials `rows` say of any other before it is looked at, by task."""
    return linear.at_rest(session, rows) | {BEHAVIOUR: poisson.psth(session, rows)}


def stacked(
    task: Task, sessions: list[Session], judged: Rows, by: dict[str, TrialAnswers]
) -> tuple[list[str], TrialAnswers]:
    """Models, the best first, to whose mean each is added that the trials `judged` prefer most; and that mean.

    Source: Caruana et al. 2004, ICML.
    """
    parts = [one.at(rows) for one, rows in zip(sessions, judged, strict=True)]
    names, least, mean = [], np.inf, None
    while left := [name for name in by if name not in names]:
        tried, losses = {}, {}
        for name in left:
            share = 1 / (len(names) + 1)
            pairs = zip(mean or by[name], by[name], strict=True)
            tried[name] = [task.mixed(*pair, share) for pair in pairs]
            heard = [answer[rows] for answer, rows in zip(tried[name], judged, strict=True)]
            losses[name] = sum(map(task.loss, parts, heard))
        best = min(losses, key=losses.__getitem__)
        if losses[best] >= least:
            break
        names, least, mean = [*names, best], losses[best], tried[best]
    return names, mean
