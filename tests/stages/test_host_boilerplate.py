"""host_boilerplate: that it is line_dedup by host, and what its defaults do."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from repeated import cuts, judged, repeated, run, texts

from curate.stages.host_boilerplate import HostBoilerplate
from curate.stages.line_dedup import LineDedup


@given(st.lists(st.tuples(texts, st.sampled_from("aaab")), max_size=30), cuts)
def test_defaults_against_a_dictionary(documents, cut):
    documents, hosts = [d for d, _ in documents], [h for _, h in documents]
    needed = {h: min(10, max(2, n // 2 + 1) if (n := hosts.count(h)) >= 5 else 10) for h in "ab"}
    gone = repeated(documents, hosts, ("case",), 2, needed)
    assert run(HostBoilerplate(), documents, [f"http://{h}.test/" for h in hosts], **cut) == judged(documents, gone)


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
    pages = [
        page("large.test", n, ["Menu", *(["Section"] if n < 10 else []), *(["Series"] if n < 9 else [])]) for n in range(200)
    ]
    left = HostBoilerplate()(pages).kept
    assert left["text"][0].as_py() == "Series\nStory 0."
    assert left["host_boilerplate_removed"].to_pylist() == [2] * 10 + [1] * 190


def test_it_is_line_dedup():
    table = pa.Table.from_pylist([page("www.a.test" if n % 2 else "a.test", n, ["Menu", f"Part {n % 3}"]) for n in range(12)])
    theirs = LineDedup(scope="host", min_documents=10, max_share=0.5, min_scope=5)(table)
    ours = HostBoilerplate()(table)
    assert ours.kept["text"].to_pylist() == theirs.kept["text"].to_pylist() != table["text"].to_pylist()
    assert HostBoilerplate().reasons() == ("host_boilerplate.empty",)
    assert HostBoilerplate().writes().names == ["text", "host_boilerplate_removed", "host_boilerplate_removed_bytes"]
