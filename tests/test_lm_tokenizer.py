"""Tokenizers of language models: trained, read, and where in a text each token ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError, SourceError
from curate.lm import tokenizer
from curate.lm.tokenizer import SEPARATOR, Tokenizer, read, train_tokenizer

HARD = ["", None, "naïve 🙂🙂 Ωmega", f"a{SEPARATOR}b", " \n\t ", "四月の晴れた", "e\u0301\u00a0", "\0", "x" * 5000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([pa.array(tiny_models.texts(200)), pa.array([*HARD, "été 🙂 été"] * 3)], made, vocabulary=400)
    return made


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return read(folder)


def placed(ours: Tokenizer, text: str) -> list[tuple[int, int]]:
    """(id, byte after it) by the offsets of the library, which are characters."""
    found = ours._model.encode(text, add_special_tokens=False)
    return [(token, len(text[:end].encode())) for token, (_, end) in zip(found.ids, found.offsets, strict=True)]


def test_same_texts_same_bytes(folder: Path, tmp_path: Path) -> None:
    texts = [*tiny_models.texts(200), *[*HARD, "été 🙂 été"] * 3]
    np.random.RandomState(3).shuffle(texts)
    cut = [pa.array(texts[at : at + 17], pa.large_string()) for at in range(0, len(texts), 17)]
    train_tokenizer(iter(cut), tmp_path, vocabulary=400)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_vocabulary(ours: Tokenizer, tmp_path: Path) -> None:
    assert ours.vocabulary == 400 and ours.separator == 0 and ours.id_of(SEPARATOR) == 0
    train_tokenizer([pa.array(["ab"])], tmp_path, vocabulary=8192)
    assert read(tmp_path).vocabulary == 257  # nothing occurs twice


def test_transformers_reads_it(folder: Path, ours: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (0, 0, 0, 400)
    for text in ["River stone, garden.", "naïve 🙂", "四月"]:
        ids = ours.encode(pa.array([text]))[0]
        assert theirs(text)["input_ids"] == ids.tolist() and theirs.decode(ids) == text


def test_hard_texts(ours: Tokenizer) -> None:
    ids, bounds, ends = ours.encode(pa.array(HARD))
    assert ids.dtype == np.int32 and bounds.dtype == ends.dtype == np.int64
    for i, text in enumerate(HARD):
        part = slice(bounds[i], bounds[i + 1])
        assert list(zip(ids[part].tolist(), ends[part].tolist(), strict=True)) == placed(ours, text or "")
    assert 0 not in ids  # a separator that is written in a text is letters


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6))
def test_bytes_of_tokens(ours: Tokenizer, texts: list[str | None]) -> None:
    array = pa.array(["before", *texts, "behind"], pa.string()).slice(1, len(texts))
    ids, bounds, ends = ours.encode(array)
    again = ours.ids(array)
    assert again[0].tolist() == ids.tolist() and again[1].tolist() == bounds.tolist()
    for i, text in enumerate(texts):
        data, part = (text or "").encode(), slice(bounds[i], bounds[i + 1])
        assert ours._model.decode(ids[part].tolist(), skip_special_tokens=False) == (text or "")
        here = ends[part].tolist()
        assert here == sorted(here) and (not here or here[-1] == len(data))
        for end in here:
            data[:end].decode()
            data[end:].decode()


def test_cut_into_parts(ours: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.array([*tiny_models.texts(30), *HARD])
    whole = ours.encode(texts)
    monkeypatch.setattr(tokenizer, "CHUNK", 50)
    for a, b in zip(whole, ours.encode(texts), strict=True):
        assert a.dtype == b.dtype and a.tolist() == b.tolist()
    empty = ours.encode(pa.array([], pa.string()))
    assert [array.tolist() for array in empty] == [[], [0], []]


def test_tokenizer_of_another_kind(tmp_path: Path) -> None:
    """WordPiece lower-cases and drops blanks, so the bytes come from the library's offsets."""
    pytest.importorskip("transformers")
    ours = read(tiny_models.tokenizer(tmp_path / "wordpiece"))
    texts = ["  River ÉTÉ  stone 🙂. ", "", "garden"]
    ids, bounds, ends = ours.encode(pa.array(texts))
    for i, text in enumerate(texts):
        part = slice(bounds[i], bounds[i + 1])
        assert list(zip(ids[part].tolist(), ends[part].tolist(), strict=True)) == placed(ours, text)
    assert not {2, 3} & set(ids.tolist())  # nothing is added around a text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config.json": {"bos_token": "<b>", "eos_token": "<e>"}}, "<b>"),
        ({"tokenizer_config.json": {"bos_token": None, "eos_token": {"content": "<e>"}}}, "<e>"),
        ({"special_tokens_map.json": {"eos_token": "<e>"}}, "<e>"),
        ({"config.json": {"bos_token_id": None, "eos_token_id": [259, 1]}}, "<e>"),
        ({"config.json": {"bos_token_id": 5}, "tokenizer_config.json": {"bos_token": "<b>"}}, "<b>"),
        ({}, SEPARATOR),
    ],
)
def test_separator(folder: Path, tmp_path: Path, files: dict[str, dict], expected: str) -> None:
    from tokenizers import Tokenizer as Model

    model = Model.from_file(str(folder / "tokenizer.json"))
    model.add_special_tokens(["<b>", "<e>"])
    if "config.json" in files and "eos_token_id" in files["config.json"]:
        files["config.json"]["eos_token_id"][0] = model.token_to_id("<e>")
    model.save(str(tmp_path / "tokenizer.json"))
    for name, held in files.items():
        (tmp_path / name).write_text(json.dumps(held))
    assert read(tmp_path).separator == model.token_to_id(expected)


def test_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"loss: .*nowhere has no tokenizer\.json"):
        read(tmp_path / "nowhere", "loss")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match=r"loss: .*tokenizer\.json is no tokenizer"):
        read(tmp_path, "loss")
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<|endoftex|>"}')
    with pytest.raises(SourceError, match=r"names '<\|endoftex\|>' as its bos_token.*did you mean '<\|endoftext\|>'"):
        read(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(SourceError, match="is not JSON"):
        read(tmp_path)
    for vocabulary in (256, 1 << 21):
        with pytest.raises(RecipeError, match="vocabulary is"):
            train_tokenizer([pa.array(["a"])], tmp_path, vocabulary=vocabulary)
    with pytest.raises(RecipeError, match="no text to train on"):
        train_tokenizer([pa.array(["", None], pa.string())], tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_pads_and_cuts_nothing(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Model

    model = Model.from_file(str(folder / "tokenizer.json"))
    model.enable_truncation(3)
    model.enable_padding(length=8)
    model.save(str(tmp_path / "tokenizer.json"))
    texts = pa.array(["river stone garden window letter", "x"])
    assert read(tmp_path).ids(texts)[0].tolist() == read(folder).ids(texts)[0].tolist()
    assert read(tmp_path).digest == read(folder).digest
