"""From counts to image features: ridge, partial least squares, or a network of 05.

Shapes: B presentations, T bins, N units, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nblib import models
from nblib.core.errors import BadParameter
from nblib.models import FitSettings, reproducible
from nblib.models.linear import RidgePath

if TYPE_CHECKING:
    from nblib.experiments.images import from_spikes
    from nblib.prepare.decoder_inputs import Samples

PENALTIES = tuple(10.0**i for i in range(-2, 5))  # in units of the mean variance of the counts
COMPONENTS = (2, 5, 10, 20, 40)  # of partial least squares
# Decoders of 05 whose network can be asked for features in place of classes.
NETWORKS = ("mlp", "cnn", "lstm", "gru", "transformer")


def check_regressor(params: from_spikes.Params) -> None:
    """BadParameter for a method that is not there."""
    known = ["ridge", "pls", *NETWORKS]
    if params.regressor not in known:
        raise BadParameter(f"regressor = {params.regressor!r}; there are {', '.join(known)}.")


class Regressor:
    """Counts (B, T, N) -> features (B, D), by the method that was asked for.

    The choice (penalty, components, epoch) has the least squared error on the validation scenes.
    Ridge and partial least squares are then fitted again on all training scenes.
    """

    def __init__(self, presentations: dict[str, Samples], params: from_spikes.Params, folder: Path):
        """presentations: "fit", "choose", "fit, all", "seen", "unseen", with y the row of the
        image; folder: where networks keep their checkpoints. BadParameter for an unknown name."""
        self.presentations, self.params, self.folder = presentations, params, folder
        check_regressor(params)
        self.paths: dict[str, RidgePath] = {}

    def decode(self, features: np.ndarray) -> tuple[dict[str, np.ndarray], dict, dict]:
        """Decoded features (B, D) of "choose", "seen" and "unseen", the choice, the weights."""
        name = self.params.regressor
        if name in ("ridge", "pls"):
            return self._linear(features, self._ridge if name == "ridge" else self._pls)
        return self._network(features, name)

    def _linear(self, features: np.ndarray, paths: Any) -> tuple[dict, dict, dict]:
        parts = self.presentations
        target = features[parts["choose"].y]
        x = _flat(parts["choose"])
        tried = {
            setting: x @ weight + bias for setting, weight, bias in paths("fit", features, None)
        }
        errors = {setting: float(((d - target) ** 2).mean()) for setting, d in tried.items()}
        best = min(errors, key=errors.get)
        ((_, weight, bias),) = paths("fit, all", features, best)
        decoded = {n: _flat(parts[n]) @ weight + bias for n in ("seen", "unseen")}
        decoded["choose"] = tried[best]  # by what was fitted without them
        return decoded, {"chosen": best, "val_mse": errors[best]}, {"weight": weight, "bias": bias}

    def _ridge(self, role: str, features: np.ndarray, only: float | None):
        """Yield (penalty, weight (T*N, D), bias (D,)); one decomposition serves every space."""
        part = self.presentations[role]
        if role not in self.paths:
            self.paths[role] = RidgePath(_flat(part))
        path, penalties = self.paths[role], PENALTIES if only is None else (only,)
        solutions = path.solutions(features[part.y], [p * path.unit for p in penalties])
        for penalty, (weight, bias) in zip(penalties, solutions, strict=True):
            yield penalty, weight, bias

    def _pls(self, role: str, features: np.ndarray, only: int | None):
        """Yield (components, weight, bias): partial least squares (Wold et al. 2001)."""
        from sklearn.cross_decomposition import PLSRegression

        part = self.presentations[role]
        x, target = _flat(part), features[part.y]
        most = min(x.shape[1], len(x) - 1)
        tried = [c for c in COMPONENTS if c <= most] or [most]
        for n in tried if only is None else (only,):
            model = PLSRegression(n, scale=False).fit(x, target)
            weight = model.coef_.T
            yield n, weight, model.predict(np.zeros((1, x.shape[1])))[0]

    def _network(self, features: np.ndarray, name: str) -> tuple[dict, dict, dict]:
        import torch

        from nblib.models import training

        parts, p = self.presentations, self.params
        decoder = models.make(name)
        settings = FitSettings.of(p, decoder.training, progress=False)
        n_bins, n_units = parts["fit"].x.shape[1:]
        with reproducible(settings.seed):
            net = decoder.build(n_bins, n_units, features.shape[1])
        target = torch.as_tensor(features, dtype=torch.float32)

        def squared(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor):
            return torch.nn.functional.mse_loss(net(x), target.to(x.device)[y]), None

        stage = f"regress-{features.shape[1]}"
        options = {"loss": squared, "stage": stage, "identity": {"model": name}}
        history = training.fit(net, parts["fit"], parts["choose"], settings, self.folder, **options)
        with torch.inference_mode():
            decoded = {
                n: np.concatenate(
                    [net(b).double().numpy() for b in torch.from_numpy(parts[n].x).split(512)]
                    or [np.zeros((0, features.shape[1]))]
                )
                for n in ("choose", "seen", "unseen")
            }
        weights = {k: v.numpy() for k, v in net.state_dict().items()}
        chosen = {"chosen": history.attrs["best_epoch"], "val_mse": history.attrs["best_val_loss"]}
        return decoded, chosen, weights


def _flat(samples: Samples) -> np.ndarray:
    n_bins, n_units = samples.x.shape[1:]
    return samples.x.reshape(len(samples), n_bins * n_units).astype(np.float64)  # (B, T*N)
