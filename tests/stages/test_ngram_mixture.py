"""ngram_mixture: the shares that a target was made of, and what it leaves as evidence."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.mixtures import Mixture
from curate.plan import fingerprint_of
from curate.recipe import loads
from curate.stages.ngram_mixture import NgramMixture
from curate.testing import run_over

WORDS = {name: [f"{name}{a}{b}" for a in "aeiou" for b in "klmnr"] for name in ("sea", "law", "bio")}
SHARES = {"sea": 0.75, "law": 0.25}


def said(rng, kind, words=60):
    return " ".join(rng.choice(WORDS[kind]) for _ in range(words)) + "."


def table(sizes=None, seed=0):
    rng = random.Random(seed)
    kinds = [kind for kind, n in (sizes or {"sea": 20, "law": 40, "bio": 20}).items() for _ in range(n)]
    rng.shuffle(kinds)
    return as_table(pa.table({"kind": kinds, "text": [said(rng, kind) for kind in kinds]}))


def target(seed=1, n=40):
    rng = random.Random(seed)
    return tuple(said(rng, kind) for kind, share in SHARES.items() for _ in range(round(share * n)))


def rates(stage, documents, **how):
    found = run_over(stage, documents, **how).rows[stage.into].to_pylist()
    return dict(zip(documents["kind"].to_pylist(), found, strict=True)), found


def test_weights_are_the_shares_that_the_target_was_made_of():
    documents = table()
    by_kind, each = rates(NgramMixture(by="kind", texts=target()), documents)
    tokens = dict.fromkeys(WORDS, 0)
    for kind, n in zip(documents["kind"].to_pylist(), documents["tokens"].to_pylist(), strict=True):
        tokens[kind] += n
    for kind, n in tokens.items():
        weight = by_kind[kind] * n / sum(tokens.values())
        assert weight == pytest.approx(SHARES.get(kind, 0.0), abs=0.03)
    assert len(each) == len(documents) and each == [by_kind[kind] for kind in documents["kind"].to_pylist()]


def test_what_is_found_does_not_depend_on_shards_or_batches():
    documents, stage = table(), NgramMixture(by="kind", texts=target(), into="rate")
    assert rates(stage, documents)[1] == rates(stage, documents, shards=4, batch=7)[1]


def test_documents_without_a_group_have_no_rate():
    documents = table()
    kinds = documents["kind"].to_pylist()
    documents = documents.set_column(
        documents.schema.get_field_index("kind"), "kind", pa.array([None if i % 3 == 0 else k for i, k in enumerate(kinds)])
    )
    each = rates(NgramMixture(by="kind", texts=target()), documents)[1]
    assert [rate is None for rate in each] == [i % 3 == 0 for i in range(len(each))]


def test_no_group_gets_more_than_its_cap():
    documents = table()
    natural = rates(NgramMixture(by="kind", texts=target()), documents)[0]
    capped = rates(NgramMixture(by="kind", texts=target(), max_usage=1.5), documents)[0]
    assert natural["sea"] > 2 and capped["sea"] == pytest.approx(1.5) and max(capped.values()) <= 1.5 + 1e-6
    assert set(rates(NgramMixture(by="kind", texts=target(), max_usage=1), documents)[0].values()) == {1.0}


RECIPE = """\
name: m
source: {{parquet: {{paths: ["{pool}"]}}}}
stages:
  - ngram_mixture: {{by: kind, target: {{sea: "{sea}", law: "{law}"}}, column: said, target_tokens: 2000}}
output: {{shard_mb: 1}}
"""


def test_a_run_leaves_a_mixture_with_its_evidence(tmp_path):
    pool, paths = tmp_path / "pool.parquet", {"pool": str(tmp_path / "pool.parquet")}
    pq.write_table(table().select(["kind", "text"]), pool)
    rng = random.Random(2)
    for kind in SHARES:
        paths[kind] = str(tmp_path / f"{kind}.jsonl")
        (tmp_path / f"{kind}.jsonl").write_text("".join(json.dumps({"said": said(rng, kind)}) + "\n" for _ in range(30)))
    loads(RECIPE.format(**paths)).run(tmp_path / "run", executor="inline", workers=1)
    path = tmp_path / "run" / "output" / "mixture.json"
    found = Mixture.load(path, "test")
    assert found.by == "kind" and list(found.weights) == ["bio", "law", "sea"]
    assert found.weights["sea"] == pytest.approx(0.5, abs=0.03) and found.weights["bio"] < 0.01
    assert found.metric["name"] == "loss" and set(found.metric["targets"]) == {"sea", "law"}
    runs = {run["origin"]: run for run in found.evidence["runs"]}
    assert runs["ngram"]["weights"] == dict(found.weights) and runs["natural"]["weights"] == dict(found.natural)
    assert found.measured["metric"] == runs["ngram"]["metric"] < min(runs["natural"]["metric"], runs["uniform"]["metric"])
    for name, perplexity in found.evidence["perplexity"].items():
        assert perplexity["ngram"] == pytest.approx(math.exp(found.measured["targets"][name]["loss"]))
    resampled = found.evidence["resampled"]
    for group, weight in found.weights.items():
        assert resampled["low"][group] <= weight + 0.02 and weight - 0.02 <= resampled["high"][group]
        assert 0 <= resampled["spread"][group] < 0.1
    loads(RECIPE.format(**paths)).run(tmp_path / "again", executor="inline", workers=1)
    assert (tmp_path / "again" / "output" / "mixture.json").read_bytes() == path.read_bytes()


def test_files_of_the_target_and_what_decides_are_in_the_fingerprint(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps({"text": "one"}) + "\n")
    stage = NgramMixture(by="kind", target=str(file))
    assert stage.files() == (str(file),)
    prints = {
        fingerprint_of(one, "") for one in (stage, replace(stage, need=5), replace(stage, max_usage=2), replace(stage, seed=1))
    }
    file.write_text(json.dumps({"text": "two"}) + "\n")
    assert len(prints) == 4 and fingerprint_of(stage, "") not in prints


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"by": ""}, "by is ''"),
        ({"by": "_row"}, "by is '_row'"),
        ({"into": "kind"}, "into is 'kind'"),
        ({"need": 0}, "need is 0; give the tokens of a group"),
        ({"max_usage": 0.5}, "max_usage is 0.5; a group may have"),
        ({"max_usage": -1}, "max_usage is -1"),
        ({"target_tokens": 0}, "target_tokens is 0"),
        ({"seed": -3}, "seed is -3"),
        ({"target": ""}, "target and column must not be empty"),
        ({"column": ""}, "target and column must not be empty"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(RecipeError, match=f"^ngram_mixture: {message}"):
        NgramMixture(**{"by": "kind", "texts": ("x",), **parameters})


def test_bad_input(tmp_path):
    documents = table()
    with pytest.raises(RecipeError, match="ngram_mixture: give `target`"):
        NgramMixture(by="kind")(documents)
    with pytest.raises(RecipeError, match=r"ngram_mixture: .*nowhere"):
        NgramMixture(by="kind", target=str(tmp_path / "nowhere"))(documents)
    with pytest.raises(StageError, match="ngram_mixture: column 'n' is double"):
        NgramMixture(by="n", texts=("x",))(documents.append_column("n", pa.array(np.ones(len(documents)))))
    with pytest.raises(StageError, match="ngram_mixture: the target 'target' holds no text"):
        NgramMixture(by="kind", texts=("",))(documents)


def test_one_group_gets_everything():
    documents = table({"sea": 12})
    assert set(rates(NgramMixture(by="kind", texts=target()), documents)[1]) == {1.0}


@pytest.mark.slow
def test_a_target_of_two_domains_gets_these_two(shared_data):
    """Held-out texts of two domains of a pool of 13."""
    documents = pq.read_table(shared_data / "domains" / "domains.parquet", columns=["text", "domain"])
    names = np.array(documents["domain"].to_pylist())
    held = np.isin(names, ["medical", "legal_en"]) & (np.arange(len(names)) % 10 == 0)
    texts = tuple(documents.filter(pa.array(held))["text"].to_pylist())
    stage = NgramMixture(by="domain", texts=texts, need=200_000)
    kept = stage(documents.filter(pa.array(~held))).kept
    weights: dict[str, float] = {}
    for name, rate, tokens in zip(*(kept[c].to_pylist() for c in ("domain", "sampling", "tokens")), strict=True):
        weights[name] = weights.get(name, 0.0) + rate * tokens
    assert weights["medical"] + weights["legal_en"] > 0.85 * sum(weights.values())
