"""What every decoder shares: checked hyper-parameters, one signature, plain files on disk.

Shapes, everywhere: B presentations, T bins, N units, C classes.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, BadParameter, CorruptArtifact
from nblib.prepare.samples import Samples

CONFIG, WEIGHTS = "config.json", "weights.safetensors"
FORMAT = 1


class Decoder:
    """Counts of one presentation in, log-probability of each class out.

    The keyword arguments of a subclass's constructor are its hyper-parameters: names and types
    are checked against that signature, and `params` holds the values in force.
    """

    name: ClassVar[str]  # key in the registry
    title: ClassVar[str]  # name for people
    # Hyper-parameters in force where there is no validation to choose on.
    fixed: ClassVar[dict[str, Any]] = {}
    # Values of the fit settings that a caller left at None.
    training: ClassVar[dict[str, Any]] = {}

    params: dict[str, Any]
    n_bins: int = 0
    n_units: int = 0
    n_classes: int = 0  # 0 = not fitted
    units: pd.DataFrame | None = None  # area and place of each unit, for those that look at them
    # Mean and scale (N,) that made counts into x, for those that need counts.
    scaling: tuple[np.ndarray, np.ndarray] | None = None
    fitted: dict[str, Any]  # how the fit went: plain values, stored in config.json

    def __new__(cls, **params):
        self = super().__new__(cls)
        self.params = check_params(cls, params)
        self.fitted = {}
        return self

    def fit(
        self,
        train: Samples,
        val: Samples | None,
        *,
        n_classes: int,
        settings: Any = None,
        folder: Path | str | None = None,
        resume: Path | str = "",
    ) -> pd.DataFrame:
        """Learn from `train`, choose on `val`; return one row per epoch (or per strength tried).

        Without `val` nothing is chosen: the last epoch counts, and the first strength.

        settings: any object with the fit settings of `TrainParams` as attributes; a missing one
        or None means the model's own default. folder: where checkpoints and logs go (None: a
        temporary folder). resume: "" starts afresh, "auto" goes on from the checkpoint in
        `folder` if there is one, a path goes on from that checkpoint.
        Columns returned: epoch, train_loss, val_loss [nats], val_accuracy [fraction].
        """
        check_samples(train, val, n_classes)
        self.n_bins, self.n_units = train.x.shape[1:]
        self.n_classes = int(n_classes)
        return self._fit(train, val, settings, folder, resume)

    def _fit(
        self, train: Samples, val: Samples | None, settings: Any, folder: Any, resume: Any
    ) -> pd.DataFrame:
        raise NotImplementedError

    def _log_proba(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _weights(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    def predict_log_proba(self, x: np.ndarray) -> np.ndarray:
        """Log-probability of each class: x (B, T, N) -> (B, C) float64, rows sum to 1 in exp.

        Raises BadInput when x has another number of bins or units than the decoder was fitted on.
        """
        if not self.n_classes:
            raise BadParameter(f"this {self.name} is not fitted yet; call fit() or load().")
        x = np.asarray(x, dtype=np.float32)
        if x.ndim != 3 or x.shape[1:] != (self.n_bins, self.n_units):
            raise BadInput(
                f"x has shape {x.shape}; this {self.name} was fitted on (presentations, "
                f"{self.n_bins} bins, {self.n_units} units)."
            )
        if not np.isfinite(x).all():
            raise BadInput("x holds NaN or infinite values; clean and scale it first.")
        return self._log_proba(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Most probable class index: x (B, T, N) -> (B,)."""
        return self.predict_log_proba(x).argmax(axis=1)

    def config(self) -> dict[str, Any]:
        """What `load` needs beside the weights."""
        return {
            "format": FORMAT,
            "model": self.name,
            "params": self.params,
            "n_bins": self.n_bins,
            "n_units": self.n_units,
            "n_classes": self.n_classes,
            "training": self.fitted,
        }

    def save(self, folder: Path | str) -> None:
        """Write config.json and weights.safetensors: text and plain tensors, nothing that runs."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.config(), indent=1, allow_nan=False)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_file(
            {k: np.ascontiguousarray(v) for k, v in self._weights().items()}, folder / WEIGHTS
        )

    @classmethod
    def load(cls, folder: Path | str) -> Decoder:
        """Read what `save` wrote; CorruptArtifact when a file is missing, damaged or foreign."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        config = read_config(Path(folder))
        path = Path(folder) / WEIGHTS
        if config["model"] != cls.name:
            raise CorruptArtifact(f"{path.parent}: holds a {config['model']}, not a {cls.name}.")
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CorruptArtifact(f"{path}: not readable as safetensors ({error}).") from None
        self = cls(**config["params"])
        self.n_bins, self.n_units = config["n_bins"], config["n_units"]
        self.n_classes, self.fitted = config["n_classes"], config["training"]
        try:
            self._set_weights(weights)
        except (KeyError, ValueError, RuntimeError) as error:
            raise CorruptArtifact(f"{path}: does not fit its {CONFIG} ({error}).") from None
        return self


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a saved decoder, checked for what `load` needs."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        missing = {"format", "model", "params", "n_bins", "n_units", "n_classes", "training"} - set(
            config
        )
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{path}: not a readable decoder description ({error}).") from None
    if missing or config["format"] != FORMAT:
        raise CorruptArtifact(
            f"{path}: expected format {FORMAT} with all its fields; "
            f"found format {config.get('format')}, missing {sorted(missing)}."
        )
    return config


def hyper_parameters(cls: type[Decoder]) -> dict[str, Any]:
    """Name -> default of every hyper-parameter: the constructor's signature."""
    signature = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}


def check_params(cls: type[Decoder], given: dict[str, Any]) -> dict[str, Any]:
    """Defaults overridden by `given`; BadParameter lists the valid names when one is unknown."""
    valid = hyper_parameters(cls)
    unknown = sorted(set(given) - set(valid))
    if unknown:
        listed = ", ".join(f"{k} (default {v})" for k, v in valid.items())
        raise BadParameter(
            f"model_params of {cls.name}: unknown {', '.join(unknown)}; valid names: {listed}."
        )
    return {k: _typed(cls, k, given[k], v) if k in given else v for k, v in valid.items()}


def _typed(cls: type[Decoder], name: str, value: Any, default: Any) -> Any:
    """`value` as the type of `default`; a whole number may stand for a float, nothing else."""
    if isinstance(default, tuple) and isinstance(value, (list, tuple)) and value:
        return tuple(_typed(cls, name, v, default[0]) for v in value)
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


def require_shares(model: Decoder, *names: str) -> None:
    """Refuse dropout shares outside [0, 1)."""
    for name in names:
        require(0 <= model.params[name] < 1, model, f"0 <= {name} < 1 needed")


def check_samples(train: Samples, val: Samples | None, n_classes: int) -> None:
    """Refuse what no decoder can be fitted on, before any time is spent.

    Raises BadInput: one class only, a class without train rows, a label out of range, other
    shapes in train and validation, values that are not finite.
    """
    if n_classes < 2:
        raise BadInput(f"{n_classes} class in the train rows: decoding needs at least two.")
    for role, samples in (("train", train), ("val", val)):
        if samples is None:
            continue
        if len(samples) == 0:
            raise BadInput(f"no {role} presentations; make the split with more of them.")
        if samples.x.shape[1:] != train.x.shape[1:] or 0 in samples.x.shape:
            raise BadInput(
                f"{role} samples have shape {samples.x.shape}, train has {train.x.shape}."
            )
        if not np.isfinite(samples.x).all():
            raise BadInput(f"{role} samples hold NaN or infinite values; check the scaler.")
        if samples.y.min() < 0 or samples.y.max() >= n_classes:
            raise BadInput(f"{role} labels must lie in 0..{n_classes - 1}.")
    absent = np.setdiff1d(np.arange(n_classes), train.y)
    if absent.size:
        raise BadInput(f"class {absent[0]} has no train presentation; make the split again.")
