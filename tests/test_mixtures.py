"""Mixtures: their file, groups of a column, random candidates against what they promise, and predictors of a known metric."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from curate import mixtures
from curate.errors import RecipeError, StageError
from curate.mixtures import Generator, Mixture, fit, groups_of, in_units, ordered, rank_correlation, within, without

WHOLE = Mixture(
    weights={"a": 0.25, "b": 0.75},
    by="cluster",
    natural={"a": 0.5, "b": 0.5},
    names={"a": "cells", "b": "ships"},
    metric={"name": "loss", "lower_is_better": True, "unit": "nats per token", "targets": {"t": {"tokens": 5}}},
    predicted=3.25,
    measured={"metric": 3.5, "targets": {"t": {"loss": 3.5}}},
    uncertainty=0.125,
    rank_correlation={"spearman": 0.9, "low": 0.8, "high": 0.95, "runs": 30},
    evidence={"method": "climb", "runs": [{"round": 1, "weights": {"a": 1.0, "b": 0.0}}]},
    warnings=("say this",),
)

# --------------------------------------------------------------------------------------------- mixture.json


def test_a_mixture_is_read_as_it_was_written(tmp_path):
    WHOLE.save(tmp_path / "mixture.json")
    assert Mixture.load(tmp_path / "mixture.json", "mixture") == WHOLE
    assert json.loads((tmp_path / "mixture.json").read_text())["format"] == "curate-mixture/1"


def test_a_file_by_hand_needs_weights_only(tmp_path):
    (tmp_path / "w.json").write_text('{"weights": {"news": 3, "*": 1}}')
    found = Mixture.load(tmp_path / "w.json", "mixture")
    assert (found.weights, found.by, found.rate) == ({"news": 0.75, "*": 0.25}, "", None)


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "needs `weights`"),
        ('{"weights": {}}', "groups and their shares"),
        ('{"weights": {"a": -1}}', "weight of 'a' is -1"),
        ('{"weights": {"a": "x"}}', "weight of 'a' is 'x'"),
        ('{"weights": {"a": true}}', "weight of 'a' is True"),
        ('{"weights": {"a": 0}}', "sum to 0"),
        ('{"weights": {"a": 1}, "weight": 1}', "did you mean 'weights'"),
        ('{"weights": {"a": 1}, "by": 3}', "by is int"),
        ('{"weights": {"a": 1}, "format": "other/9"}', "curate-mixture/1"),
        ('{"weights": {"a": 1}, "unit": "documents"}', "shares are of tokens"),
    ],
)
def test_a_file_that_is_none_is_named(text, said, tmp_path):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(RecipeError, match=r"mixture: .*w\.json") as error:
        Mixture.load(tmp_path / "w.json", "mixture")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"no file .*none\.json"):
        Mixture.load(tmp_path / "none.json", "mixture")
    with pytest.raises(RecipeError, match="is a folder"):
        Mixture.load(tmp_path, "mixture")


# --------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize(
    "column, expected",
    [
        (pa.array(["b", None, "a", "b"]), ["b", None, "a", "b"]),
        (pa.array([10, None, 9, 10], pa.int16()), ["10", None, "9", "10"]),
        (pa.array([True, None, False]), ["true", None, "false"]),
        (pa.array(["x", None]).dictionary_encode(), ["x", None]),
        (pa.DictionaryArray.from_arrays(pa.array([2, 0], pa.int8()), pa.array(["a", "b", None])), [None, "a"]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_groups_are_strings(column, expected):
    at, groups = groups_of(column, "x")
    assert [None if i < 0 else groups[i] for i in at.tolist()] == expected
    assert set(groups) == set(expected) - {None}


def test_what_makes_no_groups_is_said():
    with pytest.raises(StageError, match="climb: column 'x' is double, which makes no groups"):
        groups_of(pa.array([0.5]), "climb: column 'x'")


def test_groups_are_in_order():
    assert ordered(["10", "9", "b", "-2", "a", "9"]) == ("-2", "9", "10", "a", "b")


# --------------------------------------------------------------------------------------------- candidates

shares = st.lists(st.floats(0.001, 1), min_size=2, max_size=12).map(lambda w: np.array(w) / sum(w))


@given(shares, st.integers(0, 2**40), st.sampled_from([2e-4, 1e-3, 0.003, 0.1]), st.sampled_from([3.0, 15.0, 1e6]))
@settings(max_examples=25)
def test_candidates_keep_what_is_promised(natural, seed, unit, usage):
    generator = Generator(seed=seed, min_weight=unit, max_usage=usage)
    found = generator.draw(natural, 40, fewer=True)
    assert np.abs(found.sum(axis=1) - 1).max(initial=0) < 1e-12
    assert (found <= generator.bound(natural) + 1e-9).all()
    units = found * round(1 / unit)
    assert np.abs(units - units.round()).max(initial=0) < 1e-6
    assert len(np.unique(units.round(), axis=0)) == len(found)
    assert np.array_equal(found, generator.draw(natural, 40, fewer=True))


def test_candidates_are_those_of_the_plain_method():
    """Against the method step by step, one candidate at a time: the same distribution of every group's share."""
    natural = np.array([0.5, 0.3, 0.15, 0.05])
    generator = Generator(max_usage=4, min_weight=2e-3)
    rng = np.random.default_rng(1)
    prior = natural**0.5 / (natural**0.5).sum()
    plain = []
    while len(plain) < 3000:
        drawn = [rng.dirichlet(prior * s) for s in np.logspace(math.log10(0.1), math.log10(5), 15)][rng.integers(15)]
        if (drawn > np.minimum(4 * natural, 1)).any():
            continue
        drawn[drawn < 2e-3] = 0
        plain.append((drawn / drawn.sum() / 2e-3).round() * 2e-3)
    plain = np.array(plain)
    plain = plain[(plain <= np.minimum(4 * natural, 1)).all(axis=1)]
    found = generator.draw(natural, 3000)
    for group in range(4):
        inner = [v[(v > 0.01) & (v < 0.99)] for v in (found[:, group], plain[:, group])]  # duplicates are at the ends
        assert stats.ks_2samp(*inner).pvalue > 1e-3


def test_streams_and_seeds_differ():
    natural = [0.5, 0.5]
    draws = [Generator(seed=s).draw(natural, 20, stream=t) for s, t in ((1, 0), (2, 0), (1, 1))]
    assert not any(np.array_equal(a, b) for a, b in [(draws[0], draws[1]), (draws[0], draws[2])])


def test_a_group_without_tokens_gets_nothing():
    assert not Generator().draw([0.5, 0.0, 0.5], 50)[:, 1].any()


def test_bounds_that_are_too_tight_are_said():
    natural = np.full(30, 1 / 30)
    with pytest.raises(StageError, match=r"climb: .* of 50 mixtures .*max_usage = 1 .*raise max_usage"):
        Generator(max_usage=1).draw(natural, 50, what="climb")


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"strength_min": 0}, "strength_min is 0"),
        ({"strength_min": 6}, "strength_min is 6 and strength_max 5"),
        ({"temperature": -1}, "temperature is -1"),
        ({"max_usage": 0.5}, "max_usage is 0.5"),
        ({"min_weight": 0}, "min_weight is 0"),
    ],
)
def test_parameters_out_of_range_are_said(wrong, said):
    with pytest.raises(RecipeError, match=f"climb: {said}"):
        Generator(**wrong).check("climb")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda w: sum(w) > 0.01), st.integers(1, 5000))
def test_shares_in_units_add_up(weights, units):
    exact = np.array([weights]) / sum(weights)
    found = in_units(exact, units)
    assert found.sum() == units and (found >= 0).all()
    assert np.abs(found - exact * units).max() < 1 + 1e-6


@given(shares, st.integers(0, 1000))
def test_what_is_bounded_sums_to_one(weights, seed):
    bound = np.minimum(np.random.default_rng(seed).dirichlet(np.ones(len(weights))) * 1.5, 1)
    found = within(weights, bound)
    assert (found <= bound + 1e-9).all()
    assert abs(found.sum() - min(bound.sum(), 1)) < 1e-9


def test_what_is_near_is_known():
    known = np.array([[0.5, 0.5]])
    assert without(np.array([[0.5, 0.5], [0.500004, 0.499996], [0.6, 0.4]]), known).tolist() == [False, False, True]


# --------------------------------------------------------------------------------------------- predictors


def runs_of(n, groups=8, noise=0.02, seed=0):
    """(natural, weights, what was measured, the true metric): a quadratic distance to a hidden mixture."""
    rng = np.random.default_rng(seed)
    natural = rng.dirichlet(np.full(groups, 5.0))
    best = within(rng.dirichlet(np.full(groups, 0.5)), np.minimum(15 * natural, 1))

    def metric(weights):
        return 3 + ((weights - best) ** 2).sum(axis=1)

    weights = Generator(seed=seed).draw(natural, n)
    return natural, weights, metric(weights) + noise * rng.standard_normal(n), metric


@pytest.mark.parametrize("n, at_least", [pytest.param(30, 0.4, marks=pytest.mark.slow), (64, 0.6)])
def test_trees_beat_the_mean_on_mixtures_they_have_not_seen(n, at_least):
    natural, weights, measured, metric = runs_of(n)
    found = fit(weights, measured)
    fresh = Generator(seed=99).draw(natural, 1000)
    truth, predicted = metric(fresh), found.predict(fresh)
    assert np.mean((predicted - truth) ** 2) < 0.7 * np.mean((measured.mean() - truth) ** 2)
    assert rank_correlation(predicted, truth)["spearman"] > at_least
    # and what they say of themselves is true of those
    said = found.correlation()
    assert said["low"] - 0.1 < rank_correlation(predicted, truth)["spearman"] < said["high"] + 0.1
    error = np.sqrt(np.mean((predicted - truth) ** 2))
    assert 0.4 * error < found.residual < 2.5 * error
    assert found.uncertainty(fresh[:1]) >= found.residual


def test_a_line_finds_a_line():
    rng = np.random.default_rng(3)
    weights = Generator(seed=3).draw(rng.dirichlet(np.full(6, 4.0)), 40)
    slope = rng.normal(size=6)
    found = fit(weights, weights @ slope, "linear")
    assert found.correlation()["spearman"] > 0.99
    assert np.allclose(found.predict(weights), weights @ slope, atol=0.02)


def test_targets_are_learned_alone_and_averaged():
    _, weights, measured, _ = runs_of(20)
    one, two = fit(weights, measured, "linear"), fit(weights, weights[:, 0], "linear")
    both = fit(weights, np.stack([measured, weights[:, 0]], axis=1), "linear")
    assert np.allclose(both.predict(weights), (one.predict(weights) + two.predict(weights)) / 2)
    assert np.allclose(both.out_of_fold, (one.out_of_fold + two.out_of_fold) / 2)


def test_the_units_of_a_metric_do_not_matter(monkeypatch):
    monkeypatch.setattr(mixtures, "TREES", 100)
    _, weights, measured, _ = runs_of(24)
    small = fit(weights, measured * 1e-4)
    assert np.allclose(small.predict(weights), fit(weights, measured).predict(weights) * 1e-4, rtol=1e-6)


@pytest.mark.parametrize("kind", mixtures.PREDICTORS)
def test_a_metric_without_spread_predicts_itself(kind):
    _, weights, _, _ = runs_of(12)
    found = fit(weights, np.full(12, 2.5), kind)
    assert found.predict(weights).tolist() == [2.5] * 12
    assert found.correlation()["spearman"] == 0 and found.correlation()["low"] < 0


def learned_much(groups=10, n=28, seed=0):
    """(natural, weights, what was measured, the true metric): what is read more of teaches less, and two groups harm."""
    rng = np.random.default_rng(seed)
    natural = rng.dirichlet(np.full(groups, 8.0))
    worth = np.append(rng.uniform(0, 0.6, groups - 2), [0, 0])

    def metric(weights):
        return 7.5 - (worth * np.log1p(20 * weights)).sum(axis=1) + 2 * weights[:, -2:].sum(axis=1) ** 2

    weights = Generator(seed=seed).draw(natural, n)
    return natural, weights, metric(weights) + 0.03 * rng.standard_normal(n), metric


def test_some_tens_of_runs_say_more_to_a_stacked_predictor(monkeypatch):
    monkeypatch.setattr(mixtures, "TREES", 300)
    better = []
    for seed in range(4):
        natural, weights, measured, metric = learned_much(seed=seed)
        fresh = Generator(seed=99).of_prior().draw(natural, 2000)
        truth = metric(fresh)
        best = {kind: truth[np.argmin(fit(weights, measured, kind).predict(fresh))] for kind in ("lightgbm", "stacked")}
        better.append(best["lightgbm"] - best["stacked"])
    assert np.mean(better) > 0.1 and min(better) > -0.1


def test_one_very_bad_run_does_not_decide_a_stacked_predictor():
    _, weights, measured, _ = learned_much()
    worst = int(np.argmax(measured))
    far = measured.copy()
    far[worst] += 1000
    found = fit(weights, far, "stacked")
    assert np.allclose(found.predict(weights), fit(weights, measured, "stacked").predict(weights), atol=0.2)
    assert found.residual < 1 and found.measured.max() > 900


@pytest.mark.parametrize("kind", ["linear", pytest.param("stacked", marks=pytest.mark.slow)])
def test_noise_is_no_prediction(kind):
    """Nothing to be learned: the interval includes 0 in about 19 of 20 cases, where it is not below."""
    weights = Generator(seed=5).draw(np.full(6, 1 / 6), 40)
    rng = np.random.default_rng(5)
    claimed = sum(fit(weights, rng.standard_normal(40), kind).correlation()["low"] > 0 for _ in range(60))
    assert claimed <= 6


def test_too_few_runs_are_said():
    with pytest.raises(StageError, match="at least 4 runs, and there are 3"):
        fit(np.eye(3), np.arange(3.0))


def test_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(7)
    for n in (5, 40):
        a = rng.integers(0, 9, n).astype(float)
        b = a + rng.normal(size=n)
        assert rank_correlation(a, b)["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic)
    assert rank_correlation(np.ones(9), np.arange(9))["spearman"] == 0
    assert rank_correlation(np.arange(3), np.arange(3)) == {"spearman": 1.0, "low": -1.0, "high": 1.0, "runs": 3}


@pytest.mark.parametrize("rho, n", [(0.0, 20), (0.6, 40), (0.9, 30)])
def test_intervals_hold_the_correlation_as_often_as_they_say(rho, n):
    rng = np.random.default_rng(11)
    true = 6 / math.pi * math.asin(rho / 2)  # Spearman's, of a bivariate normal distribution
    held = 0
    for _ in range(1000):
        a = rng.standard_normal(n)
        b = rho * a + math.sqrt(1 - rho**2) * rng.standard_normal(n)
        found = rank_correlation(a, b)
        held += found["low"] <= true <= found["high"]
    assert 0.92 < held / 1000 < 0.98
