"""Open the recordings of a recipe: their trials chosen and labelled, all times on one clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from nblib.core import params, store
from nblib.core.errors import BadParameter, some
from nblib.core.source_registry import SOURCES
from nblib.data import stimulus
from nblib.data.counts_dataset import areas_of, units_of
from nblib.data.sources import check_used, members, offered, own_settings, raw_file
from nblib.data.trials import columns, labelling, usable
from nblib.data.trials.time_intervals import tables_name

if TYPE_CHECKING:
    import xarray as xr

    from nblib.core.params import Recipe
    from nblib.data.recording import Recording


def open_recording(recipe: Recipe, recording_id: str) -> Recording:
    """Open one recording of a recipe, its trials as the recipe chooses and labels them.

    Spikes and most tables are read when needed. A simulated recording is made when it does not exist
    yet. The column of events that 02 is to cut around is converted with the other times.

    Parameters
    ----------
    recipe : where the recording comes from, and which trials and labels count.
    recording_id : one of the recipe's `recordings`.

    Raises
    ------
    MissingInput : there is no file.
    BadInput : the file is broken, or holds trials that 02 would refuse.
    BadParameter : a source without spike times, a setting that it does not use, a label or condition
        that the trials do not answer.
    """
    check_used(recipe)
    if recipe.holds == "counts":
        raise BadParameter(
            f"recipe {recipe.recipe!r}: source {recipe.source!r} holds counts, no spike times; it enters at "
            "02. Start there."
        )
    recording = _open(recipe, recording_id)
    invalid = tuple(dict.fromkeys(tables_name(n) for n in recipe.invalid_times))
    for name in invalid:
        if name != "invalid_times" and name not in recording.intervals:
            raise BadParameter(
                f"{recording.path or recording_id}: invalid_times of recipe {recipe.recipe!r} names {name!r}; "
                f"there is {some(sorted(recording.intervals), 40) or 'no interval table'}."
            )
    recording = replace(recording, rules=recipe.label_rules, invalid=invalid)
    if recording.trials:
        if recipe.binning in ("event_window", "edges") and recipe.holds != "lfp":
            _settle_events(recording, recipe)
        odd = labelling.absent_blank(recording.labelled, recipe)
        recording.meta["notes"] = [*recording.meta.get("notes", []), *odd]
        needs = usable.SPAN if recipe.holds == "lfp" else usable.times_of(recipe)
        usable.to_count(recording.labelled, recording.rules, recipe, recording.trial_place, needs)
    elif recipe.holds != "lfp":
        name = stimulus.name_of(recording, recipe.series)
        recording = replace(recording, stimulus=name, label="")
    return recording


def _settle_events(recording: Recording, recipe: Recipe) -> None:
    """Bring the events to seconds, where their name did not, and see that they are on the clock."""
    table, event = recording.intervals[recording.trials], recipe.event
    place = recording.trial_place
    raw = columns.require(table, event, place, "event")
    converted = event.endswith(columns.TIME_SUFFIX) and raw.dtype.kind in "iuf"
    unit = 1.0 if converted else params.SECONDS[recipe.time_unit]
    table[event] = columns.numbers(raw, f"{place}: column {event!r}") * unit
    path = recording.where
    odd = columns.check_event(path, recording.trials, table, event)
    recording.meta["notes"] = [*recording.meta.get("notes", []), *odd]


def _open(recipe: Recipe, recording_id: str) -> Recording:
    if parts := members(recipe, recording_id):
        recordings = [_open(recipe, part) for part in parts]
        return SOURCES[recipe.source].module.pool(recordings, recording_id)
    settings = own_settings(recipe)
    if make := offered(recipe.source, "make"):
        path = make(settings, recording_id)
        store.open_artifact(path.parent)
    else:
        path = raw_file(recipe, recording_id)
    read = SOURCES[recipe.source].module.open_recording
    recording = read(path, recipe, recording_id, settings)
    recording.meta["source"] = recipe.source
    return recording


def open_binned(recipe: Recipe, recording_id: str) -> xr.Dataset:
    """Counts of a recording that is binned already, its trials chosen and labelled as any others.

    Returns
    -------
    Dataset : `counts` (trial, time, unit) and what is known of trials and units.

    Raises
    ------
    BadParameter : another binning than per presentation, or a source of spike times.
    BadInput : a file that is misaligned, is no table of counts or has other bins than `n_bins`.
    """
    if recipe.holds != "counts":
        raise BadParameter(
            f"recipe {recipe.recipe!r}: source {recipe.source!r} holds spike times, not counts."
        )
    if recipe.binning != "per_presentation":
        raise BadParameter(
            f"recipe {recipe.recipe!r}: binning = {recipe.binning!r}, but source {recipe.source!r} is "
            "binned already. Set binning: per_presentation."
        )
    check_used(recipe)
    path, rules = raw_file(recipe, recording_id), recipe.label_rules
    read = SOURCES[recipe.source].module.read_counts
    binned = read(path, recipe, recording_id, own_settings(recipe))
    table = binned.coords.to_dataset().drop_dims(["unit", "time"]).to_dataframe()
    other = {n: f"is there, but its axes are {', '.join(binned[n].dims)}" for n in binned.variables}
    table.attrs[columns.LEFT_OUT] = {n: why for n, why in other.items() if n not in table}
    chosen = labelling.select(table, recipe.label, rules, str(path))
    table = usable.to_count(chosen, rules, recipe, str(path), needs=()).table
    attrs = {"label_name": recipe.label, **chosen.attrs()}
    areas = Counter(areas_of(units_of(binned)).tolist())
    odd = labelling.odd_labels(chosen, rules) + labelling.absent_blank(chosen, recipe)
    odd += labelling.unused_flags(chosen, recipe.label, rules, "trials")
    if odd := [*filter(None, [binned.attrs.get("odd")]), *odd, *labelling.odd_areas(areas)]:
        attrs["odd"] = " ".join(odd)
    binned = binned.isel(trial=table.index.to_numpy()).assign_attrs(attrs)
    return binned.assign_coords(label=("trial", labelling.as_array(table["label"])))
