"""Scores of linear fastText models, over UTF-8 bytes without decoding.

A fastText model is a bag of features: each word of the vocabulary, each run of characters of a word (by hash), each run of
words (by hash). A text is the mean of the rows of its features. Where words have runs of characters, most of them were seen a
moment ago, so the sum of the rows of a word of up to 16 bytes is remembered in a table of fixed size under the bytes
themselves. It is the same sum whether it is looked up or made again, so what was scored before a text changes nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

U64: Any = np.uint64  # to a checker of types no int is one of these
I64: Any = np.int64
ROOM = 6 << 20  # bytes of remembered words
_EOS = np.frombuffer(b"</s>", np.uint8)
_EOS_UNIT = U64(int.from_bytes(b"</s>", "little"))
_SPACE = U64(sum(1 << c for c in (0, 9, 10, 11, 12, 13, 32)))  # a bit for each byte that ends a word
_EOS_HASH = U64(3617362777)
_UNKNOWN = U64(0xFFFFFFFF)  # in place of the number of a word
_AHEAD = 64
_LABEL = np.frombuffer(b"__label__", np.uint8)
_LABEL_UNIT = U64(int.from_bytes(b"__label_", "little"))


class Features(NamedTuple):
    """What turns a text into rows.

    rows: float32 (words + n-grams, width). short: uint64, open addressing over words and labels of up to 16
    bytes, four units each: the bytes, number (high half) and hash, and in the low half of the last the row if it is one number
    (as float32); zeros for none. slots: int32, open addressing over the hash
    of longer ones, -1 for none. hashes: uint32 of all. bounds: int64, one more than words and labels; letters: uint8, their
    bytes. kept: uint64, a bit for each bucket
    whose n-gram was not pruned, and rank: int32, how many such bits are in the units before, since the rows of n-grams are
    in the order of their buckets; both of length 0 where nothing was pruned. words, bucket, minn, maxn, ngrams: of the
    model; maxn 0 for no runs of characters, ngrams 1 for no runs of words.
    """

    rows: np.ndarray
    slots: np.ndarray
    hashes: np.ndarray
    bounds: np.ndarray
    letters: np.ndarray
    short: np.ndarray
    kept: np.ndarray
    rank: np.ndarray
    words: int
    bucket: int
    minn: int
    maxn: int
    ngrams: int


class Memo(NamedTuple):
    """Words seen before. One record each, 8-byte units of `units` or the same memory as `numbers` (float32): two units of
    bytes of the word, one of the number of its rows (high half; as int32) and its hash (low half), then the sum of the rows.
    """

    units: np.ndarray
    numbers: np.ndarray


def memo(width: int) -> Memo:
    """An empty memory for rows of this width. One thread at a time uses it."""
    size = 3 + (width + 1) // 2
    slots = 1 << max(ROOM // (8 * size), 64).bit_length() - 1
    units = np.zeros((slots + _AHEAD, size), np.uint64)
    return Memo(units, units.view(np.float32))


@numba.njit(cache=True, nogil=True)
def fnv(data: np.ndarray, begin: int, end: int) -> int:
    """fastText's hash: FNV-1a over 32 bits, but each byte is taken as a signed character first."""
    h = U64(2166136261)
    for at in range(U64(begin), U64(end)):
        h = _step(h, U64(data[at]))
    return h


@numba.njit(cache=True, nogil=True, inline="always")
def _step(h: int, byte: int) -> int:
    return (h ^ (byte | (byte >> U64(7)) * U64(0xFFFFFF00))) * U64(16777619) & U64(0xFFFFFFFF)


@numba.njit(cache=True, nogil=True, inline="always")
def _load(data: np.ndarray, at: int) -> int:
    """Eight bytes as one number, the first lowest: compiled to one load."""
    found = U64(data[at])
    for k in (1, 2, 3, 4, 5, 6, 7):
        found |= U64(data[at + U64(k)]) << U64(8 * k)
    return found


@numba.njit(cache=True, nogil=True, inline="always")
def _before_space(unit: int) -> tuple[int, int]:
    """The bytes of a unit before the first one that is at most 32, the others zero, and how many they are."""
    low = (unit & U64(0x7F7F7F7F7F7F7F7F)) + U64(0x5F5F5F5F5F5F5F5F)
    small = ~(low | unit) & U64(0x8080808080808080)
    mask = ((small & (~small + U64(1))) >> U64(7)) - U64(1)  # all ones where there is none
    return unit & mask, (mask & U64(0x0101010101010101)) * U64(0x0101010101010101) >> U64(56)


@numba.njit(cache=True, nogil=True, inline="always")
def _mix(low: int, high: int) -> int:
    return low * U64(0x9E3779B97F4A7C15) ^ high * U64(0xC2B2AE3D27D4EB4F)


@numba.njit(cache=True, nogil=True)
def _spare(size: int) -> int:
    """By how much a mixed number is shifted to be below `size`, a power of two."""
    spare = U64(64)
    while U64(1) << (U64(64) - spare) < U64(size):
        spare -= U64(1)
    return spare


@numba.njit(cache=True, nogil=True)
def index_words(letters: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(slots, hashes, short) of the words letters[bounds[i]:bounds[i + 1]]: see Features. There are no rows yet in `short`.

    The first words are the most frequent, so they are found where they are looked for first.
    """
    n = len(bounds) - 1
    long = 0
    for i in range(n):
        long += bounds[i + 1] - bounds[i] > 16
    size, short_size = 8, 8
    while size < 2 * long:
        size *= 2
    while short_size < 2 * (n - long):
        short_size *= 2
    slots = np.full(size, -1, np.int32)
    short = np.zeros((short_size, 4), np.uint64)
    hashes = np.zeros(n, np.uint32)
    spare = _spare(short_size)
    for i in range(n):
        h = fnv(letters, bounds[i], bounds[i + 1])
        hashes[i] = h
        if bounds[i + 1] - bounds[i] > 16:
            at = I64(h) & (size - 1)
            while slots[at] >= 0:
                at = (at + 1) & (size - 1)
            slots[at] = i
            continue
        low, high = U64(0), U64(0)
        for k in range(bounds[i + 1] - bounds[i]):
            byte = U64(letters[bounds[i] + k])
            if k < 8:
                low |= byte << U64(8 * k)
            else:
                high |= byte << U64(8 * k - 64)
        if low == 0:
            continue  # an empty word is none that a text can have
        place = I64(_mix(low, high) >> spare)
        while short[place, 0]:
            place = (place + 1) & (short_size - 1)
        short[place, 0], short[place, 1], short[place, 2] = low, high, U64(i) << U64(32) | h
    return slots, hashes, short


@numba.njit(cache=True, nogil=True)
def parse_entries(data: np.ndarray, at: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Entries of a dictionary: each a string up to a NUL, an int64 count, an int8 kind.

    Returns (int64 bounds of the strings, uint8 their bytes, int64 counts, int8 kinds, where the next thing begins), the last
    -1 if the data end too early.
    """
    bounds = np.zeros(n + 1, np.int64)
    counts = np.zeros(n, np.int64)
    kinds = np.zeros(n, np.int8)
    first = at
    for i in range(n):
        begin = at
        while at < len(data) and data[at]:
            at += 1
        bounds[i + 1] = bounds[i] + at - begin
        if at + 10 > len(data):
            return bounds, np.empty(0, np.uint8), counts, kinds, -1
        counts[i] = I64(_load(data, U64(at + 1)))
        kinds[i] = np.int8(data[at + 9])
        at += 10
    letters = np.empty(bounds[n], np.uint8)
    for i in range(n):
        begin = first + bounds[i] + 10 * i
        for k in range(bounds[i + 1] - bounds[i]):
            letters[bounds[i] + k] = data[begin + k]
    return bounds, letters, counts, kinds, at


@numba.njit(cache=True, nogil=True)
def _find(
    slots: np.ndarray, hashes: np.ndarray, bounds: np.ndarray, letters: np.ndarray,
    h: int, data: np.ndarray, begin: int, end: int,
) -> int:  # fmt: skip
    """Number of the word or label data[begin:end] with this hash; -1 if it is not in the vocabulary."""
    mask = U64(len(slots) - 1)
    at = h & mask
    while slots[at] >= 0:
        i = U64(slots[at])
        first, size = U64(bounds[i]), U64(bounds[i + U64(1)]) - U64(bounds[i])
        if hashes[i] == h and size == end - begin:
            same = True
            for k in range(size):
                if letters[first + k] != data[begin + k]:
                    same = False
                    break
            if same:
                return I64(i)
        at = (at + U64(1)) & mask
    return -1


@numba.njit(cache=True, nogil=True)
def _look_up(
    data: np.ndarray, begin_of: np.ndarray, end_of: np.ndarray, low_of: np.ndarray, high_of: np.ndarray,
    missed_of: np.ndarray, missed: int, slots: np.ndarray, hashes: np.ndarray, bounds: np.ndarray, letters: np.ndarray,
    short: np.ndarray, hash_of: np.ndarray, word_of: np.ndarray,
) -> None:  # fmt: skip
    """Hash and number (-1 for none) of the words missed_of[:missed], to hash_of and word_of.

    The first loop asks the memory for all of them at once, which the second finds at hand.
    """
    mask, spare = U64(len(short) - 1), _spare(len(short))
    for m in range(missed):
        j = missed_of[m]
        at = _mix(low_of[j], high_of[j]) >> spare
        word_of[m] = at
        hash_of[m] = short[at, 0] ^ low_of[j]
    for m in range(missed):
        j = missed_of[m]
        low, high, at = low_of[j], high_of[j], U64(word_of[m])
        if end_of[j] - begin_of[j] > U64(16):
            hash_of[m] = fnv(data, begin_of[j], end_of[j])
            word_of[m] = _find(slots, hashes, bounds, letters, hash_of[m], data, begin_of[j], end_of[j])
            continue
        if hash_of[m] != U64(0) or short[at, 1] != high:
            while short[at, 0] != U64(0) and (short[at, 0] != low or short[at, 1] != high):
                at = (at + U64(1)) & mask
        if short[at, 0] != U64(0):
            hash_of[m] = short[at, 2] & U64(0xFFFFFFFF)
            word_of[m] = I64(short[at, 2] >> U64(32))
        else:
            hash_of[m] = _EOS_HASH if low == _EOS_UNIT and high == U64(0) else fnv(data, begin_of[j], end_of[j])
            word_of[m] = -1


@numba.njit(cache=True, nogil=True)
def _is_label(data: np.ndarray, begin: int, end: int) -> bool:
    if end - begin < U64(len(_LABEL)):
        return False
    for k in range(len(_LABEL)):  # noqa: SIM110 - not in a kernel
        if data[begin + U64(k)] != _LABEL[k]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _find_rows(kept: np.ndarray, rank: np.ndarray, words: int, found: np.ndarray, owner: np.ndarray, n: int) -> int:
    """Turn the buckets found[:n] into rows; pruned ones go, with what stands beside them in `owner`. Returns how many stay."""
    if len(kept) == 0:
        for i in range(n):
            found[i] += U64(words)
        return n
    m = 0
    for i in range(n):  # without a branch, which nobody could predict
        bucket = found[i]
        bits = kept[bucket >> U64(6)]
        found[m], owner[m] = bucket, owner[i]
        m += I64(bits >> (bucket & U64(63)) & U64(1))
    for i in range(m):
        bucket = found[i]
        below = kept[bucket >> U64(6)] & ((U64(1) << (bucket & U64(63))) - U64(1))
        below -= below >> U64(1) & U64(0x5555555555555555)  # its bits are counted: of pairs, fours, bytes, all
        below = (below & U64(0x3333333333333333)) + (below >> U64(2) & U64(0x3333333333333333))
        below = (below + (below >> U64(4))) & U64(0x0F0F0F0F0F0F0F0F)
        found[i] = U64(words) + U64(rank[bucket >> U64(6)]) + (below * U64(0x0101010101010101) >> U64(56))
    return m


@numba.njit(cache=True, nogil=True)
def _add_runs_of_characters(
    rows: np.ndarray, kept: np.ndarray, rank: np.ndarray, words: int, found: np.ndarray, owner: np.ndarray, n: int,
    units: np.ndarray, numbers: np.ndarray,
) -> None:  # fmt: skip
    """Add the rows of the buckets found[:n] to the records that own them."""
    width = rows.shape[1]
    for i in range(_find_rows(kept, rank, words, found, owner, n)):
        row, record = found[i], owner[i]
        units[record, 2] += U64(1 << 32)
        for k in range(width):
            numbers[record, 6 + k] += rows[row, k]


@numba.njit(cache=True, nogil=True)
def _reduce(found: np.ndarray, n: int, modulus: int, inverse: float) -> None:
    """found[:n] %= modulus. Numbers are taken as signed ones, since processors divide those: what that leaves out of the large
    ones is put back. The quotient of floating-point numbers is wrong by one at most where it is below 2^52."""
    if modulus < U64(4096):
        for i in range(n):
            found[i] %= modulus
        return
    m = I64(modulus)
    wrapped = I64((U64(0) - modulus) % modulus)  # 2^64 % modulus
    for i in range(n):
        g = I64(found[i])
        rest = g - I64(np.float64(g) * inverse) * m
        rest += wrapped & (g >> 63)
        rest += m & (rest >> 63)
        rest += m & (rest >> 63)
        rest -= m & ((m - 1 - rest) >> 63)
        rest -= m & ((m - 1 - rest) >> 63)
        found[i] = U64(rest)


@numba.njit(cache=True, nogil=True)
def _add_runs_of_words(
    rows: np.ndarray, kept: np.ndarray, rank: np.ndarray, words: int, found: np.ndarray, owner: np.ndarray, n: int,
    total: np.ndarray,
) -> int:  # fmt: skip
    """Add the rows of the buckets found[:n] to `total`; returns how many there are."""
    n = _find_rows(kept, rank, words, found, owner, n)
    if len(total) == 1:
        only = 0.0
        for i in range(n):
            only += rows[found[i], 0]
        total[0] += only
    else:
        for i in range(n):
            row = found[i]
            for k in range(len(total)):
                total[k] += rows[row, k]
    return n


@numba.njit(cache=True, nogil=True)
def _hash_runs(
    data: np.ndarray, begin: int, end: int, first: int, minn: int, maxn: int, bucket: int, reciprocal: int, shift: int,
    found: np.ndarray, owner: np.ndarray, record: int, n: int,
) -> int:  # fmt: skip
    """Append to found[:n] the buckets of the runs of characters of the word data[begin:end] that begin at `first`, or at the <
    before the word if that is begin - 1, and to owner[:n] the record; returns how many there are then."""
    g, at, size = U64(2166136261), first, 0
    if first + U64(1) == begin:
        g, at, size = _step(g, U64(60)), begin, 1
        while at < end and data[at] & 0xC0 == 0x80:  # not in UTF-8, but fastText would
            g = _step(g, U64(data[at]))
            at += U64(1)
    while size < maxn and at <= end:
        if at == end:
            g = _step(g, U64(62))
            at += U64(1)
        else:
            g = _step(g, U64(data[at]))
            at += U64(1)
            while at < end and data[at] & 0xC0 == 0x80:
                g = _step(g, U64(data[at]))
                at += U64(1)
        size += 1
        if size >= minn and (size > 1 or at <= end):
            rest = g - (g * reciprocal >> shift) * bucket
            found[n] = rest - bucket if rest >= bucket else rest
            owner[n] = record
            n += 1
    return n


@numba.njit(cache=True, nogil=True)
def _next_words(
    data: np.ndarray, at: int, end: int, low_of: np.ndarray, high_of: np.ndarray, begin_of: np.ndarray, end_of: np.ndarray
) -> tuple[int, int]:
    """The next words of data[at:end], as many as there is room for: bytes (of 16), begin and end of each. The end of a text is
    the word </s>, after which there is none. Returns how many, and where to go on."""
    ahead = 0
    while ahead < _AHEAD:
        while at < end and data[at] <= 32 and _SPACE >> U64(data[at]) & U64(1):
            at += U64(1)
        begin = at
        low, high, place = U64(0), U64(0), U64(0)
        if at + U64(16) <= end:
            low, size = _before_space(_load(data, at))
            at += size
            if size == U64(8):
                high, size = _before_space(_load(data, at))
                at += size
            place = (at - begin) << U64(3)
        while at < end:
            byte = U64(data[at])
            if byte <= U64(32) and _SPACE >> byte & U64(1):
                break
            if place < U64(64):
                low |= byte << place
            elif place < U64(128):
                high |= byte << (place - U64(64))
            place += U64(8)
            at += U64(1)
        if at == begin:
            low = _EOS_UNIT
        low_of[ahead], high_of[ahead], begin_of[ahead], end_of[ahead] = low, high, begin, at
        ahead += 1
        if low == _EOS_UNIT and high == U64(0):
            break
    return ahead, at


@numba.njit(cache=True, nogil=True)
def _add_all_runs(
    line: np.ndarray, seen: int, ngrams: int, modulus: int, inverse: float, rows: np.ndarray, kept: np.ndarray,
    rank: np.ndarray, words: int, found: np.ndarray, owner: np.ndarray, total: np.ndarray,
) -> int:  # fmt: skip
    """Add the rows of all runs of the words with the hashes line[:seen] to `total`; returns how many there are."""
    count, waiting = 0, 0
    if ngrams == 2:
        for begin in range(0, seen - 1, len(found)):
            n = min(seen - 1 - begin, len(found))
            for i in range(n):
                found[i] = line[begin + i] * U64(116049371) + line[begin + i + 1]
            _reduce(found, n, modulus, inverse)
            count += _add_runs_of_words(rows, kept, rank, words, found, owner, n, total)
        return count
    for first in range(seen):
        if waiting + ngrams > len(found):
            _reduce(found, waiting, modulus, inverse)
            count += _add_runs_of_words(rows, kept, rank, words, found, owner, waiting, total)
            waiting = 0
        g = line[first]
        for last in range(first + 1, min(seen, first + ngrams)):
            g = g * U64(116049371) + line[last]
            found[waiting] = g
            waiting += 1
    _reduce(found, waiting, modulus, inverse)
    return count + _add_runs_of_words(rows, kept, rank, words, found, owner, waiting, total)


@numba.njit(cache=True, nogil=True)
def average_words(
    starts: np.ndarray, ends: np.ndarray, data: np.ndarray, rows: np.ndarray, slots: np.ndarray, hashes: np.ndarray,
    bounds: np.ndarray, letters: np.ndarray, short: np.ndarray, kept: np.ndarray, rank: np.ndarray, words: int, bucket: int,
    minn: int, maxn: int, ngrams: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """`average` for models without runs of characters: one look at `short` finds a word, its hash and a row of one number."""
    n = len(starts)
    width = rows.shape[1]
    means = np.zeros((n, width), np.float32)
    counts = np.zeros(n, np.int64)
    longest = 0
    for i in range(n):
        longest = max(longest, ends[i] - starts[i])
    line = np.empty(longest // 2 + 3 if ngrams > 1 else 0, np.uint64)  # one more, since labels are written and taken back
    found = np.empty(max(4096, 2 * ngrams), np.uint64)
    owner = np.empty(len(found), np.uint64)
    modulus = U64(bucket)
    inverse = 1.0 / np.float64(max(modulus, U64(1)))
    spare = _spare(len(short))
    row_of = short.view(np.float32)
    low_of, high_of = np.empty(_AHEAD, np.uint64), np.empty(_AHEAD, np.uint64)
    begin_of, end_of = np.empty(_AHEAD, np.uint64), np.empty(_AHEAD, np.uint64)
    info_of, only_of = np.empty(_AHEAD, np.uint64), np.empty(_AHEAD, np.float32)
    missed_of = np.empty(_AHEAD + 1, np.int64)
    part = np.zeros(width, np.float32)
    total = np.zeros(width, np.float64)
    for i in range(n):
        total[:] = 0
        count, seen = 0, 0
        at, end = U64(starts[i]), U64(ends[i])
        over = False
        while not over:
            ahead, at = _next_words(data, at, end, low_of, high_of, begin_of, end_of)
            over = low_of[ahead - 1] == _EOS_UNIT and high_of[ahead - 1] == U64(0)
            missed = 0
            for j in range(ahead):  # without a branch, so that the memory is asked for many words at once
                low, high = low_of[j], high_of[j]
                place = _mix(low, high) >> spare
                info_of[j], only_of[j] = short[place, 2], row_of[place, 6]
                unlike = (short[place, 0] ^ low) | (short[place, 1] ^ high) | ((end_of[j] - begin_of[j]) >> U64(4))
                missed_of[missed] = j
                missed += I64(unlike != U64(0))
            _look_again(
                data, begin_of, end_of, low_of, high_of, missed_of, missed, rows, slots, hashes, bounds, letters, short, words,
                info_of, only_of,
            )  # fmt: skip
            if width == 1:  # without a branch: what is no word of the model adds nothing
                only = np.float32(0)
                for j in range(ahead):
                    info = info_of[j]
                    word, h = info >> U64(32), info & U64(0xFFFFFFFF)
                    only += only_of[j]
                    count += I64(word < U64(words))
                    if ngrams > 1:
                        line[seen] = h | (h >> U64(31)) * U64(0xFFFFFFFF00000000)
                        seen += I64((word < U64(words)) | (word == _UNKNOWN))
                total[0] += only
                continue
            part[:] = 0
            for j in range(ahead):
                info = info_of[j]
                word, h = info >> U64(32), info & U64(0xFFFFFFFF)
                if word < U64(words):
                    count += 1
                    for k in range(width):
                        part[k] += rows[word, k]
                if ngrams > 1 and (word < U64(words) or word == _UNKNOWN):
                    line[seen] = h | (h >> U64(31)) * U64(0xFFFFFFFF00000000)
                    seen += 1
            for k in range(width):
                total[k] += part[k]
        if ngrams > 1:
            count += _add_all_runs(line, seen, ngrams, modulus, inverse, rows, kept, rank, words, found, owner, total)
        counts[i] = count
        if count:
            for k in range(width):
                means[i, k] = total[k] / count
    return means, counts


@numba.njit(cache=True, nogil=True)
def _look_again(
    data: np.ndarray, begin_of: np.ndarray, end_of: np.ndarray, low_of: np.ndarray, high_of: np.ndarray,
    missed_of: np.ndarray, missed: int, rows: np.ndarray, slots: np.ndarray, hashes: np.ndarray, bounds: np.ndarray,
    letters: np.ndarray, short: np.ndarray, words: int, info_of: np.ndarray, only_of: np.ndarray,
) -> None:  # fmt: skip
    """Number (high half) and hash of the words missed_of[:missed], which are not at their first place, and the first number
    of their rows.

    _UNKNOWN for one that the model does not know, _UNKNOWN - 1 for one that has the form of a label.
    """
    mask, spare = U64(len(short) - 1), _spare(len(short))
    row_of = short.view(np.float32)
    for m in range(missed):
        j = missed_of[m]
        begin, end, low, high = begin_of[j], end_of[j], low_of[j], high_of[j]
        h = U64(0)
        if end - begin > U64(16):
            h = fnv(data, begin, end)
            long = _find(slots, hashes, bounds, letters, h, data, begin, end)
            if long >= 0:
                info_of[j], only_of[j] = U64(long) << U64(32) | h, rows[long, 0] if long < words else np.float32(0)
                continue
        else:
            at = _mix(low, high) >> spare
            while short[at, 0] != U64(0) and (short[at, 0] != low or short[at, 1] != high):
                at = (at + U64(1)) & mask
            if short[at, 0] != U64(0):
                info_of[j], only_of[j] = short[at, 2], row_of[at, 6]
                continue
            h = _EOS_HASH
            if low != _EOS_UNIT or high != U64(0):
                h = U64(2166136261)
                for k in range(begin, end):
                    h = _step(h, U64(data[k]))
        is_label = low == _LABEL_UNIT and _is_label(data, begin, end)
        info_of[j], only_of[j] = (_UNKNOWN - U64(is_label)) << U64(32) | h, np.float32(0)


@numba.njit(cache=True, nogil=True)
def average(
    starts: np.ndarray, ends: np.ndarray, data: np.ndarray, rows: np.ndarray, slots: np.ndarray, hashes: np.ndarray,
    bounds: np.ndarray, letters: np.ndarray, short: np.ndarray, kept: np.ndarray, rank: np.ndarray, words: int, bucket: int,
    minn: int, maxn: int, ngrams: int, units: np.ndarray, numbers: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mean row of the features of each text data[starts[i]:ends[i]], float32 (texts, width), and how many (int64).

    The rest are the fields of Features and Memo. A text is read as fastText reads a line: words end at ASCII whitespace and
    NUL, and the end of the text is a word, </s>. A newline is whitespace like the rest. Zeros where the model knows nothing of
    a text.

    Some words at a time go through a chain of loops, each of which does one thing that waits for memory, so that the waits of
    different words overlap.
    """
    n = len(starts)
    width = rows.shape[1]
    means = np.zeros((n, width), np.float32)
    counts = np.zeros(n, np.int64)
    longest = 0
    for i in range(n):
        longest = max(longest, ends[i] - starts[i])
    line = np.empty(longest // 2 + 2 if ngrams > 1 else 0, np.uint64)
    found = np.empty(max(4096, 2 * maxn, 2 * ngrams), np.uint64)
    owner = np.empty(len(found), np.uint64)
    # the remainder of a hash below 2^32 by multiplication; the quotient is right or too small by one
    modulus, shift = U64(bucket), U64(32)
    while modulus >> (shift - U64(31)):
        shift += U64(1)
    reciprocal = (U64(1) << shift) // max(modulus, U64(1))
    beyond = U64(len(units) - _AHEAD)  # after the memory come the records of the words at hand
    spare = _spare(len(units) - _AHEAD)
    low_of, high_of = np.empty(_AHEAD, np.uint64), np.empty(_AHEAD, np.uint64)
    begin_of, end_of = np.empty(_AHEAD, np.uint64), np.empty(_AHEAD, np.uint64)
    record_of = np.empty(_AHEAD, np.uint64)
    missed_of = np.empty(_AHEAD + 1, np.int64)
    hash_of, word_of = np.empty(_AHEAD, np.uint64), np.empty(_AHEAD, np.int64)
    inverse = 1.0 / np.float64(max(modulus, U64(1)))
    part = np.zeros(width, np.float32)
    total = np.zeros(width, np.float64)
    for i in range(n):
        total[:] = 0
        count, seen = 0, 0
        at, end = U64(starts[i]), U64(ends[i])
        over = False
        while not over:
            ahead, at = _next_words(data, at, end, low_of, high_of, begin_of, end_of)
            over = low_of[ahead - 1] == _EOS_UNIT and high_of[ahead - 1] == U64(0)
            missed = 0
            for j in range(ahead):  # without a branch, so that the memory is asked for many words at once
                low, high = low_of[j], high_of[j]
                record = _mix(low, high) >> spare
                record_of[j] = record
                unlike = (units[record, 0] ^ low) | (units[record, 1] ^ high) | ((end_of[j] - begin_of[j]) >> U64(4))
                missed_of[missed] = j
                missed += I64(unlike != U64(0))
            _look_up(
                data, begin_of, end_of, low_of, high_of, missed_of, missed, slots, hashes, bounds, letters, short, hash_of,
                word_of,
            )  # fmt: skip
            waiting = 0
            for i_missed in range(missed):
                j = missed_of[i_missed]
                record = beyond + U64(j)
                record_of[j] = record
                units[record, 0], units[record, 1] = low_of[j], high_of[j]
                for k in range(6, numbers.shape[1]):
                    numbers[record, k] = 0
                first, last = begin_of[j], end_of[j]
                is_eos = low_of[j] == _EOS_UNIT and high_of[j] == U64(0)
                h, word = hash_of[i_missed], word_of[i_missed]
                if word >= words or (word < 0 and _is_label(data, first, last)):
                    units[record, 2] = U64(0xFFFFFFFF00000000) | h
                else:
                    units[record, 2] = h
                    if word >= 0:
                        units[record, 2] |= U64(1 << 32)
                        for k in range(width):
                            numbers[record, 6 + k] = rows[U64(word), k]
                    if maxn > 0 and not is_eos:
                        at_hand, first = first, first - U64(1)
                        while first + U64(1) <= last + U64(1):
                            if first + U64(1) == at_hand or first == last or data[first] & 0xC0 != 0x80:
                                if waiting + maxn > len(found):
                                    _add_runs_of_characters(rows, kept, rank, words, found, owner, waiting, units, numbers)
                                    waiting = 0
                                waiting = _hash_runs(
                                    data, at_hand, last, first, minn, maxn, modulus, reciprocal, shift, found, owner,
                                    record, waiting,
                                )  # fmt: skip
                            first += U64(1)
            _add_runs_of_characters(rows, kept, rank, words, found, owner, waiting, units, numbers)
            part[:] = 0
            for j in range(ahead):
                record = record_of[j]
                info = units[record, 2]
                added = I64(info) >> 32
                if added >= 0:
                    count += added
                    for k in range(width):
                        part[k] += numbers[record, 6 + k]
                    if ngrams > 1:
                        h = info & U64(0xFFFFFFFF)
                        line[seen] = h | (h >> U64(31)) * U64(0xFFFFFFFF00000000)
                        seen += 1
            for k in range(width):
                total[k] += part[k]
            for i_missed in range(missed):
                j = missed_of[i_missed]
                if end_of[j] - begin_of[j] <= U64(16):
                    slot = _mix(low_of[j], high_of[j]) >> spare
                    for k in range(units.shape[1]):
                        units[slot, k] = units[record_of[j], k]
        if ngrams > 1:
            count += _add_all_runs(line, seen, ngrams, modulus, inverse, rows, kept, rank, words, found, owner, total)
        counts[i] = count
        if count:
            for k in range(width):
                means[i, k] = total[k] / count
    return means, counts


SOFTMAX, TREE, EACH = 0, 1, 2  # one of the labels; one, by decisions down a tree; any number of labels


class Output(NamedTuple):
    """What turns a mean row into labels.

    kind: SOFTMAX, TREE (hierarchical softmax) or EACH (one-vs-all). weights: float32 (width, outputs), or of no rows where the
    mean row holds the outputs already. left, right: int32 by node of the tree, labels first and the root last; -1 at labels.
    sigmoid: float64, the table by which fastText looks up one-vs-all probabilities. labels: their number. added: to each
    probability before its logarithm is taken.
    """

    kind: int
    weights: np.ndarray
    left: np.ndarray
    right: np.ndarray
    sigmoid: np.ndarray
    labels: int
    added: float


@numba.njit(cache=True, nogil=True)
def _outputs(mean: np.ndarray, o: Output, z: np.ndarray) -> None:
    """Write the raw outputs of a text to z; the last label of a softmax that was folded into the rows has 0."""
    if len(o.weights) == 0:
        for k in range(len(mean)):
            z[k] = mean[k]
        for k in range(len(mean), len(z)):
            z[k] = 0
        return
    z[:] = 0
    n = o.weights.shape[1]
    for k in range(len(mean)):  # this order of the loops is one that vectorises without changing the sums
        m = mean[k]
        for j in range(n):
            z[j] += m * o.weights[k, j]


@numba.njit(cache=True, nogil=True)
def _flat(z: np.ndarray, o: Output, p: np.ndarray) -> None:
    """Write the probabilities of a softmax or of each label to p, out of raw outputs."""
    if o.kind == SOFTMAX:
        top = np.float64(z[0])
        for j in range(1, o.labels):
            top = max(top, np.float64(z[j]))
        total = 0.0
        for j in range(o.labels):
            p[j] = np.exp(z[j] - top)
            total += p[j]
        for j in range(o.labels):
            p[j] = p[j] / total + o.added
    else:
        cells = len(o.sigmoid) - 1
        for j in range(o.labels):
            x = z[j]
            if x > 8:
                p[j] = 1 + o.added
            elif x >= -8:
                p[j] = o.sigmoid[I64((x + np.float32(8)) * np.float32(cells / 16))] + o.added
            else:
                p[j] = o.added


@numba.njit(cache=True, nogil=True)
def all_scores(means: np.ndarray, counts: np.ndarray, o: Output) -> np.ndarray:
    """Probability of every label for each text, float32 (texts, labels); zeros for a text without features."""
    n = len(means)
    found = np.zeros((n, o.labels), np.float32)
    z = np.zeros(max(o.labels, 1), np.float32)
    p = np.zeros(max(len(o.left), o.labels), np.float64)
    for i in range(n):
        if not counts[i]:
            continue
        _outputs(means[i], o, z)
        if o.kind == TREE:
            root = len(o.left) - 1
            p[root] = 0.0
            for node in range(root, o.labels - 1, -1):
                right = 1 / (1 + np.exp(-np.float64(z[node - o.labels])))
                p[o.left[node]] = p[node] + np.log(1 - right + o.added)
                p[o.right[node]] = p[node] + np.log(right + o.added)
            for j in range(o.labels):
                found[i, j] = np.exp(p[j])
        else:
            _flat(z, o, p)
            for j in range(o.labels):
                found[i, j] = p[j]
    return found


@numba.njit(cache=True, nogil=True)
def best_scores(means: np.ndarray, counts: np.ndarray, o: Output) -> tuple[np.ndarray, np.ndarray]:
    """The most probable label of each text (int32; -1 for a text without features) and its probability (float32).

    Down a tree only the branches that can still win are taken, which for 176 labels are a dozen of decisions.
    """
    n = len(means)
    label = np.full(n, -1, np.int32)
    score = np.zeros(n, np.float32)
    z = np.zeros(max(o.labels, 1), np.float32)
    p = np.zeros(o.labels, np.float64)
    node_of = np.zeros(o.labels + 1, np.int32)
    log_of = np.zeros(o.labels + 1, np.float64)
    width = means.shape[1]
    folded = len(o.weights) == 0
    for i in range(n):
        if not counts[i]:
            continue
        if o.kind != TREE:
            _outputs(means[i], o, z)
            _flat(z, o, p)
            best = 0
            for j in range(1, o.labels):
                if p[j] > p[best]:
                    best = j
            label[i], score[i] = best, p[best]
            continue
        best, best_log = -1, -np.inf
        node_of[0], log_of[0], waiting = len(o.left) - 1, 0.0, 1
        while waiting:
            waiting -= 1
            node, so_far = node_of[waiting], log_of[waiting]
            if so_far <= best_log:
                continue
            if node < o.labels:
                best, best_log = node, so_far
                continue
            at = node - o.labels
            x = np.float32(0)
            if folded:
                x = means[i, at]
            else:
                for k in range(width):
                    x += means[i, k] * o.weights[k, at]
            right = 1 / (1 + np.exp(-np.float64(x)))
            left_log, right_log = so_far + np.log(1 - right + o.added), so_far + np.log(right + o.added)
            first, second = o.left[node], o.right[node]
            if left_log > right_log:  # the likelier one goes on top
                first, second, left_log, right_log = second, first, right_log, left_log
            node_of[waiting], log_of[waiting] = first, left_log
            node_of[waiting + 1], log_of[waiting + 1] = second, right_log
            waiting += 2
        label[i], score[i] = best, np.exp(best_log)
    return label, score


@numba.njit(cache=True, nogil=True)
def decode_rows(
    codes: np.ndarray, norms: np.ndarray, centroids: np.ndarray, begins: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Rows of a product-quantised matrix, float32 (rows, width).

    codes: uint8 (rows, parts); norms: float32 by row; centroids: float32, those of part m, 256 of them with sizes[m] numbers
    each, from begins[m] on.
    """
    found = np.empty((len(codes), sizes.sum()), np.float32)
    for i in range(len(codes)):
        at = 0
        for m in range(codes.shape[1]):
            first = begins[m] + I64(codes[i, m]) * sizes[m]
            for k in range(sizes[m]):
                found[i, at] = norms[i] * centroids[first + k]
                at += 1
    return found
