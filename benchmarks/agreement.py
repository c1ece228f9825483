"""Whether `signals` and `rules` decide about English texts as datatrove's filters do.

    python benchmarks/agreement.py                       both sides, about fifteen minutes on one core
    python benchmarks/agreement.py --cache peer.json     keeps datatrove's decisions there, and reads them back the next time
    python benchmarks/agreement.py --show 3              three texts of each class of disagreement

Both sides judge the same texts by the thresholds that datatrove has: up to `--per` texts of each kind in domains and quality,
the reference texts of English pages, and the texts that resiliparse takes out of the same pages, which hold more boilerplate.
English is told to `signals`, as it is to datatrove. Each filter judges every text, whatever the others say of it.

A disagreement is a text that one side keeps and the other drops. Its class is the pair of reasons. Where both drop, the
reasons are compared too, for the record, as are the counts of words, and `c4_lines` with the text that C4 leaves.

docs/agreement.md explains the classes. `--check` exits 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curate.stages.c4_lines import C4Lines
from curate.stages.rules import Rules
from curate.stages.signals import Signals

BARS = {"gopher_repetition": 0.995, "gopher": 0.99, "c4": 0.99, "c4_any_end": 0.99, "fineweb": 0.995}
# our rule for each reason of datatrove, where the names are not the same
SAME = {
    "gopher_short_doc": "min_words",
    "gopher_long_doc": "max_words",
    "gopher_below_avg_threshold": "min_mean_word_length",
    "gopher_above_avg_threshold": "max_mean_word_length",
    "gopher_too_many_hashes": "max_hash_ratio",
    "gopher_too_many_ellipsis": "max_ellipsis_ratio",
    "gopher_too_many_bullets": "max_bullet_line_share",
    "gopher_too_many_end_ellipsis": "max_ellipsis_line_share",
    "gopher_below_alpha_threshold": "min_alpha_word_share",
    "gopher_enough_stop_words": "min_stop_words",
    **{f"dup_{what}_frac": f"max_dup_{what}_share" for what in ("para", "para_char", "line", "line_char")},
    **{f"top_{n}_gram": f"max_top_{n}gram_char_share" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"max_dup_{n}gram_char_share" for n in range(5, 11)},
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_bracket",
    "too_few_sentences": "min_sentences",
    "line_punct_ratio": "min_line_punct_ratio",
    "short_line_ratio": "max_short_line_ratio",
    "char_dup_ratio": "max_char_dup_ratio",
    "list_ratio": "max_new_line_ratio",
}


# --------------------------------------------------------------------------------------------- texts


def texts(data: Path, per: int) -> Iterator[tuple[str, str]]:
    """(kind, text) of English texts, each text once: of each kind the `per` with the smallest hashes."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    seen = set()
    for kind, text in _all_texts(data):
        key = xxhash.xxh3_64_hexdigest(text.encode())
        if text.strip() and key not in seen:
            seen.add(key)
            found[kind][key] = text
    for kind, by_key in found.items():
        for key in sorted(by_key)[:per]:
            yield kind, by_key[key]


def _all_texts(data: Path) -> Iterator[tuple[str, str]]:
    for name, column in (("domains", "domain"), ("quality", "kind")):
        table = pq.read_table(data / name / f"{name}.parquet", columns=["text", column, "lang"])
        for row in table.to_pylist():
            if row["lang"] == "en":
                yield f"{name}/{row[column]}", row["text"]
    english = set()
    with gzip.open(data / "crawl" / "pages.jsonl.gz") as lines:
        for line in lines:
            page = json.loads(line)
            if (page["html_lang"] or "").lower().startswith("en"):
                english.add(page["record_id"])
                if page["main_text"]:
                    yield "pages/reference", page["main_text"]
    yield from (("pages/resiliparse", text) for text in _extracted(data / "crawl", english))


def _extracted(crawl: Path, ids: set[str]) -> Iterator[str]:
    from curate.recipe import loads

    with tempfile.TemporaryDirectory() as scratch:
        recipe = loads("name: agreement\nstages: []\n").with_inputs([str(p) for p in sorted(crawl.glob("*.warc.gz"))])
        run = recipe.run(Path(scratch) / "run", executor="inline")
        found = run.dataset().scan().select("id", "text").collect()
    for id_, text in sorted(found.iter_rows()):
        if id_ in ids:
            yield text


# --------------------------------------------------------------------------------------------- the two sides


def peer_judge() -> Callable[[str], dict[str, Any]]:
    """datatrove on one text: for each filter the reason ("" where it keeps), the hash of C4's text, the count of words."""
    from datatrove.data import Document
    from datatrove.pipeline import filters
    from datatrove.utils.text import PUNCTUATION_SET, split_into_words
    from datatrove.utils.typeshelper import Languages

    made = {
        "gopher_repetition": filters.GopherRepetitionFilter(),
        "gopher": filters.GopherQualityFilter(),
        "c4": filters.C4QualityFilter(),
        "c4_any_end": filters.C4QualityFilter(filter_no_terminal_punct=False),
        "fineweb": filters.FineWebQualityFilter(),
    }

    def judge(text: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, peer in made.items():
            document = Document(text=text, id="0")
            verdict = peer.filter(document)
            found[name] = "" if verdict is True else verdict[1]
            if name.startswith("c4"):
                found[f"{name}.text"] = digest(document.text)
        words = split_into_words(text, Languages.english)
        found["words"] = sum(any(c not in PUNCTUATION_SET for c in word) for word in words)
        return found

    return judge


def peer_side(given: Sequence[str], cache: Path | None) -> list[dict[str, Any]]:
    """What datatrove says of each text, out of the cache where it is there."""
    stamp = f"datatrove {version('datatrove')}, spacy {version('spacy')}"
    known: dict[str, dict[str, Any]] = {}
    if cache and cache.exists():
        stored = json.loads(cache.read_text())
        known = stored["said"] if stored["stamp"] == stamp else {}
    keys = [digest(text) for text in given]
    missing = [i for i, key in enumerate(keys) if key not in known]
    judge = peer_judge() if missing else None
    for n, i in enumerate(missing, 1):
        assert judge is not None
        known[keys[i]] = judge(given[i])
        if n % 200 == 0 or n == len(missing):
            print(f"datatrove: {n} of {len(missing)}", file=sys.stderr)
            if cache:
                part = cache.with_name(cache.name + ".part")
                part.write_text(json.dumps({"stamp": stamp, "said": known}))
                part.replace(cache)
    return [known[key] for key in keys]


def our_side(given: Sequence[str]) -> list[dict[str, Any]]:
    """The same of our stages, with the value that decided."""
    table = pa.table({"text": pa.array(given), "language": pa.array(["en"] * len(given))})
    signals = Signals()(table).kept
    found: list[dict[str, Any]] = [{"words": n} for n in signals["gopher_words"].to_pylist()]
    for name in BARS:
        for row in found:
            row[name] = ""
        dropped = Rules(sets=(name,))(signals).dropped
        for i, reason, value in zip(*(dropped[c].to_pylist() for c in ("id", "_reason", "_value")), strict=True):
            found[int(i)] |= {name: reason.removeprefix(f"{name}."), f"{name}.value": value}
    for name, any_end in (("c4", False), ("c4_any_end", True)):
        for row in found:
            row[f"{name}.text"] = digest("")
        kept = C4Lines(terminal_punctuation=not any_end)(table).kept
        for i, text in zip(kept["id"].to_pylist(), kept["text"].to_pylist(), strict=True):
            found[int(i)][f"{name}.text"] = digest(text)
    return found


def digest(text: str) -> str:
    return xxhash.xxh3_128_hexdigest(text.encode())


# --------------------------------------------------------------------------------------------- comparison


def compare(kinds: Sequence[str], ours: Sequence[dict[str, Any]], peers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is printed and what `--json` gives: per filter the agreement and its classes, each with the numbers of texts."""
    report: dict[str, Any] = {"texts": len(kinds), "kinds": dict(Counter(kinds)), "filters": {}}
    for name, bar in BARS.items():
        classes: dict[str, list[int]] = defaultdict(list)
        by_kind: Counter[str] = Counter()
        both = same = 0
        for i, (a, b) in enumerate(zip(ours, peers, strict=True)):
            if bool(a[name]) != bool(b[name]):
                classes[f"{a[name] or 'kept'} / {b[name] or 'kept'}"].append(i)
                by_kind[kinds[i]] += 1
            elif a[name]:
                both += 1
                same += a[name] == SAME.get(b[name], b[name])
        wrong = sum(map(len, classes.values()))
        report["filters"][name] = {
            "agreement": 1 - wrong / len(kinds),
            "bar": bar,
            "disagreements": wrong,
            "dropped_by_ours": sum(bool(a[name]) for a in ours),
            "dropped_by_datatrove": sum(bool(b[name]) for b in peers),
            "both_drop": both,
            "for_the_same_reason": same,
            "classes": dict(sorted(classes.items(), key=lambda c: -len(c[1]))),
            "kinds": dict(by_kind.most_common()),
        }
    for name in ("c4", "c4_any_end"):
        texts = [(a[f"{name}.text"], b[f"{name}.text"]) for a, b in zip(ours, peers, strict=True) if not b[name]]
        report["filters"][name]["cleaned_texts"] = [sum(a == b for a, b in texts), len(texts)]
    report["equal_word_counts"] = sum(a["words"] == b["words"] for a, b in zip(ours, peers, strict=True))
    return report


def show(report: dict[str, Any], given: Sequence[str], kinds: Sequence[str], ours: Sequence[dict[str, Any]], n: int) -> None:
    print(f"{report['texts']} English texts: " + ", ".join(f"{kind} {m}" for kind, m in report["kinds"].items()))
    print(f"equal counts of words for Gopher: {report['equal_word_counts']} of {report['texts']}")
    for name, found in report["filters"].items():
        verdict = "" if found["agreement"] >= found["bar"] else "   BELOW THE BAR"
        print(f"\n{name}: {found['agreement']:.2%} of decisions equal, bar {found['bar']:.1%}{verdict}")
        print(f"  dropped: {found['dropped_by_ours']} by ours, {found['dropped_by_datatrove']} by datatrove")
        print(f"  same reason: {found['for_the_same_reason']} of {found['both_drop']} that both drop")
        if "cleaned_texts" in found:
            print("  c4_lines leaves the same text: {} of {} that datatrove keeps".format(*found["cleaned_texts"]))
        for pair, at in found["classes"].items():
            print(f"  {len(at):5}  ours: {pair.replace(' / ', ', datatrove: ')}")
            for i in at[:n]:
                value = ours[i].get(f"{name}.value")
                print(f"         {kinds[i]}, value {value}: {given[i][:100]!r}")


def main() -> None:
    default = os.environ.get("CURATE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with domains, quality and crawl")
    parser.add_argument("--per", type=int, default=600, help="texts of each kind, at most")
    parser.add_argument("--cache", type=Path, help="JSON file with datatrove's decisions, read and written")
    parser.add_argument("--show", type=int, default=0, help="texts to show of each class of disagreement")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    args = parser.parse_args()
    kinds, given = zip(*texts(args.data, args.per), strict=True)
    peers, ours = peer_side(given, args.cache), our_side(given)
    report = compare(kinds, ours, peers)
    if args.json:
        print(json.dumps(report))
    else:
        show(report, given, kinds, ours, args.show)
    if args.check and any(found["agreement"] < found["bar"] for found in report["filters"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
