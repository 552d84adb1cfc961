"""Draws × budgets × models: how well each model learns from few labels (07, 09).

A budget is a number of labels of each class, `ALL` for every one there is. The draws of one seed hold
each other: a smaller budget is the beginning of a larger one. Below `FIRST_CHOICE` labels a class
nothing is chosen; from there on a fifth of the labels drawn chooses (a penalty, an epoch).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ALL = 0
FIRST_CHOICE = 5
CHOOSING_SHARE = 0.2


@dataclass(frozen=True)
class Answer:
    """What a model says, having learnt from one draw of labels."""

    model: str
    budget: int
    draw: int
    question: Any
    predicted: np.ndarray


def answers(
    models: Mapping[str, Callable[[Any, int, int], np.ndarray]],
    budgets: Sequence[int],
    n_draws: Callable[[str, int], int],
    questions: Sequence[Any] = (None,),
) -> Iterator[Answer]:
    """Every model at every budget and draw, asked every question.

    models: by name, (question, budget, draw) -> the class of each test row, by a model that learnt
    from the labels of that draw alone. n_draws: by name and budget; all labels are drawn once.
    """
    for name, learn_and_answer in models.items():
        for budget in budgets:
            for number in range(1 if budget == ALL else n_draws(name, budget)):
                for question in questions:
                    predicted = learn_and_answer(question, budget, number)
                    yield Answer(name, budget, number, question, predicted)


def draw(y: np.ndarray, budget: int, seed: Sequence[int]) -> np.ndarray:
    """Rows of `budget` labels of each class, in the order of the classes; y (n,) class index."""
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(y == c) for c in range(int(y.max()) + 1)]
    return np.concatenate([rng.permutation(rows)[: budget or len(y)] for rows in classes])


def choosing(y: np.ndarray, budget: int) -> np.ndarray | None:
    """(n,) True for rows that choose: the last fifth of each class in the order drawn; None below 5."""
    if budget != ALL and budget < FIRST_CHOICE:
        return None
    chooses = np.zeros(len(y), bool)
    for c in np.unique(y):
        rows = np.flatnonzero(y == c)
        chooses[rows[len(rows) - max(1, round(CHOOSING_SHARE * len(rows))) :]] = True
    return chooses
