"""entigraph: entities, pairs and triples from a real endpoint, in memory and in runs; nothing lost, nothing asked twice."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from llm_server import Server, draw

from curate import llm
from curate.errors import RecipeError, StageError
from curate.memory import bind
from curate.phases import in_memory
from curate.recipe import Recipe, loads
from curate.rewriting import PROVENANCE, estimated, kinds
from curate.run import Run, run
from curate.stages.entigraph import EntiGraph, entities_of, pairs_of, relations
from curate.testing import check_batch_size, check_declarations, check_pickle, check_shards, documents

SENTENCES = (
    "The old mill stands by the river, and the miller opens its doors every morning.",
    "Farmers bring their grain from the hills and wait in the yard until it is ground.",
    "In winter the water freezes, and the great wheel does not turn for many weeks.",
)
NAMES = ("the mill", "the river", "the miller", "the hills", "the yard", "the wheel", "the pond", "the church")


def text_of(i: int) -> str:
    return f"Chapter {i}. " + " ".join(SENTENCES[(i + k) % 3] for k in range(1 + i % 3))


TEXTS = [text_of(i) for i in range(24)]


def known(text: str) -> list[str]:
    """The entities that the server names for a text: two to eight."""
    return list(NAMES[: 2 + int(draw(text, "n") * 7)])


def told(names: tuple[str, ...], text: str) -> str:
    """What the server says about some of them."""
    return f"{' and '.join(names)} in words of their own, as the chapter has it, once more from the beginning. {text}"


class Graph(Server):
    """Names entities where a schema asks for them, and writes about those that stand before the text."""

    def __init__(self, *args, **options):
        super().__init__(*args, writes=self.relate, **options)

    def relate(self, shown: str) -> str:
        names, _, text = shown.partition("\n\n")
        return told(tuple(names.split("; ")), text)

    def _content(self, asked, prompt, text, fault):
        if "response_format" in asked and fault != "malformed":
            names = known(text)
            value = {"summary": f"About {text[:9]}", "entities": [*names, names[0].upper(), " "]}
            said = json.dumps(value)
            return {"empty": ("", "stop"), "truncated": (said[:9], "length")}.get(fault, (said, "stop"))
        return super()._content(asked, prompt, text, fault)

    def asked(self) -> list[str]:
        """What stood between the lines of equal signs, by request that was answered."""
        return [text for text, n in self.completed.items() for _ in range(n)]


def shown(names: tuple[str, ...], text: str) -> str:
    return "; ".join(names) + "\n\n" + text


def stage_for(server: Server, folder: Path, **options) -> EntiGraph:
    given = {"concurrency": 16, "repairs": 0, "cache": str(folder / "cache")}
    return EntiGraph(server=server.url, model="test-model", **{**given, **options})


# --------------------------------------------------------------------------------------------- documents of pairs and triples


def test_every_pair_becomes_a_document_with_its_origin(tmp_path):
    texts = TEXTS[:6]
    with Graph({"429": 0.2, "reset": 0.2}) as server:
        result = stage_for(server, tmp_path)(texts)
    rows = result.kept.to_pylist()
    assert not result.dropped.num_rows
    wanted = [(str(i), pair) for i, text in enumerate(texts) for pair in itertools.combinations(known(text), 2)]
    assert [(r["source_id"], tuple(r["entities"])) for r in rows] == wanted
    assert [r["text"] for r in rows] == [told(pair, texts[int(i)]) for i, pair in wanted]
    assert {r["kind"] for r in rows} == {"pair"} and {r["rewrite_status"] for r in rows} == {"rewritten"}
    assert [r["id"] for r in rows if r["source_id"] == "2"] == [
        f"2#entigraph.{k}" for k in range(math.comb(len(known(texts[2])), 2))
    ]
    made = {name: rows[0][name] for name in PROVENANCE.names}
    prompt = llm.prompts()["entigraph_pair"]
    assert made == {
        "synthetic": True,
        "source_id": "0",
        "prompt": "entigraph_pair",
        "prompt_sha256": sha256(prompt.read_bytes()).hexdigest(),
        "generator": "test-model",
        "generation": '{"max_tokens":2048,"temperature":1.0}',
        "rewrite_status": "rewritten",
    }
    assert {(b["temperature"], "response_format" in b) for b in server.bodies} == {(0, True), (1.0, False)}
    for i, text in enumerate(texts):
        first = next(r for r in rows if r["source_id"] == str(i))
        size = sum(estimated(told(pair, text)) for pair in itertools.combinations(known(text), 2))
        assert first["entigraph_entities"] == known(text) and first["entigraph_ratio"] == size / estimated(text)
        assert (first["entigraph_pairs"], first["entigraph_triples"]) == (math.comb(len(known(text)), 2), 0)
        assert first["entigraph_answers"] == [
            {"kind": "pair", "entities": first["entities"], "answer": first["text"], "error": None}
        ]


def test_titles_stand_in_the_headings(tmp_path):
    table = pa.table({"id": ["a", "b"], "title": ["The  mill", None], "text": TEXTS[:2]})
    with Graph() as server:
        stage_for(server, tmp_path)(table)
        asked = [b["messages"][-1]["content"] for b in server.bodies if "response_format" not in b]
    told = Counter(("### The mill and the mill" in p, "Title: The mill" in p, "### The text and" in p) for p in asked)
    assert set(told) == {(True, True, False), (False, False, True)}


def test_caps_choose_by_hash_and_triples_stop_at_their_number(tmp_path):
    texts = TEXTS[:8]
    with Graph() as server:
        made = stage_for(server, tmp_path, pairs=3, triples=2)(texts).kept.to_pylist()
        again = stage_for(server, tmp_path, pairs=3, triples=2, seed=7)(texts).kept.to_pylist()
        few = stage_for(server, tmp_path, max_entities=3)(texts).kept.to_pylist()

    def groups(rows, i, kind):
        return [tuple(r["entities"]) for r in rows if r["source_id"] == str(i) and r["kind"] == kind]

    for i, text in enumerate(texts):
        every = list(itertools.combinations(known(text), 2))
        assert groups(made, i, "pair") == pairs_of(known(text), 3, 42, str(i))
        assert groups(made, i, "triple") == relations(known(text), 3, 42, str(i))[:2]
        assert len(groups(made, i, "pair")) == min(3, len(every))
        assert groups(few, i, "pair") == list(itertools.combinations(known(text)[:3], 2))
    assert {r["prompt"] for r in made} == {"entigraph_pair", "entigraph_triple"}
    assert [r["entities"] for r in made] != [r["entities"] for r in again]


def test_triples_go_on_until_the_budget_is_reached(tmp_path):
    texts = TEXTS[:8]
    with Graph({"empty": 0.2}) as server:
        stage = stage_for(server, tmp_path, pairs=2, triples=None, tokens=400)
        made = stage(texts).kept.to_pylist()
        fault = server.fault
        for i, text in enumerate(texts):
            if fault(text):
                continue  # no entities
            waiting = relations(known(text), 3, 42, str(i))
            pairs = pairs_of(known(text), 2, 42, str(i))
            good = [g for g in waiting if not fault(shown(g, text))]
            rows = [r for r in made if r["source_id"] == str(i) and r["synthetic"]]
            used = [tuple(r["entities"]) for r in rows if r["kind"] == "triple"]
            assert used == good[: len(used)]
            size = sum(estimated(r["text"]) for r in rows)
            least = size - (estimated(rows[-1]["text"]) if used else 0)
            assert size >= 400 or used == good
            # rounds ask for as many as are missing by the mean so far: one may be more than needed where answers failed
            assert least < 400 + estimated(told(NAMES[:3], text)), (i, size)
            assert not set(pairs) & {g for g in used if len(g) == 2}
        triples = stage_for(server, tmp_path, pairs=0, triples=None, tokens=100)(texts[:4]).kept.to_pylist()
    assert {r["kind"] for r in triples if r["synthetic"]} == {"triple"}


def test_a_second_call_and_other_checks_ask_for_nothing(tmp_path):
    with Graph({"empty": 0.1, "sorry": 0.2}) as server:
        stage = stage_for(server, tmp_path)
        stage(TEXTS)
        asked = server.requests
        strict = replace(stage, length=(0.0, 1.5), on_reject="drop", keep_source=True)
        made = strict(TEXTS).kept
        assert server.requests == asked
    assert "length" in {s for outcomes in made["entigraph_outcomes"].to_pylist() for s in outcomes or ()}
    answers, entities = stage.needs()["answers"], stage.needs()["entities"]
    assert strict.needs()["answers"] == answers and strict.needs()["entities"] == entities
    assert replace(stage, pairs=3).needs()["entities"] == entities
    assert replace(stage, max_entities=3).needs()["answers"] == answers


# --------------------------------------------------------------------------------------------- what goes wrong

FAULTS = {"empty": 0.12, "truncated": 0.12, "refusal": 0.1, "sorry": 0.1, "foreign": 0.1, "500": 0.1}
KINDS = {"refusal": "refused", "sorry": "refused", "foreign": "language"}


@pytest.mark.parametrize("on_reject", ["keep_original", "drop"])
def test_every_fault_is_told_by_kind_and_no_document_is_lost(tmp_path, on_reject):
    texts = [*TEXTS, "", None, " \n", "REJECT this. " * 10]
    with Graph(FAULTS) as server:
        result = stage_for(server, tmp_path, on_reject=on_reject)(texts)
        fault = server.fault
    lost, kept = {}, {}
    for i, text in enumerate(texts):
        first = fault(text) if text else ""
        error = "no_text" if not (text or "").strip() else "rejected" if "REJECT" in text else None
        # a refusal in prose is no JSON; the server answers so only where no schema is asked for
        error = error or {"empty": "empty", "truncated": "truncated", "refusal": "refused"}.get(first)
        pairs = [] if error else list(itertools.combinations(known(text), 2))
        outcomes = [KINDS.get(f, f) if (f := fault(shown(p, text))) and f != "500" else "rewritten" for p in pairs]
        good = [p for p, o in zip(pairs, outcomes, strict=True) if o == "rewritten"]
        if good:
            kept[str(i)] = good
        else:
            lost[str(i)] = error or outcomes[0]
    assert {*lost.values()} >= {"no_text", "rejected", "empty", "truncated", "refused"}
    rows = result.kept.to_pylist()
    assert {i: [tuple(r["entities"]) for r in rows if r["source_id"] == i] for i in kept} == kept
    originals = {r["id"].split("#")[0]: r for r in rows if not r["synthetic"]}
    if on_reject == "keep_original":
        assert not result.dropped.num_rows and {i: r["rewrite_status"] for i, r in originals.items()} == lost
        assert all(r["text"] == texts[int(i)] and r["kind"] is r["entities"] is None for i, r in originals.items())
    else:
        gone = dict(zip(result.dropped["id"].to_pylist(), result.dropped["_reason"].to_pylist(), strict=True))
        assert not originals and gone == {i: f"entigraph.{kind}" for i, kind in lost.items()}


def test_the_source_stays_beside_what_is_made_of_it(tmp_path):
    table = pa.table({"id": list("abc"), "text": [*TEXTS[:2], "Brief."], "n": [1, 2, 3]})
    with Graph() as server:
        made = stage_for(server, tmp_path, keep_source=True, where="n > 1", min_document_tokens=5)(table).kept.to_pylist()
    kept = {r["id"]: r["rewrite_status"] for r in made if not r["synthetic"]}
    assert kept == {"a#entigraph.0": "not_selected", "b#entigraph.0": "source", "c#entigraph.0": "source"}
    assert {r["source_id"] for r in made if r["synthetic"]} == {"b"} and all(r["n"] == 2 for r in made if r["synthetic"])
    assert next(r["entigraph_error"] for r in made if r["id"] == "c#entigraph.0") == "too_short"


def test_names_are_taken_once():
    given = ["Paris", " paris ", "New\n York", "…", "x" * 121, "", "Île-de-France"]
    assert entities_of(given, 30) == ["Paris", "New York", "Île-de-France"]
    assert entities_of(given, 2) == ["Paris", "New York"]
    groups = relations([str(k) for k in range(9)], 3, 1, "a")
    assert sorted(groups) == list(itertools.combinations("012345678", 3)) and groups != sorted(groups)
    assert groups != relations([str(k) for k in range(9)], 3, 1, "b")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"model": ""}, "model is empty"),
        ({"max_entities": 1}, "max_entities is 1"),
        ({"triples": None}, "give `tokens`"),
        ({"pairs": 0}, "nothing would be asked"),
        ({"on_reject": "keep"}, "on_reject is 'keep'"),
        ({"length": (2.0, 1.0)}, "entigraph: length"),
        ({"entity_parameters": {"model": "x"}}, "'model' is set by Curate"),
        ({"prompt": "entigraph_pair"}, "needs a JSON schema beside it"),
        ({"pair_prompt": "dataman"}, "JSON schema beside the prompt dataman"),
        ({"prompt": "entigraph_entitys"}, "did you mean 'entigraph_entities'"),
    ],
)
def test_parameters_that_cannot_be(options, said):
    with pytest.raises(RecipeError, match=said):
        bind(EntiGraph(**{"model": "m", **options}), documents(EntiGraph(model="m")).schema)


def test_every_kind_is_a_reason():
    assert set(EntiGraph(model="m").needs()["outcomes"].reasons()) == {f"entigraph.{k}" for k in ("too_few", *kinds())}


def test_its_parts_keep_the_promises_of_a_stage(tmp_path):
    with Graph({"empty": 0.2, "500": 0.2, "sorry": 0.2}) as server:
        stage = stage_for(server, tmp_path, pairs=2, triples=1, where="text <> 'x'")
        table = documents(stage).select(["id", "text", "tokens"]).slice(0, 12)
        for needed in stage.needs().values():
            for check in (check_pickle, check_declarations, check_batch_size, check_shards):
                check(bind(needed, table.schema).stage, table)
            table = in_memory(needed, table).kept
        for check in (check_pickle, check_declarations, check_batch_size, check_shards):
            check(stage, table)


# --------------------------------------------------------------------------------------------- runs

RECIPE = """\
name: graph
source: jsonl
stages:
  - entigraph:
      server: {server}
      model: test-model
      cache: {cache}
      concurrency: 8
      repairs: 0
      pairs: 4
      triples: 1
      {more}
output: {{shard_mb: 0.05, validation: 0}}
"""


def corpus(folder: Path, n: int) -> Path:
    """Documents in several files, each long enough, by blanks at the ends of lines, to be a shard of its own."""
    folder.mkdir()
    for part in range(3):
        with (folder / f"{part}.jsonl").open("w") as out:
            for i in range(part, n, 3):
                out.write(json.dumps({"id": f"d{i}", "text": text_of(i)}).ljust((9 << 20) // n) + "\n")
    return folder


def recipe(tmp_path: Path, server: str, more: str = ""):
    text = RECIPE.format(server=server, cache=tmp_path / "cache", more=more)
    return loads(text).with_inputs([str(tmp_path / "in")])


def notes(done: Run, stage: str) -> dict[str, int]:
    (entry,) = [s for s in done.summary["stages"] if s["id"] == stage]
    return entry["notes"]


def exported(done: Run) -> list[dict]:
    return [r for p in sorted(done.root.glob("output/**/*.parquet")) for r in pq.read_table(p).to_pylist()]


def wanted(i: int) -> list[tuple[str, ...]]:
    """What is asked about of a document of these runs."""
    names = known(text_of(i))
    return [*pairs_of(names, 4, 42, f"d{i}"), *relations(names, 3, 42, f"d{i}")[:1]]


def test_a_server_that_dies_stops_the_run_which_goes_on_later(tmp_path):
    n = 30
    corpus(tmp_path / "in", n)
    whole = n + sum(len(wanted(i)) for i in range(n))
    with Graph({"empty": 0.1}, die_after=70) as server:
        port = server.port
        with pytest.raises(StageError, match=r"has stopped answering .* run the same command again when it is back"):
            run(recipe(tmp_path, server.url, "retries: 1"), tmp_path / "run", workers=0)
        before = server.completed
    (file,) = (tmp_path / "cache").glob("*.jsonl")
    kept = file.read_bytes().count(b"\n")
    assert 60 <= kept <= sum(before.values()) <= 70 < whole
    with Graph({"empty": 0.1}, port=port) as server:
        done = run(recipe(tmp_path, server.url, "retries: 1"), tmp_path / "run", workers=2)
        assert sum((before + server.completed).values()) <= whole + sum(before.values()) - kept
        asked, fault, digest = server.requests, server.fault, done.manifest.digest
        empty = {i for i in range(n) if fault(text_of(i)) == "empty"}
        good = {(f"d{i}", g) for i in range(n) if i not in empty for g in wanted(i) if not fault(shown(g, text_of(i)))}
        rows = exported(done)
        assert {(r["source_id"], tuple(r["entities"])) for r in rows if r["synthetic"]} == good
        assert {r["kind"] for r in rows} == {"pair", "triple", None} and "entigraph_answers" not in rows[0]
        told = notes(done, "entigraph.outcomes")
        assert told["documents with entities"] == n - len(empty) and told["documents without entities: empty"] == len(empty)
        assert told["entities"] == sum(len(known(text_of(i))) for i in range(n) if i not in empty)
        assert told["pairs used"] + told["triples used"] == len(good)
        rejected = sum(bool(fault(shown(g, text_of(i)))) for i in range(n) if i not in empty for g in wanted(i))
        assert told["answers rejected: empty"] == rejected
        tokens = sum(estimated(r["text"]) for r in rows if r["synthetic"])
        assert abs(told["tokens of synthetic text (bytes/4)"] - tokens) <= n
        other = run(recipe(tmp_path, server.url, "retries: 1\n      on_reject: drop"), tmp_path / "run", workers=0)
        assert server.requests == asked and {r["synthetic"] for r in exported(other)} == {True}
        alone = run(recipe(tmp_path, server.url, "retries: 1"), tmp_path / "alone", workers=0)
        assert alone.manifest.digest == digest and server.requests == asked


@pytest.mark.slow
def test_a_killed_run_with_faults_repeats_nothing_and_loses_nothing(tmp_path):
    n = 300
    corpus(tmp_path / "in", n)
    faults = {"429": 0.06, "500": 0.06, "reset": 0.05, "hangup": 0.03, "empty": 0.05, "sorry": 0.05}
    whole = n + sum(len(wanted(i)) for i in range(n))
    with Graph(faults, latency=0.01) as server:
        text = RECIPE.format(server=server.url, cache=tmp_path / "cache", more="retries: 9")
        script = textwrap.dedent("""
            import sys
            from curate.recipe import Recipe, loads
            from curate.run import run
            run(loads(sys.argv[1]).with_inputs([sys.argv[2]]), sys.argv[3], workers=2)
        """)
        command = [sys.executable, "-c", script, text, str(tmp_path / "in"), str(tmp_path / "run")]
        process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 120
        while sum(server.completed.values()) < whole // 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.3)
        (file,) = (tmp_path / "cache").glob("*.jsonl")
        kept = file.read_bytes().count(b"\n")
        answered = sum(server.completed.values())
        assert whole // 2 <= answered < whole - 100 and answered - 16 <= kept <= answered
        subprocess.run(command, check=True)
        empty = {i for i in range(n) if server.fault(text_of(i)) == "empty"}
        spared = sum(len(wanted(i)) for i in empty)
        assert sum(server.completed.values()) == whole - spared + answered - kept
        fault = server.fault
    rows = exported(Run(tmp_path / "run"))
    bad = ("empty", "sorry")
    good = {(f"d{i}", g) for i in range(n) if i not in empty for g in wanted(i) if fault(shown(g, text_of(i))) not in bad}
    assert {(r["source_id"], tuple(r["entities"])) for r in rows if r["synthetic"]} == good
    lost = {f"d{i}" for i in range(n)} - {i for i, _ in good}
    assert {r["id"].split("#")[0] for r in rows if not r["synthetic"]} == lost
    print(f"{whole} requests, {answered} answered before the kill, {kept} kept, {len(good)} documents, {len(lost)} without")


def test_answers_many_times_as_long_as_the_text_fit_into_memory(tmp_path):
    """28 answers of 100 kB to each of 40 documents: that each child inherited them all would be 3 GB."""
    (tmp_path / "in").mkdir()
    texts = [text for i in range(2000) if len(known(text := text_of(i))) == 8][:40]
    (tmp_path / "in" / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    class Talkative(Graph):
        def relate(self, shown):
            return super().relate(shown) + " And the wheel turned once more in the river." * 2300

    with Talkative() as server:
        given = f"{{server: '{server.url}', model: test-model, cache: none, same_language: 0}}"
        source = f"name: long\nsource: jsonl\nstages:\n  - entigraph: {given}\noutput: {{columns: [id, source_id]}}\n"
        script = (
            "import sys; from curate.recipe import loads; from curate.run import run\n"
            "run(loads(sys.argv[1]).with_inputs([sys.argv[2]]), sys.argv[3], workers=0)\n"
            "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        command = [sys.executable, "-c", script, source, str(tmp_path / "in"), str(tmp_path / "run")]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024
    assert len(exported(Run(tmp_path / "run"))) == 40 * 28
    assert peak < 900, f"{peak:.0f} MB"
    print(f"{peak:.0f} MB")


def test_the_pipeline_runs(tmp_path):
    data = corpus(tmp_path / "in", 6)
    with Graph() as server:
        settings = {"model": "test-model", "server": server.url, "cache": tmp_path / "cache", "pairs": 2, "triples": 0}
        shipped = Recipe.load("entigraph", [f"stages.entigraph.{key}={value}" for key, value in settings.items()])
        rows = exported(run(shipped.with_inputs([str(data)]), tmp_path / "run", workers=0))
    pairs = sum(len(pairs_of(known(text_of(i)), 2, 42, f"d{i}")) for i in range(6))
    assert Counter(r["rewrite_status"] for r in rows) == {"rewritten": pairs, "source": 6}
