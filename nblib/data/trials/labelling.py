"""The trials of a table and the label of each: the one place where that is decided.

01, 02 and the roads of potentials and of counts all take what `select` gives, so they agree on the
classes. A missing label is left out and counted; it is never a class. Two labels are never made one,
unless `join_labels` asks for it.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, BadParameter, some
from nblib.core.params import MISSING, LabelRules
from nblib.data import expressions
from nblib.data.trials.columns import LEFT_OUT, require
from nblib.data.trials.time_intervals import says_of_validity

YES_NO = dict.fromkeys(("true", "yes", "y", "t", "1", "1.0"), True) | dict.fromkeys(
    ("false", "no", "n", "f", "0", "0.0"), False
)
# Numbers that writers of files put where there is none: also NaN made a whole number, and NetCDF's fill values.
STAND_INS = {-99, -999, -9999, -99999, -(2**31), -(2**63), 9.96921e36, 9.969209968386869e36, 1e20}
DIGITS = 12  # numbers that agree so far differ by rounding only


@dataclass(frozen=True)
class Trials:
    """Labelled trials of a table.

    table: as in the file, with `label`; index: the row in the file's table, from 0. left_out:
    reason -> trials. alike: groups of labels that are probably one, each with its trials.
    """

    table: pd.DataFrame
    left_out: dict[str, int]
    alike: list[dict[Any, int]]

    @property
    def classes(self) -> list[str]:
        """Every class once, as text."""
        return as_text(self.table["label"])

    def attrs(self) -> dict[str, str]:
        """What counts and windows keep of them: the classes and what was left out, as JSON."""
        return {"classes": json.dumps(self.classes), "left_out": json.dumps(self.left_out)}


def as_text(labels: Any) -> list[str]:
    """Every class once, as text, in order."""
    return words(np.unique(as_array(labels)))


def check_classes(classes: list[str], seen: list[str], who: str) -> None:
    """Refuse classes that an earlier stage did not see; BadInput names one."""
    if new := sorted(set(classes) - set(seen)):
        raise BadInput(
            f"{who}: class {new[0]!r} was not there before ({len(seen)} classes: {some(seen)}); the recording's "
            "artifacts do not belong together, so make them again with --force."
        )


def words(labels: Any) -> list[str]:
    """Each label as text; a whole number is written alike whether other labels are whole or not."""
    values = as_array(labels).tolist()
    return [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values]


def as_array(labels: Any) -> np.ndarray:
    """Labels (trial,) as numbers, or as text of fixed width."""
    values = np.asarray(labels)
    return values.astype(str) if values.dtype == object else values


def select(table: pd.DataFrame, label: str, rules: LabelRules, where: str) -> Trials:
    """Trials that `rules.where` asks for and that have a label.

    label: a column of the table, or else an expression of columns (see `expressions`); "": none is
    asked for, and the label of every trial is "". where: file and table, for messages.
    Raises BadParameter for an unknown column or an expression that cannot be answered, BadInput for
    labels that are lists, and where no trial is left.
    """
    ids = table.index.name
    by_id = (
        table.reset_index() if ids and ids not in table else table
    )  # rows may be asked for by id
    n_rows = len(table)
    table = table.set_axis(pd.RangeIndex(n_rows), copy=False)
    left_out: dict[str, int] = {}
    if not n_rows:
        raise BadInput(f"{where} has no rows; nothing was presented.")

    def read(column: str) -> expressions.Column:
        what = f"{where}: column {column!r}"
        values = _values(require(by_id, column, where), rules)
        known = iter(typed([v for v in values if v is not None], what).tolist())
        return [None if v is None else next(known) for v in values]

    kept = np.ones(n_rows, bool)
    names = [str(c) for c in by_id.columns]
    if rules.where:
        answers = expressions.evaluate(rules.where, names, read, f"{where}: where")
        if odd := [v for v in answers if not (v is None or isinstance(v, bool))]:
            raise BadParameter(
                f"{where}: where = {rules.where!r} gives {odd[0]!r}, neither true nor false; compare it "
                "with something."
            )
        kept = np.array([answer is True for answer in answers])
        left_out[f"not where {rules.where}"] = answers.count(False)
        left_out[f"a value missing in where {rules.where}"] = answers.count(None)
        if not kept.any():
            raise BadParameter(
                f"{where}: where = {rules.where!r} holds for none of {n_rows} trials."
            )
    if label in by_id or label.isidentifier() or label in table.attrs.get(LEFT_OUT, {}):
        require(by_id, label, where, "label")
    if label == "":
        labels, alike = np.full(int(kept.sum()), ""), []
    else:
        what = f"{where}: label {label!r}"
        if label in by_id:
            values = _values(by_id[label], rules)
        else:
            values = expressions.evaluate(label, names, read, f"{where}: label")
        missing = pd.isna(np.array(values, object))
        left_out["no label"] = int((missing & kept).sum())
        kept &= ~missing
        values = [v for v, keep in zip(values, kept, strict=True) if keep]
        if not values:
            raise BadInput(
                f"{what} is missing in all {left_out['no label']} trials; choose another label, or say "
                "with `missing` what counts as missing."
            )
        values, alike = _joined(values, rules.join_labels)
        labels = typed(values, what)
        labels = labels.astype(str) if labels.dtype == bool else labels
    table = (table if kept.all() else table[kept]).copy(deep=False)  # a film has 120,000 frames
    table["label"] = labels.astype(object) if labels.dtype.kind == "U" else labels
    return Trials(table, {why: n for why, n in left_out.items() if n}, alike)


def variable(table: pd.DataFrame, name: str, rules: LabelRules, where: str) -> np.ndarray:
    """A column of the trials to keep beside the label: numbers, NaN where missing, or text, "" there."""
    values = _values(require(table, name, where, "variables"), rules)
    known = typed([v for v in values if v is not None], f"{where}: column {name!r}")
    none = "" if known.dtype.kind == "U" else np.nan
    left = iter(known.tolist())
    kept = np.array([none if v is None else next(left) for v in values])
    return kept.astype(float) if kept.dtype == bool else kept


def _values(column: pd.Series, rules: LabelRules) -> list:
    """Values of a column as Python's own, None where one is missing."""
    if column.dtype.kind == "f" and column.dtype.itemsize < 8:
        column = column.astype(str).astype(float)  # 0.1 stays 0.1, not 0.10000000149
    values, gone = column.tolist(), column.isna().tolist()
    if column.dtype == object:
        values = [v.item() if isinstance(v, np.generic) else v for v in values]
    if True in gone:
        values = [None if none else v for v, none in zip(values, gone, strict=True)]
    known = set(values) - {None}
    absent = {v for v in known if is_one_of(v, ["", *rules.missing])}
    written = [v for v in known - absent if isinstance(v, str)]
    if written and len(written) == len(known - absent) and _numbers(written) is not None:
        # Text that is all numbers becomes numbers: then it is missing by what it is, too.
        absent |= {v for v in written if is_one_of(_number(v), rules.missing)}
    return [None if v in absent else v for v in values] if absent else values


def is_one_of(value: Any, texts: list[str]) -> bool:
    """Whether a value is meant by one of some texts: text as it stands without its blanks, numbers by
    what they are."""
    if isinstance(value, (str, bool)):
        return _seen(str(value)) in texts
    return any(number == value for number in map(_number, texts))


@lru_cache(maxsize=4096)
def _number(text: str) -> int | float | None:
    """A text as a number, whole ones exactly; None when it is none."""
    for kind in (int, float):
        try:
            return None if "_" in text else kind(text)
        except ValueError:
            continue
    return None


def typed(values: list, what: str) -> np.ndarray:
    """Values as bool, int64, uint64, float64 or text: the first that keeps every two of them apart.

    Text becomes numbers only where each is written as that number is: "1", "2.5", never "01" or "1e3".
    Raises BadInput where even text would make two of them one.
    """
    distinct = list(dict.fromkeys(values))
    for make in (_numbers, lambda known: np.array([str(v) for v in known], dtype=str)):
        made = make(distinct)
        if made is not None and len(set(made.tolist())) == len(distinct):
            place = {v: k for k, v in enumerate(distinct)}
            return made[[place[v] for v in values]]
    raise BadInput(f"{what}: some values are equal as text but not as they are, such as 1 and '1'.")


def _numbers(values: list) -> np.ndarray | None:
    """Distinct values as bool, int64, uint64 or float64; None where they cannot be."""
    kinds = {type(v) for v in values}
    if kinds == {bool}:
        return np.array(values, bool)
    if kinds == {str}:
        read = {v: _number(v) for v in values}
        if any(number is None or str(number) != v for v, number in read.items()):
            return None
        if not all(isinstance(n, int) or math.isfinite(n) for n in read.values()):
            return None
        values = [read[v] for v in values]
    elif not kinds <= {int, float}:
        return None
    if all(isinstance(v, int) or v.is_integer() for v in values):
        for kind in (np.int64, np.uint64):
            with contextlib.suppress(OverflowError):
                return np.array([int(v) for v in values], kind)
        if all(isinstance(v, int) for v in values):
            return None
    try:
        return np.array(values, float)
    except OverflowError:
        return None


def _seen(text: str) -> str:
    """A text as a reader sees it: composed letters, and no signs without a form of their own."""
    signs = unicodedata.normalize("NFC", text).replace("\0", " ")
    return "".join(sign for sign in signs if unicodedata.category(sign) != "Cf").strip()


def _joined(values: list, join: bool) -> tuple[list, list[dict[Any, int]]]:
    """Labels that differ in blanks, case or in how a number is written: each group with its trials;
    with `join`, all of a group by its most frequent label."""
    groups: dict[Any, dict[Any, int]] = {}
    shortest_first = sorted(Counter(values).items(), key=lambda pair: (-pair[1], len(str(pair[0]))))
    for value, n in shortest_first:
        groups.setdefault(_alike(value), {})[value] = n
    alike = [group for group in groups.values() if len(group) > 1]
    if join:
        name = {value: next(iter(group)) for group in alike for value in group}
        values = [name.get(v, v) for v in values]
    return values, alike


def _alike(value: Any) -> Any:
    """What labels have in common that are probably one."""
    number = value
    if isinstance(value, str):
        text = " ".join(_seen(value).split()).casefold()
        number = _number(text)
        if number is None:
            return text
    if isinstance(number, float):
        number = int(number) if number.is_integer() else float(f"{number:.{DIGITS}g}")
    return number


def odd_labels(trials: Trials, rules: LabelRules) -> list[str]:
    """What is odd in labels, as sentences: those that are probably one, or probably none."""
    remedy = (
        "they were joined (join_labels: true), each group under its most frequent label"
        if rules.join_labels
        else "they are classes of their own; join_labels: true makes each group one class"
    )
    odd = _odd_groups("labels", trials.alike, remedy)
    seen = Counter(trials.table["label"].tolist())
    for value in [v for v in seen if v in STAND_INS and not is_one_of(v, [rules.blank])]:
        odd.append(
            f"label {value!r} ({seen[value]} trials) often stands for a missing value; if it does, set in the recipe  "
            f"missing: [{value!r}]"
        )
    return odd


def and_where(rules: LabelRules, condition: str) -> str:
    """The setting that asks for a further condition beside the one that there is."""
    return f"where: ({rules.where}) and ({condition})" if rules.where else f"where: {condition}"


def unused_flags(trials: Trials, label: str, rules: LabelRules, name: str) -> list[str]:
    """A sentence for each column of two values which, by its name, says which trials are no good, and
    which neither the label nor the condition asks for. name: of the table."""
    odd = []
    used = set(re.findall(r"\w+|`[^`]*`", f"{label} {rules.where}"))
    for column, held in trials.table.items():
        says, shown = says_of_validity(str(column)), expressions.quoted(str(column))
        if column == "label" or not says or used & {str(column), shown}:
            continue
        if held.dtype == object and any(isinstance(value, list | dict) for value in held):
            continue  # lists
        values = _values(held, rules)
        known = typed([value for value in values if value is not None], f"{name}: {column}")
        seen = Counter(known.tolist())
        flags = {value: YES_NO.get(_seen(str(value)).casefold()) for value in seen}
        if not 1 <= len(seen) <= 2 or None in flags.values():
            continue
        if gone := len(values) - len(known):  # what is not marked
            seen[None], flags[None] = gone, False
        good = [value for value, yes in flags.items() if yes == (says == "sound")]
        if len(good) == len(seen):
            continue
        remedy = "That would be all of them."
        if good:
            is_good = f"{shown}.isna()" if good[0] is None else f"{shown} == {good[0]!r}"
            remedy = f"To leave such trials out, set in the recipe  {and_where(rules, is_good)}"
        odd.append(
            f"{name}: by its name, column {column!r} says which trials are no good ({_counted(seen)}); nothing uses "
            f"it. {remedy}"
        )
    return odd


def absent_blank(trials: Trials, recipe: LabelRules) -> list[str]:
    """A sentence where a recipe says itself which label a grey screen has, and none has it."""
    if not recipe.blank or any(is_one_of(v, [recipe.blank]) for v in set(trials.table["label"])):
        return []
    classes = some(trials.classes)
    return [f"blank = {recipe.blank!r} of the recipe is no label here; there is {classes}."]


def odd_areas(areas: Mapping[str, int]) -> list[str]:
    """What is odd in the names of areas (name: units or electrodes), as sentences: those that are
    probably one, and words for a missing value."""
    names = Counter({str(name): n for name, n in areas.items() if name != ""})
    _, alike = _joined(list(names.elements()), join=False)
    odd = _odd_groups("areas", alike, "they are areas of their own")
    if none := {name: n for name, n in names.items() if is_one_of(name, ["", *MISSING])}:
        odd.append(f"areas that say none is known, taken for areas of their own: {_counted(none)}.")
    return odd


def _odd_groups(what: str, alike: list[dict[Any, int]], remedy: str) -> list[str]:
    differ = f"{what} that differ only in blanks, case or in how a number is written"
    groups = some((_counted(group) for group in alike), 3)
    return [f"{differ}: {groups}; {remedy}."] if alike else []


def _counted(group: Mapping[Any, int]) -> str:
    return " and ".join(f"{value!r} ({n})" for value, n in group.items())
