"""What any causal language model of transformers loses on texts, so that a text gets the same bytes whatever stands beside it.

As in `encoders`, there are few shapes, and a window's own length alone decides which one it gets: windows are sorted by their
number of tokens, padded on the right to the next of `LENGTHS`, which a causal model does not see, and go through the model in
blocks of a fixed number of rows, the last of which is filled up with copies.

The scores of all tokens at all places, the largest thing by far where the vocabulary is large, are never there as a whole: the
head goes over the vocabulary in pieces that stay in a cache, of which only the sum of the exponentials is kept. Models of the
plain Llama architecture, which are those trained here and most small ones, have a forward pass of their own: one product for
queries, keys and values and one for both halves of the feed-forward layer, rotations that are computed once, and no scores
above the diagonal. All others go through transformers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import encoders
from curate.errors import RecipeError, SourceError, StageError
from curate.lm import DTYPES, WINDOW, Losses, TokenLosses

TOKENS = {"cpu": 512, "cuda": 32_768}  # in one block, at most
PIECE = {"cpu": 1 << 20, "cuda": 1 << 28}  # bytes of scores that are there at a time
QUERIES = 128  # places of a text whose attention is computed at a time on a CPU
PROBE = 12  # tokens that a model is tried on when it is loaded
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx", "seq_length")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def load(model: str, *, device: str = "auto", what: str = "lm", dtype: str = "auto", compiled: bool | None = None) -> Neural:
    """A causal language model by its folder, or by its id on the hub (`org/repo`, `org/repo@revision`).

    device: auto, cpu, cuda or mps. dtype: float32, bfloat16, or auto: bfloat16 on a GPU that computes in it, else float32.
    compiled: whether torch.compile makes the kernels; by default on a GPU. what: who asks, for messages.

    Weights are read from safetensors, and no code of the folder runs. Raises MissingExtra without the extra `lm`, RecipeError
    where there is no such model or device, or where a model is not causal, SourceError for a folder that cannot be read.
    """
    if dtype not in DTYPES:
        raise RecipeError(f"{what}: dtype is {dtype!r}; give one of {', '.join(DTYPES)}")
    encoders.require(["torch", "transformers"], "lm", what)
    folder = encoders.folder_of(model, what)
    encoders.read_json(folder / "config.json", what)
    encoders.has_tokenizer(folder, what)
    import torch

    device = encoders.device_of(device)
    kind = encoders.dtype_of(device) if dtype == "auto" else getattr(torch, dtype)
    compiled = device == "cuda" if compiled is None else compiled
    if compiled:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(encoders.LENGTHS))
    with encoders.inference(device):
        network = _network(folder, device, kind, compiled, what)
    return Neural(model, _reader(folder, what), network, limit(str(folder), what), what)


def limit(model: str, what: str = "lm") -> int | None:
    """The most tokens that a model can read at a time, by its config.json; None where there is no such number.

    Nothing heavy is imported. Raises RecipeError where there is no such model.
    """
    config = encoders.read_json(encoders.folder_of(model, what) / "config.json", what)
    config = {**config, **(config["text_config"] if isinstance(config.get("text_config"), dict) else {})}
    known = [config[name] for name in _LIMITS if isinstance(config.get(name), int) and config[name] > 0]
    return known[0] if known else None


class Neural:
    """A causal language model of transformers: see `load`.

    device and dtype say where and in what it computes; separator is the id of what stands before the first token of a window,
    None if nothing does, and then the first token is not predicted.
    """

    def __init__(self, name: str, reader: _Reader, network: _Network, longest: int | None, what: str):
        self.name, self.separator, self.longest = name, reader.separator, longest
        self.device, self.dtype = network.device, str(network.dtype).removeprefix("torch.")
        self._reader, self._network, self._what = reader, network, what
        self._room = network.room()
        if self.separator is not None and self.separator >= network.vocabulary:
            raise SourceError(
                f"{what}: the tokenizer of {name} begins texts with the token {self.separator}, but the model has only "
                f"{network.vocabulary:,}: they do not belong together"
            )

    @property
    def vocabulary(self) -> int:
        return self._network.vocabulary

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(int32 ids of the tokens of all texts, int64 bounds of each), without special tokens; a null has none."""
        return self._encode(texts)[:2]

    def losses(self, texts: pa.Array, window: int = WINDOW) -> Losses:
        """What it loses on texts (string array; a null is an empty text).

        Raises RecipeError for a window that is longer than the model can read, SourceError where a loss is not a number.
        """
        self.check(window)
        ids, bounds, ends = self._encode(texts)
        many = -(-np.diff(bounds) // window)
        of = np.repeat(np.arange(len(many)), many)
        windows = np.concatenate([[0], np.cumsum(many)])
        starts = bounds[of] + (np.arange(len(of)) - windows[of]) * window
        stops = np.minimum(starts + window, bounds[of + 1])
        at = ends[stops - 1]
        last = windows[1:][many > 0] - 1
        at[last] = pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False)[many > 0]
        nll, tokens = self.spans(ids, starts, stops)
        return Losses(windows, nll, tokens, at)

    def token_losses(self, texts: pa.Array, most: int) -> TokenLosses:
        """What it says about the first `most` tokens of each text, which it reads as one window.

        Raises RecipeError where that is longer than the model can read, SourceError where a loss is not a number.
        """
        self.check(most)
        ids, bounds, _ = self._encode(texts)
        starts, stops = bounds[:-1], np.minimum(bounds[:-1] + most, bounds[1:])
        counts = self._predicted(starts, stops)
        out = np.concatenate([[0], np.cumsum(counts)])
        first = stops - counts
        at = np.repeat(first - out[:-1], counts) + np.arange(out[-1])
        found = np.empty((3, out[-1]), np.float32)
        for rows, values in self._blocks(ids, starts, stops, moments=True):
            for row, value in zip(rows.tolist(), values.transpose(1, 0, 2), strict=True):
                found[:, out[row] : out[row + 1]] = value[:, : counts[row]]
        self._numbers(found[0])
        return TokenLosses(out, ids[at], found[0], found[1], found[2])

    def spans(self, ids: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(float64 sum of -ln p, int64 tokens that were predicted) of ids[starts[i]:stops[i]], each read by itself.

        ids: int32. starts, stops: int64 of one length, at most as far apart as the model can read.
        """
        nll, counts = np.zeros(len(starts)), self._predicted(starts, stops)
        for rows, values in self._blocks(ids, starts, stops):
            lost = np.where(np.arange(values.shape[2]) < counts[rows, None], values[0].astype(np.float64), 0.0)
            nll[rows] = -lost.sum(1)
        self._numbers(nll)
        return nll, counts

    def check(self, window: int) -> None:
        """Raises RecipeError for a window that is longer than the model can read."""
        if window < 1:
            raise RecipeError(f"{self._what}: a window of {window} tokens; give at least 1")
        if self.longest is not None and window > self.longest:
            raise RecipeError(
                f"{self._what}: {self.name} reads at most {self.longest:,} tokens at a time; a window of {window:,} is too long"
            )

    def _encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, bounds, ends = self._reader.encode(texts)
        if len(ids) and int(ids.max()) >= self.vocabulary:
            raise SourceError(
                f"{self._what}: the tokenizer of {self.name} has the token {int(ids.max())}, but the model knows only "
                f"{self.vocabulary:,}: they do not belong together"
            )
        return ids, bounds, ends

    def _predicted(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        return np.maximum(stops - starts - (self.separator is None), 0)

    def _blocks(
        self, ids: np.ndarray, starts: np.ndarray, stops: np.ndarray, moments: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Windows, and float32 (1 or 3, windows, places): ln p, and its mean and variance, of each token that is predicted."""
        sizes = self._predicted(starts, stops)
        lengths = _padded(sizes, self.longest)
        order = np.lexsort((np.arange(len(sizes)), sizes))
        for length in np.unique(lengths[sizes > 0]).tolist():
            rows = order[(lengths[order] == length) & (sizes[order] > 0)]
            at = 0
            while at < len(rows):
                block = self._network.rows(self._room, length)
                here = rows[at : at + block]
                given, wanted = self._arrays(ids, starts[here], sizes[here], length)
                fill = np.arange(block) % len(here)
                try:
                    with encoders.inference(self.device):
                        values = self._network(given[fill], wanted[fill], moments)
                except Exception as error:
                    if not _full(error):
                        raise
                    if block == 1:
                        raise StageError(
                            f"{self._what}: {self.name} needs more memory for one text of {length:,} tokens than there is on "
                            f"{self.device}; give a smaller window or model, or another device"
                        ) from None
                    self._room = block * length // 2
                    self._network.forget()
                    continue
                yield here, values[:, : len(here)]
                at += len(here)

    def _arrays(self, ids: np.ndarray, starts: np.ndarray, sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 (texts, length): what is read, and what comes next."""
        ahead = self.separator is None
        places = np.arange(length)
        at = np.minimum(starts[:, None] + ahead + places, len(ids) - 1)
        wanted = np.where(places < sizes[:, None], ids[at], self.separator or 0).astype(np.int64)
        first = ids[starts] if ahead else np.full(len(starts), self.separator)
        return np.concatenate([first[:, None].astype(np.int64), wanted[:, :-1]], 1), wanted

    def _numbers(self, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise SourceError(
                f"{self._what}: {self.name} gives losses that are not numbers: its weights are broken, or too large for "
                f"{self.dtype} (dtype: float32 reaches further)"
            )


def _padded(sizes: np.ndarray, longest: int | None) -> np.ndarray:
    """The length that a text of so many tokens is padded to: by its own alone, and never more than the model can read."""
    lengths = list(encoders.LENGTHS)
    while lengths[-1] < sizes.max(initial=0):
        lengths.append(lengths[-2] * 2)
    found = np.array(lengths)[np.searchsorted(lengths, sizes)]
    return found if longest is None else np.minimum(found, longest)


def _full(error: Exception) -> bool:
    """Whether an error says that memory has run out."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    )


# --------------------------------------------------------------------------------------------- tokens


class _Reader(NamedTuple):
    """encode: texts to (int32 ids, int64 bounds, int64 byte of the text after each token). separator: see `Neural`."""

    encode: Callable[[pa.Array], tuple[np.ndarray, np.ndarray, np.ndarray]]
    separator: int | None


def _reader(folder: Path, what: str) -> _Reader:
    from curate.lm import tokenizer

    if (folder / tokenizer.FILE).is_file():
        found = tokenizer.read(folder, what)
        return _Reader(found.encode, found.separator)
    made = encoders.tokenizer_of(folder, what)
    if not made.is_fast:
        raise SourceError(
            f"{what}: {folder} has a tokenizer that does not say where its tokens stand; save it as {tokenizer.FILE}"
        )
    config = encoders.read_json(folder / "config.json", what)
    known = [made.bos_token_id, config.get("bos_token_id"), made.eos_token_id, config.get("eos_token_id")]
    return _Reader(functools.partial(_encoded, made), next((int(n) for n in known if isinstance(n, int)), None))


def _encoded(tokenizer: Any, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same as `Tokenizer.encode`, by a fast tokenizer of transformers."""
    ids, ends, counts = [np.empty(0, np.int32)], [np.empty(0, np.int64)], [0]
    for text in texts.to_pylist():
        with encoders.quiet():
            found = tokenizer(
                text or "", add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
            )
        sizes = np.array([len(c.encode()) for c in text or ""], np.int64)
        bytes_before = np.concatenate([[0], np.cumsum(sizes)])
        stops = np.array([stop for _, stop in found["offset_mapping"]], np.int64)
        ids.append(np.array(found["input_ids"], np.int32))
        ends.append(np.maximum.accumulate(bytes_before[stops]))
        counts.append(len(stops))
    return np.concatenate(ids), np.cumsum(counts).astype(np.int64), np.concatenate(ends)


# --------------------------------------------------------------------------------------------- the network


class _Head:
    """The last product of a model: from states to scores of all tokens, of which few are there at a time."""

    def __init__(self, weight: Any, bias: Any, compiled: bool, scale: float = 1.0, cap: float | None = None):
        self.weight, self.bias, self.scale, self.cap = weight, bias, scale, cap
        self._sum = _compiled(self._summed) if compiled else self._summed
        self._one = _compiled(self._chosen) if compiled else self._chosen

    def _shown(self, scores: Any) -> Any:
        import torch

        scores = scores.float() if self.scale == 1.0 else scores.float() * self.scale
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap

    def scores(self, states: Any) -> Any:
        """float32 (places, vocabulary)."""
        from torch.nn import functional

        return self._shown(functional.linear(states, self.weight, self.bias))

    def _summed(self, states: Any, weight: Any, bias: Any) -> Any:
        import torch
        from torch.nn import functional

        return torch.logsumexp(self._shown(functional.linear(states, weight, bias)), -1)

    def _chosen(self, states: Any, wanted: Any) -> Any:
        """The scores of one token at each place, rounded as all scores are, so that a certain token has a loss of 0."""
        found = (states.float() * self.weight[wanted].float()).sum(-1)
        found = found if self.bias is None else found + self.bias[wanted].float()
        return self._shown(found.to(states.dtype))

    def logprobs(self, states: Any, wanted: Any) -> Any:
        """float32 (places): ln p of the token that comes next. states: (places, width)."""
        import torch

        vocabulary = len(self.weight)
        step = max(256, _piece(states.device.type) // (4 * len(states)))
        parts = [
            self._sum(states, self.weight[at : at + step], None if self.bias is None else self.bias[at : at + step])
            for at in range(0, vocabulary, step)
        ]
        return (self._one(states, wanted) - torch.logsumexp(torch.stack(parts, 1), 1)).clamp_(max=0.0)

    def moments(self, states: Any, wanted: Any) -> Any:
        """float32 (3, places): ln p of the token that comes next, and mean and variance of ln p where tokens fall as the model
        says."""
        import torch

        step = max(16, _piece(states.device.type) // (4 * len(self.weight)))
        parts = [_moments(self.scores(states[at : at + step]), wanted[at : at + step]) for at in range(0, len(states), step)]
        return torch.cat(parts, 1)


def _piece(device: str) -> int:
    return PIECE["cpu" if device == "cpu" else "cuda"]


def _moments(scores: Any, wanted: Any) -> Any:
    import torch

    logs = torch.log_softmax(scores, -1)
    chance = logs.exp()
    logs = torch.where(chance > 0, logs, 0.0)  # what never happens weighs nothing, however small its logarithm
    mean = (chance * logs).sum(-1)
    variance = (chance * (logs - mean[:, None]).square()).sum(-1)
    chosen = scores.gather(1, wanted[:, None])[:, 0] - torch.logsumexp(scores, -1)
    return torch.stack([chosen.clamp_(max=0.0), mean, variance])


class _Network:
    """Tokens to ln p. body: int64 (texts, places) to states (texts * places, width), or to scores where there is no head.

    vocabulary: rows of the embedding. cost: bytes that a token of a block needs. single: one text is a block.
    """

    def __init__(
        self,
        body: Callable[[Any], Any],
        head: _Head | None,
        *,
        vocabulary: int,
        device: str,
        dtype: Any,
        cost: int,
        single: bool,
    ):
        self._body, self._head, self.vocabulary, self.device, self.dtype = body, head, vocabulary, device, dtype
        self._cost, self._single = cost, single

    def room(self) -> int:
        """Tokens of a block: what fits into half of the memory that is free, and not more than make good use of the device."""
        import torch

        most = TOKENS["cpu" if self.device == "cpu" else "cuda"]
        if self.device != "cuda":
            return most
        free = torch.cuda.mem_get_info()[0] // 2 - PIECE["cuda"] * 4
        return min(most, 1 << max(free // self._cost, 1).bit_length() - 1)

    def rows(self, room: int, length: int) -> int:
        return 1 if self._single else encoders.rows_of(room // length)

    def forget(self) -> None:
        """Give back memory that is kept for later."""
        import torch

        if self.device == "cuda":
            torch.cuda.empty_cache()

    def __call__(self, given: np.ndarray, wanted: np.ndarray, moments: bool) -> np.ndarray:
        """float32 (1 or 3, texts, places): ln p, and its mean and variance, of `wanted` after `given`."""
        import torch

        states = self._body(torch.from_numpy(given).to(self.device))
        after = torch.from_numpy(wanted).to(self.device).flatten()
        if self._head is None:
            step = max(1, _piece(self.device) // (4 * self.vocabulary))
            parts = [_moments(states[at : at + step].float(), after[at : at + step]) for at in range(0, len(after), step)]
            found = torch.cat(parts, 1)[: 3 if moments else 1]
        else:
            found = self._head.moments(states, after) if moments else self._head.logprobs(states, after)
        return found.cpu().numpy().reshape(-1, *given.shape)


def _compiled(function: Callable) -> Callable:
    import torch

    return torch.compile(function, dynamic=False)


def _network(folder: Path, device: str, dtype: Any, compiled: bool, what: str) -> _Network:
    import torch

    model = encoders.transformer(folder, "AutoModelForCausalLM", what, dtype=dtype)
    config = model.config.get_text_config()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    width = getattr(config, "hidden_size", 0) or model.get_input_embeddings().weight.shape[1]
    inner = getattr(config, "intermediate_size", None) or 4 * width
    cost = dtype.itemsize * (12 * width + 3 * (inner if isinstance(inner, int) else max(inner))) + 16 * width
    single = any(isinstance(many := getattr(config, name, None), int) and many > 1 for name in _EXPERTS)
    about: dict[str, Any] = {"vocabulary": vocabulary, "device": device, "dtype": dtype, "single": single}
    if _plain_llama(model):
        head = _Head(model.lm_head.weight.to(device), None, compiled)
        return _Network(_Llama(model, device, compiled), head, cost=cost, **about)
    model = model.to(device)
    model.config.use_cache = False
    found = _probe(model, vocabulary, compiled, folder, what)
    if found is None:
        return _Network(lambda ids: model(ids, use_cache=False).logits.flatten(0, 1), None, cost=cost + 8 * vocabulary, **about)
    body, head = found
    run = torch.compile(body, dynamic=False) if compiled else body
    return _Network(lambda ids: run(ids, use_cache=False)[0].flatten(0, 1), head, cost=cost, **about)


def _probe(model: Any, vocabulary: int, compiled: bool, folder: Path, what: str) -> tuple[Any, _Head] | None:
    """The body and the head of a model, if its scores are what the head says of the body's states, else None.

    Architectures differ in what they do to scores at the end, so it is tried rather than believed. Raises RecipeError for a
    model whose word on a token depends on later tokens.
    """
    import torch

    ids = (torch.arange(PROBE, device=model.device)[None] * 7919 + 3) % vocabulary
    other = ids.clone()
    other[0, -1] = (ids[0, -1] + 1) % vocabulary
    scores = model(ids, use_cache=False).logits.float()[0]
    again = model(other, use_cache=False).logits.float()[0]
    near = (1e-3 if model.dtype == torch.float32 else 3e-2) * (1 + float(scores.abs().nan_to_num().max()))
    if float((scores - again)[:-1].abs().nan_to_num().max()) > near:
        raise RecipeError(
            f"{what}: {folder} is no causal language model: what it says about a token depends on the tokens behind it; name "
            "one that reads from left to right"
        )
    body, layer = model.base_model, model.get_output_embeddings()
    if body is model or type(layer) is not torch.nn.Linear:
        return None
    states = body(ids, use_cache=False)[0][0]
    config = model.config.get_text_config()
    times, over, cap = (getattr(config, name, None) for name in ("logit_scale", "logits_scaling", "final_logit_softcapping"))
    for scale in (1.0, times, 1 / over if over else None):
        if not isinstance(scale, float | int) or states.ndim != 2 or states.shape[1] != layer.weight.shape[1]:
            continue
        head = _Head(layer.weight, layer.bias, compiled, float(scale), cap)
        if float((head.scores(states) - scores).abs().nan_to_num().max()) <= near:
            return body, head
    return None


# --------------------------------------------------------------------------------------------- Llama


def _plain_llama(model: Any) -> bool:
    """Whether `_Llama` computes what the model does."""
    config = model.config
    return (
        type(model).__name__ == "LlamaForCausalLM"
        and config.hidden_act in ("silu", "swish")
        and (config.rope_parameters or {}).get("rope_type", "default") in ("default", "linear", "llama3", "yarn")
        and getattr(config, "quantization_config", None) is None
        and model.lm_head.bias is None
    )


class _Layer(NamedTuple):
    """Weights of one layer; biases are None where there are none."""

    before: Any
    qkv: Any
    qkv_bias: Any
    out: Any
    out_bias: Any
    between: Any
    up: Any
    up_bias: Any
    down: Any
    down_bias: Any


class _Llama:
    """The body of a Llama: int64 (texts, places) to states (texts * places, width)."""

    def __init__(self, model: Any, device: str, compiled: bool):
        config = model.config
        self._device, self._dtype = device, model.dtype
        self._rotary, self._turns = model.model.rotary_emb, dict[int, tuple[Any, Any]]()
        self._embedding, self._norm = model.model.embed_tokens.weight.to(device), model.model.norm.weight.to(device)
        self._eps = config.rms_norm_eps
        heads, size = config.num_attention_heads, model.model.layers[0].self_attn.head_dim
        run = functools.partial(
            _layer, heads=heads, groups=config.num_key_value_heads, size=size, eps=self._eps, attend=_attend(device)
        )
        self._run = _compiled(run) if compiled else run
        self._layers = []
        for at, layer in enumerate(model.model.layers):
            self._layers.append(_layer_of(layer, device))
            model.model.layers[at] = None  # so that its weights are there only once

    def __call__(self, ids: Any) -> Any:
        from torch.nn import functional

        length = ids.shape[1]
        if length not in self._turns:
            self._turns[length] = self._turned(length)
        states = functional.embedding(ids, self._embedding)
        for weights in self._layers:
            states = self._run(states, weights, self._turns[length])
        return functional.rms_norm(states, (states.shape[-1],), self._norm, self._eps).flatten(0, 1)

    def _turned(self, length: int) -> tuple[Any, Any]:
        """Cosines and sines (places, 1, size / 2) of the angles that queries and keys are turned by."""
        import torch

        half = torch.zeros(1, dtype=torch.float32)
        cos, sin = self._rotary.cpu()(half, torch.arange(length)[None])
        return tuple(one[0, :, None, : one.shape[-1] // 2].contiguous().to(self._device, self._dtype) for one in (cos, sin))


def _layer_of(layer: Any, device: str) -> _Layer:
    import torch

    def joined(*linear: Any) -> tuple[Any, Any]:
        weight = torch.cat([one.weight.data for one in linear]) if len(linear) > 1 else linear[0].weight.data
        biases = [one.bias for one in linear]
        return weight.to(device), None if biases[0] is None else torch.cat([one.data for one in biases]).to(device)

    attention, forward = layer.self_attn, layer.mlp
    return _Layer(
        layer.input_layernorm.weight.data.to(device),
        *joined(attention.q_proj, attention.k_proj, attention.v_proj),
        *joined(attention.o_proj),
        layer.post_attention_layernorm.weight.data.to(device),
        *joined(forward.gate_proj, forward.up_proj),
        *joined(forward.down_proj),
    )


def _layer(states: Any, weights: _Layer, turns: Any, *, heads: int, groups: int, size: int, eps: float, attend: Any) -> Any:
    """One layer of a Llama. states: (texts, places, width). Source: Touvron et al. 2023, LLaMA (arXiv 2302.13971)."""
    import torch
    from torch.nn import functional

    texts, places, width = states.shape
    seen = functional.rms_norm(states, (width,), weights.before, eps)
    seen = functional.linear(seen, weights.qkv, weights.qkv_bias).view(texts, places, heads + 2 * groups, size)
    cos, sin = turns
    left, right = seen[:, :, : heads + groups].chunk(2, -1)
    turned = torch.cat([left * cos - right * sin, right * cos + left * sin], -1).transpose(1, 2)
    values = seen[:, :, heads + groups :].transpose(1, 2)
    found = attend(turned[:, :heads], turned[:, heads:], values)
    states = states + functional.linear(found.transpose(1, 2).reshape(texts, places, -1), weights.out, weights.out_bias)
    inner = functional.linear(functional.rms_norm(states, (width,), weights.between, eps), weights.up, weights.up_bias)
    gate, up = inner.chunk(2, -1)
    return states + functional.linear(functional.silu(gate).mul_(up), weights.down, weights.down_bias)


def _attend(device: str) -> Callable[[Any, Any, Any], Any]:
    return _causal_by_rows if device == "cpu" else _causal


def _causal(queries: Any, keys: Any, values: Any) -> Any:
    from torch.nn import functional

    return functional.scaled_dot_product_attention(
        queries, keys, values, is_causal=True, enable_gqa=queries.shape[1] != keys.shape[1]
    )


def _causal_by_rows(queries: Any, keys: Any, values: Any) -> Any:
    """The same, for some places at a time, and without what lies ahead of the last of them: on a CPU, where torch multiplies
    in smaller pieces than a core would like, it takes half the time."""
    import torch

    texts, heads, places, size = queries.shape
    if heads != keys.shape[1]:
        keys, values = (one.repeat_interleave(heads // one.shape[1], 1) for one in (keys, values))
    queries, keys, values = (one.reshape(texts * heads, places, size) for one in (queries, keys, values))
    ahead = torch.full((QUERIES, QUERIES), -math.inf, dtype=queries.dtype).triu(1)
    found = torch.empty_like(queries)
    queries = queries * size**-0.5
    for at in range(0, places, QUERIES):
        stop = min(at + QUERIES, places)
        scores = torch.bmm(queries[:, at:stop], keys[:, :stop].transpose(1, 2))
        scores[:, :, at:] += ahead[: stop - at, : stop - at]
        torch.bmm(torch.softmax(scores, -1), values[:, :stop], out=found[:, at:stop])
    return found.view(texts, heads, places, size)
