"""params/models/*.yml say what the code does: names, defaults, and settings a run would accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from nblib.core.yamlfile import read_yaml
from nblib.experiments.decode import Params as TrainParams
from nblib.models import MODELS
from nblib.models.base import check_params, hyper_parameters

FOLDER = Path(__file__).resolve().parents[2] / "params" / "models"
FILES = sorted(FOLDER.glob("*.yml"))


def read(path: Path) -> dict:
    return read_yaml(path.read_text(encoding="utf-8"), str(path))


def plain(params: dict) -> dict:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in params.items()}


def test_one_file_for_each_model():
    assert [p.stem for p in FILES] == sorted(MODELS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_defaults_are_those_of_the_code(path):
    content, cls = read(path), MODELS[path.stem]
    assert set(content) == {"model", "defaults", "lab", "published"}
    assert content["model"] == path.stem == cls.name
    told = dict(content["defaults"])
    assert told.pop("model_params") == plain(hyper_parameters(cls))
    assert told == {k: v for k, v in cls.training.items() if k != "clip_norm"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize("section", ["defaults", "lab"])
def test_settings_are_accepted(path, section):
    values = read(path)[section]
    params = TrainParams(model=path.stem, **values)
    cls = MODELS[path.stem]
    cls(**params.model_params)
    assert plain(check_params(cls, params.model_params)).keys() == hyper_parameters(cls).keys()
