"""Reference documents out of files of every kind that a stage may name."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import reference
from curate.errors import RecipeError, SourceError
from curate.recipe import loads
from curate.stage import Task


def read(paths, columns=("text",), needed=1):
    task = Task(phase="t", rank=0)
    found = [row for batch in reference.batches(paths, columns, "it", task, needed) for row in batch.to_pylist()]
    return [tuple(row[c] for c in columns) for row in found], task.counters


def lines(path, rows, opened=open):
    with opened(path, "wt") as out:
        out.write("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def test_files_folders_globs_and_runs(tmp_path):
    rows = [{"text": "a", "n": 1}, {"text": "b", "n": None}]
    plain = lines(tmp_path / "a.jsonl", rows)
    packed = lines(tmp_path / "b.jsonl.gz", rows, gzip.open)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    for path in (plain, packed, str(tmp_path / "c.parquet")):
        assert read((path,), ("text", "n"))[0] == [("a", 1), ("b", None)]
        assert reference.files((path,), "it") == (path,)
    assert len(reference.files((str(tmp_path),), "it")) == 3
    assert reference.files((str(tmp_path / "*.jsonl*"), str(tmp_path / "c.parquet")), "it") == (
        plain, packed, str(tmp_path / "c.parquet"),
    )  # fmt: skip
    loads("name: x\nsource: auto\nstages: []\n").with_inputs([plain]).run(tmp_path / "run", executor="inline")
    assert [text for (text,) in read((str(tmp_path / "run"),))[0]] == ["a", "b"]
    assert all(path.endswith(".parquet") for path in reference.files((str(tmp_path / "run"),), "it"))
    (tmp_path / "t.txt").write_text("one document\nof two lines")
    assert read((str(tmp_path / "t.txt"),))[0] == [("one document\nof two lines",)]


def test_the_first_column_takes_the_place_of_the_text(tmp_path):
    rows = [{"question": "q", "text": "t", "answer": 5}]
    path = lines(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for given in (path, str(tmp_path / "a.parquet")):
        assert read((given,), ("question", "answer", "id"), 2)[0] == [("q", 5, None)]
    with pytest.raises(SourceError, match=r"it: .*a\.jsonl has no column 'answers'; did you mean 'answer'"):
        read((path,), ("question", "answers"), 2)


def test_what_cannot_be_read_is_counted(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"text": "a"}, "{broken", "[]", {"text": None}, {"text": 5}])
    found, counters = read((path,))
    assert found == [("a",)] and counters == {reference.UNREAD: 3}


def test_what_cannot_be_a_reference(tmp_path):
    with pytest.raises(RecipeError, match=r"it: input .*none does not exist"):
        reference.files((str(tmp_path / "none"),), "it")
    (tmp_path / "page.html").write_text("<p>x")
    with pytest.raises(RecipeError, match=r"page\.html is html; give texts as parquet, jsonl, hf or text files"):
        reference.files((str(tmp_path / "page.html"),), "it")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(RecipeError, match="the run has no output yet"):
        reference.files((str(tmp_path / "run"),), "it")
    with pytest.raises(RecipeError, match=r"https://a/b\.jsonl is remote: copy it here"):
        reference.files(("https://a/b.jsonl",), "it")
