"""substring_dedup against a naive reading of its docstring, over every cut of the corpus and every limit of memory."""

import functools
import json
import unicodedata

import corpus
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import lexicon, substrings, testing
from curate.errors import RecipeError
from curate.kernels import substrings as kernels
from curate.memory import as_table
from curate.stage import Task
from curate.stages.exact_dedup import ExactDedup
from curate.stages.substring_dedup import SubstringDedup
from curate.testing import hostile_texts, run_over


def unspaced(c):
    cp = ord(c)
    letters = (lexicon.CLUSTERS, lexicon.BURMESE, lexicon.TIBETAN)
    always = (lexicon.HAN, lexicon.HIRAGANA, lexicon.KATAKANA)
    if any(low <= cp <= high for spans in always for low, high in spans) or c in lexicon.KANA_MARKS or cp >= 0x33480:
        return True
    listed = any(low <= cp <= high for spans in letters for low, high in spans) or c in lexicon.FOLLOWING + lexicon.LEADING
    return listed and c.isalpha()


@functools.cache
def kind_of(c):
    if c.isspace():
        return "space"
    if unicodedata.category(c)[0] == "M" or unicodedata.category(c) == "Cf":
        return "attached"
    if unspaced(c):
        return "single"
    return "word" if c.isalnum() or c == "_" else "other"


def tokens_of(text):
    """(first character, end) of each token."""
    found, kind, run = [], "space", None
    for at, c in enumerate(text):
        now = kind_of(c)
        if now == "space":
            kind = now
        elif kind != "space" and (now == "attached" or (now == kind and (now == "word" or (now == "other" and c == run)))):
            found[-1][1] = at + 1
        else:
            found.append([at, at + 1])
            kind, run = ("other", None) if now == "attached" else (now, c)
    return [tuple(t) for t in found]


def words_of(text):
    return [text[a:b] for a, b in tokens_of(text)]


def repeated(stage, texts):
    """Which tokens of each text lie in a window that repeats."""
    n, places = stage.min_tokens, {}
    said = [words_of(text or "") for text in texts]
    for d, words in enumerate(said):
        for at in range(len(words) - n + 1):
            places.setdefault(tuple(words[at : at + n]), []).append((d, at))
    found = [[False] * len(words) for words in said]
    for standing in places.values():
        for d, at in standing[1:] if stage.keep == "first" else standing if len(standing) > 1 else ():
            found[d][at : at + n] = [True] * n
    return found


def cut(text, gone):
    """(text without the tokens that go, bytes in ranges)."""
    tokens, out, at, removed = tokens_of(text), "", 0, 0
    i = 0
    while i < len(tokens):
        if not gone[i]:
            i += 1
            continue
        low = i
        while i < len(tokens) and gone[i]:
            i += 1
        start, end = tokens[low][0], tokens[i - 1][1]
        removed += len(text[start:end].encode())
        left = text[tokens[low - 1][1] if low else 0 : start]
        right = text[end : tokens[i][0] if i < len(tokens) else len(text)]
        if low == 0 or i == len(tokens):
            space = left if i < len(tokens) else right if low else ""
        else:
            space = right if right.count("\n") > left.count("\n") else left or right
            ends = text[slice(*tokens[low - 1])], text[slice(*tokens[i])]
            if not space and len(words_of("".join(ends))) == 1:
                space = " "
        out += text[at : start - len(left)] + space
        at = end + len(right)
    return out + text[at:], removed


def expected(stage, texts):
    """(text, share, dropped) of every document."""
    found = []
    for text, gone in zip(texts, repeated(stage, texts), strict=True):
        new, removed = cut(text or "", gone)
        size = len((text or "").encode())
        share = np.float32(removed / max(size, 1))
        left = len(new.encode())
        dropped = removed > 0 and (left == 0 or left < stage.min_remaining)
        found.append((None if text is None else new, share, left if dropped else None))
    return found


def outcome(stage, texts, **how):
    done = run_over(stage, as_table(pa.table({"text": pa.array(texts, pa.string())})), **how)
    drops = dict(zip(done.drops["_row"].to_pylist(), done.drops["_value"].to_pylist(), strict=True))
    shares = done.rows["repeated_share"].to_pylist()
    kept = done.rows["text"].to_pylist() if stage.mode == "remove" else texts
    return [(text, np.float32(share), drops.get(i)) for i, (text, share) in enumerate(zip(kept, shares, strict=True))]


PIECES = (
    "a|b|a b|ab|=|==|.|-a| |  |\n|\n\n|字|文字|กา|ก็|é|e\u0301|\u0301|\u200d|👩\u200d👩|𝄞|\u3000|\U000e0100|\U00020000|x_1"
    "|\u0085|۱|a a a a a a|a b a b a b a b"
)
pieces = st.sampled_from(PIECES.split("|"))
texts = st.lists(st.one_of(st.none(), st.lists(pieces, max_size=30).map("".join)), min_size=1, max_size=8)
plain = st.lists(st.lists(st.sampled_from("abc"), max_size=40).map(" ".join), min_size=1, max_size=10)
stages = st.builds(
    SubstringDedup, min_tokens=st.integers(2, 6), keep=st.sampled_from(["first", "none"]), min_remaining=st.sampled_from([0, 5])
)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_tokens_of_any_text(text):
    _, begins, ends = kernels.tokens(np.frombuffer(text.encode(), np.uint8), kernels.kinds())
    assert [text.encode()[a:b].decode() for a, b in zip(begins, ends, strict=True)] == words_of(text)


@given(stages, st.one_of(texts, plain), st.integers(1, 4), st.sampled_from([1, 3, 1024]))
def test_it_is_what_the_docstring_says(stage, given_texts, shards, batch):
    assert outcome(stage, given_texts, shards=shards, batch=batch) == expected(stage, given_texts)


@given(stages, plain, st.integers(1, 4))
def test_the_limit_of_memory_changes_nothing(stage, given_texts, shards):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testing, "Task", functools.partial(Task, memory_limit=1))
        patch.setattr(substrings, "LEAST", 100)  # bytes: a table for three keys, a file for three records
        patch.setattr(substrings, "AT_ONCE", 3)
        patch.setattr(substrings, "SHARDS_PER_PARTITION", 1)
        patch.setattr(substrings, "SHARDS_PER_GROUP", 2)
        assert outcome(stage, given_texts, shards=shards, batch=2) == expected(stage, given_texts)


@given(stages, st.one_of(texts, plain))
def test_tokens_that_stay_are_the_same_tokens(stage, given_texts):
    for text, gone, (new, _, dropped) in zip(
        given_texts, repeated(stage, given_texts), outcome(stage, given_texts), strict=True
    ):
        if dropped is None and text is not None:
            assert words_of(new) == [word for word, goes in zip(words_of(text), gone, strict=True) if not goes]


@given(st.integers(7, 60), st.sampled_from(["first", "none"]), st.integers(0, 1000))
def test_long_windows(size, keep, seed):
    rng = np.random.default_rng(seed)
    source = [f"w{n}" for n in rng.integers(0, 400, 300)]

    def text():
        words = []
        for _ in range(rng.integers(1, 5)):
            start, length = rng.integers(0, 300), rng.integers(1, 2 * size)
            words += source[start : start + length] + [f"u{rng.integers(0, 4)}"] * int(rng.integers(0, 3))
        return " ".join(words)

    stage = SubstringDedup(min_tokens=size, keep=keep)
    given_texts = [text() for _ in range(12)]
    said = expected(stage, given_texts)
    assert outcome(stage, given_texts, shards=3, batch=5) == said


def test_texts_that_stages_have_fallen_over():
    stage = SubstringDedup(min_tokens=5)
    assert outcome(stage, hostile_texts(), shards=3, batch=7) == expected(stage, hostile_texts())


def test_a_label_leaves_the_text():
    given_texts = ["a b c d", "x a b c y", None, "", "a b c"]
    stage = SubstringDedup(min_tokens=3, mode="label")
    assert stage.writes().names == ["repeated_share"]
    shares = [share for _, share, _ in outcome(stage, given_texts)]
    assert shares == [np.float32(n) for n in (0, 5 / 9, 0, 0, 1)]
    assert stage(given_texts).dropped.num_rows == 0


@pytest.mark.parametrize(
    ("texts", "left"),
    [
        (["p a b c q", "x a b c y"], "x y"),  # one space of two stays
        (["p a b c q", "x\n\na b c y"], "x\n\ny"),  # the side with more line feeds
        (["p a b c q", "x a b c\n\ny"], "x\n\ny"),
        (["p a b c q", "x\n\na b c\n\ny"], "x\n\ny"),
        (["p a b c q", " a b c y "], " y "),  # the outer whitespace at the ends
        (["p a b c q", " y a b c\n"], " y\n"),
        (["p - b - q", "x- b -y"], "x y"),  # two words are not glued
        (["p 一 二 三 q", "x一二三四五"], "x四五"),  # scripts without spaces are
        (["p - b - q", "=- b -=="], "= =="),
        (["p a b c q", "(a b c)"], "()"),
    ],
)
def test_what_stays_between(texts, left):
    assert SubstringDedup(min_tokens=3)(texts).kept["text"].to_pylist()[1] == left


def test_what_is_emptied_or_too_short_drops():
    result = SubstringDedup(min_tokens=3, min_remaining=4)(["a b c", " a b c\n", "a b c d", "a b c dddd", "x"])
    assert result.kept["text"].to_pylist() == ["a b c", "dddd", "x"]
    assert result.dropped["_reason"].to_pylist() == ["substring_dedup.empty"] * 2
    assert result.dropped["_value"].to_pylist() == [0, 1]


def test_a_notice_in_every_document_is_compared_once():
    notice = " ".join(f"n{i}" for i in range(80))
    given_texts = [f"d{i} {notice} e{i}" for i in range(3000)]
    kept = SubstringDedup(min_tokens=50)(given_texts).kept["text"].to_pylist()
    assert kept == [given_texts[0], *(f"d{i} e{i}" for i in range(1, 3000))]


def test_notes_count_spans_and_bytes():
    task = Task(phase="x", rank=0)
    stage = SubstringDedup(min_tokens=3)
    batch = pa.RecordBatch.from_pydict({"_row": pa.array([4, 7], pa.uint32()), "text": ["a b c d", "é b c x y z"]})
    ranges = (np.array(column, np.int64) for column in ([4, 7, 7], [0, 0, 5], [3, 3, 6]))
    out = stage._process(task, *ranges, batch)
    assert out["text"].to_pylist() == ["d", "x y"]
    assert task.counters == {"repeated spans": 3, "bytes in repeated spans": 5 + 6 + 1}


@pytest.mark.parametrize(
    ("given_parameters", "says"),
    [
        ({"min_tokens": 1}, "min_tokens is 1"),
        ({"min_tokens": 20_000}, "min_tokens is 20000"),
        ({"keep": "last"}, "keep is 'last'"),
        ({"mode": "drop"}, "mode is 'drop'"),
        ({"min_remaining": -1}, "min_remaining is -1"),
    ],
)
def test_bad_parameters(given_parameters, says):
    with pytest.raises(RecipeError, match=f"substring_dedup: {says}"):
        SubstringDedup(**given_parameters)


def test_real_statutes_borrow_from_each_other(shared_data):
    table = pq.read_table(shared_data / "domains" / "domains.parquet", filters=[("domain", "=", "legal_en")], columns=["text"])
    given_texts = table["text"].to_pylist()[::5]
    stage = SubstringDedup(min_tokens=20)
    said = outcome(stage, given_texts, shards=4, batch=100)
    assert said == expected(stage, given_texts)
    assert sum(share > 0 for _, share, _ in said) > 10


def test_runs_are_the_same_with_any_workers_and_memory(tmp_path):
    corpus.mixed(tmp_path / "in", 450)
    body = "name: s\nsource: auto\nstages:\n  - exact_dedup\n  - substring_dedup: {min_tokens: 6}\noutput: {validation: 0}\n"
    recipe = corpus.recipe(tmp_path, body)
    digests = set()
    for workers, limit in ((0, "1GB"), (2, "1MB")):
        run = tmp_path / f"run-{workers}"
        done = corpus.curate("run", recipe, "-i", tmp_path / "in", "-o", run, "-w", workers, "--memory-limit", limit, check=0)
        assert "repeated spans" in done.stdout
        digests.add(json.loads((run / "output" / "manifest.json").read_text())["digest"])
    assert len(digests) == 1
    shards = sorted((run / "output" / "data").glob("*.parquet"))
    exported = pa.concat_tables(pq.read_table(path, columns=["id", "text"]) for path in shards).to_pylist()
    documents = pa.Table.from_pylist(corpus.rows(450), pa.schema([("id", pa.string()), ("text", pa.string())]))
    alone = SubstringDedup(min_tokens=6)(ExactDedup()(documents).kept).kept.select(["id", "text"]).to_pylist()
    assert sorted(exported, key=str) == sorted(alone, key=str)
