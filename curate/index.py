"""Indexes: what a deduplication keeps of documents that stay, so that later runs find duplicates of them without their text.

An index is a folder `index/<stage>` of a run with an index.json that is written last: which stage and version made it, with
which parameters, and for each part its files with digests. A part is what one shard gave. An index that was made against
another one lists the parts of that, too, and holds them as links (or copies), so that it stands alone.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.errors import RecipeError
from curate.storage import atomic, read_json, read_partition, remove_tree, sha256_file, write_json, write_partitioned

FORMAT = "curate-index/1"
NAME = "index.json"
RANGES = 256  # of the keys of a part
_SHIFT = np.uint64(56)


@dataclass(frozen=True)
class Part:
    """Files of one shard, by what they hold."""

    documents: int
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Index:
    """An index as a later stage sees it."""

    path: Path
    parts: tuple[Part, ...]
    params: Mapping[str, Any]

    @property
    def documents(self) -> int:
        return sum(part.documents for part in self.parts)


def find(stage: str, path: str) -> Path:
    """The index.json of a stage in a run folder, in an index folder, or itself. Raises RecipeError."""
    given = Path(path)
    if given.name == NAME or (given / NAME).is_file():
        found = [given if given.name == NAME else given / NAME]
    else:
        found = sorted(p for p in given.glob(f"index/*/{NAME}") if read_json(p).get("stage") == stage)
    found = [p for p in found if p.is_file()]
    if not found:
        raise RecipeError(f"{stage}: no index in {path}: give a run that was made with `keep_index: true`, or its index folder")
    if len(found) > 1:
        names = ", ".join(str(p.parent) for p in found)
        raise RecipeError(f"{stage}: {path} holds {len(found)} indexes ({names}): give one of them")
    return found[0]


def load(stage: str, version: int, params: Mapping[str, Any], path: str) -> Index:
    """Open an index. params: what must be the same in the run that made it. Raises RecipeError naming what is not."""
    found = find(stage, path)
    return _load(stage, version, tuple(params.items()), found, found.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _load(stage: str, version: int, params: tuple[tuple[str, Any], ...], path: Path, _mtime: int) -> Index:
    raw = read_json(path)
    made = f"{raw.get('format')}, {raw.get('stage')} {raw.get('version')}"
    if made != f"{FORMAT}, {stage} {version}":
        raise RecipeError(f"{stage}: the index {path} is of another kind or version ({made}): make it again")
    for name, value in params:
        if raw["params"].get(name) != value:
            raise RecipeError(f"{stage}: the index {path} was made with {name}: {raw['params'].get(name)}, not {value}")
    parts = []
    for part in raw["parts"]:
        files = {what: path.parent / entry["name"] for what, entry in part["files"].items()}
        for file in files.values():
            if not file.is_file():
                raise RecipeError(f"{stage}: the index {path} lacks its file {file.name}: make it again")
        parts.append(Part(part["documents"], files))
    return Index(path, tuple(parts), raw["params"])


def part_path(folder: Path, number: int, what: str) -> Path:
    """Where a file of a part is to be written."""
    return folder / f"{number:05d}.{what}.parquet"


def write_keys(path: Path, column: str, keys: pa.Table) -> None:
    """Write the keys of a part, a table sorted by a uint64 column: by ranges of it, so that some may be read alone."""
    values = keys[column].to_numpy()
    bounds = np.append(np.searchsorted(values, np.arange(RANGES, dtype=np.uint64) << _SHIFT), len(values))
    tables = ((p, keys.slice(a, b - a)) for p, (a, b) in enumerate(itertools.pairwise(bounds)))
    write_partitioned(path, keys.schema, tables, codec="none")


def keys_between(path: Path, column: str, low: int, high: int) -> Iterator[pa.Table]:
    """The keys of a part from `low` on and below `high`, which may be 2^64."""
    for p in range(low >> int(_SHIFT), ((high - 1) >> int(_SHIFT)) + 1):
        table = read_partition(path, p)
        values = table[column].to_numpy()
        first, last = np.searchsorted(values, np.uint64(low)), np.searchsorted(values, np.uint64(high - 1), side="right")
        if last > first:
            yield table.slice(int(first), int(last - first))


def close(
    folder: Path, stage: str, version: int, params: Mapping[str, Any], old: Index | None, made: Sequence[Mapping[str, Any]]
) -> None:
    """Write index.json: the parts of `old`, which are linked here, and then those that were made, each with its `documents`
    and `files` ({what: {name, sha256}})."""
    parts: list[Mapping[str, Any]] = []
    if old is not None:
        for entry in read_json(old.path)["parts"]:
            for file in entry["files"].values():
                _link(old.path.parent / file["name"], folder / file["name"])
            parts.append(entry)
    parts += made
    write_json(
        folder / NAME,
        {
            "format": FORMAT,
            "stage": stage,
            "version": version,
            "params": dict(params),
            "documents": sum(part["documents"] for part in parts),
            "parts": parts,
        },
    )


def _link(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system
            shutil.copyfile(source, temporary)


def described(paths: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Names and digests of the files of a part."""
    return {what: {"name": path.name, "sha256": sha256_file(path)} for what, path in paths.items()}


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for what one task spills, removed at its end; what a killed one leaves goes with the next run."""
    import uuid

    from curate.storage import TEMPORARY

    path = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        remove_tree(path)
