"""The forward and backward pass of transformers' Llama, written for training small models.

The weights are those of `LlamaForCausalLM`, and so are the results, to rounding. What is different is how they are had. Rows
are full, so there is no mask, no padding and no cache. Query, key and value are one product, gate and up another. No logit
outlives the stretch of tokens that it belongs to: the gradient of the loss is taken while they are there.

On a CPU, where a small model spends as much time between the products as in them, the steps of a layer are written out with
their gradients (`Norm`, `Attend`, `Mlp`); on a GPU the same is said in plain operations, which torch.compile melts together.

Source: the architecture is Llama's (RMSNorm, rotary positions in halves, SwiGLU); causal attention goes block by block of
queries over the keys that they may see, as in FlashAttention, but keeps the probabilities instead of computing them twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

BLOCK = 64  # queries that look at the same keys together: of 32, 64, 128 and 256 the quickest
LOGITS = {"cpu": 1 << 21, "cuda": 1 << 26}  # that are there at a time
FLOOR = 1e-37  # of a probability, whose logarithm is taken in single precision


def plain(config: Any) -> bool:
    """Whether a configuration of transformers is a Llama without anything that is not written out here."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
        and not config.attention_dropout
        and config.num_key_value_heads == config.num_attention_heads
        and config.head_dim * config.num_attention_heads == config.hidden_size
        and config.head_dim % 2 == 0
        and rope.get("rope_type", "default") == "default"
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and getattr(config, "pretraining_tp", 1) == 1
    )


@dataclass(frozen=True)
class Shape:
    """What has to be known of a model beside its weights."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    epsilon: float
    theta: float
    tied: bool

    @classmethod
    def of(cls, config: Any) -> Shape:
        return cls(
            config.vocab_size,
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.intermediate_size,
            config.rms_norm_eps,
            (config.rope_parameters or {}).get("rope_theta", 10_000.0),
            config.tie_word_embeddings,
        )

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights: matrices first, then the scales of the norms."""
        d, ff = self.hidden, self.mlp
        found: dict[str, tuple[int, ...]] = {"embed": (self.vocabulary, d)}
        if not self.tied:
            found["head"] = (self.vocabulary, d)
        for i in range(self.layers):
            found |= {f"{i}.qkv": (3 * d, d), f"{i}.out": (d, d), f"{i}.gate_up": (2 * ff, d), f"{i}.down": (d, ff)}
        for i in range(self.layers):
            found |= {f"{i}.norm1": (d,), f"{i}.norm2": (d,)}
        return found | {"norm": (d,)}

    def to_transformers(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same weights under the names that `LlamaForCausalLM` has for them."""
        found = {"model.embed_tokens.weight": weights["embed"], "model.norm.weight": weights["norm"]}
        found["lm_head.weight"] = weights["embed" if self.tied else "head"]
        for i in range(self.layers):
            at = f"model.layers.{i}."
            parts = zip("qkv", weights[f"{i}.qkv"].chunk(3), strict=True)
            found |= {f"{at}self_attn.{name}_proj.weight": part for name, part in parts}
            gate, up = weights[f"{i}.gate_up"].chunk(2)
            found |= {
                f"{at}self_attn.o_proj.weight": weights[f"{i}.out"],
                f"{at}mlp.gate_proj.weight": gate,
                f"{at}mlp.up_proj.weight": up,
                f"{at}mlp.down_proj.weight": weights[f"{i}.down"],
                f"{at}input_layernorm.weight": weights[f"{i}.norm1"],
                f"{at}post_attention_layernorm.weight": weights[f"{i}.norm2"],
            }
        return found

    def copy(self, state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        """Fill `weights` from those of a `LlamaForCausalLM`."""
        with torch.no_grad():
            for name, part in self.to_transformers(weights).items():
                part.copy_(state[name])


def rotary(shape: Shape, window: int, device: Any) -> tuple[Tensor, Tensor]:
    """(cosines, sines): float32 (window, half of a head)."""
    half = shape.hidden // shape.heads // 2
    speed = 1.0 / shape.theta ** (torch.arange(half, dtype=torch.float32, device=device) / half)
    angle = torch.outer(torch.arange(window, dtype=torch.float32, device=device), speed)
    return angle.cos(), angle.sin()


# --------------------------------------------------------------------------------------------- on a CPU


class Norm(Function):
    """x / sqrt(mean(x²) + epsilon) * weight, over the last axis of (tokens, hidden)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=1, keepdim=True).square_().div_(x.shape[1]).add_(epsilon).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        unit, scale, weight = ctx.saved_tensors
        g = grads[0]
        product = g * unit
        by_weight = product.sum(0)
        along = product.matmul(weight[:, None]).div_(unit.shape[1])
        return (g * weight).addcmul_(unit, along, value=-1).mul_(scale), by_weight, None


class Attend(Function):
    """Causal attention: (rows * window, 3 * hidden) of query, key and value to (rows * window, hidden)."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rows: int, heads: int, cos: Tensor, sin: Tensor) -> Tensor:
        window, size = qkv.shape[0] // rows, qkv.shape[1] // 3 // heads
        t = qkv.view(rows, window, 3, heads, size).permute(2, 0, 3, 1, 4).contiguous().view(3, rows * heads, window, size)
        _turn(t[:2], cos, sin)
        t[0].mul_(size**-0.5)
        q, k, v = t
        out = torch.empty_like(q)
        future = torch.full((BLOCK, BLOCK), -torch.inf, dtype=qkv.dtype).triu_(1)
        kept = []
        for at in range(0, window, BLOCK):
            to = min(at + BLOCK, window)
            p = torch.bmm(q[:, at:to], k[:, :to].transpose(1, 2))
            p[:, :, at:].add_(future[: to - at, : to - at])
            kept.append(torch.softmax(p, -1))
            out[:, at:to] = torch.bmm(kept[-1], v[:, :to])
        ctx.save_for_backward(t, out, cos, sin, *kept)
        ctx.sizes = rows, heads
        return out.view(rows, heads, window, size).transpose(1, 2).reshape(rows * window, heads * size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (q, k, v), out, cos, sin, *kept = ctx.saved_tensors
        rows, heads = ctx.sizes
        _, window, size = q.shape
        g = grads[0].reshape(rows, window, heads, size).transpose(1, 2).reshape(rows * heads, window, size)
        found = torch.zeros(3, *q.shape, dtype=q.dtype)
        by_q, by_k, by_v = found
        mean = (g * out).sum(-1, keepdim=True)
        for at, p in zip(range(0, window, BLOCK), kept, strict=True):
            to = min(at + BLOCK, window)
            here = g[:, at:to]
            by_v[:, :to].baddbmm_(p.transpose(1, 2), here)
            by_score = torch.bmm(here, v[:, :to].transpose(1, 2)).sub_(mean[:, at:to]).mul_(p)
            by_q[:, at:to] = torch.bmm(by_score, k[:, :to])
            by_k[:, :to].baddbmm_(by_score.transpose(1, 2), q[:, at:to])
        by_q.mul_(size**-0.5)
        _turn(found[:2], cos, -sin)
        found = found.view(3, rows, heads, window, size).permute(1, 3, 0, 2, 4)
        return found.reshape(rows * window, 3 * heads * size), None, None, None, None


def _turn(pair: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate (…, window, size) in place: its first half against its second."""
    a, b = pair.chunk(2, -1)
    turned = (a * cos).addcmul_(b, sin, value=-1)
    b.mul_(cos).addcmul_(a, sin)
    a.copy_(turned)


class Mlp(Function):
    """down(silu(gate) * up) of (tokens, hidden)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        both = x @ gate_up.t()
        gate, up = both.chunk(2, 1)
        ctx.save_for_backward(x, gate_up, down, both)
        return functional.silu(gate).mul_(up) @ down.t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, gate_up, down, both = ctx.saved_tensors
        g = grads[0]
        gate, up = both.chunk(2, 1)
        open_ = functional.silu(gate)
        by_product = g @ down
        by_down = g.t() @ (open_ * up)
        by_both = torch.empty_like(both)
        torch.mul(by_product, open_, out=by_both[:, up.shape[1] :])
        torch.ops.aten.silu_backward.grad_input(by_product.mul_(up), gate, grad_input=by_both[:, : up.shape[1]])
        return by_both @ gate_up, by_both.t() @ x, by_down


# --------------------------------------------------------------------------------------------- both


class Loss(Function):
    """(tokens): -ln p of each target. Only the gradient of their sum weighted by `scale` can be had, and is had at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Tensor, target: Tensor, scale: Tensor) -> Tensor:
        stretch = max(64, LOGITS.get(x.device.type, LOGITS["cuda"]) // head.shape[0])
        narrow = head.to(x.dtype)
        by_x, by_head = torch.empty_like(x), torch.zeros_like(head)
        out = torch.empty(len(x), dtype=torch.float32, device=x.device)
        for at in range(0, len(x), stretch):
            here, where = x[at : at + stretch], target[at : at + stretch, None]
            p = torch.softmax((here @ narrow.t()).float(), 1)
            torch.neg(p.gather(1, where).clamp_(FLOOR).log_()[:, 0], out=out[at : at + stretch])
            p.scatter_add_(1, where, p.new_full((1, 1), -1.0).expand(len(where), 1))
            by = p.to(x.dtype)
            weight = scale[at : at + stretch, None].to(x.dtype)
            by_x[at : at + stretch] = (by @ narrow).mul_(weight)
            by_head.add_(by.t() @ (here * weight))
        ctx.save_for_backward(by_x, by_head)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        by_x, by_head = ctx.saved_tensors
        return by_x, by_head, None, None


class Llama:
    """The pass over full rows of tokens.

    weights: by the names of `Shape.weights`, float32. dtype: what is computed in; sums, norms and probabilities of the loss
    are in single precision.
    """

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor], window: int, dtype: torch.dtype):
        self._shape, self._weights, self._dtype = shape, weights, dtype
        device = weights["embed"].device
        cos, sin = rotary(shape, window, device)
        self._written = device.type == "cpu"
        self._turns = (cos.to(dtype), sin.to(dtype)) if self._written else (cos, sin)
        whole = torch.compile(self._by_torch, dynamic=False) if device.type == "cuda" else self._by_torch
        self._hidden = self._by_hand if self._written else whole

    def losses(self, inputs: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        """float32 (rows * window): -ln p of each target; the gradient is of their sum, each times its `scale`.

        inputs, targets: int64 (rows, window). scale: float32 (rows * window).
        """
        head = self._weights["embed" if self._shape.tied else "head"]
        return Loss.apply(self._hidden(inputs), head, targets.reshape(-1), scale)

    def _by_hand(self, inputs: Tensor) -> Tensor:
        w, shape, kind = self._weights, self._shape, self._dtype
        h = functional.embedding(inputs.reshape(-1), w["embed"])
        for i in range(shape.layers):
            x = Norm.apply(h, w[f"{i}.norm1"], shape.epsilon).to(kind)
            x = Attend.apply(x @ w[f"{i}.qkv"].to(kind).t(), len(inputs), shape.heads, *self._turns)
            h = h + x @ w[f"{i}.out"].to(kind).t()
            x = Norm.apply(h, w[f"{i}.norm2"], shape.epsilon).to(kind)
            h = h + Mlp.apply(x, w[f"{i}.gate_up"].to(kind), w[f"{i}.down"].to(kind))
        return Norm.apply(h, w["norm"], shape.epsilon).to(kind)

    def _by_torch(self, inputs: Tensor) -> Tensor:
        w, shape, kind = self._weights, self._shape, self._dtype
        rows, window = inputs.shape
        cos, sin = self._turns

        def turned(t: Tensor) -> Tensor:
            a, b = t.float().chunk(2, -1)
            return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(kind)

        h = functional.embedding(inputs.reshape(-1), w["embed"])
        for i in range(shape.layers):
            x = functional.rms_norm(h, (shape.hidden,), w[f"{i}.norm1"], shape.epsilon).to(kind)
            qkv = (x @ w[f"{i}.qkv"].to(kind).t()).view(rows, window, 3, shape.heads, -1).permute(2, 0, 3, 1, 4)
            x = functional.scaled_dot_product_attention(turned(qkv[0]), turned(qkv[1]), qkv[2], is_causal=True)
            h = h + x.transpose(1, 2).reshape(rows * window, shape.hidden) @ w[f"{i}.out"].to(kind).t()
            x = functional.rms_norm(h, (shape.hidden,), w[f"{i}.norm2"], shape.epsilon).to(kind)
            gate, up = (x @ w[f"{i}.gate_up"].to(kind).t()).chunk(2, 1)
            h = h + (functional.silu(gate) * up) @ w[f"{i}.down"].to(kind).t()
        return functional.rms_norm(h, (shape.hidden,), w["norm"], shape.epsilon).to(kind)
