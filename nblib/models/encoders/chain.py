"""A distribution over the spike trains of a window: a score a bin, and one for each interval.

log p(train) = sum of the scores of its bins and of the intervals between its spikes, and of how far the first
lies from the last known one, less log Z. It is the semi-Markov chain of `inference` with a cost a gap,
differentiable: the gradient of log Z is the probability of each thing that is scored, so that of log p is
what happened less what was expected.

Shapes: W windows, L bins, C cells; window w is of cell w % C.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def log_z(bins: Tensor, first: Tensor, between: Tensor) -> Tensor:
    """Log of the sum over all trains (W,), of scores [log] of bins (W, L), of a first spike in each
    (W, L), and of intervals of 1 to L bins (C, L)."""
    return _LogZ.apply(bins, first, between)


class _LogZ(torch.autograd.Function):
    """`log_z`, whose gradient is how often each thing that is scored is expected."""

    @staticmethod
    def forward(ctx, bins: Tensor, first: Tensor, between: Tensor) -> Tensor:
        sums = _sums(*_factors(bins, first, between))[:4]
        value, *expected = (torch.from_numpy(values).to(bins) for values in sums)
        ctx.save_for_backward(*expected)
        ctx.n_cells = len(between)
        return value

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, ...]:
        spike, leads, interval = (often * slope[:, None] for often in ctx.saved_tensors)
        return spike, leads, interval.unflatten(0, (-1, ctx.n_cells)).sum(dim=0)


@numba.njit(cache=True, fastmath=True)
def _sums(bins, first, between):
    """Log Z (W,), how often each scored thing is expected: a spike in a bin (W, L), it being the first
    (W, L), an interval (W, L); and all that may follow a spike in each bin (W, L). Scores come as factors."""
    W, L = bins.shape
    log_z, spike, leads, after = np.empty(W), np.empty((W, L)), np.empty((W, L)), np.empty((W, L))
    interval = np.zeros((W, L))
    ends, onward = np.empty(L), np.empty(L)
    turned = between[:, ::-1].copy()  # arrays that are read in one order are read several at once
    for w in range(W):
        factor, gap, often = bins[w], between[w % len(between)], interval[w]
        total = 1.0
        for j in range(L):  # all trains that end in a spike at j
            before, to_j = first[w, j], turned[w % len(between), L - j :]
            for i in range(j):
                before += ends[i] * to_j[i]
            ends[j] = factor[j] * before
            total += ends[j]
        for i in range(L - 1, -1, -1):  # all that may follow a spike at i
            follows, share, later = 1.0, ends[i] / total, onward[i + 1 :]
            for k in range(len(later)):
                pair = gap[k] * later[k]
                follows += pair
                often[k] += share * pair
            onward[i], after[w, i] = factor[i] * follows, follows
            spike[w, i] = share * follows
            leads[w, i] = first[w, i] * onward[i] / total
        log_z[w] = np.log(total)
    return log_z, spike, leads, interval, after


def log_likelihood(bins: Tensor, first: Tensor, between: Tensor, spikes: Tensor) -> Tensor:
    """Log-probability [nats] of trains `spikes` (W, L), 0 or 1; the scores of `log_z`."""
    window, at = (spikes > 0).nonzero(as_tuple=True)
    is_first = functional.pad(window[1:] != window[:-1], (1, 0), value=True)
    gap = (at - at.roll(1)).clamp(min=1)
    follows = between[window % len(between), gap - 1]
    score = bins[window, at] + torch.where(is_first, first[window, at], follows)
    return bins.new_zeros(len(bins)).index_add(0, window, score) - log_z(bins, first, between)


def probabilities(bins: Tensor, first: Tensor, between: Tensor) -> Tensor:
    """Probability of a spike in each bin (W, L), of the scores of `log_z`."""
    return torch.from_numpy(_sums(*_factors(bins, first, between))[1])


def samples(bins: Tensor, first: Tensor, between: Tensor, rng: np.random.Generator) -> Tensor:
    """A train (W, L) of each window, drawn exactly, of the scores of `log_z`."""
    factors = _factors(bins, first, between)
    log_z, *_, after = _sums(*factors)
    return torch.from_numpy(_draw(*factors, np.exp(log_z), after, rng.random(bins.shape)))


def _factors(*scores: Tensor) -> list[np.ndarray]:
    """Scores as what they multiply a probability with; the sums over trains are the processor's work."""
    return [x.detach().exp().double().contiguous().cpu().numpy() for x in scores]


@numba.njit(cache=True)
def _draw(bins, first, between, total, after, chance):
    """Trains (W, L) uint8, from spike to spike; chance (W, L): numbers from 0 to 1."""
    W, L = bins.shape
    trains = np.zeros((W, L), np.uint8)
    for w in range(W):
        gap = between[w % len(between)]
        last, drawn = -1, 0
        while last < L - 1:
            j, whole = last, total[w] if last < 0 else after[w, last]
            left = chance[w, drawn] * whole - 1.0  # 1: no spike follows
            while left >= 0 and j < L - 1:
                j += 1
                way = first[w, j] if last < 0 else gap[j - last - 1]
                left -= way * bins[w, j] * after[w, j]
            if left >= 0 or j == last:
                break
            trains[w, j], last, drawn = 1, j, drawn + 1
    return trains
