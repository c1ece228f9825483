"""merge_clusters: against scikit-learn's Ward and sums by hand, and the same for other shards, batches and workers."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import write_jsonl
from llm_server import Server

from curate.errors import MissingExtra, RecipeError, StageError
from curate.llm import load_prompt
from curate.memory import as_table
from curate.recipe import loads
from curate.run import run
from curate.stages import merge_clusters
from curate.stages.merge_clusters import LOW, MergeClusters, one_line, terms_of, ward, words_of
from curate.storage import read_json
from curate.testing import run_over

pytest.importorskip("scipy")

SUBJECTS = {
    "kitchen": "flour butter oven whisk dough saucepan recipe vanilla",
    "harbour": "anchor vessel captain harbour sailor compass rigging lighthouse",
    "court": "plaintiff verdict judge lawsuit attorney statute appeal testimony",
    "garden": "seedling compost blossom shrub pruning orchard watering greenhouse",
}
COMMON = "people think about things whenever there was time and nothing else happened again because of that".split()


HALF, SINGLE = pa.float16(), pa.float32()


def corpus(n=400, clusters=24, dim=6, seed=0, kind=HALF, **columns):
    """Documents of four subjects in clusters, six a subject: (table, subject of each cluster)."""
    rng = np.random.default_rng(seed)
    names = list(SUBJECTS)
    centres = rng.normal(size=(len(names), dim)) * 2
    places = np.array([centres[k % len(names)] + rng.normal(size=dim) * 0.3 for k in range(clusters)])
    cluster = rng.integers(0, clusters, n)
    vectors = (places[cluster] + rng.normal(size=(n, dim)) * 0.05).astype(np.float16)
    texts = []
    for c in cluster:
        own = SUBJECTS[names[c % len(names)]].split()
        texts.append(" ".join(rng.choice(own if rng.random() < 0.3 else COMMON) for _ in range(30)))
    flat = pa.array(vectors.ravel().astype(np.float64)).cast(kind)
    found = pa.table(
        {
            "text": texts,
            "cluster": pa.array(cluster * 3 + 1, pa.int32()),  # numbers need not be dense
            "embedding": pa.FixedSizeListArray.from_arrays(flat, dim),
            **columns,
        }
    )
    return as_table(found), [names[k % len(names)] for k in range(clusters)]


def by_hand(table):
    """{cluster: (documents, tokens, mean vector)}"""
    found = {}
    vectors = np.array(table["embedding"].to_pylist(), np.float64)
    cluster, tokens = table["cluster"].to_numpy(), table["tokens"].to_numpy()
    for c in np.unique(cluster).tolist():
        mine = cluster == c
        found[c] = (int(mine.sum()), int(tokens[mine].sum()), vectors[mine].mean(axis=0))
    return found


def partition(labels):
    """Labels as a set of sets of places."""
    return {frozenset(np.flatnonzero(np.asarray(labels) == k).tolist()) for k in set(np.asarray(labels).tolist())}


def groups_of(kept):
    return dict(zip(kept["cluster"].to_pylist(), kept["group"].to_pylist(), strict=True))


# --------------------------------------------------------------------------------------------- merging


@pytest.mark.parametrize("how", [{"clusters": 4}, {"clusters": 9}, {"distance": 0.9}, {"distance": 1.5}, {"clusters": 1}])
def test_ward_is_that_of_scikit_learn(how):
    cluster = pytest.importorskip("sklearn.cluster")
    table, _ = corpus()
    known = by_hand(table)
    other = cluster.AgglomerativeClustering(
        n_clusters=how.get("clusters"), distance_threshold=how.get("distance"), linkage="ward"
    ).fit(np.array([mean for _, _, mean in known.values()]))
    kept = run_over(MergeClusters(names=0, **how), table).rows
    found = dict(zip(table["cluster"].to_pylist(), kept["group"].to_pylist(), strict=True))
    assert partition([found[c] for c in known]) == partition(other.labels_)
    assert kept["group"].type == pa.int32() and kept.column_names == ["_row", "group"]
    tokens = np.bincount(kept["group"].to_numpy(), weights=table["tokens"].to_numpy())
    assert (np.diff(tokens) <= 0).all() and len(tokens) == other.n_clusters_  # the group of most tokens is 0


def test_merging_of_random_places_and_at_the_ends():
    cluster = pytest.importorskip("sklearn.cluster")
    places = np.random.default_rng(3).normal(size=(120, 5))
    for k in (1, 2, 7, 60, 119, 120):
        assert partition(ward(places, k, None)) == partition(
            cluster.AgglomerativeClustering(n_clusters=k, linkage="ward").fit(places).labels_
        )
    assert ward(places, 500, None).tolist() == list(range(120))  # fewer than are wanted stay as they are
    assert ward(places, None, 1e9).tolist() == [0] * 120 and ward(places[:1], 3, None).tolist() == [0]
    assert ward(np.zeros((4, 2)), 2, None).max() == 1  # equal places


def test_means_and_sizes_are_exact(tmp_path):
    rng = np.random.default_rng(1)
    quality = rng.normal(size=400) * 100
    table, _ = corpus(kind=SINGLE, quality=pa.array(quality, mask=np.arange(400) % 9 == 4))
    path = finished(tmp_path, table, quality={"quality": -1e6}, clusters=5)
    known, cluster = by_hand(table), table["cluster"].to_numpy()
    assert [row["cluster"] for row in path["clusters"]] == sorted(known)
    for row in path["clusters"]:
        n, tokens, mean = known[row["cluster"]]
        assert (row["documents"], row["tokens"], row["pruned"]) == (n, tokens, None)
        np.testing.assert_allclose(row["centroid"], mean, atol=1e-6)
        mine = (cluster == row["cluster"]) & (np.arange(400) % 9 != 4)
        assert row["quality"]["quality"] == pytest.approx(quality[mine].mean(), abs=1e-7)
    for group in path["groups"]:
        mine = np.isin(cluster, group["clusters"])
        assert group["documents"] == mine.sum() and group["tokens"] == table["tokens"].to_numpy()[mine].sum()
        vectors = np.array(table["embedding"].to_pylist())[mine]
        np.testing.assert_allclose(group["centroid"], vectors.mean(axis=0), atol=1e-5)
        assert group["quality"]["quality"] == pytest.approx(quality[mine & (np.arange(400) % 9 != 4)].mean())
        assert len(group["centroid"]) == 6 and group["name"] and set(group["name"].split(", ")) <= set(group["terms"])
    assert sorted(c for group in path["groups"] for c in group["clusters"]) == sorted(known) and len(path["groups"]) == 5


def test_documents_without_a_cluster_or_an_embedding():
    table, _ = corpus(60, clusters=4)
    cluster = pa.array([None if i % 5 == 0 else c for i, c in enumerate(table["cluster"].to_pylist())], pa.int32())
    vectors = [None if i % 7 == 1 else v for i, v in enumerate(table["embedding"].to_pylist())]
    vectors[2] = [math.nan] * 6
    table = table.set_column(table.column_names.index("cluster"), "cluster", cluster)
    table = table.set_column(table.column_names.index("embedding"), "embedding", pa.array(vectors, pa.list_(pa.float16(), 6)))
    outcome = run_over(MergeClusters(clusters=2), table)
    assert outcome.drops.num_rows == 0
    for column in ("group", "group_name"):
        assert [v is None for v in outcome.rows[column].to_pylist()] == [i % 5 == 0 for i in range(60)]
    nothing = MergeClusters(clusters=2)(
        table.set_column(table.column_names.index("cluster"), "cluster", pa.nulls(60, pa.int32()))
    )
    assert nothing.kept["group"].null_count == 60 and nothing.kept["group_name"].null_count == 60


# --------------------------------------------------------------------------------------------- pruning


def test_clusters_of_low_quality_go():
    table, _ = corpus()
    rng = np.random.default_rng(5)
    cluster = table["cluster"].to_numpy()
    edu = np.where(cluster < 20, 1.0, 3.0) + rng.normal(size=400) * 0.1
    short = pa.array((cluster > 60).tolist())  # a boolean is a quality too
    table = table.append_column("edu", pa.array(edu, mask=cluster == 31)).append_column("short", pc_not(short))
    result = MergeClusters(clusters=4, quality={"short": 0.5, "edu": 2.0})(table)
    gone = np.isin(np.arange(400), result.dropped["id"].cast(pa.int64()).to_numpy())
    assert gone.tolist() == ((cluster < 20) | (cluster > 60)).tolist()
    assert set(result.dropped["_reason"].to_pylist()) == {LOW}
    for i, value in zip(result.dropped["id"].to_pylist(), result.dropped["_value"].to_pylist(), strict=True):
        mine = cluster == cluster[int(i)]
        assert value == pytest.approx(edu[mine].mean() if cluster[int(i)] < 20 else 0.0, abs=1e-9)
    assert set(groups_of(result.kept).values()) == {0, 1, 2, 3} and 31 in groups_of(result.kept)  # one without a value stays


def pc_not(values):
    return pa.array([not v for v in values.to_pylist()])


def test_pruned_clusters_do_not_move_the_others():
    cluster = pytest.importorskip("sklearn.cluster")
    table, _ = corpus()
    known = {c: mean for c, (_, _, mean) in by_hand(table).items() if c % 2}
    table = table.append_column("odd", pa.array([float(c % 2) for c in table["cluster"].to_pylist()]))
    kept = groups_of(MergeClusters(clusters=5, quality={"odd": 1.0}, names=0)(table).kept)
    labels = cluster.AgglomerativeClustering(n_clusters=5, linkage="ward").fit(np.array(list(known.values()))).labels_
    assert partition([kept[c] for c in known]) == partition(labels) and sorted(kept) == sorted(known)


# --------------------------------------------------------------------------------------------- names


def test_names_tell_subjects_apart():
    table, subjects = corpus()
    kept = MergeClusters(clusters=4)(table).kept
    seen = {}
    for cluster, group, name in zip(*(kept[c].to_pylist() for c in ("cluster", "group", "group_name")), strict=True):
        seen.setdefault((group, name), set()).add(subjects[(cluster - 1) // 3])
    assert len(seen) == 4 and all(len(found) == 1 for found in seen.values())
    for (_, name), (subject,) in seen.items():
        words = name.split(", ")
        assert len(words) == 3 and set(words) <= set(SUBJECTS[subject].split())


def test_words_of_many_documents_of_one_group_come_first():
    rows = [(0, "rare", 1), (0, "own", 6), (0, "shared", 9), (1, "shared", 9), (0, "cells", 5), (0, "cell", 5), (1, "else", 2)]
    counts = pa.table({name: [row[i] for row in rows] for i, name in enumerate(("group", "term", "n"))})
    assert terms_of(counts, [10, 10]) == [["own", "cell", "rare"], ["else"]]
    assert terms_of(counts.filter(pa.compute.equal(counts["group"], 0)), [10]) == [["shared", "own", "cell", "rare"]]


def test_words_are_cut_and_stop_words_left_out():
    assert words_of("The captain's ship, the SHIP; of 1849 ox and re-entry") == ["captain's", "ship", "re-entry"]
    assert words_of("Der Kapitän und die Mannschaft haben das Schiff nicht verlassen") == [
        "kapitän", "mannschaft", "schiff", "verlassen",
    ]  # fmt: skip
    assert "学习" in words_of("机器学习很有趣") and words_of("") == [] and words_of("42 !? \x00") == []


def test_names_without_words_and_names_that_are_taken():
    table, _ = corpus(40, clusters=4)
    blank = table.set_column(table.column_names.index("text"), "text", pa.array(["", None] * 20, pa.string()))
    kept = MergeClusters(clusters=2)(blank).kept
    assert set(zip(kept["group"].to_pylist(), kept["group_name"].to_pylist(), strict=True)) == {(0, "group 0"), (1, "group 1")}
    assert list(merge_clusters._different(["a", "b", "a", "a", "a (2)"])) == ["a", "b", "a (2)", "a (3)", "a (2) (2)"]


def test_one_line_of_at_most_sixty_characters():
    assert one_line(' "Sea\n travel." ') == "Sea travel" and one_line("-- \n") == ""
    long = one_line("court decisions of the lower courts of several countries and of all times")
    assert long == "court decisions of the lower courts of several countries…" and len(one_line("x" * 200)) == 60


# --------------------------------------------------------------------------------------------- names by a model


def asked(server, cache, **options):
    return MergeClusters(model="test-model", server=server.url, cache=str(cache), clusters=4, retries=1, repairs=0, **options)


def test_a_model_names_groups_by_words_and_beginnings(tmp_path):
    table, _ = corpus()
    with Server() as server:
        kept = asked(server, tmp_path)(table).kept
        names = set(kept["group_name"].to_pylist())
        assert len(names) == 4 and all(name.startswith("name ") for name in names) and server.requests == 4
        subjects = set()
        for body in server.bodies:
            prompt = body["messages"][-1]["content"]
            said = prompt.rpartition("Words: ")[2].split("\n")[0].split(", ")
            subjects |= {name for name, words in SUBJECTS.items() if set(said[:8]) <= set(words.split())}
            assert prompt.count("Beginning of a text: ") == 3 and len(prompt) < 4000
        assert subjects == set(SUBJECTS)
        assert groups_of(kept) == groups_of(MergeClusters(clusters=4)(table).kept)
        again = asked(server, tmp_path)(table).kept
        assert again.equals(kept) and server.requests == 4  # what was answered is not asked again


@pytest.mark.parametrize(
    "faults, kind",
    [({"malformed": 1.0}, "malformed"), ({"missing": 1.0}, "schema"), ({"empty": 1.0}, "empty"), ({"refusal": 1.0}, "refused")],
)
def test_words_stay_the_name_where_a_model_gives_none(tmp_path, faults, kind):
    table, _ = corpus()
    with Server(faults) as server:
        stage = asked(server, tmp_path)
        outcome = finished(tmp_path, table, stage=stage)
    assert sorted(g["name"] for g in outcome["groups"]) == sorted(", ".join(g["terms"][:3]) for g in outcome["groups"])
    assert outcome["notes"][f"groups named by their words, since the model gave no name: {kind}"] == 4


def test_the_prompt_that_comes_along_asks_for_its_schema():
    prompt = load_prompt("cluster_name")
    assert set(prompt.schema["properties"]) == {"name"} and len(prompt.files()) == 2
    assert MergeClusters(model="m").files() == prompt.files() and MergeClusters().files() == ()


def test_no_endpoint_is_an_error(tmp_path):
    with Server() as server:
        stage = asked(server, tmp_path)
    with pytest.raises(StageError, match="no endpoint at"):
        stage(corpus(40, clusters=4)[0])


# --------------------------------------------------------------------------------------------- runs


def finished(folder, table, stage=None, **options):
    """clusters.json of a run over a table, with the notes of the stage."""
    from curate.recipe import Recipe
    from curate.stage import params

    data = folder / "docs.parquet"
    pq.write_table(table.drop_columns(["tokens", "text_bytes"]), data)
    given = params(stage) if stage is not None else options
    recipe = {"name": "x", "source": "auto", "stages": [{"merge_clusters": given}], "output": {"validation": 0}}
    loaded = loads(json.dumps(recipe)).with_inputs([str(data)])
    assert isinstance(loaded, Recipe)
    result = run(loaded, folder / "run", executor="inline")
    (path,) = (folder / "run" / "index").rglob("clusters.json")
    (notes,) = [s["notes"] for s in result.summary["stages"] if s["id"] == "merge_clusters"]
    return {**read_json(path), "notes": notes}


RECIPE = """\
name: grouped
source: auto
stages:
  - embed: {dim: 8, sample: 300}
  - merge_clusters: {clusters: 5, quality: {quality: 0.45}}
output: {validation: 0}
"""


def test_runs_agree_whatever_the_shards_and_workers(tmp_path):
    table, _ = corpus(400, quality=pa.array(np.random.default_rng(2).random(400)))
    rows = table.select(["id", "text", "cluster", "quality"]).to_pylist()
    for i in range(4):
        write_jsonl(tmp_path / f"{i}.jsonl", rows[i * 100 : i * 100 + 100])
    loaded = loads(RECIPE).with_inputs([str(tmp_path / "*.jsonl")])
    one = run(loaded, tmp_path / "one", executor="inline")
    two = run(loaded, tmp_path / "two", executor="local", workers=2)
    assert one.manifest.digest == two.manifest.digest
    held = [next((tmp_path / name).rglob("clusters.json")).read_bytes() for name in ("one", "two")]
    assert held[0] == held[1]
    assert 0 < sum(c["pruned"] is not None for c in json.loads(held[0])["clusters"]) < 24


def test_shards_and_batches_change_nothing():
    table, _ = corpus(300, quality=pa.array(np.random.default_rng(2).normal(size=300) * 1e5))
    stage = MergeClusters(clusters=4, quality={"quality": 0.0})
    one = run_over(stage, table)
    for shards, batch in ((5, 11), (3, 300), (1, 1)):
        other = run_over(stage, table, shards=shards, batch=batch)
        assert other.rows.equals(one.rows) and other.drops.equals(one.drops)
    assert 0 < len(one.drops) < 300


# --------------------------------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    "given, said",
    [
        ({"clusters": 0}, "clusters is 0; give 1 to 10,000"),
        ({"clusters": 3, "distance": 1.0}, "not both"),
        ({"distance": -1.0}, "distance is -1.0; give a number above 0"),
        ({"into": "_x"}, "into is '_x'"),
        ({"into": "cluster"}, "a new column"),
        ({"embedding": ""}, "not empty"),
        ({"names": 21}, "names is 21; give 0 to 20"),
        ({"quality": {"edu": math.nan}}, "quality.edu is nan"),
        ({"model": "m", "names": 0}, "give `names` above 0"),
        ({"server": "http://127.0.0.1:1/v1"}, "`server` is there and `model` is not"),
        ({"model": "m", "server": "ftp://x"}, "not an http or https URL"),
        ({"model": "m", "concurrency": 0}, "concurrency is at least 1"),
    ],
)
def test_parameters_that_cannot_be(given, said):
    with pytest.raises(RecipeError, match=said):
        MergeClusters(**given)


def test_columns_that_cannot_be():
    table, _ = corpus(40, clusters=4)
    at = table.column_names.index("cluster")

    def stage(name, values, **options):
        here = table.set_column(table.column_names.index(name), name, values) if name in table.column_names else (
            table.append_column(name, values)
        )  # fmt: skip
        return MergeClusters(**options)(here)

    assert at >= 0
    with pytest.raises(StageError, match="merge_clusters: column 'cluster' is double; give whole numbers"):
        stage("cluster", pa.array([0.5] * 40))
    with pytest.raises(StageError, match="column 'embedding' is string; give lists of floating-point numbers"):
        stage("embedding", pa.array(["x"] * 40))
    with pytest.raises(StageError, match="embeddings of 1 and of 2 numbers"):
        stage("embedding", pa.array([[1.0], [1.0, 2.0]] * 20, pa.list_(pa.float32())))
    with pytest.raises(StageError, match="beyond 65,536"):
        stage("embedding", pa.array([[1e6, 0.0]] * 40, pa.list_(pa.float32(), 2)))
    with pytest.raises(StageError, match=r"cluster 1 has no document with an embedding in 'embedding'"):
        stage("embedding", pa.nulls(40, pa.list_(pa.float16(), 2)))
    with pytest.raises(StageError, match="column 'edu' has no value for any document"):
        stage("edu", pa.nulls(40, pa.float32()), quality={"edu": 1.0})
    with pytest.raises(StageError, match=r"a column of type string has no order.*quality\.edu"):
        stage("edu", pa.array(["good"] * 40), quality={"edu": 1.0})
    with pytest.raises(StageError, match=r"prunes all 4 clusters \(the best mean of 'edu' is 1, of at least 3\): lower"):
        stage("edu", pa.array([1.0] * 40), quality={"edu": 3.0})
    with pytest.raises(StageError, match="more than 10,000 clusters"):
        many = as_table(pa.table({"text": ["x"] * 10_001, "cluster": range(10_001), "embedding": pa.array([[1.0]] * 10_001)}))
        MergeClusters()(many)


def test_a_prompt_without_a_name_in_its_schema(tmp_path):
    stage = MergeClusters(model="m", prompt="fineweb_edu")
    with pytest.raises(RecipeError, match="has no schema with the property `name`"):
        stage.bound(())


def test_without_scipy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="cluster"):
        MergeClusters().bound(())
