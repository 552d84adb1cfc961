"""Several sessions of one task as arrays: counts, further signals and variables of each trial, and its role."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, BadParameter, some
from nblib.core.params import Recipe
from nblib.data.counts_dataset import areas_of, load, units_of
from nblib.data.trials import labelling
from nblib.prepare import stored_splits

PER_TRIAL = ("counts", "signals", "variables", "role", "trial")


@dataclass(frozen=True)
class Session:
    """One session; K trials, T bins, N units, S signals, Q variables.

    counts (K, T, N) float32; roots: mean and scale (N,) of their roots in train trials; signals (K, T, S) float32, z-scored by mean (S,) and scale (S,) of train trials; variables (K, Q):
    index of the class; role (K,); trial (K,): its number in the recording; area (N,), unit_ids (N,); left_out:
    trials in which a signal or variable is missing. `signal_names` and `classes` (name -> (C,)) are the same
    in all sessions of a recipe.
    """

    name: str
    counts: np.ndarray
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

    @cached_property
    def x(self) -> np.ndarray:
        """Roots of counts (K, T, N), centred and scaled for each unit by `roots`; float32."""
        mean, scale = self.roots
        return ((np.sqrt(self.counts) - mean) / scale).astype(np.float32)

    @property
    def behaviour(self) -> tuple[str, ...]:
        """Names of all signals and variables."""
        return (*self.signal_names, *self.classes)

    def rows(self, role: str) -> np.ndarray:
        """Positions of the trials of one role, in the order of time."""
        return np.flatnonzero(self.role == role)

    @property
    def known(self) -> np.ndarray:
        """Positions of the trials that are not for testing, in the order of time."""
        return np.flatnonzero(np.isin(self.role, ("train", "val")))

    def signal(self, name: str) -> np.ndarray:
        """One signal in all trials (K, T)."""
        return self.signals[..., self.signal_names.index(name)]

    def variable(self, name: str) -> np.ndarray:
        """The class of each trial (K,), of one variable."""
        return self.variables[:, list(self.classes).index(name)]

    def one_hot(self, name: str) -> np.ndarray:
        """1 for the class of each trial, of one variable, 0 for its others: (K, C)."""
        return np.eye(len(self.classes[name]))[self.variable(name)]

    def at(self, rows: np.ndarray | slice) -> Session:
        """Some of its trials."""
        return replace(self, **{name: getattr(self, name)[rows] for name in PER_TRIAL})


def root_scaling(counts: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (N,) of the roots of counts (K, T, N) in the trials `train`.

    The scale is halfway from one of all units to their own: a unit that fires little says little, and would be
    mostly noise if it were made as large as the others.
    """
    roots = np.sqrt(counts[train])
    spread = roots.std(axis=(0, 1)) + 0.05
    return roots.mean(axis=(0, 1)), np.sqrt(spread * spread.mean())


def with_roles(session: Session, role: np.ndarray) -> Session:
    """A session whose trials have other roles (K,), scaled by its train trials alone."""
    fit = np.flatnonzero(role == "train")
    signals = session.signals * session.scale + session.mean
    mean, scale = signals[fit].mean(axis=(0, 1)), signals[fit].std(axis=(0, 1))
    scale = np.where(scale > 0, scale, 1.0)
    return replace(
        session,
        roots=root_scaling(session.counts, fit),
        mean=mean,
        scale=scale,
        role=role,
        signals=((signals - mean) / scale).astype(np.float32),
    )


def load_sessions(
    split: list[Path], counts: list[Path], recipe: Recipe, fold: int
) -> list[Session]:
    """The sessions of a recipe, from their artifacts of 04 and 03.

    Raises BadParameter for a fold or a variable that is not there, and where sessions have other signals
    or bins; BadInput where no trial of a role has all of them, for one that never changes in training trials, and
    for a class that none of these has.
    """
    loaded: list[tuple[Session, dict[str, np.ndarray]]] = []
    for paths in zip(split, counts, strict=True):
        order = loaded[0][0].signal_names if loaded else ()
        loaded.append(_load(*paths, recipe, fold, order))
    first, sessions = loaded[0][0], []
    for one, values in loaded:
        for what, of_first, of_one in (
            ("signal names", first.signal_names, one.signal_names),
            ("bins", _bins(first), _bins(one)),
            ("variables that are text", *map(_texts, (loaded[0][1], values))),
        ):
            if of_first != of_one:
                raise BadParameter(
                    f"recordings {first.name!r} and {one.name!r} differ in their {what}: {of_first} and {of_one}. One "
                    "model needs them alike: mend one, or leave one out of `recordings`."
                )
    classes = {}
    for name in recipe.variables:
        seen = [values[name][one.role == "train"] for one, values in loaded]
        classes[name] = np.unique(np.concatenate(seen))
        if len(classes[name]) < 2:
            raise BadInput(
                f"variable {name!r} never changes in training trials; nothing to decode. Leave it out of `variables`."
            )
    for one, values in loaded:
        for q, (name, known) in enumerate(classes.items()):
            unseen = ~np.isin(values[name], known)
            if unseen.any():
                raise BadInput(
                    f"recording {one.name!r}: {name} = {some(np.unique(values[name][unseen]))} is in no training trial "
                    "of any session; leave such trials out with `where`, or it out of `variables`."
                )
            one.variables[:, q] = np.searchsorted(known, values[name])
        sessions.append(replace(one, classes=classes))
    return sessions


def _bins(session: Session) -> str:
    return f"{session.counts.shape[1]} of {session.bin_s:.4g} s"


def _texts(values: dict[str, np.ndarray]) -> list[str]:
    return [name for name, column in values.items() if column.dtype.kind == "U"]


def _load(
    split: Path, counts: Path, recipe: Recipe, fold: int, order: tuple[str, ...]
) -> tuple[Session, dict[str, np.ndarray]]:
    """One session, its variables still 0 and without classes, and the values of its variables; its signals in
    this order, if it has these."""
    binned, (roles, fitted) = load(counts), stored_splits.load_fold(split, fold)
    name = binned.attrs["recording"]
    if fitted.signals.empty and not recipe.variables:
        raise BadParameter(
            f"recipe {recipe.recipe!r} names no signals and no variables; say in the recipe what to decode."
        )
    role = stored_splits.roles_of(roles, fold, binned.trial.values)
    binned, scaling = binned.sel(unit=fitted.unit_ids), fitted.signals.set_index("name")
    names = order if set(order) == set(scaling.index) else tuple(scaling.index)
    # Of a file, signals may also be whole numbers, or yes and no.
    signals = np.zeros((*binned.counts.shape[:2], len(names)))
    for s, signal in enumerate(names):
        signals[..., s] = binned[signal].values
    known, values = dict(zip(names, np.isfinite(signals).all(axis=1).T, strict=True)), {}
    for variable in recipe.variables:
        if variable not in binned.coords or binned[variable].dims != ("trial",):
            raise BadParameter(f"variables: {variable!r} is no column of the trials of {name!r}.")
        values[variable] = column = labelling.as_array(binned[variable].values)
        text = column.dtype.kind == "U"
        known[variable] = (column != "") if text else np.isfinite(column.astype(float))
    whole = np.all(list(known.values()), axis=0)
    for needed in ("train", "val", "test"):
        if needed not in role[whole]:
            rows = role == needed
            n_known = {what: int(where[rows].sum()) for what, where in known.items()}
            least, n = min(n_known, key=n_known.get), int(rows.sum())
            why = f"{least!r} is known in {n_known[least]} of {n}. Leave it"
            if n_known[least]:  # each is known in some, so none of them is at fault alone
                partly = [f"{what!r} in {k}" for what, k in n_known.items() if k < n]
                why = f"known in some of {n} are {', '.join(partly)}, never all together. Leave one"
            raise BadInput(
                f"recording {name!r}: no trial for {needed} has all signals and variables; {why} out of the recipe, "
                "or this recording out of `recordings`."
            )
    role = role[whole]
    still = np.ptp(signals[whole][role == "train"], axis=(0, 1)) == 0
    if still.any():
        raise BadInput(
            f"recording {name!r}: signal {names[still.argmax()]!r} never changes in training trials; leave it out "
            "of `signals` (of the file, where that is binned already), or this recording out of `recordings`."
        )
    spikes = binned.counts.values[whole].astype(np.float32)
    mean, scale = (scaling.loc[[*names], column].to_numpy(float) for column in ("mean", "scale"))
    session = Session(
        name=name,
        counts=spikes,
        roots=root_scaling(spikes, np.flatnonzero(role == "train")),
        mean=mean,
        scale=scale,
        signals=((signals[whole] - mean) / scale).astype(np.float32),
        role=role,
        trial=binned.trial.values[whole],
        variables=np.zeros((len(role), len(values)), np.int64),
        area=areas_of(units_of(binned)),
        unit_ids=fitted.unit_ids,
        signal_names=names,
        classes={},
        bin_s=float(np.median(binned.exposure_s.values)),
        split_hash=stored_splits.split_hash(roles),
        left_out=int((~whole).sum()),
    )
    return session, {variable: column[whole] for variable, column in values.items()}


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
        about = {"session": one.name, "units": len(one.unit_ids), "areas": areas}
        rows.append(about | roles | {"left out": one.left_out})
    return pd.DataFrame(rows)
