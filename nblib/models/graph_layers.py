"""What networks on a graph of units are made of: edges, and attention over them.

Tensors lie unit first, (N, M, F) with M = presentations x bins, so that taking the sources of an
edge copies long rows. A sample never meets another one: there is no edge between two samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nblib.models import graphs

_NUMBERS_AT_ONCE = 20_000_000  # without gradients, so many edge features at a time


class FixedEdges(nn.Module):
    """Edges that training leaves alone; stored with the weights."""

    def __init__(self, graph: graphs.Graph):
        super().__init__()
        self.register_buffer("source", torch.as_tensor(graph.source))  # (G, N, K)
        self.register_buffer("weight", torch.as_tensor(graph.weight))
        self.register_buffer("present", torch.as_tensor(graph.present))

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.source, self.weight, self.present


class LearnedEdges(nn.Module):
    """A trainable adjacency (G, N target, N source), of which each unit uses its k largest entries.

    In training, `explore` further sources are drawn at random at every step. They too get
    gradients, so an edge that was dropped can come back.
    """

    def __init__(self, start: Tensor, k: int, explore: int):
        super().__init__()
        self.score = nn.Parameter(start.clone())
        n = start.shape[1]
        self.k = min(k or n - 1, n - 1)
        self.explore = min(explore, n - 1 - self.k)
        own = torch.arange(n)[None, :, None].repeat(len(start), 1, 1)
        self.register_buffer("own", own, persistent=False)

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        ranked = self.score.detach().scatter(2, self.own, float("-inf"))  # not to itself
        source = ranked.topk(self.k, dim=2).indices  # (G, N, k)
        if self.training and self.explore:
            rest = torch.rand_like(ranked).scatter(2, source, -1.0).scatter(2, self.own, -1.0)
            source = torch.cat([source, rest.topk(self.explore, dim=2).indices], dim=2)
        source = torch.cat([self.own, source], dim=2)
        weight = self.score.gather(2, source)
        weight = torch.where(source == self.own, torch.ones_like(weight), weight)
        return source, weight, torch.ones_like(source, dtype=torch.bool)


class GATv2(nn.Module):
    """Attention over incoming edges (Brody, Alon and Yahav 2022, ICLR), edge weights inside.

    score = a . LeakyReLU(W_l x_source + W_r x_target + w_e weight); softmax over a unit's edges;
    the output is the weighted mean of W_l x_source. Same numbers as PyTorch Geometric's GATv2Conv
    with `edge_dim=1`, which lays out one edge list for each sample instead.
    """

    def __init__(self, n_in: int, channels: int, heads: int):
        super().__init__()
        self.heads, self.channels = heads, channels
        self.left = nn.Linear(n_in, heads * channels)
        self.right = nn.Linear(n_in, heads * channels)
        self.edge = nn.Parameter(torch.empty(heads * channels))
        self.attention = nn.Parameter(torch.empty(heads, channels))
        self.bias = nn.Parameter(torch.zeros(heads * channels))
        nn.init.normal_(self.edge, std=0.1)
        nn.init.xavier_uniform_(self.attention)

    def forward(self, x: Tensor, source: Tensor, weight: Tensor, present: Tensor) -> Tensor:
        """x (N, M, F_in); source, weight, present (N, K) -> (N, M, heads * channels)."""
        left, right = self.left(x), self.right(x)
        _, m, width = left.shape
        step = m
        if not torch.is_grad_enabled():
            step = max(1, _NUMBERS_AT_ONCE // (source.numel() * width))
        parts = [
            self._attend(left[:, i : i + step], right[:, i : i + step], source, weight, present)
            for i in range(0, m, step)
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)) + self.bias

    def _attend(self, left, right, source, weight, present) -> Tensor:
        (n, m, width), k = left.shape, source.shape[1]
        spoken = left.index_select(0, source.reshape(-1)).view(n, k, m, width)  # (N, K, M, F)
        mixed = spoken + (right[:, None] + weight[:, :, None, None] * self.edge)
        mixed = nn.functional.leaky_relu(mixed, 0.2).view(n, k, m, self.heads, self.channels)
        score = (mixed * self.attention).sum(-1)  # (N, K, M, H)
        score = score.masked_fill(~present[:, :, None, None], float("-inf"))
        share = score.softmax(dim=1).unsqueeze(-1)
        spoken = spoken.view(n, k, m, self.heads, self.channels)
        return (share * spoken).sum(dim=1).reshape(n, m, width)


class UnitAttention(nn.Module):
    """Each unit's value after attention over its edges, added to its own: (N, M) -> (N, M).

    A unit's features are its value and `embedding` trained numbers that tell who it is.
    """

    def __init__(self, n_units: int, channels: int, heads: int, embedding: int):
        super().__init__()
        self.who = nn.Parameter(0.1 * torch.randn(n_units, embedding))
        self.attend = GATv2(1 + embedding, channels, heads)
        self.read = nn.Linear(heads * channels, 1)

    def forward(self, x: Tensor, source: Tensor, weight: Tensor, present: Tensor) -> Tensor:
        who = self.who[:, None].expand(-1, x.shape[1], -1)  # (N, M, E)
        features = torch.cat([x.unsqueeze(-1), who], dim=-1)
        heard = nn.functional.elu(self.attend(features, source, weight, present))
        return x + self.read(heard).squeeze(-1)
