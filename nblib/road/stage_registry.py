"""The stages: what each takes, rests on, costs and compares. A new notebook is one entry here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from nblib.core import params as P
from nblib.core.errors import BadParameter
from nblib.core.source_registry import SOURCES

COHORT = "cohort"  # stands for the recording where a stage takes all of them


class NotebookParams(P.Params):
    """Parameters of a notebook, and what their types cannot say of them."""

    def check(self) -> None:
        """BadParameter for what only the modules at work know: names of decoders, say."""

    def files(self) -> dict[str, str]:
        """Files given by their path, whose content counts in the key: its name there -> path."""
        return {}

    def needs(self, recipe: P.Recipe) -> list[NotebookParams]:
        """Parameters of the further runs that this one rests on (see `StageInfo.needs`)."""
        return []


class StageParams(NotebookParams):
    """Parameters that every notebook of the road takes."""

    recipe: str = Field("demo", description="recipe in params/recipes, or a path to a YAML file")
    recording: Annotated[str, AfterValidator(P.recording_id)] = Field(
        "demo", description="recording id of that recipe, a string"
    )


class CohortParams(NotebookParams):
    """Parameters of notebooks that take all recordings of a recipe together."""

    recipe: str = Field(
        "lfp_demo", description="recipe in params/recipes, or a path to a YAML file"
    )


class ReportParams(NotebookParams):
    """Parameters of notebooks that look at other runs and take no recording."""


@dataclass(frozen=True)
class StageInfo:
    """What a stage is. Modules are named by text and imported when they are asked for."""

    version: int  # raise it whenever the stage's code changes what it writes
    upstream: str | None
    params_at: str = f"{__name__}:StageParams"  # the class of the notebook's parameters
    settings: type[P.Params] = P.Params  # the part of a recipe that the stage owns
    is_run: bool = True  # a notebook that trains or reports, whose code counts in its key
    signal: str = "spikes"  # what its recordings hold: "spikes", "lfp" or "any"
    cohort: bool = False  # takes all recordings of a recipe together
    needs: str = ""  # the stage of the further runs that `params.needs` says it rests on
    reads: str = ""  # of a report: function of its params -> keys of the runs it would read now
    kind: str = "stages"  # of its job on a cluster; those of one recording share a job of "stages"
    light: bool = False  # runs without torch, in a kernel that starts at once
    chosen: bool = False  # a run is one network or decoder, which validation chose
    compared: bool = False  # its runs stand in the comparison of decoders
    trial: str = (
        ""  # function (split, counts, recipe, params) -> validation's word, by `objectives`
    )
    objectives: tuple[str, ...] = ("val_accuracy", "val_loss")  # that may choose in a search
    answers: str = "predictions.parquet"  # what a run answered for its test rows, a row a trial

    @property
    def params(self) -> Any:
        """The class of the parameters that the notebook takes."""
        return by_name(self.params_at)


def _road(version: int, upstream: str | None, settings: type[P.Params], signal: str) -> StageInfo:
    """A stage whose settings are the recipe's."""
    return StageInfo(version, upstream, settings=settings, signal=signal, is_run=False, light=True)


INGEST, BIN, CLEAN, SPLIT = "01_ingest", "02_bin", "03_clean", "04_split"
FEW_SHOT, PRETEXT, RESULTS, SEARCH = "07_few_shot", "08_ssl_pretext", "90_results", "91_search"
STAGES: dict[str, StageInfo] = {
    INGEST: _road(12, None, P.IngestSettings, "any"),
    BIN: _road(10, INGEST, P.BinSettings, "any"),
    CLEAN: _road(3, BIN, P.CleanSettings, "spikes"),
    SPLIT: _road(4, CLEAN, P.SplitSettings, "spikes"),
    "05_train_lstm": StageInfo(
        4, SPLIT, "nblib.experiments.decode:Params", kind="train", chosen=True, compared=True,
        needs="05_train_lstm", trial="nblib.experiments.decode:trial",
    ),
    "06_train_st_gat": StageInfo(
        5, SPLIT, "nblib.experiments.decode:GraphParams", kind="graph", chosen=True, compared=True,
        trial="nblib.experiments.decode:trial",
    ),
    FEW_SHOT: StageInfo(5, SPLIT, "nblib.experiments.few_shot:Params", kind="few_shot"),
    PRETEXT: StageInfo(
        3, BIN, "nblib.experiments.self_supervision:Params", signal="lfp", cohort=True, kind="pretext", chosen=True
    ),
    "09_downstream_one_vs_all": StageInfo(
        5, BIN, "nblib.experiments.label_budget:Params", signal="lfp", cohort=True, kind="downstream",
        needs=PRETEXT,
    ),
    "10_image_latents": StageInfo(
        3, SPLIT, "nblib.experiments.images.from_spikes:Params", kind="images", answers="retrieval.parquet"
    ),
    "11_movie": StageInfo(7, SPLIT, "nblib.experiments.film.decoding:Params", kind="movie"),
    "12_multimodal": StageInfo(
        11, SPLIT, "nblib.experiments.multimodal.judge:Params", cohort=True, kind="multimodal",
        trial="nblib.experiments.multimodal.experiment:trial", objectives=("val_loss",),
    ),
    "13_spike_distance": StageInfo(
        10, SPLIT, "nblib.experiments.spikes.prediction:Params", kind="spike_distance"
    ),
    RESULTS: StageInfo(
        4, None, "nblib.report.all_runs:Params", kind="report", light=True,
        reads="nblib.report.summary:keys_read",
    ),
    SEARCH: StageInfo(
        2, None, "nblib.run.search.definition:Params", kind="report", reads="nblib.run.search.tables:keys_read"
    ),
    "92_planning": StageInfo(
        2, None, "nblib.report.planning:Params", kind="report", light=True,
        reads="nblib.report.planning:keys_read",
    ),
}  # fmt: skip
# Notebooks whose runs are whole decoders, trained on all train rows: what may be compared.
DECODERS = tuple(name for name, info in STAGES.items() if info.compared)
SEARCHED = tuple(name for name, info in STAGES.items() if info.trial)


def by_name(at: str) -> Any:
    """What `module:name` names, such as `nblib.experiments.few_shot:Params`."""
    module, _, name = at.partition(":")
    return getattr(importlib.import_module(module), name)


def stage_info(name: str) -> StageInfo:
    if name not in STAGES:
        raise BadParameter(f"no notebook {name!r}; there are {', '.join(STAGES)}.")
    return STAGES[name]


def chain(name: str, source: str) -> list[str]:
    """The stages that lead to `name`, in order, `name` last.

    What holds counts is binned already, so its road begins at 02.
    """
    steps = [name]
    while (upstream := stage_info(steps[0]).upstream) is not None:
        if upstream == INGEST and SOURCES[source].holds == "counts":
            break
        steps.insert(0, upstream)
    return steps


def accepted_names(name: str) -> dict[str, Any]:
    """Every parameter a notebook may be given: its own and the recipe's; name -> pydantic field."""
    info = stage_info(name)
    if issubclass(info.params, ReportParams):
        return dict(info.params.model_fields)
    return {**P.Recipe.model_fields, **info.params.model_fields}
