"""Stages by name: one file per stage, the file name is the name in a recipe. There is no registry.

A stage from elsewhere is named `module:Class`, or comes from an installed package that has an entry point in the group
`curate.stages`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from curate.errors import RecipeError, did_you_mean
from curate.stage import Annotator, Expand, Filter, GlobalStage, Stage, param_fields

_BASES = (Stage, Annotator, Filter, Expand, GlobalStage)


def names() -> list[str]:
    """Names of the stages that come with Curate or with installed plug-ins."""
    own = [m.name for m in pkgutil.iter_modules(__path__)]
    return sorted({*own, *(e.name for e in entry_points(group="curate.stages"))})


def find(name: str) -> type[Stage]:
    """The class of a stage: by file name, entry point, or `module:Class`. Raises RecipeError."""
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise RecipeError(f"stage {name!r} cannot be loaded: {error}") from error
        if not (inspect.isclass(found) and issubclass(found, Stage)):
            raise RecipeError(f"stage {name!r} is not a subclass of curate.Stage")
        return found
    if name in {m.name for m in pkgutil.iter_modules(__path__)}:
        return _only_stage(importlib.import_module(f"curate.stages.{name}"))
    for entry in entry_points(group="curate.stages"):
        if entry.name == name:
            return entry.load()
    raise RecipeError(f"unknown stage {name!r}{did_you_mean(name, names())}")


def _only_stage(module: object) -> type[Stage]:
    found = [
        cls
        for cls in vars(module).values()
        if inspect.isclass(cls)
        and issubclass(cls, Stage)
        and cls.__module__ == module.__name__  # type: ignore[attr-defined]
        and not cls.__name__.startswith("_")
    ]
    if len(found) != 1:
        raise RecipeError(f"{module.__name__} must hold exactly one public stage, not {len(found)}")  # type: ignore[attr-defined]
    return found[0]


def name_of(cls: type[Stage]) -> str:
    """What a recipe calls a stage: the file name for ours, else `module:Class`."""
    package, _, last = cls.__module__.rpartition(".")
    return last if package == __name__ else f"{cls.__module__}:{cls.__qualname__}"


def all_stages() -> Iterator[tuple[str, type[Stage]]]:
    """(name, class) of every stage that comes with Curate."""
    for name in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        yield name, find(name)


def describe(name: str | None = None) -> Any:
    """What `curate stages` prints: a list of {name, kind, summary}, or all about one stage."""
    if name is None:
        return [
            {"name": n, "kind": _kind(cls), "summary": inspect.cleandoc(cls.__doc__ or "").split("\n")[0]}
            for n, cls in all_stages()
        ]
    cls = find(name)
    made = cls(**cls.example)
    parameters = []
    for key, f in param_fields(cls).items():
        if f.default is not dataclasses.MISSING:
            default = repr(f.default)
        elif f.default_factory is not dataclasses.MISSING:
            default = repr(f.default_factory())
        else:
            default = "required"
        parameters.append({"name": key, "type": str(f.type), "default": default})
    return {
        "name": name,
        "kind": _kind(cls),
        "doc": inspect.cleandoc(cls.__doc__ or ""),
        "parameters": parameters,
        "reads": list(made.reads()),
        "writes": {f.name: str(f.type) for f in made.writes()},
        "reasons": list(made.reasons()),
        "example": dict(cls.example),
    }


def _kind(cls: type[Stage]) -> str:
    return next((base.__name__ for base in _BASES[1:] if issubclass(cls, base)), "Stage")
