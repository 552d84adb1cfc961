"""Decoders on a graph: a training step as the number of units grows, each in a process of its own."""

from __future__ import annotations

import json
import sys

from measure import Row, best, memory, process

MOST_GB = 1.0
MOST_SHARE = (
    0.45  # of a step as shipped, of one with its batch at once and the formula as it is printed
)
MOST_GROWTH = 2.0  # times what the edges grow; units squared would be 4 from 500 to 2,000 units


def rows(*, units: tuple[int, ...] = (500, 1_000, 2_000), full: tuple[int, ...] = (500, 1_000), steps: int = 5, classes: int = 119) -> list[Row]:  # fmt: skip
    """Seconds a step and peak memory: sparse (k = 16, batch 32) and full (batch 1) graphs."""
    found: list[Row] = []
    group = "graph"
    sparse = {n: _measured("correlation", n, 32, steps, classes) for n in units}
    whole = _measured("correlation", units[-1], 32, steps, classes, whole=True)
    first, last = units[0], units[-1]
    for n, got in sparse.items():
        found.append(
            Row(
                group, f"st_gat step, {n:,} units, k = 16", got["seconds"] * 1e3, "ms",
                got["seconds"] / sparse[first]["seconds"], f"{first:,} units",
                note=f"{got['edges']:,} edges, 1 head × 16 channels, 5 bins, batch 32, {got['where']}",
            )
        )  # fmt: skip
    share = sparse[last]["seconds"] / whole["seconds"]
    found.append(
        Row(
            group, f"st_gat step, {last:,} units, beside its batch at once, written plainly", share, "times", share,
            "its batch at once, written plainly", f"at most {MOST_SHARE:g}", share <= MOST_SHARE,
            note=f"{whole['seconds'] * 1e3:.3g} ms and {whole['peak_gb']:.2g} GB at once",
        )
    )  # fmt: skip
    growth = (sparse[last]["seconds"] / sparse[first]["seconds"]) / (
        sparse[last]["edges"] / sparse[first]["edges"]
    )
    found.append(
        Row(
            group, f"growth of a step beside that of the edges, {first:,} to {last:,} units", growth,
            "times", growth, "as the edges", f"at most {MOST_GROWTH:g}", growth <= MOST_GROWTH,
        )
    )  # fmt: skip
    found.append(
        Row(
            group, f"peak memory of training, {last:,} units", sparse[last]["peak_gb"], "GB",
            limit=f"at most {MOST_GB:g} GB", holds=sparse[last]["peak_gb"] <= MOST_GB,
            note="above the process before it made the data",
        )
    )  # fmt: skip
    for n in full:
        got = _measured("full", n, 1, steps, classes)
        found.append(
            Row(
                group, f"st_gat step, {n:,} units, full graph, batch 1", got["seconds"] * 1e3, "ms",
                got["seconds"] / sparse[n]["seconds"], f"k = 16, batch 32, {n:,} units",
                note=f"{got['edges']:,} edges, peak {got['peak_gb']:.2g} GB",
            )
        )  # fmt: skip
    return found + _layers(units[-1])


def _layers(units: int, rows: int = 160, piece: int = 16) -> list[Row]:
    """One attention layer, forward and backward: ours piece by piece, and the one of PyTorch Geometric."""
    import torch
    from torch_geometric.nn import GATv2Conv

    from nblib.models.graph_layers import GATv2

    x, source, weight = torch.randn(units, rows, 8), torch.randint(units, (units, 16)), torch.rand(units, 16)  # fmt: skip
    ours, theirs = GATv2(8, 16, 1), GATv2Conv(8, 16, edge_dim=1, add_self_loops=False)
    present = torch.ones(units, 16, dtype=torch.bool)
    target = torch.arange(units).repeat_interleave(16)
    copies = units * torch.arange(rows)[:, None]  # a graph of its own for each row
    edges = (torch.stack([source.flatten(), target])[:, None] + copies).flatten(1)
    laid_out, weights = x.transpose(0, 1).reshape(-1, 8), weight.reshape(-1, 1).repeat(rows, 1)

    def in_pieces() -> None:
        for part in x.split(piece, dim=1):
            ours(part, source, weight, present).square().sum().backward()

    def geometric() -> None:
        theirs(laid_out, edges, weights).square().sum().backward()

    took = best(3, ours=in_pieces, theirs=geometric)
    against, note = "PyTorch Geometric, GATv2Conv", f"{rows} rows, 16 edges a unit, forward and backward"  # fmt: skip
    what = f"one attention layer, {units:,} units"
    return [
        Row("graph", f"{what}: {against}", took["theirs"] * 1e3, "ms", 1.0, note=note),
        Row("graph", f"{what}: nblib in pieces", took["ours"] * 1e3, "ms", took["ours"] / took["theirs"],
            against, note=f"{note}; {piece} rows at once"),
    ]  # fmt: skip


def _measured(graph: str, units: int, batch: int, steps: int, classes: int, *, whole: bool = False) -> dict:  # fmt: skip
    told = process(sys.executable, __file__, graph, *map(str, (units, batch, steps, classes, int(whole))))  # fmt: skip
    return json.loads(told.strip().splitlines()[-1])


def plain(self, x, source, weight, present):
    """Attention as its formula reads, term by term: what `GATv2.forward` must overtake."""
    import torch

    left, right = self.left(x), self.right(x)
    (n, m, width), k = left.shape, source.shape[1]
    spoken = left.index_select(0, source.reshape(-1)).view(n, k, m, width)
    mixed = spoken + (right[:, None] + weight[:, :, None, None] * self.edge)
    mixed = torch.nn.functional.leaky_relu(mixed, 0.2).view(n, k, m, self.heads, self.channels)
    score = (mixed * self.attention).sum(-1)
    share = score.masked_fill(~present[:, :, None, None], float("-inf")).softmax(dim=1)
    return (share[..., None] * spoken.view(mixed.shape)).sum(dim=1).reshape(n, m, width) + self.bias


def one(graph: str, units: int, batch: int, steps: int, classes: int, whole: int) -> dict:
    """`steps` steps of st_gat, after one to warm up, as training makes them or `whole` batches."""
    import time

    import numpy as np
    import torch

    from nblib import models
    from nblib.models.graph_layers import GATv2
    from nblib.prepare.decoder_inputs import Samples

    before = memory("VmRSS")
    rng = np.random.default_rng(0)
    n = max(batch * steps, classes)
    x = rng.standard_normal((n, 5, units), np.float32)
    samples = Samples(x, np.arange(n) % classes, np.arange(n))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    k = {} if graph == "full" else {"k": 16}
    decoder = models.make("st_gat", {"graph": graph, "channels": 16, "memory_gb": 64.0, **k})
    decoder.n_bins, decoder.n_units, decoder.n_classes = 5, units, classes
    decoder.edges = decoder.make_edges(x, batch)
    at_once = batch if whole or device == "cuda" else decoder.in_cache(5, units)
    if whole:
        GATv2.forward = plain
    net = decoder.build(5, units, classes).to(device).train()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3)
    data = torch.from_numpy(x).to(device), torch.from_numpy(samples.y).to(device)

    def step(i: int) -> None:
        part = slice((i * batch) % n, (i * batch) % n + batch)
        optimiser.zero_grad()
        for piece, y in zip(
            data[0][part].split(at_once), data[1][part].split(at_once), strict=True
        ):
            loss = torch.nn.functional.cross_entropy(net(piece), y, reduction="sum")
            (loss / batch).backward()
        optimiser.step()

    best = float("inf")
    for i in range(steps + 1):
        began = time.perf_counter()
        step(i)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began) if i else best
    peak = memory("VmHWM") - before
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    where = torch.cuda.get_device_name(0) if device == "cuda" else "CPU"
    edges = units * (units - 1 if graph == "full" else 16)
    return {"seconds": best, "peak_gb": peak / 1e9, "edges": edges, "where": where}


if __name__ == "__main__":
    kind, *numbers = sys.argv[1:]
    print(json.dumps(one(kind, *map(int, numbers))))
