"""compact: neighbours joined up to a size, and no document changed."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError
from curate.stages.compact import Compact


@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 90_000_000)), max_size=40))
def test_compact_joins_neighbours_and_no_more_than_fit(sizes):
    groups = Compact().group(sizes)
    assert [shard for group in groups for shard in group] == list(range(len(sizes)))
    totals = [(sum(sizes[s][0] for s in g), sum(sizes[s][1] for s in g)) for g in groups]
    for group, (documents, text) in zip(groups, totals, strict=True):
        assert len(group) == 1 or (documents <= 50_000 and text <= 64e6)
    for (n, text), group in zip(totals, groups[1:], strict=False):  # greedy: the next shard would not have fitted
        assert n + sizes[group[0]][0] > 50_000 or text + sizes[group[0]][1] > 64e6


def test_compact_changes_no_document():
    docs = pa.table({"id": ["a", "b"], "text": ["x", None], "score": [1.5, None]})
    kept = Compact()(docs).kept
    assert kept.select(["id", "text", "score"]).equals(docs)


def test_compact_refuses_nonsense():
    with pytest.raises(RecipeError, match="positive"):
        Compact(documents=0)
