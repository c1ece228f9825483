"""Words, and hashed runs of words, in plain Python."""

import unicodedata

FULL = (1 << 64) - 1


def mix(h):
    h = ((h ^ (h >> 32)) * 0x9E3779B97F4A7C15) & FULL
    return h ^ (h >> 29)


def finish(h):
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & FULL
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & FULL
    return h ^ (h >> 31)


def words_of(text):
    """Runs of one kind of character; Han and kana one by one."""
    found, kind = [], ""
    for c in text or "":
        mark = unicodedata.category(c)[0] == "M"
        own = "\u4e00" <= c <= "\u9fff" or "\u3041" <= c <= "\u3096" or "\u30a1" <= c <= "\u30fa"
        if c.isspace():
            kind = ""
            continue
        what = "own" if own else "word" if c.isalnum() or mark or c == "_" else "other"
        small = c.lower() if len(c.lower()) == 1 else c
        if kind == what != "own" or (kind == "own" and mark):
            found[-1] += small
        else:
            found.append(small)
            kind = what
    return found


def hash_of(word):
    h = 0
    for c in word:
        h = mix((h + ord(c) + 1) & FULL)
    return finish(h)


def features(words, ngrams, buckets):
    hashes = [hash_of(word) for word in words]
    found = []
    for k in range(len(hashes)):
        h = hashes[k]
        found.append(h % buckets)
        for more in hashes[k + 1 : k + ngrams]:
            h = finish((h * 0x9E3779B97F4A7C15 + more) & FULL)
            found.append(h % buckets)
    return found
