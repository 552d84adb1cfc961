"""The book's guides are followed to the letter."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from nblib import models

ROOT = Path(__file__).resolve().parents[1]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "book" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """The guide's file in place of one of the package's, its line run, its YAML read."""
    code, line = blocks("adding_a_model.md", "python")
    path = tmp_path / "correlation.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("nblib.models.correlation", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(models, "_CLASSES", dict(models._CLASSES))
    exec(line, {"_CLASSES": models._CLASSES})
    return yaml.safe_load(blocks("adding_a_model.md", "yaml")[0])


def test_a_model_can_be_added_as_the_guide_says(followed, tmp_path):
    from models.easy_task import N_CLASSES, QUICK, easy

    assert followed["model"] == "correlation" in models.MODELS
    decoder = models.make("correlation", followed["defaults"]["model_params"])
    decoder.fit(easy(80, 1), easy(40, 2), n_classes=N_CLASSES, settings=QUICK)
    test = easy(80, 3)
    assert (decoder.predict(test.x) == test.y).mean() > 0.8
    decoder.save(tmp_path)
    again = models.load(tmp_path)
    np.testing.assert_allclose(again.predict_log_proba(test.x), decoder.predict_log_proba(test.x))
    with pytest.raises(models.BadParameter, match="gain"):
        models.make("correlation", {"gain": [-1.0]})
