"""Searches for mixtures: on functions whose best mixture is known, on a corpus, and through a kill."""

import json
import math
import os
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from test_proxies import documents, wanted

from curate import proxies
from curate.errors import RecipeError, StageError
from curate.mixtures import Mixture, fit
from curate.recipe import loads
from curate.run import run
from curate.searching import rehearse
from curate.stages.climb import Climb
from curate.stages.regmix import Regmix

GROUPS = ("a", "b", "c", "d", "e", "f", "g", "h")
NATURAL = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
BEST = np.array([0.0, 0.3, 0.0, 0.0, 0.5, 0.2, 0.0, 0.0])
QUICK = {"by": "g", "texts": ("x",), "models": "ngram", "simulated": 4000, "metric": "loss"}
LINE = QUICK | {"predictor": "linear"}


def distance(weights):
    return 2 + float(((weights - BEST) ** 2).sum())


def noisy(scale=0.01, seed=0):
    rng = np.random.default_rng(seed)
    return lambda weights: distance(weights) + scale * rng.standard_normal()


def values(mixture, groups=GROUPS):
    return np.array([mixture.weights[group] for group in groups])


@pytest.fixture(scope="module")
def climbed():
    return rehearse(Climb(**QUICK, rounds=(20, 10)), GROUPS, NATURAL, noisy())


def test_climb_comes_near_the_best_mixture(climbed):
    runs = climbed.evidence["runs"]
    first = [distance(np.array(list(r["weights"].values()))) for r in runs if r["round"] == 1]
    last = [distance(np.array(list(r["weights"].values()))) for r in runs if r["round"] == 2]
    assert distance(values(climbed)) < min(first) + 0.01 < distance(NATURAL)
    assert np.mean(last) < np.mean(first) - 0.1
    assert abs(sum(climbed.weights.values()) - 1) < 1e-12


def test_every_proxy_is_evidence(climbed):
    runs = climbed.evidence["runs"]
    assert Counter(r["round"] for r in runs) == {1: 20, 2: 10}
    assert [r["origin"] for r in runs[:3]] == ["natural", "uniform", "random"]
    assert [(r["predicted"] is None) == (r["round"] == 1) for r in runs] == [True] * 30
    assert all(r["metric"] == pytest.approx(distance(np.array(list(r["weights"].values()))), abs=0.06) for r in runs)
    assert runs[0]["weights"] == climbed.natural == dict(zip(GROUPS, NATURAL.tolist(), strict=True))
    assert climbed.rank_correlation["runs"] == 30 and climbed.rank_correlation["low"] > 0
    assert climbed.uncertainty > 0 and climbed.measured["metric"] < 2.3
    assert climbed.metric["lower_is_better"] and climbed.metric["name"] == "loss"
    assert len({json.dumps(r["weights"]) for r in runs}) == 30


def test_the_same_seed_gives_the_same_search():
    search = Climb(**LINE, rounds=(8, 4), weak="keep")
    one, two = (rehearse(search, GROUPS, NATURAL, distance) for _ in range(2))
    assert one.to_json() == two.to_json()
    other = rehearse(Climb(**LINE, rounds=(8, 4), weak="keep", seed=1), GROUPS, NATURAL, distance)
    assert one.evidence["runs"][3] != other.evidence["runs"][3]


def test_a_start_is_searched_around():
    start = 0.8 * BEST + 0.2 * NATURAL
    search = Climb(**LINE, rounds=(16, 8), start="ngram", weak="keep")
    found = rehearse(search, GROUPS, NATURAL, noisy(), start)
    origins = Counter(r["origin"] for r in found.evidence["runs"] if r["round"] == 1)
    assert origins == {"natural": 1, "uniform": 1, "ngram": 1, "around": 4, "random": 9}
    assert list(found.evidence["start"].values()) == start.tolist()
    around = [np.array(list(r["weights"].values())) for r in found.evidence["runs"] if r["origin"] == "around"]
    assert all(np.abs(w - start).sum() < 0.7 for w in around)


def test_what_was_measured_counts_where_predictions_are_the_same():
    """Five proxies in a leaf, at the least: trees cannot tell the start from what is near it, and the proxies can."""
    search = Climb(**QUICK, rounds=(12, 6), start="ngram", weak="keep", average=16)
    found = rehearse(search, GROUPS, NATURAL, distance, BEST)
    best = min(found.evidence["runs"], key=lambda r: r["metric"])
    assert best["origin"] == "ngram" and values(found) == pytest.approx(BEST)
    assert found.measured["metric"] == best["metric"] <= found.evidence["best_predicted"]["measured"]
    alone = rehearse(replace(search, confirm=False), GROUPS, NATURAL, distance, BEST)
    assert alone.measured is None or alone.measured["metric"] >= best["metric"]


@pytest.mark.parametrize(
    "search", [Climb(**LINE, rounds=(30,), confirm=False), Regmix(**LINE, runs=30, average=32)], ids=["climb", "regmix"]
)
def test_nothing_that_was_measured_is_predicted_better(search):
    objective = noisy(0.1, 3)
    found = rehearse(search, GROUPS, NATURAL, objective)
    runs = found.evidence["runs"]
    features = np.array([list(r["weights"].values()) for r in runs])
    known = fit(features, np.array([r["metric"] for r in runs]), "linear")
    assert found.predicted <= known.predict(features).min() + 1e-9
    assert found.predicted == pytest.approx(known.predict(values(found)[None])[0])


def test_regmix_takes_the_mean_of_the_best():
    slopes = np.random.default_rng(1).random((2, 8))
    found = rehearse(Regmix(**LINE, runs=40), GROUPS, NATURAL, lambda w: dict(zip(("one", "two"), slopes @ w, strict=True)))
    share = values(found)
    assert slopes.sum(axis=0) @ share < 0.8 * slopes.sum(axis=0) @ NATURAL
    assert found.metric["targets"] == {"one": {}, "two": {}}
    for r in found.evidence["runs"]:
        assert r["metric"] == pytest.approx((r["measured"]["one"]["loss"] + r["measured"]["two"]["loss"]) / 2)


def test_where_more_is_better_more_is_found():
    search = Climb(**LINE | {"metric": "accuracy"}, rounds=(24, 8))
    found = rehearse(search, GROUPS, NATURAL, lambda w: float(w[4]))
    runs = found.evidence["runs"]
    assert found.weights["e"] >= max(r["weights"]["e"] for r in runs) and not found.metric["lower_is_better"]
    assert found.predicted > 0.4


def test_what_cannot_be_predicted_is_refused():
    rng = np.random.default_rng(0)
    search = Climb(**LINE, rounds=(16, 8))
    said = r"climb: .* rank correlation .* with 24 proxies.*more proxies or more `tokens` for each, or `weak: keep`"
    with pytest.raises(StageError, match=said):
        rehearse(search, GROUPS, NATURAL, lambda w: rng.standard_normal())
    kept = rehearse(Climb(**LINE, rounds=(16, 8), weak="keep"), GROUPS, NATURAL, lambda w: rng.random())
    assert kept.rank_correlation["low"] <= 0 and "a guess" in kept.warnings[0]


def test_a_metric_that_never_changes_is_refused():
    with pytest.raises(StageError, match=r"all 12 proxies have the same loss, 2\.5"):
        rehearse(Climb(**QUICK, rounds=(8, 4)), GROUPS, NATURAL, lambda w: 2.5)
    kept = rehearse(Climb(**QUICK, rounds=(8, 4), weak="keep"), GROUPS, NATURAL, lambda w: 2.5)
    assert values(kept).tolist() == NATURAL.tolist()


def test_weak_predictions_are_a_warning():
    found = rehearse(Climb(**LINE, rounds=(40,)), GROUPS, NATURAL, noisy(0.15, 2))
    assert found.rank_correlation["low"] > 0 and found.rank_correlation["spearman"] < 0.8
    assert "less than 0.8" in found.warnings[0]


def test_proxies_without_a_number_say_nothing():
    calls = iter(range(100))
    search = Climb(**LINE, rounds=(20, 6), weak="keep")
    found = rehearse(search, GROUPS, NATURAL, lambda w: math.nan if next(calls) % 5 == 2 else distance(w))
    assert found.rank_correlation["runs"] == 21 and np.isfinite(found.predicted)
    assert found.warnings[-1] == "5 of 26 proxies have a loss that is no number and say nothing"
    with pytest.raises(StageError, match="20 of 20 have a loss that is no number; lower `lr`"):
        rehearse(search, GROUPS, NATURAL, lambda w: math.inf)


def test_one_group_is_not_searched():
    found = rehearse(Climb(**QUICK, rounds=(8,)), ["only"], [1.0], lambda w: pytest.fail("a proxy was trained"))
    assert found.weights == {"only": 1.0} and "only one group" in found.warnings[0]


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"by": ""}, "by is ''"),
        ({"into": "g"}, "into is 'g'"),
        ({"metric": "f1"}, "metric is 'f1'"),
        ({"weak": "no"}, "weak is 'no'"),
        ({"models": "2m"}, "models is '2m'"),
        ({"predictor": "forest"}, "predictor is 'forest'"),
        ({"simulated": 0}, "simulated is 0"),
        ({"average": 4001}, "average is 4001; give 1 to 4,000"),
        ({"max_usage": 0.1}, "max_usage is 0.1"),
        ({"rounds": (3, 9)}, r"rounds is \[3, 9\].*at least 4"),
        ({"rounds": (9, 0)}, r"rounds is \[9, 0\]"),
        ({"rounds": (9_000, 9_000)}, "9000 . 9000 proxies are wanted"),
        ({"start": "em"}, "start is 'em'"),
    ],
)
def test_wrong_parameters_are_said(wrong, said):
    with pytest.raises(RecipeError, match=f"climb: {said}"):
        Climb(**{**QUICK, **wrong})


def test_a_target_is_asked_for_when_it_is_needed():
    search = Climb(by="g", models="ngram")
    with pytest.raises(RecipeError, match="climb: give `target`"):
        search.bound({})
    with pytest.raises(RecipeError, match="climb: metric is accuracy, but not all targets"):
        Climb(by="g", models="ngram", texts=("x",), metric="accuracy").bound({})


# --------------------------------------------------------------------------------------------- on a corpus

RECIPE = """\
name: s
source: auto
stages:
  - climb: {by: kind, texts: TEXTS, models: ngram, target_tokens: 2000, rounds: [10, 4], start: ngram, simulated: 500,
            predictor: linear, weak: keep}
output: {validation: 0, seed: 1}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    pq.write_table(documents({"sea": 40, "law": 60, "bio": 20}).select(["id", "text", "kind"]), folder / "in.parquet")
    return folder / "in.parquet"


def recipe(text=RECIPE):
    return loads(text.replace("TEXTS", json.dumps(wanted({"sea": 0.7, "law": 0.3}, n=20))))


@pytest.fixture(scope="module")
def searched(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("searched") / "run"
    run(recipe().with_inputs([str(corpus)]), out, executor="inline")
    return out


def test_a_run_leaves_the_mixture_in_its_output(searched):
    found = Mixture.load(searched / "output" / "mixture.json", "test")
    assert found.weights["bio"] < 0.05 and found.weights["sea"] > 0.4
    assert [r["origin"] for r in found.evidence["runs"]][:3] == ["natural", "uniform", "ngram"]
    assert found.evidence["proxy"]["models"] == "ngram" and found.evidence["proxy_tokens"] == 0
    listed = json.loads((searched / "output" / "manifest.json").read_text())
    assert "mixture.json" in json.dumps(listed)
    (state,) = searched.glob("**/state.parquet")
    assert json.loads(pq.read_table(state)["mixture"][0].as_py()) == found.to_json()


def test_each_document_is_told_how_often_it_is_wanted(searched):
    found = Mixture.load(searched / "output" / "mixture.json", "test")
    table = pl.read_parquet(searched / "output" / "data" / "*.parquet")
    tokens = table.group_by("kind").agg(pl.col("tokens").sum())
    natural = {kind: n / table["tokens"].sum() for kind, n in tokens.iter_rows()}
    for kind, rate in table.select("kind", "sampling").unique().iter_rows():
        assert found.natural[kind] == pytest.approx(natural[kind])
        assert rate == pytest.approx(found.weights[kind] / natural[kind], rel=1e-5, abs=1e-9)


def test_a_search_that_is_killed_repeats_no_proxy(corpus, searched, tmp_path):
    """Each proxy that is measured leaves a line; the process is killed at the fourth of the first round, and at the second of
    the second."""

    def child(kill_at):
        pid = os.fork()
        if pid == 0:
            try:
                real, done = proxies.measure_ngram, 0

                def counted(*given):
                    nonlocal done
                    done += 1
                    if done == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    found = real(*given)
                    with open(tmp_path / "log", "a") as log:
                        log.write(f"{np.round(given[1], 12).tolist()}\n")
                    return found

                proxies.measure_ngram = counted
                run(recipe().with_inputs([str(corpus)]), tmp_path / "run", executor="inline")
            finally:
                os._exit(1)
        return os.WTERMSIG(os.waitpid(pid, 0)[1])

    assert [child(4), child(9), child(0)] == [signal.SIGKILL, signal.SIGKILL, 0]
    lines = (tmp_path / "log").read_text().splitlines()
    found, whole = (Mixture.load(out / "output" / "mixture.json", "test") for out in (tmp_path / "run", searched))
    assert found == whole
    known = [f"{np.round(list(r['weights'].values()), 12).tolist()}" for r in found.evidence["runs"]]
    assert len(known) == 14 and lines[:14] == known
    assert len(lines) <= 15 and len(set(lines)) == len(lines)  # one more, of what was predicted best


@pytest.mark.slow
def test_workers_change_nothing(corpus, searched, tmp_path):
    run(recipe().with_inputs([str(corpus)]), tmp_path / "run", workers=2)
    mixtures = [(out / "output" / "mixture.json").read_bytes() for out in (tmp_path / "run", searched)]
    assert mixtures[0] == mixtures[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trained_proxies_are_known_to_an_edited_recipe(corpus, tmp_path, monkeypatch):
    """Another predictor and one round more: what was trained is there."""
    trained = []
    real = proxies.measure
    monkeypatch.setattr(proxies, "measure", lambda *given: trained.append(1) or real(*given))
    tiny = "models: 1m, tokens: 4096, window: 32, batch_tokens: 256, vocabulary: 400, device: cpu"
    first = RECIPE.replace("models: ngram", tiny).replace("[10, 4]", "[4]")
    run(recipe(first).with_inputs([str(corpus)]), tmp_path / "run", executor="inline")
    spent = len(trained)
    assert spent in (4, 5)
    found = Mixture.load(tmp_path / "run" / "output" / "mixture.json", "test")
    assert found.evidence["proxy_tokens"] == pytest.approx(spent * 4096, rel=0.05)
    run(recipe(first.replace("[4]", "[4, 2]")).with_inputs([str(corpus)]), tmp_path / "run", executor="inline")
    assert len(trained) - spent <= 3
    assert len(Mixture.load(tmp_path / "run" / "output" / "mixture.json", "test").evidence["runs"]) == 6


def test_a_refusal_is_overruled_without_new_proxies(corpus, tmp_path, monkeypatch):
    """`weak` decides nothing about what is found."""
    spent, real = [], proxies.measure_ngram
    body = RECIPE.replace("[10, 4]", "[4]").replace("weak: keep", "weak: stop")
    with pytest.raises(StageError, match="with 4 proxies"):
        run(recipe(body).with_inputs([str(corpus)]), tmp_path / "run", executor="inline")
    monkeypatch.setattr(proxies, "measure_ngram", lambda *given: spent.append(1) or real(*given))
    run(recipe(body.replace("stop", "keep")).with_inputs([str(corpus)]), tmp_path / "run", executor="inline")
    assert len(spent) <= 1  # the one that confirms
    assert "a guess" in Mixture.load(tmp_path / "run" / "output" / "mixture.json", "test").warnings[0]
