"""The decoders, by name; the registry imports a decoder's file when it is asked for.

    from nblib.models import make
    make("lstm", settings={"max_epochs": 5}).fit(X, y).predict(X_new)

A new decoder is one file with a class that says its settings, and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib.core.errors import BadParameter, there_is

if TYPE_CHECKING:
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
    from nblib.models.settings import say_device

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
