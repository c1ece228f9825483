"""Schedules: which documents each phase has, and what is said of it."""

import json
import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tape_oracle import drawn

from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.mixtures import Mixture as Found
from curate.recipe import loads
from curate.stages.mixture import Mixture
from curate.stages.schedule import Schedule
from curate.testing import CHECKS, run_over


def docs(groups, tokens):
    return as_table(pa.table({"text": ["x"] * len(groups), "g": pa.array(groups), "tokens": pa.array(tokens, pa.uint32())}))


def counts_of(stage, table, shards=1, batch=1024):
    """Name of each group of the output and how often it has each document."""
    outcome = run_over(stage, table, shards=shards, batch=batch)
    column = outcome.rows["_groups"].combine_chunks()
    found = {f.name: np.array(column.field(f.name)).astype(int) for f in column.type}
    gone = np.zeros(len(table), bool)
    gone[outcome.drops["_row"].to_numpy()] = True
    assert (gone == (sum(found.values()) == 0)).all()
    return found


phases = st.lists(
    st.fixed_dictionaries(
        {
            "share": st.integers(1, 4),
            "weights": st.fixed_dictionaries({"a": st.integers(0, 3), "b": st.integers(1, 3)}),
            "documents": st.sampled_from(["fresh", "repeated"]),
        }
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25)
@given(phases, st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 30)), max_size=40), st.integers(1, 3), st.data())
def test_it_is_what_unrolling_the_tapes_gives(given_phases, rows, shards, data):
    groups, tokens = (list(c) for c in zip(*[("a", 10), ("b", 7), *rows], strict=True))
    there = {name: sum(t for t, g in zip(tokens, groups, strict=True) if g == name) for name in "ab"}
    shares, total = [], sum(p["share"] for p in given_phases)
    for phase in given_phases:
        weights = phase["weights"]
        shares.append({name: phase["share"] / total * w / sum(weights.values()) for name, w in weights.items()})
    largest = min(3 * there[name] / sum(s[name] for s in shares) for name in "ab" if any(s[name] for s in shares))
    budget = data.draw(st.integers(1, max(1, int(largest * 0.99))))
    seed = data.draw(st.integers(0, 3))
    given_phases = [{**p, "name": f"p{n}", "share": p["share"] * 100 / total} for n, p in enumerate(given_phases)]
    if any(s["a"] * budget % 1 > 0.999 or s["b"] * budget % 1 > 0.999 for s in shares):
        return  # whole tokens, which fractions and doubles round in two ways
    stage = Schedule(by="g", phases=tuple(given_phases), tokens=budget, max_repeats=3, seed=seed)
    found = counts_of(stage, docs(groups, tokens), shards, batch=7)
    furthest, stretches = dict.fromkeys("ab", 0), []
    for phase, share in zip(given_phases, shares, strict=True):
        starts = furthest if phase["documents"] == "fresh" else dict.fromkeys("ab", 0)
        stretches.append({name: (starts[name], starts[name] + int(share[name] * budget)) for name in "ab"})
        furthest = {name: max(furthest[name], stretches[-1][name][1]) for name in "ab"}
    exact = [Fraction(repr(float(phase["share"]))) for phase in given_phases]
    budgets = [math.floor(share * budget / sum(exact)) for share in exact]
    assert [counts.tolist() for counts in found.values()] == drawn(groups, tokens, stretches, budgets, seed)


STABLE = {"name": "stable", "share": 0.8}
ANNEAL = {"name": "anneal", "share": 0.2, "weights": {"math": 0.5, "*": 0.5}}


def web_and_math(n=1000, math=100):
    return docs(["math"] * math + ["web"] * (n - math), [10] * n)


def test_phases_share_no_document_until_a_group_is_exhausted():
    table = web_and_math()
    found = counts_of(Schedule(by="g", phases=(STABLE, ANNEAL), tokens=5000), table, shards=3)
    assert found["stable"].sum() == 400 and found["anneal"].sum() == 100 and found["anneal"][:100].sum() == 50
    assert not (found["stable"] & found["anneal"]).any()
    found = counts_of(Schedule(by="g", phases=(STABLE, ANNEAL), tokens=10_000), table)
    both = found["stable"][:100] + found["anneal"][:100]
    assert both.sum() == 180 and both.min() == 1 and both.max() == 2
    assert not (found["stable"] & found["anneal"])[100:].any()


def test_repeated_documents_are_those_of_the_first_phase():
    table = web_and_math()
    found = counts_of(Schedule(by="g", phases=(STABLE, {**ANNEAL, "documents": "repeated"}), tokens=2500), table)
    assert (found["stable"][100:] >= found["anneal"][100:]).all()
    assert found["anneal"][:100].sum() == 25 and (found["anneal"][:100] >= found["stable"][:100]).all()
    third = {"name": "last", "share": 0.1}
    parts = ({**STABLE, "share": 0.7}, {**ANNEAL, "documents": "repeated"}, third)
    found = counts_of(Schedule(by="g", phases=parts, tokens=2500), table)
    assert not (found["last"] & (found["stable"] | found["anneal"])).any()


def test_one_phase_is_a_mixture():
    rng = np.random.default_rng(0)
    table = docs(rng.choice(["a", "b"], 200).tolist(), rng.integers(1, 99, 200))
    weights = {"a": 0.9, "b": 0.1}
    one = Schedule(by="g", phases=({"name": "all", "share": 1, "weights": weights},), tokens=9000)
    expected = run_over(Mixture(by="g", weights=weights, tokens=9000), table).rows["_copies"].to_pylist()
    assert counts_of(one, table)["all"].tolist() == expected


def test_orders_are_the_same_documents():
    found = counts_of(Schedule(by="g", phases=(STABLE, {**ANNEAL, "orders": 3}), tokens=5000), web_and_math())
    assert list(found) == ["stable", "anneal-1", "anneal-2", "anneal-3"]
    assert (found["anneal-1"] == found["anneal-2"]).all() and (found["anneal-1"] == found["anneal-3"]).all()
    assert found["anneal-1"].sum() == 100


def test_default_phases():
    found = counts_of(Schedule(by="g", upsample={"math": 9}, tokens=1000), web_and_math())
    assert list(found) == ["stable", "anneal"]
    assert found["stable"][:100].sum() in (8, 9) and found["stable"][100:].sum() in (76, 77)
    assert found["anneal"][:100].sum() in (7, 8)  # 9 x 10% against 90%


def test_upsampling_beside_weights():
    phases = ({"name": "all", "share": 1, "weights": {"math": 1, "web": 1}, "upsample": {"math": 3, "web": 1}},)
    found = counts_of(Schedule(by="g", phases=phases, tokens=1000), web_and_math())
    assert found["all"][:100].sum() == 75 and found["all"][100:].sum() == 25


def test_a_group_left_out():
    table = docs(["a"] * 50 + ["b"] * 50 + ["c"] * 100, [10] * 200)
    phases = (STABLE, {"name": "anneal", "share": 0.2, "weights": {"a": 0.5, "b": 0.3, "c": 0.2}})
    found = counts_of(Schedule(by="g", phases=phases, tokens=500, leave_out="b"), table)
    assert not any(n[50:100].any() for n in found.values())
    assert found["stable"][:50].sum() in (13, 14) and found["stable"][100:].sum() in (26, 27)
    assert found["anneal"][:50].sum() in (7, 8) and found["anneal"][100:].sum() in (2, 3)
    with pytest.raises(StageError, match="schedule: leave_out: there is no document with g = 'd'; known: a, b, c"):
        Schedule(by="g", phases=phases, leave_out="d")(table)
    alone = ({"name": "one", "share": 1, "weights": {"a": 1, "*": 0}},)
    with pytest.raises(StageError, match="schedule: phase 'one': no group is left with a share above 0"):
        Schedule(by="g", phases=alone, leave_out="a")(table)


def test_a_number_left_out_and_a_number_upsampled():
    table = docs([3] * 10 + [7] * 10, [10] * 20)
    found = counts_of(Schedule(by="g", upsample={3: 2}, leave_out=7, tokens=40), table)
    assert not any(n[10:].any() for n in found.values())


def test_reasons_and_values():
    table = docs(["a", "a", "b", "b", None, "c"], [10] * 6)
    phases = (
        {"name": "one", "share": 0.5, "weights": {"a": 1, "*": 0}},
        {"name": "two", "share": 0.5, "weights": {"b": 1, "*": 0}},
    )
    result = Schedule(by="g", phases=phases, tokens=20)(table)
    assert [list(row.values()) for row in result.kept["_groups"].to_pylist()] == [[1, 0], [0, 1]]
    assert result.kept.schema.field("_groups").type == pa.struct([("one", pa.uint16()), ("two", pa.uint16())])
    gone = [(row["id"], row["_reason"], row["_value"]) for row in result.dropped.to_pylist()]
    assert [g[1:] for g in gone[:2]] == [("schedule.not_sampled", 0.5)] * 2
    assert gone[2:] == [("4", "schedule.no_group", None), ("5", "schedule.not_sampled", 0.0)]


def test_too_many_repeats_over_all_phases():
    said = r"schedule: 20,000 tokens would .* 2 times: 'math' has 1,000 tokens and is wanted 3.6 times; .* `tokens: 11111`"
    with pytest.raises(StageError, match=said):
        Schedule(by="g", phases=(STABLE, ANNEAL), tokens=20_000, max_repeats=2)(web_and_math())
    found = counts_of(Schedule(by="g", phases=(STABLE, ANNEAL), max_repeats=1), web_and_math())
    both = found["stable"] + found["anneal"]
    assert both.max() == 1 and both.sum() == pytest.approx(555, abs=2)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"phases": ({"name": "a", "share": 0.5},)}, "the shares of the phases sum to 0.5; they have to sum to 1"),
        ({"phases": (STABLE, STABLE)}, "sum to 1.6|two phases are called 'stable'"),
        ({"phases": ({**STABLE, "name": "a-1"}, {**ANNEAL, "name": "a", "orders": 2})}, "two phases are called 'a-1'"),
        ({"phases": ({"name": "A b", "share": 1},)}, "phase 1 has the name 'A b'; give one of a-z"),
        ({"phases": ({"share": 1},)}, "phase 1 has the name None"),
        ({"phases": ({"name": "a", "share": 1, "shares": 2},)}, "phase 1 has no 'shares'; did you mean 'share'"),
        ({"phases": ({"name": "a", "share": "all"},)}, "phase 'a' has the share 'all'; give one above 0"),
        ({"phases": ({"name": "a", "share": 0},)}, "phase 'a' has the share 0"),
        ({"phases": ("a",)}, "phase 1 is 'a'; give a mapping"),
        ({"phases": ({"name": "a", "share": 1, "weights": {"x": -1}},)}, "phase 'a': the weight of 'x' is -1"),
        ({"phases": ({"name": "a", "share": 1, "upsample": 5},)}, "phase 'a': upsample is 5; give factors by group"),
        ({"phases": ({"name": "a", "share": 1, "upsample": {"x": -1}},)}, "phase 'a': upsample.x is -1"),
        ({"phases": ({"name": "a", "share": 1, "documents": "old"},)}, "documents is 'old'; it is 'fresh' or 'repeated'"),
        ({"phases": ({"name": "a", "share": 1, "orders": 0},)}, "phase 'a': orders is 0; give 1 to 100"),
        ({"phases": (STABLE, ANNEAL), "upsample": {"math": 2}}, "give `phases` or `upsample`, not both"),
        ({"phases": (STABLE, ANNEAL), "tokens": "many"}, "tokens is 'many'"),
        ({"phases": (STABLE, ANNEAL), "max_repeats": 101}, "max_repeats is 101"),
    ],
)
def test_wrong_parameters(wrong, said):
    with pytest.raises(RecipeError, match=f"^schedule: .*({said})"):
        Schedule(**wrong)


def test_what_is_wrong_once_documents_are_known(tmp_path):
    table = web_and_math(20, 10)
    with pytest.raises(RecipeError, match="schedule: give `phases`, or `upsample`"):
        Schedule(by="g")(table)
    with pytest.raises(RecipeError, match="schedule: phase 'a': weights is 'climb', and no stage before it has this id"):
        Schedule(by="g", phases=({"name": "a", "share": 1, "weights": "climb"},))(table)
    with pytest.raises(StageError, match="schedule: phase 'anneal': upsample: there is no document with g = 'maths'; did you"):
        Schedule(by="g", upsample={"maths": 2})(table)
    with pytest.raises(StageError, match="schedule: phase 'a': no weight for g = 'web'"):
        Schedule(by="g", phases=({"name": "a", "share": 1, "weights": {"math": 1}},))(table)


def test_a_file_of_a_search(tmp_path):
    path = str(tmp_path / "mixture.json")
    Found(weights={"math": 0.75, "web": 0.25}, by="g").save(path)
    stage = Schedule(phases=({**STABLE, "share": 80}, {**ANNEAL, "share": 20, "weights": path}), tokens=1000)
    assert stage.files() == (path,)
    result = stage(web_and_math())
    found = [row["anneal"] for row in result.kept["_groups"].to_pylist()]
    math = sum(n for n, g in zip(found, result.kept["g"].to_pylist(), strict=True) if g == "math")
    assert sum(found) == 20 and math == 15


def test_conformance_with_everything():
    table = docs(["a", "b", None] * 4, range(12))
    phases = (STABLE, {"name": "last", "share": 0.2, "weights": {"a": 3, "*": 1}, "orders": 2, "documents": "repeated"})
    stage = Schedule(by="g", phases=phases, tokens="0.04k", leave_out="b")
    for check in CHECKS:
        check(stage, table)


# --------------------------------------------------------------------------------------------- in a run

RECIPE = """\
name: phases
source: auto
stages:
  - schedule:
      by: g
      tokens: 40k
      phases:
        - {name: stable, share: 85}
        - {name: anneal, share: 15, weights: {0: 20.8, 1: 79.2, "*": 0}, orders: 2}
output: {validation: 0}
"""


def test_recipes():
    recipe = loads(RECIPE)
    stage = recipe.stages[0].stage
    assert loads(recipe.dump()).stages[0].stage == stage
    assert loads(RECIPE, overrides=["stages.schedule.tokens=1M", "stages.schedule.leave_out=2"]).stages[0].stage.leave_out == 2
    changed = loads(RECIPE, overrides=["stages.schedule.phases=[{name: one, share: 1}]"]).stages[0].stage
    assert changed.phases == ({"name": "one", "share": 1},)
    with pytest.raises(RecipeError, match="recipe:4: schedule: phase 'stable' has the share 'most'"):
        loads(RECIPE.replace("share: 85", "share: most"))


def test_a_run_writes_groups_and_says_what_they_are(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    table = pa.table({"id": [str(i) for i in range(900)], "text": [rng.bytes(n).hex() for n in rng.integers(20, 400, 900)]})
    table = table.append_column("g", pa.array(rng.choice(4, 900, p=[0.1, 0.2, 0.3, 0.4]), mask=rng.random(900) < 0.02))
    for i in range(3):
        pq.write_table(table.slice(300 * i, 300), tmp_path / "in" / f"{i}.parquet")
    loads(RECIPE).with_inputs([str(tmp_path / "in")]).run(tmp_path / "run", executor="inline")
    output = tmp_path / "run" / "output"
    tables = {
        name: pa.concat_tables(pq.read_table(p) for p in sorted((output / "data" / name).glob("*.parquet")))
        for name in ("stable", "anneal-1", "anneal-2")
    }
    one, two = (tables[f"anneal-{n}"]["id"].to_pylist() for n in (1, 2))
    assert sorted(one) == sorted(two) and one != two
    assert not set(one) & set(tables["stable"]["id"].to_pylist())
    said = json.loads((output / "schedule.json").read_bytes())
    assert said["tokens"] == 40_000 and [p["name"] for p in said["phases"]] == ["stable", "anneal"]
    for phase, files in (("stable", "stable"), ("anneal", "anneal-2")):
        entry = next(p for p in said["phases"] if p["name"] == phase)
        tokens, group = tables[files]["tokens"].to_numpy().astype(int), tables[files]["g"].to_numpy()
        assert entry["drawn"] == tokens.sum() == pytest.approx(entry["asked"], rel=0.01)
        for name, about in entry["groups"].items():
            assert about["drawn"] == tokens[group == int(name)].sum() == pytest.approx(about["asked"], abs=200)
            assert about["epochs"] == about["drawn"] / said["groups"][name]["tokens"]
    assert said["phases"][1]["groups"]["0"]["weight"] == pytest.approx(0.208)
    for name, about in said["groups"].items():
        assert about["drawn"] == sum(p["groups"][name]["drawn"] for p in said["phases"])
        assert about["used"] == pytest.approx(min(about["epochs"], 1))
