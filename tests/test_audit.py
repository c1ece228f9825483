"""Scores of membership from what a model says, and how well they do, beside definitions spelt out with loops."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import audit
from curate.errors import RecipeError
from curate.lm import TokenLosses
from curate.training import evaluate


def said(*texts, mean=None, variance=None):
    """TokenLosses of texts, each a list of (token, probability)."""
    pairs = [pair for text in texts for pair in text]
    bounds = np.cumsum([0, *map(len, texts)])
    ids = np.array([token for token, _ in pairs], np.int32)
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([p for _, p in pairs], np.float64)).astype(np.float32)
    mean, variance = (None if v is None else np.array(v, np.float32) for v in (mean, variance))
    return TokenLosses(bounds, ids, logs, mean, variance)


tokens = st.lists(st.tuples(st.integers(0, 9), st.floats(1e-4, 0.99)), min_size=1, max_size=30)
FREQUENCY = audit.frequencies(np.array([500, 300, 100, 50, 20, 10, 4, 2, 1, 0]))


@given(st.lists(tokens, min_size=1, max_size=4), st.sampled_from([0.05, 0.2, 0.35, 0.6, 1.0]))
def test_min_k(texts, ratio):
    found = audit.min_k(said(*texts), (ratio, 0.5))
    for text, score in zip(texts, found[:, 0], strict=True):
        k = max(1, math.floor(round(ratio * 100) * len(text) / 100))
        lowest = sorted(math.log(p) for _, p in text)[:k]
        assert score == pytest.approx(-sum(lowest) / k, abs=1e-5)
    assert (found[:, 1] >= audit.log_perplexity(said(*texts)) - 1e-6).all()  # the worst half is worse than all


def test_ratios_are_exact():
    """0.29 of 100 are 29, though a double says 28.99…"""
    text = [(0, (i + 1) / 101) for i in range(100)]
    wanted = -np.log(np.arange(1, 30) / 101).mean()
    assert audit.min_k(said(text), (0.29,))[0, 0] == pytest.approx(wanted, abs=1e-6)


def test_min_k_plus_plus():
    text = [(0, 0.5), (1, 0.1), (2, 0.25), (3, 0.9), (4, 0.05)]
    means, variances = [-2.0, -1.0, -3.0, -0.5, -2.5], [1.0, 4.0, 0.25, 0.01, 1.0]
    places = sorted((math.log(p) - m) / v**0.5 for (_, p), m, v in zip(text, means, variances, strict=True))
    found = audit.min_k_plus_plus(said(text, mean=means, variance=variances), (0.2, 0.4, 1.0))
    assert found[0] == pytest.approx([-places[0], -sum(places[:2]) / 2, -sum(places) / 5], abs=1e-5)
    with pytest.raises(RecipeError, match="says nothing about the tokens that do not stand"):
        audit.min_k_plus_plus(said(text))
    sure = audit.min_k_plus_plus(said([(0, 1.0)], mean=[0.0], variance=[0.0]), (1.0,))
    assert sure[0, 0] == 0  # neither expected nor a surprise


@given(st.lists(tokens, min_size=1, max_size=4), st.sampled_from([0.001, 0.01, 0.1]))
def test_dc_pdd(texts, clip):
    for text, score in zip(texts, audit.dc_pdd(said(*texts), FREQUENCY, clip), strict=True):
        seen, evidence = set(), []
        for token, p in text:
            if token not in seen:
                evidence.append(min(p * math.log(1 / FREQUENCY[token]), clip))
            seen.add(token)
        assert score == pytest.approx(-sum(evidence) / len(evidence), rel=1e-5)


@given(tokens, st.lists(st.floats(1e-4, 0.99), max_size=10))
def test_a_token_that_comes_again_does_not_change_dc_pdd(text, more):
    again = text + [(text[i % len(text)][0], p) for i, p in enumerate(more)]
    assert audit.dc_pdd(said(again), FREQUENCY) == audit.dc_pdd(said(text), FREQUENCY)


def test_a_rare_token_that_is_expected_saturates():
    rare = audit.frequencies(np.array([10**6, 0]))
    assert audit.dc_pdd(said([(1, 0.9)]), rare)[0] == -audit.CLIP
    assert audit.dc_pdd(said([(1, 0.9)]), rare, clip=100)[0] == pytest.approx(-0.9 * math.log(10**6 + 2), rel=1e-6)
    assert audit.dc_pdd(said([(0, 0.9)]), rare)[0] > -1e-5  # a common one says nothing


def test_frequencies_are_smoothed():
    found = audit.frequencies(np.array([3, 0, 1]))
    assert found.tolist() == [4 / 7, 1 / 7, 2 / 7]


def test_a_text_that_is_known_scores_lower():
    known, new = [(i, 0.8) for i in range(9)], [(i, 0.01) for i in range(9)]
    both = said(known, new, mean=[-2.0] * 18, variance=[1.0] * 18)
    for scores in (
        audit.min_k(both)[:, 2],
        audit.min_k_plus_plus(both)[:, 0],
        audit.dc_pdd(both, FREQUENCY, 0.5),
        audit.perplexity(both),
    ):
        assert scores[0] < scores[1]


def test_texts_without_tokens_have_no_score():
    empty = said([], [(0, 0.5)], mean=[-1.0], variance=[1.0])
    for scores in (
        audit.min_k(empty)[:, 0],
        audit.min_k_plus_plus(empty)[:, 0],
        audit.dc_pdd(empty, FREQUENCY),
        audit.perplexity(empty),
    ):
        assert np.isnan(scores).tolist() == [True, False]
    assert audit.min_k(said()).shape == (0, 7)


# --------------------------------------------------------------------------------------------- evaluation

labelled = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60).filter(
    lambda rows: len({m for m, _ in rows}) == 2
)


@given(labelled, st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]))
def test_auc_and_tpr(rows, fpr):
    members, scores = np.array([m for m, _ in rows]), np.array([s for _, s in rows], float)
    found = audit.separation(members, scores, fpr=fpr, bootstraps=0)
    pairs = [(a < b) + (a == b) / 2 for a in scores[members] for b in scores[~members]]
    assert found.auc == pytest.approx(np.mean(pairs))
    assert found.auc == pytest.approx(evaluate.auc(members, -scores))
    best = 0.0
    for threshold in scores:
        if (scores[~members] <= threshold).mean() <= fpr + 1e-12:
            best = max(best, (scores[members] <= threshold).mean())
    assert found.tpr == pytest.approx(best)
    if not math.isnan(found.threshold):
        assert (scores[members] <= found.threshold).mean() == found.tpr


def test_intervals_hold_what_they_promise():
    """Of 60 samples of a known distribution, about nine in ten of the intervals hold the true area."""
    from statistics import NormalDist

    true = NormalDist().cdf(1 / math.sqrt(2))
    rng = np.random.default_rng(0)
    members = np.arange(120) < 60
    held = 0
    for seed in range(60):
        scores = rng.normal(size=120) - members
        found = audit.separation(members, scores, bootstraps=200, level=0.9, seed=seed)
        assert found.auc_low <= found.auc <= found.auc_high and found.tpr_low <= found.tpr <= found.tpr_high
        held += found.auc_low <= true <= found.auc_high
    assert 46 <= held <= 60


def test_the_same_seed_is_the_same_interval():
    rng = np.random.default_rng(1)
    members, scores = np.arange(50) < 20, rng.normal(size=50)
    one, again, other = (audit.separation(members, scores, bootstraps=50, seed=seed) for seed in (1, 1, 2))
    assert one == again and one != other and one.auc == other.auc


def test_tables():
    table = pa.table(
        {
            "id": ["a", "b", "c", "d", "e"],
            "seen": [1, 1, 0, 0, None],
            "membership_zlib": [0.1, None, 0.3, math.nan, 0.2],
            "membership_min_k_20": [1.0, 2.0, 3.0, 4.0, 0.0],
            "membership_tokens": pa.array([5, 5, 5, 5, 5], pa.int32()),
            "quality": [3, 4, 1, 2, 9],
        }
    )
    zlib, min_k = audit.evaluate(table, "seen", bootstraps=20)
    assert (zlib.score, zlib.members, zlib.others, zlib.without) == ("membership_zlib", 1, 1, 2)
    assert (min_k.score, min_k.auc, min_k.tpr, min_k.threshold, min_k.without) == ("membership_min_k_20", 1.0, 1.0, 2.0, 0)
    assert str(min_k) == (
        "membership_min_k_20: AUC 1.000 (1.000 to 1.000), TPR 1.000 (1.000 to 1.000) at 5% FPR; 2 members, 2 others"
    )
    assert str(zlib).endswith("1 others, 2 without a score")
    [quality] = audit.evaluate(table.to_pandas(), "seen", ["quality"], bootstraps=0)
    assert quality.auc == 0 and math.isnan(quality.auc_low)


@pytest.mark.parametrize(
    "columns, more, said",
    [
        ({"s": [1.0, 2.0]}, {}, "no column 'member'"),
        ({"member": [True, False]}, {}, "no column membership_"),
        ({"member": [True, False]}, {"scores": ["s"]}, "no column 's'"),
        ({"member": [True, False], "s": ["a", "b"]}, {"scores": ["s"]}, "'s' is string"),
        ({"member": [2, 0], "s": [1.0, 2.0]}, {"scores": ["s"]}, "'member' holds 2, 0"),
        ({"member": ["yes", "no"], "s": [1.0, 2.0]}, {"scores": ["s"]}, "'member' holds 'yes', 'no'"),
        ({"member": [True, True], "s": [1.0, 2.0]}, {"scores": ["s"]}, "s has 2 members and 0 others"),
        ({"member": [True, False], "s": [1.0, math.nan]}, {"scores": ["s"]}, "s has 1 members and 0 others"),
        ({"member": [True, False], "s": [1.0, 2.0]}, {"scores": ["s"], "fpr": 2}, "fpr is 0 to 1"),
    ],
)
def test_wrong_tables(columns, more, said):
    with pytest.raises(RecipeError, match=f"audit: .*{said}"):
        audit.evaluate(pa.table(columns), **more)
