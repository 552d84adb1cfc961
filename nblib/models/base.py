"""What every decoder inherits: scikit-learn's interface, its settings read and checked, plain files.

Shapes, everywhere: B presentations, T bins, N units, C classes.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin

from nblib.core import tensors
from nblib.core.errors import BadInput, BadParameter, CorruptArtifact
from nblib.models import CONFIG, WEIGHTS, FitSettings
from nblib.prepare.decoder_inputs import Samples

FORMAT = 1
_BESIDE = ("settings", "units", "scaling")  # what a decoder takes beside its hyper-parameters


class Decoder(ClassifierMixin, BaseEstimator):
    """Counts of one presentation in, log-probability of each class out; a scikit-learn classifier.

    Hyper-parameters are given by keyword. Their names, defaults and types are those of the keyword
    arguments of whatever does the work (see `source`), and `params` holds the values in force.

    After `fit`: `classes_` (C,), labels in the order of the columns of `predict_proba`; `history_`,
    a DataFrame with one row per epoch (or per strength tried): epoch, train_loss, val_loss [nats],
    val_accuracy [fraction]; `fitted`, plain values that say how the fit went, stored in config.json.

    Parameters
    ----------
    settings
        How to train: a dict of fields of `FitSettings`, or any object that has some of them.
        None means the model's own defaults (`training`).
    units : DataFrame
        Area and place of each unit, one row each, for decoders that look at them (graph "anatomy").
    scaling : (mean (N,), scale (N,))
        What made counts into x, for decoders that need counts; None where x holds counts.
    **params
        Hyper-parameters.
    """

    name: ClassVar[str]  # key in the registry
    title: ClassVar[str]  # name for people
    # Hyper-parameters in force where there is no validation to choose on.
    fixed: ClassVar[dict[str, Any]] = {}
    # Values of the fit settings that a caller left at None.
    training: ClassVar[dict[str, Any]] = {}
    # Hyper-parameters beside those of `source`, or with another default.
    more: ClassVar[dict[str, Any]] = {}
    is_network: ClassVar[bool] = False

    n_bins: int = 0
    n_units: int = 0
    n_classes: int = 0  # 0 = not fitted

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        kind = inspect.Parameter.KEYWORD_ONLY
        known = {**hyper_parameters(cls), **dict.fromkeys(_BESIDE)}  # for help() and the book
        parameters = [inspect.Parameter(n, kind, default=v) for n, v in known.items()]
        cls.__signature__ = inspect.Signature(parameters)

    def __init__(
        self, *, settings: Any = None, units: pd.DataFrame | None = None,
        scaling: tuple[np.ndarray, np.ndarray] | None = None, **params: Any,
    ):  # fmt: skip
        self.settings, self.units, self.scaling = settings, units, scaling
        self.params = check_params(type(self), params)
        self.fitted: dict[str, Any] = {}
        self.check()

    @classmethod
    def source(cls) -> Callable | None:
        """What has the hyper-parameters as keyword-only arguments: a solver, or a network."""
        return None

    def check(self) -> None:
        """Refuse hyper-parameters out of bounds: BadParameter."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Hyper-parameters in force, and what was given beside them."""
        return {**self.params, **{name: getattr(self, name) for name in _BESIDE}}

    def set_params(self, **params: Any) -> Decoder:
        """Change some of them; BadParameter as in the constructor."""
        for name in set(params) & set(_BESIDE):
            setattr(self, name, params.pop(name))
        self.params = check_params(type(self), {**self.params, **params})
        self.check()
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return bool(self.n_classes)

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        val: tuple[np.ndarray, np.ndarray] | None = None,
        *,
        n_classes: int | None = None,
        folder: Path | str | None = None,
        resume: Path | str = "",
        refit: bool = False,
    ) -> Decoder:
        """Learn from presentations and their labels; choose on `val`.

        Parameters
        ----------
        X : (B, T, N), or (B, N) for one bin.
        y : (B,) labels.
        val : X and y of presentations that choose the epoch or the strength. Without them nothing
            is chosen: the last epoch counts, and the strengths of `fixed`.
        n_classes : the labels are then 0 to n_classes - 1, and each must be there.
        folder : where checkpoints and logs go; None is a temporary folder.
        resume : "" starts afresh, "auto" goes on from the checkpoint in `folder` if there is one,
            a path goes on from that checkpoint.
        refit : after the choice learn again, from X and `val` together, with what was chosen (a
            strength, a number of epochs). `history_` tells of the choice. A score on `val` tells
            nothing any more.

        Raises
        ------
        BadInput
            One class only, a class without a row, a label that y does not have, other shapes in
            `val`, values that are not finite.
        BadParameter
            A setting that this machine or this decoder cannot take.
        """
        classes = np.unique(y) if n_classes is None else np.arange(n_classes)
        if len(classes) < 2:
            raise BadInput(f"{len(classes)} class in the train rows: decoding needs at least two.")
        train = _samples("train", X, y, classes)
        chooser = None if val is None else _samples("val", *val, classes, like=train)
        absent = np.setdiff1d(np.arange(len(classes)), train.y)
        if absent.size:
            raise BadInput(f"class {absent[0]} has no train presentation; make the split again.")
        settings = FitSettings.of(self.settings, self.training)
        self.n_bins, self.n_units = train.x.shape[1:]
        self.n_classes, self.classes_ = len(classes), classes
        self.history_ = self._fit(train, chooser, settings, folder=folder, resume=resume)
        if refit and chooser is not None:
            fitted, started = self.fitted, time.perf_counter()
            both = Samples.together([train, chooser])
            self._refit(both, settings)
            spent = fitted["fit_s"] + time.perf_counter() - started
            self.fitted = {**fitted, "refit": len(both), "fit_s": round(spent, 3)}
        return self

    def _fit(
        self, train: Samples, val: Samples | None, settings: FitSettings, **checkpoint: Any
    ) -> pd.DataFrame:
        raise NotImplementedError

    def _refit(self, both: Samples, settings: FitSettings) -> None:
        """Learn from `both` with what `_fit` chose."""
        raise NotImplementedError

    def _log_proba(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _weights(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    def predict_log_proba(self, X: np.ndarray) -> np.ndarray:
        """Log-probability of each class: X (B, T, N) -> (B, C) float64, rows sum to 1 in exp.

        Raises BadInput when X has another number of bins or units than the decoder was fitted on.
        """
        if not self.n_classes:
            raise BadParameter(f"this {self.name} is not fitted yet; call fit() or load().")
        x = _with_bins(X)
        if x.ndim != 3 or x.shape[1:] != (self.n_bins, self.n_units):
            raise BadInput(
                f"x has shape {x.shape}; this {self.name} was fitted on (presentations, "
                f"{self.n_bins} bins, {self.n_units} units)."
            )
        if not np.isfinite(x).all():
            raise BadInput("x holds NaN or infinite values; clean and scale it first.")
        return self._log_proba(x)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probability of each class, (B, C)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Most probable label: X (B, T, N) -> (B,)."""
        best = self.predict_log_proba(X).argmax(axis=1)
        return self.classes_[best]

    def config(self) -> dict[str, Any]:
        """What `load` needs beside the weights."""
        config = {
            "format": FORMAT,
            "model": self.name,
            "params": self.params,
            "n_bins": self.n_bins,
            "n_units": self.n_units,
            "n_classes": self.n_classes,
            "training": self.fitted,
        }
        if not np.array_equal(self.classes_, np.arange(self.n_classes)):
            config["classes"] = self.classes_.tolist()
        return config

    def save(self, folder: Path | str) -> None:
        """Write config.json and weights.safetensors: text and plain tensors, nothing that runs."""
        folder = Path(folder)
        files = folder / CONFIG, self.config(), folder / WEIGHTS, self._weights()
        tensors.write_weights(*files, indent=1)

    @classmethod
    def load(cls, folder: Path | str) -> Decoder:
        """Read what `save` wrote; CorruptArtifact when a file is missing, damaged or foreign."""
        config, path = read_config(Path(folder)), Path(folder) / WEIGHTS
        if config["model"] != cls.name:
            raise CorruptArtifact(f"{folder}: holds a {config['model']}, not a {cls.name}.")
        _, weights = tensors.read_weights(Path(folder) / CONFIG, path)
        try:
            return cls.restored(config, weights)
        except (KeyError, ValueError, RuntimeError) as error:
            raise CorruptArtifact(f"{path}: does not fit its {CONFIG} ({error}).") from None

    @classmethod
    def restored(cls, config: dict[str, Any], weights: dict[str, np.ndarray]) -> Decoder:
        """The fitted decoder that had this `config()` and these weights."""
        self = cls(**config["params"])
        self.n_bins, self.n_units = config["n_bins"], config["n_units"]
        self.n_classes, self.fitted = config["n_classes"], config["training"]
        self.classes_ = np.array(config.get("classes", range(self.n_classes)))
        self._set_weights(weights)
        return self


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a saved decoder, checked for what `load` needs."""
    path = folder / CONFIG
    config = tensors.read_values(path)
    missing = {"format", "model", "params", "n_bins", "n_units", "n_classes", "training"} - {
        *config
    }
    if missing or config["format"] != FORMAT:
        raise CorruptArtifact(
            f"{path}: expected format {FORMAT} with all its fields; "
            f"found format {config.get('format')}, missing {sorted(missing)}."
        )
    return config


def hyper_parameters(cls: type[Decoder]) -> dict[str, Any]:
    """Name -> default of every hyper-parameter of a decoder."""
    return {**keyword_defaults(cls.source()), **cls.more}


def keyword_defaults(function: Callable | None) -> dict[str, Any]:
    """Name -> default of the keyword-only arguments of a function or class."""
    parameters = inspect.signature(function).parameters.values() if function else ()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_params(cls: type[Decoder], values: dict[str, Any]) -> dict[str, Any]:
    """Defaults overridden by `given`; BadParameter lists the valid names when one is unknown."""
    valid = hyper_parameters(cls)
    unknown = sorted(set(values) - set(valid))
    if unknown:
        listed = ", ".join(f"{k} (default {v})" for k, v in valid.items())
        raise BadParameter(
            f"model_params of {cls.name}: unknown {', '.join(unknown)}; valid names: {listed}."
        )
    return {k: _typed(cls, k, values[k], v) if k in values else v for k, v in valid.items()}


def _typed(cls: type[Decoder], name: str, value: Any, default: Any) -> Any:
    """`value` as the type of `default`; a whole number may stand for a float, nothing else."""
    if isinstance(default, tuple) and isinstance(value, (list, tuple)) and value:
        typed = tuple(_typed(cls, name, v, default[0]) for v in value)
        same = isinstance(value, tuple) and all(a is b for a, b in zip(typed, value, strict=True))
        return value if same else typed  # scikit-learn's clone() asks for the very object back
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        kind = "non-empty list" if isinstance(default, tuple) else type(default).__name__
        raise BadParameter(
            f"model_params of {cls.name}: {name} = {value!r} must be of type {kind} "
            f"(default {default!r})."
        )
    return value


def require(condition: bool, model: Decoder, message: str) -> None:
    """Refuse hyper-parameters out of bounds: BadParameter with the values in force."""
    if not condition:
        raise BadParameter(f"model_params of {model.name}: {message}; given {model.params}.")


def _with_bins(x: np.ndarray) -> np.ndarray:
    """float32 (B, T, N); a matrix (B, N) is one bin."""
    x = np.asarray(x, dtype=np.float32)
    return x[:, None] if x.ndim == 2 else x


def _samples(
    role: str, x: np.ndarray, y: np.ndarray, classes: np.ndarray, like: Samples | None = None
) -> Samples:
    """Presentations with labels as class indices, checked; `like`: samples of the same shape."""
    x, y = np.ascontiguousarray(_with_bins(x)), np.asarray(y)
    samples = Samples(x, y, np.arange(len(y)))
    if len(samples) == 0:
        raise BadInput(f"no {role} presentations; make the split with more of them.")
    like = like or samples
    if x.shape[1:] != like.x.shape[1:] or 0 in x.shape:
        raise BadInput(f"{role} samples have shape {x.shape}, train has {like.x.shape}.")
    if not np.isfinite(x).all():
        raise BadInput(f"{role} samples hold NaN or infinite values; check the scaler.")
    index = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    if (unknown := classes[index] != y).any():
        if np.array_equal(classes, np.arange(len(classes))):
            raise BadInput(f"{role} labels must lie in 0..{len(classes) - 1}.")
        raise BadInput(
            f"{role} label {y[unknown].tolist()[0]!r} is not among those of the train rows."
        )
    return Samples(x, index, samples.trial)
