"""What is particular to networks: what they start from, transformers, the pre-trained autoencoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from easy_task import N_BINS, N_CLASSES, N_UNITS, QUICK, SMALL, fit, quick
from test_poisson import spikes

from nblib.core.errors import BadParameter
from nblib.models import MODELS, FitSettings, load, make
from nblib.models.network import TorchDecoder

TORCH = [n for n in MODELS if issubclass(MODELS[n], TorchDecoder)]


def test_without_places_the_transformer_cannot_tell_bins_apart(task):
    torch.manual_seed(0)
    net = make("transformer", SMALL["transformer"]).build(N_BINS, N_UNITS, N_CLASSES).eval()
    x = torch.from_numpy(task["test"].x[:20])
    with torch.no_grad():
        net.encoder.place.mul_(50)  # as large as after training
        assert (net(x.flip(1)) - net(x)).abs().max() > 1e-2
        net.encoder.place.zero_()
        torch.testing.assert_close(net(x.flip(1)), net(x), atol=1e-5, rtol=0)


def test_places_are_learnt(fitted):
    decoder, _ = fitted("transformer")
    torch.manual_seed(QUICK.seed)
    fresh = decoder.build(N_BINS, N_UNITS, N_CLASSES)
    assert (decoder.net.encoder.place - fresh.encoder.place).abs().max() > 1e-2


def fit_autoencoder(task, tmp_path, **params):
    decoder = make("autoencoder_lstm", {**SMALL["autoencoder_lstm"], **params})
    fit(decoder, task["train"], task["val"], n_classes=N_CLASSES, settings=QUICK, folder=tmp_path)
    return decoder


@pytest.mark.parametrize("freeze", [True, False])
def test_the_encoder_stays_as_pre_trained_when_frozen(task, tmp_path, freeze):
    decoder = fit_autoencoder(task, tmp_path, freeze=freeze)
    kept = torch.load(tmp_path / "pretrain.ckpt", weights_only=True)["callbacks"]
    best = next(iter(kept.values()))["best"]
    moved = max(
        (weight - best[f"encoder.{key}"]).abs().max().item()
        for key, weight in decoder.net.encoder.state_dict().items()
    )
    assert (moved == 0) == freeze


def test_pre_training_rebuilds_counts_and_sees_no_label(task, tmp_path):
    from dataclasses import replace

    decoder = fit_autoencoder(task, tmp_path / "a", pretrain_epochs=8)
    first = decoder.fitted["pretrain"]
    assert len(first) == 8
    assert first[-1]["val_loss"] < 0.8 * first[0]["val_loss"]
    turned = {
        role: replace(samples, y=(samples.y + 1) % N_CLASSES) for role, samples in task.items()
    }
    again = fit_autoencoder(turned, tmp_path / "b", pretrain_epochs=8)
    assert again.fitted["pretrain"] == first
    for key, weight in decoder.net.encoder.state_dict().items():
        np.testing.assert_array_equal(weight, again.net.encoder.state_dict()[key])


@pytest.mark.parametrize("stage", ["pretrain", "fit"])
def test_either_step_can_be_resumed(task, tmp_path, stage, monkeypatch):
    from nblib.models import training

    whole = fit_autoencoder(task, tmp_path / "whole")
    calls = {"n": 0}
    loss = training.reconstruct if stage == "pretrain" else training.classify

    def breaks(net, x, y):
        calls["n"] += 1
        if calls["n"] == 12:  # inside the second epoch
            raise RuntimeError("the job was killed")
        return loss(net, x, y)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        if stage == "pretrain":
            patch.setattr(training, "reconstruct", breaks)
        else:
            patch.setattr(
                training.fit, "__kwdefaults__", {**training.fit.__kwdefaults__, "loss": breaks}
            )
            # Pre-training passes its own loss; only the second step meets the broken one.
        fit_autoencoder(task, tmp_path / "broken")
    resumed = make("autoencoder_lstm", SMALL["autoencoder_lstm"])
    for way in ("auto", tmp_path / "broken" / f"{stage}.ckpt"):
        history = fit(resumed, task["train"], task["val"], n_classes=N_CLASSES, settings=QUICK,
            folder=tmp_path / "broken", resume=way,
        )  # fmt: skip
        assert len(history) >= 1
        np.testing.assert_array_equal(
            resumed.predict_log_proba(task["test"].x), whole.predict_log_proba(task["test"].x)
        )


def started(name, epochs=2, val=True, rate=1e-2, **params):
    """A small network that learnt from counts of few presentations, and its history."""
    decoder = make(name, {**SMALL[name], **params})
    settings = quick(max_epochs=epochs, learning_rate=rate)
    history = fit(decoder, spikes(60, 1), spikes(100, 2) if val else None, 20, settings)
    return decoder, history


@pytest.mark.parametrize("name", [n for n in TORCH if n != "gat"])
def test_training_begins_where_the_linear_decoder_ends(name, tmp_path):
    decoder, _ = started(name, epochs=1, rate=1e-12)
    x = spikes(200, 3).x
    alone = make("bayes_poisson")
    fit(alone, spikes(60, 1), spikes(100, 2), n_classes=20)
    np.testing.assert_allclose(decoder.predict_proba(x), alone.predict_proba(x), atol=1e-4)
    decoder.save(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).predict_proba(x), decoder.predict_proba(x))


def test_the_linear_decoder_stays_as_it_was_and_the_network_learns():
    decoder, _ = started("mlp", epochs=8)
    test = spikes(600, 3)
    np.testing.assert_allclose(decoder.net.linear.weight, decoder.first.weight, rtol=1e-6)
    apart = decoder.predict_log_proba(test.x) - decoder.first.predict_log_proba(test.x)
    assert np.abs(apart).max() > 0.05
    without, _ = started("mlp", epochs=8, linear="")
    assert without.first is None and decoder.score(test.x, test.y) > without.score(test.x, test.y)


def test_taught_again_the_linear_decoder_learns_from_validation_too_with_what_it_chose():
    decoder, _ = started("mlp")
    chosen, before = decoder.first.choice, decoder.first.weight
    decoder._refit(spikes(300, 4), FitSettings.of(decoder.settings, {}))
    assert decoder.first.choice == chosen and (decoder.first.weight != before).any()
    again, _ = started("mlp", val=False)
    assert (
        again.first.fitted["gain_sd"] == again.first.choice[1] == 1.0
    )  # nothing is chosen without validation


def test_there_is_none_where_samples_are_no_counts(task):
    decoder = make("mlp", SMALL["mlp"])
    fit(decoder, task["train"], task["val"])
    assert decoder.first is None and not [k for k in decoder._weights() if "linear" in k]


def test_what_is_no_linear_decoder_is_refused():
    for params in (
        {"linear": "lstm"},
        {"linear": "none"},
        {"linear_dropout": 1.0},
        {"summed": True},
    ):
        with pytest.raises(BadParameter, match="linear"):
            make("mlp", params)
