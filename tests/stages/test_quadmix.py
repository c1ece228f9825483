"""quadmix: the sampling function against the formula, its percentiles against sorting, and the search end to end."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.stages.quadmix import (
    Parameters,
    copies_of,
    drawn,
    everything,
    expected_tokens,
    merged,
    percentiles,
    ranked,
    sampled,
    scale_of,
    scaled,
    shares_of,
    to_budget,
)

unit = st.floats(0, 1)

# --------------------------------------------------------------------------------------------- the sampling function


@given(st.floats(0, 3), unit, st.floats(0, 3), st.floats(0, 1), st.lists(unit, min_size=2, max_size=30))
def test_sampling_never_rises_with_rank_and_is_the_formula(log_lambda, omega, eta, epsilon, r):
    steepness = 10**log_lambda
    r = np.sort(np.array(r))
    s = sampled(r, steepness, omega, eta, epsilon)
    assert (np.diff(s) <= 0).all() and (s >= epsilon).all()
    for rank, value in zip(r.tolist(), s.tolist(), strict=True):
        inside = (2 / (1 + math.exp(-steepness * (omega - rank)))) ** eta if rank <= omega else 0.0
        assert value == pytest.approx(inside + epsilon)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 1000)), min_size=1, max_size=40), st.floats(0, 1000))
def test_every_document_exactly_once(documents, steepness):
    q, tokens = (np.array(v, float) for v in zip(*documents, strict=True))
    s = sampled(ranked(q, percentiles(q, tokens)), steepness, 1.0, 0.0, 0.0)
    assert (copies_of(s, np.arange(len(s), dtype=np.uint64) << np.uint64(58)) == 1).all()
    assert expected_tokens(s, tokens) == tokens.sum()


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 9)), min_size=1, max_size=30))
def test_ranks_are_shares_of_tokens_that_are_no_worse(documents):
    q, tokens = (np.array(v, float) for v in zip(*documents, strict=True))
    found = ranked(q, percentiles(q, tokens))
    for i in range(len(q)):
        share = tokens[q <= q[i]].sum() / tokens.sum() if tokens.sum() else 1.0
        assert found[i] == pytest.approx(share)


def test_what_is_better_than_the_sample_comes_first_and_what_is_worse_last():
    known = percentiles(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]))
    assert ranked(np.array([0.5, 1.0, 2.5, 9.0, np.inf]), known).tolist() == [0.0, 0.25, 0.5, 1.0, 1.0]


@given(st.integers(1, 50), st.floats(1, 1e6), st.integers(0, 2**32))
def test_expected_tokens_are_scaled_to_the_budget(n, budget, seed):
    rng = np.random.default_rng(seed)
    tokens, s = rng.integers(1, 999, n).astype(float), rng.random(n) + 1e-4
    scaled_to = to_budget(s, tokens, budget)
    assert expected_tokens(scaled_to, tokens) == pytest.approx(budget)
    assert np.ptp(scaled_to / s) == pytest.approx(0, abs=1e-9 * budget)  # one common factor


def test_copies_come_as_often_as_wanted():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 40_000, dtype=np.uint64)
    copies = copies_of(np.full(40_000, 2.3), hashes)
    assert set(copies.tolist()) == {2, 3}
    assert abs((copies == 3).mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 40_000)
    assert copies_of(np.array([0.0, 1.0, 3.0]), np.array([0, 0, 2**64 - 1], np.uint64)).tolist() == [0, 1, 3]


def test_parameters_are_drawn_as_in_the_paper():
    vectors = drawn(np.random.default_rng(3), 20_000, 3, 2)
    assert vectors.shape == (20_000, (3 + 4) * 2)
    parts = [Parameters.of(v, 3) for v in vectors]
    alpha = np.stack([p.alpha for p in parts])
    assert alpha.shape[1:] == (3, 2) and (alpha >= 0).all()
    np.testing.assert_allclose(alpha.sum(axis=1), 1)
    np.testing.assert_allclose(alpha.mean(axis=0), 1 / 3, atol=0.01)
    # the weight of a score is common to the domains, so that those of two domains go together
    assert np.corrcoef(alpha[:, 0, 0], alpha[:, 0, 1])[0, 1] > 0.3
    for name, back, low, high in (
        ("steepness", lambda v: np.log10(v) / 3, 1, 1000),
        ("omega", lambda v: v * 10, 0, 0.1),
        ("eta", lambda v: v, 0, 1),
        ("epsilon", lambda v: v * 1000, 0, 0.001),
    ):
        values = np.stack([getattr(p, name) for p in parts])
        assert values.min() >= low and values.max() <= high
        u = np.sort(back(values).ravel())
        assert np.abs(u - (np.arange(len(u)) + 0.5) / len(u)).max() < 0.02  # uniform, by Kolmogorov and Smirnov
        assert abs(np.corrcoef(values.T)[0, 1]) < 0.05
    np.testing.assert_array_equal(parts[7].vector(), vectors[7])


def test_shares_are_what_many_documents_come_to():
    rng = np.random.default_rng(5)
    natural = np.array([0.7, 0.2, 0.1])
    vectors = drawn(rng, 20, 2, 3)
    r = (np.arange(200_000) + 0.5) / 200_000
    for vector, found in zip(vectors, shares_of(vectors, natural, 2), strict=True):
        held = Parameters.of(vector, 2)
        free = zip(held.steepness, held.omega, held.eta, held.epsilon, strict=True)
        means = natural * [sampled(r, *of).mean() for of in free]
        share = means / means.sum()
        np.testing.assert_allclose(found[:3], share, rtol=2e-3)
        np.testing.assert_allclose(found[3:], held.alpha @ share, rtol=2e-3)
    np.testing.assert_allclose(shares_of(everything(2, 3)[None], natural, 2)[0], [*natural, 0.5, 0.5])
    np.testing.assert_allclose(shares_of(0 * vectors, natural, 2)[:, :3], np.tile(natural, (20, 1)))


# --------------------------------------------------------------------------------------------- scores


def test_scales_are_robust_and_comparable():
    rng = np.random.default_rng(0)
    raw = rng.normal(5, 2, 10_000)
    wild = np.append(raw, [1e300, -1e300, np.inf, np.nan])
    assert scale_of(wild) == pytest.approx(scale_of(raw), rel=1e-2)
    once, again = scaled(raw, scale_of(raw), True), scaled(raw * 1000 - 7, scale_of(raw * 1000 - 7), True)
    np.testing.assert_allclose(once, again, atol=1e-9)
    assert (np.argsort(once) == np.argsort(-raw)).all()
    np.testing.assert_allclose(scaled(raw, scale_of(raw), False), -once)
    assert np.abs(scaled(np.array([np.inf, -np.inf]), scale_of(raw), False)).tolist() == [10, 10]


@pytest.mark.parametrize("values, scale", [([], (0, 1)), ([np.nan], (0, 1)), ([3.0] * 9, (3, 1)), ([0.0] * 99 + [4.0], (0, 4))])
def test_scales_of_scores_that_hardly_differ(values, scale):
    assert scale_of(np.array(values, float)) == scale


def test_scores_are_merged_by_the_weights_of_the_domain():
    scores = np.array([[1.0, 1.0, 1.0, np.nan], [3.0, 3.0, 5.0, 2.0]])
    alpha = np.array([[1.0, 0.25], [0.0, 0.75]])
    assert merged(scores, np.array([0, 1, 1, 1]), alpha).tolist() == [1.0, 2.5, 4.0, np.inf]
