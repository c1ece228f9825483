"""Pools of documents by group, what is composed of them, and what is measured: beside naive counts, and through a kill."""

import dataclasses
import fcntl
import itertools
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from lm_oracle import llama, said, tokens_of

from curate import proxies
from curate.errors import RecipeError, StageError
from curate.lm import ngram
from curate.memory import as_table
from curate.proxies import Config, Measured, Pool, Selection, Target
from curate.selection import Question, target_questions
from curate.stage import GlobalStage, Task
from curate.testing import _fit, _numbered

WORDS = {name: [f"{name}{a}{b}" for a in "aeiou" for b in "klmnr"] for name in ("sea", "law", "bio")}
TINY = Config(models="1m", tokens=6144, window=32, batch_tokens=256, vocabulary=400, target_tokens=1500, device="cpu", lr=4e-3)
NGRAM = Config(models="ngram", target_tokens=4000)


def sentence(rng, kind, words=12):
    return " ".join(rng.choice(WORDS[kind]) for _ in range(words)) + "."


def documents(sizes, seed=0, sentences=6):
    """Texts, each of one group, mixed."""
    rng = random.Random(seed)
    found = [(kind, " ".join(sentence(rng, kind) for _ in range(sentences))) for kind, n in sizes.items() for _ in range(n)]
    rng.shuffle(found)
    return as_table(pa.table({"kind": [kind for kind, _ in found], "text": [text for _, text in found]}))


def wanted(shares, n=60, seed=1, sentences=3):
    rng = random.Random(seed)
    kinds = [kind for kind, share in shares.items() for _ in range(round(share * n))]
    return tuple(" ".join(sentence(rng, kind) for _ in range(sentences)) for kind in kinds)


@dataclass(frozen=True, kw_only=True)
class Pooled(GlobalStage):
    """A fit that makes a pool and nothing else."""

    config: Config
    target: Target
    by: str = "kind"
    need: int = 2000
    columns: tuple[str, ...] = ()

    def steps(self, n_shards, n_docs):
        how = {"by": self.by, "config": self.config, "need": self.need, "target": self.target, "columns": self.columns}
        return proxies.pool_steps(self, what="pooled", **how)


def fitted(folder, table, shards=1, batch=1024, root=None, **parameters):
    """(stage, task, pool)."""
    stage = Pooled(**{"config": NGRAM, "target": Target(texts=wanted({"sea": 0.7, "law": 0.3})), **parameters})
    cuts = [len(table) * i // shards for i in range(shards + 1)]
    parts = [_numbered(table.slice(a, b - a)) for a, b in itertools.pairwise(cuts)]
    names = [f"{i:05d}.parquet" for i in range(shards)]
    task = Task(phase="t", rank=0, folders=[(stage, "pooled", Path(folder))], shards=names, root=root)
    _fit(stage, task, parts, batch)
    return stage, task, Pool.open(proxies.pool_folder(stage, task))


TABLE = documents({"sea": 40, "law": 60, "bio": 20})


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("pool"), TABLE)[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A pool whose tokens are those of transformers."""
    pytest.importorskip("torch")
    questions = tmp_path_factory.mktemp("questions") / "q.jsonl"
    rng = random.Random(3)
    rows = []
    for i in range(12):
        choices = [sentence(rng, kind, 5) for kind in ("law", "sea", "bio")]
        rows.append({"question": f"{sentence(rng, 'sea')} which?", "choices": choices, "answer": "B" if i % 2 else choices[1]})
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = Target.of({"q": str(questions)}, wanted({"sea": 1.0}, 12), "text")
    return fitted(tmp_path_factory.mktemp("tiny"), TABLE, config=TINY, target=target, need=1500)


# --------------------------------------------------------------------------------------------- the pool


def test_a_pool_holds_the_documents_of_the_lowest_hashes_and_shares_of_the_whole_corpus(tmp_path):
    from curate.kernels.keys import order_hash

    table = documents({"sea": 90, "law": 200, "bio": 3})
    _, _, pool = fitted(tmp_path, table, need=1500, columns=("text",), shards=3)
    kind = np.array(table["kind"].to_pylist())
    tokens = table["tokens"].to_numpy()
    assert pool.groups == ("bio", "law", "sea")
    expected = np.array([tokens[kind == name].sum() for name in pool.groups])
    assert pool.natural.tolist() == (expected / expected.sum()).tolist()
    hashes = order_hash(NGRAM.seed, table["file"].combine_chunks(), table["record"].combine_chunks())
    for number, name in enumerate(pool.groups):
        order = [i for i in np.argsort(hashes).tolist() if kind[i] == name]
        before = np.append(0, np.cumsum(tokens[order]))[:-1]
        order = [i for i, b, place in zip(order, before, range(len(order)), strict=True) if b < 1.25 * 1500 or place < 8]
        mine = pool.documents.filter(pa.array(pool.documents["group"].to_numpy() == number))
        assert mine["text"].to_pylist() == [table["text"][i].as_py() for i in order]
        assert (
            mine["hash"].to_pylist() == hashes[order].tolist() and mine["corpus_tokens"].to_pylist() == tokens[order].tolist()
        )
        units = ngram.load(pool.folder / "units")
        ids = np.concatenate([units.encode(pa.array([text]))[0] for text in mine["text"].to_pylist()])
        assert pool.tokens(number).tolist() == ids.tolist() and mine["tokens"].to_numpy().sum() == len(ids)


def test_a_pool_does_not_depend_on_shards_batches_or_the_order_of_documents(tmp_path, pool, monkeypatch):
    for name, table, how in (
        ("shards", TABLE, {"shards": 5, "batch": 7}),
        ("order", TABLE.take(pa.array(np.random.default_rng(0).permutation(len(TABLE)))), {"shards": 2, "batch": 11}),
    ):
        _, _, other = fitted(tmp_path / name, table, **how)
        assert other.digest == pool.digest and other.documents.equals(pool.documents)
        assert np.array_equal(proxies._matrix(other), proxies._matrix(pool))
    monkeypatch.setattr(proxies, "PART_BYTES", 2000)  # parts of a group, one of which is held at once
    monkeypatch.setattr(proxies, "_BUFFER", 3000)
    _, _, parts = fitted(tmp_path / "parts", TABLE, shards=3, batch=10)
    assert parts.digest == pool.digest and parts.documents.equals(pool.documents)
    assert np.array_equal(proxies._matrix(parts), proxies._matrix(pool))
    assert fitted(tmp_path / "seed", TABLE, config=replace(NGRAM, seed=1))[2].digest != pool.digest


def test_long_documents_are_cut_and_children_of_one_parent_have_an_order(tmp_path):
    table = documents({"sea": 3, "law": 30})
    long = " ".join(sentence(random.Random(i), "bio", 400) for i in range(8))
    more = as_table(pa.table({"kind": ["bio", "bio"], "text": [long, long + " " + long], "id": ["x#1", "x#2"]}))
    same = pa.array([0, 0], pa.int64())
    more = more.set_column(more.schema.get_field_index("record"), "record", same)
    both = [pa.concat_tables([t, m], promote_options="default") for t, m in ((table, more), (table, more.take([1, 0])))]
    one, other = (fitted(tmp_path / str(i), t, need=300)[2] for i, t in enumerate(both))
    assert one.digest == other.digest
    assert one.documents["tokens"].to_pylist()[:2] == [300, 300]


def test_what_a_target_holds_word_for_word_is_not_in_the_pool(tmp_path):
    texts = TABLE["text"].to_pylist()
    copied = [i for i, kind in enumerate(TABLE["kind"].to_pylist()) if kind == "bio"]
    target = Target(texts=(*(texts[i] for i in copied[:5]), *wanted({"law": 1.0}, 10)))
    _, _, pool = fitted(tmp_path, TABLE, target=target, columns=("text",))
    assert not set(target.texts) & set(pool.documents["text"].to_pylist())
    assert pool.notes[proxies._COPIES] == 5 and pool.groups == ("bio", "law", "sea")
    whole = Target(texts=tuple(texts[i] for i in copied))
    _, _, less = fitted(tmp_path / "all", TABLE, target=whole)
    assert less.groups == ("law", "sea") and less.notes[proxies._UNREAD] == 1 and less.natural.sum() == pytest.approx(1)
    with pytest.raises(StageError, match="word for word"):
        fitted(tmp_path / "none", TABLE, target=Target(texts=tuple(texts)))


def test_groups_are_strings_integers_and_booleans_and_nulls_are_in_none(tmp_path):
    kinds = {"b": pa.array([True, None, False] * 40), "n": pa.array([10, 9, -1] * 40, pa.int32())}
    table = TABLE.append_column("b", kinds["b"]).append_column("n", kinds["n"])
    table = table.append_column("d", TABLE["kind"].combine_chunks().dictionary_encode())
    assert fitted(tmp_path / "b", table, by="b")[2].groups == ("false", "true")
    assert fitted(tmp_path / "n", table, by="n")[2].groups == ("-1", "9", "10")
    assert fitted(tmp_path / "d", table, by="d")[2].groups == ("bio", "law", "sea")
    with pytest.raises(StageError, match=r"pooled: column 'f' is double"):
        fitted(tmp_path / "f", TABLE.append_column("f", pa.array(np.ones(len(TABLE)))), by="f")
    with pytest.raises(StageError, match=r"makes no groups .no document has a value"):
        fitted(tmp_path / "null", TABLE.append_column("z", pa.nulls(len(TABLE), pa.string())), by="z")
    empty = as_table(pa.table({"kind": ["a", "b"], "text": ["", None]}))
    with pytest.raises(StageError, match=r"makes no groups .no text"):
        fitted(tmp_path / "empty", empty)
    with pytest.raises(RecipeError, match="pooled: a column of the name 'hash' cannot be kept"):
        fitted(tmp_path / "own", TABLE, columns=("hash",))


def test_targets_without_a_text_are_errors(tmp_path):
    for number, texts in enumerate([("",), ("", "")]):
        with pytest.raises(StageError, match="pooled: the target 'target' holds no text"):
            fitted(tmp_path / str(number), TABLE, target=Target(texts=texts))
    file = tmp_path / "t.jsonl"
    file.write_text('{"question": "what?", "choices": ["a", "b"], "answer": "C"}\n')
    with pytest.raises(StageError, match=r"target 'x' holds no text .*t\.jsonl.*answer is missing"):
        fitted(tmp_path / "q", TABLE, target=Target.of({"x": str(file)}, (), "text"))
    _, _, few = fitted(tmp_path / "few", TABLE, target=Target(texts=("sea", "law")))
    assert any("fewer than 1,000 tokens" in note for note in few.notes)


# --------------------------------------------------------------------------------------------- what is chosen


def test_budgets_are_exact_and_exhausted_groups_are_repeated(pool):
    sizes, group = pool.documents["tokens"].to_numpy() + 1, pool.documents["group"].to_numpy()
    rng = np.random.default_rng(0)
    for weights, tokens in [([1, 0, 0], 7001), ([0.2, 0.5, 0.3], 1), *((rng.dirichlet([1, 1, 1]), 12_345) for _ in range(9))]:
        found = pool.by_weights(weights, tokens)
        shares = np.asarray(weights, float) / np.sum(weights)
        budgets = proxies._budgets(shares, tokens)
        assert budgets.sum() == tokens and np.abs(budgets - shares * tokens).max() < 1
        spent = np.bincount(group[found.documents], found.lengths + 1, 3)
        assert ((budgets - spent >= 0) & (budgets - spent <= 1)).all()
        assert found.tokens == spent.sum()
        for number in range(3):
            mine = np.flatnonzero(group == number)
            taken, lengths = (part[group[found.documents] == number] for part in (found.documents, found.lengths))
            rounds = -(-len(taken) // len(mine))
            assert taken.tolist() == np.tile(mine, rounds)[: len(taken)].tolist()  # in order, again from the first
            assert (lengths[:-1] == sizes[taken[:-1]] - 1).all() and (lengths[-1:] <= sizes[taken[-1:]] - 1).all()
    whole = int(sizes[group == 0].sum())
    assert pool.by_weights([1, 0, 0], 3 * whole).repeats == 3
    assert pool.by_weights([1, 0, 0], 3 * whole + 5).repeats == 4


def test_copies_are_taken_in_an_order_by_hash(pool):
    sizes = pool.documents["tokens"].to_numpy() + 1
    copies = np.arange(len(sizes)) % 3
    total = int((copies * sizes).sum())
    found = pool.by_counts(copies, total)
    assert np.bincount(found.documents, minlength=len(sizes)).tolist() == copies.tolist() and found.tokens == total
    half = pool.by_counts(copies, total // 2)
    assert half.documents.tolist() == found.documents[: len(half.documents)].tolist() and half.tokens in (
        total // 2,
        total // 2 - 1,
    )
    shares = np.bincount(pool.documents["group"].to_numpy()[half.documents], half.lengths) / half.lengths.sum()
    natural = np.bincount(pool.documents["group"].to_numpy(), copies * (sizes - 1)) / (copies * (sizes - 1)).sum()
    assert np.abs(shares - natural).max() < 0.1
    assert np.bincount(pool.by_counts(copies, 2 * total).documents).max() == 4
    for bad in (np.zeros(len(sizes), int), copies[:-1], copies - 1, copies * 1.0):
        with pytest.raises(StageError, match="whole numbers of copies"):
            pool.by_counts(bad, 100)


def test_rates_count_by_what_groups_have_of_the_corpus(tmp_path):
    _, _, pool = fitted(tmp_path, documents({"sea": 400, "law": 100, "bio": 50}), need=800)
    group = pool.documents["group"].to_numpy()
    for rates in (np.ones(3), np.array([0.0, 3.0, 1.0]), np.array([8.0, 1.0, 0.25])):
        tokens = 60_000
        found = pool.by_rates(rates[group], tokens)
        assert abs(found.tokens - tokens) <= 1
        expected = rates * pool.natural / (rates * pool.natural).sum()
        spent = np.bincount(group[found.documents], found.lengths, 3) / found.lengths.sum()
        assert np.abs(spent - expected).max() < 0.02
    small = pool.by_rates(np.ones(len(group)), 50)
    assert 0 < small.tokens <= 50
    with pytest.raises(StageError, match="rates of all documents are 0"):
        pool.by_rates(np.zeros(len(group)), 100)


def test_weights_by_name(pool):
    assert pool.shares({"sea": 3, "law": 1}).tolist() == [0, 0.25, 0.75]
    with pytest.raises(StageError, match="no group 'see' in the pool; did you mean 'sea'"):
        pool.shares({"see": 1})
    for bad in ([1, 1], [0, 0, 0], [1, -1, 1], [np.nan, 1, 1]):
        with pytest.raises(StageError, match="weights"):
            pool.by_weights(bad, 100)


def test_a_composed_row_is_these_documents_between_separators(tiny, tmp_path):
    _, _, pool = tiny
    chosen = pool.by_weights([0.1, 0.2, 0.7], 3001)
    made = proxies.compose(pool, chosen, tmp_path, 5)
    row = made.read()
    cuts = np.flatnonzero(row == made.separator)
    assert len(row) == made.tokens == chosen.tokens + 1 and made.documents == len(chosen.documents) == len(cuts) - 1
    parts = [row[a + 1 : b].tolist() for a, b in itertools.pairwise(cuts.tolist())]
    group = pool.documents["group"].to_numpy()
    expected = []
    for document, length in zip(chosen.documents.tolist(), chosen.lengths.tolist(), strict=True):
        start = pool.starts[document]
        expected.append(pool.tokens(group[document])[start : start + length].tolist())
    assert sorted(parts) == sorted(expected) and parts != expected
    order = [expected.index(part) for part in parts]
    assert group[chosen.documents[order]].tolist() != sorted(group[chosen.documents].tolist())  # mixed
    (tmp_path / "again").mkdir()
    assert proxies.compose(pool, chosen, tmp_path / "again", 5).read().tolist() == row.tolist()
    (tmp_path / "other").mkdir()
    assert proxies.compose(pool, chosen, tmp_path / "other", 6).read().tolist() != row.tolist()


# --------------------------------------------------------------------------------------------- n-gram models


def naive(pool, weights):
    """Loss of the mixture of models that are trained here, token for token."""
    units = ngram.load(pool.folder / "units")
    texts = wanted({"sea": 0.7, "law": 0.3})
    models = []
    for name in pool.groups:
        kept = [text for kind, text in zip(TABLE["kind"].to_pylist(), TABLE["text"].to_pylist(), strict=True) if kind == name]
        models.append(ngram.train([pa.array(sorted(kept))], units=units))
    mixed = ngram.mixture(models, list(weights)).losses(pa.array(texts))
    return mixed.nll.sum() / mixed.tokens.sum(), int(mixed.tokens.sum())


def test_losses_of_mixed_models_beside_models_trained_apart(tmp_path):
    _, _, pool = fitted(tmp_path, TABLE, need=100_000)
    for weights in ([1.0, 0.0, 0.0], [0.2, 0.3, 0.5]):
        loss, tokens = naive(pool, weights)
        found = proxies.measure_ngram(pool, weights).targets["target"]
        assert found["loss"] == pytest.approx(loss, rel=1e-5) and found["tokens"] == tokens
        size = sum(len(text.encode()) for text in wanted({"sea": 0.7, "law": 0.3}))
        assert found["bytes"] == size and found["bits_per_byte"] == pytest.approx(loss * tokens / size / np.log(2), rel=1e-5)


def test_em_recovers_planted_shares_and_beats_a_grid(pool, monkeypatch):
    weights = proxies.em(pool)
    assert weights.sum() == pytest.approx(1) and np.abs(weights - [0.0, 0.3, 0.7]).max() < 0.03
    least = proxies.measure_ngram(pool, weights).metric("loss")
    steps = np.arange(21) / 20
    grid = [(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9]
    assert least <= min(proxies.measure_ngram(pool, np.clip(w, 0, 1)).metric("loss") for w in grid) + 1e-6
    assert np.abs(proxies.em(pool, [0.9, 0.05, 0.05]) - weights).max() < 1e-3  # there is one minimum
    assert proxies.em(pool).tolist() == weights.tolist()
    monkeypatch.setattr(proxies, "HELD", 0)  # read again each time
    assert proxies.em(pool).tolist() == weights.tolist()
    monkeypatch.setattr(proxies, "_CHUNK", 1000)
    assert np.abs(proxies.em(pool) - weights).max() < 1e-9


def test_each_iteration_of_em_loses_less(pool):
    weights, losses = np.array([0.8, 0.1, 0.1]), []
    for _ in range(12):
        losses.append(proxies.measure_ngram(pool, weights).metric("loss"))
        weights = proxies.em(pool, weights, gain=np.inf)  # one iteration
    assert (np.diff(losses) <= 1e-12).all() and losses[-1] < losses[0] - 0.1


def test_caps_are_kept_and_what_is_under_them_is_best(pool):
    caps = np.array([1.0, 1.0, 0.4])
    weights = proxies.em(pool, caps=caps)
    assert weights.sum() == pytest.approx(1) and (weights <= caps + 1e-12).all() and weights[2] == pytest.approx(0.4)
    least = proxies.measure_ngram(pool, weights).metric("loss")
    others = [proxies.measure_ngram(pool, [a, 0.6 - a, 0.4]).metric("loss") for a in np.linspace(0, 0.6, 25)]
    assert least <= min(others) + 1e-6
    with pytest.raises(StageError, match="raise max_usage"):
        proxies.em(pool, caps=[0.2, 0.2, 0.2])


def test_what_is_above_a_cap_goes_to_the_others_in_proportion():
    rng = np.random.default_rng(1)
    for _ in range(200):
        weights, limits = rng.dirichlet(np.ones(6)), rng.uniform(0.05, 0.6, 6)
        limits *= max(1.0, 1.0001 / limits.sum())
        found = proxies._capped(weights, limits)
        assert found.sum() == pytest.approx(1) and (found <= limits + 1e-12).all()
        free = found < limits - 1e-12
        scale = found[free] / weights[free]
        assert np.ptp(scale) < 1e-9 if free.any() else True
        assert (found[~free] / weights[~free] <= scale.max() + 1e-9).all() if free.any() else True


def test_several_targets_count_alike(tmp_path):
    files = {}
    for name, n in (("sea", 90), ("law", 9)):
        files[name] = str(tmp_path / f"{name}.jsonl")
        lines = [json.dumps({"body": text}) + "\n" for text in wanted({name: 1.0}, n)]
        Path(files[name]).write_text("".join(lines))
    _, _, pool = fitted(tmp_path / "p", TABLE, target=Target.of(files, (), "body"))
    weights = proxies.em(pool)
    assert pool.targets == ("sea", "law") and np.abs(weights - [0, 0.5, 0.5]).max() < 0.03
    found = proxies.measure_ngram(pool, weights)
    assert found.metric("loss") == pytest.approx(np.mean([of["loss"] for of in found.targets.values()]))
    assert not pool.has_choices
    with pytest.raises(StageError, match="has no accuracy"):
        found.metric("accuracy")


def test_resampled_texts_count_as_often_as_they_are_drawn(pool):
    counts = proxies.resampled(pool, np.random.default_rng(0))["target"]
    runs = proxies._Runs(pool.folder / "targets" / "000" / "ngram" / "texts")
    assert (
        counts.sum() == pytest.approx(len(np.unique(runs.text)), abs=len(runs.text)) and counts.max() > 1 and counts.min() == 0
    )
    moved = proxies.em(pool, counts={"target": counts})
    assert 0 < np.abs(moved - proxies.em(pool)).max() < 0.2


def test_a_model_of_documents_knows_which_are_taken(pool):
    group = pool.documents["group"].to_numpy()
    natural, best = (proxies.measure_documents(pool, pool.by_weights(w, 3000)) for w in (pool.natural, [0, 0.3, 0.7]))
    assert best.metric("loss") < natural.metric("loss") and best.tokens == 3000
    mine = np.flatnonzero(group == 2)[:7]
    chosen = Selection(mine, pool.documents["tokens"].to_numpy()[mine])
    units = ngram.load(pool.folder / "units")
    texts = [units.units.token(int(t)) for t in pool.tokens(2)[: int(chosen.lengths.sum())]]
    ends = np.cumsum(chosen.lengths).tolist()
    whole = [b"".join(texts[a:b]).decode() for a, b in itertools.pairwise([0, *ends])]
    model = ngram.train([pa.array(whole)], units=units).losses(pa.array(wanted({"sea": 0.7, "law": 0.3})))
    found = proxies.measure_documents(pool, chosen).metric("loss")
    assert found == pytest.approx(model.nll.sum() / model.tokens.sum(), rel=1e-6)


# --------------------------------------------------------------------------------------------- questions


def test_questions_with_their_choices(tmp_path):
    file = tmp_path / "q.jsonl"
    rows = [
        {"question": "Cells", "choices": ["divide", "sail"], "answer": 0},
        {"question": "Ships\n", "choices": {"text": ["divide", "sail"], "label": ["1", "2"]}, "answer": "2"},
        {"question": "One?", "choices": ["only"], "answer": "only"},
        {"question": "None?", "choices": None, "answer": "x"},
        {"question": "Wrong?", "choices": ["a", "b"], "answer": "Z"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:1]))
    other = tmp_path / "p.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows[1:2]))
    rest = tmp_path / "r.jsonl"
    rest.write_text("".join(json.dumps(row) + "\n" for row in rows[2:]))
    task = Task(phase="t", rank=0)
    found = list(target_questions([str(file), str(other), str(rest)], "t", task))
    assert found == [Question("Cells", (" divide", " sail"), 0), Question("Ships", ("\ndivide", "\nsail"), 1)]
    assert list(task.counters.values()) == [1]


def test_choices_beside_a_naive_oracle_of_n_gram_models(tiny):
    """The whole text less the question, by one model that is trained apart."""
    stage, _, pool = tiny
    units = ngram.load(pool.folder / "units")
    kept = [t for k, t in zip(TABLE["kind"].to_pylist(), TABLE["text"].to_pylist(), strict=True) if k == "law"]
    model = ngram.train([pa.array(kept)], units=units)
    right = []
    for question in stage.target.questions("q", "t", Task(phase="t", rank=0)):
        whole = [float(model.losses(pa.array([question.question + choice])).nll.sum()) for choice in question.choices]
        right.append(int(np.argmin(whole)) == question.right)
    found = proxies.measure_ngram(pool, [0, 1, 0]).targets["q"]
    assert (
        found["accuracy"] == pytest.approx(np.mean(right)) and found["items"] == 12 and found["chance"] == pytest.approx(1 / 3)
    )
    best = proxies.measure_ngram(pool, [0, 0, 1]).targets["q"]
    assert best["accuracy"] > 0.9 > 0.5 > found["accuracy"] and pool.about[0]["ngram"]["items"] == 12


def test_choices_beside_a_naive_oracle_of_transformers(tiny, tmp_path):
    """By transformers, one choice at a time and token by token; of long questions the end is read."""
    from curate.lm import neural

    stage, _, pool = tiny
    folder = llama(tmp_path / "model", TABLE["text"].to_pylist(), longest=64)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((pool.folder / "tokenizer" / name).read_bytes())
    model = neural.load(str(folder), device="cpu")
    found = proxies._evaluated(model, pool.folder / "targets" / "000" / "proxy", pool.about[0]["proxy"])
    right, per_byte = [], []
    for question in stage.target.questions("q", "t", Task(phase="t", rank=0)):
        scores = []
        for choice in question.choices:
            asked, reply = tokens_of(folder, question.question), tokens_of(folder, choice)[:32]
            ids = [*asked[len(asked) - min(len(asked), 32 - len(reply)) :], *reply]
            logs = said(folder, ids)
            scores.append(sum(logs[i, ids[i]] for i in range(len(ids) - len(reply), len(ids))))
        sizes = [len(choice.encode()) for choice in question.choices]
        right.append(int(np.argmax(scores)) == question.right)
        per_byte.append(int(np.argmax(np.array(scores) / sizes)) == question.right)
    assert found["accuracy"] == pytest.approx(np.mean(right)) and found["accuracy_per_byte"] == pytest.approx(np.mean(per_byte))


# --------------------------------------------------------------------------------------------- proxies


def test_a_proxy_loses_less_with_the_right_mixture_and_is_trained_once(tiny, tmp_path, monkeypatch):
    stage, task, pool = tiny
    task = replace(task, root=tmp_path)
    good, bad = (proxies.measured(task, stage, pool, TINY, np.array(w, float), 0) for w in ([0, 0, 1], [1, 1, 0]))
    assert good.metric("loss") < bad.metric("loss") - 0.2
    assert good.targets["q"]["accuracy"] > bad.targets["q"]["accuracy"]
    assert good.tokens == TINY.tokens and good.repeats > 1 and set(good.targets) == {"q", "target"}
    folder = tmp_path / "index" / "proxies"
    assert len(list(folder.glob("*.json"))) == 2 and not list(folder.glob("work/*/*"))
    monkeypatch.setattr("curate.lm.train.train", lambda *_, **__: pytest.fail("trained again"))
    assert proxies.measured(task, stage, pool, TINY, np.array([0, 0, 2.0]), 0) == good
    elsewhere = replace(TINY, device="auto")
    assert proxies.measured(task, stage, pool, elsewhere, pool.by_weights([0, 0, 1], TINY.tokens), 0) == good
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        proxies.measured(task, stage, pool, replace(TINY, lr=1e-3), np.array([0, 0, 1.0]), 0)


def test_what_a_kill_leaves_does_no_harm_and_two_at_once_do_not_meet(tiny, tmp_path, monkeypatch):
    from curate.lm import train as training

    _, _, pool = tiny
    config = dataclasses.replace(TINY, tokens=2048)
    chosen = pool.by_weights([0.2, 0.2, 0.6], config.tokens)
    first = proxies.measure(pool, config, chosen, tmp_path / "a", 0)
    work, key = tmp_path / "b", proxies.measurement_key(pool, config, chosen, 0)

    class Killed(BaseException):
        pass

    step = training._Run.step

    def dies(self, number):
        step(self, number)
        if number == 3:
            self._save(number + 1)
            raise Killed

    monkeypatch.setattr(training._Run, "step", dies)
    with pytest.raises(Killed):
        proxies.measure(pool, config, chosen, work, 0)
    assert (work / key / "model.training" / "checkpoint.safetensors").is_file()
    taken = []
    monkeypatch.setattr(training._Run, "step", lambda self, number: (taken.append(number), step(self, number))[1])
    with (work / f"{key}.lock").open("w") as lock:  # another one is at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert proxies.measure(pool, config, chosen, work, 0) == first and taken[0] == 0
        assert (work / key / "model.training" / "checkpoint.safetensors").is_file()
    taken.clear()
    assert proxies.measure(pool, config, chosen, work, 0) == first and taken[0] == 4
    assert not list(work.iterdir())


def test_damaged_measurements_are_made_again(tmp_path):
    stage = Pooled(config=NGRAM, target=Target())
    task = Task(phase="t", rank=0, folders=[(stage, "s", tmp_path)])
    found = Measured({"t": {"loss": 1.5, "tokens": 3}}, 7, 2)
    asked = []

    def measure():
        asked.append(1)
        return found

    for content in (None, "", "{}", '{"key": "k", "measured": {"targets": 3}}', '{"key": "other", "measured": {}}'):
        if content is not None:
            (tmp_path / "proxies" / "k.json").write_text(content)
        assert proxies.cached(task, stage, "k", measure) == found
    assert len(asked) == 5 and proxies.cached(task, stage, "k", measure) == found and len(asked) == 5


@pytest.mark.slow
def test_proxies_go_on_from_a_base_that_is_trained_once(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    config = dataclasses.replace(TINY, tokens=1024, base_tokens=6144)
    target = Target(texts=wanted({"sea": 1.0}, 12))
    stage, task, pool = fitted(tmp_path / "one", TABLE, config=config, target=target, root=tmp_path)
    found = proxies.measured(task, stage, pool, config, pool.natural, 0)
    from_nothing = proxies.measure(
        pool, dataclasses.replace(config, base_tokens=0), pool.by_weights(pool.natural, 1024), tmp_path, 0
    )
    assert found.metric("loss") < from_nothing.metric("loss") - 0.2
    monkeypatch.setattr("curate.lm.train.train", lambda *_, **__: pytest.fail("trained again"))
    _, _, again = fitted(tmp_path / "two", TABLE, config=config, target=target, root=tmp_path)
    assert (again.folder / "base" / "model.safetensors").is_file()


# --------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"models": "2m"}, "models is '2m'; known: 10m"),
        ({"tokens": 0}, "tokens is 0; it is a whole number of at least 1"),
        ({"tokens": 1.5}, "tokens is 1.5"),
        ({"window": 1}, "window is 1; it is a whole number of at least 2"),
        ({"vocabulary": 10}, "vocabulary is 10; give 257"),
        ({"lr": -1.0}, "lr is -1.0; it is a number above 0"),
        ({"batch_tokens": 100}, "batch_tokens is 100, less than a window of 256"),
        ({"tokens": 100}, "tokens is 100, less than one step of 256"),
        ({"base_tokens": 100}, "base_tokens is 100, less than one step"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"target_tokens": 0}, "target_tokens is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(parameters, said):
    with pytest.raises(RecipeError, match=f"^climb: {said}"):
        Config(**parameters).check("climb")


def test_batches_are_halved_until_there_are_steps_enough():
    assert Config().training(200_000)["batch_tokens"] == 1024
    assert 2.5e-3 < Config().training(200_000)["lr"] < 3.5e-3
    assert Config().training(10_000_000)["batch_tokens"] == 2048 and Config().training(10_000_000)["lr"] == 4e-3
    assert Config(models="60m").training(1 << 30)["batch_tokens"] == 65_536
    assert Config(window=512).training(600)["batch_tokens"] == 512
    assert Config(lr=1e-4, batch_tokens=512).training(200_000)["lr"] == 1e-4


def test_targets_of_a_stage(tmp_path):
    assert Target.of("a.txt", (), "text").files == (("target", ("a.txt",)),)
    assert Target.of(("a", "b"), ("t",), "text").names() == ("target",)
    assert Target.of({"x": "a", "y": ("b", "c")}, ("t",), "text").names() == ("x", "y", "target")
    assert Target.of((), (), "text").names() == ()
    with pytest.raises(RecipeError, match="climb: give `target`"):
        Target.of((), (), "text").asked("climb")
    for bad in (
        Target.of({"": "a"}, (), "text"),
        Target.of("", (), "text"),
        Target.of({"x": ()}, (), "t"),
        Target.of("a", (), ""),
    ):
        with pytest.raises(RecipeError, match="climb: target and column must not be empty"):
            bad.check("climb")
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "q", "choices": ["a", "b"], "answer": 1}\n')
    assert Target.of({"q": str(file)}, (), "text").has_choices("t") and not Target.of(
        {"q": str(file)}, ("x",), "text"
    ).has_choices("t")
