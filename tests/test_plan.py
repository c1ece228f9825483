"""Recipes bound to columns, fingerprints and phases."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from corpus import RECIPE, mixed

from curate.errors import RecipeError
from curate.plan import Plan, resolve
from curate.recipe import Recipe, loads
from curate.run import run
from curate.sources import BASE

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
