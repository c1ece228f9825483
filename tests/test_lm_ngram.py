"""The n-gram model against one in plain Python: the same probabilities, which sum to one."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from ngram_oracle import KneserNey

from curate import lm
from curate.errors import RecipeError, SourceError
from curate.lm import ngram


def corpus(seed, texts=60, words=40, length=30, noise=0.0):
    """Random texts with some structure, of words by a power law; noise: how often a word follows from nothing."""
    rng = np.random.default_rng(seed)
    names = ["w" + str(i).translate(str.maketrans("0123456789", "abcdefghij")) for i in range(words)]
    out = []
    for _ in range(texts):
        at, found = 0, []
        for _ in range(int(rng.integers(1, length))):
            at = int(rng.integers(words) if rng.random() < noise else (at * 3 + rng.zipf(1.6)) % words)
            found.append(names[at])
        out.append(" ".join(found))
    return out


def arrays(texts, size=7):
    return [pa.array(texts[i : i + size], pa.string()) for i in range(0, len(texts), size)]


def runs_of(model, texts, window=ngram.WINDOW):
    ids, bounds = model.encode(pa.array(texts, pa.string()))
    found = []
    for a, b in itertools.pairwise(bounds.tolist()):
        found += [ids[i : min(i + window, b)].tolist() for i in range(a, b, window)]
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("least", [1, 2])
def test_probabilities_are_those_of_the_oracle_and_sum_to_one(order, least):
    texts = corpus(order)
    model = ngram.train(arrays(texts), order=order, vocabulary=300, least=least)
    oracle = KneserNey(runs_of(model, texts), order, model.vocabulary, least)
    everything = list(range(model.vocabulary))
    contexts = [run[:n] for run in runs_of(model, corpus(99, texts=4)) for n in (0, 1, 2, 5)] + [[3, 3], [7, 260, 7]]
    for context in contexts:
        ids = np.array([[*context, token] for token in everything], np.int32)
        runs = np.arange(len(ids) + 1) * ids.shape[1]
        chances = np.exp(model.logprobs(ids.ravel(), runs)[ids.shape[1] - 1 :: ids.shape[1]])
        assert chances.sum() == pytest.approx(1, abs=2e-6)
        assert chances == pytest.approx([oracle.chance(context, token) for token in everything], rel=1e-5)


def test_losses_are_sums_of_what_its_tokens_have():
    texts = corpus(1)
    model = ngram.train(arrays(texts), vocabulary=280)
    some = pa.array([texts[0], "", None, "unheard of: ünïcode 漢字 " * 9, "w1", *texts[1:4]])
    for window in (1, 4, 7, 512):
        found = model.losses(some, window)
        ids, bounds = model.encode(some)
        for i, text in enumerate(some.to_pylist()):
            mine = slice(found.bounds[i], found.bounds[i + 1])
            runs = [ids[a : min(a + window, bounds[i + 1])] for a in range(bounds[i], bounds[i + 1], window)]
            expected = [-model.logprobs(run, np.array([0, len(run)])).sum() for run in runs]
            assert found.nll[mine] == pytest.approx(expected)
            assert found.tokens[mine].tolist() == [len(run) for run in runs]
            raw = (text or "").encode()
            ends = found.ends[mine].tolist()
            assert ends == sorted(ends) and (ends or [0])[-1] == len(raw)
            assert all(raw[:end].decode() is not None for end in ends)  # between two characters
        together = found.documents()[0]
        alone = [model.losses(pa.array([text], pa.string()), window).documents()[0][0] for text in some.to_pylist()]
        assert together.tolist() == alone
    tokens = model.token_losses(some, 5)
    assert np.diff(tokens.bounds).tolist() == np.minimum(np.diff(bounds), 5).tolist()
    assert tokens.logprobs[:5] == pytest.approx(model.logprobs(ids[:5], np.array([0, 5])), rel=1e-6)
    assert tokens.mean is None


def test_a_saved_model_says_the_same(tmp_path):
    texts = corpus(2)
    model = ngram.train(arrays(texts)).adapted(arrays(corpus(3)), 0.3)
    model.save(tmp_path / "a")
    again = lm.load(str(tmp_path / "a"))
    assert again.losses(pa.array(texts)).nll.tolist() == model.losses(pa.array(texts)).nll.tolist()
    ngram.train(arrays(texts, 1)).adapted(arrays(corpus(3), 100), 0.3).save(tmp_path / "b")
    again.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("texts", [[], [""], [None, ""]])
def test_nothing_to_count(texts):
    with pytest.raises(SourceError, match="the texts to train on are empty"):
        ngram.train([pa.array(texts, pa.string())])
    model = ngram.train(arrays(corpus(1)))
    for weight in (None, 0.5):
        with pytest.raises(SourceError, match="the texts to adapt to are empty"):
            model.adapted([pa.array(texts, pa.string())], weight)
    found = model.losses(pa.array(texts, pa.string()))
    assert found.bounds.tolist() == [0] * (len(texts) + 1) and not len(found.nll)
    assert model.encode(pa.array(texts, pa.string()))[1].tolist() == [0] * (len(texts) + 1)
    assert not len(model.token_losses(pa.array(texts, pa.string()), 5).ids)


def test_words_that_come_often_are_tokens_and_others_are_spelled_with_their_parts():
    texts = ["walking talking"] * 3 + [f"x{a}{b}ing" for a in "bcdfgh" for b in "klmn"]
    model = ngram.train(arrays(texts))
    tokens = [model.units.token(i) for i in range(model.vocabulary)]
    assert tokens[:256] == [bytes([i]) for i in range(256)]
    assert {b"walking", b" talking", b"ing"} < set(tokens[256:]) and len(set(tokens)) == len(tokens)
    ids, _ = model.encode(pa.array(["walking talking shaking"]))
    assert [tokens[i] for i in ids] == [b"walking", b" talking", b" ", b"s", b"h", b"a", b"king"]
    assert ngram.train(arrays(texts), vocabulary=256).vocabulary == 256
    few = ngram.train(arrays(texts), vocabulary=258)
    assert [few.units.token(i) for i in (256, 257)] in ([b"walking", b" talking"], [b" talking", b"walking"])


def test_arrays_and_blocks_change_nothing(monkeypatch, tmp_path):
    texts, target = [*corpus(4), "", None], corpus(5)

    def files(size, name):
        ngram.train(arrays(texts, size), room=6144).adapted(arrays(target, size)).save(tmp_path / name)
        return {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}

    expected = files(1000, "a")
    assert files(3, "b") == expected
    monkeypatch.setattr(ngram, "_BLOCK", 50)
    assert files(11, "c") == expected
    large = [array.cast(pa.large_string()) for array in arrays(["x", *texts], 1000)]
    assert ngram.train([large[0].slice(1)], room=6144).digest == ngram.train(arrays(texts), room=6144).digest


def test_the_vocabulary_is_that_of_the_first_bytes():
    early, late = ["one two"] * 10, ["six ten"] * 1000
    model = ngram.train(arrays(early + late), sample=60)
    tokens = {model.units.token(i) for i in range(256, model.vocabulary)}
    assert b"one" in tokens and b"six" not in tokens
    assert model.tables[0].tokens > 5000  # and those after them are counted all the same


@pytest.mark.parametrize("order", [2, 3, 4])
def test_what_is_forgotten_leaves_probabilities_that_sum_to_one(order):
    texts = corpus(6, texts=900, words=200, noise=0.5)
    model = ngram.train(arrays(texts), order=order, vocabulary=600, room=4 * ngram.WINDOW * order, least=1)
    free = ngram.train(arrays(texts), order=order, vocabulary=600, least=1)
    counts = ngram.Counts(model.units, order, 4 * ngram.WINDOW * order)
    for ids, bounds in ngram._encoded(arrays(texts), model.units):
        counts.add(ids, ngram._runs(bounds, ngram.WINDOW))
        assert len(counts.nodes) <= counts.base + counts.room
    assert counts.gone.sum() > 1000 and counts.tokens == model.tables[0].tokens
    for context in runs_of(model, texts[:5]):
        ids = np.array([[*context, token] for token in range(model.vocabulary)], np.int32)
        runs = np.arange(len(ids) + 1) * ids.shape[1]
        assert np.exp(model.logprobs(ids.ravel(), runs)[ids.shape[1] - 1 :: ids.shape[1]]).sum() == pytest.approx(1, abs=2e-6)
    held = pa.array(corpus(7, words=200, noise=0.5))
    lost = [m.losses(held).nll.sum() for m in (free, model, ngram.train(arrays(texts), order=1, units=model))]
    assert abs(lost[1] / lost[0] - 1) < 0.05 and lost[1] < lost[2]  # near what there was room for, better than no contexts


def test_counting_goes_on_after_probabilities_were_made():
    texts = corpus(8)
    model = ngram.train(arrays(texts), least=1)
    counts = ngram.Counts(model.units, 3)
    for i, (ids, bounds) in enumerate(ngram._encoded(arrays(texts), model.units)):
        counts.add(ids, ngram._runs(bounds, ngram.WINDOW))
        if i == 2:
            counts.table()
            counts.copy().table(least=2)
    again = counts.table()
    assert np.array_equal(again.slots, model.tables[0].slots) and np.array_equal(again.unigrams, model.tables[0].unigrams)


def test_an_adapted_model_is_the_weighted_mean():
    prior = ngram.train(arrays(corpus(1)))
    target = ngram.train(arrays(corpus(2)), units=prior, least=1)
    model = prior.adapted(arrays(corpus(2)), 0.3)
    assert model.weights == pytest.approx((0.7, 0.3)) and model.digest == prior.digest
    ids, bounds = prior.encode(pa.array(corpus(3)))
    chances = [np.exp(m.logprobs(ids, bounds)) for m in (prior, target, model)]
    assert chances[2] == pytest.approx(0.7 * chances[0] + 0.3 * chances[1])
    again = model.adapted(arrays(corpus(4)), 0.5)
    assert again.weights == pytest.approx((0.35, 0.15, 0.5))
    assert prior.adapted(arrays(corpus(2)), 0).logprobs(ids, bounds).tolist() == prior.logprobs(ids, bounds).tolist()
    assert prior.adapted(arrays(corpus(2)), 1).logprobs(ids, bounds).tolist() == target.logprobs(ids, bounds).tolist()


def test_the_weight_is_the_likeliest_for_texts_that_were_held_out():
    prior, texts = ngram.train(arrays(corpus(1))), corpus(2, texts=200)
    model = prior.adapted(arrays(texts))
    held, counts = ngram._Held(), ngram.Counts(prior.units, 3)
    for ids, bounds in ngram._encoded(arrays(texts, 1), prior.units):
        held.take(ids, bounds, counts)
    ids, runs = held.split(counts)
    assert 0.1 < len(ids) / (len(ids) + counts.tokens) < 0.35
    alone = ngram.NGram(prior.units, (counts.table(),), (1.0,))
    grid = np.linspace(0.005, 0.995, 199)
    chances = [np.exp(m.logprobs(ids, runs)) for m in (prior, alone)]
    best = grid[np.argmax([np.log((1 - w) * chances[0] + w * chances[1]).mean() for w in grid])]
    assert model.weights[1] == pytest.approx(best, abs=0.01)
    assert sum(t.tokens for t in model.tables[1:]) == len(ids) + counts.tokens
    same = prior.adapted(arrays(corpus(9, texts=200)))  # more of the same needs less weight than what is new
    other = prior.adapted(arrays([text.replace("w", "v") for text in corpus(9, texts=200)]))
    assert same.weights[1] < other.weights[1]


@pytest.mark.parametrize("texts", [["wb"], ["wb wc wd wb"], ["wc wd " * 40], corpus(2, texts=12)])
def test_few_texts_are_enough_to_adapt_to(texts):
    prior = ngram.train(arrays(corpus(1)))
    model = prior.adapted(arrays(texts))
    assert 0 <= model.weights[1] <= 1
    assert model.tables[1].tokens == len(prior.encode(pa.array(texts))[0])


def test_weights_of_a_mixture_maximise_its_likelihood():
    rng = np.random.default_rng(0)
    logprobs = np.log(rng.dirichlet([0.5] * 9, size=(3, 400))[..., 0])
    found = ngram.shares(logprobs)
    assert found.sum() == pytest.approx(1)
    best = np.log(found @ np.exp(logprobs)).sum()
    for other in rng.dirichlet([1, 1, 1], size=500):
        assert np.log(other @ np.exp(logprobs)).sum() <= best + 1e-3
    assert ngram.shares(np.zeros((2, 0))).tolist() == [0.5, 0.5]


def test_what_cannot_be_asked_for():
    model, other = ngram.train(arrays(corpus(1))), ngram.train(arrays(corpus(2, words=9)))
    for options, says in [
        ({"order": 0}, "order from 1 to 8"),
        ({"order": 9}, "order from 1 to 8"),
        ({"vocabulary": 255}, "vocabulary of 255"),
        ({"vocabulary": 1 << 21}, "vocabulary of 2097152"),
        ({"room": 100}, "room for 100 n-grams: give 6144"),
    ]:
        with pytest.raises(RecipeError, match=says):
            ngram.train(arrays(corpus(1)), **options)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(RecipeError, match="give a share from 0 to 1"):
            model.adapted(arrays(corpus(2)), weight)
    with pytest.raises(RecipeError, match="different tokens"):
        ngram.mixture([model, other], [0.5, 0.5])
    with pytest.raises(RecipeError, match="of sum 1"):
        ngram.mixture([model, model], [0.5, 0.6])
    with pytest.raises(RecipeError, match="window of 0"):
        model.losses(pa.array(["x"]), 0)
    with pytest.raises(ValueError, match="numbers from 0"):
        model.logprobs(np.array([model.vocabulary], np.int32), np.array([0, 1]))


def test_a_folder_that_holds_no_sound_model(tmp_path):
    with pytest.raises(RecipeError, match=r"asker: .*no is not an n-gram model"):
        ngram.load(tmp_path / "no", "asker")
    model = ngram.train(arrays(corpus(1)))

    def broken(says, file, change):
        model.save(tmp_path / "m")
        change(tmp_path / "m" / file)
        with pytest.raises(SourceError, match=f"asker: .*{says}"):
            ngram.load(tmp_path / "m", "asker")

    def about(**changes):
        return lambda path: path.write_bytes(json.dumps({**json.loads(path.read_bytes()), **changes}).encode())

    def table(**changes):
        def change(path):
            with np.load(path) as file:
                arrays = dict(file)
            np.savez(path, **{**arrays, **changes})

        return change

    part = json.loads((model.save(tmp_path / "m") / "ngram.json").read_bytes())["tables"][0]
    slots, unigrams = model.tables[0].slots, model.tables[0].unigrams
    broken("not the description", "ngram.json", lambda path: path.write_bytes(b"{"))
    broken("not the description", "ngram.json", lambda path: path.write_bytes(b"[1]"))
    broken("format 9", "ngram.json", about(format=9))
    broken("not the description", "ngram.json", about(tables=[{"file": "table-0.npz"}]))
    broken("weights", "ngram.json", about(tables=[{**part, "weight": 0.5}]))
    broken("weights", "ngram.json", about(tables=[]))
    broken("probabilities", "ngram.json", about(tables=[{**part, "order": 99}]))
    broken("missing", "table-0.npz", lambda path: path.unlink())
    broken("does not hold", "table-0.npz", lambda path: path.write_bytes(path.read_bytes()[:-400]))
    broken("does not hold", "words.npz", lambda path: path.write_bytes(b""))
    broken("does not hold", "table-0.npz", table(slots=np.array([object()])))
    broken("slots .* not uint64", "table-0.npz", table(slots=slots.astype(np.int64)))
    broken("probabilities", "table-0.npz", table(slots=slots[:, :1]))
    broken("probabilities", "table-0.npz", table(slots=np.ones_like(slots)))  # a search there would never end
    broken("probabilities", "table-0.npz", table(slots=slots[:0]))
    broken("probabilities", "table-0.npz", table(unigrams=unigrams[:-1]))
    broken("probabilities", "table-0.npz", table(unigrams=np.full_like(unigrams, np.nan)))
    broken("does not hold words", "words.npz", table(bounds=model.units.bounds[::-1].copy()))
    broken("does not hold words", "words.npz", table(bounds=model.units.bounds[:0]))


def test_hostile_texts_are_scored():
    from curate.testing import hostile_texts

    rows = hostile_texts()
    model = ngram.train([pa.array(rows, pa.string())])
    model = model.adapted([pa.array(rows[:9], pa.string())])
    found = model.losses(pa.array(rows, pa.string()))
    assert np.isfinite(found.nll).all() and (found.nll > 0).all()
    empty = [not row for row in rows]
    assert (np.diff(found.bounds) == 0).tolist() == empty


def test_a_pair_tells_the_target_from_others(shared_data):
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "domains" / "domains.parquet", columns=["text", "domain"])
    rng = np.random.default_rng(0)
    table = table.take(np.sort(rng.permutation(len(table))[:2500]))
    medical = np.array(table["domain"].to_pylist()) == "medical"
    texts, part = table["text"].combine_chunks(), rng.integers(0, 3, len(table))
    pool, target, held = (pa.array(m) for m in (part == 0, (part == 1) & medical, part == 2))
    prior = ngram.train([texts.filter(pool)])
    flat = ngram.train([texts.filter(pool)], order=1, units=prior)
    conditional = prior.adapted([texts.filter(target)])
    (before, tokens), (after, _) = (m.losses(texts.filter(held)).documents() for m in (prior, conditional))
    assert before.sum() < 0.8 * flat.losses(texts.filter(held)).nll.sum()
    score, truth = (before - after) / tokens, medical[part == 2]
    assert after[truth].sum() < 0.95 * before[truth].sum()
    assert (score[truth][:, None] > score[~truth]).mean() > 0.98
