"""Near-duplicates once more, written for reading: what `minhash` and its kernels are held against.

Shingles are sets of tuples of words or of strings, compared as sets; clusters come from a loop over documents in order.
Nothing is hashed and nothing is fast. Only what is asked of single characters is remembered.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curate import lexicon

Shingles = frozenset[Hashable]
LEADERS = 64  # that a document of a very large component is compared with


# --------------------------------------------------------------------------------------------- words


def is_mark(c: str) -> bool:
    return unicodedata.category(c).startswith("M")


def is_western_mark(c: str) -> bool:
    """Accents of Latin and Greek, and the Cyrillic ones."""
    return "\u0300" <= c <= "\u036f" or "\u0483" <= c <= "\u0487"


@functools.cache
def base(c: str) -> str:
    """The letter without its accents where it is Latin, Greek or Cyrillic; nothing for an accent; else the character."""
    if is_western_mark(c):
        return ""
    first, *rest = unicodedata.normalize("NFD", c)
    western = unicodedata.name(first, "").startswith(("LATIN ", "GREEK ", "CYRILLIC "))
    return first if western and all(unicodedata.category(m) == "Mn" for m in rest) else c


@functools.cache
def lower(c: str) -> str:
    return c.lower() if len(c.lower()) == 1 else c


@functools.cache
def stands_alone(c: str) -> bool:
    """Whether it is a word of its own: scripts that put no spaces between words."""
    code = ord(c)

    def among(spans: lexicon.Spans) -> bool:
        return any(low <= code <= high for low, high in spans)

    if is_mark(c):
        return False
    if c in lexicon.KANA_MARKS or among((*lexicon.HAN, *lexicon.HIRAGANA, *lexicon.KATAKANA)):
        return True
    return c.isalpha() and (among((*lexicon.CLUSTERS, *lexicon.TIBETAN)) or c in lexicon.FOLLOWING + lexicon.LEADING)


@functools.cache
def separates(c: str, strip_punctuation: bool) -> bool:
    if c < " " or c == "\x7f":
        return True
    if not strip_punctuation:
        return c.isspace()
    return not (c.isalnum() or c == "_" or is_mark(c) or stands_alone(c))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a text becomes shingles; the names and defaults are those of the stage."""

    ngram: int = 5
    unit: str = "word"
    lowercase: bool = True
    strip_accents: bool = True
    fold_digits: bool = True
    strip_punctuation: bool = True

    def words(self, text: str | None, fold: bool = False) -> list[tuple[str, bool]]:
        """(word, whether something separates it from the one before); fold: as for proposals, where the rule folds digits."""
        found: list[tuple[list[str], bool]] = []
        apart, closed = True, True  # closed: the word before takes marks only
        for c in text or "":
            if self.strip_accents:
                c = base(c)
            if not c:
                continue
            if self.lowercase:
                c = lower(c)
            if separates(c, self.strip_punctuation):
                apart = closed = True
            elif found and not apart and (not closed or is_mark(c)) and not stands_alone(c):
                found[-1][0].append(c)
            else:
                found.append(([c], apart))
                apart, closed = False, stands_alone(c)
        whole = (("".join(word), gap) for word, gap in found)
        return [(folded(word) if fold and self.fold_digits else word, gap) for word, gap in whole]

    def sequence(self, text: str | None, fold: bool = False) -> list[Hashable]:
        """All shingles in the order of their places; fold: as for proposals."""
        words = self.words(text, fold)
        n = self.ngram
        if self.unit == "word":
            bare = [word for word, _ in words]
            return [tuple(bare[i : i + n]) for i in range(len(bare) - n + 1)]
        joined = "".join((" " if gap and at else "") + word for at, (word, gap) in enumerate(words))
        return [joined[i : i + n] for i in range(len(joined) - n + 1)]

    def shingles(self, text: str | None, fold: bool = False) -> Shingles:
        """The set of shingles."""
        return frozenset(self.sequence(text, fold))


def folded(word: str) -> str:
    """Each run of decimal digits as one 0."""
    found = ""
    within = False
    for c in word:
        if not c.isdecimal():
            found += c
        elif not within:
            found += "0"
        within = c.isdecimal()
    return found


# --------------------------------------------------------------------------------------------- similarity


def jaccard(a: Collection[Hashable], b: Collection[Hashable]) -> float:
    both = len(frozenset(a) & frozenset(b))
    return both / (len(a) + len(b) - both) if both else 0.0


def contained(a: Shingles, b: Shingles) -> float:
    """Share of a that lies in b."""
    return len(a & b) / len(a) if a else 0.0


# --------------------------------------------------------------------------------------------- components


def components(n: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """The smallest member of the component of each of n nodes."""
    neighbours: dict[int, set[int]] = {i: set() for i in range(n)}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    found = [-1] * n
    for start in range(n):
        waiting = [start] if found[start] < 0 else []
        while waiting:
            at = waiting.pop()
            if found[at] < 0:
                found[at] = start
                waiting += neighbours[at]
    return found


def groups(labels: Sequence[Hashable | None]) -> list[list[int]]:
    """Rows of equal labels, of two rows and more, in order of their first; null is equal to nothing."""
    members: dict[Hashable, list[int]] = {}
    for row, label in enumerate(labels):
        if label is not None:
            members.setdefault(label, []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


# --------------------------------------------------------------------------------------------- decisions


def preferred(documents: Sequence[Mapping[str, Any]], prefer: str) -> list[int]:
    """Rows in the order in which they are taken."""

    def value(row: int) -> tuple[int, Any]:
        """(0, …) for what has a value, (1, 0) for what has none: those come last."""
        document = documents[row]
        if prefer == "longest":
            return 0, -len((document["text"] or "").encode())
        found = document["date" if prefer == "newest" else prefer]
        if found is None or (isinstance(found, float) and math.isnan(found)):
            return 1, 0
        return 0, found

    rows = list(range(len(documents)))
    if prefer == "first":
        return rows
    # sorts are stable, so the last key comes first; only values are in descending order
    rows.sort(key=lambda row: (len(documents[row]["id"]), documents[row]["id"]))
    if prefer == "longest":
        return sorted(rows, key=value)
    with_value = [row for row in rows if value(row)[0] == 0]
    with_value.sort(key=lambda row: value(row)[1], reverse=True)
    return [*with_value, *(row for row in rows if value(row)[0] == 1)]


@dataclass
class Verdict:
    """leader: of each dropped row the row that stays; similarity: to it, None if nothing was measured; unresolved: rows that
    were compared with as many leaders as there may be, to no end."""

    leader: dict[int, int] = field(default_factory=dict)
    similarity: dict[int, float | None] = field(default_factory=dict)
    unresolved: set[int] = field(default_factory=set)

    def clusters(self, n: int) -> list[int]:
        """The row that stands for each of n rows: its leader, or itself."""
        return [self.leader.get(row, row) for row in range(n)]


def resolve(
    found: Iterable[Sequence[int]],
    shingles: Sequence[Shingles],
    order: Sequence[int],
    verify: float | None,
    verify_sample: int = 1000,
) -> Verdict:
    """Decide within components by the leader rule.

    found: rows of each component, in any order. order: all rows, most preferred first. verify: None to believe the proposals.
    """
    verdict = Verdict()
    rank = {row: at for at, row in enumerate(order)}
    for component in found:
        members = sorted(component, key=rank.__getitem__)
        most = LEADERS if len(members) > verify_sample else len(members)
        leaders = members[:1]
        for row in members[1:]:
            if verify is None:
                verdict.leader[row], verdict.similarity[row] = leaders[0], None
                continue
            for leader in leaders:
                similarity = jaccard(shingles[row], shingles[leader])
                if similarity >= verify:
                    verdict.leader[row], verdict.similarity[row] = leader, similarity
                    break
            else:
                if len(leaders) < most:
                    leaders.append(row)
                else:
                    verdict.unresolved.add(row)
    return verdict
