"""Training and judging classifiers: `train` is what `curate train` does, `judge` what `curate eval` does."""

from __future__ import annotations

from curate.training.classifiers import Training, judge, train

__all__ = ["Training", "judge", "train"]
