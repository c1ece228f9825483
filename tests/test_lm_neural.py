"""Losses under models of transformers, beside transformers itself, one text at a time in single precision."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny_models import texts as some_texts

from curate import lm
from curate.lm.tokenizer import SEPARATOR, train_tokenizer

TEXTS = [*some_texts(40, longest=90), "", None, "a", "Zürich, 1999 👩‍👩‍👧‍👦!", " \n", *some_texts(2, seed=1, longest=700)]


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
        found.append((np.array(given[1:]), torch.log_softmax(logits, -1).numpy()))
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


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = request.param.partition(" ")[0]
    return make(tmp_path_factory.mktemp("model"), kind, **ARCHITECTURES[request.param])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("llama"), "LlamaForCausalLM")


def test_losses_are_those_of_transformers(model: Path) -> None:
    scorer = lm.load(str(model), device="cpu")
    found = scorer.losses(pa.array(TEXTS), window=50)
    assert scorer.vocabulary == 311
    for i, text in enumerate(TEXTS):
        rows = slice(found.bounds[i], found.bounds[i + 1])
        wanted = oracle(model, text, 50)
        assert found.tokens[rows].tolist() == [len(ids) for ids, _ in wanted]
        sums = [-logs[np.arange(len(ids)), ids].sum() for ids, logs in wanted]
        assert np.abs(found.nll[rows] - sums).max(initial=0) <= 1e-5 * 50
        assert (np.abs(found.nll[rows] - sums) <= 1e-5 * found.tokens[rows]).all()
