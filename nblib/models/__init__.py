"""The list of decoders: a new one, such as a classifier, is one file in this folder and one line here.

    from nblib.models import make
    make("lstm", settings={"max_epochs": 5}).fit(X, y).predict(X_new)

A new decoder is one file with a class that says its settings, and one line here.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib.core.errors import BadInput, BadParameter, there_is

if TYPE_CHECKING:
    import torch

    from nblib.models.base import Decoder

CONFIG, WEIGHTS = "config.json", "weights.safetensors"  # files of a saved decoder

_CLASSES = {
    "nearest_mean": "linear.NearestMean",
    "ridge": "linear.Ridge",
    "poisson_naive_bayes": "poisson.PoissonNaiveBayes",
    "bayes_poisson": "poisson.BayesPoisson",
    "logistic": "linear.Logistic",
    "pca_logistic": "linear.PCALogistic",
    "linear_svm": "linear.LinearSVM",
    "mlp": "network.MLP",
    "cnn": "network.CNN",
    "lstm": "network.LSTM",
    "gru": "network.GRU",
    "transformer": "transformer.Transformer",
    "transformer_lstm": "transformer.TransformerLSTM",
    "autoencoder_lstm": "transformer.AutoencoderLSTM",
    "st_gat": "graph_decoders.STGAT",
    "st_gat_dynamic": "graph_decoders.DynamicSTGAT",
    "gat": "graph_decoders.GAT",
    "gcn": "graph_decoders.GCN",
    "ensemble": "ensemble.Ensemble",
}
_OTHERS = {"multimodal": "multimodal.model.Multimodal"}  # loaded here, but no decoder of one label
ON_GRAPHS = ("st_gat", "st_gat_dynamic", "gat", "gcn")  # the decoders of notebook 06


def _class(at: str) -> Any:
    """A class of this package by its module and name."""
    module, _, name = at.rpartition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


class _Registry(Mapping):
    """Name -> class. Listing the names imports nothing heavy; an unknown name is refused."""

    def __getitem__(self, name: str) -> type[Decoder]:
        if name not in _CLASSES:
            known = there_is(_CLASSES, str(name))
            raise BadParameter(f"model = {name!r}: no such decoder; {known}")
        return _class(_CLASSES[name])

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


MODELS: Mapping[str, type[Decoder]] = _Registry()


def make(name: str, params: Mapping[str, Any] | None = None, **more: Any) -> Decoder:
    """A decoder that is not fitted yet.

    params: hyper-parameters that differ from its defaults; more: settings, units and scaling (see
    `base.Decoder`). Raises BadParameter for an unknown model, an unknown hyper-parameter or a bad
    value.
    """
    return MODELS[name](**dict(params or {}), **more)


def device_of(names: Iterable[str], device: str) -> str:
    """Where decoders will be fitted many times over, said once: "cpu" where none of them is torch's."""
    if not any(MODELS[name].is_network for name in names):
        return "cpu"
    return say_device(device)


def load(folder: Path | str) -> Any:
    """The fitted decoder that `Decoder.save(folder)` wrote, or the model of several sessions.

    Raises CorruptArtifact when its files are missing, damaged or do not fit together.
    """
    from nblib.core.tensors import read_values
    from nblib.models.base import read_config

    if (name := read_values(Path(folder) / CONFIG).get("model")) in _OTHERS:
        return _class(_OTHERS[name]).load(folder)
    return MODELS[read_config(Path(folder))["model"]].load(folder)


# --- how to train, and on what -------------------------------------------------------------------


@dataclass(frozen=True)
class FitSettings:
    """How to train. clip_norm: largest gradient norm; patience [epochs]; threads: 0 = as is; anneal: the rate
    falls to 0 along a cosine, and the last epoch counts."""

    max_epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 5
    clip_norm: float = 1.0
    device: str = "auto"
    precision: str = "32"
    threads: int = 0
    logger: str = "csv"
    seed: int = 0
    progress: bool = True
    anneal: bool = False

    @classmethod
    def of(cls, settings: Any, defaults: Mapping[str, Any], **changes: Any) -> FitSettings:
        """The settings of a model with `defaults` of its own.

        settings: a dict of some of these names, or any object that has some as attributes, such as
        a notebook's parameters; None stands for the default. Raises BadParameter for a dict with
        another name.
        """
        names = [f.name for f in fields(cls)]
        if isinstance(settings, Mapping):
            if unknown := sorted(set(settings) - set(names)):
                raise BadParameter(
                    f"settings: unknown {', '.join(unknown)}; there are {', '.join(names)}."
                )
            values = dict(settings)
        else:
            values = {name: getattr(settings, name, None) for name in names}
        values = {name: value for name, value in values.items() if value is not None}
        return cls(**{**defaults, **values, **changes})


def gpu_problem() -> str:
    """Why no GPU can be used; "" when one can. Tries it, since a driver may be there in vain."""
    import torch

    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no GPU; look at the driver and CUDA_VISIBLE_DEVICES"
    try:
        torch.zeros(1, device="cuda").add_(1).item()
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return ""


def pick_device(settings: FitSettings) -> tuple[torch.device, str]:
    """The device and one sentence that says which; BadParameter when it cannot do what was asked.

    "auto" is a usable GPU, else the CPU; "cuda" without a usable GPU is an error.
    """
    import torch

    problem = "" if settings.device == "cpu" else gpu_problem()
    if settings.device == "cuda" and problem:
        raise BadParameter(
            f"device = 'cuda': no usable GPU ({problem}); mend that, or choose 'auto' or 'cpu'."
        )
    on_gpu = settings.device != "cpu" and not problem
    if settings.precision == "16-mixed" and not on_gpu:
        raise BadParameter("precision = '16-mixed' needs a GPU; choose '32' or 'bf16-mixed'.")
    if on_gpu:
        return torch.device("cuda", 0), f"Training on the GPU {torch.cuda.get_device_name(0)}."
    return torch.device("cpu"), f"Training on the CPU{f' (no GPU: {problem})' if problem else ''}."


def say_device(device: str) -> str:
    """Where several fits will train, "cuda" or "cpu": chosen once and said once, not by every fit."""
    chosen, words = pick_device(FitSettings(device=device))
    print(words)
    return chosen.type


@contextlib.contextmanager
def reproducible(seed: int, threads: int = 0) -> Iterator[None]:
    """Seeded random numbers and a set number of threads inside; as they were outside."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if threads:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def going_on(learn: Callable[..., Any], folder: Path | None) -> Any:
    """What `learn` returns; a run that was killed goes on from its own checkpoint in the folder.

    A checkpoint that no longer fits (another version wrote it) is put aside, and said so.
    """
    if checkpoints := [] if folder is None else list(folder.glob("*.ckpt")):
        try:
            return learn(resume="auto")
        except BadInput as error:
            print(f"Starting afresh: {error}")
            for path in checkpoints:
                path.unlink(missing_ok=True)
    return learn()
