"""Where recordings come from: one module per origin, one way in.

A source is a line in `nblib.core.source_registry.SOURCES` and a module with one of

- `open_recording(path, recipe, recording_id, settings) -> Recording`, times in seconds; of columns
  whose name does not end in `_time`, the recipe's `event` is converted here
- `read_counts`, with the same arguments, where it holds counts: Binned counts (trial, time, unit) and
  what else is known of trials

and, where it likes, with

- `USES`: which of `NOT_ALL_USE` it reads; others are then refused. Without it, any
- `Settings`: what only this source has to know, given under `source_params` in a recipe
- `files(folder)`: what is read in the folder that a recipe's `path` names; without it, `path` is a file
- `beside(path, recipe, recording_id)`: what is read beside that file, by its part in the recording
- `fetch(recording_id)`, `fetched(recording_id) -> path` and `list_sessions(kind) -> table`: where it can
  be downloaded
- `make(settings, recording_id) -> path` and `key(settings, recording_id)`: where it is simulated; the
  settings are the recipe's block of the source's name where there is one, else `source_params`
- `truth_path(path)` and `oracle_log_posterior(truth, ...)`: of a simulated one, where its truth lies and
  what the best possible decoder would say (see `nblib.simulate.oracle`)
- `images(recipe, recording_id, labels) -> Images`: the images behind labels (see `nblib.data.images`)
- `pool(recordings, recording_id) -> Recording`: where its settings have `pool`, which names recordings
  that are others laid together
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nblib.core import params, rawfiles, store
from nblib.core.errors import BadParameter, MissingInput
from nblib.core.source_registry import SOURCES
from nblib.data import stimulus
from nblib.data.files import linked, require_file
from nblib.data.trials import columns, expressions, labelling

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

    from nblib.core.params import Recipe
    from nblib.data.recording import Recording


# The settings of a recipe that not every source reads, and those of 02 that one kind of them reads.
NOT_ALL_USE = ("path", "time_unit", "series", "times")
FROM_FRAMES = ("frames_per_bin", "bin_label")
CONTINUOUS = ("gaps", "stimulus_value")  # of bins without trials
BINNED_BY = {
    "spikes": (
        "binning", "n_bins", "bin_s", "window_start_s", "window_stop_s", "event", "edges_s", *FROM_FRAMES,
        "signals", "variables",
    ),
    "lfp": ("window_s", "hop_s", "lowpass_hz", "resample_hz", "causal", "gaps"),
    "counts": ("binning", "variables"),  # binning: must be per presentation, which `open_binned` says
}  # fmt: skip


def offered(source: str, name: str) -> Any:
    """What the module of a source has under a name of the protocol above, None where it has not."""
    return getattr(SOURCES[source].module, name, None)


def check_used(recipe: Recipe) -> None:
    """BadParameter for a setting that is given though the recipe's source does not read it."""
    read = offered(recipe.source, "USES")
    uses = {*(NOT_ALL_USE if read is None else read), *BINNED_BY[recipe.holds]}
    if recipe.holds == "spikes" and not recipe.intervals:
        uses |= {"series", *(CONTINUOUS if recipe.binning == "continuous" else ())}
    for name in sorted({*NOT_ALL_USE, *CONTINUOUS}.union(*BINNED_BY.values()) - uses):
        value = getattr(recipe, name)
        if value != params.Recipe.model_fields[name].default:
            raise BadParameter(
                f"recipe {recipe.recipe!r}: {name} = {value!r}, but source {recipe.source!r} does "
                f"not use {name}, so it would change nothing. Take it out."
            )


def check(recipe: Recipe) -> None:
    """BadParameter for what no recording could answer: a setting that the source does not use, settings
    of its own that it does not have, a condition or label that is no expression."""
    check_used(recipe)
    own_settings(recipe)
    where = f"recipe {recipe.recipe!r}"
    if recipe.binning == "continuous" and recipe.intervals:
        raise BadParameter(
            f"{where}: binning = 'continuous' bins all of the time, without trials, but intervals = "
            f'{recipe.intervals!r}. Set intervals: "".'
        )
    if recipe.where:
        expressions.check_syntax(recipe.where, f"{where}: where")
    if re.search("[<>=]", recipe.label):  # anything else may be the name of a column
        expressions.check_syntax(recipe.label, f"{where}: label")


def own_settings(recipe: Recipe) -> Any:
    """The checked settings of the source's own, None where it has none.

    Raises BadParameter for an unknown name, a wrong type or a value out of bounds.
    """
    where = f"source_params of recipe {recipe.recipe!r}"
    if model := offered(recipe.source, "Settings"):
        return params.checked(model, recipe.source_params, where)
    if recipe.source_params:
        raise BadParameter(
            f"{where}: source {recipe.source!r} takes none; found {', '.join(recipe.source_params)}."
        )
    return getattr(recipe, recipe.source, None)


def raw_file(recipe: Recipe, recording: str) -> Path:
    """The recording's file or folder: the recipe's path, or where a fetched one lies.

    Raises MissingInput when it, or what the source reads in it, is not there.
    """
    path, fetched = recipe.file(recording), offered(recipe.source, "fetched")
    if path is None and fetched:
        path = fetched(recording)
    if path is None:
        raise BadParameter(f"recipe {recipe.recipe!r}: source {recipe.source!r} needs a path.")
    files = offered(recipe.source, "files")
    if files and not path.is_dir():
        raise MissingInput(f"{path}: no such folder; check `path` in recipe {recipe.recipe!r}.")
    for file in files(path) if files else [path]:
        require_file(file, f"check `path` in recipe {recipe.recipe!r}")
    return path


def members(recipe: Recipe, recording: str) -> list[str]:
    """The recordings that this one is laid together from; empty for one that stands for itself."""
    return getattr(own_settings(recipe), "pool", {}).get(recording, [])


def fetch(recipe: Recipe, recording: str) -> None:
    """Download the recording where its recipe names no file and its source can; else nothing."""
    if (download := offered(recipe.source, "fetch")) and not recipe.path:
        download(recording)


def is_simulated(source: str) -> bool:
    """Whether recordings of this source are made from settings and read no file."""
    return offered(source, "make") is not None


def raw_files(recipe: Recipe, recording: str) -> dict[str, Path]:
    """Every file that a recording is read from, by its part in it; none for a simulated one.

    The file or those of its folder, what the source reads beside it, and all that HDF5 links or
    external data in these lead to, which need not be there.
    """
    if is_simulated(recipe.source):
        return {}
    if parts := members(recipe, recording):
        return {f"{p}:{n}": f for p in parts for n, f in raw_files(recipe, p).items()}
    path = raw_file(recipe, recording)
    inside, beside = offered(recipe.source, "files"), offered(recipe.source, "beside")
    files = {str(f.relative_to(path)): f for f in inside(path)} if inside else {"": path}
    if beside:
        files |= beside(path, recipe, recording)
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
    if parts := members(recipe, recording):
        return store.make_key("pool", 1, {}, [identity(recipe, part) for part in parts])
    if key := offered(recipe.source, "key"):
        return key(own_settings(recipe), recording)
    files = raw_files(recipe, recording)
    content = {n: rawfiles.file_hash(p) if p.is_file() else "absent" for n, p in files.items()}
    if list(content) == [""]:
        return content[""]
    return store.make_key("raw", 1, content, [])


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
    recording = replace(_open(recipe, recording_id), rules=recipe.label_rules)
    if recording.trials:
        if recipe.binning in ("event_window", "edges") and not recipe.is_lfp:
            _settle_events(recording, recipe)
        needs = labelling.SPAN if recipe.is_lfp else labelling.times_of(recipe)
        labelling.to_count(
            recording.labelled, recording.rules, recipe, recording.trial_place, needs
        )
    elif not recipe.is_lfp:
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
    columns.check_event(str(recording.path or recording.id), recording.trials, table, event)


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
    table = labelling.to_count(chosen, rules, recipe, str(path), needs=()).table
    attrs = {"label_name": recipe.label, **chosen.attrs()}
    binned = binned.isel(trial=table.index.to_numpy()).assign_attrs(attrs)
    return binned.assign_coords(label=("trial", labelling.as_array(table["label"])))
