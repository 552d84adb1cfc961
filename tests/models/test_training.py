"""The trainer: honest choice of epoch, exact resume, nothing silent, nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pickle
import re
import signal
import warnings
import weakref
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from nblib.core.errors import BadInput, BadParameter, RunFailed, StorageError
from nblib.models import FitSettings, checkpoints, gpu_problem, reproducible, training
from nblib.models.training import classify, fit
from nblib.prepare.decoder_inputs import Samples

N_CLASSES = 3
SETTINGS = FitSettings(
    max_epochs=6, batch_size=16, learning_rate=1e-2, patience=50, device="cpu", progress=False
)


def samples(n: int, seed: int, skill: float = 1.5) -> Samples:
    pattern = np.random.default_rng(7).standard_normal((N_CLASSES, 2, 5))
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % N_CLASSES)
    x = skill * pattern[y] + rng.standard_normal((n, 2, 5))
    return Samples(x.astype(np.float32), y, np.arange(n))


TRAIN, VAL = samples(90, 1), samples(60, 2)


def network(dropout: float = 0.3, hidden: int = 24) -> nn.Module:
    with reproducible(0):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(10, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, N_CLASSES),
        )  # fmt: skip


def weights(module: nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).numpy()


def val_loss(module: nn.Module, data: Samples = VAL) -> float:
    with torch.no_grad():
        loss, _ = classify(module, torch.from_numpy(data.x), torch.from_numpy(data.y))
    return loss.item()


def trained(settings=SETTINGS, train=TRAIN, val=VAL, folder=None, net=None, **how):
    net = network() if net is None else net
    return net, fit(net, train, val, settings, folder, **how)


def test_it_learns_and_says_how():
    net, history = trained()
    assert history.columns.tolist() == ["epoch", "train_loss", "val_loss", "val_accuracy"]
    assert history["epoch"].tolist() == list(range(6))
    assert history["val_loss"].iloc[-1] < 0.5 * val_loss(network().eval())
    assert history["val_accuracy"].iloc[-1] > 0.8
    told = history.attrs
    assert told["best_epoch"] == history["val_loss"].idxmin() and not told["stopped_early"]
    assert told["learning_rate"] == 1e-2 and told["device"] == "Training on the CPU."
    assert not net.training and all(p.device.type == "cpu" for p in net.parameters())


def test_a_network_trained_before_drops_inputs_again():
    modes = []
    net = network().eval()
    net.register_forward_hook(lambda net, *_: modes.append(net.training))
    trained(replace(SETTINGS, max_epochs=1), net=net)
    assert modes[0] and not modes[-1], "train mode for train rows, eval mode for validation"


def test_history_is_right_about_the_weights_of_each_epoch():
    for epochs in (1, 2, 3):
        net, history = trained(replace(SETTINGS, max_epochs=epochs), train=TRAIN, val=None)
        assert history["val_loss"].isna().all()
        _, watched = trained(replace(SETTINGS, max_epochs=epochs))
        assert watched["val_loss"].iloc[-1] == pytest.approx(val_loss(net), rel=1e-5)


def test_the_same_seed_gives_the_same_numbers_whatever_goes_on_around():
    first, history = trained()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    second, again = trained()
    assert again.equals(history)
    np.testing.assert_array_equal(weights(first), weights(second))
    _, other = trained(replace(SETTINGS, seed=1))
    assert not other.equals(history)


@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_a_batch_in_pieces_teaches_what_it_teaches_at_once(at_once):
    """90 samples in batches of 16: the last one of an epoch is smaller, and so is a last piece."""
    seen = []

    def loss(net, x, y):
        if net.training:
            seen.append(len(y))
        return classify(net, x, y)

    whole, history = trained(net=network(dropout=0.0))
    pieces, again = trained(net=network(dropout=0.0), at_once=at_once, loss=loss)
    assert max(seen) == at_once and sum(seen) == 90 * SETTINGS.max_epochs
    np.testing.assert_allclose(weights(pieces), weights(whole), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(again["train_loss"], history["train_loss"], rtol=1e-4)


def test_every_epoch_has_an_order_of_its_own():
    seen = []

    def loss(net, x, y):
        if net.training:
            seen.append(y.tolist())
        return classify(net, x, y)

    trained(replace(SETTINGS, max_epochs=2, batch_size=90), loss=loss)
    first, second = seen
    assert first != second and sorted(first) == sorted(second) == sorted(TRAIN.y.tolist())


def overfitting() -> tuple[FitSettings, Samples, Samples]:
    """A task where validation gets worse with time: labels hardly depend on x."""
    settings = replace(SETTINGS, max_epochs=25, learning_rate=3e-2)
    return settings, samples(30, 1, skill=0.3), samples(60, 2, skill=0.3)


def test_the_best_weights_are_restored_not_the_last():
    settings, train, val = overfitting()
    net, history = trained(settings, train, val, net=network(0.0))
    best, last = history["val_loss"].min(), history["val_loss"].iloc[-1]
    assert last > 1.2 * best, "the case does not overfit, so it shows nothing"
    assert val_loss(net, val) == pytest.approx(best, rel=1e-5)
    assert history.attrs["best_epoch"] == history["val_loss"].idxmin() < 24


def test_training_stops_after_patience_epochs_without_a_better_one():
    settings, train, val = overfitting()
    _, whole = trained(settings, train, val, net=network(0.0))
    best = int(whole["val_loss"].idxmin())
    net, history = trained(replace(settings, patience=4), train, val, net=network(0.0))
    assert len(history) == best + 4 + 1 < 25
    assert history.attrs["stopped_early"]
    pd.testing.assert_frame_equal(history, whole.iloc[: best + 5])
    assert val_loss(net, val) == pytest.approx(whole["val_loss"].min(), rel=1e-5)


def test_without_validation_the_last_weights_count():
    settings, train, _ = overfitting()
    net, history = trained(replace(settings, patience=1), train, None, net=network(0.0))
    assert len(history) == 25 and history.attrs["best_val_loss"] is None
    loss = val_loss(net, train)
    assert loss < 0.1 * val_loss(network(0.0).eval(), train)


# --- resume --------------------------------------------------------------------------------------


def breaks_after(calls: int, error: BaseException):
    """`classify`, but the process is struck in the middle of an epoch."""
    seen = {"n": 0}

    def loss(net, x, y):
        seen["n"] += 1
        if seen["n"] > calls:
            raise error
        return classify(net, x, y)

    return loss


@pytest.mark.parametrize("calls", [8, 22, 40])
def test_a_run_cut_short_ends_like_an_unbroken_one(tmp_path, calls):
    whole, history = trained()
    with pytest.raises(RuntimeError, match="struck"):
        trained(folder=tmp_path, loss=breaks_after(calls, RuntimeError("struck")))
    net, resumed = trained(folder=tmp_path, resume="auto", net=network())
    pd.testing.assert_frame_equal(resumed, history)
    np.testing.assert_array_equal(weights(net), weights(whole))
    assert resumed.attrs["best_epoch"] == history.attrs["best_epoch"]
    assert pd.read_csv(tmp_path / "fit.csv").shape == history.shape


def test_more_epochs_may_be_asked_for(tmp_path):
    whole, history = trained()
    trained(replace(SETTINGS, max_epochs=2), folder=tmp_path / "a")
    net, resumed = trained(folder=tmp_path / "b", resume=tmp_path / "a" / "fit.ckpt")
    pd.testing.assert_frame_equal(resumed, history)
    np.testing.assert_array_equal(weights(net), weights(whole))


def test_a_finished_run_is_not_trained_again(tmp_path):
    settings, train, val = overfitting()
    settings = replace(settings, patience=3)
    net, history = trained(settings, train, val, tmp_path, net=network(0.0))
    assert history.attrs["stopped_early"]
    again, repeated = trained(
        settings, train, val, tmp_path, net=network(0.0), resume="auto",
        loss=breaks_after(0, RuntimeError("a step was made")),
    )  # fmt: skip
    pd.testing.assert_frame_equal(repeated, history)
    np.testing.assert_array_equal(weights(again), weights(net))


def test_auto_without_a_checkpoint_starts_afresh(tmp_path):
    _, history = trained(folder=tmp_path, resume="auto")
    assert history.equals(trained()[1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"settings": replace(SETTINGS, learning_rate=1e-3)}, "learning_rate was 0.01, now 0.001"),
        ({"settings": replace(SETTINGS, seed=5)}, "seed was 0, now 5"),
        ({"train": samples(90, 3)}, "data was"),
        ({"val": samples(60, 3)}, "data was"),
        ({"train": replace(TRAIN, y=np.roll(TRAIN.y, 1))}, "data was"),
        ({"net": network(hidden=25)}, "network was"),
        ({"identity": {"model": "gru"}}, "model was 'lstm', now 'gru'"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path, change, told):
    known = {"identity": {"model": "lstm"}}
    trained(replace(SETTINGS, max_epochs=1), folder=tmp_path, **known)
    with pytest.raises(BadInput, match=f"another run.*{told}"):
        trained(folder=tmp_path, resume="auto", **{**known, **change})


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_checkpoint_that_is_not_plain_tensors_is_refused_and_runs_nothing(tmp_path, how):
    path, trap = tmp_path / "fit.ckpt", tmp_path / "sprung"
    content = {"nblib": {}, "state_dict": {"w": torch.zeros(2)}, "extra": _Bomb(trap)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(BadInput, match=r"not a checkpoint of plain tensors.*could run code"):
        trained(folder=tmp_path, resume="auto")
    assert not trap.exists()


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "fit.ckpt"
    trained(replace(SETTINGS, max_epochs=1), folder=tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:-40]):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"fit\.ckpt.*(damaged|plain tensors)"):
            trained(folder=tmp_path, resume="auto")
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(BadInput, match="not a checkpoint that nblib wrote"):
        trained(folder=tmp_path, resume="auto")
    with pytest.raises(BadInput, match=r"gone\.ckpt: cannot be read \(No such file"):
        trained(folder=tmp_path, resume=tmp_path / "gone.ckpt")


def test_checkpoints_hold_plain_values_and_replace_each_other(tmp_path):
    trained(folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit.ckpt", "fit.csv"]
    assert checkpoints.load_checkpoint(tmp_path / "fit.ckpt")["nblib"]["stage"] == "fit"
    assert checkpoints.stage_of(tmp_path / "fit.ckpt") == "fit"
    assert checkpoints.stage_of("auto") == "auto" and checkpoints.stage_of("") == ""


# --- logs, devices, noise ------------------------------------------------------------------------


def test_the_csv_log_is_the_history(tmp_path):
    _, history = trained(folder=tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "fit.csv"), history)


@pytest.mark.slow
def test_wandb_writes_offline_beside_the_csv(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)  # offline must be our default, not the test's
    settings = replace(SETTINGS, logger="wandb", max_epochs=2)
    _, history = trained(settings, folder=tmp_path)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))
    assert (tmp_path / "fit.csv").is_file() and len(history) == 2
    assert capfd.readouterr().out == ""


def test_nothing_is_printed_without_cause(capfd, caplog, tmp_path, monkeypatch):
    (tmp_path / "srun").touch(mode=0o755)  # a cluster's login node
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained()
        trained(val=None)
    captured = capfd.readouterr()
    assert captured.out + captured.err == "" and not caplog.records


def test_warnings_that_matter_come_through():
    def loss(net, x, y):
        warnings.warn("something the user should know", UserWarning, stacklevel=1)
        return classify(net, x, y)

    with pytest.warns(UserWarning, match="should know"):
        trained(replace(SETTINGS, max_epochs=1), loss=loss)


def test_progress_is_a_bar_that_vanishes(capfd):
    trained(replace(SETTINGS, progress=True))
    captured = capfd.readouterr()
    assert captured.out.splitlines() == ["Training on the CPU."]
    assert "0/6" in captured.err and "\n" not in captured.err
    assert captured.err.endswith("\r")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("nblib.models.gpu_problem", lambda: "the driver is too old")


def test_auto_falls_back_to_the_cpu_and_says_why(no_gpu, capsys):
    _, history = trained(replace(SETTINGS, device="auto", max_epochs=1))
    told = "Training on the CPU (no GPU: the driver is too old)."
    assert capsys.readouterr().out == told + "\n"
    assert history.attrs["device"] == told


def test_cuda_without_a_gpu_is_an_error_not_a_fallback(no_gpu):
    with pytest.raises(
        BadParameter, match=r"device = 'cuda': no usable GPU \(the driver is too old"
    ):
        trained(replace(SETTINGS, device="cuda"))


def test_half_precision(no_gpu):
    for device in ("cpu", "auto"):
        with pytest.raises(BadParameter, match="'16-mixed' needs a GPU"):
            trained(replace(SETTINGS, precision="16-mixed", device=device))
    net, history = trained(replace(SETTINGS, precision="bf16-mixed"))
    assert history["val_accuracy"].iloc[-1] > 0.8
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert not history.equals(trained()[1])  # the arithmetic was another one


def test_weights_in_half_precision_are_those_of_the_step(monkeypatch):
    """Autocast may keep them while it is on, which is a whole epoch here."""
    half = replace(SETTINGS, precision="bf16-mixed", learning_rate=0.05, max_epochs=2)
    before = fit(network(), TRAIN, VAL, half)
    plain = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: plain(*a, **k | {"cache_enabled": True}))
    pd.testing.assert_frame_equal(fit(network(), TRAIN, VAL, half), before)


def test_what_a_machine_cannot_compute_in_half_precision_is_one_sentence(tmp_path):
    def refuses(net, x, y):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("could not create a primitive\nmore")
        return classify(net, x, y)

    settings = replace(SETTINGS, precision="bf16-mixed")
    with pytest.raises(RunFailed, match=r"'bf16-mixed' is refused here \(could not create a primitive\); take precision '32'"):  # fmt: skip
        trained(settings, loss=refuses, folder=tmp_path)
    assert len(trained(loss=refuses, folder=tmp_path)[1]) == SETTINGS.max_epochs


def test_gpu_problem_tries_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "without CUDA" in gpu_problem()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no GPU" in gpu_problem()

    def zeros(*_, **__):
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", zeros)
    assert gpu_problem() == "no kernel image is available"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_on_a_gpu(tmp_path, precision):
    settings = replace(SETTINGS, device="cuda", precision=precision)
    net, history = trained(settings, folder=tmp_path)
    assert history.attrs["device"].startswith("Training on the GPU")
    assert history["val_accuracy"].iloc[-1] > 0.8
    again, repeated = trained(settings)
    assert repeated.equals(history)
    np.testing.assert_array_equal(weights(net), weights(again))
    finished, _ = trained(settings, folder=tmp_path, resume="auto")
    np.testing.assert_array_equal(weights(finished), weights(net))


def test_a_slurm_job_does_not_change_how_training_starts(tmp_path, monkeypatch):
    # A job of two tasks, seen from the second: Lightning's own guess would wait for the first.
    slurm = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train",
             "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0",
             "SLURM_JOB_NODELIST": "node", "SLURM_NTASKS_PER_NODE": "2"}  # fmt: skip
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    handlers = set()

    def loss(net, x, y):
        handlers.add(signal.getsignal(signal.SIGUSR1))
        return classify(net, x, y)

    _, history = trained(folder=tmp_path, loss=loss)
    assert handlers == {signal.SIG_DFL}  # Lightning's Slurm plugin would requeue the job on it
    assert (tmp_path / "fit.ckpt").is_file()
    assert history.equals(trained()[1])


# --- errors and what is left behind --------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_advice():
    def loss(net, x, y):
        value, logits = classify(net, x, y)
        return value * float("nan"), logits

    with pytest.raises(RunFailed, match=r"loss of epoch 0 is not finite.*lower learning_rate"):
        trained(loss=loss)


def test_a_full_gpu_stops_with_advice():
    with pytest.raises(RunFailed, match=r"GPU memory is full.*lower batch_size \(now 16\)"):
        trained(loss=breaks_after(3, torch.OutOfMemoryError("CUDA out of memory.")))


def test_gradients_are_clipped():
    norms = []

    def note(optimizer, *_):
        grads = [p.grad.flatten() for g in optimizer.param_groups for p in g["params"]]
        norms.append(torch.cat(grads).norm().item())

    hook = register_optimizer_step_post_hook(note)
    try:
        trained(replace(SETTINGS, clip_norm=0.05, max_epochs=1))
        assert max(norms) <= 0.05 * 1.001
        norms.clear()
        trained(replace(SETTINGS, clip_norm=0.0, max_epochs=1))  # 0: not clipped
        assert max(norms) > 0.1
    finally:
        hook.remove()


def test_ctrl_c_is_a_keyboard_interrupt_and_can_be_used_again(tmp_path, capsys):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trained(folder=tmp_path, loss=breaks_after(14, KeyboardInterrupt()))
    (checkpoint,) = tmp_path.glob("*.ckpt")
    said = capsys.readouterr().out
    assert re.search(r"Stopped after \d+ epochs: kept in ", said) and str(checkpoint) in said
    assert signal.getsignal(signal.SIGINT) is before
    _, resumed = trained(folder=tmp_path, resume="auto")
    assert resumed.equals(trained()[1])


def test_sigterm_ends_the_fit_within_the_epoch():
    """The runner waits some seconds, an epoch may take an hour."""
    steps = []

    def loss(net, x, y):
        steps.append(len(y))
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return classify(net, x, y)

    with pytest.raises(SIGTERMException):
        trained(loss=loss)
    assert len(steps) == 2


def test_a_fit_lets_go_of_what_taught_it(monkeypatch):
    """At once, not when Python next looks for what is held in a circle: data are large."""
    made = []

    class Noted(training.DeviceBatches):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(weakref.ref(self))

    monkeypatch.setattr(training, "DeviceBatches", Noted)
    net = network()
    made.append(weakref.ref(net))
    gc.disable()
    try:
        trained(replace(SETTINGS, max_epochs=2), net=net)
        del net
        assert [of() for of in made] == [None] * 3
    finally:
        gc.enable()


def state() -> tuple:
    return (
        torch.get_rng_state().sum().item(), np.random.get_state()[1].sum(),  # noqa: NPY002
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory, torch.is_grad_enabled(),
        signal.getsignal(signal.SIGTERM), len(warnings.filters),
    )  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_left_as_it_was(fails):
    torch.use_deterministic_algorithms(False)
    before = state()
    loss = breaks_after(3, RuntimeError("struck")) if fails else classify
    with contextlib.suppress(RuntimeError):
        trained(replace(SETTINGS, threads=2, max_epochs=2), loss=loss)
    assert state() == before


def test_threads_are_held_during_the_fit():
    seen = []

    def loss(net, x, y):
        seen.append(torch.get_num_threads())
        return classify(net, x, y)

    trained(replace(SETTINGS, threads=2, max_epochs=1), loss=loss)
    assert set(seen) == {2}


def test_settings_take_what_is_given_over_the_models_own():
    from types import SimpleNamespace

    given = SimpleNamespace(max_epochs=None, batch_size=8, seed=3, recipe="demo")
    settings = FitSettings.of(given, {"max_epochs": 40, "batch_size": 64})
    assert (settings.max_epochs, settings.batch_size, settings.seed) == (40, 8, 3)
    assert FitSettings.of(None, {"patience": 2}).patience == 2


def test_a_full_disk_at_a_checkpoint_is_one_clear_error(tmp_path, monkeypatch):
    def full(self, path, *args, **kwargs):
        Path(path).write_bytes(b"half")
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", full)
    with pytest.raises(StorageError, match=r"fit\.ckpt: file size limit reached"):
        trained(folder=tmp_path)
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))
