"""random: the size of what stays, and that it is a draw by id."""

import numpy as np
import pyarrow as pa
import pytest

from curate.errors import ColumnError, RecipeError
from curate.memory import as_table
from curate.stages.random import Random
from curate.testing import check_stage, run_over


def pool(n=2000):
    return as_table(pa.table({"text": [f"text {'x ' * (i % 50)}" for i in range(n)]}))


def kept(stage, table):
    return set(stage(table).kept["id"].to_pylist())


def test_how_much_stays():
    table = pool()
    tokens = table["tokens"].to_numpy()
    assert len(kept(Random(keep=0.25), table)) == 500
    for stage, most in ((Random(tau=8), tokens.sum() // 8), (Random(tokens=999), 999), (Random(tokens=999, tau=4), 999)):
        held = stage(table).kept["tokens"].to_numpy().sum()
        assert most - tokens.max() < held <= most


def test_it_is_a_draw_that_knows_neither_text_nor_place():
    table = pool()
    first = kept(Random(keep=0.5), table)
    assert kept(Random(keep=0.5), table.take(pa.array(range(2000)[::-1]))) == first
    other = kept(Random(keep=0.5, seed=1), table)
    assert 400 < len(first & other) < 600
    numbers = np.array(sorted(map(int, first)))
    assert abs(numbers.mean() - 1000) < 60 and abs((numbers % 50).mean() - 24.5) < 2


def test_a_smaller_budget_is_a_part_of_a_larger_one():
    table = pool()
    sizes = [kept(Random(tokens=tokens), table) for tokens in (500, 2000, 8000)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert kept(Random(tokens=2000, tau=4), table) == sizes[1]  # a draw out of a draw


def test_windows():
    n = 400
    table = as_table(pa.table({"text": ["abcdefgh"] * n, "window_ends": pa.array([[2, 4, 6, 8]] * n, pa.list_(pa.uint32()))}))
    outcome = run_over(Random(by="window", keep=0.5), table, shards=3)
    texts = [t for i, t in enumerate(outcome.rows["text"].to_pylist()) if i not in set(outcome.drops["_row"].to_pylist())]
    assert sum(len(t.replace("\n\n", "")) for t in texts) == 4 * n  # half of the windows
    assert len(outcome.drops) == pytest.approx(n / 16, abs=12)
    with pytest.raises(ColumnError, match="'pair_loss'"):
        Random(by="window", keep=0.5)(["a", "b"])


def test_it_has_to_be_told_how_much():
    with pytest.raises(RecipeError, match="random: give `tau`"):
        Random()(["a"])


@pytest.mark.parametrize("stage", [Random(tokens=100, tau=2), Random(keep=0.5, by="window")])
def test_conformance(stage):
    check_stage(stage)
