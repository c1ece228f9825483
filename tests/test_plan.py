"""Recipes bound to columns, fingerprints and phases."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from corpus import RECIPE, mixed

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
