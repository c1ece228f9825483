"""What `line_dedup`, `paragraph_dedup` and `host_boilerplate` should do, told with dictionaries and regular expressions."""

import re
import unicodedata
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import strategies as st

from curate.memory import as_table
from curate.testing import run_over

LINES = [
    "Home", "home", "  HOME ", "Home\r", "Share this page!", "share  this page", "Page 1 of 3", "3", "Page 2 of 3",
    "It rained.", "And then it stopped.", "ΟΔΟΣ", "οδος", "οδοσ", "ÉTÉ", "été", "e\u0301te\u0301", "首頁", "首 頁", "}", "---",
    "*", "३ दिन", "3 दिन", "", "", "", " \t", "\u3000", "a", "b\x00", "b", "x\u2028y", "x y",
]  # fmt: skip
texts = st.one_of(st.none(), st.lists(st.sampled_from(LINES), max_size=10).map("\n".join))
cuts = st.fixed_dictionaries(
    {"shards": st.integers(1, 4), "batch": st.sampled_from([1, 3, 1024]), "size": st.sampled_from([1, 3, 1 << 20]),
     "limit": st.sampled_from([1, 1 << 31]), "docs": st.sampled_from([2, 1_000_000])}
)  # fmt: skip


def fold(text, ignore=("case",)):
    found = []
    for c in text:
        if "punctuation" in ignore and unicodedata.category(c)[0] == "P":
            continue
        if "digits" in ignore and c.isnumeric() and not c.isalpha():
            c = "0"
        elif "case" in ignore and len(c.lower()) == 1:
            c = c.lower()
        found.append(c)
    return " ".join("".join(found).split())


def worth(text):
    return sum(c.isalpha() or unicodedata.category(c)[0] == "M" for c in text)


def units(text, blocks=False):
    """[(lines, what they say)] of a text."""
    lines = (text or "").split("\n")
    full = [i for i, line in enumerate(lines) if line.strip()]
    if not blocks:
        return [((i,), lines[i]) for i in full]
    found = []
    for i in full:
        if found and found[-1][-1] == i - 1:
            found[-1].append(i)
        else:
            found.append([i])
    return [(tuple(run), "\n".join(lines[i] for i in run)) for run in found]


def without(text, gone):
    """A text without these lines, and with the first run of blank lines around those that went."""
    lines = (text or "").split("\n")
    kinds = "".join("R" if i in gone else "K" if line.strip() else "B" for i, line in enumerate(lines))
    kept = [i for i, kind in enumerate(kinds) if kind == "K"]
    for gap in re.finditer("[BR]+", kinds):
        blank = re.search("B+", gap[0])
        if "R" not in gap[0]:
            kept += range(*gap.span())
        elif blank and gap.start() > 0 and gap.end() < len(kinds):
            kept += range(gap.start() + blank.start(), gap.start() + blank.end())
    return "\n".join(lines[i] for i in sorted(kept))


def judged(texts, gone):
    """[(text, units, bytes that went, reason?)] where `gone` holds the units of each text that go."""
    found = []
    for text, these in zip(texts, gone, strict=True):
        left = without(text, {i for run in these for i in run}) if these else text
        size = len((text or "").encode()) - len((left or "").encode())
        found.append((left, len(these), size, bool(these) and left == ""))
    return found


def repeated(texts, scopes, ignore, min_chars, needed, first=False):
    """Units that go of each text by counting the documents of a scope, out of lines of documents with a scope.

    needed: {scope: documents in which a line must stand}.
    """
    stands, seen, found = Counter(), set(), []
    for text, scope in zip(texts, scopes, strict=True):
        stands.update({(scope, fold(said, ignore)) for _, said in units(text) if worth(said) >= min_chars})
    for text, scope in zip(texts, scopes, strict=True):
        gone = []
        for run, said in units(text) if scope is not None else ():
            key = scope, fold(said, ignore)
            if worth(said) >= min_chars and stands[key] >= needed[scope]:
                if not first or key in seen:
                    gone.append(run)
                seen.add(key)
        found.append(gone)
    return found


def run(stage, texts, urls=None, *, shards=1, batch=1024, size=1 << 20, limit=1 << 31, docs=1_000_000):
    """`judged` by the stage. size: keys that are sorted at once. limit: of memory, in their terms. docs: of a partition."""
    columns = {"text": pa.array(texts, pa.string())}
    if urls is not None:
        columns["url"] = pa.array(urls, pa.string())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.repeats.RANGE", size)
        patch.setattr("curate.repeats.ROW_BYTES", 48 if limit > 1 else 1 << 40)  # tasks of `run_over` have 2 GiB
        patch.setattr("curate.repeats.DOCS_PER_PARTITION", docs)
        found = run_over(stage, as_table(pa.table(columns)), shards=shards, batch=batch)
    name = type(stage).__module__.rpartition(".")[2]
    gone = dict(zip(found.drops["_row"].to_pylist(), found.drops["_value"].to_pylist(), strict=True))
    assert set(found.drops["_reason"].to_pylist()) <= {f"{name}.empty"}
    made = [found.rows[c].to_pylist() for c in ("text", f"{name}_removed", f"{name}_removed_bytes")]
    assert all(made[1][row] == value for row, value in gone.items())
    return [(*row, i in gone) for i, row in enumerate(zip(*made, strict=True))]
