"""What tells the main text of a page from the rest: numbers for each block, from the arrays of `curate.kernels.html`.

All of it is counted once, forwards: sums over the blocks of an element are differences of prefix sums, since the blocks of an
element follow each other. A level of a block is an ancestor that holds more blocks than the level below it, so that wrappers
around the same text count once.
"""

from __future__ import annotations

import numba
import numpy as np

from curate.kernels.html import (
    BITS,
    BREAKS,
    BUTTON_BYTES,
    CAPTION,
    CLOSES,
    CODE,
    DATA,
    DEFINITION,
    DEPTH,
    DIGITS,
    ELEMENT,
    EMPHASIS_BYTES,
    END,
    FIELDS,
    FIRST,
    HEADER,
    IMAGES,
    IN_BUTTON,
    IN_FORM,
    IN_HIDDEN,
    IN_LINK,
    IN_NOSCRIPT,
    ITEM,
    KIND,
    LAST,
    LETTERS,
    LINK_BYTES,
    LINKS,
    LIST,
    NAMES_FROM,
    NAMES_TO,
    OPENS,
    PARENT,
    PUNCT,
    QUOTE,
    SIGNATURE,
    START,
    STOPS,
    SYMBOLS,
    TABLE,
    TAG,
    TERM,
    TITLE,
    UNSPACED,
    UPPER,
    WORDS,
    T,
)  # fmt: skip

HASHES = 1 << 16  # entries of the tables of weights; a hash counts by its low bits
LEVELS = 4
_REGIONS = ("article", "main", "nav", "header", "footer", "aside", "section", "form", "figure", "table", "details", "dialog")
_REGION = np.zeros(256, np.int64)
for _n, _name in enumerate(_REGIONS):
    _REGION[T[_name]] = 1 << _n
_AROUND = (-3, -2, -1, 1, 2, 3)

FEATURES = (
    "heading", "item", "cell", "code", "term", "caption", "quote", "list_depth", "table",
    "words", "word_bytes", "link_share", "links", "link_words", "emphasis_share", "button_share", "breaks", "images", "fields",
    "stop_share", "punct_share", "upper_share", "digit_share", "symbol_share", "unspaced_share", "opens", "closes",
    "title_share",
    "in_link", "in_button", "fillable", "in_noscript", "in_hidden",
    "place", "words_before", "words_after", "since_heading", "heading_before", "from_title", "after_title", "depth",
    *(f"{name}_{d:+d}" for d in _AROUND for name in ("words", "link_share", "stop_share")),
    "same_parent_before", "same_parent_after", "good_around",
    *(f"{name}_level_{n}" for n in range(LEVELS)
      for name in ("words", "link_share", "block_words", "page_share", "stop_share", "siblings")),
    "main_share", "main_distance", "main_level_share",
    *(f"in_{name}" for name in _REGIONS),
    "names_all", "names_own", "names_least", "names_most", "names_near", "text",
    "page_words", "page_blocks", "page_link_share", "page_good_share", "page_headings", "page_stop_share", "page_item_share",
    "page_cell_share", "page_code_share",
    "same_text",
)  # fmt: skip
F = {name: n for n, name in enumerate(FEATURES)}
_FIRST_AROUND, _FIRST_LEVEL, _FIRST_REGION = F["words_-3"], F["words_level_0"], F["in_article"]
_SAME_BEFORE, _MAIN, _NAMES, _PAGE = F["same_parent_before"], F["main_share"], F["names_all"], F["page_words"]
_PLACE = F["place"]
_PER_LEVEL = 6


_LOGS = np.log1p(np.arange(4096)).astype(np.float32)


@numba.njit(cache=True, nogil=True, inline="always")
def _log1p(count):
    """log(1 + count) of a whole number: mostly a small one, and looking it up takes a twentieth of the time."""
    n = np.int64(count)
    return _LOGS[n] if n < 4096 else np.float32(np.log1p(np.float64(n)))


@numba.njit(cache=True, nogil=True)
def element_weights(elements, names, weights):
    """float32 [elements, 2]: the sum of the weights of an element's names, and of those of all elements around it as well."""
    m = elements.shape[0]
    out = np.zeros((m, 2), np.float32)
    mask = weights.size - 1
    for e in range(m):
        own = np.float32(0)
        for k in range(elements[e, NAMES_FROM], elements[e, NAMES_TO]):
            own += weights[names[k] & mask]
        out[e, 0] = own
        parent = elements[e, PARENT]
        out[e, 1] = own + (out[parent, 1] if parent >= 0 else np.float32(0))
    return out


@numba.njit(cache=True, nogil=True)
def name_lists(blocks, elements, names):
    """(offsets int64 [n + 1], names int64) of the elements around each block, inner ones first, each hash once a block."""
    n = blocks.shape[0]
    offsets = np.zeros(n + 1, np.int64)
    found = np.empty(1024, np.int64)
    total = 0
    for k in range(n):
        start = total
        e = blocks[k, ELEMENT]
        while e >= 0:
            for i in range(elements[e, NAMES_FROM], elements[e, NAMES_TO]):
                seen = False
                for j in range(start, total):
                    if found[j] == names[i]:
                        seen = True
                        break
                if not seen:
                    if total == found.size:
                        larger = np.empty(2 * total, np.int64)
                        larger[:total] = found
                        found = larger
                    found[total] = names[i]
                    total += 1
            e = elements[e, PARENT]
        offsets[k + 1] = total
    return offsets, found[:total].copy()


@numba.njit(cache=True, nogil=True)
def _equal(keys):
    """int32 [n]: how many of the keys (int64, not below 0) are equal to each, itself among them."""
    n = keys.size
    size = 16
    while size < 2 * n:
        size *= 2
    slots = np.full(size, -1, np.int64)
    counts = np.zeros(size, np.int32)
    where = np.empty(n, np.int64)
    for k in range(n):
        at = ((keys[k] * 0x9E3779B97F4A7C1) >> 20) & (size - 1)
        while slots[at] >= 0 and slots[at] != keys[k]:
            at = (at + 1) & (size - 1)
        slots[at] = keys[k]
        counts[at] += 1
        where[k] = at
    found = np.empty(n, np.int32)
    for k in range(n):
        found[k] = counts[where[k]]
    return found


@numba.njit(cache=True, nogil=True)
def _same_texts(blocks, first_words):
    """int32 [blocks]: how many blocks have the same first words, number of words and bytes, the block itself among them."""
    keys = np.empty(blocks.shape[0], np.int64)
    for k in range(keys.size):
        key = np.int64(blocks[k, END] - blocks[k, START]) * 40503 + blocks[k, WORDS]
        for q in range(min(blocks[k, WORDS], first_words.shape[1])):
            key = (key * 31 + first_words[k, q]) & 0xFFFFFFFFFFFF
        keys[k] = key
    return _equal(keys)


@numba.njit(cache=True, nogil=True)
def _siblings(elements):
    """int32 [elements]: how many children of the parent have the same signature, the element itself among them."""
    keys = np.empty(elements.shape[0], np.int64)
    for e in range(keys.size):
        keys[e] = np.int64(elements[e, PARENT] + 1) << 31 | elements[e, SIGNATURE]
    return _equal(keys)


@numba.njit(cache=True, nogil=True)
def features(blocks, first_words, elements, names, name_weights, text_weights):
    """float32 [blocks, len(FEATURES)].

    Args:
        blocks, first_words, elements, names: as `curate.kernels.html.scan` gives them.
        name_weights, text_weights: float32, lengths are powers of two; weights of the hashes of names and of first words.
    """
    n = blocks.shape[0]
    x = np.zeros((n, len(FEATURES)), np.float32)
    if n == 0:
        return x
    m = elements.shape[0]
    # prefix sums: words, words in links, stop words, good words
    sums = np.zeros((n + 1, 4), np.float64)
    linked = np.empty(n, np.float32)
    headings = 0
    kinds = np.zeros(16, np.float64)
    best_title = -1
    best_share = np.float32(0.3)
    for k in range(n):
        row = blocks[k]
        size = row[END] - row[START]
        share = np.float32(min(1.0, row[LINK_BYTES] / size))
        linked[k] = share
        words = row[WORDS]
        good = words * (1 - share)
        if row[PUNCT] == 0 or words < 8 or row[STOPS] * 12 < words:
            good = np.float32(0)
        sums[k + 1, 0] = sums[k, 0] + words
        sums[k + 1, 1] = sums[k, 1] + words * share
        sums[k + 1, 2] = sums[k, 2] + row[STOPS]
        sums[k + 1, 3] = sums[k, 3] + good
        kinds[row[KIND]] += words
        if 1 <= row[KIND] <= 6:
            headings += 1
        if words >= 2 and share < 0.9:
            fit = np.float32(row[TITLE] / words) * (1 if words >= 3 else np.float32(0.8))
            if 1 <= row[KIND] <= 2:
                fit += np.float32(0.3)
            elif row[KIND] == 0 or row[KIND] > 6:
                fit -= np.float32(0.25)
            if fit > best_share:
                best_share, best_title = fit, k
    total = sums[n]
    page_words = max(1.0, total[0])
    # the chain of elements that hold most of the good text, from the document inwards
    heavy = np.zeros(m, np.bool_)
    heavy[0] = True
    e = 0
    basis = 3 if total[3] >= 30 else 0
    chain_share = np.ones(m, np.float32)
    for c in range(1, m):
        # children follow their parents, so one pass goes down the chain: the first child with half of its parent's text
        parent = elements[c, PARENT]
        if heavy[parent]:
            inside = sums[elements[c, LAST], basis] - sums[elements[c, FIRST], basis]
            outside = sums[elements[parent, LAST], basis] - sums[elements[parent, FIRST], basis]
            if inside > 0.55 * outside:
                heavy[c] = True
                e = c
                chain_share[c] = inside / max(1.0, total[basis])
    chain_depth = elements[e, DEPTH]
    deepest = chain_share[e]
    siblings = _siblings(elements)
    same_texts = _same_texts(blocks, first_words)
    weights = element_weights(elements, names, name_weights)
    regions = np.zeros(m, np.int64)
    for c in range(1, m):
        regions[c] = regions[elements[c, PARENT]] | _REGION[elements[c, TAG]]
    mask = text_weights.size - 1
    last_heading = -1
    for k in range(n):
        row = blocks[k]
        f = x[k]
        words = row[WORDS]
        size = row[END] - row[START]
        some = max(1, words)
        kind = row[KIND]
        if 1 <= kind <= 6:
            f[0] = kind
        f[1] = kind == ITEM
        f[2] = 1 if kind == DATA else 2 if kind == HEADER else 0
        f[3] = kind == CODE
        f[4] = 1 if kind == TERM else 2 if kind == DEFINITION else 0
        f[5] = kind == CAPTION
        f[6] = row[QUOTE]
        f[7] = row[LIST]
        f[8] = row[TABLE] >= 0
        f[9] = _log1p(words)
        f[10] = size / some
        f[11] = linked[k]
        f[12] = _log1p(row[LINKS])
        f[13] = row[LINKS] / some
        f[14] = row[EMPHASIS_BYTES] / size
        f[15] = row[BUTTON_BYTES] / size
        f[16] = row[BREAKS]
        f[17] = row[IMAGES]
        f[18] = row[FIELDS]
        f[19] = row[STOPS] / some
        f[20] = row[PUNCT] / some
        f[21] = row[UPPER] / max(1, row[LETTERS])
        f[22] = row[DIGITS] / max(1, row[LETTERS] + row[DIGITS])
        f[23] = row[SYMBOLS] / some
        f[24] = row[UNSPACED] / some
        f[25] = row[OPENS]
        f[26] = row[CLOSES]
        f[27] = row[TITLE] / some
        bits = row[BITS]
        f[28] = bits & IN_LINK != 0
        f[29] = bits & IN_BUTTON != 0
        f[30] = bits & IN_FORM != 0
        f[31] = bits & IN_NOSCRIPT != 0
        f[32] = bits & IN_HIDDEN != 0
        p = _PLACE
        f[p] = k / n
        f[p + 1] = sums[k, 0] / page_words
        f[p + 2] = _log1p(total[0] - sums[k + 1, 0])
        f[p + 3] = _log1p(k - last_heading) if last_heading >= 0 else 9
        f[p + 4] = blocks[last_heading, KIND] if last_heading >= 0 else 0
        if best_title >= 0:
            f[p + 5] = _log1p(abs(k - best_title))
            f[p + 6] = 1 if k > best_title else 0 if k == best_title else -1
        else:
            f[p + 5] = -1
            f[p + 6] = -2
        e = row[ELEMENT]
        f[p + 7] = elements[e, DEPTH]
        if 1 <= kind <= 6:
            last_heading = k
        # neighbours
        p = _FIRST_AROUND
        for d in _AROUND:
            if 0 <= k + d < n:
                f[p] = _log1p(blocks[k + d, WORDS])
                f[p + 1] = linked[k + d]
                f[p + 2] = blocks[k + d, STOPS] / max(1, blocks[k + d, WORDS])
            else:
                f[p] = -1
                f[p + 1] = -1
                f[p + 2] = -1
            p += 3
        p = _SAME_BEFORE
        f[p] = k > 0 and elements[blocks[k - 1, ELEMENT], PARENT] == elements[e, PARENT]
        f[p + 1] = k + 1 < n and elements[blocks[k + 1, ELEMENT], PARENT] == elements[e, PARENT]
        f[p + 2] = np.log1p(sums[min(n, k + 6), 3] - sums[max(0, k - 5), 3])
        # levels
        p = _FIRST_LEVEL
        level = 0
        span = 0
        at = e
        most_siblings = 0
        while at >= 0 and level < LEVELS:
            low, high = elements[at, FIRST], elements[at, LAST]
            if siblings[at] > most_siblings:
                most_siblings = siblings[at]
            if high - low > span or elements[at, PARENT] < 0:
                span = high - low
                inside = sums[high, 0] - sums[low, 0]
                f[p] = _log1p(inside)
                f[p + 1] = (sums[high, 1] - sums[low, 1]) / max(1.0, inside)
                f[p + 2] = np.log1p(inside / max(1, span))
                f[p + 3] = inside / page_words
                f[p + 4] = (sums[high, 2] - sums[low, 2]) / max(1.0, inside)
                f[p + 5] = _log1p(most_siblings)
                most_siblings = 0
                p += _PER_LEVEL
                level += 1
            at = elements[at, PARENT]
        while level < LEVELS:
            for q in range(_PER_LEVEL):
                f[p + q] = f[p + q - _PER_LEVEL] if level else 0
            p += _PER_LEVEL
            level += 1
        # where it leaves the chain
        at = e
        while not heavy[at]:
            at = elements[at, PARENT]
        p = _MAIN
        f[p] = chain_share[at]
        f[p + 1] = chain_depth - elements[at, DEPTH]
        f[p + 2] = chain_share[at] - deepest
        p = _FIRST_REGION
        for q in range(len(_REGIONS)):
            f[p + q] = regions[e] >> q & 1
        # names
        p = _NAMES
        f[p] = weights[e, 1]
        f[p + 1] = weights[e, 0]
        least = most = near = np.float32(0)
        at = e
        steps = 0
        while at >= 0:
            own = weights[at, 0]
            if own < least:
                least = own
            if own > most:
                most = own
            if steps < 3:
                near += own
            steps += 1
            at = elements[at, PARENT]
        f[p + 2] = least
        f[p + 3] = most
        f[p + 4] = near
        known = np.float32(0)
        for q in range(min(words, first_words.shape[1])):
            known += text_weights[first_words[k, q] & mask]
        f[p + 5] = known
        p = _PAGE
        f[p] = _log1p(total[0])
        f[p + 1] = _log1p(n)
        f[p + 2] = total[1] / page_words
        f[p + 3] = total[3] / page_words
        f[p + 4] = _log1p(headings)
        f[p + 5] = total[2] / page_words
        f[p + 6] = kinds[ITEM] / page_words
        f[p + 7] = (kinds[DATA] + kinds[HEADER]) / page_words
        f[p + 8] = kinds[CODE] / page_words
        f[p + 9] = _log1p(same_texts[k] - 1)
    return x
