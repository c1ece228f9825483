"""Folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.storage import atomic_folder


def write(folder: Path, text: str, **options: bool) -> None:
    with atomic_folder(folder, **options) as new:
        (new / text).write_text(text)


def test_a_folder_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    write(folder, "first")
    write(folder, "second")
    assert [path.name for path in folder.iterdir()] == ["second"]
    write(folder, "third", replace=False)
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "nothing is left beside it"


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write(folder, "first")
    with pytest.raises(KeyError), atomic_folder(folder) as new:
        (new / "half").write_text("")
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "first"]
