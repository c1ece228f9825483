"""Back-off n-gram language models: counted in one pass over the texts, without torch, at tens of megabytes a second.

Tokens are the words of a closed vocabulary, each with the space before it, parts of words, and the 256 bytes, with which all
other words are spelled: the tokens of a text are all of the text, none has the probability 0, and what two models with the same
vocabulary lose on it can be compared. What is not predicted is that a text ends.

Probabilities are interpolated modified Kneser-Ney: they sum to one over the vocabulary after any context, a context that was
never seen included. `NGram.adapted` mixes such a model with one of the texts of a target, which is the conditional model of a
CoLoR-Filter pair.

    from curate.lm import ngram

    prior = ngram.train([pa.array(["A text.", "Another."])])
    conditional = prior.adapted([pa.array(["What is wanted."])])

Source: Chen and Goodman 1999, An empirical study of smoothing techniques for language modeling (modified Kneser-Ney, doi:
10.1006/csla.1999.0128); what is forgotten when there is no more room follows Manku and Motwani 2002, Approximate frequency
counts over data streams.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from curate.errors import RecipeError, SourceError
from curate.langid import spans
from curate.lm import WINDOW, Losses, TokenLosses
from curate.storage import atomic_folder, read_json, write_json

FORMAT = 1
JSON, WORDS = "ngram.json", "words.npz"
BYTES = 256  # the tokens that are bytes; words are numbered from here on
ORDER, ORDERS = 3, 8
VOCABULARY = 1 << 16
ROOM = 12_000_000
SAMPLE = 64 << 20
HELD_OUT = 5  # one text in so many
_HELD_TOKENS = 1 << 22
_FEW = 20  # texts, of which runs are held out rather than texts
_BLOCK = 4 << 20  # bytes of text at once
_PARTS = 4  # one token in so many is for parts of words
_RARE = 1 << 15  # words that parts are found in
_OFTEN = 4  # of these, in which a part has to be


@dataclass(frozen=True, eq=False)
class Units:
    """The tokens of a model: 256 bytes, then words and parts: the i-th is letters[bounds[i]:bounds[i + 1]] (uint8, int64)."""

    letters: np.ndarray
    bounds: np.ndarray

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return BYTES + len(self.bounds) - 1

    @cached_property
    def digest(self) -> str:
        """Equal for the same tokens only."""
        return hashlib.sha256(self.bounds.tobytes() + self.letters.tobytes()).hexdigest()

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        from curate.kernels.ngram import index_words

        return index_words(self.letters, self.bounds)

    def encode(self, texts: pa.Array, window: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """By blocks of texts: see `curate.kernels.ngram.encode`."""
        from curate.kernels.ngram import encode

        starts, ends, data = spans(texts)
        at = 0
        for stop in _cuts(ends - starts):
            yield encode(starts[at:stop], ends[at:stop], data, *self._index, window)
            at = stop

    def token(self, number: int) -> bytes:
        """The bytes that a token stands for."""
        at = number - BYTES
        return bytes([number]) if at < 0 else self.letters[self.bounds[at] : self.bounds[at + 1]].tobytes()


class Table(NamedTuple):
    """The probabilities of one model: see `curate.kernels.ngram.estimate`. tokens: of how many."""

    order: int
    tokens: int
    unigrams: np.ndarray
    slots: np.ndarray


@dataclass(frozen=True, eq=False)
class NGram:
    """An n-gram model, or a mixture of several with the same tokens; a `LanguageModel`.

    tables: its parts, weights: their shares, which sum to one.
    """

    units: Units
    tables: tuple[Table, ...]
    weights: tuple[float, ...]

    @property
    def vocabulary(self) -> int:
        """How many different tokens there are."""
        return self.units.vocabulary

    @property
    def digest(self) -> str:
        """Equal for models with the same tokens, whose losses can be compared."""
        return self.units.digest

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(int32 tokens of all texts, int64 bounds of each); a null has none."""
        blocks = list(self.units.encode(texts, 1 << 62))
        return _joined([ids for ids, *_ in blocks], np.int32), _bounds([bounds for _, bounds, *_ in blocks])

    def losses(self, texts: pa.Array, window: int = WINDOW) -> Losses:
        """What it loses on texts (string array; a null is an empty text), by runs of `window` tokens, each read by itself."""
        from curate.kernels.ngram import sums

        if window < 1:
            raise RecipeError(f"ngram: a window of {window} tokens: give 1 or more")
        nll, tokens, ends, of_texts = [], [], [], []
        for ids, bounds, cuts, cut_bounds in self.units.encode(texts, window):
            runs = _runs(bounds, window)
            nll.append(-sums(self._logprobs(ids, runs), runs))
            tokens.append(np.diff(runs))
            ends.append(cuts)
            of_texts.append(cut_bounds)
        return Losses(_bounds(of_texts), _joined(nll, np.float64), _joined(tokens, np.int64), _joined(ends, np.int64))

    def token_losses(self, texts: pa.Array, most: int) -> TokenLosses:
        """What it says about the first `most` tokens of each text; all of them are read as one run."""
        found, logprobs, of_texts = [], [], []
        for ids, bounds, *_ in self.units.encode(texts, 1 << 62):
            ids, bounds = _heads(ids, bounds, most)
            found.append(ids)
            logprobs.append(self._logprobs(ids, bounds).astype(np.float32))
            of_texts.append(bounds)
        return TokenLosses(_bounds(of_texts), _joined(found, np.int32), _joined(logprobs, np.float32))

    def logprobs(self, ids: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """ln p (float64) of each token (int32), in runs ids[runs[i]:runs[i + 1]] that are each read by itself."""
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocabulary:
            raise ValueError(f"tokens are numbers from 0 to {self.vocabulary - 1}")
        return self._logprobs(np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(runs, np.int64))

    def _logprobs(self, ids: np.ndarray, runs: np.ndarray) -> np.ndarray:
        from curate.kernels.ngram import mix, score

        found, share = np.zeros(0), 0.0
        for table, weight in zip(self.tables, self.weights, strict=True):
            if weight == 0:
                continue
            own = score(ids, runs, table.order, table.unigrams, table.slots)
            found = mix(found, own, (share / (share + weight), weight / (share + weight))) if share else own
            share += weight
        return found

    def adapted(
        self,
        texts: Iterable[pa.Array],
        weight: float | None = None,
        *,
        order: int | None = None,
        least: int = 1,
        room: int = ROOM,
    ) -> NGram:
        """This model interpolated with one of `texts`: (1 - weight) p + weight p_texts, over the same tokens.

        weight: in [0, 1]; None for the one under which texts that were held out of p_texts are likeliest: a fifth of them,
        chosen by their contents (of few texts, of their runs of 512 tokens), found by expectation maximisation. They are
        counted afterwards. order, least, room: of p_texts, see `train`; the order is that of this model by default.

        Raises SourceError where the texts hold nothing, RecipeError for a weight that is none.
        """
        if weight is not None and not 0 <= weight <= 1:
            raise RecipeError(f"ngram: the weight of the texts to adapt to is {weight}: give a share from 0 to 1, or none")
        counts = Counts(self.units, max(t.order for t in self.tables) if order is None else order, room)
        held = _Held()
        for ids, bounds in _encoded(texts, self.units):
            if weight is None:
                held.take(ids, bounds, counts)
            else:
                counts.add(ids, _runs(bounds, WINDOW))
        if weight is None:
            weight = self._weight(held, counts, least)
        if not counts.tokens:
            raise SourceError("ngram: the texts to adapt to are empty: give texts of the target")
        return mixture([self, NGram(self.units, (counts.table(least),), (1.0,))], [1 - weight, weight])

    def _weight(self, held: _Held, counts: Counts, least: int) -> float:
        ids, runs = held.split(counts)
        weight = 0.5
        if len(ids) and counts.tokens:
            target = NGram(self.units, (counts.copy().table(least),), (1.0,))
            weight = float(shares(np.stack([self._logprobs(ids, runs), target._logprobs(ids, runs)]))[1])
        counts.add(ids, runs)
        return weight

    def save(self, folder: Path) -> Path:
        """Write the model as a folder, all of it at once, in place of what was there. The same model is the same bytes."""
        folder = Path(folder)
        with atomic_folder(folder) as new:
            parts = [
                {"file": f"table-{i}.npz", "weight": weight, "order": table.order, "tokens": table.tokens}
                for i, (table, weight) in enumerate(zip(self.tables, self.weights, strict=True))
            ]
            about = {"format": FORMAT, "kind": "ngram", "vocabulary": self.vocabulary, "units": self.digest, "tables": parts}
            write_json(new / JSON, about)
            np.savez(new / WORDS, letters=self.units.letters, bounds=self.units.bounds)
            for part, table in zip(parts, self.tables, strict=True):
                np.savez(new / str(part["file"]), unigrams=table.unigrams, slots=table.slots)
        return folder


def mixture(models: Sequence[NGram], weights: Sequence[float]) -> NGram:
    """The model that gives a token the weighted mean of the probabilities that models with the same tokens give it.

    Raises RecipeError where their tokens differ, or the weights do not sum to one.
    """
    if len({model.digest for model in models}) != 1:
        raise RecipeError("ngram: models with different tokens cannot be mixed: train them with units= of one of them")
    if len(weights) != len(models) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
        raise RecipeError(f"ngram: the weights of {len(models)} models are {list(weights)}: give a share of each, of sum 1")
    parts = [
        (table, weight * own)
        for model, weight in zip(models, weights, strict=True)
        for table, own in zip(model.tables, model.weights, strict=True)
    ]
    return NGram(models[0].units, tuple(table for table, _ in parts), tuple(float(weight) for _, weight in parts))


def shares(logprobs: np.ndarray, rounds: int = 200, tolerance: float = 1e-6) -> np.ndarray:
    """The weights (float64, sum 1) with which a mixture of models gives tokens the highest likelihood.

    logprobs: float64 (models, tokens). Expectation maximisation from equal weights, until none moves by `tolerance`.
    """
    chances = np.exp(logprobs - logprobs.max(0))
    weights = np.full(len(logprobs), 1 / len(logprobs))
    for _ in range(rounds if logprobs.shape[1] else 0):
        before = weights
        weights = weights * (chances / (weights[:, None] * chances).sum(0)).mean(1)
        weights /= weights.sum()
        if np.abs(weights - before).max() < tolerance:
            break
    return weights


# --------------------------------------------------------------------------------------------- training


def train(
    texts: Iterable[pa.Array],
    *,
    order: int = ORDER,
    vocabulary: int = VOCABULARY,
    least: int = 2,
    room: int = ROOM,
    sample: int = SAMPLE,
    units: NGram | None = None,
) -> NGram:
    """A model of texts (string arrays; nulls are skipped), in one pass, with memory that does not grow with them.

    order: tokens of the longest n-grams, 1 to 8. vocabulary: tokens at most, 256 of them bytes; the others are the words that
    are most frequent, and not there once only, and for a quarter parts of the rarer ones, in the first `sample` bytes of the
    texts, so these should be a mixture of all.
    units: a model whose tokens are taken instead, which makes the losses of both comparable.
    least: n-grams of three tokens and more that were seen less often are left out at the end. A model knows the texts it was
    trained on, the more of its n-grams come from one text: where it is to judge some of these beside others, 5 is fairer.
    room: n-grams of two tokens and more that are held while counting, at most 100 bytes each. When there is no room for another
    run, those seen once are forgotten, then those seen twice, and so on, until half of the room is free; longer ones go first.
    What was forgotten counts as mass that their contexts leave to shorter n-grams, so the probabilities stay honest, but an
    n-gram that comes back begins at 0, so models of far more text than there is room for know fewer rare n-grams.

    The same texts in the same order give the same model, however they are cut into arrays. Raises SourceError where there is
    no text.
    """
    if not BYTES <= vocabulary < 1 << 21:
        raise RecipeError(f"ngram: a vocabulary of {vocabulary}: give 256, for bytes alone, up to 2097151")
    if units is None:
        head, rest = _head(iter(texts), sample)
        words, texts = _vocabulary(head, vocabulary), _chained(head, rest)
    else:
        words = units.units
    counts = Counts(words, order, room)
    for ids, bounds in _encoded(texts, words):
        counts.add(ids, _runs(bounds, WINDOW))
    if not counts.tokens:
        raise SourceError("ngram: the texts to train on are empty")
    return NGram(words, (counts.table(least),), (1.0,))


class Counts:
    """N-grams while they are counted. tokens: how many so far."""

    def __init__(self, units: Units, order: int, room: int = ROOM):
        from curate.kernels.ngram import COLUMNS

        if not 1 <= order <= ORDERS:
            raise RecipeError(f"ngram: n-grams of {order} tokens: give an order from 1 to {ORDERS}")
        if not (least := 4 * WINDOW * order) <= room < 1 << 31:
            raise RecipeError(f"ngram: room for {room} n-grams: give {least} or more, and fewer than {1 << 31}")
        self.order, self.room, self.base, self.tokens = order, room, units.vocabulary + 1, 0
        self.taken = self.base
        self.nodes = np.zeros((self.base + min(room, 1 << 16), COLUMNS), np.uint32)
        self.slots: np.ndarray | None = None  # of the nodes, where they stand as they are numbered now
        self.gone = np.zeros((order + 1, 6), np.int64)

    def add(self, ids: np.ndarray, runs: np.ndarray) -> None:
        """Count runs ids[runs[i]:runs[i + 1]] of at most 512 tokens; each is read by itself."""
        from curate.kernels.ngram import count, slots_of

        self.tokens += int(runs[-1] - runs[0])
        run = 0
        while run < len(runs) - 1:
            if self.slots is None:
                self.slots = slots_of(self.nodes, self.base, self.taken)
            run, self.taken = count(ids, runs, run, self.order, self.nodes, self.base, self.taken, self.slots)
            if run < len(runs) - 1:
                self._widen()

    def _widen(self) -> None:
        from curate.kernels.ngram import COLUMNS

        self.slots = None
        held = len(self.nodes) - self.base
        if held < self.room:
            nodes = np.zeros((self.base + min(2 * held, self.room), COLUMNS), np.uint32)
            nodes[: self.taken] = self.nodes[: self.taken]
            self.nodes = nodes
        else:
            self._thin()

    def _thin(self) -> None:
        from curate.kernels.ngram import RAW, levels_of

        levels = levels_of(self.nodes, self.base, self.taken)[self.base :]
        seen = self.nodes[self.base : self.taken, RAW]
        longest = levels == self.order
        limit = 1
        while np.where(longest, seen > limit, seen > limit // 2).sum() > self.room // 2:
            limit += 1
        self._forget([limit // 2 + 1] * self.order + [limit + 1])

    def _forget(self, least: Sequence[int]) -> None:
        from curate.kernels.ngram import forget, levels_of

        self.slots = None
        levels = levels_of(self.nodes, self.base, self.taken)
        self.taken = forget(self.nodes, self.base, self.taken, levels, np.array(least, np.int64), self.gone)

    def copy(self) -> Counts:
        """The same counts, which go their own way."""
        other = object.__new__(Counts)
        other.__dict__.update(self.__dict__, nodes=self.nodes.copy(), slots=None, gone=self.gone.copy())
        return other

    def table(self, least: int = 1) -> Table:
        """The probabilities of what was counted, once those of three tokens and more that are too rare are forgotten."""
        from curate.kernels.ngram import estimate, levels_of, tally

        self.slots = None
        if least > 1 and self.order > 2:
            self._forget([0, 0, 0] + [least] * (self.order - 2))
        levels = levels_of(self.nodes, self.base, self.taken)
        discounts = np.array([_discounts(row) for row in tally(self.nodes, self.base, self.taken, levels, self.gone).tolist()])
        unigrams, slots = estimate(self.nodes, self.base, self.taken, levels, discounts)
        return Table(self.order, self.tokens, unigrams, slots)


def _discounts(tallies: list[int]) -> list[float]:
    """What is taken off a count of 0, 1, 2, and 3 or more, from how many n-grams have the counts 1 to 4."""
    _, one, two, three, four, _ = tallies
    if one and two and three and four:
        y = one / (one + 2 * two)
        found = [0.0, 1 - 2 * y * two / one, 2 - 3 * y * three / two, 3 - 4 * y * four / three]
        if all(0.05 <= d < k for k, d in enumerate(found) if k):
            return found
    return [0.0, 0.5, 1.0, 1.5]  # too few to tell


class _Held:
    """Texts that are held out of a model; few texts are kept until it is known that they stay few."""

    def __init__(self) -> None:
        self.texts = 0
        self.tokens = 0
        self.few: list[np.ndarray] = []
        self.ids: list[np.ndarray] = []

    def take(self, ids: np.ndarray, bounds: np.ndarray, counts: Counts) -> None:
        for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if a == b:
                continue
            self.texts += 1
            if self.texts <= _FEW:
                self.few.append(ids[a:b].copy())
                continue
            if self.texts == _FEW + 1:
                for text in self.few:
                    self._sort(text, counts)
                self.few = []
            self._sort(ids[a:b], counts)

    def _sort(self, ids: np.ndarray, counts: Counts) -> None:
        if xxhash.xxh3_64_intdigest(ids.tobytes()) % HELD_OUT == 0 and self.tokens < _HELD_TOKENS:
            self.ids.append(ids.copy())
            self.tokens += len(ids)
        else:
            counts.add(ids, _runs(np.array([0, len(ids)]), WINDOW))

    def split(self, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, runs) that were held out; the others are counted."""
        if self.few:
            size = max(1, min(WINDOW, sum(map(len, self.few)) // (2 * HELD_OUT)))
            pieces = [text[at : at + size] for text in self.few for at in range(0, len(text), size)]
            pieces.sort(key=lambda piece: xxhash.xxh3_64_intdigest(piece.tobytes()))
            kept = len(pieces) // HELD_OUT
            self.ids = pieces[:kept]
            for piece in pieces[kept:]:
                counts.add(piece, np.array([0, len(piece)]))
        bounds = np.concatenate([[0], np.cumsum([len(text) for text in self.ids], dtype=np.int64)])
        return _joined(self.ids, np.int32), _runs(bounds.astype(np.int64), WINDOW)


def _head(texts: Iterator[pa.Array], size: int) -> tuple[list[pa.Array], Iterator[pa.Array]]:
    """The first texts, of so many bytes in all or a text more, and the others."""
    head: list[pa.Array] = []
    for array in texts:
        starts, ends, _ = spans(array)
        before = np.concatenate([[0], np.cumsum(ends - starts)[:-1]]) if len(array) else np.zeros(0)
        taken = int(np.searchsorted(before, size))
        head.append(array.slice(0, taken))
        size -= int((ends - starts)[:taken].sum())
        if size <= 0:
            return head, _chained([array.slice(taken)], texts)
    return head, iter(())


def _chained(first: Sequence[pa.Array], then: Iterable[pa.Array]) -> Iterator[pa.Array]:
    yield from first
    yield from then


def _vocabulary(texts: Sequence[pa.Array], most: int) -> Units:
    """The most frequent pieces, and of the others the parts that spell most of them; equally good ones by hash."""
    from curate.kernels.ngram import count_fragments, count_pieces, no_pieces

    pieces, base = no_pieces(), 0
    blobs, bases = list[np.ndarray](), list[int]()
    for array in texts:
        starts, ends, data = spans(array)
        pieces = count_pieces(starts, ends, data, pieces, base)
        blobs.append(data)
        bases.append(base)
        base += len(data)
    words = pieces[0][pieces[0][:, 0] > 0]
    words = words[np.lexsort((words[:, 0], -words[:, 1].astype(np.int64)))]
    room = most - BYTES
    parts = room // _PARTS
    kept = min(int((words[:, 1] > 1).sum()), room - parts)
    rare = words[kept:]
    rare_letters, rare_bounds = _letters(rare[np.argsort(rare[:, 0])][:_RARE], blobs, bases)
    found = count_fragments(rare_letters, rare_bounds)[0]
    found = found[(found[:, 1] >= _OFTEN) & ~np.isin(found[:, 0], words[:kept, 0])]
    saved = found[:, 1].astype(np.int64) * (found[:, 2] & 0xFF).astype(np.int64)
    found = found[np.lexsort((found[:, 0], -saved))][:parts]
    letters, bounds = _letters(words[:kept], blobs, bases)
    more, more_bounds = _letters(found, [rare_letters], [0])
    return Units(np.concatenate([letters, more]), np.concatenate([bounds, bounds[-1] + more_bounds[1:]]))


def _letters(pieces: np.ndarray, blobs: Sequence[np.ndarray], bases: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of pieces as `count_pieces` found them, and their bounds."""
    places, sizes = (pieces[:, 2] >> 8).astype(np.int64), (pieces[:, 2] & 0xFF).astype(np.int64)
    at = np.searchsorted(np.array(bases, np.int64), places, side="right") - 1
    found = [
        blobs[i][place - bases[i] : place - bases[i] + size]
        for i, place, size in zip(at.tolist(), places.tolist(), sizes.tolist(), strict=True)
    ]
    return _joined(found, np.uint8), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _encoded(texts: Iterable[pa.Array], units: Units) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for array in texts:
        for ids, bounds, *_ in units.encode(array, 1 << 62):
            yield ids, bounds


# --------------------------------------------------------------------------------------------- reading


def load(folder: Path, what: str = "ngram") -> NGram:
    """The model that `NGram.save` wrote. what: who asks, for messages.

    Raises RecipeError where there is none, SourceError where it cannot be read.
    """
    folder = Path(folder)
    if not (folder / JSON).is_file():
        raise RecipeError(f"{what}: {folder} is not an n-gram model: it has no {JSON}")
    try:
        about = read_json(folder / JSON)
        if about["format"] != FORMAT or about["kind"] != "ngram":
            raise SourceError(f"{what}: {folder / JSON} has the format {about['format']!r}; this version reads {FORMAT}")
        parts = [(str(p["file"]), float(p["weight"]), int(p["order"]), int(p["tokens"])) for p in about["tables"]]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{what}: {folder / JSON} is not the description of an n-gram model ({error})") from error
    words = _arrays(folder / WORDS, what, letters=(np.uint8, 1), bounds=(np.int64, 1))
    units = Units(words["letters"], words["bounds"])
    steps = np.diff(units.bounds)
    fits = len(units.bounds) and units.bounds[0] == 0 and units.bounds[-1] == len(units.letters) and (steps > 0).all()
    if not fits or units.vocabulary >= 1 << 21:
        raise SourceError(f"{what}: {folder / WORDS} does not hold words")
    tables = []
    for name, _, order, tokens in parts:
        path = folder / Path(name).name
        arrays = _arrays(path, what, unigrams=(np.float32, 2), slots=(np.uint64, 2))
        table = Table(order, tokens, arrays["unigrams"], arrays["slots"])
        if not _sound(table, units.vocabulary):
            raise SourceError(f"{what}: {path} does not hold the probabilities of an n-gram model")
        tables.append(table)
    weights = tuple(weight for _, weight, *_ in parts)
    if not weights or not all(0 <= weight <= 1 for weight in weights) or abs(sum(weights) - 1) > 1e-6:
        raise SourceError(f"{what}: {folder / JSON} gives the weights {list(weights)}, which are not shares of sum 1")
    return NGram(units, tuple(tables), weights)


def _sound(table: Table, vocabulary: int) -> bool:
    """Whether scoring stays within its arrays, and ends, whoever wrote them."""
    unigrams, slots = table.unigrams, table.slots
    shapes = unigrams.shape == (vocabulary + 1, 2) and slots.shape[1] == 2 and 0 < len(slots) < 1 << 31
    if not shapes or not 1 <= table.order <= ORDERS:
        return False
    return bool((slots[:, 0] == 0).any() and np.isfinite(unigrams).all() and np.isfinite(slots[:, 1:].view(np.float32)).all())


def _arrays(path: Path, what: str, **wanted: tuple[Any, int]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in wanted}
    except FileNotFoundError:
        raise SourceError(f"{what}: {path} is missing") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise SourceError(f"{what}: {path} does not hold {' and '.join(wanted)} ({error})") from error
    for name, (kind, dims) in wanted.items():
        if arrays[name].dtype != kind or arrays[name].ndim != dims:
            raise SourceError(f"{what}: {name} of {path} is not {np.dtype(kind)} in {dims} dimensions")
    return arrays


# --------------------------------------------------------------------------------------------- arrays


def _cuts(sizes: np.ndarray) -> Iterator[int]:
    """Where to stop, so that texts of these sizes come in blocks of at most _BLOCK bytes or one text."""
    total = 0
    for i, size in enumerate(sizes.tolist()):
        if total and total + size > _BLOCK:
            yield i
            total = 0
        total += size
    if len(sizes):
        yield len(sizes)


def _runs(bounds: np.ndarray, window: int) -> np.ndarray:
    """Bounds of runs of at most `window` tokens of the texts with these bounds: int64."""
    if not len(bounds) or window > int(bounds[-1]):
        return np.unique(bounds)
    sizes = np.diff(bounds)
    many = -(-sizes // window)
    before = np.concatenate([[0], np.cumsum(many)])
    starts = np.repeat(bounds[:-1], many) + window * (np.arange(before[-1]) - np.repeat(before[:-1], many))
    return np.append(starts, bounds[-1])


def _heads(ids: np.ndarray, bounds: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `most` tokens of each text, and their bounds."""
    sizes = np.diff(bounds)
    place = np.arange(len(ids)) - np.repeat(bounds[:-1], sizes)
    return ids[place < most], np.concatenate([[0], np.cumsum(np.minimum(sizes, most))]).astype(np.int64)


def _joined(parts: Sequence[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)


def _bounds(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Bounds of one array after the other as those of one."""
    return np.concatenate([[0], np.cumsum(_joined([np.diff(part) for part in parts], np.int64))]).astype(np.int64)
