"""Documents dropped by their URL."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, did_you_mean
from curate.stage import REASON, BatchFn, Filter, Task, with_columns

if TYPE_CHECKING:
    from curate.kernels.urls import HostRules, WordRules


@dataclass(frozen=True, kw_only=True)
class UrlFilter(Filter):
    """Drops documents whose URL is on a block list, or holds words that are.

    lists: lists that need no file of yours: `sample` (a small one that comes with Curate: link shorteners, advertising
    servers, parked domains, words of spam), and `datatrove` (those in the installed datatrove package, which FineWeb used: 4.6
    million adult domains of UT1, and words).
    All others are lists of paths, of text files or .gz, UTF-8, one entry a line, lines that begin with `#` left out.
    domains: hosts that are blocked with all their subdomains; lines of a hosts file (`0.0.0.0 ads.example`) are understood.
    urls: URLs that are blocked, or with a `*` at the end everything that begins so (`example.com/~spam/*`). Scheme, user,
    default port and fragment are left out on both sides; the rest, `www.` included, must be equal.
    words: blocked where one is a word of the URL, a word being a run of ASCII letters and digits.
    soft_words: blocked where soft_word_threshold different ones are. subwords: blocked wherever one stands in what is left of
    the URL without everything but letters and digits, lower-cased, so that `two-word` finds `twoWord` and `two_words`.
    allow: domains that are kept with all their subdomains, whatever else is said.
    block_tlds, keep_tlds: ends of hosts to drop, and if any the only ones to keep, such as `xxx`, `co.uk`. keep_tlds drops
    hosts without a name, such as IP addresses.
    fold_case: compare words without regard to case; by default only lower-case words are met, as in datatrove.
    missing: `keep` or `drop` documents without a URL.

    Hosts are compared in lower case, names in other scripts in punycode, without a final dot, IPv6 in its short form, and an IP
    address has no parent. A missing scheme is no matter. Entries are held as 64-bit hashes.

    With `lists: [datatrove]` this gives datatrove's decisions, except that it looks up all parents of a host (there: the host
    and the registered domain), IP addresses and hosts in capitals too. Its list of URLs has no schemes and is compared whole,
    so that it hits nothing in either.

    Columns written: none. Reasons: `url_filter.domain`, `.tld`, `.url`, `.word`, `.soft_words`, `.subword`, `.no_url`; the
    first that holds, in this order.

    Source: the URL filter of datatrove (https://github.com/huggingface/datatrove) and FineWeb (Penedo et al. 2024,
    https://arxiv.org/abs/2406.17557), after RefinedWeb (Penedo et al. 2023, https://arxiv.org/abs/2306.01116); the domains of
    the list `datatrove` are those of UT1 (https://dsi.ut-capitole.fr/blacklists/).

    >>> docs = {"text": ["a", "b", "c"], "url": ["https://bit.ly/3x", "http://sub.example.co.uk/", "example.xxx:8080/a"]}
    >>> result = UrlFilter(lists=("sample",), block_tlds=("xxx",))(docs)
    >>> result.kept["url"].to_pylist(), result.dropped["_reason"].to_pylist()
    (['http://sub.example.co.uk/'], ['url_filter.domain', 'url_filter.tld'])
    """

    example: ClassVar[dict[str, Any]] = {"lists": ("sample",), "block_tlds": ("xxx", "co.uk")}

    lists: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    soft_words: tuple[str, ...] = ()
    soft_word_threshold: int = 2
    subwords: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    block_tlds: tuple[str, ...] = ()
    keep_tlds: tuple[str, ...] = ()
    fold_case: bool = False
    missing: str = "keep"

    def __post_init__(self) -> None:
        for name in self.lists:
            if name not in _LISTS:
                raise RecipeError(f"url_filter: no list {name!r}{did_you_mean(name, _LISTS)}; paths go to domains, urls, …")
        if self.soft_word_threshold < 1:
            raise RecipeError(f"url_filter: soft_word_threshold is {self.soft_word_threshold}; at least 1 word is needed")
        if self.missing not in ("keep", "drop"):
            raise RecipeError(f"url_filter: missing is {self.missing!r}; known: keep, drop")
        for key in ("block_tlds", "keep_tlds"):
            for tld in getattr(self, key):
                if not re.fullmatch(r"\.?[^\s./@:]+(\.[^\s./@:]+)*", tld):
                    raise RecipeError(f"url_filter: {key} holds {tld!r}; write ends of hosts such as 'xxx' or 'co.uk'")
        rules = self.lists + self.domains + self.urls + self.words + self.soft_words + self.subwords
        if not (rules + self.block_tlds + self.keep_tlds) and self.missing == "keep":
            raise RecipeError("url_filter: nothing to block; give lists: [sample] or [datatrove], files as domains, or TLDs")

    def reads(self) -> tuple[str, ...]:
        return ("url",)

    def reasons(self) -> tuple[str, ...]:
        return _REASONS

    def files(self) -> tuple[str, ...]:
        own = self.domains + self.urls + self.words + self.soft_words + self.subwords + self.allow
        return tuple(dict.fromkeys((*own, *(str(path) for name in self.lists for path in _LISTS[name]().values()))))

    def open(self, task: Task) -> BatchFn:
        known = tuple((path, Path(path).stat().st_size, Path(path).stat().st_mtime_ns) for path in self.files())
        rules = task.cached(("url_filter", self, known), functools.partial(_load, self))
        return functools.partial(self._process, rules)

    def _process(self, rules: _Rules, batch: pa.RecordBatch) -> pa.RecordBatch:
        return with_columns(batch, {REASON: self._reject(rules, batch["url"])})

    def _reject(self, rules: _Rules, urls: pa.Array) -> pa.Array:
        from curate.kernels import urls as kernels
        from curate.kernels.words import offsets_and_bytes

        offsets, data = offsets_and_bytes(urls)
        spans = kernels.host_spans(offsets, data)
        found = kernels.judge_hosts(offsets, data, spans, rules.hosts)
        start, end, rest, odd = spans
        if odd.any():  # names in other scripts, escapes, IPv6: judged again in the form that lists are kept in
            rows = np.flatnonzero(odd)
            again = []
            for row in rows.tolist():
                host = kernels.canonical_host(data[start[row] : end[row]].tobytes().decode("utf-8", "replace"))
                host = b"[" + host + b"]" if b":" in host else host
                again.append(host + data[rest[row] : offsets[row + 1]].tobytes())
            pieces = offsets_and_bytes(pa.array(again, pa.binary()))
            found[rows] = kernels.judge_hosts(*pieces, kernels.host_spans(*pieces), rules.hosts)
        kernels.judge_words(offsets, data, found, rules.words, self.soft_word_threshold, self.fold_case)
        empty = pc.fill_null(pc.equal(pc.binary_length(urls), 0), True)
        found[np.asarray(empty)] = _NO_URL if self.missing == "drop" else kernels.KEEP
        return _CODES.take(pa.array(found))


_REASONS = (
    "url_filter.domain",
    "url_filter.tld",
    "url_filter.url",
    "url_filter.word",
    "url_filter.soft_words",
    "url_filter.subword",
    "url_filter.no_url",
)
_NO_URL = 8
_CODES = pa.array([None, None, *_REASONS], pa.string())  # by KEEP, ALLOWED, DOMAIN, … of the kernels


class _Rules(NamedTuple):
    """What the kernels look things up in."""

    hosts: HostRules
    words: WordRules


def _sample() -> dict[str, Path]:
    folder = Path(__file__).parent.parent / "data"
    return {kind: folder / f"url_{kind}.txt" for kind in ("domains", "words", "soft_words", "subwords")}


def _datatrove() -> dict[str, Path]:
    found = importlib.util.find_spec("datatrove")
    if found is None or not found.submodule_search_locations:
        raise RecipeError("url_filter: the list 'datatrove' is read from the package datatrove, which is not installed")
    assets = Path(found.submodule_search_locations[0]) / "assets"
    tars = sorted(assets.glob("url_filterblacklists*.tar.gz"))
    if not tars:
        raise RecipeError(f"url_filter: this version of datatrove has no url_filterblacklists*.tar.gz in {assets}")
    words = {"words": "banned_words.txt", "soft_words": "soft_banned_words.txt", "subwords": "banned_subwords.txt"}
    return {"tar": tars[-1], **{kind: assets / name for kind, name in words.items()}}


_LISTS = {"sample": _sample, "datatrove": _datatrove}


# --------------------------------------------------------------------------------------------- reading lists


def _load(stage: UrlFilter) -> _Rules:
    from curate.kernels.urls import LONGEST_PREFIX, HostRules, WordRules, automaton, marks, table

    paths = {kind: [*map(Path, getattr(stage, kind))] for kind in ("domains", "urls", "words", "soft_words", "subwords")}
    hosts: list[np.ndarray] = []
    literal: list[np.ndarray] = []
    for name in stage.lists:
        for kind, path in _LISTS[name]().items():
            if kind == "tar":
                _from_tar(path, hosts, literal)
            else:
                paths[kind].append(path)
    for path in paths["domains"]:
        with _opened(path) as file:
            hosts += _domains(file, str(path))
    allow: list[np.ndarray] = []
    for path in map(Path, stage.allow):
        with _opened(path) as file:
            allow += _domains(file, str(path))
    urls, prefixes, lengths = _urls(paths["urls"])
    has_length = np.zeros(LONGEST_PREFIX, np.bool_)
    has_length[lengths] = True
    words, soft = _words(paths["words"]), _words(paths["soft_words"])
    return _Rules(
        HostRules(
            allow=table(_joined(allow)),
            domains=table(_joined(hosts)),
            block_tlds=table(_tlds(stage.block_tlds)),
            keep_tlds=table(_tlds(stage.keep_tlds)),
            urls=table(urls),
            prefixes=table(prefixes),
            lengths=has_length,
        ),
        WordRules(
            literal=table(_joined(literal)),
            words=table(_hashed(words)),
            soft=table(_hashed(soft)),
            marks=marks(words + soft),
            automaton=automaton(_words(paths["subwords"])),
        ),
    )


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _hashed(words: Sequence[bytes]) -> np.ndarray:
    from curate.kernels.urls import hash_forward

    return np.array([hash_forward(np.frombuffer(word, np.uint8)) for word in words], np.uint64)


def _tlds(tlds: Sequence[str]) -> np.ndarray:
    from curate.kernels.urls import canonical_host, hash_backward

    return np.array([hash_backward(np.frombuffer(canonical_host(tld), np.uint8)) for tld in tlds], np.uint64)


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _chunks(file: Any, size: int = 8 << 20) -> Iterator[bytes]:
    """Whole lines, so that a list of any length needs the memory of a few of these."""
    rest = b""
    while chunk := file.read(size):
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield rest + head + newline
            rest = tail
        else:
            rest += chunk
    if rest:
        yield rest


def _domains(file: Any, name: str, strict: bool = True) -> list[np.ndarray]:
    """Hashes of the domains in a file. Raises RecipeError at a line that holds none."""
    from curate.kernels.urls import canonical_host, hash_backward, parse_domains

    found: list[np.ndarray] = []
    before = 0
    for chunk in _chunks(file):
        data = np.frombuffer(chunk.removeprefix(b"\xef\xbb\xbf") if not before else chunk, np.uint8)
        hashes, odd, wrong = parse_domains(data, strict)
        if wrong and strict:
            line = chunk.split(b"\n")[wrong - 1].strip()[:80].decode("utf-8", "replace")
            raise RecipeError(
                f"url_filter: {name}:{before + wrong}: {line!r} is no domain: URLs go to `urls`, words to `words`"
            )
        others = [canonical_host(data[a:b].tobytes().decode("utf-8", "replace")) for a, b in odd.tolist()]
        found += [hashes, np.array([hash_backward(np.frombuffer(h, np.uint8)) for h in others], np.uint64)]
        before += chunk.count(b"\n")
    return found


def _from_tar(path: Path, hosts: list[np.ndarray], literal: list[np.ndarray]) -> None:
    import tarfile

    from curate.kernels.urls import hash_forward

    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None and member.name == "domains":
                hosts += _domains(file, f"{path.name}/domains", strict=False)
            elif file is not None and member.name == "urls":
                lines = [line.strip() for line in file if not line.startswith(b"#")]
                literal.append(np.array([hash_forward(np.frombuffer(u, np.uint8)) for u in lines if u], np.uint64))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _opened(path) as file:
        for number, raw in enumerate(file, 1):
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8", "replace").strip()
            if line and not line.startswith("#"):
                yield number, line


def _urls(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(keys of URLs, keys of prefixes, lengths of prefixes in bytes)."""
    from curate.kernels.urls import LONGEST_PREFIX, canonical_host, host_spans, table, url_keys
    from curate.kernels.words import offsets_and_bytes

    whole: list[bytes] = []
    begins: list[bytes] = []
    for path in paths:
        for number, line in _lines(path):
            text = line.removesuffix("*")
            offsets, data = offsets_and_bytes(pa.array([text]))
            (start,), (end,), (rest,), (odd,) = (part.tolist() for part in host_spans(offsets, data))
            if start == end or (text != line and not re.search(rb"[/\\?]", data[rest:].tobytes())) or " " in text:
                raise RecipeError(
                    f"url_filter: {path}:{number}: {line[:80]!r} is not a URL, or not a beginning that reaches beyond the host"
                )
            if len(text.encode()) >= LONGEST_PREFIX and text != line:
                raise RecipeError(f"url_filter: {path}:{number}: a beginning of a URL has at most {LONGEST_PREFIX} bytes")
            raw = data.tobytes()
            if odd:
                host = canonical_host(raw[start:end].decode("utf-8", "replace"))
                raw = (b"[" + host + b"]" if b":" in host else host) + raw[rest:]
            (whole if text == line else begins).append(raw)
    nothing = table(np.empty(0, np.uint64))
    keys, _ = url_keys(*offsets_and_bytes(pa.array(whole, pa.binary())), nothing)
    heads, lengths = url_keys(*offsets_and_bytes(pa.array(begins, pa.binary())), nothing)
    return keys, heads, lengths


def _words(paths: Sequence[Path]) -> list[bytes]:
    """ASCII letters and digits of each line, lower-cased; each once, in order."""
    found: dict[bytes, None] = {}
    for path in paths:
        for number, line in _lines(path):
            word = re.sub(r"[^a-zA-Z0-9]+", "", line).lower()
            if not word:
                raise RecipeError(
                    f"url_filter: {path}:{number}: {line[:80]!r} has no ASCII letter or digit: nothing can match it"
                )
            found[word.encode()] = None
    return list(found)
