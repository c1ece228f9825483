"""annotate_llm: labels of a sample from a real endpoint, in runs and in memory, and what becomes of documents without them."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from llm_server import Server, answer_for

from curate.errors import RecipeError, StageError
from curate.llm import load_prompt
from curate.recipe import loads
from curate.run import run
from curate.stages.annotate_llm import AnnotateLlm, shortened, spans
from curate.testing import check_stage, documents

EDU = load_prompt("fineweb_edu").schema


def score(text: str) -> int:
    return answer_for(text, EDU)["educational_score"]


def stage_for(server: Server, cache: Path, **options) -> AnnotateLlm:
    given = {"prompt": "fineweb_edu", "model": "test-model", "concurrency": 16}
    return AnnotateLlm(server=server.url, cache=str(cache), **{**given, **options})


def test_it_keeps_the_promises_of_a_stage_while_it_asks(tmp_path):
    with Server({"empty": 0.2, "500": 0.2}) as server:
        for unit in ("document", "block"):
            stage = stage_for(server, tmp_path, prompt="biomed", unit=unit)
            check_stage(stage, documents(stage))
    assert server.requests


def test_labels_are_those_of_the_server(tmp_path):
    texts = [f"document {i}" for i in range(200)]
    with Server({"429": 0.1, "reset": 0.1, "hangup": 0.1}) as server:
        table = stage_for(server, tmp_path)(texts).kept
    assert table["educational_score"].to_pylist() == [score(t) for t in texts]
    assert table["educational_score"].type == pa.int64()
    assert table["annotation_error"].null_count == 200
    assert "justification" not in table.column_names


def test_what_has_no_label_has_an_error_and_is_never_0(tmp_path):
    faults = {"empty": 0.1, "malformed": 0.1, "range": 0.1, "missing": 0.1, "refusal": 0.1, "truncated": 0.1}
    texts = [*(f"document {i}" for i in range(300)), "", None, " \n ", *(f"REJECT {i}" for i in range(3))]
    kinds = {"range": "schema", "missing": "schema", "refusal": "refused", "": None}
    with Server(faults) as server:
        table = stage_for(server, tmp_path)(texts).kept
        expected = [kinds.get(f, f) for f in map(server.fault, texts[:300])]
    assert table["annotation_error"].to_pylist() == expected + ["no_text"] * 3 + ["rejected"] * 3
    wanted = [None if e else score(t) for t, e in zip(texts, table["annotation_error"].to_pylist(), strict=True)]
    assert table["educational_score"].to_pylist() == wanted
    assert len(set(expected)) == 6


def test_a_long_wait_is_explained(tmp_path, monkeypatch, capsys, caplog):
    texts = [f"document {i}" for i in range(120)]
    with Server({"malformed": 0.1}, latency=0.02) as server:
        stage = stage_for(server, tmp_path, concurrency=4, usd_per_million_input=1.0)
        stage(texts[:4])
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("curate.rewriting.EVERY", 0.1)
        stage(texts)
    lines = capsys.readouterr().err.splitlines()
    form = r"annotate_llm, 0.parquet: \d+ of 120 answered, [\d.]+ requests/s, [\d,]+ tokens/s, .*\$[\d.]+, \d+ s left"
    assert any(re.fullmatch(form, line) for line in lines)
    assert "annotate_llm: malformed, such as: there is no JSON object in the answer" in caplog.text


# --------------------------------------------------------------------------------------------- the sample


def chosen(server: Server, cache: Path, table: pa.Table, **options) -> set[str]:
    got = stage_for(server, cache, **options)(table).kept
    return {i for i, s in zip(got["id"].to_pylist(), got["educational_score"].to_pylist(), strict=True) if s is not None}


def test_the_sample_is_a_share_or_a_number_and_follows_from_seed_and_id(tmp_path):
    table = pa.table({"id": [f"d{i}" for i in range(600)], "text": [f"text {i}" for i in range(600)], "n": list(range(600))})
    with Server() as server:
        share = chosen(server, tmp_path, table, sample=0.25)
        assert 110 < len(share) < 190
        before = server.requests
        assert chosen(server, tmp_path, table.take(list(range(599, -1, -1))), sample=0.25) == share  # whatever the order
        assert server.requests == before
        assert chosen(server, tmp_path, table, sample=0.25, seed=7) != share
        number = chosen(server, tmp_path, table, sample=40)
        assert len(number) == 40 and number < share
        assert len(chosen(server, tmp_path, table, sample=41) - number) == 1
        assert chosen(server, tmp_path, table, sample=0) == set()
        assert len(chosen(server, tmp_path, table.slice(0, 20), sample=40)) == 20
        some = chosen(server, tmp_path, table, sample=30, where="n < 100")
        assert len(some) == 30 and all(int(i[1:]) < 100 for i in some)
        assert chosen(server, tmp_path, table, where="n > 1000") == set()


def test_a_condition_reads_its_columns():
    stage = AnnotateLlm(model="m", prompt="fineweb_edu", where="language = 'en' AND quality > 0.3")
    assert stage.fit_reads() == ("id", "text", "language", "quality")
    assert stage.steps(1, 1)[0].reads == ("id", "language", "quality")  # texts are read of the chosen alone
    with pytest.raises(RecipeError, match="where: "):
        AnnotateLlm(model="m", prompt="fineweb_edu", where="avg(n) > 1").fit_reads()


# --------------------------------------------------------------------------------------------- texts and columns


def test_a_long_text_is_cut(tmp_path):
    assert shortened("abcdefghij", 10, "head_tail") == "abcdefghij"
    assert shortened("abcdefghijk", 9, "head") == "abcdefghi"
    assert shortened("abcdefghijk", 9, "head_tail") == "abcdef\n[...]\nijk"
    assert shortened("abc", 1, "head_tail") == "a\n[...]\n"
    with Server() as server:
        stage_for(server, tmp_path, max_chars=30, cut="head_tail")(["b" * 500 + "e" * 500])
    assert f"\n{'b' * 20}\n[...]\n{'e' * 10}\n" in server.bodies[0]["messages"][0]["content"]


@pytest.mark.parametrize("prompt, columns", [("fineweb_edu", 1), ("dataman", 15), ("biomed", 4)])
def test_columns_come_from_the_schema(tmp_path, prompt, columns):
    schema = load_prompt(prompt).schema["properties"]
    with Server() as server:
        table = stage_for(server, tmp_path, prompt=prompt)(["one", "two"]).kept
        names = AnnotateLlm(model="m", prompt=prompt).writes().names
    assert len(names) == columns + 1 and names[-1] == "annotation_error"
    for name, part in schema.items():
        if (column := part.get("x-column", name)) is not False:
            want = [answer_for(t, {"properties": {name: part}})[name] for t in ("one", "two")]
            assert table[column].to_pylist() == want
    assert set(server.bodies[0]["response_format"]["json_schema"]["schema"]["properties"]) == set(schema)


def test_columns_may_be_chosen_and_named(tmp_path):
    stage = AnnotateLlm(model="m", prompt="fineweb_edu", columns=("justification", "educational_score"), prefix="edu_")
    assert stage.writes() == pa.schema(
        [("edu_justification", pa.string()), ("edu_educational_score", pa.int64()), ("edu_annotation_error", pa.string())]
    )
    with Server() as server:
        plain = stage_for(server, tmp_path, unit="line", min_chars=1)(["one\ntwo"]).kept
        named = stage_for(server, tmp_path, unit="line", min_chars=1, prefix="a_")(plain).kept
    added = [n for n in named.column_names if n not in plain.column_names]
    assert added == ["a_" + n for n in stage_for(server, tmp_path, unit="line").writes().names]
    assert all(named[n].equals(named[n.removeprefix("a_")]) for n in added) and server.requests == 2
    with pytest.raises(RecipeError, match="has no property 'educational_scor'; did you mean 'educational_score'"):
        AnnotateLlm(model="m", prompt="fineweb_edu", columns=("educational_scor",)).writes()


def test_a_prompt_of_ones_own(tmp_path):
    (tmp_path / "own.jinja").write_text("Tags of: {{ text }}")
    schema = {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string"}},
            "good": {"type": "boolean"},
            "share": {"type": "number", "minimum": 0, "maximum": 1},
        },
        "required": ["tags"],
    }
    own = str(tmp_path / "own.jinja")
    with pytest.raises(RecipeError, match=r"no schema beside it: give own.json"):
        AnnotateLlm(model="m", prompt=own).writes()
    (tmp_path / "own.json").write_text(json.dumps(schema))
    with Server() as server:
        table = stage_for(server, tmp_path / "cache", prompt=own)(["a"]).kept
        parts = stage_for(server, tmp_path / "cache", prompt=own, unit="line", min_chars=1)(["a\nb"]).kept
    assert table.select(["tags", "good", "share"]).to_pylist()[0]["tags"] == answer_for("Tags of: a", schema)["tags"]
    assert table["share"].type == pa.float32() and table["good"].type == pa.bool_()
    both = [answer_for(f"Tags of: {t}", schema) for t in "ab"]
    assert parts["paragraph_tags"].to_pylist() == [[b["tags"] for b in both]]
    assert parts["tags"].to_pylist() == [list(dict.fromkeys(both[0]["tags"] + both[1]["tags"]))]
    (tmp_path / "own.json").write_text(json.dumps({"properties": {"o": {"type": "object"}}}))
    with pytest.raises(RecipeError, match="o is no column"):
        AnnotateLlm(model="m", prompt=own).writes()


# --------------------------------------------------------------------------------------------- paragraphs


def test_paragraphs_are_where_the_text_says():
    text = "\n one \ntwo\n \t\n\n  three\n\nfour"
    assert [text[a:b] for a, b in spans(text, "block")] == ["one \ntwo", "three", "four"]
    assert [text[a:b] for a, b in spans(text, "line")] == ["one", "two", "three", "four"]
    assert [text[a:b] for a, b in spans(text, "document")] == [text.strip()]
    assert spans(" \n\n ", "block") == spans("", "line") == spans("", "document") == []


def test_paragraphs_are_labelled_by_themselves_and_weighed_by_tokens(tmp_path):
    blocks = [f"Paragraph {i} " + "word " * (10 * (i % 7) + 10) for i in range(40)]
    texts = ["\n\n".join([*blocks[i : i + 4], "short"]) for i in range(0, 40, 4)] + ["short", ""]
    schema = load_prompt("biomed").schema
    with Server({"malformed": 0.3}) as server:
        table = stage_for(server, tmp_path, prompt="biomed", unit="block", min_chars=20)(texts).kept
        faults = {b.strip(): server.fault(b.strip()) for b in blocks}
    for row in table.to_pylist()[:10]:
        parts = [row["text"][a:b] for a, b in zip(row["paragraph_start"], row["paragraph_end"], strict=True)]
        assert parts[-1] == "short" and len(parts) == 5
        errors = [*("malformed" if faults[p] else None for p in parts[:-1]), "no_text"]
        assert row["paragraph_error"] == errors
        answers = [None if e else answer_for(p, schema) for p, e in zip(parts, errors, strict=True)]
        assert row["paragraph_educational_score"] == [a and a["educational_score"] for a in answers]
        tokens = [math.ceil(len(p) / 4) for p in parts]
        assert row["paragraph_tokens"] == tokens
        weighed = [(a, n) for a, n in zip(answers, tokens, strict=True) if a]
        mean = sum(a["educational_score"] * n for a, n in weighed) / sum(n for _, n in weighed)
        assert row["educational_score"] == pytest.approx(mean, rel=1e-6)
        votes = Counter()
        for a, n in weighed:
            votes[a["domain"]] += n
        assert votes[row["domain"]] == max(votes.values())
        assert row["annotation_error"] == ("malformed" if "malformed" in errors else None)
    assert table["annotation_error"].to_pylist()[10:] == ["no_text", "no_text"]
    assert table["paragraph_error"].to_pylist()[10:] == [["no_text"], []]
    assert table["educational_score"].null_count == 2
    assert any(faults.values()) and not all(faults.values())


# --------------------------------------------------------------------------------------------- runs

RECIPE = """\
name: labels
source: jsonl
stages:
  - annotate_llm:
      server: {server}
      model: test-model
      prompt: fineweb_edu
      sample: 0.5
      cache: {cache}
      concurrency: 8
      {more}
output: {{shard_mb: 0.02, validation: 0}}
"""


def corpus(folder: Path, n: int) -> Path:
    folder.mkdir()
    for part in range(4):
        with (folder / f"{part}.jsonl").open("w") as out:
            for i in range(part, n, 4):
                out.write(json.dumps({"id": f"d{i}", "text": f"This is document number {i} of a small corpus."}) + "\n")
    return folder


def test_runs_on_any_number_of_workers_are_equal_and_a_warm_cache_asks_nothing(tmp_path):
    data = corpus(tmp_path / "in", 400)
    faults = {"429": 0.05, "500": 0.03, "reset": 0.03, "empty": 0.05, "range": 0.05}
    digests = []
    with Server(faults) as server:
        recipe = RECIPE.format(server=server.url, cache=tmp_path / "cache", more="")
        for i, workers in enumerate((2, 0, 1)):
            done = run(loads(recipe).with_inputs([str(data)]), tmp_path / f"run{i}", workers=workers)
            digests.append(done.manifest.digest)
            if i == 0:
                before, repeated = server.requests, max(server.completed.values())
        assert server.requests == before > 150 and repeated <= 2
    assert len(set(digests)) == 1
    layers = [sorted((tmp_path / f"run{i}").glob("attributes/annotate_llm-*/*.parquet")) for i in range(3)]
    assert layers[0] and [p.read_bytes() for p in layers[0]] == [p.read_bytes() for p in layers[1]]
    rows = [row for path in layers[0] for row in pq.read_table(path).to_pylist()]
    labelled = sum(row["educational_score"] is not None for row in rows)
    failed = Counter(row["annotation_error"] for row in rows if row["annotation_error"])
    assert len(rows) == 400 and set(failed) == {"empty", "schema"} and labelled > 100
    (noted,) = [s["notes"] for s in done.summary["stages"] if s["id"] == "annotate_llm"]
    assert noted == {"documents labelled": labelled, **{f"documents without labels: {k}": n for k, n in failed.items()}}


def test_a_run_whose_endpoint_is_down_says_so_and_resumes(tmp_path):
    data = corpus(tmp_path / "in", 60)
    with Server() as server:
        port = server.port
    recipe = loads(RECIPE.format(server=f"http://127.0.0.1:{port}/v1", cache=tmp_path / "cache", more="")).with_inputs(
        [str(data)]
    )
    started = time.monotonic()
    with pytest.raises(StageError, match=rf"no endpoint at http://127.0.0.1:{port}/v1: connection refused; start the server"):
        run(recipe, tmp_path / "run", workers=0)
    assert time.monotonic() - started < 5
    with Server(port=port) as server:
        run(recipe, tmp_path / "run", workers=0)
        assert server.requests > 10


def test_where_and_how_fast_it_is_asked_is_no_other_stage(tmp_path):
    data = corpus(tmp_path / "in", 60)
    with Server() as server:
        recipe = RECIPE.format(server=server.url, cache=tmp_path / "cache", more="budget_tokens: 1000000")
        first = run(loads(recipe).with_inputs([str(data)]), tmp_path / "run", workers=0)
        asked = server.requests
        other = RECIPE.format(server="http://127.0.0.1:9/v1", cache=tmp_path / "another", more="requests_per_minute: 60")
        again = run(loads(other).with_inputs([str(data)]), tmp_path / "run", workers=0)
        assert again.manifest.digest == first.manifest.digest and server.requests == asked > 10
        with pytest.raises(StageError, match="no endpoint"):  # a parameter that decides is another stage
            run(loads(other.replace("sample: 0.5", "sample: 0.9")).with_inputs([str(data)]), tmp_path / "run", workers=0)


def test_a_budget_holds_for_all_workers_together(tmp_path):
    data = corpus(tmp_path / "in", 400)
    with Server(latency=0.002) as server:
        for workers, budget in ((2, 30_000), (0, 30_000), (0, 40_000)):  # what was spent counts on when it is raised
            more = f"budget_tokens: {budget}\n      parameters: {{max_tokens: 20}}"
            recipe = loads(RECIPE.format(server=server.url, cache=tmp_path / "cache", more=more)).with_inputs([str(data)])
            with pytest.raises(StageError, match=f"budget_tokens is used up: .* of {budget:,} spent"):
                run(recipe, tmp_path / "run", workers=workers)
            used = sum(len(b["messages"][0]["content"]) // 4 + 15 for b in server.bodies)
            assert budget - 5000 < used <= budget + 1000


def test_a_key_is_in_nothing_that_a_run_leaves(tmp_path, monkeypatch):
    secret = "sk-run-0123456789abcdef"
    monkeypatch.setenv("RUN_KEY", secret)
    data = corpus(tmp_path / "in", 40)
    with Server({"empty": 0.2, "500": 0.2}, key=secret) as server:
        recipe = loads(RECIPE.format(server=server.url, cache=tmp_path / "cache", more="api_key_env: RUN_KEY"))
        run(recipe.with_inputs([str(data)]), tmp_path / "run", workers=0)
    monkeypatch.setenv("RUN_KEY", secret + "-old")
    with Server(key=secret) as server, pytest.raises(StageError, match="RUN_KEY") as error:
        recipe = loads(RECIPE.format(server=server.url, cache=tmp_path / "cold", more="api_key_env: RUN_KEY"))
        run(recipe.with_inputs([str(data)]), tmp_path / "other", workers=0)
    assert secret not in str(error.value)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_killed_run_repeats_no_answered_request(tmp_path):
    data = corpus(tmp_path / "in", 1200)
    with Server({"429": 0.1, "500": 0.1}, latency=0.01) as server:
        recipe = RECIPE.format(server=server.url, cache=tmp_path / "cache", more="retries: 9")
        script = textwrap.dedent("""
            import sys
            from curate.recipe import loads
            from curate.run import run
            run(loads(sys.argv[1]).with_inputs([sys.argv[2]]), sys.argv[3], workers=2)
        """)
        command = [sys.executable, "-c", script, recipe, str(data), str(tmp_path / "run")]
        process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 60
        while sum(server.completed.values()) < 250 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        (file,) = (tmp_path / "cache").glob("*.jsonl")
        kept = file.read_bytes().count(b"\n")
        answered = sum(server.completed.values())
        assert 200 < answered < 500 and answered - 16 <= kept <= answered  # two workers with 8 requests each
        subprocess.run(command, check=True)
        rows = sum(row is None for p in (tmp_path / "run").glob("attributes/annotate_llm-*/*.parquet")
                   for row in pq.read_table(p)["annotation_error"].to_pylist())  # fmt: skip
        assert rows == 1200
        assert sum(server.completed.values()) - answered == len(server.completed) - kept
        assert max(server.completed.values()) <= 2


# --------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "options, said",
    [
        ({"model": ""}, "model is empty"),
        ({"prompt": "fineweb_ed"}, "did you mean 'fineweb_edu'"),
        ({"server": "localhost:8000"}, "base URL"),
        ({"server": "http://user:hidden@h/v1"}, "no user, password"),
        ({"sample": -0.1}, "sample"),
        ({"sample": 1.5}, "sample"),
        ({"prefix": "_"}, "prefix"),
        ({"unit": "sentence"}, "unit"),
        ({"max_chars": 0}, "max_chars"),
        ({"concurrency": 0}, "concurrency"),
        ({"budget_usd": 1.0}, "prices"),
        ({"api_key_env": "sk-hidden"}, "never the key"),
        ({"parameters": {"messages": []}}, "'messages' is set by Curate"),
    ],
)
def test_parameters_that_cannot_be(options, said):
    with pytest.raises(RecipeError, match=said) as error:
        AnnotateLlm(**{"model": "m", "prompt": "fineweb_edu", **options}).writes()
    assert "hidden" not in str(error.value)


def test_no_server_is_an_error_only_where_something_is_asked(monkeypatch):
    monkeypatch.delenv("CURATE_LLM_SERVER", raising=False)
    stage = AnnotateLlm(model="m", prompt="fineweb_edu")
    with pytest.raises(RecipeError, match=r"no server: give `server`.*CURATE_LLM_SERVER"):
        stage(["a text"])
