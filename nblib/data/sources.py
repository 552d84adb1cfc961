"""What the module of a data source has to offer, and asking for it; `nblib.data.opening` is the one way in.

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
- `ideal_observer(recipe, recording_id, trials, unit_ids, classes, window_s)`: of a simulated one, what the
  best possible decoder would say (see `nblib.simulate.allen.ideal_observer`)
- `ceiling(recipe, recording_id, unit_ids)`: of a simulated task, what could be known at best of behaviour and
  spikes (see `nblib.simulate.task_oracle.Ceiling`), None where that is not known
- `images(recipe, recording_id, labels) -> Images`: the images behind labels (see `nblib.data.images`)
- `pool(recordings, recording_id) -> Recording`: where its settings have `pool`, which names recordings
  that are others laid together
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nblib.core import params, store
from nblib.core.errors import BadParameter, MissingInput
from nblib.core.source_registry import SOURCES
from nblib.data import expressions
from nblib.data.files import hashes, require_file

if TYPE_CHECKING:
    from pathlib import Path

    from nblib.core.params import Recipe


# The settings of a recipe that not every source reads, and those of 01 and 02 that one kind reads.
NOT_ALL_USE = ("path", "time_unit", "series", "times")
FROM_FRAMES = ("frames_per_bin", "bin_label")
CONTINUOUS = ("gaps", "stimulus_value")  # of bins without trials
BINNED_BY = {
    "spikes": (
        "binning", "n_bins", "bin_s", "window_start_s", "window_stop_s", "event", "edges_s", *FROM_FRAMES,
        "signals", "variables", "invalid_times",
    ),
    "lfp": ("invalid_times", "window_s", "hop_s", "lowpass_hz", "resample_hz", "causal", "gaps"),
    "counts": ("binning", "variables"),  # binning: must be per presentation, which `open_binned` says
}  # fmt: skip


def offered(source: str, name: str) -> Any:
    """What the module of a source has under a name of the protocol above, None where it has not."""
    return getattr(SOURCES[source].module, name, None)


def check_used(recipe: Recipe) -> None:
    """BadParameter for a setting that is given though the recipe's source does not read it."""
    read = offered(recipe.source, "USES")
    uses = {*(NOT_ALL_USE if read is None else read), *BINNED_BY[recipe.holds]}
    uses |= {"causal"} if recipe.signals else set()
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
    of its own that it does not have, a condition that is no expression. A label may be any column's name."""
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
    """The recordings that this one is laid together from; empty for one that stands for itself.

    Raises BadParameter for a pool of none, of one twice, or of pools.
    """
    pools = getattr(own_settings(recipe), "pool", {})
    if recording not in pools:
        return []
    parts = pools[recording]
    if not parts or len(set(parts)) < len(parts) or set(parts) & set(pools):
        raise BadParameter(
            f"recipe {recipe.recipe!r}: pool {recording!r} = {parts}; it needs recordings, each once, none of "
            "them a pool."
        )
    return parts


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
        files |= {f"{name}:{k}": target for k, target in hashes.linked_files(file).items()}
    return files


def raw_content(recipe: Recipe, recording: str) -> dict[str, str]:
    """sha256 of each of these files that is there: path -> content."""
    files = raw_files(recipe, recording).values()
    return {str(path): hashes.file_hash(path) for path in files if path.is_file()}


def identity(recipe: Recipe, recording: str) -> str:
    """What a recording is, before reading it: the sha256 of its file, or what stands for those of
    all its files, or the simulation's key."""
    if parts := members(recipe, recording):
        return store.make_key("pool", 1, {}, [identity(recipe, part) for part in parts])
    if key := offered(recipe.source, "key"):
        return key(own_settings(recipe), recording)
    files = raw_files(recipe, recording)
    content = {n: hashes.file_hash(p) if p.is_file() else "absent" for n, p in files.items()}
    if list(content) == [""]:
        return content[""]
    return store.make_key("raw", 1, content, [])
