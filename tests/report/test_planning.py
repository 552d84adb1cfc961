"""What more data would buy: the table behind notebook 92, its sentence, and its figure."""

import numpy as np
import pandas as pd
import pytest

from nblib.core.errors import MissingInput
from nblib.report import all_runs, planning
from nblib.report.plots import all_runs as plots

SIMULATE = {"n_units": 100, "n_repeats": 20, "seed": 0}


def run(model="ridge", changed="", per_class=16, units=100, bins=5, value=0.5, oracle=0.9, val=0.5):
    judged = ", ".join(
        part for part in changed.split(", ") if part and not part.startswith("n_bins")
    )
    changed = ", ".join(part for part in changed.split(", ") if part.startswith("n_bins"))
    return {
        "group": f"power ({judged})" if judged else "power", "base": "power", "recording": "power", "model": model, "variant": "", "changed": changed,
        "n_train": per_class * 10, "n_classes": 10, "n_units": units, "n_bins": bins, "value": value,
        "ci_low": value - 0.05, "ci_high": value + 0.05, "chance": 0.1, "oracle": oracle,
        "val_accuracy": val, "fit_s": 1.0, "run": f"{model}{judged}{changed}",
    }  # fmt: skip


def runs():
    return pd.DataFrame([
        run(), run(changed="n_repeats=40", per_class=32, value=0.6),
        run(changed="n_repeats=5", per_class=4, value=0.2),
        run(changed="n_units=25", units=25, value=0.3, oracle=0.5),
        run(changed="n_bins=1", bins=1, value=0.1, oracle=0.9),
        run(changed="n_repeats=40, n_bins=1", per_class=32, bins=1, value=0.99),  # two at once
        run("logistic", value=0.7, val=0.4), run("logistic", "n_bins=1", bins=1, value=0.7, val=0.9),
    ])  # fmt: skip


def test_a_line_joins_runs_that_differ_in_one_size():
    table = planning.table(runs())
    ridge = table[table["model"] == "ridge"].groupby("size", sort=False)
    found = {name: dict(zip(part["at"], part["value"], strict=True)) for name, part in ridge}
    assert found == {
        "training presentations of each image": {4: 0.2, 16: 0.5, 32: 0.6},
        "units": {25: 0.3, 100: 0.5},
        "bins a presentation": {1: 0.1, 5: 0.5},
    }
    assert table[table["model"] == "logistic"]["size"].unique().tolist() == ["bins a presentation"]


def test_the_sentence_says_what_twice_the_data_are_worth():
    """From the recipe's own size upwards; where it is the largest, from the one below."""
    told = planning.in_words(planning.table(runs()))
    assert told.startswith(
        "**Result.** ridge, of these decoders the best on validation, names 50.0% of test"
    )
    assert "where 90.0% are possible" in told  # validation likes logistic on other data only
    assert "twice the training presentations of each image +10.0 points" in told
    assert "twice the units +10.0 points" in told  # 20 points for two doublings
    assert f"twice the bins a presentation {40 / np.log2(5):+.1f} points" in told
    assert "16 to 32 training presentations of each image: 50.0% to 60.0% (best possible 90.0%)" in told  # fmt: skip


def test_without_the_truth_nothing_is_said_of_it():
    unknown = runs().assign(oracle=np.nan)
    assert "possible" not in planning.in_words(planning.table(unknown))
    assert plots.what_data_buys(unknown).axes


def test_runs_of_one_size_are_refused_with_the_way_out():
    with pytest.raises(MissingInput, match=r"nblib sweep params/sweeps/power\.yml"):
        planning.table(pd.DataFrame([run(), run("logistic")]))


def test_only_decoders_of_several_sizes_are_chosen_and_the_own_size_is_needed():
    one_size = pd.concat([runs(), pd.DataFrame([run("mlp", value=0.95, val=0.95)])])
    assert planning.in_words(planning.table(one_size)).startswith("**Result.** ridge")
    others = runs()[runs()["changed"] != ""].query("model == 'ridge'")
    others = pd.concat([others, pd.DataFrame([run(changed="n_bins=2", bins=2, value=0.3)])])
    with pytest.raises(MissingInput, match="own size"):
        planning.in_words(planning.table(others))


def test_of_a_group_of_settings_those_that_differ_are_named():
    changed = all_runs._difference("simulate", {**SIMULATE, "n_repeats": 5}, SIMULATE)
    assert changed == "n_repeats=5"


def test_the_figure_has_a_panel_a_size_with_the_best_possible():
    fig = plots.what_data_buys(runs())
    labels = [ax.get_xlabel().replace("\n", " ") for ax in fig.axes]
    assert labels == [name for name, _ in planning.SIZES.values()]
    best = next(line for line in fig.axes[1].lines if line.get_linestyle() == "--")
    assert dict(zip(*best.get_data(), strict=True)) == {25: 0.5, 100: 0.9}
