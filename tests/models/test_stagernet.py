"""StagerNet: the lab's layers to the letter, its files, and what frozen means."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nblib.core.errors import BadInput, BadParameter, CorruptArtifact, MissingInput
from nblib.models import stagernet
from nblib.models.stagernet import StagerNet


class Original(nn.Module):
    """The lab's network as its documents describe it, layer by layer."""

    def __init__(self, channels=11):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, (1, channels))
        self.conv2 = nn.Conv2d(1, 16, (50, 1))
        self.conv3 = nn.Conv2d(16, 16, (50, 1))
        self.batchnorm1, self.batchnorm2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.dense1 = nn.Linear(208 * channels, 100)

    def forward(self, x):  # (B, 3000, C)
        x = self.conv1(x.unsqueeze(1)).permute(0, 3, 2, 1)
        x = self.batchnorm1(functional.relu(functional.max_pool2d(self.conv2(x), (13, 1))))
        x = self.batchnorm2(functional.relu(functional.max_pool2d(self.conv3(x), (13, 1))))
        return self.dense1(x.flatten(1))


@pytest.fixture(scope="module")
def lab():
    torch.manual_seed(0)
    net = Original()
    net.train()
    with torch.no_grad():
        net(torch.randn(4, 3000, 11))  # so that the running statistics are not the initial ones
    return net.eval()


def test_the_labs_weights_give_what_the_labs_layers_give(lab, tmp_path):
    torch.save(lab.state_dict(), tmp_path / "RP_stagernet.pth")
    net = stagernet.load_lab_weights(tmp_path / "RP_stagernet.pth")
    x = torch.randn(3, 3000, 11, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        np.testing.assert_allclose(net(x), lab(x), atol=1e-5)


def test_weights_inside_a_pretext_network_are_found(lab, tmp_path):
    state = {f"stagenet.{k}": v for k, v in lab.state_dict().items()} | {"linear.weight": torch.zeros(1, 100)}  # fmt: skip
    torch.save(state, tmp_path / "x.pth")
    net = stagernet.load_lab_weights(tmp_path / "x.pth")
    assert torch.equal(net.dense1.weight, lab.dense1.weight)


@pytest.mark.parametrize(
    ("content", "given", "says"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "conv3.bias"}, {}, "no conv3.bias"),
        (lambda s: s, {"n_channels": 8}, "for 8 channels"),
        (lambda s: s, {"n_samples": 2000}, "windows of 2000 samples"),
        (lambda s: [1, 2], {}, "expected a state dict"),
    ],
)
def test_files_that_do_not_fit(lab, tmp_path, content, given, says):
    torch.save(content(lab.state_dict()), tmp_path / "x.pth")
    with pytest.raises(BadInput, match=says):
        stagernet.load_lab_weights(tmp_path / "x.pth", **given)


def test_files_that_are_no_tensors(tmp_path):
    with pytest.raises(MissingInput, match="no such file"):
        stagernet.load_lab_weights(tmp_path / "none.pth")
    (tmp_path / "x.pth").write_bytes(b"GIF89a")
    with pytest.raises(BadInput, match="not readable as tensors"):
        stagernet.load_lab_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_told_from_good_ones(lab, tmp_path, seed):
    """Bytes cut off, overwritten or made up: one clear error, or the very weights."""
    torch.save(lab.state_dict(), tmp_path / "x.pth", _use_new_zipfile_serialization=bool(seed % 2))
    whole = (tmp_path / "x.pth").read_bytes()
    rng = np.random.default_rng(seed)
    for _ in range(25):
        bad = bytearray(whole[:3000])  # the names and shapes, where a reader can go astray
        for at in rng.integers(0, len(bad), 20):
            bad[at] = rng.integers(256)
        (tmp_path / "x.pth").write_bytes(bytes(bad) + whole[3000:])
        try:
            net = stagernet.load_lab_weights(tmp_path / "x.pth")
        except BadInput:
            continue
        assert net.config["n_channels"] == 11


def test_frozen_means_frozen():
    net = StagerNet(3, 300, 100.0).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = np.random.default_rng(0).standard_normal((40, 300, 3)).astype(np.float32)
    one, two = stagernet.embed(net, x), stagernet.embed(net, x)
    np.testing.assert_array_equal(one, two)  # no dropout
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    np.testing.assert_allclose(
        stagernet.embed(net, x[7:8])[0], one[7], atol=1e-5
    )  # no batch statistics
    assert net.training


def test_saved_and_loaded(tmp_path):
    net = StagerNet(3, 300, 100.0)
    stagernet.save(net, tmp_path)
    x = np.ones((2, 300, 3), np.float32)
    np.testing.assert_array_equal(stagernet.embed(net, x), stagernet.embed(stagernet.load(tmp_path), x))  # fmt: skip
    (tmp_path / stagernet.WEIGHTS).write_bytes(b"x")
    with pytest.raises(CorruptArtifact):
        stagernet.load(tmp_path)


def test_windows_too_short_are_refused():
    with pytest.raises(BadParameter, match="too short for preset 'lab' at 125 Hz"):
        StagerNet(3, 375, 125.0, "lab")
    with pytest.raises(BadParameter, match="there are lab and banville"):
        StagerNet(3, 375, 125.0, "other")


def test_banville_is_braindecodes_network():
    """The same layers and weights give the same embedding as SleepStagerChambon2018."""
    models = pytest.importorskip("braindecode.models", reason="braindecode is not installed")
    rate, n_samples, n_channels = 64.0, 192, 11
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that a later version changes
        theirs = models.SleepStagerChambon2018(
            n_chans=n_channels, sfreq=rate, input_window_seconds=3, n_outputs=100, n_conv_chs=16,
            time_conv_size_s=0.5, max_pool_size_s=0.125, pad_size_s=0.25, dropout=0.5, apply_batch_norm=True,
        )  # fmt: skip
    torch.manual_seed(3)
    for value in theirs.state_dict().values():  # nothing left at its first value
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) * 0.2 + 0.05)
    names = {
        "spatial_conv": "conv1", "feature_extractor.0": "conv2", "feature_extractor.1": "batchnorm1",
        "feature_extractor.4": "conv3", "feature_extractor.5": "batchnorm2", "final_layer.1": "dense1",
    }  # fmt: skip
    ours = stagernet.StagerNet(n_channels, n_samples, rate, "banville")
    given = {}
    for name, value in theirs.state_dict().items():
        layer, kind = name.rsplit(".", 1)
        if value.ndim == 4:  # theirs has channels and time the other way round
            value = value.transpose(2, 3)
        if layer == "final_layer.1" and kind == "weight":
            value = value.reshape(100, 16, n_channels, -1).transpose(2, 3).flatten(1)
        given[f"{names[layer]}.{kind}"] = value
    ours.load_state_dict(given)
    x = torch.randn(5, n_samples, n_channels)
    for train in (False, True):
        ours.train(train), theirs.train(train)
        ours.dropout.p = theirs.final_layer[0].p = 0.0
        with torch.no_grad():
            np.testing.assert_allclose(ours(x), theirs(x.transpose(1, 2)), rtol=1e-4, atol=1e-4)
    for mine, other in (("batchnorm1", 1), ("batchnorm2", 5)):  # the same statistics were learnt
        np.testing.assert_allclose(
            getattr(ours, mine).running_var, theirs.feature_extractor[other].running_var, rtol=1e-4
        )
