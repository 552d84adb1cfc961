"""What was on screen, from human neurons, beside what a clock alone would say (11)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.special import expit

from nblib import models
from nblib.core import params as P
from nblib.core.errors import BadInput, BadParameter
from nblib.data import sources
from nblib.data.counts_dataset import areas_of, units_of
from nblib.data.counts_dataset import load as load_counts
from nblib.data.movie import NO_LABEL, check_label
from nblib.evaluate import states
from nblib.evaluate.result import Result, Row
from nblib.experiments.film import shipped, smoothing
from nblib.prepare import stored_splits
from nblib.prepare.continuous import film
from nblib.prepare.decoder_inputs import ROLES
from nblib.road.stage_registry import StageParams

if TYPE_CHECKING:
    import xarray as xr

    from nblib.core.params import Recipe
    from nblib.models.base import Decoder

CLOCK = "clock"
LINEAR_LABEL, LSTM_20 = "linear_label", "lstm_20"  # as published for SUMMER
SEEN = {LINEAR_LABEL: range(1), LSTM_20: range(-10, 10)}  # bins that they see, from the frame
SMOOTHED = " smoothed"
CHOSEN, CHOICE = "chosen", "choice"  # the decoder that validation bins choose; its name
NO_DECODER = ("trial", "segment", "label", CHOICE, "fold")  # columns of the table of answers
OVER = ("over_clock", "ci_low", "ci_high")  # how much more kappa a decoder has than the clock


class Params(P.Fit, StageParams):
    """Parameters of 11: which label, which decoders, what they see, and what stands beside them."""

    recipe: str = Field("movie_demo", description="recipe in params/recipes, or a path to one")
    recording: str = Field("p1", description="recording id of that recipe, a string")
    label_name: str = Field("", description="annotation to decode; empty = the recipe's")
    models: list[str] = Field(
        ["logistic"], min_length=1, description="decoders, see models; linear_label; lstm_20"
    )
    windows: list[list[float]] = Field(
        [[0.0, 0.5], [-0.5, 1.0], [-1.5, 1.0], [-3.0, 1.0]], min_length=1,
        description="windows from the frame [s]",
    )  # fmt: skip
    smooth: bool = Field(True, description="also smooth answers within segments")
    folds: list[int] = Field([], description="folds that judge, from 0; empty = all")
    leak: list[Annotated[float, Field(ge=0)]] = Field(
        [], description="buffers of the leak curve; 0 = bins dealt at random; empty = none [s]"
    )
    horizons_s: list[Annotated[float, Field(gt=0)]] = Field(
        [], description="how far ahead to forecast counts; empty = not [s]"
    )
    lags_s: list[float] = Field(
        [], description="spikes so long after the label, to see whether it is late; empty = not [s]"
    )
    tolerance_s: float = Field(
        0.0, ge=0, description="find the label's beginnings so near, as events; 0 = not [s]"
    )
    importance: bool = Field(False, description="what units and regions carry, by new fits")
    n_refits: int = Field(
        0,
        ge=0,
        le=10_000,
        description="labels moved round the film for p, by new fits; 0 = not [count]",
    )
    n_permutations: int = Field(200, ge=20, le=100_000, description="labels moved round [count]")
    n_bootstrap: int = Field(500, ge=100, le=100_000, description="bootstrap draws [count]")

    def check(self) -> None:
        """BadParameter for a decoder that is not there, windows that do not rise, and a fold asked for twice."""
        if len(set(self.folds)) < len(self.folds):
            raise BadParameter(f"folds = {self.folds}: a fold twice would count its bins twice.")
        for name in (name for name in self.models if name != LINEAR_LABEL):
            decoder_of(name, self)
            if name in models.ON_GRAPHS:
                raise BadParameter(f"models: {name!r} needs a graph; 11 takes the decoders of 05.")
        if any(len(window) != 2 or window[0] >= window[1] for window in self.windows):
            raise BadParameter(f"windows = {self.windows}: each needs a start before its stop.")


@dataclass(frozen=True)
class Film:
    """Counts (n, N) of the bins of a film, and what is known of each.

    y (n,) 0, 1 or 99 for no label; roles (fold, n); segment (n,); trial (n,): number of the bin;
    after_pause (n,): whether the film paused in it or just before; best (n,): what the best decoder
    says, None where it is not known.
    """

    counts: np.ndarray
    y: np.ndarray
    label_name: str
    roles: np.ndarray
    segment: np.ndarray
    trial: np.ndarray
    after_pause: np.ndarray
    unit_ids: np.ndarray
    areas: np.ndarray
    width_s: float
    split_hash: str
    settings: P.SplitSettings
    best: np.ndarray | None = None

    def rows(self, fold: int, role: str) -> np.ndarray:
        """Positions of the bins of one role that have a label, in the order of time."""
        return np.flatnonzero((self.roles[fold] == role) & (self.y != NO_LABEL))

    def table(self) -> pd.DataFrame:
        """Bins of each role that have a label, fold by fold, and the share of test bins that are on."""
        table = pd.DataFrame([{role: len(self.rows(fold, role)) for role in ROLES}
                              for fold in range(len(self.roles))])  # fmt: skip
        return table.assign(on=[self.y[self.rows(fold, "test")].mean() for fold in table.index])


def load_film(split: Path, counts: Path, recipe: Recipe, params: Params) -> Film:
    """The counts of 03 as the split of 04 deals them, with the annotation that is asked for.

    Raises BadParameter for counts of no film, an annotation or a fold that is not there, and a
    context wider than the split keeps free.
    """
    binned = load_counts(counts)
    if not film.is_film(binned):
        raise BadParameter(
            f"recipe {recipe.recipe!r}: its binning is {recipe.binning!r}, no film's."
        )
    name = params.label_name or recipe.label
    check_label(name, binned.name.values.tolist(), f"recording {params.recording!r}")
    width_s = film.bin_s(binned)
    windows = np.concatenate([windows_of(model, width_s, params) for model in params.models])
    (past, future), seen = recipe.context_s, (windows.min(), windows.max())
    if recipe.split == "segments" and (seen[0] < -past or seen[1] > future):
        raise BadParameter(
            f"windows reach from {seen[0]:g} to {seen[1]:g} s, but the split keeps {past:g} s before and "
            f"{future:g} s after a bin free (context_s): bins that teach would be seen by those that judge."
        )
    wide = seen[1] - seen[0] - width_s  # between two bins whose windows meet
    if recipe.split == "blocked" and wide > recipe.gap_s + 1e-9:
        raise BadParameter(
            f"windows reach from {seen[0]:g} to {seen[1]:g} s, but split: blocked keeps gap_s = {recipe.gap_s:g} s free "
            f"between roles: bins that teach would be seen by those that judge. Set gap_s: {math.ceil(wide)} or more."
        )
    roles, statistics = stored_splits.load(split)
    if unknown := set(params.folds) - set(range(len(statistics))):
        raise BadParameter(f"folds: {min(unknown)}: the split has {len(statistics)}, from 0.")
    folds = [part.set_index("trial").loc[binned.trial.values] for _, part in roles.groupby("fold")]
    y = binned.annotation.sel(name=name).values.astype(int)
    if not set(np.unique(y)) <= {0, 1, NO_LABEL}:
        raise BadParameter(f"annotation {name!r} is no state or event that is on (1) or off (0).")
    settings, trial = recipe.settings(P.SplitSettings), binned.trial.values
    _, segment = film.segment_roles(trial[-1] + 1, width_s, 0, settings)  # those of any split
    return Film(
        binned.counts.values[:, 0], y, name,
        np.array([part["dealt"] for part in folds]), segment[trial],
        trial, binned.after_pause.values, binned.unit.values,
        areas_of(units_of(binned)), width_s,
        stored_splits.split_hash(roles), settings, _best(binned, recipe, params.recording, name),
    )  # fmt: skip


def _best(binned: xr.Dataset, recipe: Recipe, recording: str, label: str) -> np.ndarray | None:
    """What the best decoder of these units says of each bin; None where the truth is not known."""
    oracle = sources.offered(recipe.source, "film_oracle")
    if oracle is None or recipe.frames_per_bin != 2 or np.diff(binned.trial.values).max() > 1:
        return None
    counts, exposure_s = binned.counts.values[:, 0], binned.exposure_s.values[:, 0]
    who = sources.own_settings(recipe), recording, binned.unit.values
    return oracle(*who, counts, exposure_s).get(label)


def decoder_of(name: str, params: Params) -> Decoder:
    """A decoder by its name, not fitted yet; BadParameter for one that is not there."""
    settings = params.model_dump(include={*P.Fit.model_fields}) | {"progress": False}
    if name != LSTM_20:
        return models.make(name, settings=settings)
    settings |= {"batch_size": 64, "learning_rate": 1e-3, "weight_decay": 0.0}
    sizes = {"hidden": 64, "dropout": 0.0, "input_dropout": 0.0, "linear": ""}
    return models.make("lstm", sizes, settings=settings | {"max_epochs": params.max_epochs or 20})


def windows_of(name: str, width_s: float, params: Params) -> list[list[float]]:
    """The windows from a frame [s] in which a decoder sees counts."""
    return [[k * width_s, (k + 1) * width_s] for k in SEEN.get(name, ())] or params.windows


def fitted(
    name: str, data: Film, fold: int, params: Params
) -> tuple[Decoder | shipped.LinearLabel, dict[str, np.ndarray]]:
    """A decoder fitted to the train bins of a fold, and what it sees of the bins of each role (B, T, N):
    the windows around them, scaled by train bins. BadInput where train bins are all alike."""
    rows = {role: data.rows(fold, role) for role in ROLES}
    y = {role: data.y[at] for role, at in rows.items()}
    if len(np.unique(y["train"])) < 2:
        raise BadInput(
            f"label {data.label_name!r}, fold {fold}: it never changes in train bins; take another label."
        )
    windows, at = windows_of(name, data.width_s, params), np.concatenate([*rows.values()])
    x = film.around(data.counts, data.trial, at, windows, data.width_s)
    ends = np.cumsum([len(rows[role]) for role in ROLES])
    x = dict(zip(ROLES, np.split(x, ends[:-1]), strict=True))
    if name == LINEAR_LABEL:
        net = shipped.LinearLabel(params.max_epochs or shipped.EPOCHS, params.seed)
        return net.fit(x["train"], y["train"]), x
    mean, scale = x["train"].mean(axis=0), x["train"].std(axis=0)
    for part in x.values():
        part -= mean
        part /= np.where(scale > 0, scale, 1)
    val = x["val"], y["val"]
    return decoder_of(name, params).fit(x["train"], y["train"], val, n_classes=2), x


def log_odds(name: str, data: Film, fold: int, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """What a decoder, fitted to the train bins of a fold, says of its validation and test bins (B,)."""
    decoder, x = fitted(name, data, fold, params)
    val, test = (decoder.predict_log_proba(x[role]) @ [-1, 1] for role in ("val", "test"))
    return val, test


def answers_of_fold(data: Film, fold: int, params: Params) -> pd.DataFrame:
    """A row a test bin of a fold: trial, segment, label, and by decoder the probability that it is on.

    The clock first, then every decoder as it is and smoothed within segments. `chosen` are the answers of
    the one with the lowest log-loss on validation bins, which `choice` names. Raises BadInput where
    train bins are all alike.
    """
    train, val, test = (data.rows(fold, role) for role in ROLES)
    said = {name: log_odds(name, data, fold, params) for name in params.models}
    y, time_s = data.y[train], data.trial * data.width_s
    answers = {
        "trial": data.trial[test], "segment": data.segment[test], "label": data.y[test],
        CLOCK: smoothing.clock(y, time_s[train], time_s[test]),
    }  # fmt: skip
    chain = smoothing.transitions(y, data.trial[train]), y.mean()
    losses = {}
    for name, (of_val, of_test) in said.items():
        losses[name] = smoothing.log_loss(data.y[val], expit(of_val))
        answers[name] = expit(of_test)
        if params.smooth:
            of_val = of_val, data.segment[val], *chain
            best, losses[name + SMOOTHED] = smoothing.best_temperature(*of_val, data.y[val])
            of_test = of_test, data.segment[test], *chain
            answers[name + SMOOTHED] = smoothing.smoothed(*of_test, best)
    choice = min(losses, key=losses.get)
    return pd.DataFrame(answers | {CHOSEN: answers[choice], CHOICE: choice, "fold": fold})


def judged(data: Film, params: Params) -> tuple[dict[str, states.Answers], pd.DataFrame]:
    """The answers of every decoder to the test bins of all folds, and the same as a table; "" is the
    best possible one, where it is known."""
    folds = params.folds or range(len(data.roles))
    table = pd.concat([answers_of_fold(data, f, params) for f in folds], ignore_index=True)
    said = {name: table[name].to_numpy() for name in table if name not in NO_DECODER}
    if data.best is not None:
        said[""] = data.best[np.searchsorted(data.trial, table["trial"])]
    y, *units = (table[name].to_numpy() for name in ("label", "segment", "fold"))
    if len(np.unique(y)) < 2:
        raise BadInput(
            f"label {data.label_name!r}: it never changes in the test bins of folds {list(folds)}; take more "
            "folds, or another label."
        )
    n_train = np.mean([len(data.rows(fold, "train")) for fold in folds])
    return {name: states.Answers(y, p, *units, n_train) for name, p in said.items()}, table


def decode(data: Film, params: Params) -> Result:
    """Scores of every decoder over the folds' test bins, beside the clock and the best possible.

    Tables: answers, a row a test bin; effective, how many bins each kappa is worth, and how much
    more it is than the clock's, with its interval.
    """
    answers, table = judged(data, params)
    best, draws = {}, (params.n_permutations, params.seed)
    if "" in answers:
        best, _ = states.state_scores(answers.pop(""), *draws)
    rows, effective = [], []
    for name, answer in answers.items():
        scores, n_effective = states.state_scores(answer, *draws)
        of = {"model": name, "variant": data.label_name}
        rows += [Row(f"{name}: {m}", s, best.get(m), of, m) for m, s in scores.items()]
        effective.append((name, len(table), n_effective, *answer.over(answers[CLOCK])))
    about = {
        "split_hash": data.split_hash, "label_name": data.label_name, "n_test": len(table),
        "n_units": data.counts.shape[1], "n_classes": 2,
    }  # fmt: skip
    effective = pd.DataFrame(effective, columns=["decoder", "n", "n_effective", *OVER])
    return Result(rows, about, {"answers": table, "effective": effective})
