"""Every decoder is a scikit-learn classifier, on plain arrays and labels of any type."""

from __future__ import annotations

import numpy as np
import pytest
from easy_task import N_BINS, N_UNITS, SMALL
from sklearn.base import clone, is_classifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from nblib.core.errors import BadInput, BadParameter
from nblib.models import MODELS, load, make
from nblib.models.linear import NearestMean
from nblib.models.network import LSTM

ONE_EPOCH = {"max_epochs": 1, "device": "cpu", "progress": False}
LABELS = np.array(["left", "middle", "right"])
RNG = np.random.default_rng(0)
Y = LABELS[np.arange(24) % 3]
X = RNG.poisson(3, (24, N_BINS, N_UNITS)) + 3.0 * (Y == "left")[:, None, None]


@pytest.mark.parametrize("name", MODELS)
def test_every_decoder_is_a_classifier_of_scikit_learn(name, tmp_path):
    decoder = make(name, SMALL[name], settings=ONE_EPOCH)
    copy = clone(decoder)
    assert is_classifier(copy) and copy.get_params() == decoder.get_params() and repr(copy)
    assert decoder.fit(X, Y) is decoder
    assert decoder.classes_.tolist() == LABELS.tolist()
    assert set(decoder.predict(X)) <= set(LABELS)
    np.testing.assert_allclose(decoder.predict_proba(X).sum(axis=1), 1)
    assert decoder.score(X, Y) == (decoder.predict(X) == Y).mean()
    decoder.save(tmp_path)
    assert load(tmp_path).predict(X).tolist() == decoder.predict(X).tolist()
    # In a pipeline on counts of one bin (B, N), and judged by cross-validation.
    pipeline = make_pipeline(MinMaxScaler(), clone(decoder))
    scores = cross_val_score(pipeline, X.sum(axis=1), Y, cv=2, error_score="raise")
    assert ((scores >= 0) & (scores <= 1)).all() and len(scores) == 2


def test_settings_are_set_by_name():
    lstm = make("lstm").set_params(hidden=7, settings={"max_epochs": 1})
    assert lstm.params["hidden"] == lstm.get_params()["hidden"] == 7
    with pytest.raises(BadParameter, match="unknown hiden"):
        lstm.set_params(hiden=7)
    with pytest.raises(BadParameter, match="settings: unknown max_epoch; there are max_epochs"):
        make("ridge", settings={"max_epoch": 1}).fit(X, Y)


def test_a_subclass_may_change_a_value_on_the_way():
    class Half(NearestMean):
        def __init__(self, *, shrink=(0.5,)):
            super().__init__(shrink=tuple(s / 2 for s in shrink))

    class Wide(LSTM):
        def __init__(self, *, hidden=8):
            super().__init__(hidden=2 * hidden)

    assert Half().params["shrink"] == (0.25,)
    np.testing.assert_array_equal(
        Half().fit(X, Y).weight, NearestMean(shrink=(0.25,)).fit(X, Y).weight
    )
    assert Wide().build(N_BINS, N_UNITS, 3).recurrent.hidden_size == 16


def test_labels_that_training_did_not_have_are_refused():
    with pytest.raises(BadInput, match="val label 'nowhere' is not among those of the train rows"):
        make("ridge").fit(X, Y, (X, np.where(Y == "left", "nowhere", Y)))


def test_without_validation_strengths_left_alone_are_the_fixed_ones():
    assert make("logistic").fit(X, Y).fitted["c"] == 1e-2
    assert make("logistic", {"c_values": [0.3, 0.5]}).fit(X, Y).fitted["c"] == 0.3
