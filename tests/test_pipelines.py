"""The shipped pipelines: each can be planned and run, and follows its paper."""

import json
from collections import Counter

import polars as pl
import pytest
from corpus import curate, write_jsonl

from curate.errors import RecipeError
from curate.recipe import Recipe, shipped
from curate.sample import write_sample
from curate.stages.rules import Rules

PUBLISHED = ("c4", "fineweb", "gopher")
MODEL = "stages.{}.model=some-model"
NEEDS = {  # what a recipe leaves to those who run it
    "dclm": ["stages.dclm.positive=[FILE]"],
    "fineweb_edu": [MODEL.format("teacher")],
    "nemotron_cc": [MODEL.format("teacher_a"), MODEL.format("teacher_b")],
    "cci4": [MODEL.format("teacher_a"), MODEL.format("teacher_b"), "stages.like.positive=[FILE]"],
    "dataman": [MODEL.format("teacher")],
    "biomed": [MODEL.format("teacher")],
    "betr": ["stages.betr.examples=[FILE]"],
    "dsir": ["stages.dsir.targets=[FILE]"],
    "quadmix": ["stages.quadmix.target=FILE"],
    "climb": ["stages.climb.target=FILE"],
    "climb-paper": ["stages.climb.target=QUESTIONS"],
    "regmix": ["stages.regmix.target=FILE"],
    "wrap": [MODEL.format("rewrite")],
    "rewire": [MODEL.format("rewrite")],
    "rephrase-multilingual": [MODEL.format("rewrite")],
    "nemotron-synthetic": [MODEL.format("rewrite")],
    "math-clean": [MODEL.format("rewrite")],
    "color-filter": ["stages.color_filter.target=FILE"],
    "entigraph": [MODEL.format("entigraph")],
}


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 150, 2, 1)
    return folder


@pytest.fixture(scope="module", params=PUBLISHED)
def finished(request, crawl, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "run"
    curate("run", request.param, "-i", crawl / "crawl", "-o", out, "-w", "1", check=0)
    return request.param, out


# what each recipe has rules against
STOPPED = {
    "gopher": {"foreign", "spam.repeats", "spam.short", "spam.symbols"},
    "c4": {"foreign", "spam.lorem", "spam.symbols"},
    "fineweb": {"foreign", "spam.lorem", "spam.repeats", "spam.short", "spam.symbols"},
}


def labels(crawl):
    return {row["record_id"]: row for row in map(json.loads, (crawl / "labels.jsonl").read_text().splitlines())}


def filled(need, folder):
    """A setting with the file that it needs."""
    texts = write_jsonl(folder / "references.jsonl", [{"text": "A text.", "bench": "quiz", "split": "train"}])
    questions = write_jsonl(folder / "questions.jsonl", [{"question": "Is it?", "choices": ["yes", "no"], "answer": 0}])
    return need.replace("FILE", str(texts)).replace("QUESTIONS", str(questions))


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_pipeline_can_be_planned(name, crawl, tmp_path):
    settings = [part for need in NEEDS.get(name, []) for part in ("--set", filled(need, tmp_path))]
    done = curate("plan", name, "-i", crawl / "crawl", "--json", *settings, check=0)
    assert json.loads(done.stdout)["recipe"] == name
    assert Recipe.load(name, settings[1::2]).description


@pytest.mark.parametrize("name, left_out", [(name, need) for name, needs in NEEDS.items() for need in needs])
def test_what_is_left_to_be_given_is_asked_for(name, left_out, crawl, tmp_path):
    settings = [filled(need, tmp_path) for need in NEEDS[name] if need != left_out]
    with pytest.raises(RecipeError, match=left_out.split("=")[0].rpartition(".")[2]):
        Recipe.load(name, settings).with_inputs([str(crawl / "crawl")]).plan()


@pytest.mark.parametrize("name", PUBLISHED)
def test_thresholds_are_the_published_ones(name):
    rules = [item.stage for item in Recipe.load(name).stages if isinstance(item.stage, Rules)]
    assert rules and all(not stage.thresholds and not stage.languages for stage in rules)


@pytest.mark.parametrize(
    "name, stages",
    [
        ("fineweb", ["url_filter", "language", "signals", "rules", "c4_lines", "signals", "rules", "minhash", "pii"]),
        ("c4", ["language", "signals", "rules", "c4_lines"]),
        ("gopher", ["language", "signals", "rules", "exact_dedup", "minhash"]),
    ],
)
def test_stages_come_in_the_order_of_the_paper(name, stages):
    assert [type(item.stage).__module__.rpartition(".")[2] for item in Recipe.load(name).stages] == stages


def test_fineweb_judges_in_the_order_of_its_own_pipeline():
    first, second = (item.stage for item in Recipe.load("fineweb").stages if isinstance(item.stage, Rules))
    assert first.sets == ("gopher_repetition", "gopher", "c4_any_end")
    assert second.sets == ("fineweb",)
    language = next(item.stage for item in Recipe.load("fineweb").stages if item.id == "language")
    assert (language.keep, language.min_score) == (("en",), 0.65)
    lines = next(item.stage for item in Recipe.load("fineweb").stages if item.id == "c4_lines")
    assert not lines.terminal_punctuation


def test_spam_and_boilerplate_do_not_get_through(finished, crawl):
    name, out = finished
    known = labels(crawl)
    kept = pl.read_parquet(out / "output" / "data" / "*.parquet")
    kinds = Counter(known[id_]["kind"] for id_ in kept["id"])
    assert kinds["article"] > 0
    assert not {kind for kind in kinds if kind.startswith("reply")}
    assert STOPPED[name] <= {row["kind"] for row in known.values()}
    assert not STOPPED[name] & set(kinds)
    curate("verify", out, check=0)


def test_every_stage_has_something_to_do(finished):
    name, out = finished
    drops = {stage["id"]: stage["drops"] for stage in json.loads((out / "summary.json").read_text())["stages"]}
    assert drops["language"]
    assert drops["rules"]
    if name == "c4":
        assert set(drops["rules"]) <= {"c4.lorem_ipsum", "c4.curly_bracket", "c4.min_sentences"}


def test_c4_leaves_lines_that_end(finished):
    name, out = finished
    if name == "c4":
        for text in pl.read_parquet(out / "output" / "data" / "*.parquet")["text"]:
            assert all(line.endswith((".", "?", "!", '"', "'")) and len(line.split()) > 1 for line in text.split("\n"))
