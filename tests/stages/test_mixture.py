"""Mixtures against counting by hand, and against the shares that were asked for."""

import json
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tape_oracle import drawn, order

from curate import ranks
from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.mixtures import Mixture as Found
from curate.recipe import loads
from curate.stages.mixture import _SALT, Mixture
from curate.stages.schedule import Schedule
from curate.testing import CHECKS, run_over


def docs(groups, tokens, kind=None, **columns):
    table = {"text": ["x"] * len(groups), "g": pa.array(groups, kind), "tokens": pa.array(tokens, pa.uint32()), **columns}
    return as_table(pa.table(table))


def copies_of(stage, table, shards=1, batch=1024):
    outcome = run_over(stage, table, shards=shards, batch=batch)
    found = outcome.rows["_copies"].to_pylist()
    gone = set(outcome.drops["_row"].to_pylist())
    assert gone == {row for row, n in enumerate(found) if not n}
    return found


corpora = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), min_size=1, max_size=60)


@settings(max_examples=25)
@given(corpora, st.data(), st.integers(1, 4), st.integers(0, 2))
def test_it_is_what_unrolling_the_tapes_gives(rows, data, shards, seed):
    groups, tokens = (list(c) for c in zip(*rows, strict=True))
    there = Counter()
    for group, n in rows:
        there[group] += n
    known = sorted(group for group in there if there[group])
    if not known:
        return
    weights = {group: data.draw(st.integers(0, 4)) for group in known}
    weights[known[0]] += 1
    weights["*"] = 0 if len(known) < len(there) else weights.pop("none", 0)
    weights = {name: w for name, w in weights.items() if name != "*" or w}
    total = sum(weights.values())
    most = 3
    largest = min(most * there[g] * total // w for g, w in weights.items() if w)
    if not largest:
        return
    budget = data.draw(st.integers(1, largest))
    stage = Mixture(by="g", weights=weights, tokens=budget, max_repeats=most, seed=seed)
    found = copies_of(stage, docs(groups, tokens), shards, batch=7)
    budgets = {group: budget * weights[group] // total for group in known}
    assert [found] == drawn(groups, tokens, [{group: (0, part) for group, part in budgets.items()}], [budget], seed)
    missing = budget
    for group in known:
        taken = sum(n * t for n, t, g in zip(found, tokens, groups, strict=True) if g == group)
        largest_document = max(t for t, g in zip(tokens, groups, strict=True) if g == group)
        assert abs(budgets[group] - taken) < largest_document
        missing -= taken
    assert abs(missing) <= max(max(tokens) / 2, 0.005 * budget)
    assert max(found) <= most + 1 if 0 in tokens else max(found) <= most


def test_shares_of_tokens_are_those_that_were_asked_for():
    """Chi-square over groups: tokens drawn against weights, in units of documents."""
    rng = np.random.default_rng(0)
    groups = rng.choice(["a", "b", "c", "d"], 6000, p=[0.6, 0.3, 0.08, 0.02]).tolist()
    tokens = rng.integers(1, 400, 6000)
    weights = {"a": 0.25, "b": 0.25, "c": 0.3, "d": 0.2}
    budget = 100_000
    found = np.array(copies_of(Mixture(by="g", weights=weights, tokens=budget, max_repeats=8), docs(groups, tokens), 3))
    drawn = np.array([(found * tokens)[np.array(groups) == g].sum() for g in weights])
    asked = np.array(list(weights.values())) * budget
    assert abs(drawn.sum() - budget) < 0.005 * budget
    statistic = ((drawn - asked) ** 2 / asked).sum() / tokens.mean()
    assert statistic < 1.0  # far less than sampling would give: 95% of it is under 7.8


def test_documents_of_a_group_are_taken_alike():
    """Chi-square over documents: how often each is taken with many seeds, where a third of its group is wanted."""
    n, seeds = 600, 24
    table = docs(["a"] * n, [10] * n)
    taken = np.zeros(n)
    for seed in range(seeds):
        kept = Mixture(by="g", weights={"a": 1}, tokens=10 * n // 3, seed=seed)(table).kept["record"].to_numpy()
        assert len(kept) == n // 3
        taken[kept] += 1
    statistic = ((taken - seeds / 3) ** 2 / (seeds * 2 / 9)).sum()
    assert 495 < statistic < 715  # 599 degrees of freedom: outside with a chance of 0.1%
    first = taken[: n // 2].sum()  # nor does it matter where a document stands
    assert abs(first - seeds * n / 6) < 4 * np.sqrt(seeds * n / 2 * 2 / 9)


@pytest.mark.parametrize("samples", [2, 512])
def test_budgets_are_met_in_large_corpora(monkeypatch, samples):
    monkeypatch.setattr(ranks, "SAMPLES", samples)
    rng = np.random.default_rng(1)
    n = 4000
    groups = rng.zipf(1.5, n).clip(max=40).astype(int)
    tokens = rng.lognormal(4, 1, n).astype(int) + 1
    table = docs(groups.tolist(), tokens)
    for budget in (50_000, int(tokens.sum()), int(3 * tokens.sum())):
        found = np.array(copies_of(Mixture(by="g", weights={"*": 1}, tokens=budget), table, shards=5))
        drawn = (found * tokens).sum()
        assert abs(drawn - budget) <= (0.005 if budget > 100_000 else 0.02) * budget


def test_small_budgets_of_many_groups_are_met():
    """Halves of documents at the ends, one for each group, would add up to some percent."""
    rng = np.random.default_rng(0)
    n = 1000
    tokens = rng.lognormal(4, 1, n).astype(int) + 1
    groups = rng.integers(0, 13, n)
    table = docs(groups.tolist(), tokens)
    for seed in range(12):
        for budget in (10_000, 20_000):
            found = np.array(copies_of(Mixture(by="g", weights={"*": 1}, tokens=budget, seed=seed), table))
            assert abs((found * tokens).sum() - budget) <= 0.005 * budget
            for group in range(13):  # none is far from its share for it
                mine = groups == group
                share = budget * tokens[mine].sum() / tokens.sum()
                assert abs((found * tokens)[mine].sum() - share) < tokens[mine].max()


def test_groups_of_one_document_each():
    """No group has a share of half its document, and yet the budget is met, by documents of all lengths."""
    rng = np.random.default_rng(0)
    tokens = rng.lognormal(7, 1, 2000).astype(int) + 1
    table = docs([f"host {i}" for i in range(2000)], tokens)
    budget = int(0.3 * tokens.sum())
    found = np.array(copies_of(Mixture(by="g", weights={"*": 1}, tokens=budget), table, shards=3))
    assert abs((found * tokens).sum() - budget) <= 0.005 * budget
    long = tokens > np.median(tokens)
    assert found.max() == 1 and 0.26 < found[long].mean() < 0.34 and 0.26 < found[~long].mean() < 0.34


def test_long_documents_that_break_a_budget_are_told_of(tmp_path):
    (tmp_path / "in").mkdir()
    texts = ["x" * 40_000] * 3 + ["y" * 40] * 300
    pq.write_table(pa.table({"text": texts, "g": ["a"] * 3 + ["b"] * 300}), tmp_path / "in" / "0.parquet")
    recipe = loads("name: m\nsource: parquet\nstages: [{mixture: {by: g, weights: {a: 1, b: 1}, tokens: 4000}}]")
    run = recipe.with_inputs([str(tmp_path / "in")]).run(tmp_path / "run", executor="inline")
    notes = run.summary["stages"][-2]["notes"]
    assert notes["groups of which nothing is taken: what they were to give is less than a document"] == 1
    assert notes["tokens missing from the budget: documents are too long to meet it"] == 2000
    assert notes["tokens drawn"] == 2000


def test_a_smaller_budget_is_a_part_of_a_larger_one():
    rng = np.random.default_rng(2)
    table = docs(rng.choice(["a", "b"], 300).tolist(), rng.integers(1, 100, 300))
    last = np.zeros(300, int)
    for budget in (500, 5000, 15_000, 20_000, 30_000):
        found = np.array(copies_of(Mixture(by="g", weights={"a": 0.7, "b": 0.3}, tokens=budget, max_repeats=9), table, 2))
        assert (found >= last).all() and found.sum() > last.sum()
        last = found


def test_by_default_as_much_as_the_limit_allows():
    table = docs(["a"] * 10 + ["b"] * 30, [10] * 40)
    assert sum(copies_of(Mixture(by="g", weights={"*": 1}), table)) == 40
    found = copies_of(Mixture(by="g", weights={"a": 1, "b": 0}, max_repeats=3), table)
    assert found == [3] * 10 + [0] * 30
    assert sum(copies_of(Mixture(by="g", weights={"a": 0.5, "b": 0.5}, max_repeats=1), table)) == 20


def test_reasons_values_and_notes():
    table = docs(["a", "a", "b", "b", None, "c"], [10, 10, 10, 10, 10, 10])
    stage = Mixture(by="g", weights={"a": 3, "b": 1, "c": 0}, tokens=40, max_repeats=2)
    result = stage(table)
    assert sum(result.kept["_copies"].to_pylist()) == 4 and result.kept.schema.field("_copies").type == pa.uint16()
    gone = {row["id"]: (row["_reason"], row["_value"]) for row in result.dropped.to_pylist()}
    assert gone.pop("4") == ("mixture.no_group", None)
    assert gone.pop("5") == ("mixture.not_sampled", 0.0)
    assert list(gone.values()) == [("mixture.not_sampled", 0.5)]


def test_what_cannot_be_had_is_an_error_or_shared_out():
    table = docs(["a"] * 2 + ["b"] * 20 + ["c"] * 20, [10] * 42)
    weights = {"a": 0.5, "b": 0.25, "c": 0.25}
    said = r"mixture: 200 tokens would .* 4 times: 'a' has 20 tokens and is wanted 5.0 times; .* `tokens: 160`, raise max_rep"
    with pytest.raises(StageError, match=said):
        Mixture(by="g", weights=weights, tokens=200)(table)
    found = copies_of(Mixture(by="g", weights=weights, tokens=200, short="less"), table)
    assert sum(found[:2]) == 8 and sum(found[2:22]) == sum(found[22:]) == 6
    found = copies_of(Mixture(by="g", weights=weights, tokens=99_999, short="less"), table)
    assert found == [4] * 42
    assert sum(copies_of(Mixture(by="g", weights=weights, tokens=160), table)) == 16


@pytest.mark.parametrize(
    "groups, kind, weights",
    [
        ([3, 11, 3, None], pa.int32(), {3: 0.5, "11": 0.5}),
        ([-1, 2, -1, None], pa.int64(), {"-1": 1, "*": 1}),
        ([True, False, True, None], pa.bool_(), {True: 0.5, "false": 0.5}),
        ([True, False, True, None], pa.bool_(), {"true": 0.5, False: 0.5}),
        (["a", "", "a", None], pa.string(), {"a": 0.5, "": 0.5}),
        (["a", "null", "a", None], pa.dictionary(pa.int32(), pa.string()), {"a": 0.5, "null": 0.5}),
    ],
)
def test_kinds_of_groups(groups, kind, weights):
    table = docs(groups, [10] * 4).set_column(1, "g", pa.array(groups, kind))
    result = Mixture(by="g", weights=weights, tokens=20)(table)
    assert sorted(result.kept["g"].to_pylist(), key=str) == sorted(dict.fromkeys(g for g in groups if g is not None), key=str)
    assert "mixture.no_group" in result.dropped["_reason"].to_pylist()


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"weights": {}}, "weights are groups and their shares"),
        ({"weights": {"a": -1, "b": 2}}, "the weight of 'a' is -1"),
        ({"weights": {"a": math.nan}}, "the weight of 'a' is nan"),
        ({"weights": {"a": 0}}, "at least one has to be above 0"),
        ({"weights": {1: 1, "1": 1}}, "two weights are of one group"),
        ({"weights": {True: 1, "true": 1}}, "two weights are of one group"),
        ({"weights": ""}, "weights is empty"),
        ({"weights": {"a": 1}, "tokens": 0}, "tokens is 0; give a number"),
        ({"weights": {"a": 1}, "tokens": "5 cats"}, "tokens is '5 cats'"),
        ({"weights": {"a": 1}, "max_repeats": 0}, "max_repeats is 0; give 1 to 100"),
        ({"weights": {"a": 1}, "short": "maybe"}, "short is 'maybe'; it is 'stop' or 'less'"),
        ({"rate": "r", "weights": {"a": 1}}, "leave out `weights`"),
        ({"rate": "r", "by": "g"}, "leave out `by`"),
    ],
)
def test_wrong_parameters(wrong, said):
    with pytest.raises(RecipeError, match=f"^mixture: .*{said}"):
        Mixture(**wrong)


def test_what_is_wrong_once_columns_are_known(tmp_path):
    table = docs(["a"], [1])
    with pytest.raises(RecipeError, match="mixture: give `weights`, shares of groups, or `rate`"):
        Mixture(by="g")(table)
    with pytest.raises(RecipeError, match="mixture: give `by`, the column whose values are the groups"):
        Mixture(weights={"a": 1})(table)
    with pytest.raises(RecipeError, match="mixture: weights is 'climb', and no stage before it has this id"):
        Mixture(by="g", weights="climb")(table)
    with pytest.raises(RecipeError, match="mixture: there is no file"):
        Mixture(by="g", weights=str(tmp_path / "mixture.json"))(table)
    Found(weights={"a": 1}, rate="sampling").save(tmp_path / "quadmix.json")
    with pytest.raises(RecipeError, match=r"mixture: .*quadmix.json wants .* use the stage `mixture` with `rate: sampling`"):
        Mixture(by="g", weights=str(tmp_path / "quadmix.json"))(table)


@pytest.mark.parametrize(
    "weights, said",
    [
        ({"b": 1, "*": 1}, "g = 'b' has the share 0.5, and no document with tokens; did you mean 'bb'"),
        ({"a": 1}, "no weight for g = 'bb'"),
    ],
)
def test_groups_that_are_not_there(weights, said):
    with pytest.raises(StageError, match=f"^mixture: {said}"):
        Mixture(by="g", weights=weights)(docs(["a", "bb"], [1, 1]))


@pytest.mark.parametrize("groups, tokens", [([None, None], [5, 5]), (["a", "b"], [0, 0])])
def test_a_corpus_with_nothing_to_draw_from(groups, tokens):
    with pytest.raises(StageError, match=r"^mixture: no document has a value in 'g' and tokens"):
        Mixture(by="g", weights={"*": 1})(docs(groups, tokens, pa.string()))


def test_mixtures_of_mixtures_are_an_error():
    mixed = Mixture(by="g", weights={"a": 1}, tokens=4)(docs(["a"], [1])).kept
    for stage in (Mixture(by="g", weights={"a": 1}), Mixture(rate="tokens"), Schedule(by="g", upsample={"a": 2})):
        with pytest.raises(RecipeError, match=r"a stage before it has said how often each document is taken \('_copies'\)"):
            stage(mixed)


@pytest.mark.parametrize("kind", [pa.float64(), pa.list_(pa.int64())])
def test_columns_that_make_no_groups(kind):
    with pytest.raises(StageError, match=r"^mixture: column 'g' is .* makes no groups"):
        Mixture(by="g", weights={"*": 1})(docs([None], [1], kind))


def test_a_file_says_what_groups_are_by(tmp_path):
    path = tmp_path / "mixture.json"
    Found(weights={"a": 0.75, "b": 0.25}, by="g").save(path)
    table = docs(["a", "a", "b", "b"], [10] * 4)
    result = Mixture(weights=str(path), tokens=40)(table)
    assert sum(n for n, g in zip(*(result.kept[c].to_pylist() for c in ("_copies", "g")), strict=True) if g == "a") == 3
    with pytest.raises(StageError, match=r"mixture: .*mixture.json has weights of the groups of 'g', not of 'h'; set `by: g`"):
        Mixture(weights=str(path), by="h")(table.append_column("h", table["g"]))
    path.write_text(json.dumps({"weights": {"a": 1, "b": 1}}))
    assert sum(Mixture(weights=str(path), by="g", tokens=40)(table).kept["_copies"].to_pylist()) == 4


# --------------------------------------------------------------------------------------------- rates


def by_rate(rates, tokens, budget, most, seed=42):
    """How often each document is taken, by sorting all its copies."""
    units = []
    for row, rate in enumerate(rates):
        if rate is None or not math.isfinite(rate) or rate <= 0:
            continue
        hashed = order(row, seed + _SALT)
        u = (hashed >> 11) * 2.0**-53
        units += [((j - u) / rate, (hashed + j) % 2**64, row) for j in range(1, most + 1)]
    found, left = [0] * len(rates), budget
    for _, _, row in sorted(units):
        left -= tokens[row]
        if left < 0:
            break
        found[row] += 1
    return found


awkward = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 1.0, math.inf, math.nan, -1.0, 1e-300]), st.floats(0.01, 9))


@settings(max_examples=25)
@given(st.lists(st.tuples(awkward, st.integers(0, 9)), min_size=1, max_size=50), st.data(), st.integers(1, 4))
def test_rates_are_what_sorting_all_copies_gives(rows, data, shards):
    rates, tokens = (list(c) for c in zip(*rows, strict=True))
    most = 3
    total = most * sum(t for r, t in rows if r is not None and math.isfinite(r) and r > 0)
    if not total:
        return
    budget = data.draw(st.integers(1, total))
    stage = Mixture(rate="r", tokens=budget, max_repeats=most)
    table = docs(["a"] * len(rows), tokens, r=pa.array(rates, pa.float64()))
    assert copies_of(stage, table, shards, batch=7) == by_rate(rates, tokens, budget, most)


def test_copies_follow_rates():
    """A document with the rate r has s r copies: the whole part, and one more with the probability of the rest."""
    rng = np.random.default_rng(0)
    n, s = 8000, 1.3
    rate = rng.choice([0.25, 0.5, 1.0, 1.9], n)
    budget = int(10 * s * rate.sum())
    found = np.array(copies_of(Mixture(rate="r", tokens=budget, max_repeats=5), docs(["a"] * n, [10] * n, r=rate), shards=3))
    assert 0 <= budget - 10 * found.sum() < 10
    for r in np.unique(rate):
        mine = found[rate == r]
        assert set(mine) <= {math.floor(s * r), math.floor(s * r) + 1}
        p = s * r - math.floor(s * r)
        error = math.sqrt(p * (1 - p) / len(mine))
        assert abs(mine.mean() - s * r) < 4 * error


def test_equal_rates_take_each_document_once():
    rng = np.random.default_rng(0)
    table = docs(["a"] * 500, rng.integers(1, 99, 500), r=np.ones(500, np.float32))
    assert copies_of(Mixture(rate="r"), table, shards=3) == [1] * 500
    assert copies_of(Mixture(rate="r", max_repeats=1), table) == [1] * 500


def test_rounding_does_not_follow_the_order_of_a_tape():
    """Of documents that came first in their group, as many are rounded up as of others."""
    n = 4000
    table = docs(["a"] * n, [1] * n)
    first = table.filter(pa.array(np.array(copies_of(Mixture(by="g", weights={"a": 1}, tokens=n // 4), table)) > 0))
    rates = np.where(np.arange(len(first)) % 2, 1.0, 0.5)
    first = first.append_column("r", pa.array(rates))
    found = np.array(copies_of(Mixture(rate="r", tokens=len(first) * 3 // 8), first))
    assert abs(found[rates == 0.5].mean() - 0.25) < 0.08 and abs(found[rates == 1.0].mean() - 0.5) < 0.08


def test_rates_and_limits():
    table = docs(["a"] * 4, [10] * 4, r=[1.0, 100.0, 0.0, None])
    said = "mixture: there are 80 tokens if each document with a rate is taken 4 times, and not 90: set `tokens: 80`"
    with pytest.raises(StageError, match=said):
        Mixture(rate="r", tokens=90)(table)
    assert copies_of(Mixture(rate="r", tokens=90, short="less"), table) == [4, 4, 0, 0]
    result = Mixture(rate="r", tokens=40, max_repeats=3)(table)
    assert result.kept["_copies"].to_pylist() == [1, 3]
    assert result.dropped["_reason"].to_pylist() == ["mixture.not_sampled", "mixture.no_rate"]
    assert result.dropped["_value"].to_pylist() == [0.0, None]
    with pytest.raises(StageError, match="mixture: no document has tokens and a rate above 0 in 'r'"):
        Mixture(rate="r")(docs(["a"], [1], r=[0.0]))
    with pytest.raises(StageError, match="mixture: a column of type string has no order; give a number in 'g'"):
        Mixture(rate="g")(table)


def test_conformance_with_rates_and_without_limits():
    scores = [1.5, None, math.nan, math.inf, -1.0, 0.0, 1e-300, 0.25, 2.0, 1.0, -0.0, 3.5]
    table = docs(["a", "b", None] * 4, range(12), score=scores)
    for stage in (Mixture(rate="score", tokens=50), Mixture(by="g", weights={"a": 0.9, "b": 0.1}, tokens="1k", short="less")):
        for check in CHECKS:
            check(stage, table)


# --------------------------------------------------------------------------------------------- in a run

RECIPE = """\
name: mixed
source: auto
stages:
  - mixture: {by: g, weights: {0: 0.5, 1: 0.25, "*": 0.25}, tokens: 35k, max_repeats: 5}
output: {validation: 0}
"""


def test_recipes():
    recipe = loads(RECIPE)
    stage = recipe.stages[0].stage
    assert list(stage.weights) == ["0", "1", "*"] and stage == Mixture(
        by="g", weights={0: 0.5, 1: 0.25, "*": 0.25}, tokens="35k", max_repeats=5
    )
    assert loads(recipe.dump()).stages[0].stage == stage
    changed = loads(recipe.dump(), overrides=["stages.mixture.tokens=2M", "stages.mixture.weights.1=0.5"]).stages[0].stage
    assert changed.tokens == "2M" and changed.weights == {"0": 0.5, "1": 0.5, "*": 0.25}
    with pytest.raises(RecipeError, match=r"recipe:4: mixture: tokens is 'no'"):
        loads(RECIPE, overrides=["stages.mixture.tokens=no"])


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    groups = rng.choice(4, 900, p=[0.05, 0.1, 0.35, 0.5]).astype(np.int32)
    table = pa.table({"id": [str(i) for i in range(900)], "text": [rng.bytes(n).hex() for n in rng.integers(20, 400, 900)]})
    table = table.append_column("g", pa.array(groups, mask=rng.random(900) < 0.02))
    for i in range(3):
        pq.write_table(table.slice(300 * i, 300), tmp_path / "in" / f"{i}.parquet")
    return tmp_path / "in"


SEARCHED = """\
name: searched
source: auto
stages:
  - bins: {columns: tokens}
  - manual: {by: g, weights: {0: 0.4, 1: 0.3, "*": 0.3}}
    id: found
  - where: {sql: g > 0}
  - mixture: {by: g, weights: found, tokens: 20k}
output: {validation: 0}
"""


def test_weights_of_a_search(tmp_path, corpus):
    """By its id; and a group that a stage between the two has emptied is not passed over."""
    lost = loads(SEARCHED).with_inputs([str(corpus)])
    with pytest.raises(StageError, match=r"mixture: the search 'found': g = '0' has the share 0\.4, and no document with tok"):
        lost.run(tmp_path / "run", executor="inline")
    kept = SEARCHED.replace("  - where: {sql: g > 0}\n", "")
    loads(kept).with_inputs([str(corpus)]).run(tmp_path / "run", executor="inline")
    out = pa.concat_tables(pq.read_table(p) for p in (tmp_path / "run" / "output" / "data").rglob("*.parquet"))
    shares = [out.filter(pa.array(out["g"].to_numpy() == g))["tokens"].to_numpy().sum() / 20_000 for g in range(4)]
    assert shares[:2] == pytest.approx([0.4, 0.3], abs=0.01)
    assert Found.load(tmp_path / "run" / "output" / "mixture.json", "test").weights["0"] == pytest.approx(0.4)
    wrong = loads(kept, overrides=["stages.mixture.by=tokens_bin"]).with_inputs([str(corpus)])
    with pytest.raises(StageError, match="mixture: the search 'found' has weights of the groups of 'g', not of 'tokens_bin'"):
        wrong.run(tmp_path / "run", executor="inline")
    wrong = loads(kept, overrides=["stages.mixture.weights=bins"]).with_inputs([str(corpus)])
    with pytest.raises(StageError, match="mixture: weights is 'bins', a stage that searches none"):
        wrong.run(tmp_path / "run", executor="inline")


def test_runs_are_the_same_with_any_number_of_workers(tmp_path, corpus):
    found = []
    for workers in (1, 2):
        recipe = loads(RECIPE).with_inputs([str(corpus)])
        root = tmp_path / f"run{workers}"
        recipe.run(root, executor="inline" if workers == 1 else "local", workers=workers)
        written = sorted([*(root / "drops").glob("mixture-*/*.parquet"), *(root / "output" / "data").rglob("*.parquet")])
        found.append({path.relative_to(root).name: path.read_bytes() for path in written})
    assert found[0] == found[1]
    out = pa.concat_tables(pq.read_table(p) for p in (tmp_path / "run1" / "output" / "data").rglob("*.parquet"))
    assert out["g"].null_count == 0
    tokens, group = out["tokens"].to_numpy(), out["g"].to_numpy()
    shares = [tokens[group == g].sum() / 35_000 for g in range(4)]
    assert shares[:2] == pytest.approx([0.5, 0.25], abs=0.005) and sum(shares) == pytest.approx(1, abs=0.01)
    assert max(Counter(out["id"].to_pylist()).values()) == 5
