"""refine: programs of a model, of a column and of rules, what becomes of documents, and that runs agree, resume and replay."""

import json
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from llm_server import Server, draw

from curate.errors import ColumnError, RecipeError, StageError
from curate.programs import execute, heuristic
from curate.recipe import loads
from curate.run import run
from curate.stages.refine import Refine
from curate.stages.refine_programs import RefinePrograms
from curate.testing import check_stage, documents

STORY = "The river rose by two metres in the night, flooded the lower town, and went down again by noon."
NUMBER = re.compile(r"\[(\d{3,})\] ", re.A)


class Programmer(Server):
    """Answers with programs: a document with SPAM goes, as do lines with NOISE, and strings between hyphens."""

    def _content(self, asked, prompt, text, fault):
        dialect = "refinex" if "keep_all()" in prompt else "prox"
        if fault in ("empty", "truncated"):
            return ("", "stop") if fault == "empty" else ("remove_lines(line_sta", "length")
        if "drop_doc()" in prompt:
            return ("drop_doc()" if "SPAM" in text else "keep_doc()"), "stop"
        if fault == "malformed":
            return "I would take out a few lines.\nAll else is fine.", "stop"
        if fault == "range":
            return "remove_lines(7000, 7001)\nremove_lines(8000, 8000)", "stop"
        calls = []
        for line in text.split("\n"):
            number, rest = int(NUMBER.match(line)[1]), line.partition("] ")[2]
            if "NOISE" in rest:
                calls.append(f"remove_lines({number}, {number})")
            elif found := re.search("-[a-z ]+-", rest):
                literal = json.dumps(found[0])
                calls.append(f'normalize({literal}, "")' if dialect == "prox" else f"remove_str({number}, {literal})")
        program = "\n".join(calls) or ("keep_chunk()" if dialect == "prox" else "keep_all()")
        return (f"<think>{{NOISE}}</think>```python\n{program}\n```" if fault == "fenced" else program), "stop"


def wanted(text: str) -> str:
    """What the programmer's programs make of a text."""
    return "\n".join(re.sub("-[a-z ]+-", "", line) for line in text.split("\n") if "NOISE" not in line)


def page(i: int) -> str:
    lines = [
        f"NOISE Home {i} News",
        f"{STORY} That was in year {i}.",
        "",
        f"And -click {'abc'[i % 3]}- again. {STORY}",
        "NOISE Share",
    ]
    return "\n".join(lines[: 5 - i % 2]) + (" SPAM" if i % 7 == 3 else "")


PAGES = [page(i) for i in range(60)]


def stage_for(server: Server, cache: Path, **options) -> Refine:
    return Refine(server=server.url, model="test-model", cache=str(cache), **{"concurrency": 16, **options})


# --------------------------------------------------------------------------------------------- programs of a model


@pytest.mark.parametrize("dialect", ["prox", "refinex"])
def test_programs_of_a_model_are_carried_out(tmp_path, dialect):
    with Programmer({"429": 0.1, "reset": 0.1, "fenced": 0.2}) as server:
        result = stage_for(server, tmp_path, dialect=dialect)(PAGES)
        asked = server.requests
        assert stage_for(server, tmp_path, dialect=dialect)(PAGES).kept.equals(result.kept)
        assert server.requests == asked
    spam = [i for i in range(60) if i % 7 == 3]
    kept, gone = result.kept.to_pylist(), result.dropped.to_pylist()
    assert [row["id"] for row in gone] == [str(i) for i in spam]
    assert {row["_reason"] for row in gone} == {"refine.dropped"} and {tuple(row["refine_programs"]) for row in gone} == {()}
    assert {row["refine_status"] for row in gone} == {"dropped"} and gone[0]["text"] == PAGES[3]
    assert [row["text"] for row in kept] == [wanted(text) for i, text in enumerate(PAGES) if i not in spam]
    assert {(row["refine_status"], row["refine_errors"], row["refine_document"]) for row in kept} == {("kept", 0, "keep_doc()")}
    assert all(row["refine_words_after"] == len(row["text"].split()) < row["refine_words_before"] for row in kept)
    assert {row["refine_generator"] for row in kept} == {"test-model"}
    assert not any("think" in program for row in kept for program in row["refine_programs"])
    body = server.bodies[0]
    assert body["temperature"] == 0 and body["max_tokens"] == 256


def test_a_long_document_is_asked_about_in_chunks(tmp_path):
    long = "x" * 900
    text = "\n".join([*(f"NOISE {i}" if i % 10 == 4 else f"{STORY} {i}" for i in range(40)), f"NOISE {long}", "The end."])
    with Programmer() as server:
        kept = stage_for(server, tmp_path, window=200, head=100, parameters={"max_tokens": 99})([text]).kept.to_pylist()[0]
        shown = [body["messages"][-1]["content"].split("==========")[1].strip("\n") for body in server.bodies]
    assert kept["text"] == "\n".join(line for line in text.split("\n") if "NOISE" not in line or long in line)
    document = [part for part in shown if not part.startswith("[")]
    assert document == [text[:400].strip("\n")]
    chunks = sorted((part for part in shown if part.startswith("[")), key=lambda part: int(NUMBER.match(part)[1]))
    numbered = [f"[{i:03d}] {line}" for i, line in enumerate(text.split("\n")) if long not in line]
    assert "\n".join(chunks) == "\n".join(numbered) and len(chunks) > 5
    assert all(len(part.encode()) <= 4 * 200 for part in chunks)
    assert kept["refine_programs"].count(None) == 1 and len(kept["refine_programs"]) == len(chunks) + 1
    assert server.bodies[0]["max_tokens"] == 99


def test_answers_that_are_no_programs_are_counted_by_kind_and_nothing_is_lost(tmp_path):
    faults = {"empty": 0.15, "truncated": 0.15, "malformed": 0.15, "range": 0.15, "refusal": 0.1}
    texts = [*(text for i, text in enumerate(PAGES) if i % 7 != 3), f"REJECT {STORY}"]
    with Programmer(faults) as server:
        kept = stage_for(server, tmp_path)(texts)
        dropped = stage_for(server, tmp_path, on_reject="drop")(texts)
        blind = stage_for(server, tmp_path, errors=0)(texts)
    assert kept.dropped.num_rows == 0
    kinds = Counter()
    for text, row in zip(texts, kept.kept.to_pylist(), strict=True):
        kind = row["refine_error"] or {0: None, 2: "errors"}[row["refine_errors"]]
        kinds[kind] += 1
        assert row["text"] == (text if kind else wanted(text))
        assert row["refine_status"] == ("fallback" if kind else "kept")
    assert set(kinds) == {"empty", "truncated", "refused", "rejected", "errors", None} and kinds["rejected"] == 1
    reasons = Counter(row["_reason"] for row in dropped.dropped.to_pylist())
    assert sum(reasons.values()) == len(texts) - kinds[None] == len(texts) - dropped.kept.num_rows
    assert reasons.pop("refine.unparsable") + reasons.pop("refine.out_of_range") == kinds["errors"]
    assert reasons == {f"refine.{k}": n for k, n in kinds.items() if k not in (None, "errors")}
    assert Counter(row["refine_status"] for row in blind.kept.to_pylist())["unchanged"] == kinds["errors"]


def test_documents_or_chunks_alone(tmp_path):
    with Programmer() as server:
        table = stage_for(server, tmp_path, prompt="")(PAGES)
        assert table.dropped.num_rows == 9 and set(table.kept["refine_status"].to_pylist()) == {"unchanged"}
        assert server.requests == 60
        table = stage_for(server, tmp_path, document_prompt="")(PAGES)
        assert table.dropped.num_rows == 0 and table.kept["text"].to_pylist() == [wanted(text) for text in PAGES]
        assert server.requests == 120 and table.kept["refine_document"].null_count == 60
        own = tmp_path / "own.jinja"
        own.write_text("keep_chunk() {{ dialect }}\n==========\n{{ text }}\n==========")
        assert stage_for(server, tmp_path, document_prompt="", prompt=str(own))(PAGES).kept.equals(table.kept)
        assert server.bodies[-1]["messages"][0]["content"].startswith("keep_chunk() prox\n==========\n[000] ")
        own.write_text("{{ texts }}")
        with pytest.raises(RecipeError, match=r"own\.jinja: 'texts' is undefined; it is given: text, dialect"):
            stage_for(server, tmp_path, document_prompt="", prompt=str(own))(PAGES[:1])


def test_blank_documents_are_not_asked_about(tmp_path):
    with Programmer() as server:
        result = stage_for(server, tmp_path)(["", None, " \n ", STORY])
        assert server.requests == 2 and result.kept["text"].to_pylist() == [STORY]
        assert result.dropped["_reason"].to_pylist() == ["refine.too_little"] * 3
        kept = stage_for(server, tmp_path, min_words=None, min_share=-1)(["", None]).kept
    assert kept["text"].to_pylist() == ["", None] and kept["refine_status"].to_pylist() == ["unchanged"] * 2
    assert kept["refine_programs"].to_pylist() == [[], []]


@pytest.mark.slow
def test_it_keeps_the_promises_of_a_stage_while_it_asks(tmp_path):
    with Programmer({"empty": 0.1, "500": 0.1, "malformed": 0.1}) as server:
        stage = RefinePrograms(server=server.url, model="test-model", cache=str(tmp_path), window=64)
        table = documents(stage)
        table = table.filter(pa.compute.less(table["text_bytes"], 10_000))
        check_stage(stage, table)
        assert server.requests > 20


# --------------------------------------------------------------------------------------------- programs of a column


def test_programs_may_come_from_any_column():
    text = f"Menu\n{STORY}\nFooter"
    table = pa.table(
        {
            "text": [text, text, text, None, text],
            "cleaning": ["remove_lines(0, 0)", None, "remove_lines(0, 9)\nnonsense", "keep_chunk()", ""],
            "many": [["remove_lines(0, 0)", None, "remove_lines(2, 2)"], None, ["remove_lines(9, 9)"], [], [None]],
            "verdict": ["keep_doc()", "drop_doc()", None, "keep_doc()", "perhaps"],
            "why_not": [None, None, "timeout", None, "out of paper"],
        }
    )
    one = Refine(programs="cleaning")(table)
    assert one.kept["text"].to_pylist() == [f"{STORY}\nFooter", text, text, text]
    assert one.kept["refine_status"].to_pylist() == ["kept", "unchanged", "fallback", "unchanged"]
    assert one.kept["refine_errors"].to_pylist() == [0, 0, 2, 0]
    assert one.dropped["_reason"].to_pylist() == ["refine.too_little"]
    many = Refine(programs="many", document="verdict", failures="why_not", on_reject="drop")(table)
    assert many.kept["text"].to_pylist() == [STORY]
    assert many.dropped["_reason"].to_pylist() == ["refine.dropped", "refine.timeout", "refine.too_little", "refine.failed"]
    assert many.dropped["_value"].to_pylist() == [None, 0, 0, 0]
    with pytest.raises(StageError, match="the column 'n' is int64; programs are strings, or lists of strings"):
        Refine(programs="n")(table.append_column("n", pa.array(range(5))))
    with pytest.raises(ColumnError, match="'cleanin', which nothing before it writes; did you mean 'cleaning'"):
        Refine(programs="cleanin")(table)


def test_columns_beside_are_found_by_their_names():
    stage = Refine(programs="a_programs")
    assert stage.reads() == ("text", "a_programs")
    assert stage.bound(["text", "a_programs", "a_document", "a_error"]).reads() == (
        "text",
        "a_document",
        "a_programs",
        "a_error",
    )
    assert stage.bound(["text", "a_programs", "refine_document"]).reads() == ("text", "a_programs")
    assert Refine(programs="cleaning").bound(["document", "error"]).reads() == ("text", "cleaning")


def test_programs_are_not_carried_out_twice():
    text = f"Home | News | About\n{STORY}\n{STORY[::-1]}"
    refined = Refine()([text]).kept
    with pytest.raises(RecipeError, match="have been refined by 'refine_programs' already"):
        Refine(programs="refine_programs")(refined)
    again = Refine(programs="refine_programs")(RefinePrograms()([text]).kept).kept
    assert again["text"].to_pylist() == refined["text"].to_pylist() == [f"{STORY}\n{STORY[::-1]}"]


def test_deletion_only_and_growth():
    table = pa.table({"text": [STORY], "p": ['normalize("river", "stream")\nnormalize("two metres", "2 m")']})
    assert Refine(programs="p")(table).kept["text"].to_pylist() == [
        STORY.replace("river", "stream").replace("two metres", "2 m")
    ]
    strict = Refine(programs="p", deletion_only=True)(table).kept
    assert strict["refine_status"].to_pylist() == ["fallback"] and strict["text"].to_pylist() == [STORY]
    assert Refine(programs="p", growth=1.0)(table).kept["refine_errors"].to_pylist() == [1]


# --------------------------------------------------------------------------------------------- rules


def test_rules_need_no_model():
    text = f"Home | News | About\n{STORY}\nRead more"
    for dialect in ("prox", "refinex"):
        kept = Refine(dialect=dialect)([text, STORY]).kept.to_pylist()
        assert [row["text"] for row in kept] == [STORY, STORY]
        assert [row["refine_status"] for row in kept] == ["kept", "unchanged"]
        assert kept[0]["refine_programs"] == [heuristic(text, dialect)] and kept[0]["refine_generator"] == "heuristic"


# --------------------------------------------------------------------------------------------- runs

COLUMNS = ("id", "text", "refine_status", "refine_programs", "refine_document")
RECIPE = """\
name: refined
source: {source}
stages:
  - refine: {{{refine}}}
output: {{shard_mb: {shard_mb}, validation: 0, columns: [{columns}]}}
"""


def corpus(folder: Path, texts: list[str], files: int = 4) -> Path:
    folder.mkdir()
    for part in range(files):
        lines = [json.dumps({"id": f"d{i}", "text": t}) for i, t in enumerate(texts) if i % files == part]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def output(done) -> dict[str, dict]:
    rows = [row for path in sorted((done.root / "output/data").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return {row["id"]: {name: row[name] for name in COLUMNS} for row in rows}


def notes(done, stage: str = "refine") -> dict[str, int]:
    return next(s["notes"] for s in done.summary["stages"] if s["id"] == stage)


def recipe_for(data: Path, refine: str, shard_mb: float = 0.02, source: str = "jsonl"):
    return loads(RECIPE.format(source=source, refine=refine, shard_mb=shard_mb, columns=", ".join(COLUMNS))).with_inputs(
        [str(data)]
    )


RULED = [f"Home | News | About\n{STORY} {i}\n\nRead more\n© 2024 Gazette" for i in range(80)]


def test_a_run_by_rules_does_not_depend_on_its_shards(tmp_path):
    first, other = (
        run(recipe_for(corpus(tmp_path / f"in{n}", [*RULED, "too short"], n), "", mb), tmp_path / f"run{n}", workers=0)
        for n, mb in ((4, 0.02), (1, 100))
    )
    assert output(first) == output(other)
    assert {i: row["text"] for i, row in output(first).items()} == {f"d{i}": f"{STORY} {i}" for i in range(80)}
    assert notes(first) == notes(other)
    assert notes(first) == {
        "documents kept": 80,
        "documents dropped: too_little": 1,
        "words before": sum(len(text.split()) for text in RULED),
        "words after": sum(len(f"{STORY} {i}".split()) for i in range(80)),
    }


@pytest.mark.slow
def test_runs_by_rules_are_byte_for_byte_the_same(tmp_path):
    data = corpus(tmp_path / "in", RULED)
    first, other = (run(recipe_for(data, ""), tmp_path / f"run{n}", workers=n) for n in (0, 2))
    assert first.manifest.digest == other.manifest.digest
    for layer in ("refine-*", "refine.programs-*"):
        layers = [sorted((tmp_path / f"run{n}").glob(f"attributes/{layer}/*.parquet")) for n in (0, 2)]
        assert layers[0] and [p.read_bytes() for p in layers[0]] == [p.read_bytes() for p in layers[1]]


def test_runs_by_a_model_agree_and_another_threshold_asks_nothing(tmp_path):
    data = corpus(tmp_path / "in", PAGES)
    faults = {"429": 0.05, "500": 0.05, "empty": 0.05, "malformed": 0.1}
    with Programmer(faults) as server:
        refine = f"server: '{server.url}', model: test-model, cache: '{tmp_path / 'cache'}', concurrency: 8"
        first, other = (run(recipe_for(data, refine), tmp_path / f"run{n}", workers=n) for n in (2, 0))
        asked = server.requests
        assert first.manifest.digest == other.manifest.digest and server.requests == asked
        counted = notes(first)
        again = output(run(recipe_for(data, f"{refine}, on_reject: drop, errors: 1"), tmp_path / "run0", workers=0))
    nowhere = "server: 'http://127.0.0.1:9/v1', model: test-model"  # where programs come from is no other stage
    stricter = output(run(recipe_for(data, f"{nowhere}, min_words: 45"), tmp_path / "run0", workers=0))
    assert server.requests == asked > 100
    fallen = sum(n for kind, n in counted.items() if kind.startswith("documents fallback"))
    assert counted["documents dropped: dropped"] + fallen + counted["documents kept"] == 60 and fallen > 3
    assert counted["calls of programs: unparsable"] == 2 * counted["documents fallback: unparsable"] > 0
    assert again.keys() < output(first).keys()
    assert len(again) == counted["documents kept"]
    assert all(row["refine_status"] == "kept" for row in again.values())
    assert {row["refine_status"] for row in stricter.values()} == {"fallback"} and len(stricter) == fallen


def test_stored_programs_give_the_same_texts_without_the_model(tmp_path):
    data = corpus(tmp_path / "in", PAGES)
    with Programmer({"empty": 0.1, "malformed": 0.1, "range": 0.1}) as server:
        how = f"server: '{server.url}', model: test-model, cache: '{tmp_path / 'cache'}'"
        refined = run(recipe_for(data, how), tmp_path / "refined", workers=0)
        alone = f"name: p\nsource: jsonl\nstages:\n  - refine_programs: {{{how}}}\noutput: {{validation: 0}}\n"
        run(loads(alone).with_inputs([str(data)]), tmp_path / "programs", workers=0)
    stored = pq.read_table(next((tmp_path / "programs/output/data").rglob("*.parquet")))
    assert stored.num_rows == 60 and set(stored["text"].to_pylist()) == set(PAGES)
    replay = recipe_for(tmp_path / "programs/output/data", "programs: refine_programs", 1, "parquet")
    replayed = run(replay, tmp_path / "replayed", workers=0)
    assert output(replayed) == output(refined) and notes(replayed) == notes(refined)
    assert {row["refine_status"] for row in output(replayed).values()} == {"kept", "fallback"}


def test_a_run_whose_server_dies_resumes_and_repeats_nothing(tmp_path):
    data = corpus(tmp_path / "in", PAGES)
    with Programmer(die_after=70) as server:
        port = server.port
        how = f"server: '{server.url}', model: test-model, cache: '{tmp_path / 'cache'}', concurrency: 4, retries: 0"
        with pytest.raises(StageError, match=r"has stopped answering|no endpoint"):
            run(recipe_for(data, how), tmp_path / "run", workers=0)
        answered = sum(server.completed.values())
        assert 50 < answered <= 70
    with Programmer(port=port) as server:
        done = run(recipe_for(data, how), tmp_path / "run", workers=0)
        assert sum(server.completed.values()) + answered == 60 + 51  # documents, and chunks of those that stay
        assert max(server.completed.values()) == 1
    expected = {f"d{i}": wanted(text) for i, text in enumerate(PAGES) if i % 7 != 3}
    assert {i: row["text"] for i, row in output(done).items()} == expected


def test_every_document_is_what_its_program_makes_of_it(tmp_path):
    """The record is enough for an audit: programs and text give the result, whatever the model said."""
    texts = [text for i, text in enumerate(PAGES) if draw(text, "take") < 0.5]
    with Programmer({"malformed": 0.3, "range": 0.2}) as server:
        result = stage_for(server, tmp_path)(texts)
    by_id = {str(i): text for i, text in enumerate(texts)}
    for row in result.kept.to_pylist():
        assert execute(by_id[row["id"]], row["refine_document"], row["refine_programs"]).text == row["text"]


# --------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "options, said",
    [
        ({"server": "http://127.0.0.1:1/v1"}, "a server but no model"),
        ({"model": "m", "server": "127.0.0.1"}, "base URL"),
        ({"model": "m", "programs": "p"}, "from a column or from a model"),
        ({"document": "d"}, "columns beside `programs`"),
        ({"model": "m", "prompt": "", "document_prompt": ""}, "both empty"),
        ({"dialect": "python"}, "dialect is 'python'"),
        ({"errors": -1}, "errors is -1"),
        ({"min_share": 2}, "min_share is 2"),
        ({"min_words": -2}, "min_words is -2"),
        ({"growth": 0.5}, "growth is 0.5"),
        ({"on_reject": "stop"}, "on_reject is 'stop'"),
        ({"window": 3}, "window is 3; give 64 tokens or more"),
        ({"head": 0}, "head is 0"),
        ({"concurrency": 0}, "concurrency"),
        ({"budget_usd": 1}, "prices"),
        ({"api_key_env": "sk-hidden"}, "never the key"),
    ],
)
def test_parameters_that_cannot_be(options, said):
    with pytest.raises(RecipeError, match=said) as error:
        Refine(**options)
    assert "hidden" not in str(error.value)


def test_a_prompt_that_is_not_there():
    with pytest.raises(RecipeError, match=r"no prompt 'refine_chunks'.*did you mean 'refine_chunk'"):
        RefinePrograms(model="m", prompt="refine_chunks").files()


@pytest.mark.parametrize("dialect", ["prox", "refinex"])
def test_the_example_in_the_prompt_is_what_the_parser_reads(dialect):
    from curate.llm import load_prompt
    from curate.programs import numbered, parse

    shown = load_prompt("refine_chunk").renderer("test")(text=numbered("a\nb", 7), dialect=dialect)
    assert shown.split("==========")[1] == "\n[007] a\n[008] b\n"
    example = shown.split("the program is\n")[1].split("\n\n")[0]
    calls = parse(example, dialect)
    assert len(calls.calls) == 3 and not calls.errors
    listed = shown.split("both ends of a range are meant:\n")[1].split("\n\n")[0]
    assert len(parse(listed, dialect).calls) == 3 and not parse(listed, dialect).errors
    lines = [re.match(r"\s+\[(\d+)\] (.*)", line) for line in shown.split("\n")]
    text = "\n" * 40 + "\n".join(found[2] for found in lines if found)
    done = execute(text, None, [example], dialect).text.strip()
    assert done == "How to sharpen a spade\nHold the file at the angle of the old edge, and push it away from you."
