"""The fitted model of several sessions: its network, the linear models that this starts from, what it answers.

model = nblib.report.runs.read_run(folder).model
model.decode(counts, session="s1")["wheel"]
model.decode(counts, {"choice": choice}, session="s1")["wheel"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from nblib.core import tensors
from nblib.core.errors import BadInput, BadParameter, CorruptArtifact
from nblib.models.multimodal import masks
from nblib.models.multimodal.linear import LinearMap
from nblib.models.multimodal.network import MaskedNetwork
from nblib.models.multimodal.poisson import LEAST, PoissonMap
from nblib.prepare.sessions import Session, scaled

FORMAT, CONFIG, WEIGHTS = 1, "config.json", "weights.safetensors"
BEHAVIOUR, UNITS = "spikes from behaviour", "a fifth of the units"
EVERY = 5  # of the units, hidden at once
OF_SESSION = ("course", "psth", "spread")  # of a session, not a trial; and each `prior_0`, …
Map = LinearMap | PoissonMap


def from_one(name: str) -> str:
    """What telling spikes from one signal or variable is called."""
    return f"spikes from {name}"


def of_area(area: str) -> str:
    """What telling the units of an area from all others is called."""
    return f"units of {area or 'no area'}"


def fifth(session: Session) -> np.ndarray:
    """Every fifth unit."""
    return np.arange(0, len(session.unit_ids), EVERY)


def said_by(maps: Mapping[str, Map], session: Session) -> dict[str, np.ndarray]:
    """What linear models say of all trials of a session, as the network takes it."""
    said = {
        "linear_signals": np.stack([maps[s](session) for s in session.signal_names], axis=-1)
        if session.signal_names else session.signals,
        "linear_rates": np.log(maps[BEHAVIOUR](session)),
    }  # fmt: skip
    return said | {f"linear_{q}": maps[v](session) for q, v in enumerate(session.classes)}


def on_device(session: Session, known: Mapping[str, np.ndarray], said: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:  # fmt: skip
    """What the network takes of a session (see `MaskedNetwork.forward`).

    known: what it has of the session as a whole; said: of every trial, what linear models say.
    """
    arrays = {"x": session.x, "counts": session.counts, "signals": session.signals, "variables": session.variables}  # fmt: skip
    made = {n: torch.as_tensor(np.ascontiguousarray(a)) for n, a in {**arrays, **known, **said}.items()}  # fmt: skip
    return {n: (t.float() if t.is_floating_point() else t).to(device) for n, t in made.items()}


def batch_of(data: Mapping[str, Tensor], k: int, rows: np.ndarray, hidden: Mapping[str, np.ndarray]) -> dict[str, Any]:  # fmt: skip
    """Some trials of session k, with what is hidden of them."""
    device = data["x"].device
    at = torch.from_numpy(np.asarray(rows)).to(device)
    batch = {n: v if n in OF_SESSION or n.startswith("prior") else v[at] for n, v in data.items()}
    masked = {f"hide_{name}": torch.from_numpy(m).to(device) for name, m in hidden.items()}
    return batch | masked | {"session": k}


def mixed(linear: np.ndarray, network: np.ndarray, weight: float, rates: bool) -> np.ndarray:
    """Between two answers, by the weight of the network: their mean, for rates that of their logarithms."""
    if not rates:
        return (1 - weight) * linear + weight * network
    logs = (np.log(np.maximum(a, LEAST)) for a in (linear, network))
    return np.exp(mixed(*logs, weight, rates=False))


def _checked(name: str, values: np.ndarray, *shape: int) -> np.ndarray:
    """Finite numbers of this shape; BadInput otherwise."""
    values = np.asarray(values, np.float64)
    if values.shape != shape or not np.isfinite(values).all():
        raise BadInput(f"{name}: {values.shape} given, finite numbers {shape} expected.")
    return values


@dataclass(frozen=True)
class Multimodal:
    """A fitted model. Of each session: `sessions`, whose trials do not matter; `known`, what the network has
    of it as a whole; `maps`, the linear model of each task. trust: how far the network is trusted beyond
    these, by task, as validation trials chose. factors: what a further session can be read through (see
    `linear.factors`).
    """

    net: MaskedNetwork
    sessions: list[Session]
    known: list[dict[str, np.ndarray]]
    maps: list[dict[str, Map]]
    trust: dict[str, float]
    factors: dict[str, np.ndarray] = field(default_factory=dict)

    @torch.inference_mode()
    def network(self, k: int, trials: Session, hidden: masks.Hidden) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:  # fmt: skip
        """What the network alone says of trials of session k, all hidden alike: expected counts (K, T, N),
        signals (K, T, S) as z-scores, log-probabilities (K, C) of each variable."""
        n = len(trials.x)
        data = on_device(trials, self.known[k], said_by(self.maps[k], trials), torch.device("cpu"))
        same = {
            name: np.repeat(getattr(hidden, name)[None], n, axis=0)
            for name in ("spikes", "signals", "variables")
        }
        rates, signals, variables = self.net(batch_of(data, k, np.arange(n), same))
        return rates.exp().numpy(), signals.numpy(), [v.numpy() for v in variables]

    def decode(self, counts: np.ndarray, given: Mapping[str, np.ndarray] | None = None, session: str = "") -> dict[str, np.ndarray]:  # fmt: skip
        """Signals and variables of trials, from their spikes and from what is known of behaviour.

        Parameters
        ----------
        counts : (K, T, N), as 03 left them: units of the session in the order of its `unit_ids`.
        given : signals (K, T), in their own units, and variables (K,), by name.
        session : the name of the recording; may be left out where the model knows one.

        Returns
        -------
        dict
            What is not given, by name: a signal (K, T) in its own units, or the probability of each class of
            a variable (K, C), in the order of `sessions[k].classes`.
        """
        k = self._number(session)
        trials, hidden = self._trials(k, counts, given or {})
        _, signals, variables = self.network(k, trials, hidden)
        answers = {}
        for name, answer in [
            *zip(trials.signal_names, np.moveaxis(signals, -1, 0), strict=True),
            *zip(trials.classes, variables, strict=True),
        ]:
            if name not in (given or {}):
                linear = self.maps[k][name](trials)
                answer = mixed(linear, answer, self.trust[name], rates=False)
                if name in trials.classes:
                    answers[name] = softmax(answer, axis=1)
                else:
                    s = trials.signal_names.index(name)
                    answers[name] = answer * trials.scale[s] + trials.mean[s]
        return answers

    def encode(self, given: Mapping[str, np.ndarray], session: str = "") -> np.ndarray:
        """Expected counts (K, T, N) from what is known of behaviour (see `decode`)."""
        k = self._number(session)
        trials, hidden = self._trials(k, None, given)
        rates, *_ = self.network(k, trials, hidden)
        task = BEHAVIOUR
        if len(given) < len(trials.signal_names) + len(trials.classes):
            task = from_one(next(iter(given))) if len(given) == 1 else ""
        return self._mixed_rates(k, trials, task, rates)

    def impute(self, counts: np.ndarray, units: np.ndarray, given: Mapping[str, np.ndarray] | None = None, session: str = "") -> np.ndarray:  # fmt: skip
        """Expected counts (K, T, n) of some units, from the others and from what is known of behaviour.

        counts, given : see `decode`; the counts of the units that are told are not read.
        units : (n,) positions of these.
        """
        k = self._number(session)
        counts = np.array(counts)
        counts[..., units] = 0
        trials, hidden = self._trials(k, counts, given or {})
        hidden.spikes[:, units] = True
        rates, *_ = self.network(k, trials, hidden)
        known = {UNITS: fifth(trials)}
        known |= {of_area(a): np.flatnonzero(trials.area == a) for a in np.unique(trials.area)}
        tasks = [t for t, at in known.items() if not given and np.array_equal(at, units)]
        return self._mixed_rates(k, trials, tasks[0] if tasks else "", rates[..., units])

    def _mixed_rates(self, k: int, trials: Session, task: str, rates: np.ndarray) -> np.ndarray:
        """Rates of the network and of the linear model of a task, where there is one."""
        if task not in self.trust:
            return rates
        return mixed(self.maps[k][task](trials), rates, self.trust[task], rates=True)

    def _number(self, session: str) -> int:
        names = [one.name for one in self.sessions]
        if session not in names and (session or len(names) > 1):
            raise BadParameter(f"session = {session!r}: this model knows {', '.join(names)}.")
        return names.index(session) if session else 0

    def _trials(self, k: int, counts: np.ndarray | None, given: Mapping[str, np.ndarray]) -> tuple[Session, masks.Hidden]:  # fmt: skip
        """Trials of session k as the network takes them, and what is hidden: all that is not given."""
        like = self.sessions[k]
        names = (*like.signal_names, *like.classes)
        if unknown := sorted(set(given) - set(names)):
            raise BadParameter(f"given: no {unknown[0]!r}; this model knows {', '.join(names)}.")
        if counts is None and not given:
            raise BadParameter(
                f"given: nothing to tell spikes from; give some of {', '.join(names)}."
            )
        n_bins, n_units = like.counts.shape[1:]
        n = len(next(iter(given.values())) if counts is None else counts)
        spikes = np.zeros((n, n_bins, n_units)) if counts is None else counts
        spikes = _checked("counts", spikes, n, n_bins, n_units).astype(np.float32)
        hidden = masks.nothing(like)
        hidden.spikes[:] = counts is None
        signals = np.zeros((n, n_bins, len(like.signal_names)), np.float32)
        variables = np.zeros((n, len(like.classes)), np.int64)
        for s, name in enumerate(like.signal_names):
            hidden.signals[:, s] = name not in given
            if name in given:
                values = _checked(name, given[name], n, n_bins)
                signals[..., s] = (values - like.mean[s]) / like.scale[s]
        for q, (name, known) in enumerate(like.classes.items()):
            hidden.variables[q] = name not in given
            if name in given:
                values = np.asarray(given[name])
                if values.shape != (n,) or not np.isin(values, known).all():
                    raise BadInput(f"{name}: expected {n} values, each of {known.tolist()}.")
                variables[:, q] = np.searchsorted(known, values)
        trials = replace(
            like, counts=spikes, x=scaled(spikes, like.roots), signals=signals, variables=variables,
            role=np.repeat("test", n), trial=np.arange(n),
        )  # fmt: skip
        return trials, hidden

    def save(self, folder: Path | str) -> None:
        """Write config.json and weights.safetensors: text and plain arrays, nothing that runs."""
        folder, about = Path(folder), []
        arrays = {f"net.{n}": t.cpu().numpy() for n, t in self.net.state_dict().items()}
        arrays |= {f"factors.{task}": a for task, a in self.factors.items()}
        for k, one in enumerate(self.sessions):
            whole = {"mean": one.mean, "scale": one.scale, "roots_mean": one.roots[0], "roots_scale": one.roots[1]}  # fmt: skip
            arrays |= {f"{k}.{n}": a for n, a in (whole | self.known[k]).items()}
            maps = {}
            for task, model in self.maps[k].items():
                values = {f.name: getattr(model, f.name) for f in fields(model)}
                held = {n: v for n, v in values.items() if isinstance(v, np.ndarray)}
                arrays |= {f"{k}.{task}.{n}": a for n, a in held.items()}
                plain = {n: v for n, v in values.items() if n not in held}
                maps[task] = {"arrays": [*held], "poisson": isinstance(model, PoissonMap), **plain}
            about.append({
                "name": one.name, "unit_ids": one.unit_ids.tolist(), "area": one.area.tolist(), "bin_s": one.bin_s,
                "signal_names": [*one.signal_names], "classes": {n: c.tolist() for n, c in one.classes.items()},
                "n_bins": one.counts.shape[1], "known": [*self.known[k]], "maps": maps,
            })  # fmt: skip
        config = {
            "format": FORMAT, "model": "multimodal", "network": self.net.config, "trust": self.trust,
            "sessions": about,
        }  # fmt: skip
        tensors.write_weights(folder / CONFIG, config, folder / WEIGHTS, arrays)

    @classmethod
    def load(cls, folder: Path | str) -> Multimodal:
        """Read what `save` wrote; CorruptArtifact when a file is missing, damaged or foreign."""
        config, arrays = tensors.read_weights(Path(folder) / CONFIG, Path(folder) / WEIGHTS)
        try:
            return cls._of(config, arrays)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise CorruptArtifact(
                f"{folder}: {WEIGHTS} does not fit {CONFIG} ({error!r})."
            ) from None

    @classmethod
    def _of(cls, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Multimodal:
        if (config["format"], config["model"]) != (FORMAT, "multimodal"):
            raise ValueError(f"a {config['model']} of format {config['format']}")
        net, sessions, known, maps = MaskedNetwork(**config["network"]), [], [], []
        weights = {n.removeprefix("net."): a for n, a in arrays.items() if n.startswith("net.")}
        net.load_state_dict({n: torch.from_numpy(a) for n, a in weights.items()})
        for k, about in enumerate(config["sessions"]):
            units, n_bins = np.array(about["unit_ids"]), about["n_bins"]
            signals, classes = tuple(about["signal_names"]), about["classes"]
            whole = {n: arrays[f"{k}.{n}"] for n in ("mean", "scale", "roots_mean", "roots_scale")}
            none = np.zeros((0, n_bins, len(units)), np.float32)
            sessions.append(Session(
                name=about["name"], counts=none, x=none, roots=(whole["roots_mean"], whole["roots_scale"]),
                signals=np.zeros((0, n_bins, len(signals)), np.float32), mean=whole["mean"], scale=whole["scale"],
                variables=np.zeros((0, len(classes)), np.int64), role=np.zeros(0, str), trial=np.zeros(0, int),
                area=np.array(about["area"], str), unit_ids=units, signal_names=signals,
                classes={n: np.array(c) for n, c in classes.items()}, bin_s=about["bin_s"], split_hash="", left_out=0,
            ))  # fmt: skip
            known.append({n: arrays[f"{k}.{n}"] for n in about["known"]})
            of_session: dict[str, Map] = {}
            for task, values in about["maps"].items():
                kind = PoissonMap if values.pop("poisson") else LinearMap
                held = {n: arrays[f"{k}.{task}.{n}"] for n in values.pop("arrays")}
                of_session[task] = kind(**values, **held)
            maps.append(of_session)
        factors = {n.removeprefix("factors."): a for n, a in arrays.items() if n.startswith("factors.")}  # fmt: skip
        return cls(net.eval(), sessions, known, maps, config["trust"], factors)
