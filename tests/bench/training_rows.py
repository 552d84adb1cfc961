"""One training step of the LSTM: the trainer against the bare loop on tensors already in place."""

from __future__ import annotations

import tempfile
import time
from typing import Any

from measure import Row

LIMIT = 1.2


def rows(
    device: str = "cpu",
    *,
    hidden: int = 500,
    batch: int = 64,
    units: int = 2_000,
    bins: int = 5,
    classes: int = 119,
    steps: int = 67,  # of an epoch: an Allen session has about 4,284 training presentations
    epochs: int = 1,
    repeats: int = 3,
) -> list[Row]:
    """Milliseconds per step on one device; each figure the best of `repeats` rounds in turn."""
    import torch

    x, y = _data(batch * steps, bins, units, classes)
    ways = {"bare": _bare, "fit": _fit, "loader": _loader}
    took = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            net = _network(bins, units, hidden, classes)
            took[name] = min(took[name], way(net, x, y, batch, epochs, device) / (epochs * steps))
    where = (
        torch.cuda.get_device_name(0)
        if device == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    note = f"{where}; LSTM hidden {hidden}, batch {batch}, {units:,} units × {bins} bins, float32"
    ratio = {name: seconds / took["bare"] for name, seconds in took.items()}
    group, against = f"training on {device}", "bare forward, backward, step"
    return [
        Row(group, against, took["bare"] * 1e3, "ms", 1.0, note=note),
        Row(
            group, "nblib.models.training.fit", took["fit"] * 1e3, "ms", ratio["fit"], against,
            "at most 1.2 × bare", ratio["fit"] <= LIMIT, "as shipped, no validation",
        ),
        Row(
            group, "plain DataLoader, TensorDataset", took["loader"] * 1e3, "ms", ratio["loader"],
            against, note="bare loop fed by the loader, shuffled",
        ),
    ]  # fmt: skip


def _data(n: int, bins: int, units: int, classes: int) -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.standard_normal((n, bins, units), np.float32), np.arange(n) % classes


def _network(bins: int, units: int, hidden: int, classes: int) -> Any:
    """The shipped LSTM's own network, freshly initialised."""
    import torch

    from nblib.models import MODELS

    torch.manual_seed(0)
    return MODELS["lstm"](hidden=hidden).build(bins, units, classes)


def _sync(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _loop(net: Any, batches: Any, epochs: int, device: str) -> float:
    import torch
    from torch.nn import functional

    net = net.to(device).train()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, fused=True)

    def epoch() -> None:
        for xb, yb in batches():
            optimiser.zero_grad()
            functional.cross_entropy(net(xb), yb).backward()
            optimiser.step()

    epoch()  # warm up
    _sync(device)
    began = time.perf_counter()
    for _ in range(epochs):
        epoch()
    _sync(device)
    return time.perf_counter() - began


def _bare(net: Any, x: Any, y: Any, batch: int, epochs: int, device: str) -> float:
    import torch

    parts = list(zip(
        torch.as_tensor(x).to(device).split(batch), torch.as_tensor(y).to(device).split(batch),
        strict=True,
    ))  # fmt: skip
    return _loop(net, lambda: parts, epochs, device)


def _loader(net: Any, x: Any, y: Any, batch: int, epochs: int, device: str) -> float:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
    loader = DataLoader(data, batch, shuffle=True)
    return _loop(net, lambda: ((a.to(device), b.to(device)) for a, b in loader), epochs, device)


def _fit(net: Any, x: Any, y: Any, batch: int, epochs: int, device: str) -> float:
    """Seconds of whole epochs, their book-keeping included; starting the trainer is not a step."""
    import numpy as np

    from nblib.models.settings import FitSettings
    from nblib.models.training import fit
    from nblib.prepare.decoder_inputs import Samples

    began: list[float] = []  # of every step
    net.register_forward_pre_hook(lambda *_: began.append(time.perf_counter()))
    samples = Samples(x, y.astype(np.int64), np.arange(len(y)))
    settings = FitSettings(max_epochs=epochs + 2, batch_size=batch, device=device, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        fit(net, samples, None, settings, folder)
    steps = len(y) // batch
    return began[steps * (epochs + 1)] - began[steps]  # each epoch ends by waiting for the device
