"""Recipes bound to columns, fingerprints and phases."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from corpus import RECIPE, mixed

from curate.errors import ColumnError, RecipeError
from curate.plan import Plan, resolve
from curate.recipe import Recipe, loads
from curate.run import run
from curate.sources import BASE
from curate.stages.signals import Signals

SCHEMA = pa.schema([*BASE, ("score", pa.float64()), ("n", pa.int64())])


def plan(recipe: Recipe) -> Plan:
    return resolve(recipe.stages, SCHEMA, "upstream")


@pytest.mark.parametrize("body", [RECIPE, "name: x\nstages: [compact, {quantile: {column: score, keep: 1}}]\n"])
def test_a_recipe_and_its_dump_have_the_same_fingerprints(body: str) -> None:
    recipe = loads(body)
    again = loads(recipe.dump())
    assert again == recipe and again.dump() == recipe.dump()
    assert plan(again).fingerprint == plan(recipe).fingerprint
    assert (
        plan(loads("name: x\nstages: [{compact: {text_mb: 64}}]\n")).fingerprint
        == plan(loads("name: x\nstages: [compact]\n")).fingerprint
    )


def test_a_recipe_and_its_dump_have_the_same_digest(tmp_path: Path) -> None:
    recipe = loads("name: x\nstages: [word_count, compact]\n").with_inputs([str(mixed(tmp_path / "in", 100))])
    first = run(recipe, tmp_path / "run", executor="inline")
    again = first.resume(executor="inline")
    assert again.manifest.digest == first.manifest.digest
    assert len(first.context.generations) == 2


def test_only_the_id_of_a_stage_that_names_documents_is_in_its_fingerprint() -> None:
    split, count = (
        "name: x\nstages:\n  - {split: {}, id: %s}\n  - word_count\n",
        "name: x\nstages:\n  - {word_count: {}, id: %s}\n",
    )
    assert plan(loads(split % "one")).fingerprint != plan(loads(split % "two")).fingerprint
    assert plan(loads(count % "one")).fingerprint == plan(loads(count % "two")).fingerprint


@pytest.mark.parametrize(
    ("beside", "says"),
    [
        ("transient: no", "true or false"),
        ("on_error: sotp", "'drop' or 'stop'"),
        ("max_drop: 7", "a share between 0 and 1"),
        ("max_errors: -1", "a share between 0 and 1"),
        ("id: a/b", "a word of letters"),
        ("id: ingest", "neither 'ingest'"),
        ("stale: yes", "'ok' or 'error'"),
    ],
)
def test_what_stands_beside_a_stage_is_checked(beside: str, says: str) -> None:
    with pytest.raises(RecipeError, match=rf"recipe:\d.*{says}"):
        loads(f"name: x\nstages:\n  - word_count: {{}}\n    {beside}\n")


def bound(body: str, schema: pa.Schema = SCHEMA) -> list[str]:
    """What `signals` goes by, in each of its places."""
    nodes = resolve(loads(f"name: x\nstages: {body}\n").stages, schema, "upstream").nodes
    return [node.stage.language for node in nodes if isinstance(node.stage, Signals)]


def test_a_stage_is_bound_to_the_columns_before_it() -> None:
    assert bound("[signals]") == bound("[signals, language]") == ["detect"]
    assert bound("[language, signals]") == ["column"]
    assert bound("[signals, language, {signals: {}, id: again}]") == ["detect", "column"]
    assert bound("[signals]", SCHEMA.append(pa.field("language", pa.string()))) == ["column"]
    assert bound("[language, {signals: {language: en}}]") == ["en"]
    assert bound("[language, {signals: {language: detect}}]") == ["detect"]


def test_the_fingerprint_is_of_the_bound_stage() -> None:
    def of(body: str) -> str:
        return plan(loads(f"name: x\nstages: {body}\n")).fingerprint

    assert of("[signals]") == of("[{signals: {language: detect}}]") != of("[{signals: {language: en}}]")
    assert of("[language, signals]") == of("[language, {signals: {language: column}}]")
    assert of("[language, signals]") != of("[language, {signals: {language: detect}}]")
    recipe = loads("name: x\nstages: [language, signals]\n")
    assert "language: auto" in recipe.dump(), "a recipe says what its author wrote"


def test_what_a_bound_stage_reads_must_be_there() -> None:
    with pytest.raises(ColumnError, match=r"reads the column 'language'.*stage 'language' writes it, put it before"):
        bound("[{signals: {language: column}}, language]")
    nodes = resolve(loads("name: x\nstages: [language, signals]\n").stages, SCHEMA, "upstream").nodes
    assert nodes[1].stage.reads() == ("text", "language")
    assert plan(loads("name: x\nstages: [signals]\n")).nodes[0].stage.reads() == ("text",)
