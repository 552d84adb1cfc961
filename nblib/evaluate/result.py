"""What an experiment found: scores, tables and arrays, how they are stored and how people read them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, Protocol

import numpy as np
import pandas as pd

from nblib.evaluate.scores import Score, write_metrics


def with_interval(score: Any) -> str:
    """A share and its interval in percent; score: a `Score`, or a row of a table of scores."""
    return f"{score.value:.1%} (95 % interval {score.ci_low:.1%} to {score.ci_high:.1%})"


def readable(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """A table as people read it: for each column a template over the rows, such as "{value:.1%}".

    A cell is empty where a number of it is missing. A column that is one name alone, "{n}", is
    taken as it is, so that it can be sorted.
    """
    rows, made = table.to_dict("records"), pd.DataFrame(index=table.index)
    for name, template in columns.items():
        used = [field for _, field, _, _ in Formatter().parse(template) if field]
        texts = [
            "" if any(pd.isna(row[field]) for field in used) else template.format_map(row)
            for row in rows
        ]
        made[name] = table[used[0]] if template == f"{{{used[0]}}}" else texts
    return made


class Stored(Protocol):
    """What is stored beside the scores, in files of its own: a decoder, say."""

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Row:
    """One score: what it is called, and what the best possible decoder scores there, if known.

    of: which of several results of a run it belongs to, with `model` and `variant`; empty where
    the run is one result. metric: name of the score within that result; "" = as `what`.
    """

    what: str
    score: Score
    best: Score | None = None
    of: dict[str, Any] = field(default_factory=dict)
    metric: str = ""


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    rows: one a score; about: what was scored, and on how much; tables: by the name of their file;
    arrays: by the name of their file, then their own; files: what else is stored.
    """

    rows: list[Row]
    about: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    files: list[Stored] = field(default_factory=list)

    @property
    def scores(self) -> dict[str, Score]:
        """The scores by what they are called."""
        return {row.what: row.score for row in self.rows}

    @property
    def best(self) -> dict[str, Score] | None:
        """Scores of the best possible decoder; None where the truth is not known."""
        return {row.what: row.best for row in self.rows if row.best is not None} or None

    def table(self) -> pd.DataFrame:
        """One row a score, with interval, chance and p; `best possible` where it is known.

        What p is against stands beside its name where it is the same for all, else in a column.
        """
        rows = [row.score.fields() for row in self.rows]
        table = pd.DataFrame(rows, index=pd.Index(self.scores, name="score")).round(4)
        if len(nulls := set(table["null"])) == 1:
            table = table.rename(columns={"p": f"p, {nulls.pop()}"}).drop(columns="null")
        if self.best:
            best = [math.nan if row.best is None else row.best.value for row in self.rows]
            table["best possible"] = np.round(best, 4)
        return table

    def of_metric(self, metric: str) -> pd.DataFrame:
        """One row a score of one metric: model, variant, the score's fields, and `oracle`, `oracle_low` and
        `oracle_high` of the best possible where that is known."""
        ends = {"oracle": "value", "oracle_low": "ci_low", "oracle_high": "ci_high"}
        return pd.DataFrame([
            row.of | row.score.fields() | {to: getattr(row.best, name, math.nan) for to, name in ends.items()}
            for row in self.rows if row.metric == metric
        ])  # fmt: skip

    def save(self, folder: Path, who: dict[str, Any]) -> None:
        """Write metrics.json, the tables as Parquet, the arrays as safetensors, what else is stored.

        who: whose result it is (see `Stage.who`). Raises what `write_metrics` raises.
        """
        write_metrics(folder, who | self.about | self._metrics())
        for name, table in self.tables.items():
            table.to_parquet(folder / f"{name}.parquet", index=False)
        for name, arrays in self.arrays.items():
            from safetensors.numpy import save_file

            whole = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
            save_file(whole, folder / f"{name}.safetensors")
        for stored in self.files:
            stored.save(folder)

    def _metrics(self) -> dict[str, Any]:
        """`scores` and `oracle` by name; where a run is several results, `rows` with those of each."""
        alone = {row.what: row.best for row in self.rows if row.best is not None and not row.of}
        results: list[dict[str, Any]] = []
        for row in self.rows:
            if not row.of:
                continue
            if not results or any(results[-1][name] != value for name, value in row.of.items()):
                results.append({**row.of, "scores": {}, "oracle": {}})
            results[-1]["scores"][row.metric or row.what] = row.score
            if row.best is not None:
                results[-1]["oracle"][row.metric or row.what] = row.best
        if not results:
            return {"scores": self.scores, "oracle": alone or None}
        return {"scores": self.scores, "oracle": alone, "rows": results}
