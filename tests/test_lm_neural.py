"""Losses under models of transformers, beside transformers itself, one text at a time in single precision."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny_models import texts as some_texts

from curate import lm
from curate.errors import RecipeError, SourceError
from curate.lm import neural
from curate.lm.tokenizer import SEPARATOR, train_tokenizer

TEXTS = [*some_texts(9, longest=50), "", None, "a", "Zürich, 1999 👩‍👩‍👧‍👦!", " \n", *some_texts(2, seed=1, longest=90)]
WINDOW = 50


def make(folder: Path, kind: str, seed: int = 0, separator: bool = True, longest: int = 128, **about: Any) -> Path:
    """A model of a class of transformers with random weights, and a tokenizer trained on `TEXTS`."""
    import torch
    import transformers

    train_tokenizer([pa.array(TEXTS)], folder, vocabulary=300)
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = {
        **({"n_embd": 32, "n_layer": 2, "n_head": 4} if kind.startswith("GPT2") else shape),
        "vocab_size": 311, "max_position_embeddings": longest, "initializer_range": 0.3,
        "bos_token_id": 0 if separator else None, "eos_token_id": 0 if separator else None, "pad_token_id": None, **about,
    }  # fmt: skip
    model = getattr(transformers, kind)
    model = model(model.config_class(**config))
    with torch.no_grad():  # ones and zeros would hide what they do
        for name, values in model.named_parameters():
            if "norm" in name or "ln_" in name or "bias" in name:
                values.add_(0.3 * torch.randn_like(values))
    model.save_pretrained(folder, safe_serialization=True)
    if not separator:
        rename(folder, "<none>")
    return folder


def rename(folder: Path, token: str) -> None:
    """A tokenizer without a token that stands between documents."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((folder / name).read_text().replace(SEPARATOR, token))
    held = json.loads((folder / "tokenizer_config.json").read_text())
    kept = {key: value for key, value in held.items() if key not in ("bos_token", "eos_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**held, "bos_token_id": None, "eos_token_id": None}))


@functools.lru_cache
def read(folder: Path) -> tuple[Any, Any]:
    """The model and the tokenizer by transformers."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def oracle(folder: Path, text: str | None, window: int, separator: int | None = 0) -> list[tuple[np.ndarray, Any]]:
    """(ids, float64 ln p of all tokens at each place) of each window of a text."""
    import torch

    model, tokenizer = read(folder)
    ids = tokenizer(text or "", add_special_tokens=False)["input_ids"]
    found = []
    for at in range(0, len(ids), window):
        part = ids[at : at + window]
        given = part if separator is None else [separator, *part]
        with torch.no_grad():
            logits = model(torch.tensor([given])).logits[0, :-1].double()
        found.append((np.array(given[1:], np.int64), torch.log_softmax(logits, -1).numpy()))
    return found


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {"tie_word_embeddings": True},
    "LlamaForCausalLM untied": {
        "tie_word_embeddings": False,
        "num_key_value_heads": 2,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "GPT2LMHeadModel": {},
    "GPTNeoXForCausalLM": {"tie_word_embeddings": False},
    "Gemma2ForCausalLM": {"head_dim": 8, "num_key_value_heads": 2, "final_logit_softcapping": 3.0, "sliding_window": 32},
    "CohereForCausalLM": {"logit_scale": 0.25},
    "MixtralForCausalLM": {"num_local_experts": 3, "num_key_value_heads": 4},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are slower on several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = request.param.partition(" ")[0]
    return make(tmp_path_factory.mktemp("model"), kind, **ARCHITECTURES[request.param])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("llama"), "LlamaForCausalLM")


def test_losses_are_those_of_transformers(model: Path) -> None:
    scorer = lm.load(str(model), device="cpu")
    found = scorer.losses(pa.array(TEXTS), window=WINDOW)
    assert scorer.vocabulary == 311
    assert max(np.diff(found.bounds)) > 2  # a text that is longer than a window
    for i, text in enumerate(TEXTS):
        rows = slice(found.bounds[i], found.bounds[i + 1])
        wanted = oracle(model, text, WINDOW)
        assert found.tokens[rows].tolist() == [len(ids) for ids, _ in wanted]
        sums = np.array([-logs[np.arange(len(ids)), ids].sum() for ids, logs in wanted])
        assert (np.abs(found.nll[rows] - sums) <= 1e-5 * found.tokens[rows]).all()


def test_token_losses_are_those_of_transformers(model: Path) -> None:
    found = lm.load(str(model), device="cpu").token_losses(pa.array(TEXTS), 100)
    for i, text in enumerate(TEXTS):
        rows = slice(found.bounds[i], found.bounds[i + 1])
        for ids, logs in oracle(model, text, 100)[:1]:
            mean = (np.exp(logs) * logs).sum(1)
            variance = (np.exp(logs) * logs**2).sum(1) - mean**2
            assert found.ids[rows].tolist() == ids.tolist()
            assert np.abs(found.logprobs[rows] - logs[np.arange(len(ids)), ids]).max() <= 1e-4
            assert found.mean is not None and np.abs(found.mean[rows] - mean).max() <= 1e-4
            assert found.variance is not None and np.allclose(found.variance[rows], variance, rtol=1e-3, atol=1e-3)
    assert len(found.ids) == found.bounds[-1] > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_text_has_the_same_bytes_whatever_stands_beside_it(model: Path, dtype: str) -> None:
    scorer = neural.load(str(model), device="cpu", dtype=dtype)
    many = [*TEXTS, *some_texts(24, seed=2, longest=30)]
    whole, tokens = scorer.losses(pa.array(many), WINDOW), scorer.token_losses(pa.array(many), 64)
    order = np.random.default_rng(0).permutation(len(many))
    for rows in (order, order[:5], order[5:6], [many.index(None)]):
        part = pa.array([many[i] for i in rows], pa.string())
        losses, logs = scorer.losses(part, WINDOW), scorer.token_losses(part, 64)
        for at, i in enumerate(rows):
            here, there = slice(*losses.bounds[at : at + 2]), slice(*whole.bounds[i : i + 2])
            for name in ("nll", "tokens", "ends"):
                assert getattr(losses, name)[here].tobytes() == getattr(whole, name)[there].tobytes()
            here, there = slice(*logs.bounds[at : at + 2]), slice(*tokens.bounds[i : i + 2])
            for name in ("ids", "logprobs", "mean", "variance"):
                assert getattr(logs, name)[here].tobytes() == getattr(tokens, name)[there].tobytes()


def test_windows_end_between_characters_and_at_the_end_of_the_text(llama: Path) -> None:
    texts = [*TEXTS, "ü👩" * 200, "x " * 500]
    found = lm.load(str(llama), device="cpu").losses(pa.array(texts), 16)
    for i, text in enumerate(texts):
        data = (text or "").encode()
        ends = found.ends[found.bounds[i] : found.bounds[i + 1]].tolist()
        assert ends == sorted(ends)
        assert "".join(data[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)) == (text or "")


def test_texts_without_tokens_have_no_windows(llama: Path) -> None:
    scorer = lm.load(str(llama), device="cpu")
    for texts in ([], ["", None], ["", "a", None]):
        array = pa.array(texts, pa.string())
        found, logs = scorer.losses(array, 64), scorer.token_losses(array, 10)
        counts = [1 if text else 0 for text in texts]
        assert np.diff(found.bounds).tolist() == np.diff(logs.bounds).tolist() == counts
        assert found.tokens.tolist() == [1] * sum(counts) and (found.nll > 0).all()
        assert len(logs.logprobs) == sum(counts)


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPT2LMHeadModel"])
def test_without_a_separator_the_first_token_is_not_predicted(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path, kind, separator=False)
    scorer = neural.load(str(folder), device="cpu")
    assert scorer.separator is None
    found, logs = scorer.losses(pa.array(TEXTS), WINDOW), scorer.token_losses(pa.array(TEXTS), 100)
    for i, text in enumerate(TEXTS):
        rows = slice(found.bounds[i], found.bounds[i + 1])
        wanted = oracle(folder, text, WINDOW, None)
        assert found.tokens[rows].tolist() == [len(ids) for ids, _ in wanted]
        sums = [-logs_[np.arange(len(ids)), ids].sum() for ids, logs_ in wanted]
        assert np.abs(found.nll[rows] - sums).max(initial=0) <= 1e-5 * WINDOW
        first = oracle(folder, text, 100, None)[:1]
        assert logs.ids[logs.bounds[i] : logs.bounds[i + 1]].tolist() == [n for ids, _ in first for n in ids]
    alone = TEXTS.index("a")
    assert found.tokens[found.bounds[alone]] == found.nll[found.bounds[alone]] == 0


def test_bfloat16_is_near(llama: Path) -> None:
    exact = neural.load(str(llama), device="cpu", dtype="float32").losses(pa.array(TEXTS), WINDOW)
    rough = neural.load(str(llama), device="cpu", dtype="bfloat16").losses(pa.array(TEXTS), WINDOW)
    assert np.abs(exact.nll - rough.nll).max() > 0
    assert np.abs(exact.documents()[0].sum() / rough.documents()[0].sum() - 1) < 0.01


def test_a_tokenizer_of_transformers_where_there_is_no_tokenizer_json(tmp_path: Path) -> None:
    whole, parts = make(tmp_path / "whole", "GPT2LMHeadModel"), tmp_path / "parts"
    shutil.copytree(whole, parts)
    held = json.loads((whole / "tokenizer.json").read_text())["model"]
    (parts / "tokenizer.json").unlink()
    (parts / "vocab.json").write_text(json.dumps(held["vocab"]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in held["merges"]]
    (parts / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    config = json.loads((parts / "tokenizer_config.json").read_text())
    (parts / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "GPT2Tokenizer"}))
    one, other = (lm.load(str(folder), device="cpu").losses(pa.array(TEXTS), 16) for folder in (whole, parts))
    for name in ("bounds", "nll", "tokens", "ends"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


def test_the_side_on_which_a_tokenizer_pads_does_not_matter(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    config = json.loads((llama / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    one, other = (lm.load(str(folder), device="cpu").losses(pa.array(TEXTS)[:12], 40) for folder in (llama, tmp_path))
    assert one.nll.tobytes() == other.nll.tobytes()


def test_a_window_that_is_too_long_names_the_longest(llama: Path) -> None:
    scorer = lm.load(str(llama), device="cpu")
    assert neural.limit(str(llama)) == 128
    assert scorer.losses(pa.array(TEXTS), 128).tokens.max() == 128
    with pytest.raises(RecipeError, match="at most 128 tokens"):
        scorer.losses(pa.array(TEXTS), 129)
    with pytest.raises(RecipeError, match="at most 128 tokens"):
        scorer.token_losses(pa.array(TEXTS), 512)


def test_losses_that_are_not_numbers_name_the_model(tmp_path: Path) -> None:
    import torch
    import transformers

    for kind, weight in (("LlamaForCausalLM", "model.norm.weight"), ("GPT2LMHeadModel", "transformer.ln_f.weight")):
        folder = make(tmp_path / kind, kind)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            model.get_parameter(weight)[3] = torch.nan
        model.save_pretrained(folder)
        scorer = lm.load(str(folder), device="cpu", what="loss")
        for ask in (
            lambda scorer=scorer: scorer.losses(pa.array(["a b"])[:1], 8),
            lambda s=scorer: s.token_losses(pa.array(["a"]), 8),
        ):
            with pytest.raises(SourceError, match=f"loss: .*{kind} gives losses that are not numbers"):
                ask()


def test_models_that_cannot_be_used_say_why(llama: Path, tmp_path: Path) -> None:
    import torch

    both = make(tmp_path / "both", "BertLMHeadModel", is_decoder=True)
    config = json.loads((both / "config.json").read_text())
    (both / "config.json").write_text(json.dumps({**config, "is_decoder": False}))
    with pytest.raises(RecipeError, match="no causal language model"):
        lm.load(str(both), device="cpu")

    pickled = tmp_path / "pickled"
    shutil.copytree(llama, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(SourceError, match="holds no model that can be read"):
        lm.load(str(pickled), device="cpu")

    small = tmp_path / "small"
    shutil.copytree(make(tmp_path / "made", "LlamaForCausalLM", vocab_size=280), small)
    with pytest.raises(SourceError, match="knows only 280"):
        lm.load(str(small), device="cpu").losses(pa.array(some_texts(40)), 64)

    with pytest.raises(RecipeError, match="no such model"):
        lm.load(str(tmp_path / "nowhere"), device="cpu")
    with pytest.raises(RecipeError, match="has no config"):
        (tmp_path / "empty").mkdir()
        lm.load(str(tmp_path / "empty"), device="cpu")
    with pytest.raises(RecipeError, match="float64"):
        neural.load(str(llama), device="cpu", dtype="float64")


def test_where_memory_runs_out_blocks_are_halved(llama: Path) -> None:
    import torch

    scorer = neural.load(str(llama), device="cpu")
    whole = scorer.losses(pa.array(TEXTS), WINDOW)
    network, seen = scorer._network, []

    class Narrow:
        def __getattr__(self, name: str) -> Any:
            return getattr(network, name)

        def __call__(self, given: np.ndarray, *more: Any) -> np.ndarray:
            seen.append(given.size)
            if given.size > 128:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return network(given, *more)

    scorer._network = Narrow()  # type: ignore[assignment]
    found = scorer.losses(pa.array(TEXTS), WINDOW)
    assert max(seen) > 128 >= seen[-1]
    assert np.abs(found.nll - whole.nll).max() <= 1e-5 * WINDOW


def test_padding_follows_from_the_length_alone() -> None:
    sizes = np.arange(1, 40_000)
    lengths = neural._padded(sizes, None)
    assert (lengths >= sizes).all() and (np.diff(lengths) >= 0).all() and len(set(lengths)) < 40
    assert (lengths[600:] <= 1.6 * sizes[600:]).all()
    for size in (1, 512, 513, 8192, 8193, 12_289):
        assert neural._padded(np.array([size]), None) == lengths[size - 1]
    assert neural._padded(np.array([3, 90, 100]), 100).tolist() == [16, 96, 100]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_is_the_same_for_both_kinds_of_device(groups: int) -> None:
    import torch

    torch.manual_seed(0)
    for places in (1, neural.QUERIES - 1, neural.QUERIES, 2 * neural.QUERIES + 3):
        queries = torch.randn(2, 4, places, 8)
        keys, values = torch.randn(2, 2, groups, places, 8)
        one, other = (attend(queries, keys, values) for attend in (neural._causal, neural._causal_by_rows))
        assert (one - other).abs().max() <= 1e-5
