"""The answers of a stored model, asked again on the rows that it was judged on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nblib import models
from nblib.core import store
from nblib.prepare.decoder_inputs import Samples
from nblib.report.one_run import Run

# Training in 16 bit, or with a GPU's shortened factors, ends in other last digits than the answer
# of today. How far is seen by rounding the stored weights and the input to so many digits.
ROUNDED = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
ON_GPU = "float16"  # as many digits as the short factors of a GPU have
ALWAYS_ALLOWED = 1e-4  # of the loss [nats], for the order in which sums are taken
A_TIE = 1e-4  # answers whose log-probabilities are so near may turn


@dataclass(frozen=True)
class Answers:
    """Of a stored model on n rows: right ones, those near a tie, the mean loss [nats], and how far
    rounding may have moved that loss in training."""

    n: int
    right: int
    near: int
    loss: float
    slack: float


def predict_again(run: Run, samples: Samples) -> Answers:
    """What the stored model of a run says of samples today."""
    model = models.load(store.open_artifact(run.folder))
    log_proba = model.predict_log_proba(samples.x)
    ordered = np.sort(log_proba, axis=1)
    loss = _losses(log_proba, samples.y)
    slack = ALWAYS_ALLOWED * (1 + loss.mean())
    digits = ROUNDED.get(model.fitted.get("precision"))
    if digits is None and not str(model.fitted.get("device", "cpu")).lower().startswith("cpu"):
        digits = ON_GPU
    if digits is not None:
        model._set_weights({name: _round(w, digits) for name, w in model._weights().items()})
        moved = _losses(model.predict_log_proba(_round(samples.x, digits)), samples.y) - loss
        slack += 4 * (abs(moved.mean()) + moved.std() / np.sqrt(len(moved)))
    return Answers(
        n=len(samples),
        right=int((log_proba.argmax(axis=1) == samples.y).sum()),
        near=int((ordered[:, -1] - ordered[:, -2] < A_TIE).sum()),
        loss=float(loss.mean()),
        slack=float(slack),
    )


def _losses(log_proba: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -log_proba[np.arange(len(y)), y]


def _round(values: np.ndarray, digits: str) -> np.ndarray:
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if not tensor.is_floating_point():
        return values
    return tensor.to(getattr(torch, digits)).to(tensor.dtype).numpy()
