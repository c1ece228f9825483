"""rewrite: documents from a real endpoint or a function, in memory and in runs; none of them lost, whatever goes wrong."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from llm_server import Server, draw

from curate import explain, rewriting
from curate.cli import main
from curate.errors import ColumnError, RecipeError, StageError
from curate.memory import bind
from curate.phases import in_memory
from curate.recipe import loads
from curate.rewriting import PROVENANCE, kinds
from curate.run import Run, run
from curate.stage import Expand, Task
from curate.stages.rewrite import Rewrite
from curate.testing import (
    CHECKS,
    check_batch_size,
    check_declarations,
    check_pickle,
    check_recipe,
    check_shards,
    documents,
    hostile_texts,
)

PROSE = (
    "The old mill stands by the river, and the miller opens its doors every morning. ",
    "Farmers bring their grain from the hills and wait in the yard until it is ground. ",
    "In winter the water freezes, and the great wheel does not turn for many weeks. ",
    "Children skate on the pond behind the church while their parents talk in the market. ",
)
PROMPT = "Write this anew.\n==========\n{{ text }}\n==========\n"


def text_of(i: int) -> str:
    return f"Chapter {i}. " + "".join(PROSE[(i + k) % 4] for k in range(1 + i % 3)).strip()


TEXTS = [text_of(i) for i in range(120)]


@pytest.fixture
def prompt(tmp_path) -> str:
    (tmp_path / "anew.jinja").write_text(PROMPT)
    return str(tmp_path / "anew.jinja")


def stage_for(server: Server, prompt, **options) -> Rewrite:
    first = prompt if isinstance(prompt, str) else prompt[0]
    given = {"model": "test-model", "concurrency": 16, "repairs": 0, "cache": str(Path(first).parent / "cache")}
    return Rewrite(server=server.url, prompt=prompt, **{**given, **options})


def statuses(table: pa.Table) -> list[str]:
    return table["rewrite_status"].to_pylist()


# --------------------------------------------------------------------------------------------- one output


def test_outputs_are_those_of_the_server_with_their_origin(prompt):
    with Server({"429": 0.2, "500": 0.1, "reset": 0.1}) as server:
        made = stage_for(server, prompt, parameters={"top_p": None, "max_tokens": 99})(TEXTS).kept
    assert made["text"].to_pylist() == [f"About {t}" for t in TEXTS]
    assert made["tokens"].to_pylist() == [(len(t) + 6 + 3) // 4 for t in TEXTS]
    assert [made[f.name].type for f in PROVENANCE] == PROVENANCE.types
    first = {name: made[name][0].as_py() for name in PROVENANCE.names}
    assert first == {
        "synthetic": True,
        "source_id": "0",
        "prompt": "anew",
        "prompt_sha256": sha256(PROMPT.encode()).hexdigest(),
        "generator": "test-model",
        "generation": '{"max_tokens":99,"temperature":0.7}',
        "rewrite_status": "rewritten",
    }
    body = server.bodies[0]
    assert (body["temperature"], body["max_tokens"], "top_p" in body) == (0.7, 99, False)


FAULTS = {"empty": 0.1, "truncated": 0.1, "refusal": 0.05, "sorry": 0.1, "long": 0.1, "foreign": 0.1, "500": 0.1}
KINDS = {"refusal": "refused", "sorry": "refused", "long": "length", "foreign": "language", "500": None, "": None}


@pytest.mark.parametrize("on_reject", ["keep_original", "drop"])
def test_every_fault_is_told_by_kind_and_no_document_is_lost(prompt, on_reject):
    texts = [*TEXTS, "", None, " \n", "REJECT this. " * 10]
    with Server(FAULTS) as server:
        result = stage_for(server, prompt, on_reject=on_reject)(texts)
        faults = [server.fault(t) for t in TEXTS]
    wanted = [KINDS.get(f, f) or "rewritten" for f in faults] + ["no_text"] * 3 + ["rejected"]
    assert set(faults) == {*FAULTS, ""}
    at = result.kept["id"].to_pylist(), result.dropped["id"].to_pylist()
    assert sorted(map(int, at[0] + at[1])) == list(range(len(texts)))
    for row in result.kept.to_pylist():
        i, new = int(row["id"]), row["rewrite_status"] == "rewritten"
        assert row["rewrite_status"] == wanted[i] and row["synthetic"] == new
        assert row["text"] == (f"About {texts[i]}" if new else texts[i])
    if on_reject == "keep_original":
        assert not at[1]
    else:
        assert result.dropped["_reason"].to_pylist() == [f"rewrite.{wanted[int(i)]}" for i in at[1]]
        assert {i for i, w in enumerate(wanted) if w != "rewritten"} == set(map(int, at[1]))
        told = dict(zip(result.dropped["_reason"].to_pylist(), result.dropped["_value"].to_pylist(), strict=True))
        assert told["rewrite.length"] > 9 and told["rewrite.language"] > 0.5 and told["rewrite.empty"] is None


def test_slow_and_mangled_answers_are_asked_for_again(prompt):
    faults = {"slow": 0.1, "garbage": 0.1, "odd": 0.1, "hangup": 0.1, "reset": 0.1, "503": 0.1}
    with Server(faults, slow=3.0) as server:
        made = stage_for(server, prompt, timeout=0.3, retries=3)(TEXTS[:40]).kept
        assert set(statuses(made)) == {"rewritten"} and set(server.faults) == set(faults)
    with Server({"garbage": 0.3}, times=9) as server:
        made = stage_for(server, prompt, retries=1, cache="none")(TEXTS[:20]).kept
        assert Counter(statuses(made)) == Counter("garbage" if server.fault(t) else "rewritten" for t in TEXTS[:20])


def test_an_object_is_asked_for_where_the_prompt_has_a_schema(prompt):
    schema = {"type": "object", "properties": {"why": {"type": "string"}, "text": {"type": "string"}}, "required": ["text"]}
    beside = Path(prompt).with_suffix(".json")
    beside.write_text(json.dumps(schema))
    with Server({"malformed": 0.2, "truncated": 0.2, "missing": 0.2}) as server:
        made = stage_for(server, prompt, length=(0, 0), same_language=0)(TEXTS[:60]).kept
        faults = {"missing": "schema", "": "rewritten"}
        assert statuses(made) == [faults.get(f, f) for f in map(server.fault, TEXTS[:60])]
    said = [f"text {int(draw(t, 'text') * 1000)}" for t in TEXTS[:60]]
    assert all(t == s for t, s, k in zip(made["text"].to_pylist(), said, statuses(made), strict=True) if k == "rewritten")
    for properties in ({"why": {"type": "string"}}, {"text": {}}, {"text": {"type": "array", "items": {"type": "string"}}}):
        beside.write_text(json.dumps({"properties": properties}))
        with pytest.raises(RecipeError, match="has no string `text`"):
            Rewrite(model="m", prompt=prompt)(["x"])


def test_only_what_is_selected_is_asked_about(prompt):
    table = pa.table({"id": list("abcdef"), "text": TEXTS[:6], "n": range(6)})
    with Server() as server:
        made = stage_for(server, prompt, where="n >= 4", max_document_tokens=50)(table).kept
        assert sum(server.completed.values()) == statuses(made).count("rewritten") == 1
    assert statuses(made) == ["not_selected"] * 4 + ["rewritten", "too_long"]
    assert Rewrite(model="m", prompt=prompt, where="n > 9", server="http://127.0.0.1:9/v1")(table).kept.num_rows == 6


def test_prompts_have_variables(prompt):
    Path(prompt).write_text("{{ title }}|{{ url }}|{{ topic }}\n==========\n{{ text }}\n==========\n")
    table = pa.table({"text": TEXTS[:2], "url": ["http://x.example", None], "topic": ["mills", "grain"]})
    with Server() as server:
        stage_for(server, prompt, variables=("topic",), system="Be brief.")(table)
        asked = [body["messages"] for body in server.bodies]
    assert {m[0]["role"] + m[0]["content"] for m in asked} == {"systemBe brief."}
    assert {m[1]["content"].split("\n")[0] for m in asked} == {"|http://x.example|mills", "||grain"}
    with pytest.raises(RecipeError, match="wants the variable 'topic': name its column in `variables`"):
        Rewrite(model="m", prompt=prompt)(table)
    with pytest.raises(ColumnError, match="reads the column 'topics'"):
        Rewrite(model="m", prompt=prompt, variables=("topic", "topics"))(table)
    Path(prompt).write_text("{{ title }}")
    with pytest.raises(RecipeError, match="does not use the variable `text`"):
        Rewrite(model="m", prompt=prompt)(table)


def test_long_documents_go_in_chunks(prompt):
    text = "\n\n".join(f"Part {i}. " + "".join(PROSE).strip() for i in range(5))
    with Server(writes=str.upper) as server:
        made = stage_for(server, prompt, chunk_tokens=100, unit="paragraph")([text]).kept
        assert made["text"].to_pylist() == [text.upper()] and sum(server.completed.values()) == 5
        parts = made["rewrite_answers"].to_pylist()[0]
        assert [text[p["start"] : p["end"]].upper() for p in parts] == [p["answer"] for p in parts]
    with Server({"empty": 0.4}) as server:
        broken = [bool(server.fault(text[p["start"] : p["end"]])) for p in parts]
        assert 0 < sum(broken) < 5
        options = {"chunk_tokens": 100, "unit": "paragraph", "cache": "none"}
        assert statuses(stage_for(server, prompt, **options)([text]).kept) == ["empty"]
        patched = stage_for(server, prompt, **options, partial="original")([text]).kept["text"].to_pylist()[0]
        assert [p.startswith("About ") for p in patched.split("\n\n")] == [not b for b in broken]
        thinned = stage_for(server, prompt, **options, partial="drop", separator="\n")([text]).kept["text"].to_pylist()[0]
        assert len(thinned.split("\n")) == 5 - sum(broken)
        assert noted(stage_for(server, prompt, **options, partial="drop"), text)[
            "chunks without their answer, in outputs that stand: empty"
        ] == sum(broken)


def test_segments_that_are_too_short_or_too_long_are_left_out(prompt):
    lines = ["".join(PROSE * 3), "short", "".join(PROSE * 2), "".join(PROSE), PROSE[1].strip()]
    with Server() as server:
        options = {"unit": "line", "chunk_tokens": 90, "oversized": "drop", "min_chunk_tokens": 10, "length": (0.1, 3.0)}
        made = stage_for(server, prompt, **options, min_document_tokens=5)(["\n".join(lines), "short", "shortish\n" * 4]).kept
    assert [line.strip() for line in made["text"].to_pylist()[0].split("\n")] == [
        f"About {lines[3].strip()}",
        f"About {lines[4]}",
    ]
    assert statuses(made) == ["rewritten", "too_short", "too_short"]


def test_agreed_beginnings_answers_and_pairs(prompt):
    def writes(text):
        if "Chapter 3." in text:
            return "NO USEFUL CONTENT."
        if "Chapter 4." in text:
            return text
        return "**Here it is:** " + "\n".join(f"Question: {k}?\nAnswer: {PROSE[k].strip()}\n" for k in range(4))

    options = {"prefix": "Here it is:", "nothing": "NO USEFUL CONTENT", "length": (0, 0)}
    with Server(writes=writes) as server:
        result = stage_for(server, prompt, **options, qa="append")(TEXTS[:9])
        assert result.dropped["id"].to_pylist() == ["3"] and result.dropped["_reason"].to_pylist() == ["rewrite.nothing"]
        made = {r["id"]: r for r in result.kept.to_pylist()}
        assert made["4"]["rewrite_status"] == "no_prefix" and made["4"]["text"] == TEXTS[4]
        for i in (0, 1, 2, 5):
            source, _, pairs = made[str(i)]["text"].partition("\n\n")
            assert source == TEXTS[i] and made[str(i)]["synthetic"]
            assert 1 <= pairs.count("Question:") <= max(1, len(TEXTS[i]) // 60 + 1)
        alone = stage_for(server, prompt, **options, qa="alone", min_output_tokens=40, on_reject="drop")(TEXTS[:9])
        assert set(alone.dropped["_reason"].to_pylist()) == {"rewrite.nothing", "rewrite.no_prefix", "rewrite.below_min"}
        assert all(t.startswith("Question:") for t in alone.kept["text"].to_pylist())
        assert sum(server.completed.values()) == 9  # the second asked for nothing
        none = stage_for(server, prompt, qa="alone", length=(0, 0))([TEXTS[4]]).kept
        assert statuses(none) == ["no_pairs"]


# --------------------------------------------------------------------------------------------- several outputs


def two(prompt: str) -> tuple[str, str]:
    other = Path(prompt).with_name("other.jinja")
    other.write_text(PROMPT.replace("anew", "otherwise"))
    return prompt, str(other)


def test_several_prompts_and_samples_make_several_documents(prompt):
    with Server({"empty": 0.2, "long": 0.2}) as server:
        stage = stage_for(server, two(prompt), samples=2, keep_source=True)
        result = stage(TEXTS[:30])
        assert len(server.bodies) == 120 and {b.get("seed") for b in server.bodies} == {None, 43}
        faults = [server.fault(t) for t in TEXTS[:30]]
    rows = result.kept.to_pylist()
    assert not result.dropped.num_rows
    for i, fault in enumerate(faults):
        mine = [r for r in rows if r["id"].startswith(f"{i}#")]
        assert [r["id"] for r in mine] == [f"{i}#rewrite.{k}" for k in range(1 if fault else 5)]
        assert (mine[0]["text"], mine[0]["synthetic"], mine[0]["source_id"]) == (TEXTS[i], False, None)
        assert mine[0]["rewrite_status"] == "source"
        told = [(r["prompt"], json.loads(r["generation"]).get("seed"), r["source_id"]) for r in mine[1:]]
        wanted = [("anew", None, str(i)), ("anew", 43, str(i)), ("other", None, str(i)), ("other", 43, str(i))]
        assert told == ([] if fault else wanted)
        assert all([a["answer"] for a in r["rewrite_answers"]] == [r["text"]] for r in mine[1:])
        kind = {"empty": "empty", "long": "length", "": "rewritten"}[fault]
        assert [o["status"] for o in mine[0]["rewrite_outcomes"]] == [kind] * 4


@pytest.mark.parametrize("on_reject", ["keep_original", "drop"])
def test_a_source_without_any_output_stays_or_goes(prompt, on_reject):
    texts = [*TEXTS[:20], ""]
    with Server({"empty": 0.3, "sorry": 0.1}) as server:
        result = stage_for(server, two(prompt), on_reject=on_reject)(texts)
        kind = {"empty": "empty", "sorry": "refused"}
        lost = {str(i): kind[server.fault(t)] for i, t in enumerate(texts[:20]) if server.fault(t)} | {"20": "no_text"}
    if on_reject == "drop":
        dropped = dict(zip(result.dropped["id"].to_pylist(), result.dropped["_reason"].to_pylist(), strict=True))
        assert dropped == {i: f"rewrite.{k}" for i, k in lost.items()}
        assert result.kept.num_rows == 2 * (21 - len(lost))
    else:
        left = {r["id"].split("#")[0]: r for r in result.kept.to_pylist() if not r["synthetic"]}
        assert {i: r["rewrite_status"] for i, r in left.items()} == lost
        assert all(r["text"] == texts[int(i)] for i, r in left.items())
        assert result.kept.num_rows == 2 * (21 - len(lost)) + len(lost)


def test_prompts_may_differ_in_all_that_they_do(prompt):
    first, second = two(prompt)
    options = {
        second: {"where": "n > 1", "chunk_tokens": 32, "parameters": {"max_tokens": 7}, "max_output_tokens": 1, "system": "Hm."}
    }
    table = pa.table({"text": TEXTS[:4], "n": range(4)})
    with Server() as server:
        stage = stage_for(server, (first, second), by_prompt=options)
        made = stage(table).kept
        asked = Counter((b["max_tokens"], len(b["messages"])) for b in server.bodies)
    assert asked[2048, 1] == 4 and asked[7, 2] > 2
    told = [{o["prompt"]: o["status"] for o in outcomes} for outcomes in made["rewrite_outcomes"].to_pylist()]
    assert told == [{"anew": "rewritten"}] * 2 + [{"anew": "rewritten", "other": "above_max"}] * 2
    answers = stage.needs()["answers"]
    assert answers == replace(stage, by_prompt={second: {**options[second], "max_output_tokens": 9}}).needs()["answers"]
    assert answers != replace(stage, by_prompt={second: {**options[second], "chunk_tokens": 64}}).needs()["answers"]
    with pytest.raises(RecipeError, match="by_prompt names 'othr'"):
        replace(stage, by_prompt={"othr": {}})
    with pytest.raises(RecipeError, match=r"by_prompt\..*: no parameter 'chunk_token'; did you mean 'chunk_tokens'"):
        replace(stage, by_prompt={second: {"chunk_token": 3}})
    with pytest.raises(RecipeError, match=r"by_prompt\..*: chunk_tokens is 3; give 32 or more"):
        replace(stage, by_prompt={second: {"chunk_tokens": 3}})


def test_a_second_rewrite_leaves_the_origin_of_others_alone(prompt):
    with Server() as server:
        once = stage_for(server, prompt, keep_source=True)(TEXTS[:3]).kept
        stage = stage_for(server, two(prompt)[1], where="NOT synthetic", keep_source=True)
        rows = stage(once).kept.to_pylist()
    told = [(r["id"], r["source_id"], r["prompt"], r["rewrite_status"]) for r in rows if r["id"].startswith("1#")]
    assert told == [
        ("1#rewrite.0#rewrite.0", None, None, "source"),
        ("1#rewrite.0#rewrite.1", "1#rewrite.0", "other", "rewritten"),
        ("1#rewrite.1#rewrite.0", "1", "anew", "rewritten"),
    ]


# --------------------------------------------------------------------------------------------- the promises of a stage


@pytest.mark.parametrize("several", [False, True])
def test_its_parts_keep_the_promises_of_a_stage(prompt, several):
    with Server({"empty": 0.2, "500": 0.2, "sorry": 0.2}, writes=lambda text: text[: len(text) // 2]) as server:
        options = {"prompt": two(prompt), "keep_source": True} if several else {"prompt": prompt}
        stage = stage_for(server, **options, chunk_tokens=2000, partial="drop", where="text <> 'x'")
        table = documents(stage)
        table = table.filter(pc.less(table["text_bytes"], 20_000))
        for needed in stage.needs().values():
            for check in (check_pickle, check_declarations, check_batch_size, check_shards):
                check(bind(needed, table.schema).stage, table)
            table = in_memory(needed, table).kept
        assert 0 < table["rewrite_answers"].null_count < len(table)
        inside = bind(stage, table.schema).stage
        assert isinstance(inside, Expand) == several
        for check in CHECKS[1:]:
            if check is not check_recipe or not several:  # what the planner puts in its place stands in no recipe
                check(inside, table)


def test_hostile_texts_go_through_and_come_back(prompt):
    texts = hostile_texts()
    with Server(writes=lambda text: text) as server:
        stage = stage_for(server, prompt, chunk_tokens=500, length=(0, 0), refusals=False, preamble=False)
        made = stage(texts).kept
    same = [a for a, b in zip(made["text"].to_pylist(), texts, strict=True) if a == b]
    assert len(same) >= len(texts) - 2  # an answer's outer white space is stripped: it may be of the script's control kind
    assert set(statuses(made)) <= {"rewritten", "no_text"}


@pytest.mark.parametrize(
    "options, said",
    [
        ({}, "give `model` and `prompt`"),
        ({"model": "m"}, "give `model` and `prompt`"),
        ({"model": "m", "function": "a:b"}, "not both"),
        ({"function": "curate.rewriting:squeezed", "samples": 2}, "samples is for models"),
        ({"function": "no_such_module:f"}, "cannot be loaded"),
        ({"model": "m", "prompt": "no_such_prompt"}, "no prompt 'no_such_prompt'"),
        ({"model": "m", "prompt": ("dataman", "dataman")}, "named twice"),
        ({"model": "m", "prompt": "dataman", "chunk_tokens": 5}, "rewrite: chunk_tokens is 5; give 32 or more"),
        ({"model": "m", "prompt": "dataman", "unit": "word"}, "unit is sentence, line or paragraph"),
        ({"model": "m", "prompt": "dataman", "on_reject": "keep"}, "on_reject is 'keep'"),
        ({"model": "m", "prompt": "dataman", "length": (2.0, 1.0)}, "rewrite: length"),
        ({"model": "m", "prompt": "dataman", "parameters": {"model": "x"}}, "'model' is set by Curate"),
        ({"model": "m", "prompt": "dataman", "api_key_env": "sk-hidden"}, "never the key"),
        ({"model": "m", "prompt": "dataman", "server": "localhost"}, "base URL"),
        ({"model": "m", "prompt": "dataman", "budget_usd": 1.0}, "prices"),
        ({"model": "m", "prompt": "dataman", "timeout": 0}, "rewrite: timeout is 0"),
        ({"model": "m", "prompt": "dataman", "tokens_per_minute": -1}, "rewrite: tokens_per_minute is -1"),
        ({"model": "m", "prompt": "dataman", "concurrency": 5000}, "rewrite: concurrency is 5000; from 1 to 4096"),
        ({"model": "m", "prompt": "dataman", "parameters": {"max_tokens": "x"}}, "max_tokens is 'x'; give a whole number"),
        ({"model": "m", "prompt": "dataman", "by_prompt": {"dataman": {"parameters": {"seed": "x"}}}}, "seed is 'x'"),
        ({"model": "m", "prompt": "dataman"}, "has no string `text`"),
    ],
)
def test_parameters_that_cannot_be(options, said):
    with pytest.raises(RecipeError, match=said) as error:
        Rewrite(**options)(["x"])
    assert "hidden" not in str(error.value)


def test_every_kind_of_a_rejection_is_a_reason():
    assert Rewrite().reasons() == tuple(f"rewrite.{kind}" for kind in kinds())
    doc = Rewrite.__doc__ or ""
    assert all(f"`{kind}`" in doc for kind in kinds())


# --------------------------------------------------------------------------------------------- functions

CALLS: list[list[str]] = []


class Paraphrase:
    """Words by a list, the same for every text."""

    version = "1"

    def __init__(self, words=None):
        self.words = words or {"old": "ancient", "great": "mighty"}

    def rewrite(self, texts):
        CALLS.append(list(texts))
        if any("Chapter 7." in text for text in texts):
            raise ValueError("not this one")
        return [" ".join(self.words.get(word, word) for word in text.split(" ")) for text in texts]


def test_a_function_in_place_of_a_model(tmp_path):
    CALLS.clear()
    options = {"function": f"{__name__}:Paraphrase", "cache": str(tmp_path), "batch_size": 8}
    made = Rewrite(**options)(TEXTS[:20]).kept
    assert statuses(made) == ["function_error" if i == 7 else "rewritten" for i in range(20)]
    wanted = [t if i == 7 else t.replace("old", "ancient").replace("great", "mighty") for i, t in enumerate(TEXTS[:20])]
    assert made["text"].to_pylist() == wanted
    first = {name: made[name][0].as_py() for name in PROVENANCE.names}
    assert (first["prompt"], first["generator"], first["generation"]) == (None, f"{__name__}:Paraphrase", '{"version":"1"}')
    CALLS.clear()
    again = Rewrite(**options, on_reject="drop")(TEXTS[:20])
    assert [[TEXTS[7]]] == CALLS and again.dropped["_reason"].to_pylist() == ["rewrite.function_error"]
    made = Rewrite(**options, parameters={"words": {"old": "new"}}, keep_source=True)(TEXTS[:2]).kept
    assert made["text"].to_pylist() == [t for text in TEXTS[:2] for t in (text, text.replace("old", "new"))]
    assert made["generation"].to_pylist()[1] == '{"version":"1","words":{"old":"new"}}'


def repeated(texts, n=1, model=""):
    return [" ".join([text] * n) + model for text in texts]


def test_parameters_of_a_function_may_be_called_as_those_that_a_server_is_sent():
    stage = Rewrite(function=f"{__name__}:repeated", parameters={"n": 2, "model": "!"}, cache="none")
    assert stage(["One line."]).kept["text"].to_pylist() == ["One line. One line.!"]


# --------------------------------------------------------------------------------------------- runs

RECIPE = """\
name: anew
source: jsonl
stages:
  - rewrite:
      server: {server}
      model: test-model
      prompt: {prompt}
      cache: {cache}
      concurrency: 8
      repairs: 0
      {more}
output: {{shard_mb: 0.02, validation: 0}}
"""


def corpus(folder: Path, n: int) -> Path:
    """Documents in several files, each long enough, by blanks at the ends of lines, to be a shard of its own."""
    folder.mkdir()
    for part in range(4):
        with (folder / f"{part}.jsonl").open("w") as out:
            for i in range(part, n, 4):
                out.write(json.dumps({"id": f"d{i}", "text": text_of(i)}).ljust((9 << 20) // n) + "\n")
    return folder


def recipe(tmp_path: Path, server: str, prompt: str, more: str = "", cache: str = "cache"):
    text = RECIPE.format(server=server, prompt=prompt, cache=tmp_path / cache, more=more)
    return loads(text).with_inputs([str(tmp_path / "in")])


def notes(done: Run, stage: str) -> dict[str, int]:
    (entry,) = [s for s in done.summary["stages"] if s["id"] == stage]
    return entry["notes"]


def exported(done: Run) -> list[dict]:
    return [r for p in sorted(done.root.glob("output/**/*.parquet")) for r in pq.read_table(p).to_pylist()]


def test_other_checks_ask_for_nothing_again_and_workers_change_nothing(tmp_path, prompt):
    corpus(tmp_path / "in", 200)
    with Server({"429": 0.05, "empty": 0.1, "long": 0.1, "foreign": 0.1}) as server:
        first = run(recipe(tmp_path, server.url, prompt), tmp_path / "run", workers=2)
        asked, digest = server.requests, first.manifest.digest
        told = Counter(server.fault(text_of(i)) for i in range(200))
        assert notes(first, "rewrite")["documents rewritten"] == told[""] + told["429"]
        rejections = {k: v for k, v in notes(first, "rewrite").items() if k.startswith("outputs rejected")}
        kind = {"empty": "empty", "long": "length", "foreign": "language"}
        assert rejections == {f"outputs rejected: {kind[k]}": told[k] for k in kind}
        rows = {r["id"]: r for r in exported(first)}
        assert len(rows) == 200 and "rewrite_answers" not in rows["d0"]
        real = sum(len(r["text"]) for r in rows.values() if not r["synthetic"]) / 4
        new = sum(len(r["text"]) for r in rows.values() if r["synthetic"]) / 4
        assert abs(notes(first, "rewrite")["tokens of real text (bytes/4)"] - real) <= 200
        assert abs(notes(first, "rewrite")["tokens of synthetic text (bytes/4)"] - new) <= 200
        other = run(recipe(tmp_path, server.url, prompt, "on_reject: drop\n      length: [0, 0]"), tmp_path / "run", workers=0)
        assert server.requests == asked
        assert {r["rewrite_status"] for r in exported(other)} == {"rewritten"}
        assert len(exported(other)) == 200 - told["empty"] - told["foreign"]
        alone = run(recipe(tmp_path, server.url, prompt), tmp_path / "alone", workers=0)
        assert alone.manifest.digest == digest and len([*(tmp_path / "alone" / "documents").glob("*.parquet")]) > 2
        layers = [sorted((tmp_path / f).glob("attributes/rewrite*/*.parquet")) for f in ("run", "alone")]
        assert {p.read_bytes() for p in layers[1]} <= {p.read_bytes() for p in layers[0]} and layers[1]


def test_a_server_that_is_down_is_named_with_a_remedy(tmp_path, prompt):
    corpus(tmp_path / "in", 40)
    with Server() as server:
        port = server.port
    given = recipe(tmp_path, f"http://127.0.0.1:{port}/v1", prompt)
    with pytest.raises(StageError, match=rf"no endpoint at http://127.0.0.1:{port}/v1: connection refused; start the server"):
        run(given, tmp_path / "run", workers=0)
    with Server(port=port) as server:
        assert len(exported(run(given, tmp_path / "run", workers=0))) == 40


def test_a_server_that_dies_stops_the_run_which_goes_on_later(tmp_path, prompt):
    corpus(tmp_path / "in", 200)
    more = "retries: 1\n      keep_source: true"
    with Server({"empty": 0.1}, die_after=90) as server:
        port = server.port
        with pytest.raises(StageError, match=r"has stopped answering .* run the same command again when it is back"):
            run(recipe(tmp_path, server.url, prompt, more), tmp_path / "run", workers=0)
        before = server.completed
    (file,) = (tmp_path / "cache").glob("*.jsonl")
    kept = file.read_bytes().count(b"\n")
    assert 80 < kept <= sum(before.values()) <= 90
    with Server({"empty": 0.1}, port=port) as server:
        done = run(recipe(tmp_path, server.url, prompt, more), tmp_path / "run", workers=0)
        assert sum((before + server.completed).values()) == 200 + sum(before.values()) - kept
        lost = sum(bool(server.fault(text_of(i))) for i in range(200))
    rows = exported(done)
    assert Counter(r["rewrite_status"] for r in rows) == {"source": 200, "rewritten": 200 - lost}
    assert notes(done, "rewrite.outcomes")["outputs rejected: empty"] == lost


def test_an_endpoint_that_is_down_is_said_before_any_work(tmp_path, prompt):
    corpus(tmp_path / "in", 20)
    with Server() as server:
        url = server.url
    with pytest.raises(StageError, match=f"no endpoint at {url}: connection refused; start the server"):
        run(recipe(tmp_path, url, prompt), tmp_path / "run", workers=0)
    assert not (tmp_path / "run" / "documents").exists()
    with Server() as server:
        done = run(recipe(tmp_path, server.url, prompt), tmp_path / "run", workers=0)
    warm = run(recipe(tmp_path, url, prompt), tmp_path / "again", workers=0)  # every answer is in the cache
    assert exported(warm) == exported(done)


def test_how_far_it_is_follows_from_how_far_a_shard_is_read(tmp_path, prompt, monkeypatch):
    corpus(tmp_path / "in", 40)
    shown: list = []
    monkeypatch.setattr(rewriting, "_teller", lambda what: shown.append)
    with Server() as server:
        run(recipe(tmp_path, server.url, prompt), tmp_path / "run", executor="inline")
    ends = [p for p in shown if p.done]
    assert sum(p.done for p in ends) == 40 and len(ends) > 1
    assert all(p.about and p.total == p.done and p.left == 0 for p in ends)


def test_a_key_is_in_nothing_that_a_run_leaves(tmp_path, prompt, monkeypatch):
    secret = "sk-run-0123456789abcdef"
    monkeypatch.setenv("RUN_KEY", secret)
    corpus(tmp_path / "in", 40)
    with Server({"empty": 0.2, "500": 0.2}, key=secret, writes=lambda text: f"{text} Your key is {secret}.") as server:
        done = run(recipe(tmp_path, server.url, prompt, "api_key_env: RUN_KEY"), tmp_path / "run", workers=0)
        assert any("Your key is ***." in r["text"] for r in exported(done))
    monkeypatch.setenv("RUN_KEY", secret + "-old")
    with Server(key=secret) as server, pytest.raises(StageError, match="RUN_KEY") as error:
        given = recipe(tmp_path, server.url, prompt, "api_key_env: RUN_KEY", cache="cold")
        run(given, tmp_path / "other", workers=0)
    assert secret not in str(error.value)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_apply_runs_and_resumes_it(tmp_path, prompt):
    data = corpus(tmp_path / "in", 60)
    with Server() as server:
        port = server.port
    options = {
        "server": f"http://127.0.0.1:{port}/v1", "model": "test-model", "prompt": prompt, "keep_source": "true",
        "cache": tmp_path / "cache",
    }  # fmt: skip
    params = [x for key, value in options.items() for x in ("--param", f"{key}={value}")]
    command = ["apply", "rewrite", str(data), "-o", str(tmp_path / "run"), *params, "--executor", "inline"]
    failed = CliRunner().invoke(main, command)
    assert failed.exit_code == 1 and f"error: no endpoint at http://127.0.0.1:{port}/v1" in failed.output
    with Server(port=port) as server:
        assert CliRunner().invoke(main, command).exit_code == 0
        assert sum(server.completed.values()) == 60
    done = Run(tmp_path / "run")
    assert len(exported(done)) == 120
    (life,) = explain.why(done, "d5")
    assert life["fate"] == {"kind": "expanded", "stage": "rewrite", "children": 2}


@pytest.mark.slow
def test_a_killed_run_with_faults_repeats_nothing_and_loses_nothing(tmp_path, prompt):
    n = 2000
    corpus(tmp_path / "in", n)
    faults = {
        "429": 0.05,
        "500": 0.05,
        "reset": 0.04,
        "hangup": 0.03,
        "empty": 0.04,
        "truncated": 0.03,
        "long": 0.03,
        "foreign": 0.03,
    }
    with Server(faults, latency=0.01) as server:
        text = RECIPE.format(server=server.url, prompt=prompt, cache=tmp_path / "cache", more="retries: 9")
        script = textwrap.dedent("""
            import sys
            from curate.recipe import loads
            from curate.run import run
            run(loads(sys.argv[1]).with_inputs([sys.argv[2]]), sys.argv[3], workers=2)
        """)
        command = [sys.executable, "-c", script, text, str(tmp_path / "in"), str(tmp_path / "run")]
        process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 120
        while sum(server.completed.values()) < n // 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.3)
        (file,) = (tmp_path / "cache").glob("*.jsonl")
        kept = file.read_bytes().count(b"\n")
        answered = sum(server.completed.values())
        assert n // 2 <= answered < n - 100 and answered - 16 <= kept <= answered  # two workers with 8 requests each
        subprocess.run(command, check=True)
        told = Counter(server.fault(text_of(i)) for i in range(n))
        assert sum(server.completed.values()) == n + answered - kept
        print(f"{server.requests} requests, {answered} answered before the kill, {kept} kept, {n + answered - kept} in all")
        print(dict(server.faults), dict(told))
    done = Run(tmp_path / "run")
    rows = {r["id"]: r for r in exported(done)}
    assert len(rows) == n
    kind = {"empty": "empty", "truncated": "truncated", "long": "length", "foreign": "language"}
    found = Counter(r["rewrite_status"] for r in rows.values())
    assert found == {"rewritten": n - sum(told[k] for k in kind), **{kind[k]: told[k] for k in kind}}
    assert sum(told[f] for f in faults) / n == pytest.approx(0.3, abs=0.04)
    wrong = [i for i in range(n) if rows[f"d{i}"]["text"] != ("About " if rows[f"d{i}"]["synthetic"] else "") + text_of(i)]
    assert not wrong
    print(dict(found))


@pytest.mark.slow
def test_a_real_server_of_a_real_model(tmp_path, prompt):
    """`transformers serve` (pip install 'transformers[serving]') with a tiny Llama: outputs are those of the model itself."""
    for package in ("torch", "transformers", "accelerate", "fastapi", "openai", "uvicorn"):
        pytest.importorskip(package)
    from tiny_models import llama
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(llama(tmp_path / "llama"))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    hub = tmp_path / "hub"
    hub.mkdir()
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(hub),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", "cpu"]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        assert process.poll() is None, (tmp_path / "serve.log").read_text()
        options = {"temperature": 0, "top_p": None, "max_tokens": 24}
        stage = Rewrite(
            server=f"http://127.0.0.1:{port}/v1", model=folder, prompt=prompt, parameters=options, cache="none", repairs=0,
            keep_truncated=True, length=(0, 0), same_language=0, chunk_tokens=40,
        )  # fmt: skip
        made = stage(TEXTS[:6]).kept
    finally:
        process.terminate()
        process.wait()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    answers = [a for answers in made["rewrite_answers"].to_pylist() for a in answers]
    texts = [t[a["start"] : a["end"]] for t, row in zip(TEXTS, made["rewrite_answers"].to_pylist(), strict=False) for a in row]
    assert len(texts) > 6 and {a["error"] for a in answers} <= {None, "truncated", "empty"}
    for text, answer in zip(texts, answers, strict=True):
        messages = [{"role": "user", "content": PROMPT.replace("{{ text }}", text).removesuffix("\n")}]  # as Jinja ends it
        given = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**given, max_new_tokens=24, do_sample=False)
        said = tokenizer.decode(out[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        assert (answer["answer"] or "") == said
    assert set(statuses(made)) == {"rewritten"} and len(set(made["text"].to_pylist())) == 6


def noted(stage, *texts):
    """What a task counts."""
    table = in_memory(stage.needs()["answers"], list(texts)).kept
    task = Task(phase="t", rank=0)
    stage.open(task)(table.append_column("_row", pa.array(range(len(texts)), pa.uint32())).to_batches()[0])
    return task.counters


def test_notes_of_a_task_without_a_model(prompt):
    assert noted(Rewrite(function="curate.rewriting:squeezed", cache="none"), "a  b", "") == {
        "documents rewritten": 1,
        "outputs rejected: no_text": 1,
        "tokens of synthetic text (bytes/4)": 1,
    }
