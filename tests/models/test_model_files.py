"""params/models/*.yml hold what others have published, as settings that a run would accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from nblib.core.text_to_values import read_yaml
from nblib.experiments.decode import Params
from nblib.models import MODELS, make

FOLDER = Path(__file__).resolve().parents[2] / "params" / "models"
FILES = sorted(FOLDER.glob("*.yml"))


def test_files_are_of_models():
    assert {p.stem for p in FILES} <= set(MODELS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_settings_are_accepted(path):
    content = read_yaml(path.read_text(encoding="utf-8"), str(path))
    assert set(content) == {"model", "lab", "published"} and content["model"] == path.stem
    assert content["lab"] or content["published"] != "none", "says nothing: take it out"
    make(path.stem, Params(model=path.stem, **content["lab"]).model_params)
