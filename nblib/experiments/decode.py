"""One training run from its input to its artifact: what 05 calls, in the order it calls it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from nblib import models
from nblib.core import params as P
from nblib.core import store
from nblib.core.errors import BadInput, BadParameter
from nblib.core.markup import in_markdown
from nblib.data import sources
from nblib.evaluate import importance, stats
from nblib.evaluate import scores as metrics
from nblib.prepare import binning, blocks, responses, splits
from nblib.prepare.samples import ROLES, Samples, role_samples, shuffle_labels
from nblib.road import notebooks, stages

if TYPE_CHECKING:
    import xarray as xr

    from nblib.core.params import Recipe
    from nblib.models.base import Decoder


class Params(P.Judge, P.Fit, P.StageParams):
    """Parameters of 05_train_lstm: one decoder, one fold, one seed."""

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


class GraphParams(Params):
    """Parameters of 06_train_st_gat: those of 05, and the graph of units."""

    model: Literal["st_gat", "st_gat_dynamic", "gat", "gcn"] = Field(
        "st_gat", description="decoder on a graph"
    )
    graph: Literal["full", "correlation", "learned", "anatomy"] | None = Field(
        None, description="who listens to whom; None = the model's own"
    )


CHECKPOINTS = "*.ckpt"


@dataclass(frozen=True)
class Data:
    """Samples of one fold, and what is needed to read a decoder's answer.

    classes (C,): label of each class index; unit_ids (N,); units: one row each, with area, probe
    and place where known; scaling: mean and scale (N,) that made counts into x; stop_s (T,): end
    of each bin, seconds from the onset. group (B,): test presentations that hang together, blocks
    of time where labels come in runs (see `blocks.time_blocks`); None where each stands alone.
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


@dataclass(frozen=True)
class Outcome:
    """How a decoder did on the test presentations, beside the best that any could do.

    val_accuracy: on the validation presentations; what decoders are chosen by. units, bins: what
    carries the answer (see `importance`), with the unit's area and the bin's end [s]; areas: see
    `by_area`. None where it was not asked for.
    """

    predictions: pd.DataFrame
    scores: dict[str, metrics.Score]
    oracle: dict[str, metrics.Score] | None
    by_time: pd.DataFrame
    val_accuracy: float
    units: pd.DataFrame | None = None
    bins: pd.DataFrame | None = None
    areas: pd.DataFrame | None = None

    def table(self) -> pd.DataFrame:
        """One row a score, with interval, chance and p; `best possible` where it is known."""
        rows = [asdict(score) for score in self.scores.values()]
        table = pd.DataFrame(rows, index=pd.Index(self.scores, name="score")).round(4)
        if self.oracle is not None:
            table["best possible"] = [round(self.oracle[name].value, 4) for name in self.scores]
        return table


def load_data(stage: stages.Stage, every_unit: bool = False) -> Data:
    """The counts of 03 cut and scaled as the split of 04 says, for the fold that is asked for.

    every_unit: the counts of all units as they are, for who chooses and scales on fewer rows.
    With `shuffle_labels` the labels are permuted within each role: the control that must score at
    chance. Raises MissingInput without the artifacts of 03 or 04, BadParameter for an unknown fold.
    """
    roles, statistics = splits.load(stage.input("04_split"))
    binned = binning.load(stage.input("03_clean"))
    if getattr(stage.params, "areas", False):  # now, not after hours of training
        known_areas(responses.units_of(binned), stage)
    fold = stage.params.fold
    if fold >= len(statistics):
        raise BadParameter(
            f"fold = {fold}: the split has {len(statistics)} fold(s), numbered from 0."
        )
    fitted = statistics[fold]
    if every_unit:
        n = binned.sizes["unit"]
        as_they_are = {"mean": np.zeros(n), "scale": np.ones(n)}
        fitted = replace(fitted, unit_ids=binned["unit"].to_numpy(), **as_they_are)
    samples = role_samples(binned, roles, fitted, fold)
    length, group = blocks.time_blocks(roles)
    if stage.params.shuffle_labels:
        samples = shuffle_labels(samples, stage.params.seed)
    return Data(
        samples["train"],
        samples["val"],
        samples["test"],
        classes=fitted.classes,
        unit_ids=fitted.unit_ids,
        units=responses.units_of(binned).loc[fitted.unit_ids],
        scaling=(fitted.mean, fitted.scale),
        stop_s=bin_stops(binned, stage.recipe),
        label_name=binned.attrs["label_name"],
        split_hash=splits.split_hash(roles),
        group=group.loc[samples["test"].trial].to_numpy(),
        labels_in_runs=length > 1,
    )


def bin_stops(binned: xr.Dataset, recipe: Recipe) -> np.ndarray:
    """End of each bin (T,), seconds from the onset; the mean where presentations differ in length."""
    edges = binning.edges_of(binned)
    first = {"event_window": recipe.window_start_s, "edges": min(recipe.edges_s, default=0.0)}
    return first.get(recipe.binning, 0.0) + (edges[:, 1:] - edges[:, :1]).mean(axis=0) / 1e9


def check_decoder(params: Params) -> None:
    """BadParameter for a decoder that is not there, or a setting that it does not take."""
    if params.model not in models.MODELS or params.model_params:
        make_decoder(SimpleNamespace(params=params))


def make_decoder(stage: stages.Stage) -> Decoder:
    """The decoder that the parameters name, not fitted yet; BadParameter for an unknown setting."""
    given = dict(stage.params.model_params)
    graph = getattr(stage.params, "graph", None)
    if graph is not None and given.setdefault("graph", graph) != graph:
        raise BadParameter(
            f"graph = {graph!r}, but model_params says {given['graph']!r}; give it once."
        )
    return models.make(stage.params.model, given)


def fit(decoder: Decoder, data: Data, stage: stages.Stage) -> pd.DataFrame:
    """Fit on train presentations, choose on validation; test presentations are not touched.

    A run that was killed goes on from its own checkpoint, which lies with its log under the data
    root; one that no longer fits (another version wrote it) is put aside, and said so. Returns the
    history: one row an epoch, or a strength of regularisation.
    """
    folder = store.log_dir(stage.name, stage.recording, stage.key)
    settings = SimpleNamespace(**stage.params.model_dump(), progress=notebooks.is_interactive())
    what = {"n_classes": len(data.classes), "settings": settings, "folder": folder}
    decoder.units, decoder.scaling = data.units, data.scaling
    if any(folder.glob(CHECKPOINTS)):
        try:
            return decoder.fit(data.train, data.val, resume="auto", **what)
        except BadInput as error:
            print(f"Starting afresh: {error}")
            forget_checkpoints(folder)
    return decoder.fit(data.train, data.val, **what)


def forget_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run; its log stays."""
    for path in folder.glob(CHECKPOINTS):
        path.unlink(missing_ok=True)


def evaluate(decoder: Decoder, data: Data, stage: stages.Stage) -> Outcome:
    """Score a fitted decoder on the test presentations, once."""
    log_proba = decoder.predict_log_proba(data.test.x)
    how = resampling(data, stage)
    best = oracle_log_proba(data, stage)
    units, bins = carriers(decoder, data.test, data, stage)
    areas = by_area(log_proba, data, stage, how) if stage.params.areas else None
    return Outcome(
        predictions=metrics.predictions(data.test, log_proba, data.classes, data.group),
        scores=metrics.decoding_scores(data.test.y, log_proba, **how),
        oracle=None if best is None else metrics.decoding_scores(data.test.y, best, **how),
        by_time=metrics.accuracy_over_time(
            decoder, data.test, data.stop_s, data.train.x.mean(axis=0), data.group
        ),
        val_accuracy=float((decoder.predict(data.val.x) == data.val.y).mean()),
        units=units,
        bins=bins,
        areas=areas,
    )


def resampling(data: Data, stage: stages.Stage) -> dict[str, Any]:
    """How scores of the test presentations get interval and p: arguments of `scores.decoding_scores`."""
    p = stage.params
    draws = {"n_permutations": p.n_permutations, "n_bootstrap": p.n_bootstrap, "seed": p.seed}
    return {"group": data.group, **draws}


def carriers(
    decoder: Decoder, samples: Samples, data: Data, stage: stages.Stage
) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """What a fitted decoder reads, by unit and by bin (see `importance`); None when not asked for."""
    p = stage.params
    if not p.importance:
        return None, None
    some = {"most": p.importance, "n_bootstrap": p.n_bootstrap, "seed": p.seed, "group": data.group}
    units = importance.by_unit(decoder, samples, **some)
    units.insert(0, "unit", data.unit_ids)
    units.insert(1, "area", responses.areas_of(data.units))
    bins = importance.by_bin(decoder, samples, **some)
    bins.insert(0, "time", data.stop_s)
    return units, bins


def by_area(
    log_proba: np.ndarray, data: Data, stage: stages.Stage, how: dict[str, Any]
) -> pd.DataFrame:
    """The decoder trained again on each area alone, and on all but it; same presentations.

    log_proba: answer of the decoder of all units. One row an area and kind ("alone", "without";
    "all" for all units): n_units, value, ci_low, ci_high, chance, p, n of the test accuracy, and
    less, less_low, less_high: how much less it is than with all units, paired, with interval.
    Raises BadInput for a recording that names no area, or one only.
    """
    names = responses.areas_of(data.units)
    known = known_areas(data.units, stage)
    device = models.device_of([stage.params.model], stage.params.device)
    all_right = (log_proba.argmax(axis=1) == data.test.y).astype(float)

    def row(area: str, kind: str, n_units: int, log_proba: np.ndarray) -> dict[str, Any]:
        right = (log_proba.argmax(axis=1) == data.test.y).astype(float)
        d = stats.paired_difference(all_right, right, group=data.group)
        score = asdict(metrics.decoding_scores(data.test.y, log_proba, **how)["accuracy"])
        less = {"less": d.value, "less_low": d.ci_low, "less_high": d.ci_high}
        return {"area": area, "kind": kind, "n_units": n_units, **score, **less}

    rows = [row("", "all", len(names), log_proba)]
    for area in known:
        for kind, keep in (("alone", names == area), ("without", names != area)):
            part = of_units(data, keep)
            decoder = make_decoder(stage)
            decoder.units, decoder.scaling = part.units, part.scaling
            settings = SimpleNamespace(**stage.params.model_dump(), progress=False)
            settings.device = device
            decoder.fit(part.train, part.val, n_classes=len(data.classes), settings=settings)
            rows.append(row(area, kind, int(keep.sum()), decoder.predict_log_proba(part.test.x)))
    return pd.DataFrame(rows)


def known_areas(units: pd.DataFrame, stage: stages.Stage) -> list[str]:
    """Areas of the units, at least two; BadInput otherwise."""
    known = sorted(set(responses.areas_of(units)) - {""})
    if len(known) < 2:
        raise BadInput(
            f"areas = true: recording {stage.recording!r} names {len(known)} area(s) for its units; "
            "at least two are needed. Leave it out."
        )
    return known


def of_units(data: Data, keep: np.ndarray) -> Data:
    """The same samples with some units only; keep (N,) bool."""
    roles = {
        role: replace(
            getattr(data, role), x=np.ascontiguousarray(getattr(data, role).x[:, :, keep])
        )
        for role in ROLES
    }
    mean, scale = data.scaling
    return replace(
        data, **roles, unit_ids=data.unit_ids[keep], units=data.units[keep],
        scaling=(mean[keep], scale[keep]),
    )  # fmt: skip


def seen_window(data: Data, recipe: Recipe) -> tuple[float, float]:
    """The part of a presentation that the decoder's bins cover, seconds from its start."""
    if recipe.binning == "per_presentation":
        return 0.0, np.inf
    first = {"event_window": recipe.window_start_s, "edges": min(recipe.edges_s, default=0.0)}
    return max(0.0, first.get(recipe.binning, 0.0)), float(data.stop_s[-1])


def oracle_log_proba(data: Data, stage: stages.Stage) -> np.ndarray | None:
    """Log-posterior of the test presentations under the truth (B, C); None where it is not known.

    Known for a simulated recording: the exact posterior given the spike times of the units that the
    decoder saw. It says nothing about permuted labels or another column than the image shown.
    """
    recipe = stage.recipe
    shown = (recipe.intervals, recipe.label) == ("natural_scenes_presentations", "frame")
    posterior = sources.offered(recipe.source, "oracle_log_posterior")
    if posterior is None or not shown or stage.params.shuffle_labels:
        return None
    session = stage.open_recording()
    if recipe.binning != "per_presentation" and recipe.event != "start_time":
        return None  # the decoder's window does not begin with the presentation
    log_proba, classes = posterior(
        sources.offered(recipe.source, "truth_path")(session.path),
        session,
        data.test.trial,
        data.unit_ids,
        classes=data.classes,
        window_s=seen_window(data, recipe),
    )
    if not np.array_equal(classes, data.classes):
        raise BadInput(f"the truth of {session.path} has other classes than the split.")
    return log_proba


def identity(stage: stages.Stage, data: Data) -> dict[str, Any]:
    """What a run is: by these fields runs are found and told apart; and the shape of its data."""
    return {
        **stage.params.model_dump(include={"model", "fold", "seed", "shuffle_labels"}),
        "notebook": stage.name,
        "recipe": stage.recipe.recipe,
        "recording": stage.recording,
        "split_hash": data.split_hash,
        "labels_in_runs": data.labels_in_runs,
        "n_test": len(data.test),
        "n_classes": len(data.classes),
        "n_units": data.test.x.shape[2],
        "n_bins": data.test.x.shape[1],
    }


def save_run(
    folder: Path,
    stage: stages.Stage,
    data: Data,
    decoder: Decoder,
    history: pd.DataFrame,
    outcome: Outcome,
) -> None:
    """Write a run's files: metrics.json, predictions, history, accuracy by time, config, weights.

    Raises BadParameter for a score outside [0, 1] or without its chance, interval and p.
    """
    metrics.write_metrics(
        folder,
        {
            **identity(stage, data),
            "n_train": len(data.train),
            "n_val": len(data.val),
            "val_accuracy": outcome.val_accuracy,
            "fit_s": decoder.fitted["fit_s"],
            "device": decoder.fitted["device"],
            "scores": outcome.scores,
            "oracle": outcome.oracle,
        },
    )
    outcome.predictions.to_parquet(folder / metrics.PREDICTIONS, index=False)
    outcome.by_time.to_parquet(folder / metrics.BY_TIME, index=False)
    history.to_parquet(folder / "history.parquet", index=False)
    for name in ("units", "bins", "areas"):
        if (table := getattr(outcome, name)) is not None:
            table.to_parquet(folder / f"importance_{name}.parquet", index=False)
    decoder.save(folder)
    forget_checkpoints(store.log_dir(stage.name, stage.recording, stage.key))


def in_words(stage: stages.Stage, data: Data, outcome: Outcome) -> str:
    """The result in a sentence: score, interval, chance, p and the best possible."""
    score = outcome.scores["accuracy"]
    best = pooled = ""
    if stage.recipe.pseudo_population:
        pooled = (
            " Its units were pooled over sessions and never recorded together: what they share is "
            "the stimulus, not a moment's state, and a graph of them says nothing of joint firing."
        )
    if outcome.oracle is not None:
        value = outcome.oracle["accuracy"].value
        best = f" The best possible decoder, which knows the truth, is right in {value:.1%}."
    how = "label permutation"
    if data.labels_in_runs:
        how = "moving labels along time, as they come in runs"
        if stage.recipe.split == "random":
            best += f" **{blocks.RUNS_AND_RANDOM}**"
    return (
        f"**Result.** {stage.params.model} names the right {in_markdown(data.label_name)} in {score.value:.1%} of "
        f"{score.n:,} test presentations (95 % interval {score.ci_low:.1%} to {score.ci_high:.1%}); "
        f"guessing would be right in {score.chance:.1%} (p = {score.p:.2g} by "
        f"{how}).{best}{pooled}"
    )
