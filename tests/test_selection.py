"""What stages that choose by a score share: cuts against sorting, windows, and targets."""

import gzip
import itertools
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.selection import (
    GAP,
    Selecting,
    answered,
    chosen_text,
    flat,
    hashes_of,
    numbers,
    shared_out,
    target_files,
    target_texts,
    window_hashes,
    window_texts,
)
from curate.stage import Task
from curate.testing import run_over


@dataclass(frozen=True, kw_only=True)
class Best(Selecting):
    """Chooses by columns that are there."""

    code: ClassVar[str] = "best"

    def score_columns(self):
        return ("window_scores",) if self.by == "window" else ("score",)

    def document_scores(self, batch):
        return numbers(batch["score"])

    def window_scores(self, batch):
        return flat(batch["window_scores"])


def amount(stage, total_tokens, units):
    """What the parameters say, in exact numbers."""
    if stage.keep is not None:
        return math.floor(Fraction(repr(stage.keep)) * units)
    if stage.tokens is not None:
        return stage.tokens
    return math.floor(total_tokens / Fraction(repr(stage.tau)))


def longest_run(order, weight, most):
    """The first of them that come to no more than `most`."""
    found, total = [], 0
    for unit in order:
        total += weight[unit]
        if total > most:
            break
        found.append(unit)
    return found


def oracle(stage, scores, tokens, hashes):
    """(units that stay, units that are candidates), by sorting all of them."""
    known = [u for u in scores if scores[u] is not None and not math.isnan(scores[u])]
    candidates = known
    if stage.tau is not None and stage.tokens is not None:
        most = math.floor(Fraction(repr(stage.tau)) * stage.tokens)
        candidates = longest_run(sorted(known, key=lambda u: hashes[u]), tokens, most)
    order = sorted(candidates, key=lambda u: (-scores[u], hashes[u]))
    weight = tokens if stage.keep is None else dict.fromkeys(order, 1)
    return set(longest_run(order, weight, amount(stage, sum(tokens[u] for u in candidates), len(candidates)))), set(candidates)


awkward = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 1.0, math.inf, -math.inf, math.nan]), st.floats(width=32))
amounts = st.one_of(
    st.fixed_dictionaries({"keep": st.sampled_from([0.001, 0.1, 0.3, 0.5, 1.0])}),
    st.fixed_dictionaries({"tau": st.sampled_from([1, 1.5, 4, 16.0])}),
    st.fixed_dictionaries({"tokens": st.integers(0, 120)}),
    st.fixed_dictionaries({"tokens": st.integers(0, 60), "tau": st.sampled_from([1, 2.5, 8])}),
)


@settings(max_examples=40)
@given(amounts, st.lists(st.tuples(awkward, st.integers(0, 9)), min_size=1, max_size=50), st.integers(1, 4), st.integers(0, 2))
def test_documents_are_chosen_as_by_sorting(given_amount, rows, shards, seed):
    stage = Best(seed=seed, **given_amount)
    scores, tokens = dict(enumerate(s for s, _ in rows)), dict(enumerate(t for _, t in rows))
    table = as_table(
        pa.table(
            {
                "text": ["x"] * len(rows),
                "score": pa.array(list(scores.values()), pa.float64()),
                "tokens": pa.array(list(tokens.values()), pa.uint32()),
            }
        )
    )
    hashes = hashes_of(table["id"].combine_chunks(), seed).tolist()
    stays, candidates = oracle(stage, scores, tokens, hashes)
    drops = {d["_row"]: d for d in run_over(stage, table, shards=shards, batch=7).drops.to_pylist()}
    assert set(scores) - set(drops) == stays
    for row, drop in drops.items():
        known = scores[row] is not None and not math.isnan(scores[row])
        why = "not_chosen" if row in candidates else "not_drawn" if known else "no_score"
        assert drop["_reason"] == f"best.{why}"
        assert drop["_value"] == (scores[row] if known else None)


@settings(max_examples=40)
@given(
    amounts,
    st.lists(
        st.tuples(st.lists(st.tuples(awkward, st.integers(1, 6)), max_size=6), st.integers(0, 40)), min_size=1, max_size=15
    ),
    st.integers(1, 3),
)
def test_windows_are_chosen_as_by_sorting(given_amount, rows, shards):
    stage = Best(by="window", **given_amount)
    letters = iter("abcdefghijklmnopqrstuvwxyzäöüéß漢字かなабв" * 40)
    pieces = [["".join(next(letters) for _ in range(n)) for _, n in windows] for windows, _ in rows]
    texts = ["".join(parts) for parts in pieces]
    ends = [np.cumsum([len(p.encode()) for p in parts]).tolist() for parts in pieces]
    table = as_table(
        pa.table(
            {
                "text": texts,
                "window_scores": pa.array([[s for s, _ in windows] or None for windows, _ in rows], pa.list_(pa.float32())),
                "window_ends": pa.array([e or None for e in ends], pa.list_(pa.uint32())),
                "tokens": pa.array([t for _, t in rows], pa.uint32()),
            }
        )
    )
    bounds = np.cumsum([0, *map(len, pieces)])
    flat_hashes = window_hashes(hashes_of(table["id"].combine_chunks(), stage.seed), bounds).tolist()
    scores, tokens, hashes = {}, {}, {}
    for i, (windows, count) in enumerate(rows):
        for k, (score, _) in enumerate(windows):
            before = ends[i][k - 1] if k else 0
            scores[i, k] = score
            tokens[i, k] = count * ends[i][k] // ends[i][-1] - count * before // ends[i][-1]
            hashes[i, k] = flat_hashes[bounds[i] + k]
        assert sum(tokens[i, k] for k in range(len(windows))) == (count if windows else 0)
    stays, candidates = oracle(stage, scores, tokens, hashes)
    outcome = run_over(stage, table, shards=shards, batch=4)
    drops = {d["_row"]: d for d in outcome.drops.to_pylist()}
    assert set(range(len(rows))) - set(drops) == {i for i, _ in stays}
    for i, parts in enumerate(pieces):
        mine = [k for k in range(len(parts)) if (i, k) in stays]
        if mine:
            expected = parts[mine[0]]
            for last, k in itertools.pairwise(mine):
                expected += parts[k] if k == last + 1 else GAP + parts[k]
            assert outcome.rows["text"][i].as_py() == expected
        else:
            known = [s for k, (s, _) in enumerate(rows[i][0]) if s is not None and not math.isnan(s)]
            drawn = any((i, k) in candidates for k in range(len(parts)))
            why = "no_score" if not known else "not_chosen" if drawn else "not_drawn"
            assert (drops[i]["_reason"], drops[i]["_value"]) == (f"best.{why}", max(known, default=None))


def test_a_budget_is_met_within_one_document():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 100, 3000)
    table = as_table(pa.table({"text": ["x"] * 3000, "score": rng.normal(size=3000), "tokens": pa.array(tokens, pa.uint32())}))
    for stage, most in ((Best(tokens=5000), 5000), (Best(tau=16), tokens.sum() // 16), (Best(tokens=5000, tau=4), 5000)):
        kept = stage(table).kept["tokens"].to_numpy().sum()
        assert most - 100 < kept <= most


def test_candidates_are_a_draw_of_their_size_and_the_best_of_them_stay():
    rng = np.random.default_rng(0)
    table = as_table(
        pa.table({"text": ["x"] * 4000, "score": rng.normal(size=4000), "tokens": pa.array([5] * 4000, pa.uint32())})
    )
    result = Best(tokens=500, tau=8)(table)
    why = dict(zip(*(c.to_pylist() for c in pc.value_counts(result.dropped["_reason"]).flatten()), strict=True))
    assert why == {"best.not_drawn": 3200, "best.not_chosen": 700} and len(result.kept) == 100
    drawn = result.dropped.filter(pc.equal(result.dropped["_reason"], "best.not_chosen"))
    assert pc.max(drawn["score"]).as_py() < pc.min(result.kept["score"]).as_py()
    assert abs(np.mean([*drawn["score"].to_pylist(), *result.kept["score"].to_pylist()])) < 0.1  # of any scores
    other = Best(tokens=500, tau=8, seed=1)(table).kept["id"].to_pylist()
    assert set(other) != set(result.kept["id"].to_pylist())


@pytest.mark.parametrize(
    "wrong",
    [
        {"tau": 0.5}, {"tau": math.inf}, {"tau": math.nan}, {"keep": 0}, {"keep": 1.1}, {"tokens": -1}, {"tau": 4, "keep": 0.1},
        {"tokens": 4, "keep": 0.1}, {"tau": 4, "by": "sentence"},
    ],
)  # fmt: skip
def test_wrong_amounts(wrong):
    with pytest.raises(RecipeError, match="best: "):
        Best(**wrong)


def test_an_amount_is_asked_for():
    with pytest.raises(RecipeError, match="best: give `tau`"):
        Best()(as_table(pa.table({"text": ["a"], "score": [1.0]})))


def test_windows_without_a_score_each():
    table = as_table(
        pa.table(
            {
                "text": ["ab"],
                "window_scores": pa.array([[1.0]], pa.list_(pa.float32())),
                "window_ends": pa.array([[1, 2]], pa.list_(pa.uint32())),
            }
        )
    )
    with pytest.raises(StageError, match="1 windows have a score, but window_ends has 2"):
        Best(by="window", tau=1)(table)


def test_a_pool_that_is_smaller_than_the_candidates_is_noted(tmp_path):
    from curate.recipe import loads

    pq.write_table(pa.table({"text": ["one two three", "four five six"], "score": [1.0, 2.0]}), tmp_path / "in.parquet")
    body = "name: x\nsource: auto\nstages:\n  - test_selection:Best: {tokens: %d, tau: 4}\n"
    for tokens, noted in ((5, True), (1, False)):
        recipe = loads(body % tokens).with_inputs([str(tmp_path / "in.parquet")])
        recipe.run(tmp_path / f"run{tokens}", executor="inline")
        assert ("all of it was compared" in (tmp_path / f"run{tokens}" / "summary.json").read_text()) == noted


# --------------------------------------------------------------------------------------------- windows


def test_parts_of_texts():
    text = pa.array(["zero", "äbcdé", None, "", "漢字"])
    bounds, ends = np.array([0, 1, 4, 4, 4, 5]), np.array([4, 3, 5, 7, 6])
    assert window_texts(text.slice(0, 5), bounds, ends).to_pylist() == ["zero", "äb", "cd", "é", "漢字"]
    chosen = np.array([True, True, False, True, False])
    assert chosen_text(text, ends, bounds, chosen).to_pylist() == ["zero", f"äb{GAP}é", None, "", "漢字"]
    assert shared_out(np.array([3, 10, 5, 7, 1]), bounds, ends).tolist() == [3, 4, 3, 3, 1]


# --------------------------------------------------------------------------------------------- targets

QUESTIONS = [
    ({"question": "Which?", "choices": ["a b", "c"], "answer": "c"}, "Which? c"),
    ({"question": "Which?", "choices": ["a b", "c"], "answer": "A"}, "Which? a b"),
    ({"question": "Which?\n", "choices": ["a", "b"], "answer": "b"}, "Which?\nb"),
    ({"question": "Which?", "choices": ["B", "A"], "answer": "A"}, "Which? A"),  # what is written out goes first
    ({"question": "Which?", "choices": ["a", "b"], "answer": "1"}, "Which? b"),
    ({"question": "Which?", "choices": ["a", "b"], "answer": "D"}, None),
    ({"question": "Which?", "choices": ["a", "b"], "answer": None}, None),
    ({"question": None, "choices": ["a", "b"], "answer": "a"}, None),
    ({"question": "How many?", "choices": None, "answer": "12 eggs"}, "How many? 12 eggs"),
    ({"question": "How many?", "choices": [], "answer": "12"}, "How many? 12"),
]


@pytest.mark.parametrize("row, text", QUESTIONS)
def test_questions_become_texts(row, text):
    assert answered(**row) == text


def test_answers_that_are_numbers_or_labels():
    assert answered("Q?", ["3", "1", "2"], 1) == "Q? 1"
    assert answered("Q?", ["3", "1", "0"], 0) == "Q? 3"
    assert answered("Q?", ["a", "b"], 1.0) == "Q? b"
    assert answered("Q?", ["a", "b"], -1) is None
    assert answered("Q?", ["no", "yes"], True) == "Q? yes"
    assert answered("Q?", None, False) == "Q? no"
    assert answered("Q?", {"text": ["x", "y"], "label": ["1", "2"]}, "2") == "Q? y"
    assert answered("Q?", {"text": ["x", "y"], "label": ["A", "B"]}, "B") == "Q? y"


def read(*paths, column="text"):
    task = Task(phase="t", rank=0)
    texts = [text for part in target_texts([str(p) for p in paths], "t", task, column) for text in part.to_pylist()]
    return texts, task.counters


def test_targets_of_every_kind(tmp_path):
    rows = [row for row, _ in QUESTIONS]
    expected = [text for _, text in QUESTIONS if text is not None]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found, counters = read(tmp_path / "q.jsonl")
    assert found == expected and sum(counters.values()) == 2  # a line without a question is none
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    assert read(tmp_path / "q.parquet")[0] == expected
    pq.write_table(pa.table({"text": ["one", None, "two"], "question": ["x", "y", "z"]}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", tmp_path / "q.parquet")[0] == ["one", "two", *expected]
    assert read(tmp_path / "t.parquet", column="question")[0] == ["x", "y", "z"]
    (tmp_path / "plain.txt").write_text("one\n\ntwo\n")
    assert "one" in "".join(read(tmp_path / "plain.txt")[0])


def test_targets_that_cannot_be_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "a"}\n')
    with pytest.raises(RecipeError, match=r"t: the target .*a\.jsonl has neither a column 'text' nor questions"):
        target_files([str(tmp_path / "a.jsonl")], "t")
    with pytest.raises(RecipeError, match=r"none\.jsonl does not exist"):
        target_files([str(tmp_path / "none.jsonl")], "t")


def test_questions_of_real_benchmarks(shared_data, tmp_path):
    """The texts that come with them are the question and its answer, put together by others."""
    for name in ("arc_easy", "piqa", "boolq", "openbook_qa"):
        path = shared_data / "benchmarks" / f"{name}.train.jsonl.gz"
        rows = list(map(json.loads, gzip.decompress(path.read_bytes()).splitlines()))
        bare = tmp_path / f"{name}.jsonl"
        bare.write_text("\n".join(json.dumps({k: row[k] for k in ("question", "choices", "answer")}) for row in rows))
        found, counters = read(bare)
        assert not counters and len(found) == len(rows)
        same = sum(" ".join(a.split()) == " ".join(row["text"].split()) for a, row in zip(found, rows, strict=True))
        assert same > 0.99 * len(rows)
