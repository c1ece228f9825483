"""Programs that clean texts: what is read, what is carried out, and that nothing comes out which was not in the text."""

import doctest
import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import programs
from curate.programs import DIALECTS, Call, Chunk, Program, Rules, chunks_of_lines, distil, execute, heuristic, numbered, parse
from curate.programs import words as count_words

ALL = Rules(share=None, words=None)
PAGE = "\n".join(
    [
        "Home | News | Weather | Sport",
        "The river rose by two metres in the night and flooded the lower town.",
        "Share this article",
        "By noon the water had gone down, and the shops on the square opened again.",
        "© 2024 The Example Gazette",
    ]
)


def lines_without(*numbers: int) -> str:
    return "\n".join(line for i, line in enumerate(PAGE.split("\n")) if i not in numbers)


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(programs) == (0, 2)


# --------------------------------------------------------------------------------------------- the languages


@pytest.mark.parametrize(
    "text, dialect, calls, errors",
    [
        ("keep_doc()", "document", [Call("keep_doc")], {}),
        ("drop_doc( ) ;", "document", [Call("drop_doc")], {}),
        ("keep_chunk()", "document", [], {"unparsable": 1}),
        ("keep_chunk()", "prox", [Call("keep_chunk")], {}),
        ("keep_chunk(1)", "prox", [], {"unparsable": 1}),
        ("remove_lines(line_start=3, line_end=5)", "prox", [Call("remove_lines", (3, 5))], {}),
        ("remove_lines(line_end=5, line_start=3)", "prox", [Call("remove_lines", (3, 5))], {}),
        ("  remove_lines (3,5)\r", "prox", [Call("remove_lines", (3, 5))], {}),
        ("remove_lines(3, line_end=005)", "prox", [Call("remove_lines", (3, 5))], {}),
        ("remove_lines(line_start=3)", "prox", [], {"unparsable": 1}),
        ("remove_lines(line_start=-1, line_end=2)", "prox", [], {"unparsable": 1}),
        ("remove_lines(line_start='1', line_end=2)", "prox", [], {"unparsable": 1}),
        ("remove_lines(line_start=1, line_start=2)", "prox", [], {"unparsable": 1}),
        ("remove_lines(line_start=1, line_end=2, why=3)", "prox", [], {"unparsable": 1}),
        ("remove_lines(line_start=1, line_end=2,)", "prox", [], {"unparsable": 1}),
        ("remove_lines(start=1, end=2)", "prox", [], {"unparsable": 1}),
        ("remove_lines(line_start=1+1, line_end=2)", "prox", [], {"unparsable": 1}),
        ("remove_lines(line_start=" + "9" * 5000 + ", line_end=2)", "prox", [], {"unparsable": 1}),
        ("normalize(source_str=\"a, b)\", target_str='')", "prox", [Call("normalize", ("a, b)", ""))], {}),
        (r'normalize("tab\t, \"q\", \\, é\u00e9\x41", "")', "prox", [Call("normalize", ('tab\t, "q", \\, éé' + "A", ""))], {}),
        (r'normalize("\ud83d\ude00", "")', "prox", [Call("normalize", ("😀", ""))], {}),
        (r'normalize("\d\.", "")', "prox", [Call("normalize", ("\\d\\.", ""))], {}),  # no escapes, as in Python
        (r'normalize("\ud800", "")', "prox", [], {"unparsable": 1}),
        (r'normalize("\Uffffffff", "")', "prox", [], {"unparsable": 1}),
        ('normalize("a" "b", "c")', "prox", [], {"unparsable": 1}),
        ('normalize("a", "b")(', "prox", [], {"unparsable": 1}),
        ('normalize("a, "b")', "prox", [], {"unparsable": 1}),
        ("__import__('os').system('true')", "prox", [], {"unparsable": 1}),
        ("import os", "refinex", [], {"unparsable": 1}),
        ("remove_str(2, 'x')", "refinex", [Call("remove_str", (2, "x"))], {}),
        ("remove_lines(start=1, end=2)\nkeep_all()", "refinex", [Call("remove_lines", (1, 2)), Call("keep_all")], {}),
        ("remove_lines(line_start=1, line_end=2)", "refinex", [], {"unparsable": 1}),
        ("drop_doc()\nrewrite_line(1, 'x')", "refinex", [], {"unknown": 2}),
        ("```python\nkeep_chunk()\n\n```", "prox", [Call("keep_chunk")], {}),
        ("Sure! Here is the program:\nkeep_chunk()", "prox", [Call("keep_chunk")], {"unparsable": 1}),
        ("", "prox", [], {}),
        (None, "prox", [], {}),
    ],
)
def test_what_is_read(text, dialect, calls, errors):
    assert parse(text, dialect) == Program(tuple(calls), errors)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(st.integers(0, 10**18 - 1), st.text(max_size=30), st.text(max_size=30))
def test_what_is_written_is_read_again(dialect, number, one, other):
    some = {
        "prox": [Call("remove_lines", (number, 2)), Call("normalize", (one, other)), Call("keep_chunk")],
        "refinex": [Call("remove_lines", (1, number)), Call("remove_str", (number, one)), Call("keep_all")],
    }[dialect]
    text = "\n".join(programs.written(call, dialect) for call in some)
    assert parse(text, dialect) == Program(tuple(some), {})


# --------------------------------------------------------------------------------------------- what is done, case by case

FIVE = "\n".join(f"line {i} " + "word " * 10 for i in range(5))
NONE = "keep_chunk()"


@pytest.mark.parametrize(
    "text, document, chunks, rules, expected, status, why, errors",
    [
        # the document's own program
        (PAGE, "drop_doc()", ["keep_chunk()"], {}, "", "dropped", "dropped", {}),
        (PAGE, "keep_doc()", ["keep_chunk()"], {}, PAGE, "unchanged", "", {}),
        (PAGE, None, [None], {}, PAGE, "unchanged", "", {}),
        (PAGE, "maybe", [NONE], {}, PAGE, "unchanged", "", {"unparsable": 1}),
        (PAGE, "keep_doc()\ndrop_doc()", [NONE], {}, PAGE, "unchanged", "", {"unparsable": 1}),
        # lines are inclusive, from 0, and the programs of all chunks count them through the document
        (PAGE, None, ["remove_lines(line_start=0, line_end=0)"], {}, lines_without(0), "kept", "", {}),
        (PAGE, None, ["remove_lines(0, 0)", "remove_lines(2, 2)\nremove_lines(4, 4)"], {}, lines_without(0, 2, 4), "kept", "",
         {}),
        (PAGE, None, ["remove_lines(0, 2)\nremove_lines(1, 2)"], {}, lines_without(0, 1, 2), "kept", "", {}),
        # lines that are not there: one error is passed over, two bring the document back
        (PAGE, None, ["remove_lines(0, 0)\nremove_lines(4, 5)"], {}, lines_without(0), "kept", "", {"out_of_range": 1}),
        (PAGE, None, ["remove_lines(0, 0)\nremove_lines(3, 2)"], {}, lines_without(0), "kept", "", {"out_of_range": 1}),
        (PAGE, None, ["remove_lines(0, 0)", "remove_lines(7, 9)\nwhat?"], {}, PAGE, "fallback", "unparsable",
         {"out_of_range": 1, "unparsable": 1}),
        (PAGE, "what?", ["remove_lines(0, 0)", "remove_lines(7, 9)"], {}, PAGE, "fallback", "unparsable",
         {"out_of_range": 1, "unparsable": 1}),
        (PAGE, None, ["remove_lines(0, 0)\nremove_lines(9, 9)\nwhat?"], {"errors": 0}, lines_without(0), "kept", "",
         {"out_of_range": 1, "unparsable": 1}),
        # strings: all places, before the lines, whichever comes first in the program
        (PAGE, None, ["remove_lines(4, 4)\nnormalize(source_str=\" | \", target_str=\", \")"], {},
         lines_without(4).replace(" | ", ", "), "kept", "", {}),
        (PAGE, None, ['normalize("moon", "")'], {}, PAGE, "unchanged", "", {"absent": 1}),
        (PAGE, None, ['normalize("flooded", "wet")'] * 3, {}, PAGE.replace("flooded", "wet"), "kept", "", {}),
        (PAGE, None, ['normalize("the lower town", "")\nnormalize("lower", "")'], {},
         PAGE.replace("the lower town", ""), "kept", "", {}),
        (PAGE, None, ['normalize("", "x")'], {}, PAGE, "unchanged", "", {"not_allowed": 1}),
        (PAGE, None, [r'normalize("Sport\nThe", "The")'], {}, PAGE, "unchanged", "", {"not_allowed": 1}),
        (PAGE, None, [r'normalize("Sport", "a\nb")'], {}, PAGE, "unchanged", "", {"not_allowed": 1}),
        (PAGE, None, ['normalize("e", "eeeeeeee")'], {}, PAGE, "unchanged", "", {"too_long": 1}),
        (PAGE, None, ['normalize("e", "ee")'], {"growth": 3.0}, PAGE.replace("e", "ee"), "kept", "", {}),
        (PAGE, None, ['normalize("flooded", "wet")'], {"deletion_only": True}, PAGE, "unchanged", "", {"not_allowed": 1}),
        (PAGE, None, ['normalize("flooded", "")'], {"deletion_only": True}, PAGE.replace("flooded", ""), "kept", "", {}),
        # too little left: a twentieth of the words, unless there are two errors; ten words, whatever there is
        (FIVE, None, ["remove_lines(0, 3)"], {}, FIVE.split("\n")[4], "kept", "", {}),
        (FIVE + "\nthe end", None, ["remove_lines(0, 4)"], {"words": None}, "", "dropped", "too_little", {}),
        (FIVE + "\nthe end", None, ["remove_lines(0, 4)"], {"words": None, "share": None}, "the end", "kept", "", {}),
        (FIVE + "\nthe end", None, ["remove_lines(0, 4)\nx\ny"], {"words": None}, FIVE + "\nthe end", "fallback", "unparsable",
         {"unparsable": 2}),
        ("one two three four five six seven eight nine ten", None, [NONE], {}, "", "dropped", "too_little", {}),
        ("one two three four five six seven eight nine ten eleven", None, [NONE], {},
         "one two three four five six seven eight nine ten eleven", "unchanged", "", {}),
        (FIVE, None, ["remove_lines(0, 4)\nx\ny"], {}, "", "dropped", "too_little", {"unparsable": 2}),
        # what is no text
        ("", None, [NONE], {}, "", "dropped", "too_little", {}),
        (None, "keep_doc()", [], {"words": None, "share": None}, "", "unchanged", "", {}),
        ("", None, ["remove_lines(0, 0)"], {"words": None, "share": None}, "", "unchanged", "", {}),
        # only line feeds separate lines
        ("a\r\nb\x0bb\x85b\u2028b\nc", None, ["remove_lines(1, 1)"], {"words": None, "share": None}, "a\r\nc", "kept", "", {}),
        ("a\nb\n", None, ["remove_lines(2, 2)"], {"words": None, "share": None}, "a\nb", "kept", "", {}),
        # characters are words where there are no spaces
        ("河水在夜里上涨了两米。" * 2, None, [NONE], {}, "河水在夜里上涨了两米。" * 2, "unchanged", "", {}),
    ],
)  # fmt: skip
def test_prox(text, document, chunks, rules, expected, status, why, errors):
    got = execute(text, document, chunks, "prox", Rules(**rules))
    assert (got.text, got.status, got.why, got.errors) == (expected, status, why, errors)
    assert got.wrong == sum(errors.values()) and got.words_before == count_words(text or "")
    if status in ("kept", "unchanged"):
        assert got.words_after == count_words(expected)


@pytest.mark.parametrize(
    "program, expected, status, errors, wrong",
    [
        ("keep_all()", PAGE, "unchanged", {}, 0),
        ("remove_lines(start=0, end=0)", lines_without(0), "kept", {}, 0),
        ('remove_str(line=1, del_str=" and flooded the lower town")',
         PAGE.replace(" and flooded the lower town", ""), "kept", {}, 0),
        # the string of a line that goes is no error, and comes first
        ('remove_lines(0, 0)\nremove_str(0, "News")', lines_without(0), "kept", {}, 0),
        # skipped, and no errors: what is not there, what is there twice (overlapping, too), and calls of other names
        ('remove_str(0, "Moon")\nremove_str(0, " | ")\nremove_str(0, "")\nnormalize("a", "b")', PAGE, "unchanged",
         {"absent": 2, "ambiguous": 1, "unknown": 1}, 0),
        ('remove_str(9, "x")\nremove_lines(0, 0)', lines_without(0), "kept", {"out_of_range": 1}, 1),
        ('remove_str(9, "x")\nremove_lines(0, 9)\nremove_lines(0, 0)', PAGE, "fallback", {"out_of_range": 2}, 2),
    ],
)  # fmt: skip
def test_refinex(program, expected, status, errors, wrong):
    got = execute(PAGE, None, [program], "refinex")
    assert (got.text, got.status, got.errors, got.wrong) == (expected, status, errors, wrong)


def test_a_string_that_overlaps_itself_stands_there_twice():
    assert execute("aaa b", None, ['remove_str(0, "aa")'], "refinex", ALL).errors == {"ambiguous": 1}


# --------------------------------------------------------------------------------------------- whatever comes

LINE = st.text(st.sampled_from("ab .|\r\t\u2028é😀\\\"'()=,漢"), max_size=12)
TEXT = st.lists(LINE, max_size=12).map("\n".join)
STRING = LINE.map(lambda s: json.dumps(s, ensure_ascii=False)) | LINE.map(repr)
NUMBER = st.integers(-2, 14).map(str)
CALL = st.one_of(
    st.tuples(
        st.sampled_from(["remove_lines", "keep_chunk", "keep_all", "keep_doc", "drop_doc", "nothing"]), NUMBER, NUMBER
    ).map(lambda c: f"{c[0]}({c[1]}, {c[2]})" if c[0] == "remove_lines" else f"{c[0]}()"),
    st.tuples(NUMBER, NUMBER).map(lambda c: f"remove_lines(line_start={c[0]}, line_end={c[1]})"),
    st.tuples(NUMBER, NUMBER).map(lambda c: f"remove_lines(start={c[0]}, end={c[1]})"),
    st.tuples(STRING, STRING).map(lambda c: f"normalize(source_str={c[0]}, target_str={c[1]})"),
    st.tuples(NUMBER, STRING).map(lambda c: f"remove_str(line={c[0]}, del_str={c[1]})"),
    LINE,
    st.text(max_size=20),
)
PROGRAM = st.none() | st.lists(CALL, max_size=8).map("\n".join)
RULES = st.builds(
    Rules,
    errors=st.sampled_from([0, 1, 2, 50]),
    share=st.none() | st.floats(0, 1),
    words=st.none() | st.integers(0, 5),
    deletion_only=st.booleans(),
    growth=st.sampled_from([0.5, 1.0, 1.1, 3.0]),
)


def is_subsequence(small: str, large: str) -> bool:
    rest = iter(large)
    return all(c in rest for c in small)


def derived(text: str, chunks: list[str | None], rules: Rules) -> str:
    """What ProX programs make of a text, told as simply as can be."""
    calls = [call for chunk in chunks for call in parse(chunk, "prox").calls]
    now = text
    for source, target in dict.fromkeys(call.arguments for call in calls if call.name == "normalize"):
        if source and "\n" not in source + target and not (rules.deletion_only and target) and source in now:
            replaced = now.replace(source, target)
            now = replaced if len(replaced) <= int(max(rules.growth, 1) * len(text)) else now
    lines = now.split("\n")
    gone = set()
    for call in calls:
        if call.name == "remove_lines" and call.arguments[0] <= call.arguments[1] < len(lines):
            gone |= set(range(call.arguments[0], call.arguments[1] + 1))
    return "\n".join(line for i, line in enumerate(lines) if i not in gone)


@given(TEXT, PROGRAM, st.lists(PROGRAM, max_size=3), RULES, st.sampled_from(DIALECTS))
def test_nothing_comes_out_that_was_not_there(text, document, chunks, rules, dialect):
    got = execute(text, document, chunks, dialect, rules)
    assert set(got.errors) <= set(programs.KINDS) and got.wrong <= sum(got.errors.values())
    assert (got.status == "dropped") == (got.why in ("dropped", "too_little"))
    if got.status == "dropped":
        assert got.text == ""
    elif got.status in ("fallback", "unchanged"):
        assert got.text == text
    elif dialect == "refinex" or rules.deletion_only:
        assert is_subsequence(got.text, text)
    assert len(got.text) <= max(len(text), int(max(rules.growth, 1.0) * len(text)))
    if dialect == "prox" and got.status in ("kept", "unchanged"):
        assert got.text == derived(text, chunks, rules)
    assert execute(text, document, chunks, dialect, rules) == got


@given(st.text(), st.lists(st.text(), max_size=3), st.sampled_from(DIALECTS))
def test_no_text_is_a_program_that_raises(text, chunks, dialect):
    execute(text, chunks[0] if chunks else None, chunks, dialect)


@pytest.mark.slow
@pytest.mark.parametrize(
    "chunk",
    [
        'normalize("' + "a" * 5000 + 'b", "")\n',
        'normalize("a", "b")\nnormalize("b", "a")\n',
        "".join(f'normalize("{x}{y}", "{y}{x}")\n' for x, y in itertools.permutations("abcdefghijklmnopqrstuvwxyz", 2)),
        "remove_lines(0, 4999)\n",
        'remove_str(0, "aab")\n',
        "remove_lines(" + " " * 200,
        'normalize("' + "\\" * 999,
        ")" * 1000 + "\n",
        "remove_lines(1" + ",1" * 500 + ")\n",
        "x" * 999 + "(",
    ],
)
def test_hostile_programs_end(chunk):
    text = "a" * 995_000 + "\n" * 4999 + "aab"
    for dialect in DIALECTS:
        began = time.process_time()
        execute(text, None, [chunk * (programs.CHARS // len(chunk) + 2)] * 3, dialect)
        assert time.process_time() - began < 60  # a hang, not a measurement


def test_what_is_beyond_the_limits_is_an_error(monkeypatch):
    monkeypatch.setattr(programs, "CALLS", 3)
    text = "\n".join("abcdefgh")
    got = execute(text, None, ["remove_lines(0, 0)\n" * 2, "remove_lines(1, 1)\nremove_lines(2, 2)"], rules=ALL)
    assert got.errors == {"limit": 1} and got.text == "\n".join("cdefgh")
    assert parse("keep_chunk()\n" * 5, "prox").errors == {"limit": 1}
    monkeypatch.setattr(programs, "CHARS", 30)
    assert parse("remove_lines(0, 0)\nremove_lines(1, 1)", "prox") == Program((Call("remove_lines", (0, 0)),), {"limit": 1})
    got = execute(text, None, ["remove_lines(0, 0)", "remove_lines(1, 1)", "remove_lines(2, 2)"], rules=ALL)
    assert got.errors == {"limit": 1} and got.text == "\n".join("bcdefgh")
    monkeypatch.setattr(programs, "STEPS", 40)
    monkeypatch.setattr(programs, "READINGS", 0)
    assert execute(text, None, ['normalize("a", "x")'], rules=ALL).text[0] == "x"
    assert execute(text * 9, None, ['normalize("a", "x")'], rules=ALL).errors == {"limit": 1}
    assert execute(text * 9, None, ['remove_str(7, "ha")'], "refinex", ALL).errors == {}
    assert parse(f'normalize("{"x" * 10_001}", "")', "prox").errors == {"limit": 1}


# --------------------------------------------------------------------------------------------- showing


def test_lines_are_shown_with_their_numbers():
    assert numbered("a\r\n\nb\u2028c") == "[000] a\n[001] \n[002] b\u2028c"
    assert numbered("a\nb", 999) == "[999] a\n[1000] b"
    assert numbered("") == "[000] "


def test_chunks_end_with_lines():
    text = "\n".join(["aaaa bbbb"] * 6)  # a line with its number and line feed: 16 bytes, 4 tokens
    assert chunks_of_lines(text, 12) == [Chunk(0, 3, True), Chunk(3, 6, True)]
    assert chunks_of_lines(text, 15) == [Chunk(0, 3, True), Chunk(3, 6, True)]
    assert chunks_of_lines("a\n" + "b" * 100 + "\nc", 10) == [Chunk(0, 1, True), Chunk(1, 2, False), Chunk(2, 3, True)]
    assert chunks_of_lines("", 10) == [Chunk(0, 1, True)]


@given(TEXT, st.integers(1, 40))
def test_every_line_is_in_one_chunk(text, window):
    lines = text.split("\n")
    chunks = chunks_of_lines(text, window)
    assert [i for c in chunks for i in range(c.first, c.end)] == list(range(len(lines)))
    for chunk in chunks:
        assert chunk.fits or chunk.end == chunk.first + 1
        shown = numbered("\n".join(lines[chunk.first : chunk.end]), chunk.first)
        assert not chunk.fits or programs.tokens(shown) <= window


# --------------------------------------------------------------------------------------------- pairs


def test_deletions_become_programs():
    raw = PAGE
    cleaned = lines_without(0, 2, 4).replace(" and flooded the lower town", "")
    for dialect in DIALECTS:
        got = distil(raw, cleaned, dialect)
        assert got.why == "" and got.text == cleaned and got.deleted == len(raw) - len(cleaned) and got.added == 0
        assert execute(raw, None, [got.program], dialect, ALL).text == cleaned
    assert distil(PAGE, PAGE).program == "keep_all()" and distil(PAGE, PAGE, "prox").program == "keep_chunk()"


def test_what_is_no_deletion_is_left_out():
    changed = lines_without(0).replace("two metres", "2 m")
    got = distil(PAGE, changed)
    assert got.program == "remove_lines(start=0, end=0)" and got.text == lines_without(0) and 0 < got.added < 40 and not got.why
    more = lines_without(0) + "\nIn addition, the mayor has promised that a new dam is going to be built next spring."
    assert distil(PAGE, more).why == "additions" and distil(PAGE, more).text == lines_without(0)
    assert distil(PAGE, PAGE.replace("two", "tw")).program == "keep_all()"
    assert distil("a b c d", "b c d").why == "tiny"
    assert distil(" Indented \n\n text\n", "Indented\n\ntext").program == "remove_lines(start=3, end=3)"


def test_a_string_that_cannot_be_named_stays():
    raw = "It [x] rained [x] all day."
    assert distil(raw, "It rained all day.").program == "keep_all()"
    assert distil(raw, "It rained all day.", "prox").text == "It rained all day."
    for n, expected in ((70, "keep_chunk()"), (7, None)):  # how far off the first word is that tells two places apart
        line = "y" * n + " [x] " + "z" * n
        got = distil(f"one {line} one\ntwo {line} two", f"one {line.replace(' [x]', '')} one\ntwo {line} two", "prox")
        assert got.program == expected if expected else got.text.startswith(f"one {line.replace(' [x]', '')} one\ntwo {line}")


@given(st.lists(st.text(st.sampled_from("ab c"), max_size=6), max_size=12), st.data(), st.sampled_from(DIALECTS))
def test_lines_that_went_are_found(lines, data, dialect):
    kept = [line for line in lines if data.draw(st.booleans())] or lines[:1]
    raw, refined = "\n".join(lines), "\n".join(kept)
    got = distil(raw, refined, dialect, least_deleted=0)
    assert got.text.split() == refined.split() and got.added == 0 and not got.why


@given(TEXT, TEXT, st.sampled_from(DIALECTS))
def test_a_pair_gives_a_program_that_only_deletes(raw, refined, dialect):
    got = distil(raw, refined, dialect)
    assert parse(got.program, dialect).errors == {}
    done = execute(raw, None, [got.program], dialect, ALL)
    assert done.text == got.text and is_subsequence(got.text, raw)


# --------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    "text, kept",
    [
        (PAGE, lines_without(0, 2, 4)),
        ("Prose stays.\nREAD MORE\n- Weiterlesen\nProse stays.", "Prose stays.\nProse stays."),
        ("Prose.\n\nhttps://example.org/a?b=c\n\nProse.", "Prose.\n\n\nProse."),
        ("\nRead more\n\nProse.\n\nShare this\n\n", "Prose."),
        ("See:\n\nhttps://example.org/a\n\nProse.", None),
        ("* https://example.org/a\n* https://example.org/b", None),
        ("Home > Garden > Tools\nA spade is a tool.", "A spade is a tool."),
        ("Name | Age | Town\nAnn | 31 | Rome\nBob | 44 | Oslo", None),
        ("| Name | Age | Town |\n|---|---|---|", None),
        ("# Share this\n    log in\n```\nRead more\n```", None),
        ("[Home](/) | [News](/news)\nProse.", "Prose."),
        ("A sentence with a [link](/a) and a [second](/b).", None),
        ("- [a](/a)\n- [b](/b)\n- [c](/c)", None),
        ("- [a](/a)\n\n- [b](/b)\n- [c](/c)\n- [d](/d)\nProse.", "Prose."),
        ("Twitter\nFacebook\nThese are the two that we asked about.", None),
        ("Prose.\nTwitter\nFacebook\nInstagram\nContact us", "Prose."),
        ("Latest news today\nLatest news today\n\nLatest news today\nProse.", "Latest news today\nProse."),
        ("He knocked.\nHe knocked.\n}\n}\n0\n0\nreturn x;\nreturn x;", None),
        ("Alle Rechte vorbehalten.\nText.", "Text."),
        # what looks like it and is none: sources, what is announced, items, captions, laws, values, cells of tables
        ("Register at\n\nwww.example.org/25712\n\nProse.", None),
        ("- Strings are slow.\n\n  https://example.org/issue/1\n\n- Lists, too.", None),
        ("References\n\nhttps://example.org/a\n\nhttps://example.org/b", None),
        ("The datasets can all be found here:\n\n[a](/a)\n[b](/b)\n[c](/c)\n[d](/d)", None),
        ("These are the networks that we studied:\n- Facebook\n- Twitter\n- Instagram\n- YouTube", None),
        ("Share:\nFacebook\nTwitter\nInstagram\nYouTube", "Share:"),
        ("Authors who are familiar with TeX often write quotation marks\nlike this:\n\n``so''", None),
        ("(b) before 1998;\n(c) any report that was published in 2010, and\n(c) 1947", None),
        ("Copyright Act of 1976\nCopyright law was changed in 1998.", None),
        ("Eight garages and their hardware (New Britain, Conn.: Stanley Works, ©1919), by Stanley Works", None),
        ("He told him before the last round of the Masters 1997 to be brave. | © National/Images", None),
        ("Copyright (c) 2019 by Example\nText.\n2024 © Example", "Text."),
        ("organic cotton | linen | hemp\nText.", None),
        ("使用宝物： 气球 | 魔法弓 | 沉默之水\n文。", None),
        ("12 V with adapter\n\n12 V with adapter\n\nSee Hahn, 1991, p. 177\nSee Hahn, 1991, p. 177", None),
        ("Paris, SS14, by Cura\n\n" * 6 + "Text.", "Paris, SS14, by Cura\n\n\nText."),
        ("All rights reserved by the states were listed in the treaty " + "and in its annexes " * 8 + ".", None),
        ("", None),
        ("\n\n", None),
    ],
)
def test_rules_of_our_own(text, kept):
    for dialect in DIALECTS:
        program = heuristic(text, dialect)
        got = execute(text, None, [program], dialect, ALL)
        assert got.text == (text if kept is None else kept) and got.errors == {}
        assert (program in ("keep_chunk()", "keep_all()")) == (kept is None)


@given(st.text() | TEXT)
def test_rules_make_programs_without_errors(text):
    for dialect in DIALECTS:
        got = execute(text, "keep_doc()", [heuristic(text, dialect)], dialect, ALL)
        assert got.errors == {} and is_subsequence(got.text, text)


def test_rules_leave_real_articles_alone(shared_data):
    """Of texts that people have marked as the main text of a page, next to nothing goes; of the rest of these pages, more."""
    import pyarrow.parquet as pq

    share = {}
    for kind in ("web_main_article", "web_boilerplate"):
        table = pq.read_table(shared_data / "quality" / "quality.parquet", filters=[("kind", "=", kind)])
        texts = table["text"].slice(0, 60).to_pylist()
        found = [execute(t, None, [heuristic(t)], rules=ALL) for t in texts]
        share[kind] = 1 - sum(f.words_after for f in found) / sum(f.words_before for f in found)
    assert share["web_main_article"] < 0.001 and share["web_boilerplate"] > 0.01
