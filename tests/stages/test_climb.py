"""climb: its rounds on a corpus, what a predictor is needed for, and where there is nothing to search."""

import builtins
import importlib.util
import json

import pyarrow as pa
import pytest
from test_proxies import documents, wanted

from curate.errors import MissingExtra, StageError
from curate.memory import as_table
from curate.searching import _read_state
from curate.stage import Task
from curate.stages.climb import Climb
from curate.testing import _fit, _numbered, run_over

SEARCH = {
    "by": "kind",
    "models": "ngram",
    "target_tokens": 2000,
    "rounds": (8, 4),
    "predictor": "linear",
    "simulated": 500,
    "weak": "keep",
}
TABLE = documents({"sea": 30, "law": 40, "bio": 20})
TARGET = wanted({"sea": 0.7, "law": 0.3}, n=20)


def rates(stage, table=TABLE, **how):
    found = run_over(stage, table, **how).rows
    return dict(zip(table[stage.by].to_pylist(), found["sampling"].to_pylist(), strict=True))


def test_it_finds_the_groups_of_the_target():
    found = rates(Climb(**SEARCH, texts=TARGET, start="ngram"))
    assert found["sea"] > 1.3 and found["bio"] < 0.2


def test_the_sampling_of_a_corpus_is_one_on_average():
    table = documents({"sea": 30, "law": 40, "bio": 20})
    found = run_over(Climb(**SEARCH, texts=TARGET), table).rows["sampling"].to_pylist()
    tokens = table["tokens"].to_pylist()
    assert sum(f * t for f, t in zip(found, tokens, strict=True)) == pytest.approx(sum(tokens), rel=1e-5)


def test_documents_without_a_group_have_no_sampling(tmp_path):
    kinds = pa.array([None if i % 9 == 0 else kind for i, kind in enumerate(TABLE["kind"].to_pylist())])
    table = _numbered(TABLE.set_column(TABLE.schema.get_field_index("kind"), "kind", kinds))
    stage = Climb(**SEARCH, texts=TARGET)
    task = Task(phase="t", rank=0, folders=[(stage, "climb", tmp_path)], shards=["0.parquet"])
    _fit(stage, task, [table], 1024)
    (batch,) = table.to_batches()
    found = dict(zip(kinds.to_pylist(), stage.open(task)(batch)["sampling"].to_pylist(), strict=True))
    assert found.pop(None) is None
    assert set(found) == {"sea", "law", "bio"} and None not in found.values()
    assert task.counters["documents without a group, which are in no mixture"] == kinds.null_count


@pytest.mark.parametrize("kind", ["integer", "boolean", "dictionary"])
def test_groups_may_be_of_any_type_that_makes_some(kind):
    kinds = TABLE["kind"].to_pylist()
    made = {
        "integer": pa.array([{"sea": 10, "law": 9, "bio": 2}[k] for k in kinds], pa.int16()),
        "boolean": pa.array([k == "sea" for k in kinds]),
        "dictionary": pa.array(kinds).dictionary_encode(),
    }[kind]
    table = TABLE.set_column(TABLE.schema.get_field_index("kind"), "kind", made)
    found = rates(Climb(**SEARCH, texts=TARGET), table)
    assert max(found, key=found.get) == {"integer": 10, "boolean": True, "dictionary": "sea"}[kind]


def test_one_group_is_taken_as_it_is():
    table = TABLE.set_column(TABLE.schema.get_field_index("kind"), "kind", pa.array(["all"] * len(TABLE)))
    assert rates(Climb(**SEARCH, texts=TARGET), table) == {"all": 1.0}


def test_no_group_is_an_error():
    table = TABLE.set_column(TABLE.schema.get_field_index("kind"), "kind", pa.nulls(len(TABLE), pa.string()))
    with pytest.raises(StageError, match="climb: column 'kind' makes no groups"):
        rates(Climb(**SEARCH, texts=TARGET), table)


def test_questions_with_choices_are_judged_by_their_answers(tmp_path):
    sea, law = wanted({"sea": 1.0}, n=30), wanted({"law": 1.0}, n=30)
    questions = [{"question": a[:40], "choices": [a[40:], b[40:]], "answer": 0} for a, b in zip(sea, law, strict=True)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    search = Climb(**SEARCH, target={"sea": str(tmp_path / "q.jsonl")})
    assert rates(search)["sea"] > 1


def test_what_is_not_installed_is_named_before_anything_is_computed(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "lightgbm" else real(name, *rest))
    with pytest.raises(MissingExtra, match=r"stage 'climb' needs the package 'lightgbm': pip install '.*\[cluster\]'"):
        Climb(by="kind", texts=("x",), models="ngram").bound({})
    Climb(by="kind", texts=("x",), models="ngram", predictor="linear").bound({})


def test_names_of_groups_are_known_where_there_are_some(tmp_path):
    stage = Climb(by="kind", texts=("x",), models="ngram").bound({"kind": None, "kind_name": None})
    assert stage.names == "kind_name"
    names = pa.array([f"about {kind}" for kind in TABLE["kind"].to_pylist()])
    table = as_table(TABLE.append_column("kind_name", names))
    stage = Climb(**SEARCH, texts=TARGET, names="kind_name")
    task = Task(phase="t", rank=0, folders=[(stage, "climb", tmp_path)], shards=["0.parquet"])
    _fit(stage, task, [_numbered(table)], 1024)
    assert _read_state(task, stage)["names"] == {kind: f"about {kind}" for kind in ("bio", "law", "sea")}


def test_nothing_heavy_is_imported_to_plan(monkeypatch):
    real = builtins.__import__

    def watched(name, *rest):
        assert name.split(".")[0] not in ("torch", "lightgbm", "transformers"), name
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", watched)
    Climb(by="kind", texts=("x",)).bound({"kind": None})
