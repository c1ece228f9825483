"""Helpers of `web.py`, each run as a process of its own.

    corpus DATA OUT --times N     the archives of crawl/ N times over, the copies with other words, as files of equal size
    datatrove IN OUT --model M    FineWeb's pipeline and its MinHash steps in datatrove, archives to JSON lines
    engine                        the extractor of archives where a recipe names none
    ours RUN                      what a finished run of ours kept, and what it dropped by stage and reason

Each prints one JSON object to stdout.

What differs from datatrove's defaults and from its FineWeb example, each of it in its favour or needed to run at all:

- Archives say `WARC-Identified-Payload-Type: text/html`, as those of Common Crawl do. Without it datatrove asks libmagic, which
  is slow and takes one page in twenty for something else.
- Every step has as many tasks as workers, not one a file, so that the lists of URLFilter, the models and the tokeniser are
  loaded once by each worker; the buckets of MinHash are tasks by themselves, as they must be. trafilatura is imported before
  its process is forked.
- trafilatura may take ten seconds over a page rather than one, by the clock: a busy machine should not lose pages.
- The suffix list of tldextract in its package, as there may be no network. lid.176.ftz for lid.176.bin, for the same reason:
  it is several times smaller and not slower.
- Intermediate JSON lines are not compressed. Hashes of MinHash are xxhash of 64 bits.
- Left out: writers of what is dropped, PII, counting of tokens.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# --------------------------------------------------------------------------------------------- archives

FILES = 8  # a copy
CHANGED = 0.3  # share of the longer words that a copy replaces: of its sequences of five words, few are left
_TEXT = re.compile(
    rb"(<(?:script|style|textarea|title)\b.*?</(?:script|style|textarea|title)\s*>|<!--.*?-->|<[^>]*>)", re.S | re.I
)
_WORD = re.compile(rb"(?<![\w&#;\x80-\xff])[A-Za-z]{5,14}(?![\w;\x80-\xff])")
_KEEP = frozenset(
    b"about above after again against along among because before being below between could during every first might never"
    b" other shall should since still their there these thing those though through under until where which while whose would"
    b" without".split()
)


def pages_of(data: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """(url, date, Content-Type as served, body) of every response, in file order."""
    from warcio.archiveiterator import ArchiveIterator

    for path in sorted((data / "crawl").glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream):
                if record.rec_type == "response":
                    headers = record.rec_headers
                    served = record.http_headers.get_header("Content-Type") or "text/html"
                    url, date = headers.get_header("WARC-Target-URI"), headers.get_header("WARC-Date")
                    yield url, date, served, record.content_stream().read()


def word_pool(pages: list[tuple[str, str, str, bytes]]) -> dict[tuple[str, int], list[bytes]]:
    """Words by top-level domain, which is nearest to a language, and length; each as often as it was met."""
    pool: dict[tuple[str, int], list[bytes]] = {}
    for url, _, _, body in pages[::3]:
        for part in _TEXT.split(body)[::2]:
            for word in _WORD.findall(part):
                if word.islower():
                    pool.setdefault((top(url), len(word)), []).append(word)
    return {key: words for key, words in pool.items() if len(words) >= 50}


def top(url: str) -> str:
    return url.split("/")[2].rpartition(".")[2]


def altered(body: bytes, words: dict[int, list[bytes]], rng: random.Random) -> bytes:
    """A page with some of its longer words replaced by others of the same length, its markup untouched."""

    def one(found: re.Match[bytes]) -> bytes:
        word = found.group()
        if word in _KEEP or rng.random() >= CHANGED or len(word) not in words:
            return word
        other = rng.choice(words[len(word)])
        return other.capitalize() if word[:1].isupper() else other

    parts = _TEXT.split(body)
    parts[::2] = [_WORD.sub(one, part) for part in parts[::2]]
    return b"".join(parts)


def corpus(data: Path, out: Path, times: int, limit: int | None) -> dict[str, Any]:
    """OUT/*.warc.gz. Every page of a copy has a URL of its own (`?copy=1`), and the same bytes every time."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    rng = random.Random(0)
    pages = list(pages_of(data))[:limit]
    pool = word_pool(pages) if times > 1 else {}
    by_top: dict[str, dict[int, list[bytes]]] = {}
    for (name, length), words in pool.items():
        by_top.setdefault(name, {})[length] = words
    out.mkdir(parents=True)
    size = n = 0
    for copy in range(times):
        for k in range(FILES):
            with (out / f"copy-{copy:02d}-{k:02d}.warc.gz").open("wb") as stream:
                writer = WARCWriter(stream, gzip=True)
                for url, date, served, body in pages[k::FILES]:
                    if copy:
                        url += f"{'&' if '?' in url else '?'}copy={copy}"
                        body = altered(body, by_top.get(top(url), by_top.get("com", {})), rng)
                    record = writer.create_warc_record(
                        url, "response", payload=io.BytesIO(body), length=len(body),
                        http_headers=StatusAndHeaders("200 OK", [("Content-Type", served)], protocol="HTTP/1.1"),
                        warc_headers_dict={"WARC-Date": date, "WARC-Identified-Payload-Type": "text/html",
                                           "WARC-Record-ID": f"<urn:uuid:{rng.getrandbits(128):032x}>"},
                    )  # fmt: skip
                    writer.write_record(record)
                    size += len(body)
                    n += 1
    return {"pages": n, "html_bytes": size, "files": len(list(out.iterdir())), "urls": len({page[0] for page in pages}) * times}


# --------------------------------------------------------------------------------------------- datatrove


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in ("datatrove", "trafilatura", "warcio", "isal", "fasttext-numpy2-wheel", "spacy", "faust-cchardet",
                 "python-magic", "pyahocorasick", "xxhash", "orjson"):  # fmt: skip
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def datatrove(source: Path, out: Path, model: Path, workers: int) -> dict[str, Any]:
    import tldextract
    import trafilatura  # noqa: F401  (before the fork, see above)
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        LanguageFilter,
        URLFilter,
    )
    from datatrove.pipeline.readers import JsonlReader, WarcReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.lid import FT176LID

    FT176LID.MODEL_URL = str(model)
    urls = URLFilter()
    urls.tldextractor = tldextract.TLDExtract(suffix_list_urls=())
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(64, "xxhash"))
    counters: dict[str, dict[str, Any]] = {}

    def execute(name: str, tasks: int, *pipeline: Any) -> None:
        LocalPipelineExecutor(
            list(pipeline), tasks=tasks, workers=min(workers, tasks), logging_dir=str(out / "logs" / name), start_method="fork",
            skip_completed=False,
        ).run()  # fmt: skip
        for step in json.loads((out / "logs" / name / "stats.json").read_text()):
            counters[f"{name}: {step['name']}"] = {
                k: int(total(v)) for k, v in step["stats"].items() if not k.startswith("doc_len")
            }

    def kept() -> Any:
        return JsonlReader(str(out / "filtered"))

    execute(
        "filter", workers,
        WarcReader(str(source)), urls, Trafilatura(favour_precision=True, timeout=10), LanguageFilter("en"),
        GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(), JsonlWriter(str(out / "filtered"), compression=None),
    )  # fmt: skip
    execute("signatures", workers, kept(), MinhashDedupSignature(str(out / "signatures"), config))
    buckets = str(out / "buckets")
    execute("buckets", config.num_buckets, MinhashDedupBuckets(str(out / "signatures"), buckets, config=config))
    execute("cluster", 1, MinhashDedupCluster(buckets, str(out / "remove"), config))
    execute("output", workers, kept(), MinhashDedupFilter(str(out / "remove")), JsonlWriter(str(out / "data")))
    return outcome(out, counters)


def total(value: Any) -> float:
    return value["total"] if isinstance(value, dict) else value


def outcome(out: Path, counters: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Counted after the work, which a reader of the output need not do; a few milliseconds."""
    drops: Counter[str] = Counter()
    read = 0
    for name, found in counters.items():
        short = re.sub(r"^.*[^ -~]\s*", "", name)  # without the picture before it
        if "READER" in name and name.startswith("filter"):
            read = found["documents"]
        details = {k: v for k, v in found.items() if k.startswith("dropped_")}
        for key in ("timeout", "broken_process", "clean_error"):
            if found.get(key):
                drops[f"{short}: {key}"] += found[key]
        for key, value in details.items():
            drops[f"{short}: {key.removeprefix('dropped_')}"] += value
        if rest := found.get("dropped", 0) - sum(details.values()):
            drops[short] += rest
    urls = []
    for path in sorted((out / "data").iterdir()):
        urls += [row["metadata"]["url"] for row in json_lines(path)]
    return {"read": read, "kept": len(urls), "urls": urls, "drops": dict(drops)}


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    import gzip

    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as lines:
        yield from map(json.loads, lines)


# --------------------------------------------------------------------------------------------- ours


def engine() -> str:
    from curate.sources import Source

    return Source.extract


def ours(run: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    summary = json.loads((run / "summary.json").read_text())
    urls: list[str] = []
    for path in sorted((run / "output").rglob("*.parquet")):
        urls += pq.read_table(path, columns=["url"])["url"].to_pylist()
    drops = {f"{s['id']}: {reason}": n for s in summary["stages"] for reason, n in s["drops"].items()}
    return {
        "read": summary["stages"][0]["rows_in"],
        "kept": len(urls),
        "urls": urls,
        "drops": drops,
        "digest": summary["digest"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("corpus", "versions", "datatrove", "engine", "ours"))
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first so many pages")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    if args.command == "corpus":
        answer: Any = corpus(*args.paths, args.times, args.limit)
    elif args.command == "versions":
        answer = versions()
    elif args.command == "datatrove":
        answer = datatrove(*args.paths, args.model, args.workers)
    elif args.command == "engine":
        answer = engine()
    else:
        answer = ours(*args.paths)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
