"""Texts through a transformer, so that a text gets the same bytes whatever stands beside it.

A matrix product adds up in an order that depends on the shape of the matrices, and padding changes that shape. So there are
few shapes, and which one a text gets depends on its own length alone: texts are sorted by their number of tokens, padded to
the next of `LENGTHS`, and go through the model in blocks of a fixed number of rows, the last of which is filled up with copies.
On a CPU the model has one thread, as each worker of a run has; several workers are how more cores are used. With that, a text
has the same result in every batch, order, shard and number of workers on one machine with one version of torch. Another kind
of processor, a GPU, or another version gives other last bits: about 1e-6 of a score in single precision, about 1e-2 of a logit
in bfloat16, which is what a GPU computes in.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.errors import MissingExtra, RecipeError, SourceError

MAX_TOKENS = 512
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
TOKENS = {"cpu": 512, "cuda": 16_384}  # in one block
CHUNK = 1024  # texts that are turned into tokens at a time
CHARACTERS = 64  # of a text that are looked at for each token that may be wanted
DEVICES = ("auto", "cpu", "cuda", "mps")
_SUFFIXES = (".json", ".txt", ".safetensors", ".model", ".jinja", ".npz")

Forward = Callable[[dict[str, Any]], Any]


def require(packages: Sequence[str], extra: str, needed_by: str) -> None:
    """Raises MissingExtra for the first package that is not installed; imports none."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra, needed_by)


def folder_of(model: str, what: str) -> Path:
    """The folder of a model: a path, or `org/repo` or `hf://org/repo`, with `@revision` behind it if need be, from the hub
    (its cache first). what: for messages. Raises RecipeError, in one line, where there is none.

    Of a repository only JSON, text and safetensors are fetched: nothing that is run or unpickled.
    """
    if Path(model).exists():
        return Path(model)
    name = model.removeprefix("hf://")
    repo, _, revision = name.partition("@")
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")) or not all(repo.split("/")):
        raise RecipeError(f"{what}: no such model: {model}; name a folder, or a repository of the hub as org/repo")
    return Path(_snapshot(repo, revision or None, what))


@functools.lru_cache(maxsize=32)
def _snapshot(repo: str, revision: str | None, what: str) -> str:
    require(["huggingface_hub"], "embed", what)
    import huggingface_hub as hub

    wanted = [f"*{suffix}" for suffix in _SUFFIXES]
    unwanted = ["onnx/*", "openvino/*"]
    with contextlib.suppress(Exception):  # not there yet, which the next line sees to
        return hub.snapshot_download(
            repo, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted, local_files_only=True
        )
    try:
        return hub.snapshot_download(repo, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted)
    except Exception as error:  # the client has dozens
        raise RecipeError(f"{what}: no such folder: {repo}; and it cannot be had from the hub ({short(error)})") from None


def files(folder: Path) -> tuple[str, ...]:
    """The files of a model that decide its results, in order."""
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES and path.is_file() and not {"onnx", "openvino"} & set(path.relative_to(folder).parts)
    ]
    return tuple(str(path) for path in sorted(found) if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object. Raises RecipeError where it is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecipeError(f"{what}: {path.parent} is no model: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{what}: {path} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise RecipeError(f"{what}: {path} is not a JSON object")
    return found


def device_of(wanted: str) -> str:
    """The device to run on: for `auto` the first of cuda, mps and cpu that is there. Raises RecipeError for one that is not."""
    import torch

    there = ["cpu"]
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if torch.backends.mps.is_available():
        there.insert(len(there) - 1, "mps")
    if wanted == "auto":
        return there[0]
    if wanted not in there:
        raise RecipeError(f"device {wanted!r} is not on this machine; there is {', '.join(there)}")
    return wanted


def dtype_of(device: str) -> Any:
    """bfloat16 on a GPU that computes in it, else single precision."""
    import torch

    return torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


class Encoder:
    """A model that turns tokens into rows of numbers.

    tokens: texts to arrays (int64, texts x longest; `attention_mask` among them), cut at `max_tokens`. forward: tensors of one
    block to a tensor (rows x outputs). padding: what stands for nothing in an array, 0 where it is not named. left: whether
    texts are padded on the left.
    """

    def __init__(
        self,
        tokens: Callable[[list[str]], Mapping[str, Any]],
        forward: Forward,
        *,
        outputs: int,
        device: str,
        max_tokens: int,
        padding: Mapping[str, int],
        left: bool,
    ):
        self._tokens, self._forward, self._device = tokens, forward, device
        self._outputs, self._max, self._padding, self._left = outputs, max_tokens, padding, left
        self._lengths = [length for length in LENGTHS if length < max_tokens] + [max_tokens]
        self._room = TOKENS.get(device, TOKENS["cuda"])

    def __call__(self, texts: pa.Array) -> np.ndarray:
        """float32 (texts, outputs); a null is an empty text."""
        out = np.empty((len(texts), self._outputs), np.float32)
        with inference(self._device):
            for at in range(0, len(texts), CHUNK):
                part = [text or "" for text in texts.slice(at, CHUNK).to_pylist()]
                out[at : at + len(part)] = self._chunk([text[: self._max * CHARACTERS] for text in part])
        return out

    def _chunk(self, texts: list[str]) -> np.ndarray:
        given = {name: np.asarray(values) for name, values in self._tokens(texts).items() if np.ndim(values) == 2}
        sizes = given["attention_mask"].sum(1)
        lengths = np.array(self._lengths)[np.searchsorted(self._lengths, sizes)]
        order = np.lexsort((np.arange(len(texts)), sizes))
        out = np.empty((len(texts), self._outputs), np.float32)
        for length in np.unique(lengths).tolist():
            rows = order[lengths[order] == length]
            block = rows_of(self._room // length)
            wide = {name: self._fitted(values[rows], length, self._padding.get(name, 0)) for name, values in given.items()}
            for at in range(0, len(rows), block):
                here = rows[at : at + block]
                out[here] = self._block({name: values[at : at + block] for name, values in wide.items()}, block)[: len(here)]
        return out

    def _block(self, arrays: dict[str, np.ndarray], rows: int) -> np.ndarray:
        import torch

        fill = np.arange(rows) % len(next(iter(arrays.values())))
        tensors = {name: torch.from_numpy(values[fill]).to(self._device) for name, values in arrays.items()}
        return self._forward(tensors).float().cpu().numpy()

    def _fitted(self, values: np.ndarray, length: int, padding: int) -> np.ndarray:
        """The same tokens in rows of another length, which is long enough for them."""
        width = values.shape[1]
        if width >= length:
            return values[:, width - length :] if self._left else values[:, :length]
        more = np.full((len(values), length - width), padding, values.dtype)
        return np.concatenate([more, values] if self._left else [values, more], 1)


@contextlib.contextmanager
def inference(device: str) -> Iterator[None]:
    """Without gradients, and on a CPU with one thread, since the bits of a product depend on how it is shared out."""
    import torch

    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        if device == "cpu":
            torch.set_num_threads(before)


def rows_of(most: int) -> int:
    """Rows of a block: a power of two, since products with a single output add up rows that do not fill a vector register in
    another order; and for the same reason not two."""
    rows = 1 << max(most, 1).bit_length() - 1
    return 1 if rows == 2 else rows


def longest(limit: int, *known: Any) -> int:
    """The number of tokens that a text is cut at: the smallest of the limits that are known; the rest are None or absurd."""
    return min([limit, *(int(n) for n in known if isinstance(n, int) and 0 < n < 1 << 20)])


_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def has_tokenizer(folder: Path, what: str) -> None:
    """Raises SourceError for a folder without the file of a tokenizer, for which transformers would make one up."""
    if not any(Path(file).name in _TOKENIZERS for file in files(folder)):
        raise SourceError(f"{what}: {folder} has no tokenizer; one of these is expected: {', '.join(_TOKENIZERS)}")


def tokenizer_of(folder: Path, what: str) -> Any:
    """The tokenizer in a folder, with something to pad with. Raises SourceError."""
    from transformers import AutoTokenizer

    has_tokenizer(folder, what)
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
        except Exception as error:  # any of the loaders of two libraries
            raise SourceError(f"{what}: {folder} has no tokenizer that can be read ({short(error)})") from None
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise SourceError(f"{what}: {folder} has a tokenizer with nothing to pad with: set pad_token in its configuration")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pads(tokenizer: Any) -> dict[str, int]:
    """What stands for nothing in each array of a tokenizer."""
    return {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0) or 0}


def transformer(folder: Path, auto: str, what: str, **more: Any) -> Any:
    """A model out of a folder, by a class of transformers (`AutoModel`, …), ready to score. Raises SourceError.

    Weights are safetensors: nothing is unpickled, and no code of the folder runs. A weight that the model needs and the folder
    does not have is an error: it would be random.
    """
    import transformers

    try:
        with quiet():
            model, info = getattr(transformers, auto).from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # it would say only that there are some; they are refused below
                trust_remote_code=False,
                **more,
            )
    except Exception as error:
        raise SourceError(f"{what}: {folder} holds no model that can be read ({short(error)})") from None
    absent = sorted(name for name in info["missing_keys"] if "pooler" not in name or auto != "AutoModel")
    if absent:
        raise SourceError(f"{what}: {folder} lacks the weights {absent[0]!r} that its config.json asks for")
    wrong = sorted(str(found[0] if isinstance(found, tuple) else found) for found in info["mismatched_keys"])
    if wrong:
        raise SourceError(f"{what}: {folder} has weights {wrong[0]!r} of another shape than its config.json asks for")
    return model.eval()


def short(error: Exception) -> str:
    """The first line of what an error says."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars and advice of transformers on the terminal."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


# --------------------------------------------------------------------------------------------- safetensors

_KINDS = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U8": np.uint8,
}  # fmt: skip


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a safetensors file: only its header is read. Raises SourceError."""
    return {name: shape for name, (_, shape, _, _) in _header(path).items()}


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by name; bfloat16 as float32. Raises SourceError."""
    header = _header(path)
    data = np.memmap(path, np.uint8, "r")
    found = {}
    for name, (kind, shape, begin, end) in header.items():
        values = np.frombuffer(data[begin:end], _KINDS[kind]).reshape(shape)
        found[name] = (values.astype(np.uint32) << np.uint32(16)).view(np.float32) if kind == "BF16" else values
    return found


def _header(path: Path) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            first = 8 + int.from_bytes(stream.read(8), "little")
            if first > min(size, 100 << 20):
                raise ValueError("it is cut short")
            held = json.loads(stream.read(first - 8))
        found = {}
        for name, what in held.items():
            if name == "__metadata__":
                continue
            kind, shape, (begin, end) = what["dtype"], tuple(map(int, what["shape"])), what["data_offsets"]
            if kind not in _KINDS:
                raise ValueError(f"{name} is of the unknown type {kind}")
            count = int(np.prod(shape, dtype=object)) * np.dtype(_KINDS[kind]).itemsize
            if not 0 <= begin <= end <= size - first or end - begin != count or min(shape, default=0) < 0:
                raise ValueError(f"{name} does not fit, or it is cut short")
            found[name] = (kind, shape, first + begin, first + end)
        return found
    except FileNotFoundError:
        raise SourceError(f"{path} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path} is not a safetensors file: {error}") from None
