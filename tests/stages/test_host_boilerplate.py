"""host_boilerplate: that it is line_dedup by host, and what its defaults do."""

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repeated import cuts, judged, repeated, run, texts, worth

from curate.errors import RecipeError
from curate.stages.host_boilerplate import HostBoilerplate
from curate.stages.line_dedup import LineDedup


def spared(text, gone, run):
    """Of the lines that are frequent, those that go all the same: in runs, and from the ends on."""
    lines = (text or "").split("\n")
    full = [i for i, line in enumerate(lines) if worth(line) >= 2]
    going = [i in gone for i in full]
    kept = set()
    for value, group in itertools.groupby(range(len(full)), key=lambda k: going[k]):
        group = list(group)
        if value and len(group) >= run:
            kept.update(full[k] for k in group)
    for order in (range(len(full)), range(len(full) - 1, -1, -1)):
        order = list(order)
        first = list(itertools.takewhile(lambda k: going[k], order))
        if len(first) == 1 and len(lines[full[first[0]]].encode()) < 16:
            continue
        for n, k in enumerate(order):
            if going[k]:
                kept.add(full[k])
            elif not (len(order) > n + 2 and going[order[n + 1]] and going[order[n + 2]]):
                break
    return kept


@given(st.lists(st.tuples(texts, st.sampled_from("aaab")), max_size=30), st.integers(1, 4), cuts)
def test_against_a_dictionary(documents, min_run, cut):
    documents, hosts = [d for d, _ in documents], [h for _, h in documents]
    needed = {h: min(10, max(2, n // 2 + 1) if (n := hosts.count(h)) >= 5 else 10) for h in "ab"}
    gone = repeated(documents, hosts, ("case",), 2, needed)
    if min_run > 1:
        sure = [spared(text, {i for run in runs for i in run}, min_run) for text, runs in zip(documents, gone, strict=True)]
        gone = [[run for run in runs if run[0] in these] for runs, these in zip(gone, sure, strict=True)]
    stage = HostBoilerplate(min_run=min_run, spare=())
    assert run(stage, documents, [f"http://{h}.test/" for h in hosts], **cut) == judged(documents, gone)


def without(lines, **parameters):
    """What is left of a page of these lines, all of them on every page of the host but for those with `%d`."""
    pages = [
        {"text": "\n".join(line.replace("%d", f"{n}{n}x") for line in lines), "url": f"http://a.test/{n}"} for n in range(6)
    ]
    return HostBoilerplate(**parameters)(pages).kept["text"][3].as_py().replace("33x", "%d").split("\n")


def test_where_lines_go():
    menu = ["Home", "News", "Contact"]
    body = ["It rained on day %d.", "See also", "The sun came out on day %d.", "Examples", "And so on, %d."]
    assert without([*menu, *body, "Imprint"]) == [*body, "Imprint"]
    assert without([*menu, *body, "Imprint and Privacy"]) == body
    assert without([*menu, "Title %d", "Print", "Share", *body, "By %d", "Imprint", "Terms"]) == ["Title %d", *body, "By %d"]
    assert without(["Title %d", "Description", *body]) == ["Title %d", "Description", *body]
    assert without(["Description", *body]) == ["Description", *body]
    links = ["Alpha", "---", "Beta", "", "Gamma", "Delta", "Epsilon"]
    assert without([*body, *links, *body]) == [*body, "---", "", *body]
    assert without([*body, *links[:-1], *body]) == [*body, *links[:-1], *body]
    assert without([*body], min_run=1) == [line for line in body if "%d" in line]


@pytest.mark.parametrize(
    "line",
    ["if (x) {", "return x;", "    foo(),", "std::sort", "</VirtualHost>", "a -> b", "x == y", "$ make install", ">>> import x",
     "# comment", "// note", "@property", "run()", "## Parameters",
     "import os", "from os import path", "total = 5", "class A(B):"],
)  # fmt: skip
def test_code_and_headings_stay(line: str):
    assert without([line, "Text %d."]) == [line, "Text %d."]
    assert without([line, line, "Text %d."], spare=()) == ["Text %d."]


@pytest.mark.parametrize(
    "line",
    [
        "Log in (or register)",
        "Next »",
        "[edit]",
        "Terms & Conditions",
        "50% off!",
        "C# and F#",
        "a/b",
        "Important news",
        "We import tea",
        "Price (EUR)",
        "Share this:",
    ],
)
def test_what_is_no_code(line: str):
    assert without([line, line, "Text %d."]) == ["Text %d."]


def test_fences():
    lines = ["The menu of a site", "Text %d.", "```python", "import os", "while True", "```", "The footer of a site"]
    assert without(lines) == lines[1:-1]
    assert without(["~~~", "else", "```", "pass", "~~~", "The footer of a site", "%d text"])[:5] == [
        "~~~",
        "else",
        "```",
        "pass",
        "~~~",
    ]


def page(host, n, lines):
    return {"text": "\n".join([*lines, f"Story {n}."]), "url": f"https://{host}/{n}"}


def test_small_hosts_and_pages_without_a_host_stay_as_they_are():
    pages = [page("small.test", n, ["Menu"]) for n in range(4)]
    pages += [{"text": "Menu\nNowhere.", "url": None}, {"text": "Menu\nNo host.", "url": "about:blank"}] * 20
    assert HostBoilerplate()(pages).dropped.num_rows == 0
    changed = HostBoilerplate()(pages).kept["host_boilerplate_removed"].to_pylist()
    assert changed[:4] == [0] * 4
    assert changed[4::2] == [0] * 20


def test_a_line_of_a_section_goes_on_a_large_host():
    pages = [page("large.test", n, ["The menu of a host", *["Section"] * (n < 10), *["Series"] * (n < 9)]) for n in range(200)]
    left = HostBoilerplate()(pages).kept
    assert left["text"][0].as_py() == "Series\nStory 0."
    assert left["host_boilerplate_removed"].to_pylist() == [2] * 10 + [1] * 190


def test_it_is_line_dedup():
    menu = "The menu of a host"
    table = pa.Table.from_pylist([page("www.a.test" if n % 2 else "a.test", n, [menu, f"Part {n % 3}"]) for n in range(12)])
    same = {"min_documents": 10, "max_share": 0.5, "min_scope": 5, "min_run": 5, "spare": ("code", "headings")}
    theirs = LineDedup(scope="host", **same)(table)
    ours = HostBoilerplate()(table)
    assert ours.kept["text"].to_pylist() == theirs.kept["text"].to_pylist() != table["text"].to_pylist()
    assert HostBoilerplate().reasons() == ("host_boilerplate.empty",)
    assert HostBoilerplate().writes().names == ["text", "host_boilerplate_removed", "host_boilerplate_removed_bytes"]


def test_bad_parameters():
    for bad in ({"min_run": 0}, {"spare": ("cod",)}):
        with pytest.raises(RecipeError, match=f"host_boilerplate: {next(iter(bad))}"):
            HostBoilerplate(**bad)
