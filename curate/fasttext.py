"""Supervised fastText models read and scored without the fastText library.

`.bin` and quantised `.ftz`; softmax, hierarchical softmax and one-vs-all (`ova`, `ns`) losses; word n-grams, character
n-grams, pruned dictionaries. A model is read by rule, as numbers and strings, so a hostile file can give wrong scores or an
error, but not run anything.

    from curate import fasttext

    model = fasttext.load("lid.176.ftz")
    labels, scores = model.predict(["Guten Tag, wie geht es Ihnen?"])

Scores agree with the library's to 1e-5, its quirks included: it adds 1e-5 to a probability before taking the logarithm (in a
tree at each decision), so its scores may exceed 1 a little, and it looks one-vs-all probabilities up in a table of 512
steps. Each text is one line to it: a newline is a space here, and the end of the text is the word `</s>`.

Where that makes rows shorter (two labels, or a few, on rows of 100 numbers), the rows of the input matrix are multiplied with
the output matrix at loading, and a text is the mean of rows of as many numbers as there are labels: the same sums in another
order. Source: Joulin et al. 2016 (https://arxiv.org/abs/1607.01759, https://arxiv.org/abs/1612.03651) and the format that
fastText 0.9.2 writes.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.errors import SourceError

if TYPE_CHECKING:
    from curate.kernels.fasttext import Features, Memo, Output

OFFSET = 1e-5  # what the library adds to each probability
_MAGIC, _VERSIONS = 793712314, (11, 12)
_SUPERVISED = 3
_LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}
_BLOCK = 1 << 16
_COPIED = 256 << 20  # a mapped matrix up to this size is copied to where its numbers are aligned


class Unsupported(SourceError):
    """A fastText model, as far as can be seen, that is not read here: the library might."""


class Model:
    """A supervised fastText model. `load` makes one.

    labels: names without the prefix `__label__`, in the model's order. dim: numbers in a row of the file. loss: `softmax`,
    `hs`, `ova` or `ns`. ngrams, minn, maxn, bucket: as it was trained.

    Several threads may score with one model.
    """

    labels: tuple[str, ...]
    dim: int
    loss: str
    ngrams: int
    minn: int
    maxn: int
    bucket: int

    def __init__(self, path: str, header: dict[str, int], labels: Sequence[str], features: Features, output: Output):
        self.path = path
        self.labels = tuple(labels)
        self.dim, self.bucket = header["dim"], header["bucket"]
        self.ngrams, self.minn, self.maxn = header["ngrams"], header["minn"], header["maxn"]
        self.loss = _LOSSES[header["loss"]]
        self._features, self._output = features, output
        self._memos: list[Memo] = []

    def __repr__(self) -> str:
        return f"Model({self.path!r}, {len(self.labels)} labels, dim={self.dim}, loss={self.loss!r})"

    def scores(self, text: Any, *, offset: float = OFFSET, strict: bool = False) -> np.ndarray:
        """Score of every label for each text: float32 (texts, labels), in the order of `labels`.

        text: string or large_string array, or a sequence of strings; a null is empty. offset: what is added to each
        probability; 0 gives the probabilities themselves. Zeros where the model has no feature of a text; strict: NaN there,
        and where the end of the text is the only one, which says nothing of the text.
        """
        from curate.kernels.fasttext import all_scores

        means, counts = self._means(*_spans(text))
        found = all_scores(means, counts, self._output._replace(added=offset))
        if strict:
            found[counts <= self._at_end] = np.nan
        return found

    @functools.cached_property
    def _at_end(self) -> int:
        """How many features a text without words has: the word `</s>`, where the model knows it."""
        return int(self._means(*_spans([""]))[1][0])

    def predict(self, text: Any, k: int = 1, *, offset: float = OFFSET) -> tuple[pa.Array, pa.Array]:
        """The k best labels of each text and their scores, best first: lists of strings and of float32.

        text, offset: as for `scores`. A list has fewer than k where there are fewer labels, and none for a text of which
        the model has no feature.
        """
        if k < 1:
            raise ValueError(f"k is {k}; at least one label")
        k = min(k, len(self.labels))
        if k == 1:
            best, first = self.best(*_spans(text), offset=offset)
            order, top, some = best[:, None], first[:, None], best >= 0
        else:
            found = self.scores(text, offset=offset)
            order = np.argsort(-found, axis=1, kind="stable")[:, :k]
            top = np.take_along_axis(found, order, 1)
            some = np.asarray(found.any(1))
        bounds = np.concatenate(([0], np.cumsum(np.where(some, k, 0)))).astype(np.int32)
        names = pa.array(self.labels, pa.string()).take(pa.array(order[some].ravel()))
        return pa.ListArray.from_arrays(bounds, names), pa.ListArray.from_arrays(bounds, pa.array(top[some].ravel()))

    def best(
        self, starts: np.ndarray, ends: np.ndarray, data: np.ndarray, *, offset: float = OFFSET, strict: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Number of the best label (int32, -1 for none) and its score (float32) of each text data[starts[i]:ends[i]].

        strict: as for `scores`; -1 and NaN there.
        """
        from curate.kernels.fasttext import best_scores

        means, counts = self._means(starts, ends, data)
        label, score = best_scores(means, counts, self._output._replace(added=offset))
        if strict:
            bare = counts <= self._at_end
            label[bare], score[bare] = -1, np.nan
        return label, score

    def _means(self, starts: np.ndarray, ends: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from curate.kernels.fasttext import average, average_words, memo

        if not self._features.maxn:
            return average_words(starts, ends, data, *self._features)
        try:  # each caller takes a memory for itself: threads never share one
            remembered = self._memos.pop()
        except IndexError:
            remembered = memo(self._features.rows.shape[1])
        try:
            return average(starts, ends, data, *self._features, *remembered)
        finally:
            self._memos.append(remembered)


def load(path: str | Path) -> Model:
    """Read a model. Raises SourceError, in one line, for what is none, is cut short, is not supervised, or is of another
    version of the format.

    Memory: a matrix of more than 256 MiB stays in the file (mapped, shared by processes) unless it is quantised or is
    multiplied with the output; else rows x min(dim, labels) x 4 bytes.
    """
    return _read(_open(str(path)))


def labels(path: str | Path) -> tuple[str, ...]:
    """The labels of a model, as `load(path).labels`, without reading its matrices. Raises SourceError as `load` does."""
    path = str(path)
    r = _open(path)
    _, (bounds, letters, *_), words, _ = _dictionary(r)
    return _names(bounds[words:], letters)


def _open(path: str) -> _Reader:
    try:
        with open(path, "rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise SourceError(f"{path} is not a fastText model: it is empty") from None
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    return _Reader(path, data)


class _Reader:
    """Numbers out of the bytes of a model, never past their end."""

    def __init__(self, path: str, data: mmap.mmap):
        self.path, self.data, self.at = path, np.frombuffer(data, np.uint8), 0
        self.map = data
        self.unsupported = ""  # said at the end: a file that is no model at all is not for the library either

    def bad(self, what: str) -> SourceError:
        return SourceError(f"{self.path} is not a fastText model: {what}")

    def short(self) -> SourceError:
        return SourceError(f"{self.path} is cut short: it has {len(self.data):,} bytes and should have more; fetch it again")

    def take(self, n: int, kind: Any = np.uint8) -> np.ndarray:
        """The next n values, a view."""
        size = n * np.dtype(kind).itemsize
        if n < 0 or size > len(self.data) - self.at:
            raise self.short() if n >= 0 else self.bad("it has a negative size")
        found = np.frombuffer(self.data, kind, n, self.at) if n else np.empty(0, kind)
        self.at += size
        return found

    def forget(self) -> None:
        """Give back the memory of what was read, which the file still has."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)

    def unpack(self, kinds: str) -> tuple[Any, ...]:
        form = struct.Struct("<" + kinds)
        return form.unpack(self.take(form.size).tobytes())


def _dictionary(r: _Reader) -> tuple[dict[str, int], tuple[np.ndarray, ...], int, int]:
    """Header; bounds, letters and counts of words and labels; how many are words, and how many n-grams were kept (-1: all)."""
    from curate.kernels.fasttext import parse_entries

    path = r.path
    if len(r.data) < 8 or r.unpack("i") != (_MAGIC,):
        raise r.bad("it does not begin as one")
    version = r.unpack("i")[0]
    if version not in _VERSIONS:
        what = f"{path} has version {version} of fastText's format; versions 11 and 12 can be read"
        if version > max(_VERSIONS):
            raise SourceError(what)
        r.unsupported = what
    fields = ("dim", "ws", "epoch", "min_count", "neg", "ngrams", "loss", "model", "bucket", "minn", "maxn", "rate")
    header = dict(zip(fields, r.unpack("12i"), strict=True))
    r.unpack("d")
    if header["model"] != _SUPERVISED:
        raise SourceError(f"{path} holds word vectors, not a classifier: train one with `fasttext supervised`")
    if version == 11:
        header["maxn"] = 0  # classifiers of that time had no character n-grams, whatever the file says
    if header["loss"] not in _LOSSES or header["dim"] < 1 or header["bucket"] < 0:
        raise r.bad("its parameters make no sense")
    if max(header["ngrams"], header["maxn"]) > 99:
        r.unsupported = f"{path} has n-grams of more than 99 words or characters"

    size, words, labels, _, pruned = r.unpack("3i2q")
    if words < 0 or labels < 1 or size != words + labels or pruned < -1:
        raise r.bad("its dictionary makes no sense")
    if size * 10 > len(r.data) - r.at:
        raise r.short()
    bounds, letters, tally, kinds, r.at = parse_entries(r.data, r.at, size)
    if r.at < 0:
        raise r.short()
    if kinds[:words].any() or (kinds[words:] != 1).any():
        raise r.bad("its dictionary mixes words and labels")
    return header, (bounds, letters, tally), words, pruned


def _names(bounds: np.ndarray, letters: np.ndarray) -> tuple[str, ...]:
    found = (letters[a:b].tobytes().decode("utf-8", "replace") for a, b in itertools.pairwise(bounds.tolist()))
    return tuple(name.removeprefix("__label__") for name in found)


def _read(r: _Reader) -> Model:
    from curate.kernels.fasttext import EACH, SOFTMAX, TREE, Features, Output, index_words

    path = r.path
    header, (bounds, letters, tally), words, pruned = _dictionary(r)
    labels = len(bounds) - 1 - words
    pairs = r.take(max(pruned, 0) * 2, "<i4").reshape(-1, 2)

    quantised = r.unpack("?")[0]
    if pruned >= 0 and not quantised:
        raise r.bad("it is pruned but not quantised")
    rows: np.ndarray | _Coded = _matrix(r, quantised, header["dim"])
    by_hash = (header["maxn"] > 0 or header["ngrams"] > 1) and pruned != 0
    if by_hash and not header["bucket"]:
        raise r.bad("it has n-grams but no buckets for them")
    rank, kept = np.empty(0, np.int32), np.empty(0, np.uint64)
    if pruned > 0:
        pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
        if pairs[0, 0] < 0 or pairs[-1, 0] >= header["bucket"] or pairs[:, 1].min() < 0 or (np.diff(pairs[:, 0]) == 0).any():
            raise r.bad("its list of pruned n-grams makes no sense")
        kept = np.zeros(header["bucket"] // 64 + 1, np.uint64)
        np.bitwise_or.at(kept, pairs[:, 0] >> 6, np.uint64(1) << (pairs[:, 0] & 63).astype(np.uint64))
        rank = np.searchsorted(pairs[:, 0], np.arange(len(kept)) * 64).astype(np.int32)
    needed = words + (int(pairs[:, 1].max()) + 1 if pruned > 0 else header["bucket"] if by_hash else 0)
    if len(rows) < needed:
        raise r.bad(f"its input matrix has {len(rows):,} rows and should have {needed:,}")
    if pruned > 0:
        rows = rows.only(np.concatenate([np.arange(words), words + pairs[:, 1]])) if isinstance(rows, _Coded) else rows

    quantised_too = r.unpack("?")[0]
    out = _matrix(r, quantised and quantised_too, header["dim"])
    if len(out) != labels:
        raise r.bad(f"its output matrix has {len(out):,} rows for {labels:,} labels")
    if r.unsupported:
        raise Unsupported(r.unsupported)

    kind = {"hs": TREE, "softmax": SOFTMAX}.get(_LOSSES[header["loss"]], EACH)
    weights = np.asarray(out[:], np.float32)
    folded = weights[:-1] - weights[-1] if kind == SOFTMAX else weights[:-1] if kind == TREE else weights
    if len(folded) <= header["dim"]:
        rows = _multiplied(r, rows, folded)
        weights = np.empty((0, 0), np.float32)
    left, right = _tree(r, tally[words:]) if kind == TREE else (np.empty(0, np.int32), np.empty(0, np.int32))
    if isinstance(rows, _Coded):
        rows = rows[:]
    if not rows.flags.aligned and rows.nbytes <= _COPIED:
        rows = rows.copy()
    rows.setflags(write=False)  # as a mapped one: kernels are compiled for either
    slots, hashes, short = index_words(letters, bounds)
    if rows.shape[1] == 1:
        number = np.minimum(short[:, 2] >> np.uint64(32), np.uint64(words))  # what is none of the words is a label
        short.view(np.float32)[:, 6] = np.append(rows[:words, 0], np.float32(0))[number]
    features = Features(
        rows=rows, slots=slots, hashes=hashes, bounds=bounds, letters=letters, short=short, kept=kept, rank=rank,
        words=words, bucket=header["bucket"], minn=header["minn"], maxn=header["maxn"] if by_hash else 0,
        ngrams=header["ngrams"] if by_hash else 1,
    )  # fmt: skip
    output = Output(
        kind=kind, weights=np.ascontiguousarray(weights.T), left=left, right=right, sigmoid=_sigmoid(), labels=labels,
        added=OFFSET,
    )  # fmt: skip
    return Model(path, header, _names(bounds[words:], letters), features, output)


class _Coded:
    """A quantised matrix, whose rows are decoded when they are asked for: float32 (rows, width)."""

    def __init__(self, codes: np.ndarray, norms: np.ndarray, centroids: np.ndarray, begins: np.ndarray, sizes: np.ndarray):
        self.codes, self.norms, self.quantiser = codes, norms, (centroids, begins, sizes)

    def __len__(self) -> int:
        return len(self.codes)

    def only(self, which: np.ndarray) -> _Coded:
        """These of the rows, still in code."""
        return _Coded(self.codes[which], self.norms[which], *self.quantiser)

    def __getitem__(self, which: slice) -> np.ndarray:
        from curate.kernels.fasttext import decode_rows

        return decode_rows(self.codes[which], self.norms[which], *self.quantiser)


def _matrix(r: _Reader, quantised: bool, dim: int) -> np.ndarray | _Coded:
    """A matrix of the file, float32: a view of the bytes, or one that is decoded by rows."""
    if not quantised:
        m, n = r.unpack("2q")
        if m < 0 or n != dim:
            raise r.bad(f"a matrix has {n} columns for rows of {dim}")
        return r.take(m * n, "<f4").reshape(m, n)
    normed, m, n, size = r.unpack("?2qi")
    if m < 0 or n != dim:
        raise r.bad(f"a matrix has {n} columns for rows of {dim}")
    codes = r.take(size)
    begins, sizes, centroids = _quantiser(r, dim)
    if size != m * len(sizes):
        raise r.bad("a matrix does not fit its quantiser")
    norms = np.ones(m, np.float32)
    if normed:
        of = r.take(m)
        norms = _quantiser(r, 1)[2][of]
    return _Coded(codes.reshape(m, len(sizes)), norms, centroids, begins, sizes)


def _quantiser(r: _Reader, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the parts of a row: where the centroids of each begin, how many numbers each has, and the centroids."""
    n, parts, size, last = r.unpack("4i")
    if n != dim or parts < 1 or size < 1 or last < 1 or (parts - 1) * size + last != n:
        raise r.bad("a quantiser makes no sense")
    sizes = np.full(parts, size, np.int64)
    sizes[-1] = last
    return np.arange(parts, dtype=np.int64) * size * 256, sizes, np.ascontiguousarray(r.take(dim * 256, "<f4"))


def _multiplied(r: _Reader, rows: np.ndarray | _Coded, weights: np.ndarray) -> np.ndarray:
    """rows @ weights.T in blocks, float32, so that the rows are never in memory as a whole."""
    found = np.empty((len(rows), len(weights)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, len(rows), _BLOCK):
            found[at : at + _BLOCK] = rows[at : at + _BLOCK] @ weights.T
            r.forget()
    return found


def _tree(r: _Reader, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Children of the nodes of the Huffman tree over labels in descending order of their counts, as fastText grows it."""
    n = len(counts)
    weight = [*counts.tolist(), *[10**15] * (n - 1)]
    left, right = np.full(2 * n - 1, -1, np.int32), np.full(2 * n - 1, -1, np.int32)
    leaf, node = n - 1, n
    for i in range(n, 2 * n - 1):
        pair = []
        for _ in range(2):
            if leaf >= 0 and weight[leaf] < weight[node]:
                pair.append(leaf)
                leaf -= 1
            elif node < i:
                pair.append(node)
                node += 1
            else:
                raise r.bad("the counts of its labels make no sense")
        left[i], right[i] = pair
        weight[i] = weight[pair[0]] + weight[pair[1]]
    return left, right


def _sigmoid() -> np.ndarray:
    """1 / (1 + exp(-x)) at 513 places from -8 to 8."""
    x = np.arange(513) / 32 - 8
    return (1 / (1 + np.exp(-x))).astype(np.float32).astype(np.float64)


def _spans(text: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from curate.langid import spans

    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    return spans(text if isinstance(text, pa.Array) else pa.array(text, pa.string()))
