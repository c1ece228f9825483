"""Shares, budgets and limits, in whole tokens."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import proportions
from curate.errors import CurateError, RecipeError, StageError


@pytest.mark.parametrize(
    "said, tokens",
    [
        (None, None),
        (5_000_000, 5_000_000),
        ("5000000", 5_000_000),
        ("5_000_000", 5_000_000),
        ("5M", 5_000_000),
        ("1.5B", 1_500_000_000),
        ("0.1k", 100),
        (" 2 T ", 2_000_000_000_000),
        ("1.0019k", 1001),
    ],
)
def test_numbers_of_tokens(said, tokens):
    assert proportions.tokens_of(said, "mixture") == tokens


@pytest.mark.parametrize("said", [0, -5, "", "M", "5X", "5 MB", "1,000", "0.1", "1e9", 10**16, "nan", True])
def test_what_is_no_number_of_tokens(said):
    with pytest.raises(RecipeError, match=r"mixture: tokens is .*such as 5000000, 5M or 1\.5B"):
        proportions.tokens_of(said, "mixture")


TOKENS = {"a": 100, "b": 300, "c": 600, "empty": 0}


@pytest.mark.parametrize(
    "weights, found",
    [
        ({"a": 1, "b": 1, "c": 2}, {"a": "1/4", "b": "1/4", "c": "1/2", "empty": "0"}),
        ({"*": 1}, {"a": "1/10", "b": "3/10", "c": "6/10", "empty": "0"}),
        ({"a": 0.5, "*": 0.5}, {"a": "1/2", "b": "1/6", "c": "1/3", "empty": "0"}),
        ({"a": 0, "b": 0, "*": 3}, {"a": "0", "b": "0", "c": "1", "empty": "0"}),
        ({"a": 1, "*": 0}, {"a": "1", "b": "0", "c": "0", "empty": "0"}),
        ({"a": 20.8, "b": 79.2, "c": 0}, {"a": "208/1000", "b": "792/1000", "c": "0", "empty": "0"}),
    ],
)
def test_shares_by_hand(weights, found):
    shares, notes = proportions.shares(weights, TOKENS, "g", None, "mixture")
    assert list(shares) == list(TOKENS) and sum(shares.values()) == 1 and not notes
    assert {name: float(share) for name, share in shares.items()} == pytest.approx(
        {name: float(Fraction(share)) for name, share in found.items()}, abs=1e-15
    )


@pytest.mark.parametrize(
    "weights, said",
    [
        ({"aa": 1, "b": 1, "c": 1}, "g = 'aa' has the share 0.3333, and no document with tokens; did you mean 'a'"),
        ({"a": 1, "b": 1, "c": 1, "d": 0}, "g = 'd' has the share 0, and no document"),
        ({"empty": 1, "*": 1}, "g = 'empty' has the share 0.5, and no document with tokens$"),
        ({"a": 1}, "no weight for g = 'b', 'c'; add one .0 for none., or '\\*'"),
        ({"a": 1, "b": 1, "c": 1, "*": 1}, "'\\*' has the share 0.25, but no other groups are there"),
    ],
)
def test_shares_that_do_not_fit(weights, said):
    with pytest.raises(StageError, match=f"mixture: {said}") as error:
        proportions.shares(weights, TOKENS, "g", None, "mixture")
    assert "\n" not in str(error.value)


def test_a_search_may_lose_small_groups():
    searched = {"a": 0.5, "b": 0.3, "c": 0.19, "gone": 0.006, "too": 0.004, "nothing": 0}
    found, notes = proportions.given_shares(searched, TOKENS, "g", "mixture: climb", searched=True)
    assert sum(found.values()) == 1 and found["a"] == Fraction(50, 99)
    assert list(notes.values()) == [2] and "1.00% of the weights" in next(iter(notes))
    unseen = {**TOKENS, "few": 10}
    found, notes = proportions.given_shares({"a": 0.5, "b": 0.3, "c": 0.2}, unseen, "g", "mixture: climb", searched=True)
    assert found["few"] == 0 and list(notes.values()) == [1]
    with pytest.raises(StageError, match=r"mixture: climb: no weight for g = 'few'; add one"):
        weights = {"a": 0.5, "b": 0.3, "c": 0.2}
        proportions.given_shares(weights, {**unseen, "few": 11}, "g", "mixture: climb", searched=True)
    with pytest.raises(StageError, match=r"mixture: climb: g = 'gone' has the share 0\.007, and no document"):
        proportions.given_shares({**searched, "gone": 0.007, "c": 0.189}, TOKENS, "g", "mixture: climb", searched=True)


amounts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10_000), min_size=1)


@given(amounts, st.data(), st.integers(1, 8))
def test_the_largest_budget_fits_and_one_more_does_not(tokens, data, most):
    shares = proportions.scaled({name: Fraction(data.draw(st.integers(0, 5))) + (name == min(tokens)) * 1 for name in tokens})
    fits = proportions.largest(shares, tokens, most)
    if fits:
        proportions.check_budget(fits, shares, tokens, most, "x", "mixture")
    with pytest.raises(StageError, match="would repeat groups more than"):
        proportions.check_budget(fits + 1, shares, tokens, most, "x", "mixture")


def test_what_is_said_of_a_budget_that_is_too_large():
    shares = proportions.scaled({"math": Fraction(1), "web": Fraction(1)})
    with pytest.raises(StageError) as error:
        proportions.check_budget(10_000, shares, {"math": 1000, "web": 90_000}, 4, "or raise max_repeats", "mixture")
    assert str(error.value) == (
        "mixture: 10,000 tokens would repeat groups more than 4 times: 'math' has 1,000 tokens and is wanted 5.0 times; "
        "at most 8,000 can be had: set `tokens: 8000`, or raise max_repeats"
    )


@given(amounts, st.data(), st.integers(0, 60_000))
def test_what_is_too_much_for_one_goes_to_the_others(limits, data, budget):
    shares = proportions.scaled({name: Fraction(data.draw(st.integers(0, 5))) + (name == min(limits)) * 1 for name in limits})
    found = proportions.within(shares, budget, limits)
    open_ = {name for name in found if shares[name] and found[name] < limits[name]}
    assert all(found[name] <= limits[name] for name in found)
    assert not any(found[name] for name in found if not shares[name])
    if open_:  # all is spent, and those that are not full have it in proportion, and no less than they asked for
        assert 0 <= budget - sum(found.values()) < len(found)
        units = [float(found[name] / shares[name]) for name in open_]
        assert np.ptp(units) <= 1 / float(min(shares[name] for name in open_))
        assert all(found[name] >= int(shares[name] * budget) for name in open_)
    more = proportions.within(shares, budget + 1000, limits)
    assert all(more[name] >= found[name] for name in found)


def test_files_and_ids_are_told_apart():
    assert proportions.is_file("mixture.json") and proportions.is_file("runs/one")
    assert not any(map(proportions.is_file, ("climb", "climb#2", {"a": 1}, None)))


def test_errors_are_of_the_one_tree():
    with pytest.raises(CurateError, match="schedule: max_repeats is 0; give 1 to 100"):
        proportions.check_repeats(0, "schedule")
