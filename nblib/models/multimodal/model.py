"""The fitted model of several sessions: its network, the linear models beside it, what the two answer.

model = nblib.report.one_run.read_run(folder).model
model.decode(counts, session="s1")["wheel"]
model.decode(counts, {"choice": choice}, session="s1")["wheel"]
"""

from __future__ import annotations

import json
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
from nblib.data.binned_files import first_no_count
from nblib.models.multimodal import masks
from nblib.models.multimodal.courses import Courses
from nblib.models.multimodal.linear import LinearMap
from nblib.models.multimodal.network import MaskedNetwork, Shape
from nblib.models.multimodal.poisson import PoissonMap, Prior
from nblib.models.multimodal.recall import Memory, RecalledMap
from nblib.models.multimodal.tasks import AREAS, BEHAVIOUR, GIVEN, UNITS, Task, decoding, encoding
from nblib.prepare.sessions import Session

FORMAT, CONFIG, WEIGHTS = 5, "config.json", "weights.safetensors"
ARRAY, TEXTS, CLASS = "an array", "some texts", "a class"  # keys of what JSON has not
CLASSES = {
    cls.__name__: cls
    for cls in (Courses, LinearMap, PoissonMap, Prior, Memory, RecalledMap, Session)
}
Map = LinearMap | PoissonMap | RecalledMap


def tensors_of(
    session: Session, rest: Mapping[str, np.ndarray], device: torch.device
) -> dict[str, Tensor]:
    """What the network takes of all trials of a session (see `MaskedNetwork.forward`).

    rest: what is said where a trial is not looked at, by task.
    """
    n, names = len(session.x), session.signal_names
    arrays = {name: getattr(session, name) for name in ("x", "counts", "signals", "variables")}
    rest = {task: np.broadcast_to(answer, (n, *answer.shape)) for task, answer in rest.items()}
    signals = [rest[name] for name in names]
    arrays["rest_signals"] = np.stack(signals, axis=-1) if names else session.signals
    arrays["rest_rates"] = np.log(rest[BEHAVIOUR])
    arrays |= {f"rest_{q}": rest[name] for q, name in enumerate(session.classes)}
    made = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return {
        name: (t.float() if t.is_floating_point() else t).to(device) for name, t in made.items()
    }


def batch_of(
    data: Mapping[str, Tensor], k: int, rows: np.ndarray, hidden: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Some trials of session k, with what is hidden of them."""
    device = data["x"].device
    at = torch.from_numpy(np.asarray(rows)).to(device)
    masked = {f"hide_{part}": torch.from_numpy(mask).to(device) for part, mask in hidden.items()}
    return {name: tensor[at] for name, tensor in data.items()} | masked | {"session": k}


def plain(state: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Nested values as JSON has them; arrays of numbers are put into `arrays`."""

    def default(value: Any) -> dict[str, Any]:
        if not isinstance(value, np.ndarray):
            known = {of.name: getattr(value, of.name) for of in fields(value)}
            return {CLASS: type(value).__name__, **known}
        if value.dtype.kind not in "biuf":
            return {TEXTS: value.astype(str).tolist()}
        name = next((n for n, known in arrays.items() if known is value), f"array {len(arrays)}")
        arrays[name] = value
        return {ARRAY: name}

    return json.loads(json.dumps(state, default=default))


def restored(state: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `plain` was given, tuples as lists, and what is alike as one object: maps share what they remember.

    KeyError, TypeError where it does not fit."""
    made: dict[str, Any] = {}

    def made_of(values: Any) -> Any:
        if isinstance(values, list):
            return [made_of(value) for value in values]
        if not isinstance(values, dict):
            return values
        if ARRAY in values:
            return arrays[values[ARRAY]]
        if TEXTS in values:
            return np.array(values[TEXTS], str)
        parts = {name: made_of(value) for name, value in values.items() if name != CLASS}
        if CLASS not in values:
            return parts
        return made.setdefault(json.dumps(values), CLASSES[values[CLASS]](**parts))

    return made_of(state)


def _trials_of(name: str, values: Any) -> np.ndarray:
    """A copy of what is an array of trials, at least one; BadInput for other things."""
    try:
        array = np.array(values)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    if all(isinstance(value, str) for value in array.flat):  # a column of a table holds objects
        array = array.astype(str)
    if not array.ndim or not len(array) or array.dtype.kind not in "biufUS":
        raise BadInput(f"{name}: a {type(values).__name__} given, an array of trials expected.")
    return array


def _checked(name: str, values: np.ndarray, *shape: int) -> np.ndarray:
    """Finite numbers of this shape; BadInput otherwise."""
    values = _trials_of(name, values)
    text = values.dtype.kind in "US"
    if text or values.shape != shape or not np.isfinite(values).all():
        raise BadInput(f"{name}: {values.shape} given, finite numbers {shape} expected.")
    return values.astype(np.float64)


@dataclass(frozen=True)
class Multimodal:
    """A fitted model. Of each session: `sessions`, whose trials do not matter; `rest`, what is said where a
    trial is not looked at, and `maps`, the linear models, by task. trust: the weight of the network in the mean
    with these, by task, and how far behaviour that is `GIVEN` is trusted where other units tell, as validation
    trials chose. factors: what a further session can be read through
    (see `branch.Branch`).
    """

    net: MaskedNetwork
    sessions: list[Session]
    rest: list[dict[str, np.ndarray]]
    maps: list[dict[str, list[Map]]]
    trust: dict[str, float]
    factors: dict[str, Any] = field(default_factory=dict)

    @torch.inference_mode()
    def network(
        self, k: int, trials: Session, hidden: masks.Hidden
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """What the network alone says of trials of session k, all hidden alike: expected counts (K, T, N),
        signals (K, T, S) as z-scores, log-probabilities (K, C) of each variable."""
        n = len(trials.x)
        data = tensors_of(trials, self.rest[k], torch.device("cpu"))
        same = {part: np.repeat(getattr(hidden, part)[None], n, axis=0) for part in masks.PARTS}
        rates, signals, variables = self.net(batch_of(data, k, np.arange(n), same))
        return rates.exp().numpy(), signals.numpy(), [v.numpy() for v in variables]

    def answer(self, k: int, trials: Session, task: Task) -> np.ndarray:
        """What the network alone answers to a task in trials of session k (see `Task.linear`, `network`)."""
        if not task.of_counts:
            hidden = masks.hide(trials, shown=task.shown)
            return task.pick(*self.network(k, trials, hidden)[1:], trials)
        answers = []
        for units in task.groups(trials):
            rates, *_ = self.network(k, trials, task.hidden(trials, units))
            answers.append(rates[..., units])
        return np.concatenate(answers, axis=-1)

    def decode(
        self, counts: np.ndarray, given: Mapping[str, np.ndarray] | None = None, session: str = ""
    ) -> dict[str, np.ndarray]:
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
        given = given or {}
        k, trials = self._trials(session, counts, given)
        network = self.network(k, trials, masks.hide(trials, shown=given))
        answers = {}
        for task in (task for task in decoding(trials) if task.name not in given):
            task = replace(task, shown=tuple(given))
            answer = self._mixed(k, trials, task, task.pick(*network[1:], trials))
            if task.kind == "signal":
                s = trials.signal_names.index(task.name)
                answers[task.name] = answer * trials.scale[s] + trials.mean[s]
            else:
                answers[task.name] = softmax(answer, axis=1)
        return answers

    def encode(self, given: Mapping[str, np.ndarray], session: str = "") -> np.ndarray:
        """Expected counts (K, T, N) from what is known of behaviour (see `decode`)."""
        k, trials = self._trials(session, None, given)
        rates, *_ = self.network(k, trials, masks.hide(trials, slice(None), given))
        tasks = [task for task in encoding(trials) if set(task.shown) == set(given)]
        return self._mixed(k, trials, tasks[0], rates) if tasks else rates

    def impute(
        self,
        counts: np.ndarray,
        units: np.ndarray,
        given: Mapping[str, np.ndarray] | None = None,
        session: str = "",
    ) -> np.ndarray:
        """Expected counts (K, T, n) of some units, from the others and from what is known of behaviour.

        What linear models tell from all behaviour, or from one signal or variable, beyond the PSTH counts to the
        power that validation trials chose (see `trust`).

        counts, given : see `decode`; the counts of the units that are told are not read.
        units : (n,) positions of these, each once.
        """
        given, counts, units = given or {}, _trials_of("counts", counts), np.asarray(units)
        positions = np.arange(counts.shape[-1])
        are_positions = units.ndim == 1 and units.dtype.kind in "iu"
        if not are_positions or not 0 < len(np.intersect1d(units, positions)) == len(units):
            raise BadInput(
                f"units: {units}; expected positions from 0 to {positions[-1]}, each once."
            )
        counts[..., units] = 0
        k, trials = self._trials(session, counts, given)
        whole = any(
            np.array_equal(group, np.sort(units)) for group in Task(AREAS, "impute").groups(trials)
        )
        task = Task(AREAS if whole else UNITS, "impute", tuple(given), units=tuple(units))
        told = self._mixed(k, trials, task, self.answer(k, trials, task))
        share = self.trust.get(task.name + GIVEN, 0.0)
        for spikes in encoding(trials) if share else ():
            if set(spikes.shown) == set(given) and spikes.name in self.maps[k]:
                beyond = spikes.linear(self.maps[k], trials) / self.rest[k][BEHAVIOUR]
                told = told * beyond[..., task.units] ** share
        return told

    def _mixed(self, k: int, trials: Session, task: Task, network: np.ndarray) -> np.ndarray:
        """Between the answers of the linear model of a task and of the network, where it is trusted at all."""
        if task.name not in self.trust:
            return network
        return task.mixed(task.linear(self.maps[k], trials), network, self.trust[task.name])

    def _trials(
        self, session: str, counts: np.ndarray | None, given: Mapping[str, np.ndarray]
    ) -> tuple[int, Session]:
        """The number of a session, and trials of it as the network takes them, 0 where nothing is known."""
        names = [one.name for one in self.sessions]
        if session not in names and (session or len(names) > 1):
            raise BadParameter(f"session = {session!r}: this model knows {', '.join(names)}.")
        k = names.index(session) if session else 0
        like = self.sessions[k]
        if unknown := sorted(set(given) - set(like.behaviour)):
            raise BadParameter(
                f"given: no {unknown[0]!r}; this model knows {', '.join(like.behaviour)}."
            )
        if counts is None and not given:
            raise BadParameter(
                f"given: nothing to tell spikes from; give some of {', '.join(like.behaviour)}."
            )
        n_bins, n_units = like.counts.shape[1:]
        named = next(iter(given.items())) if counts is None else ("counts", counts)
        n = len(_trials_of(*named))
        spikes = np.zeros((n, n_bins, n_units)) if counts is None else counts
        spikes = _checked("counts", spikes, n, n_bins, n_units).astype(np.float32)
        if (at := first_no_count(spikes)) is not None:
            raise BadInput(
                f"counts: {spikes[at]:g} at {at}; expected whole numbers, as 03 left them."
            )
        signals = np.zeros((n, n_bins, len(like.signal_names)), np.float32)
        variables = np.zeros((n, len(like.classes)), np.int64)
        for s, name in enumerate(like.signal_names):
            if name in given:
                values = _checked(name, given[name], n, n_bins)
                signals[..., s] = (values - like.mean[s]) / like.scale[s]
        for q, (name, known) in enumerate(like.classes.items()):
            if name in given:
                values = np.asarray(given[name])
                if values.shape != (n,) or not np.isin(values, known).all():
                    raise BadInput(f"{name}: expected {n} values, each of {known.tolist()}.")
                variables[:, q] = np.searchsorted(known, values)
        inputs = {"counts": spikes, "signals": signals, "variables": variables}
        return k, replace(like, **inputs, role=np.repeat("test", n), trial=np.arange(n))

    def save(self, folder: Path | str) -> None:
        """Write config.json and weights.safetensors: text and plain arrays, nothing that runs."""
        weights = self.net.state_dict()
        arrays = {f"net.{name}": weight.cpu().numpy() for name, weight in weights.items()}
        state = {name: getattr(self, name) for name in ("rest", "maps", "trust", "factors")}
        state["sessions"] = [one.at(slice(0)) for one in self.sessions]
        config = {
            "format": FORMAT,
            "model": "multimodal",
            "network": self.net.config,
            "state": plain(state, arrays),
        }
        tensors.write_weights(Path(folder) / CONFIG, config, Path(folder) / WEIGHTS, arrays)

    @classmethod
    def load(cls, folder: Path | str) -> Multimodal:
        """Read what `save` wrote; CorruptArtifact when a file is missing, damaged or foreign."""
        config, arrays = tensors.read_weights(Path(folder) / CONFIG, Path(folder) / WEIGHTS)
        try:
            if (config["format"], config["model"]) != (FORMAT, "multimodal"):
                raise ValueError(
                    f"a {config['model']} of format {config['format']}, here {FORMAT}; run 12 again"
                )
            net = MaskedNetwork(Shape(**config["network"]))
            weights = {
                n.removeprefix("net."): torch.from_numpy(a)
                for n, a in arrays.items()
                if n.startswith("net.")
            }
            net.load_state_dict(weights)
            return cls(net.eval(), **restored(config["state"], arrays))
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise CorruptArtifact(
                f"{folder}: {WEIGHTS} does not fit {CONFIG} ({error!r})."
            ) from None
