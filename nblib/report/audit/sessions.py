"""What the audit asks of a stored model of several sessions (12): how it scales, what it sees and remembers, who
taught it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from nblib import models
from nblib.core import store
from nblib.data import counts_dataset
from nblib.models.multimodal.branch import SEEN, at_rest
from nblib.models.multimodal.recall import RecalledMap
from nblib.models.multimodal.tasks import IMPUTING, Task, decoding, encoding
from nblib.prepare import sessions as prepared
from nblib.prepare import stored_splits, train_statistics
from nblib.report.audit.files import Files
from nblib.road.stage_registry import CLEAN, SPLIT, STAGES

if TYPE_CHECKING:
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session
    from nblib.report.one_run import Run

NEAR = 1e-4  # of answers, which are about 1 wide
ALIKE = 0.05  # of test trials; so many are not those of another session by chance


def model_of_sessions(run: Run, files: Files) -> list[str] | None:
    """Whether a stored model scales by train trials, is told nothing that is hidden, sees no later bin
    where it is causal, remembers no test trial, and was not taught by a recording that is new to it."""
    info = STAGES[run.stage]
    if not info.cohort or info.upstream != SPLIT:
        return None
    parameters, folders, counts = run.manifest["parameters"], run.splits, []
    for recording, folder in zip(run.manifest["recipe"]["recordings"], folders, strict=True):
        counts.append(store.folder(CLEAN, recording, files.manifest(folder)["upstream"][0]))
    opened = ([store.open_artifact(folder) for folder in part] for part in (folders, counts))
    opened, fold = [*map(list, opened)], run.metrics["fold"]
    loaded = prepared.load_sessions(*opened, run.recipe, fold)
    model = models.load(store.open_artifact(run.folder))
    scaled = (what for pair in zip(*opened, strict=True) for what in statistics(*pair, fold))
    return [*scaled, *faults(model, loaded, parameters["new"], parameters["causal"])]


def statistics(split: Path, counts: Path, fold: int) -> Iterator[str]:
    """Signals whose statistics, as 04 stored them, are not those of train trials."""
    binned, (roles, fitted) = counts_dataset.load(counts), stored_splits.load_fold(split, fold)
    rows = train_statistics.train_rows(binned, roles, fold)
    due = train_statistics.signal_statistics(binned, rows).set_index("name")
    for name, *has in fitted.signals[["name", "mean", "scale"]].itertuples(index=False):
        if not np.allclose(has, due.loc[name, ["mean", "scale"]], rtol=1e-3, equal_nan=True):
            yield f"{binned.attrs['recording']}: 04 scaled {name} otherwise than by its train trials"


def faults(model: Multimodal, loaded: list[Session], new: list[str], causal: bool) -> Iterator[str]:
    """What is wrong with a model of these sessions, in sentences (see `model_of_sessions`)."""
    there = {one.name: one for one in loaded}
    for k, stored in enumerate(model.sessions):
        name = stored.name
        if name in new:
            yield f"{name}: it is new to the model, and taught it"
        if name not in there:
            yield f"{name}: it taught the model, but is no recording of the recipe"
            continue
        one = there[name]
        for what, has, due in (
            ("counts", stored.roots, one.roots),
            ("signals", (stored.mean, stored.scale), (one.mean, one.scale)),
        ):
            if not np.allclose(has, due, rtol=1e-3, atol=1e-6):
                yield f"{name}: its {what} are scaled otherwise than by its train trials"
        due = at_rest(one, one.known)
        if not all(np.allclose(model.rest[k][of], due[of], rtol=1e-3, atol=1e-4) for of in due):
            yield f"{name}: what is said without a look is not of the trials that may teach"
        yield from _told(model, k, one)
        if causal:
            yield from _future(model, k, one)
    yield from _remembered(model, loaded, new)
    yield from _twice(loaded, new)


def _remembered(model: Multimodal, loaded: list[Session], new: list[str]) -> Iterator[str]:
    """Whether behaviour that the model remembers is that of trials which may teach it (see `models.multimodal.recall`)."""
    memories = {  # many maps share one
        id(one.memory.trials.signals): (one.memory.trials.signals, one.memory.trials.variables)
        for maps in model.maps
        for parts in maps.values()
        for one in parts
        if isinstance(one, RecalledMap)
    }
    if SEEN[0] in model.factors:
        memories["of all sessions"] = tuple(model.factors[name] for name in SEEN)
    if not memories:
        return
    known = np.concatenate([*map(_in_rows, *zip(*memories.values(), strict=True))])
    known = np.unique(known, axis=0)
    rest, judged = np.ones(len(known), bool), []
    for one in loaded:
        rows, teach = _in_rows(one.signals, one.variables), np.zeros(len(one.role), bool)
        if one.name not in new:
            teach[one.known] = True
            rest &= ~_near(known, rows[teach])
        judged.append((one.name, rows[~teach]))
    for name, rows in judged:
        if n := (_near(known, rows) & rest).sum():
            yield f"{name}: behaviour of {n} trials that do not teach is remembered"


def _twice(loaded: list[Session], new: list[str]) -> Iterator[str]:
    """Whether trials of another recording that teach are test trials here: one session under two names, with
    other units or other roles."""
    for one, other in permutations((one for one in loaded if one.signal_names), 2):
        if other.name in new:
            continue
        test = one.rows("test")
        here = _in_rows(one.signals[test], one.variables[test])
        known = other.at(other.known)
        in_units_of_here = (known.signals * other.scale + other.mean - one.mean) / one.scale
        n = _near(here, _in_rows(in_units_of_here, known.variables)).sum()
        if n > ALIKE * len(test):
            yield f"{one.name}: {n} of {len(test)} test trials are trials of {other.name} that teach"


def _in_rows(signals: np.ndarray, variables: np.ndarray) -> np.ndarray:
    """Behaviour of each trial as a row of numbers."""
    return np.concatenate([signals.reshape(len(signals), -1), variables], axis=1)


def _near(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each row is one of others."""
    return (cdist(rows, others, "chebyshev") < NEAR).any(axis=1)


def _told(model: Multimodal, k: int, one: Session) -> Iterator[str]:
    """Whether behaviour, or spikes, that are hidden move the answers."""
    rng = np.random.default_rng(0)
    other = replace(
        one,
        signals=rng.normal(size=one.signals.shape).astype(np.float32),
        variables=(one.variables + 1) % [len(c) for c in one.classes.values()],
    )
    for what, tasks in (("it", decoding(one)), ("units from others", IMPUTING)):
        if _differ(*(_answers(model, k, trials, tasks) for trials in (one, other))):
            yield f"{one.name}: behaviour that is hidden moves what is said of {what}"
    silent = replace(one, counts=np.zeros_like(one.counts))
    if _differ(*(_answers(model, k, trials, encoding(one)) for trials in (one, silent))):
        yield f"{one.name}: spikes that are hidden move the rates told from behaviour"


def _future(model: Multimodal, k: int, one: Session) -> Iterator[str]:
    """Whether later bins move what is said of earlier ones."""
    half = one.counts.shape[1] // 2
    counts, signals = one.counts.copy(), one.signals.copy()
    counts[:, half:], signals[:, half:] = 9, 3
    later = replace(one, counts=counts, signals=signals)
    of_signals = [task for task in decoding(one) if task.kind == "signal"]
    for what, tasks in (("signals", of_signals), ("rates", [*encoding(one), *IMPUTING])):
        both = (_answers(model, k, trials, tasks) for trials in (one, later))
        if _differ(*([answer[:, :half] for answer in answers] for answers in both)):
            yield f"{one.name}: it is causal, but later bins move its {what}"


def _answers(model: Multimodal, k: int, trials: Session, tasks: Sequence[Task]) -> list[np.ndarray]:
    """What the network and the linear models answer to these tasks."""
    told = [model.answer(k, trials, task) for task in tasks]
    maps = model.maps[k]
    return told + [task.linear(maps, trials) for task in tasks if task.name in maps]


def _differ(before: list[np.ndarray], after: list[np.ndarray]) -> bool:
    return any(np.abs(a - b).max(initial=0) > NEAR for a, b in zip(before, after, strict=True))
