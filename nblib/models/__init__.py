"""The decoders, by name; the registry imports a decoder's file when it is asked for.

A new decoder is one file with a class that takes its hyper-parameters by keyword, and one line
here.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib.core.errors import BadParameter

if TYPE_CHECKING:
    from nblib.models.base import Decoder

_CLASSES = {
    "nearest_mean": "linear.NearestMean",
    "ridge": "linear.Ridge",
    "poisson_naive_bayes": "linear.PoissonNaiveBayes",
    "logistic": "linear.Logistic",
    "pca_logistic": "linear.PCALogistic",
    "linear_svm": "linear.LinearSVM",
    "mlp": "feedforward.MLP",
    "cnn": "feedforward.CNN",
    "lstm": "recurrent.LSTM",
    "gru": "recurrent.GRU",
    "transformer": "transformer.Transformer",
    "transformer_lstm": "transformer.TransformerLSTM",
    "autoencoder_lstm": "transformer.AutoencoderLSTM",
    "st_gat": "graph_decoders.STGAT",
    "st_gat_dynamic": "graph_decoders.DynamicSTGAT",
    "gat": "graph_decoders.GAT",
    "gcn": "graph_decoders.GCN",
}
ON_GRAPHS = ("st_gat", "st_gat_dynamic", "gat", "gcn")  # the decoders of notebook 06


class _Registry(Mapping):
    """Name -> class. Listing the names imports nothing heavy; an unknown name is refused."""

    def __getitem__(self, name: str) -> type[Decoder]:
        if name not in _CLASSES:
            close = difflib.get_close_matches(str(name), _CLASSES, n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise BadParameter(
                f"model = {name!r}: no such decoder; choose one of {', '.join(_CLASSES)}.{hint}"
            )
        module, cls = _CLASSES[name].split(".")
        return getattr(importlib.import_module(f"{__name__}.{module}"), cls)

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


MODELS: Mapping[str, type[Decoder]] = _Registry()


def make(name: str, params: Mapping[str, Any] | None = None) -> Decoder:
    """A decoder that is not fitted yet; `params` override its hyper-parameters.

    Raises BadParameter for an unknown model, an unknown hyper-parameter or a bad value.
    """
    return MODELS[name](**dict(params or {}))


def device_of(names: Iterable[str], device: str) -> str:
    """Where decoders will be fitted many times over, said once: "cpu" where none of them is torch's."""
    from nblib.models.network import TorchDecoder

    if not any(issubclass(MODELS[name], TorchDecoder) for name in names):
        return "cpu"
    from nblib.models.training import say_device

    return say_device(device)


def load(folder: Path | str) -> Decoder:
    """The fitted decoder that `Decoder.save(folder)` wrote.

    Raises CorruptArtifact when its files are missing, damaged or do not fit together.
    """
    from nblib.models.base import read_config

    config = read_config(Path(folder))
    return MODELS[config["model"]].load(folder)
