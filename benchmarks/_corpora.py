"""Corpora for the benchmarks of deduplication, the same bytes every time, made by processes of their own.

    planted DATA OUT DOCUMENTS    real paragraphs composed into documents, with planted near-duplicates (`minhash.py`)
    labelled DATA OUT             the labelled near-duplicates as one Parquet file (`neardup.py`)
    zipfian OUT DOCUMENTS         synthetic documents of Zipfian words, with planted near-duplicates (`growth.py`)

Each prints one JSON object to stdout that says what it wrote.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORD = re.compile(r"\w+")
SENTENCE = re.compile(r"(?<=[.!?])\s+")

# --------------------------------------------------------------------------------------------- real paragraphs

PIECE = 500  # characters of a paragraph at most: one long paragraph in two documents must not make them near-duplicates
FEWEST_PIECES = 4
COPIES = 0.3  # share of documents that are altered copies
DELETED = (0.0, 0.02, 0.05, 0.1, 0.2)  # share of sentences left out, one of these a copy
REPLACED = (0.0, 0.002, 0.01, 0.02, 0.04)  # share of words replaced
RECENT = 4000  # a copy is made of one of so many originals before it
POPULAR = 40  # and one copy in ten of one of the first so many


def paragraphs(data: Path) -> list[str]:
    """Every paragraph of domains, quality and the reference texts of crawl once, cut at sentences, in a fixed order."""
    import pyarrow.parquet as pq

    texts: list[str] = []
    for name in ("domains", "quality"):
        texts += pq.read_table(data / name / f"{name}.parquet", columns=["text"])["text"].to_pylist()
    with gzip.open(data / "crawl" / "pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts += [page["main_text"] for page in map(json.loads, lines) if page["main_text"]]
    found: dict[str, None] = {}
    for text in texts:
        for paragraph in text.split("\n"):
            piece = ""
            for sentence in SENTENCE.split(paragraph.strip()):
                if piece and len(piece) + len(sentence) > PIECE:
                    found[piece] = None
                    piece = ""
                piece = f"{piece} {sentence}"[: 2 * PIECE] if piece else sentence[: 2 * PIECE]
            found[piece] = None
    pool = sorted(p for p in found if len(p) >= 80)
    random.Random(0).shuffle(pool)
    return pool


def altered(text: str, words: list[str], rng: random.Random) -> str:
    """A near-duplicate: some sentences left out, some words replaced."""
    delete, replace = rng.choice(DELETED), rng.choice(REPLACED)
    lines = []
    for line in text.split("\n"):
        kept = [s for s in SENTENCE.split(line) if rng.random() >= delete]
        lines.append(" ".join(w if rng.random() >= replace else rng.choice(words) for w in " ".join(kept).split(" ")))
    return "\n".join(line for line in lines if line)


def shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a: str, b: str) -> float:
    x, y = shingles(a), shingles(b)
    return len(x & y) / len(x | y) if x or y else 0.0


def planted(data: Path, out: Path, documents: int, pairs: int = 6000) -> dict[str, Any]:
    """`out`/documents.parquet {id, text}, and pairs.json [[row, row, Jaccard]]: copies with what they were made of."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, pool = random.Random(1), paragraphs(data)
    words = sorted({w for p in pool[:20_000] for w in WORD.findall(p)})
    order: list[str] = []
    texts: list[str] = []
    originals: list[int] = []
    sources: list[tuple[int, int]] = []
    while len(texts) < documents:
        if len(originals) > POPULAR and rng.random() < COPIES:
            at = rng.randrange(POPULAR) if rng.random() < 0.1 else -rng.randrange(1, min(RECENT, len(originals)))
            sources.append((len(texts), originals[at]))
            texts.append(altered(texts[originals[at]], words, rng))
            continue
        length, parts = rng.lognormvariate(7.85, 0.9), []
        while len(parts) < FEWEST_PIECES or sum(map(len, parts)) < length:
            if not order:  # each paragraph once before any comes again
                order = rng.sample(pool, len(pool))
            parts.append(order.pop())
        originals.append(len(texts))
        texts.append("\n".join(parts))
    out.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": [f"doc-{i:06d}" for i in range(documents)], "text": texts})
    pq.write_table(table, out / "documents.parquet", compression="zstd", row_group_size=5000)
    chosen = sorted(rng.sample(sources, min(pairs, len(sources))))
    known = [(a, b, round(jaccard(texts[a], texts[b]), 4)) for a, b in chosen]
    (out / "pairs.json").write_text(json.dumps(known))
    size = sum(len(t.encode()) for t in texts)
    return {"documents": documents, "text_bytes": size, "paragraphs": len(pool), "copies": len(sources), "pairs": len(known)}


def labelled(data: Path, out: Path) -> dict[str, Any]:
    """`out`/documents.parquet {id, text}, labels.json [cluster] and pairs.json [[row, row, Jaccard]], of all sets together."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids: list[str] = []
    texts: list[str] = []
    labels: list[str] = []
    pairs: list[tuple[int, int, float]] = []
    for path in sorted((data / "neardup").glob("*.docs.jsonl.gz")):
        name = path.name.split(".")[0]
        rows: dict[str, int] = {}
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                rows[row["doc_id"]] = len(ids)
                ids.append(f"{name}/{row['doc_id']}")
                texts.append(row["text"])
                labels.append(f"{name}/{row['cluster_id']}")
        for row in map(json.loads, path.with_name(f"{name}.pairs.jsonl").read_text().splitlines()):
            pairs.append((rows[row["a"]], rows[row["b"]], row["jaccard_word5"]))
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": ids, "text": texts}), out / "documents.parquet", compression="zstd")
    (out / "labels.json").write_text(json.dumps(labels))
    (out / "pairs.json").write_text(json.dumps(pairs))
    return {"documents": len(ids), "text_bytes": sum(len(t.encode()) for t in texts), "pairs": len(pairs)}


# --------------------------------------------------------------------------------------------- synthetic documents

VOCABULARY = 100_000
CHUNK = 20_000  # documents at a time
MEAN_WORDS = 100
SHARD = 100_000  # documents of a file
COPIED = 0.2  # share of documents that are altered copies
POOL = 8_000  # originals that copies are made of,
RENEWED = 2_000  # of which each chunk replaces so many


def _chunks(documents: int) -> Iterator[Any]:
    """List arrays of word numbers, CHUNK documents at a time: words by Zipf's law, lengths lognormal.

    A fifth of each chunk are copies of documents in a pool of fixed size, some of which every chunk replaces by its own, with
    up to a tenth of the words drawn anew. So the share of duplicates is the same from the first chunk on, and the memory too.
    """
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(7)
    cumulative = np.cumsum(1.0 / np.arange(1, VOCABULARY + 1))
    cumulative /= cumulative[-1]

    def drawn(n: int) -> Any:
        return np.searchsorted(cumulative, rng.random(n)).astype(np.int32)

    pool: list[Any] = []
    for start in range(0, documents, CHUNK):
        n = min(CHUNK, documents - start)
        copies = int(n * COPIED)
        lengths = np.clip(rng.lognormal(np.log(MEAN_WORDS) - 0.18, 0.6, n - copies), 8, 2000).astype(np.int64)
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        words = drawn(bounds[-1])
        for i in rng.choice(n - copies, min(n - copies, RENEWED if pool else POOL), replace=False):
            text = words[bounds[i] : bounds[i + 1]].copy()
            if len(pool) < POOL:
                pool.append(text)
            else:
                pool[rng.integers(POOL)] = text
        sources = [pool[i] for i in rng.integers(0, len(pool), copies)]
        sizes = np.array([len(text) for text in sources], np.int64)
        share = np.repeat(rng.choice([0.0, 0.002, 0.01, 0.03, 0.1], copies), sizes)
        copied = np.concatenate([*sources, words[:0]])
        copied = np.where(rng.random(len(copied)) < share, drawn(len(copied)), copied)
        offsets = np.concatenate([bounds, bounds[-1] + np.cumsum(sizes)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate([words, copied])))
        yield lists.take(pa.array(rng.permutation(n)))


def zipfian(out: Path, documents: int) -> dict[str, Any]:
    """`out`/*.parquet {id, text}. Memory follows the chunk, not the number of documents."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rng = random.Random(3)
    letters = "etaoinshrdlucmfwypvbgk"
    spelled: dict[str, None] = {}
    while len(spelled) < VOCABULARY:  # frequent words are short, as in a language
        length = 2 + int(len(spelled) ** 0.18) + rng.randrange(3)
        spelled["".join(rng.choice(letters) for _ in range(length))] = None
    vocabulary = pa.array(list(spelled))
    out.mkdir(parents=True, exist_ok=True)
    size, made, writer = 0, 0, None
    for numbers in _chunks(documents):
        if made % SHARD == 0:
            if writer:
                writer.close()
            schema = pa.schema([("id", pa.string()), ("text", pa.string())])
            writer = pq.ParquetWriter(out / f"part-{made // SHARD:05d}.parquet", schema, compression="zstd")
        spelt = pa.ListArray.from_arrays(numbers.offsets, vocabulary.take(numbers.values))
        text = pc.binary_join(spelt, " ")
        n = len(text)
        ids = pc.cast(pa.array(np.arange(made, made + n)), pa.string())
        writer.write_table(pa.table({"id": ids, "text": text}), row_group_size=10_000)
        size += pc.sum(pc.binary_length(text)).as_py()
        made += n
    writer.close()
    return {"documents": made, "text_bytes": size, "files": len(list(out.iterdir()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=("planted", "labelled", "zipfian"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--documents", type=int, default=0)
    args = parser.parse_args()
    if args.corpus == "planted":
        said = planted(*args.paths, args.documents)
    elif args.corpus == "labelled":
        said = labelled(*args.paths)
    else:
        said = zipfian(*args.paths, args.documents)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
