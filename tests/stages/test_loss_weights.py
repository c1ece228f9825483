"""Weights by loss: the formula, its invariants, and sums that no order changes."""

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_oracle import notes

from curate.errors import RecipeError, StageError
from curate.recipe import loads
from curate.stages import loss_weights
from curate.stages.loss_weights import STRATEGIES, LossWeights, exact_sum
from curate.testing import check_stage, run_over


def docs(losses, tokens=None, ids=None):
    tokens = [1] * len(losses) if tokens is None else tokens
    return pa.table(
        {
            "text": pa.array([""] * len(losses), pa.string()),
            "id": pa.array(ids or [str(i) for i in range(len(losses))]),
            "nll": pa.array(losses, pa.float64()),
            "nll_tokens": pa.array(tokens, pa.int32()),
        }
    )


def oracle(losses, strategy, delta, r):
    """The weights of one group, summing to 1, as the formula stands, one document at a time."""
    low, high = min(losses), max(losses)
    wide = max(high - low, 1e-6)
    exponents = []
    for loss in losses:
        h = 2 * delta * loss / wide - delta * (high + low) / wide
        f = {
            "linupper": min(h + delta, delta),
            "mid": 1 - h**2 / delta**2,
            "quadratic": 1 - h**2 / delta**2,
            "extremes": abs(h),
            "upper": 0.5 * h + 0.5 * delta,
        }[strategy]
        exponents.append(f / r)
    top = max(exponents)
    total = sum(math.exp(e - top) for e in exponents)
    return [math.exp(e - top) / total for e in exponents]


def weights(stage, table, shards=1, batch=1024):
    return run_over(stage, table, shards, batch).rows["sample_weight"].to_pylist()


means = st.lists(st.integers(0, 4000).map(lambda n: n / 256), min_size=1, max_size=40)


@given(means, st.sampled_from(STRATEGIES), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.3, 1.0, 10.0]))
def test_one_group_is_the_formula(losses, strategy, delta, r):
    stage = LossWeights(strategy=strategy, delta=delta, r=r, scale="sum")
    tokens = [1 + i % 5 for i in range(len(losses))]
    found = weights(stage, docs([loss * n for loss, n in zip(losses, tokens, strict=True)], tokens), shards=3)
    np.testing.assert_allclose(found, oracle(losses, strategy, delta, r), rtol=1e-9)
    assert math.fsum(found) == pytest.approx(1, abs=1e-12)
    many = weights(LossWeights(strategy=strategy, delta=delta, r=r), docs(losses))
    assert math.fsum(many) / len(many) == pytest.approx(1, abs=1e-12)


@settings(max_examples=30)
@given(means, st.integers(1, 12), st.sampled_from(STRATEGIES), st.integers(1, 4), st.integers(0, 3))
def test_batches_are_those_that_a_trainer_would_draw(losses, size, strategy, shards, seed):
    stage = LossWeights(batch=size, strategy=strategy, scale="sum", seed=seed)
    rows = run_over(stage, docs(losses), shards, batch=7).rows
    order = sorted(range(len(losses)), key=lambda i: xxhash.xxh3_64_intdigest(str(i).encode(), seed))
    for number, at in enumerate(range(0, len(order), size)):
        mine = order[at : at + size]
        found = [rows["sample_weight"][i].as_py() for i in mine]
        np.testing.assert_allclose(found, oracle([losses[i] for i in mine], strategy, 1.0, 1.0), rtol=1e-9)
        assert math.fsum(found) == pytest.approx(1, abs=1e-12)
        assert {rows["sample_weight_batch"][i].as_py() for i in mine} == {number}


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("per_part", [20, 90])
def test_batches_do_not_end_where_a_part_does(monkeypatch, size, per_part):
    losses = np.random.default_rng(0).gamma(3, size=300).tolist()
    stage = LossWeights(batch=size)
    whole = run_over(stage, docs(losses)).rows
    monkeypatch.setattr(loss_weights, "DOCS_PER_PART", per_part)
    assert run_over(stage, docs(losses), shards=4).rows.equals(whole)


@pytest.mark.parametrize("size", [0, 8])
def test_no_shard_or_batch_changes_a_bit(size):
    losses = np.random.default_rng(1).gamma(3, size=500).tolist()
    for strategy in STRATEGIES:
        stage = LossWeights(batch=size, strategy=strategy)
        whole = run_over(stage, docs(losses)).rows
        for shards, batch in ((1, 7), (5, 64), (30, 1)):
            assert run_over(stage, docs(losses), shards, batch).rows.equals(whole)


def test_the_order_of_documents_changes_no_bit():
    losses = np.random.default_rng(2).gamma(3, size=300)
    order = np.random.default_rng(3).permutation(300)
    found = np.array(weights(LossWeights(), docs(losses.tolist())))
    assert (np.array(weights(LossWeights(), docs(losses[order].tolist()))) == found[order]).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [0, 3])
def test_equal_losses_have_equal_weights(strategy, size):
    found = weights(LossWeights(strategy=strategy, batch=size), docs([2.5] * 9))
    assert found == pytest.approx([1.0] * 9, abs=1e-15)


def test_what_the_strategies_favour():
    losses = np.linspace(1, 5, 9).tolist()
    linupper, upper, extremes, mid = (
        np.array(weights(LossWeights(strategy=s), docs(losses))) for s in ("linupper", "upper", "extremes", "mid")
    )
    assert (np.diff(linupper)[:4] > 0).all() and (linupper[4:] == linupper[4]).all()  # flat above the middle
    assert linupper[-1] / linupper[0] == pytest.approx(math.e)
    assert (np.diff(upper) > 0).all()
    assert extremes.argmin() == 4 and mid.argmax() == 4
    assert (np.array(weights(LossWeights(strategy="quadratic"), docs(losses))) == mid).all()
    flat = np.array(weights(LossWeights(r=100), docs(losses)))
    assert np.ptp(flat) < 0.011  # a large r is uniform


EQUAL = "equal documents that the weights are worth (effective sample size)"


@pytest.mark.parametrize("size", [0, 50])
def test_the_effective_sample_size_is_told(size):
    losses = np.random.default_rng(5).gamma(3, size=100).tolist()
    stage = LossWeights(batch=size, strategy="extremes", r=0.1)
    rows = run_over(stage, docs(losses)).rows
    found = np.array(rows["sample_weight"].to_pylist())
    groups = np.array(rows["sample_weight_batch"].to_pylist()) if size else np.zeros(100, int)
    expected = sum((w := found[groups == g] / found[groups == g].sum(), 1 / (w * w).sum())[1] for g in np.unique(groups))
    assert notes(stage, docs(losses)) == {EQUAL: round(expected)}
    assert 5 < expected < 60


@pytest.mark.parametrize("size", [0, 4])
def test_documents_without_a_loss(size):
    losses = [1.0, None, math.nan, 3.0, math.inf, 2.0, 5.0, 9.0]
    tokens = [1, 1, 1, 1, 1, 1, 0, None]
    stage = LossWeights(batch=size)
    found = weights(stage, docs(losses, tokens))
    assert [w is None for w in found] == [False, True, True, False, True, False, True, True]
    few = [w for w in found if w is not None]
    assert few == pytest.approx([3 * w for w in oracle([1.0, 3.0, 2.0], "linupper", 1.0, 1.0)])
    told = notes(stage, docs(losses, tokens))
    assert told.pop(EQUAL) == 3
    assert told == {
        "documents without a loss, and so without a weight": 3,
        "documents with a loss that is not a number, and so without a weight": 2,
    }


@pytest.mark.parametrize("size", [0, 4])
def test_no_document_has_a_loss(size):
    stage = LossWeights(batch=size)
    assert weights(stage, docs([None, math.nan, None]), shards=3) == [None] * 3
    assert EQUAL not in notes(stage, docs([None, math.nan]))
    assert weights(stage, docs([]), shards=2) == []


def test_a_mean_needs_no_tokens():
    one = weights(LossWeights(column="nll", tokens=""), docs([1.0, 2.0, 4.0], [9, 9, 9]))
    assert one == weights(LossWeights(), docs([1.0, 4.0, 12.0], [1, 2, 3]))


def test_a_column_of_strings_has_no_mean():
    table = docs([1.0]).append_column("s", pa.array(["x"]))
    with pytest.raises(StageError, match="loss_weights: a column of type string"):
        LossWeights(column="s")(table)


@given(st.lists(st.floats(0, 1).filter(lambda x: x == 0 or x > 2.0**-1000), max_size=50), st.randoms())
def test_sums_are_exact(values, random):
    expected = sum(map(Fraction, values), Fraction(0))
    assert Fraction(exact_sum(np.array(values, np.float64)), 1 << 1200) == expected
    random.shuffle(values)
    assert Fraction(exact_sum(np.array(values[:7])) + exact_sum(np.array(values[7:])), 1 << 1200) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "middle"},
        {"delta": 0},
        {"r": -1},
        {"r": 1e-3},
        {"batch": -1},
        {"scale": "max"},
        {"column": ""},
        {"into": "nll"},
    ],
)
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="loss_weights: "):
        LossWeights(**wrong)


def test_the_steepest_that_is_allowed():
    stage = LossWeights(r=1 / 300, strategy="mid")
    found = weights(stage, docs([0.0, 1.0, 2.0, 0.0]))
    assert found == pytest.approx([0, 4, 0, 0], abs=1e-100)
    assert weights(stage, docs([0.0, 2.0])) == pytest.approx([1.0, 1.0])  # nothing in the middle, and still a sum


@pytest.mark.parametrize("more", [{"batch": 5}, {"batch": 1000, "scale": "sum"}, {"strategy": "mid", "tokens": ""}])
def test_conformance_of_other_parameters(more):
    check_stage(LossWeights(**more))


@pytest.mark.parametrize("size", [0, 16])
def test_runs_are_the_same_with_any_number_of_workers(tmp_path, size):
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    table = pa.table({"id": [str(i) for i in range(600)], "text": [rng.bytes(8000).hex() for _ in range(600)]})
    table = table.append_column("nll", pa.array(rng.gamma(3, size=600)))
    table = table.append_column("nll_tokens", pa.array(rng.integers(1, 9, 600), pa.int32()))
    for i in range(3):
        pq.write_table(table.slice(200 * i, 200), tmp_path / "in" / f"{i}.parquet")
    recipe = loads(f"name: w\nsource: auto\nstages:\n  - loss_weights: {{batch: {size}}}\noutput: {{validation: 0}}\n")
    found = []
    for workers in (1, 2):
        run = recipe.with_inputs([str(tmp_path / "in")])
        run.run(tmp_path / f"run{workers}", executor="inline" if workers == 1 else "local", workers=workers)
        layers = sorted((tmp_path / f"run{workers}" / "attributes").glob("loss_weights-*/*.parquet"))
        found.append([path.read_bytes() for path in layers])
        assert len(layers) == 3
    assert found[0] == found[1]
    kept = pa.concat_tables(pq.read_table(p) for p in (tmp_path / "run1" / "output").rglob("*.parquet"))
    assert math.fsum(kept["sample_weight"].to_pylist()) == pytest.approx(600)
