"""Train one decoder and judge it (05, 06): what the notebooks call, in the order they call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from nblib import models
from nblib.core import params as P
from nblib.core.errors import BadInput, BadParameter
from nblib.core.markup import in_markdown
from nblib.data import sources
from nblib.data.counts_dataset import areas_of, bin_stops, first_edge, units_of
from nblib.data.counts_dataset import load as load_counts
from nblib.evaluate import importance, stats
from nblib.evaluate.result import Result, Row
from nblib.evaluate.scores import accuracy_over_time, decoding_scores, predictions
from nblib.models import FitSettings, going_on
from nblib.prepare import stored_splits
from nblib.prepare.decoder_inputs import ROLES, Samples, role_samples, shuffle_labels
from nblib.road import notebook_code
from nblib.road.stage_registry import StageParams

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.base import Decoder


class Params(P.Judge, P.Fit, StageParams):
    """Parameters of 05: one decoder, one fold, one seed."""

    model: str = Field("lstm", description="decoder, a name in nblib.models.MODELS")
    model_params: dict[str, Any] = Field({}, description="overrides of the model's own settings")
    batch_size: int | None = Field(None, ge=1, description="None = the model's own [count]")
    learning_rate: float | None = Field(None, gt=0, description="None = the model's own")
    weight_decay: float | None = Field(None, ge=0, description="None = the model's own")
    patience: int | None = Field(None, ge=1, description="None = the model's own [epochs]")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field("32", description="arithmetic")
    logger: Literal["csv", "wandb"] = Field("csv", description="wandb is offline unless set up")
    importance: int = Field(
        300, ge=0, description="test presentations for the importance of units; 0 = none [count]"
    )
    areas: bool = Field(False, description="train again on each area alone and on all others")
    refit: bool = Field(False, description="after the choice, teach again with validation rows too")

    def check(self) -> None:
        """BadParameter for a decoder that is not there, or a setting that it does not take."""
        if self.model not in models.MODELS or self.model_params:
            make_decoder(self)

    def needs(self, recipe: Recipe) -> list[Params]:
        """The runs of an ensemble's members: its own parameters, another decoder."""
        names = make_decoder(self).params["members"] if self.model == "ensemble" else ()
        if names and self.refit:
            raise BadParameter("refit = true: validation rows weigh an ensemble; leave it out.")
        changes = {"model_params": {}, "areas": False}
        return [self.model_copy(update={"model": name, **changes}) for name in names]


class GraphParams(Params):
    """Parameters of 06: those of 05, and the graph of units."""

    model: Literal["st_gat", "st_gat_dynamic", "gat", "gcn"] = Field(
        "st_gat", description="decoder on a graph"
    )
    graph: Literal["full", "correlation", "learned", "anatomy"] | None = Field(
        None, description="who listens to whom; None = the model's own"
    )


@dataclass(frozen=True)
class Data:
    """Samples of one fold, and what is needed to read a decoder's answer.

    classes (C,): label of each class index; unit_ids (N,); units: one row each, with area, probe
    and place where known; scaling: mean and scale (N,) that made counts into x; stop_s (T,): end
    of each bin, seconds from the onset. group (B,): test presentations that hang together, blocks
    of time where labels come in runs (see `stored_splits.time_blocks`); None where each stands alone.
    """

    train: Samples
    val: Samples
    test: Samples
    classes: np.ndarray
    unit_ids: np.ndarray
    units: pd.DataFrame
    scaling: tuple[np.ndarray, np.ndarray]
    stop_s: np.ndarray
    label_name: str
    split_hash: str
    group: np.ndarray | None = None
    labels_in_runs: bool = False

    def table(self) -> pd.DataFrame:
        """Shape of the samples of each role."""
        rows = {role: getattr(self, role).x.shape for role in ROLES}
        return pd.DataFrame(rows, index=["presentations", "bins", "units"]).T

    @property
    def about(self) -> dict[str, Any]:
        """What a run says of its data; by the hash of their split runs are found and compared."""
        return {
            "split_hash": self.split_hash,
            "labels_in_runs": self.labels_in_runs,
            "n_test": len(self.test),
            "n_classes": len(self.classes),
            "n_units": self.test.x.shape[2],
            "n_bins": self.test.x.shape[1],
        }


def load_data(
    split: Path, counts: Path, recipe: Recipe, params: Params, every_unit: bool = False
) -> Data:
    """The counts of 03 cut and scaled as the split of 04 says, for the fold that is asked for.

    Parameters
    ----------
    split, counts
        Folders of the artifacts of 04 and 03.
    recipe
        Says where in a presentation the bins lie.
    params
        `fold`, and `shuffle_labels` with its `seed`: labels permuted within each role, the control
        that must score at chance.
    every_unit
        The counts of all units as they are, for who chooses and scales on fewer rows.

    Raises
    ------
    BadParameter
        For an unknown fold.
    BadInput
        Where areas are asked for and the units name fewer than two.
    """
    roles, fitted = stored_splits.load_fold(split, params.fold)
    binned = load_counts(counts)
    if getattr(params, "areas", False):  # now, not after hours of training
        known_areas(units_of(binned), params.recording)
    if every_unit:
        n = binned.sizes["unit"]
        as_they_are = {"mean": np.zeros(n), "scale": np.ones(n)}
        fitted = replace(fitted, unit_ids=binned["unit"].to_numpy(), **as_they_are)
    samples = role_samples(binned, roles, fitted, params.fold)
    length, group = stored_splits.time_blocks(roles)
    if params.shuffle_labels:
        samples = shuffle_labels(samples, params.seed)
    return Data(
        samples["train"],
        samples["val"],
        samples["test"],
        classes=fitted.classes,
        unit_ids=fitted.unit_ids,
        units=units_of(binned).loc[fitted.unit_ids],
        scaling=(fitted.mean, fitted.scale),
        stop_s=bin_stops(binned, recipe),
        label_name=binned.attrs["label_name"],
        split_hash=stored_splits.split_hash(roles),
        group=group.loc[samples["test"].trial].to_numpy(),
        labels_in_runs=length > 1,
    )


def trial(split: Path, counts: Path, recipe: Recipe, params: Params) -> dict[str, float]:
    """What validation rows say of these parameters: fitted to train rows alone, val_accuracy and val_loss.

    split, counts: folders of the artifacts of 04 and 03 (see `load_data`).
    """
    data = load_data(split, counts, recipe, params)
    decoder = make_decoder(params)
    settings = FitSettings.of(params, decoder.training, progress=False)
    decoder.set_params(settings=settings, units=data.units, scaling=data.scaling)
    val, n_classes = data.val, len(data.classes)
    decoder.fit(data.train.x, data.train.y, (val.x, val.y), n_classes=n_classes)
    log_proba = decoder.predict_log_proba(val.x)
    return {
        "val_loss": float(-log_proba[np.arange(len(val)), val.y].mean()),
        "val_accuracy": float((log_proba.argmax(axis=1) == val.y).mean()),
    }


def make_decoder(params: Params, members: Mapping[str, Path] | None = None) -> Decoder:
    """The decoder that the parameters name, not fitted yet; BadParameter for an unknown setting.

    members: of an ensemble, by name the folders of the runs that it rests on.
    """
    settings = dict(params.model_params)
    graph = getattr(params, "graph", None)
    if graph is not None and settings.setdefault("graph", graph) != graph:
        raise BadParameter(
            f"graph = {graph!r}, but model_params says {settings['graph']!r}; give it once."
        )
    decoder = models.make(params.model, settings)
    decoder.known = {name: models.load(folder) for name, folder in (members or {}).items()}
    return decoder


def fit(
    decoder: Decoder, data: Data, params: Params, folder: Path | None, **settings: Any
) -> pd.DataFrame:
    """Fit on train presentations, choose on validation; test presentations are not touched.

    With `refit`, validation presentations teach the chosen decoder too, once the choice is made.
    folder: of log and checkpoints; a run that was killed goes on (see `going_on`). settings: fields of
    `FitSettings` in place of the parameters'. Returns the history: one row an epoch, or a strength
    of regularisation.
    """
    settings = {"progress": notebook_code.is_interactive(), **settings}
    settings = FitSettings.of(params, decoder.training, **settings)
    decoder.set_params(settings=settings, units=data.units, scaling=data.scaling)
    val = (data.val.x, data.val.y)
    options = {"n_classes": len(data.classes), "folder": folder, "refit": params.refit}
    learn = partial(decoder.fit, data.train.x, data.train.y, val, **options)
    return going_on(learn, folder).history_


def evaluate(
    decoder: Decoder,
    data: Data,
    params: Params,
    history: pd.DataFrame,
    ideal: np.ndarray | None = None,
) -> Result:
    """Score a fitted decoder on the test presentations, once.

    history: of its fit, kept with the result; ideal: log-probabilities (B, C) of the best possible
    decoder, where they are known (see `ideal_observer`). Tables: predictions, accuracy_by_time,
    history, and where they are asked for importance_units, importance_bins (see `importance`) and
    importance_areas (see `by_area`).
    """
    log_proba = decoder.predict_log_proba(data.test.x)
    judge = resampling(params, data.group)
    scores = decoding_scores(data.test.y, log_proba, **judge)
    best = {} if ideal is None else decoding_scores(data.test.y, ideal, **judge)
    mean = data.train.x.mean(axis=0)
    over_time = accuracy_over_time(decoder, data.test, data.stop_s, mean, data.group)
    tables = {
        "predictions": predictions(data.test, log_proba, data.classes, data.group),
        "accuracy_by_time": over_time,
        "history": history,
        **importances(decoder, data.test, data, params),
    }
    if params.areas:
        tables["importance_areas"] = by_area(log_proba, data, params)
    val_accuracy = (decoder.predict(data.val.x) == data.val.y).mean()
    if params.refit:  # validation rows taught this decoder; what they said of it before counts
        val_accuracy = history.set_index("epoch")["val_accuracy"][decoder.fitted["best_epoch"]]
    about = {
        **data.about,
        "n_train": len(data.train),
        "n_val": len(data.val),
        "val_accuracy": float(val_accuracy),
        "fit_s": decoder.fitted["fit_s"],
        "device": decoder.fitted["device"],
    }
    rows = [Row(name, score, best.get(name)) for name, score in scores.items()]
    return Result(rows, about, tables, files=[decoder])


def resampling(params: Params, group: np.ndarray | None) -> dict[str, Any]:
    """How a score of the test presentations gets interval and p: arguments of `decoding_scores`."""
    return {"group": group, **params.model_dump(include={"n_permutations", "n_bootstrap", "seed"})}


def importances(
    decoder: Decoder, samples: Samples, data: Data, params: Params
) -> dict[str, pd.DataFrame]:
    """What a fitted decoder reads, by unit (with its area) and by bin (with its end [s]).

    See `importance`; empty when it is not asked for.
    """
    if not params.importance:
        return {}
    draws = {"most": params.importance, "n_bootstrap": params.n_bootstrap, "seed": params.seed}
    units = importance.by_unit(decoder, samples, group=data.group, **draws)
    units.insert(0, "unit", data.unit_ids)
    units.insert(1, "area", areas_of(data.units))
    bins = importance.by_bin(decoder, samples, group=data.group, **draws)
    bins.insert(0, "time", data.stop_s)
    return {"importance_units": units, "importance_bins": bins}


def by_area(log_proba: np.ndarray, data: Data, params: Params) -> pd.DataFrame:
    """The decoder trained again on each area alone, and on all but it; same presentations.

    log_proba: answer of the decoder of all units. One row an area and kind ("alone", "without";
    "all" for all units): n_units, value, ci_low, ci_high, chance, p, n of the test accuracy, and
    less, less_low, less_high: how much less it is than with all units, paired, with interval.
    Raises BadInput for a recording that names no area, or one only.
    """
    names = areas_of(data.units)
    known = known_areas(data.units, params.recording)
    device = models.device_of([params.model], params.device)
    judge = resampling(params, data.group)
    all_right = (log_proba.argmax(axis=1) == data.test.y).astype(float)

    def row(area: str, kind: str, n_units: int, log_proba: np.ndarray) -> dict[str, Any]:
        right = (log_proba.argmax(axis=1) == data.test.y).astype(float)
        d = stats.paired_difference(all_right, right, group=data.group)
        score = decoding_scores(data.test.y, log_proba, **judge)["accuracy"].fields()
        less = {"less": d.value, "less_low": d.ci_low, "less_high": d.ci_high}
        return {"area": area, "kind": kind, "n_units": n_units, **score, **less}

    rows = [row("", "all", len(names), log_proba)]
    for area in known:
        for kind, keep in (("alone", names == area), ("without", names != area)):
            part, decoder = of_units(data, keep), make_decoder(params)
            fit(decoder, part, params, None, progress=False, device=device)
            rows.append(row(area, kind, int(keep.sum()), decoder.predict_log_proba(part.test.x)))
    return pd.DataFrame(rows)


def known_areas(units: pd.DataFrame, recording: str) -> list[str]:
    """Areas of the units, at least two; BadInput otherwise."""
    known = sorted(set(areas_of(units)) - {""})
    if len(known) < 2:
        raise BadInput(
            f"areas = true: recording {recording!r} names {len(known)} area(s) for its units; "
            "at least two are needed. Leave it out."
        )
    return known


def of_units(data: Data, keep: np.ndarray) -> Data:
    """The same samples with some units only; keep (N,) bool."""
    samples = {role: getattr(data, role) for role in ROLES}
    roles = {role: replace(s, x=s.x[:, :, keep].copy()) for role, s in samples.items()}
    mean, scale = data.scaling
    return replace(
        data,
        **roles,
        unit_ids=data.unit_ids[keep],
        units=data.units[keep],
        scaling=(mean[keep], scale[keep]),
    )


def seen_window(data: Data, recipe: Recipe) -> tuple[float, float]:
    """The part of a presentation that the decoder's bins cover, seconds from its start."""
    if recipe.binning == "per_presentation":
        return 0.0, np.inf
    return max(0.0, first_edge(recipe)), float(data.stop_s[-1])


def ideal_observer(data: Data, recipe: Recipe, params: Params) -> np.ndarray | None:
    """Log-posterior of the test presentations under the truth (B, C); None where it is not known.

    Known for a simulated recording: the exact posterior given the spike times of the units that the
    decoder saw. It says nothing about permuted labels or another column than the image shown.
    """
    shown = (recipe.intervals, recipe.label) == ("natural_scenes_presentations", "frame")
    observer = sources.offered(recipe.source, "ideal_observer")
    if observer is None or not shown or params.shuffle_labels:
        return None
    if recipe.binning != "per_presentation" and recipe.event != "start_time":
        return None  # the decoder's window does not begin with the presentation
    seen = {"classes": data.classes, "window_s": seen_window(data, recipe)}
    log_proba, classes = observer(recipe, params.recording, data.test.trial, data.unit_ids, **seen)
    if not np.array_equal(classes, data.classes):
        raise BadInput(f"the truth of {params.recording} has other classes than the split.")
    return log_proba


def in_words(result: Result, data: Data, recipe: Recipe, model: str) -> str:
    """The result in a sentence: score, interval, chance, p and the best possible."""
    score = result.scores["accuracy"]
    best = pooled = ""
    if recipe.pseudo_population:
        pooled = (
            " Its units were pooled over sessions and never recorded together: what they share is "
            "the stimulus, not a moment's state, and a graph of them says nothing of joint firing."
        )
    if result.best:
        value = result.best["accuracy"].value
        best = f" The best possible decoder, which knows the truth, is right in {value:.1%}."
    if data.labels_in_runs and recipe.split == "random":
        best += f" **{stored_splits.RUNS_AND_RANDOM}**"
    return (
        f"**Result.** {model} names the right {in_markdown(data.label_name)} in {score.value:.1%} of "
        f"{score.n:,} test presentations (95 % interval {score.ci_low:.1%} to {score.ci_high:.1%}); "
        f"guessing would be right in {score.chance:.1%} (p = {score.p:.2g} by "
        f"{stats.null_of(data.group)}).{best}{pooled}"
    )
