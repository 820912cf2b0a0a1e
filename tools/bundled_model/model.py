"""The Llama architecture in PyTorch, at the size of the bundled model, arranged to train fast on one CPU core.

Rotation is of interleaved pairs (2i, 2i+1) with theta 10000, as Meta's original weights have it; keys and values are
shared by groups of query heads; the feed-forward is SwiGLU; the output matrix is the embedding.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Shape:
    """Sizes of a model; their names are those of the GGUF metadata they end up in."""
    dim: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    ffn: int = 352
    vocab: int = 1280
    window: int = 2304
    theta: float = 1e6
    eps: float = 1e-5


class CausalAttention(torch.autograd.Function):
    """Softmax attention, one plain matrix product for every (row, KV head, block of queries).

    Without MKL, PyTorch's batched product on a CPU is a naive loop, so many small `mm` calls are several times faster.
    A block of queries only meets the keys up to its own end: the rest of the upper triangle is never computed.
    q: (rows, kv_heads, group, time, head_dim); k, v: (rows, kv_heads, time, head_dim). q comes scaled.
    """
    BLOCK = 128

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, kv_heads, group, time, dim = q.shape
        out = torch.empty_like(q)
        probs = []
        for at in range(0, time, CausalAttention.BLOCK):
            end = min(at + CausalAttention.BLOCK, time)
            n = end - at
            queries = q[:, :, :, at:end].reshape(rows, kv_heads, group * n, dim)
            p = q.new_empty(rows, kv_heads, group * n, end)
            for r in range(rows):
                for h in range(kv_heads):
                    torch.mm(queries[r, h], k[r, h, :end].t(), out=p[r, h])
            future = torch.ones(n, n, dtype=torch.bool).triu(1)
            p.view(rows, kv_heads, group, n, end)[..., at:].masked_fill_(future, -torch.inf)
            p = torch.softmax(p, -1)
            o = torch.empty_like(queries)
            for r in range(rows):
                for h in range(kv_heads):
                    torch.mm(p[r, h], v[r, h, :end], out=o[r, h])
            out[:, :, :, at:end] = o.view(rows, kv_heads, group, n, dim)
            probs.append(p)
        ctx.save_for_backward(q, k, v, *probs)
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, *probs = ctx.saved_tensors
        rows, kv_heads, group, time, dim = q.shape
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for block, p in enumerate(probs):
            at = block * CausalAttention.BLOCK
            end = p.shape[-1]
            n = end - at
            queries = q[:, :, :, at:end].reshape(rows, kv_heads, group * n, dim)
            d_o = d_out[:, :, :, at:end].reshape(rows, kv_heads, group * n, dim)
            dp = torch.empty_like(p)
            for r in range(rows):
                for h in range(kv_heads):
                    torch.mm(d_o[r, h], v[r, h, :end].t(), out=dp[r, h])
                    dv[r, h, :end].addmm_(p[r, h].t(), d_o[r, h])
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            d_queries = torch.empty_like(queries)
            for r in range(rows):
                for h in range(kv_heads):
                    torch.mm(ds[r, h], k[r, h, :end], out=d_queries[r, h])
                    dk[r, h, :end].addmm_(ds[r, h].t(), queries[r, h])
            dq[:, :, :, at:end] = d_queries.view(rows, kv_heads, group, n, dim)
        return dq, dk, dv


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention; shapes as in CausalAttention. A GPU takes the textbook form."""
    if q.device.type == "cpu":
        return CausalAttention.apply(q, k, v)
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.unsqueeze(2).transpose(-1, -2)).masked_fill(future, -torch.inf)
    return torch.softmax(scores, -1) @ v.unsqueeze(2)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary positions on pairs (2i, 2i+1): (rows, time, heads, head_dim) to (rows, heads, time, head_dim)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).transpose(1, 2)


@dataclass
class Points:
    """Where a head should look: from a query in a row of the batch to a key. Teaching this directly is what makes a model
    so small remember: the loss on tokens alone finds the way only by luck, this shows it."""
    layer: int
    head: int
    where: Tensor  # (n, 3): row, query, key; by rows

    def keys_missed(self, q: Tensor, k: Tensor) -> Tensor:
        """Cross-entropy of the attention to the keys; q is scaled."""
        rows, queries, keys = self.where.unbind(1)
        of_head, to_head = q[:, self.head], k[:, self.head * k.shape[1] // q.shape[1]]
        which, counts = rows.unique_consecutive(return_counts=True)
        scores = torch.cat([of_head[row, some] @ to_head[row].t()
                            for row, some in zip(which, queries.split(counts.tolist()))])
        future = torch.arange(k.shape[2]) > queries.unsqueeze(1)
        return F.cross_entropy(scores.masked_fill(future, -torch.inf), keys)


class Block(nn.Module):
    """One layer; the parameters have the names of their GGUF tensors."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        inner, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.attn_norm = nn.Parameter(torch.ones(shape.dim))
        self.attn_q = nn.Parameter(torch.empty(inner, shape.dim))
        self.attn_k = nn.Parameter(torch.empty(kv, shape.dim))
        self.attn_v = nn.Parameter(torch.empty(kv, shape.dim))
        self.attn_output = nn.Parameter(torch.empty(shape.dim, inner))
        self.ffn_norm = nn.Parameter(torch.ones(shape.dim))
        self.ffn_gate = nn.Parameter(torch.empty(shape.ffn, shape.dim))
        self.ffn_up = nn.Parameter(torch.empty(shape.ffn, shape.dim))
        self.ffn_down = nn.Parameter(torch.empty(shape.dim, shape.ffn))

    def forward(self, x: Tensor, rotation: Tensor, points: Sequence[Points] = ()) -> tuple[Tensor, Tensor | float]:
        """What the layer makes of x; and how far its heads are from looking where `points` want them to."""
        s = self.shape
        rows, time, _ = x.shape
        normed = rms_norm(x, self.attn_norm, s.eps)
        q = rotate(F.linear(normed, self.attn_q * s.head_dim**-0.5).view(rows, time, s.heads, s.head_dim), rotation)
        k = rotate(F.linear(normed, self.attn_k).view(rows, time, s.kv_heads, s.head_dim), rotation)
        v = F.linear(normed, self.attn_v).view(rows, time, s.kv_heads, s.head_dim).transpose(1, 2)
        astray = sum(((p.keys_missed(q, k)) for p in points), 0.0)
        out = attention(q.unflatten(1, (s.kv_heads, -1)), k, v)
        out = out.flatten(1, 2).transpose(1, 2).reshape(rows, time, -1)
        x = x + F.linear(out, self.attn_output)
        normed = rms_norm(x, self.ffn_norm, s.eps)
        return x + F.linear(F.silu(F.linear(normed, self.ffn_gate)) * F.linear(normed, self.ffn_up), self.ffn_down), astray


class Llama(nn.Module):
    """The model: token ids (rows, time) to logits (rows, time, vocab)."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Parameter(torch.empty(shape.vocab, shape.dim))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.Parameter(torch.ones(shape.dim))
        angles = torch.outer(torch.arange(shape.window, dtype=torch.float64),
                             shape.theta ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim))
        self.register_buffer("rotation", torch.polar(torch.ones_like(angles), angles).to(torch.complex64), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:  # what adds to the residual stream starts smaller, once for each addition
                residual = name.endswith(("attn_output", "ffn_down"))
                nn.init.normal_(p, std=0.05 / (2 * shape.layers) ** 0.5 if residual else 0.05)

    def forward(self, ids: Tensor, last: int = 0, points: Sequence[Points] = ()) -> tuple[Tensor, Tensor | float]:
        """Logits of every position, or of the `last` ones; and how far heads look from where `points` want them to."""
        x = F.embedding(ids, self.token_embd)
        rotation = self.rotation[:ids.shape[1], None]  # (time, 1, head_dim / 2)
        astray: Tensor | float = 0.0
        for i, block in enumerate(self.blocks):
            x, missed = block(x, rotation, [p for p in points if p.layer == i and len(p.where)])
            astray = astray + missed
        return F.linear(rms_norm(x[:, -last:], self.output_norm, self.shape.eps), self.token_embd), astray


def load(checkpoint: Path, f16: bool = False) -> Llama:
    """The model of a checkpoint; `f16` rounds the matrices, as the GGUF file holds them."""
    model = Llama(Shape())
    model.load_state_dict(torch.load(checkpoint, map_location="cpu")["model"])
    for p in model.parameters():
        if f16 and p.dim() == 2:
            p.data = p.data.half().float()
    return model
