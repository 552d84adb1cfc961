"""The exact answer that follows from the truth of a simulated film.

Given tuning, latencies, gains and the chain, the posterior over scene type, hero, rival and time since
the cut follows by forward and backward passes (Rabiner 1989, Proc. IEEE 77:257). No decoder of the same
counts can do better in expectation. Nothing here is trained.
"""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]
STEP_S = 0.08  # two frames
P_SCENE, P_CUT = STEP_S / 35.5, STEP_S / 4.9  # chances of a new scene, of a new shot, in a step
GAIN_STEPS = 10  # gains stand still for so many steps
AT_ONCE = 100  # units: all 2,286 of a film of 4,726 s would take 6 GB
KERNEL = np.array(
    [0, 0, 0.7, 1.0, 0.8, 0.45, 0.2, 0.08, 0]
)  # response to a cut by its age in steps


def film_posterior(
    film: Arrays, units: Arrays, gains: np.ndarray, counts: np.ndarray, exposure_s: np.ndarray,
    p_scene: float = P_SCENE, p_cut: float = P_CUT,
) -> Arrays:  # fmt: skip
    """Posterior (T,) that hero, rival and indoor-setting are on in each step, given all counts.

    film, units, gains : as `movie.draw_film`, `draw_units` and `draw_gains` make them.
    counts (T, U), exposure_s (T,) : of the steps of the film.
    """
    n_types = len(film["chance_type"])
    kind, hero, rival = (
        x.ravel() for x in np.meshgrid(range(n_types), [0, 1], [0, 1], indexing="ij")
    )
    indoor = film["chance_indoor"][kind]
    states = np.column_stack([hero, rival, indoor])  # (S, 3)
    label, age = _likelihoods(states, units, gains, counts, exposure_s)
    drawn = np.ones(len(kind))
    for on, name in ((hero, "chance_hero"), (rival, "chance_rival")):
        drawn *= np.where(on, film[name][kind], 1 - film[name][kind])
    state = _posterior(label, age, film["chance_type"], drawn, p_scene, p_cut)
    names = ("hero", "rival", "indoor-setting")
    return {name: state[:, on == 1].sum(axis=1) for name, on in zip(names, states.T, strict=True)}


def _likelihoods(states, units, gains, counts, exposure_s) -> tuple[np.ndarray, np.ndarray]:
    """Likelihood of each state (T, S) and of each time since the cut (T, A), up to factors of a step.

    A unit of labels speaks for the state its latency ago; one of cuts for the time since the cut.
    """
    label, age = np.zeros((len(counts), len(states))), np.zeros((len(counts), len(KERNEL)))
    drive, kernel = states @ units["weights"].T, np.outer(KERNEL, units["cut"])
    n_units = len(units["latency"])
    for part in np.split(np.arange(n_units), range(AT_ONCE, n_units, AT_ONCE)):
        gain = np.repeat(gains[:, part], GAIN_STEPS, axis=0)[: len(counts)]
        due = units["rate_hz"][part] * gain * exposure_s[:, None]
        now, then, then_due = counts[:, part].astype(float), *np.zeros((2, *due.shape))
        of_cuts = units["cut"][part] > 0
        for unit in np.flatnonzero(~of_cuts):
            latency = units["latency"][part[unit]]
            then[: len(counts) - latency, unit] = now[latency:, unit]
            then_due[: len(counts) - latency, unit] = due[latency:, unit]
        label += then @ drive[:, part].T - then_due @ np.exp(drive[:, part]).T
        of_part = kernel[:, part[of_cuts]]
        age += now[:, of_cuts] @ of_part.T - due[:, of_cuts] @ np.exp(of_part).T
    label, age = (np.exp(log - log.max(axis=1, keepdims=True)) for log in (label, age))
    return label, age


def _posterior(label, age, types, drawn, p_scene, p_cut) -> np.ndarray:
    """State (T, S) given all steps. types: chance of each scene type; drawn (S,): of who is on screen
    in it, which a cut draws anew; each type has four states."""
    n_steps, n_ages, n_types = len(label), age.shape[1], len(types)
    same_type = np.kron(np.eye(n_types), np.ones((4, 4)))
    cut = (p_cut * same_type + p_scene * np.repeat(types, 4)) * drawn  # (S before, S after)
    age = age * np.r_[1, np.full(n_ages - 1, 1 - p_scene - p_cut)]  # who is older was not cut
    forward = np.empty((n_steps, n_ages, label.shape[1]), np.float32)
    now, was = np.zeros((2, *forward.shape[1:]))  # (A, S)
    now[0] = np.repeat(types, 4) * drawn
    for t in range(n_steps):
        if t:
            now, was = was, now
            np.matmul(was.sum(axis=0), cut, out=now[0])
            now[1:] = was[:-1]
            now[-1] += was[-1]
        now *= age[t, :, None] * label[t]
        now /= now.sum()
        forward[t] = now
    state, later = np.empty(label.shape), np.ones_like(now)
    for t in range(n_steps - 1, -1, -1):
        both = (forward[t] * later).sum(axis=0)
        np.divide(both, both.sum(), out=state[t])
        value = later * (age[t, :, None] * label[t])
        value /= value.sum()
        later[:-1], later[-1] = value[1:], value[-1]
        later += cut @ value[0]
    return state
