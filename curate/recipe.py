"""Recipes: a YAML file or the same thing in Python.

The file is read with YAML 1.2's core schema, so that `no` and `off` are strings and a language list may hold Norwegian.
Every mistake is reported with its line before any work. `load(dump(r)) == r`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from curate import storage
from curate.errors import RecipeError, did_you_mean
from curate.plan import Item, Policy, one_number
from curate.sources import Source
from curate.stage import Stage, param_fields, params
from curate.stages import find, name_of

if TYPE_CHECKING:
    from curate.run import Run

POLICY = ("max_drop", "max_cluster", "max_errors", "on_error")
COMMON = ("id", *POLICY, "stale", "transient")
TOP = ("name", "description", "corpus", "source", "tokenizer", "stages", "output")


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is exported.

    columns: which (default: id, text, url, date, tokens, other input columns, and what stages wrote); `corpus`, `file` and
    `record` are always there, so that a row can be traced to its source. shard_mb: about this many MB a Parquet file.
    validation: share of documents held out, at most validation_max, members of one duplicate cluster on one side.
    seed: of the global shuffle and the split. level: of zstd.
    """

    columns: tuple[str, ...] = ()
    shard_mb: float = 200
    validation: float = 0.0
    validation_max: int = 10_000
    seed: int = 42
    level: int = 3

    def __post_init__(self) -> None:
        if not self.shard_mb > 0:
            raise RecipeError(f"output.shard_mb is {self.shard_mb}; it must be positive")
        if not 0 <= self.validation < 1:
            raise RecipeError(f"output.validation is {self.validation}; it is a share, at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A source, stages in order, and an output."""

    name: str
    source: Source = field(default_factory=Source)
    stages: tuple[Item, ...] = ()
    output: Output = field(default_factory=Output)
    tokenizer: str = "bytes/4"
    description: str = ""

    @staticmethod
    def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """A recipe from a YAML file, or by the name of a shipped pipeline. overrides: `stages.<id>.<param>=<value>`, …"""
        try:
            text = locate(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
        return loads(text, str(path), overrides)

    def dump(self) -> str:
        """The recipe as YAML, every parameter written out."""
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True, width=120)

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain values, every parameter written out."""
        source = {f.name: _plain(getattr(self.source, f.name)) for f in dataclasses.fields(Source)}
        corpus, kind = source.pop("corpus"), source.pop("kind")
        found: dict[str, Any] = {"name": self.name}
        if self.description:
            found["description"] = self.description
        if corpus is not None:
            found["corpus"] = corpus
        output = {f.name: _plain(getattr(self.output, f.name)) for f in dataclasses.fields(Output)}
        stages = [_dump_item(item) for item in self.stages]
        return {**found, "source": {kind: source}, "tokenizer": self.tokenizer, "stages": stages, "output": output}

    def with_inputs(self, paths: Sequence[str]) -> Recipe:
        """The recipe over other input paths."""
        if not paths:
            return self
        return dataclasses.replace(self, source=dataclasses.replace(self.source, paths=tuple(str(p) for p in paths)))

    def run(self, out: str | Path, executor: str = "local", workers: int | None = None, **options: Any) -> Run:
        """Run into a folder; see `curate.run.run`."""
        from curate.run import run

        return run(self, out, executor=executor, workers=workers, **options)

    def plan(self) -> dict[str, Any]:
        """Phases and columns, as `curate plan` prints them, without doing any work."""
        from curate.run import plan

        return plan(self)


def shipped() -> dict[str, Path]:
    """Name and path of the pipelines that come with Curate."""
    return {p.stem: p for p in sorted(storage.shipped("pipelines").glob("*.yaml"))}


def locate(path: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a shipped pipeline."""
    path = Path(path)
    if path.is_file():
        return path
    known = shipped()
    if str(path) in known:
        return known[str(path)]
    if path.exists():
        raise RecipeError(f"recipe {path} is not a file")
    raise RecipeError(f"no recipe {str(path)!r}: neither a file nor a shipped pipeline{did_you_mean(str(path), known)}")


# --------------------------------------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """YAML 1.2 core schema: only true and false are booleans, dates are strings."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.lower()
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor(
    "tag:yaml.org,2002:float", lambda loader, node: float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
)


def yaml_value(text: str) -> Any:
    """A value as a recipe would read it."""
    return yaml.load(text, _Loader)


class _Lines:
    """Where in the file things stand, for messages."""

    def __init__(self, name: str, root: yaml.Node | None):
        self._name = name
        self._at: dict[tuple[Any, ...], int] = {}
        if root is not None:
            self._walk(root, ())

    def _walk(self, node: yaml.Node, path: tuple[Any, ...]) -> None:
        self._at[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                here = (*path, key.value)
                if key.value in seen:
                    raise RecipeError(f"{self._name}:{key.start_mark.line + 1}: the key {key.value!r} stands twice")
                seen.add(key.value)
                self._walk(value, here)
                self._at[here] = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self._walk(value, (*path, i))

    def __call__(self, *path: Any) -> str:
        """`file:line: ` of the nearest thing that the file has on this path."""
        while path and path not in self._at:
            path = path[:-1]
        return f"{self._name}:{self._at[path]}: " if path in self._at else f"{self._name}: "


def loads(text: str, name: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from YAML text."""
    try:
        node = yaml.compose(text, _Loader)
        lines = _Lines(name, node)
        raw = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{name}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{name}: a recipe is a mapping with the keys {', '.join(TOP)}")
    for override in overrides:
        _override(raw, override)
    return _build(raw, lines)


def _build(raw: dict[str, Any], lines: _Lines) -> Recipe:
    _known(raw, TOP, lines, ())
    if not isinstance(raw.get("name"), str) or not re.fullmatch(r"[\w.-]+", raw["name"]):
        raise RecipeError(f"{lines('name')}`name` must be a word of letters, digits, '.', '_' and '-'")
    stages = raw.get("stages") or []
    if not isinstance(stages, list):
        raise RecipeError(f"{lines('stages')}`stages` is a list")
    tokenizer = raw.get("tokenizer", "bytes/4")
    if not isinstance(tokenizer, str):
        raise RecipeError(f"{lines('tokenizer')}`tokenizer` is 'bytes/4', the path of a tokenizer.json, or a hub id")
    return Recipe(
        name=raw["name"],
        description=str(raw.get("description") or ""),
        source=_source(raw.get("source", "auto"), raw.get("corpus"), lines),
        tokenizer=tokenizer,
        stages=tuple(_items(stages, lines)),
        output=_make(Output, raw.get("output") or {}, lines, ("output",), "output option"),
    )


def _known(given: Mapping[str, Any], known: Sequence[str], lines: _Lines, path: tuple[Any, ...], what: str = "key") -> None:
    for key in given:
        if key not in known:
            raise RecipeError(f"{lines(*path, key)}unknown {what} {key!r}{did_you_mean(str(key), known)}")


def _source(raw: Any, corpus: Any, lines: _Lines) -> Source:
    if isinstance(raw, str):
        raw = {raw: {}}
    if not isinstance(raw, dict) or len(raw) != 1:
        raise RecipeError(f"{lines('source')}`source` is a kind, or a mapping with one kind and its options")
    kind, options = next(iter(raw.items()))
    options = dict(options or {})
    if isinstance(options.get("paths"), str):
        options["paths"] = [options["paths"]]
    if "kind" in options or "corpus" in options:
        raise RecipeError(f"{lines('source', kind)}the kind is the key itself, and `corpus` stands at the top of the recipe")
    return _make(Source, {**options, "kind": kind, "corpus": corpus}, lines, ("source", kind), "source option")


def _items(stages: Sequence[Any], lines: _Lines) -> list[Item]:
    items: list[Item] = []
    used: dict[str, int] = {}
    for i, raw in enumerate(stages):
        where = lines("stages", i)
        entry = {raw: None} if isinstance(raw, str) else raw
        if not isinstance(entry, dict):
            raise RecipeError(f"{where}a stage is a name, or a mapping with a stage and what stands beside it")
        keys = [k for k in entry if k not in COMMON]
        if len(keys) != 1:
            wrong = ", ".join(map(repr, keys)) or "none"
            hints = [difflib.get_close_matches(k, COMMON, 1) for k in keys]
            hint = next((f"; did you mean {h[0]!r}?" for h in hints if h), "")
            raise RecipeError(f"{where}a stage item has exactly one stage, here {wrong}{hint}")
        name = keys[0]
        try:
            cls = find(name)
        except RecipeError as error:
            raise RecipeError(f"{where}{error}") from error.__cause__
        stage = _make(cls, entry[name] or {}, lines, ("stages", i, name), f"stage {name!r}: parameter")
        base = str(entry.get("id") or name.rpartition(":")[2])
        used[base] = used.get(base, 0) + 1
        if "id" in entry and used[base] > 1:
            raise RecipeError(f"{where}two stages have the id {base!r}")
        policy = {"max_drop": cls.max_drop, "max_cluster": cls.max_cluster, **{k: entry[k] for k in POLICY if k in entry}}
        if "id" in entry and (base in ("ingest", "export") or not re.fullmatch(r"[\w.-]+(#\d+)?", base)):
            known = "a word of letters, digits, '.', '_' and '-', and neither 'ingest' nor 'export'"
            raise RecipeError(f"{lines('stages', i, 'id')}`id` is {known}")
        if not isinstance(entry.get("transient", False), bool):
            raise RecipeError(f"{lines('stages', i, 'transient')}`transient` is true or false")
        if entry.get("stale", "error") not in ("ok", "error"):
            raise RecipeError(f"{lines('stages', i, 'stale')}`stale` is 'ok' or 'error'")
        items.append(
            Item(
                stage=stage,
                id=base if used[base] == 1 else f"{base}#{used[base]}",
                policy=_make(Policy, policy, lines, ("stages", i), "key"),
                transient=entry.get("transient", False),
                stale_ok=entry.get("stale") == "ok",
                where=where,
            )
        )
    return items


def _make(cls: type, given: Any, lines: _Lines, path: tuple[Any, ...], what: str) -> Any:
    """An instance of a parameter class out of plain values: unknown keys and wrong types are errors with a line."""
    if not isinstance(given, Mapping):
        raise RecipeError(f"{lines(*path)}{what}s are written as a mapping, not as {given!r}")
    names = {key: f.name for key, f in param_fields(cls).items()}
    hidden = ("kind", "corpus") if cls is Source else ()
    for key in given:
        if key not in names:
            hint = did_you_mean(str(key), [n for n in names if n not in hidden])
            raise RecipeError(f"{lines(*path, key)}{what} {key!r} is unknown{hint}")
    import pydantic

    try:
        return pydantic.TypeAdapter(cls).validate_python({names[key]: value for key, value in given.items()})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        keys: dict[Any, str] = {field_name: key for key, field_name in names.items()}
        at = [str(keys.get(p, p)) for p in first["loc"]]
        cause = (first.get("ctx") or {}).get("error")
        said = str(cause or first["msg"]).removeprefix("Value error, ")
        if first["type"] == "missing":
            raise RecipeError(f"{lines(*path)}{what} {at[0]!r} is missing") from None
        name = f" {'.'.join(at)!r}" if at else ""
        raise RecipeError(f"{lines(*path, *at[:1])}{what}{name}: {said}") from None
    except RecipeError as error:
        raise RecipeError(f"{lines(*path)}{error}") from None


def _override(raw: dict[str, Any], override: str) -> None:
    """Apply `address=value` to a raw recipe."""
    address, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {override}: write address=value, such as stages.language.min_score=0.7")
    value = yaml_value(text)
    head, *rest = address.split(".")
    if head in ("name", "tokenizer", "corpus") and not rest:
        raw[head] = value
    elif head == "output" and len(rest) == 1:
        raw["output"] = {**(raw.get("output") or {}), rest[0]: value}
    elif head == "source" and rest:
        _override_source(raw, rest, value)
    elif head == "stages" and len(rest) >= 2:
        _override_stage(raw, address, value)
    else:
        raise RecipeError(
            f"--set {address}: unknown address; known: stages.<id>.<param>, source.<option>, output.<option>, tokenizer"
        )


def _override_source(raw: dict[str, Any], rest: list[str], value: Any) -> None:
    source = raw.get("source", "auto")
    source = {source: {}} if isinstance(source, str) else dict(source)
    kind = next(iter(source))
    keys = rest[1:] if rest[0] == kind and len(rest) > 1 else rest
    options = source[kind] = dict(source[kind] or {})
    for key in keys[:-1]:
        options[key] = dict(options.get(key) or {})
        options = options[key]
    options[keys[-1]] = value
    raw["source"] = source


def _override_stage(raw: dict[str, Any], address: str, value: Any) -> None:
    stages: list[dict[str, Any]] = [{s: None} if isinstance(s, str) else dict(s) for s in raw.get("stages") or []]
    ids: dict[str, int] = {}
    used: dict[str, int] = {}
    for i, stage in enumerate(stages):
        name = next((k for k in stage if k not in COMMON), "")
        base = str(stage.get("id") or name.rpartition(":")[2])
        used[base] = used.get(base, 0) + 1
        ids[base if used[base] == 1 else f"{base}#{used[base]}"] = i
    path = address.removeprefix("stages.")
    stage_id = max((i for i in ids if path.startswith(f"{i}.")), key=len, default=None)
    if stage_id is None:
        raise RecipeError(
            f"--set {address}: no stage {path.split('.')[0]!r} in the recipe{did_you_mean(path.split('.')[0], ids)}"
        )
    keys = path[len(stage_id) + 1 :].split(".")
    stage = stages[ids[stage_id]]
    if keys[0] in COMMON and len(keys) == 1 and keys[0] != "id":
        stage[keys[0]] = value
    else:
        name = next(k for k in stage if k not in COMMON)
        options = stage[name] = dict(stage[name] or {})
        for key in keys[:-1]:
            options[key] = dict(options.get(key) or {})
            options = options[key]
        options[keys[-1]] = value
    raw["stages"] = stages


# --------------------------------------------------------------------------------------------- writing


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return one_number(value)


def _dump_item(item: Item) -> dict[str, Any]:
    stage: Stage = item.stage
    name = name_of(type(stage))
    entry: dict[str, Any] = {name: {k: _plain(v) for k, v in params(stage).items()}}
    if item.id != name:
        entry["id"] = item.id
    for key in POLICY:
        default = getattr(type(stage), key, None) if key in ("max_drop", "max_cluster") else getattr(Policy(), key)
        if getattr(item.policy, key) != default:
            entry[key] = getattr(item.policy, key)
    if item.transient:
        entry["transient"] = True
    if item.stale_ok:
        entry["stale"] = "ok"
    return entry


def with_overrides(recipe: Recipe, overrides: Sequence[str], only: str = "") -> Recipe:
    """The recipe with `--set` values applied. only: the one part of it that may be changed."""
    for override in overrides:
        if only and not override.startswith(f"{only}."):
            raise RecipeError(f"--set {override.partition('=')[0]}: only {only}.<option> can be changed here")
    return loads(recipe.dump(), "recipe", overrides)


def for_stage(name: str, parameters: Sequence[str] = ()) -> Recipe:
    """A recipe of one stage, as `curate apply` runs it; parameters: `key=value` texts.

    A stage that reads pages gets them: the source then keeps `html` and leaves extraction to the stage.
    """
    cls = find(name)
    given = {}
    for parameter in parameters:
        key, equals, text = parameter.partition("=")
        if not equals:
            raise RecipeError(f"--param {parameter}: write key=value")
        given[key] = yaml_value(text)
    lines = _Lines("--param", None)
    stage = _make(cls, given, lines, (), f"stage {name!r}: parameter")
    source = Source(keep_html=True, extract="none") if "html" in stage.reads() else Source()
    policy = Policy(max_drop=cls.max_drop, max_cluster=cls.max_cluster)
    item = Item(stage=stage, id=name.rpartition(":")[2], policy=policy)
    return Recipe(name=f"apply-{item.id}", source=source, stages=(item,))
