"""Interpolated modified Kneser-Ney and the pieces of texts in plain Python, by their definitions and as slowly."""

from collections import Counter
from functools import cache

import numpy as np

from curate.kernels.chars import DIGIT, MARK, SPACE, UNSPACED, WORD, bits_of, tables

START = -1


def is_(kind, character):
    return bool(int(bits_of(tables()[0], ord(character))) & kind)


def pieces_of(text):
    """The pieces of a text, which are all of it."""
    if not text:
        return []
    found, at = [], 0
    while at < len(text):
        begin = at
        if is_(SPACE, text[at]) and not (text[at] == " " and at + 1 < len(text) and not is_(SPACE, text[at + 1])):
            at += 1
            while at < len(text) and is_(SPACE, text[at]) and size(text[begin:at]) < 16:
                at += 1
            if at < len(text) and not is_(SPACE, text[at]) and at - begin > 1 and text[at - 1] == " ":
                at -= 1
        else:
            at += text[at] == " "
            first, body = text[at], at
            at += 1
            if is_(DIGIT, first):
                while at < len(text) and text[at] in "0123456789" and at - body < 4:
                    at += 1
            elif is_(UNSPACED, first) and not is_(MARK, first):
                while at < len(text) and is_(MARK, text[at]):
                    at += 1
            elif is_(WORD, first):
                while at < len(text) and (
                    is_(MARK, text[at]) or (is_(WORD, text[at]) and not is_(DIGIT, text[at]) and not is_(UNSPACED, text[at]))
                ):
                    at += 1
            else:
                while at < len(text) and text[at] == first and size(text[body:at]) < 16:
                    at += 1
        found.append(text[begin:at])
    return found


def size(text):
    return len(text.encode())


def index_of(words):
    """Words as their bytes and bounds."""
    bounds = np.concatenate([[0], np.cumsum([size(word) for word in words])]).astype(np.int64)
    return np.frombuffer("".join(words).encode(), np.uint8), bounds


def tokens_of(text, vocabulary):
    """Numbers of the words of a list, after the bytes, and of bytes."""
    number = {word.encode(): 256 + i for i, word in enumerate(vocabulary)}
    found = []
    for piece in map(str.encode, pieces_of(text)):
        if piece in number and len(piece) <= 64:
            found.append(number[piece])
            continue
        while piece:
            longest = max((n for n in range(2, 17) if piece[:n] in number and n <= len(piece)), default=1)
            found.append(number[piece[:longest]] if longest > 1 else piece[0])
            piece = piece[longest:]
    return found


def grams_of(runs, order):
    """By order, how often each n-gram is there, and what probabilities are made of."""
    raw = [Counter() for _ in range(order + 1)]
    for run in runs:
        padded = (START, *run)
        for end in range(1, len(padded)):
            for n in range(1, min(order, end + 1) + 1):
                raw[n][padded[end - n + 1 : end + 1]] += 1
    counts = [Counter() for _ in range(order + 1)]
    for n in range(1, order + 1):
        before = {}
        for longer in raw[n + 1] if n < order else ():
            before.setdefault(longer[1:], set()).add(longer[0])
        for gram, count in raw[n].items():
            counts[n][gram] = count if n == order or gram[0] == START else len(before[gram])
    return raw, counts


class KneserNey:
    """Of runs (lists of tokens): `chance(context, token)`."""

    def __init__(self, runs, order, vocabulary, least=1):
        self.order, self.vocabulary = order, vocabulary
        raw, counts = grams_of(runs, order)
        self.discounts = [discounts_of(counts[n]) for n in range(order + 1)]
        self.totals, self.kept, self.followers = Counter(), {}, {}
        for n in range(1, order + 1):
            for gram, count in counts[n].items():
                self.totals[gram[:-1]] += count
                if n < 3 or raw[n][gram] >= least:
                    self.kept[gram] = count
                    self.followers.setdefault(gram[:-1], []).append(gram)
        self.chance_of = cache(self._chance)

    def chance(self, context, token):
        context = (START, *context)[-(self.order - 1) :] if self.order > 1 else ()
        return self.chance_of(tuple(context), token)

    def _chance(self, context, token):
        shorter = self.chance_of(context[1:], token) if context else 1 / self.vocabulary
        total = self.totals[context]
        if not total:
            return shorter
        discount = self.discounts[len(context) + 1]
        mass = sum(self.kept[gram] - discount[min(self.kept[gram], 3)] for gram in self.followers.get(context, []))
        count = self.kept.get((*context, token), 0)
        return (count - discount[min(count, 3)]) / total + (1 - mass / total) * shorter


def discounts_of(counts):
    one, two, three, four = (sum(count == k for count in counts.values()) for k in (1, 2, 3, 4))
    if one and two and three and four:
        y = one / (one + 2 * two)
        found = [0, 1 - 2 * y * two / one, 2 - 3 * y * three / two, 3 - 4 * y * four / three]
        if all(0.05 <= found[k] < k for k in (1, 2, 3)):
            return found
    return [0, 0.5, 1, 1.5]
