"""Curate: raw crawl in, training-ready Parquet shards and a manifest out."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Annotator": "curate.stage",
    "CurateError": "curate.errors",
    "Dataset": "curate.dataset",
    "Expand": "curate.stage",
    "Filter": "curate.stage",
    "GlobalStage": "curate.stage",
    "Manifest": "curate.manifest",
    "Phase": "curate.phases",
    "Recipe": "curate.recipe",
    "Resources": "curate.stage",
    "Result": "curate.stage",
    "Run": "curate.run",
    "Stage": "curate.stage",
    "Step": "curate.stage",
    "Task": "curate.stage",
    "as_step": "curate.bridge",
}
__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'curate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
