"""From a list of stages to phases: names, columns and versions are checked here, before any work.

`resolve` walks the stages once and binds every column that they read to the stage that writes it, so that a missing or
stale column is an error now and not after a night of work. `cut` then groups them: one *pass* over the shards runs as many
map stages as it can, together with the first step of the next global stage. A new kind of stage needs no change here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.errors import ColumnError, RecipeError, did_you_mean
from curate.stage import ROW, Expand, GlobalStage, Stage, Step, deciding
from curate.storage import canonical, sha256_file

INTERNAL = ("_row", "_reason", "_value", "_duplicate_of", "_similarity", "_parent")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a recipe sets beside a stage. None of it changes a result, so none of it is in a fingerprint.

    max_drop: largest share of any corpus or language group that may go; max_cluster: largest verified duplicate cluster;
    max_errors: largest share of rows that may fail; on_error: "drop" a failing row, or "stop" at the first.
    """

    max_drop: float | None = None
    max_cluster: int | None = None
    max_errors: float = 0.001
    on_error: str = "drop"

    def __post_init__(self) -> None:
        for name in ("max_drop", "max_errors"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise RecipeError(f"{name} is {value}; it is a share between 0 and 1")
        if self.on_error not in ("drop", "stop"):
            raise RecipeError(f"on_error is {self.on_error!r}; it is 'drop' or 'stop'")


@dataclass(frozen=True, kw_only=True)
class Item:
    """A stage of a recipe with its id and what stands beside it."""

    stage: Stage
    id: str
    policy: Policy = Policy()
    transient: bool = False
    stale_ok: bool = False
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Column:
    """Where a column stands: its type, its layer ("" for the documents), and the version of `text` it was computed from."""

    type: pa.DataType
    layer: str
    version: int | None
    writer: str


@dataclass(frozen=True, kw_only=True)
class Node:
    """A stage bound to its place: fingerprint, columns before it, and the drops that count before it."""

    item: Item
    index: int
    generation: int
    fingerprint: str
    before: Mapping[str, Column]
    drops_before: tuple[str, ...]
    writes: pa.Schema

    @property
    def stage(self) -> Stage:
        return self.item.stage

    @property
    def id(self) -> str:
        return self.item.id

    @property
    def key(self) -> str:
        return f"{self.id}-{self.fingerprint[:8]}"

    @property
    def layer(self) -> str:
        """Folder of the layer, relative to the run."""
        return f"attributes/{self.key}"

    @property
    def drops(self) -> str:
        """Folder of the drops, relative to the run."""
        return f"drops/{self.key}"

    @property
    def state(self) -> str:
        """Scratch folder of the fit, relative to the run."""
        return f"state/{self.key}"

    @property
    def new_generation(self) -> str:
        """Folder of the documents that an Expand stage writes."""
        return f"documents-{self.generation + 1}-{self.fingerprint[:8]}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The bound stages, and the columns and drops as they stand after the last."""

    nodes: tuple[Node, ...]
    columns: Mapping[str, Column]
    drops: tuple[str, ...]
    generation: int
    fingerprint: str


def fingerprint_of(stage: Stage, upstream: str) -> str:
    """sha256 over class, version, deciding parameters, contents of `files()`, and everything before."""
    value = [upstream, identity(stage), type(stage).version, plain_params(deciding(stage), stage), digests(stage)]
    return hashlib.sha256(canonical(value)).hexdigest()


def identity(stage: Stage) -> str:
    """`module:Class`, which is how a class that is not ours is named in a recipe."""
    return f"{type(stage).__module__}:{type(stage).__qualname__}"


def digests(stage: Stage) -> list[str]:
    """Content digests of the files that decide the result of a stage, sorted."""
    found = []
    for path in stage.files():
        if not Path(path).is_file():
            raise RecipeError(f"stage {type(stage).__name__}: no such file: {path}")
        found.append(sha256_file(path))
    return sorted(found)


def plain_params(value: Any, stage: Stage) -> Any:
    """Parameters as JSON values; file paths as nothing, since their contents are digested."""
    if isinstance(value, Mapping):
        return {str(k): plain_params(v, stage) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_params(v, stage) for v in value]
    if isinstance(value, str) and files_of(value, stage):
        return "<file>"
    if value is None or isinstance(value, bool | int | float | str):
        return one_number(value)
    raise RecipeError(f"stage {type(stage).__name__}: parameters must be plain values, not {type(value).__name__}")


def files_of(value: str, stage: Stage) -> list[str]:
    """The files of a stage that a parameter stands for: one of them, or a folder that holds them."""
    return [path for path in stage.files() if path == value or Path(path).is_relative_to(value)]


def one_number(value: Any) -> Any:
    """64 for 64.0: a whole number is the same parameter in Python, in YAML and by default, and must have one fingerprint."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def resolve(items: Sequence[Item], schema: pa.Schema, upstream: str) -> Plan:
    """Bind stages to columns.

    schema: of the documents. upstream: fingerprint of the source. Raises ColumnError where a stage reads a column that
    nobody wrote before it, or one that is older than the text.
    """
    items = list(with_needs(items))
    ids = [item.id for item in items]
    if twice := [name for name in ids if ids.count(name) > 1]:
        raise RecipeError(f"there are two stages {twice[0]!r}, one of which another stage brings along: set another `id`")
    free = {f.name: Column(f.type, "", 0 if f.name in ("text", "tokens", "text_bytes") else None, "") for f in schema}
    columns = dict(free)
    nodes: list[Node] = []
    drops: list[str] = []
    version = generation = 0
    fingerprint = upstream
    for index, item in enumerate(items):
        stage = item.stage.bound(columns)
        item = replace(item, stage=stage)
        reads = stage.reads() + (stage.fit_reads() if isinstance(stage, GlobalStage) else ())
        for name in dict.fromkeys(reads):
            _check_column(name, item, columns, items[index + 1 :], version, index)
        if isinstance(stage, Expand) and not stage.keeps_id:
            fingerprint += f"#{item.id}"  # it becomes a part of the ids of documents
        fingerprint = fingerprint_of(stage, fingerprint)
        writes = _written(stage, item)
        if isinstance(stage, Expand):  # transient columns stay behind, but for those that it reads
            columns = {n: c for n, c in columns.items() if n in reads or not _is_transient(c, nodes)}
        node = Node(
            item=item,
            index=index,
            generation=generation,
            fingerprint=fingerprint,
            before=dict(columns),
            drops_before=tuple(drops),
            writes=writes,
        )
        nodes.append(node)
        seen = [columns[n].version for n in reads if n != ROW and columns[n].version is not None]
        if "text" in writes.names:
            version += 1
            seen = [version]
        made_from = min((v for v in seen if v is not None), default=None)
        layer = node.layer
        if isinstance(stage, Expand):
            generation, layer, drops = generation + 1, "", []
            columns = {n: Column(c.type, "", c.version, c.writer) for n, c in columns.items() if not _is_transient(c, nodes)}
        for f in writes:
            columns[f.name] = Column(f.type, layer, made_from, item.id)
        if not isinstance(stage, Expand):
            drops.append(node.drops)
    return Plan(nodes=tuple(nodes), columns=columns, drops=tuple(drops), generation=generation, fingerprint=fingerprint)


def with_needs(items: Sequence[Item]) -> Iterator[Item]:
    """The items, each after the stages that it needs. What they share is what stands beside it, but for the blast radius."""
    for item in items:
        policy = replace(item.policy, max_drop=None, max_cluster=None)
        needs = item.stage.needs().items()
        yield from with_needs([replace(item, stage=stage, id=f"{item.id}.{name}", policy=policy) for name, stage in needs])
        yield item


def _is_transient(column: Column, nodes: Sequence[Node]) -> bool:
    return any(n.item.transient and n.id == column.writer for n in nodes)


def _written(stage: Stage, item: Item) -> pa.Schema:
    writes = stage.writes()
    for f in writes:
        if f.name in INTERNAL or f.name in ("tokens", "text_bytes"):
            raise ColumnError(f"{item.where}stage {item.id!r} may not write {f.name!r}: the engine keeps it")
    if "text" in writes.names:  # sizes belong to the text that they are the size of
        writes = pa.schema([*writes, ("text_bytes", pa.uint32()), ("tokens", pa.uint32())])
    return writes


def _check_column(
    name: str, item: Item, columns: Mapping[str, Column], later: Sequence[Item], version: int, index: int
) -> None:
    if name == ROW:
        return
    if name not in columns:
        writers = [i.id for i in later if name in i.stage.writes().names]
        if writers:
            remedy = f"; stage {writers[0]!r} writes it, put it before"
        else:
            remedy = _who_could_write(name) or did_you_mean(name, columns)
        raise ColumnError(f"{item.where}stage {item.id!r} reads the column {name!r}, which nothing before it writes{remedy}")
    column = columns[name]
    if column.version is not None and column.version < version and not item.stale_ok:
        what = f"was computed by {column.writer!r}" if column.writer else "came with the documents"
        raise ColumnError(
            f"{item.where}stage {item.id!r} reads {name!r}, which {what} before the text was last changed: "
            f"add {column.writer or 'a stage that writes it'!r} again before it, or set `stale: ok` beside the stage"
        )


def _who_could_write(name: str) -> str:
    from curate.stages import all_stages

    found = []
    for stage_name, cls in all_stages():
        try:
            if name in cls(**cls.example).writes().names:
                found.append(stage_name)
        except Exception:  # a plug-in that cannot be made here is no help, and this is only a hint
            continue
    if found:
        writer = name if name in found else found[0]
        return f"; the stage {writer!r} writes it"
    return ""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass over the shards: map stages, then at most one of the first step of a fit and an Expand.

    check: stages whose blast radius is checked when the pass is over.
    """

    nodes: tuple[Node, ...]
    fit: Node | None = None
    expand: Node | None = None

    @property
    def label(self) -> str:
        names = [n.id for n in self.nodes]
        if self.fit:
            names.append(f"{self.fit.id}.{first_step(self.fit).name}")
        if self.expand:
            names.append(self.expand.id)
        return "+".join(names)

    @property
    def last(self) -> Node:
        found = self.fit or self.expand or self.nodes[-1]
        assert found is not None
        return found


def first_step(node: Node, n_shards: int = 1, n_docs: int = 1) -> Step:
    """The first step of the fit of a global stage."""
    assert isinstance(node.stage, GlobalStage)
    return node.stage.steps(n_shards, n_docs)[0]


def cut(nodes: Sequence[Node]) -> Iterator[Pass | Node]:
    """Passes, and between them the global stages (as nodes) whose remaining fit steps run there."""
    chain: list[Node] = []
    for node in nodes:
        if chain and (chain[-1].stage.resources != node.stage.resources or _limited(chain[-1])):
            yield Pass(nodes=tuple(chain))
            chain = []
        if isinstance(node.stage, GlobalStage):
            if first_step(node).reads is not None:
                yield Pass(nodes=tuple(chain), fit=node)
            elif chain:
                yield Pass(nodes=tuple(chain))
            yield node
            chain = [node]
        elif isinstance(node.stage, Expand):
            if chain and type(node.stage).group is not Expand.group:  # it needs the sizes of what survives
                yield Pass(nodes=tuple(chain))
                chain = []
            yield Pass(nodes=tuple(chain), expand=node)
            chain = []
        else:
            chain.append(node)
    if chain:
        yield Pass(nodes=tuple(chain))


def _limited(node: Node) -> bool:
    """A stage with a blast radius ends its pass, so that nothing reads its drops before they are checked."""
    return node.item.policy.max_drop is not None or node.item.policy.max_cluster is not None
