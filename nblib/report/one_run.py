"""One run: its scores, its predictions and its model, read back from its folder."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nblib.core import params, store
from nblib.core.errors import BadInput, BadParameter, CorruptArtifact, MissingInput, NblibError
from nblib.evaluate.scores import METRICS, PREDICTIONS
from nblib.road import stages
from nblib.road.stage_registry import SPLIT

if TYPE_CHECKING:
    import xarray as xr

    from nblib.models.base import Decoder
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.stored_splits import TrainStatistics

HISTORY = "history.parquet"


class Fields(dict):
    """The fields of a stored file. One that is missing is the file's fault: CorruptArtifact."""

    def __init__(self, path: Path, values: dict[str, Any]):
        if not isinstance(values, dict):
            raise CorruptArtifact(f"{path}: holds no fields.")
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise CorruptArtifact(f"{self.path}: it has no field {name!r}.")


@dataclass(frozen=True)
class Run:
    """A finished training run: its scores, its predictions, and its model, ready to predict."""

    folder: Path
    manifest: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def key(self) -> str:
        return self.manifest["key"]

    @property
    def stage(self) -> str:
        return self.folder.parts[-3]

    @property
    def recordings(self) -> list[str]:
        """The recordings of the run: those of its cohort, or its own."""
        cohort = stages.STAGES[self.stage].cohort
        return self.manifest["recipe"]["recordings"] if cohort else [self.manifest["recording"]]

    @cached_property
    def splits(self) -> list[Path]:
        """Where the splits of its recordings lie; none where folds are of subjects."""
        if stages.STAGES[self.stage].upstream != SPLIT:
            return []
        pairs = zip(self.recordings, self.manifest["upstream"], strict=False)
        return [store.folder(SPLIT, recording, key) for recording, key in pairs]

    @cached_property
    def split(self) -> Path | None:
        """Where its split lies, of several recordings the first's; None where it has none."""
        return next(iter(self.splits), None)

    @property
    def results(self) -> list[dict[str, Any]]:
        """What metrics.json says of each result: one of 05 and 06, several of 07, 09 and 10."""
        rows = self.metrics.get("rows", [{}])
        return [Fields(self.metrics.path, self.metrics | one) for one in rows]

    def table(self, name: str, *columns: str) -> dict[str, np.ndarray] | None:
        """Columns of a table of the run (none named: all); None where the run holds no such table.

        Raises what `stored_table` raises.
        """
        outputs = self.manifest["outputs"]
        return stored_table(self.folder, name, outputs, *columns) if name in outputs else None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's name, hyper-parameters and shape, compared with the manifest."""
        path = self._file("config.json")
        text = stored_bytes(self.folder, path.name, self.manifest["outputs"])
        return Fields(path, json.loads(text))

    def _file(self, name: str) -> Path:
        """A file of the run; MissingInput for a run of 07, 09 or 10, which holds other things."""
        if name not in self.manifest["outputs"]:
            there = ", ".join(sorted(self.manifest["outputs"]))
            raise MissingInput(f"{self.folder}: this run has no {name}; it holds {there}.")
        return self.folder / name

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row a test presentation: trial, label, predicted, correct, rank, log_p_true."""
        return pd.read_parquet(self._file(PREDICTIONS))

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch: train_loss, val_loss [nats], val_accuracy [fraction]."""
        return pd.read_parquet(self._file(HISTORY))

    @cached_property
    def recipe(self) -> params.Recipe:
        values = _numbers(self.manifest["recipe"])
        return params.checked(params.Recipe, values, str(self.folder / store.MANIFEST))

    @cached_property
    def statistics(self) -> TrainStatistics:
        """Kept units, scaler and classes, fitted on this run's train rows; from its split."""
        from nblib.prepare import stored_splits

        recording, key = self.manifest["recording"], self.manifest["upstream"][0]
        place = store.folder(SPLIT, recording, key)
        if not store.is_committed(SPLIT, recording, key):
            raise MissingInput(
                f"run {self.key} scales its input as its split {place} says, which is gone. Make "
                f"it again with:  nblib run {SPLIT} --with-upstream "
                f"-p recipe {self.recipe.recipe} -p recording {recording}"
            )
        return stored_splits.load_fold(store.open_artifact(place), self.metrics["fold"])[1]

    @cached_property
    def model(self) -> Decoder | Multimodal:
        """The fitted decoder; of 12 the model of several sessions."""
        from nblib import models

        return models.load(self.folder)

    @property
    def classes(self) -> np.ndarray:
        """Labels in the order of the columns of `predict_log_proba`, (C,)."""
        return self.statistics.classes

    def predict_log_proba(
        self, x: xr.Dataset | np.ndarray, unit_ids: np.ndarray | None = None
    ) -> np.ndarray:
        """Log-probability of each class, (B, C) [nats].

        x: a binned Dataset, or counts (B, T, U) with the ids (U,) of their units. The counts are
        raw: the stored train statistics choose and scale the units. Raises BadInput when a unit
        or bin of the training data is missing.
        """
        if hasattr(x, "counts"):
            counts = x.counts.transpose("trial", "time", "unit").to_numpy()
            unit_ids = x.unit.to_numpy()
        else:
            counts = np.asarray(x)
            if unit_ids is None or counts.ndim != 3 or counts.shape[2] != len(unit_ids):
                what = "no unit_ids" if unit_ids is None else f"{len(unit_ids)} unit_ids"
                raise BadInput(
                    f"counts of shape {counts.shape} with {what}: expected (presentations, bins, "
                    "units) and one id for each unit."
                )
        return self.model.predict_log_proba(self.statistics.transform(counts, np.asarray(unit_ids)))

    def predict(self, x: xr.Dataset | np.ndarray, unit_ids: np.ndarray | None = None) -> np.ndarray:
        """Most probable label of each presentation, (B,); input as in `predict_log_proba`."""
        return self.classes[self.predict_log_proba(x, unit_ids).argmax(axis=1)]


def stored_bytes(folder: Path, name: str, outputs: dict[str, Any]) -> bytes:
    """A file of an artifact; outputs: those of its manifest, which says what it must hold.

    Raises MissingInput when it is gone, CorruptArtifact when its bytes changed.
    """
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError:
        data = None
    if data is None or name not in outputs:
        raise MissingInput(f"{folder / name}: the file is gone.")
    if hashlib.sha256(data).hexdigest() != outputs[name]["sha256"]:
        raise CorruptArtifact(f"{folder / name}: its bytes changed since it was written.")
    return data


def stored_table(
    folder: Path, name: str, outputs: dict[str, Any], *columns: str
) -> dict[str, np.ndarray]:
    """Columns (none named: all) of a Parquet file of an artifact, compared with its manifest.

    Raises what `stored_bytes` raises, and CorruptArtifact for a file that is no such table.
    """
    from pyarrow import ArrowInvalid, BufferReader, parquet

    data = stored_bytes(folder, name, outputs)
    try:
        file = parquet.ParquetFile(BufferReader(data))
        if missing := set(columns) - set(file.schema_arrow.names):
            raise CorruptArtifact(f"{folder / name}: it has no column {min(missing)!r}.")
        table = file.read([*columns] or None, use_threads=False)
    except ArrowInvalid as error:
        raise CorruptArtifact(f"{folder / name}: not readable as a table ({error}).") from None
    return {c: table.column(c).to_numpy() for c in columns or table.column_names}


def read_run(folder: Path) -> Run:
    """What a run says of itself; its metrics.json is compared with the manifest.

    The list of installed packages, most of a manifest, is left out. Raises what `stored_bytes`
    raises, BadInput for an artifact that is no run.
    """
    manifest = Fields(folder / store.MANIFEST, store.read_manifest(folder))
    manifest.pop("packages", None)
    if METRICS not in manifest["outputs"]:
        raise BadInput(f"{folder}: an artifact of {manifest['stage']}, not a run (no {METRICS}).")
    text = stored_bytes(folder, METRICS, manifest["outputs"])
    try:
        return Run(folder, manifest, Fields(folder / METRICS, json.loads(text)))
    except ValueError as error:
        raise CorruptArtifact(f"{folder / METRICS}: not readable ({error}).") from None


@dataclass(frozen=True)
class Unreadable:
    """A run whose files cannot be read: what reading raised, and its recipe where that is known."""

    folder: Path
    error: Exception
    recipe: dict[str, Any]


@contextlib.contextmanager
def nothing_to_free() -> Iterator[None]:
    """For work that reads very much and keeps it: Python would look through all of it again and again
    for what can be freed, a fifth of the time that 2,000 runs take."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@nothing_to_free()
def read_all() -> list[Run | Unreadable]:
    """Every run of the data root, each read once; reports, which hold no scores, are left out."""
    runs: list[Run | Unreadable] = []
    for folder in store.artifacts():
        stage = stages.STAGES.get(folder.parts[-3])
        if stage is None or not stage.is_run or stage.upstream is None:
            continue
        try:
            runs.append(read_run(folder))
        except (NblibError, OSError) as error:
            runs.append(Unreadable(folder, error, _recipe_of(folder)))
    return runs


def _recipe_of(folder: Path) -> dict[str, Any]:
    try:
        return store.read_manifest(folder).get("recipe") or {}
    except (NblibError, OSError):
        return {}


def load_run(run: str | Path) -> Run:
    """A run by its folder, its key (or a unique beginning of it, 4 digits or more), or recording/key.

    Every file is checked against the manifest: CorruptArtifact for changed bytes, MissingInput
    when there is no such run, BadParameter when the beginning fits several.
    """
    folder = Path(run).expanduser()
    if not folder.is_dir():
        folder = _by_key(str(run))
    return read_run(store.open_artifact(folder))


def _by_key(key: str) -> Path:
    runs = [f for f in store.artifacts() if (f / METRICS).is_file() and len(key) >= 4]
    matches = [f for f in runs if f.name.startswith(key) or "/".join(f.parts[-2:]) == key]
    if not matches:
        raise MissingInput(
            f"no run {key!r} in {store.home()}; `nblib results` lists the runs there are."
        )
    if len({f.parts[-2:] for f in matches}) > 1:
        names = ", ".join(f.name for f in matches)
        raise BadParameter(f"run {key!r} could be {names}; give more digits, or recording/key.")
    return matches[0]


def _numbers(value: Any) -> Any:
    """Undo JSON's lack of infinity in a stored recipe."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    return float(value) if value in ("inf", "-inf") else value
