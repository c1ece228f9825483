"""dsir against the formula in plain Python, against sorting, over files of every kind, and on real documents."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from dsir_oracle import features, words_of
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import RecipeError, SourceError, StageError
from curate.memory import as_table
from curate.plan import fingerprint_of
from curate.recipe import loads
from curate.stages.dsir import Dsir
from curate.testing import check_stage, run_over

WORDS = ["cell", "nucleus", "the", "a", "Buy", "now!", "phone", "of", "gene", "漢字", ""]
TARGETS = ("the cell of the nucleus", "a gene of the cell", "nucleus")
text = st.one_of(st.none(), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
many = st.lists(text, min_size=1, max_size=25)


def docs(texts, **more):
    return as_table(pa.table({"text": pa.array(texts, pa.string()), "id": [f"d{i}" for i in range(len(texts))], **more}))


def formula(stage, texts):
    """Log weights: sums over hashed runs of words, or their mean."""

    def shares(texts):
        counts = np.zeros(stage.buckets)
        for one in texts:
            np.add.at(counts, features(words_of(one), stage.ngrams, stage.buckets), 1)
        total = counts.sum() + stage.smoothing * stage.buckets
        return (counts + stage.smoothing) / total if total else counts

    p, q = shares(stage.texts), shares(texts)
    full = sum(stage.piece - k for k in range(stage.ngrams))
    found = []
    for one in texts:
        at = features(words_of(one), stage.ngrams, stage.buckets)
        value = sum(math.log(p[b] + 1e-8) - math.log(q[b] + 1e-8) for b in at)
        found.append(None if not at else value if stage.length == "sum" else value / len(at) * full)
    return found


stages = st.builds(
    Dsir,
    texts=st.just(TARGETS),
    buckets=st.sampled_from([3, 50, 10_000]),
    ngrams=st.integers(1, 3),
    smoothing=st.sampled_from([0.0, 0.5]),
    length=st.sampled_from(["sum", "normalise"]),
    piece=st.sampled_from([4, 128]),
)


@given(stages, many, st.integers(1, 4))
def test_weights_are_those_of_the_formula(stage, texts, shards):
    outcome = run_over(stage, docs(texts), shards=shards, batch=5)
    assert not len(outcome.drops)
    for found, expected in zip(outcome.rows[stage.into].to_pylist(), formula(stage, texts), strict=True):
        assert found == expected if None in (found, expected) else math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-6)


amounts = st.one_of(
    st.fixed_dictionaries({"k": st.integers(0, 12)}), st.fixed_dictionaries({"keep": st.sampled_from([0.001, 0.3, 0.5, 1.0])})
)


@settings(max_examples=25)
@given(amounts, many, st.integers(1, 4), st.booleans(), st.sampled_from([0, 1, 5]), st.integers(0, 2))
def test_what_is_drawn_has_the_highest_keys(amount, texts, shards, gumbel, min_tokens, seed):
    stage = Dsir(texts=TARGETS, buckets=50, gumbel=gumbel, min_tokens=min_tokens, seed=seed, **amount)
    table = docs(texts)
    weights = run_over(Dsir(texts=TARGETS, buckets=50), table).rows["log_importance_weight"].to_pylist()
    hashes = [xxhash.xxh3_64_intdigest(f"d{i}".encode(), seed) for i in range(len(texts))]
    words = [len(words_of(one)) for one in texts]

    def key(row):
        noise = -math.log(-math.log(((hashes[row] >> 11) + 0.5) / 2**53)) if gumbel else 0
        return weights[row] + noise

    long = [r for r in range(len(texts)) if words[r] >= max(min_tokens, 1)]
    n = min(stage.k, len(long)) if stage.k is not None else math.floor(round(stage.keep * len(long), 9))
    drawn = sorted(long, key=lambda r: (-key(r), hashes[r]))[:n]
    outcome = run_over(stage, table, shards=shards, batch=5)
    assert outcome.rows["log_importance_weight"].to_pylist() == weights
    said = {d["_row"]: d for d in outcome.drops.to_pylist()}
    assert set(range(len(texts))) - set(said) == set(drawn)
    for row, drop in said.items():
        if row in long:
            assert drop["_reason"] == "dsir.not_drawn" and math.isclose(drop["_value"], key(row), rel_tol=1e-12)
        else:
            assert (drop["_reason"], drop["_value"]) == ("dsir.too_short", words[row])


def test_draws_are_in_proportion_to_weights():
    """Of two kinds of documents, the share that Gumbel noise draws first is the share of their weights."""
    n = 4000
    texts = ["cell"] * (n // 2) + ["phone"] * (n // 2)
    stage = Dsir(texts=("cell cell cell phone",), ngrams=1, length="sum", min_tokens=1, k=200)
    result = Dsir(texts=stage.texts, ngrams=1, length="sum")(docs(texts)).kept
    cell, phone = (math.exp(result["log_importance_weight"][i].as_py()) for i in (0, n - 1))
    assert cell == pytest.approx(1.5) and phone == pytest.approx(0.5)
    drawn = [stage.__class__(**{**stage.__dict__, "seed": seed})(docs(texts)).kept["text"].to_pylist() for seed in range(5)]
    share = sum(one.count("cell") for one in drawn) / 1000
    assert 0.70 < share < 0.78  # without replacement it is a little less than 0.75
    assert len({tuple(one) for one in drawn}) > 1


def test_equal_documents_are_drawn_by_id_and_not_by_place():
    table = docs(["the cell"] * 500)
    stage = Dsir(texts=TARGETS, keep=0.5, min_tokens=1)
    kept = set(stage(table).kept["id"].to_pylist())
    backwards = table.take(pa.array(range(500)[::-1]))
    assert len(kept) == 250 and set(stage(backwards).kept["id"].to_pylist()) == kept
    plain = Dsir(texts=TARGETS, keep=0.5, min_tokens=1, gumbel=False)
    assert len(plain(table).kept) == 250  # all of one weight: ties go by the hash of the id
    assert set(plain(table).kept["id"].to_pylist()) == set(plain(backwards).kept["id"].to_pylist())


def test_pieces_find_the_part_that_fits():
    part, rest = " ".join(["cell nucleus gene"] * 43), " ".join(["buy phone now"] * 43)
    texts = [f"{part} {rest} {rest} {rest}", " ".join(["cell buy phone now of a the"] * 73)]
    table = docs([*texts, rest, rest])
    whole, pieces = (
        Dsir(texts=("cell nucleus gene",), length=length)(table).kept["log_importance_weight"].to_pylist()[:2]
        for length in ("normalise", "pieces")
    )
    assert pieces[0] - pieces[1] > whole[0] - whole[1] > 0


# --------------------------------------------------------------------------------------------- targets in files


def test_targets_in_files_of_every_kind(tmp_path):
    table = docs(["the cell", "buy a phone", "gene of a nucleus"])
    expected = Dsir(texts=TARGETS)(table).kept["log_importance_weight"].to_pylist()
    lines = [json.dumps({"body": t, "text": "not this"}) for t in TARGETS]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{broken", json.dumps({"body": None})]))
    (tmp_path / "parts").mkdir()
    for i, t in enumerate(TARGETS):
        pq.write_table(pa.table({"body": [t, None], "text": ["x", "y"]}), tmp_path / "parts" / f"{i}.parquet")
    for place in (str(tmp_path / "a.jsonl"), str(tmp_path / "parts"), (str(tmp_path / "parts" / "*.parquet"),)):
        stage = Dsir(targets=place, column="body")
        assert stage(table).kept["log_importance_weight"].to_pylist() == expected
        assert len(stage.files()) in (1, 3)
    text = tmp_path / "one.txt"
    text.write_text("\n".join(TARGETS))
    both = Dsir(targets=str(text), texts=("phone",))(table).kept["log_importance_weight"].to_pylist()
    assert both[1] > expected[1]


RECIPE = """\
name: drawn
source: auto
stages:
  - dsir: {targets: %s, keep: 0.4, min_tokens: 3, buckets: 500}
output: {validation: 0}
"""


def test_runs_are_the_same_with_any_number_of_workers_and_are_targets_themselves(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    for i in range(3):
        texts = [" ".join(rng.choice(WORDS, 5 if k % 10 else 1)) + " " + rng.bytes(5000).hex() for k in range(300)]
        pq.write_table(pa.table({"text": texts, "id": [f"{i}-{k}" for k in range(300)]}), tmp_path / "in" / f"{i}.parquet")
    (tmp_path / "target.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TARGETS))
    recipe = loads(RECIPE % (tmp_path / "target.jsonl")).with_inputs([str(tmp_path / "in")])
    found = []
    for workers in (1, 2):
        run = tmp_path / f"run{workers}"
        recipe.run(run, executor="inline" if workers == 1 else "local", workers=workers)
        found.append([p.read_bytes() for p in sorted((run / "output").rglob("*.parquet"))])
        assert len(list((run / "drops").glob("dsir-*/*.parquet"))) == 3
    assert found[0] == found[1]
    kept = pq.read_table(next((tmp_path / "run1" / "output").rglob("*.parquet")))
    weights = kept["log_importance_weight"].to_pylist()
    assert len(kept) < 360 and None not in weights
    again = Dsir(targets=str(tmp_path / "run1"))(docs(["the cell"]))
    same = Dsir(texts=tuple(kept["text"].to_pylist()))(docs(["the cell"]))
    assert again.kept.equals(same.kept)


def test_other_targets_are_another_fingerprint(tmp_path):
    target = tmp_path / "target.jsonl"
    found = set()
    for body in ("phone", "cell"):
        target.write_text(json.dumps({"text": body}))
        found.add(fingerprint_of(Dsir(targets=str(target)), ""))
        moved = tmp_path / "moved.jsonl"
        moved.write_text(target.read_text())
        assert fingerprint_of(Dsir(targets=str(moved)), "") in found  # what counts is what it holds
    assert len(found) == 2


def test_targets_that_cannot_be(tmp_path):
    table = docs(["the cell"])
    with pytest.raises(RecipeError, match=r"dsir: input .*none.jsonl does not exist"):
        Dsir(targets=str(tmp_path / "none.jsonl"))(table)
    with pytest.raises(RecipeError, match="dsir: give `targets`"):
        Dsir()(table)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="holds no file that can be read"):
        Dsir(targets=str(tmp_path / "empty"))(table)
    (tmp_path / "a.jsonl").write_text('{"txt": "a"}\n')
    with pytest.raises(SourceError, match=r"a\.jsonl: no line has a 'text'"):
        Dsir(targets=str(tmp_path / "a.jsonl"))(table)
    pq.write_table(pa.table({"text": ["", None, "  "]}), tmp_path / "b.parquet")
    with pytest.raises(StageError, match=r"dsir: the targets hold no words \(.*b\.parquet"):
        Dsir(targets=str(tmp_path / "b.parquet"))(table)
    with pytest.raises(RecipeError, match=r"dsir: s3://a/b is remote"):
        Dsir(targets="s3://a/b")(table)
    (tmp_path / "c.warc.gz").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"c\.warc\.gz is warc; give texts"):
        Dsir(targets=str(tmp_path / "c.warc.gz"))(table)


@pytest.mark.parametrize("texts", [[None], [""], ["cell"], ["cell", None, " "]])
def test_hardly_any_documents(texts):
    found = Dsir(texts=TARGETS)(docs(texts)).kept["log_importance_weight"].to_pylist()
    assert [v is not None for v in found] == [t == "cell" for t in texts]
    drawn = Dsir(texts=TARGETS, k=5, min_tokens=0)(docs(texts))
    assert drawn.kept["text"].to_pylist() == [t for t in texts if t == "cell"]
    assert set(drawn.dropped["_reason"].to_pylist()) <= {"dsir.too_short"}


def test_what_has_no_words_is_noted(tmp_path):
    pq.write_table(pa.table({"text": ["the cell", " \u3000 "]}), tmp_path / "in.parquet")
    recipe = loads("name: x\nsource: auto\nstages:\n  - dsir: {texts: [cell]}\n").with_inputs([str(tmp_path / "in.parquet")])
    recipe.run(tmp_path / "run", executor="inline")
    assert "documents without words" in "".join(p.read_text() for p in (tmp_path / "run").glob("report*"))


# --------------------------------------------------------------------------------------------- what it is for


@pytest.mark.parametrize("domain", ["medical", "legal_en", "science_abstracts"])
def test_documents_like_the_target_are_preferred(shared_data, tmp_path, domain):
    """One half of a domain is the target; the other half is hidden in the documents of all others."""
    table = pq.read_table(shared_data / "domains" / "domains.parquet", columns=["id", "text", "domain"])
    rng = np.random.default_rng(0)
    of = np.array(table["domain"].to_pylist())
    mine = rng.permutation(np.flatnonzero(of == domain))[:800]
    target, hidden = mine[: len(mine) // 2], mine[len(mine) // 2 :]
    others = rng.permutation(np.flatnonzero(of != domain))[:2000]
    pq.write_table(table.take(pa.array(target)).select(["text"]), tmp_path / "target.parquet")
    pool = table.take(pa.array(rng.permutation(np.concatenate([hidden, others])))).combine_chunks()
    stage = Dsir(targets=str(tmp_path / "target.parquet"), k=len(hidden), min_tokens=20)
    kept = stage(pool).kept["domain"].to_pylist()
    share = len(hidden) / len(pool)
    assert share < 0.2 and kept.count(domain) / len(kept) > 0.9
    weights = Dsir(targets=stage.targets)(pool).kept
    values, same = weights["log_importance_weight"].to_numpy(), np.array(weights["domain"].to_pylist()) == domain
    assert np.median(values[same]) > np.median(values[~same])


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": ("",)}, {"buckets": 1}, {"ngrams": 0}, {"piece": 1}, {"smoothing": -1}, {"length": "mean"},
        {"k": 1, "keep": 0.5}, {"k": -1}, {"keep": 0}, {"keep": 1.5}, {"into": ""}, {"into": "_x"}, {"min_tokens": -1},
        {"smoothing": math.nan}, {"column": ""},
    ],
)  # fmt: skip
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="dsir: "):
        Dsir(**{"texts": ("a",), **wrong})


@pytest.mark.parametrize("stage", [Dsir(texts=("April",), length="pieces"), Dsir(texts=("April",), k=7, gumbel=False)])
def test_conformance(stage):
    check_stage(stage)
