"""manual: weights by hand, and what they are worth beside natural and uniform proportions."""

import json

import pyarrow as pa
import pytest
from test_proxies import documents, wanted

from curate.errors import RecipeError, StageError
from curate.searching import _read_state
from curate.stage import Task
from curate.stages.manual import Manual
from curate.testing import _fit, _numbered, run_over

TABLE = documents({"sea": 30, "law": 40, "bio": 20})
TARGET = wanted({"sea": 0.7, "law": 0.3}, n=20)


def rates(stage, **how):
    found = run_over(stage, TABLE, **how).rows
    return dict(zip(TABLE["kind"].to_pylist(), found["sampling"].to_pylist(), strict=True))


def state(stage, folder):
    task = Task(phase="t", rank=0, folders=[(stage, "manual", folder)], shards=["0.parquet"])
    _fit(stage, task, [_numbered(TABLE)], 1024)
    return _read_state(task, stage)


def natural():
    tokens = {}
    for kind, n in zip(TABLE["kind"].to_pylist(), TABLE["tokens"].to_pylist(), strict=True):
        tokens[kind] = tokens.get(kind, 0) + n
    return {kind: n / sum(tokens.values()) for kind, n in tokens.items()}


@pytest.mark.parametrize("shards", [1, 3])
def test_weights_are_shares_of_tokens(shards):
    shares, found = natural(), rates(Manual(by="kind", weights={"sea": 3, "*": 1}), shards=shards)
    assert found["sea"] == pytest.approx(0.75 / shares["sea"])
    assert found["law"] == found["bio"] == pytest.approx(0.25 / (shares["law"] + shares["bio"]))


def test_weights_may_be_those_of_a_file(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"weights": {"sea": 1, "law": 0, "bio": 0}}))
    stage = Manual(by="kind", weights=str(tmp_path / "m.json"))
    assert rates(stage) == {"sea": pytest.approx(1 / natural()["sea"]), "law": 0, "bio": 0}
    assert stage.files() == (str(tmp_path / "m.json"),)


@pytest.mark.parametrize(
    "weights, said",
    [({"sea": 0.5, "see": 0.5}, "kind = 'see' has the share 0.5"), ({"sea": 1}, "no weight for kind = 'bio', 'law'")],
)
def test_weights_that_do_not_fit_are_said(weights, said):
    with pytest.raises(StageError, match=f"manual: {said}"):
        rates(Manual(by="kind", weights=weights))


def test_a_corpus_without_groups_is_said():
    table = TABLE.set_column(TABLE.schema.get_field_index("kind"), "kind", pa.nulls(len(TABLE), pa.string()))
    with pytest.raises(StageError, match="manual: no document has tokens and a value in the column 'kind'"):
        run_over(Manual(by="kind", weights={"*": 1}), table)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"weights": {}}, "groups and their shares"),
        ({"weights": {"a": -1}}, "weight of 'a' is -1"),
        ({"weights": ""}, "weights is empty"),
        ({"repeats": 0}, "repeats is 0"),
    ],
)
def test_wrong_parameters_are_said(wrong, said):
    with pytest.raises(RecipeError, match=f"manual: .*{said}"):
        Manual(**{"by": "kind", "weights": {"*": 1}, **wrong})


def test_with_a_target_it_is_compared(tmp_path):
    how = {"by": "kind", "texts": TARGET, "models": "ngram", "target_tokens": 2000}
    good = state(Manual(**how, weights={"sea": 0.7, "law": 0.3, "bio": 0}), tmp_path / "good")
    compared = good["evidence"]["comparison"]
    assert set(compared) == {"manual", "natural", "uniform"}
    assert compared["manual"]["mean"] < min(compared["natural"]["mean"], compared["uniform"]["mean"])
    assert good["measured"]["metric"] == compared["manual"]["mean"] and not good["warnings"]
    bad = state(Manual(**how, weights={"sea": 0, "law": 0, "bio": 1}), tmp_path / "bad")
    assert "the mixture by hand has the loss" in bad["warnings"][0] and "natural" in bad["warnings"][0]
    assert bad["weights"] == {"bio": 1.0, "law": 0.0, "sea": 0.0}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_repeats_show_how_far_measurements_differ(tmp_path):
    how = {"models": "1m", "tokens": 4096, "window": 32, "batch_tokens": 256, "vocabulary": 400, "device": "cpu"}
    stage = Manual(by="kind", texts=TARGET, weights={"sea": 0.7, "law": 0.3, "bio": 0}, repeats=2, target_tokens=1000, **how)
    found = state(stage, tmp_path)
    assert [(of["runs"], of["spread"] > 0) for of in found["evidence"]["comparison"].values()] == [(2, True)] * 3
    assert len({run["seed"] for run in found["evidence"]["runs"]}) == 2
