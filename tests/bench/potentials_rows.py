"""Field potentials: pairs a second of each sampler, windows a second of the embedder, a label curve.

Beside them braindecode's sampler of pairs behind a DataLoader, on the same cohort in memory.
"""

from __future__ import annotations

import time

from measure import Row, best

RATE_HZ, WINDOW_S, CHANNELS, BATCH = 64.0, 3.0, 11, 256
TAU_S = {"tau_pos_s": 30.0, "tau_neg_s": 60.0}


def rows(*, recordings: int = 29, windows: int = 400, subjects: int = 12, steps: int = 40, repeats: int = 3, draws: int = 20, embedders: int = 8, device: str = "cpu") -> list[Row]:  # fmt: skip
    """A cohort of `recordings` for the samplers; the demo's size (`subjects`) for the curve."""
    cohort = _cohort(recordings, windows)
    found = _samplers(cohort, steps, repeats) + _embedder(cohort, repeats, device)
    return [*found, _curve(_cohort(subjects, min(windows, 120)), draws, embedders)]


def _cohort(recordings: int, windows: int):
    import numpy as np

    from nblib.prepare.potentials.stored_windows import Cohort, Windows

    rng = np.random.default_rng(0)
    label = np.repeat(["a", "b", "c"], windows // 3 + 1)[:windows]
    size = round(RATE_HZ * WINDOW_S)
    return Cohort([
        Windows(rng.standard_normal((windows, size, CHANNELS), dtype=np.float32), np.arange(windows) * WINDOW_S,
                label, np.ones(windows), f"r{i}", f"m{i}", RATE_HZ, WINDOW_S, WINDOW_S, ["r"] * CHANNELS, 0, "")
        for i in range(recordings)
    ])  # fmt: skip


def _samplers(cohort, steps: int, repeats: int) -> list[Row]:
    """Windows of drawn samples brought together, batch by batch, no network."""
    import numpy as np
    import torch

    from nblib.experiments import pretext, self_supervision
    from nblib.experiments.self_supervision import Params as PretextParams
    from nblib.models.stagernet import DrawnBatches

    x = torch.from_numpy(cohort.x)
    lines = [pretext.Timeline.of(cohort, np.array([r])) for r in range(len(cohort.parts))]
    work, counts = {}, {}
    for task in pretext.TASKS:
        params = PretextParams(recipe="bench", pretext=task, batch_size=BATCH, **TAU_S)
        batches = DrawnBatches(x, self_supervision.draw(lines, params), steps, 0)
        counts[task] = steps * len(batches._drawn(0, 0)[1])
        work[task] = lambda batches=batches: [None for _ in batches]
    theirs = _braindecode(cohort, x, steps)
    if theirs is not None:
        work["braindecode"], counts["braindecode"] = theirs, steps * BATCH
    seconds = best(repeats, **work)
    rate = {name: counts[name] / seconds[name] for name in work}
    size = f"{len(cohort.parts)} recordings of {len(cohort.parts[0])} windows, batches of {BATCH}"
    other = "braindecode RelativePositioningSampler + DataLoader"
    found = []
    if theirs is None:
        note = "braindecode is not installed (extra dev), so nothing stands beside these"
    else:
        note = f"{size}; pairs of windows, one process"
        found.append(Row("potentials", other, rate["braindecode"], "pairs/s", 1.0, note=note))
    for task in pretext.TASKS:
        more = {}
        if task == "rp" and theirs is not None:
            ratio = rate[task] / rate["braindecode"]
            more = {"ratio": ratio, "against": other, "limit": "at least 10 times", "holds": ratio >= 10}  # fmt: skip
        what = {"rp": "pairs", "ts": "triplets", "cpc": "contexts"}[task]
        found.append(Row("potentials", f"nblib sampler of {task}", rate[task], f"{what}/s", note=size, **more))  # fmt: skip
    return found


def _braindecode(cohort, x, steps: int):
    """One pass of braindecode's sampler over the cohort; None where it is not installed."""
    try:
        from braindecode.samplers import RelativePositioningSampler
    except ImportError:
        return None
    import numpy as np
    import pandas as pd
    from torch.utils.data import DataLoader, Dataset

    table = pd.DataFrame(
        {"subject": cohort.subject, "session": 0, "run": cohort.record,
         "i_window_in_trial": np.arange(len(cohort)), "i_trial": 0, "target": 0,
         "i_start_in_trial": (cohort.start_s * RATE_HZ).astype(int)}
    )  # fmt: skip

    class Pairs(Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, pair):
            return x[pair[0]], x[pair[1]], float(pair[2])

    tau = {name.removesuffix("_s"): int(value * RATE_HZ) for name, value in TAU_S.items()}

    def one_pass():
        sampler = RelativePositioningSampler(table, **tau, n_examples=steps * BATCH, same_rec_neg=True, random_state=0)  # fmt: skip
        return [None for _ in DataLoader(Pairs(), batch_size=BATCH, sampler=sampler)]

    return one_pass


def _embedder(cohort, repeats: int, device: str) -> list[Row]:
    """StagerNet on a batch of windows: forward, backward and step; and forward alone."""
    import torch

    from nblib.models import stagernet

    x = torch.from_numpy(cohort.x[:BATCH]).to(device)
    net = stagernet.StagerNet(CHANNELS, x.shape[1], RATE_HZ).to(device)
    optimiser = torch.optim.AdamW(net.parameters())

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def train():
        net.train()
        optimiser.zero_grad()
        net(x).square().mean().backward()
        optimiser.step()
        wait()

    def infer():
        stagernet.embed(net, cohort.x[:BATCH], device)
        net.to(device)
        wait()

    train()
    seconds = best(repeats, training=train, inference=infer)
    size = f"windows of {x.shape[1]} samples and {CHANNELS} channels, {BATCH} at once, {device}"
    return [
        Row("potentials", f"StagerNet, {name}", len(x) / s, "windows/s", note=size)
        for name, s in seconds.items()
    ]


def _curve(cohort, draws: int, embedders: int) -> Row:
    """09 without its pretexts: frozen embedders (random ones here) in 5 folds at 5 budgets."""
    import numpy as np

    from nblib.experiments import label_budget
    from nblib.experiments.embedders import Embedders
    from nblib.experiments.label_budget import Params as DownstreamParams

    smallest = int(np.bincount(np.unique(cohort.label, return_inverse=True)[1]).min())
    names = [f"e{i}" for i in range(embedders)]
    params = DownstreamParams.model_construct(
        **{k: f.default for k, f in DownstreamParams.model_fields.items()} | {
            "recipe": "bench", "embedders": names, "n_draws": draws, "compare": [],
            "budgets": [1, 10, min(50, smallest // 3), min(100, smallest // 2), 0],
        }
    )  # fmt: skip
    rng = np.random.default_rng(0)
    state = np.unique(cohort.label, return_inverse=True)[1]
    means = rng.standard_normal((embedders, 3, 100))
    known = {n: means[i][state] + 3 * rng.standard_normal((len(cohort), 100)) for i, n in enumerate(names)}  # fmt: skip
    kept = (label_budget.check_embedders, Embedders.embed)
    label_budget.check_embedders = lambda params: None
    Embedders.embed = lambda self, name, fold: known[name]
    try:
        began = time.perf_counter()
        label_budget.learning_curves(cohort, params)
        seconds = time.perf_counter() - began
    finally:
        label_budget.check_embedders, Embedders.embed = kept
    return Row(
        "potentials", "label curves of frozen embedders", seconds, "s", limit="at most 180 s", holds=seconds <= 180,
        note=f"{embedders} embedders, 5 folds, 5 budgets, {draws} draws, both tasks; {len(cohort.parts)} recordings of "
             f"{len(cohort.parts[0])} windows",
    )  # fmt: skip
