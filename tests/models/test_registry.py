"""Names, hyper-parameters and what is refused before any fitting."""

from __future__ import annotations

import pytest

from nblib.core.errors import BadParameter
from nblib.models import MODELS, make
from nblib.models.base import Decoder, hyper_parameters


def test_every_name_leads_to_its_class():
    assert len(MODELS) == 19
    for name, cls in MODELS.items():
        assert issubclass(cls, Decoder)
        assert cls.name == name and cls.title


def test_unknown_model_is_refused_with_a_hint():
    with pytest.raises(BadParameter, match="no such decoder; did you mean lstm"):
        make("lstn")


@pytest.mark.parametrize("name", MODELS)
def test_unknown_hyper_parameter_is_refused_and_the_valid_ones_listed(name):
    with pytest.raises(BadParameter) as error:
        make(name, {"hiden": 3})
    assert "hiden" in str(error.value)
    for valid in hyper_parameters(MODELS[name]):
        assert valid in str(error.value)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("lstm", {"hidden": "200"}),
        ("lstm", {"hidden": 200.0}),
        ("lstm", {"hidden": True}),
        ("lstm", {"hidden": 0}),
        ("gru", {"dropout": 1.0}),
        ("gru", {"input_dropout": -0.1}),
        ("mlp", {"layers": 0}),
        ("mlp", {"dropout": float("nan")}),
        ("cnn", {"kernel": 2}),
        ("transformer", {"d_model": 10, "heads": 3}),
        ("transformer", {"heads": 0}),
        ("transformer_lstm", {"hidden": 0}),
        ("autoencoder_lstm", {"pretrain_epochs": 0}),
        ("autoencoder_lstm", {"freeze": 1}),
        ("logistic", {"c_values": []}),
        ("logistic", {"c_values": [0.0]}),
        ("logistic", {"c_values": 1.0}),
        ("linear_svm", {"c_values": ["1"]}),
        ("pca_logistic", {"components": [1.5]}),
    ],
)
def test_bad_values_are_refused_by_name(name, params):
    with pytest.raises(BadParameter, match=f"model_params of {name}.*{next(iter(params))}"):
        make(name, params)


def test_a_whole_number_may_stand_for_a_fraction():
    assert make("lstm", {"dropout": 0}).params["dropout"] == 0.0
    assert make("logistic", {"c_values": [1, 0.1]}).params["c_values"] == (1.0, 0.1)
