"""Trains the model of the extractor on pages with reference texts.

    python classifiers/extract/train.py --data FOLDER [-o classifiers/extract] [--folds 5] [--seed 0]

FOLDER holds `crawl/`: web archives, and `pages.jsonl.gz` with a row a page: record_id, url, url_is_real, source, page_type and
main_text, the reference. Written are `model.npz`, trained on all pages, `metrics.json`: what models that were trained in the
same way on a part of the sites reach on the others, and the same figures into `card.md`, if there is one. The same data, seed
and versions of packages give the same bytes.

What is learned, in this order, each step on scores of pages that the steps before had not seen:
1. Weights of the words in class, id, role and of the tags around a block, and of a block's first words: logistic regression.
2. Trees that judge a block by its features, the two sums of these weights among them.
3. Trees that judge it again, with the scores of the blocks around it as further features.
4. Trees that name the type of a page, on the pages whose type is known.

A block is weighted by its words in proportion to the reference, so that what is learned is close to the mean over pages of the
F1 of words. There is no threshold to choose: see `curate.extract.page.model`.

Sources: FTRL-proximal logistic regression, McMahan et al., KDD 2013, doi:10.1145/2487575.2488200; LightGBM, Ke et al., NIPS
2017; scores of held-out folds as features, Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numba
import numpy as np
from label import labels

from curate.compare import overlap
from curate.extract.charset import to_utf8
from curate.extract.curate import parse
from curate.extract.page import Page
from curate.extract.page.model import TYPES, Model, page_features, sigmoid
from curate.extract.page.render import render
from curate.kernels import trees
from curate.kernels.blocks import HASHES
from curate.kernels.context import context
from curate.kernels.html import ELEMENT, NAMES_FROM, NAMES_TO, PARENT, SPAN_CLOSE, SPAN_OPEN
from curate.sources import warc

MAX_BODY = 16 << 20
INNER = 5  # folds within the training pages
NEVER = 0.3  # a page of which less is found than this share of its reference teaches nothing
MOST_BESIDE = 3.0  # what all that is not main content may weigh, in lengths of the reference
SHORT = 20  # words; references that are shorter count as long as this

EPOCHS, ALPHA, BETA, L1, L2 = 3, 0.1, 1.0, 1.0, 2.0  # of the regression
SCALE = 10.0  # its weights, so that a page counts for about ten examples

COMMON = {
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
    "use_missing": False,
    "feature_pre_filter": False,
    "max_bin": 63,
    "bagging_freq": 1,
}
BLOCKS = {
    "objective": "cross_entropy",
    "learning_rate": 0.15,
    "num_leaves": 24,
    "min_data_in_leaf": 60,
    "lambda_l2": 5.0,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.6,
    "rounds": 60,
}
AGAIN = {**BLOCKS}
PAGE_TYPES = {
    "objective": "multiclass",
    "num_class": len(TYPES),
    "learning_rate": 0.1,
    "num_leaves": 6,
    "min_data_in_leaf": 8,
    "lambda_l2": 5.0,
    "feature_fraction": 0.2,
    "bagging_fraction": 0.7,
    "rounds": 60,
}

_WORD = re.compile(r"\w+")
_FORMULA = re.compile(f"[\x03\x04]|{chr(SPAN_OPEN)}[0-9]+{chr(SPAN_CLOSE)}")
# Where a page without an address of its own says from where it is.
_ADDRESSES = [
    re.compile(rb'<text id="(https?://[^"]+)"'),
    re.compile(rb'<link[^>]*rel="canonical"[^>]*href="(https?://[^"]+)"'),
    re.compile(rb'<link[^>]*href="(https?://[^"]+)"[^>]*rel="canonical"'),
    re.compile(rb'<meta[^>]*property="og:url"[^>]*content="(https?://[^"]+)"'),
]
_SECOND_LEVEL = frozenset("ac co com edu go gov ne net or org".split())


@dataclass(slots=True, eq=False)
class Gold:
    """A page with its reference text.

    site: what is never split between training and judging. share, words: float32 and int32 [blocks], of `label.labels`.
    length: words of the reference.
    """

    record_id: str
    url: str
    source: str
    page_type: str | None
    site: str
    page: Page
    text: str
    share: np.ndarray
    words: np.ndarray
    length: int

    @property
    def teaches(self) -> bool:
        """Whether the reference is found in the page at all: not in pages that were read in a wrong charset, or whose text
        is put in by scripts."""
        return bool(self.share @ self.words >= NEVER * self.length)

    @property
    def weights(self) -> np.ndarray:
        """float64 [blocks]: how much each block counts in training."""
        weight = self.words / max(SHORT, self.length)
        beside = float(weight @ (1 - self.share))
        if beside > MOST_BESIDE:
            weight = np.where(self.share < 0.5, weight * (MOST_BESIDE / beside), weight)
        return weight + 1e-3


# -------------------------------------------------------------------------------------------------------------- data


def read_pages(data: Path) -> list[Gold]:
    """The pages of `crawl/` that have a reference text, in the order of the archives."""
    with gzip.open(data / "crawl" / "pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = {row["record_id"]: row for row in map(json.loads, lines) if row.get("main_text")}
    found = []
    for name in sorted({row["warc"] for row in rows.values()}):
        with (data / "crawl" / name).open("rb") as stream:
            for record in warc.read_archive(stream, max_body_bytes=MAX_BODY):
                if isinstance(record, warc.Page) and record.id in rows:
                    found.append(gold(rows[record.id], to_utf8(record.body, record.charset)))
    return found


def gold(row: dict[str, Any], utf8: bytes) -> Gold:
    """A page and its labels. row: of pages.jsonl.gz; utf8: the page."""
    page = parse(utf8)
    share, words = labels(block_texts(page), row["main_text"])
    return Gold(
        record_id=row["record_id"],
        url=row["url"],
        source=row["source"],
        page_type=row.get("page_type"),
        site=site(row["url"] if row["url_is_real"] else None, page.html) or row["record_id"],
        page=page,
        text=row["main_text"],
        share=share,
        words=words,
        length=max(1, int(labels([row["main_text"]], "")[1][0])),
    )


def block_texts(page: Page) -> list[str]:
    """The texts of the blocks without the marks of the scan."""
    spans = page.blocks[:, :2].tolist()
    return [_FORMULA.sub("", page.text[start:end].decode()) for start, end in spans]


def site(url: str | None, html: bytes) -> str | None:
    """The registered domain of a page, as far as one can tell without a list of all suffixes; None if it is not known.

    Hosts of one domain mostly have the templates of one, so splitting by host alone would let them stand on both sides.
    """
    hosts = [urlsplit(url).hostname] if url else []
    for pattern in _ADDRESSES:
        if not url and (match := pattern.search(html)):
            try:
                hosts.append(urlsplit(match[1].decode(errors="replace")).hostname)
            except ValueError:
                continue
    for host in hosts:
        parts = (host or "").lower().strip(".").split(".")
        if len(parts) > 2 and len(parts[-1]) == 2 and parts[-2] in _SECOND_LEVEL:
            return ".".join(parts[-3:])
        if len(parts) > 1:
            return ".".join(parts[-2:])
    return None


def split(sites: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """int64 [pages]: the fold of each page. Pages of a site are in one fold; folds are as equal as that allows."""
    sizes = Counter(sites)
    pages = [0] * folds
    where = {}
    for name in sorted(sizes, key=lambda s: hashlib.sha256(f"{seed}/{s}".encode()).digest()):
        where[name] = fold = pages.index(min(pages))
        pages[fold] += sizes[name]
    return np.array([where[s] for s in sites], np.int64)


# ----------------------------------------------------------------------------------------------------------- weights


@numba.njit
def _chains(blocks, elements, names):
    """(offsets int64 [blocks + 1], hashes int64): of each block the names of all elements around it, repeated ones too."""
    n = len(blocks)
    offsets = np.zeros(n + 1, np.int64)
    for k in range(n):
        count = 0
        e = blocks[k, ELEMENT]
        while e >= 0:
            count += elements[e, NAMES_TO] - elements[e, NAMES_FROM]
            e = elements[e, PARENT]
        offsets[k + 1] = offsets[k] + count
    found = np.empty(offsets[n], np.int64)
    for k in range(n):
        at = offsets[k]
        e = blocks[k, ELEMENT]
        while e >= 0:
            for i in range(elements[e, NAMES_FROM], elements[e, NAMES_TO]):
                found[at] = names[i] & (HASHES - 1)
                at += 1
            e = elements[e, PARENT]
    return offsets, found


@numba.njit
def _regression(offsets, hashes, wanted, weights, order):
    """float64 [HASHES + 1]: weights of the hashes and of a constant, by FTRL-proximal over the examples in this order."""
    z = np.zeros(HASHES + 1)
    squares = np.zeros(HASHES + 1)
    w = np.zeros(HASHES + 1)
    for _ in range(EPOCHS):
        for k in order:
            raw = w[HASHES]
            for i in range(offsets[k], offsets[k + 1]):
                raw += w[hashes[i]]
            slope = (1 / (1 + np.exp(-raw)) - wanted[k]) * weights[k]
            for i in range(offsets[k], offsets[k + 1] + 1):
                last = i == offsets[k + 1]
                h = HASHES if last else hashes[i]
                grown = squares[h] + slope * slope
                z[h] += slope - (np.sqrt(grown) - np.sqrt(squares[h])) / ALPHA * w[h]
                squares[h] = grown
                shrink = 0.0 if last else L1
                if abs(z[h]) <= shrink:
                    w[h] = 0
                else:
                    w[h] = -(z[h] - np.sign(z[h]) * shrink) / ((BETA + np.sqrt(grown)) / ALPHA + L2)
    return w


def name_hashes(page: Page) -> tuple[np.ndarray, np.ndarray]:
    return _chains(page.blocks, page.elements, page.names)


def text_hashes(page: Page) -> tuple[np.ndarray, np.ndarray]:
    there = page.first_words != 0
    return np.concatenate([[0], np.cumsum(there.sum(1))]), page.first_words[there] & (HASHES - 1)


def table(pages: Sequence[Gold], hashes: Callable[[Page], tuple[np.ndarray, np.ndarray]], seed: int) -> np.ndarray:
    """float32 [HASHES]: log odds that each hash adds to a block."""
    offsets, found = [np.zeros(1, np.int64)], []
    for gold in pages:
        own, values = hashes(gold.page)
        offsets.append(own[1:] + offsets[-1][-1])
        found.append(values)
    wanted = np.concatenate([gold.share for gold in pages]).astype(np.float64)
    weights = np.concatenate([gold.weights for gold in pages]) * SCALE
    order = np.random.default_rng(seed).permutation(len(wanted))
    return _regression(np.concatenate(offsets), np.concatenate(found), wanted, weights, order)[:HASHES].astype(np.float32)


# ------------------------------------------------------------------------------------------------------------- trees


def grow(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, options: dict[str, Any], seed: int) -> trees.Trees:
    """An ensemble that LightGBM learns. x: float32 [rows, features]; y: float32 [rows], shares or numbers of classes."""
    import lightgbm

    options = {**COMMON, **options, "seed": seed}
    rounds = options.pop("rounds")
    data = lightgbm.Dataset(x, y, weight=weights, params=options, free_raw_data=True)
    return trees.join(trees_of(lightgbm.train(options, data, rounds)))


def trees_of(booster: Any) -> Iterator[tuple[np.ndarray, ...]]:
    """The trees of a LightGBM model, as `curate.kernels.trees.join` takes them."""
    for part in booster.model_to_string().split("\nTree=")[1:]:
        values = dict(line.split("=", 1) for line in part.splitlines() if "=" in line)
        names = {"split_feature": int, "threshold": float, "left_child": int, "right_child": int, "leaf_value": float}
        yield tuple(np.array(values.get(name, "").split(), kind) for name, kind in names.items())


def fit(pages: Sequence[Gold], seed: int = 0) -> Model:
    """A model from these pages."""
    pages = [gold for gold in pages if gold.teaches]
    fold = split([gold.site for gold in pages], INNER, seed + 1)
    share = [gold.share for gold in pages]
    weights = [gold.weights for gold in pages]

    def apart(train: Callable[[list[int]], Any], use: Callable[[Any, Gold, int], np.ndarray]) -> list[np.ndarray]:
        """What is said of each page by what was trained on the other folds."""
        said: dict[int, np.ndarray] = {}
        for k in range(INNER):
            trained = train(np.flatnonzero(fold != k).tolist())
            said |= {i: use(trained, pages[i], i) for i in np.flatnonzero(fold == k).tolist()}
        return [said[i] for i in range(len(pages))]

    def tables(some: list[int]) -> tuple[np.ndarray, np.ndarray]:
        chosen = [pages[i] for i in some]
        return table(chosen, name_hashes, seed), table(chosen, text_hashes, seed)

    def judge(x: list[np.ndarray], options: dict[str, Any]) -> Callable[[list[int]], trees.Trees]:
        def train(some: list[int]) -> trees.Trees:
            rows, wanted, heavy = (np.concatenate([a[i] for i in some]) for a in (x, share, weights))
            return grow(rows, wanted, heavy / heavy.mean(), options, seed)

        return train

    everything = list(range(len(pages)))
    x = apart(tables, lambda found, gold, _: gold.page.features(*found))
    first = apart(judge(x, BLOCKS), lambda found, _, i: trees.scores(found, x[i])[:, 0])
    around = [context(gold.page.blocks, gold.page.elements, raw) for gold, raw in zip(pages, first, strict=True)]
    both = [np.hstack([a, b]) for a, b in zip(around, x, strict=True)]
    again = judge(both, AGAIN)(everything)
    typed = [i for i in everything if pages[i].page_type]
    facts = []
    for i in typed:
        probability = sigmoid(trees.scores(again, both[i])[:, 0])
        facts.append(page_features(x[i], probability, pages[i].words))
    classes = np.array([TYPES.index(pages[i].page_type or "") for i in typed])
    names, texts = tables(everything)
    return Model(
        name_weights=names,
        text_weights=texts,
        blocks=judge(x, BLOCKS)(everything),
        again=again,
        types=grow(np.concatenate(facts), classes, None, PAGE_TYPES, seed),
        about=facts_of_training(pages, seed),
    )


def facts_of_training(pages: Sequence[Gold], seed: int) -> dict[str, Any]:
    digest = hashlib.sha256("\n".join(sorted(gold.record_id for gold in pages)).encode()).hexdigest()
    return {
        "pages": len(pages),
        "sites": len({gold.site for gold in pages}),
        "blocks": sum(len(gold.words) for gold in pages),
        "sources": dict(sorted(Counter(gold.source for gold in pages).items())),
        "seed": seed,
        "pages_sha256": digest,
    }


# ----------------------------------------------------------------------------------------------------------- figures


def cross_validate(pages: Sequence[Gold], folds: int = 5, seed: int = 0, workers: int = 1) -> list[tuple[Model, np.ndarray]]:
    """A model for each fold of the sites, and the indices (int64) of the pages that it has not seen.

    pages: of `read_pages`. workers: processes that train at the same time; the models are the same.
    """
    fold = split([gold.site for gold in pages], folds, seed)
    others = [[pages[i] for i in np.flatnonzero(fold != k)] for k in range(folds)]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            models = list(pool.map(fit, others, [seed] * folds))
    else:
        models = [fit(some, seed) for some in others]
    return [(model, np.flatnonzero(fold == k)) for k, model in enumerate(models)]


def measure(pages: Sequence[Gold], judged: Sequence[tuple[Model, np.ndarray]]) -> dict[str, Any]:
    """What models reach on the pages beside them: precision, recall and F1 of words by group, and how often the type is right.

    `possible` is the F1 of keeping each block of which at least half is in the reference.
    """
    marks: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    types: dict[str, list[bool]] = defaultdict(list)
    for model, beside in judged:
        for i in beside.tolist():
            gold = pages[i]
            reference = Counter(_WORD.findall(gold.text.lower()))
            keep, page_type = model.judge(gold.page)
            texts = [render(gold.page, kept) for kept in (keep, gold.share >= 0.5)]
            found, best = (overlap(Counter(_WORD.findall(text.lower())), reference) for text in texts)
            for group in ("all", gold.page_type or gold.source):
                marks[group].append((*found, best[2]))
                if gold.page_type:
                    types[group].append(page_type == gold.page_type)
    groups = {}
    for group in sorted(marks):
        means = [round(statistics.fmean(column), 4) for column in zip(*marks[group], strict=True)]
        groups[group] = {
            "pages": len(marks[group]),
            **dict(zip(("precision", "recall", "f1", "possible"), means, strict=True)),
            **({"type_right": round(statistics.fmean(types[group]), 4)} if group in types else {}),
        }
    return groups


def figures(metrics: dict[str, Any]) -> str:
    """The table of the card."""
    columns = ("precision", "recall", "f1", "possible", "type_right")
    lines = ["| pages | number | precision | recall | F1 | possible | type |", "|---|---|---|---|---|---|---|"]
    for name, group in sorted(metrics["groups"].items(), key=lambda item: (item[0] != "all", -item[1]["pages"], item[0])):
        cells = [f"{group[column]:.3f}" if column in group else "" for column in columns]
        lines.append(f"| {name} | {group['pages']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fill(card: str, metrics: dict[str, Any]) -> str:
    """The card with these figures between its marks."""
    before, rest = card.split("<!-- figures -->")
    return f"{before}<!-- figures -->\n{figures(metrics)}\n<!-- /figures -->{rest.split('<!-- /figures -->')[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    pages = read_pages(args.data)
    print(f"{len(pages)} pages of {len({gold.site for gold in pages})} sites", file=sys.stderr)
    groups = measure(pages, cross_validate(pages, args.folds, args.seed, args.workers))
    model = fit(pages, args.seed)
    model.save(args.out / "model.npz")
    metrics = {"folds": args.folds, "seed": args.seed, "training": model.about, "groups": groups}
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    card = args.out / "card.md"
    if card.is_file():
        card.write_text(fill(card.read_text(encoding="utf-8"), metrics), encoding="utf-8")
    print(figures(metrics))


if __name__ == "__main__":
    main()
