"""The signals once more, written for reading: what the kernel is held against.

Each function says its formula of `curate.signals` in the plainest Python there is for it; the word rules are those of the
docstring of `curate.lexicon`. None of it minds speed: a chunk of n affixes takes n passes. Only what is asked of single
characters is remembered.
"""

from __future__ import annotations

import functools
import math
import re
import string
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from curate import lexicon
from curate.signals import ENGLISH, GOPHER_STOP_WORDS, UNSPACED

Value = int | float | None

EXCEPTIONS = lexicon.english_exceptions()
SYMBOLS = frozenset(lexicon.SYMBOLS)
TERMINALS = tuple(lexicon.SENTENCE_TERMINALS)


def signals(text: str | None, language: str | None, bad_words: Mapping[str, Sequence[str]] | None = None) -> dict[str, Value]:
    """Every signal of a text by name; ratios as float64."""
    text = text or ""
    rule = lexicon.word_rule(language)
    words = cut(text, rule)
    lists = bad_words or {}
    entries = lists.get(language or "", lists.get("*"))
    return {
        "text_chars": len(text),
        "word_rule": rule,
        **gopher(text, words, frozenset(GOPHER_STOP_WORDS) if rule == ENGLISH else lexicon.stop_words(language)),
        **gopher_repetition(text, words),
        **c4(text, rule, lexicon.end_marks(language)),
        "c4_bad_words": None if entries is None else bad_word_count(text, entries, anywhere=language in ("zh", "ja", "th")),
        **fineweb(text, words),
        **redpajama(text, lexicon.stop_words(language)),
    }


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def chars(words: Sequence[str]) -> int:
    return sum(map(len, words))


def lower(text: str) -> str:
    """Lower case, but of what would become two characters."""
    return "".join(map(lower_character, text))


@functools.cache
def lower_character(c: str) -> str:
    return c.lower() if len(c.lower()) == 1 else c


@functools.cache
def is_mark(c: str) -> bool:
    return unicodedata.category(c).startswith("M")


@functools.cache
def is_word_character(c: str) -> bool:
    return c.isalnum() or c == "_" or is_mark(c)


# Gopher


def gopher(text: str, words: list[str], stop_words: frozenset[str] | None) -> dict[str, Value]:
    real = [word for word in words if any(c not in SYMBOLS for c in word)]
    lines = text.splitlines()
    return {
        "gopher_words": len(real),
        "gopher_mean_word_length": ratio(chars(real), len(real)),
        "gopher_hash_ratio": ratio(text.count("#"), len(words)),
        "gopher_ellipsis_ratio": ratio(text.count("...") + text.count("…"), len(words)),
        "gopher_bullet_line_share": ratio(sum(line.lstrip().startswith(("•", "-")) for line in lines), len(lines)),
        "gopher_ellipsis_line_share": ratio(sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)),
        "gopher_alpha_word_share": ratio(sum(any(map(str.isalpha, word)) for word in words), len(words)),
        "gopher_stop_words": None if stop_words is None else len(stop_words & set(words)),
    }


def gopher_repetition(text: str, words: list[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, parts in (("line", re.split("\n+", text)), ("para", re.split("\n\n+", text.strip()))):
        again = repeated(parts)
        found[f"gopher_dup_{name}_share"] = ratio(len(again), len(parts))
        found[f"gopher_dup_{name}_char_share"] = ratio(chars(again), len(text))
    for k in (2, 3, 4):
        best, count = most_frequent(ngrams(words, k))
        found[f"gopher_top_{k}gram_char_share"] = ratio(count * len(" ".join(best)), len(text))
    for k in range(5, 11):
        found[f"gopher_dup_{k}gram_char_share"] = ratio(repeated_from_the_left(words, k), len(text))
    return found


def repeated(parts: list[str]) -> list[str]:
    """Parts that stood earlier."""
    seen: set[str] = set()
    found = []
    for part in parts:
        if part in seen:
            found.append(part)
        seen.add(part)
    return found


def ngrams(words: list[str], k: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + k]) for i in range(len(words) - k + 1)]


def most_frequent(grams: list[tuple[str, ...]]) -> tuple[tuple[str, ...], int]:
    """The most frequent one and how often it occurs; of several, the one that comes first."""
    counts = Counter(grams)
    return max(counts.items(), key=lambda item: item[1]) if counts else ((), 0)


def repeated_from_the_left(words: list[str], k: int) -> int:
    """Characters of k words that stood earlier, where reading goes on behind them."""
    seen, found, i = set(), 0, 0
    while i + k <= len(words):
        gram = tuple(words[i : i + k])
        if gram in seen:
            found += chars(gram)
            i += k
        else:
            seen.add(gram)
            i += 1
    return found


# C4


CITATION = re.compile(r"\[[0-9]*\]|\[edit\]|\[citation needed\]")
POLICY = "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"
ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def c4(text: str, rule: int, end_marks: str) -> dict[str, Value]:
    count: Counter[str] = Counter(c4_lines=len(text.splitlines()))
    for line in text.splitlines():
        words = line.split()
        line = CITATION.sub("", line.strip())
        small = line.translate(ASCII_LOWER)
        long_word = any(len(word) > 1000 for word in words)
        no_end = not line.endswith(tuple(end_marks)) or line.endswith("...")
        few_words = len(words) < 3
        javascript = "javascript" in small
        policy = any(phrase in small for phrase in POLICY)
        count["c4_lines_long_word"] += long_word
        count["c4_lines_no_end"] += no_end
        count["c4_lines_few_words"] += few_words
        count["c4_lines_javascript"] += javascript
        count["c4_lines_policy"] += policy
        for name, gone in (("c4", long_word or few_words or no_end), ("c4_any_end", long_word or few_words)):
            count[f"{name}_lorem_ipsum"] += "lorem ipsum" in small and not gone
            count[f"{name}_curly_bracket"] += "{" in line and not gone and not javascript
            kept = not (gone or javascript or policy)
            count[f"{name}_lines_kept"] += kept
            count[f"{name}_sentences"] += sentences(cut(line, rule)) if kept else 0
    names = "lines", "lines_long_word", "lines_no_end", "lines_few_words", "lines_javascript", "lines_policy"
    both = "lines_kept", "lorem_ipsum", "curly_bracket", "sentences"
    return {name: count[name] for name in (*(f"c4_{n}" for n in names + both), *(f"c4_any_end_{n}" for n in both))}


def sentences(words: list[str]) -> int:
    """One, and one more at each word that is no punctuation after a word that ends a sentence."""
    found, ended = min(len(words), 1), False
    for word in words:
        if word in TERMINALS:
            ended = True
        elif ended and not all(unicodedata.category(c).startswith("P") for c in word):
            found, ended = found + 1, False
    return found


def bad_word_count(text: str, entries: Sequence[str], anywhere: bool) -> int:
    text = lower(text)
    longest_first = sorted({lower(entry) for entry in entries if entry}, key=len, reverse=True)

    def free(at: int) -> bool:
        return anywhere or not 0 <= at < len(text) or not is_word_character(text[at])

    by_first: defaultdict[str, list[str]] = defaultdict(list)
    for entry in longest_first:
        by_first[entry[0]].append(entry)
    found = at = 0
    while at < len(text):
        fits = [entry for entry in by_first[text[at]] if text.startswith(entry, at) and free(at - 1) and free(at + len(entry))]
        found += bool(fits)
        at += len(fits[0]) if fits else 1
    return found


# FineWeb


def fineweb(text: str, words: list[str]) -> dict[str, Value]:
    lines = [line for line in text.split("\n") if line.strip()]
    return {
        "fineweb_line_punct_ratio": ratio(sum(line.endswith(TERMINALS) for line in lines), len(lines)),
        "fineweb_short_line_ratio": ratio(sum(len(line) <= 30 for line in lines), len(lines)),
        "fineweb_char_dup_ratio": ratio(chars(repeated(lines)), len(text.replace("\n", ""))),
        "fineweb_new_line_ratio": ratio(text.count("\n"), len(words)),
    }


# RedPajama


def plain_words(text: str) -> list[str]:
    kinds = groupby(text, key=lambda c: None if c.isspace() else is_word_character(c))
    return ["".join(run) for kind, run in kinds if kind is not None]


def bare_words(text: str) -> list[str]:
    return lower(text).translate(dict.fromkeys(map(ord, string.punctuation))).split()


def redpajama(text: str, stop_words: frozenset[str] | None) -> dict[str, Value]:
    plain, bare = plain_words(text), bare_words(text)
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # a newline at the end begins no further line
    joined = " ".join(bare)
    shares = [count / len(bare) for count in Counter(bare).values()]
    found: dict[str, Value] = {
        "rps_doc_word_count": len(bare),
        "rps_doc_mean_word_length": ratio(chars(bare), len(bare)),
        "rps_doc_num_sentences": sum(any(map(is_word_character, part)) for part in re.split("[.!?]", text)),
        "rps_doc_symbol_to_word_ratio": ratio(text.count("#") + text.count("...") + text.count("…"), len(plain)),
        "rps_doc_frac_lines_end_with_ellipsis": ratio(sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)),
        "rps_doc_frac_no_alph_words": ratio(sum(not re.search("[A-Za-z]", word) for word in plain), len(plain)),
        "rps_doc_frac_all_caps_words": ratio(
            sum(any(map(str.isupper, word)) and not any(map(str.islower, word)) for word in plain), len(plain)
        ),
        "rps_doc_frac_unique_words": ratio(len(set(bare)), len(bare)),
        "rps_doc_unigram_entropy": math.fsum(-p * math.log(p) for p in shares),
        "rps_doc_stop_word_fraction": None
        if stop_words is None
        else ratio(sum(word in stop_words for word in plain), len(plain)),
        "rps_doc_lorem_ipsum": ratio(ngrams(bare, 2).count(("lorem", "ipsum")), len(joined)),
        "rps_doc_curly_bracket": ratio(text.count("{") + text.count("}"), len(text)),
        "rps_lines_ending_with_terminal_punctuation_mark": ratio(
            sum(line.rstrip().endswith((".", "!", "?", "”")) for line in lines), len(lines)
        ),
        "rps_lines_javascript_counts": bare.count("javascript"),
        "rps_lines_num_words": ratio(len(bare), len(lines)),
        "rps_lines_numerical_chars_fraction": ratio(sum(map(str.isnumeric, joined)), len(joined)),
        "rps_lines_start_with_bulletpoint": ratio(
            sum(line.lstrip().startswith(tuple("•‣▶◀◦■□▪▫–")) for line in lines), len(lines)
        ),
        "rps_lines_uppercase_letter_fraction": ratio(sum(map(str.isupper, text)), len(text)),
    }
    for k in (2, 3, 4):
        best, count = most_frequent(ngrams(bare, k))
        found[f"rps_doc_frac_chars_top_{k}gram"] = ratio(count * chars(best), chars(bare)) if count > 1 else 0.0
    for k in range(5, 11):
        grams = ngrams(bare, k)
        counts = Counter(grams)
        inside = {i + j for i, gram in enumerate(grams) if counts[gram] > 1 for j in range(k)}
        found[f"rps_doc_frac_chars_dupe_{k}grams"] = ratio(sum(len(bare[i]) for i in inside), chars(bare))
    return found


# Words


def cut(text: str, rule: int) -> list[str]:
    """The words of a text by a rule of `curate.lexicon`."""
    return [word for chunk in text.split() for word in words_of_chunk(chunk, rule)]


def words_of_chunk(chunk: str, rule: int) -> list[str]:
    if rule == ENGLISH:
        return words_by_affix(chunk, EXCEPTIONS)
    if rule == UNSPACED or any(map(is_unspaced, chunk)):
        return words_without_spaces(chunk)
    return words_by_affix(chunk, {})


@functools.cache
def is_unspaced(c: str) -> bool:
    letters_only = (*lexicon.CLUSTERS, *lexicon.TIBETAN)
    return within(c, lexicon.UNSPACED_SCRIPTS) and (c.isalpha() or not within(c, letters_only))


def within(c: str, spans: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= ord(c) <= high for low, high in spans)


def words_by_affix(chunk: str, exceptions: Mapping[str, tuple[str, ...]]) -> list[str]:
    front: list[str] = []
    back: list[str] = []
    while chunk and chunk not in exceptions:
        before = prefix(chunk)
        after = suffix(chunk[before:])
        if before and chunk[before:] in exceptions:
            after = 0
        elif after and chunk[:-after] in exceptions:
            before = 0
        if not before and not after:
            break
        stop = len(chunk) - after
        front += [chunk[:before]] * bool(before)
        back += [chunk[stop:]] * bool(after)
        chunk = chunk[before:stop]
    if chunk in exceptions:
        middle = list(exceptions[chunk])
    elif is_url(chunk):
        middle = [chunk]
    else:
        middle = cut_at_infixes(chunk)
    return front + middle + back[::-1]


def is_letter(c: str) -> bool:
    return c.isalpha() or is_mark(c)


def is_lower(c: str) -> bool:
    return is_letter(c) and not c.isupper()


def is_upper(c: str) -> bool:
    return is_letter(c) and not c.islower()


def is_digit(c: str) -> bool:
    return "0" <= c <= "9"


def is_icon(c: str) -> bool:
    return unicodedata.category(c) == "So"


def prefix(chunk: str) -> int:
    """Length of the prefix; 0 without one."""
    first = chunk[0]
    if first in "§%=—–" or first in lexicon.PUNCT or first in lexicon.QUOTES or is_icon(first):
        return 1
    if first == "+":
        return int(not (len(chunk) > 1 and is_digit(chunk[1])))
    if chunk.startswith(".."):
        return len(chunk) - len(chunk.lstrip("."))
    return max((len(sign) for sign in lexicon.CURRENCY if chunk.startswith(sign)), default=0)


def suffix(chunk: str) -> int:
    """Length of the suffix; 0 without one."""
    if not chunk:
        return 0
    last, head = chunk[-1], chunk[:-1]
    lengths = [0]
    if last in lexicon.PUNCT or last in lexicon.QUOTES or is_icon(last) or last in "—–":
        lengths.append(1)
    lengths += [2 for end in ("……", "'s", "'S", "’s", "’S") if chunk.endswith(end)]
    if chunk.endswith(".."):
        lengths.append(len(chunk) - len(chunk.rstrip(".")))
    if last == "+" and head and is_digit(head[-1]):
        lengths.append(1)
    for end in (*lexicon.CURRENCY, *lexicon.UNITS):
        before = chunk.removesuffix(end)
        if before != chunk and before and is_digit(before[-1]):
            lengths.append(len(end))
    if last == "." and head:
        if (
            is_lower(head[-1])
            or is_digit(head[-1])
            or head[-1] in "%²-+|"
            or head[-1] in lexicon.PUNCT
            or head[-1] in lexicon.QUOTES
        ):
            lengths.append(1)
        if len(head) > 1 and ((is_upper(head[-2]) and is_upper(head[-1])) or (head[-2] == "°" and head[-1] in "CFKcfk")):
            lengths.append(1)
    return max(lengths)


def cut_at_infixes(chunk: str) -> list[str]:
    words, start, at = [], 0, 0
    while at < len(chunk):
        length = infix(chunk, at)
        if length and at > 0:
            words += [chunk[start:at], chunk[at : at + length]]
            start = at + length
        at += length or 1
    return [word for word in (*words, chunk[start:]) if word]


DOTS = re.compile(r"\.\.+")


def infix(chunk: str, at: int) -> int:
    """Length of the infix at a place; 0 without one."""
    c = chunk[at]
    if dots := DOTS.match(chunk, at):
        return len(dots[0])
    if c == "…" or is_icon(c):
        return 1
    if at == 0:
        return 0
    before = chunk[at - 1]

    def meets(length: int, left: bool, right: Any) -> int:
        after = chunk[at + length : at + length + 1]
        return length if left and after and right(after) else 0

    if c in "+-*^" and meets(1, is_digit(before), lambda after: is_digit(after) or after == "-"):
        return 1
    if c == ".":
        return meets(1, is_lower(before) or before in lexicon.QUOTES, lambda after: is_upper(after) or after in lexicon.QUOTES)
    if c == ",":
        return meets(1, is_letter(before), is_letter)
    if c in ":<>=/":
        return meets(1, is_letter(before) or is_digit(before), is_letter)
    hyphens = (hyphen for hyphen in lexicon.HYPHENS if chunk.startswith(hyphen, at))
    return max((meets(len(hyphen), is_letter(before) or is_digit(before), is_letter) for hyphen in hyphens), default=0)


SCHEME = re.compile(r"[\w+.-]{2,}://")
REST = re.compile(r"(:[0-9]{2,5})?([/?#].*)?", re.DOTALL)
LABEL = re.compile("[A-Za-z0-9\u00a1-\uffff]([A-Za-z0-9\u00a1-\uffff_-]*[A-Za-z0-9\u00a1-\uffff])?")


def is_url(chunk: str) -> bool:
    scheme = SCHEME.match(chunk)
    starts = [0, scheme.end() if scheme else 0]
    starts += [at + 1 for at, c in enumerate(chunk) if c == "@" and at > 0]
    return any(is_host_and_rest(chunk[start:]) for start in starts)


def is_host_and_rest(text: str) -> bool:
    host = re.split("[:/?#]", text)[0]
    return is_host(host) and REST.fullmatch(text[len(host) :]) is not None


def is_host(host: str) -> bool:
    *labels, last = host.split(".")
    if len(labels) == 3 and all(re.fullmatch("[0-9]{1,3}", label) and int(label) <= 255 for label in (*labels, last)):
        return True
    return bool(labels) and len(last) >= 2 and all(map(is_lower, last)) and all(LABEL.fullmatch(label) for label in labels)


def words_without_spaces(chunk: str) -> list[str]:
    starts: list[int] = []
    state = ""  # what the last word is; "" where nothing goes on with it
    for i, c in enumerate(chunk):
        joins, state = joins_word(c, chunk[max(i - 1, 0) : i], chunk[i + 1 : i + 3], state)
        if not joins or i == 0:
            starts.append(i)
    return [chunk[start:end] for start, end in zip(starts, [*starts[1:], len(chunk)], strict=True)]


def joins_word(c: str, before: str, after: str, state: str) -> tuple[bool, str]:
    """(whether a character goes on with the word before it, what the word is then)."""
    if is_mark(c) or unicodedata.category(c) == "Cf":
        return True, "run" if not before else "" if state == "dots" else state
    if within(c, lexicon.HAN):
        return False, ""
    if c in lexicon.KANA_MARKS:
        return (True, state) if state in ("hiragana", "katakana") else (False, "katakana")
    if within(c, lexicon.HIRAGANA):
        return state == "hiragana", "hiragana"
    if within(c, lexicon.KATAKANA):
        return state == "katakana", "katakana"
    if c.isalpha() and within(c, lexicon.CLUSTERS):
        follows = c in lexicon.FOLLOWING
        stacked = bool(before) and (before in lexicon.LEADING or before in "\u17d2\u1039")
        closes = within(c, lexicon.BURMESE) and after.startswith(("\u103a", "\u1037\u103a"))
        return stacked or (state == "cluster" and (follows or closes)), "cluster"
    if c in lexicon.TSHEG:
        return state == "run", ""
    if c.isalnum():
        return state == "run", "run"
    if c == ".":
        return state == "dots", "dots"
    return False, ""
