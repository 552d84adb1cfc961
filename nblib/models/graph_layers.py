"""Layers of networks on graphs of units: edges, fixed or learned, and attention over them.

Tensors lie unit first, (N, M, F) with M = presentations x bins, so that taking the sources of an edge
copies long rows. A sample never meets another one: no edge joins two samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nblib.models import graphs


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
        itself = torch.arange(n)[None, :, None].repeat(len(start), 1, 1)
        self.register_buffer("itself", itself, persistent=False)

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        ranked = self.score.detach().scatter(2, self.itself, float("-inf"))  # not to itself
        source = ranked.topk(self.k, dim=2).indices  # (G, N, k)
        if self.training and self.explore:
            rest = torch.rand_like(ranked).scatter(2, source, -1.0).scatter(2, self.itself, -1.0)
            source = torch.cat([source, rest.topk(self.explore, dim=2).indices], dim=2)
        source = torch.cat([self.itself, source], dim=2)
        weight = self.score.gather(2, source)
        weight = torch.where(source == self.itself, torch.ones_like(weight), weight)
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
        shape = self.attention.shape  # (H, C)
        left, right = self.left(x).unflatten(2, shape), self.right(x).unflatten(2, shape)
        # Of a table's rows, so that all threads gather their gradients.
        spoken = nn.functional.embedding(source, left.flatten(1)).unflatten(2, left.shape[1:])
        mixed = spoken + right[:, None]  # (N, K, M, H, C)
        mixed += weight[:, :, None, None, None] * self.edge.view(shape)  # in place: memory is slow
        mixed = nn.functional.leaky_relu_(mixed, 0.2)
        score = torch.einsum("nkmhc,hc->nkmh", mixed, self.attention)
        score = score.masked_fill(~present[:, :, None, None], float("-inf"))
        share = score.softmax(dim=1).unsqueeze(-1)
        return (share * spoken).sum(dim=1).flatten(2) + self.bias


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
