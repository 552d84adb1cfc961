"""Several decoders that answer together."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax

from nblib.core.errors import BadParameter
from nblib.models import MODELS, FitSettings, make
from nblib.models.base import Decoder, require
from nblib.models.linear import log_loss
from nblib.prepare.decoder_inputs import Samples


class Ensemble(Decoder):
    """Weighted mean of the log-probabilities of several decoders, made probabilities again by softmax.

    The weights, none below 0 and together 1, have the lowest log-loss on validation rows: a convex
    problem. Without validation rows they are equal. Source: Genest and Zidek 1986, Stat. Sci. 1:114
    (logarithmic opinion pool).

    members: names of decoders. Those that `known` holds are taken as they are: they must not have
    learnt from the validation rows. The others learn from the train rows, with their own defaults.
    The history has a row a member alone, and last the ensemble.
    """

    name = "ensemble"
    title = "Ensemble"
    more = {"members": ("bayes_poisson", "logistic")}

    weights: np.ndarray  # (M,)
    members: dict[str, Decoder]
    known: dict[str, Decoder] = {}  # decoders of the same train rows, fitted already

    def check(self) -> None:
        names = self.params["members"]
        known = all(name in MODELS and name != self.name for name in names)
        different = len(set(names)) == len(names) >= 2
        require(known and different, self, "members: two or more different decoders needed")

    def _fit(
        self, train: Samples, val: Samples | None, settings: FitSettings, **checkpoint: Any
    ) -> pd.DataFrame:
        started = time.perf_counter()
        pair = None if val is None else (val.x, val.y)
        self.members = {}
        for name in self.params["members"]:
            member = self.known.get(name)
            if member is None:
                more = {"settings": self.settings, "units": self.units, "scaling": self.scaling}
                member = make(name, **more).fit(train.x, train.y, pair, n_classes=self.n_classes)
            self.members[name] = member
        judge = train if val is None else val
        answers, of_train = self._answers(judge.x), self._answers(train.x)
        equal = np.full(len(answers), 1 / len(answers))
        together = equal if val is None else pool_weights(answers, judge.y)
        tried = dict(
            zip([*self.members, self.name], [*np.eye(len(answers)), together], strict=True)
        )
        rows = []
        for member, weights in tried.items():
            log_proba = pooled(answers, weights)
            row = {
                "epoch": len(rows),
                "member": member,
                "train_loss": log_loss(pooled(of_train, weights), train.y),
                "val_loss": log_loss(log_proba, judge.y),
                "val_accuracy": float((log_proba.argmax(axis=1) == judge.y).mean()),
            }
            rows.append(row)
        history = pd.DataFrame(rows)
        if val is None:  # nothing is chosen
            history = history.iloc[-1:].assign(epoch=0)
        best = int(history["val_loss"].argmin())  # one member alone may be it
        self.weights = tried[history["member"].iloc[best]]
        devices = [str(member.fitted["device"]) for member in self.members.values()]
        self.fitted = {
            "device": next((d for d in devices if not d.lower().startswith("cpu")), devices[0]),
            "precision": settings.precision,
            "seed": settings.seed,
            "members": {name: member.config() for name, member in self.members.items()},
            "best_epoch": best,
            "best_val_loss": float(history["val_loss"].min()),
            "fit_s": round(time.perf_counter() - started, 3),
        }
        return history

    def _refit(self, both: Samples, settings: FitSettings) -> None:
        """Its members learn again; their weights stay."""
        if self.known:
            raise BadParameter("refit: validation rows weigh members that stay as they are.")
        for member in self.members.values():
            member._refit(both, FitSettings.of(self.settings, member.training))

    def _answers(self, x: np.ndarray) -> np.ndarray:
        """Log-probabilities of each member, (M, B, C)."""
        return np.stack([member.predict_log_proba(x) for member in self.members.values()])

    def _log_proba(self, x: np.ndarray) -> np.ndarray:
        return pooled(self._answers(x), self.weights)

    def _weights(self) -> dict[str, np.ndarray]:
        tensors = {"weights": self.weights}
        for name, member in self.members.items():
            tensors |= {f"{name}/{key}": value for key, value in member._weights().items()}
        return tensors

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        self.weights, self.members = weights["weights"], {}
        for name, config in self.fitted["members"].items():
            keys = [key for key in weights if key.startswith(f"{name}/")]
            of_member = {key.removeprefix(f"{name}/"): weights[key] for key in keys}
            self.members[name] = MODELS[name].restored(config, of_member)


def pooled(answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of log-probabilities (M, B, C), as log-probabilities (B, C)."""
    return log_softmax(np.tensordot(weights, answers, axes=1), axis=1)


def pool_weights(answers: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights (M,), none below 0 and together 1, whose mean of `answers` (M, B, C) fits y (B,) best."""
    equal = np.full(len(answers), 1 / len(answers))
    best = minimize(
        lambda weights: log_loss(pooled(answers, weights), y),
        equal,
        method="SLSQP",
        bounds=[(0, 1)] * len(answers),
        options={"ftol": 1e-10},
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
    )
    weights = np.clip(best.x, 0, None)
    return weights / weights.sum()
