"""A stored model asked again: what it answers on stored rows, to compare with what its run says."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nblib import models
from nblib.core import store
from nblib.core.errors import StorageError
from nblib.prepare import splits
from nblib.prepare.counts_dataset import load as load_counts
from nblib.prepare.decoder_inputs import Samples, role_samples, shuffle_labels
from nblib.road.stage_registry import CLEAN, STAGES

if TYPE_CHECKING:
    from nblib.report.audit.files import Files
    from nblib.report.runs import Run

VERSION = 1
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


class Memory:
    """Answers by what they rest on: weights, settings of the model, rows. Kept in the data root.

    A model is asked once; later audits read its answers, as long as all that they rest on stays.
    """

    def __init__(self, files: Files):
        self.files = files
        self.path = store.home() / "cache" / "answers.json"
        self.known: dict[str, dict[str, Any]] = {}
        self.new = False
        self.at: tuple[Any, Any] = (None, None)  # the samples used last, and what they are of
        # Without it, or when it was cut short, models are asked again.
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.known = json.loads(self.path.read_text(encoding="utf-8"))

    def of(self, run: Run, role: str) -> Answers:
        """Of a run's model on the rows of one role of its split and fold.

        Raises what opening the split, the counts or the model raises.
        """
        given, outputs = run.manifest["parameters"], run.manifest["outputs"]
        rests_on = (
            VERSION, run.stage, STAGES[run.stage].version, run.manifest["recording"],
            run.manifest["upstream"], self.files.split(run)[1], run.metrics["fold"], role,
            given["seed"] if given.get("shuffle_labels") else None,
            outputs["weights.safetensors"]["sha256"], outputs["config.json"]["sha256"],
        )  # fmt: skip
        key = hashlib.sha256(repr(rests_on).encode()).hexdigest()[:32]
        if key not in self.known:
            self.known[key], self.new = asdict(_ask(run, self._samples(run)[role])), True
        return Answers(**self.known[key])

    def _samples(self, run: Run) -> dict[str, Samples]:
        """Samples of each role of a run's split and fold, labels shuffled where the run did so."""
        parameters, fold = run.manifest["parameters"], run.metrics["fold"]
        seed = parameters["seed"] if parameters.get("shuffle_labels") else None
        split_folder = self.files.split_folder(run)
        wanted = (split_folder, fold, seed)
        if self.at[0] != wanted:
            self.at = (None, None)  # first free the memory
            roles, statistics = splits.load(store.open_artifact(split_folder))
            key = self.files.manifest(split_folder)["upstream"][0]
            counts = store.folder(CLEAN, run.manifest["recording"], key)
            of_fold = {s.fold: s for s in statistics}.get(fold)
            samples = role_samples(load_counts(store.open_artifact(counts)), roles, of_fold, fold)
            self.at = wanted, samples if seed is None else shuffle_labels(samples, seed)
        return self.at[1]

    def keep(self) -> None:
        """Write down what was asked anew; a data root that cannot be written forgets it."""
        if self.new:
            with contextlib.suppress(StorageError):  # costs the next audit time, nothing else
                store.write_text(self.path, json.dumps(self.known))


def _ask(run: Run, samples: Samples) -> Answers:
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
        n=len(samples), right=int((log_proba.argmax(axis=1) == samples.y).sum()),
        near=int((ordered[:, -1] - ordered[:, -2] < A_TIE).sum()),
        loss=float(loss.mean()), slack=float(slack),
    )  # fmt: skip


def _losses(log_proba: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -log_proba[np.arange(len(y)), y]


def _round(values: np.ndarray, digits: str) -> np.ndarray:
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if not tensor.is_floating_point():
        return values
    return tensor.to(getattr(torch, digits)).to(tensor.dtype).numpy()
