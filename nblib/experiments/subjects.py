"""Who is trained on and who is tested: folds by subject, the same for 08 and 09. W windows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nblib.core.errors import BadInput, BadParameter

if TYPE_CHECKING:
    from nblib.experiments import label_budget
    from nblib.prepare.potentials.stored_windows import Cohort


def subject_folds(subjects: np.ndarray, n_folds: int, seed: int) -> list[np.ndarray]:
    """Subjects of each fold's test set: every subject in one fold, folds as equal as can be.

    subjects (W,): the subject of each window, in any order. Returns the names (n,) of each fold, sorted.
    Raises BadParameter for more folds than subjects, or folds that leave fewer than three to
    teach and choose.
    """
    known = np.unique(subjects)
    if n_folds < 2 or n_folds > len(known):
        raise BadParameter(f"n_folds = {n_folds}: the cohort has {len(known)} subjects.")
    order = np.random.default_rng([seed, 41]).permutation(known)
    folds = [np.sort(part) for part in np.array_split(order, n_folds)]
    if len(known) - max(map(len, folds)) < 3:
        raise BadParameter(
            f"n_folds = {n_folds}: {len(known)} subjects leave fewer than three for training."
        )
    return folds


def fold_hash(cohort: Cohort, n_folds: int, seed: int) -> str:
    """12 hex digits of who is tested in which fold."""
    folds = [list(map(str, fold)) for fold in subject_folds(cohort.subject, n_folds, seed)]
    return hashlib.sha256(json.dumps(folds).encode()).hexdigest()[:12]


def teachers(
    cohort: Cohort, test: np.ndarray, who: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Recordings that teach the pretext and those that choose its epoch, as numbers.

    who: "train_subjects" (none of the test subjects) or "all_subjects". A fifth of the subjects,
    one at least, chooses; no subject does both.
    """
    subject = np.array([p.subject for p in cohort.parts])
    known = np.unique(subject)
    known = known if who == "all_subjects" else np.setdiff1d(known, test)
    order = np.random.default_rng([seed, 42]).permutation(known)
    n_val = max(1, round(0.2 * len(order)))
    train = np.flatnonzero(np.isin(subject, order[n_val:]))
    return train, np.flatnonzero(np.isin(subject, order[:n_val]))


@dataclass(frozen=True)
class Fold:
    """One fold: rows of labelled windows of training and of test subjects; y (W,) class of each."""

    number: int
    train: np.ndarray
    test: np.ndarray
    y: np.ndarray
    subject: np.ndarray
    classes: np.ndarray


def make_folds(cohort: Cohort, params: label_budget.Params) -> list[Fold]:
    """The folds asked for. BadParameter for one that is not there, or a budget that a fold's
    training subjects cannot give; BadInput when they or a whole test set lack a state."""
    tested = subject_folds(cohort.subject, params.n_folds, params.seed)
    if max(params.folds) >= len(tested) or len(set(params.folds)) != len(params.folds):
        raise BadParameter(
            f"folds = {params.folds}: there are {len(tested)}, numbered from 0, each once."
        )
    rows = np.flatnonzero(cohort.labelled)
    classes = np.unique(cohort.label[rows])
    if len(classes) < 2:
        raise BadInput(f"recipe {params.recipe!r}: labelled windows of {len(classes)} state(s).")
    label = cohort.label.copy()
    if params.shuffle_labels:
        for record in range(len(cohort.parts)):
            here = rows[cohort.record[rows] == record]
            rng = np.random.default_rng([params.seed, record, 45])
            label[here] = rng.permutation(label[here])
    y = np.searchsorted(classes, label)
    folds = []
    for number in params.folds:
        inside = np.isin(cohort.subject[rows], tested[number])
        train, test = rows[~inside], rows[inside]
        for role, part in (("training", train), ("test", test)):
            absent = np.setdiff1d(np.arange(len(classes)), y[part])
            if absent.size:
                raise BadInput(
                    f"fold {number}: no labelled {role} window of {str(classes[absent[0]])!r}; choose other "
                    "folds (n_folds, seed)."
                )
        folds.append(Fold(number, train, test, y, cohort.subject, classes))
    if sum(len(tested[number]) for number in params.folds) < 2:
        raise BadParameter(
            f"folds = {params.folds}: one test subject, {str(tested[params.folds[0]][0])!r}, gives no interval over "
            "subjects; take more folds, or fewer and larger ones (n_folds)."
        )
    if smallest_class(folds) <= max(params.budgets):
        raise BadParameter(
            f"budgets = {params.budgets}: the rarest state has {smallest_class(folds)} labelled training windows; "
            "ask for fewer than that, or 0 for all."
        )
    return folds


def smallest_class(folds: list[Fold]) -> int:
    """Labelled training windows of the rarest state, least over folds: budgets lie below it."""
    return min(int(np.bincount(fold.y[fold.train]).min()) for fold in folds)
