"""The recording behind a stage."""

from __future__ import annotations

from nblib.data import opening
from nblib.data.recording import Recording
from nblib.road.stage_registry import INGEST
from nblib.road.stages import Stage


def open_recording(stage: Stage) -> Recording | None:
    """The recording, once 01 has looked at it; None for counts, which hold no spike times.

    Raises MissingInput when 01 has not been run for it, BadInput for a broken file.
    """
    if stage.recipe.holds == "counts":
        return None
    if stage.name != INGEST:
        stage.input(INGEST)
    return opening.open_recording(stage.recipe, stage.recording)
