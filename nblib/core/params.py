"""Every setting of a recipe (trials, label, bins, signals such as pupil) and of a notebook: name, type, bounds.

Unknown names, wrong types and values out of bounds are refused with one sentence per fault.
In a notebook's parameters cell `None` always means "as the recipe says"; so no setting uses
`None` as a value: "no limit" is infinity, "all" is an empty list or 0, "none" is "".
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from nblib.core.errors import BadParameter
from nblib.core.source_registry import SOURCES
from nblib.core.text_to_values import (
    RECORDING_ID,
    check_names,
    holds_nan,
    recording_id,
    with_room,
)
from nblib.core.text_to_values import checked as checked

BINS_PER_PRESENTATION = (1, 2, 3, 5, 10, 15, 20)
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator takes
Limit = Annotated[float, Field(allow_inf_nan=True)]  # infinite = none


Limits = Annotated[list[Limit], Field(min_length=2, max_length=2), AfterValidator(with_room)]


class Params(BaseModel):
    """Base: strict types, no unknown names, no change after the fact."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_a_value(cls, value: Any) -> Any:
        """NaN is neither within bounds nor out of them."""
        if holds_nan(value):
            raise ValueError("nan is not a value")
        return value


class SimulateSettings(Params):
    """The simulated Allen recording (see `nblib.simulate.allen`)."""

    n_units: int = Field(100, ge=1, le=20_000, description="units [count]")
    n_scenes: int = Field(118, ge=2, le=118, description="images shown [count]")
    n_repeats: int = Field(50, ge=1, le=500, description="presentations of each image [count]")
    duration_s: float = Field(0.0, ge=0, description="length, 0 = as long as needed [s]")
    seed: Seed = Field(0, description="seed of images, rates and spikes")
    signal: float = Field(1.0, ge=0, description="strength of image tuning; 0 = none [factor]")
    rate_hz: float = Field(5.5, gt=0, le=100, description="mean firing rate over units [Hz]")


class SimulateLfpSettings(Params):
    """The simulated cohort of field potentials (see `nblib.simulate.lfp`)."""

    state_s: float = Field(120.0, ge=10, description="length of each of the three states [s]")
    rate_hz: float = Field(250.0, ge=125, le=5000, description="sampling rate [Hz]")
    seed: Seed = Field(0, description="seed of the cohort")
    contrast: float = Field(1.0, ge=0, description="how much states differ; 0 = not [factor]")
    between: float = Field(1.0, ge=0, description="how much animals differ in it [factor]")
    drift: float = Field(0.25, ge=0, description="slow drift of band power [log units]")
    drift_s: float = Field(60.0, gt=0, description="time scale of the drift [s]")


SECONDS = {"s": 1.0, "ms": 1e-3}  # of one unit of time, by `time_unit`
# What pandas reads as missing in a table of text.
MISSING = [
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>",
    "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
]  # fmt: skip


def _as_text(value: Any) -> Any:
    """A number of a YAML file as the text it was."""
    return str(value) if isinstance(value, (int, float)) else value


class OriginSettings(Params):
    """Where a recording comes from, which table holds its trials, and what is decoded."""

    source: str = Field(
        "simulate", description="kind of origin, a name in nblib.core.source_registry.SOURCES"
    )
    path: str = Field(
        "",
        description="file or folder; {recording} and ${VARIABLES} filled in; empty = made or fetched",
    )
    intervals: str = Field(
        "natural_scenes_presentations", description="interval table that holds the trials"
    )
    label: str = Field(
        "frame", description="column of that table to decode, or an expression of columns"
    )

    @field_validator("source")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in SOURCES:
            raise ValueError(f"no such source; choose one of {', '.join(SOURCES)}")
        return name


class LabelRules(Params):
    """Which trials of a table count, and which label each has (see `nblib.data.trials.labelling`)."""

    where: str = Field(
        "", description="expression of columns that a trial must fulfil; empty = all trials"
    )
    missing: list[Annotated[str, BeforeValidator(_as_text)]] = Field(
        MISSING, description="values that count as missing, beside NaN and empty"
    )
    blank: Annotated[str, BeforeValidator(_as_text)] = Field(
        "", description="label of a grey screen; empty = the source's own (Allen: -1), else none"
    )
    join_labels: bool = Field(
        False, description="labels that differ in blanks, case or writing of a number are one"
    )

    @model_validator(mode="after")
    def _blank_is_not_missing(self):
        if self.blank and self.blank in self.missing:
            raise ValueError(
                f"blank = {self.blank!r} counts as missing too; take it out of `missing`, or name no blank"
            )
        return self


class IngestSettings(LabelRules, OriginSettings):
    """Settings of 01: where a recording comes from and which trials count."""

    time_unit: Literal["s", "ms"] = Field("s", description="unit of times in the file")
    simulate: SimulateSettings = Field(SimulateSettings(), description="simulated recording")
    invalid_times: list[str] = Field(
        ["invalid_times"],
        description="tables of invalid times, where they are there; [] = none",
    )
    series: str = Field(
        "", description="name of the LFP or stimulus series (lfp_nwb, nwb); empty = the only one"
    )
    times: str = Field(
        "", description="file of the intervals, where it is another one; filled in as path is"
    )
    simulate_lfp: SimulateLfpSettings = Field(
        SimulateLfpSettings(), description="simulated field potentials"
    )
    source_params: dict[str, Any] = Field({}, description="settings of the source's own, if any")


class SignalSettings(Params):
    """One signal of a recipe's `signals`: what of a series goes into each bin (see `nblib.prepare.signals`)."""

    series: str = Field(description="name of the series in the recording")
    channel: int = Field(0, ge=0, description="column of that series, from 0")
    kind: Literal["mean", "speed", "power", "events"] = Field(
        "mean",
        description="mean of samples; length of their path a second; power of band_hz; events a second",
    )
    band_hz: list[float] = Field([], description="lowest and highest frequency (power) [Hz]")
    max_gap_s: Limit = Field(
        0.2, gt=0, description="samples further apart say nothing of what is between them [s]"
    )

    @model_validator(mode="after")
    def _band(self):
        if self.kind == "power" and not (
            len(self.band_hz) == 2 and 0 < self.band_hz[0] < self.band_hz[1]
        ):
            raise ValueError(f"band_hz must be [low, high] for kind 'power', not {self.band_hz}")
        return self


class BinSettings(Params):
    """Settings of 02: how spike times become counts."""

    binning: Literal[
        "per_presentation", "fixed_width", "event_window", "edges", "frames", "continuous"
    ] = Field(
        "per_presentation",
        description="how trials are cut into bins; frames: put together; continuous: no trials",
    )
    stimulus_value: Literal["held", "mean"] = Field(
        "held",
        description="value of a bin (continuous): at its start, or mean of the bin before",
    )
    frames_per_bin: int = Field(2, ge=1, description="frames of a film in a bin (frames) [count]")
    bin_label: Literal["first", "any", "majority"] = Field(
        "first", description="label of a bin from those of its frames (frames)"
    )
    n_bins: int = Field(5, description="bins per presentation: 1, 2, 3, 5, 10, 15 or 20 [count]")
    bin_s: float = Field(
        0.05, gt=0, description="bin width (fixed_width, event_window, continuous) [s]"
    )
    window_start_s: float = Field(0.0, description="window start from the event [s]")
    window_stop_s: float = Field(0.25, description="window stop from the event [s]")
    event: str = Field("start_time", description="column that holds the event's time")
    edges_s: list[float] = Field([], description="bin edges from the event (edges) [s]")
    signals: dict[str, SignalSettings] = Field(
        {},
        description="signals of each bin: name -> series, channel, kind, band_hz, max_gap_s",
    )
    variables: list[str] = Field(
        [], description="columns of the trials to keep beside the label, such as choice"
    )
    keep_blank: bool = Field(True, description="keep trials whose label is `blank`")
    unusable_trials: Literal["refuse", "leave_out"] = Field(
        "refuse", description="trials without the finite times that the binning needs"
    )
    window_s: float = Field(3.0, gt=0, description="length of an LFP window [s]")
    hop_s: float = Field(3.0, gt=0, description="from one LFP window to the next [s]")
    lowpass_hz: float = Field(55.0, ge=0, description="low-pass of the LFP; 0 = none [Hz]")
    resample_hz: float = Field(0.0, ge=0, description="new rate of the LFP; 0 = its own [Hz]")
    causal: bool = Field(
        False, description="filter the LFP forwards only; of signals, nothing behind a bin matters"
    )
    gaps: Literal["refuse", "cut"] = Field(
        "refuse",
        description="gaps in the LFP's or the stimulus' clock: refuse them, or cut there and go on",
    )

    @model_validator(mode="after")
    def _consistent(self):
        if self.n_bins not in BINS_PER_PRESENTATION:
            raise ValueError(f"n_bins must be one of {BINS_PER_PRESENTATION}, not {self.n_bins}")
        if self.window_stop_s <= self.window_start_s:
            raise ValueError("window_stop_s must be greater than window_start_s")
        check_names([*self.signals, *self.variables], "signals and variables")
        rising = all(a < b for a, b in zip(self.edges_s, self.edges_s[1:], strict=False))
        if self.binning == "edges" and (len(self.edges_s) < 2 or not rising):
            raise ValueError("edges_s must hold at least two rising times for binning 'edges'")
        return self


class CleanSettings(Params):
    """Settings of 03: what is removed before any statistics are taken."""

    invalid_spikes: Literal["drop", "keep"] = Field(
        "drop", description="spikes inside invalid intervals"
    )
    invalid_presentations: Literal["drop", "keep"] = Field(
        "drop", description="presentations that touch an invalid interval"
    )
    unobserved: Literal["presentations", "units", "largest", "keep"] = Field(
        "presentations",
        description="what goes where a unit was not observed; largest: all but one block",
    )
    isi_violations_max: Limit = Field(math.inf, description="unit limit; Allen default 0.5")
    amplitude_cutoff_max: Limit = Field(math.inf, description="unit limit; Allen default 0.1")
    presence_ratio_min: Limit = Field(-math.inf, description="unit limit; Allen default 0.95")
    unit_limits: dict[str, Limits] = Field(
        {}, description="of channel, x, y, z, firing_rate: name -> [lowest, highest]"
    )
    regions: list[str] = Field([], description="brain areas to keep; empty = all")
    n_units: int = Field(0, ge=0, description="keep a random subset of so many units; 0 = all")
    most_units: int = Field(
        0, ge=0, description="of more units, keep a random subset of so many; 0 = all [count]"
    )
    units_seed: Seed = Field(0, description="seed of that subset")
    most_trials: int = Field(
        0, ge=0, description="of more trials, keep the first so many; 0 = all [count]"
    )


class SplitSettings(Params):
    """Settings of 04: which trials may teach and which may judge."""

    split: Literal["blocked", "random", "segments", "cycles"] = Field(
        "blocked",
        description="how roles are dealt; segments: of a film, in every part of it; cycles: of time",
    )
    n_folds: int = Field(1, ge=1, le=50, description="folds; 1 = one single split [count]")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="test share of a single split")
    val_fraction: float = Field(0.1, gt=0, lt=1, description="validation share of the rest")
    gap_s: float = Field(
        1.0, ge=0, description="time kept free between roles (blocked, segments, cycles) [s]"
    )
    context_s: list[Annotated[float, Field(ge=0)]] = Field(
        [3.0, 1.0],
        min_length=2,
        max_length=2,
        description="past and future a decoder may see, kept free too (segments, cycles) [s]",
    )
    cycle_s: list[Annotated[float, Field(gt=0)]] = Field(
        [63.0, 9.0, 15.0],
        min_length=3,
        max_length=3,
        description="train, validation and test of each cycle, gaps besides (cycles) [s]",
    )
    n_parts: int = Field(
        0, ge=0, description="parts of the film, each with five segments; 0 = as published [count]"
    )
    stratified: bool = Field(False, description="random split keeps each label's share per role")
    split_seed: Seed = Field(0, description="seed of a random split")
    scaler: Literal["zscore", "none"] = Field("zscore", description="per unit, on train rows")
    highest_value: Limit = Field(100.0, description="drop units whose train z-score exceeds it")
    lowest_value: Limit = Field(0.0, description="drop units whose train z-score never exceeds it")
    least_rate_hz: float = Field(0.0, ge=0, description="drop units that fire less in train [Hz]")


class Recipe(IngestSettings, BinSettings, CleanSettings, SplitSettings):
    """A flat YAML file in params/recipes: a cohort and the settings of stages 01-04."""

    recipe: str = Field(pattern=RECORDING_ID, description="name of the recipe")
    recordings: list[str] = Field(min_length=1, description="recording ids, as strings")
    pseudo_population: bool = Field(
        False, description="units were pooled over sessions, never recorded together"
    )

    @model_validator(mode="before")
    @classmethod
    def _labelled_by_name(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Without a label unless one is named, where signals or variables say what is asked for."""
        asked = values.get("signals") or values.get("variables")
        return {"label": ""} | values if asked else values

    @model_validator(mode="after")
    def _ids(self):
        for name in self.recordings:
            recording_id(name)
        if len(set(self.recordings)) != len(self.recordings):
            raise ValueError("recordings names one id twice")
        if not self.keep_blank and not self.label_rules.blank:
            raise ValueError(
                f"keep_blank = false, but source {self.source!r} has no grey screen of its own; say which "
                "label is one with `blank`, or leave keep_blank out"
            )
        return self

    def settings(self, model: type[Params]) -> Params:
        """The part of the recipe that one stage owns."""
        return model(**{k: getattr(self, k) for k in model.model_fields})

    @property
    def label_rules(self) -> LabelRules:
        """How trials are chosen and labelled; the grey screen is the source's own if none is named."""
        rules = self.settings(LabelRules)
        grey = "" if (usual := SOURCES[self.source].blank) in rules.missing else usual
        return rules if rules.blank else rules.model_copy(update={"blank": grey})

    def file(self, recording: str, setting: str = "path") -> Path | None:
        """The path that a setting holds, with {recording} and ${VARIABLES} filled in; None without one."""
        if not (template := getattr(self, setting)):
            return None
        where = f"{setting} {template!r} of recipe {self.recipe!r}"
        text = os.path.expandvars(template.replace("{recording}", recording))
        if missing := re.findall(r"\$\{?(\w+)\}?", text):
            raise BadParameter(
                f"{where} uses the environment variable {missing[0]}, which is not set; set it or write the path out."
            )
        if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
            raise BadParameter(
                f"{where} is a web address, and nblib reads files: download it first and give the path of the file."
            )
        path = Path(text).expanduser()
        if not path.is_absolute():
            raise BadParameter(
                f"{where} is relative; a notebook may run from any folder, so give an absolute path, or one that "
                "starts with ~ or ${HOME}."
            )
        return path

    @property
    def holds(self) -> str:
        """What the recordings are: "spikes", "lfp" or "counts"."""
        return SOURCES[self.source].holds


class Fit(Params):
    """How whatever is fitted is fitted: parameters that all notebooks share which train."""

    seed: Seed = Field(0, description="seed of all that is drawn: weights, batches, subsets")
    max_epochs: int | None = Field(None, ge=1, description="None = the model's own [count]")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    threads: int = Field(0, ge=0, description="CPU threads; 0 = as the environment says [count]")


class Judge(Params):
    """How decoders of one fold are judged: parameters that notebooks share."""

    fold: int = Field(0, ge=0, description="fold of the split")
    shuffle_labels: bool = Field(False, description="control: labels permuted within each role")
    n_permutations: int = Field(1000, ge=100, le=100_000, description="label permutations [count]")
    n_bootstrap: int = Field(1000, ge=100, le=100_000, description="bootstrap draws [count]")
