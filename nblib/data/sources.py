"""Where recordings come from: one file per origin, one way in.

A new source is a line in `params.SOURCES` and a module of that name with

- `FILES`: what is read inside the folder that a recipe's `path` names; () where it names a file
- `Settings`: what only this source has to know, given under `source_params` in a recipe
- `open_recording(path, recipe, recording_id, settings) -> Recording`, times in seconds; of columns
  whose name does not end in `_time`, the recipe's `event` is converted here; where it holds counts,
  `read_counts`, with the same arguments, that gives Binned counts and what else is known of trials
- `USES`, if it likes: which of the settings in `WIRED` it reads; others are then refused
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nblib.core import params, rawfiles, store
from nblib.core.errors import BadParameter, MissingInput
from nblib.data.files import require_file
from nblib.data.nwb import linked
from nblib.data.trials import columns, labelling

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    import xarray as xr

    from nblib.core.params import Recipe
    from nblib.data.recording import Recording


# Wired by hand below: they are made, fetched, spread over several files or are a pickle.
# With each, the settings it reads out of those that not every source does.
WIRED = {
    "allen": ("path", "time_unit"),
    "nwb": ("path", "time_unit"),
    "simulate": (),
    "lab_pickle": ("path",),
    "simulate_lfp": (),
    "lfp_nwb": ("path", "series", "times", "time_unit"),
    "lfp_mat": ("path", "times"),
}
# The settings of 02 that only one kind of recording reads.
BINNED_BY = {
    "spikes": ("binning", "n_bins", "bin_s", "window_start_s", "window_stop_s", "event", "edges_s"),
    "lfp": ("window_s", "hop_s", "lowpass_hz", "resample_hz", "causal", "gaps"),
    "counts": ("binning",),  # must be per presentation, which `open_binned` says
}


def _module(recipe: Recipe) -> ModuleType | None:
    """The module of a source that follows the protocol above; None for one that is wired."""
    if recipe.source in WIRED:
        return None
    return importlib.import_module(f"nblib.data.{recipe.source}")


def check_used(recipe: Recipe) -> None:
    """BadParameter for a setting that is given though the recipe's source does not read it."""
    module = _module(recipe)
    read_by_some = {name for names in WIRED.values() for name in names}
    uses = getattr(module, "USES", read_by_some) if module else WIRED[recipe.source]
    uses = {*uses, *BINNED_BY[params.SOURCES[recipe.source]]}
    if recipe.source == "lab_pickle":
        uses.add("n_bins")  # checked against the file
    for name in sorted(read_by_some.union(*BINNED_BY.values()) - uses):
        value = getattr(recipe, name)
        if value != params.Recipe.model_fields[name].default:
            raise BadParameter(
                f"recipe {recipe.recipe!r}: {name} = {value!r}, but source {recipe.source!r} does "
                f"not use {name}, so it would change nothing. Take it out."
            )


def own_settings(recipe: Recipe) -> Any:
    """The checked settings of the source's own, None where it has none.

    Raises BadParameter for an unknown name, a wrong type or a value out of bounds.
    """
    where = f"source_params of recipe {recipe.recipe!r}"
    module = _module(recipe)
    if module is not None:
        return params.checked(module.Settings, recipe.source_params, where)
    if recipe.source_params:
        raise BadParameter(
            f"{where}: source {recipe.source!r} takes none; found {', '.join(recipe.source_params)}."
        )
    return None


def raw_file(recipe: Recipe, recording: str) -> Path:
    """The recording's file or folder: the recipe's path, or where a fetched Allen session lies.

    Raises MissingInput when it, or what the source reads in it, is not there.
    """
    path = recipe.file(recording)
    if path is None and recipe.source == "allen":
        from nblib.data import allen

        path = allen.local_path(recording)
        if not path.is_file():
            raise MissingInput(
                f"Allen session {recording} is not here yet; fetch it with:  nblib allen get {recording}"
            )
    if path is None:
        raise BadParameter(f"recipe {recipe.recipe!r}: source {recipe.source!r} needs a path.")
    module = _module(recipe)
    files = module.FILES if module else ()
    if files and not path.is_dir():
        raise MissingInput(f"{path}: no such folder; check `path` in recipe {recipe.recipe!r}.")
    for file in [path / name for name in files] or [path]:
        require_file(file, f"check `path` in recipe {recipe.recipe!r}")
    return path


def fetch(recipe: Recipe, recording: str) -> None:
    """Download the recording where its recipe names an Allen session and no file; else nothing."""
    if recipe.source == "allen" and not recipe.path:
        from nblib.data import allen

        allen.download(recording)


def raw_files(recipe: Recipe, recording: str) -> dict[str, Path]:
    """Every file that a recording is read from, by its part in it; none for a simulated one.

    The file or those of its folder, the file of its times, the Allen tables beside it, and all
    that HDF5 links or external data in these lead to, which need not be there.
    """
    if recipe.source in ("simulate", "simulate_lfp"):
        return {}
    path = raw_file(recipe, recording)
    files = {"": path}
    if path.is_dir():
        files = {name: path / name for name in _module(recipe).FILES}
    elif recipe.source in WIRED and recipe.is_lfp:
        from nblib.data import lfp

        if times := lfp.times_file(recipe, recording):
            files["times"] = times
    elif recipe.source == "allen":
        from nblib.data.allen import tables

        files |= tables.beside(path)  # they are joined, so they are part of it
    for name, file in list(files.items()):
        files |= {f"{name}:{k}": target for k, target in linked.linked_files(file).items()}
    return files


def raw_content(recipe: Recipe, recording: str) -> dict[str, str]:
    """sha256 of each of these files that is there: path -> content."""
    files = raw_files(recipe, recording).values()
    return {str(path): rawfiles.file_hash(path) for path in files if path.is_file()}


def identity(recipe: Recipe, recording: str) -> str:
    """What a recording is, before reading it: the sha256 of its file, or what stands for those of
    all its files, or the simulation's key."""
    if recipe.source == "simulate":
        from nblib.simulate import allen as simulate

        return simulate.key(recipe.simulate, recording)
    if recipe.source == "simulate_lfp":
        from nblib.simulate import lfp as simulate_lfp

        return simulate_lfp.key(recipe.simulate_lfp, recording)
    files = raw_files(recipe, recording)
    content = {n: rawfiles.file_hash(p) if p.is_file() else "absent" for n, p in files.items()}
    if list(content) == [""]:
        return content[""]
    return store.make_key("raw", 1, content, [])


def open_recording(recipe: Recipe, recording_id: str) -> Recording:
    """Open one recording of a recipe, its trials as the recipe chooses and labels them; spikes and
    most tables are read when needed.

    A simulated recording is made when it does not exist yet. The column of events that 02 is to cut
    around is converted with the other times. Raises MissingInput when there is no file, BadInput when
    it is broken or holds trials that 02 would refuse, BadParameter for a source without spike times, a
    setting that it does not use, and a label or condition that its trials do not answer.
    """
    rules = recipe.label_rules
    recording = replace(_opened(recipe, recording_id), rules=rules)
    if recording.trials:
        needs = labelling.SPAN if recipe.is_lfp else labelling.times_of(recipe)
        labelling.to_count(recording.labelled, rules, recipe, recording.trial_place, needs)
    return recording


def _opened(recipe: Recipe, recording_id: str) -> Recording:
    check_used(recipe)
    if recipe.holds == "counts":
        raise BadParameter(
            f"recipe {recipe.recipe!r}: source {recipe.source!r} holds counts, no spike times; it enters at "
            "02_bin. Start there."
        )
    recording = _open(recipe, recording_id)
    if recipe.binning in ("event_window", "edges") and not recipe.is_lfp and recording.trials:
        _settle_events(recording, recipe)
    return recording


def _settle_events(recording: Recording, recipe: Recipe) -> None:
    """Bring the events to seconds, where their name did not, and see that they are on the clock."""
    from nblib.data import checks
    from nblib.data.nwb import tables

    table, event = recording.intervals[recording.trials], recipe.event
    raw, place = (
        columns.require(table, event, recording.trial_place, "event"),
        recording.trial_place,
    )
    converted = event.endswith(tables.TIME_SUFFIX) and raw.dtype.kind in "iuf"
    unit = 1.0 if converted else params.SECONDS[recipe.time_unit]
    table[event] = columns.numbers(raw, f"{place}: column {event!r}") * unit
    checks.check_event(str(recording.path or recording.id), recording.trials, table, event)


def _open(recipe: Recipe, recording_id: str) -> Recording:
    how = {"intervals": recipe.intervals, "label": recipe.label, "recording_id": recording_id}
    if recipe.source == "simulate":
        from nblib.data.nwb import open_nwb
        from nblib.simulate.allen import make

        path = make(recipe.simulate, recording_id)
        store.open_artifact(path.parent)
        recording = open_nwb(path, **how)
        recording.meta["source"] = "simulate"
        return recording
    if module := _module(recipe):
        path = raw_file(recipe, recording_id)
        return module.open_recording(path, recipe, recording_id, own_settings(recipe))
    if recipe.is_lfp:
        from nblib.data import lfp

        return lfp.open_lfp(recipe, recording_id)
    path = raw_file(recipe, recording_id)
    if recipe.source == "allen":
        from nblib.data.allen import open_allen

        return open_allen(path, time_unit=recipe.time_unit, **how)
    from nblib.data.nwb import open_nwb

    return open_nwb(path, time_unit=recipe.time_unit, **how)


def open_binned(recipe: Recipe, recording_id: str) -> xr.Dataset:
    """Counts of a recording that is binned already, its trials chosen and labelled as any others.

    Raises BadParameter for another binning than per presentation, BadInput for a file that is
    misaligned, is not a table of counts or has other bins than `n_bins`.
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
    if recipe.source == "lab_pickle":
        from nblib.data.lab_pickle import read_lab_pickle

        binned = read_lab_pickle(path, n_bins=recipe.n_bins, session=recording_id)
    else:
        binned = _module(recipe).read_counts(path, recipe, recording_id, own_settings(recipe))
    table = binned.coords.to_dataset().drop_dims(["unit", "time"]).to_dataframe()
    other = {n: f"is there, but its axes are {', '.join(binned[n].dims)}" for n in binned.variables}
    table.attrs[columns.LEFT_OUT] = {n: why for n, why in other.items() if n not in table}
    found = labelling.select(table, recipe.label, rules, str(path))
    table = labelling.to_count(found, rules, recipe, str(path), needs=()).table
    attrs = {"label_name": recipe.label, **found.attrs()}
    binned = binned.isel(trial=table.index.to_numpy()).assign_attrs(attrs)
    return binned.assign_coords(label=("trial", labelling.as_array(table["label"])))
