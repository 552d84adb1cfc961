"""Which labelled trials 02 takes: those with finite times, and grey screens only where they are kept."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, BadParameter, some
from nblib.core.params import BinSettings, LabelRules
from nblib.data.trials.columns import numbers, require
from nblib.data.trials.labelling import Trials, is_one_of

SPAN = ("start_time", "stop_time")
MOST_S = 9.2e9  # whole nanoseconds of 64 bits reach no further
GREY = "grey screen"  # why trials are left out where `keep_blank` is false


def times_of(settings: BinSettings) -> tuple[str, ...]:
    """The columns that a binning of spikes takes its times from."""
    return (settings.event,) if settings.binning in ("event_window", "edges") else SPAN


def unusable(table: pd.DataFrame, columns: tuple[str, ...], where: str) -> dict[str, np.ndarray]:
    """(trial,) True for trials that cannot be used, by reason: each only under the first that holds."""
    reasons, good = {}, np.ones(len(table), bool)
    seconds = {
        column: numbers(require(table, column, where, "event"), f"{where}: column {column!r}")
        for column in columns
    }
    for column, values in seconds.items():
        finite = np.abs(values) < MOST_S
        reasons[f"no finite {column} (NaN or infinite)"] = good & ~np.isfinite(values)
        far = f"a {column} that is no time in seconds (beyond {MOST_S:g})"
        reasons[far] = good & np.isfinite(values) & ~finite
        good &= finite
    if columns == SPAN:
        lasts = seconds["stop_time"] - seconds["start_time"]
        reasons["a negative length"], reasons["no length"] = good & (lasts < 0), good & (lasts == 0)
    return {why: rows for why, rows in reasons.items() if rows.any()}


def to_count(
    trials: Trials, rules: LabelRules, settings: BinSettings, where: str, needs: tuple[str, ...]
) -> Trials:
    """The trials that 02 takes: without grey screens where these are not kept, and with finite times.

    needs: the columns that the binning takes its times from. Raises BadInput, with the rows, for a
    trial without them unless `unusable_trials` is leave_out, and where no trial is left; BadParameter
    where grey screens are to go and nothing says which label they have.
    """
    table, left_out = trials.table, dict(trials.left_out)
    if not settings.keep_blank:
        if not rules.blank:
            raise BadParameter(
                f"{where}: keep_blank is false, but nothing says which label is a grey screen; say so with "
                "`blank`."
            )
        blank = np.array([is_one_of(v, [rules.blank]) for v in table["label"].tolist()], bool)
        table, left_out[GREY] = table[~blank], int(blank.sum())
    good = np.ones(len(table), bool)
    for why, rows in unusable(table, needs, where).items():
        if settings.unusable_trials == "refuse":
            advice = "Mend them in the file, or set unusable_trials: leave_out to go on without such trials"
            if "stop_time" in why:
                advice += ", or cut spikes around an event (binning: event_window), which needs no stop_time"
            raise BadInput(f"{where} has {why} in row {some(table.index[rows])}. {advice}.")
        left_out[why] = int(rows.sum())
        good &= ~rows
    if not good.any():
        reasons = (
            ", ".join(f"{n} with {why}" for why, n in left_out.items() if n) or "it has no rows"
        )
        raise BadInput(f"{where} holds no trial that can be used ({reasons}).")
    return Trials(
        table if good.all() else table[good],
        {why: n for why, n in left_out.items() if n},
        trials.alike,
    )
