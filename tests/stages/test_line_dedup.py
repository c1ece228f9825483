"""line_dedup against dictionaries, its kernels against Python, and what it leaves of a text."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpus import curate, recipe, write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from repeated import cuts, fold, judged, repeated, run, texts, worth

from curate.errors import RecipeError
from curate.kernels.lines import folding, order, unit_keys
from curate.kernels.words import offsets_and_bytes
from curate.stage import Task
from curate.stages.line_dedup import LineDedup
from curate.testing import hostile_texts

ignored = st.sets(st.sampled_from(["case", "digits", "punctuation"])).map(lambda s: tuple(sorted(s)))


@given(
    st.lists(texts, max_size=14),
    st.sampled_from([None, 2, 3, 5]),
    st.sampled_from([None, 0.1, 0.3, 0.75]),
    st.integers(2, 6),
    st.sampled_from(["none", "first"]),
    ignored,
    st.sampled_from([1, 4, 9]),
    cuts,
)
def test_against_a_dictionary(documents, least, share, min_scope, keep, ignore, min_chars, cut):
    if least is None and share is None:
        least = 2
    needed = least or len(documents) + 1
    if share and len(documents) >= min_scope:
        needed = min(
            needed, max(2, next(n for n in range(len(documents) + 1) if n > round(share * 100) * len(documents) / 100))
        )
    gone = repeated(documents, [0] * len(documents), ignore, min_chars, {0: needed}, keep == "first")
    stage = LineDedup(min_documents=least, max_share=share, min_scope=min_scope, keep=keep, ignore=ignore, min_chars=min_chars)
    assert run(stage, documents, **cut) == judged(documents, gone)


HOSTS = {
    "a": ["https://a.test/1", "http://A.test:8080/2?x", "https://www.a.test", "//user@a.test./3"],
    "b": ["https://b.test/1", "https://www.b.test/", "b.test"],
    "c": ["http://xn--bcher-kva.test/x", "https://bücher.test/y", "https://B%c3%bccher.test"],
    "::1": ["http://[::1]/"],
    None: [None, "", "http://localhost/", "urn:isbn:3", "file:///x.y"],
}
URLS = [(host, url) for host, urls in HOSTS.items() for url in urls]


@given(
    st.lists(st.tuples(texts, st.sampled_from(URLS)), max_size=20),
    st.sampled_from([None, 2, 4]),
    st.sampled_from([0.2, 0.5]),
    st.integers(2, 6),
    st.sampled_from(["none", "first"]),
    cuts,
)
def test_by_host_against_a_dictionary(documents, least, share, min_scope, keep, cut):
    hosts, urls = [h for _, (h, _) in documents], [u for _, (_, u) in documents]
    documents = [d for d, _ in documents]
    needed = {}
    for host in set(hosts):
        size = hosts.count(host)
        by_share = int(share * 10) * size // 10 + 1 if size >= min_scope else 99
        needed[host] = min(least or 99, max(2, by_share))
    gone = repeated(documents, hosts, ("case",), 2, needed, keep == "first")
    stage = LineDedup(scope="host", min_documents=least, max_share=share, min_scope=min_scope, keep=keep)
    assert run(stage, documents, urls, **cut) == judged(documents, gone)


def keys(lines, **options):
    given = {"case": True, "digits": False, "punctuation": False, "blocks": False, "least": 0, **options}
    offsets, data = offsets_and_bytes(pa.array(lines, pa.string()))
    ones = np.ones(len(lines), np.uint64)
    return unit_keys(offsets, data, ones, ones.astype(bool), folding(**given), False)


any_line = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\n"), st.sampled_from("aAéÉ 1٣².,!\u3000\x85İıſßΣς")
    ),
    max_size=12,
)


@given(st.lists(any_line, min_size=1, max_size=12), ignored)
def test_two_lines_have_one_key_if_they_fold_to_the_same(lines, ignore):
    variants = [v for line in lines for v in (line, f" {line}\t", line.upper(), line.replace(" ", "  "))]
    variants = [v for v in variants if v.strip()]
    found, which, _ = keys(variants, **{word: word in ignore for word in ("case", "digits", "punctuation")})
    assert which.tolist() == list(range(len(variants)))
    folded = [fold(v, ignore) for v in variants]
    assert len(set(zip(folded, found.tolist(), strict=True))) == len(set(folded)) == len(set(found.tolist()))


@given(any_line, st.integers(1, 6))
def test_lines_with_few_letters_have_no_key(line, least):
    assert len(keys([line], least=least)[0]) == (worth(line) >= least)


def test_every_character_folds_as_python_has_it():
    characters = [chr(c) for c in range(1, 0x20000) if not 0xD800 <= c < 0xE000 and c != 10]
    lines = [f"q{c}q" for c in characters]
    for ignore in ("case",), ("case", "digits", "punctuation"):
        found, _, _ = keys(lines, **{word: word in ignore for word in ("case", "digits", "punctuation")})
        folded = [fold(line, ignore) for line in lines]
        assert len(set(zip(folded, found.tolist(), strict=True))) == len(set(folded)) == len(set(found.tolist()))
    _, which, _ = keys([f"{c}+" for c in characters], least=1)
    assert which.tolist() == [i for i, c in enumerate(characters) if worth(c)]


def test_keys_of_hostile_texts_are_those_of_their_lines():
    hostile = [t or "" for t in hostile_texts()]
    found, which, number = keys(hostile)
    lines = [(i, line) for i, text in enumerate(hostile) for line in text.split("\n") if line.strip()]
    assert which.tolist() == [i for i, _ in lines]
    alone, _, _ = keys([line for _, line in lines])
    assert found.tolist() == alone.tolist()
    prose = next(i for i, text in enumerate(hostile) if text.count("\n\n") == 11)
    assert number[which == prose].tolist() == list(range(12))


@given(st.integers(0, 1 << 63), st.integers(1, 1 << 63), st.lists(st.integers(0, 1 << 63), max_size=200), st.integers(0, 100))
def test_the_order_of_keys(low, span, keys, copies):
    values = np.array([low + k % span for k in keys] + [low] * copies, np.uint64)
    assert order(values, low, low + span).tolist() == np.argsort(values, kind="stable").tolist()


def test_the_order_of_many_keys():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << 64, 50_000, np.uint64)
    values[rng.integers(0, 50_000, 20_000)] = values[:3].repeat(20_000)[:20_000]
    assert order(values, 0, (1 << 64) - 1).tolist() == np.argsort(values, kind="stable").tolist()


def test_blank_lines_do_not_pile_up():
    menu = [f"Menu\n\nStory {n} begins.\n\n\nMenu\n\nIt ends.\n\nMenu\n" for n in range(2)]
    left = LineDedup(min_documents=2, keep="none", min_chars=4, ignore=())(menu).kept["text"].to_pylist()
    assert left == ["Story 0 begins.", "Story 1 begins."]  # "It ends." repeats as well
    assert LineDedup(min_documents=3)([*menu, "Menu"]).kept["text"].to_pylist() == [
        f"Story {n} begins.\n\n\nIt ends." for n in range(2)
    ]


def test_what_is_not_touched():
    given = ["Menu\n\n\n\n", None, "", "\n \n", "}\n---", "}\n---", "Menu twice\r\n\r\n", "Menu\nmenu"]
    batch = pa.RecordBatch.from_pydict({"text": pa.array(given)})
    result = LineDedup(min_documents=3)(batch)
    assert result.kept["text"].to_pylist() == given
    assert set(result.kept["line_dedup_removed"].to_pylist()) == {0}
    both = LineDedup(min_documents=2)(batch)
    assert both.kept["text"].to_pylist() == given[1:7]
    assert both.dropped["_reason"].to_pylist() == ["line_dedup.empty"] * 2
    assert both.dropped["_value"].to_pylist() == [1, 2]
    assert both.dropped["line_dedup_removed_bytes"].to_pylist() == [8, 9]


def test_bytes_are_not_copied_where_nothing_goes(tmp_path):

    batch = pa.RecordBatch.from_pydict(
        {"_row": pa.array([0, 1], pa.uint32()), "text": ["One line.", "Another one.\nOne line."]}
    )
    stage = LineDedup(min_documents=2)
    task = Task(phase="", rank=0, shard=0, folders=[(stage, "s", Path(tmp_path))], shards=["0.parquet"])
    for step in stage.steps(1, 2):
        step.fn(task, iter([batch])) if step.reads is not None else step.fn(task)
    function = stage.open(task)
    out = function(batch.slice(1))
    assert out["text"].to_pylist() == ["Another one."]
    assert task.counters["lines taken out"] == 1 and task.counters["bytes taken out"] == len("\nOne line.")
    alone = pa.RecordBatch.from_pydict({"_row": pa.array([0], pa.uint32()), "text": ["Nothing that repeats."]})
    assert function(alone)["text"].buffers()[2].address == alone["text"].buffers()[2].address


def test_the_same_documents_whatever_the_workers_and_the_memory(tmp_path):
    documents = [
        {"id": str(i), "text": f"Menu of the site\n\nStory {i} of {i % 7} things.\n\nPart {i % 40}\nAll rights reserved"}
        for i in range(900)
    ]
    for k in range(3):
        write_jsonl(tmp_path / "in" / f"{k}.jsonl", documents[300 * k : 300 * (k + 1)])
    body = "name: lines\nsource: auto\nstages:\n  - line_dedup: {min_documents: 20, max_share: 0.02, keep: first}\n"
    digests = []
    for name, more in (("a", ["-w", "0"]), ("b", ["-w", "2", "--memory-limit", "1MB"])):
        given = [recipe(tmp_path, body), "-i", tmp_path / "in", "-o", tmp_path / name]
        said = curate("run", *given, *more, check=0).stdout
        assert "lines taken out" in said and "bytes taken out" in said
        digests.append(json.loads((tmp_path / name / "output" / "manifest.json").read_text())["digest"])
    assert digests[0] == digests[1]


def test_real_texts(shared_data):
    import pyarrow.parquet as pq

    documents = pq.read_table(shared_data / "quality" / "quality.parquet", columns=["text"])["text"].to_pylist()[1500:2700]
    gone = repeated(documents, [0] * len(documents), ("case",), 2, {0: 7})
    found = run(LineDedup(), documents, shards=4, size=20_000)
    assert found == judged(documents, gone)
    assert sum(n for _, n, _, _ in found) > 300


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"min_documents": None}, "min_documents and max_share are both null"),
        ({"min_documents": 1}, "min_documents is 1"),
        ({"max_share": 0.0}, "max_share is 0.0"),
        ({"max_share": 1.0}, "max_share is 1.0"),
        ({"min_scope": 1}, "min_scope is 1"),
        ({"min_chars": 0}, "min_chars is 0"),
        ({"ignore": ("cases",)}, "did you mean"),
        ({"scope": "site"}, "scope is 'site'"),
        ({"keep": "last"}, "keep is 'last'"),
    ],
)
def test_parameters_that_make_no_sense(wrong, message):
    with pytest.raises(RecipeError, match=f"line_dedup: .*{message}|line_dedup: {message}"):
        LineDedup(**wrong)
