"""kmeans against a naive Lloyd, and what its columns and its state promise."""

import importlib.util
import math

import corpus
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import centroids
from curate.errors import MissingExtra, RecipeError, StageError
from curate.kernels.spread import nearer
from curate.memory import as_table
from curate.stage import ROW, Task
from curate.stages import kmeans
from curate.stages.kmeans import Kmeans
from curate.testing import check_stage, run_over

pytestmark = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss-cpu is not installed")


def table_of(rows, kind=None, size=None, **columns):
    """Documents with these embeddings; kind: of a number; size: of a list, None for lists of any size."""
    kind = kind or pa.float32()
    column = pa.array(rows, pa.list_(kind) if size is None else pa.list_(kind, size))
    return as_table(pa.table({"text": pa.array(["x"] * len(rows), pa.string()), "embedding": column, **columns}))


def matrix_table(matrix, **columns):
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    return as_table(pa.table({"text": ["x"] * len(matrix), "embedding": column, **columns}))


def around(n, dimension, centres, seed=0, noise=0.5):
    """(vectors around some centres, the centre of each), float32."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, centres, n)
    base = rng.normal(size=(centres, dimension))
    return (base[label] + noise * rng.normal(size=(n, dimension))).astype(np.float32), label


def lloyd(vectors, k, spherical, start, rounds=40):
    """The mean loss that plain k-means comes to, beginning with the means of these sets of vectors."""
    vectors = vectors.astype(np.float64)
    if spherical:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = np.array([vectors[start == j].mean(0) for j in range(k)])
    for _ in range(rounds):
        distance = ((vectors[:, None] - found[None]) ** 2).sum(-1)
        nearest = distance.argmin(1)
        for j in range(k):
            if (nearest == j).any():
                found[j] = vectors[nearest == j].mean(0)
                if spherical:
                    found[j] /= np.linalg.norm(found[j])
    least = ((vectors[:, None] - found[None]) ** 2).sum(-1).min(1)
    return (least / 2 if spherical else least).mean()


def loss(kept, spherical):
    distance = kept["cluster_distance"].to_numpy()
    return float(distance.mean() if spherical else np.square(distance).mean())


# --------------------------------------------------------------------------------------------- what is found


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("spherical", [True, False])
def test_the_objective_is_that_of_a_naive_lloyd(spherical, init):
    vectors, label = around(1200, 8, 12)
    rng = np.random.default_rng(5)
    best = lloyd(vectors, 12, spherical, label)
    theirs = sorted(lloyd(vectors, 12, spherical, rng.permutation(np.arange(1200) % 12)) for _ in range(7))
    mine = [loss(Kmeans(k=12, spherical=spherical, init=init, seed=s)(matrix_table(vectors)).kept, spherical) for s in range(7)]
    assert 0.999 * best < min(mine) < 1.05 * best
    assert sorted(mine)[3] <= 1.02 * theirs[3]


@pytest.mark.parametrize("spherical", [True, False])
def test_distances_and_numbers_are_those_of_the_nearest_centroid_in_the_state(spherical, tmp_path):
    vectors, _ = around(300, 5, 7, seed=2)
    stage = Kmeans(k=7, spherical=spherical)
    state, kept = fitted(stage, matrix_table(vectors), task_of(stage, tmp_path))
    found = centroids.matrix_of(state["centroid"]).astype(np.float64)
    assert state.schema.names == ["cluster", "size", "distance", "centroid"] and state["cluster"].to_pylist() == list(range(7))
    if spherical:
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
        away = 1 - (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ found.T
    else:
        away = np.linalg.norm(vectors[:, None] - found[None], axis=2)
    cluster, distance = kept["cluster"].to_numpy(), kept["cluster_distance"].to_numpy()
    assert (cluster == away.argmin(1)).all()
    np.testing.assert_allclose(distance, away.min(1), atol=1e-6)
    sizes = np.bincount(cluster, minlength=7)
    assert state["size"].to_pylist() == sizes.tolist() == sorted(sizes.tolist(), reverse=True)
    np.testing.assert_allclose(state["distance"], [distance[cluster == j].mean() for j in range(7)], atol=1e-6)


def task_of(stage, folder):
    return Task(phase="x", rank=0, folders=[(stage, "s", folder)], shards=["0.parquet"])


def fitted(stage, table, task):
    """(state, kept rows) of one shard."""
    table = table.append_column(ROW, pa.array(range(len(table)), pa.uint32())).combine_chunks()
    for step in stage.steps(1, len(table)):
        if step.reads is None:
            step.fn(task)
        else:
            step.fn(task, iter(table.select([ROW, *step.reads]).to_batches()))
    return task.state(stage), stage.open(task)(table.select([ROW, *stage.reads()]).to_batches()[0])


def test_clusters_that_stand_apart_are_found():
    vectors, label = around(900, 16, 9, noise=0.05, seed=3)
    cluster = Kmeans(k=9)(matrix_table(vectors)).kept["cluster"].to_numpy()
    assert len(np.unique(cluster)) == 9
    assert all(len(np.unique(cluster[label == c])) == 1 for c in range(9))


def test_lengths_do_not_matter_where_spherical():
    vectors, _ = around(200, 6, 4)
    scale = (2.0 ** np.random.default_rng(0).integers(-80, 40, 200)).astype(np.float32)
    one, other = (Kmeans(k=4)(matrix_table(v)).kept for v in (vectors, vectors * scale[:, None]))
    assert one["cluster"].equals(other["cluster"]) and one["cluster_distance"].equals(other["cluster_distance"])


def test_one_cluster_is_the_mean():
    vectors, _ = around(50, 4, 2)
    kept = Kmeans(k=1, spherical=False)(matrix_table(vectors)).kept
    assert kept["cluster"].to_pylist() == [0] * 50
    expected = np.linalg.norm(vectors - vectors.mean(0), axis=1)
    np.testing.assert_allclose(kept["cluster_distance"].to_numpy(), expected, rtol=1e-5)


# --------------------------------------------------------------------------------------------- hard inputs


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("spherical", [True, False])
def test_copies_share_a_cluster_and_fewer_different_ones_make_fewer_clusters(spherical, init):
    rows = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]] * 40
    kept = Kmeans(k=8, spherical=spherical, init=init)(table_of(rows)).kept
    assert kept["cluster"].to_pylist()[:3] == kept["cluster"].to_pylist()[-3:]
    assert set(kept["cluster"].to_pylist()) == {0, 1, 2}
    np.testing.assert_allclose(kept["cluster_distance"].to_numpy(), 0, atol=1e-5)


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_no_cluster_is_empty_where_most_vectors_are_copies(init):
    vectors, _ = around(60, 4, 30, seed=7)
    table = matrix_table(np.concatenate([np.repeat(vectors[:1], 2000, axis=0), vectors]))
    cluster = Kmeans(k=30, init=init)(table).kept["cluster"].to_numpy()
    assert len(np.unique(cluster)) == 30


def test_more_clusters_than_vectors(tmp_path):
    task = task_of(stage := Kmeans(k=50), tmp_path)
    state, kept = fitted(stage, table_of([*np.eye(5).tolist(), None]), task)
    assert kept["cluster"].to_pylist()[5] is None
    assert sorted(kept["cluster"].to_pylist()[:5]) == state["cluster"].to_pylist() == list(range(5))
    notes = dict(task.counters)
    assert notes.pop("clusters, not the 50 asked for: no more embeddings differ") == 5
    assert notes.pop("documents without an embedding, in no cluster") == 1
    assert task.counters["embeddings sampled"] == task.counters["clusters"] == 5


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("size", [2, None])
def test_documents_without_an_embedding_are_in_no_cluster(kind, size):
    inf, nan = math.inf, math.nan
    rows = [[1, 0], None, [0, 1], [nan, 1], [inf, 0], [None, 1], [0, 0], [1, 0.1]]
    kept = Kmeans(k=2)(table_of(rows, kind, size)).kept
    cluster = kept["cluster"].to_pylist()
    assert cluster == [0, None, 1, None, None, None, None, 0]
    assert [d is None for d in kept["cluster_distance"].to_pylist()] == [c is None for c in cluster]
    euclidean = Kmeans(k=3, spherical=False)(table_of(rows, kind, size)).kept["cluster"].to_pylist()
    assert euclidean[6] is not None and [euclidean[i] for i in (1, 3, 4, 5)] == [None] * 4


def test_nothing_to_cluster():
    assert Kmeans(k=3)(table_of([None, None], size=4)).kept["cluster"].to_pylist() == [None, None]
    assert Kmeans(k=3)(table_of([], size=4)).kept.num_rows == 0
    nulls = as_table(pa.table({"text": ["a", "b"], "embedding": pa.nulls(2)}))
    assert Kmeans(k=3)(nulls).kept["cluster"].to_pylist() == [None, None]


def test_vectors_that_are_far_from_zero_are_told_apart():
    vectors, label = around(400, 4, 5, noise=0.01, seed=1)
    cluster = Kmeans(k=5, spherical=False)(matrix_table(vectors.astype(np.float64) + 1000)).kept["cluster"].to_numpy()
    assert len({(a, b) for a, b in zip(cluster, label, strict=True)}) == 5


@pytest.mark.parametrize("rows", [[[1.0, 2.0], [1.0]], [[1.0, 2.0], None, [1.0, 2.0, 3.0]]])
def test_embeddings_of_several_sizes_are_an_error(rows):
    with pytest.raises(StageError, match=r"kmeans: column 'embedding' h(as|olds)"):
        Kmeans(k=2)(table_of(rows))
    with pytest.raises(StageError, match=r"kmeans: column 'embedding' has embeddings of \d and of \d numbers"):
        run_over(Kmeans(k=2), table_of(rows), batch=1)


def test_other_columns_are_no_embeddings():
    table = as_table(pa.table({"text": ["a"], "embedding": pa.array([[1, 2]], pa.list_(pa.int32()))}))
    with pytest.raises(StageError, match="kmeans: column 'embedding' holds no embeddings: it is list<"):
        Kmeans(k=2)(table)


# --------------------------------------------------------------------------------------------- k-means++


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 100))
def test_the_first_centroids_are_different_vectors(k, different, seed):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(different, 3)).astype(np.float32)
    vectors = base[rng.integers(0, different, 40)]
    found = centroids.spread_out(vectors, k, seed)
    assert len(found) == len(np.unique(found, axis=0)) == min(k, len(np.unique(vectors, axis=0)))
    assert {row.tobytes() for row in found} <= {row.tobytes() for row in vectors}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(0, 100))
def test_squared_distances_are_those_of_the_definition(n, dimension, m, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-9, 10, (n, dimension)).astype(np.float32)  # sums are exact
    rows, distance = rng.integers(0, n, m), rng.integers(0, 200, n).astype(np.float32)
    out = np.empty((m, n), np.float32)
    nearer(vectors, rows, distance, out)
    for j, row in enumerate(rows.tolist()):
        for i in range(n):
            squared = sum((int(a) - int(b)) ** 2 for a, b in zip(vectors[i], vectors[row], strict=True))
            assert out[j, i] == min(squared, distance[i])


def test_spread_out_beginnings_are_better_than_random_ones():
    vectors, _ = around(4000, 8, 60, noise=0.1)
    ours, random = [], []
    for seed in range(5):
        ours.append(centroids.nearest(vectors, centroids.spread_out(vectors, 60, seed), spherical=False)[1].mean())
        chosen = vectors[np.random.default_rng(seed).choice(4000, 60, replace=False)]
        random.append(centroids.nearest(vectors, chosen, spherical=False)[1].mean())
    assert max(ours) < 0.5 * min(random)


# --------------------------------------------------------------------------------------------- promises


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0}, {"k": 10_001}, {"into": ""}, {"into": "_c"}, {"init": "best"}, {"iterations": 0}, {"sample": 5},
        {"column": ""},
    ],
)  # fmt: skip
def test_parameters_that_cannot_be(wrong):
    with pytest.raises(RecipeError, match=f"^kmeans: {next(iter(wrong))} is "):
        Kmeans(**wrong)


def test_errors_at_plan_time(monkeypatch, tmp_path):
    recipe = corpus.recipe(tmp_path, "name: c\nsource: auto\nstages:\n  - kmeans: {k: 3}\n")
    corpus_file = tmp_path / "in.jsonl"
    corpus_file.write_text('{"text": "a"}\n')
    done = corpus.curate("run", recipe, "-i", corpus_file, "-o", tmp_path / "run", check=2)
    assert "embedding" in done.stderr
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(MissingExtra, match=r"stage 'kmeans' needs the package 'faiss-cpu': .*curate-corpus\[cluster\]"):
        Kmeans(k=2)(table_of([[1.0, 0.0]]))
    assert Kmeans(k=1)(table_of([[1.0, 0.0]])).kept["cluster"].to_pylist() == [0]


@pytest.mark.parametrize("stage", [Kmeans(k=5), Kmeans(k=5, spherical=False, init="random"), Kmeans(k=1)], ids=str)
def test_conformance(stage):
    vectors, _ = around(120, 6, 5)
    rows = [None if i % 11 == 3 else [math.inf] * 6 if i % 17 == 5 else row for i, row in enumerate(vectors.tolist())]
    check_stage(stage, table_of(rows, pa.float16(), 6))


def test_a_sample_is_the_same_whatever_the_shards(monkeypatch):
    monkeypatch.setattr(kmeans, "CONSIDERED", 0)
    vectors, _ = around(900, 6, 5)
    table = matrix_table(vectors, file=pa.array(["f"] * 900), record=pa.array(range(900), pa.int64()))
    stage = Kmeans(k=5, sample=60)
    one = run_over(stage, table).rows
    assert one.equals(run_over(stage, table, shards=4, batch=50).rows)
    assert not one["cluster_distance"].equals(run_over(Kmeans(k=5, sample=60, seed=43), table).rows["cluster_distance"])
    assert not one["cluster_distance"].equals(run_over(Kmeans(k=5), table).rows["cluster_distance"])


RECIPE = """\
name: clusters
source: auto
stages:
  - where: {sql: "n % 13 <> 4"}
  - kmeans: {k: 12, keep: true}
output: {validation: 0}
"""


def test_runs_are_the_same_with_any_number_of_workers(tmp_path):
    vectors, _ = around(900, 16, 12, seed=29)
    noise = np.random.default_rng(1)
    rows = [None if i % 50 == 0 else row for i, row in enumerate(vectors.astype(np.float16).tolist())]
    table = table_of(rows, pa.float16(), 16, n=pa.array(range(900)))
    texts = pa.array([noise.bytes(7500).hex() for _ in range(900)])  # three files of 4.5 MB are three shards
    table = table.set_column(table.column_names.index("text"), "text", texts)
    (tmp_path / "in").mkdir()
    for i in range(3):
        pq.write_table(table.slice(300 * i, 300), tmp_path / "in" / f"{i}.parquet", compression="none")
    recipe = corpus.recipe(tmp_path, RECIPE)
    found = []
    for workers in (1, 2):
        run = tmp_path / f"run{workers}"
        done = corpus.curate("run", recipe, "-i", tmp_path / "in", "-o", run, "-w", workers, check=0)
        assert "without an embedding" in done.stdout + done.stderr
        kept = sorted(run.glob("index/kmeans-*/centroids.parquet"))
        data = sorted((run / "output").rglob("*.parquet"))
        found.append([path.read_bytes() for path in (*kept, *data)])
        assert len(kept) == 1 and pq.read_metadata(kept[0]).num_rows == 12
    assert found[0] == found[1]
    out = pa.concat_tables([pq.read_table(path) for path in data])
    assert out["cluster"].null_count > 0 and set(out["cluster"].drop_null().to_pylist()) == set(range(12))
