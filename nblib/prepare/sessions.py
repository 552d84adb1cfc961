"""Several sessions of one task as arrays: counts, further signals and variables of each trial, and its role."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, BadParameter, some
from nblib.core.params import Recipe
from nblib.data.counts_dataset import areas_of, load, units_of
from nblib.data.trials import labelling
from nblib.prepare import splits


@dataclass(frozen=True)
class Session:
    """One session; K trials, T bins, N units, S signals, Q variables.

    counts (K, T, N) float32; x (K, T, N): roots of counts, z-scored by `roots`, mean and scale (N,) of train
    trials; signals (K, T, S) float32, z-scored by mean (S,) and scale (S,) of train trials; variables (K, Q): index of the class; role (K,); trial (K,): its
    number in the recording; area (N,), unit_ids (N,); left_out: trials in which a signal or variable is
    missing. `signal_names` and `classes` (name -> (C,)) are the same in all sessions of a recipe.
    """

    name: str
    counts: np.ndarray
    x: np.ndarray
    roots: tuple[np.ndarray, np.ndarray]
    signals: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    variables: np.ndarray
    role: np.ndarray
    trial: np.ndarray
    area: np.ndarray
    unit_ids: np.ndarray
    signal_names: tuple[str, ...]
    classes: dict[str, np.ndarray]
    bin_s: float
    split_hash: str
    left_out: int

    def rows(self, role: str) -> np.ndarray:
        """Positions of the trials of one role, in the order of time."""
        return np.flatnonzero(self.role == role)


def root_scaling(counts: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (N,) of the roots of counts (K, T, N) in the trials `train`."""
    roots = np.sqrt(counts[train])
    return roots.mean(axis=(0, 1)), roots.std(axis=(0, 1)) + 0.05


def scaled(counts: np.ndarray, scaling: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Roots of counts (K, T, N), z-scored for each unit; float32."""
    mean, scale = scaling
    return ((np.sqrt(counts) - mean) / scale).astype(np.float32)


def load_sessions(
    split: list[Path], counts: list[Path], recipe: Recipe, fold: int
) -> list[Session]:
    """The sessions of a recipe, from their artifacts of 04 and 03.

    Raises BadParameter for a fold or a variable that is not there, and where sessions have other signals
    or bins; BadInput where no trial of a role has all of them, and for a class that no training trial has.
    """
    parts = [_load(*paths, recipe, fold) for paths in zip(split, counts, strict=True)]
    classes = {}
    for q, name in enumerate(recipe.variables):
        seen = [part["values"][q][part["role"] == "train"] for part in parts]
        classes[name] = np.unique(np.concatenate(seen))
        if len(classes[name]) < 2:
            raise BadInput(
                f"variable {name!r} never changes in training trials; nothing to decode."
            )
    first, sessions = dict(parts[0]), []
    for part in parts:
        for what in ("signal_names", "bins"):
            if part[what] != first[what]:
                raise BadParameter(
                    f"recordings {first['name']!r} and {part['name']!r} differ in their {what.replace('_', ' ')}: "
                    f"{first[what]} and {part[what]}."
                )
        codes = []
        for (name, known), values in zip(classes.items(), part.pop("values"), strict=True):
            unseen = ~np.isin(values, known)
            if unseen.any():
                raise BadInput(
                    f"recording {part['name']!r}: {name} = {some(values[unseen])} is in no training trial of any "
                    "session; leave such trials out with `where`."
                )
            codes.append(np.searchsorted(known, values))
        part.pop("bins")
        variables = np.array(codes, np.int64).reshape(len(codes), len(part["role"])).T
        sessions.append(Session(variables=variables, classes=classes, **part))
    return sessions


def _load(split: Path, counts: Path, recipe: Recipe, fold: int) -> dict:
    """What `Session` holds of one session, its variables as `values`, and its number of `bins`."""
    binned, (roles, statistics) = load(counts), splits.load(split)
    name = binned.attrs["recording"]
    if fold >= len(statistics):
        raise BadParameter(f"fold = {fold}: the split of {name!r} has {len(statistics)}, from 0.")
    fitted = statistics[fold]
    if fitted.signals.empty and not recipe.variables:
        raise BadParameter(
            f"recipe {recipe.recipe!r} names no signals and no variables; say in the recipe what to decode."
        )
    for variable in recipe.variables:
        if variable not in binned.coords or binned[variable].dims != ("trial",):
            raise BadParameter(f"variables: {variable!r} is no column of the trials of {name!r}.")
    role = roles[roles["fold"] == fold].set_index("trial")["role"].loc[binned.trial.values]
    binned = binned.sel(unit=fitted.unit_ids)
    signals = np.stack([binned[s].values for s in fitted.signals["name"]], axis=-1) \
        if len(fitted.signals) else np.zeros((*binned.counts.shape[:2], 0))  # fmt: skip
    whole = np.isfinite(signals).all(axis=(1, 2))
    values = []
    for variable in recipe.variables:
        column = labelling.as_array(binned[variable].values)
        whole &= (column != "") if column.dtype.kind == "U" else np.isfinite(column.astype(float))
        values.append(column)
    role = role.to_numpy(str)
    for needed in ("train", "val", "test"):
        if not (whole & (role == needed)).any():
            raise BadInput(
                f"recording {name!r}: no trial for {needed} has all signals and variables."
            )
    spikes = binned.counts.values[whole].astype(np.float32)
    roots = root_scaling(spikes, np.flatnonzero(role[whole] == "train"))
    mean, scale = (fitted.signals[name].to_numpy(float) for name in ("mean", "scale"))
    z = (signals[whole] - mean) / scale
    return {
        "name": name, "counts": spikes, "x": scaled(spikes, roots), "roots": roots,
        "signals": z.astype(np.float32), "mean": mean, "scale": scale, "values": [v[whole] for v in values], "role": role[whole],
        "trial": binned.trial.values[whole], "area": areas_of(units_of(binned)), "unit_ids": fitted.unit_ids,
        "signal_names": tuple(fitted.signals["name"]), "bins": binned.sizes["time"],
        "bin_s": float(np.median(binned.exposure_s.values)), "split_hash": splits.split_hash(roles),
        "left_out": int((~whole).sum()),
    }  # fmt: skip


def shuffled(session: Session, seed: int) -> Session:
    """The control: signals and variables of other trials of the same role, so that spikes tell nothing of them."""
    order, rng = np.arange(len(session.role)), np.random.default_rng([seed, 20240])
    for role in np.unique(session.role):
        order[session.rows(role)] = rng.permutation(session.rows(role))
    return replace(session, signals=session.signals[order], variables=session.variables[order])


def table(sessions: list[Session]) -> pd.DataFrame:
    """One row a session: units, areas, trials of each role, and those left out."""
    rows = []
    for one in sessions:
        roles = {role: int((one.role == role).sum()) for role in ("train", "val", "test", "gap")}
        areas = ", ".join(sorted(set(one.area) - {""}))
        rows.append({"session": one.name, "units": len(one.unit_ids), "areas": areas, **roles,
                     "left out": one.left_out})  # fmt: skip
    return pd.DataFrame(rows)
