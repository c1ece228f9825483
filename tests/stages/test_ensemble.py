"""ensemble against loops over rows."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.recipe import loads
from curate.stages.bins import Bins
from curate.stages.ensemble import Ensemble
from curate.testing import check_stage, run_over

NAMES = ("a", "b", "c")


def naive(stage, row, ranks=None):
    """(joint score, tier) of one row, a mapping from names to scores."""
    weights = dict(zip(stage.columns, stage.weights or [1.0] * len(stage.columns), strict=True))
    there = [c for c in stage.columns if row[c] is not None and not math.isnan(row[c])]
    if not there or (stage.missing == "null" and len(there) < len(stage.columns)):
        return None, None
    values = [ranks[c][row[c]] if ranks else row[c] for c in there]
    if stage.how == "max":
        joint = max(values)
    elif stage.how == "min":
        joint = min(values)
    else:
        used = [(weights[c], v) for c, v in zip(there, values, strict=True) if weights[c] > 0]
        if not used:
            return None, None
        joint = sum(w * v for w, v in used) / sum(w for w, _ in used)
        if math.isnan(joint):
            return None, None
    reached = [name for name, low in (stage.tiers or {}).items() if low <= joint]
    return joint, max(reached, key=lambda name: stage.tiers[name]) if reached else None


def table_of(rows):
    columns = {name: pa.array([row[i] for row in rows], pa.float64()) for i, name in enumerate(NAMES)}
    return as_table(pa.table({"text": pa.array(["x"] * len(rows), pa.string()), **columns}))


def rows_of(table):
    return table.select(list(NAMES)).to_pylist()


def check(stage, rows, ranks=None, shards=1):
    table = table_of(rows)
    found = run_over(stage, table, shards=shards, batch=7).rows
    expected = [naive(stage, row, ranks) for row in rows_of(table)]
    for value, (joint, _) in zip(found[stage.into].to_pylist(), expected, strict=True):
        assert value == joint if None in (value, joint) else math.isclose(value, joint, rel_tol=1e-14, abs_tol=1e-300)
    if stage.tiers:
        assert found[f"{stage.into}_tier"].to_pylist() == [tier for _, tier in expected]


score = st.one_of(st.none(), st.sampled_from([math.nan, math.inf, -math.inf, -0.0]), st.integers(-3, 20).map(float))
many = st.lists(st.tuples(score, score, score), min_size=1, max_size=30)
joined = st.one_of(
    st.fixed_dictionaries({"how": st.sampled_from(["max", "min", "mean"])}),
    st.fixed_dictionaries(
        {"how": st.just("weighted"), "weights": st.sampled_from([(1.0, 2.0, 0.5), (0.0, 1.0, 0.0), (3.0, 1, 1)])}
    ),
)


@given(joined, st.sampled_from(["null", "skip"]), many, st.sampled_from([None, {"high": 19, "low": 0.0, "mid": 7.5}]))
def test_it_is_what_loops_give(joined, missing, rows, tiers):
    check(Ensemble(columns=NAMES, missing=missing, into="q", tiers=tiers, **joined), rows)


@settings(max_examples=30)
@given(many, st.integers(1, 4), st.sampled_from(["null", "skip"]))
def test_ranks_are_shares_of_documents_with_less(rows, shards, missing):
    ranks = {}
    for i, name in enumerate(NAMES):
        scored = [row[i] for row in rows if row[i] is not None and not math.isnan(row[i])]
        ranks[name] = {s: 1000 * sum(o < s for o in scored) // len(scored) / 1000 for s in scored}
    stage = Ensemble(columns=NAMES, how="rank", missing=missing, tiers={"top": 0.5})
    check(stage, rows, ranks, shards)


def test_ranks_in_memory_and_from_another_scale():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=3000), rng.normal(size=3000)
    table = pa.table({"text": ["x"] * 3000, "a": a, "b": b, "e": np.exp(10 * b)})
    one = Ensemble(columns=("a", "b"), how="rank")(table).kept["ensemble"].to_numpy()
    two = Ensemble(columns=("a", "e"), how="rank")(table).kept["ensemble"].to_numpy()
    assert (one == two).all()
    exact = (a.argsort().argsort() + b.argsort().argsort()) / 6000
    assert np.abs(one - exact).max() < 0.0011 and len(np.unique(one)) > 500


def test_bins_and_their_maximum_are_buckets_and_tiers():
    """The documents of the highest bucket are those that any scorer has among its best."""
    rng = np.random.default_rng(5)
    n = 2000
    table = as_table(
        pa.table({"text": ["x" * int(k) for k in rng.integers(1, 300, n)], "a": rng.normal(size=n), "b": rng.random(n)})
    )
    bins = Bins(columns=("a", "b"))(table).kept
    tiers = {"high": 19, "medium_high": 18, "medium": 12, "medium_low": 7, "low": 0}
    kept = Ensemble(columns=("a_bin", "b_bin"), into="quality", tiers=tiers)(bins).kept
    either = [max(x, y) for x, y in zip(kept["a_bin"].to_pylist(), kept["b_bin"].to_pylist(), strict=True)]
    assert kept["quality"].to_pylist() == either
    tokens = np.array(kept["tokens"].to_pylist())
    high = np.array(kept["quality_tier"].to_pylist()) == "high"
    assert 0.09 < tokens[high].sum() / tokens.sum() < 0.1  # 1 - 0.95 ** 2
    assert set(kept["quality_tier"].to_pylist()) == set(tiers)


@pytest.mark.parametrize("kind", [pa.int32(), pa.bool_(), pa.float16(), pa.null()])
def test_kinds_of_numbers(kind):
    values = (
        pa.nulls(3, kind) if kind == pa.null() else pa.array([1, 0, None]).cast(kind if kind != pa.float16() else pa.float32())
    )
    table = pa.table({"text": ["x"] * 3, "a": values.cast(kind), "b": [0.5, 0.25, 2.0]})
    kept = Ensemble(columns=("a", "b"), missing="skip")(table).kept["ensemble"].to_pylist()
    assert kept == ([0.5, 0.25, 2.0] if kind == pa.null() else [1.0, 0.25, 2.0])


def test_strings_are_no_scores():
    with pytest.raises(StageError, match="ensemble: a column of type string has no order"):
        Ensemble(columns=("text", "tokens"))(["a"])


RECIPE = """\
name: joined
source: auto
stages:
  - ensemble: {columns: [a, b], how: %s, into: q, tiers: {high: 0.5, low: 0}}
  - where: {sql: "q IS NOT NULL"}
output: {validation: 0}
"""


@pytest.mark.parametrize("how", ["mean", "rank"])
def test_runs_are_the_same_with_any_number_of_workers(tmp_path, how):
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    for i in range(3):
        texts = [rng.bytes(8000).hex() for _ in range(300)]
        scores = [None if k % 9 == 0 else v for k, v in enumerate(rng.random(300).tolist())]
        pq.write_table(pa.table({"text": texts, "a": scores, "b": rng.random(300)}), tmp_path / "in" / f"{i}.parquet")
    recipe = loads(RECIPE % how).with_inputs([str(tmp_path / "in")])
    found = []
    for workers in (1, 2):
        recipe.run(tmp_path / f"run{workers}", executor="inline" if workers == 1 else "local", workers=workers)
        found.append([p.read_bytes() for p in sorted((tmp_path / f"run{workers}" / "output").rglob("*.parquet"))])
        layers = list((tmp_path / f"run{workers}" / "attributes").glob("ensemble-*/*.parquet"))
        assert len(layers) == 3
    assert found[0] == found[1]
    report = "".join(p.read_text() for p in (tmp_path / "run1").glob("report*"))
    phases = [p.name for p in (tmp_path / "run1" / "phases").iterdir()]
    assert any("ensemble+where" in name for name in phases), phases
    assert "documents without a" in report and "documents without q" in report
    assert any("ensemble." in name for name in phases) == (how == "rank")  # else there is no pass of its own


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": ("a",)}, {"columns": ("a", "a")}, {"how": "best"}, {"missing": "zero"}, {"how": "weighted"},
        {"weights": (1.0, 1.0)}, {"how": "weighted", "weights": (1.0,)}, {"how": "weighted", "weights": (1.0, -1.0)},
        {"how": "weighted", "weights": (0.0, 0.0)}, {"how": "weighted", "weights": (1.0, math.nan)}, {"into": ""},
        {"tiers": {}}, {"tiers": {"a": 1, "b": 1}}, {"tiers": {"": 1}}, {"tiers": {"a": math.nan}},
    ],
)  # fmt: skip
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="ensemble: "):
        Ensemble(**{"columns": ("a", "b"), **wrong})


def test_conformance():
    check_stage(Ensemble(columns=("score", "record"), how="weighted", weights=(1, 0.5), missing="skip"))
    check_stage(Ensemble(columns=("score", "record"), how="rank", missing="skip"))
