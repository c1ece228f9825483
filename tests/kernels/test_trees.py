"""Ensembles of trees against a walk from the root."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.kernels import trees

FEATURES = 5
# Few values, so that features often equal thresholds; and some that float32 cannot hold.
BOUNDS = st.one_of(st.sampled_from([-1.5, -0.0, 0.0, 0.1, 1.0, 1e30, -1e-30]), st.floats(-3, 3))
VALUES = st.sampled_from([-1.5, 0.0, 0.1, 0.25, 1.0, 3.0, 1e30, -7.0, -1e-30])


@st.composite
def tree(draw):
    """(feature, threshold, left, right, leaf): grown by splitting a leaf that is drawn, as LightGBM numbers its nodes."""
    leaves = draw(st.one_of(st.integers(1, 8), st.just(trees.MAX_LEAVES)))
    feature, threshold, left, right = [], [], [], []
    for new in range(1, leaves):
        chosen = draw(st.integers(0, new - 1))
        node = new - 1
        for children in (left, right):
            if ~chosen in children:
                children[children.index(~chosen)] = node
        feature.append(draw(st.integers(0, FEATURES - 1)))
        threshold.append(draw(BOUNDS))
        left.append(~chosen)
        right.append(~new)
    leaf = draw(st.lists(st.floats(-5, 5, width=32), min_size=leaves, max_size=leaves))
    return feature, threshold, left, right, leaf


def walk(part, row):
    feature, threshold, left, right, leaf = part
    node = 0 if feature else ~0
    while node >= 0:
        node = left[node] if float(row[feature[node]]) <= threshold[node] else right[node]
    return leaf[~node]


def arrays(part):
    return tuple(np.array(values) for values in part)


@given(
    st.lists(tree(), max_size=6),
    st.lists(st.lists(VALUES, min_size=FEATURES, max_size=FEATURES), max_size=130),
    st.integers(1, 3),
)
def test_a_row_gets_the_leaves_that_a_walk_reaches(parts, rows, groups):
    x = np.array(rows, np.float32).reshape(-1, FEATURES)
    found = trees.scores(trees.join(map(arrays, parts)), x, groups)
    assert found.shape == (len(rows), groups) and found.dtype == np.float32
    for row, scores in zip(x, found, strict=True):
        for group in range(groups):
            assert scores[group] == np.float32(math.fsum(walk(part, row) for part in parts[group::groups]))


def test_the_scores_of_more_rows_than_are_taken_at_a_time_do_not_depend_on_their_company():
    random = np.random.default_rng(1)
    x = random.normal(size=(333, FEATURES)).astype(np.float32)
    part = (np.array([2, 0, 2]), np.array([0.0, 0.5, -1.0]), np.array([2, ~1, ~0]), np.array([1, ~3, ~2]), np.arange(4.0))
    ensemble = trees.join([part] * 9)
    whole = trees.scores(ensemble, x)
    assert len(np.unique(whole)) == 4
    assert np.array_equal(whole, np.concatenate([trees.scores(ensemble, x[k : k + 1]) for k in range(len(x))]))


@pytest.mark.parametrize(
    "part",
    [
        ([0], [1.0], [~0], [~0], [1.0, 2.0]),  # a leaf twice
        ([0, 0], [1.0, 1.0], [~0, ~1], [~2, ~1], [1.0, 2.0, 3.0]),  # a node that is not reached
        ([0], [1.0], [~0], [~1], [1.0]),  # too few leaves
    ],
)
def test_what_is_no_tree_is_refused(part):
    with pytest.raises(ValueError, match=r"tree of|children of a tree"):
        trees.join([arrays(part)])


def test_a_tree_with_too_many_leaves_is_refused():
    n = trees.MAX_LEAVES
    chain = ([0] * n, [float(k) for k in range(n)], [~k for k in range(n)], [*range(1, n), ~n], [0.0] * (n + 1))
    with pytest.raises(ValueError, match="at most 32 leaves"):
        trees.join([arrays(chain)])


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e38, max_value=1e38))
def test_a_rounded_threshold_decides_as_the_exact_one(threshold):
    bound = trees.at_most(threshold)
    assert float(bound) <= threshold < float(np.nextafter(bound, np.float32(np.inf)))
