"""semantic_dedup against brute force: every pair of a cluster, in Python's own arithmetic."""

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import corpus
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate import centroids
from curate.errors import MissingExtra, RecipeError, StageError
from curate.kernels import vectors as kernels
from curate.memory import as_table
from curate.stage import ROW, Task
from curate.stages import semantic_dedup
from curate.stages.semantic_dedup import SemanticDedup
from curate.testing import check_stage, run_over

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss-cpu is not installed")


FLOAT = pa.float32()


def table_of(rows, kind=FLOAT, size=None, **columns):
    """Documents with these embeddings; kind: of a number; size: of a list, None for lists of any size."""
    column = pa.array(rows, pa.list_(kind) if size is None else pa.list_(kind, size))
    text = pa.array([f"t{i}" for i in range(len(rows))], pa.string())
    return as_table(pa.table({"text": text, "embedding": column, **columns}))


def matrix_table(matrix, **columns):
    flat = pa.array(matrix.ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    return as_table(pa.table({"text": ["x"] * len(matrix), "embedding": column, **columns}))


def planted(n, dimension, seed=0, share=0.3, noise=0.15, centres=6):
    """(float16 vectors around some centres, for each the row that it is a noisy copy of, else -1)."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(centres, dimension)) * 0.7
    found = base[rng.integers(0, centres, n)] + rng.normal(size=(n, dimension))
    source = np.full(n, -1)
    for i in range(5, n):
        if rng.random() < share:
            source[i] = rng.integers(0, i)
            found[i] = found[source[i]] + rng.normal(size=dimension) * noise * rng.random()
    return found.astype(np.float16), source


def cosine(a, b):
    """In the order of the components, as the definition has it."""
    dot = squares_a = squares_b = 0.0
    for x, y in zip(a, b, strict=True):
        dot, squares_a, squares_b = dot + x * y, squares_a + x * x, squares_b + y * y
    return min(dot / math.sqrt(squares_a * squares_b), 1.0)


def has_direction(row):
    return row is not None and all(x is not None and math.isfinite(x) for x in row) and any(row)


def leader_rule(rows, threshold, cluster=None, order=None, most=None):
    """{row: (leader, cosine)} of the duplicates, and the rows that are left unresolved. cluster: of each row; order: of all."""
    leaders, found, unresolved = {}, {}, []
    for i in order if order is not None else range(len(rows)):
        if not has_direction(rows[i]):
            continue
        mine = leaders.setdefault(None if cluster is None else cluster[i], [])
        for j in mine:
            similarity = cosine(rows[i], rows[j])
            if similarity >= threshold:
                found[i] = (j, similarity)
                break
        else:
            if most is not None and len(mine) >= most:
                unresolved.append(i)
            else:
                mine.append(i)
    return found, unresolved


def decided(outcome, table):
    """{row: (row of the one that stays, cosine)} of the drops."""
    at = {id_: i for i, id_ in enumerate(table["id"].to_pylist())}
    assert set(outcome.drops["_reason"].to_pylist()) <= {"semantic_dedup.duplicate"}
    return {d["_row"]: (at[d["_duplicate_of"]], d["_similarity"]) for d in outcome.drops.to_pylist()}


def rounded(matrix):
    return [list(map(float, row)) for row in matrix]


# --------------------------------------------------------------------------------------------- the rule

# few directions, so that cosines meet often; a component of a list may be missing
number = st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, 3.0, -0.25])
strange = st.sampled_from([None, float("nan"), float("inf"), -0.0, 6.1e-5, 30000.0])
embedding = st.one_of(
    st.none(),
    st.lists(number, min_size=3, max_size=3),
    st.lists(st.one_of(number, strange), min_size=3, max_size=3),
)


@given(
    st.lists(embedding, max_size=25),
    st.sampled_from([1.0, 0.95, 0.8, 0.5, 0.01]),
    st.sampled_from([pa.float16(), pa.float32(), pa.float64()]),
    st.sampled_from([3, None]),
    st.integers(1, 4),
)
@example([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]], 1.0, pa.float32(), 3, 1)
@example([], 0.5, pa.float32(), None, 1)
def test_the_leader_rule_in_one_cluster(rows, threshold, kind, size, shards):
    rows = [None if r is None else [None if x is None else np.float16(x) for x in r] for r in rows]
    table = table_of(rows, kind, size)
    outcome = run_over(SemanticDedup(threshold=threshold), table, shards=shards, batch=4)
    expected, _ = leader_rule([r and [None if x is None else float(x) for x in r] for r in rows], threshold)
    assert decided(outcome, table) == expected


@pytest.mark.parametrize("threshold", [0.99, 0.9, 0.5])
def test_many_blocks_of_vectors(threshold):
    matrix, _ = planted(900, 24)
    table = matrix_table(matrix)
    expected, _ = leader_rule(rounded(matrix), threshold)
    assert 100 < len(expected) < 900
    assert decided(run_over(SemanticDedup(threshold=threshold), table, shards=3), table) == expected


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(2, 700))
def test_the_threshold_is_met_to_the_last_bit(seed, dimension):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=dimension)
    matrix = np.stack([first, first + rng.normal(size=dimension) * 0.3]).astype(np.float16)
    exact = cosine(*rounded(matrix))
    for between in (0, 300):  # in one block, and in another than its leader
        far = -np.repeat(matrix[:1], between, axis=0)
        rows = np.concatenate([matrix[:1], far, matrix[1:]])
        at, above = (SemanticDedup(threshold=t)(matrix_table(rows)) for t in (exact, min(math.nextafter(exact, 2), 1.0)))
        assert at.dropped["_similarity"].to_pylist()[-1] == exact and at.dropped["id"].to_pylist()[-1] == str(between + 1)
        assert exact == 1 or str(between + 1) in above.kept["id"].to_pylist()


def test_leaders_are_compared_in_chunks(monkeypatch):
    monkeypatch.setattr(kernels.Leaders, "CHUNK", 64)
    matrix, _ = planted(700, 16, seed=3)
    expected, _ = leader_rule(rounded(matrix), 0.9)
    assert decided(run_over(SemanticDedup(threshold=0.9), matrix_table(matrix)), matrix_table(matrix)) == expected


def test_a_chain_of_neighbours_does_not_go_whole():
    angles = np.radians(np.arange(0, 90, 10))
    table = table_of([[math.cos(a), math.sin(a)] for a in angles])
    result = SemanticDedup(threshold=math.cos(math.radians(15)))(table)
    assert result.kept["id"].to_pylist() == ["0", "2", "4", "6", "8"]
    assert result.dropped["_duplicate_of"].to_pylist() == ["0", "2", "4", "6"]


def test_length_and_precision_do_not_matter():
    base = np.random.default_rng(0).normal(size=8).astype(np.float32)
    rows = [base, base * 1e-30, base * 1e30, base * 3, -base, base.astype(np.float16) * np.float16(2**-10)]
    result = SemanticDedup(threshold=0.9999)(table_of([r.astype(np.float64) for r in rows], pa.float64()))
    assert result.kept["id"].to_pylist() == ["0", "4"]
    assert min(result.dropped["_similarity"].to_pylist()) > 0.99999


def test_half_precision_is_compared_as_it_is():
    rng = np.random.default_rng(1)
    given = rng.integers(0, 0x7C00, (2000, 5)).astype(np.uint16).view(np.float16)  # every positive number that there is
    given[given == 0] = 1
    rows, found = kernels.halves(pa.FixedSizeListArray.from_arrays(pa.array(given.ravel()), 5))
    assert rows.tolist() == list(range(2000))
    factor = found.astype(np.float64) / given.astype(np.float64)
    assert (factor == factor[:, :1]).all() and (np.frexp(factor)[0] == 0.5).all()


def test_other_precisions_are_rounded_to_eleven_bits():
    given = np.random.default_rng(1).lognormal(0, 3, (500, 5)).astype(np.float32)
    _, found = kernels.halves(pa.FixedSizeListArray.from_arrays(pa.array((given * 1e20).ravel()), 5))
    np.testing.assert_allclose(
        found.astype(np.float64) / np.linalg.norm(found.astype(np.float64), axis=1, keepdims=True),
        given / np.linalg.norm(given.astype(np.float64), axis=1, keepdims=True),
        rtol=2**-10, atol=1e-9,
    )  # fmt: skip


def test_documents_without_a_direction_are_left_alone_and_counted():
    rows = [[1.0, 0.0], None, [0.0, 0.0], [float("nan"), 1.0], None, [0.0, -0.0], [2.0, 0.0], [float("inf"), 1.0]]
    table, stage, notes = table_of(rows), SemanticDedup(), {}
    assert decided(run_over(stage, table), table) == {6: (0, 1.0)}
    with fitted(stage, table) as (folder, names):
        task = Task(phase="x", rank=0, shard=0, folders=[(stage, "s", folder)], shards=names, counters=notes)
        stage.open(task)
    assert notes == {"documents without an embedding, left alone": 6}


def test_all_null_and_no_documents():
    assert SemanticDedup()(pa.table({"text": ["a", "b"], "embedding": pa.nulls(2)})).kept.num_rows == 2
    assert SemanticDedup()(pa.table({"text": ["a"], "embedding": pa.nulls(1, pa.list_(pa.float16(), 4))})).kept.num_rows == 1
    assert SemanticDedup()(table_of([])).kept.num_rows == 0


@pytest.mark.parametrize("column", [pa.array([1.0, 2.0]), pa.array(["a", "b"]), pa.array([[1, 2], [3, 4]])])
def test_another_type_is_refused(column):
    with pytest.raises(StageError, match=r"semantic_dedup: column 'embedding' holds no embeddings: it is .*, not a list of fl"):
        SemanticDedup()(pa.table({"text": ["a", "b"], "embedding": column}))


@pytest.mark.parametrize("batch", [1, 10])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("clusters", [1, pytest.param(2, marks=needs_faiss)])
def test_embeddings_of_different_models_are_refused(shards, batch, clusters):
    table = table_of([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0, 3.0]])
    with pytest.raises(StageError, match=r"lists of 2 and of 3|embeddings of 2 and of 3"):
        run_over(SemanticDedup(clusters=clusters), table, shards=shards, batch=batch)


# --------------------------------------------------------------------------------------------- which one stays


def test_prefer():
    rows = [[1.0, 0.0]] * 6
    table = as_table(
        pa.table(
            {
                "id": ["bb", "c", "a", "dd", "e", "f"],
                "text": ["x", "xxx", "xxx", "xx", None, "é"],
                "date": ["2025-01-01", None, "2024-12-31T23:59:59Z", "2025-01-01T00:00:01Z", "unknown", "2025"],
                "score": [0.5, float("nan"), -1.0, None, 0.5, 0.25],
                "embedding": pa.array(rows, pa.list_(pa.float32(), 2)),
            }
        )
    )

    def stays(prefer, order=None):
        given = table if order is None else table.take(order)
        (kept,) = SemanticDedup(prefer=prefer)(given).kept["id"].to_pylist()
        return kept

    assert stays("first") == "bb"
    assert stays("first", [3, 2, 1, 0]) == "dd"
    for order in (None, [5, 4, 3, 2, 1, 0], [1, 0, 3, 2, 5, 4]):
        assert stays("longest", order) == "a"
        assert stays("newest", order) == "dd"
        assert stays("score", order) == "e"  # 0.5 twice: the shorter id


def test_prefer_decides_who_leads():
    matrix, _ = planted(300, 8, seed=5)
    score = np.random.default_rng(2).integers(0, 20, 300)
    ids = [f"{'x' * (i % 3)}{997 * i % 300}" for i in range(300)]
    table = matrix_table(matrix, id=pa.array(ids), score=pa.array(score))
    order = sorted(range(300), key=lambda i: (-score[i], len(ids[i]), ids[i]))
    expected, _ = leader_rule(rounded(matrix), 0.9, order=order)
    assert decided(run_over(SemanticDedup(prefer="score", threshold=0.9), table, shards=4), table) == expected


@pytest.mark.parametrize("prefer", ["outlying", "central"])
def test_far_from_or_close_to_the_centroid(prefer):
    rng = np.random.default_rng(0)
    matrix = (np.ones(12) + rng.normal(size=(200, 12)) * 0.3).astype(np.float16)
    unit = matrix.astype(np.float64) / np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    to_centre = unit @ (unit.mean(axis=0) / np.linalg.norm(unit.mean(axis=0)))
    order = np.argsort(to_centre if prefer == "outlying" else -to_centre)
    expected, _ = leader_rule(rounded(matrix), 0.95, order=order.tolist())
    table = matrix_table(matrix)
    assert decided(run_over(SemanticDedup(prefer=prefer, threshold=0.95), table, shards=3), table) == expected


def test_a_column_without_order_is_refused():
    with pytest.raises(StageError, match="semantic_dedup: prefer: column 'text' is string"):
        SemanticDedup(prefer="text")(table_of([[1.0]]))


def test_labels():
    matrix, _ = planted(300, 8, seed=7)
    table = matrix_table(matrix)
    expected, _ = leader_rule(rounded(matrix), 0.9)
    outcomes = [run_over(SemanticDedup(threshold=0.9, mode="label"), table, shards=s, batch=b) for s, b in ((1, 1024), (3, 7))]
    assert outcomes[0].rows.drop_columns([ROW]).equals(outcomes[1].rows.drop_columns([ROW]))
    rows = outcomes[0].rows
    assert outcomes[0].drops.num_rows == 0
    ids = table["id"].to_pylist()
    assert rows["duplicate_of"].to_pylist() == [ids[expected[i][0]] if i in expected else None for i in range(300)]
    leader = [expected[i][0] if i in expected else i for i in range(300)]
    assert rows["cluster_size"].to_pylist() == [leader.count(one) for one in leader]
    marks = rows["duplicate_cluster"].to_pylist()
    assert [m is None for m in marks] == [leader.count(one) == 1 for one in leader]
    for one in set(leader):
        assert len({m for m, lead in zip(marks, leader, strict=True) if lead == one}) == 1
    named = [m for m in marks if m is not None]
    assert len(set(named)) == len({lead for lead in leader if leader.count(lead) > 1})


def test_clusters_of_parts_of_one_document_have_different_names():
    rows = [[1.0, 0.0], [0.0, 1.0]] * 2
    same = {"file": pa.array(["f"] * 4), "record": pa.array([7] * 4)}
    kept = SemanticDedup(mode="label")(table_of(rows, id=pa.array(["a#1", "a#2", "b", "c"]), **same)).kept
    assert kept["duplicate_of"].to_pylist() == [None, None, "a#1", "a#2"]
    assert len(set(kept["duplicate_cluster"].to_pylist())) == 2


# --------------------------------------------------------------------------------------------- limits


def test_what_comes_after_the_last_leader_is_kept_and_counted(monkeypatch):
    monkeypatch.setattr(semantic_dedup, "LEADERS", 40 * 16 + 5)
    matrix, _ = planted(600, 16, seed=9)
    table, stage, notes = matrix_table(matrix), SemanticDedup(threshold=0.95), {}
    expected, unresolved = leader_rule(rounded(matrix), 0.95, most=40)
    assert unresolved and expected
    assert decided(run_over(stage, table, shards=3), table) == expected
    with fitted(stage, table) as (folder, names):
        stage.open(Task(phase="x", rank=0, shard=0, folders=[(stage, "s", folder)], shards=names, counters=notes))
    assert list(notes.values()) == [len(unresolved)]
    labels = run_over(replace(stage, mode="label"), table).rows
    assert [labels["cluster_size"][i].as_py() for i in unresolved] == [1] * len(unresolved)
    assert {labels["duplicate_cluster"][i].as_py() for i in unresolved} == {None}


class fitted:
    """The folder of a fit over a table as one shard, with a limit on memory; counters of its steps in `counters`."""

    def __init__(self, stage, table, memory=2 << 30, shards=1):
        import tempfile

        self._scratch = tempfile.TemporaryDirectory()
        self._stage, self._table, self._memory, self._shards = stage, table, memory, shards
        self.counters = []

    def __enter__(self):
        folder, n = Path(self._scratch.name), len(self._table)
        names = [f"{i}.parquet" for i in range(self._shards)]
        task = Task(phase="x", rank=0, folders=[(self._stage, "s", folder)], shards=names, memory_limit=self._memory)
        cuts = [n * i // self._shards for i in range(self._shards + 1)]
        for step in self._stage.steps(self._shards, n):
            for rank in range(step.tasks if step.reads is None else self._shards):
                here = replace(task, rank=rank, counters={})
                if step.reads is None:
                    step.fn(here)
                else:
                    part = self._table.slice(cuts[rank], cuts[rank + 1] - cuts[rank]).combine_chunks()
                    part = part.append_column(ROW, pa.array(np.arange(len(part), dtype=np.uint32))).select([ROW, *step.reads])
                    batches = [part.slice(at, 50).combine_chunks().to_batches()[0] for at in range(0, len(part), 50)]
                    step.fn(replace(here, shard=rank), iter(batches))
                self.counters.append((step.name, here.counters))
        return folder, names

    def __exit__(self, *error):
        self._scratch.cleanup()


def decisions(folder, names):
    return [(folder / "rows" / name).read_bytes() for name in names]


@needs_faiss
@pytest.mark.parametrize("prefer", ["first", "outlying"])
def test_the_memory_limit_changes_no_byte(prefer, monkeypatch):
    monkeypatch.setattr(semantic_dedup, "DOCS_PER_PARTITION", 500)
    matrix, _ = planted(1500, 16, seed=11)
    table, stage = matrix_table(matrix), SemanticDedup(threshold=0.9, clusters=12, prefer=prefer)
    assert stage.partitions(1500) == 3
    found = []
    for memory in (2 << 30, 64_000, 20_000, 1):  # all at once, several clusters, one by one, from a file
        with fitted(stage, table, memory, shards=3) as (folder, names):
            found.append(decisions(folder, names))
    assert found[0] == found[1] == found[2] == found[3]
    assert sum(map(len, found[0])) > 1000


def test_the_largest_cluster_is_counted():
    run = fitted(SemanticDedup(), table_of([[1.0, 0.0]] * 7 + [[0.0, 1.0]] * 3))
    with run:
        assert dict(run.counters)["pairs"] == {"cluster": 7}


# --------------------------------------------------------------------------------------------- clusters


@needs_faiss
@pytest.mark.parametrize("clusters", [3, 20])
def test_only_documents_of_one_cluster_are_compared(clusters):
    matrix, _ = planted(800, 16, seed=13, noise=0.4)
    table, stage = matrix_table(matrix), SemanticDedup(threshold=0.85, clusters=clusters)
    with fitted(stage, table) as (folder, names):
        trained = semantic_dedup._centroids(stage, Task(phase="x", rank=0, folders=[(stage, "s", folder)], shards=names))
        found = decisions(folder, names)
    assert trained.shape == (clusters, 16)
    np.testing.assert_allclose(np.linalg.norm(trained, axis=1), 1, rtol=1e-6)
    nearest = np.argmax(matrix.astype(np.float64) @ trained.T.astype(np.float64), axis=1)
    expected, _ = leader_rule(rounded(matrix), 0.85, cluster=nearest.tolist())
    whole, _ = leader_rule(rounded(matrix), 0.85)
    assert len(expected) < len(whole)  # a border does divide some
    for shards, batch in ((1, 1024), (1, 3), (4, 100)):
        assert decided(run_over(stage, table, shards=shards, batch=batch), table) == expected
    with fitted(stage, table) as again:
        assert decisions(*again) == found


@needs_faiss
def test_planted_duplicates_are_found():
    matrix, source = planted(6000, 64, seed=17, noise=0.1)
    stage, table = SemanticDedup(threshold=0.9), matrix_table(matrix)
    assert stage.clusters_of(6000) == 38
    dropped = set(decided(run_over(stage, table), table))
    copies = set(np.flatnonzero(source >= 0).tolist())
    assert len(dropped & copies) >= 0.97 * len(copies)
    assert len(dropped - copies) <= 0.01 * len(dropped)


@needs_faiss
def test_training_is_the_same_on_any_number_of_threads():
    import faiss

    vectors = kernels.unit(planted(3000, 32)[0])
    before = faiss.omp_get_max_threads()
    found = []
    try:
        for threads in (1, 2, 4):
            faiss.omp_set_num_threads(threads)
            found.append(centroids.train(vectors, 40, seed=3).tobytes())
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    assert len(set(found)) == 1
    assert centroids.train(vectors, 40, seed=4).tobytes() != found[0]


@needs_faiss
@pytest.mark.parametrize("spherical", [True, False])
def test_training_lowers_the_objective_and_leaves_no_cluster_empty(spherical):
    vectors = kernels.unit(planted(2000, 16, centres=30)[0])
    few, many = (centroids.train(vectors, 30, seed=1, spherical=spherical, iterations=n) for n in (1, 20))

    def objective(found):
        nearest, value = centroids.nearest(vectors, found, spherical=spherical)
        assert len(np.unique(nearest)) == 30
        return value.sum() if spherical else -value.sum()

    assert objective(many) > objective(few)


@needs_faiss
def test_more_centroids_than_vectors_and_equal_vectors():
    vectors = np.eye(3, dtype=np.float32)
    assert centroids.train(vectors, 10, seed=1).shape == (3, 3)
    assert np.isfinite(centroids.train(np.repeat(vectors[:1], 50, axis=0), 5, seed=1)).all()
    assert centroids.train(vectors[:0], 10, seed=1).shape == (0, 3)
    table = table_of([[1.0, 0.0]] * 30 + [[0.0, 1.0]])
    assert SemanticDedup(clusters=8)(table).dropped.num_rows >= 22
    assert SemanticDedup(clusters=8)(table_of([None, None], size=2)).kept.num_rows == 2


@needs_faiss
def test_a_sample_without_vectors_is_one_cluster(monkeypatch):
    monkeypatch.setattr(semantic_dedup, "OVERSAMPLE", 0)
    table = table_of([[1.0, 0.0], [0.0, 1.0]] * 9)
    assert SemanticDedup(clusters=4)(table).kept.num_rows == 2


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 1000), st.booleans())
def test_nearest_is_exact(n, k, seed, spherical):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (n, 4)).astype(np.float32)
    vectors[~vectors.any(axis=1)] = 1
    found = rng.integers(-2, 3, (k, 4)).astype(np.float32)  # many ties
    if spherical:
        found[~found.any(axis=1)] = 1
        found = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    index, value = centroids.nearest(vectors, found, spherical=spherical)
    for i in range(n):
        row, others = list(map(float, vectors[i])), [list(map(float, c)) for c in found]
        dots = [sum(x * y for x, y in zip(row, c, strict=True)) for c in others]
        if spherical:
            scores, expected = dots, max(dots) / math.sqrt(sum(x * x for x in row))
        else:
            distance = [sum((x - y) ** 2 for x, y in zip(row, c, strict=True)) for c in others]
            scores, expected = [-d for d in distance], min(distance)
        assert index[i] == scores.index(max(scores))
        assert value[i] == pytest.approx(expected, abs=1e-9)


def test_one_cluster_needs_no_faiss_and_more_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    table = table_of([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    for prefer in ("first", "central"):
        assert SemanticDedup(clusters=1, prefer=prefer)(table).dropped.num_rows == 1
    with pytest.raises(MissingExtra, match=r"stage 'semantic_dedup' needs the package 'faiss-cpu': .*curate-corpus\[cluster\]"):
        SemanticDedup()(table)
    with pytest.raises(MissingExtra, match="k-means"):
        centroids.train(np.eye(3, dtype=np.float32), 2, seed=1)


# --------------------------------------------------------------------------------------------- a new threshold


@needs_faiss
def test_a_higher_threshold_needs_only_the_pairs_again():
    matrix, _ = planted(600, 16, seed=19)
    table, stage = matrix_table(matrix), SemanticDedup(threshold=0.8, clusters=4)
    changed, step = stage.rethresholded(0.95)
    assert changed == replace(stage, threshold=0.95)
    steps = changed.steps(1, 600)
    at = [s.name for s in steps].index(step)
    with fitted(stage, table) as (folder, names):
        before = decisions(folder, names)
        for later in steps[at:]:
            for rank in range(later.tasks):
                later.fn(Task(phase="x", rank=rank, folders=[(changed, "s", folder)], shards=names))
        found = decisions(folder, names)
    with fitted(changed, table) as again:
        assert found == decisions(*again) != before


@pytest.mark.parametrize("threshold", [0.79, 1.01, float("nan")])
def test_the_evidence_reaches_no_lower(threshold):
    with pytest.raises(ValueError, match="semantic_dedup"):
        SemanticDedup(threshold=0.8).rethresholded(threshold)


# --------------------------------------------------------------------------------------------- promises


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0}, {"threshold": 1.5}, {"threshold": float("nan")}, {"clusters": 0}, {"clusters": 10**6},
        {"sample": 0}, {"mode": "keep"},
    ],
)  # fmt: skip
def test_parameters_that_cannot_be(wrong):
    with pytest.raises(RecipeError, match=f"semantic_dedup: {next(iter(wrong))} is "):
        SemanticDedup(**wrong)


@needs_faiss
@pytest.mark.parametrize(
    "stage",
    [
        SemanticDedup(),
        SemanticDedup(clusters=5, threshold=0.8, prefer="outlying"),
        SemanticDedup(clusters=5, threshold=0.8, mode="label", prefer="newest"),
        SemanticDedup(threshold=0.8, mode="label"),
    ],
    ids=str,
)
def test_conformance(stage):
    matrix, _ = planted(120, 6, seed=23)
    rows = [None if i % 11 == 3 else [float("nan")] * 6 if i % 17 == 5 else row for i, row in enumerate(rounded(matrix))]
    dates = [None if i % 7 == 0 else f"2026-01-{1 + i % 28:02d}" for i in range(120)]
    check_stage(stage, table_of(rows, pa.float16(), 6, date=pa.array(dates)))


RECIPE = """\
name: meaning
source: auto
stages:
  - where: {sql: "n % 13 <> 4"}
  - semantic_dedup: {threshold: 0.9, clusters: 9, prefer: quality}
    max_drop: 0.9
output: {validation: 0}
"""


@needs_faiss
def test_runs_are_the_same_with_any_number_of_workers(tmp_path):
    matrix, source = planted(1500, 16, seed=29, noise=0.1)
    table = matrix_table(matrix, n=pa.array(range(1500)), quality=pa.array(np.random.default_rng(0).random(1500)))
    noise = np.random.default_rng(1)
    texts = pa.array([noise.bytes(4500).hex() for _ in range(1500)])  # three files of 4.5 MB are three shards
    table = table.set_column(table.column_names.index("text"), "text", texts)
    (tmp_path / "in").mkdir()
    for i in range(3):
        pq.write_table(table.slice(500 * i, 500), tmp_path / "in" / f"{i}.parquet", compression="none")
    recipe = corpus.recipe(tmp_path, RECIPE)
    found = []
    for workers in (1, 2):
        run = tmp_path / f"run{workers}"
        done = corpus.curate("run", recipe, "-i", tmp_path / "in", "-o", run, "-w", workers, check=0)
        drops = sorted((run / "drops").glob("semantic_dedup-*/*.parquet"))
        found.append([path.read_bytes() for path in drops])
        assert "semantic_dedup.duplicate" in done.stdout + done.stderr
    assert found[0] == found[1] and len(found[0]) == 3
    dropped = sum(pq.read_metadata(path).num_rows for path in drops)
    assert 0.8 * (source >= 0).sum() < dropped < (source >= 0).sum()
