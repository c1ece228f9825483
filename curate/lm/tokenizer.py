"""What turns texts into the tokens of a language model, by the library `tokenizers` alone: neither torch nor transformers.

A tokenizer trained here is byte-level, so that every text has tokens and no text is cut in the middle of a character when
windows of tokens are turned into stretches of bytes. One token stands between documents, `<|endoftext|>`; where a text holds
these letters itself, they are letters.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate import storage
from curate.errors import RecipeError, SourceError, did_you_mean
from curate.langid import spans

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
FILES = (FILE, CONFIG)
SEPARATOR = "<|endoftext|>"
FEWEST = 257  # one for each byte, and the separator
MOST = 1 << 20
CHUNK = 1 << 20  # characters that are turned into tokens at a time, or one text if that is longer


class Tokenizer:
    """A tokenizer out of a folder. It neither pads nor cuts, and adds no special tokens.

    vocabulary: how many ids there are. separator: the id of what stands between documents, or before the first token of one:
    the beginning-of-sequence token, else the end-of-sequence token; None without either. digest: of all that decides what a
    text becomes.
    """

    def __init__(self, model: Any, separator: int | None):
        self._model, self.separator = model, separator
        self._lengths: np.ndarray | None = None

    @property
    def vocabulary(self) -> int:
        return self._model.get_vocab_size(with_added_tokens=True)

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self._model.to_str().encode()).hexdigest()

    def id_of(self, token: str) -> int | None:
        """The id of a token as it is written in the vocabulary."""
        return self._model.token_to_id(token)

    def ids(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(int32 ids of the tokens of all texts, int64 bounds of each): `encode` where nobody asks for the bytes."""
        found = [self._encoded(part, exact=False) for part in _parts(texts)]
        return _joined([ids for ids, _, _ in found], np.int32), _bounds([counts for _, counts, _ in found])

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(int32 ids of the tokens of all texts, int64 bounds of each, int64 byte of the text after each token).

        Those bytes never go down within a text and lie between two characters: a token that ends inside of a character counts
        as ending behind it. texts: a string array; a null is an empty text.
        """
        found = [self._placed(part) for part in _parts(texts)]
        ids, ends = (_joined([one[i] for one in found], kind) for i, kind in ((0, np.int32), (2, np.int64)))
        return ids, _bounds([counts for _, counts, _ in found]), ends

    def _encoded(self, texts: pa.Array, exact: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """(ids, tokens of each text, characters of the text before the end of each token if they are asked for)."""
        strings = [text or "" for text in texts.to_pylist()]
        encode = self._model.encode_batch if exact else self._model.encode_batch_fast
        found = encode(strings, add_special_tokens=False)
        counts = np.fromiter((len(one) for one in found), np.int64, len(found))
        total = int(counts.sum())
        ids = np.fromiter(itertools.chain.from_iterable(one.ids for one in found), np.int32, total)
        return ids, counts, np.fromiter((end for one in found for _, end in one.offsets), np.int64, total) if exact else None

    def _placed(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ids, tokens of each text, byte of the text after each token)."""
        starts, stops, data = spans(texts)
        if (lengths := self._token_lengths()) is not None:
            ids, counts, _ = self._encoded(texts, exact=False)
            text = np.repeat(np.arange(len(texts)), counts)
            sums = np.append(0, np.cumsum(lengths[ids]))
            first = np.append(0, np.cumsum(counts))
            if (np.diff(sums[first]) == stops - starts).all():
                at = sums[1:] - sums[first[text]] + starts[text]
                for _ in range(3):  # as many bytes as a character has behind its first
                    inside = at < stops[text]
                    inside[inside] = data[at[inside]] & 0xC0 == 0x80
                    at += inside
                return ids, counts, at - starts[text]
        ids, counts, characters = self._encoded(texts, exact=True)
        text = np.repeat(np.arange(len(texts)), counts)
        return ids, counts, _behind(starts, stops, data, text, characters)

    def _token_lengths(self) -> np.ndarray | None:
        """int64: bytes of each token of a byte-level tokenizer that leaves texts as they are; None of any other.

        The library is four times as fast where it need not say where in the text a token lies.
        """
        if self._lengths is None:
            self._lengths = np.empty(0, np.int64)
            if self._model.normalizer is None and type(self._model.decoder).__name__ == "ByteLevel":
                pieces = self._model.get_vocab(with_added_tokens=True)
                added = {token.content for token in self._model.get_added_tokens_decoder().values()}
                self._lengths = np.zeros(max(pieces.values()) + 1, np.int64)
                for piece, number in pieces.items():
                    self._lengths[number] = len(piece.encode()) if piece in added else len(piece)  # a letter for a byte
        return self._lengths if len(self._lengths) else None


def read(folder: Path | str, what: str = "tokenizer") -> Tokenizer:
    """The tokenizer in a folder with a tokenizer.json, of whatever model.

    what: who asks, for messages. Raises RecipeError where there is none, SourceError where it cannot be read.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise RecipeError(f"{what}: {folder} has no {FILE}; name the folder of a model or of a tokenizer that has one")
    from tokenizers import Tokenizer as Model

    try:
        model = Model.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise SourceError(f"{what}: {path} is no tokenizer that can be read ({' '.join(str(error).split())[:200]})") from None
    model.no_padding()
    model.no_truncation()
    model.encode_special_tokens = True
    return Tokenizer(model, _separator(Path(folder), model, what))


def train_tokenizer(texts: Iterable[pa.Array], folder: Path | str, *, vocabulary: int = 8192) -> None:
    """Train a byte-level byte-pair tokenizer and write what transformers reads: tokenizer.json and tokenizer_config.json.

    texts: string arrays, of which only the counts of words stay in memory. vocabulary: how many tokens there are at most, with
    `<|endoftext|>`, whose id is 0; texts with fewer pairs of tokens give fewer. The same texts give the same bytes, in whatever
    order and batches they come.

    Raises RecipeError: no texts, or a vocabulary below 257 or above 2^20.
    Source: byte-pair encoding of words as in GPT-2, by the library `tokenizers`.
    """
    if not FEWEST <= vocabulary <= MOST:
        raise RecipeError(f"tokenizer: vocabulary is {vocabulary}; give {FEWEST:,} to {MOST:,}")
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Model

    model = Model(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[AddedToken(SEPARATOR, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    seen = 0

    def strings() -> Iterator[list[str]]:
        nonlocal seen
        for array in texts:
            for part in _parts(array):
                held = [text for text in part.to_pylist() if text]
                seen += len(held)
                yield held

    model.train_from_iterator(strings(), trainer)
    if not seen:
        raise RecipeError("tokenizer: there is no text to train on: every document is empty; give others")
    config = {
        "add_prefix_space": False,
        "bos_token": SEPARATOR,
        "clean_up_tokenization_spaces": False,
        "eos_token": SEPARATOR,
        "model_max_length": 1 << 30,  # windows are cut by who reads them
        "pad_token": SEPARATOR,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    folder = Path(folder)
    storage.write_bytes(folder / FILE, model.to_str(pretty=True).encode())
    storage.write_json(folder / CONFIG, config)


def _separator(folder: Path, model: Any, what: str) -> int | None:
    """The id of the token before a text, by the files that say so."""
    found: dict[str, Any] = {}
    for name in ("config.json", "special_tokens_map.json", CONFIG):  # the later ones know better
        path = folder / name
        if not path.is_file():
            continue
        try:
            held = storage.read_json(path)
        except ValueError as error:
            raise SourceError(f"{what}: {path} is not JSON ({error})") from None
        for kind in ("bos_token", "eos_token") if isinstance(held, dict) else ():
            value = held.get(kind, held.get(f"{kind}_id") if name == "config.json" else None)
            value = value.get("content") if isinstance(value, dict) else value
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, str | int) and not isinstance(value, bool):
                found[kind] = value
    for kind in ("bos_token", "eos_token"):
        if kind in found:
            value = found[kind]
            number = model.token_to_id(value) if isinstance(value, str) else value
            if number is None:
                hint = did_you_mean(str(value), [t.content for t in model.get_added_tokens_decoder().values()])
                raise SourceError(f"{what}: {folder} names {value!r} as its {kind}, which its {FILE} does not have{hint}")
            return int(number)
    return model.token_to_id(SEPARATOR)


def _parts(texts: pa.Array) -> Iterator[pa.Array]:
    """Slices of an array of about `CHUNK` bytes each."""
    starts, ends, _ = spans(texts)
    sums = np.cumsum(ends - starts)
    at = 0
    while at < len(texts):
        before = int(sums[at - 1]) if at else 0
        stop = max(at + 1, int(np.searchsorted(sums, before + CHUNK, "right")))
        yield texts.slice(at, stop - at)
        at = stop


def _behind(starts: np.ndarray, stops: np.ndarray, data: np.ndarray, text: np.ndarray, characters: Any) -> np.ndarray:
    """Bytes of each token's text before the end of so many characters, never going down within a text."""
    out = np.empty(len(text), np.int64)
    first = np.searchsorted(text, np.arange(len(starts) + 1))
    for i, (begin, end) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        rows = slice(first[i], first[i + 1])
        heads = np.flatnonzero(data[begin:end] & 0xC0 != 0x80)
        out[rows] = np.maximum.accumulate(np.append(heads, end - begin)[characters[rows]])
    return out


def _joined(parts: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, kind)


def _bounds(counts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(_joined(counts, np.int64))]).astype(np.int64)
