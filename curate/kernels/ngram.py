"""Units of texts, counts of runs of them, and the probabilities of a back-off n-gram model, over UTF-8 without decoding.

A text falls into pieces that are all of it: a word with the space before it, up to four digits, a run of one other character,
white space. A piece of the vocabulary is one token; any other is spelled, from the left, with the longest of the vocabulary
that is there, and where nothing is, with a token for a byte.

N-grams are the nodes of a trie that stands in one table for all orders: a node is (its parent, its last token), the parent
being the node of all its tokens but the last. Nodes are numbered as they are met, those of single tokens first, so a node comes
after its parent, and after the node of all its tokens but the first, which it falls back to.
"""

from __future__ import annotations

import numba
import numpy as np

from curate.kernels.chars import DIGIT, MARK, SPACE, UNSPACED, WORD, bits_of, decode, inline_kernel, kernel, tables
from curate.kernels.hashes import finish

BYTES = 256
LONGEST = 64  # bytes of a piece in the vocabulary
FRAGMENT = 8  # bytes of a part of unknown pieces
REACH = 16  # bytes of what unknown pieces are spelled with
RUN = 16  # bytes of white space, or of one character again and again, in one piece
DIGITS = 4
MOST_TOKENS = 1 << 21  # in a vocabulary
COLUMNS = 6
_AHEAD = 256  # places that are asked for at once
PARENT, LAST, RAW, USED, LOST, SUFFIX = range(COLUMNS)  # of a node
_SHIFT, _HALF, _SIZE = np.uint64(21), np.uint64(32), np.uint64(8)
_FNV, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


# --------------------------------------------------------------------------------------------- pieces


@kernel
def _piece(data, at, end, bits):
    """Where the piece that begins at `at` ends."""
    cp, width = decode(data, at, end)
    b = bits_of(bits, cp)
    stop = at + width
    if b & SPACE:
        if stop >= end:
            return stop
        following, more = decode(data, stop, end)
        kind = bits_of(bits, following)
        if cp != 0x20 or kind & SPACE:
            last = at
            while stop < end and stop - at < RUN and kind & SPACE:
                last = stop
                stop += more
                if stop < end:
                    following, more = decode(data, stop, end)
                    kind = bits_of(bits, following)
            if stop < end and kind & SPACE == 0 and last > at and data[last] == 0x20:
                return last  # that space goes with what follows
            return stop
        at, cp, b = stop, following, kind
        stop += more
    alone = b & UNSPACED != 0 and b & MARK == 0
    if b & DIGIT:
        while stop < end and stop - at < DIGITS and 48 <= data[stop] <= 57:
            stop += 1
    elif b & WORD or alone:
        while stop < end:
            following, more = decode(data, stop, end)
            kind = bits_of(bits, following)
            if kind & MARK == 0 and (alone or kind & WORD == 0 or kind & (DIGIT | UNSPACED) != 0):
                break
            stop += more
    else:
        while stop < end and stop - at < RUN:
            following, more = decode(data, stop, end)
            if following != cp:
                break
            stop += more
    return stop


@inline_kernel
def _hash(data, at, stop):
    """Never 0, which stands for a free slot."""
    h = _FNV
    for k in range(at, stop):
        h = (h ^ np.uint64(data[k])) * _PRIME
    return max(finish(h), np.uint64(1))


@numba.njit(cache=True, nogil=True)
def _grown(found):
    more = np.zeros((2 * len(found), 3), np.uint64)
    last = np.uint64(len(more) - 1)
    for j in range(len(found)):
        if found[j, 0]:
            slot = found[j, 0] & last
            while more[slot, 0]:
                slot = (slot + np.uint64(1)) & last
            more[slot] = found[j]
    return more


@inline_kernel
def _met(found, h, place, size):
    """1 for what was not there before."""
    last = np.uint64(len(found) - 1)
    slot = h & last
    while found[slot, 0] and found[slot, 0] != h:
        slot = (slot + np.uint64(1)) & last
    found[slot, 1] += np.uint64(1)
    if found[slot, 0]:
        return 0
    found[slot, 0], found[slot, 2] = h, np.uint64(place) << _SIZE | np.uint64(size)
    return 1


@numba.njit(cache=True, nogil=True)
def _count_pieces(starts, ends, data, bits, found, used, base):
    for i in range(len(starts)):
        at = starts[i]
        while at < ends[i]:
            stop = _piece(data, at, ends[i], bits)
            if stop - at <= LONGEST:
                if 2 * used >= len(found):
                    found = _grown(found)
                used += _met(found, _hash(data, at, stop), base + at, stop - at)
            at = stop
    return found, used


@numba.njit(cache=True, nogil=True)
def _count_fragments(letters, bounds, found, used):
    for i in range(len(bounds) - 1):
        for at in range(bounds[i], bounds[i + 1]):
            if letters[at] & 0xC0 == 0x80:
                continue
            h = _FNV
            for stop in range(at + 1, min(at + FRAGMENT, bounds[i + 1]) + 1):
                h = (h ^ np.uint64(letters[stop - 1])) * _PRIME
                if stop == at + 1 or (stop < bounds[i + 1] and letters[stop] & 0xC0 == 0x80):
                    continue
                if 2 * used >= len(found):
                    found = _grown(found)
                used += _met(found, max(finish(h), np.uint64(1)), at, stop - at)
    return found, used


@inline_kernel
def _number(hashes, numbers, h):
    """The token with this hash, -1 for none."""
    last = np.uint64(len(hashes) - 1)
    slot = h & last
    while hashes[slot] and hashes[slot] != h:
        slot = (slot + np.uint64(1)) & last
    return numbers[slot] if hashes[slot] else np.int32(-1)


@kernel
def _encode(starts, ends, data, bits, hashes, numbers, window, ids, bounds, cuts, cut_bounds):
    n, c = np.int64(0), np.int64(0)
    for i in range(len(starts)):
        at, end, left, stop = starts[i], ends[i], window, starts[i]
        while at < end:
            if at == stop:  # the next piece
                stop = _piece(data, at, end, bits)
                token = np.int32(-1)
                if stop - at <= LONGEST:
                    token = _number(hashes, numbers, _hash(data, at, stop))
                known = token >= 0
            if known:
                at = stop
            else:
                token, to, h = np.int32(data[at]), at + 1, (_FNV ^ np.uint64(data[at])) * _PRIME
                for k in range(at + 1, min(at + REACH, stop)):
                    h = (h ^ np.uint64(data[k])) * _PRIME
                    longer = _number(hashes, numbers, max(finish(h), np.uint64(1)))
                    if longer >= 0:
                        token, to = longer, k + 1
                at = to
            ids[n] = token
            n += 1
            left -= 1
            if left == 0:
                edge = at
                while edge < end and data[edge] & 0xC0 == 0x80:
                    edge += 1
                cuts[c] = edge - starts[i]
                c += 1
                left = window
        if left < window:
            cuts[c] = end - starts[i]
            c += 1
        bounds[i + 1], cut_bounds[i + 1] = n, c
    return n, c


Pieces = tuple[np.ndarray, int]


def no_pieces() -> Pieces:
    """What `count_pieces` begins with."""
    return np.zeros((1 << 12, 3), np.uint64), 0


def count_pieces(starts: np.ndarray, ends: np.ndarray, data: np.ndarray, pieces: Pieces, base: int) -> Pieces:
    """Add the pieces of texts, of at most LONGEST bytes each, to those that were found.

    starts, ends: int64 places of the texts in `data` (uint8, UTF-8). pieces: uint64 (slots, 3), of each piece its hash (0: a
    free slot), its count, and where in `data`, plus `base`, it was first seen, times 256, plus its bytes; and how many.
    """
    found, used = _count_pieces(starts, ends, data, tables()[0], *pieces, base)
    return found, int(used)


def count_fragments(letters: np.ndarray, bounds: np.ndarray) -> Pieces:
    """The same of the runs of characters, of 2 to FRAGMENT bytes, of words letters[bounds[i]:bounds[i + 1]]."""
    found, used = _count_fragments(letters, bounds, *no_pieces())
    return found, int(used)


def index_words(letters: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 hashes, 0 where a slot is free; int32 numbers): open addressing over the words letters[bounds[i]:bounds[i + 1]],
    which are numbered from BYTES on."""
    slots = 1 << max(4 * len(bounds), 16).bit_length()
    hashes, numbers = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
    _index(letters, bounds, hashes, numbers)
    return hashes, numbers


@kernel
def _index(letters, bounds, hashes, numbers):
    last = np.uint64(len(hashes) - 1)
    for i in range(len(bounds) - 1):
        h = _hash(letters, bounds[i], bounds[i + 1])
        slot = h & last
        while hashes[slot]:
            slot = (slot + np.uint64(1)) & last
        hashes[slot], numbers[slot] = h, BYTES + i


def encode(
    starts: np.ndarray, ends: np.ndarray, data: np.ndarray, hashes: np.ndarray, numbers: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(int32 tokens, int64 bounds of each text's, int64 ends of windows, int64 bounds of each text's).

    hashes, numbers: of `index_words`. A window is a run of `window` tokens of one text, the last may be shorter. Its end is a
    byte of the text: of a character that is spelled over two windows, the end of the character.
    """
    size = int((ends - starts).sum())
    ids, bounds = np.empty(size, np.int32), np.zeros(len(starts) + 1, np.int64)
    cuts, cut_bounds = np.empty(size // window + len(starts), np.int64), np.zeros(len(starts) + 1, np.int64)
    n, c = _encode(starts, ends, data, tables()[0], hashes, numbers, window, ids, bounds, cuts, cut_bounds)
    return ids[:n], bounds, cuts[:c], cut_bounds


# --------------------------------------------------------------------------------------------- counts


@inline_kernel
def _key(parent, token):
    return np.uint64(parent) << _SHIFT | np.uint64(token)


@kernel
def _count(ids, runs, first, order, nodes, base, taken, slots, places):
    """Count runs from the `first` on; returns (the first run for which there may be no room, nodes that are taken, nothing)."""
    last = np.uint64(len(slots) - 1)
    touched = np.int64(0)
    for run in range(first, len(runs) - 1):
        begin, size = runs[run], runs[run + 1] - runs[run]
        if taken + size * (order - 1) > len(nodes):
            return run, taken, touched
        places[0] = base - 1  # the node before all tokens of a run
        for i in range(size):
            token = ids[begin + i]
            places[i + 1] = token
            nodes[token, RAW] += np.uint32(1)
            if order == 1:
                nodes[token, USED] += np.uint32(1)
        for k in range(1, order):
            # what is far away is asked for all at once, in two steps, before it is needed
            for i in range(k, size + 1):
                touched += slots[finish(_key(places[i - 1], ids[begin + i - 1])) & last]
            for i in range(k, size + 1):
                touched += nodes[slots[finish(_key(places[i - 1], ids[begin + i - 1])) & last], LAST]
            for i in range(size, k - 1, -1):  # from the right, as places[i] is one longer afterwards
                before, token, suffix = places[i - 1], ids[begin + i - 1], places[i]
                slot = finish(_key(before, token)) & last
                while slots[slot] and (nodes[slots[slot], PARENT] != before or nodes[slots[slot], LAST] != token):
                    slot = (slot + np.uint64(1)) & last
                node = np.int64(slots[slot])
                if node == 0:
                    node = np.int64(taken)
                    taken += 1
                    slots[slot] = node
                    nodes[node, PARENT], nodes[node, LAST], nodes[node, SUFFIX] = before, token, suffix
                    nodes[suffix, USED] += np.uint32(1)  # another token before it
                nodes[node, RAW] += np.uint32(1)
                if k + 1 == order or i == k:
                    nodes[node, USED] += np.uint32(1)
                places[i] = node
    return np.int64(len(runs) - 1), taken, touched


def count(
    ids: np.ndarray, runs: np.ndarray, first: int, order: int, nodes: np.ndarray, base: int, taken: int, slots: np.ndarray
) -> tuple[int, int]:
    """Add the n-grams of 1 to `order` tokens of the runs ids[runs[i]:runs[i + 1]], each read by itself, to the trie.

    nodes: uint32 (room, COLUMNS), by number: parent, last token, how often it was seen, the count that probabilities are made
    of, those of children that were forgotten, and the node of all but its first token. The first `base` are the tokens, and
    the last of these stands before a run. slots: uint32, open addressing over the others, 0 for none. The count that
    probabilities are made of is the number of different tokens before it (Kneser-Ney), but how often it was seen where the
    n-gram is of the highest order or begins a run. Returns (run, taken): the first run that was not counted, for which there
    may be no room (the number of runs where all were), and how many nodes there are.
    """
    places = np.empty(int(np.diff(runs).max(initial=0)) + 1, np.int64)
    run, taken, _ = _count(ids, runs, first, order, nodes, base, taken, slots, places)
    return int(run), int(taken)


@kernel
def _fill(nodes, base, taken, slots):
    last = np.uint64(len(slots) - 1)
    for node in range(base, taken):
        slot = finish(_key(nodes[node, PARENT], nodes[node, LAST])) & last
        while slots[slot]:
            slot = (slot + np.uint64(1)) & last
        slots[slot] = node


def slots_of(nodes: np.ndarray, base: int, taken: int) -> np.ndarray:
    """Slots for all nodes that there is room for, with those taken in them."""
    slots = np.zeros(1 << (2 * len(nodes)).bit_length(), np.uint32)
    _fill(nodes, base, taken, slots)
    return slots


@kernel
def _levels(nodes, base, taken, levels):
    for node in range(base):
        levels[node] = 1
    for node in range(base, taken):
        levels[node] = levels[nodes[node, PARENT]] + 1


def levels_of(nodes: np.ndarray, base: int, taken: int) -> np.ndarray:
    """How many tokens each node has: uint8."""
    levels = np.empty(taken, np.uint8)
    _levels(nodes, base, taken, levels)
    return levels


@kernel
def _forget(nodes, base, taken, levels, least, gone, moved):
    kept = np.int64(base)
    for node in range(base, taken):
        level, used = levels[node], nodes[node, USED]
        parent, suffix = nodes[node, PARENT], nodes[node, SUFFIX]
        if parent >= base:
            parent = moved[parent - base]
        if suffix >= base:
            suffix = moved[suffix - base]
        if nodes[node, RAW] < least[level]:
            moved[node - base] = 0
            gone[level, min(used, 5)] += 1
            if level == 2 or parent:
                nodes[parent, LOST] += used
            continue
        moved[node - base] = kept
        for k in range(COLUMNS):
            nodes[kept, k] = nodes[node, k]
        nodes[kept, PARENT], nodes[kept, SUFFIX] = parent, suffix
        kept += 1
    for node in range(kept, taken):
        for k in range(COLUMNS):
            nodes[node, k] = 0
    return kept


def forget(nodes: np.ndarray, base: int, taken: int, levels: np.ndarray, least: np.ndarray, gone: np.ndarray) -> int:
    """Remove the nodes that were seen less often than least[their number of tokens]; returns how many stay, in their order.

    least must not fall with the number of tokens, so that what is removed has no child that stays, nor is what one falls back
    to. gone: int64 (order + 1, 6): is counted up for the nodes removed, by their tokens and their count, 5 and more as one.
    """
    return int(_forget(nodes, base, taken, levels, least, gone, np.zeros(taken - base, np.uint32)))


# --------------------------------------------------------------------------------------------- probabilities


@kernel
def _tally(nodes, base, taken, levels, gone, order, tallies):
    for level in range(order + 1):
        for k in range(6):
            tallies[level, k] = gone[level, k]
    for node in range(taken):
        if node != base - 1:
            tallies[levels[node], min(nodes[node, USED], np.uint32(5))] += 1


def tally(nodes: np.ndarray, base: int, taken: int, levels: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """int64 (order + 1, 6): how many n-grams of so many tokens have the count 0, 1, … and 5 or more."""
    tallies = np.zeros_like(gone)
    _tally(nodes, base, taken, levels, gone, len(gone) - 1, tallies)
    return tallies


@kernel
def _estimate(nodes, base, taken, levels, discounts, unigrams, slots, floats, total, spent, chance, places):
    size = np.uint64(len(slots))
    sum_of_all, left = 0.0, 1.0
    for token in range(base - 1):
        sum_of_all += nodes[token, USED]
    for token in range(base - 1):
        used = nodes[token, USED]
        if used:
            chance[token] = (used - discounts[1, min(used, np.uint32(3))]) / sum_of_all
            left -= chance[token]
    for token in range(base - 1):
        chance[token] += left / (base - 1)
    for node in range(base, taken):
        used, parent = nodes[node, USED], nodes[node, PARENT]
        total[parent] += used
        spent[parent] += used - discounts[levels[node], min(used, np.uint32(3))]
    for node in range(taken):
        total[node] += nodes[node, LOST]
        spent[node] = 1.0 - spent[node] / total[node] if total[node] > 0.0 else 1.0  # what is left for others
    for token in range(base):
        unigrams[token, 0] = np.log(chance[token]) if token < base - 1 else 0.0
        unigrams[token, 1] = np.log(spent[token])
        places[token] = token
    for node in range(base, taken):
        used, parent, token = nodes[node, USED], nodes[node, PARENT], nodes[node, LAST]
        own = (used - discounts[levels[node], min(used, np.uint32(3))]) / total[parent]
        chance[node] = own + spent[parent] * chance[nodes[node, SUFFIX]]
        key = _key(places[parent], token)
        slot = (finish(key) >> _HALF) * size >> _HALF
        while slots[slot, 0]:
            slot = slot + np.uint64(1) if slot + np.uint64(1) < size else np.uint64(0)
        slots[slot, 0] = key + np.uint64(1)
        floats[slot, 2], floats[slot, 3] = np.log(chance[node]), np.log(spent[node])
        places[node] = base + slot


def estimate(
    nodes: np.ndarray, base: int, taken: int, levels: np.ndarray, discounts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 (base, 2), uint64 (slots, 2)): of each single token, and of each longer n-gram, ln p of its last token after the
    others, and ln of the share that its own continuations leave to what they fall back to.

    discounts: float64 (order + 1, 4): what is taken off a count of 1, 2, and 3 or more. A slot holds one more than the key of
    the n-gram (place of the parent times 2^21, plus the token; 0: a free slot), and its two numbers as float32. The place of an
    n-gram is its slot, plus `base`.
    """
    unigrams = np.zeros((base, 2), np.float32)
    slots = np.zeros(((taken - base) * 5 // 3 + 2, 2), np.uint64)
    total, spent, chance = np.zeros(taken), np.zeros(taken), np.zeros(taken)
    places = np.empty(taken, np.uint32)
    _estimate(nodes, base, taken, levels, discounts, unigrams, slots, slots.view(np.float32), total, spent, chance, places)
    return unigrams, slots


@kernel
def _score(ids, runs, order, unigrams, slots, floats, places, out):
    base, size = len(unigrams), np.uint64(len(slots))
    touched = np.uint64(0)
    for run in range(len(runs) - 1):
        begin, end = runs[run], runs[run + 1]
        places[0] = base - 1
        for i in range(begin, end):
            out[i] = unigrams[ids[i], 0]
            places[i - begin + 1] = ids[i]
        for k in range(1, order):
            # from the right, as places[at] is one longer afterwards; what is far away is asked for all at once
            for stop in range(end - begin, k - 1, -_AHEAD):
                least = max(stop - _AHEAD, k - 1)
                for at in range(stop, least, -1):
                    if places[at - 1] >= 0 and places[at] >= 0:
                        touched += slots[(finish(_key(places[at - 1], ids[begin + at - 1])) >> _HALF) * size >> _HALF, 0]
                for at in range(stop, least, -1):
                    here, i = places[at - 1], begin + at - 1
                    if here < 0:
                        places[at] = -1
                        continue  # what no one has seen leaves all to what it falls back to
                    if places[at] >= 0:  # else the longer one was not seen either
                        key = _key(here, ids[i])
                        wanted = key + np.uint64(1)
                        slot = (finish(key) >> _HALF) * size >> _HALF
                        while slots[slot, 0] and slots[slot, 0] != wanted:
                            slot = slot + np.uint64(1) if slot + np.uint64(1) < size else np.uint64(0)
                        if slots[slot, 0]:
                            out[i] = floats[slot, 2]
                            places[at] = np.int64(slot) + base
                            continue
                    places[at] = -1
                    out[i] += np.float64(unigrams[here, 1] if here < base else floats[here - base, 3])
    return touched


def score(ids: np.ndarray, runs: np.ndarray, order: int, unigrams: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """ln p (float64) of each token, after those before it in its run. unigrams, slots: of `estimate`."""
    out = np.empty(len(ids), np.float64)
    places = np.empty(int(np.diff(runs).max(initial=0)) + 1, np.int64)
    _score(ids, runs, order, unigrams, slots, slots.view(np.float32), places, out)
    return out


@kernel
def _mix(first, second, one, other, out):
    for i in range(len(out)):
        top = max(first[i], second[i])
        out[i] = top + np.log(one * np.exp(first[i] - top) + other * np.exp(second[i] - top))


def mix(first: np.ndarray, second: np.ndarray, weights: tuple[float, float]) -> np.ndarray:
    """ln of the weighted sum of what two arrays (float64) are the logarithms of."""
    out = np.empty(len(first), np.float64)
    _mix(first, second, *weights, out)
    return out


@kernel
def _sums(values, runs, out):
    for run in range(len(runs) - 1):
        total = 0.0
        for i in range(runs[run], runs[run + 1]):
            total += values[i]
        out[run] = total


def sums(values: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """The sum (float64) of values[runs[i]:runs[i + 1]], from the left."""
    out = np.empty(len(runs) - 1, np.float64)
    _sums(values, runs, out)
    return out
