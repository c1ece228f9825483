"""quantile against sorting, with every kind of awkward score, in several shards."""

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import ranks
from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.recipe import loads
from curate.stages.quantile import Quantile
from curate.testing import check_stage, run_over


def brute_force(stage, scores, weights=None):
    """Rows that stay, by sorting."""

    def order(row):
        tie = xxhash.xxh3_64_intdigest(row.to_bytes(8, "little"), xxhash.xxh3_64_intdigest(b"", stage.seed))
        return (-scores[row] if stage.order == "highest" else scores[row]), tie

    missing = [r for r, s in enumerate(scores) if s is None or (isinstance(s, float) and math.isnan(s))]
    rows = sorted(set(range(len(scores))) - set(missing), key=order)
    weights = weights if stage.weighted else [1] * len(scores)
    target = stage.tokens if stage.tokens is not None else Fraction(repr(stage.keep)) * sum(weights[r] for r in rows)
    stays, total = [], 0
    for row in rows:
        total += weights[row]
        if total > target:
            break
        stays.append(row)
    return sorted(stays + (missing if stage.nulls == "keep" else []))


def stays(stage, table, shards=1, batch=1024):
    dropped = set(run_over(stage, table, shards=shards, batch=batch).drops["_row"].to_pylist())
    return [r for r in range(len(table)) if r not in dropped]


def docs(scores, weights=None, kind=None):
    columns = {"text": ["x"] * len(scores), "s": pa.array(scores, kind or pa.float64())}
    if weights is not None:
        columns["tokens"] = pa.array(weights, pa.uint32())
    return as_table(pa.table(columns))


awkward = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, 1.0, 1.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1.7e308]),
    st.floats(),
)
stages = st.builds(
    Quantile,
    column=st.just("s"),
    keep=st.sampled_from([0.001, 0.1, 0.3, 0.5, 0.999, 1.0]),
    by_tokens=st.booleans(),
    order=st.sampled_from(["highest", "lowest"]),
    nulls=st.sampled_from(["drop", "keep"]),
    seed=st.integers(0, 3),
)


@given(stages, st.lists(st.tuples(awkward, st.integers(0, 9)), min_size=1, max_size=60), st.integers(1, 5))
def test_it_is_what_sorting_gives(stage, rows, shards):
    scores, weights = [s for s, _ in rows], [w for _, w in rows]
    assert stays(stage, docs(scores, weights), shards, batch=7) == brute_force(stage, scores, weights)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1000)), min_size=1, max_size=60), st.integers(0, 9000))
def test_a_budget_is_never_exceeded(rows, budget):
    stage = Quantile(column="s", tokens=budget)
    scores, weights = [float(s) for s, _ in rows], [w for _, w in rows]
    kept = stays(stage, docs(scores, weights), shards=3)
    assert kept == brute_force(stage, scores, weights)
    assert sum(weights[r] for r in kept) <= budget


@pytest.mark.parametrize("samples", [2, 5, 512])
@pytest.mark.parametrize("shape", ["all equal", "few values", "normal", "one giant", "sorted", "zero weights"])
def test_larger_corpora_with_few_samples(monkeypatch, samples, shape):
    monkeypatch.setattr(ranks, "SAMPLES", samples)
    rng = np.random.default_rng(1)
    n = 3000
    scores = {
        "all equal": np.zeros(n),
        "few values": rng.integers(0, 3, n).astype(float),
        "sorted": np.arange(n).astype(float),
    }.get(shape, rng.normal(size=n))
    weights = rng.integers(1, 100, n)
    if shape == "one giant":
        weights[7] = 1_000_000
    if shape == "zero weights":
        weights[::2] = 0
    for stage in (
        Quantile(column="s", keep=0.25),
        Quantile(column="s", keep=0.6, by_tokens=True),
        Quantile(column="s", tokens=999),
    ):
        expected = brute_force(stage, scores.tolist(), weights.tolist())
        assert stays(stage, docs(scores, weights), shards=7) == expected


def test_the_bracket_is_narrow(gathered):
    """What the last step holds in memory is a small part of the corpus."""
    stage = Quantile(column="s", keep=0.3)
    run_over(stage, docs(np.random.default_rng(0).normal(size=40_000)), shards=4)
    assert 0 < sum(gathered) < 400


@pytest.mark.parametrize(
    "scores, kind, kept",
    [
        ([2**62 + 1, 2**62, 2**62 + 2, -5], pa.int64(), [0, 2]),  # a double cannot tell these apart
        ([2**64 - 1, 0, 2**63, 5], pa.uint64(), [0, 2]),
        ([True, False, True, False], pa.bool_(), [0, 2]),
        ([1, 0, 1, 0], pa.date32(), [0, 2]),
        ([1.5, 0.5, 2.5, -1], pa.float32(), [0, 2]),
        ([None] * 4, pa.float64(), []),
        ([None] * 4, pa.null(), []),
    ],
)
def test_kinds_of_numbers(scores, kind, kept):
    assert stays(Quantile(column="s", keep=0.5), docs(scores, kind=kind), shards=1) == kept


def test_strings_have_no_quantile():
    with pytest.raises(StageError, match="has no order"):
        Quantile(column="s", keep=0.5)(docs(["a"], kind=pa.string()))


def test_reasons_and_values():
    result = Quantile(column="s", keep=0.5)(docs([1.0, None, 3.0, math.nan, 0.5, 2.0]))
    said = {d["id"]: (d["_reason"], d["_value"]) for d in result.dropped.to_pylist()}
    assert said == {
        "0": ("quantile.below", 1.0),
        "1": ("quantile.no_score", None),
        "3": ("quantile.no_score", None),
        "4": ("quantile.below", 0.5),
    }


def test_ties_follow_the_seed_and_not_the_place():
    table = docs([1.0] * 1000)
    one, two = (stays(Quantile(column="s", keep=0.5, seed=seed), table) for seed in (1, 2))
    assert len(one) == len(two) == 500 and one != two
    backwards = table.take(pa.array(range(1000)[::-1]))
    assert [999 - r for r in stays(Quantile(column="s", keep=0.5, seed=1), backwards)][::-1] == one


def test_documents_of_one_record_are_told_apart():
    """Pieces of a split document share file and record."""
    table = docs([1.0] * 10)
    table = table.set_column(table.schema.get_field_index("record"), "record", pa.array([5] * 10, pa.int64()))
    assert len(stays(Quantile(column="s", keep=0.3), table, shards=3)) == 3


def test_weight_is_tokens_only_when_asked():
    table = docs([3.0, 2.0, 1.0], weights=[100, 1, 1])
    assert len(stays(Quantile(column="tokens", keep=0.34), table)) == 1


@pytest.mark.parametrize(
    "wrong", [{}, {"keep": 0.1, "tokens": 5}, {"keep": 0}, {"keep": 1.1}, {"tokens": -1}, {"keep": 0.5, "order": "best"}]
)
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="quantile: "):
        Quantile(column="s", **wrong)


# --------------------------------------------------------------------------------------------- groups


def by_group(stage, scores, weights, groups):
    """Rows that stay, each group by itself."""
    stays = []
    for group in set(groups):
        rows = [r for r, g in enumerate(groups) if g == group]
        share, budget = stage.keep, stage.tokens
        if isinstance(share, dict):
            share = share.get(group[0], share.get("*"))
        if isinstance(budget, dict):
            budget = budget.get(group[0], budget.get("*"))

        def order(row):
            tie = xxhash.xxh3_64_intdigest(row.to_bytes(8, "little"), xxhash.xxh3_64_intdigest(b"", stage.seed))
            return (-scores[row] if stage.order == "highest" else scores[row]), tie

        missing = [r for r in rows if scores[r] is None or math.isnan(scores[r])]
        ranked = sorted(set(rows) - set(missing), key=order)
        weight = {r: weights[r] if stage.weighted else 1 for r in ranked}
        target = budget if share is None else Fraction(repr(share)) * sum(weight.values())
        total = 0
        for row in ranked:
            total += weight[row]
            if total > target:
                break
            stays.append(row)
        stays += missing if stage.nulls == "keep" else []
    return sorted(stays)


amounts = st.one_of(
    st.fixed_dictionaries({"keep": st.sampled_from([0.1, 0.3, 0.5, 1.0]), "by_tokens": st.booleans()}),
    st.fixed_dictionaries({"tokens": st.integers(0, 60)}),
    st.fixed_dictionaries({"keep": st.just({"a": 0.5, "": 0, "*": 0.25}), "by_tokens": st.booleans()}),
    st.fixed_dictionaries({"tokens": st.just({"b": 10, "*": 3})}),
)


@settings(max_examples=30)
@given(
    amounts,
    st.sampled_from(["highest", "lowest"]),
    st.sampled_from(["drop", "keep"]),
    st.lists(
        st.tuples(awkward, st.integers(0, 9), st.sampled_from([None, "", "a", "b", "ä", "null"])), min_size=1, max_size=60
    ),
    st.integers(1, 5),
)
def test_groups_are_cut_as_if_there_were_no_others(amount, order, nulls, rows, shards):
    stage = Quantile(column="s", per="g", order=order, nulls=nulls, **amount)
    scores, weights, groups = zip(*rows, strict=True)
    table = docs(list(scores), list(weights)).append_column("g", pa.array(groups, pa.string()))
    assert stays(stage, table, shards, batch=7) == by_group(stage, scores, weights, [(g,) for g in groups])


@pytest.mark.parametrize("samples", [2, 16])
@pytest.mark.parametrize("per_part", [12, 1 << 21])
def test_many_groups_in_many_parts(monkeypatch, samples, per_part):
    """Of one document, of a handful, and of half of the corpus."""
    monkeypatch.setattr(ranks, "SAMPLES", samples)
    monkeypatch.setattr(ranks, "DOCS_PER_PART", per_part)
    rng = np.random.default_rng(3)
    n = 300
    groups = [
        (str(g), h) for g, h in zip(np.where(rng.random(n) < 0.5, 0, rng.integers(1, 75, n)), rng.random(n) < 0.3, strict=True)
    ]
    scores, weights = rng.integers(0, 40, n).astype(float).tolist(), rng.integers(0, 100, n).tolist()
    table = docs(scores, weights)
    table = table.append_column("g", pa.array([g for g, _ in groups])).append_column(
        "h", pa.array([bool(h) for _, h in groups])
    )
    stage = Quantile(column="s", keep=0.4, by_tokens=True, per=("g", "h"))
    assert stays(stage, table, shards=6) == by_group(stage, scores, weights, groups)


def test_what_a_task_holds_does_not_grow_with_a_large_group(gathered):
    rng = np.random.default_rng(0)
    table = docs(rng.normal(size=30_000)).append_column("g", pa.array(rng.integers(0, 3, 30_000)))
    run_over(Quantile(column="s", keep=0.3, per="g"), table, shards=4)
    assert 0 < sum(gathered) < 900


@pytest.mark.parametrize("kind", [pa.int32(), pa.bool_(), pa.date32(), pa.null()])
def test_kinds_of_groups(kind):
    values = [None] * 6 if kind == pa.null() else [1, 1, 0, 0, None, None]
    groups = pa.array([bool(v) if v is not None else None for v in values] if kind == pa.bool_() else values, kind)
    table = docs([1.0, 2.0, 1.0, 2.0, 1.0, 2.0]).append_column("g", groups)
    assert stays(Quantile(column="s", keep=0.5, per=("g",)), table) == ([1, 3, 5] if kind != pa.null() else stays(
        Quantile(column="s", keep=0.5), table
    ))  # fmt: skip


def test_a_group_without_a_share_is_an_error():
    table = docs([1.0, 2.0, 3.0]).append_column("g", pa.array(["en", "fr", None]))
    with pytest.raises(StageError, match=r"quantile: keep has nothing for g = 'fr'; add it, or '\*'"):
        Quantile(column="s", keep={"en": 0.5, "de": 1}, per="g")(table.slice(0, 2))
    with pytest.raises(StageError, match="tokens has nothing for g = null"):
        Quantile(column="s", tokens={"en": 5, "fr": 5}, per="g")(table)


@pytest.mark.parametrize("kind", [pa.float64(), pa.list_(pa.int64()), pa.binary()])
def test_columns_that_make_no_groups(kind):
    table = docs([1.0]).append_column("g", pa.nulls(1, kind))
    with pytest.raises(StageError, match=r"quantile: column 'g' is .* makes no groups"):
        Quantile(column="s", keep=0.5, per="g")(table)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": {"a": 0.5}},
        {"keep": {"a": 0.5}, "per": ("a", "b")},
        {"keep": {"a": 1.5}, "per": "g"},
        {"tokens": {"a": -1}, "per": "g"},
        {"keep": {}, "per": "g"},
        {"keep": 0.5, "per": ("a", "a")},
        {"keep": 0.5, "per": ""},
    ],
)
def test_wrong_parameters_of_groups(wrong):
    with pytest.raises(RecipeError, match="quantile: "):
        Quantile(column="s", **wrong)


@pytest.mark.parametrize(
    "stage", [{"keep": {"v1": 0.5, "*": 0.1}, "per": "language"}, {"tokens": 40, "per": ("language", "file")}]
)
def test_conformance_with_groups(stage):
    check_stage(Quantile(column="score", **stage))


RECIPE = """\
name: best
source: auto
stages:
  - quantile: {column: s, per: g, keep: {en: 0.5, "*": 0.25}}
output: {validation: 0}
"""


def test_runs_are_the_same_with_any_number_of_workers(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    groups = rng.choice(["en", "de", "fr"], 900, p=[0.6, 0.3, 0.1]).tolist()
    table = pa.table({"id": [str(i) for i in range(900)], "text": [rng.bytes(8000).hex() for _ in range(900)]})
    table = table.append_column("s", pa.array(rng.integers(0, 50, 900) / 7)).append_column("g", pa.array(groups))
    for i in range(3):
        pq.write_table(table.slice(300 * i, 300), tmp_path / "in" / f"{i}.parquet")
    found = []
    for workers in (1, 2):
        recipe = loads(RECIPE).with_inputs([str(tmp_path / "in")])
        recipe.run(tmp_path / f"run{workers}", executor="inline" if workers == 1 else "local", workers=workers)
        drops = sorted((tmp_path / f"run{workers}" / "drops").glob("quantile-*/*.parquet"))
        found.append([path.read_bytes() for path in drops])
        assert len(drops) == 3
    assert found[0] == found[1]
    kept = pa.concat_tables(pq.read_table(p) for p in (tmp_path / "run1" / "output").rglob("*.parquet"))
    for group in ("en", "de", "fr"):
        n = groups.count(group)
        assert kept["g"].to_pylist().count(group) == (n // 2 if group == "en" else n // 4)


def test_two_groups_of_one_hash_are_told_and_not_mixed(monkeypatch):
    real = ranks.group_numbers
    monkeypatch.setattr(ranks, "group_numbers", lambda *given: real(*given) & np.uint64(0))
    table = docs([1.0, 2.0]).append_column("g", pa.array(["a", "b"]))
    with pytest.raises(StageError, match="have one hash"):
        run_over(Quantile(column="s", keep=0.5, per="g"), table, shards=3)
