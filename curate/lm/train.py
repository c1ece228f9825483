"""Small causal language models, trained from nothing or from another model on texts that may be larger than memory.

Texts become a row of tokens on disk (`pack`), the separator before each document, which is read in windows; no window is
padded. Which windows a step sees depends on the seed and the number of the step alone, so a training that is killed goes on
from its last checkpoint as if nothing had happened: the model has the same bytes. It has them on one machine with one version
of torch; another kind of processor gives other last bits, and so another model.

Beside `DIR`, where the model appears when it is done, there is `DIR.training` while it is not: tokens, checkpoint and, where
one had to be trained, the tokenizer. Nothing in there is unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import inspect
import itertools
import math
import multiprocessing
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate import encoders, reference, storage
from curate.errors import RecipeError, StageError, did_you_mean
from curate.lm import DTYPES, WINDOW
from curate.lm.packed import Packed, kept
from curate.lm.tokenizer import FILES, read
from curate.stage import Task

if TYPE_CHECKING:
    from torch import Tensor

    from curate.lm.llama import Shape

JSON = "training.json"
CHECKPOINT = "checkpoint.safetensors"
SCHEDULES = ("cosine", "wsd")
LAST = 0.1  # of the learning rate, at the end
COOLING = 0.2  # of the steps, in which `wsd` goes there
POINTS = 200  # of a loss curve, at most
STEPS = 32  # that a small corpus is cut into at least, where nobody says how large a batch is
UNIT = {"cpu": 1024, "cuda": 65_536}  # tokens that go through the model at a time
BETAS = (0.9, 0.95)

Weights = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Size:
    """Dimensions of a model, and what it is trained with where nobody says otherwise."""

    hidden: int
    layers: int
    heads: int
    mlp: int
    lr: float
    batch_tokens: int

    def parameters(self) -> int:
        """How many there are without the embedding."""
        return self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.mlp + 2 * self.hidden) + self.hidden


SIZES = {
    "1m": Size(128, 4, 2, 512, 4e-3, 2048),
    "10m": Size(384, 6, 6, 1024, 2e-3, 16_384),
    "60m": Size(640, 12, 10, 1792, 1e-3, 65_536),
    "150m": Size(1024, 12, 16, 2752, 1e-3, 131_072),
}


@dataclass(frozen=True)
class Training:
    """What came of a training.

    folder: of the model. parameters: without the embedding. tokens: that were predicted, in so many steps. loss: nats per
    token, the mean of the last tenth of the steps. curve: of at most 200 stretches of steps, the last `step`, the `tokens`
    until then, the mean `loss`, and `lr`. seconds, tokens_per_second: of this call; 0 where the model was there already.
    """

    folder: Path
    parameters: int
    embedding: int
    tokens: int
    steps: int
    loss: float
    curve: list[dict[str, Any]]
    seconds: float = 0.0
    tokens_per_second: float = 0.0


def train(
    texts: Iterable[pa.Array] | Path,
    folder: Path | str,
    *,
    size: str = "1m",
    tokenizer: Path | str | None = None,
    vocabulary: int = 8192,
    start: Path | str | None = None,
    tokens: int | None = None,
    epochs: float | None = None,
    batch_tokens: int | None = None,
    lr: float | None = None,
    warmup: int | None = None,
    schedule: str = "cosine",
    weight_decay: float = 0.0,
    clip: float = 1.0,
    window: int = WINDOW,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    checkpoint_every: float = 120.0,
    progress: bool | None = None,
    weights: Weights | None = None,
) -> Training:
    """Train a model and write a folder that transformers and `curate.lm.load` read.

    Called again after it was killed, it goes on; called again after it was done, with the same texts and parameters, it returns
    what is there.

    texts: string arrays, whose cuts do not matter, or the folder of `packed.pack`. They are read more than once; an iterator,
    which cannot be, is written to disk. size: of a new model, a Llama with tied embeddings and heads of 64:

    | size | hidden | layers | heads | MLP | parameters without embedding | embedding of 8,192 | batch | lr |
    |---|---|---|---|---|---|---|---|---|
    | `1m` | 128 | 4 | 2 | 512 | 1,049,728 | 1,048,576 | 2,048 | 4e-3 |
    | `10m` | 384 | 6 | 6 | 1,024 | 10,621,824 | 3,145,728 | 16,384 | 2e-3 |
    | `60m` | 640 | 12 | 10 | 1,792 | 60,964,480 | 5,242,880 | 65,536 | 1e-3 |
    | `150m` | 1,024 | 12 | 16 | 2,752 | 151,806,976 | 8,388,608 | 131,072 | 1e-3 |

    tokenizer: folder with a tokenizer.json; None: one of `vocabulary` tokens is trained on the texts. start: folder of a causal
    model to go on from, with its tokenizer and a new optimiser; `size` is not asked then.
    tokens: to be predicted in all, or epochs: passes over the texts (one by default; may be 0.5).
    batch_tokens: of a step; None: that of the size, less where that would make fewer than 32 steps. lr: at its height; None:
    that of the size, or 1e-3 with `start`. warmup: steps until then; None: one in twenty. schedule: `cosine` to a tenth of lr,
    or `wsd`, which stays and goes to a tenth in the last fifth of the steps. weight_decay: of matrices, by AdamW. clip: of the
    norm of the gradient. window: tokens of a row. seed: of the first weights and the order.
    device, dtype: `auto` takes a GPU where there is one and computes in bfloat16 there, in float32 elsewhere. threads: on a
    CPU; None: as many as there are cores. Each takes a stretch of 1,024 tokens, so how many there are changes nothing in the
    result (other than with a `start` that is no plain Llama, where they share in each product).
    checkpoint_every: seconds; 0 after each step. progress: a bar on stderr; None: if that is a terminal, and this no worker.
    weights: a function, which has to be a dataclass so that it has an identity, of the losses (float64, nats per token of each
    row of a step) and the numbers of the rows (int64) to what each row counts for, 1 being what it does without; the step then
    reduces the mean of weight times loss.

    Raises RecipeError: a parameter that makes no sense, no text, or less than one batch; StageError: the loss became NaN or
    infinite; MissingExtra without the extra `lm`.
    Source: the dimensions, learning rate, decay and batch of `150m` are those of CoLoR-Filter's auxiliary models, with as many
    parameters in three matrices of SwiGLU as it has in two.
    """
    asked = _Asked(
        size, vocabulary, tokens, epochs, batch_tokens, lr, warmup, schedule, weight_decay, clip, window, seed, device, dtype,
        threads, checkpoint_every, weights,
    )  # fmt: skip
    asked.check()
    encoders.require(("torch", "transformers", "safetensors"), "lm", "lm")
    folder = Path(folder)
    start = None if start is None else encoders.folder_of(str(start), "lm")
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        texts = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    work = folder.with_name(f"{folder.name}.training")
    for left in folder.parent.glob(f"{storage.TEMPORARY}*-{glob.escape(folder.name)}"):  # by one that was killed at the end
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists() and not (folder / JSON).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RecipeError(f"{folder} is there and holds no model of a training: name another folder")
    try:
        packed = Packed.open(texts) if isinstance(texts, Path) else kept(texts, work, tokenizer or start, vocabulary)
        known = _identity(asked, packed, tokenizer, start)
        if (found := _done(folder, known)) is None:
            with _alone(asked) as where, _shown(_watched() if progress is None else progress) as bar:
                found = _Run(asked, packed, start, folder, work, known, *where).run(bar)
    except RecipeError:
        if not (work / CHECKPOINT).is_file():
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return found


def train_files(
    paths: Sequence[str], folder: Path | str, parameters: Mapping[str, Any] | None = None
) -> tuple[Training, dict[str, int]]:
    """`train` on documents in files, and counts of what could not be read.

    paths: Parquet, JSONL or text files, folders of these, or run folders. parameters: of `train`, and `text`, the name of the
    column of texts. Raises what `train` does, and SourceError for files without that column.
    """
    given = dict(parameters or {})
    known = [name for name in inspect.signature(train).parameters if name not in ("texts", "folder", "weights")]
    for name in given:
        if name not in (*known, "text"):
            raise RecipeError(f"lm: there is no parameter {name!r}{did_you_mean(name, [*known, 'text'])}")
    if not paths:
        raise RecipeError("lm: there are no files to train on: name some")
    column = str(given.pop("text", "text"))
    read = _Read(tuple(paths), column)
    made = train(read, folder, **given)
    return made, read.left_out


class _Read:
    """The texts of files, as often as they are asked for."""

    def __init__(self, paths: tuple[str, ...], column: str):
        self._paths, self._column = paths, column
        self.left_out: dict[str, int] = {}

    def __iter__(self) -> Iterator[pa.Array]:
        task = Task(phase="train", rank=0)
        for batch in reference.batches(self._paths, (self._column,), "lm", task):
            yield batch[self._column]
        self.left_out = dict(task.counters)


def evaluate_loss(
    model: Path | str, texts: Iterable[pa.Array], *, window: int = WINDOW, device: str = "auto"
) -> tuple[float, int]:
    """(sum of -ln p in nats, number of tokens) of a model on texts, special tokens not counted, each window read by itself."""
    from curate import lm

    loaded, nll, count = lm.load(str(model), device=device), 0.0, 0
    for array in texts:
        found = loaded.losses(array, window)
        nll, count = nll + float(found.nll.sum()), count + int(found.tokens.sum())
    return nll, count


# --------------------------------------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class _Asked:
    """The parameters of `train` that are plain values."""

    size: str
    vocabulary: int
    tokens: int | None
    epochs: float | None
    batch_tokens: int | None
    lr: float | None
    warmup: int | None
    schedule: str
    weight_decay: float
    clip: float
    window: int
    seed: int
    device: str
    dtype: str
    threads: int | None
    checkpoint_every: float
    weights: Any

    def check(self) -> None:
        for named, word, known in (
            ("size", self.size, SIZES),
            ("schedule", self.schedule, SCHEDULES),
            ("device", self.device, encoders.DEVICES),
            ("dtype", self.dtype, DTYPES),
        ):
            if not isinstance(word, str) or word not in known:
                raise RecipeError(f"lm: there is no {named} {word!r}{did_you_mean(str(word), known)}")
        if self.tokens is not None and self.epochs is not None:
            raise RecipeError("lm: give tokens or epochs, not both")
        numbers: list[tuple[str, Any, float]] = [
            ("window", self.window, 2), ("tokens", self.tokens, 1), ("batch_tokens", self.batch_tokens, 1),
            ("warmup", self.warmup, 0), ("threads", self.threads, 1), ("seed", self.seed, 0),
        ]  # fmt: skip
        for name, value, least in numbers:
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise RecipeError(f"lm: {name} is {value!r}; it is a whole number of at least {least:.0f}")
        above: list[tuple[str, Any]] = [("epochs", self.epochs), ("lr", self.lr), ("clip", self.clip)]
        for name, value in (*above, ("weight_decay", self.weight_decay), ("checkpoint_every", self.checkpoint_every)):
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            strict = (name, value) in above
            if value is not None and (not number or value < 0 or (strict and not value)):
                raise RecipeError(f"lm: {name} is {value!r}; it is a number {'above' if strict else 'of at least'} 0")
        if self.batch_tokens is not None and self.batch_tokens < self.window:
            raise RecipeError(f"lm: batch_tokens is {self.batch_tokens}, less than a window of {self.window}: raise it")
        if self.weights is not None and not dataclasses.is_dataclass(self.weights):
            raise RecipeError("lm: weights is a function without an identity: make it a dataclass with __call__")


@dataclass(frozen=True)
class _Plan:
    """How many rows there are and how they are gone through."""

    rows: int  # in the corpus
    total: int  # to be gone through
    batch: int  # of a step
    steps: int
    warmup: int
    lr: float
    schedule: str
    seed: int

    @classmethod
    def of(cls, asked: _Asked, packed: Packed, lr: float, batch_tokens: int) -> _Plan:
        rows = (packed.tokens - 1) // asked.window
        if not rows:
            raise RecipeError(
                f"lm: the texts have {packed.tokens - 1:,} tokens, less than one window of {asked.window}: "
                "give more, or a smaller window"
            )
        total = asked.tokens // asked.window if asked.tokens is not None else round((asked.epochs or 1.0) * rows)
        batch = (asked.batch_tokens or batch_tokens) // asked.window or 1
        if asked.batch_tokens is None:
            batch = max(1, min(batch, total // STEPS))
        if total < batch or rows < batch:
            have = f"{min(rows, total) * asked.window:,} tokens in windows of {asked.window}"
            raise RecipeError(
                f"lm: there are {have}, less than one batch of {batch * asked.window:,}: lower batch_tokens, or give more"
            )
        steps = -(-total // batch)
        warmup = max(1, steps // 20) if asked.warmup is None else asked.warmup
        return cls(rows, total, batch, steps, min(warmup, steps), lr, asked.schedule, asked.seed)

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - 1 - self.warmup)
        if self.schedule == "cosine":
            return self.lr * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
        left = (self.steps - 1 - step) / max(1.0, COOLING * self.steps)
        return self.lr * (LAST + (1 - LAST) * min(1.0, left))

    def order(self, epoch: int) -> np.ndarray:
        """int64 (rows): how the corpus is gone through for the `epoch`-th time."""
        return np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.rows)

    def seen(self, step: int) -> int:
        """Rows after so many steps."""
        return min(self.total, step * self.batch)


def _identity(asked: _Asked, packed: Packed, given: Path | str | None, start: Path | str | None) -> dict[str, Any]:
    """All that decides the model. Raises RecipeError for a tokenizer that is not the one of `start` or of the tokens."""
    named = [(start, "start"), (given, "tokenizer")]
    for folder, name in named:
        if folder is not None and read(folder, "lm").digest != packed.tokenizer:
            other = f"tokenizer {given}" if given is not None and name == "start" else "packed tokens"
            raise RecipeError(f"lm: {name} {folder} has another tokenizer than the {other}: leave `tokenizer` out")
    left_out = {"checkpoint_every", "device", "threads", "vocabulary", "weights"}
    plain = {k: v for k, v in dataclasses.asdict(dataclasses.replace(asked, weights=None)).items() if k not in left_out}
    if start is not None:
        plain["size"] = None
        plain["start"] = {Path(f).name: storage.sha256_file(f) for f in encoders.files(Path(start)) if Path(f).name != JSON}
    if asked.weights is not None:
        plain["weights"] = f"{type(asked.weights).__qualname__} {dataclasses.asdict(asked.weights)}"
    return plain | {"texts": packed.texts, "tokenizer": packed.tokenizer}


def _done(folder: Path, known: Mapping[str, Any]) -> Training | None:
    """What a training of the same identity has left."""
    try:
        held = storage.read_json(folder / JSON)
    except (OSError, ValueError):
        return None
    if not isinstance(held, dict) or held.get("identity") != known:
        return None
    return Training(folder, **{key: held[key] for key in ("parameters", "embedding", "tokens", "steps", "loss", "curve")})


@contextlib.contextmanager
def _alone(asked: _Asked) -> Iterator[tuple[Any, Any]]:
    """(device, dtype), with torch set for them and put back afterwards."""
    import torch

    device = encoders.device_of(asked.device)
    dtype = getattr(torch, asked.dtype) if asked.dtype != "auto" else encoders.dtype_of(device)
    before = torch.get_num_threads()
    strict, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if device == "cpu":
        torch.set_num_threads(1)  # how a sum is cut among threads would show in its last bits
    else:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.enable_grad():
            yield torch.device(device), dtype
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict, warn_only=warned)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --------------------------------------------------------------------------------------------- models


class _Model:
    """Weights in one flat row, their gradients in another, and a function from tokens to losses.

    apart: whether several threads may be in that function at once.
    """

    apart = False

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], device: Any):
        import torch

        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        order = sorted(shapes, key=lambda name: len(shapes[name]) < 2)  # stable: matrices first
        self.flat = torch.zeros(sum(sizes.values()), device=device)
        self.gradient = torch.zeros_like(self.flat)
        self.matrices = sum(sizes[name] for name in order if len(shapes[name]) >= 2)
        self.weights: dict[str, Tensor] = {}
        self.gradients: list[Tensor] = []
        at = 0
        for name in order:
            part = slice(at, at := at + sizes[name])
            self.weights[name] = self.flat[part].view(shapes[name]).detach().requires_grad_()
            self.gradients.append(self.gradient[part].view(shapes[name]))
        self.leaves = list(self.weights.values())

    def losses(self, inputs: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        raise NotImplementedError

    def state(self) -> tuple[Any, dict[str, Tensor]]:
        """(configuration of transformers, weights under its names)."""
        raise NotImplementedError

    def counts(self) -> tuple[int, int]:
        """(parameters without the embedding, parameters of the embedding)."""
        raise NotImplementedError


class _Plain(_Model):
    """A Llama, by `curate.lm.llama`."""

    apart = True

    def __init__(self, config: Any, window: int, device: Any, dtype: Any):
        from curate.lm import llama

        self._config, self._shape = config, llama.Shape.of(config)
        super().__init__(self._shape.weights(), device)
        self._pass = llama.Llama(self._shape, self.weights, window, dtype)

    @property
    def shape(self) -> Shape:
        return self._shape

    def losses(self, inputs: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        return self._pass.losses(inputs, targets, scale)

    def state(self) -> tuple[Any, dict[str, Tensor]]:
        weights = self._shape.to_transformers(self.weights)
        if self._shape.tied:
            del weights["lm_head.weight"]
        return self._config, weights

    def counts(self) -> tuple[int, int]:
        embedding = sum(self.weights[name].numel() for name in ("embed", "head") if name in self.weights)
        return self.flat.numel() - embedding, embedding

    def begin(self, seed: int) -> None:
        """First weights: normal, with the inverse root of the inputs as spread, so that a score begins with a spread of one;
        those that end in the residual smaller by the root of how many end there; norms 1."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.weights.items():
                if weight.ndim < 2:
                    weight.fill_(1.0)
                    continue
                spread = weight.shape[1] ** -0.5
                if name.endswith((".out", ".down")):
                    spread /= (2 * self._shape.layers) ** 0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread)


class _Other(_Model):
    """Any other causal model, by transformers."""

    def __init__(self, model: Any, device: Any, dtype: Any):
        named = dict(model.named_parameters())  # a tied weight once
        super().__init__({name: tuple(weight.shape) for name, weight in named.items()}, device)
        self._model, self._dtype = model.to(device), dtype
        for name, weight in named.items():
            self.weights[name].data.copy_(weight.data)
            weight.data = self.weights[name].data
        self.leaves = [named[name] for name in self.weights]

    def losses(self, inputs: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        import torch
        from torch.nn import functional

        with torch.autocast(inputs.device.type, self._dtype, enabled=self._dtype != torch.float32):
            logits = self._model(input_ids=inputs, use_cache=False).logits
        found = functional.cross_entropy(logits.float().flatten(0, 1), targets.reshape(-1), reduction="none")
        return found.detach() + (found - found.detach()) * scale  # its value, and the gradient of `scale` times that

    def state(self) -> tuple[Any, dict[str, Tensor]]:
        return self._model.config, {**dict(self._model.named_parameters()), **_buffers(self._model)}

    def counts(self) -> tuple[int, int]:
        own = {
            id(p.weight): p.weight.numel() for p in (self._model.get_input_embeddings(), self._model.get_output_embeddings())
        }
        embedding = sum(own.values())
        return self.flat.numel() - embedding, embedding


def _buffers(model: Any) -> dict[str, Tensor]:
    """What a model keeps beside its parameters."""
    kept = model.state_dict().keys()
    return {name: values for name, values in model.named_buffers() if name in kept}


def _model(asked: _Asked, packed: Packed, start: Path | str | None, device: Any, dtype: Any) -> _Model:
    """A new model, or that of `start`. Raises RecipeError where its vocabulary or its longest text is too small."""
    import torch
    from transformers import LlamaConfig

    from curate.lm import llama

    if start is None:
        size = SIZES[asked.size]
        config = LlamaConfig(
            vocab_size=packed.vocabulary,
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            intermediate_size=size.mlp,
            max_position_embeddings=max(2048, asked.window + 1),
            tie_word_embeddings=True,
            bos_token_id=packed.separator,
            eos_token_id=packed.separator,
            pad_token_id=None,
            architectures=["LlamaForCausalLM"],
            dtype="float32",
            use_cache=True,
        )
        made = _Plain(config, asked.window, device, dtype)
        made.begin(asked.seed)
        return made
    held = encoders.transformer(Path(start), "AutoModelForCausalLM", "lm", dtype=torch.float32)
    config = held.config
    if config.vocab_size < packed.vocabulary:
        raise RecipeError(f"lm: start {start} knows {config.vocab_size:,} tokens and its tokenizer has {packed.vocabulary:,}")
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and asked.window > longest:
        raise RecipeError(f"lm: window is {asked.window}, and start {start} reads {longest} tokens at most: lower window")
    if not llama.plain(config):
        return _Other(held, device, dtype)
    found = _Plain(config, asked.window, device, dtype)
    found.shape.copy(held.state_dict(), found.weights)
    return found


# --------------------------------------------------------------------------------------------- the training


Bar = Callable[[int, int, float, float], None]


class _Run:
    """A training: what it needs from step to step, and what it leaves."""

    def __init__(
        self,
        asked: _Asked,
        packed: Packed,
        start: Path | str | None,
        folder: Path,
        work: Path,
        known: dict[str, Any],
        device: Any,
        dtype: Any,
    ):
        import torch

        size = SIZES[asked.size]
        self._plan = _Plan.of(asked, packed, asked.lr or (1e-3 if start is not None else size.lr), size.batch_tokens)
        self._asked, self._packed, self._folder, self._work, self._known = asked, packed, folder, work, known
        self._device = device
        self._model = _model(asked, packed, start, device, dtype)
        self._stream = packed.read()
        self._losses = torch.zeros(self._plan.steps, device=device)
        self._epoch, self._order = -1, np.empty(0, np.int64)
        self._rows = max(1, UNIT["cpu" if device.type == "cpu" else "cuda"] // asked.window)
        self._threads = (asked.threads or _cores()) if device.type == "cpu" else 1
        self._pool: ThreadPoolExecutor | None = None
        self._optimiser = self._adamw()
        here = {"device": device.type, "dtype": str(dtype), "torch": torch.__version__}
        self._print = hashlib.sha256(storage.canonical(known | here)).hexdigest()

    def _adamw(self) -> Any:
        import torch

        model, groups = self._model, []
        for part, decay in ((slice(0, model.matrices), self._asked.weight_decay), (slice(model.matrices, None), 0.0)):
            leaf = model.flat[part].detach().requires_grad_()
            leaf.grad = model.gradient[part]
            if leaf.numel():
                groups.append({"params": [leaf], "weight_decay": decay})
        fused = self._device.type in ("cpu", "cuda")
        return torch.optim.AdamW(groups, lr=self._plan.lr, betas=BETAS, eps=1e-8, fused=fused, foreach=None if fused else True)

    @contextlib.contextmanager
    def pooled(self) -> Iterator[None]:
        """With the threads of a CPU."""
        import torch

        if not self._model.apart:
            torch.set_num_threads(self._threads)
        if self._threads == 1 or not self._model.apart:
            yield
            return
        with ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,)) as self._pool:
            yield
        self._pool = None

    def run(self, bar: Bar) -> Training:
        with self.pooled():
            return self._run(bar)

    def _run(self, bar: Bar) -> Training:
        first, began, saved = self._resume(), time.perf_counter(), time.perf_counter()
        plan, window = self._plan, self._asked.window
        look = 1 if self._device.type == "cpu" else 32  # a GPU is not to wait for us
        for step in range(first, plan.steps):
            self.step(step)
            if (step + 1) % look and step + 1 < plan.steps:
                continue
            now = time.perf_counter()
            loss = float(self._losses[step])
            if not math.isfinite(loss):
                self._diverged(step)
            tokens = (plan.seen(step + 1) - plan.seen(first)) * window
            bar(step + 1, plan.steps, loss, tokens / (now - began))
            if now - saved >= self._asked.checkpoint_every and step + 1 < plan.steps:
                self._save(step + 1)
                saved = time.perf_counter()
        if not bool(self._model.flat.isfinite().all()):
            self._diverged(plan.steps - 1)
        seconds = time.perf_counter() - began
        found = self._finish()
        tokens = (plan.total - plan.seen(first)) * window
        return dataclasses.replace(found, seconds=seconds, tokens_per_second=tokens / max(seconds, 1e-9))

    def step(self, step: int) -> None:
        """One step of the optimiser."""
        import torch

        plan, window = self._plan, self._asked.window
        rows = self._drawn(plan.seen(step), plan.seen(step + 1))
        counts = np.full(len(rows), 1.0 / (len(rows) * window))
        if self._asked.weights is not None:
            each = torch.cat([losses for losses, _ in self._units(rows, counts, gradients=False)])
            given = np.asarray(self._asked.weights(each.double().cpu().numpy(), rows), np.float64)
            if given.shape != rows.shape:
                raise RecipeError(f"lm: weights gave an array of shape {given.shape} for {len(rows)} rows: one each is wanted")
            if not (np.isfinite(given) & (given >= 0)).all():
                raise RecipeError(f"lm: weights gave {given.min()} for a row: a number of at least 0 is wanted")
            counts = counts * given
        self._model.gradient.zero_()
        total = torch.zeros((), device=self._device)
        for losses, gradients in self._units(rows, counts, gradients=True):
            torch._foreach_add_(self._model.gradients, list(gradients))
            total += losses.sum()
        self._losses[step] = total / len(rows)
        norm = torch.linalg.vector_norm(self._model.gradient)
        self._model.gradient.mul_((self._asked.clip / (norm + 1e-6)).clamp_(max=1.0))
        for group in self._optimiser.param_groups:
            group["lr"] = plan.rate(step)
        self._optimiser.step()

    def _units(self, rows: np.ndarray, counts: np.ndarray, gradients: bool) -> Iterator[tuple[Tensor, Sequence[Tensor]]]:
        """(mean loss of each row, gradients) of stretches of rows, in order."""
        parts = [slice(at, at + self._rows) for at in range(0, len(rows), self._rows)]
        if self._pool is None:
            yield from (self._unit(rows[part], counts[part], gradients) for part in parts)
            return
        ahead: deque[Future[tuple[Tensor, Sequence[Tensor]]]] = deque()
        for part in parts:
            ahead.append(self._pool.submit(self._unit, rows[part], counts[part], gradients))
            if len(ahead) > self._threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _unit(self, rows: np.ndarray, counts: np.ndarray, gradients: bool) -> tuple[Tensor, Sequence[Tensor]]:
        import torch

        window, real = self._asked.window, len(rows)
        if self._device.type != "cpu" and real < self._rows:  # another shape would be compiled again
            rows = np.concatenate([rows, np.resize(rows, self._rows - real)])
            counts = np.concatenate([counts, np.zeros(self._rows - real)])
        block = torch.from_numpy(np.stack([self._stream[r * window : (r + 1) * window + 1] for r in rows]).astype(np.int64))
        scale = torch.from_numpy(np.repeat(counts, window).astype(np.float32))
        if self._device.type == "cuda":
            block, scale = block.pin_memory(), scale.pin_memory()
        block, scale = (t.to(self._device, non_blocking=True) for t in (block, scale))
        with torch.set_grad_enabled(gradients):
            losses = self._model.losses(block[:, :-1], block[:, 1:], scale)
            found = torch.autograd.grad(losses.sum(), self._model.leaves) if gradients else ()
        return losses.detach().view(len(rows), window)[:real].mean(1), found

    def _drawn(self, first: int, last: int) -> np.ndarray:
        """The rows that come at these places of all that are gone through."""
        found = []
        while first < last:
            epoch, at = divmod(first, self._plan.rows)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, self._plan.order(epoch)
            found.append(self._order[at : at + last - first])
            first += len(found[-1])
        return np.concatenate(found)

    def _diverged(self, step: int) -> None:
        losses = self._losses[: step + 1].cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(losses))
        at, what = (int(bad[0]), f"loss {losses[bad[0]]}") if len(bad) else (step, "weights that are no numbers")
        raise StageError(
            f"lm: the training of {self._folder} diverged at step {at + 1} of {self._plan.steps} "
            f"({what}): lower lr, which is {self._plan.lr:g}, or raise warmup, which is {self._plan.warmup}"
        )

    # ------------------------------------------------------------------------- what is kept

    def _tensors(self) -> dict[str, Tensor]:
        found = {"weights": self._model.flat, "losses": self._losses}
        for i, leaf in enumerate(self._leaves()):
            state = self._optimiser.state[leaf]
            found |= {f"{i}.first": state["exp_avg"], f"{i}.second": state["exp_avg_sq"]}
        return found

    def _leaves(self) -> list[Tensor]:
        return [leaf for group in self._optimiser.param_groups for leaf in group["params"]]

    def _save(self, step: int) -> None:
        from safetensors.torch import save_file

        if not bool(self._model.flat.isfinite().all()):
            self._diverged(step - 1)
        about = storage.canonical({"step": step, "identity": self._print}).decode()
        self._work.mkdir(parents=True, exist_ok=True)
        with storage.atomic(self._work / CHECKPOINT) as path:
            save_file(self._tensors(), path, metadata={"about": about})

    def _resume(self) -> int:
        """The step to go on with: 0 where there is no checkpoint, or one of another training."""
        import orjson
        import torch
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._work / CHECKPOINT, "pt", device=str(self._device)) as held:
                about = orjson.loads((held.metadata() or {}).get("about", "{}"))
                if about.get("identity") != self._print:
                    return 0
                tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - it is no mapping
        except (OSError, SafetensorError, ValueError):
            return 0
        named = {"weights", "losses", *(f"{i}.{moment}" for i in range(len(self._leaves())) for moment in ("first", "second"))}
        if tensors.keys() != named:
            return 0
        with torch.no_grad():
            self._model.flat.copy_(tensors["weights"])
            self._losses.copy_(tensors["losses"])
        for i, leaf in enumerate(self._leaves()):
            self._optimiser.state[leaf] = {
                "step": torch.tensor(float(about["step"]), device=self._device),
                "exp_avg": tensors[f"{i}.first"],
                "exp_avg_sq": tensors[f"{i}.second"],
            }
        return int(about["step"])

    def _finish(self) -> Training:
        import torch
        import transformers
        from safetensors.torch import save_file

        plan, window = self._plan, self._asked.window
        config, weights = self._model.state()
        parameters, embedding = self._model.counts()
        losses = self._losses.double().cpu().numpy()
        made = Training(
            self._folder, parameters, embedding, plan.total * window, plan.steps,
            float(losses[-max(1, plan.steps // 10) :].mean()), _curve(losses, plan, window),
        )  # fmt: skip
        about = {k: v for k, v in dataclasses.asdict(made).items() if k not in ("folder", "seconds", "tokens_per_second")}
        about |= {"left_over": (self._packed.tokens - 1) % window, "batch_tokens": plan.batch * window, "lr": plan.lr}
        about |= {"warmup": plan.warmup, "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}
        with storage.atomic_folder(self._folder) as new:
            config.save_pretrained(new)
            held = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
            save_file(held, new / "model.safetensors", metadata={"format": "pt"})
            for name in FILES:
                if (self._packed.folder / name).is_file():
                    shutil.copyfile(self._packed.folder / name, new / name)
            storage.write_json(new / JSON, about | {"identity": self._known})
        return made


def _watched() -> bool:
    return sys.stderr.isatty() and multiprocessing.parent_process() is None


def _curve(losses: np.ndarray, plan: _Plan, window: int) -> list[dict[str, Any]]:
    bounds = np.unique(np.linspace(0, plan.steps, min(POINTS, plan.steps) + 1).astype(np.int64)).tolist()
    return [
        {
            "step": b,
            "tokens": plan.seen(b) * window,
            "loss": round(float(losses[a:b].mean()), 6),
            "lr": plan.rate(b - 1),
        }
        for a, b in itertools.pairwise(bounds)
    ]


@contextlib.contextmanager
def _shown(wanted: bool) -> Iterator[Bar]:
    if not wanted:
        yield lambda step, steps, loss, speed: None
        return
    from rich import progress
    from rich.console import Console

    columns: Sequence[Any] = (
        progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(), progress.TimeRemainingColumn(),
    )  # fmt: skip
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task("lm")

        def show(step: int, steps: int, loss: float, speed: float) -> None:
            bar.update(row, total=steps, completed=step, description=f"loss {loss:.3f}, {speed:,.0f} tokens/s")

        yield show
