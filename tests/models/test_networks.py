"""What is particular to the transformers and the pre-trained autoencoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from easy_task import N_BINS, N_CLASSES, N_UNITS, QUICK, SMALL, fit

from nblib.models import make


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
    settings = type(QUICK)(**vars(QUICK))
    resumed = make("autoencoder_lstm", SMALL["autoencoder_lstm"])
    for way in ("auto", tmp_path / "broken" / f"{stage}.ckpt"):
        history = fit(resumed, task["train"], task["val"], n_classes=N_CLASSES, settings=settings,
            folder=tmp_path / "broken", resume=way,
        )  # fmt: skip
        assert len(history) >= 1
        np.testing.assert_array_equal(
            resumed.predict_log_proba(task["test"].x), whole.predict_log_proba(task["test"].x)
        )
