"""What a GPU gives beside the processor, network by network. Skipped, saying so, without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from easy_task import N_CLASSES, fit, quick, small
from test_decoders import TORCH, accuracy

from nblib.models import load

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def on_gpu(name: str, task, **settings):
    decoder = small(name)
    changed = quick(device="cuda", **settings)
    fit(decoder, task["train"], task["val"], n_classes=N_CLASSES, settings=changed)
    return decoder


@pytest.mark.parametrize("name", TORCH)
def test_a_network_learns_there_and_answers_the_same_on_the_processor(name, task, tmp_path):
    decoder = on_gpu(name, task)
    assert decoder.fitted["device"].startswith("Training on the GPU")
    assert accuracy(decoder, task["test"]) > 0.8
    decoder.save(tmp_path)
    again = load(tmp_path)
    assert {p.device.type for p in again.net.parameters()} == {"cpu"}
    np.testing.assert_allclose(
        again.predict_log_proba(task["test"].x),
        decoder.predict_log_proba(task["test"].x),
        atol=2e-3,
    )


@pytest.mark.parametrize("name", TORCH)
def test_the_same_seed_gives_the_same_network_there(name, task):
    first, second = (on_gpu(name, task) for _ in range(2))
    np.testing.assert_array_equal(
        first.predict_log_proba(task["test"].x), second.predict_log_proba(task["test"].x)
    )


@pytest.mark.parametrize("name", TORCH)
def test_half_precision_learns_as_well(name, task):
    decoder = on_gpu(name, task, precision="bf16-mixed")
    assert accuracy(decoder, task["test"]) > 0.8
    assert np.isfinite(decoder.predict_log_proba(task["test"].x)).all()
