"""bins against a definition of a line, with every kind of awkward score, in several shards and over several runs."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import ranks
from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.recipe import loads
from curate.stages.bins import Bins
from curate.testing import check_stage, run_over


def defined(scores, weights, bins):
    """The share of the weight that is below, times the number of bins, rounded down."""
    scored = [(s, w) for s, w in zip(scores, weights, strict=True) if s is not None and not math.isnan(s)]
    total = sum(w for _, w in scored)
    if not total:
        return [None] * len(scores)
    below = {s: sum(w for other, w in scored if other < s) for s, _ in scored}
    return [None if s is None or math.isnan(s) else min(bins * below[s] // total, bins - 1) for s in scores]


def docs(scores, weights=None, **more):
    columns = {"text": pa.array(["x"] * len(scores), pa.string()), "s": pa.array(scores, pa.float64()), **more}
    if weights is not None:
        columns["tokens"] = pa.array(weights, pa.uint32())
    return as_table(pa.table(columns))


def written(stage, table, name="s_bin", shards=1, batch=1024):
    outcome = run_over(stage, table, shards=shards, batch=batch)
    assert not len(outcome.drops)
    return outcome.rows[name].to_pylist()


awkward = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, 1.0, 1.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1.7e308]),
    st.floats(),
    st.integers(0, 5).map(float),
)


@settings(max_examples=20)
@given(
    st.lists(st.tuples(awkward, st.integers(0, 9)), min_size=1, max_size=50),
    st.sampled_from([2, 3, 20]),
    st.sampled_from(["tokens", "documents"]),
    st.integers(1, 5),
)
def test_it_is_what_the_definition_says(rows, bins, by, shards):
    scores, weights = [s for s, _ in rows], [w for _, w in rows]
    stage = Bins(columns="s", bins=bins, by=by)
    expected = defined(scores, weights if by == "tokens" else [1] * len(scores), bins)
    assert written(stage, docs(scores, weights), shards=shards, batch=7) == expected


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 9).map(float)), st.integers(0, 9), st.sampled_from([None, "", "a", "b"])),
        min_size=1,
        max_size=50,
    ),
    st.integers(1, 4),
)
def test_groups_and_several_scores(rows, shards):
    scores, weights, groups = zip(*rows, strict=True)
    others = [None if s is None else -s for s in scores[::-1]]
    table = docs(scores, weights, t=pa.array(others, pa.float64()), g=pa.array(groups, pa.string()))
    outcome = run_over(Bins(columns=("s", "t"), bins=4, per="g", into="{} in four"), table, shards=shards, batch=7)
    for name, values in (("s", scores), ("t", others)):
        found = outcome.rows[f"{name} in four"].to_pylist()
        for group in set(groups):
            mine = [i for i, g in enumerate(groups) if g == group]
            assert [found[i] for i in mine] == defined([values[i] for i in mine], [weights[i] for i in mine], 4)


@pytest.mark.parametrize("samples", [2, 7, 512])
@pytest.mark.parametrize("shape", ["equal", "few", "normal", "giant"])
def test_larger_corpora_with_few_samples(monkeypatch, samples, shape):
    monkeypatch.setattr(ranks, "SAMPLES", samples)
    monkeypatch.setattr(ranks, "DOCS_PER_PART", 900)
    rng = np.random.default_rng(1)
    n = 2000
    scores = {"equal": np.zeros(n), "few": rng.integers(0, 3, n).astype(float)}.get(shape, rng.normal(size=n)).tolist()
    weights = rng.integers(0, 100, n).tolist()
    if shape == "giant":
        weights[7] = 1_000_000
    for bins in (20, 100):
        assert written(Bins(columns="s", bins=bins), docs(scores, weights), shards=6) == defined(scores, weights, bins)


def test_a_task_holds_a_part_of_the_keys(gathered, monkeypatch):
    monkeypatch.setattr(ranks, "DOCS_PER_PART", 1000)
    n = 40_000
    found = written(
        Bins(columns="s", bins=20, by="documents"), docs(np.random.default_rng(0).permutation(n).astype(float)), shards=4
    )
    assert np.bincount(found).tolist() == [n // 20] * 20
    assert len(gathered) == 3 and max(gathered) < n / 20


@pytest.mark.parametrize(
    "values, kind, expected",
    [
        ([3, 1, 2, 1], pa.int8(), [3, 0, 2, 0]),
        ([2**40, 0, 5, 6], pa.uint64(), [3, 0, 1, 2]),
        ([True, False, True, False], pa.bool_(), [2, 0, 2, 0]),
        ([3, 1, 2, 0], pa.date32(), [3, 1, 2, 0]),
        ([1.5, 0.5, None, -1], pa.float32(), [2, 1, None, 0]),
        ([1.5, 0.5, None, -1], pa.float16(), [2, 1, None, 0]),
        ([None] * 4, pa.null(), [None] * 4),
    ],
)
def test_kinds_of_numbers(values, kind, expected):
    table = as_table(pa.table({"text": ["x"] * 4, "s": pa.array(values, kind)}))
    assert written(Bins(columns="s", bins=4, by="documents"), table) == expected


def test_strings_have_no_bins():
    with pytest.raises(StageError, match="bins: a column of type string has no order"):
        Bins(columns="text")(["a"])


def test_one_document_and_none():
    assert written(Bins(columns="s"), docs([0.5], [3])) == [0]
    assert written(Bins(columns="s"), docs([])) == []


# --------------------------------------------------------------------------------------------- runs

RECIPE = """\
name: binned
source: auto
stages:
  - bins: {columns: [s, t], bins: 5, per: g%s}
output: {validation: 0}
"""


def run(folder, tables, more="", workers=1):
    source = folder / "in"
    source.mkdir(parents=True, exist_ok=True)
    for i, table in enumerate(tables):
        pq.write_table(table, source / f"{i}.parquet")
    recipe = loads(RECIPE % more).with_inputs([str(source)])
    recipe.run(folder / f"run{workers}", executor="inline" if workers == 1 else "local", workers=workers)
    found = pa.concat_tables(pq.read_table(p) for p in sorted((folder / f"run{workers}" / "output").rglob("*.parquet")))
    return {row["id"]: (row["s_bin"], row["t_bin"]) for row in found.to_pylist()}


def batch_of(seed, n, groups="ab", size=1):
    rng = np.random.default_rng(seed)
    values = [None if i % 17 == 3 else math.inf if i % 13 == 0 else v for i, v in enumerate(rng.normal(size=n).tolist())]
    texts = ["x" * int(k) + rng.bytes(size).hex() for k in rng.integers(1, 400, n)]
    return pa.table(
        {
            "id": [f"{seed}-{i}" for i in range(n)],
            "text": texts,
            "s": pa.array(values, pa.float64()),
            "t": pa.array(rng.integers(0, 5, n)),
            "g": [None if i % 7 == 0 else groups[i % len(groups)] for i in range(n)],
        }
    )


def test_later_batches_use_the_thresholds_of_a_run(tmp_path):
    first = run(tmp_path / "one", [batch_of(1, 300)])
    assert {b for b, _ in first.values()} == {None, 0, 1, 2, 3, 4}
    kept = next((tmp_path / "one" / "run1" / "index").glob("bins-*/thresholds.json"))
    about = json.loads(kept.read_text())
    assert [(f["column"], f["values"]) for f in about["scores"]] == [(s, [g]) for s in "st" for g in (None, "a", "b")]
    for place in (kept, tmp_path / "one" / "run1"):
        again = run(tmp_path / f"again-{place.name}", [batch_of(1, 300)], f", thresholds: {place}")
        assert again == first  # of the same documents the same bins
    later = run(tmp_path / "two", [batch_of(2, 50, "ac")], f", thresholds: {kept}")
    table = batch_of(2, 50, "ac")
    values = {tuple(f["values"]): [float(v) for v in f["thresholds"]] for f in about["scores"] if f["column"] == "s"}
    for row in table.to_pylist():
        known = values.get((row["g"],))
        expected = None if known is None or row["s"] is None else sum(t < row["s"] for t in known)
        assert later[row["id"]][0] == expected


def test_runs_are_the_same_with_any_number_of_workers(tmp_path):
    tables = [batch_of(seed, 300, size=8000) for seed in (1, 2, 3)]
    assert run(tmp_path, tables) == run(tmp_path, tables, workers=2)
    kept = [p.read_bytes() for p in sorted(tmp_path.glob("run*/index/bins-*/thresholds.json"))]
    assert len(kept) == 2 and kept[0] == kept[1]
    assert len(list((tmp_path / "run2" / "documents").glob("0*.parquet"))) == 3


def test_what_is_missing_is_noted(tmp_path):
    run(tmp_path, [batch_of(1, 100)])
    notes = (tmp_path / "run1" / "ledger.json").read_text() if (tmp_path / "run1" / "ledger.json").exists() else ""
    notes += "".join(p.read_text() for p in (tmp_path / "run1").glob("report*"))
    assert "documents without s" in notes


def test_thresholds_that_do_not_fit(tmp_path):
    def fails(about, match, **params):
        path = tmp_path / "t.json"
        path.write_text(about if isinstance(about, str) else json.dumps(about))
        with pytest.raises(StageError, match=match):
            Bins(columns="s", bins=3, thresholds=str(path), **params)(docs([1.0]))

    good = {"format": "curate-bins/1", "bins": 3, "by": "tokens", "per": []}
    good["scores"] = [{"column": "s", "values": [], "thresholds": [0.5, "inf"]}]
    (tmp_path / "t.json").write_text(json.dumps(good))
    found = Bins(columns="s", bins=3, thresholds=str(tmp_path / "t.json"))(docs([0.5, 0.7, math.inf, None]))
    assert found.kept["s_bin"].to_pylist() == [0, 1, 1, None]
    fails("{", "is no file of thresholds")
    fails([], "is no file of thresholds")
    fails({**good, "bins": 4}, "was made with bins: 4, not 3")
    fails(good, r"was made with by: tokens, not documents", by="documents")
    fails(good, r"was made with per: \[\], not \['text'\]", per="text")
    fails({**good, "scores": []}, "has no thresholds of 's', but of nothing")
    fails(
        {**good, "scores": [{"column": "s", "values": [], "thresholds": [2, 1]}]}, "is damaged: s needs 2 thresholds in order"
    )
    with pytest.raises(RecipeError, match=r"bins: no thresholds in .*nowhere"):
        Bins(columns="s", thresholds=str(tmp_path / "nowhere"))(docs([1.0]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": ()}, {"columns": ("s", "s")}, {"columns": "s", "bins": 1}, {"columns": "s", "by": "bytes"},
        {"columns": ("s", "t"), "into": "x"}, {"columns": "s", "into": ""}, {"columns": "s", "per": ("",)},
    ],
)  # fmt: skip
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="bins: "):
        Bins(**wrong)


@pytest.mark.parametrize(
    "stage", [Bins(columns=("score", "tokens"), bins=3, per="language"), Bins(columns="record", into="at")]
)
def test_conformance(stage):
    check_stage(stage)
