"""The client of language models, against a real server on a socket that also misbehaves."""

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_server import Server, answer_for

from curate import llm
from curate.errors import MissingExtra, RecipeError, StageError
from curate.llm import Answer, Cache, Client, Completion, Ledger, Limits, Progress, Request

SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 5}, "why": {"type": "string"}},
    "required": ["score", "why"],
}
QUICK = {"backoff": 0.005, "concurrency": 32}


def ask(server: Server, texts, schema=SCHEMA, **options) -> list[Answer]:
    with Client(server.url, "test-model", **{**QUICK, **options}) as client:
        return list(client.ask([Request(text, schema=schema, tag=text) for text in texts]))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# --------------------------------------------------------------------------------------------- answers


def test_answers_come_in_order_with_their_tags_tokens_and_cost():
    texts = [f"text {i}" for i in range(100)]
    with Server() as server:
        answers = ask(server, texts, usd_per_million_input=1000, usd_per_million_output=2000)
    assert [a.tag for a in answers] == texts
    assert [a.value for a in answers] == [answer_for(t, SCHEMA) for t in texts]
    first = answers[0]
    assert first.ok and not first.error and not first.cached
    assert (first.input_tokens, first.output_tokens) == (1, len(first.text) // 4)
    assert first.usd == pytest.approx(1e-3 + first.output_tokens * 2e-3)


def test_free_text_needs_no_schema_and_a_system_message_comes_first():
    with Server() as server, Client(server.url, "test-model") as client:
        (answer,) = client.ask([Request("hello", system="Be brief.")])
    assert (answer.ok, answer.text, answer.value) == (True, "About hello", None)
    assert [m["role"] for m in server.bodies[0]["messages"]] == ["system", "user"]
    assert "response_format" not in server.bodies[0]


def test_unordered_answers_overtake_a_slow_one():
    with Server({"slow": 1.0}, slow=0.2, schema=SCHEMA) as server, Client(server.url, "test-model", **QUICK) as client:
        got = [a.tag for a in client.ask((Request("same" if i else "late", tag=i) for i in range(5)), ordered=False)]
    assert sorted(got) == [0, 1, 2, 3, 4]


def test_chunked_bodies_and_missing_usage_are_understood():
    with Server(chunked=True, usage=False) as server:
        answers = ask(server, ["a text of forty characters, more or less"])
    assert answers[0].ok
    assert answers[0].input_tokens == 40 // 4 and answers[0].output_tokens == math.ceil(len(answers[0].text) / 4)


def test_no_more_requests_than_allowed_are_under_way():
    with Server(latency=0.02) as server:
        ask(server, map(str, range(60)), concurrency=7)
    assert server.most_at_once == 7


# --------------------------------------------------------------------------------------------- faults


def test_two_thousand_requests_at_thirty_percent_faults_are_all_accounted_for(tmp_path):
    """Every text ends as the server's rules say: answered, or with the kind of the fault that it keeps."""
    endpoint = {"429": 0.05, "500": 0.04, "503": 0.02, "reset": 0.03, "hangup": 0.02, "garbage": 0.02, "odd": 0.02}
    model = {
        "empty": 0.02,
        "malformed": 0.02,
        "range": 0.02,
        "missing": 0.01,
        "truncated": 0.01,
        "refusal": 0.01,
        "fenced": 0.01,
    }
    texts = [f"document {i}" for i in range(2000)]
    expected = {"empty": "empty", "malformed": "malformed", "range": "schema", "missing": "schema", "truncated": "truncated"}
    with Server({**endpoint, **model}) as server:
        answers = ask(server, texts, cache=tmp_path)
        faults = [server.fault(t) for t in texts]
        assert 0.27 < sum(map(bool, faults)) / len(texts) < 0.33
        for text, fault, answer in zip(texts, faults, answers, strict=True):
            assert answer.tag == text
            kind = {**expected, "refusal": "refused"}.get(fault, "")
            assert answer.error == kind, (text, fault, answer)
            assert answer.value == (None if kind else answer_for(text, SCHEMA))
        struck = Counter(faults)
        assert {k: server.faults[k] for k in endpoint} == {k: struck[k] for k in endpoint}
        before = server.requests
        again = ask(server, texts, cache=tmp_path)
    assert server.requests == before
    assert [(a.value, a.error, a.text, a.usd) for a in again] == [(a.value, a.error, a.text, a.usd) for a in answers]
    assert all(a.cached for a in again)


@pytest.mark.parametrize(
    "fault, kind",
    [
        ("429", "rate_limited"),
        ("500", "server_error"),
        ("garbage", "garbage"),
        ("odd", "garbage"),
        ("reset", "connection"),
        ("hangup", "connection"),
        ("slow", "timeout"),
    ],
)
def test_a_fault_that_outlasts_the_retries_has_a_kind(fault, kind):
    """Only one text in twelve is struck: the others show that the endpoint is alive."""
    with Server({fault: 0.08}, times=99, slow=5) as server:
        texts = [f"text {i}" for i in range(60)]
        answers = ask(server, texts, retries=1, timeout=0.5)
        for text, answer in zip(texts, answers, strict=True):
            assert answer.error == (kind if server.fault(text) else "")
        assert any(a.error for a in answers)
        assert all(a.detail for a in answers if a.error)


def test_a_model_is_told_what_was_wrong_once():
    with Server({"malformed": 1.0}, mended=True) as server:
        (answer,) = ask(server, ["text"])
        assert answer.ok and len(server.bodies) == 2
        assert "could not be used" in server.bodies[1]["messages"][0]["content"]
        (answer,) = ask(server, ["text"], repairs=0)
        assert answer.error == "malformed"


def test_a_request_that_the_server_rejects_is_not_repeated():
    with Server() as server:
        answers = ask(server, [f"REJECT {i}" if i % 4 == 3 else f"text {i}" for i in range(40)], concurrency=1)
        assert [a.error for a in answers] == ["rejected" if i % 4 == 3 else "" for i in range(40)]
        assert server.requests == 40
        assert answers[3].detail == "status 400: the prompt is too long"
    with Server() as server, pytest.raises(StageError, match="rejects every request: status 400: the prompt is too long"):
        ask(server, [f"REJECT {i}" for i in range(40)])


def test_fifty_answers_of_which_none_is_usable_stop():
    with Server({"empty": 1.0}) as server, pytest.raises(StageError, match="no usable answers: none of 50"):
        ask(server, map(str, range(200)))
    assert server.requests < 2 * (50 + 32) + 1


@pytest.mark.parametrize("value", ["1", "date"])
def test_retry_after_is_honoured(value):
    with Server({"429": 1.0}, retry_after=value) as server:
        (answer,) = ask(server, ["text"], backoff=0)
    assert answer.ok and len(server.moments) == 2
    assert server.moments[1] - server.moments[0] >= (1.0 if value == "1" else 0.0)


def test_retry_after_as_number_date_and_nonsense():
    now = 1_700_000_000.0
    assert llm.retry_after("7") == 7 and llm.retry_after("0.25") == 0.25
    assert llm.retry_after("Tue, 14 Nov 2023 22:13:50 GMT", now) == 30
    assert llm.retry_after("Tue, 14 Nov 2023 22:13:00 GMT", now) == 0
    assert [llm.retry_after(v) for v in ("", "soon", "-3", "9" * 40, "nan")] == [0.0] * 5


# --------------------------------------------------------------------------------------------- structured output


@pytest.mark.parametrize(
    "knows, forms", [(("json_schema",), {"json_schema"}), (("json_object",), {"json_object"}), ((), {None})]
)
def test_a_server_without_schemas_is_told_in_the_prompt(knows, forms):
    texts = [f"text {i}" for i in range(50)]
    with Server(knows=knows) as server:
        answers = ask(server, texts, concurrency=4)
    assert [a.value for a in answers] == [answer_for(t, SCHEMA) for t in texts]
    used = [b.get("response_format", {}).get("type") for b in server.bodies]
    assert set(used[-30:]) == forms  # it has been learned
    assert len(used) <= 50 + 2 * 4


def test_remarks_of_ours_are_not_sent():
    schema = {
        **SCHEMA,
        "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 5, "x-column": "points"}},
        "required": [],
    }
    with Server() as server:
        ask(server, ["text"], schema=schema)
    assert "x-column" not in json.dumps(server.bodies)


@pytest.mark.parametrize(
    "text, value, error",
    [
        ('{"score": 3, "why": "x"}', {"score": 3, "why": "x"}, ""),
        ('<think>{"score": 1, "why": "no"}</think>{"score": 2, "why": "x"}', {"score": 2, "why": "x"}, ""),
        ('Sure!\n```json\n{"score": 3, "why": "{}"}\n```', {"score": 3, "why": "{}"}, ""),
        ('{so} {"score": 3, "why": "x"} {"score": 4, "why": "y"}', {"score": 3, "why": "x"}, ""),
        ('{"score": 3.0, "why": "x"}', {"score": 3, "why": "x"}, ""),
        ('{"score": 3.5, "why": "x"}', None, "schema"),
        ('{"score": "3", "why": "x"}', None, "schema"),
        ('{"score": true, "why": "x"}', None, "schema"),
        ('{"score": null, "why": "x"}', None, "schema"),
        ('{"score": 6, "why": "x"}', None, "schema"),
        ('{"score": -1, "why": "x"}', None, "schema"),
        ('{"score": NaN, "why": "x"}', None, "malformed"),
        ('{"score": 3}', None, "schema"),
        ('{"score": 3, "why": "x"', None, "malformed"),
        ("[3]", None, "malformed"),
        ("3", None, "malformed"),
        ("[" * 5000 + '{"a":' * 5000, None, "malformed"),
        (r'{"score": 3, "why": "\ud83d"}', None, "malformed"),
        (r'{"score": 3, "why": "\ud83d\ude00"}', {"score": 3, "why": "\U0001f600"}, ""),
        ('{"score": 3, "why": "x", "n": 99999999999999999999}', None, "malformed"),
    ],
)
def test_only_an_object_that_fits_is_an_answer(text, value, error):
    found, kind, detail = llm.json_object(text, SCHEMA)
    assert (found, kind) == (value, error)
    assert bool(detail) == bool(error)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v))
)
def test_any_json_is_judged_as_a_reference_judges_it(value):
    jsonschema = pytest.importorskip("jsonschema")
    schema = {
        "type": "object",
        "properties": {
            "": {"type": ["integer", "null"], "minimum": 0},
            "0": {"type": "array", "items": {"type": "string", "maxLength": 2}, "maxItems": 2},
        },
        "required": [""],
    }
    for given_schema in (schema, schema["properties"][""], schema["properties"]["0"]):
        ours = llm.violation(value, given_schema)
        theirs = jsonschema.Draft202012Validator(given_schema).is_valid(value)
        assert (ours == "") == theirs


@given(st.text(alphabet='{}[]",:0159azNI \\\n`<think>/', max_size=200))
def test_no_text_raises(text):
    value, error, _ = llm.json_object(text, {"type": "object"})
    assert (value is None) == bool(error)


@pytest.mark.parametrize(
    "schema", [{"type": "objekt"}, {"oneOf": []}, {"properties": {"a": {"pattern": "x"}}}, {"properties": 3}, 3]
)
def test_a_schema_that_would_not_be_checked_is_refused(schema):
    with pytest.raises(RecipeError):
        llm.check_schema(schema)


# --------------------------------------------------------------------------------------------- endpoints that are not there


def test_an_endpoint_that_is_down_is_an_error_within_five_seconds():
    url = f"http://127.0.0.1:{free_port()}/v1"
    started = time.monotonic()
    with Client(url, "m") as client, pytest.raises(StageError) as error:
        list(client.ask([Request("a"), Request("b")]))
    assert time.monotonic() - started < 5
    assert re.fullmatch(
        rf"no endpoint at {re.escape(url)}: connection refused; start the server .*or correct `server`.*", str(error.value)
    )


def test_an_endpoint_that_accepts_and_says_nothing_is_down():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        started = time.monotonic()
        with (
            Client(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "m") as client,
            pytest.raises(StageError, match="no answer"),
        ):
            list(client.ask([Request("a")]))
        assert time.monotonic() - started < 5.5


def test_no_such_host():
    with Client("http://no-such-host.invalid/v1", "m") as client, pytest.raises(StageError, match=r"no endpoint at .*invalid"):
        list(client.ask([Request("a")]))


def test_an_endpoint_that_dies_midway_stops_and_resumes_without_repeating(tmp_path):
    texts = [f"text {i}" for i in range(300)]
    with Server(die_after=150, latency=0.002) as server:
        port, got = server.port, []
        with Client(server.url, "test-model", cache=tmp_path, retries=2, **QUICK) as client:
            with pytest.raises(StageError, match=r"has stopped answering .*is kept in .*run the same command again"):
                got += client.ask([Request(t, schema=SCHEMA) for t in texts])
            with pytest.raises(StageError, match="has stopped answering"):  # and it says so again
                list(client.ask([Request("more")]))
        first = server.completed
    with Server(port=port) as server:
        answers = ask(server, texts, cache=tmp_path)
    assert [a.value for a in answers] == [answer_for(t, SCHEMA) for t in texts]
    assert sum(a.cached for a in answers) + server.requests == 300
    assert sum(first.values()) >= sum(a.cached for a in answers) >= sum(first.values()) - 32
    assert not {a.tag for a in answers if a.cached} & set(server.completed)


@pytest.mark.parametrize("fault", ["500", "garbage", "429"])
def test_an_endpoint_that_is_there_but_answers_nothing_stops(fault):
    with Server({fault: 1.0}, times=10**6) as server, pytest.raises(StageError, match="has stopped answering"):
        ask(server, map(str, range(500)), retries=2)
    assert server.requests < 200


def test_a_wrong_model_and_a_wrong_path_are_named():
    with Server(models=("other",)) as server:
        with pytest.raises(StageError, match=r"knows no model 'test-model'.*does not exist"):
            ask(server, ["a"])
        with Client(server.url.removesuffix("/v1"), "other") as client, pytest.raises(StageError, match="ends in /v1"):
            list(client.ask([Request("a")]))


@pytest.mark.parametrize(
    "server",
    [
        "",
        "127.0.0.1:8000",
        "ftp://x/v1",
        "http://",
        "http://u:secret@h/v1",
        "http://h/v1?key=secret",
        "http://h:0/v1",
        "http://h /v1",
    ],
)
def test_what_is_no_base_url(server, monkeypatch):
    monkeypatch.delenv(llm.SERVER, raising=False)
    with pytest.raises(RecipeError) as error:
        Client(server, "m")
    assert "secret" not in str(error.value)


def test_the_server_may_come_from_the_environment(monkeypatch):
    with Server() as server:
        monkeypatch.setenv(llm.SERVER, server.url + "/")
        with Client("", "test-model") as client:
            assert [a.ok for a in client.ask([Request("a")])] == [True]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"concurrency": 0}, "concurrency"),
        ({"budget_usd": 1}, "prices"),
        ({"retries": -1}, "negative"),
        ({"timeout": 0}, "timeout"),
        ({"parameters": {"stream": True}}, "'stream' is set by Curate"),
        ({"api_key_env": "sk-very-secret"}, "never the key"),
    ],
)
def test_settings_that_cannot_be(options, said):
    with pytest.raises(RecipeError, match=said) as error:
        Client("http://h/v1", "m", **options)
    assert "very-secret" not in str(error.value)


# --------------------------------------------------------------------------------------------- keys


SECRET = "sk-test-0123456789abcdef"


def test_a_key_is_sent_and_shows_up_nowhere(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SOME_KEY", SECRET)
    shown = []
    options = {"api_key_env": "SOME_KEY", "cache": tmp_path, "progress": shown.append}
    with caplog.at_level("DEBUG"), Server(key=SECRET) as server, Client(server.url, "test-model", **options) as client:
        (answer,) = client.ask([Request("ECHO-KEY please")])
        shown.append(repr(client))
    assert answer.ok and answer.text == "the key is ***"
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"the key is ***" in kept
    assert SECRET not in f"{shown}{caplog.text}{answer}" and SECRET.encode() not in kept


def test_a_key_that_is_not_accepted_is_not_repeated(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with Server(key="another") as server, pytest.raises(StageError) as error:
        ask(server, ["a"])
    assert re.search(
        r"does not accept the key, which is taken from .* OPENAI_API_KEY: .*Incorrect API key provided: Bearer \*\*\*",
        str(error.value),
    )
    assert error.value.__cause__ is None and SECRET not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-two\r\nX-Other: lines")
    with Server() as server, pytest.raises(RecipeError, match="characters that no key has") as wrong:
        ask(server, ["a"])
    assert "sk-two" not in str(wrong.value)


# --------------------------------------------------------------------------------------------- limits and budgets


def test_requests_per_minute_hold_from_the_first_second():
    with Server() as server:
        ask(server, map(str, range(24)), requests_per_minute=600)  # ten a second, ten at once in the beginning
    moments = [m - server.moments[0] for m in server.moments]
    assert moments[-1] >= 1.3
    for start in moments:
        assert sum(start <= m < start + 1 for m in moments) <= 21


def test_tokens_per_minute_count_what_was_used_rather_than_guessed():
    with Server() as server:
        started = time.monotonic()
        ask(
            server,
            [f"{i:04}" + "x" * 396 for i in range(12)],
            tokens_per_minute=60_000,
            parameters={"max_tokens": 400},
            concurrency=1,
        )
        seconds = time.monotonic() - started
    assert seconds < 5  # 12 x 516 tokens by guess are 6 s, 12 x 115 by use are 1.4


@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_budget_is_never_exceeded_and_holds_over_restarts(tmp_path, concurrency):
    texts = [f"text {i:06}" for i in range(200)]
    options = {
        "cache": tmp_path / "answers",
        "ledger": tmp_path / "spent",
        "concurrency": concurrency,
        "parameters": {"max_tokens": 20},
        "usd_per_million_input": 1e4,
        "usd_per_million_output": 1e4,
        "budget_usd": 8.0,
    }
    with Server() as server:
        for _ in range(2):
            before = server.requests
            with pytest.raises(StageError, match=r"budget_usd is used up: .* of 8 spent.*asks for nothing twice"):
                ask(server, texts, **options)
        assert server.requests == before > 10
        answers = ask(server, texts, **{**options, "budget_usd": 10_000})
    assert server.requests == 200
    spent = sum(a.usd for a in answers if a.cached)
    assert 7.0 < spent <= 8.0  # all but what one more request might have taken


def test_a_budget_of_tokens_without_a_ledger():
    with Server() as server, pytest.raises(StageError, match="budget_tokens is used up"):
        ask(server, [f"{i:040}" for i in range(500)], budget_tokens=2000, parameters={"max_tokens": 20})
    assert 50 < server.requests < 2000 / 17


def test_a_ledger_frees_what_the_dead_had_set_aside(tmp_path):
    limits = Limits(budget_tokens=100)
    first = Ledger(limits, tmp_path)
    assert first.take(80, 0, 1.0) == 0
    second = Ledger(limits, tmp_path)
    assert second.take(30, 0, 1.0) == math.inf  # it may fit, once the first knows what it took
    first.close()
    second.close()
    third = Ledger(limits, tmp_path)
    assert third.take(30, 0, 1.0) == 0
    third.settle(30, 0, 95, 0)
    with pytest.raises(StageError, match="95 of 100 spent"):
        third.take(30, 0, 1.0)
    third.close()


def test_buckets_do_not_fear_clocks_that_go_back():
    ledger = Ledger(Limits(requests_per_minute=60))
    assert ledger.take(1, 0, 1000.0) == 0
    assert ledger.take(1, 0, 1000.0) == pytest.approx(1.0)
    assert ledger.take(1, 0, 900.0) == pytest.approx(1.0)
    assert ledger.take(1, 0, 901.0) == 0


# --------------------------------------------------------------------------------------------- the cache


DONE = Completion("said", "stop", 3, 1, 0.5)


def test_the_first_of_two_answers_counts_for_both_writers(tmp_path):
    one, two = Cache(tmp_path / "c"), Cache(tmp_path / "c")
    key = bytes(range(16))
    assert one.put(key, DONE) == DONE
    assert two.get(key) is None
    assert two.put(key, DONE._replace(text="other")) == DONE
    assert two.put(key, DONE._replace(text="third")) == DONE  # nothing is new in the file this time
    assert len((tmp_path / "c").read_bytes().splitlines()) == 1
    for cache in (one, two):
        cache.close()


def test_a_cache_survives_torn_lines_damage_and_growth(tmp_path):
    path = tmp_path / "c"
    keys = [i.to_bytes(16, "big") for i in range(300)] + [i.to_bytes(16, "little") for i in range(1, 300)]  # equal first halves
    cache = Cache(path)
    for i, key in enumerate(keys):
        cache.put(key, DONE._replace(text=f"{i}\n\u2028" * (i % 50)))
        if i == 100:
            cache._settle()
    cache.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key":"00ff')  # killed while it wrote
    cache = Cache(path)
    assert cache.refresh() is True
    new = b"\xff" * 16
    assert cache.put(new, DONE) == DONE
    for i, key in enumerate(keys):
        assert cache.get(key).text == f"{i}\n\u2028" * (i % 50)
    cache.close()
    again = Cache(path)
    again.refresh()
    assert again.get(new) == DONE and again.get(b"\xee" * 16) is None
    again.close()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:60].replace(b"text", b"txet") + b'"}\n' + b"".join(lines[6:]))
    hurt = Cache(path)
    hurt.refresh()
    assert hurt.get(keys[5]) is None and hurt.get(keys[6]).text == "6\n\u2028" * 6
    hurt.put(keys[5], DONE)
    assert hurt.get(keys[5]) == DONE
    hurt.close()


def test_several_processes_share_a_cache(tmp_path):
    """Each writes the same keys in another order: what any reads is what all read."""
    script = textwrap.dedent("""
        import random, sys
        from pathlib import Path
        from curate.llm import Cache, Completion
        cache, who = Cache(Path(sys.argv[1])), sys.argv[2]
        keys = list(range(400))
        random.Random(who).shuffle(keys)
        said = {k: cache.put(k.to_bytes(16, "big"), Completion(f"{who} says {k}", "stop", 1, 1, 0.0)).text for k in keys}
        print("\\n".join(said[k] for k in range(400)))
    """)
    command = [sys.executable, "-c", script, str(tmp_path / "c")]
    running = [subprocess.Popen([*command, who], stdout=subprocess.PIPE, text=True) for who in "abc"]
    said = [process.communicate()[0] for process in running]
    assert said[0] == said[1] == said[2] and said[0].count("\n") == 400
    assert len((tmp_path / "c").read_bytes().splitlines()) == 400


def test_what_is_asked_otherwise_is_asked_again(tmp_path):
    with Server() as server:
        for options in ({}, {"parameters": {"temperature": 1}}, {"schema": None}, {"concurrency": 3, "timeout": 60}):
            ask(server, ["text"], cache=tmp_path, **options)
        assert server.requests == 3


def test_equal_questions_at_once_are_one_request(tmp_path):
    with Server(latency=0.05) as server:
        answers = ask(server, ["same"] * 20 + ["other"])
    assert server.requests == 2 and len({a.text for a in answers[:20]}) == 1
    assert sum(not a.cached for a in answers) == 2


def test_a_warm_cache_needs_no_server(tmp_path):
    with Server() as server:
        url, before = server.url, ask(server, ["a", "b"], cache=tmp_path)
    with Client(url, "test-model", cache=tmp_path) as client:
        again = list(client.ask([Request(t, schema=SCHEMA, tag=t) for t in "ab"]))
    assert [a.value for a in again] == [a.value for a in before]


KILLED = """
import sys
from pathlib import Path
from curate.llm import Client, Request
sys.path.insert(0, sys.argv[3])
from test_llm import SCHEMA
with Client(sys.argv[1], "test-model", cache=Path(sys.argv[2]), concurrency=16, backoff=0.005) as client:
    print(sum(a.ok for a in client.ask([Request(f"text {i}", schema=SCHEMA) for i in range(1200)])))
"""


def test_a_killed_run_repeats_no_request_that_was_answered(tmp_path):
    command = [sys.executable, "-c", KILLED]
    with Server({"429": 0.1, "500": 0.1, "reset": 0.1}, latency=0.01) as server:
        command += [server.url, str(tmp_path), str(Path(__file__).parent)]
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while sum(server.completed.values()) < 400 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.1)  # requests under way end at the server
        (file,) = tmp_path.iterdir()
        kept = [line for line in file.read_bytes().split(b"\n")[:-1] if orjson.loads(line)]
        answered = sum(server.completed.values())
        assert 400 <= answered < 1200
        assert answered - 16 <= len(kept) <= answered  # 16 were under way
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "1200"
        assert sum(server.completed.values()) - answered == 1200 - len(kept)
        assert max(server.completed.values()) <= 2


# --------------------------------------------------------------------------------------------- progress, threads, ends


def test_progress_is_told():
    shown: list[Progress] = []
    with Server({"500": 0.2, "empty": 0.1}, latency=0.01) as server:
        prices = {"usd_per_million_input": 1.0, "usd_per_million_output": 1.0}
        ask(server, [str(i) for i in range(300)], concurrency=8, every=0.1, progress=shown.append, **prices)
    end = shown[-1]
    assert len(shown) > 2 and end.done == end.total == 300
    assert end.requests == server.requests and end.left == 0 and end.retries == server.faults["500"]
    assert end.errors == {"empty": server.faults["empty"] // 2}
    assert end.requests_per_second > 0 and end.tokens_per_second > 0 and end.usd > 0
    with (
        Server(latency=0.01) as server,
        Client(server.url, "test-model", concurrency=4, every=0.05, progress=shown.append) as client,
    ):
        list(client.ask([Request(str(i)) for i in range(100)]))
    middle = [p for p in shown if p.total == 100 and 20 < p.done < 80]
    assert middle and all(p.left > 0 for p in middle)
    assert "s left" in str(middle[0]) and "requests/s" in str(middle[0]) and "of 100 answered" in str(middle[0])
    asked = (Request(str(i)) for i in range(30))
    with Server() as server, Client(server.url, "test-model", progress=shown.append) as client:
        list(client.ask(asked, total=lambda: 40.3))
    assert (shown[-1].done, shown[-1].total, shown[-1].about) == (30, 40, True) and "of about 40 answered" in str(shown[-1])


def test_a_consumer_may_stop_early_and_ask_again():
    with Server(latency=0.005) as server, Client(server.url, "test-model", concurrency=4) as client:
        answers = client.ask(Request(str(i)) for i in range(10**9))
        assert [next(answers).ok for _ in range(10)] == [True] * 10
        answers.close()
        assert [a.text for a in client.ask([Request("x")])] == ["About x"]
    assert server.requests < 200


def test_two_threads_may_ask_at_once():
    got: dict[str, list[str]] = {}
    with Server(latency=0.002) as server, Client(server.url, "test-model", concurrency=8) as client:

        def work(name: str) -> None:
            got[name] = [a.text for a in client.ask([Request(f"{name} {i}") for i in range(100)])]

        threads = [threading.Thread(target=work, args=(n,)) for n in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == {n: [f"About {n} {i}" for i in range(100)] for n in "ab"}


def test_an_error_of_the_source_of_questions_is_the_callers():
    def questions():
        yield Request("a")
        raise KeyError("mine")

    with Server() as server, Client(server.url, "test-model") as client, pytest.raises(KeyError, match="mine"):
        list(client.ask(questions()))


def test_a_cache_that_cannot_be_written_stops(tmp_path):
    cache = Cache(tmp_path / "c")
    os.close(cache._file)
    cache._file = os.open("/dev/full", os.O_RDWR)
    said = pytest.raises(StageError, match=r"cannot write to the cache .*: No space left on device")
    with Server() as server, Client(server.url, "test-model", cache=cache) as client, said:
        list(client.ask([Request("a")]))


# --------------------------------------------------------------------------------------------- prompts


def variables_of(prompt):
    from jinja2 import Environment, meta

    return meta.find_undeclared_variables(Environment().parse(prompt.path.read_text("utf-8")))


def test_prompts_that_come_with_curate():
    with_schema = [name for name in llm.prompts() if llm.load_prompt(name).schema is not None]
    assert {"biomed", "cluster_name", "dataman", "fineweb_edu"} <= set(with_schema)
    for name in with_schema:
        prompt = llm.load_prompt(name)
        text = "A {{ text }} with {% braces %} stays as it is."
        said = prompt.renderer("test")(**{variable: variable for variable in variables_of(prompt)} | {"text": text})
        assert text in said and len(prompt.files()) == 2
        for key in prompt.schema["properties"]:
            assert f'"{key}"' in said, f"{name} does not ask for {key}"
        for part in prompt.schema["properties"].values():
            for value in part.get("enum", ()):
                assert value in said
        assert set(prompt.schema["required"]) == set(prompt.schema["properties"])


def test_prompts_that_ask_for_text():
    names = [name for name in llm.prompts() if llm.load_prompt(name).schema is None]
    assert len(names) >= 17
    for name in names:
        prompt = llm.load_prompt(name)
        text = "A {{ text }} with {% braces %} stays as it is."
        said = prompt.renderer("test")(**{variable: variable for variable in variables_of(prompt)} | {"text": text})
        assert f"\n{text}\n==========" in said and said.count("==========") == 2
        assert prompt.files() == (str(prompt.path),)


def test_scales_are_those_of_the_papers():
    edu, dataman, biomed = (llm.load_prompt(n).schema["properties"] for n in ("fineweb_edu", "dataman", "biomed"))
    assert (edu["educational_score"]["minimum"], edu["educational_score"]["maximum"]) == (0, 5)
    criteria = {k: v for k, v in dataman.items() if k != "domain"}
    assert len(criteria) == 14 and all((v["minimum"], v["maximum"]) == (1, 5) for v in criteria.values())
    assert len(dataman["domain"]["enum"]) == 15
    assert (biomed["educational_score"]["minimum"], biomed["educational_score"]["maximum"]) == (1, 5)


def test_templates_of_ones_own(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("Rate: {{ text | upper }}")
    prompt = llm.load_prompt(str(path))
    assert prompt.schema is None and prompt.files() == (str(path),)
    assert prompt.renderer("test")(text="abc") == "Rate: ABC"
    for template, said in [
        ("{% if %}", r"own.jinja:1: "),
        ("{{ txt }}", r"'txt' is undefined; it is given: text"),
        ("{{ text.__class__.__mro__ }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "own.jinja"),
        ("{{ text.format.__globals__ }}", "unsafe"),
    ]:
        path.write_text(template)
        with pytest.raises(RecipeError, match=said):
            llm.load_prompt(str(path)).renderer("test")(text="abc")
    with pytest.raises(RecipeError, match="did you mean 'fineweb_edu'"):
        llm.load_prompt("fineweb_ed")
    path.with_suffix(".json").write_text("{")
    with pytest.raises(RecipeError, match=r"own.json: not JSON"):
        llm.load_prompt(str(path))


def test_templates_name_the_extra_that_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match=r"annotate_llm needs the package 'jinja2': pip install 'curate-corpus\[llm\]'"):
        llm.load_prompt("biomed").renderer("annotate_llm")
