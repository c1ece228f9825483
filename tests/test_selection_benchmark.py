"""What benchmarks/selection.py makes of its runs: multipliers, intervals, the corpus, and that a broken run goes on."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield lambda name: importlib.import_module(name)
    for name in [n for n in sys.modules if n.startswith("_selection") or n in ("selection", "_measure")]:
        sys.modules.pop(name)


@pytest.fixture
def fit(modules):
    return modules("_selection_fit")


def test_a_loss_between_two_points_is_read_on_a_logarithmic_scale(fit):
    curve = {100: 5.0, 200: 4.0, 400: 3.0}
    assert fit.reached(curve, 4.5).tokens == pytest.approx(100 * math.sqrt(2))
    assert fit.reached(curve, 4.0) == fit.Reached(200.0)
    assert fit.reached(curve, 3.25).tokens == pytest.approx(200 * 2**0.75)


def test_nothing_is_extrapolated(fit):
    curve = {100: 5.0, 200: 4.0}
    assert fit.reached(curve, 3.9) == fit.Reached(200.0, ">")
    assert fit.reached(curve, 5.1) == fit.Reached(100.0, "<")
    assert fit.reached(curve, 5.0) == fit.Reached(100.0)


def test_a_bump_counts_as_the_lowest_point_before_it(fit):
    assert fit.reached({100: 5.0, 200: 4.0, 400: 4.5, 800: 3.0}, 4.0) == fit.Reached(200.0)
    assert fit.reached({100: 5.0, 200: 4.0, 400: 4.5, 800: 3.0}, 3.5).tokens == pytest.approx(400 * math.sqrt(2))


@given(st.floats(0.1, 0.6), st.floats(2, 9), st.floats(1.01, 7.9))
def test_the_multiplier_of_a_power_law(exponent, scale, times):
    sys.path.insert(0, str(BENCHMARKS))
    import _selection_fit as fit

    sys.path.pop(0)

    def loss(tokens: float) -> float:
        return scale * tokens**-exponent

    curve = {int(1000 * 2 ** (k / 16)): loss(int(1000 * 2 ** (k / 16))) for k in range(49)}
    found = fit.multiplier(dict.fromkeys((1, 2, 3), curve), {s: loss(1000 * times) for s in (1, 2, 3)}, 1000)
    assert found.mean == pytest.approx(times, rel=2e-3)
    assert found.low == pytest.approx(found.high) and found.side == "" and found.n == 3


def test_seeds_beyond_their_curve_bound_the_mean(fit):
    curves = {1: {100: 5.0, 200: 4.0}, 2: {100: 5.0, 200: 4.0}}
    above = fit.multiplier(curves, {1: 3.0, 2: 4.0}, 100)
    assert (above.mean, above.side) == (pytest.approx(2.0), ">")
    assert above.show(1).startswith(">2.0 [2.0, ?]")
    assert fit.multiplier(curves, {1: 6.0, 2: 4.0}, 100).side == "<"
    assert fit.multiplier(curves, {1: 6.0, 2: 3.0}, 100).show(1) == "?1.4 [?, ?]"


def test_intervals_are_those_of_student(fit):
    found = fit.estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == (2.0, pytest.approx(2 - 2.4841377), pytest.approx(2 + 2.4841377))
    assert fit.estimate([1.5]).show(2) == "1.50"


# --------------------------------------------------------------------------------------------- the corpus


def words(rng: np.random.Generator, n: int, names: str) -> str:
    return " ".join(f"{names}{i}" for i in rng.integers(0, 400, n)) + "."


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two domains of 60 documents, in which some documents of `a` come twice, once with another name."""
    rng = np.random.default_rng(0)
    rows = [{"id": f"{d}{i}", "text": words(rng, 60 + 600 * (i % 9 == 0), d), "domain": d} for d in "ab" for i in range(60)]
    rows += [{**row, "id": f"again-{row['id']}"} for row in rows[:30]]
    (tmp_path / "data" / "domains").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "domains" / "domains.parquet")
    return tmp_path / "data"


def test_nothing_that_judges_is_anywhere_else(modules, data, tmp_path):
    about = modules("_selection_data").prepare(data, tmp_path / "corpus", ["a"], 1 << 20, 1 << 20)
    pool, target, test = (pq.read_table(tmp_path / "corpus" / f"{n}.parquet") for n in ("pool", "target-a", "test-a"))
    texts = [set(t["text"].to_pylist()) for t in (pool, target, test)]
    assert all(texts) and about["removed_as_near"] > 0
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    assert set(pool["domain"].to_pylist()) == {"a", "b"}
    assert about["domains"]["b"]["pieces"] == sum(d == "b" for d in pool["domain"].to_pylist())
    assert modules("_selection_data").prepare(data, tmp_path / "corpus", ["a"], 1 << 20, 1 << 20) == about


def test_what_judges_is_bounded(modules, data, tmp_path):
    about = modules("_selection_data").prepare(data, tmp_path / "corpus", ["a"], 2000, 3000)
    assert 0 < about["target/a"]["bytes"] <= 2000 and 0 < about["test/a"]["bytes"] <= 3000


@given(st.text(alphabet="ab .\n", max_size=6000))
def test_pieces_are_the_text(text):
    sys.path.insert(0, str(BENCHMARKS))
    from _selection_data import PIECE, pieces

    sys.path.pop(0)
    found = list(pieces(text))
    assert all(len(p) <= PIECE for p in found) and text.startswith("".join(found)) and not text[len("".join(found)) :].strip()


# --------------------------------------------------------------------------------------------- jobs


def test_a_broken_run_goes_on_with_what_is_missing(modules, tmp_path, monkeypatch):
    selection = modules("selection")
    plan = selection.Plan(seeds=(1, 2), taus=(4,), methods=("dsir", "color-1m"), targets=("x",))
    names = [job.name for job in selection.jobs(plan)]
    assert len(names) == len(set(names))
    known = set()
    for job in selection.jobs(plan):  # nothing is asked for before what it needs
        assert known.issuperset(job.after)
        known.add(job.name)
    assert "select-1-x-color-1m" in names and "prior-2" in names and "random-1-8" in names
    (tmp_path / "jobs").mkdir()
    for name in names[:-1]:
        (tmp_path / "jobs" / f"{name}.json").write_text("{}")
    done = []

    class Inline:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, _do, _plan, _data, _out, job):
            future = selection.Future()
            done.append(job.name)
            future.set_result((job, {"wall_s": 1.0, "loss": {"x": 3.0}}))
            return future

    monkeypatch.setattr(selection, "ProcessPoolExecutor", Inline)
    selection.work(plan, tmp_path, tmp_path, 2)
    assert done == names[-1:]
    assert json.loads((tmp_path / "jobs" / f"{names[-1]}.json").read_text())["loss"] == {"x": 3.0}


def test_the_tables_of_known_results(modules, capsys):
    selection = modules("selection")
    plan = selection.Plan(seeds=(1, 2), taus=(16,), methods=("dsir", "color-ngram"), targets=("x",), tokens=1000)
    jobs = {f"random-{s}-{t:g}": {"loss": {"x": 5 - math.log2(t) / 2 + s / 100}} for s in plan.seeds for t in plan.curve}
    for method, loss in (("dsir", 4.5), ("color-ngram", 3.9)):
        for s in plan.seeds:
            jobs[f"select-{s}-x-{method}"] = {"auc": 0.9, "tau": {"16": {"share": 0.5}}}
            jobs[f"learn-{s}-x-{method}-16"] = {"loss": {"x": loss + s / 100}}
    rows = selection.show(plan, {"jobs": jobs})
    assert [round(row["multiplier"]["mean"], 2) for row in rows] == [2.0, round(2 ** (2 * 1.1), 2)]
    assert "4.59 [4.59, 4.59]" in capsys.readouterr().out
    found = {bar["bar"].split(": ")[1].split(",")[0]: bar["met"] for bar in selection.bars(rows)}
    assert found == {"4 times the tokens of random": True, "loss above DSIR's": True}
