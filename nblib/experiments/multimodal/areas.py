"""What the units of one area say of those of another: imputation, area by area (12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from nblib.experiments.multimodal import answers, judge
from nblib.models.multimodal.fitting import GLM, glm_of
from nblib.models.multimodal.tasks import Task

if TYPE_CHECKING:
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session


def matrix(model: Multimodal, sessions: list[Session], params: judge.Params) -> pd.DataFrame:
    """Bits a spike beyond the PSTH of the units of each area, told from the units of one area alone and
    from no behaviour, over the sessions that have both: a row a pair of areas and model."""
    names, rows = sorted({area for one in sessions for area in one.area} - {""}), []
    for task in (Task("", "impute", areas=(told, tell)) for told in names for tell in names):
        units = [task.groups(one)[0] for one in sessions]
        both = [k for k, one in enumerate(sessions) if len(units[k]) and len(task.seen(one, units[k]))]  # fmt: skip
        if not both:
            continue
        some = [sessions[k] for k in both]
        by = {
            GLM: [glm_of(one, task, params.causal)(one) for one in some],
            answers.NETWORK: [model.counts(k, sessions[k], task) for k in both],
        }
        answers.trusted(task, by, GLM, some)
        for name, answer in by.items():
            metric = judge.BEYOND_PSTH
            score = judge.scores(task, answer, some, params, (metric,))[metric]
            about = {"told": task.areas[0], "from": task.areas[1], "model": name, "metric": metric}
            rows.append(about | score.fields() | {"n_units": sum(len(units[k]) for k in both)})
    return pd.DataFrame(rows)
