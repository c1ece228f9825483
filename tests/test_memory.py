"""A stage called in memory takes what people have their documents in, and gives the same answer for all of it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from curate import Result
from curate.errors import ColumnError
from curate.stages.exact_dedup import ExactDedup
from curate.stages.split import Split
from curate.stages.where import Where
from curate.stages.word_count import WordCount

TEXTS = ["one two", "One, two.", "three", ""]
IDS = ["a", "b", "c", "d"]


def forms() -> dict[str, Any]:
    columns = {"id": IDS, "text": TEXTS}
    table = pa.table(columns)
    return {
        "table": table,
        "batch": table.to_batches()[0],
        "chunks": pa.concat_tables([table.slice(0, 1), table.slice(1)]),
        "large strings": table.cast(pa.schema([("id", pa.large_string()), ("text", pa.large_string())])),
        "dictionary": table.set_column(0, "id", table["id"].dictionary_encode()),
        "polars": pl.DataFrame(columns),
        "pandas": pd.DataFrame(columns),
        "mapping": columns,
        "rows": [{"id": i, "text": t} for i, t in zip(IDS, TEXTS, strict=True)],
    }


@pytest.mark.parametrize("name", forms())
def test_every_form_of_documents(name: str) -> None:
    data = forms()[name]
    deduplicated = ExactDedup(by="normalised")(data)
    assert isinstance(deduplicated, Result)
    assert deduplicated.kept["id"].to_pylist() == ["a", "c", "d"]
    assert deduplicated.dropped.select(["id", "_reason", "_duplicate_of"]).to_pylist() == [
        {"id": "b", "_reason": "exact_dedup.duplicate", "_duplicate_of": "a"}
    ]
    counted = WordCount()(data)
    assert counted.kept["word_count"].to_pylist() == [2, 2, 1, 0]
    assert counted.to_polars()["text"].to_list() == counted.to_pandas()["text"].tolist() == TEXTS


def test_hugging_face_dataset() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"id": IDS, "text": TEXTS})
    assert WordCount()(data).kept["word_count"].to_pylist() == [2, 2, 1, 0]
    assert WordCount()(data.select([2, 0])).kept["word_count"].to_pylist() == [1, 2]


def test_strings_get_ids() -> None:
    result = ExactDedup()(["x", "y", "x"])
    assert result.kept["id"].to_pylist() == ["0", "1"]
    assert result.dropped["_duplicate_of"].to_pylist() == ["0"]
    assert repr(result) == "Result(kept=2, dropped=1 {exact_dedup.duplicate: 1})"


def test_stages_follow_each_other() -> None:
    counted = WordCount()(["a b c", "a"])
    long = Where(sql="word_count > 1")(counted.kept)
    assert long.kept["text"].to_pylist() == ["a b c"] and long.dropped["_reason"].to_pylist() == ["where.false"]
    pieces = Split(max_bytes=4)(long.kept)
    assert pieces.kept["id"].to_pylist() == ["0#split.0", "0#split.1"]


def test_no_documents() -> None:
    for data in ([], pa.table({"text": pa.array([], pa.string())})):
        assert WordCount()(data).kept.num_rows == 0
        assert ExactDedup()(data).kept.num_rows == 0


def test_what_is_no_documents() -> None:
    with pytest.raises(ColumnError, match="cannot read documents from a int"):
        WordCount()(7)
    with pytest.raises(ColumnError, match="reads the column 'text'"):
        WordCount()(pa.table({"body": ["x"]}))


def test_blast_radius_warns() -> None:
    table = pa.table({"text": ["same"] * 1100 + [str(i) for i in range(1100)], "corpus": ["bad"] * 1100 + ["good"] * 1100})
    with pytest.warns(UserWarning, match="drops 100% of corpus=bad, more than max_drop 50%"):
        ExactDedup()(table)
