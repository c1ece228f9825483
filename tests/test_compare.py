"""Extractors beside each other: the figures are those of the texts, and the columns hold the texts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from corpus import write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from curate import extract
from curate.cli import main
from curate.compare import compare, options_of, overlap, side_by_side
from curate.errors import RecipeError, SourceError

pytest.importorskip("trafilatura")

SENTENCE = "The committee met on Tuesday to discuss the budget, and after a long debate it agreed on a smaller plan. "


def html(n: int) -> str:
    paragraphs = "".join(f"<p>{SENTENCE.replace('Tuesday', f'day {k}')}</p>" for k in range(n + 2))
    links = "".join(f"<li><a href='/{k}'>Another page {k}</a></li>" for k in range(4 * n))  # which only one of them keeps
    more = f"<h2>A section</h2><p>{SENTENCE * 3}</p>"
    body = f"<article><h1>Plan {n}</h1>{paragraphs}{more}<ul class='related'>{links}</ul></article>"
    return f"<html><head><title>Page {n}</title></head><body>{body}</body></html>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(4):
        (tmp_path / f"{n}.html").write_text(html(n))
    (tmp_path / "4.html").write_text("<html><body><script>nothing()</script></body></html>")
    return tmp_path


PAIR = ("resiliparse", "trafilatura")


def test_the_figures_are_those_of_the_texts(folder: Path) -> None:
    seen: list[int] = []
    found = compare([str(folder)], PAIR, progress=seen.append)
    assert json.loads(json.dumps(found)) == found and seen == [1, 2, 3, 4, 5] and found["pages"] == 5
    texts = {}
    for name in PAIR:
        run = extract.load(name)
        texts[name] = [run((folder / f"{n}.html").read_bytes(), None, "utf-8").text for n in range(5)]
    words = {name: [Counter(re.findall(r"\w+", text.lower())) for text in texts[name]] for name in PAIR}
    scores = []
    for a, b in zip(*words.values(), strict=True):
        both = sum(min(a[w], b[w]) for w in a)
        scores.append(2 * both / (a.total() + b.total()) if a or b else 1.0)
    for engine, other in zip(found["engines"], PAIR[::-1], strict=True):
        assert engine["pages"] == 4 and engine["refused"] == {} and engine["seconds"] > 0
        assert engine["words"] == sum(w.total() for w in words[engine["name"]])
        assert engine["f1"] == {other: pytest.approx(sum(scores) / 5, abs=1e-3)}
        assert engine["pages_per_second"] == pytest.approx(5 / engine["seconds"], rel=0.05)
    assert [e["f1"] for e in found["differ"]] == pytest.approx(sorted(s for s in scores if s < 1), abs=1e-3)
    assert found["differ"][0]["url"] == "3.html" and found["page"]["page"] == 4
    assert found["page"]["texts"] == {name: texts[name][3] for name in PAIR}


def test_which_page_is_shown(folder: Path) -> None:
    rows = [{"html": html(n), "url": f"https://a.test/{n}", "id": f"id-{n}"} for n in range(5)]
    table = folder / "pages.parquet"
    pl.DataFrame(rows).write_parquet(table)
    for page in (2, "2", "https://a.test/1", "id-1"):
        found = compare([str(table)], PAIR, page=page)
        assert found["page"]["page"] == 2 and found["page"]["url"] == "https://a.test/1" and found["pages"] == 5
    assert compare([str(table)], PAIR, limit=2)["pages"] == 2
    assert compare([str(table)], PAIR, limit=2, page=4)["page"]["page"] == 4
    with pytest.raises(RecipeError, match="page 9: not found; these inputs have 5 pages"):
        compare([str(table)], PAIR, page=9)
    with pytest.raises(RecipeError, match="only the first 2 pages were read, see --limit"):
        compare([str(table)], PAIR, limit=2, page="https://a.test/4")
    with pytest.raises(RecipeError, match="counted from 1"):
        compare([str(table)], PAIR, page="0")


def test_pages_that_are_refused_and_records_that_are_none(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"html": "<div>" * 2000 + "x"}, {"html": None}, {"html": html(1)}]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    found = compare([str(tmp_path)], PAIR)
    assert found["pages"] == 2 and found["rejected"] == {"no_html": 1}
    assert [engine["refused"] for engine in found["engines"]] == [{"too_deep": 1}] * 2
    assert [engine["pages"] for engine in found["engines"]] == [1, 1]


def test_options_reach_the_extractors(folder: Path) -> None:
    found = compare([str(folder)], ("trafilatura", "curate"), format="markdown", page=2)
    assert found["format"] == "markdown"
    for text in found["page"]["texts"].values():
        assert "\n## A section\n" in text


def test_which_extractors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(*engines: str, **options: Any) -> list[str]:
        return [e["name"] for e in compare([str(folder / "1.html")], engines, **options)["engines"]]

    assert names() == names("curate") == ["curate", "resiliparse", "trafilatura"]
    assert names("trafilatura") == ["curate", "trafilatura"]
    assert names("trafilatura", "resiliparse") == ["trafilatura", "resiliparse"]
    assert names(keep="all_text") == ["curate", "resiliparse"]  # trafilatura has no such option
    left = compare([str(folder / "1.html")], keep="all_text")["left_out"]
    assert left == {"trafilatura": "extractor 'trafilatura' has no keep: 'all_text', only 'main', 'comments'"}
    with pytest.raises(RecipeError, match="has no keep: 'all_text'"):
        names("trafilatura", "resiliparse", keep="all_text")
    with pytest.raises(RecipeError, match="'resiliparse' is named twice"):
        names("resiliparse", "resiliparse")
    with pytest.raises(RecipeError, match="did you mean 'resiliparse'"):
        names("resilparse")
    monkeypatch.setattr(extract, "names", lambda: ["curate"])
    with pytest.raises(RecipeError, match="nothing to compare 'curate' with"):
        names()


def test_inputs_without_pages(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no pages"):
        compare([str(write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}]))], PAIR)
    with pytest.raises(SourceError, match="does not exist"):
        compare([str(tmp_path / "nothing.warc")], PAIR)
    (tmp_path / "empty.warc").write_bytes(b"")
    found = compare([str(tmp_path / "empty.warc")], PAIR)
    assert found["pages"] == 0 and found["page"] is None and found["differ"] == []


def test_parameters() -> None:
    assert options_of([]) == {}
    several = ["engine=a,b", "engine=c", "keep=all_text", "format=markdown"]
    assert options_of(several) == {"engines": ["a", "b", "c"], "keep": "all_text", "format": "markdown"}
    assert options_of(["engine=[a, b]"]) == {"engines": ["a", "b"]}
    for wrong, says in [("engine", "write key=value"), ("kep=main", "did you mean 'keep'"), ("metadata=no", "no option of")]:
        with pytest.raises(RecipeError, match=says):
            options_of([wrong])


def test_word_f1() -> None:
    def f1(a: str, b: str) -> float:
        return overlap(Counter(a.split()), Counter(b.split()))[2]

    assert f1("", "") == 1 and f1("a", "") == 0 and f1("a b", "c") == 0
    assert f1("a a b", "a b b") == pytest.approx(2 * 2 / 6)


LINES = st.lists(st.sampled_from(["one", "two", "Three words here", "", " ", "four", "!"]), max_size=12).map("\n".join)


@given(st.lists(LINES, min_size=2, max_size=4))
def test_side_by_side(texts: list[str]) -> None:
    rows = side_by_side({str(k): text for k, text in enumerate(texts)})
    for k, text in enumerate(texts):
        lines = [line for line in text.split("\n") if line.strip()]
        assert [cells[k] for _, cells in rows if cells[k]] == lines  # all of it, in order
    for same, cells in rows:
        assert any(cells) and (not same or len({cell.lower() for cell in cells}) == 1)
    if len(set(texts)) == 1:
        assert all(same for same, _ in rows)


def test_side_by_side_finds_the_same_lines_again() -> None:
    rows = side_by_side({"a": "menu\nTitle\nfirst\nsecond", "b": "Title\nFirst\nextra\nsecond\nfooter", "c": "Title\nsecond"})
    assert rows == [
        (False, ["menu", "", ""]),
        (True, ["Title", "Title", "Title"]),
        (False, ["first", "First", ""]),
        (False, ["", "extra", ""]),
        (True, ["second", "second", "second"]),
        (False, ["", "footer", ""]),
    ]


# ------------------------------------------------------------------------------------------------ the command


def call(*args: object, width: int | None = None) -> Result:
    return CliRunner(env={"COLUMNS": str(width)} if width else {}).invoke(main, ["apply", "extract", *map(str, args)])


def test_the_command(folder: Path) -> None:
    done = call(folder, "--compare", "--param", "engine=resiliparse,trafilatura", "--page", "3.html")
    assert done.exit_code == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "5 pages, keep: main, format: text"
    assert lines[2].split() == "engine with text refused words pages/s F1 to resiliparse F1 to trafilatura".split()
    assert lines[3].split()[:3] == ["resiliparse", "4", "0"] and lines[4].split()[:3] == ["trafilatura", "4", "0"]
    assert "page 4  3.html" in done.stdout and re.search(
        r"^resiliparse \([\d,]+ words\) +trafilatura \([\d,]+ words\)$", done.stdout, re.M
    )
    assert re.search(r"^Plan 3 +Plan 3$", done.stdout, re.M)
    assert "\x1b" not in done.stdout and not list(folder.glob("**/run.json"))
    as_json = call(folder, "--compare", "--param", "engine=resiliparse", "--param", "engine=trafilatura", "--page", 4, "--json")
    found = json.loads(as_json.stdout)
    expected = compare([str(folder)], PAIR, page=4)
    assert found["page"] == expected["page"] and found["differ"] == expected["differ"]


def test_a_long_page_is_cut_unless_it_was_asked_for(folder: Path) -> None:
    (folder / "5.html").write_text(html(200))
    arguments = [folder, "--compare", "--param", "engine=resiliparse,trafilatura"]
    short, whole = call(*arguments).stdout, call(*arguments, "--page", 6).stdout
    assert "day 5 " in short and "day 200" not in short and re.search(r"^… \d+ more; --page 6 shows all$", short, re.M)
    assert "day 200" in whole and "more; --page" not in whole


def test_a_page_does_not_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(html(3).replace("committee", "com\x1b[31m\x9bmit\u202etee [bold]"))
    done = call(tmp_path, "--compare", "--param", "engine=resiliparse,trafilatura")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout) and "[bold]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compare", "-o", "x"], "--compare runs in this process and writes nothing: leave out -o"),
        (["--compare", "-w", "2", "--accept", "a"], "leave out -w, --accept"),
        (["--page", "3"], "--page 3: only with --compare"),
        (["--compare", "--param", "engine=resilparse"], "unknown extractor 'resilparse'; did you mean 'resiliparse'?"),
        (["--compare", "--param", "keep=some"], "keep is 'some'; known: all_text, comments, main"),
        (
            ["--compare", "--param", "engine=resiliparse,trafilatura", "--page", "99"],
            "page 99: not found; these inputs have 5 pages",
        ),
    ],
)
def test_one_line_for_each_mistake(folder: Path, arguments: list[str], says: str) -> None:
    done = call(folder, *arguments)
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and says in done.stderr and done.stderr.count("\n") == 1
    other = CliRunner().invoke(main, ["apply", "where", str(folder), "--compare"])
    assert other.exit_code == 2 and "only for the stage 'extract', not 'where'" in other.stderr


def test_apply_without_compare_needs_a_run_folder(folder: Path) -> None:
    done = call(folder)
    assert done.exit_code == 2 and "Missing option '-o' / '--out'" in done.stderr
