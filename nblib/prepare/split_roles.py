"""Who may teach and who may judge: presentations are dealt to train, validation and test.

A split is made once per recording and shared by every model. Whole presentations (and groups of
presentations that overlap in time) get one role; a blocked split also keeps a gap in seconds.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import xarray as xr

from nblib.core.errors import BadInput, BadParameter, some
from nblib.core.params import SplitSettings
from nblib.data.counts_dataset import NO_LABEL, signals_of, to_ns
from nblib.data.trials import labelling
from nblib.data.trials.time_intervals import merged, touches
from nblib.prepare import continuous, stored_splits
from nblib.prepare.continuous import film

LEAST_OF_CLASS = 3  # one for train, validation and test each


def overlap_groups(start_ns: np.ndarray, stop_ns: np.ndarray) -> np.ndarray:
    """Group number (trial,) int64 of each trial; trials that share time share a group. Times (trial,) [ns]."""
    order = np.argsort(start_ns, kind="stable")
    reach = np.maximum.accumulate(stop_ns[order])
    new = np.concatenate([[True], start_ns[order][1:] >= reach[:-1]])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    return group


def _blocked(n: int, k: int, fold: int, settings: SplitSettings) -> np.ndarray:
    """Roles of `n` groups in time order: contiguous test block, validation block beside it."""
    role = np.full(n, "train", dtype="<U5")
    if k == 1:
        test = np.arange(n - max(1, round(settings.test_fraction * n)), n)
        rest = np.arange(test[0])
        val = rest[len(rest) - max(1, round(settings.val_fraction * len(rest))) :]
    else:
        test = np.array_split(np.arange(n), k)[fold]
        # The rest in cyclic order after the test block: validation lies next to test, so that
        # only one more gap is spent.
        rest = np.concatenate([np.arange(test[-1] + 1, n), np.arange(test[0])])
        val = rest[: max(1, round(settings.val_fraction * len(rest)))]
    role[test], role[val] = "test", "val"
    return role


def _random(group: np.ndarray, label: np.ndarray, fold: int, settings: SplitSettings) -> np.ndarray:
    """Roles of trials dealt at random, whole groups together, stratified by label on request."""
    from sklearn import model_selection as sklearn

    seed, k = settings.split_seed, settings.n_folds

    def deal(rows: np.ndarray, fraction: float, folds: int, fold: int) -> np.ndarray:
        """Rows of the held-out part."""
        try:
            if folds > 1:
                kind = sklearn.StratifiedGroupKFold if settings.stratified else sklearn.GroupKFold
                parts = kind(folds, shuffle=True, random_state=seed)
                return rows[list(parts.split(rows, label[rows], group[rows]))[fold][1]]
            # Whole groups, each with the label of its first presentation.
            groups, first = np.unique(group[rows], return_index=True)
            kind = sklearn.StratifiedShuffleSplit if settings.stratified else sklearn.ShuffleSplit
            part = kind(1, test_size=fraction, random_state=seed)
            held_out = next(part.split(groups, label[rows][first]))[1]
            return rows[np.isin(group[rows], groups[held_out])]
        except ValueError as error:
            raise BadParameter(
                f"split: random cannot deal {len(rows)} presentations of {len(np.unique(label[rows]))} "
                f"labels ({str(error).split('Classes with too few')[0].strip(' .')}); use fewer folds, other fractions, or stratified: false."
            ) from None

    role = np.full(len(group), "train", dtype="<U5")
    everything = np.arange(len(group))
    test = deal(everything, settings.test_fraction, k, fold)
    rest = np.setdiff1d(everything, test)
    role[test] = "test"
    role[deal(rest, settings.val_fraction, 1, 0)] = "val"
    return role


def make_split(binned: xr.Dataset, settings: SplitSettings) -> pd.DataFrame:
    """Deal roles to presentations, once for every fold.

    Returns
    -------
    Rows (fold, trial): recording, subject, trial, group (presentations that share time have one,
    and one role), label, start_s, stop_s, fold, role, seed. Of a film also dealt, the role that a bin has
    whatever the label: without a label, its role is gap.

    Raises
    ------
    BadParameter : for fewer presentations than folds.
    BadInput : for a single class, a class that is absent from train, or an empty role.
    """
    who = f"recording {binned.attrs['recording']!r}"
    label = binned.label.values
    start, stop = to_ns(binned.start_s.values), to_ns(binned.stop_s.values)
    group = overlap_groups(start, stop)
    n_groups = int(group.max()) + 1
    known = np.ones(len(label), bool)
    continuous.check_split(binned, settings, who)
    if settings.split == "segments" or film.is_film(binned):
        _check_film(binned, settings, who)
        known = label != NO_LABEL
    classes = labelling.as_text(label[known])
    labelling.check_classes(classes, json.loads(binned.attrs["classes"]), who)
    asked = json.loads(binned.attrs.get("binning", "{}")).get("variables")
    unlabelled = continuous.is_continuous(binned) or signals_of(binned) or asked
    if binned.attrs["label_name"] or not unlabelled:  # time, signals and variables need no label
        _check_label(label[known], binned.attrs["label_name"], settings, group[known], who)
    if n_groups < max(3, settings.n_folds + 2 if settings.n_folds > 1 else 3):
        raise BadParameter(
            f"{who}: {len(label)} presentations in {n_groups} groups that do not overlap in time are "
            f"too few for {settings.n_folds} fold(s) with train, validation and test. Where trials last until "
            "others have begun, cut shorter windows around an event (02, binning: event_window), or take fewer by "
            "`where` (01)."
        )
    folds = []
    gap_s = continuous.gap_s(settings) if continuous.is_continuous(binned) else settings.gap_s
    for fold in range(settings.n_folds):
        if settings.split == "blocked":
            role = _blocked(n_groups, settings.n_folds, fold, settings)[group]
            role = _with_gaps(role, start, stop, round(gap_s * 1e9))
        elif settings.split == "cycles":
            role = continuous.cycle_roles(binned.trial.values, (stop - start)[0] / 1e9, settings)
        elif settings.split == "segments":
            at = binned.trial.values
            role, group = film.segment_roles(at[-1] + 1, film.bin_s(binned), fold, settings)
            role, group = role[at], group[at]
        else:
            role = _random(group, label, fold, settings)
        dealt = {"dealt": role.copy()} if film.is_film(binned) else {}
        role[~known] = "gap"
        _check_roles(role[known], label[known], fold, settings, binned)
        folds.append(
            pd.DataFrame({
                "recording": binned.attrs["recording"], "subject": binned.attrs["subject"],
                "trial": binned.trial.values, "group": group, "label": label,
                "start_s": binned.start_s.values, "stop_s": binned.stop_s.values,
                "fold": fold, "role": role, "seed": settings.split_seed, **dealt,
            })
        )  # fmt: skip
    return pd.concat(folds, ignore_index=True)


def _check_film(binned: xr.Dataset, settings: SplitSettings, who: str) -> None:
    """Refuse a split by segments of what is no film, and one at random of what is."""
    if not film.is_film(binned):
        raise BadParameter(f"{who}: split = 'segments' is for films; its binning is not 'frames'.")
    if settings.split == "random":
        raise BadParameter(
            f"{who}: split = 'random' on the frames of a film: neighbours give the answer away, whatever the "
            "units say. Take split: segments; the leak curve of the notebook for films shows what random would "
            "score."
        )
    if settings.split == "segments" and settings.n_folds > film.FOLDS:
        raise BadParameter(
            f"{who}: n_folds = {settings.n_folds}: split: segments has {film.FOLDS}."
        )


def _check_label(label, name: str, settings: SplitSettings, group: np.ndarray, who: str) -> None:
    """Refuse labels that cannot be learned and judged, whatever the roles."""
    classes, n = np.unique(label, return_counts=True)
    if name == "":
        raise BadInput(
            f"{who}: its trials have no label (label is empty), no signals and no variables; name `signals` or "
            "`variables`, or set `label`."
        )
    if len(classes) < 2:
        raise BadInput(f"{who}: label {name!r} has one class only ({label[0]}); nothing to decode.")
    if n.max() == 1:
        half = (
            f"label: {name} > {np.median(classes):g}"
            if classes.dtype.kind in "iuf" and name.isidentifier()
            else ""
        )
        raise BadInput(
            f"{who}: label {name!r} is another one in each of the {len(label)} presentations ({some(classes, 3)}); "
            "nothing comes twice, so nothing can be learned. Take a label with few classes"
            + (f", or make them by an expression such as  {half}" if half else "")
            + "."
        )
    if settings.split == "random" and settings.stratified:
        # Each role needs a group of every class; a group goes by its first presentation.
        first = label[np.unique(group, return_index=True)[1]]
        n = np.array([(first == c).sum() for c in classes])
        if n.min() < LEAST_OF_CLASS:
            few = [f"{c} ({k})" for c, k in zip(classes, n, strict=True) if k < LEAST_OF_CLASS]
            raise BadInput(
                f"{who}: stratified: true needs {LEAST_OF_CLASS} presentations of each class that do not overlap; too few "
                f"have {some(few)}. Leave such classes out with `where`, or set stratified: false."
            )


def _with_gaps(role: np.ndarray, start: np.ndarray, stop: np.ndarray, gap_ns: int) -> np.ndarray:
    """Set aside train and validation trials closer than the gap to test, then train to validation."""
    role = role.astype("<U5")
    for judge, losers in (("test", ("train", "val")), ("val", ("train",))):
        held = role == judge
        zone = merged(np.column_stack([start[held] - gap_ns, stop[held] + gap_ns]))
        role[np.isin(role, losers) & touches(start, stop, zone)] = "gap"
    return role


def _check_roles(role, label, fold, settings, binned) -> None:
    """Refuse a role without rows, and a class that no training row has."""
    who, rows = f"recording {binned.attrs['recording']!r}", continuous.row_word(binned)
    remedy = "use a smaller gap, fewer folds or other fractions"
    if settings.split == "cycles":
        length_s = float(binned.stop_s[0] - binned.start_s[0])
        cycle = f"a cycle of cycle_s = {settings.cycle_s} with {continuous.gap_s(settings):g} s between its parts"
        # As many rows as a cycle has fill all its parts, unless `gaps` left some out.
        if len(role) < len(continuous.cycle(length_s, settings)):
            remedy = f"{len(role)} {rows} are less than {cycle}: shorten it"
        else:
            remedy = f"none of {len(role)} lies in its part of {cycle}: take another"
    for name in ("train", "val", "test"):
        if not (role == name).any():
            raise BadInput(
                f"{who}, fold {fold}: no {rows} are left for {name} (gap_s = {settings.gap_s}); {remedy}."
            )
    absent = sorted(set(label.tolist()) - set(label[role == "train"].tolist()))
    if absent:
        fewest = int(np.unique(label, return_counts=True)[1].min())
        raise BadInput(
            f"{who}, fold {fold}: {len(absent)} class(es) have no training presentation, first {absent[0]!r}; "
            + (
                "split: random with stratified: true gives every class its share of each role."
                if fewest >= LEAST_OF_CLASS
                else f"the rarest class has {fewest} in all, too few for every role: leave such classes out with `where`."
            )
        )


def sentence(
    binned: xr.Dataset,
    split: pd.DataFrame,
    statistics: list[stored_splits.TrainStatistics],
    kind: str,
) -> str:
    """What 04 made, in a sentence; kind: how roles were dealt."""
    n = split[split["fold"] == split["fold"].min()]["role"].value_counts()
    classes = f" and {len(statistics[0].classes)} classes"
    return (
        f"**Result.** In the first of {split['fold'].nunique()} fold(s), {n['train']:,} "
        f"{continuous.row_word(binned)} teach, {n['val']:,} choose and {n['test']:,} judge; {n.get('gap', 0):,} lie "
        f"in gaps. {len(statistics[0].unit_ids):,} units{'' if continuous.is_continuous(binned) else classes} go on "
        f"to the decoders. This split is `{stored_splits.split_hash(split)}`.{runs_in_words(split, kind, continuous.row_word(binned))}"
    )


def runs_in_words(split: pd.DataFrame, kind: str, rows: str = "presentations") -> str:
    """A sentence where labels come in runs, with a warning where its `kind` (blocked, random) is random."""
    length = stored_splits.time_blocks(split)[0]
    if length == 1:
        return ""
    if kind == "random":
        return f" **{stored_splits.RUNS_AND_RANDOM}**"
    return f" Labels come in runs: those of about {length} {rows} in a row depend on each other."
