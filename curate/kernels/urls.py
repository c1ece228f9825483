"""URLs against block lists, over UTF-8 bytes: hosts and their parents, URLs and prefixes, words and substrings.

Lists of millions of entries are held as sorted 64-bit hashes, nine bytes an entry. An entry that is not listed is taken for
one with a chance of (entries / 2**64): for 5 million entries and a billion URLs of four look-ups each, 0.1% over all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

BASIS, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # finaliser of splitmix64
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)

KEEP, ALLOWED, DOMAIN, TLD, URL, WORD, SOFT_WORDS, SUBWORD = range(8)
LONGEST_PREFIX = 4096

_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[65:91] += 32
_NO_CLASS = 255
_CLASS = np.full(256, _NO_CLASS, np.uint8)  # letters 0..25 in either case, digits 26..35
for _i in range(26):
    _CLASS[65 + _i] = _CLASS[97 + _i] = _i
for _i in range(10):
    _CLASS[48 + _i] = 26 + _i
_SCHEME = np.zeros(256, np.bool_)
for _c in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.":
    _SCHEME[_c] = True
_HOST = np.zeros(256, np.bool_)  # what a host in a list may hold; the rest is a mistake, or needs canonical_host
for _c in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.":
    _HOST[_c] = True


class Table(NamedTuple):
    """A set of uint64: sorted, with the place where each value of the top bits begins."""

    hashes: np.ndarray
    starts: np.ndarray
    shift: np.uint64


def table(hashes: np.ndarray) -> Table:
    """A set out of uint64 values (sorted in place), about four to a place."""
    hashes.sort()
    fresh = np.ones(len(hashes), np.bool_)
    fresh[1:] = hashes[1:] != hashes[:-1]
    if not fresh.all():
        hashes = hashes[fresh]
    bits = max(len(hashes).bit_length() - 2, 1)
    shift = np.uint64(64 - bits)
    starts = np.searchsorted(hashes, np.arange(1 << bits, dtype=np.uint64) << shift).astype(np.int64)
    return Table(hashes, np.append(starts, len(hashes)), shift)


class HostRules(NamedTuple):
    """What `judge_hosts` looks up. lengths: of the prefixes, in bytes, as an array of LONGEST_PREFIX truths."""

    allow: Table
    domains: Table
    block_tlds: Table
    keep_tlds: Table
    urls: Table
    prefixes: Table
    lengths: np.ndarray


class WordRules(NamedTuple):
    """What `judge_words` looks up. literal: whole URLs, byte by byte. words, soft: runs of ASCII letters and digits.

    marks, automaton: what the functions of these names make of words and soft words, and of subwords.
    """

    literal: Table
    words: Table
    soft: Table
    marks: np.ndarray
    automaton: np.ndarray


@numba.njit(cache=True, nogil=True, inline="always")
def _finish(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> _S30)) * _M1
    h = (h ^ (h >> _S27)) * _M2
    return h ^ (h >> _S31)


@numba.njit(cache=True, nogil=True, inline="always")
def _find(known, h):  # type: ignore[no-untyped-def]
    """Where h stands in a table, or -1."""
    if len(known.hashes) == 0:
        return -1
    h = _finish(h)
    place = h >> known.shift
    for i in range(known.starts[place], known.starts[place + np.uint64(1)]):
        if known.hashes[i] == h:
            return i
    return -1


@numba.njit(cache=True, nogil=True)
def hash_backward(data: np.ndarray) -> np.uint64:
    """The key of a host, read from its end so that every parent is met on the way."""
    h = BASIS
    for i in range(len(data) - 1, -1, -1):
        h = (h ^ np.uint64(_LOWER[data[i]])) * PRIME
    return _finish(h)


@numba.njit(cache=True, nogil=True)
def hash_forward(data: np.ndarray) -> np.uint64:
    """The key of a word or of a URL as it stands."""
    h = BASIS
    for i in range(len(data)):
        h = (h ^ np.uint64(data[i])) * PRIME
    return _finish(h)


@numba.njit(cache=True, nogil=True)
def host_spans(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(start, end, rest, odd) of each URL, int32 and bool: where its host stands, where what follows the host begins (a port,
    or the path), and whether the host needs `canonical_host`. Scheme and user are skipped; IPv6 hosts stand without brackets.
    """
    n = len(offsets) - 1
    start, end = np.zeros(n, np.int32), np.zeros(n, np.int32)
    rest, odd = np.zeros(n, np.int32), np.zeros(n, np.bool_)
    for row in range(n):
        at, stop = offsets[row], offsets[row + 1]
        while at < stop and data[at] <= 32:
            at += 1
        while stop > at and data[stop - 1] <= 32:
            stop -= 1
        i = at
        while i < stop and _SCHEME[data[i]]:
            i += 1
        if (
            i + 2 < stop
            and data[i] == 58
            and (data[i + 1] == 47 or data[i + 1] == 92)
            and (data[i + 2] == 47 or data[i + 2] == 92)
        ):
            at = i + 3
        elif at + 1 < stop and data[at] == 47 and data[at + 1] == 47:
            at += 2
        close = at
        while close < stop and data[close] != 47 and data[close] != 92 and data[close] != 63 and data[close] != 35:
            close += 1
        for i in range(close - 1, at - 1, -1):
            if data[i] == 64:  # @
                at = i + 1
                break
        a, b = at, at
        if at < close and data[at] == 91:  # [
            while b < close and data[b] != 93:
                b += 1
            a = at + 1
            rest[row] = min(b + 1, close)
            odd[row] = True
        else:
            while b < close and data[b] != 58:
                odd[row] |= data[b] >= 0x80 or data[b] == 37
                b += 1
            rest[row] = b
            while b > a and (data[b - 1] == 46 or data[b - 1] <= 32):
                b -= 1
        start[row], end[row] = a, b
    return start, end, rest, odd


@numba.njit(cache=True, nogil=True)
def _url_key(  # type: ignore[no-untyped-def]
    data, start, end, rest, stop, prefixes, lengths
):
    """(hash, number of bytes, whether a prefix is in the table) of a URL without scheme, user, default port and fragment."""
    while stop > rest and data[stop - 1] <= 32:
        stop -= 1
    h = BASIS
    for i in range(start, end):
        h = (h ^ np.uint64(_LOWER[data[i]])) * PRIME
    n = end - start
    if rest < stop and data[rest] == 58:
        port, i = 0, rest + 1
        while i < stop and 48 <= data[i] <= 57 and port < 100_000:
            port = port * 10 + data[i] - 48
            i += 1
        if port == 80 or port == 443 or i == rest + 1:
            rest = i
    slash = rest >= stop or data[rest] == 35 or data[rest] == 63 or data[rest] == 92  # an empty path is the root
    i = rest
    while slash or i < stop:
        c = np.uint8(47)
        if slash:
            slash = False
            i += i < stop and data[i] == 92
        else:
            c = data[i]
            if c == 35:
                break
            i += 1
        h = (h ^ np.uint64(c)) * PRIME
        n += 1
        if n < LONGEST_PREFIX and lengths[n] and _find(prefixes, h) >= 0:
            return h, n, True
    return h, n, False


@numba.njit(cache=True, nogil=True)
def url_keys(offsets: np.ndarray, data: np.ndarray, nothing: Table) -> tuple[np.ndarray, np.ndarray]:
    """(keys as `judge_hosts` looks them up; their numbers of bytes) of URLs in a list. nothing: an empty table."""
    start, end, rest, _ = host_spans(offsets, data)
    keys, sizes = np.empty(len(start), np.uint64), np.empty(len(start), np.int64)
    lengths = np.zeros(LONGEST_PREFIX, np.bool_)
    for row in range(len(start)):
        h, n, _ = _url_key(data, start[row], end[row], rest[row], offsets[row + 1], nothing, lengths)
        keys[row], sizes[row] = _finish(h), n
    return keys, sizes


@numba.njit(cache=True, nogil=True)
def judge_hosts(
    offsets: np.ndarray,
    data: np.ndarray,
    spans: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    rules: HostRules,
) -> np.ndarray:
    """ALLOWED, DOMAIN, TLD, URL or KEEP (uint8) for each URL: by its host with all parents, then by itself.

    A host that is an IP address has no parents, and a name without a dot is no parent of others: `com` in a list of domains
    blocks the host `com` alone.
    """
    start, end, rest, _ = spans
    allow, domains, block_tlds, keep_tlds, urls, prefixes, lengths = rules
    found = np.zeros(len(start), np.uint8)
    any_url = len(urls.hashes) > 0 or len(prefixes.hashes) > 0
    for row in range(len(start)):
        a, b = start[row], end[row]
        if b <= a:
            found[row] = TLD if len(keep_tlds.hashes) else KEEP
            continue
        numeric = True
        for i in range(a, b):
            c = data[i]
            if c == 58:  # IPv6
                numeric = True
                break
            numeric = numeric and (48 <= c <= 57 or c == 46)
        h, dotted = BASIS, False
        allowed = blocked = kept = outlaw = False
        for i in range(b - 1, a - 2, -1):
            if i < a or data[i] == 46:
                whole = i < a
                if whole or (dotted and not numeric):
                    allowed |= _find(allow, h) >= 0
                    blocked |= _find(domains, h) >= 0
                if not numeric:
                    outlaw |= _find(block_tlds, h) >= 0
                    kept |= _find(keep_tlds, h) >= 0
                dotted = True
            if i >= a:
                h = (h ^ np.uint64(_LOWER[data[i]])) * PRIME
        if allowed:
            found[row] = ALLOWED
        elif blocked:
            found[row] = DOMAIN
        elif outlaw or (len(keep_tlds.hashes) > 0 and not kept):
            found[row] = TLD
        elif any_url:
            key, _, begins = _url_key(data, a, b, rest[row], offsets[row + 1], prefixes, lengths)
            if begins or _find(urls, key) >= 0:
                found[row] = URL
    return found


@numba.njit(cache=True, nogil=True)
def judge_words(
    offsets: np.ndarray,
    data: np.ndarray,
    found: np.ndarray,
    rules: WordRules,
    threshold: int,
    fold_case: bool,
) -> None:
    """URL, WORD, SOFT_WORDS or SUBWORD into `found` where it is KEEP. threshold: of different soft words."""
    literal, words, soft, marks, steps = rules
    met = np.zeros(threshold, np.int64)
    last = np.uint64(len(marks) - 1)
    for row in range(len(found)):
        if found[row] != KEEP:
            continue
        whole, h, state = BASIS, BASIS, 0
        inside = hard = held = False
        n_met = 0
        stop = offsets[row + 1]
        for i in range(offsets[row], stop + 1):
            c = data[i] if i < stop else np.uint8(0)
            kind = _CLASS[c]
            if kind != _NO_CLASS:
                h = (h ^ np.uint64(_LOWER[c] if fold_case else c)) * PRIME
                inside = True
                state = steps[state + kind]
                if state < 0:
                    held = True
                    state = -state
            elif inside:
                if marks[h & last]:
                    hard |= _find(words, h) >= 0
                    which = _find(soft, h) if n_met < threshold else -1
                    if which >= 0:
                        fresh = True
                        for k in range(n_met):
                            fresh = fresh and met[k] != which
                        if fresh:
                            met[n_met] = which
                            n_met += 1
                h, inside = BASIS, False
            if i < stop:
                whole = (whole ^ np.uint64(c)) * PRIME
        if _find(literal, whole) >= 0:
            found[row] = URL
        elif hard:
            found[row] = WORD
        elif n_met >= threshold:
            found[row] = SOFT_WORDS
        elif held:
            found[row] = SUBWORD


def marks(words: list[bytes]) -> np.ndarray:
    """Truths by the last bits of the unfinished hash of a word: false for nearly all that is none of these."""
    table = np.zeros(1 << 16, np.bool_)
    for word in words:
        h = int(BASIS)
        for c in word:
            h = (h ^ c) * int(PRIME) % (1 << 64)
        table[h % len(table)] = True
    return table


def automaton(words: list[bytes]) -> np.ndarray:
    """Aho-Corasick over ASCII letters and digits. int32: at state + class stands the next state, negative where a word ends.

    A state is 36 times its number; the first is 0, in which no word ends.
    """
    size = 1 + sum(map(len, words))
    offsets = np.zeros(len(words) + 1, np.int64)
    np.cumsum([len(w) for w in words], out=offsets[1:])
    steps, accepts = _automaton(offsets, np.frombuffer(b"".join(words) or b"\0", np.uint8), size)
    return np.where(accepts[steps], -36 * steps, 36 * steps).astype(np.int32).ravel()


@numba.njit(cache=True, nogil=True)
def _automaton(offsets: np.ndarray, data: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    steps = np.full((size, 36), -1, np.int32)
    accepts = np.zeros(size, np.bool_)
    n = 1
    for word in range(len(offsets) - 1):
        state = 0
        for i in range(offsets[word], offsets[word + 1]):
            c = _CLASS[data[i]]
            if steps[state, c] < 0:
                steps[state, c] = n
                n += 1
            state = steps[state, c]
        accepts[state] = True
    steps, accepts = steps[:n].copy(), accepts[:n].copy()
    back = np.zeros(n, np.int32)  # the state of the longest proper suffix that begins a word
    queue = np.zeros(n, np.int32)
    head = tail = 0
    for c in range(36):
        if steps[0, c] < 0:
            steps[0, c] = 0
        else:
            queue[tail] = steps[0, c]
            tail += 1
    while head < tail:
        state = queue[head]
        head += 1
        accepts[state] |= accepts[back[state]]
        for c in range(36):
            to = steps[state, c]
            if to < 0:
                steps[state, c] = steps[back[state], c]
            else:
                back[to] = steps[back[state], c]
                queue[tail] = to
                tail += 1
    return steps, accepts


@numba.njit(cache=True, nogil=True)
def parse_domains(data: np.ndarray, strict: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """(hashes; spans of hosts that need `canonical_host`, two int64 each; line of the first mistake, from 1, or 0).

    data: whole lines of a list. One domain a line, or lines of a hosts file: an address and one or more names. `#` begins a
    comment. A leading `*.` or `.` and a trailing `.` are dropped. Not strict: a mistake is hashed as it stands.
    """
    most = 1
    for i in range(len(data)):
        most += data[i] <= 32
    hashes = np.empty(most, np.uint64)
    odd = np.empty((most, 2), np.int64)
    n = n_odd = 0
    at, line, wrong = 0, 0, 0
    size = len(data)
    while at < size:
        end = at
        while end < size and data[end] != 10:
            end += 1
        line += 1
        tokens, address = 0, False
        i = at
        while i < end:
            while i < end and data[i] <= 32:
                i += 1
            if i >= end or data[i] == 35:  # #
                break
            j = i
            while j < end and data[j] > 32:
                j += 1
            k = j
            while k < end and data[k] <= 32:
                k += 1
            last = k >= end or data[k] == 35
            if tokens == 0 and not last:
                address = True
                for m in range(i, j):
                    c = data[m]
                    address = address and (48 <= c <= 58 or c == 46 or 97 <= c <= 102 or 65 <= c <= 70)
                if not address and wrong == 0:
                    wrong = line
                if address:
                    tokens += 1
                    i = j
                    continue
            a, b = i, j
            if b - a > 2 and data[a] == 42 and data[a + 1] == 46:
                a += 2
            while b - a > 1 and data[a] == 46:
                a += 1
            while b - a > 1 and data[b - 1] == 46:
                b -= 1
            plain, strange = True, False
            for m in range(a, b):
                if not _HOST[data[m]]:
                    plain = False
                    strange |= data[m] < 0x80 and data[m] != 58 and data[m] != 91 and data[m] != 93
            if plain or not strict:
                h = BASIS
                for m in range(b - 1, a - 1, -1):
                    h = (h ^ np.uint64(_LOWER[data[m]])) * PRIME
                hashes[n] = _finish(h)
                n += 1
            elif strange:
                if wrong == 0:
                    wrong = line
            else:
                odd[n_odd, 0], odd[n_odd, 1] = a, b
                n_odd += 1
            tokens += 1
            i = j
        at = end + 1
    return hashes[:n].copy(), odd[:n_odd].copy(), wrong


def canonical_host(host: str) -> bytes:
    """A host as it is looked up: lower case, percent escapes decoded, IDNA names in punycode, IPv6 in its shortest form.

    Names follow UTS 46 without its transitional mapping, as browsers do: compatibility forms are folded, ß stays.
    """
    import ipaddress
    import unicodedata
    from urllib.parse import unquote

    host = host.strip("[]")
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host.partition("%")[0])).encode()
        except ValueError:
            return host.lower().encode("utf-8", "surrogatepass")
    plain = unicodedata.normalize("NFKC", unquote(host)).lower().replace("\u3002", ".").replace("\u00ad", "")
    host = host.lower() if any(c in "/\\?#@:[] " for c in plain) else plain  # an escape must not move the end of the host
    labels = unicodedata.normalize("NFC", host).strip(".").split(".")
    return b".".join(label.encode() if label.isascii() else b"xn--" + label.encode("punycode") for label in labels)
