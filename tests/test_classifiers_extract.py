"""How the extraction model is trained: labels, folds, and that the card quotes what was measured."""

import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.extract.page.model import Model
from curate.kernels import trees

FOLDER = Path(__file__).parents[1] / "classifiers" / "extract"


def load(name):
    """A module of the recipe, which is no package."""
    key = f"classifiers_extract_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, FOLDER / f"{name}.py")
        sys.modules[key] = module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(FOLDER))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(FOLDER))
    return sys.modules[key]


label = load("label")
train = load("train")


# ------------------------------------------------------------------------------------------------------------ labels


def shares(blocks, gold):
    return label.labels(blocks, gold)[0].tolist()


def test_blocks_of_the_reference_are_found_between_those_that_are_not():
    blocks = ["Home", "About us", "How to bake bread", "Take flour, water and salt.", "Share this", "Bake it for an hour."]
    share, words = label.labels(blocks, "How to bake bread\n\nTake flour, water and salt.\n\nBake it for an hour.")
    assert share.tolist() == [0, 0, 1, 1, 0, 1]
    assert words.tolist() == [1, 2, 4, 5, 2, 5]
    assert share.dtype == np.float32 and words.dtype == np.int32


def test_a_menu_does_not_match_words_that_the_reference_has_elsewhere():
    menu = ["Home", "Contact us", "Water", "Salt", "Bread"]
    gold = "Bread is made of water and salt. Please contact us if yours is not. Then go home."
    assert shares([*menu, "Bread is made of water and salt.", "Please contact us if yours is not.", "Then go home."], gold) == [
        *[0] * len(menu), 1, 1, 1,
    ]  # fmt: skip


def test_a_heading_of_one_word_is_found_where_the_page_has_something_between_it_and_its_text():
    blocks = ["The first part ends here.", "Share", "Overview", "edit", "The second part begins with this."]
    gold = "The first part ends here. Overview The second part begins with this."
    assert shares(blocks, gold) == [1, 0, 1, 0, 1]


def test_a_block_that_the_reference_quotes_in_part_has_that_share():
    assert shares(["one two three four five six seven eight"], "one two three four") == [0.5]


def test_text_that_stands_in_another_order_is_found_again():
    blocks = ["Posted by Ann on Monday morning", "A long title of the page", "The text itself is here and it is long enough."]
    gold = "A long title of the page. The text itself is here and it is long enough. Posted by Ann on Monday morning"
    assert shares(blocks, gold) == [1, 1, 1]


def test_one_copy_of_a_text_that_the_page_has_twice_is_labelled():
    text = "This very sentence stands on the page for telephones and for the rest."
    assert sorted(shares([text, "menu", text], text)) == [0, 0, 1]


def test_characters_of_chinese_are_words():
    share, words = label.labels(["首页 新闻", "今天天气很好，我们去公园。"], "今天天气很好，我们去公园。")
    assert share.tolist() == [0, 1] and words.tolist() == [4, 11]


def test_blocks_without_words_have_no_share():
    share, words = label.labels(["|", "", "some words in here"], "some words in here")
    assert share.tolist() == [0, 0, 1] and words.tolist() == [0, 0, 4]
    share, words = label.labels([], "some words")
    assert share.shape == words.shape == (0,)


def align(page, gold, rows):
    """The pairs that `_best` finds in two lists of numbers that have no word left out."""
    follows = [np.arange(len(x)) > 0 for x in (page, gold)]
    i, j = label._best(np.array(page, np.int32), np.array(gold, np.int32), *follows, rows)
    return list(zip(i.tolist(), j.tolist(), strict=True))


def worth(pairs):
    """What an alignment brings, by the definition of the costs."""
    total = 0
    for k, (i, j) in enumerate(pairs):
        total += label.MATCH
        before = pairs[k - 1] if k else (-2, -2)
        near_page, near_gold = i - before[0] == 1, j - before[1] == 1
        if not (near_page and near_gold):
            total -= label.SKIP_PAGE if near_gold else label.SKIP_GOLD if near_page else label.JUMP
    return total


def best_worth(page, gold):
    """The most that any alignment brings: each pair after every pair that can come before it."""
    found = {}
    for i, word in enumerate(page):
        for j, other in enumerate(gold):
            if word == other:
                before = [found[p] + worth([p, (i, j)]) - worth([p]) for p in found if p[0] < i and p[1] < j]
                found[i, j] = max([worth([(i, j)]), *before])
    return max([0, *found.values()])


WORDS = st.lists(st.integers(0, 4), max_size=12)


@given(WORDS, WORDS, st.integers(1, 13))
def test_no_alignment_is_worth_more(page, gold, rows):
    if not page or not gold:
        return
    pairs = align(page, gold, rows)
    assert all(page[i] == gold[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
    assert worth(pairs) == best_worth(page, gold)


@given(WORDS, WORDS)
def test_bands_give_the_same_alignment(page, gold):
    if page and gold:
        assert len({tuple(align(page, gold, rows)) for rows in (1, 2, 5, 100)}) == 1


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    "url, html, expected",
    [
        ("https://docs.python.org/3/", b"", "python.org"),
        ("https://www.theregister.co.uk/2024/x", b"", "theregister.co.uk"),
        ("http://localhost/x", b"", None),
        (None, b'<text id="http://biz.163.com/05/0425/x.html" title="y">', "163.com"),
        (None, b'<link rel="canonical" href="https://blog.example.org/a">', "example.org"),
        (None, b'<link href="https://blog.example.org/a" rel="canonical">', "example.org"),
        (None, b'<meta property="og:url" content="https://EXAMPLE.com/a">', "example.com"),
        (None, b'<link rel="canonical" href="https://[broken/">', None),
        ("https://a.example.org/", b'<link rel="canonical" href="https://b.example.net/">', "example.org"),
        (None, b"<p>no address</p>", None),
    ],
)
def test_the_site_of_a_page(url, html, expected):
    assert train.site(url, html) == expected


@given(st.lists(st.sampled_from([f"s{k}" for k in range(12)]), max_size=40), st.integers(2, 5), st.integers(0, 3))
def test_a_site_is_in_one_fold(sites, folds, seed):
    found = train.split(sites, folds, seed)
    assert found.shape == (len(sites),)
    assert len(set(zip(sites, found.tolist(), strict=True))) == len(set(sites))
    assert found.tolist() == train.split(sites, folds, seed).tolist()
    sizes = np.bincount(found, minlength=folds)
    largest = max([sites.count(s) for s in sites], default=0)
    assert sizes.max() - sizes.min() <= largest


def test_another_seed_splits_otherwise():
    sites = [f"s{k}" for k in range(50)]
    assert train.split(sites, 5, 0).tolist() != train.split(sites, 5, 1).tolist()


def ftrl(examples, wanted, weights, order):
    """Weights by hash, None for the constant, as the paper writes the algorithm."""
    z, squares, w = {}, {}, {}
    for _ in range(train.EPOCHS):
        for k in order:
            keys = [*examples[k], None]
            p = 1 / (1 + math.exp(-sum(w.get(key, 0.0) for key in keys)))
            slope = (p - wanted[k]) * weights[k]
            for key in keys:
                old = squares.get(key, 0.0)
                squares[key] = old + slope**2
                sigma = (math.sqrt(squares[key]) - math.sqrt(old)) / train.ALPHA
                z[key] = z.get(key, 0.0) + slope - sigma * w.get(key, 0.0)
                first = 0 if key is None else train.L1
                rate = (train.BETA + math.sqrt(squares[key])) / train.ALPHA + train.L2
                w[key] = 0.0 if abs(z[key]) <= first else -(z[key] - math.copysign(first, z[key])) / rate
    return w


def test_the_regression_is_that_of_the_paper():
    random = np.random.default_rng(3)
    examples = [random.integers(0, 9, size=random.integers(0, 6)).tolist() for _ in range(200)]
    wanted, weights = random.random(200), random.random(200) * 20
    order = random.permutation(200)
    offsets = np.concatenate([[0], np.cumsum([len(e) for e in examples])])
    hashes = np.array([h for e in examples for h in e], np.int64)
    found = train._regression(offsets, hashes, wanted, weights, order)
    expected = ftrl(examples, wanted.tolist(), weights.tolist(), order.tolist())
    assert sum(map(bool, expected.values())) > 5
    assert {h: found[h] for h in range(9)} == pytest.approx({h: expected.get(h, 0.0) for h in range(9)})
    assert found[-1] == pytest.approx(expected[None])


def test_scores_are_those_of_lightgbm():
    lightgbm = pytest.importorskip("lightgbm")
    random = np.random.default_rng(0)
    x = random.normal(size=(3000, 12)).astype(np.float32)
    x[:, 3] = np.round(x[:, 3])
    y = (x[:, 0] * x[:, 3] > x[:, 1]).astype(float)
    for options, groups in (({"objective": "cross_entropy"}, 1), ({"objective": "multiclass", "num_class": 2}, 2)):
        options = {**train.COMMON, **options, "num_leaves": 31, "seed": 1}
        booster = lightgbm.train(options, lightgbm.Dataset(x, y), 60)
        found = trees.scores(trees.join(train.trees_of(booster)), x, groups)
        expected = booster.predict(x, raw_score=True).reshape(len(x), groups)
        assert np.abs(found - expected).max() < 1e-5


MENU = "<nav class=menu><ul>" + "".join(f"<li><a href=/{k}>{w}</a></li>" for k, w in enumerate("Home News Sport Shop".split()))
SENTENCES = [
    "The {0} came over the hill in the morning, and {1} was there to see it.",
    "It had been a long winter, so nobody asked {1} where the {0} had been.",
    "When all the others were asleep, {1} went out and looked for the {0} again.",
]


def made(number):
    """A page with its reference: menu, article of as many paragraphs as the number says, footer."""
    words = (["fox", "train", "storm", "river"][number % 4], ["Ann", "Bo", "Cy"][number % 3])
    body = [SENTENCES[(number + k) % 3].format(*words) for k in range(4 + number % 5)]
    html = f"<title>{words[0]}</title>{MENU}</ul></nav><div class=story><h1>About the {words[0]}</h1>"
    html += (
        "".join(f"<p>{p}</p>" for p in body)
        + f"</div><div class=footer>All rights reserved. <a href=/x>Terms</a> {number}</div>"
    )
    row = {
        "record_id": f"<{number}>",
        "url": f"http://site{number // 2}.org/{number}",
        "url_is_real": True,
        "source": "made",
        "page_type": "article" if number % 3 else "forum",
        "main_text": f"About the {words[0]}\n\n" + "\n\n".join(body),
    }
    return train.gold(row, html.encode())


@pytest.fixture(scope="module")
def pages():
    pytest.importorskip("lightgbm")
    return [made(k) for k in range(60)]


def test_a_page_teaches_if_its_reference_is_found(pages):
    assert pages[3].share.tolist() == [0] * 4 + [1] * (len(pages[3].share) - 5) + [0]
    assert pages[3].teaches
    lost = train.gold(
        {**json.loads(ROW), "main_text": "Nothing of this stands on the page."}, b"<p>Something else is there instead.</p>"
    )
    assert not lost.teaches


ROW = json.dumps({"record_id": "<x>", "url": "http://x.org/", "url_is_real": True, "source": "made", "page_type": None})


def test_what_is_beside_the_reference_weighs_three_times_as_much_at_most():
    html = "<p>" + "good " * 30 + "</p>" + "".join(f"<p>{'bad ' * 50}{k}</p>" for k in range(20))
    page = train.gold({**json.loads(ROW), "main_text": "good " * 30}, html.encode())
    assert page.share.tolist() == [1] + [0] * 20
    assert page.weights[0] == pytest.approx(1, abs=0.01)
    assert page.weights[1:].sum() == pytest.approx(3, abs=0.05)


def test_a_model_learns_pages_of_sites_that_it_has_not_seen(pages, tmp_path):
    judged = train.cross_validate(pages, folds=2)
    assert sorted(i for _, beside in judged for i in beside.tolist()) == list(range(len(pages)))
    for model, beside in judged:
        seen = {pages[i].site for i in range(len(pages)) if i not in set(beside.tolist())}
        assert not seen & {pages[i].site for i in beside.tolist()}
        assert model.about["pages"] + len(beside) == len(pages)
    groups = train.measure(pages, judged)
    assert groups["all"]["pages"] == 60 and groups["all"]["possible"] == 1
    assert groups["all"]["f1"] > 0.95
    for name in ("a.npz", "b.npz"):
        train.fit(pages[:30]).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = Model.load(tmp_path / "a.npz")
    page = pages[41].page
    assert np.array_equal(read.score(page), train.fit(pages[:30]).score(page))


def test_overlap_counts_words_as_often_as_they_stand():
    count = train.Counter
    assert train.overlap(count("a a b".split()), count("a b b c".split())) == pytest.approx((2 / 3, 2 / 4, 4 / 7))
    assert train.overlap(count(), count("a")) == (0, 0, 0)


# ---------------------------------------------------------------------------------------------------- what is shipped


def test_the_card_has_the_figures_that_were_measured():
    metrics = json.loads((FOLDER / "metrics.json").read_text())
    card = (FOLDER / "card.md").read_text()
    assert train.fill(card, metrics) == card
    assert f"| all | {metrics['groups']['all']['pages']:,} |" in card


def test_the_model_is_the_one_that_was_measured():
    metrics = json.loads((FOLDER / "metrics.json").read_text())
    assert Model.shipped().about == metrics["training"]
    assert metrics["groups"]["all"]["f1"] > 0.9 and metrics["groups"]["article"]["f1"] > 0.94


def test_labels_of_real_pages_give_the_references_back(shared_data):
    with train.gzip.open(shared_data / "crawl" / "pages.jsonl.gz", "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row["main_text"] and row["source"] == "mozilla-readability"]
    rows = {row["record_id"]: row for row in rows[:25]}
    marks = []
    with (shared_data / "crawl" / "readability-00000.warc.gz").open("rb") as stream:
        for record in train.warc.read_archive(stream, max_body_bytes=train.MAX_BODY):
            if isinstance(record, train.warc.Page) and record.id in rows:
                page = train.gold(rows[record.id], train.to_utf8(record.body, record.charset))
                text = train.render(page.page, page.share >= 0.5)
                found, reference = (train.Counter(train._WORD.findall(t.lower())) for t in (text, page.text))
                marks.append(train.overlap(found, reference)[2])
    assert len(marks) == 25 and np.mean(marks) > 0.97
