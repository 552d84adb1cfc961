"""What every decoder must do, whichever it is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from easy_task import N_BINS, N_CLASSES, N_UNITS, QUICK, SMALL, easy, fit, quick, small

from nblib.core.errors import BadInput, BadParameter, CorruptArtifact
from nblib.models import MODELS, ON_GRAPHS, load, make
from nblib.models.network import TorchDecoder
from nblib.prepare.decoder_inputs import Samples

NAMES = list(MODELS)
TORCH = [n for n in NAMES if issubclass(MODELS[n], TorchDecoder)]


def accuracy(decoder, samples) -> float:
    return float((decoder.predict(samples.x) == samples.y).mean())


@pytest.mark.parametrize("name", NAMES)
def test_learns_an_easy_task(name, fitted, task):
    decoder, history = fitted(name)
    assert accuracy(decoder, task["test"]) > 0.8  # chance is 0.25
    assert {"epoch", "train_loss", "val_loss", "val_accuracy"} <= set(history)
    assert history["epoch"].tolist() == list(range(len(history)))
    best = history.loc[history["val_loss"].idxmin()]
    assert best["epoch"] == decoder.fitted["best_epoch"]
    # The decoder at hand is that of the best row, to the digit of its validation score.
    assert accuracy(decoder, task["val"]) == pytest.approx(best["val_accuracy"])
    log_proba = decoder.predict_log_proba(task["val"].x)
    loss = -log_proba[np.arange(40), task["val"].y].mean()
    assert loss == pytest.approx(best["val_loss"], rel=1e-4)
    assert log_proba.shape == (40, N_CLASSES) and log_proba.dtype == np.float64
    np.testing.assert_allclose(np.exp(log_proba).sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_predicts_the_same(name, fitted, task, tmp_path):
    decoder, _ = fitted(name)
    decoder.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "weights.safetensors"}
    for again in (load(tmp_path), MODELS[name].load(tmp_path)):
        assert again.params == decoder.params and again.fitted == _plain(decoder.fitted)
        np.testing.assert_array_equal(
            again.predict_log_proba(task["test"].x), decoder.predict_log_proba(task["test"].x)
        )


def _plain(values: dict) -> dict:
    return json.loads(json.dumps(values))


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_judged_alone(name, fitted, task):
    decoder, _ = fitted(name)
    x = task["test"].x[:40]
    together = decoder.predict_log_proba(x)
    alone = np.concatenate([decoder.predict_log_proba(x[i : i + 1]) for i in range(40)])
    turned = decoder.predict_log_proba(x[::-1])[::-1]
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(turned, together, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_decoder(name, fitted, task):
    decoder, history = fitted(name)
    np.random.seed(3)  # noqa: NPY002 - the state around a fit must not matter
    again = small(name)
    repeated = fit(again, task["train"], task["val"], n_classes=N_CLASSES, settings=QUICK)
    assert repeated.equals(history)
    np.testing.assert_array_equal(
        again.predict_log_proba(task["test"].x), decoder.predict_log_proba(task["test"].x)
    )
    if name in TORCH:
        other = small(name)
        settings = quick(seed=1, max_epochs=1)
        fit(other, task["train"], task["val"], n_classes=N_CLASSES, settings=settings)
        x = task["test"].x
        assert not np.allclose(other.predict_log_proba(x), decoder.predict_log_proba(x), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ensemble"])
def test_refit_learns_again_from_train_and_validation_with_what_was_chosen(name, fitted, task):
    decoder, history = fitted(name)
    again = small(name)
    repeated = fit(again, task["train"], task["val"], refit=True)
    assert repeated.equals(history) and again.fitted["refit"] == 200
    told = ("best_epoch", "best_val_loss")
    assert [again.fitted[k] for k in told] == [decoder.fitted[k] for k in told]
    both = Samples(*(np.concatenate([getattr(task[r], n) for r in ("train", "val")]) for n in ("x", "y", "trial")))  # fmt: skip
    if name in TORCH:
        alone = small(name)
        epochs = decoder.fitted["best_epoch"] + 1
        fit(alone, both, None, settings=quick(max_epochs=epochs))
        factor = 1.0
    else:
        c = decoder.fitted.get("c")
        of_one = {
            "nearest_mean": {"shrink": c and [1 - c]},
            "poisson_naive_bayes": {"pseudo": c and [1 / c]},
            "bayes_poisson": {"gain_sd": [decoder.fitted.get("gain_sd")]},
            "pca_logistic": {"components": [decoder.fitted.get("components")], "c_values": [c]},
        }
        alone = small(name, **of_one.get(name, {"c_values": [c]}))
        fit(alone, both, None)
        factor = np.linalg.norm(again.weight) / np.linalg.norm(alone.weight)
        assert factor == pytest.approx(again.choice[-1], rel=0.02)  # the temperature of validation
    log_proba = alone.predict_log_proba(task["test"].x) * factor
    log_proba -= np.logaddexp.reduce(log_proba, axis=1, keepdims=True)
    # A path of penalties starts each fit from the last, so it ends elsewhere in the last digits.
    np.testing.assert_allclose(
        np.exp(again.predict_log_proba(task["test"].x)), np.exp(log_proba), atol=0.01
    )
    x = task["test"].x
    assert np.abs(again.predict_log_proba(x) - decoder.predict_log_proba(x)).max() > 0.02


@pytest.mark.parametrize("name", NAMES)
def test_one_bin_and_two_classes(name, task):
    keep = task["train"].y < 2
    train = Samples(task["train"].x[keep, :1], task["train"].y[keep], task["train"].trial[keep])
    decoder = small(name)
    fit(decoder, train, train, n_classes=2, settings=quick(max_epochs=3))
    assert accuracy(decoder, train) > 0.75


@pytest.mark.parametrize("name", ["logistic", "lstm"])
def test_what_cannot_be_decoded_is_refused(name, fitted, task):
    train, val = task["train"], task["val"]

    def refused(message, a=train, b=val, n_classes=N_CLASSES):
        with pytest.raises(BadInput, match=message):
            fit(small(name), a, b, n_classes=n_classes, settings=QUICK)

    refused("at least two", n_classes=1)
    refused("class 4 has no train presentation", n_classes=5)
    refused(r"labels must lie in 0\.\.2", n_classes=3)
    refused("val samples have shape", b=replace(val, x=val.x[:, :2]))
    poisoned = val.x.copy()
    poisoned[0, 0, 0] = np.nan
    refused("val samples hold NaN", b=replace(val, x=poisoned))
    refused("no val presentations", b=Samples(val.x[:0], val.y[:0], val.trial[:0]))

    with pytest.raises(BadParameter, match="not fitted"):
        make(name).predict(val.x)
    decoder, _ = fitted(name)
    with pytest.raises(BadInput, match="3 bins, 10 units"):
        decoder.predict(val.x[:, :, :9])
    with pytest.raises(BadInput, match="NaN"):
        decoder.predict(poisoned)


@pytest.mark.parametrize("name", ["logistic", "lstm"])
def test_damaged_files_are_refused(name, fitted, tmp_path):
    decoder, _ = fitted(name)

    def refused(message, damage):
        decoder.save(tmp_path)
        damage(tmp_path)
        with pytest.raises(CorruptArtifact, match=message):
            load(tmp_path)

    def edit(**changes):
        def damage(folder):
            path = folder / "config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

        return damage

    weights, config = "weights.safetensors", "config.json"
    refused("safetensors", lambda f: (f / weights).write_bytes((f / weights).read_bytes()[:-9]))
    refused("safetensors", lambda f: (f / weights).unlink())
    refused("not a readable", lambda f: (f / config).write_text("{"))
    refused("not a readable", lambda f: (f / config).unlink())
    refused("does not fit", edit(n_classes=7))
    refused("format", edit(format=2))
    decoder.save(tmp_path)
    with pytest.raises(CorruptArtifact, match=f"holds a {name}, not a cnn"):
        MODELS["cnn"].load(tmp_path)


@pytest.mark.parametrize("name", TORCH)
def test_gradients_reach_every_weight(name):
    import torch

    params = {**SMALL[name], **({"freeze": False} if name == "autoencoder_lstm" else {})}
    torch.manual_seed(0)
    samples = easy(16, 5)
    decoder = make(name, params)
    if name in ON_GRAPHS:
        decoder.edges = decoder.make_edges(samples.x, at_once=16)
    net = decoder.build(N_BINS, N_UNITS, N_CLASSES)
    logits = net(torch.from_numpy(samples.x))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(samples.y)).backward()
    for key, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", ["lstm", "gru", "cnn", "transformer", "transformer_lstm"])
def test_the_order_of_bins_matters(name, fitted, task):
    decoder, _ = fitted(name)
    x = task["test"].x
    turned = decoder.predict_log_proba(x[:, ::-1])
    assert np.abs(turned - decoder.predict_log_proba(x)).max() > 0.1


def test_an_mlp_of_summed_counts_sees_no_order(task):
    decoder = small("mlp", summed=True, linear="")
    fit(decoder, task["train"], task["val"])
    x = task["test"].x
    turned = decoder.predict_log_proba(x[:, ::-1])
    np.testing.assert_allclose(turned, decoder.predict_log_proba(x), atol=1e-5)
