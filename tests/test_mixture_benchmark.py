"""What benchmarks/mixture.py makes of its runs: jobs and budgets, the stages of each method, tables and goals."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate.recipe import loads

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MINE = ("mixture", "_mixture_jobs", "_measure", "selection", "_selection_jobs", "_selection_fit")


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in MINE:
        sys.modules.pop(name, None)


def test_every_search_has_the_same_budget(modules):
    mixture = modules("mixture")
    plan = mixture.Plan()
    assert sum(plan.sizes()) + 1 == plan.runs == 35 and plan.sizes() == [19, 10, 5]  # one confirms what is found
    assert sum(mixture.Plan(runs=36).sizes()) == 35
    names, known = [job.name for job in mixture.jobs(plan)], set()
    assert len(names) == len(set(names)) == 1 + 2 * 7 * 3
    for job in mixture.jobs(plan):  # nothing is asked for before what it needs
        assert known.issuperset(job.after)
        known.add(job.name)
    assert "12 searches of 35 proxies of 100,000 tokens" in mixture.told_before(plan, 2)


def test_the_stages_of_every_method_can_be_planned(modules, tmp_path):
    mixture, jobs = modules("mixture"), modules("_mixture_jobs")
    plan = mixture.Plan(targets=("a",), models="ngram")
    (tmp_path / "corpus").mkdir()
    scores = {name: [0.5, 0.5] for name in jobs.QUALITY}
    pool = pa.table({"id": ["x", "y"], "text": ["one", "two"], "domain": ["a", "b"], **scores})
    pq.write_table(pool, tmp_path / "corpus" / "scored.parquet")
    pq.write_table(pool.select(["id", "text"]), tmp_path / "corpus" / "target-a.parquet")
    work = jobs.Work(plan, tmp_path, tmp_path)
    spent = {}
    for method in mixture.METHODS:
        source = {"parquet": {"paths": [str(tmp_path / "corpus" / "scored.parquet")]}}
        recipe = loads(yaml.safe_dump({"name": "x", "source": source, "stages": work._stages(2, method)}))
        assert recipe.plan()["recipe"] == "x"
        assert recipe.stages[-1].stage.tokens > plan.tokens and recipe.stages[-1].stage.seed == 2
        stage = recipe.stages[0].stage
        spent[method] = (sum(stage.sizes()) + stage.confirm, stage.tokens) if hasattr(stage, "sizes") else None
    assert {spent[method] for method in mixture.SEARCHES} == {(plan.runs, plan.proxy_tokens)}
    assert not any(spent[method] for method in mixture.PLAIN)


def test_the_table_and_the_goals_of_known_results(modules, capsys):
    mixture = modules("mixture")
    plan = mixture.Plan(seeds=(1, 2, 3), targets=("a", "b"))
    losses, found = {"uniform": 6.0, "natural": 6.2, "regmix": 5.1, "climb": 5.0}, {}
    for method, loss in losses.items():
        for seed in plan.seeds:
            each = {"a": loss + seed / 100, "b": loss - 1 + seed / 100}
            found[f"learn-{seed}-{method}"] = {"loss": each, "loss_per_byte": {t: v / 4 for t, v in each.items()}}
            search = {"proxies": 35, "proxy_tokens": 3_500_000, "weights": {"a": 0.5, "b": 0.2, "c": 0.3}, "spearman": 0.9}
            found[f"search-{seed}-{method}"] = {**search, "wall_s": 60.0, "most_repeats": 2}
    rows = mixture.show(plan, {"jobs": found})
    assert [row["method"] for row in rows] == ["uniform", "natural", "regmix", "climb"]
    assert rows[-1]["loss"]["mean"] == pytest.approx(4.52) and rows[-1]["targets"]["b"]["mean"] == pytest.approx(4.02)
    out = capsys.readouterr().out
    assert "4.520 [4.495, 4.545]" in out and "3,500,000" in out and "0.70" in out
    assert all(bar["met"] for bar in mixture.bars(rows)) and len(mixture.bars(rows)) == 5
    worse = [{**row, "loss": {**row["loss"], "mean": 5.2}} if row["method"] == "climb" else row for row in rows]
    assert [bar["met"] for bar in mixture.bars(worse)].count(False) == 1
