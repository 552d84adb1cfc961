"""One training step of the LSTM and of the masked network: the trainer against the bare loop on tensors in place,
and a GPU against two cores."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import yaml
from measure import ROOT, Row

LIMIT = 1.2
OF_TWO_CORES = 0.1  # a step of a large network on a GPU


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

    from nblib.models import FitSettings
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


def masked_rows(
    device: str = "cpu",
    *,
    units: int = 449,
    bins: int = 50,
    signals: int = 4,
    batch: int = 32,
    width: int = 64,
    layers: int = 2,
    steps: int = 8,  # of an epoch
    repeats: int = 3,
) -> list[Row]:
    """Milliseconds per step of notebook 12, masks drawn anew in each, against the bare loop on masks drawn before.

    The sizes are those of a real session of the International Brain Laboratory.
    """
    import torch

    from nblib.models.multimodal.network import MaskedNetwork, Shape

    session, branch = _session(batch * steps, bins, units, signals)
    shape = {"width": width, "layers": layers}
    took = {"bare": float("inf"), "fit": float("inf")}
    for _ in range(repeats):
        torch.manual_seed(0)
        net = MaskedNetwork(Shape([units], bins, signals, [], **shape))
        ways = {
            "bare": lambda net=net: _bare_masked(net, session, branch, batch, device),
            "fit": lambda: _fit_masked(
                session, branch, shape, steps, batch_size=batch, device=device
            ),
        }
        for name, way in ways.items():
            took[name] = min(took[name], way() / steps)
    ratio, group = took["fit"] / took["bare"], f"training on {device}"
    against = "masked network, bare forward, backward, step"
    note = f"{units:,} units × {bins} bins, {signals} signals, batch {batch}, width {width}, {layers} layers"
    return [
        Row(group, against, took["bare"] * 1e3, "ms", 1.0, note=note),
        Row(
            group, "nblib.models.multimodal.fitting.fit", took["fit"] * 1e3, "ms", ratio, against,
            "at most 1.2 × bare", ratio <= LIMIT, "as shipped, masks drawn in each step",
        ),
    ]  # fmt: skip


def _session(trials: int, bins: int, units: int, signals: int) -> tuple[Any, Any]:
    """A session of noise, and linear models that know nothing."""
    import numpy as np

    from nblib.models.multimodal.branch import Branch, at_rest
    from nblib.models.multimodal.tasks import by_folds
    from nblib.prepare.sessions import Session, root_scaling

    rng, names = np.random.default_rng(0), tuple(f"signal {s}" for s in range(signals))
    counts = rng.poisson(0.1, (trials + 1, bins, units)).astype(np.float32)
    session = Session(
        name="noise",
        counts=counts,
        roots=root_scaling(counts, np.arange(trials)),
        signals=rng.standard_normal((trials + 1, bins, signals), np.float32),
        mean=np.zeros(signals),
        scale=np.ones(signals),
        variables=np.zeros((trials + 1, 0), np.int64),
        role=np.array(["train"] * trials + ["val"]),  # validation is no step
        trial=np.arange(trials + 1),
        area=np.array(["a", "b"] * units)[:units],
        unit_ids=np.arange(units),
        signal_names=names,
        classes={},
        bin_s=0.02,
        split_hash="",
        left_out=0,
    )
    rest = at_rest(session, session.known)
    answers = {task: {"rest": [task.at_rest(session, rest)]} for task in by_folds(session)}
    return session, Branch(answers, dict.fromkeys(answers, "rest"), [{}], [rest], {})


def _bare_masked(net: Any, session: Any, branch: Any, batch: int, device: str) -> float:
    """Seconds of an epoch over batches that lie there, masks and all."""
    import torch

    from nblib.models import FitSettings
    from nblib.models.multimodal import fitting, masks, model

    data = [model.tensors_of(session, branch.rest[0], torch.device(device))]
    data[0]["width"] = torch.ones(len(session.role), 1, len(session.signal_names), device=device)
    settings = FitSettings(batch_size=batch)
    parts = list(fitting.TrialBatches(data, [session], "train", settings, masks.Mix()))
    net = net.to(device).train()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, fused=True)

    def epoch() -> None:
        for part, rows in parts:
            optimiser.zero_grad()
            fitting.nats(net, part, rows)[0].backward()
            optimiser.step()

    epoch()  # warm up
    _sync(device)
    began = time.perf_counter()
    epoch()
    _sync(device)
    return time.perf_counter() - began


def _fit_masked(
    session: Any,
    branch: Any,
    shape: dict[str, Any],
    steps: int,
    compiled: bool = False,
    **settings: Any,
) -> float:
    """Seconds of an epoch as shipped, from its first step to that of the next; validation is one trial."""
    from nblib.models import FitSettings
    from nblib.models.multimodal import fitting, masks

    began: list[float] = []  # of every step
    plain = fitting.nats

    def timed(net: Any, part: dict[str, Any], rows: Any) -> Any:
        if net.training:
            began.append(time.perf_counter())
        return plain(net, part, rows)

    rules = FitSettings(max_epochs=3, progress=False, **settings)
    fitting.nats = timed
    try:
        fitting.fit([session], branch, rules, shape, masks.Mix(), compiled=compiled)
    finally:
        fitting.nats = plain
    return began[2 * steps] - began[steps]


def size_rows(
    device: str = "cuda",
    *,
    sizes: tuple[str, ...] = ("small", "medium", "large"),
    units: int = 449,
    bins: int = 50,
    signals: int = 4,
    steps: int = 20,  # of an epoch
    on_two_cores: int = 3,  # likewise; they are slow
) -> list[Row]:
    """Milliseconds per step of notebook 12 at the sizes of `params/sizes` as they stand there, on the device
    and on two cores, where arithmetic is of 32 bits and nothing is compiled."""
    from nblib.experiments.multimodal import judge

    found, group = [], f"training on {device}"
    for size in sizes:
        rules = yaml.safe_load((ROOT / "params" / "sizes" / f"{size}.yml").read_text("utf-8"))
        batch, shape = rules["batch_size"], judge.Params(**rules).shape
        known = {name: rules[name] for name in ("batch_size", "learning_rate", "weight_decay")}
        faster = {"compiled": rules["compiled"], "precision": rules["precision"], "device": device}
        ways = {
            "cores": (on_two_cores, {"device": "cpu", "threads": 2}),
            "device": (steps, faster),
        }
        took = {}  # once: compiling takes longer than the steps
        for name, (n, way) in ways.items():
            session, branch = _session(batch * n, bins, units, signals)
            took[name] = _fit_masked(session, branch, shape, n, **known, **way) / n
        ratio, against = took["device"] / took["cores"], f"masked network, {size}.yml, two cores"
        note = f"{units:,} units × {bins} bins, batch {batch}, {shape['layers']} layers of {shape['width']}"
        found += [
            Row(group, against, took["cores"] * 1e3, "ms", 1.0, note=f"{note}, float32"),
            Row(
                group, f"masked network, {size}.yml as it stands", took["device"] * 1e3, "ms", ratio,
                against, "at most 0.1 × two cores", ratio <= OF_TWO_CORES,
                f"{rules['precision']}, compiled",
            ),
        ]  # fmt: skip
    return found
