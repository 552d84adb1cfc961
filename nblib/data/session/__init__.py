"""Look before you leap: what a recording holds, what is odd in it, and what is broken.

Broken is refused with the unit ids or rows; odd is reported. Spikes stream past in pieces, so
memory does not grow with the recording.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput
from nblib.core.markup import in_markdown
from nblib.data.nwb import tables as nwb_tables
from nblib.data.recording import Recording, good_units
from nblib.data.session.clock import Clock, check_clock
from nblib.data.session.intervals import (
    interval_table,
    invalid_tables,
    is_sound,
    observed_tables,
    odd_intervals,
    odd_trials,
    trial_oddities,
    trial_tables,
)
from nblib.data.session.spikes import (
    Spikes,
    check_index,
    clock_of,
    mean_rate,
    odd_spikes,
    pass_over,
    span,
    unit_rates,
)


@dataclass(frozen=True)
class SessionReport:
    """What a recording holds, as tables, and what is odd in it, as sentences.

    tables: `summary` (item, value); `units` (area, units, good, spikes, rate_hz); `unit_rates`
    (one row a unit); `presentations` (label, n, median_s); `intervals` (one row a table);
    `rate` (time_s, rate_hz: mean over units); `blocks` (runs of trials without a long gap);
    `invalid` (start_time, stop_time, presentations it touches); `lengths` (trials whose length is
    off); `overlaps` (trials that touch an invalid interval); `observed` (one row a unit, where the
    file tells when its spikes were looked for). Times in seconds. holds: the same in a few words.
    """

    recording: str
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    holds: str = ""

    def __str__(self) -> str:
        lines = [f"{k}: {v}" for k, v in self.tables["summary"].itertuples(index=False)]
        return "\n".join(
            [*lines, "odd:" if self.odd else "nothing odd", *(f"- {o}" for o in self.odd)]
        )

    def odd_markdown(self) -> str:
        """What is odd in the recording, a line each."""
        return "\n".join(f"- {in_markdown(o)}" for o in self.odd or ["Nothing odd was found."])

    def sentence(self) -> str:
        """What 01 found, in a sentence."""
        return (
            f"**Result.** Recording *{in_markdown(self.recording)}* holds {self.holds}. "
            f"Odd findings: {len(self.odd)}."
        )

    def save(self, folder: Path) -> None:
        """Write one Parquet file a table, and report.json with what is odd."""
        for name, table in self.tables.items():
            plain = table.reset_index() if table.index.name else table
            texts = {c: plain[c].astype(str) for c in plain if plain[c].dtype == object}
            plain.assign(**texts).to_parquet(folder / f"{name}.parquet", index=False)
        text = json.dumps({"recording": self.recording, "odd": self.odd}, indent=1)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")


def session_report(recording: Recording) -> SessionReport:
    """Check a recording and describe it.

    Raises BadInput, naming unit ids or rows, for NaN or infinite spike times, spike times that
    are not sorted within a unit, a spike index that does not fit, times that are not on one clock
    in seconds (see `clock`), and invalid or observed times that are reversed or have no start.
    """
    if recording.lfp is not None:
        from nblib.data.session import potentials

        return potentials.report(recording)
    where = str(recording.path or recording.id)
    check_index(recording, where)
    odd: list[str] = list(recording.meta.get("notes", []))
    tables = _tables(recording, odd)
    tables.pop(recording.trials, None)
    sound = {
        n: t.reset_index(drop=True)
        for n, t in tables.items()
        if len(t) and (n == "invalid_times" or is_sound(n, t, odd))
    }
    trials = timed = begun = None
    if recording.trials:
        trials, timed = recording.trial_table, recording.timed_trials
        begun = trials[np.isfinite(trials["start_time"])]  # a clock is told by starts alone
        has_stop = begun.index.isin(timed.index)
        begun = begun.assign(stop_time=begun["stop_time"].where(has_stop, begun["start_time"]))
        odd += trial_oddities(recording)
        sound = ({recording.trials: timed} if len(timed) else {}) | sound
    spikes = pass_over(recording, where)
    others = [t for n, t in sound.items() if n != "invalid_times"]
    clock = clock_of(spikes, others)
    check_clock(recording, where, clock, begun, spikes.unsorted)
    out = {
        "units": _units(recording, spikes, clock),
        "unit_rates": unit_rates(recording, spikes, clock),
        "intervals": interval_table(sound),
        "rate": mean_rate(recording, clock),
    }
    if trials is not None:
        out |= trial_tables(recording, trials, odd)
    out |= invalid_tables(recording, where, timed, clock, odd)
    out |= observed_tables(recording, where, timed, spikes, odd)
    if trials is not None:
        odd_trials(recording.trials, timed, clock, odd)
        out["classes"] = pd.DataFrame({"class": recording.labelled.classes})
    odd_intervals({n: t for n, t in sound.items() if n != recording.trials}, clock, odd)
    odd_spikes(recording, spikes, clock, odd)
    if missing := recording.meta.get("left_out"):
        rows = list(missing.items())
        out["left_out"] = pd.DataFrame(rows, columns=["column of the units table not read", "why"])
    out = {"summary": _summary(recording, trials, spikes, clock, out), **out}
    item = out["summary"].set_index("item")["value"]
    holds = (
        f"{recording.n_spikes:,} spikes of {recording.n_units:,} units (mean rate {item['mean rate [Hz]']} Hz) and "
        + (
            f"{item['presentations']:,} presentations of {item['labels']} labels"
            if recording.trials
            else "no trials"
        )
    )
    return SessionReport(recording.id, out, odd, holds)


def _tables(recording: Recording, odd: list[str]) -> dict[str, pd.DataFrame]:
    """Every interval table that can be read; adds to `odd` which cannot, and their broken columns."""
    tables = {}
    for name in recording.intervals:
        try:
            tables[name] = recording.intervals[name]
        except BadInput as error:
            odd.append(f"The interval table {name} is left out, since it cannot be read: {error}")
        else:
            nwb_tables.tell_broken(tables[name], name, odd)
    return tables


def _units(recording: Recording, spikes: Spikes, clock: Clock) -> pd.DataFrame:
    units = recording.units
    area = (
        units["area"].astype(str).replace({"": "none", "nan": "none"})
        if "area" in units
        else "unknown"
    )
    table = pd.DataFrame({"area": area, "units": 1, "spikes": spikes.count}, index=units.index)
    good = good_units(units)
    if good is not None:
        table["good"] = good.astype(int)
    table = table.groupby("area").sum().sort_values("units", ascending=False)
    table["rate_hz"] = table["spikes"] / table["units"] / span(clock)
    return table.reset_index()


def _summary(
    recording: Recording,
    trials: pd.DataFrame | None,
    spikes: Spikes,
    clock: Clock,
    tables: dict[str, pd.DataFrame],
) -> pd.DataFrame:
    good = good_units(recording.units)
    items = {
        "recording": recording.id,
        "subject": recording.subject,
        "file": recording.path.name if recording.path else "",
        "units": recording.n_units,
        "units within the Allen limits": "not recorded" if good is None else int(good.sum()),
        "spikes": clock.n_spikes,
        "spikes from [s]": round(clock.first, 3),
        "spikes to [s]": round(clock.last, 3),
        "mean rate [Hz]": round(clock.n_spikes / recording.n_units / span(clock), 3)
        if span(clock) > 0
        else 0.0,
        "trial table": recording.trials or "none",
        "presentations": 0 if trials is None else len(trials),
        "labels": 0 if trials is None else len(tables["presentations"]),
        "trials left out": 0 if trials is None else sum(recording.labelled.left_out.values()),
        "invalid intervals": len(recording.invalid_times),
        "series": ", ".join(recording.series),
    }
    return pd.DataFrame({"item": items.keys(), "value": items.values()})
