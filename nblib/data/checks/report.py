"""What a session report is: tables, what is odd, and how both are kept and worded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from nblib.core.markup import in_markdown


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
