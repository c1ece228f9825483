"""Tiny language models that have learnt some texts, and what transformers says about a text, one at a time and step by step."""

from __future__ import annotations

import functools
import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.lm.tokenizer import train_tokenizer
from curate.stage import GlobalStage, Stage, Task
from curate.testing import _fit, _numbered


def llama(
    folder: Path,
    texts: Sequence[str],
    epochs: int = 0,
    seed: int = 0,
    longest: int = 256,
    known: Sequence[str] = (),
    **about: Any,
) -> Path:
    """A Llama of two small layers with random weights, or after some epochs over the texts, in batches of 8.

    known: what its tokenizer has learnt from, where that is not `texts`.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # products are so small that a second one is in the way

    train_tokenizer([pa.array(known or texts)], folder, vocabulary=400)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    shape = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    config = {
        **shape, "vocab_size": len(tokenizer), "max_position_embeddings": longest, "bos_token_id": 0, "eos_token_id": 0,
        "initializer_range": 0.02 if epochs else 0.3, "tie_word_embeddings": True, **about,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**config))
    if epochs:
        found = [[0, *tokenizer(text, add_special_tokens=False)["input_ids"]][:longest] for text in texts]
        rows = torch.zeros(len(found), max(map(len, found)), dtype=torch.long)
        wanted = torch.full_like(rows, -100)
        for i, ids in enumerate(found):
            rows[i, : len(ids)] = wanted[i, : len(ids)] = torch.tensor(ids)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(epochs):
            for few in torch.randperm(len(rows)).split(8):
                optimiser.zero_grad()
                model(input_ids=rows[few], labels=wanted[few]).loss.backward()
                optimiser.step()
    model.save_pretrained(folder, safe_serialization=True)
    return folder


@functools.lru_cache
def read(folder: Path) -> tuple[Any, Any]:
    """The model and the tokenizer by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def tokens_of(folder: Path, text: str) -> list[int]:
    return read(folder)[1](text, add_special_tokens=False)["input_ids"]


def said(folder: Path, ids: list[int], separator: bool = True) -> np.ndarray:
    """float64 (tokens, vocabulary): ln p of all tokens in each place of one window that is predicted."""
    import torch

    if not ids:
        return np.empty((0, len(read(folder)[1])))
    with torch.no_grad():
        logits = read(folder)[0](torch.tensor([[0, *ids] if separator else ids])).logits[0, :-1].double()
    return torch.log_softmax(logits, -1).numpy()


def mean_loss(folder: Path, text: str, most: int) -> float:
    ids = tokens_of(folder, text)[:most]
    logs = said(folder, ids)
    return -sum(logs[i, token] for i, token in enumerate(ids)) / len(ids)


def membership(
    folder: Path, text: str, corpus: Sequence[str | None], other: Path, most: int = 256, words: int = 512, least: int = 32
) -> dict[str, float] | None:
    """The scores of one text as their definitions say, with loops; None for a short one."""
    text = " ".join(text.split(" ")[:words])
    ids = tokens_of(folder, text)[:most]
    if len(ids) < least:
        return None
    logs = said(folder, ids)
    own = [logs[i, token] for i, token in enumerate(ids)]
    found: dict[str, float] = {}
    for ratio in (5, 10, 20, 30, 40, 50, 60):
        lowest = sorted(own)[: max(1, len(own) * ratio // 100)]
        found[f"min_k_{ratio}"] = -sum(lowest) / len(lowest)
    places = []
    for row, log in zip(logs, own, strict=True):
        mean = sum(np.exp(x) * x for x in row)
        variance = sum(np.exp(x) * x * x for x in row) - mean * mean
        places.append((log - mean) / variance**0.5)
    lowest = sorted(places)[: len(places) * 20 // 100]
    found["min_k_plus_plus_20"] = -sum(lowest) / len(lowest)
    counts = Counter(token for one in corpus for token in tokens_of(folder, one or "")[:1024])
    size = read(folder)[0].config.vocab_size
    seen, evidence = set(), []
    for token, log in zip(ids, own, strict=True):
        if token not in seen:
            frequency = (counts[token] + 1) / (sum(counts.values()) + size)
            evidence.append(min(np.exp(log) * np.log(1 / frequency), 0.01))
        seen.add(token)
    found["dc_pdd"] = -sum(evidence) / len(evidence)
    loss = -sum(own) / len(own)
    found["perplexity"] = np.exp(loss)
    found["zlib"] = loss / len(zlib.compress(bytes(text, "utf-8")))
    found["lowercase"] = loss / mean_loss(folder, text.lower(), most)
    found["reference"] = loss - mean_loss(other, text, most)
    return found


def notes(stage: Stage, table: pa.Table) -> dict[str, int]:
    """What a stage counts over a table."""
    with tempfile.TemporaryDirectory() as folder:
        task = Task(phase="t", rank=0, shard=0, folders=[(stage, "t", Path(folder))], shards=["00000.parquet"])
        if isinstance(stage, GlobalStage):
            _fit(stage, task, [_numbered(table)], 1024)
        batch = _numbered(table).to_batches()[0]
        stage.open(task)(batch.select(["_row", *stage.reads()]))
    return task.counters
