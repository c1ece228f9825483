"""manifest.json: what an output is, in one file that is written last.

`digest` names the result: recipe, inputs, columns, stages and shards, and nothing that differs between two equal runs.
`checksum` covers everything else in the file, and the shards and files carry their sha256, so that one changed byte anywhere
below the output folder is found. The schema is published as docs/manifest.schema.json; `python -m curate.manifest` prints it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.errors import ManifestError
from curate.storage import canonical, open_table, sha256_file, write_bytes

NAME = "manifest.json"
FILES = ("README.md", "croissant.json")
_DIGESTED = ("format", "recipe", "inputs", "columns", "stages", "shards")
_SHA256 = Field(pattern="^[0-9a-f]{64}$")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Totals(_Model):
    """Sums over documents: bytes are UTF-8 bytes of text, tokens by the manifest's tokenizer."""

    documents: int = Field(ge=0)
    bytes: int = Field(ge=0)
    tokens: int = Field(ge=0)


class Shard(Totals):
    """One Parquet file: path relative to the output folder, sums over its documents, and the digest of its bytes."""

    path: str
    sha256: str = _SHA256
    split: Literal["train", "validation"]
    group: str | None = None


class Input(_Model):
    """One input file. name: relative to its root; sha256: of its bytes, empty if it could not be read."""

    corpus: str
    name: str
    bytes: int
    sha256: str
    documents: int
    rejected: int


class StageEntry(_Model):
    """What a stage did. rows_in + rows_added = rows_out + the sum of drops."""

    id: str
    name: str
    params: dict[str, Any]
    rows_in: int = Field(ge=0)
    rows_added: int = Field(ge=0)
    rows_out: int = Field(ge=0)
    drops: dict[str, int]


class Manifest(_Model):
    """An output of Curate.

    columns: name to Arrow type. totals, groups: sums over all shards, and per group. files: digests of the other files.
    provenance: versions, times, host; outside the digest. checksum: sha256 of the canonical JSON of all other fields.
    """

    format: Literal["curate-manifest/1"] = "curate-manifest/1"
    digest: str = _SHA256
    deterministic: bool
    recipe: dict[str, Any]
    inputs: list[Input]
    columns: dict[str, str]
    tokenizer: str
    totals: Totals
    shards: list[Shard]
    groups: dict[str, Totals]
    stages: list[StageEntry]
    provenance: dict[str, Any]
    files: dict[str, str] = {}
    checksum: str = ""

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read a manifest. Raises ManifestError where it is missing or not one."""
        path = Path(path)
        try:
            return cls.model_validate(orjson.loads(path.read_bytes()))
        except FileNotFoundError:
            raise ManifestError(f"{path} is missing: the export has not finished; run the recipe again") from None
        except orjson.JSONDecodeError as error:
            raise ManifestError(f"{path} is not JSON: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"])
            raise ManifestError(f"{path}: {where}: {first['msg']}") from error

    def encoded(self) -> bytes:
        """The bytes of manifest.json."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def write(self, root: str | Path, more: Iterable[str] = ()) -> Manifest:
        """Write `<root>/manifest.json` with digests of README.md, croissant.json and `more` as they lie there; returns it."""
        root = Path(root)
        files = {name: sha256_file(root / name) for name in (*FILES, *more) if (root / name).exists()}
        made = self.model_copy(update={"files": files})
        made = made.model_copy(update={"checksum": _checksum(made)})
        write_bytes(root / NAME, made.encoded())
        return made

    @classmethod
    def verify(cls, root: str | Path, deep: bool = False) -> dict[str, Any]:
        """Check an output folder against its manifest: every byte, and that there is nothing else.

        deep: also read every page of every shard and count again. Raises ManifestError naming the first file that is wrong.
        """
        root = Path(root)
        found = cls.load(root / NAME)
        found._check(root / NAME)
        listed = {**{s.path: s.sha256 for s in found.shards}, **found.files}
        for name, sha256 in listed.items():
            path = root / name
            if not path.is_file():
                raise ManifestError(f"{path} is missing")
            if sha256_file(path) != sha256:
                raise ManifestError(f"{path} was changed: its sha256 is not the one in {NAME}")
        for path in sorted(root.rglob("*")):
            if not path.is_dir() and path.relative_to(root).as_posix() not in {*listed, NAME}:
                raise ManifestError(f"{path} is not listed in {NAME}")
        if deep:
            for shard in found.shards:
                try:
                    _recount(root / shard.path, shard, found)
                except (OSError, pa.ArrowInvalid) as error:
                    raise ManifestError(f"{root / shard.path} cannot be read: {error}") from error
        return {"ok": True, "digest": found.digest, **found.totals.model_dump()}

    def _check(self, path: Path) -> None:
        """That the manifest agrees with itself."""
        if path.read_bytes() != self.encoded() or _checksum(self) != self.checksum:
            raise ManifestError(f"{path} was changed: its checksum is not that of its content")
        if _digest(self) != self.digest:
            raise ManifestError(f"{path}: the digest is not that of its content")
        if _totals(self.shards) != self.totals or _groups(self.shards) != self.groups:
            raise ManifestError(f"{path}: the totals are not the sums over the shards")
        for stage in self.stages:
            if stage.rows_in + stage.rows_added != stage.rows_out + sum(stage.drops.values()):
                raise ManifestError(f"{path}: the rows of stage {stage.id!r} do not add up")
        for name in (*(s.path for s in self.shards), *self.files):
            if name.startswith("/") or ".." in name.split("/"):
                raise ManifestError(f"{path} lists {name!r}, which is not below its folder")


def build(
    *,
    recipe: dict[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    tokenizer: str,
    shards: Iterable[Any],
    stages: Sequence[Mapping[str, Any]],
    deterministic: bool,
    provenance: dict[str, Any],
) -> Manifest:
    """The manifest of an export, with totals and digest. shards: `curate.export.ShardEntry`, in file order."""
    listed = [Shard(**s.__dict__) for s in shards]
    made = Manifest(
        digest="0" * 64,
        deterministic=deterministic,
        recipe=orjson.loads(canonical(recipe)),
        inputs=[Input(**i) for i in inputs],
        columns=dict(columns),
        tokenizer=tokenizer,
        totals=_totals(listed),
        shards=listed,
        groups=_groups(listed),
        stages=[StageEntry(**orjson.loads(canonical(s))) for s in stages],
        provenance=orjson.loads(canonical(provenance)),
    )
    return made.model_copy(update={"digest": _digest(made)})


def verify(path: str | Path, deep: bool = True) -> dict[str, Any]:
    """Check a run folder (its output and its documents) or an output folder alone; raises ManifestError."""
    path = Path(path)
    if (path / "run.json").exists():
        from curate.run import Run

        return Run(path).verify()
    return Manifest.verify(path, deep)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of manifest.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(canonical(manifest.model_dump(include=set(_DIGESTED)))).hexdigest()


def _checksum(manifest: Manifest) -> str:
    return hashlib.sha256(canonical(manifest.model_dump(exclude={"checksum"}))).hexdigest()


def _totals(shards: Sequence[Shard]) -> Totals:
    return Totals(
        documents=sum(s.documents for s in shards), bytes=sum(s.bytes for s in shards), tokens=sum(s.tokens for s in shards)
    )


def _groups(shards: Sequence[Shard]) -> dict[str, Totals]:
    names = dict.fromkeys(s.group for s in shards if s.group is not None)
    return {name: _totals([s for s in shards if s.group == name]) for name in names}


def _recount(path: Path, shard: Shard, manifest: Manifest) -> None:
    """Read all of a shard, page checksums included, and compare what it holds with its entry."""
    with open_table(path) as file:
        schema = file.schema_arrow
        held = {f.name: str(f.type) for f in schema}
        if list(held) != list(manifest.columns):
            raise ManifestError(f"{path} has the columns {', '.join(held)}, not {', '.join(manifest.columns)}")
        documents = size = tokens = 0
        for batch in file.iter_batches(1024, use_threads=False):
            batch.validate(full=True)
            documents += batch.num_rows
            if "text" in held:
                size += pc.sum(pc.binary_length(batch["text"])).as_py() or 0
            if "tokens" in held:
                tokens += pc.sum(batch["tokens"].cast(pa.int64())).as_py() or 0
    counted = {"documents": documents}
    if "text" in held:
        counted["bytes"] = size
    if "tokens" in held:
        counted["tokens"] = tokens
    for what, n in counted.items():
        if n != getattr(shard, what):
            raise ManifestError(f"{path} holds {n} {what}, {NAME} says {getattr(shard, what)}")


if __name__ == "__main__":
    import sys

    sys.stdout.buffer.write(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
