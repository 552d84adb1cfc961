"""What the units of one area say of those of another: imputation, area by area (12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.evaluate import ratios
from nblib.experiments.multimodal import tasks
from nblib.models.multimodal import masks, poisson

if TYPE_CHECKING:
    from nblib.experiments.multimodal import judge
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session

COLUMNS = ["told", "from", "model", "metric", "value", "ci_low", "ci_high", "chance", "p", "n", "n_units"]  # fmt: skip
BEYOND = "bits beyond the PSTH"


def pair(session: Session, told: str, seen: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions of units of area `told` to be told, and of those of area `seen` that tell; every second
    unit where it is one area."""
    units, others = (np.flatnonzero(session.area == area) for area in (told, seen))
    return (units[::2], units[1::2]) if told == seen else (units, others)


def matrix(model: Multimodal, sessions: list[Session], params: judge.Params) -> pd.DataFrame:
    """Bits a spike beyond the PSTH of the units of each area, told from the units of one area alone and
    from no behaviour, over the sessions that have both: `COLUMNS`, a row a pair of areas and model."""
    names = sorted({area for one in sessions for area in one.area} - {""})
    draws = params.model_dump(include={"n_permutations", "n_bootstrap", "seed"})
    rows = []
    for told in names:
        for seen in names:
            parts = [(k, one, *pair(one, told, seen)) for k, one in enumerate(sessions)]
            parts = [part for part in parts if len(part[2]) and len(part[3])]
            if not parts:
                continue
            answered = tasks.Answered("counts", hidden=[p[2] for p in parts], against=tasks.GLM)
            answered.by = {tasks.GLM: [], tasks.NETWORK: []}
            for k, one, units, others in parts:
                fit, choose = one.rows("train"), one.rows("val")
                glm = poisson.impute(one, fit, choose, units, params.causal, others)
                hidden = masks.nothing(one)
                hidden.behaviour()
                hidden.spikes[:, np.setdiff1d(np.arange(len(one.area)), others)] = True
                answered.by[tasks.GLM].append(glm(one))
                answered.by[tasks.NETWORK].append(model.network(k, one, hidden)[0][..., units])
            tasks.trusted(answered, "", [one for _, one, *_ in parts])
            for name, answers in answered.by.items():
                earned = []
                for (_, one, units, _), answer in zip(parts, answers, strict=True):
                    test, psth = one.rows("test"), poisson.psth(one, one.rows("train"))[:, units]
                    counts = one.counts[test][..., units]
                    earned.append(ratios.of_counts(counts, answer[test], psth))
                s = ratios.score(earned, ratios.BITS, **draws)
                n_units = sum(len(units) for _, _, units, _ in parts)
                rows.append((told, seen, name, BEYOND, s.value, s.ci_low, s.ci_high, s.chance, s.p, s.n, n_units))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)
