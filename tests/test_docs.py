"""Docs, help and public names do not drift from the code."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpus import curate

import curate as package

ROOT = Path(__file__).parent.parent


def generator() -> object:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["stages.md", "signals.md", "cli.md"])
def test_reference_is_current(name: str) -> None:
    made = generator().FILES[name]()  # type: ignore[attr-defined]
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made, "run `make docs`"


def test_public_names() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_links_and_commands_of_the_readme() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
    said = set(re.findall(r"^\$ curate (\w+)", (ROOT / "README.md").read_text(), re.M))
    from curate.cli import main

    assert said and said <= set(main.commands)


def test_recipes_and_settings_of_the_page_about_rewriting() -> None:
    from curate.recipe import Recipe, loads, shipped

    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "docs" / "rewriting.md").read_text(encoding="utf-8"), re.M | re.S)
    recipes = [loads(body) for kind, body in blocks if kind == "yaml"]
    assert {type(item.stage).__name__ for recipe in recipes for item in recipe.stages} >= {"Rewrite", "Refine", "Mixture"}
    lines = [line for kind, body in blocks if kind in ("", "bash") for line in body.replace("\\\n", "").splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if re.match(r"curate run ", line)]
    for command in commands:
        assert command[2] in shipped(), command
        settings = [value for flag, value in itertools.pairwise(command) if flag == "--set"]
        assert settings and Recipe.load(command[2], settings), command
    assert len(commands) > 6


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from curate.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pyarrow', 'polars', 'numba', 'torch', 'datatrove', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert time.perf_counter() - started < 5  # the bar of 0.3 s is for benchmarks; this only catches an accident


def test_unknown_command_and_version() -> None:
    done = curate("rum", check=2)
    assert "did you mean 'run'?" in done.stderr
    assert curate("--version", check=0).stdout.strip() == f"curate, version {package.__version__}"


def test_optional_packages_are_not_core() -> None:
    """The core install has no torch: nothing imports an optional package unless it is used."""
    code = (
        "import sys, curate, curate.cli, curate.run, curate.show, curate.recipe, curate.explain\n"
        "from curate.stages import describe; describe()\n"
        "optional = {'torch', 'transformers', 'datasets', 'trafilatura', 'fasttext', 'sklearn', 'faiss', 'spacy', 's3fs'}\n"
        "assert not optional & set(sys.modules), optional & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
