"""The model of the extractor: its file, the cut of a page, and what the one that ships says of plain pages."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from resiliparse.parse.html import HTMLTree

from curate.errors import SourceError
from curate.extract.page import Page, scan_page
from curate.extract.page.model import LIFT, TYPES, Model, lifted, page_features
from curate.kernels import trees
from curate.kernels.blocks import FEATURES, HASHES
from curate.kernels.context import CONTEXT, best_cut
from curate.kernels.html import END, START

STUMP = ([3], [0.5], [~0], [~1], [-1.0, 1.0])


def scanned(html: str) -> Page:
    return scan_page(HTMLTree.parse_from_bytes(html.encode(), "utf-8").document.html.encode())


@pytest.fixture
def model() -> Model:
    random = np.random.default_rng(0)
    stump = trees.join([tuple(np.array(a) for a in STUMP)] * len(TYPES))
    tables = random.normal(size=(2, HASHES)).astype(np.float32)
    return Model(*tables, blocks=stump, again=stump, types=stump, about={"pages": 3, "sources": {"here": 3}})


def same(a: Model, b: Model) -> bool:
    for part in ("name_weights", "text_weights"):
        if not np.array_equal(getattr(a, part), getattr(b, part)):
            return False
    ensembles = ("blocks", "again", "types")
    return a.about == b.about and all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for name in ensembles
        for x, y in zip(getattr(a, name), getattr(b, name), strict=True)
    )


# --------------------------------------------------------------------------------------------------------------- file


def test_a_saved_model_comes_back(model, tmp_path):
    model.save(tmp_path / "model.npz")
    assert same(Model.load(tmp_path / "model.npz"), model)
    assert same(pickle.loads(pickle.dumps(model)), model)


def test_the_same_model_is_the_same_bytes(model, tmp_path):
    for name in ("a.npz", "b.npz"):
        model.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def changed(path, **arrays):
    """The file with some of its arrays replaced."""
    with np.load(path) as file:
        kept = dict(file)
    np.savez_compressed(path, **{**kept, **arrays})
    return path


def about(path, **values):
    with np.load(path) as file:
        known = json.loads(file["about"].tobytes())
    return changed(path, about=np.frombuffer(json.dumps({**known, **values}).encode(), np.uint8))


def test_a_model_for_other_features_is_refused_and_says_which(model, tmp_path):
    model.save(tmp_path / "model.npz")
    about(tmp_path / "model.npz", features=[*FEATURES[:-1], "shoe_size"])
    with pytest.raises(SourceError, match=r"model\.npz: made for other features \(shoe_size\): train it anew"):
        Model.load(tmp_path / "model.npz")
    about(tmp_path / "model.npz", features=list(FEATURES), context=list(CONTEXT[::-1]))
    with pytest.raises(SourceError, match="made for other context"):
        Model.load(tmp_path / "model.npz")


def test_a_file_of_another_format_is_refused(model, tmp_path):
    model.save(tmp_path / "model.npz")
    about(tmp_path / "model.npz", format=99)
    with pytest.raises(SourceError, match="format 99"):
        Model.load(tmp_path / "model.npz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 nor is this"])
def test_what_is_no_model_is_refused(content, tmp_path):
    (tmp_path / "model.npz").write_bytes(content)
    with pytest.raises(SourceError, match="not a model of the extractor"):
        Model.load(tmp_path / "model.npz")


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="not a model of the extractor"):
        Model.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "part, array",
    [
        ("blocks.feature", np.full(7, len(FEATURES), np.int32)),  # a column that there is not
        ("blocks.feature", np.full(7, -1, np.int32)),
        ("blocks.right", np.zeros(7, np.uint32)),  # a row would be left without a leaf
        ("blocks.first", np.array([0, 9, *range(2, 8)], np.int32)),
        ("blocks.first_leaf", np.arange(0, 16, 2, dtype=np.int64)),
        ("blocks.leaf", np.zeros(3, np.float32)),
        ("blocks.leaf", np.full(14, np.nan, np.float32)),
        ("name_weights", np.zeros(8, np.float32)),
        ("text_weights", np.zeros(HASHES)),
    ],
)
def test_damaged_arrays_are_refused(model, tmp_path, part, array):
    model.save(tmp_path / "model.npz")
    with pytest.raises(SourceError, match=r"damaged|is not float32"):
        Model.load(changed(tmp_path / "model.npz", **{part: array}))


def test_objects_are_never_unpickled(model, tmp_path):
    model.save(tmp_path / "model.npz")
    changed(tmp_path / "model.npz", name_weights=np.array([{"an": "object"}], object))
    with pytest.raises(SourceError, match="not a model of the extractor"):
        Model.load(tmp_path / "model.npz")


def test_the_cut_is_lifted_but_never_above_all_blocks():
    probability, words = np.array([0.99, 0.5, 0.55, 0.2], np.float32), np.array([100, 10, 10, 10], np.int32)
    keep = best_cut(probability, words)
    assert keep.tolist() == [True, True, True, False]
    f1 = 2 * (99 + 5 + 5.5) / (120 + 99 + 5 + 5.5 + 2)
    assert 0.5 < f1 / 2 + LIFT > 0.55
    assert lifted(keep, probability, words).tolist() == [True, False, False, False]
    low = np.array([0.05, 0.01], np.float32)
    assert lifted(best_cut(low, words[:2]), low, words[:2]).tolist() == [True, False]
    assert lifted(np.zeros(0, bool), low[:0], words[:0]).tolist() == []


def test_features_of_a_page_are_means_over_words_and_over_main_words():
    x = np.array([[1, 10], [3, 20]], np.float32)
    found = page_features(x, np.array([1, 0], np.float32), np.array([1, 3]))
    assert found.shape == (1, 4) and found.dtype == np.float32
    assert found[0].tolist() == pytest.approx([(1.5 * 1 + 3.5 * 3) / 5, (1.5 * 10 + 3.5 * 20) / 5, 1, 10])


# -------------------------------------------------------------------------------------------------------------- pages

PROSE = (
    "The river rose in the night, and by the morning the bridge was under water. Nobody in the village had seen it so high, "
    "though the old people said that it had been as bad in the year of the great storm."
)
ARTICLE = f"""<html><head><title>The river rose - The Daily</title></head><body>
<nav class="menu"><ul><li><a href=/>Home</a></li><li><a href=/a>Sport</a></li><li><a href=/b>Contact us</a></li></ul></nav>
<main><article><h1>The river rose</h1><p>{PROSE}</p><h2>What happens next</h2><p>{PROSE[::-1].title()[::-1]}</p>
<p>{PROSE.replace("river", "lake")}</p></article></main>
<aside class="related"><h3>Related</h3><ul><li><a href=/1>Ten bridges</a></li><li><a href=/2>Five boats</a></li></ul></aside>
<footer class="site-footer">Copyright 2024 The Daily. <a href=/p>Privacy</a></footer></body></html>"""


def texts(page: Page, keep: np.ndarray) -> list[str]:
    return [page.text[a:b].decode() for a, b in page.blocks[keep][:, [START, END]].tolist()]


def test_the_shipped_model_keeps_an_article_and_leaves_menu_and_footer():
    page = scanned(ARTICLE)
    keep, page_type = Model.shipped().judge(page)
    found = texts(page, keep)
    assert keep.dtype == bool and keep.shape == (len(page.blocks),)
    assert {PROSE, "What happens next"} <= set(found)
    assert not {"Home", "Sport", "Contact us", "Ten bridges", "Copyright 2024 The Daily. Privacy"} & set(found)
    assert page_type == "article"


def test_scores_are_probabilities_and_the_same_each_time():
    model = Model.shipped()
    page = scanned(ARTICLE)
    score = model.score(page)
    assert score.dtype == np.float32 and score.shape == (len(page.blocks),)
    assert ((score > 0) & (score < 1)).all()
    model.judge(scanned("<p>another page that stands between</p>" * 50))
    assert np.array_equal(model.score(scanned(ARTICLE)), score)


@pytest.mark.parametrize("html", ["", "<p>word</p>", "<p>***</p>", "<p>*</p>" * 200, "<div>" * 200 + "x y z"])
def test_pages_with_little_on_them(html):
    page = scanned(html)
    keep, page_type = Model.shipped().judge(page)
    assert keep.shape == (len(page.blocks),) and page_type in TYPES
    if len(page.blocks):
        assert keep.any()


def test_the_shipped_model_is_loaded_once():
    assert Model.shipped() is Model.shipped()
