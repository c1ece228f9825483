"""Tiny transformers with random weights, saved as real ones are: what a test needs to go through the code of a real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from corpus import WORDS

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(WORDS)), *"abcdefghijklmnopqrstuvwxyz", ".", ","]
PIECES += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"]


def tokenizer(folder: Path, limit: int = 512) -> Path:
    """A WordPiece tokenizer in the format of BERT's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast

    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder.mkdir(parents=True, exist_ok=True)
    BertTokenizerFast(tokenizer_object=made, model_max_length=limit).save_pretrained(folder)
    return folder


def bert(folder: Path, kind: str = "BertModel", seed: int = 0, spread: float = 0.5, **config: Any) -> Path:
    """A model of two layers of 32 numbers, of a class of transformers (BERT's, unless another is named), with its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(seed)
    about = {
        "vocab_size": len(PIECES), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "max_position_embeddings": 512, "initializer_range": spread, "pad_token_id": 0, **config,
    }  # fmt: skip
    model = getattr(transformers, kind)
    model(model.config_class(**about)).save_pretrained(folder, safe_serialization=True)
    return tokenizer(folder)


def sentence_transformer(folder: Path, seed: int = 0) -> Path:
    """The same as a model of sentence-transformers: the mean of its tokens, of length one."""
    bert(folder, seed=seed)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir()
    (folder / "2_Normalize").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128, "do_lower_case": False}))
    return folder


def safetensors(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write tensors with the library of the format."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, path)
    return path


def texts(n: int, seed: int = 0, longest: int = 60) -> list[str]:
    """Texts of random words, of all lengths."""
    rng = np.random.RandomState(seed)
    return [" ".join(rng.choice(WORDS, rng.randint(1, longest))) + "." for _ in range(n)]


def llama(folder: Path, seed: int = 0) -> Path:
    """A causal model of two layers with random weights, a tokenizer of bytes and a chat template: what a server can serve."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    special = ["<s>", "</s>", "<|user|>", "<|assistant|>"]
    made = Tokenizer(models.BPE(vocab={**letters, **{s: len(letters) + i for i, s in enumerate(special)}}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = (
        "<s>{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(letters) + len(special),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.5,
        bos_token_id=len(letters),
        eos_token_id=len(letters) + 1,
        pad_token_id=len(letters) + 1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)
    return folder
