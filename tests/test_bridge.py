"""Our stages as steps of a datatrove pipeline."""

import json

import pytest
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from curate import as_step
from curate.errors import StageError
from curate.stages.exact_dedup import ExactDedup
from curate.stages.language import Language
from curate.stages.split import Split
from curate.stages.where import Where
from curate.stages.word_count import WordCount

ENGLISH = "The clocks were striking thirteen when he came home from work and found the door open. " * 3
GERMAN = "Die Uhren schlugen dreizehn, als er von der Arbeit nach Hause kam und die Tür offen fand. " * 3


def docs(*texts, **metadata):
    return [Document(text=t, id=str(i), metadata=dict(metadata)) for i, t in enumerate(texts)]


def test_a_stage_writes_metadata_and_drops():
    step = as_step(Language(keep=("en",)))
    out = list(step.run(docs(ENGLISH, GERMAN, "1", source="s")))
    assert [(d.id, d.metadata["language"], d.metadata["source"]) for d in out] == [("0", "en", "s")]
    stats = {k: v.total for k, v in step.stats.stats.items()}
    assert (stats["total"], stats["forwarded"], stats["dropped"]) == (3, 1, 2)
    assert stats["dropped_language.not_kept"] == 2


def test_columns_come_from_metadata():
    step = as_step(Where(sql="quality > 0.3 AND length(text) > 0"))
    given = [Document(text="a", id=str(i), metadata=m) for i, m in enumerate([{"quality": 0.5}, {"quality": 0.1}, {}])]
    assert [d.id for d in step.run(given)] == ["0"]


def test_documents_are_the_same_objects_in_the_same_order_over_batches(monkeypatch):
    monkeypatch.setattr("curate.bridge.BATCH", 3)
    given = docs(*(f"w {i}" for i in range(10)))
    out = list(as_step(WordCount()).run(iter(given)))
    assert all(a is b for a, b in zip(given, out, strict=True))
    assert {d.metadata["word_count"] for d in out} == {2}


def test_an_expand_stage_makes_documents():
    given = docs("one two", source="s")
    out = list(as_step(Split(max_bytes=4)).run(given))
    assert [(d.id, d.text, d.metadata) for d in out] == [
        ("0#split.0", "one", {"source": "s"}),
        ("0#split.1", "two", {"source": "s"}),
    ]
    assert out[0].metadata is not out[1].metadata


def test_a_stage_with_a_fit_is_refused():
    with pytest.raises(StageError, match="looks at the whole corpus"):
        as_step(ExactDedup())


def test_values_of_several_types_are_named():
    given = [Document(text="", id=str(i), metadata={"quality": v}) for i, v in enumerate([0.5, "good"])]
    with pytest.raises(StageError, match="'quality', whose values are of several types"):
        list(as_step(Where(sql="quality > 0.3")).run(given))


def test_within_a_real_pipeline(tmp_path):
    (tmp_path / "in").mkdir()
    for name, texts in {"a": [ENGLISH, GERMAN], "b": [GERMAN, "42", ENGLISH]}.items():
        lines = [json.dumps({"text": t, "id": f"{name}{i}"}) for i, t in enumerate(texts)]
        (tmp_path / "in" / f"{name}.jsonl").write_text("\n".join(lines))
    pipeline = [
        JsonlReader(str(tmp_path / "in")),
        as_step(Language(keep=("en",)), exclusion_writer=JsonlWriter(str(tmp_path / "out_of"), compression=None)),
        as_step(WordCount()),
        JsonlWriter(str(tmp_path / "out"), compression=None),
    ]
    LocalPipelineExecutor(pipeline, tasks=2, workers=1, logging_dir=str(tmp_path / "logs")).run()

    def read(folder):
        lines = [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
        return {d["id"]: d["metadata"] for d in lines}

    kept, dropped = read(tmp_path / "out"), read(tmp_path / "out_of")
    assert sorted(kept) == ["a0", "b2"] and sorted(dropped) == ["a1", "b0", "b1"]
    assert {m["word_count"] for m in kept.values()} == {len(ENGLISH.split())}
    assert {m["filter_reason"] for m in dropped.values()} == {"language.not_kept"}
