"""The book's guides are followed to the letter."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml

from nblib import models
from nblib.core.errors import BadParameter
from nblib.data.nwb import open_nwb
from nblib.experiments import decode
from nblib.experiments.multimodal import judge
from nblib.models.multimodal import fitting, masks
from nblib.models.multimodal.branch import fit_branch
from nblib.road import stage_registry
from nblib.simulate.allen import simulate

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "book" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def loaded(code: str, name: str, folder: Path, monkeypatch) -> ModuleType:
    """A module of that name, as if the code stood in a file of the package."""
    path = folder / f"{name.rpartition('.')[2]}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """The guide's file in place of one of the package's, its line run, its YAML read."""
    code, line, _ = blocks("adding_a_model.md", "python")
    loaded(code, "nblib.models.correlation", tmp_path, monkeypatch)
    monkeypatch.setattr(models, "_CLASSES", dict(models._CLASSES))
    exec(line, {"_CLASSES": models._CLASSES})
    return yaml.safe_load(blocks("adding_a_model.md", "yaml")[0])


def test_a_model_can_be_added_as_the_guide_says(followed, tmp_path):
    from models.easy_task import easy, fit

    assert followed["model"] == "correlation" in models.MODELS
    decoder = models.make("correlation", followed["lab"]["model_params"])
    fit(decoder, easy(80, 1), easy(40, 2))
    test = easy(80, 3)
    assert (decoder.predict(test.x) == test.y).mean() > 0.8
    decoder.save(tmp_path)
    again = models.load(tmp_path)
    np.testing.assert_allclose(again.predict_log_proba(test.x), decoder.predict_log_proba(test.x))
    with pytest.raises(models.BadParameter, match="gain"):
        models.make("correlation", {"gain": [-1.0]})


def test_an_experiment_can_be_added_as_the_guide_says(tmp_path, monkeypatch):
    from models.easy_task import easy

    code, entry, _ = blocks("adding_an_experiment.md", "python")
    module = loaded(code, "nblib.experiments.first_bins", tmp_path, monkeypatch)
    entries = dict(stage_registry.STAGES)
    exec(entry, vars(stage_registry) | {"STAGES": entries})
    assert entries["20_first_bins"].params is module.Params

    train, val, test = easy(80, 1), easy(40, 2), easy(80, 3)
    units = np.arange(train.x.shape[2])
    data = decode.Data(
        train, val, test, classes=np.unique(train.y), unit_ids=units, units=pd.DataFrame(index=units),
        scaling=(units * 0.0, units + 1.0), stop_s=np.arange(train.x.shape[1]) + 1.0,
        label_name="label", split_hash="s",
    )  # fmt: skip
    asked = {"recipe": "demo", "recording": "demo", "bins": [1, 2], "n_permutations": 100}
    result = module.decode_first_bins(data, module.Params(**asked))
    assert list(result.scores) == ["first 1 bins", "first 2 bins"]
    result.save(tmp_path, {"recipe": "demo", "recording": "demo", "fold": 0, "seed": 0})
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["bins=1", "bins=2"]


def test_a_scheme_of_masks_can_be_added_as_the_page_says(monkeypatch):
    from models.test_masked_network import FAST, SHAPE, make_session

    monkeypatch.setattr(masks, "SCHEMES", dict(masks.SCHEMES))
    given = yaml.safe_load(blocks("methods/multimodal.md", "yaml")[-1])
    with pytest.raises(BadParameter, match="no 'first_half'"):
        judge.Params(**given).check()
    exec(blocks("methods/multimodal.md", "python")[-1], {})
    asked = judge.Params(**given)
    asked.check()
    sessions = [make_session(0)]
    hidden = asked.mix.draw(60, sessions[0], np.random.default_rng(0))["spikes"].any(axis=2)
    half = hidden.shape[1] // 2
    mine = hidden[:, 0] & ~hidden[:, -1]
    assert 3 < mine.sum() < 20 and hidden[mine, :half].all() and not hidden[mine, half:].any()
    _, history = fitting.fit(sessions, fit_branch(sessions), FAST, SHAPE, asked.mix)
    assert np.isfinite(history["train_loss"]).all()


PLACED = re.compile(r"# (\S+/\S+)\n")  # a block's first line says where it goes
SIMULATED = {"n_units": 24, "n_scenes": 6, "n_repeats": 20, "seed": 1, "signal": 1.5}
CLOCK_HZ = 30_000.0


def a_checkout(place: Path) -> Path:
    """A copy of the package, its notebooks and recipes, to which a guide can be applied."""
    for name in ("nblib", "notebooks", "params"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, place / name, ignore=skip)
    (place / "tests" / "data").mkdir(parents=True)
    for name in ("conftest.py", "conduct.py", "tiny_project.py"):  # what conftest imports
        shutil.copy(ROOT / "tests" / name, place / "tests")
    return place


def sorted_in_phy(folder: Path) -> None:
    """A simulated recording as a folder of phy: samples in order of time, and noise among the units."""
    folder.mkdir(parents=True)
    recording = open_nwb(
        simulate(folder.parent / "simulated.nwb", **SIMULATED),
        intervals="natural_scenes_presentations",
        label="frame",
    )
    counts = np.diff(recording.spike_index)
    times = recording.spikes[0 : recording.n_spikes]
    noise = np.random.default_rng(0).uniform(0, times.max(), 500)
    samples = np.round(np.concatenate([times, noise]) * CLOCK_HZ).astype(np.int64)
    cluster = np.concatenate([np.repeat(np.arange(len(counts)), counts), np.full(500, 77)])
    order = np.argsort(samples, kind="stable")
    np.save(folder / "spike_times.npy", samples[order][:, None])  # Kilosort writes a column
    np.save(folder / "spike_clusters.npy", cluster[order].astype(np.int32))
    rows = [f"{i}\tgood\t{3 * i}\n" for i in range(len(counts))] + ["77\tnoise\t5\n"]
    (folder / "cluster_info.tsv").write_text("".join(["cluster_id\tgroup\tch\n", *rows]))
    trials = recording.trial_table[["start_time", "stop_time", "frame"]]
    trials.rename(columns={"frame": "stimulus"}).to_csv(folder / "trials.csv", index=False)


def test_a_source_can_be_added_as_the_guide_says(tmp_path):
    page = "adding_a_data_source.md"
    place = a_checkout(tmp_path / "checkout")
    python, line, test = blocks(page, "python")
    for block in (python, test, *blocks(page, "yaml")):
        file = place / PLACED.match(block)[1]
        assert not file.exists(), "the guide makes a new file"
        file.write_text(block)
    registry = place / "nblib" / "core" / "source_registry.py"
    opening = "SOURCES = {\n"
    registry.write_text(registry.read_text().replace(opening, f"{opening}    {line}", 1))
    sorted_in_phy(tmp_path / "user" / "sorted" / "mouse7")

    env = os.environ | {
        "PYTHONPATH": str(place), "HOME": str(tmp_path / "user"), "NBLIB_HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    env.pop("NBLIB_PROJECT", None)
    out = subprocess.run(
        ["bash", "-ec", "\n".join(blocks(page, "bash"))],
        cwd=place, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    assert "1 passed" in out.stdout
    (metrics,) = (tmp_path / "home").glob("05_train_lstm/mouse7/*/metrics.json")
    accuracy = json.loads(metrics.read_text())["scores"]["accuracy"]
    assert accuracy["ci_low"] > accuracy["chance"]
    (report,) = (tmp_path / "home").glob("01_ingest/mouse7/*/report.json")
    assert json.loads(report.read_text())["recording"] == "mouse7"
    (manifest,) = (tmp_path / "home").glob("01_ingest/mouse7/*/manifest.json")
    assert json.loads(manifest.read_text())["recipe"]["source_params"] == {"rate_hz": CLOCK_HZ}


def test_the_sweeps_of_the_page_are_sweeps(tmp_path, home, capsys):
    from nblib.cli import main

    pages = blocks("sweeps.md", "yaml")
    assert len(pages) == 2
    for text in pages:
        path = tmp_path / f"{re.match('sweep: (.*)', text)[1]}.yml"
        path.write_text(text)
        assert main(["sweep", str(path), "--dry-run"]) == 0
    assert "18" in capsys.readouterr().out.split("05_train_lstm")[1].split("\n")[0]
