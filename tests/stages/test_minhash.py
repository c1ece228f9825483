"""minhash against sets and loops: what it proposes, what it decides, and which one stays."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpus import write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from near_oracle import Rule, Verdict, components, contained, groups, jaccard, preferred, resolve

from curate import near, testing
from curate.errors import BlastRadiusError, ColumnError, CurateError, RecipeError
from curate.memory import as_table
from curate.recipe import loads
from curate.run import Run, run
from curate.stage import Task
from curate.stages.minhash import MinHash
from curate.testing import run_over

EVERYTHING = {"bands": 64, "rows": 1}  # proposes nearly every pair that has anything in common


# --------------------------------------------------------------------------------------------- helpers


def rule_of(stage: MinHash) -> Rule:
    return Rule(**{f.name: getattr(stage, f.name) for f in dataclasses.fields(Rule)})


def proposed(stage: MinHash, table: pa.Table) -> list[list[int]]:
    """Rows of the components that the stage starts from."""
    plain = dataclasses.replace(stage, verify="off", containment="off", mode="label", prefer="first")
    found = groups(run_over(plain, table).rows["duplicate_cluster"].to_pylist())
    return sorted(map(sorted, found))


def decided(stage: MinHash, table: pa.Table) -> Verdict:
    """What the definition makes of the components."""
    texts = table["text"].to_pylist()
    sets = {text: rule_of(stage).shingles(text) for text in set(texts)}
    shingles = [sets[text] for text in texts]
    order = preferred(table.to_pylist(), stage.prefer)
    verify = None if stage.verify == "off" else stage.verify
    return resolve(proposed(stage, table), shingles, order, verify, stage.verify_sample)


def dropped(outcome: testing.Outcome, table: pa.Table) -> dict[int, tuple[int, float | None]]:
    """{row: (row that stays, similarity)}; ids must be unique."""
    row_of = {name: row for row, name in enumerate(table["id"].to_pylist())}
    assert len(row_of) == len(table)
    drops = outcome.drops.to_pylist()
    assert {d["_reason"] for d in drops} <= {"minhash.duplicate"}
    return {d["_row"]: (row_of[d["_duplicate_of"]], d["_similarity"]) for d in drops}


def same_as_oracle(stage: MinHash, table: pa.Table, shards: int = 1, batch: int = 1024) -> Verdict:
    expected = decided(stage, table)
    found = dropped(run_over(stage, table, shards=shards, batch=batch), table)
    assert {row: leader for row, (leader, _) in found.items()} == expected.leader
    for row, (leader, similarity) in found.items():
        assert leader not in found, "a document that went is not what another one was kept for"
        wanted = expected.similarity[row]
        assert similarity == wanted if wanted is None else similarity == pytest.approx(wanted, abs=1e-12)
    return expected


def near_texts(rng: random.Random, n: int, size: int = 40, vocabulary: int = 400) -> list[str | None]:
    """Texts of families: members differ by words put in, left out or changed, by numbers, and by their ends."""
    found: list[list[str]] = []
    for _ in range(n):
        if not found or rng.random() < 0.3:
            length = rng.choice([0, 2, 4, 5, 6, size, size, size * 3])
            tokens = [f"w{rng.randrange(vocabulary)}" for _ in range(length)]
        else:
            tokens = list(rng.choice(found))
            for _ in range(rng.choice([0, 1, 1, 2, 4, 9])):
                at = rng.randrange(len(tokens) + 1)
                tokens[at : at + rng.choice([0, 1, 1, 3])] = rng.choice(
                    [[], [str(rng.randrange(99))], [f"w{rng.randrange(99)}"]]
                )
        found.append(tokens)
    texts: list[str | None] = [" ".join(tokens) for tokens in found]
    for row in range(0, n, 17):
        texts[row] = None
    return texts


def table_of(texts: Sequence[str | None], rng: random.Random | None = None, **columns: Any) -> pa.Table:
    """Documents with ids in no order, some of them shorter."""
    rng = rng or random.Random(0)
    names = rng.sample(range(10 * len(texts) + 10), len(texts))
    given = {"id": [f"d{name}" for name in names], "text": pa.array(texts, pa.string()), **columns}
    return as_table(pa.table(given))


def permuted(table: pa.Table, seed: int) -> pa.Table:
    order = list(range(len(table)))
    random.Random(seed).shuffle(order)
    return table.take(order)


# --------------------------------------------------------------------------------------------- decisions

LETTERS = st.lists(st.text("abcde 1.", max_size=14).map(lambda t: " ".join(t)), max_size=12)
SIMILARITIES = st.sampled_from([0.01, 0.2, 0.25, 1 / 3, 0.5, 0.6, 0.7, 0.75, 0.8, 1.0]) | st.floats(0.01, 1)


@given(
    LETTERS,
    SIMILARITIES | st.just("off"),
    st.integers(1, 3),
    st.sampled_from(["word", "char"]),
    st.sampled_from(["first", "longest"]),
    st.sampled_from([(64, 1), (3, 1), (4, 2)]),
    st.integers(1, 4),
)
@settings(max_examples=30)
def test_decisions_are_those_of_the_definition(texts, verify, ngram, unit, prefer, shape, shards):
    bands, rows = shape
    stage = MinHash(ngram=ngram, unit=unit, verify=verify, prefer=prefer, bands=bands, rows=rows)
    same_as_oracle(stage, table_of(texts), shards=shards, batch=5)


@pytest.mark.parametrize("seed", range(6))
def test_decisions_in_larger_corpora(seed):
    rng = random.Random(seed)
    table = table_of(near_texts(rng, 150, vocabulary=rng.choice([60, 400])), rng)
    unit, ngram = rng.choice([("word", 5), ("word", 2), ("char", 6)])
    options: dict[str, Any] = {"unit": unit, "ngram": ngram, **rng.choice([{}, EVERYTHING])}
    verify = rng.choice([0.3, 0.5, 0.7, 0.9])
    verdict = same_as_oracle(MinHash(verify=verify, **options), table)
    assert len(verdict.leader) > 10
    assert same_as_oracle(MinHash(verify="off", **options), table).leader.keys() >= verdict.leader.keys()


def test_a_similarity_that_is_just_reached():
    """Seven of ten, three of five, …: as close to the threshold as one can be, on both sides."""
    for both, one in ((7, 3), (3, 2), (9, 1), (1, 1), (5, 15), (11, 4), (29, 71)):
        a = [f"s{i}" for i in range(both)]
        texts = [" ".join(a), " ".join(a + [f"t{i}" for i in range(one)])]
        value = both / (both + one)
        for verify, gone in ((value, True), (math.nextafter(value, 2), False), (math.nextafter(value, 0), True)):
            found = MinHash(ngram=1, verify=verify, **EVERYTHING, fold_digits=False)(texts).dropped
            assert found["id"].to_pylist() == (["1"] if gone else []), (both, one, verify)
            assert found["_similarity"].to_pylist() == ([value] if gone else [])


@given(st.integers(0, 10**6))
@settings(max_examples=15)
def test_proposals_are_sound(seed):
    """What has the same shingles is always proposed, and no component holds what has no chain of common shingles."""
    rng = random.Random(seed)
    table = table_of(near_texts(rng, 60, size=20, vocabulary=200), rng)
    stage = MinHash(ngram=rng.choice([2, 5]), **rng.choice([{}, EVERYTHING, {"bands": 1, "rows": 30}]))
    folded = [rule_of(stage).shingles(text, fold=True) for text in table["text"].to_pylist()]
    label = {row: at for at, rows in enumerate(proposed(stage, table)) for row in rows}
    pairs = [(a, b) for b in range(len(folded)) for a in range(b)]
    for a, b in pairs:
        if folded[a] and folded[a] == folded[b]:
            assert label[a] == label[b]
    touching = components(len(folded), [(a, b) for a, b in pairs if folded[a] & folded[b]])
    for rows in proposed(stage, table):
        assert len({touching[row] for row in rows}) == 1


# --------------------------------------------------------------------------------------------- collisions


def planted(rng: random.Random, pairs: int, shared: int, apart: int) -> list[str]:
    """Pairs of texts with `shared` words in common and `apart` each of their own; no word stands in two pairs."""
    texts = []
    for _ in range(pairs):
        words = [f"{rng.getrandbits(60):x}" for _ in range(shared + 2 * apart)]
        common = words[:shared]
        texts += [" ".join(common + words[shared : shared + apart]), " ".join(words[shared + apart :] + common)]
    return texts


@pytest.mark.parametrize("bands, rows", [(14, 8), (20, 13)])
def test_the_collision_curve(bands, rows):
    """1 - (1 - s^rows)^bands of the pairs with similarity s become candidates, within four standard errors."""
    pairs, size = 2000, 30
    stage = MinHash(ngram=1, bands=bands, rows=rows, verify="off", mode="label", fold_digits=False)
    for common in (15, 20, 22, 24, 26, 28):
        apart = size - common
        s = common / (common + 2 * apart)
        expected = 1 - (1 - s**rows) ** bands
        labels = stage(planted(random.Random(common), pairs, common, apart)).kept["duplicate_cluster"].to_pylist()
        together = [a is not None and a == b for a, b in zip(labels[0::2], labels[1::2], strict=True)]
        assert sum(label is not None for label in labels) == 2 * sum(together), "only planted pairs meet"
        error = math.sqrt(expected * (1 - expected) / pairs)
        assert abs(np.mean(together) - expected) <= 4 * error + 1 / pairs, (s, np.mean(together), expected)


# --------------------------------------------------------------------------------------------- independence


def with_scores(texts: Sequence[str | None], rng: random.Random) -> pa.Table:
    n = len(texts)
    dates = [rng.choice([None, f"2026-0{rng.randint(1, 9)}-11T00:00:00Z"]) for _ in range(n)]
    scores = [rng.choice([None, math.nan, 0.0, -0.0, 1.5, -2.0, math.inf, rng.random()]) for _ in range(n)]
    return table_of(texts, rng, date=pa.array(dates, pa.string()), quality=pa.array(scores, pa.float64()))


@pytest.mark.parametrize("prefer", ["first", "longest", "newest", "quality"])
@pytest.mark.parametrize("verify", [0.6, "off"])
def test_which_one_stays(prefer, verify):
    rng = random.Random(prefer)
    table = with_scores(near_texts(rng, 120, vocabulary=80), rng)
    verdict = same_as_oracle(MinHash(ngram=2, verify=verify, prefer=prefer, **EVERYTHING), table, shards=3, batch=13)
    assert len(verdict.leader) > 20


@pytest.mark.parametrize("prefer", ["longest", "newest", "quality"])
@pytest.mark.parametrize("options", [{"containment": 0.6}, {"verify": "off"}, {"verify_sample": 3}])
def test_the_order_of_rows_does_not_matter(prefer, options):
    """By ids: who goes, for whom, and how similar; with the clusters of labels."""
    rng = random.Random(7)
    table = with_scores(near_texts(rng, 200, vocabulary=60), rng)
    stage = MinHash(ngram=2, **{"verify": 0.6, "prefer": prefer, **EVERYTHING, **options})

    def drops(given: pa.Table, shards: int) -> dict[str, Any]:
        ids = given["id"].to_pylist()
        return {ids[d.pop("_row")]: d for d in run_over(stage, given, shards=shards, batch=64).drops.to_pylist()}

    def clusters(given: pa.Table, shards: int) -> set[frozenset[str]]:
        labelled = run_over(dataclasses.replace(stage, mode="label"), given, shards=shards).rows
        ids = given["id"].to_pylist()
        return {frozenset(ids[row] for row in rows) for rows in groups(labelled["duplicate_cluster"].to_pylist())}

    expected = drops(table, 1), clusters(table, 1)
    assert len(expected[0]) > 40
    for seed in range(2):
        other = permuted(table, seed)
        assert (drops(other, seed + 1), clusters(other, seed + 1)) == expected


@pytest.mark.parametrize("options", [{}, {"verify": "off"}, {"containment": 0.5}, {"verify_sample": 2}, {"prefer": "quality"}])
@pytest.mark.parametrize("mode", ["drop", "label"])
def test_shards_batches_and_memory_do_not_matter(options, mode, monkeypatch):
    rng = random.Random(3)
    table = with_scores(near_texts(rng, 250, vocabulary=60), rng)
    stage = MinHash(mode=mode, **{"ngram": 2, "verify": 0.5, "bands": 8, "rows": 2, **options})
    first = run_over(stage, table)
    monkeypatch.setattr(near, "LEAST", 1 << 12)
    assert len(first.drops) > 50 if mode == "drop" else first.rows["duplicate_of"].null_count < 200
    for memory, shards, batch in ((2 << 30, 4, 7), (1, 1, 1024), (1, 3, 50), (1 << 16, 2, 1024)):
        monkeypatch.setattr(testing, "Task", functools.partial(Task, memory_limit=memory))
        other = run_over(stage, table, shards=shards, batch=batch)
        assert other.rows.equals(first.rows) and other.drops.equals(first.drops), (memory, shards, batch)


@pytest.mark.parametrize("options", [{"containment": 0.7}, {"mode": "label", "verify": "off"}])
def test_partitions_ranges_and_passes_do_not_matter(options, monkeypatch):
    """As if there were far more documents than fit: several partitions of keys and of components, the union-find in ranges,
    several passes over each range of keys, leaders carried from one range of shingles to the next."""
    rng = random.Random(9)
    table = table_of(near_texts(rng, 1500, size=12, vocabulary=900), rng)
    stage = MinHash(**{"ngram": 2, "bands": 16, "rows": 2, "verify": 0.5, **options})
    first = run_over(stage, table)
    monkeypatch.setattr(testing, "Task", functools.partial(Task, memory_limit=1))
    monkeypatch.setattr(near, "LEAST", 1 << 14)
    for documents, shards in ((1500, 1), (500, 4)):
        monkeypatch.setattr(near, "KEYS_PARTITION", documents)
        monkeypatch.setattr(near, "VERIFY_PARTITION", documents // 3)
        steps = {step.name: step.tasks for step in stage.steps(shards, len(table))}
        assert sum(tasks > 1 for tasks in steps.values()) >= (1 if documents == 1500 else 2), steps
        other = run_over(stage, table, shards=shards, batch=100)
        assert other.rows.equals(first.rows) and other.drops.equals(first.drops), documents


BODY = """\
name: near
source: auto
stages:
  - minhash: {ngram: 3, verify: 0.6, bands: 16, rows: 3, mode: label}
    id: label
  - where: {sql: "quality > 0.1"}
  - minhash: {ngram: 3, verify: 0.6, bands: 16, rows: 3, containment: 0.8, prefer: quality}
    max_drop: 1.0
"""


def corpus_in(folder: Path, n: int = 360) -> tuple[Path, pa.Table]:
    """JSONL and Parquet files with near-duplicates across them."""
    rng = random.Random(5)
    table = table_of(near_texts(rng, n, vocabulary=150), rng, quality=[rng.random() for _ in range(n)])
    table = table.select(["id", "text", "quality"])
    third = n // 3
    write_jsonl(folder / "a.jsonl", table.slice(0, third).to_pylist())
    pq.write_table(table.slice(third, third), folder / "b.parquet", row_group_size=50)
    pq.write_table(table.slice(2 * third), folder / "c.parquet")
    return folder, table


def finished(folder: Path, data: Path, body: str, **options: Any) -> Run:
    return run(loads(body).with_inputs([str(data)]), folder, **{"executor": "inline", **options})


def test_runs_agree_whatever_the_workers_and_the_memory(tmp_path):
    data, table = corpus_in(tmp_path / "in")
    first = finished(tmp_path / "one", data, BODY, executor="local", workers=1)
    others = [
        finished(tmp_path / "two", data, BODY, executor="local", workers=2),
        finished(tmp_path / "small", data, BODY, memory_limit=1),
    ]
    for other in others:
        assert other.manifest.digest == first.manifest.digest
        assert other.drops("minhash").equals(first.drops("minhash"))
    first.verify()
    # and what a run drops is what the stage drops in memory
    reached = table.filter((pc.field("quality") > 0.1) & (pc.binary_length(pc.field("text")) > 0))
    alone = MinHash(ngram=3, verify=0.6, bands=16, rows=3, containment=0.8, prefer="quality")(reached).dropped
    expected = {d["id"]: d["_duplicate_of"] for d in alone.to_pylist()}
    found = first.drops("minhash").to_pylist()
    assert len(found) > 30 and {d["id"]: d["_duplicate_of"] for d in found} == expected


# --------------------------------------------------------------------------------------------- no clusters by accident


@pytest.mark.parametrize("verify", [0.01, "off"])
@pytest.mark.parametrize("unit, short", [("word", "one two three four"), ("char", "abcd")])
def test_texts_shorter_than_a_shingle_are_left_alone(verify, unit, short):
    texts = [
        "",
        None,
        short,
        short,
        "",
        None,
        short.upper(),
        "...",
        "...",
        "\n\n",
        "!" * 50,
        "!" * 50,
        "\u0301" * 9,
        "\u0301" * 9,
    ]
    result = MinHash(unit=unit, verify=verify)(texts)
    assert len(result.kept) == len(texts)
    labels = MinHash(unit=unit, verify=verify, mode="label")(texts).kept
    assert labels["duplicate_cluster"].null_count == len(texts) and set(labels["cluster_size"].to_pylist()) == {1}
    assert labels["duplicate_of"].null_count == len(texts)


def test_a_text_of_one_shingle_is_enough():
    texts = ["one two three four five", "One, two; three: four (five)!", "one two three four six"]
    assert MinHash()(texts).dropped["id"].to_pylist() == ["1"]


def test_short_texts_are_counted(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [{"text": t} for t in ["too short", "also too short", "this one is just long enough"]])
    body = "name: s\nsource: auto\nstages: [minhash]\n"
    notes = next(
        s["notes"] for s in finished(tmp_path / "run", tmp_path / "x.jsonl", body).summary["stages"] if s["id"] == "minhash"
    )
    assert list(notes.values()) == [2] and "5 words" in next(iter(notes))


def boilerplate_pages(n: int, own: int) -> list[str]:
    rng = random.Random(1)
    frame = [f"menu{i}" for i in range(60)]
    return [" ".join([*frame, *(f"p{page}x{rng.randrange(10**6)}y" for _ in range(own)), *frame[::-1]]) for page in range(n)]


def test_pages_of_one_site_are_candidates_but_stay():
    """Identical boilerplate around different articles: one component, which verification takes apart."""
    pages = boilerplate_pages(120, 120)
    assert len(proposed(MinHash(**EVERYTHING), as_table(pages))[0]) == 120
    assert len(MinHash(verify="off", **EVERYTHING)(pages).kept) == 1
    assert len(MinHash(**EVERYTHING)(pages).dropped) == 0
    assert len(MinHash(verify_sample=10, **EVERYTHING)(pages).dropped) == 0


def test_pages_that_are_all_boilerplate_go():
    pages = boilerplate_pages(30, 3)
    result = MinHash(**EVERYTHING)(pages)
    assert len(result.kept) == 1 and min(result.dropped["_similarity"].to_pylist()) > 0.7


# --------------------------------------------------------------------------------------------- languages

VOCABULARY = {
    "ar": "كتاب مدرسة الطالب يذهب إلى المدينة الكبيرة صباح جميل مع أصدقاء في طريق الطويل بين الجبال والبحر قديم حديث سوق بيت",
    "fa": "کتاب می‌خواند مدرسه بزرگ شهر زیبا دوست راه کوه دریا خانه صبح امروز فردا مردم زندگی آب باران درخت سبز آسمان آبی",
    "he": "ספר גדול בית ילד הולך אל העיר בבוקר עם חברים בדרך ארוכה בין הרים וים ישן חדש שוק מים שמש עץ ירוק",
    "hi": "किताब विद्यालय बच्चा जाता है शहर बड़ा सुंदर सुबह मित्र रास्ता लंबा पहाड़ समुद्र पुराना नया बाज़ार घर पानी पेड़ हरा",
    "bn": "বই বিদ্যালয় ছেলে যায় শহর বড় সুন্দর সকাল বন্ধু পথ দীর্ঘ পাহাড় সমুদ্র পুরানো নতুন বাজার বাড়ি জল গাছ সবুজ",
    "ta": "புத்தகம் பள்ளி குழந்தை செல்கிறது நகரம் பெரிய அழகான காலை நண்பர் பாதை நீண்ட மலை கடல் பழைய புதிய சந்தை வீடு நீர்",
    "ko": "책 학교 아이는 간다 도시 크고 아름다운 아침 친구와 길 멀리 산과 바다 오래된 새로운 시장 집에서 물을 나무 푸른",
    "el": "βιβλίο σχολείο παιδί πηγαίνει πόλη μεγάλη όμορφη πρωί φίλος δρόμος μακρύς βουνό θάλασσα παλιός νέος αγορά σπίτι",
    "ru": "книга школа ребёнок идёт город большой красивый утро друг дорога длинная гора море старый новый рынок дом вода",
    "vi": "sách trường học đứa trẻ đi thành phố lớn đẹp buổi sáng bạn bè con đường dài núi biển cũ mới chợ nhà nước cây",
    "am": "መጽሐፍ ትምህርት ቤት ልጅ ይሄዳል ከተማ ትልቅ ቆንጆ ጠዋት ጓደኛ መንገድ ረጅም ተራራ ባሕር አሮጌ አዲስ ገበያ ቤት ውሃ ዛፍ",
    "zh": "书本 学校 孩子 走路 城市 巨大 美丽 早晨 朋友 道路 漫长 高山 大海 古老 崭新 市场 房屋 清水 树木 绿色 天空 蓝色 人民",
    "ja": "本を 学校で 子供が 歩く 都市は 大きな 美しい 朝に 友達と 道の 長さ 山から 海まで 古い 新しく 市場へ 家の 水が 木々",
    "th": "หนังสือ โรงเรียน เด็ก เดินทาง เมือง ใหญ่ สวยงาม ตอนเช้า เพื่อน ถนน ยาวไกล ภูเขา ทะเล เก่าแก่ ใหม่ ตลาด บ้านเรือน น้ำ ต้นไม้",
    "my": "စာအုပ် ကျောင်း ကလေး သွား မြို့ ကြီး လှပ မနက် သူငယ်ချင်း လမ်း ရှည် တောင် ပင်လယ် ဟောင်း အသစ် စျေး အိမ် ရေ သစ်ပင်",
    "km": "សៀវភៅ សាលារៀន កុមារ ដើរ ទីក្រុង ធំ ស្អាត ព្រឹក មិត្តភក្តិ ផ្លូវ វែង ភ្នំ សមុទ្រ ចាស់ ថ្មី ផ្សារ ផ្ទះ ទឹក ដើមឈើ",
    "mixed": "book 学校 الطالب идёт πόλη बड़ा 아침 friend ถนน 山から море חדש 42 наб wa-3 C++ 😀 Ёлка été",
}  # fmt: skip
GLUED = ("zh", "ja", "th", "my", "km")


def prose(rng: random.Random, language: str, words: int) -> list[str]:
    return [rng.choice(VOCABULARY[language].split()) for _ in range(words)]


def written(tokens: Sequence[str], language: str) -> str:
    return ("" if language in GLUED else " ").join(tokens)


@pytest.mark.parametrize("language", sorted(VOCABULARY))
@pytest.mark.parametrize("unit, ngram", [("word", 5), ("char", 20)])
def test_every_script_is_told_apart(language, unit, ngram):
    """Unrelated texts are not even candidates for dropping; one changed word in a hundred is, and the similarity is exact."""
    rng = random.Random(language)
    bases = [prose(rng, language, 100) for _ in range(12)]
    texts, family = [], []
    for at, tokens in enumerate(bases):
        changed = list(tokens)
        changed[50] = "zzz"
        texts += [written(tokens, language), written(changed, language)]
        family += [at, at]
    rng2 = random.Random(0)
    order = rng2.sample(range(len(texts)), len(texts))
    texts, family = [texts[i] for i in order], [family[i] for i in order]
    table = table_of(texts)
    found = same_as_oracle(MinHash(unit=unit, ngram=ngram, **EVERYTHING), table)
    assert len(found.leader) == len(bases)
    assert all(family[row] == family[leader] for row, leader in found.leader.items())


def test_marks_tell_words_apart_where_they_are_letters():
    """Vowel signs and points of Indic scripts, Arabic, Hebrew and Thai stay; accents of Latin, Greek and Cyrillic do not."""
    different = {
        "hi": ("की का के को कू", "कि कै कौ कं कः"),
        "th": ("ไก่ ป่า ม้า น้ำ ข้าว", "ไก ปา มา นำ ขาว"),
        "ar": ("عَلِمَ كَتَبَ دَرَسَ ذَهَبَ جَلَسَ", "عُلِمَ كُتِبَ دُرِسَ ذُهِبَ جُلِسَ"),
        "he": ("סֵפֶר מֶלֶךְ יֶלֶד דֶּרֶךְ אֶרֶץ", "סַפָּר מָלַךְ יָלַד דָּרַךְ אָרַץ"),
        "ja": ("がぎぐげご", "かきくけこ"),
    }  # fmt: skip
    for language, pair in different.items():
        assert len(MinHash(verify=0.01, **EVERYTHING)(list(pair)).kept) == 2, language
    same = {
        "la": ("Déjà vu à la café près", "deja VU a la cafe pres"),
        "decomposed": ("Déjà vu à la café près", "De\u0301ja\u0300 vu a\u0300 la cafe\u0301 pre\u0300s"),
        "vi": ("đường phố Việt Nam đẹp lắm", "đuong pho Viet Nam đep lam"),
        "el": ("ένας άνθρωπος με μια ιδέα", "ΕΝΑΣ ΑΝΘΡΩΠΟΣ ΜΕ ΜΙΑ ΙΔΕΑ".replace("ΕΝΑΣ ΑΝΘΡΩΠΟΣ", "ενας ανθρωπος")),
        "ru": ("ёлка й моё её твоё", "елка и мое ее твое"),
    }
    for language, pair in same.items():
        assert MinHash()(list(pair)).dropped["_similarity"].to_pylist() == [1.0], language
        if language != "decomposed":
            assert len(MinHash(strip_accents=False, verify=1.0, **EVERYTHING)(list(pair)).kept) == 2, language


def test_options_of_normalisation():
    pairs = {
        "lowercase": ("One Two Three Four Five", "one two three four five"),
        "strip_accents": ("café au lait très bon", "cafe au lait tres bon"),
        "strip_punctuation": ("one, two; three four five", "one two three four five"),
    }
    for name, pair in pairs.items():
        assert len(MinHash(verify=1.0)(list(pair)).kept) == 1, name
        assert len(MinHash(verify=1.0, **{name: False})(list(pair)).kept) == 2, name
    assert len(MinHash(strip_punctuation=False)(["a\tb\nc  d\u3000e", "a b c d e"]).kept) == 1


def test_numbers_are_folded_for_proposals_only():
    """A form letter: with other numbers every shingle may differ, yet it is looked at; what is measured are the numbers."""
    rng = random.Random(0)
    letters = []
    for _ in range(6):
        letters.append(" ".join(f"on day {rng.randrange(10**6)} of week {rng.randrange(10**6)} we paid {i}" for i in range(30)))
    table = as_table([*letters, letters[0].replace("paid 3 ", "paid 4 ")])
    assert proposed(MinHash(), table) == [list(range(7))]
    assert proposed(MinHash(fold_digits=False), table) in ([[0, 6]], [])
    result = MinHash()(table)
    assert result.dropped["id"].to_pylist() == ["6"]
    rule = Rule()
    expected = jaccard(rule.shingles(table["text"][0].as_py()), rule.shingles(table["text"][6].as_py()))
    assert result.dropped["_similarity"].to_pylist() == [pytest.approx(expected, abs=1e-12)]
    same_as_oracle(MinHash(verify=0.001), table)


# --------------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize("options", [{}, {"verify": "off"}, {"verify_sample": 3}, {"containment": 0.5}, {"prefer": "longest"}])
def test_labels_say_what_dropping_would_do(options):
    rng = random.Random(11)
    table = table_of(near_texts(rng, 200, vocabulary=60), rng)
    stage = MinHash(**{"ngram": 2, "verify": 0.5, **EVERYTHING, **options})
    drops = {d["_row"]: d["_duplicate_of"] for d in run_over(stage, table).drops.to_pylist()}
    assert len(drops) > 30
    outcome = run_over(dataclasses.replace(stage, mode="label"), table)
    assert outcome.drops.num_rows == 0
    rows = outcome.rows
    assert [f.type for f in rows.schema][1:] == [pa.uint64(), pa.uint32(), pa.string()]
    cluster, size, duplicate_of = (rows[c].to_pylist() for c in ("duplicate_cluster", "cluster_size", "duplicate_of"))
    assert {row: of for row, of in enumerate(duplicate_of) if of is not None} == drops
    for row, label in enumerate(cluster):
        members = [other for other, found in enumerate(cluster) if found == label] if label is not None else [row]
        assert size[row] == len(members) and (len(members) > 1 or label is None)
        leaders = [m for m in members if duplicate_of[m] is None]
        assert len(leaders) == 1, "one of a cluster stays"
        assert {duplicate_of[m] for m in members} <= {None, table["id"][leaders[0]].as_py()}


def test_without_verification_the_first_of_a_component_stays():
    rng = random.Random(4)
    table = table_of(near_texts(rng, 200, vocabulary=100), rng)
    stage = MinHash(verify="off", ngram=2)
    found = same_as_oracle(stage, table)
    assert set(found.similarity.values()) == {None} and len(found.leader) > 20
    assert [min(rows) for rows in proposed(stage, table)] == sorted(set(found.leader.values()))


# --------------------------------------------------------------------------------------------- which one stays


def chosen(texts: Sequence[str], prefer: str, ids: Sequence[str] | None = None, **columns: Any) -> str:
    ids = ids or [str(i) for i in range(len(texts))]
    kept = MinHash(prefer=prefer, verify=0.3)(pa.table({"id": ids, "text": texts, **columns})).kept
    assert len(kept) == 1
    return kept["id"][0].as_py()


TEXT = "one and the same text of more than five words"


def test_preferences():
    assert chosen([TEXT, TEXT + " ab", TEXT + " abc"], "longest") == "2"
    assert chosen([TEXT + " é", TEXT + " x"], "longest") == "0"  # bytes, not characters
    assert chosen([TEXT] * 3, "newest", date=[None, "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]) == "2"
    assert chosen([TEXT] * 3, "newest", date=pa.nulls(3, pa.string()), ids=["bb", "c", "a"]) == "a"
    for values in (
        [0.1, None, 0.3, math.nan],
        [-5.0, None, -1.0, math.nan],
        [math.nan, None, -math.inf, math.nan],
        [1, None, 3, 2],
    ):
        assert chosen([TEXT] * 4, "quality", quality=values) == "2", values
    assert chosen([TEXT] * 4, "n", n=pa.array([2**63 + 1, 0, 2**64 - 1, 2**63], pa.uint64())) == "2"
    assert chosen([TEXT] * 3, "n", n=pa.array([2**53, 2**53 + 1, -(2**63)], pa.int64())) == "1"
    assert chosen([TEXT] * 2, "good", good=[False, True]) == "1"


def test_ties_go_by_the_shorter_then_the_smaller_id():
    for prefer, columns in (
        ("longest", {}),
        ("newest", {"date": ["2026-01-01T00:00:00Z"] * 4}),
        ("newest", {"date": pa.nulls(4, pa.string())}),
        ("quality", {"quality": [0.5] * 4}),
        ("quality", {"quality": [0.0, -0.0, 0.0, -0.0]}),
        ("quality", {"quality": [math.nan, None, math.nan, None]}),
    ):
        assert chosen([TEXT] * 4, prefer, ids=["zz", "aaa", "c", "b"], **columns) == "b", (prefer, columns)
    assert chosen([TEXT] * 4, "first", ids=["zz", "aaa", "c", "b"]) == "zz"


def test_equal_ids_go_by_place():
    table = as_table(pa.table({"id": ["x", "x", "x"], "text": [TEXT, TEXT + " a", TEXT + " b"]}))
    for prefer in ("first", "longest"):
        drops = run_over(MinHash(prefer=prefer, verify=0.3), table, shards=3).drops
        assert drops["_row"].to_pylist() == ([1, 2] if prefer == "first" else [0, 2])


# --------------------------------------------------------------------------------------------- very large components


def wide_component(n: int) -> list[str]:
    """Texts with a third in common, and twins of some of them: one component, hardly a duplicate."""
    rng = random.Random(2)
    frame = [f"f{i}" for i in range(20)]
    texts = [" ".join([*frame, *(f"o{i}x{rng.randrange(10**6)}" for _ in range(20))]) for i in range(n)]
    return [*texts, *(texts[i] + " more" for i in (3, 60, n - 1, n - 2))]


def test_large_components_are_compared_with_64_leaders(tmp_path):
    texts = wide_component(100)
    table = as_table(texts)
    options = {"ngram": 1, "fold_digits": False, **EVERYTHING}
    assert proposed(MinHash(**options), table) == [list(range(104))]
    assert not same_as_oracle(MinHash(**options, verify_sample=104), table).unresolved
    found = same_as_oracle(MinHash(**options, verify_sample=103), table, shards=3, batch=9)
    assert len(found.unresolved) == 100 - 64 + 2 and found.leader == {100: 3, 101: 60}
    assert len(MinHash(**options)(table).dropped) == 4
    labels = MinHash(**options, verify_sample=103, mode="label")(table).kept
    assert labels["duplicate_cluster"].null_count == 100 and labels["cluster_size"].to_pylist()[98:] == [1, 1, 2, 2, 1, 1]

    write_jsonl(tmp_path / "x.jsonl", [{"text": text} for text in texts])
    body = (
        "name: w\nsource: auto\nstages:\n  - minhash: {ngram: 1, fold_digits: false, bands: 64, rows: 1, verify_sample: 103}\n"
    )
    done = finished(tmp_path / "run", tmp_path / "x.jsonl", body)
    notes = next(s["notes"] for s in done.summary["stages"] if s["id"] == "minhash")
    assert [n for what, n in notes.items() if "kept" in what] == [len(found.unresolved)]


@given(st.integers(0, 10**6), st.integers(1, 80))
@settings(max_examples=10)
def test_large_components_decide_like_the_definition(seed, sample):
    rng = random.Random(seed)
    frame = [f"f{i}" for i in range(20)]
    texts = []
    for i in range(130):
        own = [f"o{rng.randrange(4) if rng.random() < 0.3 else i}x{k}" for k in range(20)]
        texts.append(" ".join(frame + own))
    same_as_oracle(MinHash(ngram=1, verify=0.6, verify_sample=sample, fold_digits=False, **EVERYTHING), table_of(texts, rng))


# --------------------------------------------------------------------------------------------- containment


def checked_containment(stage: MinHash, table: pa.Table) -> dict[str, int]:
    """Every removal is justified by a kept document, and none is kept that had to go. Returns how many went, by reason."""
    shingles = [rule_of(stage).shingles(text) for text in table["text"].to_pylist()]
    row_of = {name: row for row, name in enumerate(table["id"].to_pylist())}
    found = proposed(stage, table)
    component = {row: at for at, rows in enumerate(found) for row in rows}
    drops = run_over(stage, table).drops.to_pylist()
    gone = {d["_row"] for d in drops}
    count = {"minhash.duplicate": 0, "minhash.contained": 0}

    def within(a: int, b: int) -> bool:
        return len(shingles[b]) > len(shingles[a]) and contained(shingles[a], shingles[b]) >= stage.containment

    for drop in drops:
        row, kept = drop["_row"], row_of[drop["_duplicate_of"]]
        assert kept not in gone and component[row] == component[kept]
        similarity = jaccard(shingles[row], shingles[kept])
        assert drop["_similarity"] == pytest.approx(similarity, abs=1e-12)
        count[drop["_reason"]] += 1
        if drop["_reason"] == "minhash.duplicate":
            assert similarity >= stage.verify and drop["_value"] is None
        else:
            share = contained(shingles[row], shingles[kept])
            assert share >= stage.containment and len(shingles[kept]) > len(shingles[row]), (row, kept)
            assert drop["_value"] == pytest.approx(share, abs=1e-12)
    for rows in found:
        kept_rows = [row for row in rows if row not in gone]
        for a in kept_rows:
            for b in kept_rows:
                if a != b:
                    assert jaccard(shingles[a], shingles[b]) < stage.verify, (a, b)
                    if within(a, b):  # only where b was set aside for a document that went itself
                        assert any(within(b, c) for c in rows), (a, b)
    return count


def excerpts(rng: random.Random, n: int, vocabulary: int = 300) -> list[str]:
    """Texts, pieces of them, and pieces with a few words changed."""
    found: list[list[str]] = []
    for _ in range(n):
        if not found or rng.random() < 0.25:
            found.append([f"w{rng.randrange(vocabulary)}" for _ in range(rng.choice([10, 40, 90]))])
            continue
        tokens = list(rng.choice(found))
        at = rng.randrange(max(1, len(tokens) // 2))
        tokens = tokens[at : at + rng.randint(8, 60)] if rng.random() < 0.7 else tokens + rng.choice(found)[:30]
        for _ in range(rng.choice([0, 0, 1, 2])):
            tokens[rng.randrange(len(tokens))] = f"w{rng.randrange(vocabulary)}"
        found.append(tokens)
    return [" ".join(tokens) for tokens in found]


@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.7, 0.9, 1.0]), st.sampled_from([0.3, 0.7, 1.0]), st.booleans())
@settings(max_examples=25)
def test_contained_documents_go_and_nothing_else(seed, containment, verify, longest):
    rng = random.Random(seed)
    table = table_of(excerpts(rng, rng.choice([5, 30, 60])), rng)
    prefer = "longest" if longest else "first"
    stage = MinHash(ngram=2, containment=containment, verify=verify, prefer=prefer, fold_digits=False, **EVERYTHING)
    checked_containment(stage, table)


def test_containment_finds_something():
    rng = random.Random(0)
    table = table_of(excerpts(rng, 150), rng)
    stage = MinHash(ngram=2, containment=0.7, fold_digits=False, **EVERYTHING)
    count = checked_containment(stage, table)
    assert min(count.values()) > 2, count
    without = dropped(run_over(dataclasses.replace(stage, containment="off"), table), table)
    assert len(without) < sum(count.values())


def test_only_the_shorter_goes():
    base = [f"w{i}" for i in range(60)]
    short, long = " ".join(base[10:40]), " ".join(base)
    for texts in ([short, long], [long, short]):
        result = MinHash(containment=0.9, fold_digits=False, **EVERYTHING)(texts)
        assert result.kept["text"].to_pylist() == [long]
        (drop,) = result.dropped.to_pylist()
        assert (drop["_reason"], drop["_value"]) == ("minhash.contained", 1.0)
        assert drop["_similarity"] == pytest.approx(26 / 56, abs=1e-12)
    other = " ".join([*base[:30], *(f"x{i}" for i in range(30))])  # half of each lies in the other
    assert len(MinHash(containment=0.9, fold_digits=False, **EVERYTHING)([long, other]).kept) == 2


def test_what_a_contained_leader_stood_for_is_looked_at_again():
    """a leads b; a lies in the longer c, b does not: b may not be dropped for a document that went itself."""
    base = [f"w{i}" for i in range(100)]
    a = base[0:40]
    b = [*base[4:40], *(f"b{i}" for i in range(8))]
    c = base
    texts = [" ".join(t) for t in (a, b, c)]
    rule = Rule(ngram=1, fold_digits=False)
    assert (
        jaccard(*(rule.shingles(t) for t in texts[:2]))
        >= 0.7
        > contained(rule.shingles(texts[1]), rule.shingles(texts[2])) - 0.15
    )
    stage = MinHash(ngram=1, containment=0.9, fold_digits=False, **EVERYTHING)
    result = stage(texts)
    assert [(d["id"], d["_reason"], d["_duplicate_of"]) for d in result.dropped.to_pylist()] == [
        ("0", "minhash.contained", "2")
    ]
    checked_containment(stage, as_table(texts))


# --------------------------------------------------------------------------------------------- another threshold


@pytest.mark.parametrize("options", [{}, {"containment": 0.8}, {"verify_sample": 3}, {"prefer": "longest"}, {"mode": "label"}])
def test_another_threshold_from_the_same_evidence(options):
    rng = random.Random(8)
    table = table_of(near_texts(rng, 200, vocabulary=80), rng)
    stage = MinHash(**{"ngram": 2, "verify": 0.3, **EVERYTHING, **options})
    result = stage(table)
    counts = []
    for verify in (0.3, 0.45, 0.95):
        moved, fresh = result.rethreshold(verify), dataclasses.replace(stage, verify=verify)(table)
        assert moved.kept.equals(fresh.kept) and moved.dropped.equals(fresh.dropped), verify
        counts.append(len(moved.kept) if stage.mode == "drop" else moved.kept["duplicate_of"].null_count)
    assert counts[0] < counts[-1]
    again = stage(table)
    assert again.kept.equals(result.kept) and again.dropped.equals(result.dropped)
    twice = stage(table).rethreshold(0.5).rethreshold(0.6)  # whoever holds the second may have let go of the first
    assert twice.dropped.equals(result.rethreshold(0.6).dropped)


def test_thresholds_that_the_evidence_does_not_reach():
    result = MinHash(verify=0.7)([TEXT, TEXT])
    for verify in (0.69, 0.0, -1.0, 1.01, math.nan):
        with pytest.raises(ValueError, match=r"0\.7"):
            result.rethreshold(verify)
    with pytest.raises(ValueError, match="off"):
        MinHash(verify="off")([TEXT, TEXT]).rethreshold(0.8)
    from curate.stages.exact_dedup import ExactDedup

    with pytest.raises(ValueError, match="threshold"):
        ExactDedup()([TEXT, TEXT]).rethreshold(0.8)


# --------------------------------------------------------------------------------------------- across corpora

ACROSS = """\
name: across
source: auto
stages:
  - minhash: {{ngram: 2, verify: 0.5, bands: 64, rows: 1, fold_digits: false, keep_index: true{more}}}
    max_drop: 1.0
"""


def across(folder: Path, name: str, table: pa.Table, more: str = "", **options: Any) -> dict[str, tuple[str, float]]:
    """Run over the documents into folder / name; {id: (id that stays, similarity)} of what went."""
    write_jsonl(folder / f"{name}.jsonl", table.select(["id", "text", "score"]).to_pylist())
    done = finished(folder / name, folder / f"{name}.jsonl", ACROSS.format(more=more), **options)
    return {d["id"]: (d["_duplicate_of"], d["_similarity"]) for d in done.drops("minhash").to_pylist()}


def three_crawls() -> list[pa.Table]:
    rng = random.Random(12)
    texts = [text for text in near_texts(rng, 330, vocabulary=120) if text]
    table = table_of(texts, rng, score=[rng.random() for _ in texts])
    return [table.slice(at * len(texts) // 3, len(texts) // 3) for at in range(3)]


def test_one_crawl_after_the_other_is_like_all_at_once(tmp_path):
    """What an index holds came first: the same documents go as if its crawl stood before, and every one for the same."""
    first, second, third = three_crawls()
    whole = across(tmp_path, "whole", pa.concat_tables([first, second, third]))
    gone = across(tmp_path, "first", first)
    gone |= across(tmp_path, "second", second, f", against: {tmp_path / 'first'}")
    shutil.rmtree(tmp_path / "first")  # an index that was added to stands alone
    gone |= across(tmp_path, "third", third, f", against: {tmp_path / 'second'}", executor="local", workers=2)
    assert len(gone) > 100 and gone == whole
    small = across(tmp_path, "small", third, f", against: {tmp_path / 'second'}", memory_limit=1)
    assert small == {name: gone[name] for name in small} and len(small) == sum(n in gone for n in third["id"].to_pylist())


def test_what_an_index_holds_stays_whatever_is_preferred(tmp_path):
    first, second, _ = three_crawls()
    across(tmp_path, "first", first)
    gone = across(tmp_path, "second", second, f", against: {tmp_path / 'first'}, prefer: score")
    tables = pa.concat_tables([first, second])
    rule = Rule(ngram=2, fold_digits=False)
    shingles = {d["id"]: rule.shingles(d["text"]) for d in tables.to_pylist()}
    held = set(first["id"].to_pylist()) - set(across(tmp_path, "again", first))
    stays = held | (set(second["id"].to_pylist()) - set(gone))
    for name, (kept, similarity) in gone.items():
        assert kept in stays and similarity == pytest.approx(jaccard(shingles[name], shingles[kept]), abs=1e-12)
        if kept not in held:
            assert max(jaccard(shingles[name], shingles[other]) for other in held) < 0.5
    for name in stays - held:
        assert max(jaccard(shingles[name], shingles[other]) for other in stays - {name}) < 0.5


def test_an_index_serves_in_memory_and_labels(tmp_path):
    first, second, _ = three_crawls()
    across(tmp_path, "first", first)
    gone = across(tmp_path, "second", second, f", against: {tmp_path / 'first'}")
    options: dict[str, Any] = {"ngram": 2, "verify": 0.5, "fold_digits": False, **EVERYTHING}
    stage = MinHash(**options, against=str(tmp_path / "first"))
    alone = {d["id"]: (d["_duplicate_of"], d["_similarity"]) for d in stage(second).dropped.to_pylist()}
    assert alone == gone
    kept = dataclasses.replace(stage, mode="label")(second).kept.to_pylist()
    assert {d["id"]: d["duplicate_of"] for d in kept if d["duplicate_of"]} == {n: of for n, (of, _) in gone.items()}
    moved = stage(second).rethreshold(0.8)
    fresh = dataclasses.replace(stage, verify=0.8)(second)
    assert moved.dropped.equals(fresh.dropped) and 0 < len(fresh.dropped) < len(gone)


def test_an_index_that_does_not_fit_is_refused(tmp_path):
    first, second, _ = three_crawls()
    across(tmp_path, "first", first)
    path = str(tmp_path / "first")
    fitting: dict[str, Any] = {"ngram": 2, "fold_digits": False, **EVERYTHING, "against": path}
    assert MinHash(**fitting, verify=0.9)(second).kept
    for wrong in ({"ngram": 3}, {"bands": 32}, {"rows": 2}, {"seed": 2}, {"unit": "char"}, {"fold_digits": True}):
        with pytest.raises(RecipeError, match=rf"minhash: .*{next(iter(wrong))}"):
            MinHash(**{**fitting, **wrong})(second)
    with pytest.raises(RecipeError, match="keep_index"):
        MinHash(against=str(tmp_path))([TEXT])
    with pytest.raises(CurateError, match="run folder"):
        MinHash(keep_index=True)([TEXT])


# --------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "parameters, says",
    [
        ({"ngram": 0}, "ngram is 0"),
        ({"ngram": -3}, "ngram is -3"),
        ({"bands": 0}, "bands is 0"),
        ({"rows": 0}, "rows is 0"),
        ({"verify_sample": 0}, "verify_sample is 0"),
        ({"verify": 0.0}, "verify is 0.0"),
        ({"verify": 1.2}, "verify is 1.2"),
        ({"verify": math.nan}, "verify is nan"),
        ({"verify": "on"}, "verify is 'on'"),
        ({"containment": 0.0}, "containment is 0.0"),
        ({"containment": 70}, "containment is 70"),
        ({"containment": "yes"}, "containment is 'yes'"),
        ({"containment": 0.9, "verify": "off"}, "verify"),
        ({"unit": "words"}, "unit is 'words'"),
        ({"mode": "mark"}, "mode is 'mark'"),
        ({"seed": -1}, "seed is -1"),
        ({"ngram": "5"}, "ngram is '5'"),
        ({"rows": 2.5}, "rows is 2.5"),
        ({"verify": None}, "verify is None"),
    ],
)
def test_a_bad_parameter_gives_one_clear_line(parameters, says):
    with pytest.raises(RecipeError) as error:
        MinHash(**parameters)
    message = str(error.value)
    assert says in message and message.startswith("minhash: ") and "\n" not in message


@pytest.mark.parametrize(
    "value", ["{ngram: five}", "{verify: [0.7]}", "{bands: 1.5}", "{verfy: 0.7}", "{against: /none/at/all}"]
)
def test_a_bad_recipe_gives_one_clear_line(value, tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [{"text": TEXT}])
    with pytest.raises(CurateError) as error:
        finished(tmp_path / "run", tmp_path / "x.jsonl", f"name: b\nsource: auto\nstages:\n  - minhash: {value}\n")
    assert error.value.exit_code == 2 and "\n" not in str(error.value) and "minhash" in str(error.value)


def test_off_is_a_word_in_recipes(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [{"text": TEXT}] * 2)
    body = "name: o\nsource: auto\nstages:\n  - minhash: {verify: off, containment: off}\n"
    assert finished(tmp_path / "run", tmp_path / "x.jsonl", body).drops("minhash").num_rows == 1


@pytest.mark.parametrize("prefer, column", [("newest", "date"), ("quality", "quality")])
def test_a_missing_column_is_known_before_any_work(prefer, column):
    with pytest.raises(ColumnError, match=column):
        MinHash(prefer=prefer)([TEXT])
    with pytest.raises(ColumnError, match="text"):
        MinHash()(pa.table({"id": ["a"]}))


def test_a_column_that_cannot_be_ordered_is_refused():
    for values in ([["x"]], [{"a": 1}]):
        with pytest.raises(CurateError, match="tags"):
            MinHash(prefer="tags")(pa.table({"text": [TEXT] * 2, "tags": values * 2}))


# --------------------------------------------------------------------------------------------- blast radius


def test_a_large_cluster_stops_the_run(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [{"text": f"{TEXT} {'a' * (i % 7)}"} for i in range(60)])
    body = "name: c\nsource: auto\nstages:\n  - minhash: {verify: 0.3}\n    max_drop: 1.0\n    max_cluster: 50\n"
    with pytest.raises(BlastRadiusError, match=r"a cluster of 60 documents, more than max_cluster 50"):
        finished(tmp_path / "run", tmp_path / "x.jsonl", body)
    assert finished(tmp_path / "run", tmp_path / "x.jsonl", body, accept=["minhash"]).drops("minhash").num_rows == 59
    finished(tmp_path / "wide", tmp_path / "x.jsonl", body.replace("50", "60"))


def test_only_verified_clusters_count(tmp_path):
    """A component of 120 candidates of which verification makes nothing is no cluster."""
    write_jsonl(tmp_path / "x.jsonl", [{"text": page} for page in boilerplate_pages(120, 120)])
    body = "name: c\nsource: auto\nstages:\n  - minhash: {bands: 64, rows: 1}\n    max_cluster: 2\n"
    assert finished(tmp_path / "run", tmp_path / "x.jsonl", body).drops("minhash").num_rows == 0
    with pytest.raises(BlastRadiusError, match="a cluster of 120 documents"):
        finished(tmp_path / "off", tmp_path / "x.jsonl", body.replace("rows: 1", "rows: 1, verify: off"))


def test_a_corpus_of_copies_stops_the_run(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [{"text": f"{TEXT} number{i // 3} of many which goes on"} for i in range(1200)])
    body = "name: c\nsource: auto\nstages:\n  - minhash: {ngram: 2, verify: 0.9, fold_digits: false, verify_sample: 2000}\n"
    with pytest.raises(BlastRadiusError, match=r"66\.7% of corpus=x"):
        finished(tmp_path / "run", tmp_path / "x.jsonl", body)
    labelled = finished(tmp_path / "label", tmp_path / "x.jsonl", body.replace("verify: 0.9", "verify: 0.9, mode: label"))
    assert labelled.drops("minhash").num_rows == 0


def test_in_memory_copies_warn():
    with pytest.warns(UserWarning, match="minhash drops 100% of corpus=web"):
        MinHash()(pa.table({"text": [TEXT] * 1000, "corpus": ["web"] * 1000}))


# --------------------------------------------------------------------------------------------- conformance


@pytest.mark.parametrize(
    "parameters",
    [
        {"mode": "label"},
        {"verify": "off", "unit": "char", "ngram": 3, "prefer": "longest"},
        {"containment": 0.5, "prefer": "newest", "ngram": 1, **EVERYTHING},
        {"prefer": "quality", "strip_punctuation": False, "strip_accents": False, "verify_sample": 1, "ngram": 1},
    ],
)
def test_other_parameters_pass_the_suite(parameters):
    """But for what takes another process, which does not depend on parameters."""
    stage = MinHash(**parameters)
    for check in testing.CHECKS:
        check(stage, testing.documents(stage))


def test_hostile_documents_are_decided_like_the_definition():
    texts = testing.hostile_texts()
    table = as_table(pa.table({"text": pa.array(texts * 2, pa.string())}))
    for options in ({"ngram": 1, "verify": 0.05}, {"unit": "char", "ngram": 4, "verify": 0.1}):
        same_as_oracle(MinHash(**options, **EVERYTHING), table, shards=3)


def test_any_kind_of_table():
    texts = [TEXT, "another text of more than five words", TEXT + "!"]
    large = pa.table({"text": pa.array(texts, pa.large_string())})
    chunked = pa.table({"text": pa.chunked_array([texts[:1], texts[1:]])})
    sliced = pa.table({"text": ["x", *texts, "y"]}).slice(1, 3)
    for data in (texts, large, chunked, sliced):
        assert MinHash()(data).dropped["text"].to_pylist() == [TEXT + "!"]
    numbered = MinHash(prefer="longest")(pa.table({"id": [30, 200, 4], "text": texts})).dropped.to_pylist()
    assert [(d["id"], d["_duplicate_of"]) for d in numbered] == [(30, "4")]
    assert len(MinHash()([]).kept) == 0


# --------------------------------------------------------------------------------------------- real data

SETS = ("arxiv_revisions", "minhash_articles", "pep_revisions")


def labelled(shared_data: Path, name: str) -> tuple[pa.Table, dict[str, str], dict[frozenset[str], float]]:
    folder = shared_data / "neardup"
    with gzip.open(folder / f"{name}.docs.jsonl.gz", "rt", encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    pairs = [json.loads(line) for line in (folder / f"{name}.pairs.jsonl").read_text().splitlines()]
    table = as_table(pa.table({"id": [d["doc_id"] for d in documents], "text": [d["text"] for d in documents]}))
    cluster = {d["doc_id"]: d["cluster_id"] for d in documents}
    return table, cluster, {frozenset((p["a"], p["b"])): p["jaccard_word5"] for p in pairs}


@pytest.mark.parametrize("name", SETS)
def test_labelled_revisions(shared_data, name):
    """Similarities are those of the labels, removals are of the same document, and what is near enough is found."""
    table, cluster, pairs = labelled(shared_data, name)
    result = MinHash()(table)
    drops = result.dropped.to_pylist()
    known = 0
    for drop in drops:
        pair = frozenset((drop["id"], drop["_duplicate_of"]))
        if pair in pairs:
            known += 1
            assert drop["_similarity"] == pytest.approx(pairs[pair], abs=0.002)
    right = sum(cluster[d["id"]] == cluster[d["_duplicate_of"]] for d in drops)
    assert known >= 10 and right / len(drops) >= 0.98, (known, right, len(drops))
    kept = set(result.kept["id"].to_pylist())
    near = [pair for pair, similarity in pairs.items() if similarity >= 0.85]
    assert sum(pair <= kept for pair in near) <= 0.02 * len(near), "pairs that both stayed"


def test_similarities_are_those_of_the_oracle_on_real_text(shared_data):
    table, _, _ = labelled(shared_data, "arxiv_revisions")
    same_as_oracle(MinHash(verify=0.5), table.slice(0, 1200), shards=3)


def test_unrelated_articles_of_many_languages_stay(shared_data):
    """The Declaration of Human Rights in 380 languages: some are alike, most are not; no cluster swallows them."""
    with gzip.open(shared_data / "misc" / "langid_udhr2.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    table = as_table(pa.table({"id": [r["code"] for r in rows], "text": [r["text"][:1200] for r in rows]}))
    found = same_as_oracle(MinHash(), table)
    assert len(found.leader) < 40
    assert sum(map(len, proposed(MinHash(), table))) < 80
