"""Shingles, signatures and components, each against sets and loops of plain Python."""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from near_oracle import Rule, base, components, groups, jaccard

from curate.kernels.components import NONE, bucket_edges
from curate.kernels.components import components as connected
from curate.kernels.minhash import band_keys, permutations
from curate.kernels.shingles import folding, shingle_sets
from curate.kernels.words import offsets_and_bytes
from curate.testing import hostile_texts

# letters and marks of many scripts, digits of several, what separates and what only looks as if it did
TRICKY = (
    "aaab Z é É ñ ß ﬁ İ ı ŉ Ǆ Å K Ω µ ά Ή ϓ ς Σ й Ё ѷ ѓ Ж \u0301 \u0308 \u0345 \u0483 \u0488 0 1 29 ٣ ५ ② ² Ⅷ ½ "
    "中 国 〇 々 か が \u3099 ー ﾞ ゛ ไ ท ย ิ ่ เ ၁ က ် ក ្ ꙮ ག ་ अ ि ् ी ع \u064b ـ א ב 한 ᄀ ᅡ 😀 \ufe0f \u200d \u200b \u00ad "
    "\u00a0 \u3000 \u2028 . , - _ ' ’ 。 、 \n \t \x00 \x01 \x1c \U00010400 \U0001d400 \U00020000 \U0002fa1d \U00031350 "
    "\U00033479 \U00033480 \U0003fffd \U000e0100 \U000e0041 \U000f0000 \U0010ffff"
).split(" ")
MIXED = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("".join(TRICKY) + " "))
TEXTS = st.lists(MIXED | st.text(st.sampled_from("ab é1中 .")) | st.none(), max_size=6)
RULES = st.builds(
    Rule,
    ngram=st.integers(1, 6),
    unit=st.sampled_from(["word", "char"]),
    lowercase=st.booleans(),
    strip_accents=st.booleans(),
    fold_digits=st.booleans(),
    strip_punctuation=st.booleans(),
)


def fold_of(rule: Rule):
    return folding(rule.lowercase, rule.strip_accents, rule.fold_digits, rule.strip_punctuation)


def place(texts: Sequence[str | None]):
    return offsets_and_bytes(pa.array([t or "" for t in texts], pa.string()))


def sets_of(texts: Sequence[str | None], rule: Rule) -> list[list[int]]:
    bounds, hashes = shingle_sets(*place(texts), fold_of(rule), rule.ngram, rule.unit)
    assert bounds[0] == 0 and bounds[-1] == len(hashes) and len(bounds) == len(texts) + 1
    return [hashes[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def same_shingles(texts: Sequence[str | None], rule: Rule) -> None:
    """Distinct shingles in the order of their first place, one hash for each and one shingle for each hash."""
    meaning: dict[int, object] = {}
    hash_of: dict[object, int] = {}
    for text, found in zip(texts, sets_of(texts, rule), strict=True):
        expected = list(dict.fromkeys(rule.sequence(text, fold=True)))
        assert len(found) == len(expected), (text, rule, expected[:20])
        for number, shingle in zip(found, expected, strict=True):
            assert meaning.setdefault(number, shingle) == shingle, (text, rule)
            assert hash_of.setdefault(shingle, number) == number, (text, rule)


# --------------------------------------------------------------------------------------------- the oracle itself


def words(text: str, **options: bool) -> list[str]:
    return [word for word, _ in Rule(**options).words(text, fold=True)]


def test_the_oracle_knows_words():
    assert words("Naïve café—ΆΛΦΑ Ёлка, it's") == ["naive", "cafe", "αλφα", "елка", "it", "s"]
    assert words("e\u0301te\u0301 İstanbul") == ["ete", "istanbul"]
    assert words("हिन्दी में") == ["हिन्दी", "में"]  # vowel signs and virama are kept
    assert words("كِتَابٌ") == ["كِتَابٌ"] and words("อยู่") == ["อ", "ยู่"]
    assert words("我们ok吗") == ["我", "们", "ok", "吗"]
    assert words("が") == ["が"] and words("か\u3099") == ["か\u3099"]
    assert words("2021-03 a10b ٣٤") == ["0", "0", "a0b", "0"]
    assert words("2021-03", fold_digits=False) == ["2021", "03"]
    assert words("Don't, café", strip_punctuation=False, strip_accents=False, lowercase=False) == ["Don't,", "café"]
    assert words("...\n\t") == [] == words("")


def test_the_oracle_agrees_with_python_on_western_words():
    import re

    text = "The quick_brown fox; jumps (over) 13 lazy dogs. Straße und Müll, ﬁn, Ωμέγα!"
    rule = Rule(strip_accents=False, lowercase=False)
    assert [word for word, _ in rule.words(text)] == re.findall(r"\w+", text)


def test_the_oracle_knows_characters():
    rule = Rule(unit="char", ngram=3)
    assert rule.sequence(" Ab,  cd! ") == ["ab ", "b c", " cd"]
    assert rule.sequence("a中 国") == ["a中 ", "中 国"]
    assert rule.sequence("ab") == []


def test_the_oracle_strips_accents_of_three_scripts_only():
    changed = {c for c in map(chr, range(0x10000)) if not "\ud800" <= c <= "\udfff" and base(c) != c}
    scripts = {unicodedata.name(c).split(" ")[0] for c in changed if base(c)}
    assert scripts == {"LATIN", "GREEK", "CYRILLIC", "ANGSTROM", "KELVIN", "OHM"}
    assert all("\u0300" <= c <= "\u036f" or "\u0483" <= c <= "\u0487" for c in changed if not base(c))


# --------------------------------------------------------------------------------------------- shingles


@given(TEXTS, RULES)
@settings(max_examples=40)
def test_shingles_are_those_of_the_definition(texts, rule):
    same_shingles(texts, rule)


@given(st.lists(st.lists(st.sampled_from([*TRICKY, " "]), max_size=30), max_size=5), RULES)
@settings(max_examples=40)
def test_shingles_of_tricky_characters(parts, rule):
    same_shingles(["".join(part) for part in parts], rule)


@pytest.mark.parametrize("unit, on", [("word", True), ("word", False), ("char", False)])
def test_shingles_of_hostile_texts(unit, on):
    """Every plane, controls, empty and null, a word of 1 MB, scripts without spaces."""
    rule = Rule(unit=unit, ngram=3, lowercase=on, strip_accents=on, fold_digits=on, strip_punctuation=on)
    same_shingles(hostile_texts(), rule)


@pytest.mark.parametrize("options", [{}, {"strip_accents": False}, {"lowercase": False}, {"strip_punctuation": False}])
def test_every_character_of_unicode(options):
    """Each between letters, alone, behind an ideograph, and doubled: what it becomes shows in the shingles of one word."""
    rule = Rule(ngram=1, **options)
    points = [*range(0xD800), *range(0xE000, 0x34000), *range(0xE0000, 0xE0200), *range(0x10FFF0, 0x110000)]
    step = 17 if options else 4  # beyond the alphabets
    points = points[:0x3200] + points[0x3200:0xA000:97] + points[0xA000::step]
    texts = [f"x{c}y {c} 中{c}z {c}{c}" for c in map(chr, points)]
    wrong = []
    hash_of: dict[object, int] = {}
    for point, text, found in zip(points, texts, sets_of(texts, rule), strict=True):
        expected = list(dict.fromkeys(rule.sequence(text, fold=True)))
        if len(found) != len(expected) or any(
            hash_of.setdefault(shingle, number) != number for number, shingle in zip(found, expected, strict=True)
        ):
            wrong.append(hex(point))
    assert not wrong, (len(wrong), wrong[:20])
    assert len(set(hash_of.values())) == len(hash_of)


def test_words_that_hash_alike_if_bytes_are_packed_carelessly():
    """Lengths around the eight bytes of a machine word, zeros at the end, characters whose bytes are other characters."""
    alphabet = "a \x00 \x01 \u0100 \u4e00 a\x00 \U00010000 \U00010061 é N- \u4e2d \x00N-".split(" ")
    parts = ["".join(p) for n in range(1, 4) for p in itertools.product(alphabet, repeat=n)]
    parts += [c * n for c in ("a", "\x00", "é", "ж", "\U00010061") for n in range(1, 40)]
    parts += ["a" * n + c + "a" * m for n in range(12) for m in range(12) for c in ("b", "ж", "\x00", "\U0001d400")]
    rule = Rule(ngram=1, strip_punctuation=False, strip_accents=False, lowercase=False, fold_digits=False)
    same_shingles(parts, rule)
    same_shingles(parts, Rule(ngram=2, unit="char", strip_punctuation=False, strip_accents=False, lowercase=False))


def test_order_and_place_of_words_matter():
    rule = Rule(ngram=3)
    texts = ["a b c", "a c b", "b a c", "ab c d", "a bc d", "abc d e", "a a a", "a a a a a", "b b b", "c b a"]
    same_shingles(texts, rule)
    assert [len(found) for found in sets_of(texts, rule)] == [1] * len(texts)


@pytest.mark.parametrize("unit", ["word", "char"])
def test_shingles_of_a_sequence_made_against_polynomial_hashes(unit):
    """Thue and Morse's sequence and its complement: when they are long, no polynomial modulo a power of two can tell."""
    at = [bin(i).count("1") & 1 for i in range(512)]
    gap = " " if unit == "word" else ""
    texts = [gap.join("ab"[bit ^ flip] for bit in at) for flip in (0, 1)]
    for n in (4, 16, 64):
        same_shingles(texts, Rule(ngram=n, unit=unit))


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_slices_of_arrays_are_read_in_place(seed, n):
    rng = random.Random(seed)
    texts = [" ".join(rng.choices("abcdefg", k=rng.randrange(30))) for _ in range(6)]
    rule = Rule(ngram=n)
    whole = sets_of(texts, rule)
    cut = pa.array(texts, pa.string()).slice(2, 3)
    bounds, hashes = shingle_sets(*offsets_and_bytes(cut), fold_of(rule), n, "word")
    assert [hashes[a:b].tolist() for a, b in itertools.pairwise(bounds)] == whole[2:5]


@pytest.mark.parametrize(
    "unit, text", [("word", "x" * 1_000_000), ("word", "abcdefgh " * 111_000), ("char", "中é12345 " * 80_000)]
)
def test_very_long_texts(text, unit):
    same_shingles(["a b c d e f", text, "a b c d e f", " " * len(text)], Rule(unit=unit, ngram=5))


def test_many_random_shingles_have_as_many_hashes():
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, row)) for row in rng.integers(0, 50, (300, 400))]
    rule = Rule(ngram=2, fold_digits=False)
    found = sets_of(texts, rule)
    expected = [rule.shingles(t) for t in texts]
    assert list(map(len, found)) == list(map(len, expected))
    assert len({h for f in found for h in f}) == len(frozenset().union(*expected))
    for i, j in rng.integers(0, 300, (200, 2)):
        assert jaccard(set(found[i]), set(found[j])) == jaccard(expected[i], expected[j])


# --------------------------------------------------------------------------------------------- signatures


def keys_of(texts, rule, bands, rows, seed=1):
    return band_keys(*place(texts), fold_of(rule), rule.ngram, rule.unit, bands, rows, seed)


def minima(texts, rule, bands, rows, seed=1) -> np.ndarray:
    """(texts, bands, rows): the minima of the permutations, over the sets of shingles."""
    factors, summands = permutations(bands * rows, seed)
    found = np.zeros((len(texts), bands * rows), np.uint32)
    for at, hashes in enumerate(sets_of(texts, rule)):
        upper = (np.array(hashes, np.uint64) >> np.uint64(32)).astype(np.uint32)
        for k in range(bands * rows if len(upper) else 0):
            found[at, k] = (upper * factors[k] + summands[k]).min()
    return found.reshape(len(texts), bands, rows)


def mutated(rng: random.Random, n: int, size: int = 60) -> list[str]:
    """Texts of which many are near each other."""
    found: list[list[str]] = []
    for _ in range(n):
        if found and rng.random() < 0.7:
            tokens = list(rng.choice(found))
            for _ in range(rng.randrange(4)):
                if tokens:
                    tokens[rng.randrange(len(tokens))] = f"w{rng.randrange(2000)}é"
        else:
            tokens = [f"w{rng.randrange(2000)}" for _ in range(rng.choice([0, 3, size, size + 1, size * 3]))]
        found.append(tokens)
    return [" ".join(tokens) for tokens in found]


@pytest.mark.parametrize("bands, rows", [(14, 8), (20, 13), (3, 1), (1, 3), (64, 1), (5, 4)])
@pytest.mark.parametrize("unit", ["word", "char"])
def test_keys_are_equal_where_the_minima_of_a_band_are(bands, rows, unit):
    rule = Rule(ngram=3, unit=unit)
    texts = mutated(random.Random(bands), 60)
    keys, counts = keys_of(texts, rule, bands, rows)
    assert keys.shape == (len(texts), bands) and keys.dtype == np.uint64
    assert counts.tolist() == [len(rule.sequence(t, fold=True)) for t in texts]
    rows_of_band = minima(texts, rule, bands, rows)
    some = counts > 0
    assert not keys[~some].any() and keys[some].all()
    same = (rows_of_band[:, None] == rows_of_band[None]).all(-1)
    assert ((keys[:, None] == keys[None])[some][:, some] == same[some][:, some]).all()
    assert same[some][:, some].any() and not same[some][:, some].all()
    every = [frozenset(column[some].tolist()) for column in keys.T]
    assert not any(a & b for a, b in itertools.combinations(every, 2)), "keys of two bands are sorted together"


def test_a_key_depends_on_nothing_but_its_text():
    rule = Rule()
    texts = ["", *mutated(random.Random(1), 40), "x", "x" * 100_000]
    keys, counts = keys_of(texts, rule, 14, 8)
    for at, text in enumerate(texts):
        alone, count = keys_of([text], rule, 14, 8)
        assert (alone[0] == keys[at]).all() and count[0] == counts[at]
    back, _ = keys_of(texts[::-1], rule, 14, 8)
    assert (back[::-1] == keys).all()


def test_seeds_give_other_keys():
    texts = mutated(random.Random(2), 10)
    a, counts = keys_of(texts, Rule(), 14, 8, seed=1)
    b, _ = keys_of(texts, Rule(), 14, 8, seed=2)
    assert (a[counts > 0] != b[counts > 0]).all()


def test_permutations_are_one_to_one_and_differ():
    for count in (1, 7, 112, 9000):
        factors, summands = permutations(count, 1)
        assert factors.dtype == summands.dtype == np.uint32 and len(factors) == len(summands) == count
        assert (factors & 1).all() and len(np.unique(factors)) > count * 0.999
        again = permutations(count, 1)
        assert (again[0] == factors).all() and (again[1] == summands).all()


def test_repeats_change_nothing():
    once = "one two three four five six"
    keys, counts = keys_of([once, once + " " + once, "one two three four five six one"], Rule(ngram=1), 14, 8)
    assert counts.tolist() == [6, 12, 7] and (keys == keys[0]).all()


@pytest.mark.parametrize("s", [0.3, 0.5, 0.8])
def test_the_share_of_equal_minima_is_the_similarity(s):
    """An unbiased estimate: 400 pairs and 128 permutations each; four standard errors."""
    rng = random.Random(int(s * 100))
    pairs, total = 400, 60
    shared = round(total * s)
    texts = []
    for _ in range(pairs):
        names = [f"{rng.getrandbits(40):x}q" for _ in range(total)]
        common, apart = names[:shared], names[shared:]
        half = len(apart) // 2
        texts += [" ".join([*common, *apart[:half]]), " ".join([*common, *apart[half:]])]
    rule = Rule(ngram=1, fold_digits=False)
    found = minima(texts, rule, 128, 1)[:, :, 0]
    keys, _ = keys_of(texts, rule, 128, 1)
    assert ((found[0::2] == found[1::2]) == (keys[0::2] == keys[1::2])).all()
    share = (keys[0::2] == keys[1::2]).mean(1)
    error = np.sqrt(s * (1 - s) / 128 / pairs)
    assert abs(share.mean() - s) < 4 * error, (share.mean(), s)
    assert 0.7 < share.var() / (s * (1 - s) / 128) < 1.4  # permutations that depend on each other would vary more


# --------------------------------------------------------------------------------------------- components


def test_components_of_the_oracle():
    assert components(6, [(1, 2), (4, 2), (3, 3)]) == [0, 1, 1, 3, 1, 5]
    assert groups([None, 7, None, 7, 3]) == [[1, 3]]


NOTHING = int(NONE)
EDGES = st.integers(1, 60).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=80))
)


SMALLEST = 1024  # documents of a range out of core: nodes are spread, so that few of them share one


def labels_of(
    n: int, edges: Sequence[tuple[int, int]], memory: int, folder: Path, chunk: int = 7, ranges: int = 1
) -> list[int]:
    """All labels, of edges in chunks; the ranges must follow each other, be many enough, and leave nothing behind."""
    ends = np.array([(min(e), max(e)) for e in edges], np.uint64).reshape(-1, 2)
    chunks = [(ends[i : i + chunk, 0].copy(), ends[i : i + chunk, 1].copy()) for i in range(0, len(ends), chunk)]
    found: list[np.ndarray] = []
    for first, labels in connected(lambda: iter(chunks), n, memory, folder):
        assert first == sum(map(len, found)) and labels.dtype == np.uint64
        found.append(labels)
    assert len(found) >= ranges and not any(folder.iterdir())
    return np.concatenate([*found, np.empty(0, np.uint64)]).tolist()


def expected_labels(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    touched = {end for edge in edges for end in edge}
    return [label if at in touched else NOTHING for at, label in enumerate(components(n, edges))]


def agree(n: int, edges: Sequence[tuple[int, int]], folder: Path) -> None:
    """The same labels in one range as out of core, where each range holds but a few nodes."""
    expected = expected_labels(n, edges)
    assert labels_of(n, edges, 1 << 30, folder) == expected
    for within in (1, 3, 50):
        apart = SMALLEST // within
        spread = [(a * apart, b * apart) for a, b in edges]
        found = labels_of(n * apart, spread, 1, folder, chunk=13, ranges=n // within)
        assert [label if label == NOTHING else label // apart for label in found[::apart]] == expected, within
        assert sum(label != NOTHING for label in found) == sum(label != NOTHING for label in expected)


@given(EDGES)
@settings(max_examples=25)
def test_components_whatever_the_memory(tmp_path_factory, graph):
    n, edges = graph
    agree(n, [(a, b) for a, b in edges if a != b], tmp_path_factory.mktemp("graph"))


@pytest.mark.parametrize("shape", ["path", "path from both ends", "star", "comb", "random", "pairs across", "one component"])
@pytest.mark.parametrize("order", ["given", "shuffled", "backwards"])
def test_components_of_hard_graphs_out_of_core(shape, order, tmp_path):
    n = 100
    rng = random.Random(shape)
    edges = {
        "path": [(i, i + 1) for i in range(n - 1)],
        "path from both ends": [(i, n - 1 - i) for i in range(n // 2)] + [(i + 1, n - 1 - i) for i in range(n // 2 - 1)],
        "star": [(i, n - 1) for i in range(n - 1)],
        "comb": [(i, i + 25) for i in range(75)] + [(25, 26)],
        "random": [(rng.randrange(n), rng.randrange(n)) for _ in range(n // 2)],
        "pairs across": [(i, i + n // 2) for i in range(n // 2)],
        "one component": [tuple(rng.sample(range(n), 2)) for _ in range(5 * n)],
    }[shape]
    edges = [e for e in edges if e[0] != e[1]]
    if order == "shuffled":
        rng.shuffle(edges)
    elif order == "backwards":
        edges.reverse()
    agree(n, edges, tmp_path)


def test_components_of_nothing(tmp_path):
    assert labels_of(0, [], 1 << 20, tmp_path) == []
    assert labels_of(5, [], 1 << 20, tmp_path) == [NOTHING] * 5
    assert labels_of(5000, [], 1, tmp_path, ranges=4) == [NOTHING] * 5000


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=60), st.integers(0, 31))
def test_a_bucket_is_tied_together_by_few_edges(pairs, own):
    """Equal keys are one component, documents before `own` are those of an index and are not tied to each other alone."""
    pairs = list(dict.fromkeys(pairs))
    keys = np.array([k for k, _ in pairs], np.uint64)
    documents = np.array([d for _, d in pairs], np.uint64)
    low, high = bucket_edges(keys.copy(), documents.copy(), own)
    assert low.dtype == high.dtype == np.uint64
    edges = list(zip(low.tolist(), high.tolist(), strict=True))
    assert all(a < b for a, b in edges)
    buckets: dict[int, list[int]] = {}
    for key, document in pairs:
        buckets.setdefault(key, []).append(document)
    counted = {k: sorted(d) for k, d in buckets.items() if min(d) < own}
    assert sorted(edges) == sorted((d[0], other) for d in counted.values() for other in d[1:])
