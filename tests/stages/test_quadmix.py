"""quadmix: the sampling function against the formula, its percentiles against sorting, and the search end to end."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.recipe import loads
from curate.stage import params
from curate.stages import quadmix
from curate.stages.quadmix import (
    Parameters,
    Quadmix,
    copies_of,
    drawn,
    everything,
    expected_tokens,
    merged,
    percentiles,
    ranked,
    sampled,
    scale_of,
    scaled,
    shares_of,
    to_budget,
)
from curate.testing import run_over

unit = st.floats(0, 1)

# --------------------------------------------------------------------------------------------- the sampling function


@given(st.floats(0, 3), unit, st.floats(0, 3), st.floats(0, 1), st.lists(unit, min_size=2, max_size=30))
def test_sampling_never_rises_with_rank_and_is_the_formula(log_lambda, omega, eta, epsilon, r):
    steepness = 10**log_lambda
    r = np.sort(np.array(r))
    s = sampled(r, steepness, omega, eta, epsilon)
    assert (np.diff(s) <= 0).all() and (s >= epsilon).all()
    for rank, value in zip(r.tolist(), s.tolist(), strict=True):
        inside = (2 / (1 + math.exp(-steepness * (omega - rank)))) ** eta if rank <= omega else 0.0
        assert value == pytest.approx(inside + epsilon)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 1000)), min_size=1, max_size=40), st.floats(0, 1000))
def test_every_document_exactly_once(documents, steepness):
    q, tokens = (np.array(v, float) for v in zip(*documents, strict=True))
    s = sampled(ranked(q, percentiles(q, tokens)), steepness, 1.0, 0.0, 0.0)
    assert (copies_of(s, np.arange(len(s), dtype=np.uint64) << np.uint64(58)) == 1).all()
    assert expected_tokens(s, tokens) == tokens.sum()


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 9)), min_size=1, max_size=30))
def test_ranks_are_shares_of_tokens_that_are_no_worse(documents):
    q, tokens = (np.array(v, float) for v in zip(*documents, strict=True))
    found = ranked(q, percentiles(q, tokens))
    for i in range(len(q)):
        share = tokens[q <= q[i]].sum() / tokens.sum() if tokens.sum() else 1.0
        assert found[i] == pytest.approx(share)


def test_what_is_better_than_the_sample_comes_first_and_what_is_worse_last():
    known = percentiles(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]))
    assert ranked(np.array([0.5, 1.0, 2.5, 9.0, np.inf]), known).tolist() == [0.0, 0.25, 0.5, 1.0, 1.0]


@given(st.integers(1, 50), st.floats(1, 1e6), st.integers(0, 2**32))
def test_expected_tokens_are_scaled_to_the_budget(n, budget, seed):
    rng = np.random.default_rng(seed)
    tokens, s = rng.integers(1, 999, n).astype(float), rng.random(n) + 1e-4
    scaled_to = to_budget(s, tokens, budget)
    assert expected_tokens(scaled_to, tokens) == pytest.approx(budget)
    assert np.ptp(scaled_to / s) == pytest.approx(0, abs=1e-9 * budget)  # one common factor


def test_copies_come_as_often_as_wanted():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 40_000, dtype=np.uint64)
    copies = copies_of(np.full(40_000, 2.3), hashes)
    assert set(copies.tolist()) == {2, 3}
    assert abs((copies == 3).mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 40_000)
    assert copies_of(np.array([0.0, 1.0, 3.0]), np.array([0, 0, 2**64 - 1], np.uint64)).tolist() == [0, 1, 3]


def test_parameters_are_drawn_as_in_the_paper():
    vectors = drawn(np.random.default_rng(3), 20_000, 3, 2)
    assert vectors.shape == (20_000, (3 + 4) * 2)
    parts = [Parameters.of(v, 3) for v in vectors]
    alpha = np.stack([p.alpha for p in parts])
    assert alpha.shape[1:] == (3, 2) and (alpha >= 0).all()
    np.testing.assert_allclose(alpha.sum(axis=1), 1)
    np.testing.assert_allclose(alpha.mean(axis=0), 1 / 3, atol=0.01)
    # the weight of a score is common to the domains, so that those of two domains go together
    assert np.corrcoef(alpha[:, 0, 0], alpha[:, 0, 1])[0, 1] > 0.3
    for name, back, low, high in (
        ("steepness", lambda v: np.log10(v) / 3, 1, 1000),
        ("omega", lambda v: v * 10, 0, 0.1),
        ("eta", lambda v: v, 0, 1),
        ("epsilon", lambda v: v * 1000, 0, 0.001),
    ):
        values = np.stack([getattr(p, name) for p in parts])
        assert values.min() >= low and values.max() <= high
        u = np.sort(back(values).ravel())
        assert np.abs(u - (np.arange(len(u)) + 0.5) / len(u)).max() < 0.02  # uniform, by Kolmogorov and Smirnov
        assert abs(np.corrcoef(values.T)[0, 1]) < 0.05
    np.testing.assert_array_equal(parts[7].vector(), vectors[7])


def test_shares_are_what_many_documents_come_to():
    rng = np.random.default_rng(5)
    natural = np.array([0.7, 0.2, 0.1])
    vectors = drawn(rng, 20, 2, 3)
    r = (np.arange(200_000) + 0.5) / 200_000
    for vector, found in zip(vectors, shares_of(vectors, natural, 2), strict=True):
        held = Parameters.of(vector, 2)
        free = zip(held.steepness, held.omega, held.eta, held.epsilon, strict=True)
        means = natural * [sampled(r, *of).mean() for of in free]
        share = means / means.sum()
        np.testing.assert_allclose(found[:3], share, rtol=2e-3)
        np.testing.assert_allclose(found[3:], held.alpha @ share, rtol=2e-3)
    np.testing.assert_allclose(shares_of(everything(2, 3)[None], natural, 2)[0], [*natural, 0.5, 0.5])
    np.testing.assert_allclose(shares_of(0 * vectors, natural, 2)[:, :3], np.tile(natural, (20, 1)))


# --------------------------------------------------------------------------------------------- scores


def test_scales_are_robust_and_comparable():
    rng = np.random.default_rng(0)
    raw = rng.normal(5, 2, 10_000)
    wild = np.append(raw, [1e300, -1e300, np.inf, np.nan])
    assert scale_of(wild) == pytest.approx(scale_of(raw), rel=1e-2)
    once, again = scaled(raw, scale_of(raw), True), scaled(raw * 1000 - 7, scale_of(raw * 1000 - 7), True)
    np.testing.assert_allclose(once, again, atol=1e-9)
    assert (np.argsort(once) == np.argsort(-raw)).all()
    np.testing.assert_allclose(scaled(raw, scale_of(raw), False), -once)
    assert np.abs(scaled(np.array([np.inf, -np.inf]), scale_of(raw), False)).tolist() == [10, 10]


@pytest.mark.parametrize("values, scale", [([], (0, 1)), ([np.nan], (0, 1)), ([3.0] * 9, (3, 1)), ([0.0] * 99 + [4.0], (0, 4))])
def test_scales_of_scores_that_hardly_differ(values, scale):
    assert scale_of(np.array(values, float)) == scale


def test_scores_are_merged_by_the_weights_of_the_domain():
    scores = np.array([[1.0, 1.0, 1.0, np.nan], [3.0, 3.0, 5.0, 2.0]])
    alpha = np.array([[1.0, 0.25], [0.0, 0.75]])
    assert merged(scores, np.array([0, 1, 1, 1]), alpha).tolist() == [1.0, 2.5, 4.0, np.inf]


# --------------------------------------------------------------------------------------------- the stage


def sentences(rng, kind, n, words=12):
    """n texts of words that begin with `kind`, few of them common."""
    return [" ".join(f"{kind}{w}" for w in rng.zipf(1.5, words).clip(max=300)) for _ in range(n)]


TARGET = tuple(sentences(np.random.default_rng(99), "cell", 60))


def corpus(n=600, domains=("a", "b"), seed=0):
    """Texts about cells with high scores and about phones with low ones, in each domain; `noise` says nothing."""
    rng = np.random.default_rng(seed)
    cell = rng.random(n) < 0.3
    pairs = zip(cell, sentences(rng, "cell", n), sentences(rng, "fon", n), strict=True)
    texts = [own if good else other for good, own, other in pairs]
    columns = {
        "text": texts,
        "domain": [domains[i] for i in rng.integers(0, len(domains), n)],
        "score": cell + rng.random(n),
        "noise": rng.normal(size=n) * 1000,
    }
    return as_table(pa.table(columns))


def of_cells(kept):
    return np.array([text.startswith("cell") for text in kept["text"].to_pylist()])


def search(**more):
    given = {
        "by": "domain", "quality": {"score": "higher", "noise": "lower"}, "texts": TARGET, "models": "ngram", "tokens": 1500,
        "runs": 24, "predictor": "linear", "features": "shares", "simulated": 500, "weak": "keep",
    }  # fmt: skip
    return Quadmix(**{**given, **more})


def run(tmp_path, table, stages, tokenizer="bytes/4"):
    pq.write_table(table, tmp_path / "docs.parquet")
    recipe = {"name": "x", "source": {"parquet": {"paths": [str(tmp_path / "docs.parquet")]}}, "stages": stages}
    made = loads(yaml.safe_dump(recipe)).run(tmp_path / "run", executor="inline", workers=1)
    return made, pq.read_table(tmp_path / "run" / "output" / "data")


def as_stage(stage, **more):
    return {"quadmix": {k: v for k, v in params(stage).items() if k != "names"}, **more}


def by_hand(table, made, directions):
    """S of each document and the shares of domains, by sorting, out of what mixture.json says."""
    domain, tokens = table["domain"].to_pylist(), table["tokens"].to_pylist()
    found, shares = [None] * len(table), {}
    for name, held in made["evidence"]["parameters"].items():
        q = {}
        for row in (r for r, d in enumerate(domain) if d == name):
            q[row] = 0.0
            for column, side in directions.items():
                scale = made["evidence"]["scales"][column]
                value = (table[column][row].as_py() - scale["middle"]) / scale["spread"]
                q[row] += held["alpha"][column] * (-value if side == "higher" else value)
        total = sum(tokens[row] for row in q)
        for row in q:
            r = sum(tokens[other] for other in q if q[other] <= q[row]) / total
            inside = (2 / (1 + math.exp(-held["lambda"] * (held["omega"] - r)))) ** held["eta"] if r <= held["omega"] else 0.0
            found[row] = inside + held["epsilon"]
        shares[name] = sum(found[row] * tokens[row] for row in q)
    return found, {name: share / sum(shares.values()) for name, share in shares.items()}


@pytest.mark.parametrize("features", ["shares", "parameters"])
def test_the_column_is_the_formula_by_the_parameters_that_were_found(tmp_path, features):
    table = corpus(300)
    stage = search(features=features, runs=12)
    _, kept = run(tmp_path, table, [as_stage(stage)])
    made = json.loads((tmp_path / "run" / "output" / "mixture.json").read_text())
    found, shares = by_hand(kept, made, stage.directions)
    np.testing.assert_allclose(kept["sampling"].to_numpy(), found, rtol=1e-6)
    assert made["rate"] == "sampling" and made["by"] == "domain" and made["evidence"]["method"] == "quadmix"
    assert made["weights"] == pytest.approx(shares)
    assert made["evidence"]["expected_tokens"] == round(np.dot(found, kept["tokens"].to_numpy()))
    assert len(made["evidence"]["runs"]) == 12 and made["evidence"]["runs"][0]["origin"] == "natural"
    assert made["rank_correlation"]["runs"] == 11  # natural proportions are compared, and not learned from
    assert made["evidence"]["proxy_tokens"] > 12 * 1490
    total = sum(kept["tokens"].to_pylist())
    mine = kept.group_by("domain").aggregate([("tokens", "sum")]).to_pydict()
    assert made["natural"] == pytest.approx({g: n / total for g, n in zip(mine["domain"], mine["tokens_sum"], strict=True)})


def test_the_score_that_matters_is_found():
    """What is wanted is what the target is about, though a score that says nothing lies beside the one that does."""
    table = corpus(1500)
    kept = search(runs=60, simulated=4000)(table).kept
    wanted = kept["sampling"].to_numpy()
    cell = of_cells(kept)
    share = wanted[cell].sum() / wanted.sum()
    assert share > 0.85  # of all documents, 0.3
    assert wanted[~cell].sum() > 0


def test_a_budget_is_met_by_mixture(tmp_path):
    mixture = {"mixture": {"rate": "sampling", "tokens": 300}, "max_drop": None}
    _, kept = run(tmp_path, corpus(), [as_stage(search(runs=8)), mixture])
    tokens = kept["tokens"].to_numpy()
    assert 300 - tokens.max() <= tokens.sum() <= 300
    cell = of_cells(kept)
    assert tokens[cell].sum() / tokens.sum() > 0.5


def test_what_has_no_score_ranks_last_and_what_has_no_domain_gets_nothing(tmp_path):
    table = corpus(300)
    score = [None if i % 10 == 0 else math.nan if i % 10 == 1 else v for i, v in enumerate(table["score"].to_pylist())]
    table = table.set_column(table.schema.names.index("score"), "score", pa.array(score, pa.float64()))
    domain = [None if i % 7 == 0 else v for i, v in enumerate(table["domain"].to_pylist())]
    table = table.set_column(table.schema.names.index("domain"), "domain", pa.array(domain, pa.string()))
    stage = search(runs=8)
    outcome = run_over(stage, table, shards=3, batch=50)
    wanted = outcome.rows["sampling"].to_pylist()
    for i, value in enumerate(wanted):
        if i % 7 == 0:
            assert value is None
        elif i % 10 in (0, 1):
            assert value == min(w for j, w in enumerate(wanted) if domain[j] == domain[i])
    run(tmp_path, table, [as_stage(stage)])
    stages = json.loads((tmp_path / "run" / "summary.json").read_text())["stages"]
    notes = next(stage["notes"] for stage in stages if stage["id"] == "quadmix")
    assert notes["documents without score, which rank last in their domain"] == 60
    assert notes["documents without a domain, which are in no mixture"] == 43


def test_large_domains_are_ranked_by_a_sample(monkeypatch):
    table = corpus(900, domains=("a",))
    exact = search(runs=6)(table).kept["sampling"].to_numpy()
    monkeypatch.setattr(quadmix, "SAMPLE", 400)
    cuts = ((1, 900), (4, 70))  # shards, rows of a batch
    estimated = [run_over(search(runs=6), table, *cut).rows["sampling"].to_numpy() for cut in cuts]
    np.testing.assert_array_equal(*estimated)
    assert (estimated[0] != exact).any()
    assert abs((estimated[0] > 0.5).mean() - (exact > 0.5).mean()) < 0.03


def test_a_predictor_that_learned_nothing_stops_the_run():
    table = corpus(300)
    noise = pa.array(np.random.default_rng(1).normal(size=300))
    table = table.set_column(table.schema.names.index("score"), "score", noise)
    with pytest.raises(StageError, match=r"quadmix: .*rank correlation .*`weak: keep`"):
        search(runs=8, weak="stop", features="parameters", simulated=50)(table)


def test_scores_that_are_no_numbers_are_refused():
    table = corpus(50).append_column("name", pa.array(["x"] * 50))
    with pytest.raises(StageError, match="quadmix: a column of type string has no order"):
        search(quality=("name",), runs=6)(table)


@pytest.mark.parametrize(
    "given, says",
    [
        ({"quality": {}}, "name one or more"),
        ({"quality": ("a", "a")}, "each once"),
        ({"quality": {"a": "up"}}, "quality.a is 'up'; say whether 'higher' or 'lower'"),
        ({"quality": ("domain",)}, "other columns"),
        ({"runs": 4}, "more than 4 runs"),
        ({"top": 501}, "top 501"),
        ({"features": "all"}, "'parameters' or 'shares'"),
        ({"predictor": "trees"}, "lightgbm"),
        ({"models": "2m"}, "2m"),
    ],
)
def test_parameters_that_make_no_sense(given, says):
    with pytest.raises(RecipeError, match=f"^quadmix: .*{says}"):
        search(**given)


def test_a_target_is_asked_for(tmp_path):
    with pytest.raises(RecipeError, match="quadmix: give `target`"):
        run(tmp_path, corpus(20), [as_stage(search(texts=()))])


@pytest.mark.slow
def test_trained_proxies_find_it_too(tmp_path):
    table = corpus(1500)
    stage = search(models="1m", tokens=6000, runs=12, window=32, vocabulary=300, batch_tokens=256, metric="loss", device="cpu")
    _, kept = run(tmp_path, table, [as_stage(stage)])
    made = json.loads((tmp_path / "run" / "output" / "mixture.json").read_text())
    wanted = kept["sampling"].to_numpy()
    cell = of_cells(kept)
    assert wanted[cell].sum() / wanted.sum() > 0.8
    losses = [one["metric"] for one in made["evidence"]["runs"]]
    assert made["measured"]["metric"] < np.median(losses)
