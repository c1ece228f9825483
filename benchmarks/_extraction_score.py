"""Scores of extracted text, for `extraction.py`. Standard library only, as a peer's environment has nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"\w+")
SPACE = re.compile(r"\s+")

Overlap = tuple[float, float, float]


def words(text: str) -> Counter[str]:
    """The words of a text, lower-cased runs of `\\w`, with how often each occurs."""
    return Counter(WORD.findall(text.lower()))


def folded(text: str) -> str:
    """A text without case and white space, in which a snippet is found whatever tags stand in the middle of it."""
    return SPACE.sub("", text.casefold())


def snippets(text: str, wanted: Sequence[str], unwanted: Sequence[str]) -> tuple[int, int, int, int]:
    """(wanted found, wanted missing, unwanted found, unwanted missing), as trafilatura's own evaluation counts them."""
    whole = folded(text)
    good = sum(folded(snippet) in whole for snippet in wanted)
    bad = sum(folded(snippet) in whole for snippet in unwanted)
    return good, len(wanted) - good, bad, len(unwanted) - bad


def judged(good: int, missed: int, bad: int, avoided: int) -> dict[str, float]:
    """Precision, recall, F-score and accuracy of snippets, and the shares that were found of each kind."""
    precision, recall = good / max(good + bad, 1), good / max(good + missed, 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if good else 0.0,
        "accuracy": (good + avoided) / max(good + missed + bad + avoided, 1),
        "unwanted": bad / max(bad + avoided, 1),
    }
